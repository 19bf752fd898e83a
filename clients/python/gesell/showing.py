"""How the wallet shows things to people: aligned tables, exact amounts, local times.

Owns layout, and that what others wrote reaches a terminal as text and nothing else (`foreign`). On a terminal tables
are drawn by rich; else they are plain aligned text that is never cut, so that it can be kept or searched. Knows no
ledger.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gesell.amount import Amount
from gesell.answers import HistoryLine, moment
from gesell_protocol.amounts import format_amount
from gesell_protocol.fields import Currency
from gesell_protocol.foreign import is_unfit, one_line
from gesell_protocol.names import did_of, id_text
from gesell_protocol.receipts import Receipt

_WORDS: Final = {
    "issue": "issued",
    "retire": "retired",
    "grant": "grant from the pool",
    "share": "share of the pool",
    "melt": "melt",
    "leave": "left to the pool",
}


def say(text: str = "", *, strong: bool = False) -> None:
    """Print a line, bold on a terminal if `strong`."""
    Console(highlight=False).print(Text(one_line(text), style="bold" if strong else ""), soft_wrap=True)


def say_lines(text: str) -> None:
    """Print a text of several lines, whose makers have kept others from ending one."""
    for line in text.split("\n"):
        say(line)


def tell(*lines: str) -> None:
    """Say something to the person on stderr, where it is in no program's way."""
    for line in lines:
        print(one_line(line), file=sys.stderr, flush=True)


def is_agreed(question: str) -> bool:
    """Ask on stderr, and read the answer; anything but y or yes is a no."""
    print(f"{one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a value as JSON, in which what is no text is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(_escaped(char) if char != "\n" and is_unfit(char) else char for char in text))


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Print rows under titles; columns in `right` are aligned to the right. Empty columns are left out."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    kept = [index for index in range(len(titles)) if any(row[index] for row in rows)]
    titles = [titles[index] for index in kept]
    ends = {kept.index(index) for index in right if index in kept}
    rows = [[row[index] for index in kept] for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        _plain(titles, rows, ends)
        return
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, title in enumerate(titles):
        # Only the last column, a note or a did, gives way when the terminal is narrow.
        last = index == len(titles) - 1
        drawn.add_column(title, justify="right" if index in ends else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style="dim" if "melt" in row else "") for cell in row))
    console.print(drawn)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values under each other, leaving out those without a value."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"  {name.ljust(width)}  {value}")


def column(amounts: Sequence[Amount], *, signed: bool = False) -> list[str]:
    """Amounts as one column: equal decimals, as many as the finest needs and at least two where there are."""
    fractions = [len(amount.text.partition(".")[2]) for amount in amounts]
    decimals = max([min(2, amounts[0].scale), *fractions]) if amounts else 0
    texts = []
    for amount in amounts:
        whole, _, fraction = amount.text.partition(".")
        sign = "+" if signed and amount.grains > 0 else ""
        texts.append(sign + whole + ("." + fraction.ljust(decimals, "0") if decimals else ""))
    return texts


def when(ms: int) -> str:
    """A moment in local time, to the minute."""
    return moment(ms).astimezone().strftime("%Y-%m-%d %H:%M")


def parse_when(text: str) -> datetime:
    """An ISO date or time; without a time zone it is local. Raises `ValueError`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no ISO date or time like 2027-01-01 or 2027-01-01T12:00") from None
    return at if at.tzinfo is not None else at.astimezone()


def short(did: str) -> str:
    """A did short enough for a table: its first and last letters."""
    return did if len(did) < 24 else f"{did[8:14]}…{did[-6:]}"


def what(line: HistoryLine) -> str:
    """What a line of a member's history says happened."""
    if line.reason == "pay":
        word = "paid" if line.amount.grains < 0 else "received"
        return f"{word} for {line.category}" if line.category else word
    if line.reason == "gift":
        return "gave" if line.amount.grains < 0 else "was given"
    if line.reason == "writeoff":
        return "debt written off" if line.amount.grains > 0 else "bore a loss"
    return _WORDS.get(line.reason, line.reason)


def show_receipt(receipt: Receipt, sentence: str, *, currency: Currency | None, as_json: bool) -> None:
    """Say what a statement did; `{moved}` in the sentence stands for the sum that moved.

    `currency` has the code and decimals of what moved, money or gifts; None for who may not see it yet: amounts are
    grains then.
    """
    if as_json:
        show_json(receipt_json(receipt, scale=0 if currency is None else currency.scale))
        return
    own = sum(posting.amount for posting in receipt.postings if posting.reason != "melt" and posting.amount > 0)
    moved = f"{own} grains" if currency is None else Amount(own, currency.code, currency.scale)
    say(f"{sentence.replace('{moved}', str(moved))}.")
    say(f"  entry {receipt.seq} · {when(receipt.at_ms)} · {id_text(receipt.id)}")


def receipt_json(receipt: Receipt, *, scale: int) -> dict[str, Any]:
    """A receipt in JSON, amounts as decimal text."""
    return {
        "commons": receipt.commons.hex(),
        "seq": receipt.seq,
        "at": receipt.at_ms,
        "tick": receipt.tick,
        "id": id_text(receipt.id),
        "leaf": receipt.leaf.hex(),
        "postings": [
            [
                posting.reason,
                did_of(posting.holder) if isinstance(posting.holder, bytes) else posting.holder,
                posting.asset,
                format_amount(posting.amount, scale=scale),
            ]
            for posting in receipt.postings
        ],
    }


def _plain(titles: Sequence[str], rows: Sequence[Sequence[str]], ends: set[int]) -> None:
    widths = [
        max(len(title), *(len(row[index]) for row in rows)) if rows else len(title)
        for index, title in enumerate(titles)
    ]
    for row in (titles, *rows):
        cells = (
            cell.rjust(width) if index in ends else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())

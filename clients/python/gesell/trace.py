"""Traces: files of transfers that happened once, read row by row.

Owns the CSV form (columns at_ms, kind, from, to, amount), its checks, and which accounts of a trace are peers. Knows
no ledger and no key.

1. A disbursement is an issue to its `to`, a standard transfer a payment, a reclamation or agent_out a retirement by
   its `from`. The other side of those is the system, which is the issuer here.
2. An account is a peer if it ever pays, is paid, is issued to or retires; else it is the system's own.
3. Rows stand in the order of their times. A row that is none is a `TraceFault` that names its line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gesell_protocol.amounts import AMOUNT_MAX

COLUMNS: Final = ("at_ms", "kind", "from", "to", "amount")
#: Kind in the trace → type of the statement.
STATEMENTS: Final[Mapping[str, str]] = {
    "disbursement": "issue",
    "standard": "pay",
    "reclamation": "retire",
    "agent_out": "retire",
}
#: What the 48 bits of time in a UUIDv7 can say.
TIME_MAX_MS: Final = 2**48 - 1
#: Leaves room for the letter of a handle.
ACCOUNT_MAX: Final = 10**18


class TraceFault(ValueError):
    """The file is no trace; the message names the line and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One row. `type` is the statement it becomes; `payer` and `payee` are None where they are the issuer."""

    line: int
    at_ms: int
    type: str
    payer: int | None
    payee: int | None
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a whole file holds: how many transfers, from when to when (ms), and its peers in ascending order."""

    path: Path
    transfers: int
    first_ms: int
    last_ms: int
    accounts: tuple[int, ...]

    def handle(self, account: int) -> str:
        """What a peer is called in the commons: `a0002`, all of one length."""
        width = max(4, len(str(self.accounts[-1])))
        return f"a{account:0{width}}"


def survey(path: Path) -> Trace:
    """Read a file through once and check every row; memory grows with its accounts, not with its rows.

    Raises `TraceFault` for the first row that is none, for a file without rows, and for one that can't be read.
    """
    accounts: set[int] = set()
    count, first_ms, last_ms = 0, 0, 0
    for transfer in read_transfers(path):
        first_ms = transfer.at_ms if count == 0 else first_ms
        last_ms = transfer.at_ms
        accounts.update(account for account in (transfer.payer, transfer.payee) if account is not None)
        count += 1
    if count == 0:
        raise TraceFault(f"{path} holds no transfers")
    return Trace(path=path, transfers=count, first_ms=first_ms, last_ms=last_ms, accounts=tuple(sorted(accounts)))


def read_transfers(path: Path) -> Iterator[Transfer]:
    """The transfers of a file, row by row, in its order; raises `TraceFault` at the first row that is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _read_rows(path, file)
    except OSError as error:
        raise TraceFault(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TraceFault(f"{path} is no text in UTF-8") from None


def _read_rows(path: Path, lines: Iterator[str]) -> Iterator[Transfer]:
    rows = csv.reader(lines, strict=True)
    earliest = 0
    try:
        places = _places(next(rows, []))
        for row in rows:
            if not row:
                continue
            transfer = _read_row(row, places, line=rows.line_num, earliest_ms=earliest)
            earliest = transfer.at_ms
            yield transfer
    except csv.Error as error:
        raise TraceFault(f"{path}, line {rows.line_num}: no CSV: {error}") from None
    except _BadRow as error:
        raise TraceFault(f"{path}, line {rows.line_num}: {error}") from None


class _BadRow(Exception):
    """What is wrong with a row; its line is known a level up."""


def _places(header: Sequence[str]) -> tuple[int, ...]:
    """Where the columns stand; others may stand beside them."""
    names = [name.strip() for name in header]
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise _BadRow(f"the first line names the columns {','.join(COLUMNS)}, each once; see to {','.join(missing)}")
    return (*(names.index(name) for name in COLUMNS), len(names))


def _read_row(row: Sequence[str], places: tuple[int, ...], *, line: int, earliest_ms: int) -> Transfer:
    *columns, width = places
    if len(row) != width:
        raise _BadRow(f"{len(row)} fields where the first line names {width}")
    at, kind, source, target, amount = (row[place].strip() for place in columns)
    if kind not in STATEMENTS:
        raise _BadRow(f"kind {kind[:40]!r} is none of {', '.join(STATEMENTS)}")
    at_ms = _number(at, "at_ms", low=0, high=TIME_MAX_MS)
    if at_ms < earliest_ms:
        raise _BadRow(f"at_ms {at_ms} is before the line above ({earliest_ms}); sort the file by time")
    payer, payee = (_number(text, name, low=0, high=ACCOUNT_MAX) for text, name in ((source, "from"), (target, "to")))
    if STATEMENTS[kind] == "pay" and payer == payee:
        raise _BadRow(f"account {payer} pays itself")
    return Transfer(
        line=line,
        at_ms=at_ms,
        type=STATEMENTS[kind],
        payer=None if STATEMENTS[kind] == "issue" else payer,
        payee=None if STATEMENTS[kind] == "retire" else payee,
        amount=_number(amount, "amount", low=1, high=AMOUNT_MAX),
    )


def _number(text: str, name: str, *, low: int, high: int) -> int:
    # isdecimal alone would take the digits of every script, and int() underscores and signs.
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and low <= int(text) <= high):
        raise _BadRow(f"{name} {text[:40]!r} is no whole number from {low} to {high}")
    return int(text)

"""The books of a commons as journals of plain-text accounting: hledger's and beancount's.

Owns the text of both. A transaction is an entry that posts something, with a posting for each of its own, in order:
melt stands there as the postings that it is. The names of accounts are `journal_names`'.

1. Everything that hledger's strict mode and bean-check ask for is declared before it is used.
2. Nothing that people wrote freely stands where a journal means something: a name of a commons or a kind only in lines
   that are comments, or in a string with its quotes escaped.
3. At the end stand assertions: each account's balance of each asset, as the postings sum, to the grain. These are
   balances as posted; melt that is due but not posted yet is no part of any book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from gesell.export_books import Asset, Books, Entry, day_text, padded, sums_of, utc_text
from gesell.export_tables import Writer
from gesell.journal_names import beancount_names, hledger_names
from gesell_protocol.foreign import one_line
from gesell_protocol.names import Holder, did_of, id_text
from gesell_protocol.notes import Note, read_checkpoint
from gesell_protocol.statements import LEDGER_TYPES


class HledgerJournal:
    """A journal for hledger; `hledger check --strict` holds for it."""

    def __init__(self, file: BinaryIO, *, books: Books, note: Note) -> None:
        self._file = file
        self._books = books
        self._note = note
        self._names = hledger_names(books)
        self._sums: Counter[tuple[Holder, str]] = Counter()

    def write(self, entry: Entry) -> None:
        """Write an entry as a transaction, after what it is the first to use."""
        if entry.seq == 1:
            self._put([*_head(self._books, self._note, comment=";"), "decimal-mark .", ""])
        if not entry.postings:
            return
        sums_of(self._sums, entry.postings)
        self._put([*self._declared(entry), *self._transaction(entry), ""])

    def finish(self) -> None:
        """Write the assertions: a transaction that moves nothing, on the last entry's day."""
        if not self._sums:
            return
        lines = [f"{day_text(self._books.at_ms)} * balances as posted up to entry {self._books.seq}"]
        for (holder, code), grains in sorted(self._sums.items(), key=lambda item: self._place(item[0])):
            account, _ = self._names.account_of(holder, code)
            lines.append(f"    {account}  {self._amount(0, code)} = {self._amount(grains, code)}")
        self._put(lines)

    def _declared(self, entry: Entry) -> Iterator[str]:
        for _, holder, code, _ in entry.postings:
            name, is_new = self._names.commodity_of(code)
            if is_new:
                asset = self._books.assets[code]
                yield f"; {_described(asset)}"
                yield f"commodity 1000.{'0' * asset.scale} {name}"
            account, is_new = self._names.account_of(holder, code)
            if is_new:
                yield f"account {account}" + (f"  ; peer:{did_of(holder)}" if isinstance(holder, bytes) else "")

    def _transaction(self, entry: Entry) -> Iterator[str]:
        tags = {
            "seq": entry.seq, "time": utc_text(entry.at_ms), "id": id_text(entry.id), "type": entry.type,
            "by": did_of(entry.by),
        }  # fmt: skip
        who, what = _author(self._books, entry), _narration(self._books, entry)
        yield f"{day_text(entry.at_ms)} * ({entry.seq}) {who} | {what}"
        yield "    ; " + ", ".join(f"{name}:{value}" for name, value in tags.items())
        for reason, holder, code, grains in entry.postings:
            account, _ = self._names.account_of(holder, code)
            category = entry.category_of(reason)
            told = f"reason:{reason}" + (f", category:{category}" if category is not None else "")
            yield f"    {account}  {self._amount(grains, code)}  ; {told}"

    def _amount(self, grains: int, code: str) -> str:
        name, _ = self._names.commodity_of(code)
        return f"{padded(grains, scale=self._books.assets[code].scale)} {name}"

    def _place(self, account: tuple[Holder, str]) -> tuple[str, str]:
        return self._names.account_of(*account)[0], account[1]

    def _put(self, lines: list[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())


class BeancountJournal:
    """A ledger for beancount; `bean-check` holds for it."""

    def __init__(self, file: BinaryIO, *, books: Books, note: Note) -> None:
        self._file = file
        self._books = books
        self._note = note
        self._names = beancount_names(books)
        self._sums: Counter[tuple[Holder, str]] = Counter()

    def write(self, entry: Entry) -> None:
        """Write an entry as a transaction, after what it is the first to use."""
        if entry.seq == 1:
            self._put(self._opening())
        if not entry.postings:
            return
        sums_of(self._sums, entry.postings)
        self._put([*self._declared(entry), *self._transaction(entry), ""])

    def finish(self) -> None:
        """Write the assertions. They hold at the beginning of their day, so it is the one after the last entry's."""
        day = day_text(self._books.at_ms, later=1)
        lines = [f"; Balances as posted up to entry {self._books.seq}"] if self._sums else []
        for (holder, code), grains in sorted(self._sums.items(), key=lambda item: self._place(item[0])):
            account, _ = self._names.account_of(holder, code)
            scale = self._books.assets[code].scale
            zero = padded(0, scale=scale)
            # Without a tolerance said, beancount would let two of the last digit pass.
            lines.append(f"{day} balance {account}  {padded(grains, scale=scale)} ~ {zero} {self._commodity(code)}")
        self._put(lines)

    def _opening(self) -> list[str]:
        found = self._books.found
        assert found is not None, "the first entry founds the commons"
        return [
            *_head(self._books, self._note, comment=";"),
            f'option "title" {_string(found.name)}',
            f'option "operating_currency" {_string(found.currency.code)}',
            "",
        ]

    def _declared(self, entry: Entry) -> Iterator[str]:
        day = day_text(entry.at_ms)
        for _, holder, code, _ in entry.postings:
            name, is_new = self._names.commodity_of(code)
            if is_new:
                yield f"{day} commodity {name}"
                yield f"  name: {_string(_described(self._books.assets[code]))}"
            account, is_new = self._names.account_of(holder, code)
            if is_new:
                yield f"{day} open {account}"
                if isinstance(holder, bytes):
                    yield f"  did: {_string(did_of(holder))}"

    def _transaction(self, entry: Entry) -> Iterator[str]:
        who, what = _author(self._books, entry), _narration(self._books, entry)
        yield f"{day_text(entry.at_ms)} * {_string(who)} {_string(what)}"
        yield f"  seq: {entry.seq}"
        yield f"  time: {_string(utc_text(entry.at_ms))}"
        yield f"  id: {_string(id_text(entry.id))}"
        yield f"  by: {_string(did_of(entry.by))}"
        for reason, holder, code, grains in entry.postings:
            account, _ = self._names.account_of(holder, code)
            amount = padded(grains, scale=self._books.assets[code].scale)
            yield f"  {account}  {amount} {self._commodity(code)}"
            yield f"    reason: {_string(reason)}"
            category = entry.category_of(reason)
            if category is not None:
                yield f"    category: {_string(category)}"

    def _commodity(self, code: str) -> str:
        return self._names.commodity_of(code)[0]

    def _place(self, account: tuple[Holder, str]) -> tuple[str, str]:
        return self._names.account_of(*account)[0], account[1]

    def _put(self, lines: list[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())


def _head(books: Books, note: Note, *, comment: str) -> list[str]:
    """What the journal is of, in comments."""
    found, checkpoint = books.found, read_checkpoint(note)
    assert found is not None, "the first entry founds the commons"
    return [
        f"{comment} {one_line(found.name)}, commons {found.commons.hex()}",
        f"{comment} {checkpoint.size} entries, root {checkpoint.root.hex()}; times are in UTC",
        "",
    ]


def _described(asset: Asset) -> str:
    """What an asset is, on one line."""
    if not asset.is_gift:
        return f"currency of {one_line(asset.name)}"
    return f"gifts, {asset.code}: {one_line(asset.name)}" + ("" if asset.unit == "1" else f", in {asset.unit}")


def _author(books: Books, entry: Entry) -> str:
    """Who spoke, as people call it; what is no member and no handle is a steward or the ledger."""
    return books.handles.get(entry.by) or ("the ledger" if entry.type in LEDGER_TYPES else did_of(entry.by))


def _narration(books: Books, entry: Entry) -> str:
    """What was done, to whom where it is one, and what for: `pay ada for bread`."""
    gained = {one.holder for one in entry.postings if one.amount > 0 and one.reason != "melt"} - {entry.by}
    to = [books.handles.get(holder, "") for holder in gained if isinstance(holder, bytes)]
    named = [entry.type, *([to[0]] if len(to) == 1 and to[0] else [f"to {len(to)}"] if len(to) > 1 else [])]
    return " ".join([*named, *([f"for {entry.category}"] if entry.category is not None else [])])


def _string(text: str) -> str:
    """A string of beancount: on one line, in quotes."""
    escaped = one_line(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


#: How a journal is made, by its format's name.
JOURNALS: Final[dict[str, Callable[..., Writer]]] = {"hledger": HledgerJournal, "beancount": BeancountJournal}

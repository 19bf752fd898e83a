"""`gesell db check`: proves the books that stand in the database, from the statements alone.

Owns the comparison, not the rules: entries are decided again by the core into empty Books, and every melt is charged
again tick by tick by the law as it is written. Reads one snapshot, changes nothing, and may run beside the service.

For each commons, in this order, for every entry:
1. It follows the one before: no gap, time not going back; its signatures hold.
2. Its postings sum to zero for each asset.
3. Decided again on the books before it, it is accepted with exactly these postings.
4. What melted of each account is what charging every tick would have taken (lazy equals eager).
And at the end:
5. Every stored account, member and key is what the entries make it; every running balance adds up.
6. All accounts of an asset sum to zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from gesell_ledger.core.books import AccountName, Books, Commons, Entry
from gesell_ledger.core.decide import Accepted, Submission, decide
from gesell_ledger.storage import rows
from gesell_ledger.storage.postgres import SETTINGS, Timelines
from gesell_ledger.storage.queries import queries
from gesell_protocol.demurrage import INFLOW_REASONS, Holding, melt, melt_by_the_letter, receive
from gesell_protocol.envelopes import Envelope, verify_envelope
from gesell_protocol.log import Posting
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import read_statement

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_READING = queries("reading")
_AUDIT = queries("audit")
PAGE: Final = 1_000
#: A broken book says so in its first lines; a million more would say nothing new.
FINDINGS_MAX: Final = 20


@dataclass(slots=True)
class Report:
    """What the check of one commons found; amounts in grains."""

    commons: str
    name: str
    currency: str
    entries: int = 0
    postings: int = 0
    accounts: int = 0
    melted: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def find(self, text: str) -> None:
        """Note what does not hold."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(text)

    def fields(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "commons": self.commons,
            "name": self.name,
            "entries": self.entries,
            "postings": self.postings,
            "accounts": self.accounts,
            "melted": str(self.melted),
            "holds": self.holds,
            "findings": self.findings,
        }

    def __str__(self) -> str:
        head = (
            f"{self.name} ({self.commons[:8]}…):"
            f" {self.entries} entries, {self.postings} postings, {self.accounts} accounts"
        )
        if self.holds:
            return (
                f"{head}: the books hold.\n"
                "  every signature verifies, every entry sums to zero, every balance equals its postings,\n"
                f"  and what melted ({self.melted} grains of {self.currency}) is what the law takes, tick by tick"
            )
        return "\n  ".join([f"{head}: THE BOOKS DO NOT HOLD", *self.findings])


async def audit(dsn: str, *, progress: Callable[[str, int, int], None] | None = None) -> list[Report]:
    """Check every commons of a database; `progress` is told name, entries done and entries in all.

    Raises what `asyncpg` raises when the database can't be read.
    """
    connection = await asyncpg.connect(dsn, timeout=15, server_settings=SETTINGS)
    try:
        # A snapshot, so that a service at work can't make entries and accounts disagree. No other read needs one.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            ids = [row["commons_id"] for row in await connection.fetch(_READING["list_all_commons"])]
            return [await _Check(connection, commons_id, progress).run() for commons_id in ids]
    finally:
        await connection.close()


class _Check:
    """The check of one commons."""

    def __init__(
        self, connection: Connection, commons_id: int, progress: Callable[[str, int, int], None] | None
    ) -> None:
        self._connection = connection
        self._commons_id = commons_id
        self._progress = progress
        self._books = Books()
        self._eager: dict[AccountName, Holding] = {}
        self._running: dict[AccountName, int] = defaultdict(int)

    async def run(self) -> Report:
        head = await self._connection.fetchrow(_READING["load_commons"], self._commons_id)
        assert head is not None
        timeline = await Timelines().load(self._connection, self._commons_id, head["policies"])
        stored = rows.read_commons(head, timeline)
        report = Report(stored.id.hex(), stored.name, stored.currency.code)
        async for entry, running in self._entries(stored.id):
            self._check_entry(report, entry, running, ledger=stored.ledger)
            if self._progress is not None and entry.seq % PAGE == 0:
                self._progress(stored.name, entry.seq, stored.seq)
        if self._books.commons != stored:
            report.find("the commons' head is not what the entries make it")
        await self._check_accounts(report, stored)
        await self._check_members(report)
        return report

    async def _entries(self, commons: bytes) -> AsyncIterator[tuple[Entry, list[int]]]:
        """Every entry in order, with the running balance that stands at each of its postings."""
        after = 0
        while True:
            found = await self._connection.fetch(_READING["list_entries"], self._commons_id, after, PAGE)
            if not found:
                return
            postings: dict[int, list[Posting]] = defaultdict(list)
            running: dict[int, list[int]] = defaultdict(list)
            span = (self._commons_id, found[0]["seq"], found[-1]["seq"])
            for seq, reason, holder, asset, amount, balance in await self._connection.fetch(
                _AUDIT["list_postings"], *span
            ):
                postings[seq].append(Posting(reason, rows.read_holder(holder), asset, amount))
                running[seq].append(balance)
            for row in found:
                yield rows.read_entry(commons, row, postings[row["seq"]]), running[row["seq"]]
            after = found[-1]["seq"]

    def _check_entry(self, report: Report, entry: Entry, running: list[int], *, ledger: bytes) -> None:
        report.entries += 1
        report.postings += len(entry.postings)
        commons = self._books.commons
        if entry.seq != (commons.seq + 1 if commons is not None else 1):
            report.find(f"entry {entry.seq}: an entry before it is missing")
        if commons is not None and entry.at_ms < commons.at_ms:
            report.find(f"entry {entry.seq}: its time lies before the entry before")
        sums: dict[str, int] = defaultdict(int)
        for posting, balance in zip(entry.postings, running, strict=True):
            sums[posting.asset] += posting.amount
            name = (posting.holder, posting.asset)
            self._running[name] += posting.amount
            if self._running[name] != balance:
                report.find(f"entry {entry.seq}: a running balance says {balance}, the postings {self._running[name]}")
        if any(sums.values()):
            report.find(f"entry {entry.seq}: its postings do not sum to zero: {dict(sums)}")
        self._decide_again(report, entry, ledger)
        self._charge_again(report, entry)

    def _decide_again(self, report: Report, entry: Entry, ledger: bytes) -> None:
        """Rules 1 and 3."""
        envelope = Envelope(entry.body, tuple(entry.signatures))
        try:
            verify_envelope(envelope)
            statement = read_statement(envelope, min_tick_seconds=1)
        except Rejected as rejected:
            report.find(f"entry {entry.seq}: {rejected}")
            return
        outcome = decide(self._books, Submission(envelope, statement), now_ms=entry.at_ms, ledger=ledger)
        if not isinstance(outcome, Accepted):
            report.find(f"entry {entry.seq}: decided again, it is not accepted: {outcome}")
            return
        if outcome.entry != entry:
            report.find(f"entry {entry.seq}: decided again, it posts {outcome.entry.postings}, not {entry.postings}")
            return
        self._books.apply(outcome.decision, outcome.entry)

    def _charge_again(self, report: Report, entry: Entry) -> None:
        """Rule 4: what each peer account lost by melt in this entry, against the law tick by tick."""
        commons = self._books.commons
        if commons is None:
            return
        tick = commons.tick_of(entry.at_ms)
        melted: dict[AccountName, int] = defaultdict(int)
        for posting in entry.postings:
            if posting.reason == "melt" and isinstance(posting.holder, bytes):
                melted[posting.holder, posting.asset] -= posting.amount
        touched = {(p.holder, p.asset) for p in entry.postings if isinstance(p.holder, bytes)}
        for name in sorted(touched, key=str):
            before = self._eager.get(name, Holding())
            after = melt_by_the_letter(before, commons.timeline, tick)
            fee = before.balance - after.balance
            if melted[name] != fee:
                report.find(f"entry {entry.seq}: {melted[name]} melted of an account, the law takes {fee}")
            self._eager[name] = after
            report.melted += melted[name]
        for reason, holder, asset, amount in entry.postings:
            if reason == "melt" or isinstance(holder, str):
                continue
            account = self._eager[holder, asset]
            if amount > 0 and reason in INFLOW_REASONS:
                self._eager[holder, asset] = receive(account, amount, commons.timeline)
            else:
                self._eager[holder, asset] = Holding(
                    account.balance + amount, account.escrow, account.tick, account.inflows
                )

    async def _check_accounts(self, report: Report, commons: Commons) -> None:
        """Rules 5 and 6, and that a lazy look at the last entry's tick shows what the eager law shows."""
        sums: dict[str, int] = defaultdict(int)
        tick = commons.tick_of(commons.at_ms)
        found = await self._connection.fetch(_AUDIT["list_accounts"], self._commons_id)
        for _, holder_bytes, asset, balance, escrow, stored_tick, inflows in map(tuple, found):
            holder = rows.read_holder(holder_bytes)
            name = (holder, asset)
            holding = rows.read_holding(balance, escrow, stored_tick, inflows)
            sums[asset] += balance
            if holding != self._books.accounts.get(name):
                report.find(f"the account of {_shown(holder)} is not what the entries make it")
            if balance != self._running[name]:
                report.find(
                    f"the account of {_shown(holder)} holds {balance}, its postings sum to {self._running[name]}"
                )
            eager = self._eager.get(name, Holding())
            if isinstance(holder, bytes):
                lazy = melt(holding, commons.timeline, tick).balance
                if lazy != melt_by_the_letter(eager, commons.timeline, tick).balance:
                    report.find(f"the account of {_shown(holder)}: lazy melt is not eager melt")
        report.accounts = len(found)
        if len(found) != len(self._books.accounts):
            report.find(f"{len(found)} accounts are stored, the entries make {len(self._books.accounts)}")
        if any(sums.values()):
            report.find(f"all accounts together do not sum to zero: {dict(sums)}")

    async def _check_members(self, report: Report) -> None:
        members = await self._connection.fetch(_AUDIT["list_members"], self._commons_id)
        if {row["peer"]: rows.read_member(tuple(row)) for row in members} != self._books.members:
            report.find("the members are not what the entries make them")
        keys = await self._connection.fetch(_AUDIT["list_keys"], self._commons_id)
        if {row["key"]: rows.read_key(row) for row in keys} != self._books.keys:
            report.find("the keys are not what the entries make them")


def _shown(holder: bytes | str) -> str:
    return holder if isinstance(holder, str) else holder.hex()

"""`gesell db check`: proves the books that stand in the database, from the statements alone.

Owns the comparison, not the rules: entries are decided again by the core into empty Books, and every melt is charged
again tick by tick by the law as it is written. Reads one snapshot, changes nothing, and may run beside the service.

For each commons, in this order, for every entry:
1. It follows the one before: no gap, time not going back; its signatures hold, and a memo's text fits its seal.
2. Its postings sum to zero for each asset.
3. Decided again on the books before it, it is accepted with exactly these postings.
4. What melted of each account is what charging every tick would have taken (lazy equals eager).
5. The hash beside it is its own.
And at the end:
6. Every stored account, member, key, policy, share, mention, kind, gift, hold, vouch, hand-over of the ledger's key and
   node of the tree is what the entries make it; running balances add up.
7. All accounts of an asset sum to zero, and no posting stands outside the entries.

What can't be found: an entry's time moved within its tick and between its neighbours, hashes and all, as no signature
covers it; whoever kept an earlier checkpoint finds that (`gesell audit`). What is not looked at: the readings, which
are derived; `gesell db rebuild` makes them anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from gesell_ledger.core.books import AccountName, Books, Commons, Entry, Hold, Known
from gesell_ledger.core.decide import Accepted, Submission, decide
from gesell_ledger.storage import rows
from gesell_ledger.storage.changes import Changes
from gesell_ledger.storage.faults import not_an_address
from gesell_ledger.storage.postgres import SETTINGS
from gesell_ledger.storage.queries import queries
from gesell_protocol.amounts import format_amount
from gesell_protocol.demurrage import INFLOW_REASONS, Holding, melt, melt_by_the_letter, receive
from gesell_protocol.envelopes import Envelope, Memo, verify_envelope
from gesell_protocol.log import Posting
from gesell_protocol.names import Holder
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Erase, Found, Statement, read_statement
from gesell_protocol.tree import Frontier, Subtree

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_READING = queries("reading")
_AUDIT = queries("audit")
_TREES = queries("trees")
PAGE: Final = 1_000
#: A broken book says so in its first lines; a million more would say nothing new.
FINDINGS_MAX: Final = 20
#: What decoding a row raises that somebody has spoiled.
_UNREADABLE = (Rejected, ValueError, TypeError, LookupError, AssertionError)


@dataclass(slots=True)
class Report:
    """What the check of one commons found; amounts in grains."""

    commons: str
    name: str
    currency: str
    scale: int
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
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append("there is more; mend these first")

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
            f" {_count(self.entries, 'entry', 'entries')}, {self.postings} postings,"
            f" {self.accounts} accounts (pool, issuer and escrow among them)"
        )
        if self.holds:
            melted = format_amount(self.melted, scale=self.scale)
            return (
                f"{head}: the books hold.\n"
                "  every signature verifies, every entry sums to zero, every balance equals its postings,\n"
                f"  and what melted ({melted} {self.currency}) is what the law takes, tick by tick"
            )
        return "\n  ".join([f"{head}: THE BOOKS DO NOT HOLD", *self.findings])


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


async def audit(dsn: str, *, progress: Callable[[str, int, int], None] | None = None) -> list[Report]:
    """Check every commons of a database; `progress` is told name, entries done and entries in all.

    Raises `DatabaseUnfit` for a DSN that is none, and what `asyncpg` raises when the database can't be read.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=15, server_settings=SETTINGS)
    except ValueError:
        raise not_an_address() from None
    try:
        # A snapshot, so that a service at work can't make entries and accounts disagree. No other read needs one.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            ids = [row["commons_id"] for row in await connection.fetch(_READING["list_all_commons"])]
            return [await _Check(connection, commons_id, progress).run() for commons_id in ids]
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class _Stored:
    """An entry as it is stored, with the running balance at each of its postings, its memo if it is there, its hash."""

    entry: Entry
    running: list[int]
    memo: Memo | None
    leaf: bytes


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
        self._astray: set[AccountName] = set()
        self._policies: list[tuple[int, int, bytes]] = []
        self._mentions: set[tuple[int, bytes]] = set()
        self._tree = Frontier()
        self._subtrees: list[Subtree] = []
        #: Kinds, gifts and vouches as the entries make them.
        self._given = Changes()

    async def run(self) -> Report:
        """Go through the commons from its first entry to its last and tell what does not hold."""
        head = await self._connection.fetchrow(_READING["load_commons"], self._commons_id)
        assert head is not None
        report = Report(head["hash"].hex(), head["name"], head["currency_code"], head["currency_scale"])
        async for stored in self._entries(head["hash"]):
            if not await self._check_entry(report, stored):
                report.find("what comes after it can't be decided without it, so the check ends here")
                return report
            if self._progress is not None and stored.entry.seq % PAGE == 0:
                self._progress(head["name"], stored.entry.seq, head["seq"])
        commons = self._books.commons
        if commons is None:
            report.find("entry 1 is missing: no entry is stored")
            return report
        self._check_head(report, head, commons)
        await self._check_accounts(report, commons, counted=head["accounts"])
        await self._check_members(report)
        await self._check_policies(report, counted=head["policies"])
        await self._check_shares(report)
        await self._check_given(report, kinds=head["kinds"])
        await self._check_tree(report)
        await self._check_mentions(report)
        for seq, account in map(tuple, await self._connection.fetch(_AUDIT["list_stray_postings"], self._commons_id)):
            report.find(f"a posting of account {account} says that it is of entry {seq}: there is no such pair")
        return report

    async def _entries(self, commons: bytes) -> AsyncIterator[_Stored]:
        """Every entry in order."""
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
            leaves = dict(map(tuple, await self._connection.fetch(_AUDIT["list_leaves"], *span)))
            for row in found:
                seq = row["seq"]
                memo = None if row["salt"] is None else Memo(row["salt"], row["text"])
                yield _Stored(rows.read_entry(commons, row, postings[seq]), running[seq], memo, leaves[seq])
            after = found[-1]["seq"]

    async def _check_entry(self, report: Report, stored: _Stored) -> bool:
        """Rules 1 to 5; False when the entry can't be decided, nor anything after it."""
        entry = stored.entry
        report.entries += 1
        report.postings += len(entry.postings)
        commons = self._books.commons
        following = commons.seq + 1 if commons is not None else 1
        if entry.seq != following:
            report.find(f"entry {following} is missing: the next that is stored is entry {entry.seq}")
            return False
        if commons is not None and entry.at_ms < commons.at_ms:
            report.find(f"entry {entry.seq}: its time lies before that of the entry before")
        sums: dict[str, int] = defaultdict(int)
        for posting, balance in zip(entry.postings, stored.running, strict=True):
            sums[posting.asset] += posting.amount
            name = (posting.holder, posting.asset)
            self._running[name] += posting.amount
            if self._running[name] != balance and name not in self._astray:
                self._astray.add(name)
                report.find(
                    f"entry {entry.seq}: the running balance of the account of {_shown(posting.holder)} says"
                    f" {balance}, its postings sum to {self._running[name]}"
                )
        if any(sums.values()):
            report.find(f"entry {entry.seq}: its postings do not sum to zero: {dict(sums)}")
        decided = await self._decide_again(report, stored)
        if decided is None:
            return False
        self._charge_again(report, *decided)
        leaf = entry.leaf
        if leaf != stored.leaf:
            report.find(f"entry {entry.seq}: the hash that is stored beside it is not its own")
        self._tree, subtrees = self._tree.grown([leaf])
        self._subtrees += subtrees
        return True

    async def _decide_again(self, report: Report, stored: _Stored) -> tuple[Entry, Mapping[bytes, Hold]] | None:
        """Rules 1 and 3; returns the entry as it must be with the holds that it begins or ends, and applies that: one
        wrong posting is told of once.
        """
        entry = stored.entry
        envelope = Envelope(entry.body, tuple(entry.signatures))
        try:
            verify_envelope(envelope)
        except Rejected as rejected:
            report.find(f"entry {entry.seq}: {rejected}")
        try:
            statement = read_statement(envelope, min_tick_seconds=1)
        except Rejected as rejected:
            report.find(f"entry {entry.seq}: its body can't be read: {rejected}")
            return None
        self._check_names(report, stored, statement)
        if isinstance(statement, Erase):
            await self._load_target(statement, before=entry.seq)
        # Which ledger it was meant for, the commons' name binds; whose it is by now, the hand-overs must lead to.
        ledger = statement.ledger if isinstance(statement, Found) else b""
        outcome = decide(self._books, Submission(envelope, statement), now_ms=entry.at_ms, ledger=ledger)
        if not isinstance(outcome, Accepted):
            report.find(f"entry {entry.seq}: decided again, it is not accepted: {outcome}")
            return None
        decided = outcome.entry
        if decided.postings != entry.postings:
            report.find(
                f"entry {entry.seq}: decided again, it posts {_listed(decided.postings)},"
                f" stored is {_listed(entry.postings)}"
            )
        self._books.apply(outcome.decision, decided)
        changed = outcome.decision
        if changed.kind or changed.gifts or changed.holds or changed.vouches or changed.ledger:
            self._given.add(outcome)
        # Ten million entries are not kept in memory: that an id is used once, the table's key says.
        self._books.entries.clear()
        self._mentions |= {(decided.seq, peer) for peer in outcome.mentions}
        if outcome.decision.policy is not None:
            from_tick, policy = outcome.decision.policy
            self._policies.append((decided.seq, from_tick, rows.policy_bytes(policy)))
        return decided, changed.holds

    def _check_names(self, report: Report, stored: _Stored, statement: Statement) -> None:
        """What the row says beside the body: whose statement it is, its id, its memo."""
        entry = stored.entry
        if statement.commons != entry.commons:
            report.find(f"entry {entry.seq}: its statement is meant for the commons {statement.commons.hex()}")
        if statement.id != entry.id:
            report.find(f"entry {entry.seq}: it stands under the id {entry.id.hex()}, not under its own")
        if stored.memo is not None and stored.memo.seal() != statement.memo:
            report.find(f"entry {entry.seq}: its memo's text does not fit its seal")

    async def _load_target(self, statement: Erase, *, before: int) -> None:
        """Put the entry of which an `erase` speaks into the books, if it came before."""
        seq = await self._connection.fetchval(
            _READING["find_entry"], self._commons_id, rows.uuid_of(statement.statement)
        )
        if seq is not None and seq < before:
            (row,) = await self._connection.fetch(_READING["list_entries"], self._commons_id, seq - 1, 1)
            self._books.entries[statement.statement] = Known(row["body"])

    def _charge_again(self, report: Report, entry: Entry, holds: Mapping[bytes, Hold]) -> None:
        """Rule 4: what each peer account lost by melt in this entry, against the law tick by tick.

        `holds` are those that it begins or ends: what is set aside melts as its payer's until then.
        """
        commons = self._books.commons
        if commons is None:
            return
        tick = commons.tick_of(entry.at_ms)
        melted: dict[AccountName, int] = defaultdict(int)
        code = commons.currency.code
        for posting in entry.postings:
            if posting.reason == "melt" and isinstance(posting.holder, bytes):
                melted[posting.holder, posting.asset] -= posting.amount
        touched = {(p.holder, p.asset) for p in entry.postings if isinstance(p.holder, bytes) and p.asset == code}
        touched |= {(hold.payer, code) for hold in holds.values()}
        for name in sorted(touched, key=str):
            # Nothing melts of an account before its first posting: the ticks since 1970 need no charging.
            before = self._eager.get(name) or Holding(tick=tick)
            after = melt_by_the_letter(before, commons.timeline, tick)
            fee = before.balance - after.balance
            if melted[name] != fee:
                report.find(
                    f"entry {entry.seq}: {melted[name]} melted of the account of {_shown(name[0])}, the law takes {fee}"
                )
            self._eager[name] = after
            report.melted += melted[name]
        for reason, holder, asset, amount in entry.postings:
            if reason == "melt" or isinstance(holder, str) or asset != code:
                continue
            account = self._eager[holder, asset]
            if amount > 0 and reason in INFLOW_REASONS:
                self._eager[holder, asset] = receive(account, amount, commons.timeline)
            else:
                self._eager[holder, asset] = Holding(
                    account.balance + amount, account.escrow, account.tick, account.inflows
                )

        for hold in holds.values():
            account = self._eager[hold.payer, code]
            set_aside = hold.amount if hold.open else -hold.amount
            self._eager[hold.payer, code] = account._replace(escrow=account.escrow + set_aside)

    def _check_head(self, report: Report, head: rows.Row, commons: Commons) -> None:
        """Rule 6 for the head; its timeline is the policies' matter."""
        stored = rows.read_commons(head, commons.timeline, commons.kinds)
        for name in Commons.__struct_fields__:
            said, made = getattr(stored, name), getattr(commons, name)
            if said != made:
                report.find(f"the commons' head says {name} {said!r}, the entries up to {commons.seq} make it {made!r}")

    async def _check_accounts(self, report: Report, commons: Commons, *, counted: int) -> None:
        """Rules 6 and 7, and that a lazy look at the last entry's tick shows what the eager law shows."""
        sums: dict[str, int] = defaultdict(int)
        found = await self._connection.fetch(_AUDIT["list_accounts"], self._commons_id)
        seen: set[AccountName] = set()
        for _, holder_bytes, asset, balance, escrow, stored_tick, inflows in map(tuple, found):
            name = (rows.read_holder(holder_bytes), asset)
            seen.add(name)
            sums[asset] += balance
            try:
                holding = rows.read_holding(balance, escrow, stored_tick, inflows)
            except _UNREADABLE:
                report.find(f"the account of {_shown(name[0])} can't be read: its inflows are not canonical")
                continue
            self._check_account(report, commons, name, holding)
        for holder, _ in self._books.accounts.keys() - seen:
            report.find(f"the account of {_shown(holder)} is missing")
        report.accounts = len(found)
        if len(found) != counted:
            report.find(f"{len(found)} accounts are stored, the commons' head counts {counted}")
        if any(sums.values()):
            report.find(f"all accounts together do not sum to zero: {dict(sums)}")

    def _check_account(self, report: Report, commons: Commons, name: AccountName, holding: Holding) -> None:
        who = f"the account of {_shown(name[0])}"
        made = self._books.accounts.get(name)
        if made is None:
            report.find(f"{who} is in no entry")
        elif holding != made:
            report.find(f"{who} is not what the entries make it: stored is {holding}, made is {made}")
        if holding.balance != self._running[name]:
            report.find(f"{who} holds {holding.balance}, its postings sum to {self._running[name]}")
        if isinstance(name[0], bytes) and name[1] == commons.currency.code:
            tick = commons.tick_of(commons.at_ms)
            eager = self._eager.get(name) or Holding(tick=tick)
            lazy = melt(holding, commons.timeline, tick).balance
            if lazy != melt_by_the_letter(eager, commons.timeline, tick).balance:
                report.find(f"{who}: lazy melt is not eager melt")

    async def _check_members(self, report: Report) -> None:
        members = await self._connection.fetch(_AUDIT["list_members"], self._commons_id)
        stored = {row["peer"]: _readable(rows.read_member, row) for row in members}
        for peer in _differing(stored, self._books.members):
            report.find(f"the member {peer.hex()} is not what the entries make it")
        keys = await self._connection.fetch(_AUDIT["list_keys"], self._commons_id)
        for key in _differing({row["key"]: _readable(rows.read_key, row) for row in keys}, self._books.keys):
            report.find(f"the key {key.hex()} is not what the entries make it")

    async def _check_policies(self, report: Report, *, counted: int) -> None:
        """The policies byte by byte: one that is spoiled can't be read, nor could the service read it."""
        found = await self._connection.fetch(_AUDIT["list_policies"], self._commons_id)
        stored = {row["seq"]: (row["from_tick"], row["policy"]) for row in found}
        made = {seq: (from_tick, policy) for seq, from_tick, policy in self._policies}
        for seq in _differing(stored, made):
            report.find(f"the policy of entry {seq} is not what the entry says")
        if len(found) != counted:
            report.find(f"{len(found)} policies are stored, the commons' head counts {counted}")

    async def _check_shares(self, report: Report) -> None:
        found = await self._connection.fetch(_AUDIT["list_shares"], self._commons_id)
        stored = {row["id"].bytes: _readable(rows.read_share, row) for row in found}
        for name in _differing(stored, self._books.shares):
            made = self._books.shares.get(name)
            of = f"entry {made.seq}" if made is not None else f"no entry ({name.hex()})"
            report.find(f"the share of {of} is not what the entries make it")

    async def _check_given(self, report: Report, *, kinds: int) -> None:
        """Kinds, gifts, their thread, holds, vouches and how they came to be, each row as the entries make it."""
        given = self._given
        made_kinds = [(kind.code, kind.name, kind.unit, kind.scale, seq) for seq, kind in given.kinds]
        if len(made_kinds) != kinds:
            report.find(f"the entries make {len(made_kinds)} kinds of gifts, the commons' head counts {kinds}")
        made: dict[str, Iterable[tuple[object, ...]]] = {
            _AUDIT["list_kinds"]: made_kinds,
            _AUDIT["list_gifts"]: given.gift_values(),
            _AUDIT["list_holds"]: given.hold_values(),
            _AUDIT["list_threads"]: given.thread,
            _AUDIT["list_handovers"]: given.handovers,
            _AUDIT["list_vouches"]: [(*pair, amount) for pair, amount in self._books.vouches.items()],
            _AUDIT["list_vouch_changes"]: [(seq, *pair, amount) for seq, amount, *pair in given.vouch_changes],
            _AUDIT["list_credits"]: [(seq, peer, vouched) for seq, vouched, peer in given.credits],
        }
        for query, rows_made in made.items():
            table = query.split("gesell.", 1)[1].split(None, 1)[0]
            found = await self._connection.fetch(query, self._commons_id)
            differing = Counter(map(tuple, found))
            differing.subtract(Counter(map(tuple, rows_made)))
            for row in sorted((repr(row) for row, count in differing.items() if count))[:FINDINGS_MAX]:
                report.find(f"{table}: this is not what the entries make it: {row}")

    async def _check_tree(self, report: Report) -> None:
        """The peaks of the tree and its nodes; a tile made of others would prove nothing."""
        head = await self._connection.fetchrow(_TREES["load_tree"], self._commons_id)
        assert head is not None
        if head["tree"] != self._tree.pack():
            report.find("the peaks of the tree in the commons' head are not those of its entries")
        found = await self._connection.fetch(_AUDIT["list_subtrees"], self._commons_id)
        stored = {Subtree(*row) for row in map(tuple, found)}
        for level, place, _ in sorted(stored ^ set(self._subtrees))[:FINDINGS_MAX]:
            report.find(f"the node of the tree at level {level}, place {place} is not what its entries hash to")

    async def _check_mentions(self, report: Report) -> None:
        """Who is not mentioned where it should be does not find its own entries; who is and should not, others'."""
        found = await self._connection.fetch(_AUDIT["list_mentions"], self._commons_id)
        for seq, peer in sorted({(row["seq"], row["peer"]) for row in found} ^ self._mentions):
            report.find(f"entry {seq}: whether it concerns {peer.hex() or 'everybody'} is not what the entry says")


_K = TypeVar("_K", bytes, int)


def _differing(stored: Mapping[_K, object], made: Mapping[_K, object]) -> list[_K]:
    """The names under which two maps do not hold the same, ascending."""
    return sorted(name for name in stored.keys() | made.keys() if stored.get(name) != made.get(name))


def _readable(read: Callable[[tuple[Any, ...]], object], row: rows.Row) -> object:
    """A row as `read` understands it; one that it can't read is like no other."""
    try:
        return read(tuple(row))
    except _UNREADABLE:
        return object()


def _listed(postings: Iterable[Posting]) -> str:
    """The postings of an entry for a line of the report; a payment to hundreds is cut short."""
    lines = [f"{reason} {_shown(holder)} {amount}" for reason, holder, _, amount in postings]
    return "[" + ", ".join(lines[:6]) + (f", … {len(lines) - 6} more]" if len(lines) > 6 else "]")


def _shown(holder: Holder) -> str:
    return holder if isinstance(holder, str) else holder.hex()

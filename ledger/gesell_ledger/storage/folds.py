"""The transaction that takes a commons' readings further: lock the cursor, load a run of entries, store what it makes.

Owns the cursor's lock, by which any number of services and a rebuild share the work and each entry is folded once.
Decides nothing: what a run of entries comes to is `readings`'.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gesell_ledger.core.books import Commons
from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_ledger.storage.rules import Rules
from gesell_protocol.names import Holder

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Pool

_READINGS = queries("readings")
_READING = queries("reading")

#: A run ends at so many postings: more than one entry can have, few enough to fold in a moment.
RUN_POSTINGS_MAX: Final = 20_000
#: A run has at most so many entries: what their statements move together then fits in 64 bits.
RUN_ENTRIES_MAX: Final = 5_000

_CLEARING: Final = (
    "clear_relations",
    "clear_relation_sums",
    "clear_standings",
    "clear_memberships",
    "clear_flow_ticks",
    "clear_flow_sums",
    "clear_flow_pairs",
)


class Cursor(NamedTuple):
    """How far the readings are, with which half-life, and what the next entry goes on from: how many members are active
    and suspended, and what pool and escrow hold.
    """

    seq: int
    half_life_ms: int
    active: int = 0
    suspended: int = 0
    pool: int = 0
    escrow: int = 0


class Membership(NamedTuple):
    """A peer's membership as of the cursor; `was_active`: ever."""

    status: str
    barred: bool = False
    was_active: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """Entries to fold, (seq, at_ms, body) in order, with their postings (account, amount, reason) by seq, whose the
    accounts are, and the vouches that they changed, by seq: (voucher, vouchee, grains).
    """

    commons: Commons
    entries: Sequence[tuple[int, int, bytes]]
    postings: Mapping[int, Sequence[tuple[int, int, str]]]
    accounts: Mapping[int, tuple[Holder, str]]
    vouches: Mapping[int, Sequence[tuple[bytes, bytes, int]]]


@dataclass(slots=True)
class Changes:
    """What a run came to: rows for each table, in the order of the columns that its query names."""

    memberships: list[tuple[Any, ...]] = field(default_factory=list)
    relations: list[tuple[Any, ...]] = field(default_factory=list)
    vouches: list[tuple[Any, ...]] = field(default_factory=list)
    relation_sums: list[tuple[Any, ...]] = field(default_factory=list)
    standings: list[tuple[Any, ...]] = field(default_factory=list)
    flow_ticks: list[tuple[Any, ...]] = field(default_factory=list)
    flow_sums: list[tuple[Any, ...]] = field(default_factory=list)
    flow_pairs: list[tuple[Any, ...]] = field(default_factory=list)


class Folds:
    """The readings of one database, for those who keep them up. Safe for any number of tasks and services at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules = Rules()

    async def list_behind(self, *, half_life_ms: int, after: bytes | None, limit: int) -> list[bytes]:
        """The names of commons whose readings lack entries, or were made with another half-life: the next after one
        that was listed last, the first if that is None.
        """
        place = -(2**63) if after is None else rows.key_of(after)
        return [row["hash"] for row in await self._pool.fetch(_READINGS["list_behind"], half_life_ms, place, limit)]

    async def list_commons(self) -> AsyncIterator[bytes]:
        """The names of all commons."""
        place = -(2**63)
        while found := await self._pool.fetch(_READINGS["list_founded"], place, 1_000):
            for row in found:
                yield row["hash"]
            place = found[-1]["commons_id"]

    async def load_head(self, commons: bytes) -> int:
        """The seq of a commons' last entry, 0 if there is no such commons."""
        row = await self._pool.fetchrow(_READING["load_commons"], rows.key_of(commons))
        return 0 if row is None or row["hash"] != commons else int(row["seq"])

    async def load_cursor(self, commons: bytes) -> Cursor | None:
        """How far a commons' readings are; None if they were never begun."""
        row = await self._pool.fetchrow(_READINGS["load_cursor"], rows.key_of(commons))
        return None if row is None else Cursor(row["seq"], row["half_life_ms"])

    async def load_seq(self, commons: bytes) -> int:
        """The last entry that is in a commons' readings, 0 before the first."""
        cursor = await self.load_cursor(commons)
        return 0 if cursor is None else cursor.seq

    @asynccontextmanager
    async def begin(self, commons: bytes, *, half_life_ms: int, anew: bool = False) -> AsyncIterator[Fold | None]:
        """A transaction that holds the cursor of a commons; None while somebody else does. Commits when it is left.

        Where the cursor has another half-life, or `anew`, all readings of the commons go, and it begins with the first
        entry. What this process loses in a crash after the commit is folded again, so it waits for no disk.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            fold = Fold(connection, commons, self._rules)
            yield fold if await fold.lock(half_life_ms=half_life_ms, anew=anew) else None


class Fold:
    """One such transaction. `cursor` is where it begins."""

    def __init__(self, connection: Connection, commons: bytes, rules: Rules) -> None:
        self._connection = connection
        self._commons_id = rows.key_of(commons)
        self._rules = rules
        self.cursor = Cursor(0, 0)

    async def lock(self, *, half_life_ms: int, anew: bool) -> bool:
        """Take the cursor; False if somebody else has it."""
        await self._connection.execute(_READINGS["wait_for_no_disk"])
        row = await self._connection.fetchrow(_READINGS["lock_reading"], self._commons_id)
        if row is None:
            await self._connection.execute(_READINGS["insert_reading"], self._commons_id, half_life_ms)
            row = await self._connection.fetchrow(_READINGS["lock_reading"], self._commons_id)
        if row is None:
            return False
        self.cursor = Cursor(*row)
        if anew or self.cursor.half_life_ms != half_life_ms:
            await self._clear()
            self.cursor = Cursor(0, half_life_ms)
            await self._connection.execute(_READINGS["update_reading"], self._commons_id, *self.cursor)
        return True

    async def _clear(self) -> None:
        for clearing in _CLEARING:
            await self._connection.execute(_READINGS[clearing], self._commons_id)

    async def load(self, *, entries: int) -> Run | None:
        """The next entries, at most so many; None if there are none. All that belongs to an entry is there with it."""
        found = await self._connection.fetch(
            _READINGS["list_entries"], self._commons_id, self.cursor.seq, min(entries, RUN_ENTRIES_MAX)
        )
        if not found:
            return None
        first, last = found[0]["seq"], found[-1]["seq"]
        lines = await self._connection.fetch(
            _READINGS["list_postings"], self._commons_id, first, last, RUN_POSTINGS_MAX
        )
        if len(lines) == RUN_POSTINGS_MAX:
            # The last entry that has postings here may have more; it begins the next run.
            last = lines[-1][0] - 1
        postings: dict[int, list[tuple[int, int, str]]] = {}
        for seq, account, amount, reason in lines:
            if seq <= last:
                postings.setdefault(seq, []).append((account, amount, reason))
        vouches: dict[int, list[tuple[bytes, bytes, int]]] = {}
        for seq, *vouch in await self._connection.fetch(_READINGS["list_vouch_changes"], self._commons_id, first, last):
            vouches.setdefault(seq, []).append(tuple(vouch))
        # After the entries, so that every policy that they were decided under is known.
        head = await self._connection.fetchrow(_READING["load_commons"], self._commons_id)
        assert head is not None
        return Run(
            commons=await self._rules.read_commons(self._connection, head),
            entries=[tuple(row) for row in found if row["seq"] <= last],
            postings=postings,
            accounts=await self._load_accounts({account for many in postings.values() for account, _, _ in many}),
            vouches=vouches,
        )

    async def _load_accounts(self, numbers: Collection[int]) -> dict[int, tuple[Holder, str]]:
        found = await self._connection.fetch(_READINGS["load_accounts"], self._commons_id, list(numbers))
        return {number: (rows.read_holder(holder), asset) for number, holder, asset in found}

    async def load_memberships(self, peers: Iterable[bytes]) -> dict[bytes, Membership]:
        """The memberships of peers as of the cursor, of those who ever asked for one."""
        found = await self._connection.fetch(_READINGS["load_memberships"], self._commons_id, list(peers))
        return {row["peer"]: Membership(row["status"], row["barred"], row["was_active"]) for row in found}

    async def load_numbers(self, peers: Iterable[bytes], *, asset: str) -> dict[bytes, int]:
        """The numbers of some peers' accounts in an asset."""
        found = await self._connection.fetch(_READINGS["load_numbers"], self._commons_id, list(peers), asset)
        return {row["holder"]: row["number"] for row in found}

    async def load_bodies(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """The bodies of accepted statements by their ids."""
        found = await self._connection.fetch(
            _READINGS["load_bodies"], self._commons_id, [rows.uuid_of(name) for name in names]
        )
        return {row["id"].bytes: row["body"] for row in found}

    async def load_gifts_between(self, pairs: Sequence[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], int]:
        """How many gifts the first of a (giver, receiver) had given the second; (a, b) of `pairs` ascending."""
        found = await self._connection.fetch(
            _READINGS["load_gifts_between"], self._commons_id, [a for a, _ in pairs], [b for _, b in pairs]
        )
        given = {}
        for a, b, a_gifts, b_gifts in found:
            given[a, b], given[b, a] = a_gifts, b_gifts
        return given

    async def store(self, cursor: Cursor, changes: Changes, *, tick_ms: int) -> None:
        """Store what a run came to, and the cursor after it."""
        fading = (tick_ms, tick_ms / cursor.half_life_ms)
        await self._write("store_memberships", changes.memberships)
        await self._write_relations(changes.relations, *fading)
        if changes.vouches:
            said = await self._write("store_vouches", changes.vouches)
            assert int(said.split()[-1]) == len(changes.vouches), "whoever vouched had a contact"
        await self._write("store_relation_sums", changes.relation_sums)
        await self._write("store_standings", changes.standings, *fading)
        await self._write("store_flow_ticks", changes.flow_ticks)
        await self._write("store_flow_sums", changes.flow_sums)
        await self._write("store_flow_pairs", changes.flow_pairs)
        await self._connection.execute(_READINGS["update_reading"], self._commons_id, *cursor)

    async def _write_relations(self, relations: Sequence[tuple[Any, ...]], *more: object) -> None:
        """Hand over the pairs, of which a payment to many makes many: numbers as text (`rows.array_text` says why), the
        keys one after the other, since all are of 32 bytes.
        """
        if not relations:
            return
        a, b, first_ms, last_ms, strength, *counts = zip(*relations, strict=True)
        # The text of a float is read back as the same float. Most runs have no gifts, so noughts alone are left out.
        columns = [
            *(rows.array_text(map(str, column)) for column in (first_ms, last_ms, strength)),
            *(rows.array_text(map(str, column) if any(column) else ()) for column in counts),
        ]
        await self._connection.execute(
            _READINGS["store_relations"], self._commons_id, b"".join(a), b"".join(b), *columns, *more
        )

    async def _write(self, name: str, many: Sequence[tuple[Any, ...]], *more: object) -> str:
        """Hand rows to a query as one array a column."""
        if not many:
            return ""
        columns = [list(column) for column in zip(*many, strict=True)]
        return await self._connection.execute(_READINGS[name], self._commons_id, *columns, *more)

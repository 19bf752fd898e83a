"""Loads what the readings say: relationships, standings, circulation, each as of one cursor.

Owns the snapshot in which a cursor and all that is read with it are of one moment, also while the readings are made
anew. Computes no figure: sums come out as they are kept, balances as holdings for the law of demurrage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from gesell_ledger.core.books import Commons
from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_protocol.demurrage import INFLOW_MAX, INFLOW_REASONS, Holding

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Pool

_READINGS = queries("readings")

#: Of payments by category, and of gifts by kind and category, so many are told of one pair and way, or of one step.
SUMS_MAX: Final = 100
#: A page of relationships ends at about so many of these sums.
PAGE_SUMS_MAX: Final = 10_000
#: Peers whose sums are asked for at once, rows of packed pairs, accounts.
PEERS_CHUNK: Final = 50
PAIRS_CHUNK: Final = 200
ACCOUNTS_CHUNK: Final = 2_000


class Cursor(NamedTuple):
    """How far readings are: entry `seq`, accepted at `at_ms` (both 0 if nothing is folded yet)."""

    seq: int
    half_life_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What one gave another, or what moved in a step: in the currency with a category, or gifts of a kind."""

    asset: str
    category: str
    count: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What a member and a peer had to do with each other, seen from the member. `strength` is that at the tick of
    `last_ms`; `weight` and the peer are its place in the order by strength.
    """

    peer: bytes
    handle: str
    first_ms: int
    last_ms: int
    strength: float
    payments_to: int
    payments_from: int
    paid: int
    received: int
    gifts_to: int
    gifts_from: int
    vouches: int
    vouched: int
    weight: float
    sums_to: Sequence[Sum]
    sums_from: Sequence[Sum]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a member gave and was given; the weights are those at the ticks of `given_ms` and `received_ms`."""

    given: int = 0
    received: int = 0
    thanked_by: int = 0
    thanked: int = 0
    given_ms: int = 0
    received_ms: int = 0
    given_weight: float = 0.0
    received_weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happened in a step."""

    payments: int = 0
    joined: int = 0
    volume: int = 0
    melted: int = 0
    issued: int = 0
    retired: int = 0
    granted: int = 0
    shared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the last entry before a moment left things; seq 0 before there was one."""

    last_seq: int = 0
    active: int = 0
    suspended: int = 0
    pool: int = 0
    escrow: int = 0


class Readings:
    """The readings of one database, for those who show them. Safe for any number of requests at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open(self, commons: Commons) -> AsyncIterator[Snapshot]:
        """The readings of a commons at one moment. Read-only, and of one commons, whose rows lie on one node."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            row = await connection.fetchrow(_READINGS["load_cursor"], rows.key_of(commons.id))
            cursor = Cursor(0, 0, 0) if row is None else Cursor(*row)
            yield Snapshot(connection, commons, cursor)


class Snapshot:
    """One moment of a commons' readings: all its answers are as of `cursor`."""

    def __init__(self, connection: Connection, commons: Commons, cursor: Cursor) -> None:
        self._connection = connection
        self._commons = commons
        self._commons_id = rows.key_of(commons.id)
        self._tick_ms = commons.timeline.changes[0][1].tick_seconds * 1000
        self.cursor: Final = cursor

    # ── Relationships and standing ───────────────────────────────────────────────────────────────────────────────

    async def list_relations(
        self, member: bytes, *, after: tuple[float, bytes] | None, limit: int
    ) -> tuple[list[Relation], bool]:
        """With whom a member had to do, strongest first, after a place (weight, peer); and whether there are more.

        At most `limit`, and fewer where they have many categories; none only if there are none.
        """
        if self.cursor.seq == 0:
            return [], False
        weight, peer = after if after is not None else (None, None)
        fading = self._tick_ms / self.cursor.half_life_ms
        found = await self._connection.fetch(
            _READINGS["list_relations"], self._commons_id, member, self._tick_ms, fading, weight, peer, limit + 1
        )
        listed: list[Relation] = []
        told = 0
        while len(listed) < min(limit, len(found)) and told < PAGE_SUMS_MAX:
            chunk = found[len(listed) : min(limit, len(listed) + PEERS_CHUNK)]
            peers = [row["peer"] for row in chunk]
            handles = await self._load_handles(peers)
            sums = await self._load_sums(member, peers)
            told += sum(len(many) for many in sums.values())
            for row in chunk:
                name = row["peer"]
                columns: dict[str, Any] = {**dict(row), "paid": int(row["paid"]), "received": int(row["received"])}
                listed.append(
                    Relation(
                        **columns,
                        handle=handles[name],
                        sums_to=sums.get((member, name), ()),
                        sums_from=sums.get((name, member), ()),
                    )
                )
        return listed, len(found) > len(listed)

    async def _load_handles(self, peers: Sequence[bytes]) -> dict[bytes, str]:
        found = await self._connection.fetch(_READINGS["load_handles"], self._commons_id, peers)
        return {row["peer"]: row["handle"] for row in found}

    async def _load_sums(self, member: bytes, peers: Sequence[bytes]) -> dict[tuple[bytes, bytes], list[Sum]]:
        """The sums of a member and some peers, by (giver, receiver)."""
        found = await self._connection.fetch(_READINGS["list_relation_sums"], self._commons_id, member, peers, SUMS_MAX)
        sums: dict[tuple[bytes, bytes], list[Sum]] = {}
        for giver, receiver, asset, category, count, amount in found:
            one = Sum(asset=asset, category=category, count=count, amount=int(amount))
            sums.setdefault((giver, receiver), []).append(one)
        return sums

    async def load_standing(self, member: bytes) -> Standing:
        """What a member gave and was given."""
        row = await self._connection.fetchrow(_READINGS["load_standing"], self._commons_id, member)
        return Standing() if row is None else Standing(**dict(row))

    # ── Circulation ──────────────────────────────────────────────────────────────────────────────────────────────

    async def load_first_tick(self) -> int | None:
        """The tick of the founding; None if nothing is folded yet."""
        tick: int | None = await self._connection.fetchval(_READINGS["load_first_tick"], self._commons_id)
        return tick

    async def list_steps(self, *, first: int, step: int, end: int) -> dict[int, Step]:
        """What happened in the ticks first…end - 1, by steps of `step` ticks, numbered from 0; empty ones left out."""
        found = await self._connection.fetch(_READINGS["list_flow_steps"], self._commons_id, first, step, end)
        return {row["place"]: Step(**{name: int(row[name]) for name in Step.__slots__}) for row in found}

    async def list_sums(self, *, first: int, step: int, end: int) -> dict[int, list[Sum]]:
        """What moved in these steps by category, the most frequent first, at most `SUMS_MAX` of payments and gifts."""
        found = await self._connection.fetch(
            _READINGS["list_flow_sums"], self._commons_id, first, step, end, self._commons.currency.code, SUMS_MAX
        )
        sums: dict[int, list[Sum]] = {}
        for place, asset, category, count, amount in found:
            one = Sum(asset=asset, category=category, count=count, amount=int(amount))
            sums.setdefault(place, []).append(one)
        return sums

    async def list_ends(self, ticks: Sequence[int]) -> list[End]:
        """How things stood before the beginning of each of some ticks."""
        found = await self._connection.fetch(_READINGS["list_flow_ends"], self._commons_id, ticks)
        return [End() if row["last_seq"] is None else End(**dict(row)) for row in found]

    async def list_pairs(self, *, first: int, end: int) -> AsyncIterator[tuple[list[int], list[int]]]:
        """Who paid whom and who gave to whom in the ticks first…end - 1, a bit at a time, in no order: account, account
        and grains one after the other of payments, account and account of gifts. A pair may come several times.
        """
        place = (first, 0)
        while True:
            found = await self._connection.fetch(
                _READINGS["list_flow_pairs"], self._commons_id, end, *place, PAIRS_CHUNK
            )
            for row in found:
                yield _read_pairs(row["pairs"])
            if len(found) < PAIRS_CHUNK:
                return
            place = (found[-1]["tick"], found[-1]["seq"])

    async def load_givers(self, numbers: Sequence[int]) -> dict[int, tuple[bytes, int | None]]:
        """Whose some gift accounts are, reserved holders by their ASCII, and the number of their money account."""
        found = await self._connection.fetch(
            _READINGS["load_givers"], self._commons_id, numbers, self._commons.currency.code
        )
        return {row["number"]: (row["holder"], row["money"]) for row in found}

    async def list_balances(self, *, last_seq: int) -> AsyncIterator[tuple[int, list[tuple[int, int, Holding]]]]:
        """Members' money as it was posted up to an entry, a page at a time: how many accounts were looked at, and
        (account, seq of its last posting, holding) of each that has something, its holds included, as it was then
        brought up to date and without its inflows.
        """
        after = -1
        while True:
            found = await self._connection.fetch(
                _READINGS["list_balances_at"],
                self._commons_id,
                last_seq,
                self._commons.currency.code,
                after,
                ACCOUNTS_CHUNK,
            )
            yield (
                len(found),
                [
                    (row["number"], row["seq"], Holding(row["balance"], row["escrow"], row["at_ms"] // self._tick_ms))
                    for row in found
                    if row["seq"] is not None and row["balance"] + row["escrow"] > 0
                ],
            )
            if len(found) < ACCOUNTS_CHUNK:
                return
            after = found[-1]["number"]

    async def load_inflows(
        self, accounts: Sequence[tuple[int, int, int]], *, limit: int
    ) -> tuple[Mapping[int, list[tuple[int, int]]], int]:
        """What reached accounts (number, first tick, last seq), by tick, as (tick, grains) in order; and how many
        postings that took, of which at most `limit` are looked at.
        """
        numbers, ticks, seqs = (list(column) for column in zip(*accounts, strict=True))
        found = await self._connection.fetch(
            _READINGS["list_inflows_at"],
            self._commons_id,
            numbers,
            ticks,
            seqs,
            self._tick_ms,
            sorted(INFLOW_REASONS),
            limit,
            INFLOW_MAX,
        )
        inflows: dict[int, list[tuple[int, int]]] = {}
        for number, tick, grains, _ in found:
            inflows.setdefault(number, []).append((tick, grains))
        return inflows, sum(row["postings"] for row in found)


_read_pairs: Final = msgspec.msgpack.Decoder(tuple[list[int], list[int]]).decode

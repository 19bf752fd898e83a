"""Loads what readers ask for. Shows no balance itself: accounts go out as holdings, for `core.present` to show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import structs

from gesell_ledger.core.books import Commons, Entry, Gift, Hold, Key, Member, ShareOut
from gesell_ledger.core.visibility import Sight
from gesell_ledger.storage import rows
from gesell_ledger.storage.postgres import Batch
from gesell_ledger.storage.queries import queries
from gesell_ledger.storage.rules import Rules
from gesell_protocol.demurrage import INFLOW_MAX, INFLOW_REASONS, Holding
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import ESCROW, ISSUER, POOL, Holder

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

_READING = queries("reading")
_SEQUENCE = queries("sequence")


BEFORE_ALL: Final = -(2**63)
#: A page of entries ends at so many postings: more than one entry can have, few enough to answer in a moment.
PAGE_POSTINGS_MAX: Final = 20_000
#: … and at about so many bytes of bodies, asked for in chunks of so many entries.
PAGE_BYTES_MAX: Final = 2 * 1024 * 1024
CHUNK: Final = 250
#: A page of a party's entries ends at about so many bytes of bodies: 256 legs take 10 KB and make 513 postings.
PARTY_BYTES_MAX: Final = 400 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an account's history: a posting, the balance after it, and the statement it came from."""

    seq: int
    n: int
    reason: str
    amount: int
    balance: int
    at_ms: int
    id: bytes
    body: bytes
    memo: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """An account's number in its commons, its name, and its holding."""

    number: int
    holder: Holder
    asset: str
    holding: Holding


@dataclass(frozen=True, slots=True)
class GiftCounts:
    """How much of one kind of gifts a member gave and received, all thanked for."""

    kind: str
    given: int
    received: int


@dataclass(frozen=True, slots=True)
class GiftLine:
    """A gift with its offer: when it was made and settled, the body that made it, its memo's text if it is there, and
    that of what settled it.
    """

    gift: Gift
    at_ms: int
    settled_ms: int | None
    body: bytes
    memo: str | None
    reply: str | None


class Reader:
    """Reads of one database. Safe for any number of requests at once; each call is one moment of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules = Rules()

    async def list_commons(self, *, after: bytes | None, limit: int) -> list[Commons]:
        """Commons in the order in which they are stored, after the one of this name, or of its first 8 bytes."""
        place = BEFORE_ALL if after is None else rows.key_of(after)
        found = await self._pool.fetch(_READING["list_commons"], place, limit)
        return [await self._rules.read_commons(self._pool, row) for row in found]

    async def list_sharing(self) -> list[bytes]:
        """The names of the commons that share out their pool just now."""
        return [row["hash"] for row in await self._pool.fetch(_READING["list_sharing"])]

    async def load_commons(self, commons: bytes) -> tuple[Commons, int] | None:
        """A commons' head as of its last entry, and how many accounts it has; None if it was not founded here."""
        row = await self._pool.fetchrow(_READING["load_commons"], rows.key_of(commons))
        if row is None or row["hash"] != commons:
            return None
        return await self._rules.read_commons(self._pool, row), row["accounts"]

    @asynccontextmanager
    async def open_books(self, commons: bytes) -> AsyncIterator[Batch]:
        """One moment of a commons to decide upon: `look` and `load` of a batch of which nothing will be stored.

        A batch that will be stored holds the lock of the commons from `look` on, under READ COMMITTED. A preview takes
        no lock, so its several queries need one snapshot, lest they show the head of one entry and the accounts of the
        next. That is no isolation that anything stored rests on: it is read-only, and the rows of one commons lie on
        one node, whose snapshot is whole.
        """
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield Batch(connection, commons, self._rules)

    async def find_holders(self, commons: bytes, handles: Iterable[str]) -> dict[str, bytes]:
        """Who holds these handles; those that nobody holds are left out. A handle never passes to another peer."""
        found = await self._pool.fetch(_SEQUENCE["load_holders"], rows.key_of(commons), list(handles))
        return {row["handle"]: row["peer"] for row in found}

    async def load_heads(self, names: Sequence[bytes]) -> dict[bytes, int]:
        """The last entry's seq of some commons."""
        found = await self._pool.fetch(_READING["load_heads"], [rows.key_of(name) for name in names])
        return {row["hash"]: row["seq"] for row in found}

    async def list_members(self, commons: bytes, *, after: bytes, limit: int) -> list[Member]:
        """Members (those who have left excepted) in order of their keys."""
        found = await self._pool.fetch(_READING["list_members"], rows.key_of(commons), after, limit)
        return [rows.read_member(tuple(row)) for row in found]

    async def load_member(self, commons: bytes, name: bytes | str) -> Member | None:
        """A member by key or by the handle it holds; one who has left included."""
        query = "load_member" if isinstance(name, bytes) else "load_member_by_handle"
        row = await self._pool.fetchrow(_READING[query], rows.key_of(commons), name)
        return None if row is None else rows.read_member(tuple(row))

    async def load_key_rings(self, commons: bytes, peers: Sequence[bytes]) -> dict[bytes, list[Key]]:
        """The keys of some peers that their own names do not tell of, first added first."""
        rings: dict[bytes, list[Key]] = defaultdict(list)
        for row in await self._pool.fetch(_READING["load_key_rings"], rows.key_of(commons), peers):
            rings[row["peer"]].append(rows.read_key(row))
        return rings

    async def load_reserved(self, commons: Commons) -> tuple[Commons, dict[Holder, int]]:
        """What the reserved holders have, and the commons as of the entry after which they have it."""
        row = await self._pool.fetchrow(_READING["load_reserved"], rows.key_of(commons.id))
        assert row is not None
        seq, at_ms, active_members, issuer, pool, escrow = tuple(row)
        now = structs.replace(commons, seq=seq, at_ms=at_ms, active_members=active_members)
        return now, {ISSUER: issuer, POOL: pool, ESCROW: escrow}

    async def load_account_now(
        self, commons: Commons, holder: Holder, *, asset: str | None = None
    ) -> tuple[Account | None, int, int]:
        """A holder's account in an asset, the currency if not said; seq and time of the entry after which it stands."""
        name = rows.holder_bytes(holder)
        row = await self._pool.fetchrow(
            _READING["load_account_now"], rows.key_of(commons.id), name, asset or commons.currency.code
        )
        assert row is not None
        seq, at_ms, *account = tuple(row)
        return None if account[0] is None else _read_account(account), seq, at_ms

    async def load_vouched(self, commons: bytes, peer: bytes, *, seq: int) -> int:
        """What was vouched for a peer less what it vouched, after entry `seq`."""
        vouched = await self._pool.fetchval(_READING["load_vouched"], rows.key_of(commons), peer, seq)
        return vouched or 0

    async def list_gift_counts(self, commons: bytes, peer: bytes, *, seq: int) -> list[GiftCounts]:
        """What a peer gave and received of each kind up to entry `seq`, in order of the kinds' codes."""
        found = await self._pool.fetch(_READING["list_gift_counts"], rows.key_of(commons), peer, seq)
        return [GiftCounts(kind, int(given), int(received)) for kind, given, received in map(tuple, found)]

    async def load_answered(self, commons: bytes, names: Iterable[bytes]) -> dict[bytes, Gift | Hold]:
        """Gifts and holds by their ids; what is neither is left out."""
        ids = [rows.uuid_of(name) for name in names]
        gifts = await self._pool.fetch(_READING["load_gifts"], rows.key_of(commons), ids)
        holds = await self._pool.fetch(_READING["load_holds"], rows.key_of(commons), ids)
        found: dict[bytes, Gift | Hold] = {gift.id: gift for gift in map(rows.read_gift, map(tuple, gifts))}
        return found | {hold.id: hold for hold in map(rows.read_hold, map(tuple, holds))}

    async def list_lapsing(self, commons: bytes, *, before_ms: int, limit: int) -> list[bytes]:
        """Open holds whose time came before a moment, the longest over first."""
        found = await self._pool.fetch(_READING["list_lapsing"], rows.key_of(commons), before_ms, limit)
        return [row["id"].bytes for row in found]

    async def load_gift(self, commons: bytes, name: bytes) -> GiftLine | None:
        """A gift by its id; None for one that was never offered."""
        row = await self._pool.fetchrow(_READING["load_gift"], rows.key_of(commons), rows.uuid_of(name))
        return None if row is None else _read_gift_line(row)

    async def list_gifts(
        self,
        commons: bytes,
        sight: Sight,
        *,
        giver: Holder | None = None,
        receiver: Holder | None = None,
        state: str | None = None,
        moved_by: bytes | None = None,
        before: int | None = None,
        limit: int,
    ) -> list[GiftLine]:
        """Gifts before an entry, the newest first: those that `sight` shows and that all filters let by."""
        if sight.every_entry:
            sides: list[tuple[Holder | None, Holder | None]] = [(giver, receiver)]
        else:
            assert sight.peer is not None
            # Each of these is found by an index of its own; a gift that two of them show comes once.
            shown = [(sight.peer, None), (None, sight.peer), *([(None, POOL)] if sight.whole else [])]
            sides = [both for both in (_narrow((giver, receiver), side) for side in shown) if both is not None]
        found: dict[bytes, GiftLine] = {}
        for side in sides:
            lines = await self._list_gifts(commons, *side, state, moved_by, before, limit)
            found |= {line.gift.id: line for line in lines}
        return sorted(found.values(), key=lambda line: -line.gift.seq)[:limit]

    async def _list_gifts(
        self,
        commons: bytes,
        giver: Holder | None,
        receiver: Holder | None,
        state: str | None,
        moved_by: bytes | None,
        before: int | None,
        limit: int,
    ) -> list[GiftLine]:
        # The narrowest filter finds the rows by its index, the others are looked at in what it finds.
        narrowing = (
            (moved_by, _READING["list_gifts_by_moved_by"]),
            (giver, _READING["list_gifts_by_giver"]),
            (receiver, _READING["list_gifts_by_receiver"]),
            (state, _READING["list_gifts_by_state"]),
        )
        found = await self._pool.fetch(
            next((query for value, query in narrowing if value is not None), _READING["list_gifts_by_commons"]),
            rows.key_of(commons),
            2**62 if before is None else before,
            limit,
            None if giver is None else rows.holder_bytes(giver),
            None if receiver is None else rows.holder_bytes(receiver),
            state,
            None if moved_by is None else rows.uuid_of(moved_by),
        )
        return [_read_gift_line(row) for row in found]

    async def load_account_at(self, commons: Commons, account: Account, at_ms: int) -> tuple[Holding, int] | None:
        """An account as it stood after the last entry at or before a moment: its holding, and that entry's seq.

        Made from the postings alone; None when the moment lies before the first entry.
        """
        commons_id = rows.key_of(commons.id)
        seq = await self._last_before(commons, at_ms + 1)
        if seq == 0:
            return None
        posting = await self._pool.fetchrow(_READING["load_last_posting"], commons_id, account.number, seq)
        if posting is None:
            return Holding(), seq
        tick = commons.tick_of(posting["at_ms"])
        tick_ms = commons.policy_at(at_ms).tick_seconds * 1000
        first = await self._last_before(commons, commons.timeline.window_start(tick) * tick_ms) + 1
        span = (posting["seq"], first, sorted(INFLOW_REASONS), tick_ms, INFLOW_MAX)
        found = await self._pool.fetch(_READING["load_inflows"], commons_id, account.number, *span)
        escrow = await self._pool.fetchval(
            _READING["load_escrow_at"], commons_id, rows.holder_bytes(account.holder), seq
        )
        return Holding(posting["balance"], escrow, tick, tuple((row["tick"], row["grains"]) for row in found)), seq

    async def _last_before(self, commons: Commons, at_ms: int) -> int:
        """The seq of the last entry before a moment, 0 if there is none: halving, a look at the primary key each."""
        low, high = 0, commons.seq
        if at_ms > commons.at_ms:
            return high
        while low < high:
            middle = (low + high + 1) // 2
            if await self._pool.fetchval(_READING["load_time_of"], rows.key_of(commons.id), middle) < at_ms:
                low = middle
            else:
                high = middle - 1
        return low

    async def list_postings(
        self, commons: bytes, account: Account, *, after: tuple[int, int] | None, newest_first: bool, limit: int
    ) -> list[Line]:
        """An account's history from a place (seq, n) on, in either direction."""
        query = "list_postings_back" if newest_first else "list_postings"
        seq, n = after or ((2**62, 0) if newest_first else (0, 0))
        found = await self._pool.fetch(_READING[query], rows.key_of(commons), account.number, seq, n, limit)
        return [
            Line(seq, n, reason, amount, balance, at_ms, name.bytes, body, text)
            for seq, n, reason, amount, balance, at_ms, name, body, text in map(tuple, found)
        ]

    async def list_entries(self, commons: bytes, *, after: int, limit: int) -> list[tuple[Entry, Memo | None]]:
        """Entries after seq `after`, in order, each with its memo if the text is there.

        At most `limit`, and fewer where they carry many postings; none only if there are none.
        """
        commons_id = rows.key_of(commons)
        found: list[rows.Row] = []
        weight = 0
        while len(found) < limit and weight < PAGE_BYTES_MAX:
            place = found[-1]["seq"] if found else after
            more = await self._pool.fetch(_READING["list_entries"], commons_id, place, min(CHUNK, limit - len(found)))
            found += more
            weight += sum(len(row["body"]) for row in more)
            if len(more) < CHUNK:
                break
        if not found:
            return []
        span = (found[0]["seq"], found[-1]["seq"])
        lines = await self._pool.fetch(_READING["list_postings_of"], commons_id, *span, PAGE_POSTINGS_MAX)
        if len(lines) == PAGE_POSTINGS_MAX:
            # The last entry that has postings here may have more; it begins the next page.
            found = [row for row in found if row["seq"] < lines[-1][0]]
        return _read_entries(commons, found, lines)

    async def list_entries_of(
        self, commons: bytes, sight: Sight, *, after: int, limit: int
    ) -> tuple[list[tuple[Entry, Memo | None]], bool]:
        """Entries after seq `after` that a peer's `sight` shows it: what it is a party to, what concerns everybody, the
        founding; and whether there are more than the at most `limit` that it returns.
        """
        assert sight.peer is not None
        commons_id = rows.key_of(commons)
        limit = min(limit, CHUNK)
        who = (sight.peer, after, sight.whole, sight.belonged)
        named = await self._pool.fetch(_READING["list_seqs_of_party"], commons_id, *who, limit + 1)
        seqs = [row["seq"] for row in named[:limit]]
        found = _cut(await self._pool.fetch(_READING["list_entries_of"], commons_id, seqs))
        lines = await self._pool.fetch(_SEQUENCE["load_postings"], commons_id, [row["seq"] for row in found])
        return _read_entries(commons, found, lines), len(named) > len(found)

    async def load_key(self, commons: bytes, key: bytes) -> Key | None:
        """What the books say of a key; None for one that tells by its own name whose it is."""
        row = await self._pool.fetchrow(_READING["load_key"], rows.key_of(commons), key)
        return None if row is None else rows.read_key(row)

    async def find_entry(self, commons: bytes, statement_id: bytes) -> Entry | None:
        """The entry of a statement by its id."""
        seq = await self._pool.fetchval(_READING["find_entry"], rows.key_of(commons), rows.uuid_of(statement_id))
        if seq is None:
            return None
        return (await self.list_entries(commons, after=seq - 1, limit=1))[0][0]

    async def list_asleep(self, commons: Commons, *, before_tick: int, page: int) -> AsyncIterator[list[Account]]:
        """Accounts that hold something and were last brought up to date before a tick, in order of their numbers.

        Found in pages of `page` accounts, asleep or not, each looked at as it stands when its turn comes; a page where
        none sleeps is an empty list.
        """
        commons_id = rows.key_of(commons.id)
        last = await self._pool.fetchval(_READING["load_last_account"], commons_id)
        for first in range(0, -1 if last is None else last + 1, page):
            found = await self._pool.fetch(
                _READING["list_asleep"], commons_id, before_tick, first, first + page, commons.currency.code
            )
            yield [_read_account(row) for row in found]

    async def list_unpaid(self, commons: bytes, share: ShareOut, *, limit: int) -> list[bytes]:
        """The next peers, in order, whom a share owes their part."""
        unpaid: list[bytes] = []
        after = share.paid_through
        while len(unpaid) < limit:
            found = await self._pool.fetch(_READING["list_unpaid"], rows.key_of(commons), after, 1000)
            members = [rows.read_member(tuple(row)) for row in found]
            unpaid += [member.peer for member in members if member.was_active_at(share.seq)]
            if len(found) < 1000:
                break
            after = members[-1].peer
        return unpaid[:limit]

    async def load_share(self, commons: bytes, share_id: bytes) -> ShareOut | None:
        """A share of the pool, and how far it is paid."""
        row = await self._pool.fetchrow(_READING["load_share"], rows.key_of(commons), rows.uuid_of(share_id))
        return None if row is None else rows.read_share(tuple(row))


def _narrow(
    asked: tuple[Holder | None, Holder | None], shown: tuple[Holder | None, Holder | None]
) -> tuple[Holder | None, Holder | None] | None:
    """What of the gifts with the sides that are asked for has the sides that are shown; None for nothing."""
    both: list[Holder | None] = []
    for wanted, seen in zip(asked, shown, strict=True):
        if wanted is not None and seen is not None and wanted != seen:
            return None
        both.append(seen if wanted is None else wanted)
    return both[0], both[1]


def _read_gift_line(row: rows.Row) -> GiftLine:
    *gift, at_ms, settled_ms, body, memo, reply = row
    return GiftLine(rows.read_gift(gift), at_ms, settled_ms, body, memo, reply)


def _cut(found: Sequence[rows.Row]) -> Sequence[rows.Row]:
    """As many entries, one at least, as have no more postings than a page may carry: a long body has many."""
    weight = 0
    for place, row in enumerate(found):
        weight += len(row["body"])
        if weight > PARTY_BYTES_MAX and place > 0:
            return found[:place]
    return found


def _read_entries(
    commons: bytes, found: Sequence[rows.Row], lines: Sequence[rows.Row]
) -> list[tuple[Entry, Memo | None]]:
    """Rows of entries with their memos, and rows of their postings, put together."""
    postings = rows.read_postings(lines)
    return [
        (
            rows.read_entry(commons, row, postings[row["seq"]]),
            None if row["salt"] is None else Memo(row["salt"], row["text"]),
        )
        for row in found
    ]


def _read_account(row: rows.Row) -> Account:
    number, holder, asset, balance, escrow, tick, inflows = tuple(row)
    return Account(number, rows.read_holder(holder), asset, rows.read_holding(balance, escrow, tick, inflows))

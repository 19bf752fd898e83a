"""The reading half of the client: what a ledger tells about its commons.

Owns the calls that change nothing, the paging, and the link to one ledger that all views of a client share. What
is signed and sent is `client`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from gesell.answers import (
    Balance,
    Commons,
    Entry,
    HistoryLine,
    Member,
    Service,
    milliseconds,
    read_balance,
    read_commons,
    read_entry,
    read_history_line,
    read_json_receipt,
    read_member,
    read_service,
)
from gesell.clock import IdMaker, LedgerClock
from gesell.errors import UnexpectedAnswer
from gesell.peer import Peer, PeerLike
from gesell.transport import Transport, json_of
from gesell_protocol.names import COMMONS_BYTES, KEY_BYTES, commons_of, did_of, id_of, id_text, is_handle, peer_of
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Currency, Found, read_statement

PAGE: Final = 1_000
_T = TypeVar("_T")

#: How calls name a statement: its UUID text, its 16 bytes, or its receipt.
StatementLike = str | bytes | Receipt


class Link:
    """What all views of one client share: the session, the clock, and what was learnt about each commons."""

    def __init__(self, url: str, *, timeout: float, patience: float) -> None:
        self.transport = Transport(url, timeout=timeout)
        self.patience = patience
        self.clock = LedgerClock()
        self.ids = IdMaker()
        self.founded: dict[bytes, Found] = {}
        #: (commons, handle) → key. A handle never passes to another peer, so what was learnt stays true.
        self.handles: dict[tuple[bytes, str], bytes] = {}


class Reads:
    """The calls that read. `Client` has them all."""

    def __init__(self, link: Link, *, commons: str | bytes | None, by: PeerLike | None) -> None:
        self._link = link
        self._commons = None if commons is None else commons_bytes(commons)
        self._by = by

    @property
    def commons_id(self) -> str | None:
        """The commons this client speaks to, as 32 hex digits; None until it is founded or named."""
        return None if self._commons is None else self._commons.hex()

    async def service(self) -> Service:
        """The ledger itself; also sets the clock: `(await gesell.service()).ledger`."""
        answer = await self._link.transport.read("")
        service = _understood(read_service, json_of(answer))
        self._link.clock.sample(service.time_ms, speed=service.clock_speed, received_at=answer.received_at)
        return service

    async def commons(self) -> Commons:
        """This client's commons: `(await gesell.commons()).pool`."""
        return _understood(read_commons, json_of(await self._link.transport.read(self._path(""))))

    async def currency(self) -> Currency:
        """The currency's code and scale, which were fixed for good: `(await gesell.currency()).code`.

        Taken from the founding statement itself, whose hash is the commons' name, not from the operator's word.
        """
        return (await self._founded()).currency

    async def commons_list(self) -> list[Commons]:
        """All commons that this ledger shows: `for commons in await gesell.commons_list(): …`."""
        return [_understood(read_commons, item) async for item in self._pages("/commons", {})]

    async def member(self, member: PeerLike | None = None) -> Member:
        """One member, by default oneself: `(await gesell.member("bob")).status`. Raises `UnknownMember`."""
        found = await self._founded()
        answer = await self._link.transport.read(self._path("/members/" + self._name(member)))
        return _understood(lambda item: read_member(item, found.currency), json_of(answer))

    async def members(self) -> AsyncIterator[Member]:
        """All members, page by page: `async for member in gesell.members(): print(member.handle)`."""
        found = await self._founded()
        async for item in self._pages(self._path("/members"), {}):
            yield _understood(lambda item: read_member(item, found.currency), item)

    async def balance(self, of: PeerLike | None = None, *, at: datetime | int | None = None) -> Balance:
        """The balance of a member, by default one's own, now or at a time past or to come.

        `at` is an aware datetime or ms of the ledger's clock, at most 10,000 ticks ahead.

            balance = await gesell.balance()
            print(balance, balance.next_melt)                       # 42.5 WRG 0.028611 WRG
            later = await gesell.balance("bob", at=datetime(2027, 1, 1, tzinfo=UTC))
        """
        found = await self._founded()
        params = {} if at is None else {"at": str(milliseconds(at))}
        path = self._path(f"/members/{self._name(of)}/balances")
        answer = await self._link.transport.read(path, params)
        return _understood(lambda item: read_balance(item, found.currency), json_of(answer))

    async def history(self, of: PeerLike | None = None, *, newest_first: bool = False) -> AsyncIterator[HistoryLine]:
        """The postings of a member's account, by default one's own, melt included, oldest first unless told.

        async for line in gesell.history():
            print(line.at, line.reason, line.amount, line.balance)
        """
        found = await self._founded()
        params = {"asset": found.currency.code, "order": "desc" if newest_first else "asc"}
        async for item in self._pages(self._path(f"/members/{self._name(of)}/postings"), params):
            yield _understood(lambda item: read_history_line(item, found.currency), item)

    async def entries(self, *, after: int = 0) -> AsyncIterator[Entry]:
        """The log's entries from `after` + 1 on, each checked against its leaf hash.

        async for entry in gesell.entries(after=last_seen):
            print(entry.seq, entry.type, entry.postings)
        """
        async for item in self._pages(self._path("/entries"), {"after": str(after)}):
            yield _understood(read_entry, item)

    async def receipt(self, statement: StatementLike) -> Receipt:
        """The receipt of a statement by its id: `await gesell.receipt(error.id)`. Raises `NotFound`."""
        path = self._path("/statements/" + id_text(statement_bytes(statement)))
        return _understood(read_json_receipt, json_of(await self._link.transport.read(path)))

    async def key_of(self, peer: PeerLike) -> bytes:
        """The 32-byte key that names a peer: `(await gesell.key_of("bob")).hex()`.

        A handle is looked up once and then remembered. For a handle the operator's word is taken for who bears
        it; a did is the key itself and needs nobody's word.
        """
        if isinstance(peer, Peer):
            return peer.key
        if isinstance(peer, bytes):
            if len(peer) != KEY_BYTES:
                raise ValueError("a peer's key has 32 bytes")
            return peer
        if peer.startswith("did:"):
            return peer_of(peer)
        commons = self._commons_bytes()
        if (commons, peer) not in self._link.handles:
            member = await self.member(peer)
            if member.handle != peer:
                raise UnexpectedAnswer(f"asked for {peer!r}, the ledger spoke of {member.handle!r}")
            if member.status == "pending":  # others may ask for the same handle; it is nobody's yet
                return peer_of(member.peer)
            self._link.handles[commons, peer] = peer_of(member.peer)
        return self._link.handles[commons, peer]

    def _name(self, member: PeerLike | None) -> str:
        """How a member is called in a path; raises `ValueError` for what can be no name."""
        if member is None:
            if self._by is None:
                raise ValueError("say whose: this client has no peer of its own")
            member = self._by
        if isinstance(member, Peer):
            return member.did
        if isinstance(member, bytes):
            return did_of(member)
        if member.startswith("did:"):
            peer_of(member)
        elif not is_handle(member):
            raise ValueError(f"{member!r} is neither a handle nor a did")
        return quote(member, safe=":")

    def _commons_bytes(self) -> bytes:
        if self._commons is None:
            raise ValueError("say which commons: Client(url, commons=…), or found one")
        return self._commons

    def _path(self, rest: str) -> str:
        return f"/commons/{self._commons_bytes().hex()}{rest}"

    async def _pages(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, page after page."""
        answer = await self._link.transport.read(path, {**params, "limit": str(PAGE)})
        while True:
            items = json_of(answer).get("items")
            if not isinstance(items, list):
                raise UnexpectedAnswer(f"{answer.url} is not a list as a ledger answers it")
            for item in items:
                yield item
            if answer.next is None:
                return
            answer = await self._link.transport.read_url(answer.next)

    async def _founded(self, commons: bytes | None = None) -> Found:
        """How a commons was founded: its currency and ticks, which nobody can change.

        Read from its first entry, whose hash is the commons' name: so an operator can't make "0.05" mean another
        number of grains than the founders said.
        """
        commons = commons or self._commons_bytes()
        if commons not in self._link.founded:
            path = f"/commons/{commons.hex()}/entries"
            answer = await self._link.transport.read(path, {"after": "0", "limit": "1"})
            self._link.founded[commons] = _understood(lambda page: _read_found(page, commons), json_of(answer))
        return self._link.founded[commons]

    async def _now_ms(self) -> int:
        if self._link.clock.is_stale:
            await self.service()
        return self._link.clock.now_ms()


def commons_bytes(commons: str | bytes) -> bytes:
    """The 16 bytes of a commons given as bytes or as 32 hex digits; `ValueError` for anything else."""
    try:
        name = bytes.fromhex(commons) if isinstance(commons, str) else commons
    except ValueError:
        name = b""
    if len(name) != COMMONS_BYTES:
        raise ValueError("a commons is named by 32 hex digits")
    return name


def statement_bytes(statement: StatementLike) -> bytes:
    """The 16 bytes of a statement's id; `ValueError` for what is none."""
    if isinstance(statement, Receipt):
        return statement.id
    if isinstance(statement, str):
        return id_of(statement)
    if len(statement) != 16:
        raise ValueError("a statement's id has 16 bytes")
    return statement


def _read_found(page: Mapping[str, Any], commons: bytes) -> Found:
    entry = read_entry(page["items"][0])
    if entry.seq != 1 or commons_of(entry.envelope.body) != commons:
        raise ValueError("the first entry is not the founding of this commons")
    statement = read_statement(entry.envelope, min_tick_seconds=1)
    if not isinstance(statement, Found):
        raise ValueError("the first entry founds nothing")
    return statement


def _understood(read: Callable[[dict[str, Any]], _T], fields: dict[str, Any]) -> _T:
    """What `read` makes of an answer; an answer that is none of its kind is `UnexpectedAnswer`."""
    try:
        return read(fields)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = error.refusal.detail if isinstance(error, Rejected) else f"{type(error).__name__}: {error}"
        raise UnexpectedAnswer(f"the ledger's answer can't be read: {why}") from error

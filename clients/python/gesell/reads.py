"""The reading half of the client: what a ledger tells about its commons.

Owns the calls that change nothing, the paging, and the link to one ledger that all views of a client share. What
is signed and sent is `client`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from yarl import URL

from gesell.amount import Amount, AmountLike, grains_of
from gesell.answers import (
    HOUR,
    Balance,
    Commons,
    Entry,
    HistoryLine,
    Kind,
    Member,
    Service,
    gift_kinds_in,
    milliseconds,
    read_balance,
    read_commons,
    read_entry,
    read_history_line,
    read_json_receipt,
    read_member,
    read_service,
    understood,
)
from gesell.checking import Checks
from gesell.clock import IdMaker, LedgerClock
from gesell.errors import (
    BadToken,
    NotActive,
    NotAuthorised,
    NotFound,
    Refused,
    UnexpectedAnswer,
    UnknownCommons,
    Unreachable,
    refused,
)
from gesell.following import Follower
from gesell.gifts import Gift
from gesell.log_reader import LogReader
from gesell.payto import PaymentRequest
from gesell.peer import Peer, PeerLike
from gesell.tokens import Tokens
from gesell.transport import JSON, PASSING, Answer, AnswerTooLong, Form, Transport, json_of, passes
from gesell.unsettled import Unsettled
from gesell_protocol.fields import Currency
from gesell_protocol.names import (
    COMMONS_BYTES,
    KEY_BYTES,
    commons_of,
    did_of,
    id_of,
    id_text,
    is_handle,
    is_uuid7,
    peer_of,
    time_of_id,
)
from gesell_protocol.receipts import Receipt
from gesell_protocol.statements import Found, read_statement

PAGE: Final = 1_000
NAMES_A_PEER: Final = "a peer is named by its handle, its did, a Peer or the 32 bytes of its key"

#: How calls name a statement: its UUID text, its 16 bytes, its receipt, or the gift that it offered.
StatementLike = str | bytes | Receipt | Gift


class Link:
    """What all views of one client share: the session, the clock, and what was learnt about each commons."""

    def __init__(self, url: str, *, timeout: float, patience: float, checks: Checks) -> None:
        self.transport = Transport(url, timeout=timeout)
        self.checks = checks
        self.patience = patience
        self.clock = LedgerClock()
        self.ids = IdMaker()
        #: The ledger's did, which tokens are made out to; None until it is asked.
        self.ledger: str | None = None
        self.unsettled = Unsettled()
        #: The commons that do not show everything to everybody, as far as it was met.
        self.closed: set[bytes] = set()
        self.founded: dict[bytes, Found] = {}
        #: (commons, handle) → key. A handle never passes to another peer, so what was learnt stays true.
        self.handles: dict[tuple[bytes, str], bytes] = {}
        #: (commons, code) → a kind of gift, which never changes.
        self.kinds: dict[tuple[bytes, str], Kind] = {}


class Reads:
    """The calls that read accounts and the log. `Client` has them all."""

    def __init__(self, link: Link, *, commons: str | bytes | None, peer: Peer | None, by: PeerLike | None) -> None:
        self._link = link
        self._commons = None if commons is None else commons_bytes(commons)
        self._peer = peer
        self._by = by
        self._tokens: Tokens | None = None

    @property
    def commons_id(self) -> str | None:
        """The commons this client speaks to, as 32 hex digits; None until it is founded or named."""
        return None if self._commons is None else self._commons.hex()

    async def service(self) -> Service:
        """The ledger itself; also sets the clock: `(await gesell.service()).ledger`."""
        answer = await self._link.transport.read(self._link.transport.url_of(""))
        service = understood(read_service, json_of(answer))
        self._link.clock.sample(service.time_ms, speed=service.clock_speed, received_at=answer.received_at)
        self._link.ledger = service.ledger
        return service

    async def commons(self) -> Commons:
        """This client's commons: `(await gesell.commons()).pool`."""
        return understood(read_commons, json_of(await self._read(self._path(""))))

    async def currency(self) -> Currency:
        """The currency's code and scale, which were fixed for good: `(await gesell.currency()).code`.

        Taken from the founding statement itself, whose hash is the commons' name, not from the operator's word.
        """
        return (await self._founded()).currency

    async def founding(self) -> Found:
        """The statement that founded the commons, with what nobody can change: `(await gesell.founding()).name`.

        Shown to whoever is or was a member, also where the commons' page is not. Read once; checked by its hash.
        """
        return await self._founded()

    async def commons_list(self) -> list[Commons]:
        """All open commons of this ledger: `for commons in await gesell.commons_list(): …`."""
        return [understood(read_commons, item) async for item in self._pages("/commons", {})]

    async def member(self, member: PeerLike | None = None) -> Member:
        """One member, by default oneself: `(await gesell.member("bob")).status`. Raises `UnknownMember`."""
        answer = await self._read(self._path("/members/" + self._name(member)))
        found = await self._founded_if_shown()
        return understood(lambda item: read_member(item, None if found is None else found.currency), json_of(answer))

    async def members(self) -> AsyncGenerator[Member, None]:
        """All members, page by page: `async for member in gesell.members(): print(member.handle)`."""
        found = await self._founded()
        async for item in self._pages(self._path("/members"), {}):
            yield understood(lambda item: read_member(item, found.currency), item)

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
        fields = json_of(await self._read(path, params))
        kinds = await self._kinds(understood(gift_kinds_in, fields))
        return understood(lambda item: read_balance(item, found.currency, kinds), fields)

    async def history(
        self,
        of: PeerLike | None = None,
        *,
        kind: str | None = None,
        newest_first: bool = False,
        page: int = PAGE,
    ) -> AsyncGenerator[HistoryLine, None]:
        """The postings of a member's account, by default one's own, melt included, oldest first unless told.

        With a `kind` those of its gifts instead of its money, like "hour": what it gave counts below 0, and is no debt.
        `page` is how many are fetched at a time, for who needs only the first few.

        async for line in gesell.history():
            print(line.at, line.reason, line.amount, line.balance)
        """
        currency = (await self._founded()).currency
        kinds = {} if kind is None else await self._kinds({kind})

        def amount_of(grains: int) -> Amount:
            return Amount(grains, currency.code, currency.scale) if kind is None else gift_amount(kinds, kind, grains)

        params = {"asset": kind or currency.code, "order": "desc" if newest_first else "asc", "limit": str(page)}
        async for item in self._pages(self._path(f"/members/{self._name(of)}/postings"), params):
            yield understood(lambda item: read_history_line(item, amount_of), item)

    async def entries(self, *, after: int = 0) -> AsyncGenerator[Entry, None]:
        """The log's entries from `after` + 1 to the last there is, each checked against its leaf hash.

        async for entry in gesell.entries(after=last_seen):
            print(entry.seq, entry.type, entry.postings)
        """
        async for item in self._pages(self._path("/entries"), {"after": str(after)}):
            yield understood(read_entry, item)

    async def follow(self, *, after: int | None = None) -> AsyncGenerator[Entry, None]:
        """The entries that this reader may see, as they are accepted, without end; from now on, or after `after`.

        Each comes once and in order, checked against its leaf hash. A lost connection is made again, for as long as
        it takes, and goes on where it was; so an app that keeps the last `seq` it has dealt with misses nothing, even
        over a restart of its own. Without `after`, who may not see the commons' page has no place of its own before the
        first entry: what comes while the connection is lost till then is not heard. Raises `Unreachable` if the first
        connection does not stand within `patience`, `UnexpectedAnswer` for what can't be true, and refusals that do
        not pass.

            async for entry in gesell.follow(after=last_seen):
                print(entry.seq, entry.type, entry.postings)
        """

        async def begin() -> int | None:
            with suppress(NotFound):
                await self._read(self._path("/entries/1"))  # shows whether the commons asks who reads
            if after is not None:
                return after
            try:
                return (await self.commons()).seq
            except NotAuthorised:  # the ledger begins at the last one there is, which it tells not everybody
                return None

        follower = Follower(
            self._link.transport,
            self._link.transport.url_of(self._path("/entries")),
            begin=begin,
            token=self._token_where_asked,
            sees_all=self._everybody_sees_all,
            patience=self._link.patience,
        )
        async with aclosing(follower.entries()) as entries:
            async for entry in entries:
                yield entry

    async def receipt(self, statement: StatementLike) -> Receipt:
        """The receipt of a statement by its id: `await gesell.receipt(error.id)`. Raises `NotFound`."""
        path = self._path("/statements/" + id_text(statement_bytes(statement)))
        return understood(read_json_receipt, json_of(await self._read(path)))

    async def request(
        self,
        amount: AmountLike | None = None,
        *,
        category: str | None = None,
        message: str | None = None,
        to: PeerLike | None = None,
    ) -> PaymentRequest:
        """Ask to be paid: makes a `payto` link for somebody to pay; sends nothing, and binds nobody.

        `message` is one line of at most 1,000 characters, which becomes the payment's memo; without an `amount` the
        payer chooses. It names this client's peer by did; a handle as `to` makes a shorter link, for which the payer
        takes the ledger's word. Raises `BadLink` for what no link can carry.

            request = await gesell.request("0.05", category="answer", message="Bread, two loaves")
            print(request)                              # payto://gesell/…
        """
        currency = await self.currency()
        asked = None if amount is None else grains_of(amount, code=currency.code, scale=currency.scale)
        return PaymentRequest(
            commons=self._commons_bytes().hex(),
            to=self._name(to),
            currency=None if asked is None else currency.code,
            amount=None if asked is None else Amount(asked, currency.code, currency.scale).decimal,
            message=message,
            category=category,
            ref=id_text(self._link.ids.new(await self._now_ms())),
        )

    async def payments_for(self, request: PaymentRequest | str, *, of: PeerLike | None = None) -> list[HistoryLine]:
        """The payments, made or received, that name a request; in a member's history, by default one's own.

        Newest first, among the newest 1,000 lines. Anybody may name any request in a payment: for the payee counts what
        came in, so sum the amounts; for a payer what went to the payee (`amount` below 0, `counterpart` its did).

            print(sum(line.amount.decimal for line in await gesell.payments_for(request)))
        """
        request = PaymentRequest.parse(request) if isinstance(request, str) else request
        if request.ref is None:
            return []
        since_ms = await self._made_ms(request, of=of)
        paid, left = [], PAGE
        async with aclosing(self.history(of, newest_first=True, page=100)) as lines:
            async for line in lines:
                left -= 1
                if line.at_ms < since_ms or left < 0:
                    break
                if line.reason == "pay" and line.ref == request.ref:
                    paid.append(line)
        return paid

    async def _made_ms(self, request: PaymentRequest, *, of: PeerLike | None) -> int:
        """No payment for a request is older than this; 0 where that is not known.

        The time in the `ref` is believed in the payee's own history alone: whoever writes a link for another to pay
        could name a time to come, and have a payment overlooked that was made before.
        """
        made = id_of(request.ref or "")
        if not is_uuid7(made) or await self.key_of(self._name(of)) != await self.key_of(request.to):
            return 0
        now_ms = await self._now_ms()
        return min(time_of_id(made), now_ms) - self._link.clock.lifetime_ms()

    async def until_paid(
        self, request: PaymentRequest | str, *, of: PeerLike | None = None, every: float = 1.0
    ) -> list[HistoryLine]:
        """Wait until a request of one's own is paid in full, by one or several; returns the payments, newest first.

        Looks every so many seconds, and goes on when the ledger can't be reached for a while; it waits for ever, so
        bound it by `asyncio.timeout`. A request without an amount is paid by whatever comes.

            async with asyncio.timeout(600):
                [payment] = await gesell.until_paid(request)
        """
        request = PaymentRequest.parse(request) if isinstance(request, str) else request
        if request.ref is None:
            raise ValueError("a request without a ref can't be told from others")
        while True:
            try:
                asked = request.amount_in(commons=self._commons_bytes().hex(), currency=await self.currency())
                paid = [line for line in await self.payments_for(request, of=of) if line.amount.grains > 0]
            except (Unreachable, Refused) as error:
                if not passes(error):
                    raise
            else:
                if sum(line.amount.grains for line in paid) >= (1 if asked is None else asked.grains):
                    return paid
            await asyncio.sleep(every)

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
        if not isinstance(peer, str):
            raise TypeError(f"{NAMES_A_PEER}, not {type(peer).__name__}")
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
        if not isinstance(member, str):
            raise TypeError(f"{NAMES_A_PEER}, not {type(member).__name__}")
        if member.startswith("did:"):
            peer_of(member)
        elif not is_handle(member):
            raise ValueError(f"{member!r} is neither a handle nor a did")
        return quote(member, safe=":")

    def _log(self, commons: bytes | None = None) -> LogReader:
        """The log of a commons, by default this client's own; what follows visibility is read in this client's name."""
        return LogReader(self._link.transport, commons=commons or self._commons_bytes(), read=self._read_url)

    def _commons_bytes(self) -> bytes:
        if self._commons is None:
            raise ValueError("say which commons: Client(url, commons=…), or found one")
        return self._commons

    def _path(self, rest: str) -> str:
        return f"/commons/{self._commons_bytes().hex()}{rest}"

    async def _kinds(self, codes: Collection[str]) -> Mapping[str, Kind]:
        """The kinds of gifts of these codes; those that are not there, or not shown to this reader, are left out."""
        commons = self._commons_bytes()
        there = {HOUR.code: HOUR}
        if any(code not in there and (commons, code) not in self._link.kinds for code in codes):
            try:
                for kind in (await self.commons()).kinds:
                    self._link.kinds[commons, kind.code] = kind
            except Refused as error:
                if error.code in PASSING:
                    raise
        there |= {code: self._link.kinds[commons, code] for code in codes if (commons, code) in self._link.kinds}
        return there

    async def _pages(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        """The items of a list, page after page."""
        async for page in self._whole_pages(path, params):
            for item in page["items"]:
                yield item

    async def _whole_pages(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        """The pages of a list, with what stands beside their `items`."""
        answer = await self._read_page(self._link.transport.url_of(path, {"limit": str(PAGE), **params}))
        while True:
            page = json_of(answer)
            if not isinstance(page.get("items"), list):
                raise UnexpectedAnswer(f"{answer.url} is not a list as a ledger answers it")
            yield page
            if answer.next is None:
                return
            answer = await self._read_page(answer.next)

    async def _read_page(self, url: URL) -> Answer:
        """One page; a shorter one where its items are so large that the answer would pass what is taken."""
        while True:
            try:
                return await self._read_url(url)
            except AnswerTooLong:
                limit = url.query.get("limit", "")
                if not limit.isdecimal() or int(limit) <= 1:
                    raise
                url = url.update_query(limit=str(int(limit) // 8 or 1))

    async def _founded(self, commons: bytes | None = None) -> Found:
        """How a commons was founded: its currency and ticks, which nobody can change.

        Read from its first entry, whose hash is the commons' name: so an operator can't make "0.05" mean another
        number of grains than the founders said.
        """
        commons = commons or self._commons_bytes()
        if commons not in self._link.founded:
            try:
                answer = await self._read(f"/commons/{commons.hex()}/entries/1")
            except NotFound:
                detail = "this commons shows its founding, and so its currency, to members only: wait to be admitted"
                raise refused({"code": "not-active", "detail": detail}) from None
            self._link.founded[commons] = understood(lambda item: _read_found(item, commons), json_of(answer))
        return self._link.founded[commons]

    async def _founded_if_shown(self, commons: bytes | None = None) -> Found | None:
        """The founding, or None for a reader to whom the commons does not show it (yet)."""
        try:
            return await self._founded(commons)
        except (NotActive, UnknownCommons):
            return None

    async def _everybody_sees_all(self) -> bool:
        """Whether every entry comes to everybody; not to who may not see the commons' page."""
        try:
            return (await self.commons()).policy.visibility == "open"
        except Refused as error:
            if error.code in PASSING:
                raise
            return False

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        return await self._read_url(self._link.transport.url_of(path, params))

    async def _read_url(self, url: URL, form: Form = JSON) -> Answer:
        """Read, and say who reads only where the ledger would not answer else: what is open to all needs no token,
        and nobody need know who looked.
        """
        commons = self._commons_in(url)
        if commons not in self._link.closed:
            try:
                return await self._link.transport.read(url, form)
            except UnknownCommons:
                if commons is None or self._peer is None:
                    raise
                self._link.closed.add(commons)
        return await self._read_as_peer(url, form)

    def _commons_in(self, url: URL) -> bytes | None:
        """The commons that a URL of this ledger speaks of: not always this client's own."""
        below = url.path.removeprefix(self._link.transport.base.path).split("/")
        with suppress(ValueError):
            if len(below) > 2 and below[1] == "commons":
                return commons_bytes(below[2])
        return None

    async def _read_as_peer(self, url: URL, form: Form = JSON) -> Answer:
        """Read by a token; by a fresh one if the ledger takes the last for bad: its clock may have jumped, or its key
        may be new.
        """
        token = await self._token()
        try:
            return await self._link.transport.read(url, form, token=token)
        except BadToken:
            if token is None:
                raise
            return await self._link.transport.read(url, form, token=await self._token(renew=True))

    async def _token_where_asked(self, renew: bool) -> str | None:
        """A token where the commons is known to ask who reads; a fresh one to `renew`."""
        if not renew and self._commons not in self._link.closed:
            return None
        return await self._token(renew=renew)

    async def _token(self, *, renew: bool = False) -> str | None:
        """A token that says who reads; None for a client without a peer."""
        if self._tokens is None:
            by = self._reader()
            if self._peer is None or by is None:
                return None
            self._tokens = Tokens(self._peer, by=by)
        if renew:
            self._tokens.forget()
            self._link.clock.forget()
            self._link.ledger = None
        ledger = await self._ledger()
        kept = self._tokens.kept(ledger=ledger, clock=self._link.clock)
        if kept is not None:
            return kept
        await self._now_ms()
        return self._tokens.new(ledger=ledger, clock=self._link.clock)

    async def _ledger(self) -> str:
        """The did that tokens are made out to; raises `UnexpectedAnswer` if the commons was founded at another ledger.

        Whoever answers here in another ledger's name could take a token to that one, and read there.
        """
        ledger = self._link.ledger or (await self.service()).ledger
        found = None if self._commons is None else self._link.founded.get(self._commons)
        if found is not None and did_of(found.ledger) != ledger:
            raise UnexpectedAnswer(f"the commons is kept by {did_of(found.ledger)}, and here answers {ledger}")
        return ledger

    def _reader(self) -> bytes | None:
        """The key that names who reads; None while that is a handle which was not looked up yet."""
        if isinstance(self._by, Peer):
            return self._by.key
        if isinstance(self._by, str):
            return peer_of(self._by) if self._by.startswith("did:") else self._known(self._by)
        return self._by

    def _known(self, handle: str) -> bytes | None:
        return None if self._commons is None else self._link.handles.get((self._commons, handle))

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


def gift_amount(kinds: Mapping[str, Kind], code: str, grains: int) -> Amount:
    """So much of a kind of gift; in grains where the kind is not known to this reader."""
    return kinds[code].amount(grains) if code in kinds else Amount(grains, code, 0, unit="grains")


def statement_bytes(statement: StatementLike) -> bytes:
    """The 16 bytes of a statement's id; `ValueError` for what is none."""
    if isinstance(statement, Receipt):
        return statement.id
    if isinstance(statement, Gift):
        return id_of(statement.id)
    if isinstance(statement, str):
        return id_of(statement)
    if len(statement) != 16:
        raise ValueError("a statement's id has 16 bytes")
    return statement


def _read_found(fields: Mapping[str, Any], commons: bytes) -> Found:
    entry = read_entry(fields)
    if entry.seq != 1 or commons_of(entry.envelope.body) != commons:
        raise ValueError("the first entry is not the founding of this commons")
    statement = read_statement(entry.envelope, min_tick_seconds=1)
    if not isinstance(statement, Found):
        raise ValueError("the first entry founds nothing")
    return statement

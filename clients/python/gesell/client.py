"""The client: what a peer says to a ledger, signed here, sent until it is answered, and checked.

Owns the calls that change something. How envelopes travel is `delivery`'s, what became of them `results`', how time is
known `clock`'s, what reads look like `reads`'.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from gesell import webhooks as hooks
from gesell.amount import Amount, AmountLike
from gesell.answers import HOUR, understood
from gesell.bodies import Legs, founding_fields, wire_fields
from gesell.delivery import Parcel, deliver, parcel, requests_of
from gesell.errors import BadToken, Expired, OutcomeUnknown, Refused, TooEarly
from gesell.joint import cosign, not_sent, read_signed, signatures_of
from gesell.payto import BadLink, PaymentRequest
from gesell.peer import Peer, PeerLike
from gesell.reads import Link, StatementLike
from gesell.results import Result, judge
from gesell.tokens import TOKEN_MAX_MS, write_token
from gesell.transport import json_of
from gesell.verifying import MemoryLike, Verifying, WitnessLike, checks_of
from gesell.webhooks import Scope, Webhook
from gesell.wording import describe, peers_in
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import POOL, id_of, id_text, is_handle, peer_of
from gesell_protocol.policy import Policy
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Decline, Found, Gift, Statement, Thank, Withdraw, read_statement, write_body


class Client(Verifying):
    """A peer's connection to a ledger.

        async with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("ada.key")) as gesell:
            receipt = await gesell.pay("bob", "0.05", category="answer")
            print(receipt.seq, await gesell.balance())

    `url` is the ledger's address; `commons` its 32 hex digits; `peer` who signs and reads (an open commons may be
    read without); `by` the did for which `peer` signs, if that is a key added to another peer. `timeout` is seconds
    for one request, `patience` seconds for which statements without a settling answer are sent again. Where a commons
    is not open, reads carry a token that this client signs itself, made out to the ledger that the address names.

    Peers are named by a `Peer`, 32 bytes, a did or a handle; amounts are text like "0.05", `Decimal`, whole ints or
    `Amount`, never float. One client serves many tasks at once; it must be used within one event loop.

    It checks the ledger: before its first statement to a commons it remembers a checkpoint of the log; then, whenever
    ten seconds have passed since the last check and when the client is closed, if there are receipts unproven (or as
    soon as 10,000 are), it demands that the log has only grown and holds them all. Else the call that was answered last
    raises `CheckFailed`, with its receipts, which stay given. With `check=False` it checks only when told to. `ledger`
    is the did to trust, or who it handed its key over to; if it is not said, the one that the commons' founding names.
    Of `witnesses` (verifier keys) `quorum` must have cosigned, all unless said. `memory` is a folder in which what was
    seen outlasts the client, or a `Memory`.
    """

    def __init__(
        self,
        url: str,
        *,
        commons: str | bytes | None = None,
        peer: Peer | None = None,
        by: PeerLike | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        check: bool = True,
        ledger: str | None = None,
        witnesses: Sequence[WitnessLike] = (),
        quorum: int | None = None,
        memory: MemoryLike | None = None,
        _link: Link | None = None,
    ) -> None:
        if peer is not None and not isinstance(peer, Peer):
            path = peer if isinstance(peer, (str, os.PathLike)) else "ada.key"
            raise TypeError(f'peer is a Peer: Peer.load("{path}")')
        speaker = by if by is not None else peer
        if _link is None:
            checks = checks_of(ledger=ledger, witnesses=witnesses, quorum=quorum, memory=memory, by_itself=check)
            _link = Link(url, timeout=timeout, patience=patience, checks=checks)
        super().__init__(_link, commons=commons, peer=peer, by=speaker)
        self._url = url

    async def __aenter__(self) -> Self:
        await self._link.transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._end_checks(error)
        finally:
            await self._disconnect()

    async def _disconnect(self) -> None:
        await self._link.transport.__aexit__(None, None, None)

    def __repr__(self) -> str:
        whose = "nobody" if self._by is None else self._by.did if isinstance(self._by, Peer) else self._name(None)
        return f"<Client {self._url} commons={self.commons_id} as {whose}>"

    @property
    def unsettled(self) -> tuple[OutcomeUnknown, ...]:
        """What cancelled calls have sent without telling what became of it: each carries the envelope to send again.

        All views of one connection share it; what is submitted again and settled leaves it.

            await gesell.submit([error.envelope for error in gesell.unsettled])
        """
        return self._link.unsettled.told()

    def as_peer(self, peer: Peer, *, by: PeerLike | None = None) -> Client:
        """The same connection spoken for by another peer: `await gesell.as_peer(bob).pay("ada", "1")`.

        It shares the session of this client, ends with it, and needs no `async with` of its own.
        """
        return Client(self._url, commons=self._commons, peer=peer, by=by, _link=self._link)

    def as_commons(self, commons: str | bytes) -> Client:
        """The same connection spoken about another commons: `await gesell.as_commons("…hex…").balance()`."""
        return Client(self._url, commons=commons, peer=self._peer, by=self._by, _link=self._link)

    # ── Founding and membership ──────────────────────────────────────────────────────────────────────────────

    async def found(
        self,
        *,
        name: str,
        currency: str,
        scale: int = 6,
        policy: Policy | None = None,
        stewards: Sequence[PeerLike] = (),
        threshold: int | None = None,
        signers: Sequence[Peer] = (),
        memo: str | None = None,
    ) -> str:
        """Found a commons and speak to it from now on; returns its 32 hex digits.

        `policy` is `default_policy()` unless given; `stewards` this client's peer alone; `threshold` the majority
        of them; `signers` the other stewards' peers, as many as the threshold needs.

            commons = await gesell.found(name="Wörgl", currency="WRG")
        """
        fields = {
            "type": "found",
            "name": name,
            "currency": {"code": currency, "scale": scale},
            "policy": policy,
            "stewards": stewards or None,
            "threshold": threshold,
            "memo": memo,
        }
        receipt = await self._speak(fields, signers=signers)
        self._commons = receipt.commons
        return receipt.commons.hex()

    async def join(self, handle: str, *, memo: str | None = None) -> Receipt:
        """Ask to be a member under a handle: `await gesell.join("ada", memo="I bake bread.")`."""
        return await self._speak({"type": "join", "handle": handle, "memo": memo})

    async def admit(self, peer: PeerLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """As steward, admit a pending or suspended member: `await gesell.admit("did:key:z6Mk…")`.

        Several who are pending may have asked for one handle, so name them by did.
        """
        return await self._speak({"type": "admit", "peer": peer, "memo": memo}, signers=signers)

    async def suspend(self, peer: PeerLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """As steward, suspend an active member: `await gesell.suspend("ada")`."""
        return await self._speak({"type": "suspend", "peer": peer, "memo": memo}, signers=signers)

    async def leave(self, *, memo: str | None = None) -> Receipt:
        """Leave the commons; what is left goes to the pool: `await gesell.leave()`."""
        return await self._speak({"type": "leave", "memo": memo})

    async def keys(self, *, add: Sequence[Peer] = (), revoke: Sequence[PeerLike] = ()) -> Receipt:
        """Add keys that may sign for this peer (each signs here too) or revoke some: `keys(add=[phone])`.

        A key that was added speaks with `Client(url, commons=…, peer=phone, by=ada.did)`.
        """
        fields = {"type": "keys", "add": list(add) or None, "revoke": list(revoke) or None}
        return await self._speak(fields, signers=add)

    async def rotate(self, new: Peer) -> Receipt:
        """Sign with a new key from now on: it is added and the key in use revoked, in one statement signed by both.

        The peer stays who it was: balance, handle and did are its old ones, for which the new key speaks, in this
        commons; other clients and later runs say so with `by`. After `OutcomeUnknown` this client still signs with the
        old key: resend the envelope, and go on with `gesell.as_peer(new, by=…)`.

            new = Peer.new()
            new.save("ada-2027.key", passphrase="correct horse")    # before it is needed
            await gesell.rotate(new)
        """
        if self._peer is None:
            raise ValueError("this client has no peer to sign with: Client(url, peer=…)")
        by = await self.key_of(self._speaker())
        receipt = await self.keys(add=[new], revoke=[self._peer])
        self._peer, self._by, self._tokens = new, by, None
        return receipt

    async def change_policy(
        self, policy: Policy, *, from_tick: int, signers: Sequence[Peer] = (), memo: str | None = None
    ) -> Receipt:
        """As steward, announce a policy: `await gesell.change_policy(policy, from_tick=now.tick + 31)`."""
        fields = {"type": "policy", "policy": policy, "from_tick": from_tick, "memo": memo}
        return await self._speak(fields, signers=signers)

    async def change_stewards(
        self, stewards: Sequence[PeerLike], *, threshold: int, signers: Sequence[Peer] = ()
    ) -> Receipt:
        """As steward, name the stewards anew; each new one signs too.

        await gesell.change_stewards([ada, bob], threshold=2, signers=[bob])
        """
        fields = {"type": "stewards", "stewards": list(stewards), "threshold": threshold}
        return await self._speak(fields, signers=signers)

    async def erase(self, statement: StatementLike, *, signers: Sequence[Peer] = ()) -> Receipt:
        """Erase the memo's text of one's own statement (or any, as steward): `await gesell.erase(receipt)`."""
        return await self._speak({"type": "erase", "statement": statement}, signers=signers)

    # ── Money ────────────────────────────────────────────────────────────────────────────────────────────────

    async def pay(
        self,
        to: PeerLike,
        amount: AmountLike,
        *,
        category: str | None = None,
        memo: str | None = None,
        ref: StatementLike | None = None,
    ) -> Receipt:
        """Pay a member; returns the checked receipt once the payment is durable.

        `category` is the type of interaction that is valued, `memo` up to 1,000 characters for those who may read
        the entry, `ref` the statement or request that this answers. Raises `InsufficientFunds`, `UnknownMember`,
        or `OutcomeUnknown`, after which paying anew could pay twice: resend its envelope.

            receipt = await gesell.pay("bob", "0.05", category="answer")
        """
        return await self.pay_each([(to, amount)], category=category, memo=memo, ref=ref)

    async def pay_each(
        self,
        legs: Legs,
        *,
        category: str | None = None,
        memo: str | None = None,
        ref: StatementLike | None = None,
    ) -> Receipt:
        """Pay up to 256 members with one signature, all or none: `pay_each({"bob": "0.05", "eve": "1"})`."""
        fields = {"type": "pay", "legs": legs, "category": category, "memo": memo, "ref": ref}
        return await self._speak(fields)

    async def pay_request(
        self,
        request: PaymentRequest | str,
        *,
        amount: AmountLike | None = None,
        category: str | None = None,
        memo: str | None = None,
    ) -> Receipt:
        """Pay what a `payto` link asks for; show a person first whom, how much and what for (`PaymentRequest.parse`).

        `amount`, `category` and `memo` go before the link's own. The payment names the request by its `ref`; a second
        call pays a second time, so look at `payments_for` where that may happen. Raises `BadLink`, before anything is
        sent, for a link of another commons or currency or without an amount where none is given; else as `pay`.

            receipt = await gesell.pay_request("payto://gesell/…")
        """
        request = PaymentRequest.parse(request) if isinstance(request, str) else request
        asked = request.amount_in(commons=self._commons_bytes().hex(), currency=await self.currency())
        much = asked if amount is None else amount
        if much is None:
            raise BadLink("the link leaves the amount to the payer; say how much")
        category, memo = category or request.category, memo or request.message
        return await self.pay(request.to, much, category=category, memo=memo, ref=request.ref)

    async def pay_all(
        self,
        to: PeerLike,
        *,
        at_most: AmountLike | None = None,
        category: str | None = None,
        memo: str | None = None,
        ref: StatementLike | None = None,
    ) -> Receipt:
        """Pay a member all there is after melt, or `at_most` so much of it: `await gesell.pay_all("bob")`."""
        amount = await self._all_or(at_most)
        fields = {"type": "pay", "legs": [(to, amount)], "balancing": True, "category": category}
        return await self._speak({**fields, "memo": memo, "ref": ref})

    async def issue(
        self, to: PeerLike, amount: AmountLike, *, signers: Sequence[Peer] = (), memo: str | None = None
    ) -> Receipt:
        """As steward, make new money for a member (never oneself): `await gesell.issue("ada", "100")`."""
        return await self._speak({"type": "issue", "to": to, "amount": amount, "memo": memo}, signers=signers)

    async def retire(self, amount: AmountLike, *, memo: str | None = None) -> Receipt:
        """Take one's own money out of circulation: `await gesell.retire("5")`."""
        return await self._speak({"type": "retire", "amount": amount, "memo": memo})

    async def retire_all(self, *, at_most: AmountLike | None = None, memo: str | None = None) -> Receipt:
        """Retire all there is after melt, or `at_most` so much of it: `await gesell.retire_all()`."""
        amount = await self._all_or(at_most)
        return await self._speak({"type": "retire", "amount": amount, "balancing": True, "memo": memo})

    async def grant(
        self, to: PeerLike, amount: AmountLike, *, signers: Sequence[Peer] = (), memo: str | None = None
    ) -> Receipt:
        """As steward, pay a member from the pool: `await gesell.grant("ada", "2.5")`."""
        return await self.grant_each([(to, amount)], signers=signers, memo=memo)

    async def grant_each(self, legs: Legs, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """As steward, pay up to 256 members from the pool: `grant_each({"ada": "1", "bob": "1"})`."""
        return await self._speak({"type": "grant", "legs": legs, "memo": memo}, signers=signers)

    async def share(self, amount: AmountLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """As steward, share out of the pool to all active members alike: `await gesell.share("10")`."""
        return await self._speak({"type": "share", "amount": amount, "memo": memo}, signers=signers)

    # ── Gifts and trust ──────────────────────────────────────────────────────────────────────────────────────────

    async def make_kind(
        self,
        code: str,
        *,
        name: str | None = None,
        unit: str = "1",
        scale: int = 0,
        signers: Sequence[Peer] = (),
        memo: str | None = None,
    ) -> Receipt:
        """As steward, make a kind of gift beside `hour`; `unit` is a UCUM code, 1 for what is counted in pieces.

        await gesell.make_kind("bread", name="Loaves of bread")
        """
        fields = {"type": "kind", "code": code, "name": name or code, "unit": unit, "scale": scale, "memo": memo}
        return await self._speak(fields, signers=signers)

    async def give(
        self,
        to: PeerLike | Literal["pool"],
        quantity: AmountLike,
        *,
        kind: str = HOUR.code,
        after: Sequence[StatementLike] = (),
        category: str | None = None,
        memo: str | None = None,
    ) -> Receipt:
        """Give a member, or with "pool" the whole commons, something without a price; it counts once they thank.

        `quantity` is in the kind's unit, `after` the gifts received that moved one to give. The receipt names the gift.

            offered = await gesell.give("bob", "1.5", category="gardening", memo="for your help last week")
            await gesell.as_peer(bob).thank(offered)
        """
        fields = {"type": "gift", "to": to, "kind": kind, "quantity": quantity, "after": list(after) or None}
        return await self._speak({**fields, "category": category, "memo": memo})

    async def thank(self, gift: StatementLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """Take a gift and say thanks: from then on it counts. For one to the pool, stewards sign.

        async for gift in gesell.gifts(to=me, state="offered"):
            await gesell.thank(gift, memo="You saved the day")
        """
        return await self._speak({"type": "thank", "gift": gift, "memo": memo}, signers=signers)

    async def decline(self, gift: StatementLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """Don't take a gift that was offered: `await gesell.decline(gift)`. For one to the pool, stewards sign."""
        return await self._speak({"type": "decline", "gift": gift, "memo": memo}, signers=signers)

    async def withdraw(self, gift: StatementLike, *, memo: str | None = None) -> Receipt:
        """Take an own offer back, while nobody has thanked for it: `await gesell.withdraw(gift)`."""
        return await self._speak({"type": "withdraw", "gift": gift, "memo": memo})

    async def vouch(self, for_: PeerLike, limit: AmountLike, *, memo: str | None = None) -> Receipt:
        """Lend a member so much of one's own credit room, in all; 0 takes it back: `await gesell.vouch("bob", "20")`.

        What they don't pay back, stewards may have borne by those who vouched. Raises `LimitExceeded` where there is no
        such room, `VouchInUse` where the member needs what would be taken back.
        """
        return await self._speak({"type": "vouch", "for": for_, "limit": limit, "memo": memo})

    async def write_off(self, peer: PeerLike, *, signers: Sequence[Peer] = (), memo: str | None = None) -> Receipt:
        """As steward, have a member's debt borne by who vouched, then by the pool, then by all; it is suspended.

        await gesell.write_off("mallory", memo="moved away")
        """
        return await self._speak({"type": "writeoff", "peer": peer, "memo": memo}, signers=signers)

    # ── Webhooks ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def add_webhook(
        self, url: str, *, types: Sequence[str] = (), scope: Scope = "own", after: int | None = None
    ) -> Webhook:
        """Have entries delivered to a URL; keep the secret, it is shown this once.

            hook = await gesell.add_webhook("https://shop.example/gesell", types=["pay"])
            print(hook.id, hook.secret)

        Those come that concern this peer, or with `scope="all"` all that it may read; of some `types`, or all; from the
        next one on, or from the one `after` a seq. For a URL that has a webhook, it becomes what is asked for and goes
        on, whatever had stopped it; its secret stays, and is not shown again.
        """
        asked: dict[str, Any] = {"url": url, "types": list(types), "scope": scope}
        if after is not None:
            asked["after"] = after
        claims = {"commons": self._commons_bytes().hex(), "webhook": asked}
        return await hooks.add(self._link.transport, self._path("/webhooks"), partial(self._sign_request, claims))

    async def webhooks(self) -> list[Webhook]:
        """This peer's webhooks and how they fare: `for hook in await gesell.webhooks(): print(hook.why)`."""
        url = self._link.transport.url_of(self._path("/webhooks"))
        items = json_of(await self._read_as_peer(url)).get("items", [])
        return [understood(hooks.read_webhook, item) for item in items]

    async def delete_webhook(self, webhook: Webhook | str) -> None:
        """End a webhook, named by itself or its id: `await gesell.delete_webhook(hook)`. Raises `NotFound`."""
        name = webhook.id if isinstance(webhook, Webhook) else id_text(id_of(webhook))
        path = self._path(f"/webhooks/{name}")
        try:
            await hooks.delete(self._link.transport, path, token=await self._token())
        except BadToken:
            await hooks.delete(self._link.transport, path, token=await self._token(renew=True))

    async def _sign_request(self, claims: Mapping[str, object], *, again: bool) -> str:
        """A request that is signed as a whole: a token with more claims; `again` by a fresh clock."""
        if self._peer is None:
            raise ValueError("this client has no peer to sign with: Client(url, peer=…)")
        if again:
            self._link.clock.forget()
        ledger = await self._ledger()
        by, issued_s = await self.key_of(self._speaker()), await self._now_ms() // 1000
        life_s = min(self._link.clock.lifetime_ms(), TOKEN_MAX_MS) // 1000
        return write_token(
            self._peer, by=by, ledger=ledger, issued_s=issued_s, expires_s=issued_s + life_s, more=claims
        )

    # ── Signing ahead and sending many ───────────────────────────────────────────────────────────────────────

    async def sign(
        self,
        fields: Mapping[str, Any],
        *,
        signers: Sequence[Peer] = (),
        lasts: timedelta | None = None,
    ) -> Envelope:
        """Sign a statement without sending it.

        `fields` are those of SPEC §3 with peers, amounts, policies and ids in any form that the calls take;
        `commons`, `by`, `id` and `expires` are filled in, and in a founding also `ledger`, `policy`, `stewards` and
        `threshold`, as `found` does; a `memo` in plain text is sealed. `signers` sign beside this client's peer. It
        stays valid for 5 minutes of the ledger's real time, or as long as it `lasts`, at most 7 days. Raises
        `Malformed` for what no ledger would take.

            envelope = await gesell.sign({"type": "pay", "legs": [("bob", "0.05")]})

        What needs several stewards who are not in one place goes from hand to hand as a file:

            draft = await gesell.sign({"type": "issue", "to": "bob", "amount": "100"}, lasts=timedelta(days=7))
            save_statement(draft, "issue.json")
        """
        if self._peer is None:
            raise ValueError("this client has no peer to sign with: Client(url, peer=…)")
        if fields.get("type") == "found":
            fields = await founding_fields(fields, of=self, by=self._speaker())
        body_fields, memo = await wire_fields(fields, of=self)
        now_ms = await self._now_ms()
        statement_id = self._link.ids.new(now_ms)
        valid_ms = self._link.clock.lifetime_ms() if lasts is None else lasts // timedelta(milliseconds=1)
        body_fields |= {
            "by": await self.key_of(self._speaker()),
            "id": statement_id,
            "expires": max(now_ms, int.from_bytes(statement_id[:6], "big")) + valid_ms,
        }
        if fields.get("type") != "found":
            body_fields["commons"] = self._commons_bytes()
        try:
            body = write_body(body_fields)
            envelope = Envelope(body, signatures_of(body, (self._peer, *signers)), memo)
            read_statement(envelope, min_tick_seconds=1)
        except Rejected as error:
            raise not_sent(error) from None
        return envelope

    async def cosign(self, envelope: Envelope, *, signers: Sequence[Peer] = ()) -> Envelope:
        """The same statement with this client's signature too; read first what `describe` says of it.

        Raises `Malformed`, `BadSignature` or `Expired` for what no ledger would take; sends nothing.

            envelope = await gesell.cosign(load_statement("issue.json"))
        """
        if self._peer is None:
            raise ValueError("this client has no peer to sign with: Client(url, peer=…)")
        now_ms = await self._now_ms()
        for peer in (self._peer, *signers):
            envelope = cosign(envelope, peer, now_ms=now_ms)
        return envelope

    async def describe(self, envelope: Envelope) -> str:
        """What a statement says, in plain words and whole: `print(await gesell.describe(draft))`.

        Amounts are read with the currency that the commons was founded with; where this client may not see that,
        they are told in grains. A handle is the ledger's word, the did beside it is what is signed.
        """
        _, statement = read_signed(envelope)
        view = self.as_commons(statement.commons)
        founding = statement if isinstance(statement, Found) else await view._founded_if_shown()
        gift = None
        if isinstance(statement, (Thank, Decline, Withdraw)):
            with suppress(Refused):
                gift = await view.gift(statement.gift)
        named = [peer_of(name) for name in (gift.giver, gift.to) if name != POOL] if gift is not None else []
        handles: dict[bytes, str] = {}
        for peer in dict.fromkeys((*peers_in(statement), *named)):
            with suppress(Refused):
                handle = (await view.member(peer)).handle
                # Shown beside what is signed: nothing but a handle may stand there.
                handles |= {peer: handle} if is_handle(handle) else {}
        kinds = await view._kinds({statement.kind}) if isinstance(statement, Gift) else {}
        now_ms = await self._now_ms()
        return describe(envelope, statement, founding=founding, handles=handles, now_ms=now_ms, kinds=kinds, gift=gift)

    async def submit(self, envelopes: Iterable[Envelope | bytes]) -> list[Result]:
        """Send envelopes, in requests of at most 10,000, and return what became of each, in order.

        What has no settling answer is sent again, unchanged, as long as patience lasts. Each statement stands for
        itself: refusals and unknown outcomes come back as values. Raises before anything is sent for bytes that
        are no envelope (`Malformed`), and when the ledger can't be reached at all (`Unreachable`). Receipts are held
        against what was signed, and against the commons' founding where it is shown to this client: who only asks to
        join a commons that is not open can't see it yet.

            results = await gesell.submit([await gesell.sign(fields) for fields in payments])
            for result in results:
                print(result.status, result.receipt or result.error)
        """
        if isinstance(envelopes, (Envelope, bytes)):
            raise TypeError("submit takes a list of envelopes: submit([envelope])")
        read = [read_signed(envelope) for envelope in envelopes]
        known = {statement.commons for _, statement in read if not isinstance(statement, Found)}
        for commons in known:
            await self._founded_if_shown(commons)
        await self._begin_checks(known)
        parcels = [parcel(envelope, statement.id) for envelope, statement in read]
        with self._link.unsettled.sending(parcels):
            for request in requests_of(parcels):
                await deliver(self._link.transport, request, patience=self._link.patience)
            results = [self._result(item, statement) for item, (_, statement) in zip(parcels, read, strict=True)]
            failure = await self._check_given(results)
        if failure is not None:
            raise failure
        return results

    # ── Within ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _speak(self, fields: Mapping[str, Any], *, signers: Sequence[Peer] = ()) -> Receipt:
        """Sign, send, and return the receipt or raise."""
        given = {name: value for name, value in fields.items() if value is not None}
        envelope = await self.sign(given, signers=signers)
        [result] = await self.submit([envelope])
        if isinstance(result.error, Expired):
            # Our idea of the time was behind (a laptop that slept, a slow line). Every attempt got this answer, so none
            # of them waits anywhere any more, and signing it anew can't do it twice.
            envelope = await self.sign(given, signers=signers)
            [result] = await self.submit([envelope])
        return result.receipt_or_raise()

    def _result(self, item: Parcel, statement: Statement) -> Result:
        """Judge a settled (or given up) parcel, and learn from it: a founding, or that our clock is wrong."""
        found = statement if isinstance(statement, Found) else self._link.founded.get(statement.commons)
        result = judge(item, statement, found=found)
        if isinstance(statement, Found) and result.status in ("accepted", "replayed"):
            self._link.founded[statement.commons] = statement
        if isinstance(result.error, (TooEarly, Expired)):
            self._link.clock.forget()
        return result

    async def _all_or(self, at_most: AmountLike | None) -> AmountLike:
        if at_most is not None:
            return at_most
        currency = await self.currency()
        # The most that a statement may say: with `balancing`, all there is.
        return Amount(AMOUNT_MAX, currency.code, currency.scale)

    def _speaker(self) -> PeerLike:
        if self._by is None:
            raise ValueError("this client has no peer to speak for: Client(url, peer=…)")
        return self._by

"""What a ledger's reads say, as frozen values (SPEC §7.2).

Owns the reading of JSON answers into typed values: amounts become `Amount`, peers stay dids, times are ms of the
ledger's clock with a `datetime` beside them. Knows no HTTP. Every reader raises `ValueError`, `KeyError` or
`TypeError` for what is no such answer; `understood` turns that into the one error of the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from gesell.amount import Amount
from gesell.errors import UnexpectedAnswer
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.fields import GIFT_SCALE_MAX, Currency
from gesell_protocol.log import Posting, leaf_of
from gesell_protocol.names import (
    KIND,
    RESERVED_HOLDERS,
    UNIT,
    Holder,
    base64url,
    did_of,
    id_of,
    id_text,
    is_handle,
    peer_of,
    unbase64url,
)
from gesell_protocol.policy import Policy, read_policy
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Rejected

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS: Final = re.compile(r"-?[0-9]{1,40}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The ledger itself: its did, version, time in ms, the speed of its clock (1 on a real one), and limits."""

    ledger: str
    version: str
    time_ms: int
    clock_speed: int
    limits: Mapping[str, int]

    def __repr__(self) -> str:
        speed = f" at {self.clock_speed} times real time" if self.clock_speed > 1 else ""
        return (
            f"<Service {self.ledger} version {self.version}, its time {moment(self.time_ms):%Y-%m-%d %H:%M:%S}{speed}>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A gift kind: `hour`, in units of `h`, with 2 decimals. A kind is made once and never changes."""

    code: str
    name: str
    unit: str
    scale: int

    def amount(self, grains: int) -> Amount:
        """So much of this kind: `kind.amount(150)` is `1.5 h`."""
        return Amount(grains, self.code, self.scale, unit=self.unit)


#: The kind that every commons has from its founding on (SPEC §3.3).
HOUR: Final = Kind(code="hour", name="hour", unit="h", scale=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commons:
    """One community: its currency and policy, who keeps it, and where its money is."""

    id: str
    name: str
    ledger: str
    currency: Currency
    policy: Policy
    upcoming: tuple[tuple[int, Policy], ...]
    stewards: tuple[str, ...]
    threshold: int
    kinds: tuple[Kind, ...]
    seq: int
    at_ms: int
    tick: int
    supply: Amount
    pool: Amount
    escrow: Amount
    #: Due on all accounts by now, and not posted yet; None where the ledger does not tell (it is costly to sum).
    melt_due: Amount | None
    members: int

    def __repr__(self) -> str:
        return f"<Commons {self.name!r} {self.id}: {self.members} members, {self.supply}, {self.pool} in the pool>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member: `peer` is its did, `status` pending, active or suspended, `keys` the dids of its live keys."""

    peer: str
    handle: str
    status: str
    joined_ms: int
    #: None where the commons does not show its currency to this reader yet.
    credit_limit: Amount | None
    keys: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Member {self.handle} {self.status} {self.peer}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class GiftCount:
    """Gifts of one kind that a member gave and received, and that were thanked for. Neither is a debt."""

    kind: str
    given: Amount
    received: Amount

    def __repr__(self) -> str:
        return f"<{self.kind}: {self.given} given, {self.received} received>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account at a time: prints as its effective balance.

    `effective` is what is there after the melt that is due; `available` may be spent (with the credit limit);
    `escrow` is held for open holds; `posted` is the sum of the postings so far; `next_melt` is what the end of the
    running tick will take if nothing moves. `gifts` counts what was given and received without a price, by kind.
    """

    effective: Amount
    available: Amount
    escrow: Amount
    posted: Amount
    next_melt: Amount
    at_ms: int
    tick: int
    seq: int
    gifts: tuple[GiftCount, ...] = ()

    @property
    def at(self) -> datetime:
        """The time for which this holds."""
        return moment(self.at_ms)

    def __str__(self) -> str:
        return str(self.effective)

    def __repr__(self) -> str:
        more = f", {self.available} to spend" if self.available != self.effective else ""
        return f"<Balance {self.effective}{more}, next melt {self.next_melt}, at {self.at:%Y-%m-%d %H:%M:%S}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine:
    """One posting of an account, with the balance after it; `counterpart` is a did, a reserved holder or None.

    `ref` is the id of the statement or request that it answers, as its author says.
    """

    seq: int
    at_ms: int
    type: str
    id: str
    reason: str
    amount: Amount
    balance: Amount
    counterpart: str | None
    category: str | None
    ref: str | None
    memo: str | None

    @property
    def at(self) -> datetime:
        """When the entry was accepted."""
        return moment(self.at_ms)

    def __repr__(self) -> str:
        about = f" for {self.category}" if self.category else ""
        memo = f" {self.memo!r}" if self.memo else ""
        with_ = self.counterpart or "several"
        return f"<{self.seq} {self.reason} {self.amount}{about} with {with_}, balance {self.balance}{memo}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the log. Its leaf was checked: it is the hash of the envelope and postings at this place and time.

    `memo` is the text that its author sealed, or None where there is none, it was erased or is not shown; `category`
    and `ref` (the id of the statement or request that it answers) are those of a payment that names them. Postings
    are in grains: `Amount(posting.amount, currency.code, currency.scale)` is one as money.
    """

    seq: int
    at_ms: int
    type: str
    by: str
    id: str
    category: str | None
    ref: str | None
    memo: str | None
    envelope: Envelope
    postings: tuple[Posting, ...]
    leaf: bytes

    @property
    def at(self) -> datetime:
        """When the entry was accepted."""
        return moment(self.at_ms)

    def __repr__(self) -> str:
        about = f" for {self.category}" if self.category else ""
        memo = f" {self.memo!r}" if self.memo else ""
        when = f"{self.at:%Y-%m-%d %H:%M:%S}"
        return f"<Entry {self.seq} {self.type}{about} by {self.by} at {when}, {len(self.postings)} postings{memo}>"


def moment(ms: int) -> datetime:
    """The UTC datetime of so many ms since the Unix epoch."""
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(at: datetime | int) -> int:
    """The ms since the Unix epoch of an aware datetime, or the ms as they are; `ValueError` for a naive one."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("a datetime without a time zone names no moment: say tzinfo=UTC or your own")
        return (at - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(at, bool) or not isinstance(at, int):
        raise TypeError(f"a moment is an aware datetime, or ms since the epoch as int, not {at!r}")
    return at


def understood(read: Callable[[dict[str, Any]], _T], fields: dict[str, Any]) -> _T:
    """What `read` makes of an answer; an answer that is none of its kind is `UnexpectedAnswer`."""
    try:
        return read(fields)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = error.refusal.detail if isinstance(error, Rejected) else f"{type(error).__name__}: {error}"
        raise UnexpectedAnswer(f"the ledger's answer can't be read: {why}") from error


def read_service(fields: Mapping[str, Any]) -> Service:
    """Make a `Service` of the answer of `GET /v1`."""
    speed = int_in(fields, "clock_speed")
    if speed < 1:
        raise ValueError("clock_speed is at least 1")
    return Service(
        ledger=text_in(fields, "ledger"),
        version=text_in(fields, "version"),
        time_ms=int_in(fields, "time"),
        clock_speed=speed,
        limits={name: int_in(fields["limits"], name) for name in fields["limits"]},
    )


def read_commons(fields: Mapping[str, Any]) -> Commons:
    """Make a `Commons` of what `GET /v1/commons/{commons}` answers."""
    currency = Currency(text_in(fields["currency"], "code"), int_in(fields["currency"], "scale"))

    def amount(name: str) -> Amount:
        return Amount(grains_in(fields[name]), currency.code, currency.scale)

    return Commons(
        id=text_in(fields, "commons"),
        name=text_in(fields, "name"),
        ledger=text_in(fields, "ledger"),
        currency=currency,
        policy=read_json_policy(fields["policy"]),
        upcoming=tuple((int_in(item, "from_tick"), read_json_policy(item["policy"])) for item in fields["upcoming"]),
        stewards=tuple(str(did) for did in fields["stewards"]),
        threshold=int_in(fields, "threshold"),
        kinds=tuple(_kind(item) for item in fields["kinds"]),
        seq=int_in(fields, "seq"),
        at_ms=int_in(fields, "at"),
        tick=int_in(fields, "tick"),
        supply=amount("supply"),
        pool=amount("pool"),
        escrow=amount("escrow"),
        melt_due=amount("melt_due") if "melt_due" in fields else None,
        members=int_in(fields, "members"),
    )


def _kind(fields: Mapping[str, Any]) -> Kind:
    code, unit, scale = text_in(fields, "code"), text_in(fields, "unit"), int_in(fields, "scale")
    if not KIND.fullmatch(code) or not UNIT.fullmatch(unit) or not 0 <= scale <= GIFT_SCALE_MAX:
        raise ValueError("no kind of gift")
    return Kind(code=code, name=text_in(fields, "name"), unit=unit, scale=scale)


def read_json_policy(fields: Mapping[str, Any]) -> Policy:
    """Make a `Policy` of its JSON form, where what is in grains is a string of digits (SPEC §7.1)."""
    return read_policy(
        {
            **fields,
            "brackets": [[grains_in(start), ppb] for start, ppb in fields["brackets"]],
            "credit_limit": grains_in(fields["credit_limit"]),
            "vouch_min": grains_in(fields["vouch_min"]),
        },
        min_tick_seconds=1,
    )


def read_member(fields: Mapping[str, Any], currency: Currency | None) -> Member:
    """Make a `Member` of one item of `…/members`; without the currency its credit limit stays untold."""
    peer = text_in(fields, "peer")
    peer_of(peer)
    handle = text_in(fields, "handle")
    if not is_handle(handle):
        raise ValueError(f"{handle!r} is no handle")
    limit = grains_in(fields["credit_limit"])
    return Member(
        peer=peer,
        handle=handle,
        status=text_in(fields, "status"),
        joined_ms=int_in(fields, "joined"),
        credit_limit=None if currency is None else Amount(limit, currency.code, currency.scale),
        keys=tuple(str(key) for key in fields["keys"]),
    )


def read_balance(fields: Mapping[str, Any], currency: Currency, kinds: Mapping[str, Kind]) -> Balance:
    """Make a `Balance` of what `…/balances` answers; a member without an account has zero.

    A kind of gift that is not among `kinds` is shown by its code.
    """
    items = [item for item in fields["items"] if item["asset_code"] == currency.code]
    item: Mapping[str, Any] = items[0] if items else {}

    def amount(name: str) -> Amount:
        return Amount(grains_in(item[name] if items else "0"), currency.code, currency.scale)

    return Balance(
        effective=amount("balance"),
        available=amount("available"),
        escrow=amount("escrow"),
        posted=amount("posted"),
        next_melt=amount("next_melt"),
        at_ms=int_in(fields, "at"),
        tick=int_in(fields, "tick"),
        seq=int_in(fields, "seq"),
        gifts=tuple(_gift_count(item, kinds) for item in fields["gifts"]),
    )


def _gift_count(fields: Mapping[str, Any], kinds: Mapping[str, Kind]) -> GiftCount:
    code, scale = text_in(fields, "asset_code"), int_in(fields, "asset_scale")
    unit = kinds[code].unit if code in kinds else ""
    given, received = (Amount(grains_in(fields[name]), code, scale, unit=unit) for name in ("given", "received"))
    return GiftCount(kind=code, given=given, received=received)


def gift_kinds_in(fields: Mapping[str, Any]) -> set[str]:
    """The kinds of gifts that `…/balances` counts."""
    return {text_in(item, "asset_code") for item in fields["gifts"]}


def read_history_line(fields: Mapping[str, Any], amount_of: Callable[[int], Amount]) -> HistoryLine:
    """Make a `HistoryLine` of one item of `…/postings`; `amount_of` makes an amount of grains."""
    counterpart, category, ref, memo = (fields.get(name) for name in ("counterpart", "category", "ref", "memo"))
    return HistoryLine(
        seq=int_in(fields, "seq"),
        at_ms=int_in(fields, "at"),
        type=text_in(fields, "type"),
        id=text_in(fields, "id"),
        reason=text_in(fields, "reason"),
        amount=amount_of(grains_in(fields["amount"])),
        balance=amount_of(grains_in(fields["balance"])),
        counterpart=None if counterpart is None else str(counterpart),
        category=None if category is None else str(category),
        ref=None if ref is None else str(ref),
        memo=None if memo is None else str(memo),
    )


def read_entry(fields: Mapping[str, Any]) -> Entry:
    """Make an `Entry` of one item of `…/entries`; `ValueError` if it is not what its leaf and its seal bind."""
    envelope = read_json_envelope(fields)
    said = _said(envelope)
    category, ref = said.get("category"), said.get("ref")
    entry = Entry(
        seq=int_in(fields, "seq"),
        at_ms=int_in(fields, "at"),
        # From the body, which is signed and which the leaf binds; what stands beside it is the operator's word.
        type=text_in(said, "type"),
        by=did_of(said["by"]),
        id=id_text(said["id"]),
        category=None if category is None else text_in(said, "category"),
        ref=None if ref is None else id_text(ref),
        memo=None if envelope.memo is None else envelope.memo.text,
        envelope=envelope,
        postings=_postings(fields["postings"]),
        leaf=bytes.fromhex(fields["leaf"]),
    )
    leaf = leaf_of(
        seq=entry.seq,
        at_ms=entry.at_ms,
        body=envelope.body,
        signatures=envelope.signatures,
        postings=entry.postings,
    )
    if leaf != entry.leaf:
        raise ValueError(f"the leaf of entry {entry.seq} is not its hash")
    return entry


def read_json_envelope(fields: Mapping[str, Any]) -> Envelope:
    """The envelope whose body, signatures and memo stand in JSON (SPEC §7.1); nothing in it is checked yet.

    Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` for what has another form.
    """
    memo = fields.get("memo")
    return Envelope(
        unbase64url(text_in(fields, "body")),
        tuple((peer_of(item["key"]), unbase64url(item["signature"])) for item in fields["signatures"]),
        None if memo is None else Memo(unbase64url(memo["salt"]), text_in(memo, "text")),
    )


def json_envelope(envelope: Envelope) -> dict[str, Any]:
    """An envelope in JSON as SPEC §7.1 has it, without a memo."""
    return {
        "body": base64url(envelope.body),
        "signatures": [
            {"key": did_of(key), "signature": base64url(signature)} for key, signature in envelope.signatures
        ],
    }


def _said(envelope: Envelope) -> Mapping[str, Any]:
    """The fields of a body, in which the seal of the memo beside it stands."""
    said = unpack(envelope.body)
    if not isinstance(said, dict):
        raise ValueError("a body is a map")
    if envelope.memo is not None and envelope.memo.seal() != said.get("memo"):
        raise ValueError("the memo is not the one that was sealed")
    return said


def read_json_receipt(fields: Mapping[str, Any]) -> Receipt:
    """Make a `Receipt` of its JSON form."""
    return Receipt(
        commons=bytes.fromhex(fields["commons"]),
        seq=int_in(fields, "seq"),
        at_ms=int_in(fields, "at"),
        tick=int_in(fields, "tick"),
        id=id_of(text_in(fields, "id")),
        leaf=bytes.fromhex(fields["leaf"]),
        postings=_postings(fields["postings"]),
    )


def _postings(items: Any) -> tuple[Posting, ...]:
    return tuple(
        Posting(str(reason), _holder(holder), str(asset), grains_in(amount)) for reason, holder, asset, amount in items
    )


def _holder(text: str) -> Holder:
    return text if text in RESERVED_HOLDERS else peer_of(text)


def grains_in(value: Any) -> int:
    """An amount in grains, which JSON has as a string of digits."""
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise ValueError(f"{value!r} is not an amount as a string of digits")
    return int(value)


def int_in(fields: Mapping[str, Any], name: str) -> int:
    """The int of a field."""
    value = fields[name]
    if type(value) is not int:
        raise ValueError(f"{name} is not an int")
    return value


def text_in(fields: Mapping[str, Any], name: str) -> str:
    """The text of a field."""
    value = fields[name]
    if type(value) is not str:
        raise ValueError(f"{name} is not text")
    return value

"""Statements: what peers sign, field by field (SPEC §3).

Owns the type, the fields and the ranges of every statement, in both directions: bytes to a checked `Statement`
(`read_statement`) and fields to canonical bytes (`write_body`). What a statement does to the books is the core's
business; whether its signatures verify is `envelopes`'.

1. A body is one canonical map: `type`, `commons` (absent in `found`), `by`, `id`, `expires`, `memo`?, and the fields
   of its type.
2. An unknown field, a missing field or a value out of range is `malformed`; so are an empty list, a payee who is
   the payer, and a total beyond 10^15.
3. A key comes into use only if it names a point of prime order: as `by` of `found` and `join`, as a steward, as an
   added key, as the ledger's next key.
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from gesell_protocol import ed25519
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.canonical import pack, unpack
from gesell_protocol.envelopes import BODY_MAX_BYTES, Envelope
from gesell_protocol.fields import (
    GIFT_SCALE_MAX,
    STEWARDS_MAX,
    Currency,
    Leg,
    ascending,
    bin_of,
    distinct_keys,
    int_from,
    read_after,
    read_amount,
    read_category,
    read_currency,
    read_handle,
    read_id,
    read_kind,
    read_legs,
    read_name16,
    read_new_key,
    read_peer,
    read_policy,
    read_receiver,
    read_seal,
    read_time,
    read_title,
    read_true,
    read_type,
    read_unit,
)
from gesell_protocol.names import Holder, commons_of, time_of_id
from gesell_protocol.policy import TICK_MAX, TICK_SECONDS_MIN, Policy
from gesell_protocol.refusals import Rejected
from gesell_protocol.values import value

EXPIRES_MAX_MS: Final = 7 * 24 * 3600 * 1000
SWEEP_MAX: Final = 400
PAYOUT_MAX: Final = 300


@value
class Statement:
    """What every statement says. `commons` is also set for `found`: the name that its body makes."""

    type: ClassVar[str]
    commons: bytes
    by: bytes
    id: bytes
    expires_ms: int
    memo: bytes | None = None


@value
class Found(Statement):
    type: ClassVar[str] = "found"
    ledger: bytes
    name: str
    currency: Currency
    policy: Policy
    stewards: tuple[bytes, ...]
    threshold: int


@value
class Join(Statement):
    type: ClassVar[str] = "join"
    handle: str


@value
class Admit(Statement):
    type: ClassVar[str] = "admit"
    peer: bytes


@value
class Suspend(Statement):
    type: ClassVar[str] = "suspend"
    peer: bytes


@value
class Leave(Statement):
    type: ClassVar[str] = "leave"


@value
class Keys(Statement):
    type: ClassVar[str] = "keys"
    add: tuple[bytes, ...] = ()
    revoke: tuple[bytes, ...] = ()


@value
class ChangePolicy(Statement):
    type: ClassVar[str] = "policy"
    policy: Policy
    from_tick: int


@value
class ChangeStewards(Statement):
    type: ClassVar[str] = "stewards"
    stewards: tuple[bytes, ...]
    threshold: int


@value
class Erase(Statement):
    type: ClassVar[str] = "erase"
    statement: bytes


@value
class Issue(Statement):
    type: ClassVar[str] = "issue"
    to: bytes
    amount: int


@value
class Retire(Statement):
    type: ClassVar[str] = "retire"
    amount: int
    balancing: bool = False


@value
class Pay(Statement):
    type: ClassVar[str] = "pay"
    legs: tuple[Leg, ...]
    ref: bytes | None = None
    balancing: bool = False
    category: str | None = None


@value
class Grant(Statement):
    type: ClassVar[str] = "grant"
    legs: tuple[Leg, ...]


@value
class Share(Statement):
    type: ClassVar[str] = "share"
    amount: int


@value
class MakeKind(Statement):
    type: ClassVar[str] = "kind"
    code: str
    name: str
    unit: str
    scale: int


@value
class Gift(Statement):
    """`to` is a peer, or the pool for the whole commons; `after` are the gifts that moved the giver."""

    type: ClassVar[str] = "gift"
    to: Holder
    kind: str
    quantity: int
    after: tuple[bytes, ...] = ()
    category: str | None = None


@value
class Thank(Statement):
    type: ClassVar[str] = "thank"
    gift: bytes


@value
class Decline(Statement):
    type: ClassVar[str] = "decline"
    gift: bytes


@value
class Withdraw(Statement):
    type: ClassVar[str] = "withdraw"
    gift: bytes


@value
class Vouch(Statement):
    """`whom` stands in the body as `for`; a `limit` of 0 takes the vouch back."""

    type: ClassVar[str] = "vouch"
    whom: bytes
    limit: int


@value
class Writeoff(Statement):
    type: ClassVar[str] = "writeoff"
    peer: bytes


@value
class Hold(Statement):
    """`until` is in ms since the Unix epoch."""

    type: ClassVar[str] = "hold"
    to: bytes
    amount: int
    until: int
    category: str | None = None


@value
class Capture(Statement):
    type: ClassVar[str] = "capture"
    hold: bytes
    amount: int


@value
class Void(Statement):
    type: ClassVar[str] = "void"
    hold: bytes


@value
class Sweep(Statement):
    type: ClassVar[str] = "sweep"
    accounts: tuple[bytes, ...]


@value
class Payout(Statement):
    type: ClassVar[str] = "payout"
    share: bytes
    members: tuple[bytes, ...]


@value
class Lapse(Statement):
    """`hold` stands in the body as `of`."""

    type: ClassVar[str] = "lapse"
    hold: bytes


@value
class Rekey(Statement):
    """`ledger` is the key that speaks for the ledger from the next entry on, in place of `by`."""

    type: ClassVar[str] = "rekey"
    ledger: bytes


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_statement(envelope: Envelope, *, min_tick_seconds: int = TICK_SECONDS_MIN) -> Statement:
    """Check the body of an envelope against §3 and its memo against its seal; raises `Rejected`.

    Refusals come in the order of §3: `too-large`, `not-canonical`, `malformed`. Signatures are not looked at.
    """
    if len(envelope.body) > BODY_MAX_BYTES:
        raise Rejected("too-large", f"a body has at most {BODY_MAX_BYTES} bytes")
    body = unpack(envelope.body)
    if not isinstance(body, dict):
        raise Rejected("malformed", "a body is a map")
    try:
        statement = _read_fields(body, envelope.body, min_tick_seconds)
    except (ValueError, ed25519.BadKey) as error:
        raise Rejected("malformed", str(error)) from None
    if envelope.memo is not None:
        if statement.memo is None:
            raise Rejected("malformed", "a memo came with a body that carries no seal")
        if envelope.memo.seal() != statement.memo:
            raise Rejected("malformed", "the memo does not fit its seal")
    return statement


def write_body(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields of a statement, as they stand on the wire, in canonical bytes; None means absent."""
    return pack({name: value for name, value in fields.items() if value is not None})


def _read_fields(body: dict[str, Any], body_bytes: bytes, min_tick_seconds: int) -> Statement:
    shape = _SHAPES.get(body["type"]) if type(body.get("type")) is str else None
    if shape is None:
        raise ValueError("type: not one that this ledger knows")
    if not shape.fields.keys() >= body.keys():
        unknown = next(name for name in body if name not in shape.fields)
        raise ValueError(f"{unknown}: a {shape.make.type} statement has no such field")
    read: dict[str, Any] = {}
    name = ""
    try:
        for name, item in body.items():
            attribute, reader = shape.fields[name]
            read[attribute] = reader(item)
    except (ValueError, ed25519.BadKey) as error:
        raise ValueError(f"{name}: {error}") from None
    if not shape.required <= body.keys():
        missing = next(name for name in shape.required if name not in body)
        raise ValueError(f"{missing}: missing")
    del read["type"]
    if shape.make is Found:
        read["commons"] = commons_of(body_bytes)
    if "policy" in read and read["policy"].tick_seconds < min_tick_seconds:
        raise ValueError(f"policy.tick_seconds: this ledger takes {min_tick_seconds} or more")
    statement = shape.make(**read)
    if not 0 <= statement.expires_ms - time_of_id(statement.id) <= EXPIRES_MAX_MS:
        raise ValueError("expires: after the time inside id, by at most 7 days")
    if shape.check is not None:
        shape.check(statement)
    return statement


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_threshold(statement: Found | ChangeStewards) -> None:
    if statement.threshold > len(statement.stewards):
        raise ValueError("threshold: at most the number of stewards")


def _check_keys(statement: Keys) -> None:
    if not statement.add and not statement.revoke:
        raise ValueError("add, revoke: at least one key")
    if set(statement.add) & set(statement.revoke):
        raise ValueError("add, revoke: a key is added or revoked, not both")


def _check_gift(statement: Gift) -> None:
    if statement.to == statement.by:
        raise ValueError("to: nobody gives to themselves")


def _check_rekey(statement: Rekey) -> None:
    if statement.ledger == statement.by:
        raise ValueError("ledger: the new key is another one")


def _check_vouch(statement: Vouch) -> None:
    if statement.whom == statement.by:
        raise ValueError("for: nobody vouches for themselves")


def _check_issue(statement: Issue) -> None:
    if statement.to == statement.by:
        raise ValueError("to: nobody issues to themselves; another steward may speak for you")


def _check_hold(statement: Hold) -> None:
    if statement.to == statement.by:
        raise ValueError("to: nobody holds money for themselves")


def _check_grant(statement: Grant | Pay) -> None:
    if any(leg.to == statement.by for leg in statement.legs):
        raise ValueError("legs: nobody pays themselves")


def _check_pay(statement: Pay) -> None:
    _check_grant(statement)
    if statement.balancing and len(statement.legs) > 1:
        raise ValueError("balancing: with one leg only")


#: Fields whose names on the wire are not those of their attributes.
_ATTRIBUTES: Final = {"expires": "expires_ms", "for": "whom", "of": "hold"}


@dataclass(frozen=True, slots=True)
class _Shape:
    """`fields`: name on the wire → attribute and reader; `required`: the names that must be there, a set that keeps the
    order in which one is missed.
    """

    make: type[Statement]
    fields: Mapping[str, tuple[str, Callable[[object], Any]]]
    required: KeysView[str]
    check: Callable[[Any], None] | None


def _shape(
    make: type[Statement],
    *,
    required: Mapping[str, Callable[[object], Any]],
    optional: Mapping[str, Callable[[object], Any]] | None = None,
    check: Callable[[Any], None] | None = None,
) -> _Shape:
    """A type's fields beside those that every statement has; `found` alone names no commons."""
    enters = make in (Found, Join)
    everywhere: dict[str, Callable[[object], Any]] = {
        "type": read_type,
        "by": read_new_key if enters else read_peer,
        "id": read_id,
        "expires": read_time,
    }
    if make is not Found:
        everywhere["commons"] = bin_of(16, "a commons")
    optional = {"memo": read_seal, **(optional or {})}
    readers = {**everywhere, **required, **optional}
    fields = {name: (_ATTRIBUTES.get(name, name), read) for name, read in readers.items()}
    return _Shape(make, fields, {**everywhere, **required}.keys(), check)


_STEWARDS: Final = {
    "stewards": ascending(STEWARDS_MAX, read_new_key),
    "threshold": int_from(1, STEWARDS_MAX),
}

_SHAPES: Final[Mapping[str, _Shape]] = {
    shape.make.type: shape
    for shape in (
        _shape(
            Found,
            required={
                "ledger": read_peer,
                "name": read_title,
                "currency": read_currency,
                "policy": read_policy,
                **_STEWARDS,
            },
            check=_check_threshold,
        ),
        _shape(Join, required={"handle": read_handle}),
        _shape(Admit, required={"peer": read_peer}),
        _shape(Suspend, required={"peer": read_peer}),
        _shape(Leave, required={}),
        _shape(
            Keys,
            required={},
            optional={"add": distinct_keys(read_new_key), "revoke": distinct_keys(read_peer)},
            check=_check_keys,
        ),
        _shape(ChangePolicy, required={"policy": read_policy, "from_tick": int_from(0, TICK_MAX)}),
        _shape(ChangeStewards, required=_STEWARDS, check=_check_threshold),
        _shape(Erase, required={"statement": read_name16}),
        _shape(Issue, required={"to": read_peer, "amount": read_amount}, check=_check_issue),
        _shape(Retire, required={"amount": read_amount}, optional={"balancing": read_true}),
        _shape(
            Pay,
            required={"legs": read_legs},
            optional={"ref": read_name16, "balancing": read_true, "category": read_category},
            check=_check_pay,
        ),
        _shape(Grant, required={"legs": read_legs}, check=_check_grant),
        _shape(Share, required={"amount": read_amount}),
        _shape(
            MakeKind,
            required={
                "code": read_kind,
                "name": read_title,
                "unit": read_unit,
                "scale": int_from(0, GIFT_SCALE_MAX),
            },
        ),
        _shape(
            Gift,
            required={"to": read_receiver, "kind": read_kind, "quantity": read_amount},
            optional={"after": read_after, "category": read_category},
            check=_check_gift,
        ),
        _shape(Thank, required={"gift": read_name16}),
        _shape(Decline, required={"gift": read_name16}),
        _shape(Withdraw, required={"gift": read_name16}),
        _shape(Vouch, required={"for": read_peer, "limit": int_from(0, AMOUNT_MAX)}, check=_check_vouch),
        _shape(Writeoff, required={"peer": read_peer}),
        _shape(
            Hold,
            required={"to": read_peer, "amount": read_amount, "until": read_time},
            optional={"category": read_category},
            check=_check_hold,
        ),
        _shape(Capture, required={"hold": read_name16, "amount": int_from(0, AMOUNT_MAX)}),
        _shape(Void, required={"hold": read_name16}),
        _shape(Sweep, required={"accounts": ascending(SWEEP_MAX, read_peer)}),
        _shape(Payout, required={"share": read_name16, "members": ascending(PAYOUT_MAX, read_peer)}),
        _shape(Lapse, required={"of": read_name16}),
        _shape(Rekey, required={"ledger": read_new_key}, check=_check_rekey),
    )
}

#: The types that only the ledger itself may speak (SPEC §3.6).
LEDGER_TYPES: Final = frozenset({Sweep.type, Payout.type, Lapse.type, Rekey.type})
TYPES: Final = tuple(_SHAPES)


#: The types that answer a gift or a hold → the attribute that names it.
_ANSWERS: Final = {
    **dict.fromkeys((Thank.type, Decline.type, Withdraw.type), "gift"),
    **dict.fromkeys((Capture.type, Void.type, Lapse.type), "hold"),
}


def answered_by(statement: Statement) -> bytes | None:
    """The id of the gift or the hold that a statement answers; None for one that answers nothing."""
    attribute = _ANSWERS.get(statement.type)
    return None if attribute is None else getattr(statement, attribute)


def others_in(statement: Statement) -> tuple[bytes, ...]:
    """The peers whom a statement pays or is about, in the order of its body; its author, stewards and keys are not."""
    match statement:
        case Pay(legs=legs) | Grant(legs=legs):
            return tuple(leg.to for leg in legs)
        case Issue(to=peer) | Admit(peer=peer) | Suspend(peer=peer) | Vouch(whom=peer) | Writeoff(peer=peer):
            return (peer,)
        case Gift(to=bytes(peer)) | Hold(to=peer):
            return (peer,)
    return ()

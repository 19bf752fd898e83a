"""Statements: what peers sign, field by field (SPEC §3).

Owns the type, the fields and the ranges of every statement, in both directions: bytes to a checked `Statement`
(`read_statement`) and fields to canonical bytes (`write_body`). What a statement does to the books is the core's
business; whether its signatures verify is `envelopes`'.

1. A body is one canonical map: `type`, `commons` (absent in `found`), `by`, `id`, `expires`, `memo`?, and the fields
   of its type.
2. An unknown field, a missing field or a value out of range is `malformed`; so are an empty list, a payee who is
   the payer, and a total beyond 10^15.
3. A key comes into use only if it names a point of prime order: as `by` of `found` and `join`, as a steward, as an
   added key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Final, NamedTuple

from gesell_protocol import ed25519
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.canonical import INT_MAX, pack, unpack
from gesell_protocol.envelopes import BODY_MAX_BYTES, Envelope, has_control_characters
from gesell_protocol.names import CATEGORY, CURRENCY, commons_of, is_handle, is_uuid7, time_of_id
from gesell_protocol.policy import TICK_MAX, TICK_SECONDS_MIN, Policy, read_policy
from gesell_protocol.refusals import Rejected

EXPIRES_MAX_MS: Final = 7 * 24 * 3600 * 1000
LEGS_MAX: Final = 256
STEWARDS_MAX: Final = 16
KEYS_MAX: Final = 16
SWEEP_MAX: Final = 400
PAYOUT_MAX: Final = 300
NAME_MAX_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What every statement says. `commons` is also set for `found`: the name that its body makes."""

    type: ClassVar[str]
    commons: bytes
    by: bytes
    id: bytes
    expires_ms: int
    memo: bytes | None = None


class Leg(NamedTuple):
    """One payee and what it gets, in grains."""

    to: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency's code and its number of decimals."""

    code: str
    scale: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Statement):
    type: ClassVar[str] = "found"
    ledger: bytes
    name: str
    currency: Currency
    policy: Policy
    stewards: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Statement):
    type: ClassVar[str] = "join"
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit(Statement):
    type: ClassVar[str] = "admit"
    peer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend(Statement):
    type: ClassVar[str] = "suspend"
    peer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave(Statement):
    type: ClassVar[str] = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Statement):
    type: ClassVar[str] = "keys"
    add: tuple[bytes, ...] = ()
    revoke: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePolicy(Statement):
    type: ClassVar[str] = "policy"
    policy: Policy
    from_tick: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStewards(Statement):
    type: ClassVar[str] = "stewards"
    stewards: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase(Statement):
    type: ClassVar[str] = "erase"
    statement: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue(Statement):
    type: ClassVar[str] = "issue"
    to: bytes
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire(Statement):
    type: ClassVar[str] = "retire"
    amount: int
    balancing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay(Statement):
    type: ClassVar[str] = "pay"
    legs: tuple[Leg, ...]
    ref: bytes | None = None
    balancing: bool = False
    category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Statement):
    type: ClassVar[str] = "grant"
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Statement):
    type: ClassVar[str] = "share"
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Statement):
    type: ClassVar[str] = "sweep"
    accounts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout(Statement):
    type: ClassVar[str] = "payout"
    share: bytes
    members: tuple[bytes, ...]


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
    read: dict[str, Any] = {}
    for name, value in body.items():
        field = shape.fields.get(name)
        if field is None:
            raise ValueError(f"{name}: a {shape.make.type} statement has no such field")
        try:
            read[field.attribute] = field.read(value)
        except (ValueError, ed25519.BadKey) as error:
            raise ValueError(f"{name}: {error}") from None
    for name in shape.required:
        if name not in body:
            raise ValueError(f"{name}: missing")
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


# ── Fields ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _bin(size: int, what: str) -> Callable[[object], bytes]:
    def read(value: object) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise ValueError(f"{what} is bin of {size} bytes")
        return value

    return read


_read_peer = _bin(32, "a key")
_read_name16 = _bin(16, "an id")
_read_seal = _bin(32, "a seal")


def _read_new_key(value: object) -> bytes:
    key = _read_peer(value)
    ed25519.check_key(key)
    return key


def _read_id(value: object) -> bytes:
    name = _read_name16(value)
    if not is_uuid7(name):
        raise ValueError("an id is a UUIDv7")
    return name


def _int_from(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an int from {low} to {high}")
        return value

    return read


_read_time = _int_from(0, INT_MAX)
_read_amount = _int_from(1, AMOUNT_MAX)


def _read_type(value: object) -> object:
    return value


def _read_true(value: object) -> bool:
    if value is not True:
        raise ValueError("present only as true")
    return True


def _read_category(value: object) -> str:
    if type(value) is not str or not CATEGORY.fullmatch(value):
        raise ValueError("1 to 32 of a-z, 0-9 and -, not beginning with -")
    return value


def _read_handle(value: object) -> str:
    if type(value) is not str or not is_handle(value):
        raise ValueError("2 to 31 of a-z, 0-9, _ and -, beginning with a letter, and no reserved holder")
    return value


def _read_title(value: object) -> str:
    if type(value) is not str or not 1 <= len(value) <= NAME_MAX_CHARS or has_control_characters(value):
        raise ValueError(f"text of 1 to {NAME_MAX_CHARS} characters, no control characters")
    return value


def _read_list(value: object, high: int) -> list[Any]:
    if type(value) is not list or not 1 <= len(value) <= high:
        raise ValueError(f"a list of 1 to {high}")
    return value


def _ascending(high: int, read_one: Callable[[object], bytes]) -> Callable[[object], tuple[bytes, ...]]:
    def read(value: object) -> tuple[bytes, ...]:
        keys = tuple(read_one(item) for item in _read_list(value, high))
        if any(left >= right for left, right in pairwise(keys)):
            raise ValueError("in ascending order, each once")
        return keys

    return read


def _distinct_keys(read_one: Callable[[object], bytes]) -> Callable[[object], tuple[bytes, ...]]:
    def read(value: object) -> tuple[bytes, ...]:
        keys = tuple(read_one(item) for item in _read_list(value, KEYS_MAX))
        if len(set(keys)) != len(keys):
            raise ValueError("each key once")
        return keys

    return read


def _read_leg(value: object) -> Leg:
    if type(value) is not list or len(value) != 2:
        raise ValueError("a leg is [to, amount]")
    return Leg(_read_peer(value[0]), _read_amount(value[1]))


def _read_legs(value: object) -> tuple[Leg, ...]:
    legs = tuple(_read_leg(item) for item in _read_list(value, LEGS_MAX))
    if len(legs) > 1:
        if len({leg.to for leg in legs}) != len(legs):
            raise ValueError("each payee once")
        if sum(leg.amount for leg in legs) > AMOUNT_MAX:
            raise ValueError("the total of a statement is at most 10^15 grains")
    return legs


def _read_currency(value: object) -> Currency:
    if type(value) is not dict or set(value) != {"code", "scale"}:
        raise ValueError("a currency is {code, scale}")
    code, scale = value["code"], value["scale"]
    if type(code) is not str or not CURRENCY.fullmatch(code):
        raise ValueError("code: 2 to 10 of A-Z and 0-9, beginning with a letter")
    if type(scale) is not int or not 0 <= scale <= 9:
        raise ValueError("scale: an int from 0 to 9")
    return Currency(code, scale)


def _read_policy(value: object) -> Policy:
    return read_policy(value, min_tick_seconds=1)


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_threshold(statement: Found | ChangeStewards) -> None:
    if statement.threshold > len(statement.stewards):
        raise ValueError("threshold: at most the number of stewards")


def _check_keys(statement: Keys) -> None:
    if not statement.add and not statement.revoke:
        raise ValueError("add, revoke: at least one key")
    if set(statement.add) & set(statement.revoke):
        raise ValueError("add, revoke: a key is added or revoked, not both")


def _check_issue(statement: Issue) -> None:
    if statement.to == statement.by:
        raise ValueError("to: nobody issues to themselves; another steward may speak for you")


def _check_grant(statement: Grant | Pay) -> None:
    if any(leg.to == statement.by for leg in statement.legs):
        raise ValueError("legs: nobody pays themselves")


def _check_pay(statement: Pay) -> None:
    _check_grant(statement)
    if statement.balancing and len(statement.legs) > 1:
        raise ValueError("balancing: with one leg only")


@dataclass(frozen=True, slots=True)
class _Field:
    attribute: str
    read: Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class _Shape:
    make: type[Statement]
    fields: Mapping[str, _Field]
    required: tuple[str, ...]
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
        "type": _read_type,
        "by": _read_new_key if enters else _read_peer,
        "id": _read_id,
        "expires": _read_time,
    }
    if make is not Found:
        everywhere["commons"] = _bin(16, "a commons")
    optional = {"memo": _read_seal, **(optional or {})}
    readers = {**everywhere, **required, **optional}
    fields = {name: _Field("expires_ms" if name == "expires" else name, read) for name, read in readers.items()}
    return _Shape(make, fields, (*everywhere, *required), check)


_STEWARDS: Final = {
    "stewards": _ascending(STEWARDS_MAX, _read_new_key),
    "threshold": _int_from(1, STEWARDS_MAX),
}

_SHAPES: Final[Mapping[str, _Shape]] = {
    shape.make.type: shape
    for shape in (
        _shape(
            Found,
            required={
                "ledger": _read_peer,
                "name": _read_title,
                "currency": _read_currency,
                "policy": _read_policy,
                **_STEWARDS,
            },
            check=_check_threshold,
        ),
        _shape(Join, required={"handle": _read_handle}),
        _shape(Admit, required={"peer": _read_peer}),
        _shape(Suspend, required={"peer": _read_peer}),
        _shape(Leave, required={}),
        _shape(
            Keys,
            required={},
            optional={"add": _distinct_keys(_read_new_key), "revoke": _distinct_keys(_read_peer)},
            check=_check_keys,
        ),
        _shape(ChangePolicy, required={"policy": _read_policy, "from_tick": _int_from(0, TICK_MAX)}),
        _shape(ChangeStewards, required=_STEWARDS, check=_check_threshold),
        _shape(Erase, required={"statement": _read_name16}),
        _shape(Issue, required={"to": _read_peer, "amount": _read_amount}, check=_check_issue),
        _shape(Retire, required={"amount": _read_amount}, optional={"balancing": _read_true}),
        _shape(
            Pay,
            required={"legs": _read_legs},
            optional={"ref": _read_name16, "balancing": _read_true, "category": _read_category},
            check=_check_pay,
        ),
        _shape(Grant, required={"legs": _read_legs}, check=_check_grant),
        _shape(Share, required={"amount": _read_amount}),
        _shape(Sweep, required={"accounts": _ascending(SWEEP_MAX, _read_peer)}),
        _shape(Payout, required={"share": _read_name16, "members": _ascending(PAYOUT_MAX, _read_peer)}),
    )
}

#: The types that only the ledger itself may speak (SPEC §3.6).
LEDGER_TYPES: Final = frozenset({Sweep.type, Payout.type})
TYPES: Final = tuple(_SHAPES)


def others_in(statement: Statement) -> tuple[bytes, ...]:
    """The peers whom a statement pays or is about, in the order of its body; its author, stewards and keys are not."""
    match statement:
        case Pay(legs=legs) | Grant(legs=legs):
            return tuple(leg.to for leg in legs)
        case Issue(to=peer) | Admit(peer=peer) | Suspend(peer=peer):
            return (peer,)
    return ()

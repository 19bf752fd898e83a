"""Every type and every field of a statement (SPEC §3): what is taken comes back as it was, all else is refused.

Owns one table: for each type a statement that is right, and for each of its fields values that are wrong. The bytes
are made with `msgpack` itself, so that values can stand in a body which our own encoder would never write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.canonical import INT_MAX, pack
from gesell_protocol.envelopes import BODY_MAX_BYTES, Envelope, Memo
from gesell_protocol.fields import Leg
from gesell_protocol.names import commons_of, uuid7
from gesell_protocol.policy import Policy
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import (
    EXPIRES_MAX_MS,
    LEDGER_TYPES,
    TYPES,
    Statement,
    read_statement,
    write_body,
)
from tests.histories import LEDGER, POLICY, START_MS, keys_of

VECTORS = Path(__file__).parents[3] / "protocol" / "vectors"
ANNA, BEN, CARL = keys_of("anna", "ben", "carl")
MANY = keys_of(*(f"peer {number}" for number in range(401)))
ID = uuid7(START_MS, bytes(range(10)))
NAME16 = bytes(range(16))
SEAL = Memo(b"salt" * 4, "text").seal()
DAY_MS = 24 * 3600 * 1000

#: Keys that name no point of prime order: small order, torsion, non-canonical, no point at all.
ODD_KEYS = sorted(
    {
        bytes.fromhex(case["key"])
        for case in json.loads((VECTORS / "ed25519.json").read_text(encoding="utf-8"))
        if not case["key_may_be_taken_into_use"] and len(case["key"]) == 64
    }
)

COMMON: dict[str, Any] = {"commons": NAME16, "by": ANNA, "id": ID, "expires": START_MS + 1}
OWN: dict[str, dict[str, Any]] = {
    "found": {
        "ledger": LEDGER,
        "name": "Wörgl",
        "currency": {"code": "WRG", "scale": 6},
        "policy": dict(POLICY),
        "stewards": [ANNA, BEN],
        "threshold": 2,
    },
    "join": {"handle": "anna"},
    "admit": {"peer": BEN},
    "suspend": {"peer": BEN},
    "leave": {},
    "keys": {"add": [CARL, BEN], "revoke": [MANY[1], MANY[0]]},
    "policy": {"policy": dict(POLICY), "from_tick": 7},
    "stewards": {"stewards": [ANNA, BEN], "threshold": 1},
    "erase": {"statement": NAME16},
    "issue": {"to": BEN, "amount": 5},
    "retire": {"amount": 5, "balancing": True},
    "pay": {"legs": [[CARL, 5]], "ref": NAME16, "balancing": True, "category": "lift"},
    "grant": {"legs": [[CARL, 5], [BEN, 6]]},
    "share": {"amount": 5},
    "kind": {"code": "bread", "name": "Loaves of bread", "unit": "1", "scale": 0},
    "gift": {"to": BEN, "kind": "hour", "quantity": 150, "after": [NAME16, NAME16[::-1]], "category": "lift"},
    "thank": {"gift": NAME16},
    "decline": {"gift": NAME16},
    "withdraw": {"gift": NAME16},
    "vouch": {"for": BEN, "limit": 5},
    "writeoff": {"peer": BEN},
    "hold": {"to": BEN, "amount": 5, "until": START_MS, "category": "lift"},
    "capture": {"hold": NAME16, "amount": 0},
    "void": {"hold": NAME16},
    "lapse": {"of": NAME16},
    "sweep": {"accounts": [ANNA, BEN]},
    "payout": {"share": NAME16, "members": [ANNA, BEN]},
    "rekey": {"ledger": BEN},
}
#: Fields that may be absent.
OPTIONAL = {
    "keys": {"add", "revoke"},
    "retire": {"balancing"},
    "pay": {"ref", "balancing", "category"},
    "gift": {"after", "category"},
    "hold": {"category"},
}
#: Where a field of the wire has another name in Python.
ATTRIBUTES = {"expires": "expires_ms", "for": "whom", "of": "hold"}


def right(kind: str, /, **changes: Any) -> dict[str, Any]:
    """The fields of a statement of this type that the schema takes, some of them changed."""
    fields = {"type": kind, **COMMON, **OWN[kind], **changes}
    if kind == "found" and "commons" not in changes:
        del fields["commons"]
    return fields


def encoded(fields: dict[str, Any]) -> bytes:
    return bytes(msgpack.packb(_sorted(fields), use_bin_type=True))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def read(fields: dict[str, Any], *, min_tick_seconds: int = 3_600) -> Statement:
    return read_statement(Envelope(encoded(fields), ()), min_tick_seconds=min_tick_seconds)


def refusal(fields: dict[str, Any], *, min_tick_seconds: int = 3_600) -> str:
    with pytest.raises(Rejected) as error:
        read(fields, min_tick_seconds=min_tick_seconds)
    return error.value.refusal.code


each_type = pytest.mark.parametrize("kind", TYPES)


def test_table_speaks_of_every_type_there_is() -> None:
    assert set(OWN) == set(TYPES)
    assert {"sweep", "payout", "lapse", "rekey"} == LEDGER_TYPES


# ── What is right ────────────────────────────────────────────────────────────────────────────────────────────────


def wire_of(value: Any) -> Any:
    """A read value as it stood on the wire."""
    if isinstance(value, Policy):
        return {**value.fields(), "brackets": [list(bracket) for bracket in value.brackets]}
    if isinstance(value, Leg):
        return [value.to, value.amount]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple):
        return [wire_of(item) for item in value]
    if hasattr(value, "code"):
        return {"code": value.code, "scale": value.scale}
    return value


@each_type
def test_right_statement_comes_back_field_by_field(kind: str) -> None:
    fields = right(kind, memo=SEAL)
    statement = read(fields)
    assert statement.type == kind
    for name, value in fields.items():
        assert wire_of(getattr(statement, ATTRIBUTES.get(name, name))) == value
    assert write_body(fields) == encoded(fields)


@each_type
def test_optional_fields_may_be_absent_and_are_then_empty(kind: str) -> None:
    for name in {"memo", *OPTIONAL.get(kind, ())}:
        fields = right(kind, memo=SEAL)
        del fields[name]
        assert not getattr(read(fields), name)
        assert write_body({**fields, name: None}) == encoded(fields)


def test_found_is_named_by_its_own_body() -> None:
    fields = right("found")
    assert read(fields).commons == commons_of(encoded(fields))


EDGES: list[tuple[str, dict[str, Any]]] = [
    ("found", {"name": "x" * 64}),
    ("found", {"name": "🌱" * 64}),
    ("found", {"name": " "}),
    ("found", {"stewards": keys_of("anna", *(f"steward {n}" for n in range(15))), "threshold": 16}),
    ("found", {"currency": {"code": "A1", "scale": 0}}),
    ("found", {"currency": {"code": "ABCDEFGHI9", "scale": 9}}),
    ("join", {"handle": "ab"}),
    ("join", {"handle": "a" + "-_9" * 10}),
    ("admit", {"peer": ANNA}),
    ("keys", {"add": [CARL], "revoke": [BEN]}),
    ("policy", {"from_tick": 0}),
    ("issue", {"amount": 1}),
    ("issue", {"amount": AMOUNT_MAX}),
    ("pay", {"legs": [[peer, 1] for peer in MANY[:256]], "balancing": None}),
    ("pay", {"legs": [[BEN, AMOUNT_MAX - 1], [CARL, 1]], "balancing": None}),
    ("pay", {"category": "0" + "a-" * 15 + "z"}),
    ("pay", {"category": "a"}),
    ("kind", {"code": "a1", "unit": "!" * 32, "scale": 6, "name": "🌱" * 64}),
    ("kind", {"code": "a" + "-9" * 15 + "z", "unit": "~"}),
    ("gift", {"to": "pool", "kind": "a" + "-9" * 15 + "z", "quantity": AMOUNT_MAX}),
    ("gift", {"quantity": 1, "after": [bytes([n]) * 16 for n in range(15, -1, -1)]}),
    # What `after` and `gift` name is looked up, not read: it need not be a UUID at all.
    ("gift", {"after": [bytes(16)]}),
    ("thank", {"gift": bytes(16)}),
    ("vouch", {"limit": 0}),
    ("vouch", {"limit": AMOUNT_MAX}),
    ("vouch", {"for": ODD_KEYS[0]}),
    ("writeoff", {"peer": ANNA}),
    ("hold", {"amount": AMOUNT_MAX, "until": 0}),
    ("hold", {"until": INT_MAX}),
    ("capture", {"amount": AMOUNT_MAX}),
    ("sweep", {"accounts": MANY[:400]}),
    ("payout", {"members": MANY[:300]}),
    ("leave", {"expires": START_MS + EXPIRES_MAX_MS}),
    # A payee's key is not taken into use by a payment: the books will not know it.
    ("pay", {"legs": [[ODD_KEYS[0], 1]]}),
]


@pytest.mark.parametrize(("kind", "changes"), EDGES)
def test_value_at_the_edge_of_its_range_is_taken(kind: str, changes: dict[str, Any]) -> None:
    fields = {name: value for name, value in right(kind, **changes).items() if value is not None}
    statement = read(fields)
    for name, value in changes.items():
        if value is not None and name != "expires":
            assert wire_of(getattr(statement, ATTRIBUTES.get(name, name))) == value


# ── What is wrong ────────────────────────────────────────────────────────────────────────────────────────────────

NO_BIN: list[Any] = [None, True, 0, -1, "", "x" * 32, [], {}, [b"x" * 32]]
NO_INT: list[Any] = [None, True, False, "", "1", b"1", [], [1], {}]
NO_STR: list[Any] = [None, True, 1, b"anna", [], ["anna"], {}]
NO_LIST: list[Any] = [None, True, 1, "", b"", {}, []]
NO_MAP: list[Any] = [None, True, 1, "", b"", []]
PEER = [*NO_BIN, b"", b"x" * 31, b"x" * 33]
NEW_KEY = [*PEER, *ODD_KEYS]
BIN16 = [*NO_BIN, b"", b"x" * 15, b"x" * 17]
AMOUNT = [*NO_INT, 0, -1, -AMOUNT_MAX, AMOUNT_MAX + 1, 2**63 - 1]
KINDS = [*NO_STR, "", "a", "a" * 33, "Hour", "1a", "-a", "a_b", "hour\n", "früh"]
CONTROL = ["a\nb", "\x00", "a\x7f", "a\x85", "\x1b[31m", "tab\t"]


def _ascending(high: int, wrong_items: list[Any]) -> list[Any]:
    return [
        *NO_LIST,
        [BEN, ANNA],
        [ANNA, ANNA],
        [ANNA, BEN, BEN],
        MANY[: high + 1],
        *([item] for item in wrong_items),
        [ANNA, None],
    ]


def _policies() -> Iterator[Any]:
    yield from [*NO_MAP, {}, {**POLICY, "more": 1}]
    for name in POLICY:
        yield {other: value for other, value in POLICY.items() if other != name}
    ranges = {
        "tick_seconds": (1, 31_536_000),
        "rest_ticks": (0, 366),
        "credit_limit": (0, AMOUNT_MAX),
        "vouch_min": (1, AMOUNT_MAX),
        "notice_ticks": (0, 1_000),
    }
    closed = {**POLICY, "admission": "steward"}
    for name, (low, high) in ranges.items():
        yield from ({**closed, name: value} for value in (low - 1, high + 1, *NO_INT))
    for name, words in {"melt_to": "escrow", "admission": "closed", "visibility": "secret"}.items():
        yield from ({**POLICY, name: value} for value in (words, "", *NO_STR))
    brackets = [
        *NO_LIST,
        [[1, 5]],
        [[0, -1]],
        [[0, 10**9 + 1]],
        [[0, 1], [0, 2]],
        [[0, 1], [5, 1], [5, 1]],
        [[0, 1], [9, 1], [5, 1]],
        [[-1, 1]],
        [[0, 1], [AMOUNT_MAX + 1, 1]],
        [[0]],
        [[0, 1, 2]],
        [[True, 1]],
        [[0, "1"]],
        [0, 1],
        [{}],
        [[number, 1] for number in range(17)],
    ]
    yield from ({**POLICY, "brackets": value} for value in brackets)
    yield {**POLICY, "credit_limit": 1}


LEGS = [
    *NO_LIST,
    [[]],
    [[CARL]],
    [[CARL, 1, 1]],
    [{}],
    [CARL, 1],
    [[CARL, 1], [CARL, 2]],
    [[CARL, 1], [BEN, 1], [CARL, 1]],
    [[ANNA, 1]],
    [[CARL, 1], [ANNA, 1]],
    [[CARL, AMOUNT_MAX], [BEN, 1]],
    [[peer, 1] for peer in MANY[:257]],
    *([[peer, 1]] for peer in PEER),
    *([[CARL, amount]] for amount in AMOUNT),
]

WRONG: dict[str, list[Any]] = {
    "by": PEER,
    "id": [*BIN16, NAME16, ID[:6] + b"\x4f" + ID[7:], ID[:8] + b"\x3f" + ID[9:], ID[:8] + b"\xcf" + ID[9:]],
    "expires": [*NO_INT, -1, 0, START_MS - 1, START_MS + EXPIRES_MAX_MS + 1, INT_MAX],
    "commons": BIN16,
    "memo": PEER,
    "ledger": PEER,
    "name": [*NO_STR, "", "x" * 65, "🌱" * 65, *CONTROL],
    "currency": [
        *NO_MAP,
        {},
        {"code": "WRG"},
        {"scale": 1},
        {"code": "WRG", "scale": 6, "sign": "W"},
        *(
            {"code": code, "scale": 6}
            for code in [*NO_STR, "", "W", "wrg", "1RG", "W-G", "ABCDEFGHIJK", "WRG\n", "WÄG"]
        ),
        *({"code": "WRG", "scale": scale} for scale in [*NO_INT, -1, 10]),
    ],
    "policy": list(_policies()),
    "stewards": [*_ascending(16, NEW_KEY)],
    "threshold": [*NO_INT, 0, -1, 3, 17],
    "handle": [*NO_STR, "", "a", "a" * 32, "Anna", "1anna", "anna\n", "an na", "änna", "issuer", "pool", "escrow"],
    "peer": PEER,
    "add": [*NO_LIST, [CARL, CARL], MANY[:17], *([item] for item in NEW_KEY), [CARL, MANY[0]]],
    "revoke": [*NO_LIST, [BEN, BEN], MANY[:17], *([item] for item in PEER), [CARL]],
    "from_tick": [*NO_INT, -1, 2**53 + 1],
    "statement": BIN16,
    "to": [*PEER, ANNA, "issuer", "escrow", "Pool", b"pool"],
    "code": KINDS,
    "kind": KINDS,
    "unit": [*NO_STR, "", "x" * 33, "kg m", "°C", "a\x7f", "h\n"],
    "scale": [*NO_INT, -1, 7],
    "quantity": AMOUNT,
    "after": [*NO_LIST, [NAME16, NAME16], [bytes([n]) * 16 for n in range(17)], *([item] for item in BIN16)],
    "gift": BIN16,
    "for": [*PEER, ANNA, "pool"],
    "limit": [*NO_INT, -1, AMOUNT_MAX + 1, 2**63 - 1],
    "until": [*NO_INT, -1, -START_MS],
    "hold": BIN16,
    "of": BIN16,
    "amount": AMOUNT,
    "balancing": [None, False, 0, 1, "true", b"", [], {}],
    "legs": LEGS,
    "ref": BIN16,
    "category": [*NO_STR, "", "a" * 33, "-a", "A", "a_b", "lift\n", "lïft"],
    "accounts": _ascending(400, PEER),
    "members": _ascending(300, PEER),
    "share": BIN16,
}


def _each_wrong_field() -> Iterator[tuple[str, str]]:
    for kind in TYPES:
        for name in {**right(kind), "memo": SEAL}:
            if name != "type":
                yield kind, name


@pytest.mark.parametrize(("kind", "name"), list(_each_wrong_field()))
def test_field_that_is_missing_or_wrong_is_malformed(kind: str, name: str) -> None:
    fields = right(kind, memo=SEAL)
    if name == "legs":
        del fields["memo"]
        fields.pop("balancing", None)
    if name != "memo" and name not in OPTIONAL.get(kind, ()):
        assert refusal({other: value for other, value in fields.items() if other != name}) == "malformed"
    for value in WRONG[name]:
        if value == 0 and type(value) is int and (kind, name) == ("capture", "amount"):
            continue  # nothing of what is held: the way in which a payee lets it go
        assert refusal({**fields, name: value}) == "malformed", value
    for value in (1.0, [1.5], {"a": 0.0}):
        assert refusal({**fields, name: value}) == "not-canonical"


@each_type
@pytest.mark.parametrize("name", ["", "more", "Amount", "by ", "memos", "to", "category", "handle", "ledger"])
def test_field_that_the_type_does_not_have_is_malformed(kind: str, name: str) -> None:
    fields = right(kind, memo=SEAL)
    if name not in fields:
        assert refusal({**fields, name: OWN["pay"]["category"]}) == "malformed"


def test_commons_is_absent_in_found() -> None:
    assert refusal(right("found", commons=NAME16)) == "malformed"


@pytest.mark.parametrize("kind", [None, 1, True, b"pay", "", "Pay", "pay ", "melt", "vouchsafe", [], ["pay"], {}])
def test_type_that_is_not_known_is_malformed(kind: Any) -> None:
    assert refusal({**right("pay"), "type": kind}) == "malformed"


@pytest.mark.parametrize("body", [None, True, 1, "pay", b"pay", [], [1], {}])
def test_body_that_is_no_statement_is_malformed(body: Any) -> None:
    with pytest.raises(Rejected) as error:
        read_statement(Envelope(pack(body), ()))
    assert error.value.refusal.code == "malformed"


@pytest.mark.parametrize(
    "make",
    [
        lambda odd: right("join", by=odd),
        lambda odd: right("found", by=odd, stewards=sorted({odd, BEN})),
        lambda odd: right("found", stewards=sorted({odd, ANNA})),
        lambda odd: right("stewards", stewards=sorted({odd, ANNA})),
        lambda odd: right("keys", add=[odd]),
    ],
    ids=["join", "found by", "found stewards", "stewards", "keys"],
)
def test_key_that_is_not_of_prime_order_does_not_come_into_use(make: Callable[[bytes], dict[str, Any]]) -> None:
    assert len(ODD_KEYS) >= 15
    for odd in ODD_KEYS:
        assert refusal(make(odd)) == "malformed", odd.hex()


def test_keys_adds_or_revokes_at_least_one_and_none_both_ways() -> None:
    fields = right("keys")
    assert refusal({name: value for name, value in fields.items() if name not in ("add", "revoke")}) == "malformed"
    assert refusal(right("keys", add=[CARL], revoke=[CARL])) == "malformed"


def test_balancing_goes_with_one_leg_only() -> None:
    assert refusal(right("pay", legs=[[BEN, 1], [CARL, 1]])) == "malformed"


def test_threshold_is_at_most_the_number_of_stewards() -> None:
    for kind in ("found", "stewards"):
        assert refusal(right(kind, stewards=[ANNA], threshold=2)) == "malformed"


def test_ticks_shorter_than_an_hour_need_the_service_to_allow_them() -> None:
    fields = right("found", policy={**POLICY, "tick_seconds": 3_599})
    assert refusal(fields) == "malformed"
    assert read(fields, min_tick_seconds=3_599).type == "found"
    assert refusal(right("found", policy={**POLICY, "tick_seconds": 0}), min_tick_seconds=1) == "malformed"


# ── Order, sizes, memos ──────────────────────────────────────────────────────────────────────────────────────────


def test_size_comes_before_form_and_form_before_schema() -> None:
    huge = {"type": "nonsense", "x": "x" * BODY_MAX_BYTES, "y": 1.0}
    assert refusal(huge) == "too-large"
    assert refusal({**huge, "x": ""}) == "not-canonical"
    assert refusal({"type": "nonsense"}) == "malformed"


@pytest.mark.parametrize(("more", "code"), [(0, "malformed"), (1, "too-large")])
def test_body_of_16_kib_is_looked_into_and_one_byte_more_is_not(more: int, code: str) -> None:
    body = encoded({"type": "nonsense", "x": "x" * 16_000})
    body = encoded({"type": "nonsense", "x": "x" * (16_000 + BODY_MAX_BYTES - len(body) + more)})
    assert len(body) == BODY_MAX_BYTES + more
    with pytest.raises(Rejected) as error:
        read_statement(Envelope(body, ()))
    assert error.value.refusal.code == code


def test_keys_out_of_order_are_not_canonical() -> None:
    body = msgpack.packb(dict(sorted(right("pay").items(), reverse=True)), use_bin_type=True)
    with pytest.raises(Rejected) as error:
        read_statement(Envelope(body, ()))
    assert error.value.refusal.code == "not-canonical"


def test_memo_must_fit_the_seal_of_a_body_that_carries_one() -> None:
    memo = Memo(b"salt" * 4, "text")
    bare, sealed = encoded(right("pay")), encoded(right("pay", memo=memo.seal()))
    assert read_statement(Envelope(sealed, (), memo)) == read_statement(Envelope(sealed, ()))
    for body, offered in ((bare, memo), (sealed, Memo(b"pepr" * 4, "text")), (sealed, Memo(b"salt" * 4, "texts"))):
        with pytest.raises(Rejected) as error:
            read_statement(Envelope(body, (), offered))
        assert error.value.refusal.code == "malformed"


@given(st.sampled_from(TYPES), st.binary(min_size=1, max_size=8), st.integers(0, 2**16))
@settings(max_examples=150, deadline=None)
def test_mangled_body_is_refused_with_one_of_three_codes_or_reads_as_other_canonical_fields(
    kind: str, bytes_in: bytes, place: int
) -> None:
    body = encoded(right(kind, memo=SEAL))
    place %= len(body)
    mangled = body[:place] + bytes_in + body[place + len(bytes_in) :]
    try:
        read_statement(Envelope(mangled, ()))
        code = ""
    except Rejected as rejected:
        code = rejected.refusal.code
    assert code in ("", "not-canonical", "malformed")
    if not code:
        assert encoded(msgpack.unpackb(mangled)) == mangled


@pytest.mark.parametrize("key", [ANNA, *ODD_KEYS])
def test_a_ledger_goes_over_to_a_key_of_its_own_that_may_be_taken_into_use(key: bytes) -> None:
    assert refusal(right("rekey", ledger=key)) == "malformed"

"""Vectors of statements, one by one (SPEC §3): fields, bytes, signatures, memos; and what is refused unseen.

Owns an example of every type of statement that exists, and one of every way in which bytes fail before any book
is looked at: size, canonical form, schema, signatures. What the books say stands in `history_cases`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gesell_protocol import canonical
from gesell_protocol.envelopes import MEMO_PREFIX, STATEMENT_PREFIX, Memo, read_envelope, verify_envelope
from gesell_protocol.names import commons_of
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import TYPES, read_statement, write_body
from vectors import ed25519_edges
from vectors.notation import Case, drawn, file_text, id_at, peer, seed_of, signer_of, written
from vectors.value_cases import TIME_MS

Fields = dict[str, Any]

POLICY: Final[Fields] = {
    "tick_seconds": 86_400,
    "rest_ticks": 3,
    "brackets": [[0, 0], [1_000_000, 673_197], [1_000_000_000, 2_000_000]],
    "melt_to": "pool",
    "admission": "steward",
    "credit_limit": 50_000_000,
    "vouch_min": 1_000_000,
    "visibility": "members",
    "notice_ticks": 7,
}
STEWARDS: Final = tuple(sorted(("anna", "ben", "carla"), key=peer))
COMMONS: Final = drawn("commons", 16)
MEMO: Final = Memo(drawn("salt", 16), "für den Kuchen 🍰\n\tDanke!")


def statements_json() -> str:
    """Give the text of `statements.json`. Asserts that the reference code says what each case claims."""
    taken = [_taken(*example) for example in _examples()]
    assert {case["type"] for case in taken} == set(TYPES), "every type of statement is shown"
    return file_text(
        about="Statements: fields, body, signatures and memo; and envelopes that are refused before any book is seen.",
        spec="§3",
        cases=[*taken, *_refused()],
    )


# --- taken ------------------------------------------------------------------------------------------------


def _spoken(kind: str, by: str, /, **fields: Any) -> Fields:
    everywhere = {"type": kind, "commons": COMMONS, "by": peer(by), "id": id_at(TIME_MS, kind)}
    return {**everywhere, "expires": TIME_MS + 300_000, **fields}


def _founding(**fields: Any) -> Fields:
    founding = _spoken(
        "found",
        "anna",
        ledger=peer("ledger"),
        name="Wörgl, Tirol",
        currency={"code": "WRG", "scale": 6},
        policy=POLICY,
        stewards=[peer(name) for name in STEWARDS],
        threshold=2,
    )
    del founding["commons"]
    return {**founding, **fields}


def _pay(**fields: Any) -> Fields:
    return {**_spoken("pay", "anna", legs=[[peer("ben"), 50_000]]), **fields}


Example = tuple[str, Fields, Sequence[str], Memo | None]


def _examples() -> Iterator[Example]:
    yield "found, by two of three stewards", _founding(), ("anna", "ben"), None
    yield "found, with a memo", _founding(memo=MEMO.seal()), STEWARDS, MEMO
    yield "join", _spoken("join", "dora", handle="dora_1"), ("dora",), None
    yield "join, with a memo about oneself", _spoken("join", "dora", handle="dora", memo=MEMO.seal()), ("dora",), MEMO
    yield "admit", _spoken("admit", "anna", peer=peer("dora")), ("anna", "carla"), None
    yield "suspend", _spoken("suspend", "anna", peer=peer("dora")), STEWARDS, None
    yield "leave", _spoken("leave", "dora"), ("dora",), None
    added = [peer("dora's phone"), peer("dora's tablet")]
    signing = ("dora", "dora's phone", "dora's tablet")
    yield "keys, two added, in no order", _spoken("keys", "dora", add=sorted(added, reverse=True)), signing, None
    yield "keys, one revoked", _spoken("keys", "dora", revoke=added[:1]), ("dora",), None
    both = _spoken("keys", "dora", add=added[1:], revoke=[peer("dora")])
    yield "keys, the root key gives way", both, ("dora", "dora's tablet"), None
    yield "policy", _spoken("policy", "anna", policy={**POLICY, "rest_ticks": 0}, from_tick=20_500), STEWARDS, None
    fewer = _spoken("stewards", "anna", stewards=[peer("dora")], threshold=1)
    yield "stewards", fewer, ("anna", "ben", "dora"), None
    yield "erase", _spoken("erase", "anna", statement=id_at(TIME_MS, "pay")), ("anna",), None
    yield "issue", _spoken("issue", "anna", to=peer("dora"), amount=10**15), ("anna", "ben"), None
    yield "retire", _spoken("retire", "dora", amount=1), ("dora",), None
    yield "retire, balancing", _spoken("retire", "dora", amount=10**15, balancing=True), ("dora",), None
    yield "pay", _pay(), ("anna",), None
    full = _pay(ref=drawn("ref", 16), category="lift", balancing=True, memo=MEMO.seal())
    yield "pay, with every field", full, ("anna",), MEMO
    yield "pay, its memo's text stays with its author", full, ("anna",), None
    legs = [[peer(name), 1 + number] for number, name in enumerate(("carla", "ben", "dora"))]
    yield "pay, three legs in no order", _pay(legs=legs), ("anna",), None
    yield "pay, signed by strangers too", _pay(), ("anna", "stranger 1", "stranger 2"), None
    yield "pay, that expires at the time of its id", _pay(expires=TIME_MS), ("anna",), None
    yield "pay, that expires after seven days", _pay(expires=TIME_MS + 604_800_000), ("anna",), None
    empty = Memo(drawn("another salt", 16), "")
    yield "pay, with an empty memo", _pay(memo=empty.seal()), ("anna",), empty
    longest = Memo(drawn("a third salt", 16), "x" * 998 + "ß🍰")
    yield "pay, with a memo of 1,000 characters", _pay(memo=longest.seal()), ("anna",), longest
    yield "grant", _spoken("grant", "anna", legs=legs), ("anna", "ben"), None
    yield "share", _spoken("share", "anna", amount=1_000_000), ("anna", "ben"), None
    yield from _holding()
    yield from _giving()
    accounts = sorted(peer(name) for name in ("anna", "ben", "dora"))
    yield "sweep, by the ledger", _spoken("sweep", "ledger", accounts=accounts), ("ledger",), None
    payout = _spoken("payout", "ledger", share=id_at(TIME_MS, "share"), members=accounts)
    yield "payout, by the ledger", payout, ("ledger",), None


def _gift(**fields: Any) -> Fields:
    return {**_spoken("gift", "anna", to=peer("ben"), kind="hour", quantity=150), **fields}


def _vouch(**fields: Any) -> Fields:
    return {**_spoken("vouch", "anna", limit=1_000_000, **{"for": peer("ben")}), **fields}


def _kind(**fields: Any) -> Fields:
    return {**_spoken("kind", "anna", code="bread", name="Brot, ganze Laibe", unit="1", scale=0), **fields}


def _hold(**fields: Any) -> Fields:
    return {**_spoken("hold", "anna", to=peer("ben"), amount=50_000, until=TIME_MS + 3_600_000), **fields}


def _capture(**fields: Any) -> Fields:
    return {**_spoken("capture", "ben", hold=id_at(TIME_MS, "hold"), amount=40_000), **fields}


def _holding() -> Iterator[Example]:
    yield "hold", _hold(), ("anna",), None
    full = _hold(amount=10**15, until=2**63 - 1, category="lift", memo=MEMO.seal())
    yield "hold, with every field, until the end of time", full, ("anna",), MEMO
    yield "capture", _capture(), ("ben",), None
    yield "capture of nothing", _capture(amount=0), ("ben",), None
    yield "void", _spoken("void", "ben", hold=id_at(TIME_MS, "hold")), ("ben",), None
    yield "lapse, by the ledger", _spoken("lapse", "ledger", of=id_at(TIME_MS, "hold")), ("ledger",), None
    yield (
        "rekey, by the ledger's key and the one that comes",
        _spoken("rekey", "ledger", ledger=peer("the next ledger")),
        ("ledger", "the next ledger"),
        None,
    )


def _giving() -> Iterator[Example]:
    yield "kind", _kind(), ("anna", "ben"), None
    yield "kind, with decimals and a longer unit", _kind(code="milk-3", unit="dL.wk-1", scale=6), ("anna", "ben"), None
    yield "gift", _gift(), ("anna",), None
    yield "gift, to the whole commons", _gift(to="pool", quantity=10**15), ("anna",), None
    after = [id_at(TIME_MS, name) for name in ("a later gift", "a gift")]
    full = _gift(after=after, category="lift", memo=MEMO.seal())
    yield "gift, with every field; what moved it stands in no order", full, ("anna",), MEMO
    gift = id_at(TIME_MS, "gift")
    yield "thank", _spoken("thank", "ben", gift=gift), ("ben",), None
    yield "thank, by the stewards for all", _spoken("thank", "anna", gift=gift), ("anna", "ben"), None
    yield "decline", _spoken("decline", "ben", gift=gift), ("ben",), None
    yield "withdraw", _spoken("withdraw", "anna", gift=gift), ("anna",), None
    yield "vouch", _vouch(limit=10**15), ("anna",), None
    yield "vouch, taken back", _vouch(limit=0), ("anna",), None
    yield "writeoff", _spoken("writeoff", "anna", peer=peer("dora")), ("anna", "ben"), None


def _taken(name: str, fields: Fields, signers: Sequence[str], memo: Memo | None) -> Case:
    body = write_body(fields)
    envelope = sealed(body, signers, memo)
    assert _refusal_of(envelope) is None, name
    signatures = [
        {"seed": seed_of(who).hex(), "key": peer(who).hex(), "signature": signer_of(who).sign(to_sign(body)).hex()}
        for who in sorted(signers, key=peer)
    ]
    case: Case = {"name": name, "kind": "taken", "type": fields["type"], "fields": written(fields), "body": body.hex()}
    if fields["type"] == "found":
        case["commons"] = commons_of(body).hex()
    case |= {"signed": to_sign(body).hex(), "signatures": signatures, "envelope": envelope.hex()}
    if memo is not None:
        text = memo.text.encode()
        assert memo.seal() == hashlib.sha256(MEMO_PREFIX + memo.salt + text).digest()
        case["memo"] = {"salt": memo.salt.hex(), "text": memo.text, "seal": memo.seal().hex()}
    return case


def to_sign(body: bytes) -> bytes:
    """Give the bytes that are signed for a body."""
    return STATEMENT_PREFIX + body


def sealed(body: bytes, signers: Sequence[str], memo: Memo | None = None) -> bytes:
    """Give a packed envelope, signed by the named and with the memo's text beside it."""
    pairs = [[peer(who), signer_of(who).sign(to_sign(body))] for who in sorted(signers, key=peer)]
    return canonical.pack([body, pairs, *([[memo.salt, memo.text]] if memo is not None else [])])


def _refusal_of(envelope: bytes) -> str | None:
    """Give the code with which an envelope is refused before any book is looked at, None if it is not."""
    try:
        read = read_envelope(canonical.unpack(envelope))
        read_statement(read)
        verify_envelope(read)
    except Rejected as rejected:
        return rejected.refusal.code
    return None


# --- refused ----------------------------------------------------------------------------------------------


def _refused() -> Iterator[Case]:
    for makers, code in (
        (
            (
                _wrong_fields,
                _wrong_ids,
                _wrong_keys,
                _wrong_money,
                _wrong_holding,
                _wrong_founding,
                _wrong_giving,
                _wrong_rest,
            ),
            "malformed",
        ),
        ((_uncanonical,), "not-canonical"),
    ):
        for make in makers:
            for name, body, why in make():
                data = body if isinstance(body, bytes) else canonical.pack(body)
                yield _refused_case(name, sealed(data, ("anna",)), code, why)
    for name, envelope, code, why in (*_wrong_envelopes(), *_wrong_signatures(), *_wrong_memos(), *_orders()):
        yield _refused_case(name, envelope, code, why)


def _refused_case(name: str, envelope: bytes, code: str, why: str) -> Case:
    answer = _refusal_of(envelope)
    assert answer == code, f"{name}: {answer} instead of {code}"
    return {"name": f"refused: {name}", "kind": "refused", "envelope": envelope.hex(), "code": code, "why": why}


Wrong = Iterator[tuple[str, Fields | bytes | list[Any] | int, str]]


def _without(fields: Fields, *names: str) -> Fields:
    return {name: value for name, value in fields.items() if name not in names}


def _wrong_fields() -> Wrong:
    for name in _pay():
        yield f"pay without {name}", _without(_pay(), name), "a field is missing"
    for name in ("ledger", "name", "currency", "policy", "stewards", "threshold"):
        yield f"found without {name}", _without(_founding(), name), "a field is missing"
    yield "a body that is an array", [1], "a body is a map"
    yield "a body that is an int", 1, "a body is a map"
    yield "an empty body", {}, "a field is missing"
    yield "a type nobody knows", _pay(type="steal"), "no such type"
    yield "a type in capitals", _pay(type="Pay"), "no such type"
    yield "a type that is bin", _pay(type=b"pay"), "a type is str"
    yield "a field nobody knows", _pay(tip=1), "an unknown field"
    yield "a field of another type of statement", _pay(amount=1), "an unknown field"
    yield "found that names a commons", _founding(commons=COMMONS), "found has no such field"
    yield "a category on a retire", _spoken("retire", "anna", amount=1, category="lift"), "not on this type"
    for name in ("ref", "memo", "category", "balancing"):
        yield f"{name} that is nil", _pay(**{name: None}), "an optional field that has no value is absent"
    yield "balancing that is false", _pay(balancing=False), "present only as true"
    yield "balancing that is 1", _pay(balancing=1), "present only as true"
    yield "a category in capitals", _pay(category="Lift"), "out of range"
    yield "a category of 33 characters", _pay(category="a" * 33), "out of range"
    yield "a seal of 31 bytes", _pay(memo=bytes(31)), "a seal has 32 bytes"
    yield "a memo's text in the body", _pay(memo="thanks"), "the body carries the seal, not the text"
    yield "a ref of 15 bytes", _pay(ref=bytes(15)), "a ref has 16 bytes"
    yield "a ref that is str", _pay(ref="0" * 16), "a ref is bin"


def _wrong_ids() -> Wrong:
    good = _pay()["id"]
    yield "an id of version 4", _pay(id=good[:6] + b"\x41" + good[7:]), "an id is a UUIDv7"
    yield "an id of another variant", _pay(id=good[:8] + b"\x01" + good[9:]), "an id is a UUIDv7"
    yield "an id of 15 bytes", _pay(id=good[:15]), "an id has 16 bytes"
    yield "an id as text", _pay(id="0194211e-6400-7000-8000-000000000000"), "an id is bin"
    yield "expires before the time inside the id", _pay(expires=TIME_MS - 1), "after the time inside id"
    yield "expires eight days after", _pay(expires=TIME_MS + 604_800_001), "by at most 7 days"
    yield "expires in seconds", _pay(expires=TIME_MS // 1_000), "times are milliseconds"
    yield "expires that is negative", _pay(expires=-1), "out of range"
    yield "expires that is str", _pay(expires=str(TIME_MS)), "a time is an int"
    yield "a commons of 15 bytes", _pay(commons=bytes(15)), "a commons has 16 bytes"
    yield "a commons in hex", _pay(commons="00" * 16), "a commons is bin"
    yield "by of 31 bytes", _pay(by=bytes(31)), "a peer has 32 bytes"
    yield "by that is a reserved holder", _pay(by="pool"), "reserved holders do not speak"


def _wrong_keys() -> Wrong:
    small = ed25519_edges.small_order_encodings()[1]
    torsion = ed25519_edges.encode(ed25519_edges.add(ed25519_edges.BASE, ed25519_edges.TORSION[1]))
    for name, key in (("of small order", small), ("with torsion", torsion), ("that is no point", b"\x02" + bytes(31))):
        why = "a key is taken into use only if it is a point of prime order"
        yield f"join by a key {name}", {**_spoken("join", "anna", handle="anna"), "by": key}, why
        yield f"keys that adds a key {name}", _spoken("keys", "anna", add=[key]), why
        yield f"a steward's key {name}", _spoken("stewards", "anna", stewards=[key], threshold=1), why
        yield f"found with a steward's key {name}", _founding(stewards=[key], threshold=1), why
    yield "keys that changes nothing", _spoken("keys", "anna"), "at least one key"
    yield "keys with an empty list", _spoken("keys", "anna", add=[]), "empty lists are malformed"
    twice = [peer("phone"), peer("phone")]
    yield "keys that adds one key twice", _spoken("keys", "anna", add=twice), "each key once"
    yield "keys that revokes one key twice", _spoken("keys", "anna", revoke=twice), "each key once"
    for handle in ("", "a", "Anna", "pool", "issuer", "escrow", "a" * 32, "an na", "änna", "1a"):
        yield f"join as {handle!r}", _spoken("join", "anna", handle=handle), "no handle"


def _wrong_money() -> Wrong:
    ben, carla = peer("ben"), peer("carla")
    for name, amount in (("zero", 0), ("negative", -1), ("beyond 10^15", 10**15 + 1), ("2^63-1", 2**63 - 1)):
        why = "an amount is from 1 to 10^15"
        yield f"pay, an amount that is {name}", _pay(legs=[[ben, amount]]), why
        yield f"issue, an amount that is {name}", _spoken("issue", "anna", to=ben, amount=amount), why
        yield f"retire, an amount that is {name}", _spoken("retire", "anna", amount=amount), why
        yield f"share, an amount that is {name}", _spoken("share", "anna", amount=amount), why
    for name, wrong in (("str", "50000"), ("bool", True), ("nil", None), ("bin", b"\x01"), ("an array", [1])):
        yield f"pay, an amount that is {name}", _pay(legs=[[ben, wrong]]), "an amount is an int"
    yield "pay, a total beyond 10^15", _pay(legs=[[ben, 10**15], [carla, 1]]), "totals are at most 10^15"
    yield "grant, a total beyond 10^15", _spoken("grant", "anna", legs=[[ben, 10**15], [carla, 1]]), "the same"
    yield "pay with an empty list of legs", _pay(legs=[]), "1 to 256 legs"
    yield "pay, one payee twice", _pay(legs=[[ben, 1], [ben, 2]]), "distinct payees"
    yield "pay to oneself", _pay(legs=[[peer("anna"), 1]]), "a payee is never by"
    yield "pay to oneself among others", _pay(legs=[[ben, 1], [peer("anna"), 1]]), "a payee is never by"
    yield "grant to oneself", _spoken("grant", "anna", legs=[[peer("anna"), 1]]), "a payee is never by"
    yield "issue to oneself", _spoken("issue", "anna", to=peer("anna"), amount=1), "to is never by"
    yield "pay to the pool", _pay(legs=[["pool", 1]]), "a payee is a peer"
    yield "pay, a leg of three", _pay(legs=[[ben, 1, 1]]), "a leg is [to, amount]"
    yield "pay, a leg that is a map", _pay(legs=[{"to": ben, "amount": 1}]), "a leg is [to, amount]"
    yield "pay, balancing with two legs", _pay(legs=[[ben, 1], [carla, 1]], balancing=True), "one leg only"


def _wrong_holding() -> Wrong:
    yield "hold for oneself", _hold(to=peer("anna")), "to is never by"
    yield "hold for the pool", _hold(to="pool"), "a payee is a peer"
    yield "hold of nothing", _hold(amount=0), "an amount is from 1 to 10^15"
    yield "hold without until", _without(_hold(), "until"), "a field is missing"
    yield "hold until before time", _hold(until=-1), "a time is not negative"
    yield "capture of less than nothing", _capture(amount=-1), "0 to 10^15"
    yield "capture beyond 10^15", _capture(amount=10**15 + 1), "0 to 10^15"
    yield "capture without amount", _without(_capture(), "amount"), "a field is missing"
    yield "void with an amount", _spoken("void", "ben", hold=id_at(TIME_MS, "hold"), amount=1), "an unknown field"
    yield "lapse that names a hold", _spoken("lapse", "ledger", hold=id_at(TIME_MS, "hold")), "its field is of"
    yield "rekey to the same key", _spoken("rekey", "ledger", ledger=peer("ledger")), "the new key is another one"


def _wrong_founding() -> Wrong:
    def found(**policy: Any) -> Fields:
        return _founding(policy={**POLICY, **policy})

    yield "a policy without rest_ticks", _founding(policy=_without(POLICY, "rest_ticks")), "a field is missing"
    yield "a policy with a field nobody knows", found(tax=1), "an unknown field"
    for name, low, high in (
        ("tick_seconds", 3_600, 31_536_000),
        ("rest_ticks", 0, 366),
        ("credit_limit", 0, 10**15),
        ("vouch_min", 1, 10**15),
        ("notice_ticks", 0, 1_000),
    ):
        yield f"a policy, {name} {low - 1}", found(**{name: low - 1}), "out of range"
        yield f"a policy, {name} {high + 1}", found(**{name: high + 1}), "out of range"
    for name in ("melt_to", "admission", "visibility"):
        yield f"a policy, {name} that nobody knows", found(**{name: "escrow"}), "not one of those allowed"
    yield "a policy, credit where anybody may join", found(admission="open"), "anybody could mint"
    for name, brackets in (
        ("none", []),
        ("17", [[n, 1] for n in range(17)]),
        ("the first not from 0", [[1, 1]]),
        ("two from the same amount", [[0, 1], [5, 1], [5, 2]]),
        ("descending", [[0, 1], [9, 1], [5, 1]]),
        ("more than all of it", [[0, 10**9 + 1]]),
        ("a negative fee", [[0, -1]]),
        ("beyond 10^15", [[0, 1], [10**15 + 1, 2]]),
        ("three numbers", [[0, 1, 2]]),
    ):
        yield f"a policy, brackets: {name}", found(brackets=brackets), "1 to 16 of [from, ppb], ascending from 0"
    for name, currency in (
        ("in small letters", {"code": "wrg", "scale": 6}),
        ("of one letter", {"code": "W", "scale": 6}),
        ("scale 10", {"code": "WRG", "scale": 10}),
        ("scale -1", {"code": "WRG", "scale": -1}),
        ("without scale", {"code": "WRG"}),
        ("with more", {"code": "WRG", "scale": 6, "sign": "W"}),
    ):
        yield f"a currency {name}", _founding(currency=currency), "{code, scale} of [A-Z][A-Z0-9]{1,9} and 0 to 9"
    stewards = [peer(name) for name in STEWARDS]
    yield "stewards descending", _founding(stewards=stewards[::-1]), "ascending, each once"
    yield "a steward twice", _founding(stewards=[stewards[0], stewards[0]]), "ascending, each once"
    yield "no stewards", _founding(stewards=[], threshold=1), "1 to 16"
    yield "a threshold of none", _founding(threshold=0), "at least one steward"
    yield "a threshold above the number of stewards", _founding(threshold=4), "at most the number of stewards"
    yield "a commons without a name", _founding(name=""), "1 to 64 characters"
    yield "a commons with a name of 65 characters", _founding(name="x" * 65), "1 to 64 characters"
    yield "a commons with a line in its name", _founding(name="a\nb"), "no control characters"


def _wrong_giving() -> Wrong:
    ids = [id_at(TIME_MS, f"gift {n}") for n in range(17)]
    for code in ("h", "Hour", "1a", "a_b", "a" * 33):
        yield f"kind called {code!r}", _kind(code=code), "[a-z][a-z0-9-]{1,31}"
        yield f"gift of kind {code!r}", _gift(kind=code), "[a-z][a-z0-9-]{1,31}"
    for name, unit in (("empty", ""), ("with a space", "kg m"), ("that is not ASCII", "°C"), ("too long", "m" * 33)):
        yield f"kind, a unit {name}", _kind(unit=unit), "1 to 32 printable ASCII characters, no space"
    for scale in (-1, 7):
        yield f"kind, scale {scale}", _kind(scale=scale), "0 to 6"
    for name, quantity in (("zero", 0), ("negative", -1), ("beyond 10^15", 10**15 + 1)):
        yield f"gift, a quantity that is {name}", _gift(quantity=quantity), "a quantity is from 1 to 10^15"
    yield "gift to oneself", _gift(to=peer("anna")), "to is never by"
    yield "gift to the issuer", _gift(to="issuer"), "to is a peer or the pool"
    yield "gift to the pool as bin", _gift(to=b"pool"), "a reserved holder is str"
    yield "gift after nothing", _gift(after=[]), "empty lists are malformed"
    yield "gift after one gift twice", _gift(after=[ids[0], ids[0]]), "distinct"
    yield "gift after 17", _gift(after=ids), "at most 16"
    yield "gift without kind", _without(_gift(), "kind"), "a field is missing"
    yield "gift with an amount of money", _gift(amount=1), "an unknown field: a gift has no price"
    yield "thank for a gift by its text", _spoken("thank", "ben", gift="x"), "an id is bin of 16 bytes"
    yield "vouch for oneself", _vouch(**{"for": peer("anna")}), "for is never by"
    yield "vouch for the pool", _vouch(**{"for": "pool"}), "for is a peer"
    yield "vouch, a negative limit", _vouch(limit=-1), "0 to 10^15"
    yield "vouch, a limit beyond 10^15", _vouch(limit=10**15 + 1), "0 to 10^15"
    yield "vouch without for", _without(_vouch(), "for"), "a field is missing"
    yield "writeoff with an amount", _spoken("writeoff", "anna", peer=peer("dora"), amount=1), "an unknown field"


def _wrong_rest() -> Wrong:
    yield "sweep of nobody", _spoken("sweep", "ledger", accounts=[]), "1 to 400"
    pair = sorted((peer("anna"), peer("ben")), reverse=True)
    yield "sweep descending", _spoken("sweep", "ledger", accounts=pair), "ascending, each once"
    share = id_at(TIME_MS, "share")
    yield "payout to nobody", _spoken("payout", "ledger", share=share, members=[]), "1 to 300"
    yield "payout descending", _spoken("payout", "ledger", share=share, members=pair), "ascending, each once"
    yield "policy from a negative tick", _spoken("policy", "anna", policy=POLICY, from_tick=-1), "out of range"
    yield "admit of a handle", _spoken("admit", "anna", peer="dora"), "a peer is bin of 32 bytes"
    yield "erase of a text", _spoken("erase", "anna", statement="x"), "an id is bin of 16 bytes"


def _uncanonical() -> Wrong:
    body = write_body(_pay())
    yield "a body with something after it", body + b"\xc0", "nothing follows the value"
    yield "a body cut short", body[:-1], "the value does not end"
    yield "an empty body of no bytes", b"", "there is no value"
    unordered = b"\x82" + canonical.pack("type") + canonical.pack("pay") + canonical.pack("by") + canonical.pack(b"")
    yield "a body with its keys out of order", unordered, "map keys ascend"
    long_int = body.replace(canonical.pack(50_000), b"\xce" + (50_000).to_bytes(4, "big"))
    yield "a body with an int in a longer form", long_int, "a shorter form holds it"
    floating = body.replace(canonical.pack(50_000), b"\xcb\x40\xe8\x6a\x00\x00\x00\x00\x00")
    yield "a body with an amount that is a float", floating, "there are no floats"
    assert len({body, long_int, floating}) == 3


Envelopes = Iterator[tuple[str, bytes, str, str]]


def _wrong_envelopes() -> Envelopes:
    body = write_body(_pay())
    key, signature = peer("anna"), signer_of("anna").sign(to_sign(body))
    pair, code = [key, signature], "malformed"
    two = sorted([pair, [peer("ben"), signer_of("ben").sign(to_sign(body))]])
    many = [[peer(f"signer {n}"), signer_of(f"signer {n}").sign(to_sign(body))] for n in range(16)]
    for name, envelope, why in (
        ("an envelope that is a map", {"body": body, "signatures": [pair]}, "an envelope is an array"),
        ("an envelope of one", [body], "an envelope is [body, signatures] or with a memo"),
        ("an envelope of four", [body, [pair], [bytes(16), ""], 1], "the same"),
        ("a body that is str", ["body", [pair]], "a body is bin"),
        ("a body that is not packed", [_pay(), [pair]], "a body is bin"),
        ("no signatures", [body, []], "1 to 16 signatures"),
        ("17 signatures", [body, sorted([pair, *many])], "1 to 16 signatures"),
        ("signatures descending", [body, two[::-1]], "keys ascend"),
        ("one signature twice", [body, [pair, pair]], "keys are unique"),
        ("a key of 31 bytes", [body, [[key[:31], signature]]], "a key has 32 bytes"),
        ("a signature of 63 bytes", [body, [[key, signature[:63]]]], "a signature has 64 bytes"),
        ("a signature that is str", [body, [[key, "s" * 64]]], "a signature is bin"),
        ("a pair of three", [body, [[key, signature, 1]]], "a signature is [key, signature]"),
        ("a memo that is nil", [body, [pair], None], "an optional part is absent, never nil"),
        ("a memo that is str", [body, [pair], "thanks"], "a memo is [salt, text]"),
        ("a memo without salt", [body, [pair], ["thanks"]], "a memo is [salt, text]"),
    ):
        yield name, canonical.pack(envelope), code, why


def _wrong_signatures() -> Envelopes:
    body, code = write_body(_pay()), "bad-signature"
    key, good = peer("anna"), signer_of("anna").sign(to_sign(body))

    def signed(*pairs: list[bytes]) -> bytes:
        return canonical.pack([body, sorted(pairs)])

    yield "a signature with one bit turned", signed([key, good[:-1] + bytes([good[-1] ^ 0x10])]), code, "it is not hers"
    yield (
        "a signature of the body without the prefix",
        signed([key, signer_of("anna").sign(body)]),
        code,
        "what is signed",
    )
    hashed = signer_of("anna").sign(hashlib.sha256(to_sign(body)).digest())
    yield "a signature of a hash", signed([key, hashed]), code, "Ed25519 is used pure"
    other = signer_of("anna").sign(to_sign(write_body(_pay(expires=TIME_MS))))
    yield "a signature of another body", signed([key, other]), code, "what is signed"
    yield "somebody else's signature", signed([peer("ben"), good]), code, "it is another key's"
    yield (
        "a good signature beside a bad one",
        signed([key, good], [peer("ben"), good]),
        code,
        "every signature must hold",
    )
    s_beyond = int.from_bytes(good[32:], "little") + ed25519_edges.L
    yield "S not below L", signed([key, good[:32] + s_beyond.to_bytes(32, "little")]), code, "rule (c) of §2"
    small = ed25519_edges.small_order_encodings()
    yield (
        "a stranger's key of small order",
        signed([key, good], [small[0], small[0] + bytes(32)]),
        code,
        "rule (b) of §2",
    )


def _wrong_memos() -> Envelopes:
    bare, code = write_body(_pay()), "malformed"
    yield "a memo for a body that has no seal", sealed(bare, ("anna",), MEMO), code, "there is nothing that it fits"
    body = write_body(_pay(memo=MEMO.seal()))
    for name, memo in (
        ("a memo with another text", Memo(MEMO.salt, MEMO.text + ".")),
        ("a memo with another salt", Memo(drawn("wrong salt", 16), MEMO.text)),
        ("a memo in another normal form", Memo(MEMO.salt, MEMO.text.replace("ü", "u\u0308"))),
    ):
        yield name, sealed(body, ("anna",), memo), code, "it does not fit its seal"
    for name, memo, why in (
        ("a memo of 1,001 characters", Memo(MEMO.salt, "x" * 1_001), "at most 1,000"),
        ("a memo with a null", Memo(MEMO.salt, "a\x00b"), "no control characters but newline and tab"),
        ("a memo with a carriage return", Memo(MEMO.salt, "a\r\nb"), "no control characters but newline and tab"),
        ("a memo with a control character of Latin-1", Memo(MEMO.salt, "a\x85b"), "the same"),
        ("a memo with a salt of 15 bytes", Memo(MEMO.salt[:15], "a"), "a salt has 16 bytes"),
    ):
        yield name, sealed(write_body(_pay(memo=memo.seal())), ("anna",), memo), code, why


def _orders() -> Envelopes:
    """Two things wrong at once: the order of checks of §3 decides which is named."""
    too_large = bytes(16_385)
    yield "too large and not canonical", sealed(too_large, ("anna",)), "too-large", "size comes first"
    long_int = write_body(_pay()).replace(canonical.pack(50_000), b"\xce" + (50_000).to_bytes(4, "big"))
    key, zeros = peer("anna"), bytes(64)
    yield "not canonical and badly signed", canonical.pack([long_int, [[key, zeros]]]), "not-canonical", "form is next"
    malformed = write_body(_pay(tip=1))
    yield "malformed and badly signed", canonical.pack([malformed, [[key, zeros]]]), "malformed", "then the schema"
    body = write_body(_pay(memo=MEMO.seal()))
    memo = [MEMO.salt, "another"]
    yield "unsealed and badly signed", canonical.pack([body, [[key, zeros]], memo]), "malformed", "a memo is schema too"

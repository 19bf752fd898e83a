"""The order of checks (SPEC §3), type by type: a statement with every fault gets the first code, mended the next.

Each table begins with a statement that is wrong in every way the type allows. Each row mends one fault and names the
refusal that now speaks, with a word of its detail where two checks share a code. `Twin` holds every row to the plain
model as well.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, Replay, decide
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import uuid7
from gesell_protocol.refusals import Refusal
from tests.histories import HOUR_MS, LEDGER, POLICY, START_MS, Twin, key, keys_of, snapshot, stamp, submission
from tests.plain_model import PlainLedger, Refused

ANNA, BEN, CARL, DORA = key("anna"), key("ben"), key("carl"), key("dora")
EMIL, FAY, GUS, STRANGER = key("emil"), key("fay"), key("gus"), key("stranger")
PHONE, TABLET, SPARE = key("phone"), key("tablet"), key("spare")
DEVICES = keys_of(*(f"device {n}" for n in range(7)))
FIRST, SECOND = keys_of("steward", "second")
BOTH = (FIRST, SECOND)
MEMO = Memo(b"salt" * 4, "between us")
ANNAS_BARE, ANNAS_SEALED, BENS_BARE, SHARE = (uuid7(START_MS, bytes([n]) * 10) for n in range(1, 5))
FOR_ANNA, ANNA_HAS, FOR_BEN, FOR_ALL = (uuid7(START_MS, bytes([n]) * 10) for n in range(5, 9))
OPEN, OVERDUE, ENDED = (uuid7(START_MS, bytes([n]) * 10) for n in range(9, 12))
NO_GIFT = NO_HOLD = b"no such thing id"

UNTIL = START_MS + 27 * HOUR_MS

Row = tuple[str, str, dict[str, Any], tuple[bytes, ...]]


def world() -> Twin:
    """A commons where everything can go wrong.

    Anna (100 grains), Ben (nearly 10^18, with a phone and a tablet), Emil (in debt) and Gus (8 keys) are active, Carl
    is suspended, Dora asks for Emil's handle, Fay has left. The pool holds 62. Gus offers Anna two gifts, one of which
    she has, one to Ben, one to all. He vouches for Emil with 10, and Emil needs them. Ben holds 5 for Anna, 5 more that
    are overdue, and 5 that she let go.
    """
    rules: dict[str, Any] = {"admission": "steward", "credit_limit": 50, "notice_ticks": 2, "vouch_min": 5}
    twin = Twin(stewards=("steward", "second"), threshold=2, **rules)
    handles = {ANNA: "ann", BEN: "ben", CARL: "carl", DORA: "queen", EMIL: "queen", FAY: "fay", GUS: "gus"}
    for peer, handle in handles.items():
        twin.done("join", peer, handle=handle)
        if peer != DORA:
            twin.done("admit", FIRST, signers=BOTH, peer=peer)
    twin.done("leave", FAY)
    for name in (OVERDUE, ENDED):
        twin.done("hold", BEN, to=ANNA, amount=5, until=twin.now_ms + HOUR_MS, id=name)
    twin.done("void", ANNA, hold=ENDED)
    twin.pass_ticks(25)
    twin.done("hold", BEN, to=ANNA, amount=5, until=UNTIL, id=OPEN)
    twin.done("keys", BEN, signers=(BEN, PHONE), add=[PHONE])
    twin.done("keys", BEN, signers=(BEN, TABLET), add=[TABLET])
    twin.done("keys", GUS, signers=(GUS, *DEVICES), add=DEVICES)
    twin.done("issue", FIRST, signers=BOTH, to=ANNA, amount=100)
    twin.done("issue", FIRST, signers=BOTH, to=CARL, amount=3_000)
    twin.pass_ticks(1)
    expires = {"expires": twin.now_ms + 1}
    twin.done("sweep", LEDGER, accounts=[CARL])
    twin.done("pay", EMIL, legs=[[ANNA, 2]])
    twin.done("pay", ANNA, legs=[[CARL, 1]], id=ANNAS_BARE, **expires)
    twin.done("pay", ANNA, legs=[[CARL, 1]], id=ANNAS_SEALED, memo=MEMO, **expires)
    twin.done("pay", EMIL, legs=[[CARL, 1]], id=BENS_BARE, **expires)
    twin.done("suspend", FIRST, signers=BOTH, peer=CARL)
    for name, to in ((FOR_ANNA, ANNA), (ANNA_HAS, ANNA), (FOR_BEN, BEN), (FOR_ALL, "pool")):
        twin.done("gift", GUS, to=to, kind="hour", quantity=5, id=name, **expires)
    twin.done("thank", ANNA, gift=ANNA_HAS)
    twin.done("vouch", GUS, limit=10, **{"for": EMIL})
    twin.endow(EMIL, -50)
    # Fay's debt gives Ben his fortune without taking the issuer to its own limit.
    twin.endow(FAY, -6 * 10**17)
    twin.endow(BEN, 10**18 - 5)
    return twin


OPEN_POLICY = {**POLICY, "admission": "open", "notice_ticks": 2}
NEW_POLICY = {**POLICY, "admission": "steward", "credit_limit": 50, "notice_ticks": 2}
TICK = START_MS // HOUR_MS + 26
MUCH = 10**15

LOAVES: dict[str, Any] = {"code": "loaves", "name": "Loaves of bread", "unit": "1", "scale": 0}
LOAF: dict[str, Any] = {"kind": "loaves", "quantity": MUCH}
#: The faults of `thank` and `decline`, which ask the same.
ANSWERS: list[Row] = [
    ("not-authorised", "no key", {"by": FAY, "gift": NO_GIFT}, (ANNA,)),
    ("unknown-member", "who speaks", {}, (FAY,)),
    ("not-active", "pending", {"by": DORA}, (DORA,)),
    ("not-found", "", {"by": CARL}, (CARL,)),
    ("not-authorised", "somebody else", {"gift": ANNA_HAS}, (CARL,)),
    ("not-authorised", "stewards", {"gift": FOR_ALL}, (CARL,)),
    ("not-found", "", {"by": FIRST, "gift": NO_GIFT}, (FIRST,)),
    ("not-authorised", "stewards", {"gift": FOR_ALL}, (FIRST,)),
    ("not-authorised", "somebody else", {"gift": FOR_ANNA}, BOTH),
    ("wrong-state", "received", {"by": ANNA, "gift": ANNA_HAS}, (ANNA,)),
]

TABLES: dict[str, list[Row]] = {
    "join": [
        ("not-authorised", "", {"by": ANNA, "handle": "queen"}, (BEN,)),
        ("already-member", "", {}, (ANNA,)),
        ("not-authorised", "", {"by": PHONE}, (BEN,)),
        ("key-taken", "", {}, (PHONE,)),
        ("handle-taken", "old handle", {"by": FAY}, (FAY,)),
        ("handle-taken", "another member's", {"by": STRANGER}, (STRANGER,)),
        ("accepted", "", {"handle": "wanderer"}, (STRANGER,)),
    ],
    "admit": [
        ("not-authorised", "no key", {"by": ANNA, "peer": STRANGER}, BOTH),
        ("not-authorised", "takes a steward", {}, (ANNA, *BOTH)),
        ("not-authorised", "takes a steward", {"by": FIRST}, (ANNA, FIRST)),
        ("unknown-member", "", {}, BOTH),
        ("unknown-member", "", {"peer": FAY}, BOTH),
        ("wrong-state", "", {"peer": ANNA}, BOTH),
        ("handle-taken", "", {"peer": DORA}, BOTH),
        ("accepted", "", {"peer": CARL}, BOTH),
    ],
    "suspend": [
        ("not-authorised", "takes a steward", {"by": FIRST, "peer": FAY}, (FIRST,)),
        ("unknown-member", "", {}, BOTH),
        ("wrong-state", "", {"peer": CARL}, BOTH),
        ("accepted", "", {"peer": DORA}, BOTH),
    ],
    "leave": [
        ("not-authorised", "", {"by": FAY}, (ANNA,)),
        ("unknown-member", "", {}, (FAY,)),
        ("wrong-state", "owes", {"by": EMIL}, (EMIL,)),
        ("wrong-state", "hold", {"by": BEN}, (BEN,)),
        ("wrong-state", "hold", {"by": ANNA}, (ANNA,)),
        ("vouch-in-use", "", {"by": GUS}, (GUS,)),
        ("accepted", "", {"by": CARL}, (CARL,)),
    ],
    "keys": [
        ("not-authorised", "no key", {"by": FAY, "add": [ANNA], "revoke": [STRANGER, BEN]}, (ANNA,)),
        ("not-authorised", "added key", {}, (FAY,)),
        ("unknown-member", "", {}, (ANNA, FAY)),
        ("not-found", "", {"by": BEN}, (ANNA, PHONE)),
        ("not-authorised", "added after", {"revoke": [BEN]}, (ANNA, PHONE)),
        ("not-authorised", "added after", {"revoke": [PHONE]}, (ANNA, TABLET)),
        ("key-taken", "", {"revoke": [TABLET]}, (ANNA, PHONE)),
        ("key-taken", "", {"by": GUS, "revoke": None}, (ANNA, GUS)),
        ("limit-exceeded", "at most 8", {"add": [SPARE]}, (GUS, SPARE)),
        ("limit-exceeded", "last key", {"by": ANNA, "add": None, "revoke": [ANNA]}, (ANNA,)),
        ("accepted", "", {"add": [SPARE]}, (ANNA, SPARE)),
    ],
    "policy": [
        ("not-authorised", "", {"by": FIRST, "policy": {**OPEN_POLICY, "tick_seconds": 1}, "from_tick": 0}, (FIRST,)),
        ("malformed", "tick_seconds", {}, BOTH),
        ("malformed", "melt_to", {"policy": {**OPEN_POLICY, "melt_to": "issuer"}}, BOTH),
        # Replacing the founding policy by an open one would have made credit out of thin air.
        ("limit-exceeded", "earliest", {"policy": NEW_POLICY, "from_tick": TICK + 1}, BOTH),
        ("accepted", "", {"from_tick": TICK + 2}, BOTH),
    ],
    "stewards": [
        ("not-authorised", "takes a steward", {"by": FIRST, "stewards": [PHONE], "threshold": 1}, (FIRST, PHONE)),
        ("not-authorised", "new steward", {}, BOTH),
        ("key-taken", "", {}, (*BOTH, PHONE)),
        ("accepted", "", {"stewards": [STRANGER]}, (*BOTH, STRANGER)),
    ],
    "erase": [
        ("not-authorised", "no key", {"by": FAY, "statement": b"no such entry id"}, (ANNA,)),
        ("unknown-member", "", {}, (FAY,)),
        ("not-found", "", {"by": ANNA}, (ANNA,)),
        ("not-authorised", "author", {"statement": BENS_BARE}, (ANNA,)),
        ("not-authorised", "author", {"by": FIRST}, (FIRST,)),
        ("wrong-state", "", {"by": ANNA, "statement": ANNAS_BARE}, (ANNA,)),
        ("accepted", "", {"statement": ANNAS_SEALED}, (ANNA,)),
    ],
    "issue": [
        ("not-authorised", "no key", {"by": FIRST, "to": DORA, "amount": MUCH}, (SECOND,)),
        ("not-authorised", "takes a steward", {}, (FIRST,)),
        ("unknown-member", "", {}, BOTH),
        ("limit-exceeded", "", {"to": BEN}, BOTH),
        ("accepted", "", {"amount": 5}, BOTH),
    ],
    "retire": [
        ("not-authorised", "", {"by": FAY, "amount": MUCH}, (ANNA,)),
        ("unknown-member", "", {}, (FAY,)),
        ("not-active", "suspended", {"by": CARL}, (CARL,)),
        ("not-active", "pending", {"by": DORA}, (DORA,)),
        ("insufficient-funds", "", {"by": ANNA}, (ANNA,)),
        ("accepted", "", {"amount": 98 + 50}, (ANNA,)),
    ],
    "pay": [
        ("not-authorised", "", {"by": FAY, "legs": [[DORA, MUCH]]}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("unknown-member", "who speaks", {"by": STRANGER}, (STRANGER,)),
        ("not-active", "suspended", {"by": CARL}, (CARL,)),
        ("unknown-member", "payee", {"by": ANNA}, (ANNA,)),
        ("unknown-member", "payee", {"legs": [[CARL, 1], [FAY, MUCH - 1]]}, (ANNA,)),
        ("limit-exceeded", "", {"legs": [[BEN, MUCH]]}, (ANNA,)),
        ("insufficient-funds", "", {"legs": [[CARL, MUCH]]}, (ANNA,)),
        ("accepted", "", {"legs": [[CARL, 98 + 50]]}, (ANNA,)),
    ],
    "grant": [
        ("not-authorised", "takes a steward", {"by": FIRST, "legs": [[DORA, MUCH]]}, (FIRST,)),
        ("unknown-member", "payee", {}, BOTH),
        ("limit-exceeded", "", {"legs": [[BEN, MUCH]]}, BOTH),
        ("insufficient-funds", "", {"legs": [[ANNA, MUCH]]}, BOTH),
        ("accepted", "", {"legs": [[ANNA, 60]]}, BOTH),
    ],
    "share": [
        ("not-authorised", "takes a steward", {"by": FIRST, "amount": 3}, (FIRST,)),
        ("limit-exceeded", "nothing for each", {}, BOTH),
        ("insufficient-funds", "", {"amount": MUCH}, BOTH),
        ("accepted", "", {"amount": 60}, BOTH),
        ("wrong-state", "before", {"amount": 3}, BOTH),
    ],
    "kind": [
        ("not-authorised", "no key", {"by": FIRST, **LOAVES, "code": "hour"}, (SECOND,)),
        ("not-authorised", "takes a steward", {}, (FIRST,)),
        ("wrong-state", "already", {}, BOTH),
        ("accepted", "", LOAVES, BOTH),
    ],
    "gift": [
        ("not-authorised", "no key", {"by": FAY, "to": STRANGER, **LOAF, "after": [NO_GIFT, FOR_BEN]}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("not-active", "pending", {"by": DORA}, (DORA,)),
        ("not-active", "suspended", {"by": CARL}, (CARL,)),
        ("not-found", "kind", {"by": ANNA}, (ANNA,)),
        ("not-found", "after", {"kind": "hour"}, (ANNA,)),
        # Each of `after` in its order: what the first is refused for comes before any fault of the second.
        ("not-authorised", "somebody else", {"after": [FOR_BEN, FOR_ANNA]}, (ANNA,)),
        ("not-authorised", "somebody else", {"after": [FOR_ALL, FOR_ANNA]}, (ANNA,)),
        ("wrong-state", "not received", {"after": [FOR_ANNA, NO_GIFT]}, (ANNA,)),
        ("unknown-member", "receiver", {"after": [ANNA_HAS]}, (ANNA,)),
        ("unknown-member", "receiver", {"to": DORA}, (ANNA,)),
        ("accepted", "", {"to": CARL}, (ANNA,)),
    ],
    "thank": [
        *ANSWERS,
        ("accepted", "", {"by": ANNA, "gift": FOR_ANNA}, (ANNA,)),
        ("accepted", "", {"by": FIRST, "gift": FOR_ALL}, BOTH),
    ],
    "decline": [
        *ANSWERS,
        ("accepted", "", {"by": ANNA, "gift": FOR_ANNA}, (ANNA,)),
        ("accepted", "", {"by": FIRST, "gift": FOR_ALL}, BOTH),
    ],
    "withdraw": [
        ("not-authorised", "no key", {"by": FAY, "gift": NO_GIFT}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("unknown-member", "who speaks", {"by": FIRST}, BOTH),
        ("not-active", "pending", {"by": DORA}, (DORA,)),
        ("not-found", "", {"by": CARL}, (CARL,)),
        ("not-authorised", "giver", {"gift": ANNA_HAS}, (CARL,)),
        ("wrong-state", "received", {"by": GUS}, (GUS,)),
        ("accepted", "", {"gift": FOR_ANNA}, (GUS,)),
    ],
    "vouch": [
        ("not-authorised", "no key", {"by": FAY, "for": DORA, "limit": 0}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("not-active", "suspended", {"by": CARL}, (CARL,)),
        ("wrong-state", "", {"by": EMIL}, (EMIL,)),
        ("unknown-member", "not a member", {"limit": 4}, (EMIL,)),
        ("limit-exceeded", "at least", {"for": CARL}, (EMIL,)),
        ("limit-exceeded", "room", {"limit": 61}, (EMIL,)),
        ("insufficient-funds", "", {"limit": 60}, (EMIL,)),
        ("accepted", "", {"limit": 6}, (EMIL,)),
        ("limit-exceeded", "at least", {"by": GUS, "for": EMIL, "limit": 4}, (GUS,)),
        ("vouch-in-use", "", {"limit": 5}, (GUS,)),
        ("vouch-in-use", "", {"limit": 0}, (GUS,)),
        ("accepted", "", {"limit": 11}, (GUS,)),
    ],
    "writeoff": [
        ("not-authorised", "no key", {"by": FIRST, "peer": FAY}, (SECOND,)),
        ("not-authorised", "takes a steward", {}, (FIRST,)),
        ("unknown-member", "", {}, BOTH),
        ("unknown-member", "", {"peer": DORA}, BOTH),
        ("wrong-state", "", {"peer": ANNA}, BOTH),
        ("accepted", "", {"peer": EMIL}, BOTH),
    ],
    "hold": [
        ("not-authorised", "no key", {"by": FAY, "to": DORA, "amount": MUCH, "until": 0}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("not-active", "suspended", {"by": CARL}, (CARL,)),
        ("unknown-member", "payee", {"by": ANNA}, (ANNA,)),
        ("limit-exceeded", "30 days", {"to": BEN}, (ANNA,)),
        ("limit-exceeded", "30 days", {"until": UNTIL + 30 * 24 * HOUR_MS}, (ANNA,)),
        ("insufficient-funds", "", {"until": UNTIL}, (ANNA,)),
        ("accepted", "", {"amount": 98 + 50}, (ANNA,)),
    ],
    "capture": [
        ("not-authorised", "no key", {"by": FAY, "hold": NO_HOLD, "amount": 6}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("not-active", "pending", {"by": DORA}, (DORA,)),
        ("not-found", "", {"by": CARL}, (CARL,)),
        ("not-authorised", "payee", {"hold": ENDED}, (CARL,)),
        ("not-authorised", "payee", {"by": BEN}, (BEN,)),
        ("wrong-state", "already", {"by": ANNA}, (ANNA,)),
        ("limit-exceeded", "held", {"hold": OPEN}, (ANNA,)),
        ("accepted", "", {"amount": 5}, (ANNA,)),
    ],
    "void": [
        ("not-authorised", "no key", {"by": FAY, "hold": NO_HOLD}, (ANNA,)),
        ("unknown-member", "who speaks", {}, (FAY,)),
        ("not-active", "pending", {"by": DORA}, (DORA,)),
        ("not-found", "", {"by": CARL}, (CARL,)),
        ("not-authorised", "payer", {"hold": ENDED}, (CARL,)),
        ("wrong-state", "already", {"by": BEN}, (BEN,)),
        ("wrong-state", "not before", {"hold": OPEN}, (BEN,)),
        ("accepted", "", {"by": ANNA}, (ANNA,)),
        ("accepted", "", {"by": BEN, "hold": OVERDUE}, (BEN,)),
    ],
    "lapse": [
        ("not-authorised", "", {"by": FIRST, "of": NO_HOLD}, (FIRST,)),
        ("not-authorised", "", {"by": LEDGER}, (FIRST,)),
        ("not-found", "", {}, (LEDGER,)),
        ("wrong-state", "already", {"of": ENDED}, (LEDGER,)),
        ("wrong-state", "less than a day", {"of": OPEN}, (LEDGER,)),
        ("accepted", "", {"of": OVERDUE}, (LEDGER,)),
    ],
    "sweep": [
        ("not-authorised", "", {"by": FIRST, "accounts": [STRANGER]}, (FIRST,)),
        ("not-authorised", "", {"by": LEDGER}, (FIRST,)),
        ("unknown-member", "", {}, (LEDGER,)),
        ("accepted", "", {"accounts": sorted([ANNA, FAY])}, (LEDGER,)),
    ],
    "rekey": [
        ("not-authorised", "only the ledger", {"by": FIRST, "ledger": SECOND}, (FIRST, SECOND)),
        ("not-authorised", "only the ledger", {"by": LEDGER}, (SECOND,)),
        ("not-authorised", "new key", {}, (LEDGER,)),
        ("key-taken", "a peer", {}, (LEDGER, SECOND)),
        ("key-taken", "a peer", {"ledger": PHONE}, (LEDGER, PHONE)),
        ("accepted", "", {"ledger": SPARE}, (LEDGER, SPARE)),
    ],
}


@pytest.mark.parametrize("kind", TABLES)
def test_statement_with_many_faults_gets_the_first_refusal_of_the_order(kind: str) -> None:
    twin = world()
    made: dict[str, Any] = {"type": kind}
    _, _, wrong, signers = TABLES[kind][0]
    made |= wrong
    for code, mended in _common_faults(twin):
        made |= mended
        outcome = twin.submit(made, signers)
        assert isinstance(outcome, Refusal)
        assert outcome.code == code
    made |= {"expires": twin.now_ms}
    for place, (code, word, mended, signers) in enumerate(TABLES[kind]):
        made |= mended
        if place and TABLES[kind][place - 1][0] == "accepted":
            made |= twin.stamp()
        outcome = twin.submit(made, signers)
        if code == "accepted":
            assert isinstance(outcome, Accepted), outcome
            continue
        assert isinstance(outcome, Refusal), (place, outcome)
        assert (outcome.code, word in outcome.detail) == (code, True), (place, outcome)


def _common_faults(twin: Twin) -> list[tuple[str, dict[str, Any]]]:
    """Commons, known id, time: what comes before all that a type asks for itself."""
    used = {"commons": b"?" * 16, "id": ANNAS_BARE, "expires": twin.now_ms - 1}
    ahead = stamp(twin.now_ms + 120_001, 1)
    return [
        ("unknown-commons", used),
        ("id-conflict", {"commons": twin.commons}),
        ("too-early", ahead),
        ("expired", {"id": uuid7(twin.now_ms - 2, bytes(10)), "expires": twin.now_ms - 1}),
    ]


def test_every_type_has_its_table_of_refusals() -> None:
    from gesell_protocol.statements import TYPES

    assert set(TABLES) | {"found", "payout"} == set(TYPES)


def test_payout_with_many_faults_gets_the_first_refusal_of_the_order() -> None:
    twin = world()
    paid = sorted([ANNA, BEN, EMIL, GUS])
    rows: list[tuple[str, dict[str, Any], tuple[bytes, ...]]] = [
        ("not-authorised", {"by": FIRST, "share": b"no such share id", "members": [STRANGER]}, (FIRST,)),
        ("not-authorised", {"by": LEDGER}, (FIRST,)),
        ("not-found", {}, (LEDGER,)),
        ("wrong-state", {"share": SHARE}, (LEDGER,)),
        ("wrong-state", {"members": [CARL]}, (LEDGER,)),
        ("wrong-state", {"members": sorted([*paid, CARL])}, (LEDGER,)),
        ("accepted", {"members": paid[:1]}, (LEDGER,)),
        ("wrong-state", {"members": paid[:2]}, (LEDGER,)),
        ("accepted", {"members": paid[1:]}, (LEDGER,)),
        ("wrong-state", {"members": paid[-1:]}, (LEDGER,)),
    ]
    twin.endow(BEN, -1_000)
    twin.done("share", FIRST, signers=BOTH, amount=43, id=SHARE, expires=twin.now_ms)
    made: dict[str, Any] = {}
    for code, mended, signers in rows:
        made |= mended
        outcome = twin.submit(twin.fields("payout", **made), signers)
        assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code, (mended, outcome)
    # What is left in escrow are Ben's two holds.
    assert [twin.books.account(holder, "WRG").balance for holder in ("pool", "escrow")] == [22, 10]


def test_share_is_for_commons_whose_stewards_admit() -> None:
    twin = Twin()
    steward = twin.stewards[0]
    assert twin.refusal("share", steward, amount=10**15) == "wrong-state"


def test_found_with_many_faults_gets_the_first_refusal_of_the_order() -> None:
    now_ms = START_MS
    made: dict[str, Any] = {
        "type": "found",
        "name": "Wörgl",
        "currency": {"code": "WRG", "scale": 6},
        "policy": dict(POLICY),
        "stewards": sorted(BOTH),
        "threshold": 2,
    }
    rows: list[tuple[str, dict[str, Any], tuple[bytes, ...]]] = [
        ("wrong-ledger", {"by": ANNA, "ledger": STRANGER, **stamp(now_ms + 120_001, 1)}, (BEN,)),
        ("too-early", {"ledger": LEDGER}, (BEN,)),
        ("expired", stamp(now_ms - 300_001, 2), (BEN,)),
        ("not-authorised", stamp(now_ms, 3), (BEN,)),
        ("not-authorised", {}, (ANNA, *BOTH)),
        ("not-authorised", {"by": FIRST}, (ANNA, SECOND)),
        ("not-authorised", {}, (ANNA, FIRST)),
        ("accepted", {}, BOTH),
    ]
    for code, mended, signers in rows:
        made |= mended
        offered = submission(made, signers)
        outcome = decide(Books(), offered, now_ms=now_ms, ledger=LEDGER)
        assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code, outcome
        plain = PlainLedger(LEDGER).submit(made, set(signers), now_ms, body_bytes=offered.envelope.body)
        assert (plain.code if isinstance(plain, Refused) else "accepted") == code


# ── An id takes effect once ──────────────────────────────────────────────────────────────────────────────────────


def test_same_statement_again_is_a_replay_even_after_it_expired() -> None:
    twin = world()
    made = twin.fields("pay", ANNA, legs=[[CARL, 7]])
    first = twin.submit(made, [ANNA])
    twin.pass_ticks(1000)
    before = snapshot(twin.books)
    for signers in ([ANNA], [ANNA, STRANGER]):
        again = twin.submit(made, signers)
        assert isinstance(again, Replay)
        assert isinstance(first, Accepted)
        assert again.entry == first.entry
    assert snapshot(twin.books) == before


def test_receipt_is_given_again_only_to_who_signed_or_may_sign_for_the_author() -> None:
    """To others its postings would tell what melted of whom, also where they may not read the entry."""
    twin = world()
    made = twin.fields("pay", ANNA, legs=[[CARL, 7]])
    assert isinstance(twin.submit(made, [ANNA]), Accepted)
    for signers in ([STRANGER], [CARL]):
        refused = twin.submit(made, signers)
        assert isinstance(refused, Refusal)
        assert refused.code == "not-authorised"
    twin.done("keys", ANNA, signers=[ANNA, STRANGER], add=[STRANGER], revoke=[ANNA])
    for signers in ([ANNA], [STRANGER]):  # by the key that signed it then, and by the one that may now
        assert isinstance(twin.submit(made, signers), Replay)


def test_refused_id_is_not_used_up() -> None:
    twin = world()
    made = twin.fields("pay", ANNA, legs=[[CARL, 149]])
    assert isinstance(twin.submit(made, [ANNA]), Refusal)
    twin.done("issue", FIRST, signers=BOTH, to=ANNA, amount=1)
    assert isinstance(twin.submit(made, [ANNA]), Accepted)
    assert isinstance(twin.submit({**made, "legs": [[CARL, 1]]}, [ANNA]), Refusal)


@pytest.mark.parametrize(("ahead_ms", "code"), [(120_000, "accepted"), (120_001, "too-early")])
def test_id_may_be_two_minutes_ahead_of_the_clock_and_no_more(ahead_ms: int, code: str) -> None:
    twin = world()
    outcome = twin.submit(twin.fields("retire", ANNA, amount=1, **stamp(twin.now_ms + ahead_ms, 1)), [ANNA])
    assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code


@pytest.mark.parametrize(("late_ms", "code"), [(0, "accepted"), (1, "expired")])
def test_statement_is_taken_until_its_expiry_and_not_later(late_ms: int, code: str) -> None:
    twin = world()
    expiry = {"id": uuid7(twin.now_ms - 10, bytes(10)), "expires": twin.now_ms - late_ms}
    outcome = twin.submit(twin.fields("retire", ANNA, amount=1, **expiry), [ANNA])
    assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code


def test_time_of_entries_never_goes_back_and_expiry_is_judged_by_it() -> None:
    twin = world()
    twin.pass_ticks(5)
    twin.done("retire", ANNA, amount=1)
    latest = twin.entries[-1].at_ms
    late = twin.fields("retire", ANNA, amount=1, **stamp(latest - 300_001, 1))
    fresh = twin.fields("retire", ANNA, amount=1)
    twin.now_ms = latest - 300_001
    assert isinstance(twin.submit(fresh, [ANNA]), Refusal) is False
    assert twin.entries[-1].at_ms == latest
    outcome = twin.submit(late, [ANNA])
    assert isinstance(outcome, Refusal)
    assert outcome.code == "expired"


@given(st.sampled_from(sorted(TABLES)), st.binary(min_size=16, max_size=16))
@settings(max_examples=30, deadline=None)
def test_statement_for_books_that_were_never_founded_is_refused_and_founds_nothing(kind: str, commons: bytes) -> None:
    made = {"type": kind, **TABLES[kind][-1][2], **TABLES[kind][0][2], "commons": commons, **stamp(START_MS, 1)}
    books = Books()
    outcome = decide(books, submission(made, TABLES[kind][0][3]), now_ms=START_MS, ledger=LEDGER)
    assert isinstance(outcome, Refusal)
    assert outcome.code == "unknown-commons"
    assert snapshot(books) == snapshot(Books())

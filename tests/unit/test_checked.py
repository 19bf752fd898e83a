"""What a process that checks statements sends back: the same that it would have been without the way (`checked`)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger.checked import HEAD_BYTES, Broken, Checked, read_checked, read_parcels, write_checked, write_parcels
from gesell_ledger.core.decide import Submission
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import Envelope, Memo, read_envelope
from gesell_protocol.fields import LEGS_MAX, Leg
from gesell_protocol.refusals import CODES, Refusal
from gesell_protocol.statements import TYPES, Pay, read_statement
from tests.histories import LEDGER, START_MS, key, keys_of, stamp, submission
from tests.lives import Life

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors" / "statements.json"


def vectors() -> list[Submission]:
    """The statements of the published vectors that are taken."""
    taken = [case for case in json.loads(VECTORS.read_text(encoding="ascii"))["cases"] if case["kind"] == "taken"]
    envelopes = [read_envelope(unpack(bytes.fromhex(case["envelope"]))) for case in taken]
    return [Submission(envelope, read_statement(envelope)) for envelope in envelopes]


def lives() -> list[Submission]:
    """What people of some commons say."""
    said: list[Submission] = []
    for seed in range(6):
        life = Life(random.Random(seed))
        for _ in range(120):
            life.step()
        said += life.twin.submitted
    return said


def pay(*, legs: int = 1, text: Memo | None = None, signers: int = 1, **fields: Any) -> Submission:
    """A payment by one peer to so many others."""
    payees = sorted(key(f"payee {n}") for n in range(legs))
    made = {"type": "pay", "commons": b"c" * 16, "by": key("anna"), **stamp(START_MS, 1), **fields}
    made["legs"] = [[payee, 1 + n * 10**9] for n, payee in enumerate(payees)]
    if text is not None:
        made["memo"] = text.seal()
    return submission(made, keys_of(*(["anna", *(f"device {n}" for n in range(signers - 1))])), text)


def there_and_back(*checked: Checked) -> list[Checked]:
    """What comes out at the other end; holds the frame to its head on the way."""
    frame = write_checked(checked)
    assert int.from_bytes(frame[:HEAD_BYTES], "big") == len(frame) - HEAD_BYTES
    return read_checked(frame[HEAD_BYTES:])


def hold_equal(back: Checked, sent: Checked) -> None:
    """The same value of the same types, down to the parts that tuples compare without looking at their types."""
    assert back == sent
    assert type(back) is type(sent)
    assert repr(back) == repr(sent)
    if isinstance(sent, Submission):
        assert isinstance(back, Submission)
        assert type(back.envelope) is Envelope
        assert type(back.statement) is type(sent.statement)
        assert type(back.envelope.signatures) is tuple
        assert all(type(pair) is tuple for pair in back.envelope.signatures)
        # A value that travels as its parts must be whole: what the schema makes of its body is the judge.
        assert back.statement == read_statement(back.envelope, min_tick_seconds=1)
        assert hash(back.envelope.body) == hash(sent.envelope.body)
    if isinstance(sent.statement if isinstance(sent, Submission) else None, Pay):
        assert isinstance(back, Submission)
        assert isinstance(back.statement, Pay)
        assert type(back.statement.legs) is tuple
        assert all(type(leg) is Leg for leg in back.statement.legs)


def test_statement_of_every_type_comes_back_as_it_was() -> None:
    sent = [*vectors(), *lives()]
    assert {one.statement.type for one in sent} == set(TYPES)
    assert any(one.envelope.memo is not None for one in sent)
    back = there_and_back(*sent)
    assert len(back) == len(sent)
    for one, other in zip(back, sent, strict=True):
        hold_equal(one, other)


@pytest.mark.parametrize("legs", [1, 2, 3, 15, 16, 17, 255, LEGS_MAX])
@pytest.mark.parametrize("memo", [None, Memo(bytes(16), "für die Äpfel \U0001f34e"), Memo(b"1" * 16, "")])
def test_payment_comes_back_with_all_its_legs_and_its_memo(legs: int, memo: Memo | None) -> None:
    sent = pay(legs=legs, text=memo)
    (back,) = there_and_back(sent)
    hold_equal(back, sent)
    assert isinstance(back, Submission)
    assert back.envelope.memo == memo
    assert isinstance(back.statement, Pay)
    assert [leg.amount for leg in back.statement.legs] == [1 + n * 10**9 for n in range(legs)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ref": b"r" * 16},
        {"balancing": True},
        {"category": "food"},
        {"memo": b"m" * 32},
        {"ref": b"r" * 16, "balancing": True, "category": "food", "memo": b"m" * 32},
    ],
    ids=lambda fields: ", ".join(fields) or "none",
)
def test_payment_comes_back_with_all_that_it_may_say(fields: dict[str, Any]) -> None:
    sent = pay(**fields)
    (back,) = there_and_back(sent)
    hold_equal(back, sent)
    assert isinstance(back, Submission)
    for name, value in fields.items():
        assert getattr(back.statement, name) == value


@pytest.mark.parametrize("signers", [1, 2, 16])
def test_payment_comes_back_with_all_its_signatures(signers: int) -> None:
    sent = pay(signers=signers)
    assert len(sent.envelope.signatures) == signers
    (back,) = there_and_back(sent)
    hold_equal(back, sent)


@pytest.mark.parametrize("code", CODES)
def test_refusal_comes_back_with_its_fields(code: str) -> None:
    for fields in ({}, {"available": 0, "needed": 10**18}, {"limit": -1}):
        sent = Refusal(code=code, detail=f"no: {code}, Wörgl \U0001f34e \ud800", fields=fields)
        (back,) = there_and_back(sent)
        hold_equal(back, sent)
        assert isinstance(back, Refusal)
        assert dict(back.fields) == fields


def test_fault_of_the_check_comes_back_as_one() -> None:
    sent = Broken("Traceback (most recent call last):\n  …\nZeroDivisionError: Wörgl")
    (back,) = there_and_back(sent)
    hold_equal(back, sent)


def test_all_sorts_come_back_in_their_order() -> None:
    source = random.Random(7)
    kinds: list[Checked] = [
        pay(),
        pay(legs=256),
        pay(text=Memo(bytes(16), "eins")),
        Refusal(code="bad-signature", detail="no"),
        Broken("why"),
        submission(
            {"type": "sweep", "commons": b"c" * 16, "by": LEDGER, **stamp(START_MS, 2), "accounts": keys_of("a")},
            [LEDGER],
        ),
    ]
    sent = source.choices(kinds, k=64)
    back = there_and_back(*sent)
    assert len(back) == 64
    for one, other in zip(back, sent, strict=True):
        hold_equal(one, other)
    assert there_and_back() == []


def test_statements_go_there_as_they_came() -> None:
    sent = [
        (True, [b'{"body": 1}', b""]),
        (False, [b"\xc1" * 40_000]),
        (True, []),
        (False, [bytes([n]) for n in range(256)]),
    ]
    frame = write_parcels(sent)
    assert int.from_bytes(frame[:HEAD_BYTES], "big") == len(frame) - HEAD_BYTES
    assert read_parcels(frame[HEAD_BYTES:]) == sent
    assert read_parcels(write_parcels([])[HEAD_BYTES:]) == []

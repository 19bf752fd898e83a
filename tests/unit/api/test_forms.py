"""The JSON forms of statements: each has what its statement has, and becomes the body that it means."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from gesell_ledger.api import shapes
from gesell_ledger.api.answers import policy_json
from gesell_ledger.api.forms import AnyForm, Found, fields_of, handles_of, read_form, read_key, read_name
from gesell_protocol import statements
from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import read_policy
from gesell_protocol.names import did_of, id_text
from gesell_protocol.statements import LEDGER_TYPES, TYPES, read_statement, write_body
from tests.speaking import HOUR_MS, POLICY, new_id, signer_of

FORMS = get_args(AnyForm)
ADA, BOB = signer_of("ada").public_key, signer_of("bob").public_key
COMMONS = "00112233445566778899aabbccddeeff"
NOW_MS = 1_700_000_000_000


def _form_of(kind: str) -> type[AnyForm]:
    (form,) = [form for form in FORMS if form.__struct_config__.tag == kind]
    return form  # type: ignore[return-value]


def test_every_type_that_a_peer_may_speak_has_a_form() -> None:
    assert {form.__struct_config__.tag for form in FORMS} == set(TYPES) - LEDGER_TYPES


@pytest.mark.parametrize("kind", sorted(set(TYPES) - LEDGER_TYPES))
def test_form_has_the_fields_of_its_statement(kind: str) -> None:
    shape = statements._SHAPES[kind]
    form = _form_of(kind)
    named = {field.encode_name: field for field in msgspec.structs.fields(form)}
    assert set(named) | {"type"} == set(shape.fields)
    filled_in = {"type", "id", "expires", "ledger"}
    assert {name for name, field in named.items() if field.required} == set(shape.required) - filled_in


def test_policy_of_an_answer_is_one_that_a_form_takes() -> None:
    policy = read_policy(dict(POLICY, brackets=[[0, 1], [10**15, 10**9]]))
    text = msgspec.json.encode(policy_json(policy))
    assert msgspec.json.decode(text, type=shapes.Policy) == policy_json(policy)
    form = msgspec.json.encode(
        {
            "type": "policy",
            "commons": COMMONS,
            "by": did_of(ADA),
            "from_tick": 7,
            "policy": msgspec.json.decode(text),
        }
    )
    fields = fields_of(read_form(form), {})
    assert read_policy(fields["policy"]) == policy


def test_handles_become_keys_and_lists_that_ascend_do() -> None:
    one, other = sorted((ADA, BOB))
    form = read_form(
        msgspec.json.encode(
            {"type": "stewards", "commons": COMMONS, "by": "ada", "stewards": [other.hex(), "one"], "threshold": 1}
        )
    )
    assert handles_of(form) == {"ada", "one"}
    fields = fields_of(form, {"ada": ADA, "one": one})
    assert (fields["by"], fields["stewards"]) == (ADA, [one, other])


def test_body_of_a_payment_says_what_its_form_says() -> None:
    name = new_id(NOW_MS)
    form = msgspec.json.encode(
        {
            "type": "pay",
            "commons": COMMONS,
            "by": did_of(ADA),
            "id": id_text(name),
            "expires": NOW_MS + HOUR_MS,
            "legs": [["bob", "1000000000000000"]],
            "balancing": True,
            "category": "food",
        }
    )
    body = write_body(fields_of(read_form(form), {"bob": BOB}))
    pay = read_statement(Envelope(body, ()))
    assert isinstance(pay, statements.Pay)
    assert pay.legs == ((BOB, 10**15),)
    assert (pay.id, pay.expires_ms, pay.balancing, pay.category) == (name, NOW_MS + HOUR_MS, True, "food")


@pytest.mark.parametrize("text", [ADA.hex(), did_of(ADA)])
def test_key_is_read_from_both_of_its_texts(text: str) -> None:
    assert read_key(text) == read_name(text) == ADA


@pytest.mark.parametrize(
    "text", ["", "pool", "escrow", "Ada", "ada ", ADA.hex()[:-1], ADA.hex() + "\n", "did:key:z6Mk"]
)
def test_what_names_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_name(text)


def test_founding_has_no_commons_and_may_leave_out_the_ledger() -> None:
    assert "commons" not in Found.__struct_fields__
    assert all("commons" in form.__struct_fields__ for form in FORMS if form is not Found)


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"leave","commons":"%s","by":"ada","by":"ada"}',
        b'{"type":"leave","type":"leave","commons":"%s","by":"ada"}',
        b'{"type":"leave","commons":"%s","b\\u0079":"ada","by":"ada"}',
        b'{"type":"leave","commons":"%s","by":"ada","memo":"a","memo" :"\\""}',
    ],
)
def test_member_that_stands_there_twice_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="twice"):
        read_form(text.replace(b"%s", COMMONS.encode()))


@pytest.mark.parametrize("memo", ['a "by": b', '\\"by\\":', "{}[],:", '"', "\\", '\\":', "by:"])
def test_text_that_looks_like_json_is_no_member(memo: str) -> None:
    form = {"type": "leave", "commons": COMMONS, "by": "ada", "memo": memo}
    assert read_form(msgspec.json.encode(form)).memo == memo

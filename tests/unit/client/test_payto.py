"""Payto links: what is written is read back, what can be misread is refused, and nothing else is ever raised."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell import Peer
from gesell.payto import LINK_MAX_CHARS, BadLink, PaymentRequest
from gesell_protocol.names import id_text, is_handle

ADA = Peer(b"\x01" * 32).did
COMMONS = "0123456789abcdef" * 2
REF = "0190a1b2-c3d4-7e5f-8a6b-0123456789ab"
PLACE = f"payto://gesell/{COMMONS}/{ADA}"
WHOLE = PaymentRequest(
    commons=COMMONS,
    to=ADA,
    currency="WRG",
    amount=Decimal("0.05"),
    category="answer",
    message="Thank you & greetings: 1 + 1 = 2",
    ref=REF,
)

amounts = st.integers(1, 10**15).flatmap(
    lambda grains: st.integers(0, 9).map(lambda scale: Decimal(grains).scaleb(-scale))
)
messages = st.text(min_size=1, max_size=1_000, alphabet=st.characters(exclude_categories=("C", "Zl", "Zp")))
handles = st.from_regex(r"[a-z][a-z0-9_-]{1,30}", fullmatch=True).filter(is_handle)
dids = st.binary(min_size=32, max_size=32).map(lambda seed: Peer(seed).did)
requests = st.builds(
    lambda money, **rest: PaymentRequest(currency=money and money[0], amount=money and money[1], **rest),
    st.none() | st.tuples(st.from_regex(r"[A-Z][A-Z0-9]{1,9}", fullmatch=True), amounts),
    commons=st.binary(min_size=16, max_size=16).map(bytes.hex),
    to=dids | handles,
    message=st.none() | messages,
    category=st.none() | st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    ref=st.none() | st.binary(min_size=16, max_size=16).map(id_text),
)


@given(requests)
def test_what_is_written_is_read_back_as_the_same_value(request: PaymentRequest) -> None:
    link = str(request)
    assert PaymentRequest.parse(link) == request
    assert str(PaymentRequest.parse(link)) == link
    assert link.isascii()
    assert len(link) <= LINK_MAX_CHARS


@given(requests, requests)
def test_two_requests_have_one_text_only_if_they_are_one(one: PaymentRequest, other: PaymentRequest) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(st.text())
def test_reading_raises_nothing_but_its_own_error(text: str) -> None:
    for link in (text, PLACE + "?" + text, f"{PLACE}?amount=WRG:{text}", f"payto://gesell/{text}"):
        with suppress(BadLink):
            PaymentRequest.parse(link)


@given(requests, st.data())
def test_a_link_with_one_character_changed_is_refused_or_reads_as_it_stands(
    request: PaymentRequest, data: st.DataObject
) -> None:
    link = str(request)
    at = data.draw(st.integers(0, len(link) - 1))
    changed = link[:at] + data.draw(st.characters()) + link[at + 1 :]
    try:
        read = PaymentRequest.parse(changed)
    except BadLink:
        return
    assert PaymentRequest.parse(str(read)) == read


def test_the_text_of_a_whole_link() -> None:
    assert str(WHOLE) == (
        f"{PLACE}?amount=WRG:0.05&category=answer"
        f"&message=Thank%20you%20%26%20greetings:%201%20%2B%201%20%3D%202&ref={REF}"
    )


@pytest.mark.parametrize(
    "link",
    [
        str(WHOLE).replace("payto://gesell", "PayTo://GESELL"),
        str(WHOLE).replace(COMMONS, COMMONS.upper()),
        str(WHOLE).replace(REF, REF.upper()),
        str(WHOLE).replace("did:key:", "did%3Akey%3a"),
        str(WHOLE).replace("amount=WRG:0.05", "AMOUNT=WRG%3A00.0500"),
        str(WHOLE).replace("%3D", "="),
        str(WHOLE) + "&receiver-name=Mallory&sender-name=&colour=blue",
        PLACE + "?" + "&".join(reversed(str(WHOLE).partition("?")[2].split("&"))),
    ],
)
def test_other_spellings_of_the_same_link_read_the_same(link: str) -> None:
    assert PaymentRequest.parse(link) == WHOLE


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1,250", "1250"), ("1,000,000.5", "1000000.5"), ("0.000000001", "1E-9"), ("1000000000000000", "1E+15")],
)
def test_amounts_are_exact(text: str, amount: str) -> None:
    assert PaymentRequest.parse(f"{PLACE}?amount=WRG:{text}").amount == Decimal(amount)


# Decimal commas and points as half of Europe writes them: RFC 8905 would make 5 of 0,05.
@pytest.mark.parametrize("text", ["0,05", "0,050", "1.000,50", "12,50", "1,2345", "01,000"])
def test_an_amount_that_can_be_misread_is_refused(text: str) -> None:
    with pytest.raises(BadLink):
        PaymentRequest.parse(f"{PLACE}?amount=WRG:{text}")


@pytest.mark.parametrize("text", ["", "0", "0.00", "-1", "+1", "1e3", ".5", "5.", "\u0661", "0x10", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadLink):
        PaymentRequest.parse(f"{PLACE}?amount=WRG:{quote(text)}")


@pytest.mark.parametrize("text", ["1000000000000000.1", "0.0000000001", "9" * 40, "0." + "0" * 30 + "1"])
def test_an_amount_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(BadLink):
        PaymentRequest.parse(f"{PLACE}?amount=WRG:{text}")


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("", "begins with payto"),
        ("https://gesell/" + COMMONS + "/ada", "begins with payto"),
        (f"payto:gesell/{COMMONS}/ada", "begins with payto"),
        (f"payto://iban/{COMMONS}/ada", "for iban"),
        (f"payto://eve@gesell/{COMMONS}/ada", "begins with payto"),
        (f"payto://gesell:80/{COMMONS}/ada", "begins with payto"),
        (f"payto://gesell/{COMMONS}", "a commons and a payee"),
        (f"payto://gesell/{COMMONS}/ada/", "a commons and a payee"),
        (f"payto://gesell//{COMMONS}/ada", "a commons and a payee"),
        (f"payto://gesell/{COMMONS[:-1]}/ada", "32 hex digits"),
        (f"payto://gesell/{COMMONS}/Ada", "neither a handle"),
        (f"payto://gesell/{COMMONS}/pool", "neither a handle"),
        (f"payto://gesell/{COMMONS}/{ADA[:-1]}", "did:key"),
        (f"payto://gesell/{COMMONS}/ad%61%2F", "neither a handle"),
        (PLACE + "?", "no option"),
        (PLACE + "?amount", "no option"),
        (PLACE + "?amount=WRG:1&", "no option"),
        (PLACE + "?message=a/b", "no option"),
        (PLACE + "?%61mount=WRG:1", "no option"),
        (PLACE + "?amount=WRG:1&amount=WRG:1", "amount is said twice"),
        (PLACE + "?amount=WRG:1&Amount=WRG:2", "amount is said twice"),
        (PLACE + "?colour=a&colour=b", "colour is said twice"),
        (PLACE + "?instruction=x", "instruction"),
        (PLACE + "?req-until=2027", "req-until"),
        (PLACE + "?amount=1", "no amount"),
        (PLACE + "?amount=wrg:1", "no code of a currency"),
        (PLACE + "?message=two%0Alines", "one line"),
        (PLACE + "?message=%E2%80%AEyap", "turn its direction"),
        (PLACE + "?message=%E2%80%A8", "one line"),
        (PLACE + "?message=%ff", "UTF-8"),
        (PLACE + "?message=%zz", "hex digits"),
        (PLACE + "?message=two words", "no spaces"),
        (PLACE + "?message=naïve", "ASCII"),
        (PLACE + "?message=a#b", "no #"),
        (PLACE + "?message=" + "a" * 1_001, "1000 characters"),
        (PLACE + "?category=", "no category"),
        (PLACE + "?category=Answer", "no category"),
        (PLACE + "?ref=" + REF.replace("-", ""), "no id"),
        (PLACE + "?ref=", "no id"),
        (PLACE + "\n", "no spaces"),
        (PLACE + "?colour=" + "a" * LINK_MAX_CHARS, "at most"),
    ],
)
def test_what_is_no_request_is_refused_with_its_reason(link: str, says: str) -> None:
    with pytest.raises(BadLink, match=says):
        PaymentRequest.parse(link)


def test_a_plus_is_a_plus() -> None:
    assert PaymentRequest.parse(PLACE + "?message=1+1").message == "1+1"


def test_a_message_of_a_thousand_wide_characters_fits() -> None:
    request = replace(WHOLE, message="\U0001f33b" * 1_000)
    assert PaymentRequest.parse(str(request)) == request


@pytest.mark.parametrize(
    "fields",
    [
        {"commons": COMMONS.upper()},
        {"to": "did:web:example.org"},
        {"currency": None},
        {"amount": None},
        {"amount": Decimal("1E+999999999")},
        {"amount": Decimal("1E-999999999")},
        {"amount": Decimal("NaN")},
        {"message": ""},
        {"message": "\ud800"},
        {"category": "two words"},
        {"ref": REF.upper()},
    ],
)
def test_a_value_that_no_link_can_carry_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadLink):
        replace(WHOLE, **fields)


def test_a_float_is_no_amount() -> None:
    with pytest.raises(TypeError, match="float"):
        replace(WHOLE, amount=0.05)  # type: ignore[arg-type]

"""Amounts as people write them: exact both ways, and never through a float."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell_protocol.amounts import BALANCE_MAX, format_amount, parse_amount

scales = st.integers(0, 9)
grains_of = st.integers(-BALANCE_MAX, BALANCE_MAX)


@given(grains_of, scales)
def test_amount_comes_back_from_its_text(grains: int, scale: int) -> None:
    text = format_amount(grains, scale=scale)
    assert parse_amount(text, scale=scale) == grains
    assert parse_amount(Decimal(text), scale=scale) == grains
    assert Decimal(text) * 10**scale == grains


@given(grains_of, scales)
def test_text_is_the_shortest_there_is(grains: int, scale: int) -> None:
    text = format_amount(grains, scale=scale)
    whole, _, fraction = text.lstrip("-").partition(".")
    assert fraction == fraction.rstrip("0")
    assert not text.endswith(".")
    assert whole == (whole.lstrip("0") or "0")
    assert text != "-0"


@given(st.integers(-(10**9), 10**9), scales)
def test_int_is_of_whole_units(units: int, scale: int) -> None:
    assert parse_amount(units, scale=scale) == units * 10**scale


@pytest.mark.parametrize("amount", [0.05, 1.0, float("nan"), True, None, b"1", [1], complex(1)])
def test_what_is_no_str_decimal_or_int_is_a_type_error(amount: Any) -> None:
    with pytest.raises(TypeError):
        parse_amount(amount, scale=6)


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "1.", ".5", "+1", "--1", "1e3", "1,5", "1_000", "0x10", "NaN", "inf", "1 2", "١", "１", "½", "1.5.2",
     "-", "- 1", "1\n2"],
)  # fmt: skip
def test_text_that_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal number"):
        parse_amount(text, scale=6)


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_decimal_that_is_no_number_is_refused(amount: Decimal) -> None:
    with pytest.raises(ValueError):
        parse_amount(amount, scale=6)


@given(scales, st.integers(1, 20))
def test_more_decimals_than_the_currency_has_are_refused_unless_they_are_zeros(scale: int, more: int) -> None:
    with pytest.raises(ValueError, match="decimals"):
        parse_amount("0." + "0" * (scale + more - 1) + "1", scale=scale)
    assert parse_amount("1." + "0" * (scale + more), scale=scale) == 10**scale


@pytest.mark.parametrize("scale", [0, 6, 9])
def test_amount_beyond_what_a_balance_holds_is_refused(scale: int) -> None:
    most = format_amount(BALANCE_MAX, scale=scale)
    assert parse_amount(most, scale=scale) == BALANCE_MAX
    assert parse_amount("-" + most, scale=scale) == -BALANCE_MAX
    for beyond in (format_amount(BALANCE_MAX + 1, scale=scale), "9" * 30, "1" + "0" * 100_000, Decimal("1E+400")):
        with pytest.raises(ValueError):
            parse_amount(beyond, scale=scale)


@pytest.mark.parametrize(
    ("grains", "scale", "text"),
    [
        (50_000, 6, "0.05"),
        (-1, 6, "-0.000001"),
        (0, 6, "0"),
        (1_250_000, 6, "1.25"),
        (100, 2, "1"),
        (7, 0, "7"),
        (-10, 1, "-1"),
    ],
)
def test_amounts_are_written_as_people_write_them(grains: int, scale: int, text: str) -> None:
    assert format_amount(grains, scale=scale) == text

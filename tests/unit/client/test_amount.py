"""Amounts are compared and reckoned with exactly, and never across currencies."""

from __future__ import annotations

from decimal import ROUND_UP, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell import Amount
from gesell.amount import grains_from_zero, grains_of

GRAINS = st.integers(-(10**18), 10**18)


def wrg(grains: int) -> Amount:
    return Amount(grains, "WRG", 6)


@given(GRAINS, GRAINS)
def test_amounts_are_ordered_and_summed_as_their_grains(left: int, right: int) -> None:
    assert (wrg(left) < wrg(right), wrg(left) <= wrg(right)) == (left < right, left <= right)
    assert (wrg(left) > wrg(right), wrg(left) >= wrg(right)) == (left > right, left >= right)
    assert wrg(left) + wrg(right) == wrg(left + right)
    assert wrg(left) - wrg(right) == wrg(left - right)
    assert -wrg(left) == wrg(-left)
    assert sum([wrg(left), wrg(right)]) == wrg(left + right)


@pytest.mark.parametrize("other", [Amount(1, "LIND", 6), Amount(1, "WRG", 2)])
def test_amounts_of_different_currencies_do_not_mix(other: Amount) -> None:
    for mix in (
        lambda: wrg(1) + other,
        lambda: wrg(1) - other,
        lambda: wrg(1) < other,
        lambda: wrg(1) <= other,
        lambda: wrg(1) > other,
        lambda: wrg(1) >= other,
    ):
        with pytest.raises(ValueError, match="different currencies"):
            mix()


@pytest.mark.parametrize("other", [1, 0.5, "1", None])
def test_amounts_do_not_mix_with_bare_numbers(other: Any) -> None:
    for mix in (lambda: wrg(1) + other, lambda: other + wrg(1), lambda: wrg(1) - other, lambda: wrg(1) < other):
        with pytest.raises(TypeError):
            mix()


@pytest.mark.parametrize(
    ("grains", "spec", "shown"),
    [
        (50_000, "", "0.05 WRG"),
        (50_000, ">12", "    0.05 WRG"),
        (50_000, "*^12s", "**0.05 WRG**"),
        (1_234_565_000, ".2f", "1234.56"),  # a tie goes to the even neighbour
        (1_234_575_000, ".2f", "1234.58"),
        (10**18 - 1, ",.6f", "999,999,999,999.999999"),  # which no float can hold
        (-50_000, "+.2f", "-0.05"),
        (50_000, "8.2f", "    0.05"),
    ],
)
def test_an_amount_is_shown_in_columns_and_with_so_many_decimals(grains: int, spec: str, shown: str) -> None:
    with localcontext(prec=3, rounding=ROUND_UP):
        assert format(wrg(grains), spec) == shown


@pytest.mark.parametrize("spec", [".2", "e", "g", "%", "d", "012", ".3s"])
def test_an_amount_has_no_format_that_would_cut_it(spec: str) -> None:
    with pytest.raises(TypeError, match=r"amount\.decimal"):
        format(wrg(50_000), spec)


def test_gifts_are_shown_by_their_unit_and_are_no_money() -> None:
    hours, bread = Amount(150, "hour", 2, unit="h"), Amount(3, "bread", 0, unit="1")
    assert (str(hours), str(bread), f"{hours:>8}", str(hours + hours), str(-hours)) == (
        "1.5 h", "3 bread", "   1.5 h", "3 h", "-1.5 h",
    )  # fmt: skip
    assert hours == Amount(150, "hour", 2)
    with pytest.raises(ValueError, match="different currencies or kinds"):
        _ = hours + bread
    with pytest.raises(ValueError, match=r"1\.5 h is not an amount of WRG"):
        grains_of(hours, code="WRG", scale=6)


def test_a_limit_may_be_nothing_and_nothing_less() -> None:
    assert grains_from_zero("0", code="WRG", scale=6) == 0
    with pytest.raises(ValueError):
        grains_from_zero("-1", code="WRG", scale=6)
    with pytest.raises(ValueError):
        grains_of("0", code="WRG", scale=6)

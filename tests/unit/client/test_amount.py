"""Amounts are compared and reckoned with exactly, and never across currencies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell import Amount

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

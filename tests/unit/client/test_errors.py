"""The errors: one class a refusal code, and what each knows about the outcome."""

from __future__ import annotations

import pytest

import gesell
from gesell import GesellError, InsufficientFunds, Refused
from gesell.errors import REFUSALS, refused, with_currency
from gesell_protocol.refusals import CODES


def test_every_refusal_code_has_its_class_and_no_class_is_without_a_code() -> None:
    assert set(REFUSALS) == set(CODES)
    for code, kind in REFUSALS.items():
        assert kind.code == code
        assert kind.__name__ == "".join(word.capitalize() for word in code.split("-"))
        assert kind.__bases__ == (Refused,)
        assert getattr(gesell, kind.__name__) is kind
    assert {kind for kind in Refused.__subclasses__() if kind.__module__ == "gesell.errors"} == set(REFUSALS.values())


def test_the_tree_is_two_deep() -> None:
    for branch in GesellError.__subclasses__():
        for leaf in branch.__subclasses__():
            assert leaf.__subclasses__() == []


@pytest.mark.parametrize(("available", "needed"), [(1_000_000, 2_500_000), ("1000000", "2500000")])
def test_insufficient_funds_says_in_money_what_is_missing(available: object, needed: object) -> None:
    error = refused({"code": "insufficient-funds", "detail": "no", "available": available, "needed": needed})
    assert isinstance(error, InsufficientFunds)
    with_currency(error, code="WRG", scale=6)
    assert str(error.available) == "1 WRG"
    assert str(error.needed) == "2.5 WRG"
    assert error.applied is False


def test_a_code_of_a_later_protocol_is_a_plain_refusal() -> None:
    error = refused({"code": "too-blue", "detail": "not on Mondays"})
    assert type(error) is Refused
    assert (error.code, error.detail) == ("too-blue", "not on Mondays")


def test_what_is_no_problem_is_told_from_one() -> None:
    with pytest.raises(ValueError):
        refused({"title": "Bad gateway"})

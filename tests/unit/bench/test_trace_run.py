"""The trace becomes the orders that its rows say, and the plain count of money judges them as the rules do."""

from __future__ import annotations

import pytest

from bench.orders import STEWARD, Order
from bench.trace_run import demand_same, expected_outcomes, of_those_who_pay, orders_of
from bench.verdicts import NotHeld
from gesell.trace import Transfer


def transfer(kind: str, payer: int | None, payee: int | None, amount: int) -> Transfer:
    return Transfer(line=2, at_ms=0, type=kind, payer=payer, payee=payee, amount=amount)


TRANSFERS = [
    transfer("issue", None, 70, 100),
    transfer("issue", None, 90, 5),
    transfer("pay", 70, 80, 60),
    transfer("pay", 70, 80, 41),
    transfer("retire", 80, None, 60),
    transfer("retire", 80, None, 1),
]


def test_accounts_are_numbered_as_they_appear() -> None:
    orders, peers = orders_of(TRANSFERS)
    assert peers == 3
    assert orders == [
        Order("issue", STEWARD, ((0, 100),)),
        Order("issue", STEWARD, ((1, 5),)),
        Order("pay", 0, ((2, 60),)),
        Order("pay", 0, ((2, 41),)),
        Order("retire", 2, amount=60),
        Order("retire", 2, amount=1),
    ]


def test_the_count_refuses_who_gives_more_than_it_has() -> None:
    orders, _ = orders_of(TRANSFERS)
    no = "insufficient-funds"
    assert expected_outcomes(orders) == ["accepted", "accepted", "accepted", no, "accepted", no]


def test_who_only_receives_from_the_system_can_be_left_out() -> None:
    assert of_those_who_pay(TRANSFERS) == [TRANSFERS[0], *TRANSFERS[2:]]


@pytest.mark.parametrize("came", [["accepted", "accepted"], ["accepted"], ["insufficient-funds", "accepted"]])
def test_a_ledger_that_judges_otherwise_than_the_count_is_found_out(came: list[str]) -> None:
    with pytest.raises(NotHeld):
        demand_same(came, ["accepted", "insufficient-funds"])
    demand_same(["accepted", "insufficient-funds"], ["accepted", "insufficient-funds"])

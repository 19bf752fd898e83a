"""The shapes of the load are what they say: who pays whom, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from bench.orders import (
    PAYMENT_MAX,
    STEWARD,
    Order,
    gifts,
    hot_payments,
    issues,
    joins,
    many_legged_payments,
    random_payments,
    thanks,
    zipf_payments,
)

COUNT = 20_000
ACCOUNTS = 1_000


def payees(orders: list[Order]) -> Counter[int]:
    return Counter(order.legs[0][0] for order in orders)


@pytest.mark.parametrize("shape", [random_payments, zipf_payments, hot_payments])
def test_every_payment_goes_from_one_account_to_another(shape: Callable[..., list[Order]]) -> None:
    orders = shape(Random(1), COUNT, accounts=ACCOUNTS)
    assert len(orders) == COUNT
    for order in orders:
        ((payee, amount),) = order.legs
        assert order.type == "pay"
        assert 0 <= order.by < ACCOUNTS
        assert 0 <= payee < ACCOUNTS
        assert payee != order.by
        assert 1 <= amount <= PAYMENT_MAX


@pytest.mark.parametrize("shape", [random_payments, zipf_payments, hot_payments])
def test_a_seed_gives_the_same_load_again(shape: Callable[..., list[Order]]) -> None:
    assert shape(Random(7), 100, accounts=50) == shape(Random(7), 100, accounts=50)
    assert shape(Random(7), 100, accounts=50) != shape(Random(8), 100, accounts=50)


def test_at_random_every_account_is_paid_about_alike() -> None:
    counted = payees(random_payments(Random(1), COUNT, accounts=100))
    # 200 each, give or take seven times the standard deviation of 14.
    assert set(counted) == set(range(100))
    assert all(100 < count < 300 for count in counted.values())


def test_by_zipf_the_first_account_is_paid_most_and_the_others_in_proportion_to_their_rank() -> None:
    counted = payees(zipf_payments(Random(1), COUNT, accounts=ACCOUNTS))
    # 13.4 % are drawn; where the payer is the same one, both are drawn anew, which takes some off.
    assert 0.11 < counted[0] / COUNT < 0.15
    assert 1.7 < counted[0] / counted[1] < 2.3
    assert 0.34 < sum(counted[rank] for rank in range(10)) / COUNT < 0.42


def test_all_payments_to_a_hot_account_go_to_it_and_come_from_all_others() -> None:
    orders = hot_payments(Random(1), COUNT, accounts=100)
    assert set(payees(orders)) == {0}
    assert {order.by for order in orders} == set(range(1, 100))


def test_a_payment_of_a_hundred_legs_names_a_hundred_other_accounts() -> None:
    for order in many_legged_payments(Random(1), 50, accounts=200, legs=100):
        paid = {payee for payee, _ in order.legs}
        assert len(order.legs) == len(paid) == 100
        assert order.by not in paid


def test_a_gift_is_thanked_for_by_who_received_it() -> None:
    offered = gifts(Random(1), [bytes([n]) * 16 for n in range(20)], accounts=10)
    for gift, thank in zip(offered, thanks(offered), strict=True):
        assert (gift.type, thank.type) == ("gift", "thank")
        assert (thank.by, thank.id) == (gift.legs[0][0], gift.id)
        assert thank.by != gift.by


def test_everybody_joins_and_is_issued_to_by_the_steward() -> None:
    assert [order.by for order in joins(3)] == [0, 1, 2]
    assert issues(2, amount=5) == [Order("issue", STEWARD, ((0, 5),)), Order("issue", STEWARD, ((1, 5),))]

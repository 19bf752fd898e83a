"""Who says what to whom: payments at random, by Zipf's law, to one hot account, to a hundred at once; gifts and thanks.

Owns the shapes of the load, as plain numbers of accounts: no key, no clock, no ledger. All draws come from the
generator that is handed in, so that a seed gives the same load again. What is written of an order is `signing`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

#: A payment moves 1 to so many grains, far less than an account starts with, so that none runs dry.
PAYMENT_MAX: Final = 1_000
#: A gift is of 1 to so many hundredths of an hour.
GIFT_MAX: Final = 100
#: Who speaks or is spoken to where it is no account.
STEWARD: Final = -1
#: The exponent of Zipf's law: the account of rank r is drawn in proportion to 1 / r.
ZIPF_EXPONENT: Final = 1.0


class Order(NamedTuple):
    """A statement to be signed: its type, the number of the account that speaks, and what the type needs.

    `pay`: `legs` of (payee, grains); `issue`: one leg, by `STEWARD`; `retire`: `amount`; `gift`: one leg of (receiver,
    hundredths of an hour) and its own `id`; `thank`: the gift's `id`; `join`: nothing more.
    """

    type: str
    by: int
    legs: tuple[tuple[int, int], ...] = ()
    amount: int = 0
    id: bytes = b""


def random_payments(draw: Random, count: int, *, accounts: int) -> list[Order]:
    """So many payments of one leg, payer and payee evenly at random."""
    orders = []
    for _ in range(count):
        payer, payee = _two(draw, accounts)
        orders.append(_paid(draw, payer, payee))
    return orders


def zipf_payments(draw: Random, count: int, *, accounts: int, exponent: float = ZIPF_EXPONENT) -> list[Order]:
    """So many payments of one leg, payer and payee both drawn by Zipf's law over the accounts, account 0 the likeliest.

    Of 1,000 accounts at exponent 1 the first is drawn for 13 % of the payees, the first ten for 39 %.
    """
    heights = list(accumulate(1 / rank**exponent for rank in range(1, accounts + 1)))
    orders: list[Order] = []
    while len(orders) < count:
        payer, payee = (min(bisect_left(heights, draw.random() * heights[-1]), accounts - 1) for _ in range(2))
        # Nobody pays itself: both are drawn anew.
        if payer != payee:
            orders.append(_paid(draw, payer, payee))
    return orders


def hot_payments(draw: Random, count: int, *, accounts: int) -> list[Order]:
    """So many payments of one leg, all to account 0, each from any of the others at random."""
    return [_paid(draw, draw.randrange(1, accounts), 0) for _ in range(count)]


def many_legged_payments(draw: Random, count: int, *, accounts: int, legs: int = 100) -> list[Order]:
    """So many payments, each to `legs` different payees at random."""
    orders = []
    for _ in range(count):
        payer, *payees = draw.sample(range(accounts), legs + 1)
        orders.append(Order("pay", payer, tuple((payee, draw.randint(1, PAYMENT_MAX)) for payee in payees)))
    return orders


def gifts(draw: Random, ids: Sequence[bytes], *, accounts: int) -> list[Order]:
    """A gift of time for each of these ids, giver and receiver at random."""
    orders = []
    for one in ids:
        giver, receiver = _two(draw, accounts)
        orders.append(Order("gift", giver, ((receiver, draw.randint(1, GIFT_MAX)),), id=one))
    return orders


def thanks(offered: Sequence[Order]) -> list[Order]:
    """The thanks for gifts, in their order."""
    return [Order("thank", gift.legs[0][0], id=gift.id) for gift in offered]


def joins(accounts: int) -> list[Order]:
    """Every account asks to join, in the order of their numbers."""
    return [Order("join", account) for account in range(accounts)]


def issues(accounts: int, *, amount: int) -> list[Order]:
    """The steward issues so much to every account."""
    return [Order("issue", STEWARD, ((account, amount),)) for account in range(accounts)]


def _two(draw: Random, accounts: int) -> tuple[int, int]:
    """Two different accounts; faster than `sample`, which matters for a hundred thousand."""
    one = draw.randrange(accounts)
    other = draw.randrange(accounts - 1)
    return one, other + (other >= one)


def _paid(draw: Random, payer: int, payee: int) -> Order:
    return Order("pay", payer, ((payee, draw.randint(1, PAYMENT_MAX)),))

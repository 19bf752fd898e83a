"""The real trace at full speed: transfers of Sarafu, a community currency in Kenya, each as a signed statement.

Owns how the trace becomes load. What a row means is `gesell.trace`'s: a disbursement is an issue, a standard transfer a
payment, a reclamation or agent_out a retirement. Each run founds a commons of its own, in which all of the trace's
peers have joined before the clock starts; the stewards issue what the trace issues, nobody has money before.

The transfers keep the order of the trace, as funds depend on it: requests of 1,000, one in flight. Nothing melts
between them, as the ticks are of a year and the run takes seconds. So a plain count of everybody's money says of each
transfer whether it is accepted or lacks funds, and the ledger must say the same, else `NotHeld` is raised.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgpack

from bench.driver import Run
from bench.orders import STEWARD, Order
from bench.plan import Plan
from bench.town import Load, Town
from bench.verdicts import NotHeld
from gesell.trace import Transfer, read_transfers
from gesell_protocol.policy import TICK_SECONDS_MAX

NAME: Final = "trace"
FILE: Final = Path(__file__).parents[2] / "shared" / "data" / "sarafu-2020.csv"
EACH: Final = 1_000
#: No run of the trace takes longer.
SECONDS: Final = 600.0
EXPECTED_REFUSALS: Final = frozenset({"insufficient-funds"})


async def measure(plan: Plan, town: Town, *, file: Path = FILE) -> None:
    """Run the trace once in a commons beside the town, and note it; skipped where the file is not there."""
    if not await asyncio.to_thread(file.exists):
        why = f"the trace is not here: {file.name}, in shared/data beside the project's folder"
        town.notebook.skip(NAME, "the real trace", "payments/s", why)
        return
    transfers = list(read_transfers(file))
    if plan.quick:
        transfers = of_those_who_pay(transfers)
    orders, peers = orders_of(transfers)
    place = await Town.settled(
        town.stand, town.notebook, accounts=peers, name="Trace", funds=0, tick_seconds=TICK_SECONDS_MAX
    )
    try:
        requests = await place.sign(orders, each=EACH)
        load = Load(
            after=NAME, requests=requests, warm_up=0, connections=1, seconds=SECONDS, refusals=EXPECTED_REFUSALS
        )
        timed = await place.time(load)
    finally:
        place.close()
    demand_same(outcomes_of(timed.run), expected_outcomes(orders))
    whose = "those who pay, are paid or hand back" if plan.quick else "all"
    title = (
        f"Sarafu, January 2020, {whose}: {len(orders):,} transfers of {peers:,} peers in their order, 1,000 a request,"
        f" one in flight; {timed.accepted:,} accepted, the others rightly lacked funds; yearly ticks"
    )
    town.notebook.note(NAME, title, "payments/s", timed.rate())


def outcomes_of(run: Run) -> list[str]:
    """What became of each statement, in the order sent over one connection: `accepted`, or the refusal's code."""
    results = [result for _, answer in run.answers for result in msgpack.unpackb(answer)["results"]]
    return [one["problem"]["code"] if one["status"] == "refused" else one["status"] for one in results]


def expected_outcomes(orders: Sequence[Order]) -> list[str]:
    """What must become of each order, by a plain count of the money of all: who has less than it gives is refused."""
    money: Counter[int] = Counter()
    outcomes = []
    for order in orders:
        given = order.amount + sum(amount for _, amount in order.legs)
        if order.by != STEWARD and money[order.by] < given:
            outcomes.append("insufficient-funds")
            continue
        money[order.by] -= given
        for payee, amount in order.legs:
            money[payee] += amount
        outcomes.append("accepted")
    return outcomes


def demand_same(outcomes: Sequence[str], expected: Sequence[str]) -> None:
    """Raise `NotHeld` where the ledger judged a transfer otherwise than the count does."""
    if len(outcomes) != len(expected):
        raise NotHeld(f"of {len(expected)} transfers of the trace {len(outcomes)} were answered")
    for place, (came, due) in enumerate(zip(outcomes, expected, strict=True)):
        if came != due:
            raise NotHeld(f"transfer {place + 1} of the trace was answered {came}, by the count of money it is {due}")


def orders_of(transfers: Sequence[Transfer]) -> tuple[list[Order], int]:
    """The trace's transfers as orders, its peers numbered in the order in which they appear; and how many there are."""
    numbers: dict[int, int] = {}

    def number(account: int | None) -> int:
        return STEWARD if account is None else numbers.setdefault(account, len(numbers))

    orders = []
    for one in transfers:
        by = number(one.payer)
        if one.payee is None:
            orders.append(Order("retire", by, amount=one.amount))
        else:
            orders.append(Order(one.type, by, ((number(one.payee), one.amount),)))
    return orders, len(numbers)


def of_those_who_pay(transfers: Sequence[Transfer]) -> list[Transfer]:
    """The transfers of accounts that ever pay, are paid or hand back; the others only receive once from the system,
    and nobody's funds depend on them.
    """
    moving = [one for one in transfers if one.type != "issue"]
    active = {account for one in moving for account in (one.payer, one.payee) if account is not None}
    return [one for one in transfers if one.type != "issue" or one.payee in active]

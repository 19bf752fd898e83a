"""The payments group: what one payment costs, in every size of request, for every shape of who pays whom.

Owns the workloads and the order in which they take turns. Every round runs each of them once, on one service and one
commons, so that a noisy minute touches all of them alike; those that are compared with each other (random, Zipf, one
hot account) stand next to each other, in another order each round.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench import disk, mixture, trace_run
from bench.measures import Notebook, Run, percentile
from bench.orders import (
    ZIPF_EXPONENT,
    Order,
    hot_payments,
    many_legged_payments,
    random_payments,
    zipf_payments,
)
from bench.plan import Plan
from bench.stand import Stand
from bench.town import SIGNED_MAX, SPARE, Load, Timed, Town

MEMORY: Final = "memory.service"
LEGS: Final = 100
#: Statements of 100 legs in a request: 4 kB each.
LEGGED_EACH: Final = 25
#: So much of the run's length is sent before its clock starts.
WARM_UP: Final = 0.05
#: Lone payments. Between an answer and the next lone payment: long enough for the service to have gone to sleep.
IDLE: Final = "idle"
IDLE_PAUSE_SECONDS: Final = 0.005
IDLE_WARM_UP: Final = 20
#: Nobody waits longer for the lone payments of one run.
IDLE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Payments of one shape: `each` statements a request over so many connections, each of them of `legs` legs.

    `guess`: how many statements a second are signed for in the first round, in v; later rounds know better.
    """

    name: str
    title: str
    each: int
    connections: int
    guess: float
    draw: Callable[..., list[Order]] = random_payments
    legs: int = 1

    @property
    def unit(self) -> str:
        """What is counted."""
        return "payments/s" if self.legs == 1 else "legs/s"


SINGLES: Final = tuple(
    Workload(
        name=f"pay.one-c{connections}",
        title=f"one payment a request, {connections} connection{'s' if connections > 1 else ''}",
        each=1,
        connections=connections,
        guess=guess,
    )
    for connections, guess in ((1, 0.15), (16, 0.6), (64, 0.8), (256, 0.8))
)
BATCHES: Final = (
    Workload(name="pay.each-1000", title="1,000 payments a request, 4 in flight", each=1_000, connections=4, guess=1.5),
    Workload(name="pay.each-100", title="100 payments a request, 16 in flight", each=100, connections=16, guess=1.5),
    Workload(name="pay.each-10", title="10 payments a request, 64 in flight", each=10, connections=64, guess=1.3),
)
LEGGED: Final = Workload(
    name="pay.legs-100",
    title=f"one signature, {LEGS} legs; {LEGGED_EACH} signatures a request, 4 in flight",
    each=LEGGED_EACH,
    connections=4,
    guess=0.1,
    draw=partial(many_legged_payments, legs=LEGS),
    legs=LEGS,
)
#: Of one shape but for who pays whom, so that they compare.
SHAPES: Final = tuple(
    Workload(name=f"pay.{name}", title=f"1,000 a request, {who}", each=1_000, connections=4, guess=1.5, draw=draw)
    for name, who, draw in (
        ("random", "payer and payee at random", random_payments),
        ("zipf", f"payer and payee by Zipf's law, exponent {ZIPF_EXPONENT}", zipf_payments),
        ("hot", "all to one account", hot_payments),
    )
)


def turns_of(number: int) -> tuple[Workload, ...]:
    """The workloads of a round (from 0 on) in their order; those that compare come first, second and third in turn."""
    turned = number % len(SHAPES)
    return (*BATCHES, *SINGLES, LEGGED, *SHAPES[turned:], *SHAPES[:turned])


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """Measure the whole group on a stand of its own, check every run, and unless it is a quick one have all books
    proven at the end; raises `NotHeld` and `LoadFault`.
    """
    async with Stand.open(url=plan.url, arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        town = await Town.settled(stand, notebook, accounts=plan.accounts)
        try:
            group = _Group(plan, town, tell)
            for number in range(plan.rounds):
                await group.round(number)
            await group.finish()
        finally:
            town.close()
        # Entry by entry from the signatures on takes longer than a short run may; every run was checked by itself.
        if not plan.quick:
            tell("proving the books")
            await stand.prove(notebook, after="all payments")


class _Group:
    """The rounds over one town."""

    def __init__(self, plan: Plan, town: Town, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._town = town
        self._notebook = town.notebook
        self._tell = tell
        #: Statements a second that a workload came to when it last ran.
        self._known: dict[str, float] = {}
        self._disk = disk.Growth(town)

    async def round(self, number: int) -> None:
        """Each workload once."""
        turns: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((workload.name, partial(self._measure, workload)) for workload in turns_of(number)),
            (mixture.NAME, partial(mixture.measure, self._plan, self._town)),
            (trace_run.NAME, partial(trace_run.measure, self._plan, self._town)),
            (IDLE, self._idle),
        ]
        for name, turn in turns:
            if self._plan.wants(name):
                self._tell(f"round {number + 1} of {self._plan.rounds}: {name}")
                await turn()

    async def _measure(self, workload: Workload) -> None:
        """Run it once and note it."""
        if workload.name == disk.WORKLOAD:
            async with self._disk.seen():
                timed = await self._run(workload)
        else:
            timed = await self._run(workload)
        self._notebook.note(workload.name, workload.title, workload.unit, timed.rate(times=workload.legs))

    async def _run(self, workload: Workload) -> Timed:
        """Sign, and let it run."""
        plan, town = self._plan, self._town
        known = self._known.get(workload.name)
        rate = town.v * workload.guess if known is None else known * SPARE
        timed = _requests(rate * plan.seconds, workload.each)
        warm_up = max(workload.connections, _requests(rate * WARM_UP * plan.seconds, workload.each))
        orders = workload.draw(town.draw, (warm_up + timed) * workload.each, accounts=plan.accounts)
        load = Load(
            after=workload.name,
            requests=await town.sign(orders, each=workload.each, span_seconds=plan.seconds),
            warm_up=warm_up,
            connections=workload.connections,
            seconds=plan.seconds,
        )
        seen = await town.time(load)
        self._known[workload.name] = seen.accepted / seen.run.seconds
        return seen

    async def _idle(self) -> None:
        """Lone payments on one connection, the service otherwise idle."""
        town, samples = self._town, self._plan.idle_samples
        orders = random_payments(town.draw, IDLE_WARM_UP + samples, accounts=self._plan.accounts)
        load = Load(
            after=IDLE,
            requests=await town.sign(orders, each=1),
            warm_up=IDLE_WARM_UP,
            connections=1,
            seconds=IDLE_SECONDS,
            pause=IDLE_PAUSE_SECONDS,
        )
        seen = await town.time(load)
        for percent in (50, 99):
            self._notebook.note(
                f"{IDLE}.p{percent}",
                f"latency of a lone payment, p{percent} of {samples}, {IDLE_PAUSE_SECONDS * 1000:.0f} ms between them",
                "ms",
                Run(value=percentile(seen.run.latencies, percent) * 1000, v=None, details=seen.details),
            )

    async def finish(self) -> None:
        """What is known only after all rounds: bytes on disk, and the peak of memory."""
        if self._plan.wants(disk.NAME):
            self._tell("bytes on disk")
            await self._disk.note(self._plan)
        if not self._plan.wants(MEMORY):
            return
        title = "resident memory of the service, its peak over all of this"
        footprint = self._town.stand.memory()
        if footprint is None:
            self._notebook.skip(MEMORY, title, "MiB", "the service is not ours: its processes can't be seen")
            return
        details = {"now_mib": footprint.service.resident, "processes": float(footprint.service.processes)}
        self._notebook.note(MEMORY, title, "MiB", Run(value=footprint.service.peak, details=details))


def _requests(statements: float, each: int) -> int:
    """How many requests of `each` hold so many statements, but no more than are signed at a time; at least one."""
    return max(1, math.ceil(min(statements, SIGNED_MAX) / each))

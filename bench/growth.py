"""The growth group: what a payment costs when the ledger already holds so many entries, up to ten million.

Owns the sizes and the turns. How a ledger is filled is `filling`'s.

1. The accounts are as many as in the payments' group, whatever the size, so that the histories get long and the rates
   compare with that group's.
2. In every round a ledger of ten thousand entries is measured right before the large one, each with a service and a
   PostgreSQL of its own while the other one's rest: a machine that slows down slows both. `of_small` is the large one's
   rate as a part of the small one's, in the same round.
3. A run adds entries, so a ledger is as large as it is called when a run begins, and less than twice that; a new one is
   filled for the next run where it has passed that. Details `entries` tells how many there were.
4. A filled ledger is vacuumed and its readings are made before it is measured: that work is the filling's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg
from msgspec.structs import replace

from bench.filling import Filled, make_readings, open_loader, readings_beside
from bench.measures import Notebook, Run
from bench.orders import random_payments
from bench.plan import Plan
from bench.stand import Stand
from bench.town import SPARE, Load, Town
from gesell_ledger.clock import Clock

SMALL: Final = 10_000
#: Names of measures and how many entries the ledger holds.
SIZES: Final = (("size.10k", SMALL), ("size.100k", 100_000), ("size.1m", 1_000_000), ("size.10m", 10_000_000))
FILL: Final = (
    "fill.rate",
    "entries added by the loader: core and storage without HTTP and verification; readings made beside it",
    "entries/s",
)
EACH: Final = 1_000
CONNECTIONS: Final = 4
#: Of the run's length so much is sent before its clock starts; and how many v are signed for in the first run.
WARM_UP: Final = 0.15
GUESS: Final = 1.5
#: A rate of the loader from fewer entries would be one of starting it.
FILL_MIN: Final = 20_000
#: A VACUUM of ten million entries takes minutes.
SQL_SECONDS: Final = 1_800.0

Tell = Callable[[str], None]


async def measure(plan: Plan, notebook: Notebook, tell: Tell) -> None:
    """Measure every size up to `plan.entries_max`; raises `NotHeld`, `LoadFault` and `Refused`.

    It is noted when all sizes are through, or with the fault that ends it: what was measured until then stands.
    """
    sizes = [(name, size) for name, size in SIZES if size <= plan.entries_max]
    why_not = _why_not(plan, sizes)
    for name, size in SIZES:
        if why_not or (name, size) not in sizes:
            notebook.skip(name, _title(size), "payments/s", why_not or f"the ledger grew to {plan.entries_max:,} only")
    if why_not:
        notebook.skip(*FILL, why_not)
        return
    group = _Group(plan, notebook, tell)
    try:
        # Without a larger one the small ledger is measured by itself.
        for name, size in sizes[1:] or sizes:
            await group.measure(name, size)
    finally:
        await group.close()
        group.note(sizes)


def _why_not(plan: Plan, sizes: list[tuple[str, int]]) -> str:
    """Why nothing is measured, or nothing."""
    if plan.url is not None:
        return "a ledger is filled through its database, and the service is not ours"
    return "" if sizes else f"not asked for: ledgers of at most {plan.entries_max:,} entries"


def _title(size: int) -> str:
    return f"1,000 payments a request, 4 in flight, in a ledger of {size:,} entries"


class Ledger:
    """A service of its own with one commons, filled by the loader. Made by `open_ledger`."""

    def __init__(self, town: Town, plan: Plan) -> None:
        self.town = town
        self.entries = 0
        self._plan = plan

    async def grow_to(self, size: int, tell: Tell) -> Filled | None:
        """Fill up with payments to `size` entries, and leave all at rest; None where there are as many already."""
        town, stand = self.town, self.town.stand
        assert stand.database_dsn is not None
        self.entries = await stand.pass_over(town.commons)
        if self.entries >= size:
            return None
        tell(f"filling a ledger from {self.entries:,} to {size:,} entries")
        async with (
            open_loader(
                stand.database_dsn, ledger=stand.ledger, clock=Clock(), crew=town.crew, commons=town.commons
            ) as loader,
            readings_beside(stand.database_dsn, town.commons),
        ):
            filled = await loader.add_payments(size - self.entries, tell)
        tell("making its readings")
        await make_readings(stand.database_dsn, town.commons)
        await _tidy(stand.database_dsn)
        self.entries = await stand.pass_over(town.commons)
        assert self.entries == size, "the log has what was added"
        return filled

    async def run(self, after: str, *, rate: float) -> Run:
        """One run of payments at random, checked; signed for so many a second."""
        plan, town = self._plan, self.town
        warm_up = max(CONNECTIONS, _requests(rate * WARM_UP * plan.seconds))
        timed = _requests(rate * plan.seconds)
        orders = random_payments(town.draw, (warm_up + timed) * EACH, accounts=plan.accounts)
        load = Load(
            after=after,
            requests=await town.sign(orders, each=EACH, span_seconds=plan.seconds),
            warm_up=warm_up,
            connections=CONNECTIONS,
            seconds=plan.seconds,
        )
        run = (await town.time(load)).rate()
        before = self.entries + warm_up * EACH
        self.entries = before + int(run.details["accepted"])
        return with_details(run, entries=float(before))


@asynccontextmanager
async def open_ledger(plan: Plan, notebook: Notebook) -> AsyncIterator[Ledger]:
    """A new ledger with `plan.accounts` funded accounts and no payments yet."""
    async with Stand.open(arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        town = await Town.settled(stand, notebook, accounts=plan.accounts, name="Growth")
        try:
            yield Ledger(town, plan)
        finally:
            town.close()


def _requests(statements: float) -> int:
    return max(1, round(statements / EACH))


class _Group:
    """All rounds. Keeps the large ledger from one round to the next, and what was measured until all is."""

    def __init__(self, plan: Plan, notebook: Notebook, tell: Tell) -> None:
        self._plan = plan
        self._notebook = notebook
        self._tell = tell
        self._stack = AsyncExitStack()
        self._large: Ledger | None = None
        #: By name of the measure: its runs, and those of the small ledger in the same rounds.
        self._runs: dict[str, list[Run]] = {}
        self._small: dict[str, list[Run]] = {}
        self._filled: list[Run] = []
        self._rate = 0.0

    async def measure(self, name: str, size: int) -> None:
        """All rounds of one size; of the small one by itself where that is the size."""
        for number in range(1, self._plan.rounds + 1):
            self._tell(f"{name}, round {number} of {self._plan.rounds}")
            small = await self._measure_small()
            self._small.setdefault(name, []).append(small)
            if size > SMALL:
                large = await self._ledger_of(size)
                run = await self._run(large, name)
                self._runs.setdefault(name, []).append(with_details(run, of_small=run.value / small.value))

    async def _measure_small(self) -> Run:
        """A run in a small ledger, made for it and gone afterwards."""
        async with open_ledger(self._plan, self._notebook) as small:
            await self._grow(small, SMALL)
            return await self._run(small, SIZES[0][0])

    async def _run(self, ledger: Ledger, name: str) -> Run:
        run = await ledger.run(name, rate=self._rate or ledger.town.v * GUESS)
        self._rate = max(self._rate, run.value * SPARE)
        return run

    async def _ledger_of(self, size: int) -> Ledger:
        """The large ledger with that many entries or up to twice as many (rule 3)."""
        if self._large is not None and self._large.entries >= 2 * size:
            await self.close()
        if self._large is None:
            self._large = await self._stack.enter_async_context(open_ledger(self._plan, self._notebook))
        await self._grow(self._large, size)
        return self._large

    async def _grow(self, ledger: Ledger, size: int) -> None:
        filled = await ledger.grow_to(size, self._tell)
        if filled is not None and filled.entries >= FILL_MIN:
            self._filled.append(Run(value=filled.rate, details={"entries": float(filled.entries)}))

    async def close(self) -> None:
        """The large ledger and its service are gone afterwards."""
        self._large = None
        await self._stack.aclose()

    def note(self, sizes: Sequence[tuple[str, int]]) -> None:
        """Note all runs.

        Those of the small ledger beside the largest come first: who compares two sizes takes their runs in pairs.
        """
        for name, _ in reversed(sizes):
            for run in self._small.get(name, ()):
                self._notebook.note(SIZES[0][0], _title(SMALL), "payments/s", run)
        for name, size in sizes[1:]:
            for run in self._runs.get(name, ()):
                self._notebook.note(name, _title(size), "payments/s", run)
        for run in self._filled:
            self._notebook.note(*FILL, run)
        if not self._filled:
            self._notebook.skip(*FILL, f"no more than {FILL_MIN:,} entries were added at once")


def with_details(run: Run, **details: float) -> Run:
    """The same run with more details."""
    return replace(run, details={**run.details, **details})


async def _tidy(dsn: str) -> None:
    """Vacuum the database and write its pages to disk, so that no run pays for what the filling left to be done."""
    connection = await asyncpg.connect(dsn, command_timeout=SQL_SECONDS)
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()

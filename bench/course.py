"""The course of a whole run: the groups of workloads one after the other, and what happens when one of them fails.

Owns the order and the faults. Knows no workload from within, and writes nothing.

1. A group that fails leaves a check that did not hold, under its name, and the next group goes on: an hour's work is
   not lost because a neighbour hangs up.
2. Where the books do not hold, the run ends: nothing that is measured on such a ledger is worth anything.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from bench import floor, growth, neighbours, payments, profiles, reading, sleep, soak
from bench.measures import Check, Notebook
from bench.plan import GROUPS, Plan
from bench.verdicts import NotHeld

Tell = Callable[[str], None]
Measuring = Callable[[Plan, Notebook, Tell], Awaitable[None]]

_MEASURING: Final[Mapping[str, tuple[Measuring, ...]]] = {
    "floor": (floor.measure,),
    "payments": (payments.measure, profiles.measure),
    "neighbours": (neighbours.measure,),
    "reading": (reading.measure,),
    "growth": (growth.measure,),
    "sleep": (sleep.measure,),
    "soak": (soak.measure,),
}


async def run(plan: Plan, notebook: Notebook, tell: Tell, *, after_each: Callable[[], None]) -> None:
    """Run what the plan asks for; `after_each` is called after every group, with what there is by then noted.

    Raises `NotHeld` where the books do not hold, which is noted, and `CancelledError` if the run is interrupted.
    """
    for group in GROUPS:
        if not plan.asks_for(group):
            continue
        for measuring in _MEASURING[group]:
            tell(f"— {group}")
            await _run_one(group, measuring, plan, notebook, tell)
        after_each()


async def _run_one(group: str, measuring: Measuring, plan: Plan, notebook: Notebook, tell: Tell) -> None:
    try:
        await measuring(plan, notebook, tell)
    except NotHeld:
        raise
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Ctrl-C reaches the service and the signing processes too, and what is seen first is that they went.
            raise asyncio.CancelledError from error
        traceback.print_exc(file=sys.stderr)
        detail = f"{type(error).__name__}: {error}"
        notebook.checks.append(Check(after=f"{group}, which broke off", acknowledged=0, held=False, detail=detail))

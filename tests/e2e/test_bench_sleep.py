"""The sleep group at real services, tiny: a clock set forward, reads of what slept, and a sweep that is looked at.

No figure is judged here: only that each is there, what must be true of it, and that a sweep that missed somebody is
found.
"""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from bench import sleep
from bench.filling import sleeper
from bench.measures import Notebook
from bench.plan import Plan

SLEEPERS = 600
TINY = replace(Plan.short(), accounts=200, sleepers=SLEEPERS, v_seconds=0.05)


async def test_reads_of_accounts_that_slept_ten_years_show_what_the_law_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep, "READS", 40)
    notebook = Notebook()
    await sleep._read_asleep(TINY, notebook, lambda _: None)
    (measure,) = notebook.measures()
    assert (measure.name, measure.unit) == ("asleep.ten-years-http", "ms")
    (run,) = measure.runs
    assert run.value == run.details["p50_ms"] > 0
    assert (notebook.checks[-1].acknowledged, notebook.checks[-1].held) == (40, True)


async def test_sweep_is_timed_until_nobody_sleeps_and_one_who_was_missed_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missed: list[list[str]] = []
    found = sleep.find_missed

    async def spoil_after(connection: asyncpg.Connection, commons: bytes, *, day: int, sleepers: int) -> list[str]:
        faults = await found(connection, commons, day=day, sleepers=sleepers)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "UPDATE gesell.account SET balance = balance + 1 WHERE holder = $1",
            sleeper(commons, 0).public_key,
        )
        missed.append(await found(connection, commons, day=day, sleepers=sleepers))
        await transaction.rollback()
        return faults

    monkeypatch.setattr(sleep, "find_missed", spoil_after)
    monkeypatch.setattr(sleep, "STILL_SECONDS", 0.3)
    notebook = Notebook()
    await sleep._sweep_all(TINY, notebook, lambda _: None)
    (measure,) = notebook.measures()
    assert (measure.name, measure.unit) == ("sweep.million", "accounts/s")
    (run,) = measure.runs
    assert run.details["accounts"] == SLEEPERS
    assert run.value > 0
    assert all(check.held for check in notebook.checks)
    assert [len(faults) for faults in missed] == [1]

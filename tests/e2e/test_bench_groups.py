"""The groups of baselines, readers and memory, whole and tiny, each with a service of its own.

No figure is judged here: only that each is there, that its checks were made, and what must be true of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from bench import floor, reading, soak
from bench.measures import Notebook
from bench.plan import Plan
from bench.stand import Stand
from bench.verdicts import NotHeld

TINY = replace(Plan.short(), accounts=200, seconds=0.2, v_seconds=0.05, listeners=20)


def unheard(line: str) -> None:
    """Progress that nobody reads."""


async def test_floor_measures_every_baseline_and_leaves_nothing_behind() -> None:
    notebook = Notebook()
    await floor.measure(TINY, notebook, unheard)
    found = {one.name: one for one in notebook.measures()}
    assert set(found) == set(floor.MEASURES)
    assert all(one.median > 0 and len(one.runs) == 1 for one in found.values())
    assert found["commit.p50"].median <= found["commit.p99"].median
    assert [check.after for check in notebook.checks] == ["commit", "plain.single", "plain.batch"]
    assert all(check.held and check.acknowledged for check in notebook.checks)


async def test_floor_is_skipped_where_the_database_is_not_ours() -> None:
    notebook = Notebook()
    await floor.measure(replace(TINY, url="http://127.0.0.1:9"), notebook, unheard)
    assert {one.name for one in notebook.measures() if "not ours" in one.why_not} == set(floor.MEASURES)


async def test_reading_measures_reads_and_listeners_and_all_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAYMENTS_MIN", 2_000)
    notebook = Notebook()
    await reading.measure(TINY, notebook, unheard)
    found = {one.name: one for one in notebook.measures()}
    assert set(found) == set(reading.MEASURES)
    assert all(one.median > 0 and one.ratio for one in found.values())
    checked = {check.after: check.acknowledged for check in notebook.checks}
    assert checked["payments to be read"] == 2_000
    assert checked["reads"] > 0
    assert checked["listen.entries"] == checked["listen.entries, heard"] == found["listen.entries"].detail("accepted")
    assert all(check.held for check in notebook.checks)


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("BULKS", 2), ("BULK_EACH", 50), ("SINGLES", 20), ("READS", 20)):
        monkeypatch.setattr(soak, name, count)


@pytest.mark.usefixtures("short_slices")
async def test_a_soak_tells_memory_over_time_and_that_nothing_was_lost() -> None:
    notebook = Notebook()
    await soak.measure(replace(TINY, soak_minutes=0.1), notebook, unheard)
    (growth,) = notebook.measures()
    (run,) = growth.runs
    assert (growth.name, growth.unit) == ("soak.growth", "MiB")
    assert sum(name.startswith("mib_") for name in run.details) > 10
    # Slices are whole: each has so many payments.
    assert run.details["accepted"] > 0
    assert run.details["accepted"] % 120 == 0
    assert [(check.after, check.acknowledged, check.held) for check in notebook.checks] == [
        ("soak", run.details["accepted"], True)
    ]


@pytest.mark.usefixtures("short_slices")
async def test_a_soak_ends_where_the_books_lose_something() -> None:
    """A balance is changed behind the ledger's back while the soak runs."""
    async with Stand.open(v_seconds=0.05) as stand:
        assert stand.database_dsn is not None
        connection = await asyncpg.connect(stand.database_dsn)
        told: list[str] = []
        spoiling: list[asyncio.Task[str]] = []

        def spoil(line: str) -> None:
            told.append(line)
            if len(told) == 2:
                sql = "UPDATE gesell.account SET balance = balance + 1"
                spoiling.append(asyncio.get_running_loop().create_task(connection.execute(sql)))

        try:
            with pytest.raises(NotHeld):
                await soak.soak(stand, Notebook(), spoil, accounts=200, seconds=60)
        finally:
            await connection.close()
        assert spoiling
        assert spoiling[0].done()


async def test_no_soak_is_made_where_none_is_asked_for() -> None:
    notebook = Notebook()
    await soak.measure(TINY, notebook, unheard)
    assert [(one.name, one.why_not) for one in notebook.measures()] == [("soak.growth", "no soak was asked for")]

"""The growth group says why it did not run, and pairs its runs.

Owns the parts without a service; `tests/e2e/test_bench_growth.py` has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench import growth
from bench.driver import LoadFault
from bench.measures import Notebook, Run
from bench.plan import Plan


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (Plan.short(), "not asked for"),
        (replace(Plan.full(), url="http://127.0.0.1:1"), "the service is not ours"),
    ],
    ids=["quick", "not ours"],
)
async def test_every_measure_says_why_there_is_none(plan: Plan, why: str) -> None:
    notebook = Notebook()
    await growth.measure(plan, notebook, lambda _: None)
    names = [name for name, _ in growth.SIZES]
    assert [one.name for one in notebook.measures()] == [*names, "fill.rate"]
    assert all(why in one.why_not and not one.runs for one in notebook.measures())


def test_runs_of_the_small_ledger_beside_the_largest_come_first() -> None:
    notebook = Notebook()
    group = growth._Group(Plan.full(rounds=2), notebook, lambda _: None)
    sizes = growth.SIZES[:3]
    for hundreds, (name, _) in enumerate(sizes[1:], 1):
        group._small[name] = [Run(value=hundreds * 100.0 + number) for number in range(2)]
        group._runs[name] = [Run(value=hundreds * 1_000.0 + number) for number in range(2)]
    group.note(sizes)
    values = {one.name: [run.value for run in one.runs] for one in notebook.measures()}
    assert values["size.10k"] == [200, 201, 100, 101]
    assert values["size.1m"] == [2_000, 2_001]
    assert values["size.100k"] == [1_000, 1_001]


async def test_what_was_measured_before_a_fault_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: Iterator[float] = iter([10.0, 20.0])

    async def small(_: object) -> Run:
        for rate in rates:
            return Run(value=rate)
        raise LoadFault("the service is gone")

    async def large(*_: object) -> Run:
        return Run(value=5.0)

    monkeypatch.setattr(growth._Group, "_measure_small", small)
    monkeypatch.setattr(growth._Group, "_ledger_of", large)
    monkeypatch.setattr(growth._Group, "_run", large)
    notebook = Notebook()
    with pytest.raises(LoadFault):
        await growth.measure(replace(Plan.short(), rounds=3, entries_max=100_000), notebook, lambda _: None)
    found = {one.name: [run.value for run in one.runs] for one in notebook.measures()}
    assert found["size.10k"] == [10.0, 20.0]
    assert found["size.100k"] == [5.0, 5.0]

"""What the growth group notes, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench import growth
from bench.driver import LoadFault
from bench.measures import Notebook, Run
from bench.plan import Plan


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

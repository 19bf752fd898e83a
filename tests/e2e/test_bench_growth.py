"""The growth group at real services, tiny: each size has its runs, each with the small one's beside it.

No figure is judged here: only that each is there, and what must be true of it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import growth
from bench.measures import Notebook
from bench.plan import Plan

ACCOUNTS = 200
SMALL, LARGE = 500, 1_200


async def test_growth_measures_the_large_ledger_beside_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SIZES", (("size.10k", SMALL), ("size.100k", LARGE)))
    monkeypatch.setattr(growth, "SMALL", SMALL)
    monkeypatch.setattr(growth, "FILL_MIN", 700)
    monkeypatch.setattr(growth, "EACH", 100)
    plan = replace(Plan.short(), accounts=ACCOUNTS, seconds=0.1, v_seconds=0.05, entries_max=LARGE)
    notebook = Notebook()
    await growth.measure(plan, notebook, lambda _: None)
    small, large, fill = notebook.measures()
    assert [one.name for one in (small, large, fill)] == ["size.10k", "size.100k", "fill.rate"]
    (first,), (second,) = small.runs, large.runs
    assert SMALL <= first.details["entries"] < second.details["entries"]
    assert second.details["entries"] >= LARGE
    assert second.details["of_small"] == second.value / first.value
    assert min(first.details["accepted"], second.details["accepted"]) > 0
    # Of the two ledgers only the large one was filled with enough to tell a rate.
    assert [run.details["entries"] for run in fill.runs] == [LARGE - 1 - 2 * ACCOUNTS]
    assert all(check.held for check in notebook.checks)
    assert {"size.10k", "size.100k"} <= {check.after for check in notebook.checks}

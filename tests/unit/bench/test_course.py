"""The course of a whole run: what happens to the other groups when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bench import course
from bench.measures import Check, Notebook, Run
from bench.plan import GROUPS, Plan
from bench.verdicts import NotHeld

PLAN = Plan(only=frozenset({"floor", "payments", "growth"}))


def measuring(name: str, error: Exception | None = None) -> course.Measuring:
    """A group that notes one run, and then fails where there is an error for it."""

    async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
        notebook.note(name, name, "ms", Run(value=1.0))
        if error is not None:
            raise error

    return measure


async def run(monkeypatch: pytest.MonkeyPatch, *, failing: Exception | None) -> tuple[Notebook, list[int]]:
    """Run three groups of which `payments`, the second, may fail; the notebook, and what was noted after each."""
    groups = {name: (measuring(name, failing if name == "payments" else None),) for name in GROUPS}
    monkeypatch.setattr(course, "_MEASURING", groups)
    notebook, saved = Notebook(), list[int]()
    try:
        await course.run(PLAN, notebook, print, after_each=lambda: saved.append(len(notebook.measures())))
    except NotHeld:
        saved.append(-1)
    return notebook, saved


def test_every_group_has_something_to_run() -> None:
    assert tuple(course._MEASURING) == GROUPS


async def test_only_the_groups_that_were_asked_for_run_and_each_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, saved = await run(monkeypatch, failing=None)
    assert [measure.name for measure in notebook.measures()] == ["floor", "payments", "growth"]
    assert saved == [1, 2, 3]
    assert notebook.checks == []


async def test_a_group_that_fails_leaves_a_failed_check_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, saved = await run(monkeypatch, failing=OSError("hung up"))
    assert saved == [1, 2, 3]
    assert notebook.checks == [
        Check(after="payments, which broke off", acknowledged=0, held=False, detail="OSError: hung up")
    ]


async def test_where_the_books_do_not_hold_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, saved = await run(monkeypatch, failing=NotHeld("7 are gone"))
    assert saved == [1, -1]
    assert [measure.name for measure in notebook.measures()] == ["floor", "payments"]


async def test_an_interrupt_that_shows_as_another_fault_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise OSError("the service went")

    monkeypatch.setattr(course, "_MEASURING", dict.fromkeys(GROUPS, (hang_up,)))
    notebook = Notebook()
    running = asyncio.create_task(course.run(PLAN, notebook, print, after_each=lambda: None))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert notebook.checks == []

"""The sleep group judges what it timed: another balance than the law says is no figure but a fault.

Owns the parts without a service; `tests/e2e/test_bench_sleep.py` has the rest.
"""

from __future__ import annotations

import msgspec
import pytest

from bench import sleep
from bench.driver import Run as Driven
from bench.measures import Notebook
from bench.verdicts import NotHeld
from gesell_ledger.core.present import present
from gesell_protocol.demurrage import Holding


def test_every_kind_is_timed_and_the_slowest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep, "CALLS", 3)
    notebook = Notebook()
    run = sleep.time_kinds(notebook)
    assert set(run.details) == {f"{name}_ms" for name in sleep.kinds()}
    assert run.value == max(run.details.values()) > 0
    assert [(check.after, check.held) for check in notebook.checks] == [("asleep.ten-years", True)]


def test_every_kind_melts_in_its_sleep() -> None:
    for name, kind in sleep.kinds().items():
        commons = sleep._commons_of(kind)
        shown = present(kind.holding, commons, tick=sleep.FIRST_DAY + sleep.SLEPT, credit_limit=0)
        assert 0 < shown.balance < kind.holding.balance, name


def test_balance_that_is_not_the_laws_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_grain_less(holding: Holding, *rest: object) -> Holding:
        return Holding(holding.balance - 1)

    monkeypatch.setattr(sleep, "melt_by_the_letter", one_grain_less)
    notebook = Notebook()
    with pytest.raises(NotHeld, match="another balance than the law says"):
        sleep.time_kinds(notebook)
    assert [check.held for check in notebook.checks] == [False]


def test_answers_that_show_another_balance_or_none_are_found() -> None:
    def shown(balance: str) -> bytes:
        return msgspec.json.encode({"items": [{"balance": balance}]})

    run = Driven(answers=[(200, shown("85")), (200, shown("86")), (503, b"{}")])
    assert sleep.find_other_balances(run, balance=85) == [
        "86 was shown, the law says 85",
        "status 503 was shown, the law says 85",
    ]

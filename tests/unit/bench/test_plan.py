"""A plan takes what makes sense and says what does not."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan import GROUPS, Plan


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"only": frozenset({"payment"})}, "no group of workloads is called payment"),
        ({"rounds": 0}, "at least one round"),
        ({"seconds": 0.0}, "take time"),
        ({"accounts": 100}, "at least 200 accounts"),
        ({"entries_max": 10_000_001}, "at most 10,000,000 entries"),
        ({"soak_minutes": -1.0}, "no negative length"),
        ({"url": "http://ledger.example", "service_arguments": ("--workers", "2")}, "takes no arguments"),
    ],
)
def test_what_is_out_of_range_is_refused_with_its_reason(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Plan(**fields)


def test_a_full_run_has_three_rounds_and_a_short_one_is_quick() -> None:
    full, short = Plan.full(), Plan.short()
    assert (full.rounds, full.quick, full.entries_max) == (3, False, 10_000_000)
    assert (short.rounds, short.quick, short.entries_max) == (1, True, 0)


def test_groups_and_workloads_are_all_unless_some_are_named() -> None:
    assert all(Plan.full().asks_for(group) for group in GROUPS)
    plan = Plan.short(only=frozenset({"payments"}), workloads=frozenset({"pay.hot"}))
    assert [group for group in GROUPS if plan.asks_for(group)] == ["payments"]
    assert (plan.wants("pay.hot"), plan.wants("mixed")) == (True, False)

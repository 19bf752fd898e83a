"""Two reports side by side: what counts as a gain, a regress, or noise."""

from __future__ import annotations

import pytest

from bench.compare import Judgement, compare, differences
from tests.bench_reports import ABOUT, Runs, good_report, noting, rate

BEFORE = good_report()


def judged(name: str, runs: Runs) -> Judgement:
    changes = compare(noting({name: runs}), BEFORE)
    assert {change.judgement for change in changes if change.name != name} <= {"noise", "not judged"}
    return next(change.judgement for change in changes if change.name == name)


@pytest.mark.parametrize(
    ("name", "runs", "judgement"),
    [
        ("pay.each-1000", (rate(9_100), rate(9_200), rate(9_300)), "noise"),
        ("pay.each-1000", (rate(8_000), rate(8_000), rate(8_000)), "regress"),
        ("pay.each-1000", (rate(10_500), rate(10_500), rate(10_500)), "gain"),
        # One of the new runs reaches the old ones.
        ("pay.each-1000", (rate(8_000), rate(8_000), rate(9_150)), "noise"),
        # Twice as fast on a machine twice as fast is the same.
        ("pay.each-1000", tuple(rate(18_400, v=20_000) for _ in range(3)), "noise"),
        # Run once on both sides: a fifth says nothing, a half does.
        ("pay.each-10", (rate(3_200),), "noise"),
        ("pay.each-10", (rate(2_000),), "regress"),
        # Less is better.
        ("idle.p99", (20.0, 20.0, 20.0), "regress"),
        ("idle.p99", (5.0, 5.0, 5.0), "gain"),
        ("disk.payment", (900.0,), "regress"),
        # Almost nothing, twice, is still almost nothing.
        ("soak.growth", (3.5,), "noise"),
        ("soak.growth", (40.0,), "regress"),
        # The machine's and others' speed.
        ("plain.single", (rate(100), rate(100), rate(100)), "not judged"),
        ("commit.p50", (90.0, 90.0, 90.0), "not judged"),
    ],
)
def test_a_difference_counts_when_the_two_ranges_do_not_meet(name: str, runs: Runs, judgement: Judgement) -> None:
    assert judged(name, runs) == judgement


def test_a_report_does_not_differ_from_itself() -> None:
    assert {change.factor for change in compare(BEFORE, BEFORE)} == {1.0}
    assert differences(BEFORE, BEFORE) == ()


def test_only_what_ran_on_both_sides_is_compared() -> None:
    names = [change.name for change in compare(noting(without=["pay.hot"]), noting(without=["pay.random"]))]
    assert "pay.each-1000" in names
    assert not {"pay.hot", "pay.random", "tigerbeetle.transfers"} & set(names)


def test_nothing_is_judged_between_a_quick_run_and_a_full_one() -> None:
    quick = noting({"pay.each-1000": (rate(1),)}, arguments={"quick": True})
    assert {change.judgement for change in compare(quick, BEFORE)} == {"not judged"}
    assert len(differences(quick, BEFORE)) == 1


def test_between_machines_only_ratios_to_v_are_judged() -> None:
    other = noting({"pay.each-1000": (rate(1),), "idle.p99": (500.0,)}, machine={**ABOUT["machine"], "cpu": "Another"})
    changes = {change.name: change for change in compare(other, BEFORE)}
    assert changes["pay.each-1000"].judgement == "regress"
    assert changes["idle.p99"].judgement == "not judged"
    assert len(differences(other, BEFORE)) == 1

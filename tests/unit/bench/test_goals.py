"""Each goal of the house, met, not met and not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from bench.goals import judge_all
from bench.measures import Notebook, Run
from tests.bench_reports import Runs, good_report, noting, rate

#: The goals in the order of the house's table: part of a title, and for each the runs that just miss it.
MISSES: Final[tuple[tuple[str, Mapping[str, Runs]], ...]] = (
    ("1,000 a request", {"pay.each-1000": (rate(8_900), rate(8_990), rate(9_300))}),
    ("64 connections", {"pay.one-c64": (rate(3_400), rate(3_490), rate(3_800))}),
    ("100 legs", {"pay.legs-100": (rate(39_000), rate(39_990), rate(50_000))}),
    # The medians of the two are alike; round by round the hot account is slower.
    ("hot account", {"pay.hot": (rate(8_500), rate(6_000), rate(8_600))}),
    ("10 million entries", {"size.10m": (rate(8_000), rate(8_090), rate(9_000))}),
    ("the plain way", {"plain.single": (rate(3_070), rate(3_070), rate(3_070))}),
    ("sweep of 1 million", {"sweep.million": (rate(19_990, accounts=1e6),)}),
    ("slept 10 years", {"asleep.ten-years": (1.01,)}),
    ("latency of one payment", {"idle.p50": (4.2,)}),
    ("bytes on disk", {"disk.payment": (601.0,)}),
    ("resident memory", {"memory.service": (238.5,)}),
)


def test_every_goal_of_a_good_report_is_met() -> None:
    verdicts = judge_all(good_report())
    assert [verdict.state for verdict in verdicts] == ["met"] * 11
    assert all(verdict.figure and verdict.asked for verdict in verdicts)


@pytest.mark.parametrize(("place", "miss"), list(enumerate(MISSES)), ids=[title for title, _ in MISSES])
def test_a_goal_that_is_just_missed_is_not_met_and_no_other_changes(
    place: int, miss: tuple[str, Mapping[str, Runs]]
) -> None:
    title, replaced = miss
    verdicts = judge_all(noting(replaced))
    assert title in verdicts[place].title
    assert [verdict.state for verdict in verdicts].count("not met") == 1
    assert verdicts[place].state == "not met"


def test_the_second_parts_of_goals_count_too() -> None:
    for replaced in ({"idle.p99": (14.2,)}, {"soak.growth": (Run(value=5.1, details={"minutes": 61.0}),)}):
        assert [verdict.state for verdict in judge_all(noting(replaced))].count("not met") == 1


def test_a_bad_part_is_not_excused_by_one_that_is_missing() -> None:
    memory = judge_all(noting({"memory.service": (300.0,)}, without=["soak.growth"]))[-1]
    assert memory.state == "not met"


def test_the_peak_of_a_soak_counts_as_well() -> None:
    soaked = Run(value=0.0, details={"minutes": 61.0, "service_mib": 260.0})
    assert judge_all(noting({"soak.growth": (soaked,)}))[-1].state == "not met"


def test_nothing_measured_meets_no_goal_and_misses_none() -> None:
    verdicts = judge_all(Notebook().report({}))
    assert {verdict.state for verdict in verdicts} == {"not measured"}
    assert all(verdict.why_not for verdict in verdicts)


@pytest.mark.parametrize(
    ("replaced", "without", "place", "why"),
    [
        ({}, ["size.10m"], 4, "size.10m: did not run"),
        ({"sweep.million": (rate(50_000, accounts=20_000),)}, [], 6, "only 20,000 accounts"),
        ({}, ["commit.p99"], 8, "commit.p99: did not run"),
        ({}, ["soak.growth"], 10, "soak.growth: did not run"),
        ({"soak.growth": (Run(value=0.0, details={"minutes": 5.0}),)}, [], 10, "60 minutes"),
        ({"pay.each-1000": (9_500.0,)}, [], 0, "v was not measured"),
    ],
)
def test_what_can_not_be_said_is_not_measured_and_says_why(
    replaced: Mapping[str, Runs], without: list[str], place: int, why: str
) -> None:
    verdict = judge_all(noting(replaced, without=without))[place]
    assert (verdict.state, why in verdict.why_not) == ("not measured", True), verdict


def test_the_reason_that_a_workload_gave_is_told() -> None:
    notebook = Notebook()
    notebook.skip("disk.payment", "bytes on disk", "bytes", "the service is not ours")
    assert judge_all(notebook.report({}))[9].why_not == "disk.payment: the service is not ours"

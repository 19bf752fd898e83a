"""The goals that the ledger is to reach, each held against what a run of the harness measured.

Owns the list of goals, their bounds, and by which measures, found by name, each is judged. Measures nothing, shows
nothing.

1. A goal is met, not met, or not measured; the last says why, and is never taken for either of the others.
2. Of two measures that ran in turns, the ratio is taken within each round, and the median of these counts.
3. A goal of two parts is not met as soon as one part is not, and met only when both are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from bench.measures import Measure, Report
from bench.wording import figure_of

State = Literal["met", "not met", "not measured"]

#: A mebibyte, in which memory is measured, in megabytes, in which the goal is stated.
MB_IN_A_MIB: Final = 1.048_576
MEMORY_MB: Final = 250
#: What the resident memory may gain over a soak and still count as not growing: an allocator's ups and downs.
GROWTH_MIB: Final = 5.0
#: A shorter soak may show that memory grows, not that it does not.
SOAK_MINUTES: Final = 60
SWEPT_ACCOUNTS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one goal stands: what was asked, the figure that was measured ("" where none was), and why not."""

    title: str
    asked: str
    figure: str
    state: State
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What one judge found: the figure, whether it is good enough (None: can't be said), and then why."""

    figure: str
    met: bool | None
    why_not: str = ""


_Judge = Callable[[Report], _Found]


@dataclass(frozen=True, slots=True)
class _Goal:
    title: str
    asked: str
    judge: _Judge


def judge_all(report: Report) -> tuple[Verdict, ...]:
    """Hold every goal against a report, in the order of the house's table."""
    return tuple(_judge(goal, report) for goal in _GOALS)


def _judge(goal: _Goal, report: Report) -> Verdict:
    found = goal.judge(report)
    state: State = "not measured" if found.met is None else "met" if found.met else "not met"
    return Verdict(title=goal.title, asked=goal.asked, figure=found.figure, state=state, why_not=found.why_not)


# ── The ways to judge ────────────────────────────────────────────────────────────────────────────────────────────


def _in_v(name: str, least: float) -> _Judge:
    """A rate, as a part of v."""

    def judge(report: Report) -> _Found:
        measure = report.find(name)
        if measure is None:
            return _nothing(report, name)
        if measure.ratio is None:
            return _Found(_amount(measure), None, "v was not measured beside it")
        return _Found(f"{measure.ratio:.3f} v ({_amount(measure)})", measure.ratio >= least)

    return judge


def _in_turns(name: str, other: str, least: float) -> _Judge:
    """One rate against another, in the rounds that have both."""

    def judge(report: Report) -> _Found:
        ours, theirs = report.find(name), report.find(other)
        if ours is None or theirs is None:
            return _nothing(report, name, other)
        rounds = [one.value / two.value for one, two in zip(ours.runs, theirs.runs, strict=False)]
        between = f", between {min(rounds):.3f} and {max(rounds):.3f}" if len(rounds) > 1 else ""
        return _Found(
            f"{median(rounds):.3f}{between} ({_amount(ours)} beside {_amount(theirs)})", median(rounds) >= least
        )

    return judge


def _against_the_plain_way(report: Report) -> _Found:
    ours, plain = report.find("pay.each-1000"), report.find("plain.single")
    if ours is None or plain is None:
        return _nothing(report, "pay.each-1000", "plain.single")
    times = ours.median / plain.median
    return _Found(f"{times:.2f} times ({_amount(ours)} beside {_amount(plain)})", times >= 3)


def _sweep(report: Report) -> _Found:
    measure = report.find("sweep.million")
    if measure is None:
        return _nothing(report, "sweep.million")
    accounts = measure.detail("accounts")
    if accounts is not None and accounts < SWEPT_ACCOUNTS:
        return _Found(_amount(measure), None, f"only {accounts:,.0f} accounts were swept")
    return _Found(_amount(measure), measure.median >= 20_000)


def _latency(report: Report) -> _Found:
    """A lone payment's median and 99th percentile against a lone commit's, each with its allowance."""
    names = ("idle.p50", "commit.p50", "idle.p99", "commit.p99")
    found = [report.find(name) for name in names]
    if any(measure is None for measure in found):
        return _nothing(report, *names)
    p50, commit_p50, p99, commit_p99 = (measure.median for measure in found if measure is not None)
    figure = (
        f"p50 {p50:.2f} ms, a commit {commit_p50:.2f} + {p50 - commit_p50:.2f}; "
        f"p99 {p99:.2f} ms, a commit {commit_p99:.2f} + {p99 - commit_p99:.2f}"
    )
    return _Found(figure, p50 <= commit_p50 + 3 and p99 <= commit_p99 + 10)


def _at_most(name: str, most: float) -> _Judge:
    """A figure that is to be at most so large."""

    def judge(report: Report) -> _Found:
        measure = report.find(name)
        if measure is None:
            return _nothing(report, name)
        return _Found(_amount(measure), measure.median <= most)

    return judge


def _memory(report: Report) -> _Found:
    """The peak, and the growth over a soak: a peak that is too high is a goal not met, whatever the soak says."""
    peak, soak = report.find("memory.service"), report.find("soak.growth")
    if peak is None:
        return _nothing(report, "memory.service")
    megabytes = max(peak.high, (soak and soak.detail("service_mib")) or 0.0) * MB_IN_A_MIB
    figure = f"{megabytes:.0f} MB at most"
    if soak is None:
        unknown = f"whether it grows: {_nothing(report, 'soak.growth').why_not}"
        return _Found(figure, None, unknown) if megabytes <= MEMORY_MB else _Found(figure, False)
    minutes = soak.detail("minutes") or 0.0
    figure += f"; {soak.median:+.1f} MiB in a soak of {minutes:.0f} minutes"
    if megabytes > MEMORY_MB or soak.median > GROWTH_MIB:
        return _Found(figure, False)
    if minutes < SOAK_MINUTES:
        return _Found(figure, None, f"whether it grows takes a soak of {SOAK_MINUTES} minutes to tell")
    return _Found(figure, True)


def _nothing(report: Report, *names: str) -> _Found:
    """What to say of measures of which at least one has no runs: the reason given, or that its group did not run."""
    why = []
    for name in names:
        if report.find(name) is None:
            reasons = [one.why_not for one in report.measures if one.name == name and one.why_not]
            why.append(f"{name}: {reasons[0] if reasons else 'did not run'}")
    return _Found("", None, "; ".join(why))


def _amount(measure: Measure) -> str:
    return f"{figure_of(measure.median)} {measure.unit}"


_GOALS: Final = (
    _Goal(
        "signed payments, one per statement, 1,000 a request, durable before the answer",
        "≥ 0.9 v per second",
        _in_v("pay.each-1000", 0.9),
    ),
    _Goal("signed payments, one per request, 64 connections", "≥ 0.35 v", _in_v("pay.one-c64", 0.35)),
    _Goal("one signature, 100 legs", "≥ 4 v legs per second", _in_v("pay.legs-100", 4.0)),
    _Goal(
        "all payments to one hot account",
        "≥ 0.95 of random accounts",
        _in_turns("pay.hot", "pay.random", 0.95),
    ),
    _Goal(
        "10 million entries in the ledger against 10 thousand",
        "≥ 0.9 of the throughput",
        _in_turns("size.10m", "size.10k", 0.9),
    ),
    _Goal(
        "against the plain way: one transaction a payment in SQL, same PostgreSQL, 32 connections, no signatures",
        "≥ 3 times",
        _against_the_plain_way,
    ),
    _Goal("sweep of 1 million idle accounts", "≥ 20,000 accounts a second", _sweep),
    _Goal(
        "effective balance of an account that slept 10 years of daily ticks", "≤ 1 ms", _at_most("asleep.ten-years", 1)
    ),
    _Goal(
        "latency of one payment on an idle service, p50 / p99",
        "≤ one commit + 3 ms / + 10 ms",
        _latency,
    ),
    _Goal("bytes on disk a payment, all indexes", "≤ 600", _at_most("disk.payment", 600)),
    _Goal(
        "resident memory of the service under full load",
        f"≤ {MEMORY_MB} MB, not growing",
        _memory,
    ),
)

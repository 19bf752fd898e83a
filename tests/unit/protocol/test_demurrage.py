"""The law of demurrage, three times: as the ledger runs it, as it is written, and as money in first-in-first-out lots.

A history here is a list of things that happen to one account. `Purse` plays it with `melt` and `receive`, touching the
account only when something happens; the other two opinions must give the same balance to the grain.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.demurrage import (
    INFLOW_MAX,
    INFLOW_REASONS,
    Holding,
    fee_of,
    melt,
    melt_by_the_letter,
    melts,
    receive,
)
from gesell_protocol.policy import PPB, Policy, Timeline
from tests.plain_model import melt_lots

Brackets = tuple[tuple[int, int], ...]
BASE = Policy(
    tick_seconds=3600,
    rest_ticks=0,
    brackets=((0, 20_000_000),),
    melt_to="pool",
    admission="open",
    credit_limit=0,
    vouch_min=1,
    visibility="open",
    notice_ticks=0,
)

rates = st.sampled_from([0, 1, 673_197, 20_000_000, 300_000_000, PPB - 1, PPB]) | st.integers(0, PPB)


def _ascending(upper: list[tuple[int, int]], first: int) -> Brackets:
    return ((0, first), *sorted(upper))


brackets_of = st.builds(
    _ascending, st.lists(st.tuples(st.integers(1, 4_000), rates), max_size=4, unique_by=lambda pair: pair[0]), rates
)
policies_of = st.builds(
    lambda rest, brackets: replace(BASE, rest_ticks=rest, brackets=brackets),
    st.sampled_from([0, 0, 1, 2, 3, 7, 20]),
    brackets_of,
)
timelines_of = st.builds(
    lambda first, later: Timeline.of([(0, first), *later]),
    policies_of,
    st.lists(st.tuples(st.integers(1, 40), policies_of), max_size=6),
)
steps_of = st.lists(
    st.tuples(
        st.sampled_from(["in", "in", "out", "back", "hold", "void", "capture", "wait", "wait"]),
        st.integers(1, 5_000),
    ),
    max_size=30,
)
thorough = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Purse:
    """One account and what happens to it; `holding` is touched only then, `events` are for the lots."""

    def __init__(self, timeline: Timeline, law: Any = melt) -> None:
        self.timeline, self.law = timeline, law
        self.holding = Holding()
        self.tick = 0
        self.events: list[tuple[int, int, bool]] = []

    def do(self, kind: str, amount: int) -> None:
        if kind == "wait":
            self.tick += 1 + amount % (40 if amount % 5 == 0 else 9)
            return
        self.read()
        balance, escrow, tick, inflows = self.holding.balance, self.holding.escrow, self.tick, self.holding.inflows
        if kind == "in":
            self.holding = receive(self.holding, amount, self.timeline)
        elif kind in ("out", "back"):
            moved = amount if kind == "back" else -amount
            self.holding = Holding(balance + moved, escrow, tick, inflows)
        else:
            moved = amount if kind == "hold" else -min(amount, escrow)
            kept = 0 if kind == "capture" else moved
            self.holding = Holding(balance - kept, escrow + moved, tick, inflows)
            amount = -moved
        if kind not in ("hold", "void"):
            self.events.append((tick, amount if kind in ("in", "back") else -amount, kind == "in"))

    def read(self) -> Holding:
        """Touch the account at the tick that it is."""
        self.holding = self.law(self.holding, self.timeline, self.tick)
        return self.holding


def lots_of(purse: Purse) -> int:
    policies = [(start, policy.rest_ticks, policy.brackets) for start, policy in purse.timeline.changes]
    return melt_lots(purse.events, policies, purse.tick - 1) - purse.holding.escrow


@given(timelines_of, steps_of, st.integers(0, 40))
@thorough
def test_lazy_law_equals_the_law_by_the_letter_and_money_in_lots(
    timeline: Timeline, steps: list[tuple[str, int]], rest: int
) -> None:
    lazy, eager = Purse(timeline), Purse(timeline, law=melt_by_the_letter)
    for kind, amount in [*steps, ("wait", rest)]:
        lazy.do(kind, amount)
        eager.do(kind, amount)
        assert lazy.holding == eager.holding
    assert lazy.read() == eager.read()
    assert lazy.holding.balance == lots_of(lazy)


@given(timelines_of, steps_of, st.lists(st.integers(0, 30), max_size=30))
@thorough
def test_reading_or_sweeping_at_any_moment_changes_no_later_balance(
    timeline: Timeline, steps: list[tuple[str, int]], glances: list[int]
) -> None:
    left_alone, swept = Purse(timeline), Purse(timeline)
    for place, (kind, amount) in enumerate(steps):
        left_alone.do(kind, amount)
        swept.do(kind, amount)
        if place in glances:
            swept.read()
            # A look into the future is no touch at all.
            melt(swept.holding, timeline, swept.tick + 17)
    left_alone.tick = swept.tick = swept.tick + 5
    assert left_alone.read() == swept.read()


@given(timelines_of, steps_of, st.integers(0, 40))
@thorough
def test_something_is_due_exactly_where_something_melts(
    timeline: Timeline, steps: list[tuple[str, int]], rest: int
) -> None:
    purse = Purse(timeline)
    for kind, amount in steps:
        purse.do(kind, amount)
        for tick in (purse.tick, purse.tick + rest):
            due = melt_by_the_letter(purse.holding, timeline, tick).balance < purse.holding.balance
            assert melts(purse.holding, timeline, tick) == due


@given(timelines_of, steps_of)
@thorough
def test_fee_is_never_negative_and_never_more_than_the_still_money(
    timeline: Timeline, steps: list[tuple[str, int]]
) -> None:
    purse = Purse(timeline)
    for kind, amount in steps:
        purse.do(kind, amount)
        before = purse.read()
        after = melt(before, timeline, purse.tick + 1)
        fee = before.balance - after.balance
        start = timeline.window_start(purse.tick)
        fresh = sum(grains for tick, grains in before.inflows if tick >= start)
        assert 0 <= fee <= max(0, before.balance + before.escrow - fresh)


@given(st.integers(0, 3 * BALANCE_MAX), brackets_of)
@thorough
def test_fee_is_the_floored_sum_of_the_brackets(still: int, brackets: Brackets) -> None:
    fee = fee_of(still, replace(BASE, brackets=brackets))
    expected = 0
    for (low, ppb), high in zip(brackets, [*(low for low, _ in brackets[1:]), still], strict=True):
        expected += max(0, min(still, high) - low) * ppb // PPB
    assert fee == expected
    assert 0 <= fee <= still


@given(
    st.integers(0, BALANCE_MAX),
    st.integers(0, BALANCE_MAX),
    st.integers(0, 600),
    brackets_of,
    st.integers(0, 1_000_000),
)
@settings(max_examples=150, deadline=None)
def test_long_sleep_at_any_size_equals_the_law_by_the_letter(
    balance: int, escrow: int, ticks: int, brackets: Brackets, since: int
) -> None:
    timeline = Timeline.of([(0, replace(BASE, brackets=brackets))])
    asleep = Holding(balance, escrow, since, ())
    assert melt(asleep, timeline, since + ticks) == melt_by_the_letter(asleep, timeline, since + ticks)


EXTREME: dict[str, tuple[int, int, Brackets]] = {
    "the largest balance, 2 % a month in days": (BALANCE_MAX, 3_650, ((0, 673_197),)),
    "the largest balance, one part in a billion": (BALANCE_MAX, 3_650, ((0, 1),)),
    "the largest balance, all of it at once": (BALANCE_MAX, 3_650, ((0, PPB),)),
    "the largest balance, all but a billionth": (BALANCE_MAX, 3_650, ((0, PPB - 1),)),
    "a small balance whose fee is the same for years": (1_000_000, 3_650, ((0, 1_500),)),
    "dust, whose fee is nothing": (999, 3_650, ((0, 1_000_000),)),
    "a free allowance below": (BALANCE_MAX, 3_650, ((0, 0), (10**9, 673_197))),
    "free above": (10**15, 3_650, ((0, 673_197), (10**9, 0))),
    "sixteen brackets": (10**12, 3_650, tuple((n * 10**10, n * 10**6) for n in range(16))),
    "just above where runs of equal fees are gone through one by one": (2_206_651, 3_650, ((0, 673_197),)),
    "a small part above a full bracket": (10**9 + 40_000, 3_650, ((0, 5_000), (10**9, 673_197))),
    "out of a bracket in the midst of a long loop": (10**9 + 10**8, 3_650, ((0, 20_000_000), (10**9, 30_000_000))),
    "a bracket as narrow as a grain": (5_000, 3_650, ((0, 10**8), (1, 0), (2, 10**7), (4_999, PPB))),
}


@pytest.mark.parametrize(("balance", "ticks", "brackets"), EXTREME.values(), ids=EXTREME)
def test_ten_years_of_days_equal_the_law_by_the_letter(balance: int, ticks: int, brackets: Brackets) -> None:
    timeline = Timeline.of([(0, replace(BASE, brackets=brackets))])
    for held in (
        Holding(balance, 0, 20_000, ()),
        Holding(-balance, 2 * balance, 20_000, ()),
        Holding(7, balance, 1, ()),
    ):
        assert melt(held, timeline, held.tick + ticks) == melt_by_the_letter(held, timeline, held.tick + ticks)


def test_one_part_in_a_billion_of_the_largest_balance_melts_as_computed_by_hand() -> None:
    timeline = Timeline.of([(0, replace(BASE, brackets=((0, 1),)))])
    # 10^18 · 10^-9 = 10^9; then (10^18 - 10^9) · 10^-9 = 999,999,999 exactly.
    assert melt(Holding(BALANCE_MAX, 0, 0, ()), timeline, 2).balance == BALANCE_MAX - 10**9 - 999_999_999


def test_two_percent_of_a_hundred_melts_as_computed_by_hand() -> None:
    timeline = Timeline.of([(0, BASE)])
    # 100 → 98 → 97 (1.96) → 96 (1.94) … → 50 (0.98 of 49 is no grain): 49 stays for ever.
    assert [melt(Holding(100, 0, 5, ()), timeline, 5 + n).balance for n in (0, 1, 2, 3)] == [100, 98, 97, 96]
    assert melt(Holding(100, 0, 5, ()), timeline, 10_000).balance == 49


def test_tick_that_has_passed_changes_nothing() -> None:
    held = Holding(100, 5, 10, ((9, 50),))
    timeline = Timeline.of([(0, BASE)])
    for tick in (10, 9, 0):
        assert melt(held, timeline, tick) == held == melt_by_the_letter(held, timeline, tick)


def test_debt_does_not_melt_but_what_lies_in_escrow_does_out_of_the_balance() -> None:
    timeline = Timeline.of([(0, BASE)])
    assert melt(Holding(-100, 0, 0, ()), timeline, 50).balance == -100
    assert melt(Holding(0, 100, 0, ()), timeline, 1).balance == -2
    assert melt(Holding(-60, 100, 0, ()), timeline, 10).balance == -60


def test_window_never_moves_back_when_a_policy_lengthens_the_rest() -> None:
    timeline = Timeline.of([(0, BASE), (5, replace(BASE, rest_ticks=30))])
    assert [timeline.window_start(tick) for tick in (3, 4, 5, 20, 33, 34, 35)] == [4, 5, 5, 5, 5, 5, 6]
    old = receive(Holding(0, 0, 4, ()), 100, timeline)
    assert melt(old, timeline, 6).balance == 97
    fresh = receive(Holding(0, 0, 5, ()), 100, timeline)
    assert [melt(fresh, timeline, tick).balance for tick in (6, 35, 36)] == [100, 100, 98]


def test_window_never_moves_back_over_several_policies_that_one_sleep_passes() -> None:
    rests = ((0, 5), (4, 0), (5, 10), (7, 20))
    timeline = Timeline.of([(start, replace(BASE, rest_ticks=rest)) for start, rest in rests])
    asleep = receive(Holding(0, 0, 3, ()), 1_000, timeline)
    # The end of tick 4, with no rest, makes the money of tick 3 old for good: 1000 → 980 → 961 → 942 → 924.
    assert [melt(asleep, timeline, tick).balance for tick in (4, 5, 6, 7, 8)] == [1_000, 980, 961, 942, 924]
    assert melt(asleep, timeline, 40) == melt_by_the_letter(asleep, timeline, 40)


@given(timelines_of, st.integers(0, 80))
@thorough
def test_window_start_is_the_recurrence_of_the_law(timeline: Timeline, last: int) -> None:
    start = 0
    for tick in range(last + 1):
        start = max(start, tick - timeline.policy_at(tick).rest_ticks + 1)
        assert timeline.window_start(tick) == start


def _walked_window_start(timeline: Timeline, tick: int) -> int:
    """Where the window starts, by a walk through all policies that were ever in force: what `window_start` once did."""
    return max([0, *(to - policy.rest_ticks + 1 for _, to, policy in timeline.segments(0, tick))])


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, 1, 2, 7, 20, 366])), max_size=12),
    st.lists(st.integers(0, 12)),
    st.integers(0, 400),
)
@thorough
def test_window_start_is_that_of_a_walk_in_whatever_order_the_policies_came(
    changes: list[tuple[int, int]], cuts: list[int], tick: int
) -> None:
    told = [(0, BASE), *((start, replace(BASE, rest_ticks=rest)) for start, rest in changes)]
    bounds = [0, 1, *sorted(1 + cut for cut in cuts), len(told)]
    timeline = Timeline()
    for begin, end in pairwise(bounds):
        timeline = timeline.with_changes(told[begin:end])
        if timeline.changes:
            assert timeline.window_start(tick) == _walked_window_start(timeline, tick)
    assert timeline == Timeline.of(told)
    assert [timeline.window_start(at) for at in range(60)] == [_walked_window_start(timeline, at) for at in range(60)]


def test_window_start_walks_through_no_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = Timeline.of([(start, replace(BASE, rest_ticks=start % 7)) for start in range(1_000)])
    expected = _walked_window_start(timeline, 990)
    monkeypatch.delattr(Timeline, "segments")
    assert timeline.window_start(990) == expected


def test_what_counts_as_inflow_is_what_the_specification_lists() -> None:
    assert {"issue", "pay", "grant", "capture", "settle", "share"} == INFLOW_REASONS


# ── The timeline of policies ─────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 366)), max_size=8), st.integers(0, 25))
def test_policy_in_force_is_the_latest_entry_of_the_greatest_from_tick(
    changes: list[tuple[int, int]], tick: int
) -> None:
    told = [(0, BASE), *((start, replace(BASE, rest_ticks=rest)) for start, rest in changes)]
    timeline = Timeline.of(told[:1])
    for start, policy in told[1:]:
        timeline = timeline.with_change(start, policy)
    assert timeline == Timeline.of(told)
    greatest = max(start for start, _ in told if start <= tick)
    assert timeline.policy_at(tick) == [policy for start, policy in told if start == greatest][-1]
    assert {start for start, _ in timeline.waiting(tick)} == {start for start, _ in told if start > tick}


@given(timelines_of, st.integers(0, 70), st.integers(0, 70))
def test_segments_cover_every_tick_once_under_its_policy(timeline: Timeline, first: int, length: int) -> None:
    last = first + length
    covered = [
        (tick, policy) for begin, end, policy in timeline.segments(first, last) for tick in range(begin, end + 1)
    ]
    assert covered == [(tick, timeline.policy_at(tick)) for tick in range(first, last + 1)]


@given(st.integers(1, 31_536_000), st.integers(0, 2**50))
def test_tick_is_the_floor_of_time_over_its_length(tick_seconds: int, at_ms: int) -> None:
    tick = replace(BASE, tick_seconds=tick_seconds).tick_of(at_ms)
    assert tick * tick_seconds * 1000 <= at_ms < (tick + 1) * tick_seconds * 1000


def test_inflow_beyond_the_bound_melts_as_if_all_of_it_were_remembered() -> None:
    """Money that goes round within a tick passes 64 bits; what is kept of it must neither, nor change a fee."""
    policy = Policy(
        tick_seconds=3600,
        rest_ticks=2,
        brackets=((0, 50_000_000),),
        melt_to="pool",
        admission="open",
        credit_limit=0,
        vouch_min=1,
        visibility="open",
        notice_ticks=0,
    )
    timeline = Timeline.of([(0, policy)])
    kept, plain = Holding(tick=5), 0
    for _ in range(6):
        kept = receive(kept, 10**18, timeline)._replace(balance=10**18)
        plain += 10**18
    assert kept.inflows[0][1] == INFLOW_MAX < plain
    all_of_it = kept._replace(inflows=((5, plain),))
    for tick in range(5, 12):
        assert melt(kept, timeline, tick).balance == melt(all_of_it, timeline, tick).balance
        assert melt_by_the_letter(kept, timeline, tick).balance == melt(kept, timeline, tick).balance

"""The watch over the clock, with clocks in the tests' hands: nothing here waits."""

from __future__ import annotations

import time

import pytest

from gesell_ledger import clock as clocks
from gesell_ledger.clock import ABSENCE_MS, JUMP_MS, Clock, DemoClock, clock_of
from gesell_ledger.storage.faults import ClockFault

NOON = 1_800_000_000_000
DAY = 86_400_000
CONFIRM = "gesell serve --accept-clock"


class Hands:
    """A wall clock and a steady clock that a test moves; `boot` is where the steady one began."""

    def __init__(self, *, wall: int = NOON, boot: int = 5_000) -> None:
        self.wall = wall
        self.steady = boot

    def pass_time(self, ms: int, *, wall: int | None = None) -> None:
        """Let `ms` pass on the steady clock, and `wall` (the same unless told) on the wall clock."""
        self.steady += ms
        self.wall += ms if wall is None else wall

    def clock(self) -> Clock:
        return Clock(wall_ms=lambda: self.wall, steady_ms=lambda: self.steady)


@pytest.fixture
def hands() -> Hands:
    return Hands()


# ── A real clock that runs ───────────────────────────────────────────────────────────────────────────────────────


def test_time_is_the_wall_clocks(hands: Hands) -> None:
    clock = hands.clock()
    hands.pass_time(1_234)
    assert clock.now_ms() == clock.look() == NOON + 1_234
    assert clock.fault is None
    assert (clock.speed, clock.demo) == (1, False)


@pytest.mark.parametrize("jump", [JUMP_MS + 1, -JUMP_MS - 1, 40 * DAY, -40 * DAY])
def test_a_jump_of_more_than_a_minute_stops_the_writing(hands: Hands, jump: int) -> None:
    clock = hands.clock()
    hands.pass_time(1_000, wall=1_000 + jump)
    with pytest.raises(ClockFault, match=CONFIRM):
        clock.now_ms()
    assert clock.fault is not None
    assert f"jumped by {jump / 1000:.0f} seconds" in clock.fault


@pytest.mark.parametrize("jump", [JUMP_MS, -JUMP_MS, 1, -1])
def test_a_jump_of_a_minute_or_less_is_taken_along(hands: Hands, jump: int) -> None:
    clock = hands.clock()
    hands.pass_time(1_000, wall=1_000 + jump)
    assert clock.now_ms() == NOON + 1_000 + jump


def test_a_jump_is_noticed_by_whoever_looks_first_and_never_forgotten(hands: Hands) -> None:
    clock = hands.clock()
    hands.pass_time(1_000, wall=2 * JUMP_MS)
    assert clock.look() == NOON + 2 * JUMP_MS  # to show, time still goes on
    first = clock.fault
    hands.pass_time(1_000, wall=-2 * JUMP_MS)  # and back: two wrongs make no right
    with pytest.raises(ClockFault):
        clock.now_ms()
    assert clock.fault == first


def test_a_slow_drift_is_followed_however_far_it_leads(hands: Hands) -> None:
    clock = hands.clock()
    for _ in range(20 * 3_600):
        hands.pass_time(1_000, wall=1_010)
        clock.now_ms()
    assert clock.now_ms() == NOON + 20 * 3_600 * 1_010
    assert clock.fault is None


@pytest.mark.parametrize("step", [50_000, -50_000])
def test_small_jumps_that_add_up_within_an_hour_are_a_jump(hands: Hands, step: int) -> None:
    clock = hands.clock()
    hands.pass_time(1_000, wall=1_000 + step)
    assert clock.now_ms() == NOON + 1_000 + step
    hands.pass_time(1_000, wall=1_000 + step)
    with pytest.raises(ClockFault, match="jumped"):
        clock.now_ms()


def test_a_long_silence_between_two_looks_is_no_jump(hands: Hands) -> None:
    clock = hands.clock()
    hands.pass_time(40 * DAY)
    assert clock.now_ms() == NOON + 40 * DAY


def test_a_machine_that_slept_is_no_jump_where_the_steady_clock_sleeps_not() -> None:
    # What a lid closed for the night looks like: CLOCK_BOOTTIME goes on, CLOCK_MONOTONIC stands still.
    boottime, monotonic = Hands(), Hands()
    awake, asleep = boottime.clock(), monotonic.clock()
    boottime.pass_time(8 * 3_600_000)
    monotonic.pass_time(0, wall=8 * 3_600_000)
    assert awake.now_ms() == NOON + 8 * 3_600_000
    with pytest.raises(ClockFault):
        asleep.now_ms()


def test_the_steady_clock_is_the_one_that_counts_sleep_and_else_the_monotonic(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def clock_gettime_ns(number: int) -> int:
        asked.append(number)
        return 7_000_000

    monkeypatch.setattr(time, "clock_gettime_ns", clock_gettime_ns)
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 4_242, raising=False)
    assert clocks._steady_ms() == 7
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert clocks._steady_ms() == 7
    assert asked == [4_242, time.CLOCK_MONOTONIC]


def test_the_real_clocks_agree_with_each_other() -> None:
    clock = Clock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1_000
    assert clock.fault is None


# ── A start, compared with the heartbeat ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("away", [0, 1_000, DAY, ABSENCE_MS, -1_000, -JUMP_MS])
def test_a_start_within_thirty_days_of_the_last_heartbeat_writes(hands: Hands, away: int) -> None:
    clock = hands.clock()
    clock.check_start(NOON - away)
    assert clock.now_ms() == NOON


@pytest.mark.parametrize(
    ("away", "when"),
    [
        (ABSENCE_MS + 1, "30 days after"),
        (400 * DAY, "400 days after"),
        (-JUMP_MS - 1, "60 seconds before"),
        (-DAY, "86400 seconds before"),
    ],
)
def test_a_start_before_the_last_heartbeat_or_long_after_it_does_not_write(hands: Hands, away: int, when: str) -> None:
    clock = hands.clock()
    clock.check_start(NOON - away)
    with pytest.raises(ClockFault, match=when):
        clock.now_ms()
    assert clock.fault is not None
    assert CONFIRM in clock.fault
    assert clock.look() == NOON


# ── The demo clock ───────────────────────────────────────────────────────────────────────────────────────────────


class Nanoseconds:
    """A steady clock for demos, moved by hand."""

    def __init__(self) -> None:
        self.now = 777

    def __call__(self) -> int:
        return self.now


def test_a_demo_clock_starts_where_it_is_told_and_runs_as_fast_as_it_is_told() -> None:
    steady = Nanoseconds()
    clock = DemoClock(start_ms=NOON, speed=86_400, steady_ns=steady)
    assert clock.now_ms() == NOON
    steady.now += 1_000_000_000
    assert clock.now_ms() == clock.look() == NOON + DAY
    assert (clock.speed, clock.demo, clock.fault) == (86_400, True, None)


def test_a_demo_clock_needs_no_watch_and_goes_on_where_it_was() -> None:
    steady = Nanoseconds()
    clock = DemoClock(start_ms=NOON, speed=10, steady_ns=steady)
    clock.check_start(NOON + 400 * DAY)
    assert clock.now_ms() == NOON + 400 * DAY
    steady.now += 2_000_000
    assert clock.now_ms() == NOON + 400 * DAY + 20


def test_a_demo_clock_told_to_start_later_than_it_was_starts_later() -> None:
    clock = DemoClock(start_ms=NOON, speed=1, steady_ns=Nanoseconds())
    clock.check_start(NOON - DAY)
    assert clock.now_ms() == NOON


# ── A clock that is handed on ────────────────────────────────────────────────────────────────────────────────────


def test_a_demo_clock_that_is_handed_on_tells_the_same_time_later_too() -> None:
    began = time.monotonic_ns()
    mine = DemoClock(start_ms=NOON, speed=86_400, began_ns=began)
    mine.check_start(NOON + DAY)
    theirs = clock_of(mine.state())
    assert theirs.state() == mine.state()
    before, there, after = mine.now_ms(), theirs.now_ms(), mine.now_ms()
    assert before <= there <= after
    assert (theirs.demo, theirs.speed) == (True, 86_400)


def test_a_fault_of_the_clock_is_handed_on_and_stays_with_every_successor(hands: Hands) -> None:
    clock = hands.clock()
    hands.pass_time(0, wall=DAY)
    clock.look()
    successor = clock_of(clock_of(clock.state()).state())
    assert successor.fault == clock.fault
    with pytest.raises(ClockFault, match=CONFIRM):
        successor.now_ms()


def test_a_clock_without_fault_is_handed_on_without() -> None:
    clock = clock_of(Clock().state())
    assert (clock.fault, clock.demo) == (None, False)
    assert abs(clock.now_ms() - time.time_ns() // 1_000_000) < 60_000

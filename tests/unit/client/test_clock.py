"""The ledger's clock as the client estimates it, and the ids that it makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell.clock import IdMaker, LedgerClock
from gesell_protocol.names import is_uuid7, time_of_id
from gesell_protocol.statements import EXPIRES_MAX_MS


class Monotonic:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@given(
    start=st.integers(0, 2**42),
    speed=st.integers(1, 1_000_000),
    to_answer=st.floats(0, 30),
    on_the_way=st.floats(0, 30),
    later=st.lists(st.floats(0, 30), max_size=5),
)
def test_the_estimate_is_never_ahead_of_the_ledger(
    start: int, speed: int, to_answer: float, on_the_way: float, later: list[float]
) -> None:
    true = Monotonic()
    clock = LedgerClock(true)

    def ledger_ms() -> float:
        return start + (true.now - 1_000.0) * 1000 * speed

    true.now += to_answer
    sampled = int(ledger_ms())
    true.now += on_the_way
    clock.sample(sampled, speed=speed, received_at=true.now)
    last = clock.now_ms()
    for pause in later:
        true.now += pause
        assert last <= clock.now_ms() <= ledger_ms() + 0.01 * speed
        last = clock.now_ms()
    assert last >= sampled


def test_a_sample_grows_stale_and_can_be_forgotten() -> None:
    now = Monotonic()
    clock = LedgerClock(now)
    assert clock.is_stale
    clock.sample(5, speed=1, received_at=now())
    assert not clock.is_stale
    now.now += 61
    assert clock.is_stale
    clock.sample(5, speed=1, received_at=now())
    clock.forget()
    assert clock.is_stale


@pytest.mark.parametrize(("speed", "lifetime"), [(1, 300_000), (10, 3_000_000), (10**6, EXPIRES_MAX_MS)])
def test_lifetimes_scale_with_the_clock_up_to_seven_days(speed: int, lifetime: int) -> None:
    clock = LedgerClock()
    clock.sample(0, speed=speed, received_at=0.0)
    assert clock.lifetime_ms() == lifetime


def test_ids_ascend_even_when_the_clock_stands_or_steps_back() -> None:
    maker = IdMaker()
    times = [10_000] * 9_000 + [9_000, 10_000, 20_000]
    ids = [maker.new(ms) for ms in times]
    assert ids == sorted(set(ids))
    assert all(is_uuid7(name) for name in ids)
    assert max(time_of_id(name) for name in ids[:-1]) < 10_010
    assert time_of_id(ids[-1]) == 20_000

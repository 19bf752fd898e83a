"""Turns: nobody keeps the others from theirs."""

from __future__ import annotations

import asyncio

import pytest

from gesell_ledger.readings.turns import ALL_MAX, EACH_MAX, MINUTE, SHARE_SECONDS, Turns, Unanswered

ONE, OTHER = b"one", b"other"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def take(turns: Turns, commons: bytes, clock: Clock, seconds: float) -> None:
    async with turns.turn(commons):
        clock.now += seconds


async def wait(turns: Turns, commons: bytes, until: asyncio.Event) -> None:
    async with turns.turn(commons):
        await until.wait()


async def test_one_commons_does_not_fill_the_queue() -> None:
    turns, over = Turns(), asyncio.Event()
    waiting = [asyncio.create_task(wait(turns, ONE, over)) for _ in range(EACH_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Unanswered, match="too many"):
        await wait(turns, ONE, over)
    other = asyncio.create_task(wait(turns, OTHER, over))
    over.set()
    await asyncio.gather(*waiting, other)
    await wait(turns, ONE, over)


async def test_all_together_are_bounded() -> None:
    turns, over = Turns(), asyncio.Event()
    waiting = [asyncio.create_task(wait(turns, b"%d" % number, over)) for number in range(ALL_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Unanswered):
        await wait(turns, OTHER, over)
    over.set()
    await asyncio.gather(*waiting)


async def test_who_had_its_share_waits_and_others_do_not() -> None:
    clock = Clock()
    turns = Turns(clock=clock)
    await take(turns, ONE, clock, SHARE_SECONDS + 1)
    with pytest.raises(Unanswered, match="share") as told:
        await take(turns, ONE, clock, 0)
    assert 1 <= told.value.retry_after <= MINUTE
    await take(turns, OTHER, clock, 1)
    clock.now += MINUTE
    await take(turns, ONE, clock, 0)


async def test_a_turn_that_lasts_too_long_ends_and_counts() -> None:
    turns = Turns(turn_seconds=0.01)
    with pytest.raises(Unanswered, match="too long"):
        await wait(turns, ONE, asyncio.Event())
    over = asyncio.Event()
    over.set()
    await wait(turns, ONE, over)


async def test_who_has_a_turn_may_fail() -> None:
    turns, clock = Turns(), Clock()
    with pytest.raises(ZeroDivisionError):
        async with turns.turn(ONE):
            raise ZeroDivisionError
    await take(turns, ONE, clock, 0)

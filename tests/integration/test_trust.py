"""The process that reckons trust: kept up with the log, bounded, and nobody's answer is lost with it for long.

Owns what happens around an answer. That answers are right is `tests/unit/readings/test_vouch_graph.py`'s and, over
HTTP, `tests/e2e/test_trust.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from gesell_ledger.readings import trust as trusting
from gesell_ledger.readings import turns
from gesell_ledger.readings.trust import TooManyVouches, Trust
from gesell_ledger.readings.turns import Unanswered
from gesell_ledger.storage.rows import key_of
from gesell_ledger.storage.trust import VouchReader

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

ME, *OTHERS = [sha256(b"peer %d" % number).digest() for number in range(6)]
COMMONS = [bytes([number]) * 16 for number in range(1, 4)]


class Vouched:
    """Vouches of some commons, written as the sequencer writes them, and how often they were read."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.reader = VouchReader(pool)
        self.trust = Trust(self.reader)
        self.seqs = dict.fromkeys(COMMONS, 1)
        self.loads = 0
        inner = self.reader.open_vouches

        def counting(commons: bytes) -> Any:
            self.loads += 1
            return inner(commons)

        self.reader.open_vouches = counting  # type: ignore[method-assign]

    async def found(self) -> None:
        for commons in COMMONS:
            await self.pool.execute(
                "INSERT INTO gesell.commons (commons_id, seq, at_ms, accounts, active_members, policies, threshold,"
                " currency_scale, hash, ledger, currency_code, name, stewards, kinds, tree)"
                " VALUES ($1, 1, 0, 0, 0, 1, 1, 2, $2, $3, 'WRG', 'Test', ARRAY[$3::bytea], 0, $4)",
                key_of(commons),
                commons,
                ME,
                bytes(32),
            )

    async def vouch(self, commons: bytes, by: bytes, whom: bytes, grains: int) -> None:
        self.seqs[commons] += 1
        where, seq = key_of(commons), self.seqs[commons]
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE gesell.commons SET seq = $2, tree = $3 WHERE commons_id = $1",
                where,
                seq,
                bytes(32 * seq.bit_count()),
            )
            await connection.execute(
                "DELETE FROM gesell.vouch WHERE commons_id = $1 AND voucher = $2 AND vouchee = $3", where, by, whom
            )
            if grains:
                await connection.execute("INSERT INTO gesell.vouch VALUES ($1, $2, $3, $4)", where, grains, by, whom)
            await connection.execute(
                "INSERT INTO gesell.vouch_change VALUES ($1, $2, $3, $4, $5)", where, seq, grains, by, whom
            )

    async def flow(self, commons: bytes, one: bytes, other: bytes) -> int:
        seq = self.seqs[commons]
        as_of_seq, between = await self.trust.between(commons, seq=seq, source=one, sink=other)
        assert as_of_seq >= seq
        return between.flow

    @property
    def process(self) -> asyncio.subprocess.Process:
        process = self.trust._process
        assert process is not None
        return process


@pytest.fixture
async def vouched(pool: Pool) -> AsyncIterator[Vouched]:
    made = Vouched(pool)
    await made.found()
    yield made
    await made.trust.stop()


async def test_changes_are_told_and_all_vouches_only_once(vouched: Vouched) -> None:
    (a, b, *_), commons = OTHERS, COMMONS[0]
    await vouched.vouch(commons, ME, a, 10)
    assert await vouched.flow(commons, ME, b) == 0
    await vouched.vouch(commons, a, b, 8)
    await vouched.vouch(commons, a, b, 6)
    await vouched.vouch(commons, ME, b, 1)
    assert await vouched.flow(commons, ME, b) == 7
    await vouched.vouch(commons, a, b, 0)
    assert await vouched.flow(commons, ME, b) == 1
    await vouched.vouch(commons, a, b, 2)
    assert await vouched.flow(commons, ME, b) == 3
    assert vouched.loads == 1


async def test_after_many_changes_all_vouches_are_read_again(vouched: Vouched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "CHANGES_MAX", 2)
    (a, b, *_), commons = OTHERS, COMMONS[0]
    await vouched.vouch(commons, ME, a, 10)
    assert await vouched.flow(commons, ME, a) == 10
    for grains in (3, 4):
        await vouched.vouch(commons, ME, b, grains)
    assert await vouched.flow(commons, ME, b) == 4
    assert vouched.loads == 1
    await vouched.vouch(commons, ME, a, 0)
    for grains in (5, 6):
        await vouched.vouch(commons, ME, b, grains)
    assert (await vouched.flow(commons, ME, b), await vouched.flow(commons, ME, a)) == (6, 0)
    assert vouched.loads == 2


async def test_many_vouches_are_read_in_pages(vouched: Vouched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesell_ledger.storage.trust._PAGE", 2)
    for number, peer in enumerate(OTHERS):
        await vouched.vouch(COMMONS[0], ME, peer, number + 1)
        await vouched.vouch(COMMONS[0], peer, OTHERS[number - 1], number + 1)
        await vouched.vouch(COMMONS[1], ME, peer, 77)
    ranking = await vouched.trust.rank(COMMONS[0], seq=16, source=ME, after=None, limit=9)
    assert ranking.vouches == 10
    assert {row[0] for row in ranking.rows} == set(OTHERS)
    # Vouches that fill the last page to the brim are no more.
    assert await vouched.flow(COMMONS[1], ME, OTHERS[0]) == 77


async def test_what_is_kept_is_bounded_over_all_commons(vouched: Vouched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "VOUCHES_MAX", 5)
    for commons in COMMONS:
        for number, peer in enumerate(OTHERS[:2]):
            await vouched.vouch(commons, ME, peer, number + 1)
    first, second, third = COMMONS
    for commons in (first, second, first):
        assert await vouched.flow(commons, ME, OTHERS[1]) == 2
    assert vouched.loads == 2
    # The third does not fit beside both: the second was asked for longest ago.
    assert await vouched.flow(third, ME, OTHERS[1]) == 2
    assert list(vouched.trust._known) == [first, third]
    assert await vouched.flow(first, ME, OTHERS[1]) == 2
    assert vouched.loads == 3
    assert await vouched.flow(second, ME, OTHERS[1]) == 2
    assert vouched.loads == 4


async def test_a_commons_of_too_many_vouches_is_not_answered_for(
    vouched: Vouched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusting, "VOUCHES_MAX", 4)
    for peer in OTHERS:
        await vouched.vouch(COMMONS[0], ME, peer, 5)
    await vouched.vouch(COMMONS[1], ME, OTHERS[0], 5)
    assert await vouched.flow(COMMONS[1], ME, OTHERS[0]) == 5
    for _ in range(2):
        with pytest.raises(TooManyVouches):
            await vouched.flow(COMMONS[0], ME, OTHERS[0])
    assert await vouched.flow(COMMONS[1], ME, OTHERS[0]) == 5
    # Asked again, it is not read again; and nobody else's vouches are.
    assert vouched.loads == 2


async def test_who_asks_when_the_process_was_killed_is_told_to_come_back(vouched: Vouched) -> None:
    await vouched.vouch(COMMONS[0], ME, OTHERS[0], 5)
    assert await vouched.flow(COMMONS[0], ME, OTHERS[0]) == 5
    vouched.process.kill()
    with pytest.raises(Unanswered) as told:
        await vouched.flow(COMMONS[0], ME, OTHERS[0])
    assert told.value.retry_after < 10
    assert await vouched.flow(COMMONS[0], ME, OTHERS[0]) == 5
    assert vouched.loads == 2


async def test_a_commons_that_takes_too_long_is_left_alone_and_no_other_one(vouched: Vouched) -> None:
    for commons in COMMONS[:2]:
        await vouched.vouch(commons, ME, OTHERS[0], 5)
        assert await vouched.flow(commons, ME, OTHERS[0]) == 5
    # What its own alarm does to it, in the middle of a question or before.
    os.kill(vouched.process.pid, signal.SIGALRM)
    asked = [asyncio.create_task(vouched.flow(COMMONS[0], ME, OTHERS[0])) for _ in range(3)]
    for told in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(told, Unanswered)
        assert told.retry_after >= 10
    # Who waited was not tried too.
    assert (vouched.trust._process, vouched.loads) == (None, 2)
    with pytest.raises(Unanswered, match="too long"):
        await vouched.flow(COMMONS[0], ME, OTHERS[0])
    assert await vouched.flow(COMMONS[1], ME, OTHERS[0]) == 5


async def test_only_so_many_wait_for_their_turn(vouched: Vouched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "EACH_MAX", 3)
    await vouched.vouch(COMMONS[0], ME, OTHERS[0], 5)
    asked = [asyncio.create_task(vouched.flow(COMMONS[0], ME, OTHERS[0])) for _ in range(7)]
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert told[:3] == [5, 5, 5]
    assert all(isinstance(answer, Unanswered) for answer in told[3:])
    assert await vouched.flow(COMMONS[0], ME, OTHERS[0]) == 5


async def test_who_goes_away_in_the_middle_gets_nobody_else_its_answer(vouched: Vouched) -> None:
    a, b, *_ = OTHERS
    await vouched.vouch(COMMONS[0], ME, a, 5)
    await vouched.vouch(COMMONS[0], ME, b, 7)
    await vouched.flow(COMMONS[0], ME, a)
    for _ in range(20):
        leaving = asyncio.create_task(vouched.flow(COMMONS[0], ME, a))
        await asyncio.sleep(0.001)
        leaving.cancel()
        assert await vouched.flow(COMMONS[0], ME, b) == 7


async def test_the_process_ends_when_nobody_asks_for_long(vouched: Vouched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "IDLE_SECONDS", 0.05)
    await vouched.vouch(COMMONS[0], ME, OTHERS[0], 5)
    await vouched.flow(COMMONS[0], ME, OTHERS[0])
    assert await asyncio.wait_for(vouched.process.wait(), 30) == 0
    assert await vouched.flow(COMMONS[0], ME, OTHERS[0]) == 5
    assert vouched.loads == 2


async def test_what_can_not_be_reckoned_exactly_is_a_fault_and_no_answer(vouched: Vouched) -> None:
    """Vouches far beyond what the ledger takes, whose sum 64 bits do not hold."""
    sink, *hands = OTHERS
    for hand in hands[:3]:
        await vouched.vouch(COMMONS[0], ME, hand, 2**62)
        await vouched.vouch(COMMONS[0], hand, sink, 2**62)
    with pytest.raises(RuntimeError, match="no exact flow"):
        await vouched.flow(COMMONS[0], ME, sink)
    assert await vouched.flow(COMMONS[0], ME, hands[0]) == 2**62

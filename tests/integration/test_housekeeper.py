"""The housekeeper sweeps who slept too long: each of them once a tick, nobody else, in small batches.

Owns rule 3 of the housekeeper on a real PostgreSQL, with sweeps, pages and batches of a few accounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from gesell_ledger import housekeeper as housekeeping
from gesell_ledger.core.decide import Submission
from gesell_ledger.housekeeper import Housekeeper
from gesell_ledger.metrics import Metrics
from gesell_ledger.own_statements import own_statement
from gesell_ledger.sequencer import Answer, Receipted, Sequencer
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.rows import key_of
from gesell_protocol.demurrage import Holding, melt_by_the_letter
from gesell_protocol.policy import Timeline, read_policy
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Sweep
from tests.speaking import HOUR_MS, POLICY, name_of, signer_of, submission_of, write_envelope, write_found

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

START_MS = 1_800_000_000_000
START_TICK = START_MS // HOUR_MS
LEDGER, STEWARD = signer_of("ledger"), signer_of("steward")
MEMBERS = [signer_of(f"sleeper {n}") for n in range(26)]
#: The first has nothing, the second dust, of which nothing melts.
FUNDS = [0, 40, *range(1_000, 1_000 + len(MEMBERS) - 2)]
SWEEP_TICKS = 5
EACH, TOGETHER = 4, 2


class SetClock:
    """A clock that stands where the test puts it."""

    speed = 2
    demo = True
    fault = None

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def look(self) -> int:
        return self.ms

    def check_start(self, heartbeat_ms: int) -> None:
        raise AssertionError("nobody starts here")

    def state(self) -> None:
        raise AssertionError("no other process here")


class Watched(Sequencer):
    """Notes the sweeps that are submitted, by request, and how many requests with sweeps are under way at once."""

    def __init__(self, pool: Pool, clock: SetClock) -> None:
        super().__init__(pool, clock, ledger=LEDGER.public_key, metrics=Metrics())  # type: ignore[arg-type]
        self.requests: list[list[tuple[bytes, ...]]] = []
        self.most_at_once = 0
        self.begun = asyncio.Event()
        self._under_way = 0

    async def submit(self, submissions: Sequence[Submission]) -> list[Answer]:  # type: ignore[override]
        swept = [one.statement.accounts for one in submissions if isinstance(one.statement, Sweep)]
        if swept:
            self.requests.append(swept)
            self.begun.set()
        self._under_way += bool(swept)
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            return await super().submit(submissions)
        finally:
            self._under_way -= bool(swept)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def sequencer(pool: Pool, clock: SetClock) -> Watched:
    return Watched(pool, clock)


@pytest.fixture
async def commons(sequencer: Watched, clock: SetClock) -> bytes:
    """A commons whose members are asleep from `START_MS` on."""
    founding = write_found([STEWARD], ledger=LEDGER.public_key, now_ms=clock.ms, policy=POLICY)
    name = name_of(founding)
    said = [founding]
    for number, member in enumerate(MEMBERS):
        key = member.public_key
        said.append(write_envelope("join", key, [member], now_ms=clock.ms, commons=name, handle=f"m{number}"))
    for member, amount in zip(MEMBERS, FUNDS, strict=True):
        if amount:
            fields = {"commons": name, "to": member.public_key, "amount": amount}
            said.append(write_envelope("issue", STEWARD.public_key, [STEWARD], now_ms=clock.ms, **fields))
    answers = await sequencer.submit([submission_of(one) for one in said])
    assert all(isinstance(answer, Receipted) for answer in answers), answers
    return name


@pytest.fixture
def keeper(pool: Pool, sequencer: Watched, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> Housekeeper:
    monkeypatch.setattr(housekeeping, "SWEEP_MAX", EACH)
    monkeypatch.setattr(housekeeping, "SWEEPS_AT_ONCE", TOGETHER)
    monkeypatch.setattr(housekeeping, "PAGE", 5)
    return Housekeeper(Reader(pool), sequencer, clock, LEDGER, Metrics(), sweep_ticks=SWEEP_TICKS)  # type: ignore[arg-type]


async def accounts(pool: Pool, commons: bytes) -> dict[bytes, tuple[int, int]]:
    """(balance, tick) of each member's account."""
    found = await pool.fetch(
        "SELECT holder, balance, tick FROM gesell.account WHERE commons_id = $1 AND octet_length(holder) = 32",
        key_of(commons),
    )
    return {row["holder"]: (row["balance"], row["tick"]) for row in found}


def after(amount: int, ticks: int) -> int:
    """What the law leaves of an amount."""
    timeline = Timeline.of([(0, read_policy(POLICY, min_tick_seconds=1))])
    return melt_by_the_letter(Holding(amount, 0, START_TICK, ()), timeline, START_TICK + ticks).balance


async def test_everybody_with_melt_due_who_slept_too_long_is_swept_once_to_what_the_law_says(
    pool: Pool, commons: bytes, keeper: Housekeeper, sequencer: Watched, clock: SetClock
) -> None:
    clock.ms += (SWEEP_TICKS + 1) * HOUR_MS
    await keeper.round()
    swept = [peer for request in sequencer.requests for sweep in request for peer in sweep]
    assert sorted(swept) == sorted(member.public_key for member in MEMBERS[2:])
    now = await accounts(pool, commons)
    for member, amount in zip(MEMBERS[2:], FUNDS[2:], strict=True):
        assert now[member.public_key] == (after(amount, SWEEP_TICKS + 1), START_TICK + SWEEP_TICKS + 1)
    # Dust never melts, so its account may sleep for ever.
    assert now[MEMBERS[1].public_key] == (FUNDS[1], START_TICK)


async def test_who_slept_no_longer_than_allowed_is_left_alone(
    keeper: Housekeeper, commons: bytes, sequencer: Watched, clock: SetClock
) -> None:
    clock.ms += SWEEP_TICKS * HOUR_MS
    await keeper.round()
    assert sequencer.requests == []


async def test_sweeps_go_in_small_requests_and_one_at_a_time(
    keeper: Housekeeper, commons: bytes, sequencer: Watched, clock: SetClock
) -> None:
    clock.ms += 30 * HOUR_MS
    await keeper.round()
    assert [len(request) for request in sequencer.requests] == [TOGETHER, TOGETHER, TOGETHER]
    assert all(len(sweep) == EACH for request in sequencer.requests for sweep in request)
    assert sequencer.most_at_once == 1


async def test_the_accounts_are_looked_through_once_a_tick(
    keeper: Housekeeper, commons: bytes, sequencer: Watched, clock: SetClock
) -> None:
    clock.ms += 30 * HOUR_MS
    await keeper.round()
    done = len(sequencer.requests)
    await keeper.round()
    assert len(sequencer.requests) == done
    clock.ms += 30 * HOUR_MS
    await keeper.round()
    assert len(sequencer.requests) == 2 * done


async def test_sweep_that_is_refused_ends_the_round_and_the_next_one_goes_on(
    pool: Pool,
    commons: bytes,
    keeper: Housekeeper,
    sequencer: Watched,
    clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock.ms += 30 * HOUR_MS
    written = 0

    def write_too_early(kind: str, fields: object, *, commons: bytes, now_ms: int, signer: object) -> Submission:
        nonlocal written
        written += 1
        # The third of them is dated far ahead, so that the second request is refused in part.
        shift = 24 * HOUR_MS if written == 3 else 0
        return own_statement(kind, fields, commons=commons, now_ms=now_ms + shift, signer=signer)  # type: ignore[arg-type]

    monkeypatch.setattr(housekeeping, "own_statement", write_too_early)
    await keeper.round()
    assert len(sequencer.requests) == 2
    await keeper.round()
    now = await accounts(pool, commons)
    assert all(now[member.public_key][1] == START_TICK + 30 for member in MEMBERS[2:])


async def test_sweep_that_is_refused_for_good_is_not_said_again_in_the_same_tick(
    commons: bytes, keeper: Housekeeper, sequencer: Watched, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.ms += 30 * HOUR_MS
    asked = 0

    async def refuse(submissions: Sequence[Submission]) -> list[Answer]:
        nonlocal asked
        asked += 1
        return [Refusal(code="limit-exceeded", detail="the pool is full")] * len(submissions)

    monkeypatch.setattr(sequencer, "submit", refuse)
    await keeper.round()
    said = asked
    assert said > 1  # all others had theirs, though the first was refused
    await keeper.round()
    assert asked == said
    clock.ms += HOUR_MS
    await keeper.round()
    assert asked == 2 * said


async def test_payment_is_served_between_two_requests_of_a_sweep(
    keeper: Housekeeper, commons: bytes, pool: Pool, sequencer: Watched, clock: SetClock
) -> None:
    clock.ms += 30 * HOUR_MS
    sweeping = asyncio.create_task(keeper.round())
    await sequencer.begun.wait()
    legs = [[MEMBERS[3].public_key, 1]]
    key = MEMBERS[2].public_key
    paying = write_envelope("pay", key, [MEMBERS[2]], now_ms=clock.ms, commons=commons, legs=legs)
    (answer,) = await sequencer.submit([submission_of(paying)])
    assert isinstance(answer, Receipted)
    requests_before = len(sequencer.requests)
    await sweeping
    assert requests_before <= 2 < len(sequencer.requests)

"""The fold on a real PostgreSQL: every entry once, whatever cuts it off and whoever else folds.

Owns what happens around a transaction of the fold. That what it makes is right is `tests/e2e/test_readings.py`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import msgpack
import pytest

from gesell_ledger.metrics import Metrics
from gesell_ledger.readings import circulation as circulating
from gesell_ledger.readings import folder as folding
from gesell_ledger.readings import turns
from gesell_ledger.readings.circulation import Circulation, Flow, TooManySteps
from gesell_ledger.readings.folder import Folder, fold_run, rebuild
from gesell_ledger.readings.turns import Unanswered
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.readings import Readings
from gesell_ledger.storage.rows import key_of
from gesell_protocol.envelopes import Envelope
from tests.speaking import HOUR_MS, POLICY, name_of, signer_of, submission_of, write_envelope, write_found

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

LEDGER, STEWARD = signer_of("ledger"), signer_of("steward")
PEOPLE = [signer_of(f"folk {n}") for n in range(4)]
START_MS = 1_800_000_000_000
HALF_LIFE_MS = 10 * 86_400_000
TABLES = ("reading", "relation", "relation_sum", "standing", "membership", "flow_tick", "flow_sum")
FADING = ("strength", "given_weight", "received_weight")


class SetClock:
    """A clock that stands where the test puts it."""

    speed = 1
    fault = None

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    look = now_ms


class Village:
    """A commons of four, who pay each other with and without a category and give each other hours."""

    def __init__(self, pool: Pool, *, name: str = "Village") -> None:
        self.pool = pool
        self.folds = Folds(pool)
        self.clock = SetClock()
        self.sequencer = Sequencer(pool, self.clock, ledger=LEDGER.public_key, metrics=Metrics())  # type: ignore[arg-type]
        self._founding = write_found([STEWARD], ledger=LEDGER.public_key, now_ms=START_MS, policy=POLICY)
        self.name = name_of(self._founding)
        self.seq = 0

    async def settle(self) -> None:
        await self.say(self._founding)
        await self.say(*(self.write("join", one, handle=f"m{n}") for n, one in enumerate(PEOPLE)))
        await self.say(*(self.write("issue", STEWARD, to=one.public_key, amount=10**6) for one in PEOPLE))

    def write(self, what: str, by: Any, **fields: Any) -> Envelope:
        return write_envelope(what, by.public_key, [by], now_ms=self.clock.ms, commons=self.name, **fields)

    async def say(self, *envelopes: Envelope) -> None:
        for answer in await self.sequencer.submit([submission_of(envelope) for envelope in envelopes]):
            assert isinstance(answer, Receipted), answer
            self.seq = answer.receipt.seq

    def pay(self, one: int, other: int, amount: int, **fields: Any) -> Envelope:
        return self.write("pay", PEOPLE[one], legs=[[PEOPLE[other].public_key, amount]], **fields)

    async def live(self, rounds: int = 4) -> None:
        """Some ticks of payments and gifts; two entries of each kind a tick, between the same and between others."""
        for place in range(rounds):
            self.clock.ms += HOUR_MS * (1 + place)
            one, other, third = (place % 4, (place + 1) % 4, (place + 2) % 4)
            gift = self.write("gift", PEOPLE[one], to=PEOPLE[third].public_key, kind="hour", quantity=50 + place)
            thank = self.write("thank", PEOPLE[third], gift=msgpack.unpackb(gift.body)["id"])
            await self.say(self.pay(one, other, 10 + place), self.pay(other, one, 3, category="lift"), gift, thank)
            await self.say(self.pay(0, 1, 1))

    async def fold(self, *, entries: int = 3, half_life_ms: int = HALF_LIFE_MS) -> int:
        folded = 0
        while more := await fold_run(self.folds, self.name, half_life_ms=half_life_ms, entries=entries):
            folded += more
        return folded

    async def readings(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of the readings, of the pairs what they say together; what fades to nine digits."""
        found: dict[str, list[dict[str, Any]]] = {}
        for table in TABLES:
            rows = await self.pool.fetch(f"SELECT t.* FROM gesell.{table} t WHERE commons_id = $1 ORDER BY t", self._id)
            found[table] = [
                {name: float(f"{value:.9g}") if name in FADING else value for name, value in row.items()}
                for row in rows
            ]
        pairs: dict[tuple[int, ...], int] = {}
        for row in await self.pool.fetch("SELECT tick, pairs FROM gesell.flow_pairs WHERE commons_id = $1", self._id):
            paid, gave = msgpack.unpackb(row["pairs"])
            for one, other, grains in zip(*[iter(paid)] * 3, strict=True):
                pairs[row["tick"], one, other] = pairs.get((row["tick"], one, other), 0) + grains
            for one, other in zip(*[iter(gave)] * 2, strict=True):
                pairs[row["tick"], one, other, 0] = 0
        found["pairs"] = [{"pair": pair, "grains": grains} for pair, grains in sorted(pairs.items())]
        return found

    @property
    def _id(self) -> int:
        return key_of(self.name)

    async def flow(self, circulation: Circulation) -> Flow:
        found = await Reader(self.pool).load_commons(self.name)
        assert found is not None
        return await circulation.load(found[0], now_ms=self.clock.ms, from_ms=0, to_ms=None, step=1)


@pytest.fixture
async def village(pool: Pool) -> AsyncIterator[Village]:
    made = Village(pool)
    await made.settle()
    await made.live()
    yield made
    await made.sequencer.stop(seconds=5)


@asynccontextmanager
async def folder_of(village: Village, metrics: Metrics | None = None) -> AsyncIterator[Folder]:
    """A folder at work."""
    folder = Folder(village.folds, metrics or Metrics(), half_life_ms=HALF_LIFE_MS)
    task = asyncio.create_task(folder.run())
    try:
        yield folder
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until_folded(village: Village) -> None:
    async with asyncio.timeout(30):
        while await village.folds.load_seq(village.name) < village.seq:  # noqa: ASYNC110 (only the database can tell)
            await asyncio.sleep(0.01)


# ── Once each ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("entries", [1, 2, 7, 5_000])
async def test_it_does_not_matter_how_the_log_is_cut_into_runs(village: Village, entries: int) -> None:
    assert await village.fold(entries=entries) == village.seq
    cut = await village.readings()
    assert cut["reading"][0]["seq"] == village.seq
    assert await rebuild(village.folds, village.name, half_life_ms=1) == village.seq
    assert await village.readings() == cut
    assert [row["active"] for row in cut["flow_tick"]] == [4] * len(cut["flow_tick"])
    assert sum(row["a_payments"] + row["b_payments"] for row in cut["relation"]) == 12


async def test_a_run_ends_before_an_entry_whose_postings_do_not_fit(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    await village.fold()
    whole = await village.readings()
    monkeypatch.setattr("gesell_ledger.storage.folds.RUN_POSTINGS_MAX", 7)
    await rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS)
    assert await village.readings() == whole


async def test_a_run_that_is_cut_off_leaves_nothing_and_is_made_again(village: Village) -> None:
    """The fold has written what the two have in common and waits for a row that somebody holds; then its connection is
    gone.
    """
    await village.fold()
    before = await village.readings()
    await village.say(village.pay(2, 3, 5, category="bread"))
    async with village.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT FROM gesell.flow_tick FOR UPDATE")
        task = asyncio.create_task(village.fold())
        async with asyncio.timeout(10):
            while not (blocked := await village.pool.fetchval(BLOCKED)):  # noqa: ASYNC110 (only the database can tell)
                await asyncio.sleep(0.01)
        assert await fold_run(village.folds, village.name, half_life_ms=HALF_LIFE_MS, entries=1) is None
        await village.pool.fetchval("SELECT pg_terminate_backend($1)", blocked)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as broken:
            await task
        assert is_transient(broken.value)
        await transaction.rollback()
    assert await village.readings() == before
    assert await village.fold() == 1
    after = await village.readings()
    await rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS)
    assert await village.readings() == after


#: Who waits for a row in this database.
BLOCKED = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND cardinality(pg_blocking_pids(pid)) > 0"""


async def test_several_who_fold_and_one_who_rebuilds_fold_each_entry_once(village: Village) -> None:
    async def fold() -> None:
        while await village.folds.load_seq(village.name) < village.seq:
            await fold_run(village.folds, village.name, half_life_ms=HALF_LIFE_MS, entries=2)

    await asyncio.gather(*(fold() for _ in range(3)), rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS))
    together = await village.readings()
    await rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS)
    assert await village.readings() == together


async def test_another_half_life_makes_the_readings_from_nothing(village: Village) -> None:
    await village.fold()
    before = await village.readings()
    assert await village.fold(half_life_ms=2 * HALF_LIFE_MS) == village.seq
    after = await village.readings()
    assert after["flow_tick"] == before["flow_tick"]
    assert after["relation"] != before["relation"]
    assert after["reading"][0]["half_life_ms"] == 2 * HALF_LIFE_MS
    # A rebuild keeps what the services say.
    await rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS)
    assert await village.readings() == after


async def test_sums_pass_what_64_bits_hold(village: Village) -> None:
    await village.fold()
    for table, column in (("flow_tick", "volume"), ("relation", "a_paid"), ("relation_sum", "amount")):
        await village.pool.execute(f"UPDATE gesell.{table} SET {column} = {2**63 - 1}")
    a, b = sorted((0, 1), key=lambda n: PEOPLE[n].public_key)
    await village.say(village.pay(a, b, 10, category="lift"))
    await village.fold()
    after = await village.readings()
    assert max(row["volume"] for row in after["flow_tick"]) == 2**63 + 9
    assert max(row["a_paid"] for row in after["relation"]) == 2**63 + 9


# ── The folder ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_folder_finds_what_others_added_and_hears_of_its_own(village: Village) -> None:
    async with folder_of(village) as folder:
        await until_folded(village)  # found by a look
        village.sequencer.after_commit.append(folder.wake)
        await village.live()
        await until_folded(village)
    kept_up = await village.readings()
    await rebuild(village.folds, village.name, half_life_ms=HALF_LIFE_MS)
    assert await village.readings() == kept_up


async def settled(pool: Pool, count: int) -> list[Village]:
    """Some villages, in the order in which a look lists them."""
    villages = [Village(pool) for _ in range(count)]
    for village in villages:
        await village.settle()
    return sorted(villages, key=lambda village: village._id)


async def test_a_round_gives_each_commons_one_run_and_rests_once_beside_what_the_runs_took(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    villages = await settled(pool, 6)
    folder = Folder(villages[0].folds, Metrics(), half_life_ms=HALF_LIFE_MS)
    runs, rests = list[float](), list[float]()

    async def run(*arguments: Any, **limits: Any) -> int | None:
        began = time.monotonic()
        folded = await fold_run(*arguments, **limits)
        runs.append(time.monotonic() - began)
        return folded

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(folding, "fold_run", run)
    monkeypatch.setattr(folding, "RUN", 5)
    monkeypatch.setattr(folding, "REST_SECONDS", 1_000.0)
    assert {village.seq for village in villages} == {9}
    for village in villages:
        folder.wake(village.name)
    # Who has more to fold goes on in the next round, and an empty run is a run like any.
    for seqs in ({5}, {9}):
        with monkeypatch.context() as counting:
            counting.setattr(asyncio, "sleep", rest)
            await folder.round()
        assert {await village.folds.load_seq(village.name) for village in villages} == seqs
        assert len(runs) == 6
        assert rests[6:] == [1_000.0]
        assert all(rested >= took for took, rested in zip(runs, rests[:6], strict=True))
        assert max(rests[:6]) < 1_000.0
        runs.clear()
        rests.clear()


async def test_commons_that_are_always_behind_hold_up_nobody(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two, more than a look finds, are being folded by somebody who never ends."""
    monkeypatch.setattr(folding, "BEHIND_MAX", 2)
    monkeypatch.setattr(folding, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(folding, "REST_SECONDS", 0.01)
    villages = await settled(pool, 7)
    async with AsyncExitStack() as stack:
        for village in villages[:2]:
            assert await fold_run(village.folds, village.name, half_life_ms=HALF_LIFE_MS, entries=1) == 1
            fold = await stack.enter_async_context(village.folds.begin(village.name, half_life_ms=HALF_LIFE_MS))
            assert fold is not None
        await stack.enter_async_context(folder_of(villages[0]))
        for village in villages[2:]:
            await until_folded(village)
        # And round again.
        await villages[2].live()
        await until_folded(villages[2])
        assert [await village.folds.load_seq(village.name) for village in villages[:2]] == [1, 1]


async def test_commons_that_can_not_be_folded_raises_the_alarm_and_stops_no_other(
    village: Village, postgres: Any, pool: Pool
) -> None:
    other = Village(pool)
    await other.settle()
    database = await pool.fetchval("SELECT current_database()")
    spoil = "UPDATE gesell.entry SET body = 'rubbish' WHERE seq = 7 AND commons_id = $1"
    await asyncio.to_thread(postgres.fetch, database, spoil, village._id)
    metrics = Metrics()
    async with folder_of(village, metrics):
        await until_folded(other)
        async with asyncio.timeout(10):
            while metrics.broken._value.get() == 0:  # noqa: ASYNC110 (nobody else tells)
                await asyncio.sleep(0.01)
    assert await village.folds.load_seq(village.name) == 0
    await other.sequencer.stop()


async def test_folder_goes_on_when_the_database_comes_back(village: Village) -> None:
    async with folder_of(village):
        await until_folded(village)
        await village.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await _again(village.live)
        await until_folded(village)


async def _again(work: Any) -> None:
    """Do what may meet a connection that is gone, once more."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await work()


# ── What a question may cost ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_costs_too_much_is_left_out_and_told_when_it_is_known(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    await village.fold()
    whole = await village.flow(Circulation(Readings(village.pool)))
    assert all(step.stock is not None and step.rounds is not None for step in whole.steps)
    monkeypatch.setattr(circulating, "ACCOUNTS_MAX", 30)
    monkeypatch.setattr(circulating, "PAIRS_MAX", 5)
    circulation = Circulation(Readings(village.pool))
    poor = await village.flow(circulation)
    told = [step.stock is not None for step in poor.steps]
    assert told == sorted(told)  # the latest first
    assert 0 < sum(told) < len(told)
    assert any(step.rounds is None for step in poor.steps)
    assert [step.sums for step in poor.steps] == [step.sums for step in whole.steps]
    for _ in range(20):
        poor = await village.flow(circulation)
    assert poor.steps == whole.steps


async def test_more_steps_than_an_answer_may_have_are_refused(village: Village) -> None:
    circulation = Circulation(Readings(village.pool))
    await village.fold()
    village.clock.ms = START_MS + 999 * HOUR_MS
    assert len((await village.flow(circulation)).steps) == 1_000
    village.clock.ms += HOUR_MS
    with pytest.raises(TooManySteps):
        await village.flow(circulation)


async def test_only_so_many_wait_for_circulation(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    await village.fold()
    monkeypatch.setattr(turns, "EACH_MAX", 2)
    circulation = Circulation(Readings(village.pool))
    commons = (await Reader(village.pool).load_commons(village.name) or (None,))[0]
    assert commons is not None
    span: dict[str, Any] = {"now_ms": village.clock.ms, "from_ms": 0, "to_ms": None, "step": 1}
    asked = await asyncio.gather(*(circulation.load(commons, **span) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, Unanswered) for one in asked) == 3
    assert len((await village.flow(circulation)).steps) > 3


async def test_what_goes_round_among_too_many_is_not_looked_for(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    await village.fold()
    whole = await village.flow(Circulation(Readings(village.pool)))
    looks = [step.rounds.returned_3 is not None for step in whole.steps if step.rounds is not None]
    assert all(looks)
    monkeypatch.setattr(circulating, "LOOKS_MAX", 3)
    circulation = Circulation(Readings(village.pool))
    poor = await village.flow(circulation)
    known = [step.rounds is not None and step.rounds.returned_3 is not None for step in poor.steps]
    assert known[-1]
    assert not all(known)
    assert all(step.rounds is not None for step in poor.steps)
    for _ in range(10):
        poor = await village.flow(circulation)
    assert poor.steps == whole.steps

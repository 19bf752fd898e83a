"""What a commons' rules cost those who read them: anybody founds a commons and announces as many policies as it likes.

Owns how many policies are decoded, and how much is done in one turn of the event loop, which is everybody's; and that
what is kept of the rules is what a first look makes of them. Counts rows, not seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from aiohttp import web

from gesell_ledger import housekeeper as housekeeping
from gesell_ledger import sequencer as sequencing
from gesell_ledger.api import reads
from gesell_ledger.api.rights import READER
from gesell_ledger.core import present
from gesell_ledger.core.books import Commons
from gesell_ledger.housekeeper import Housekeeper
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage import postgres, rows, rules
from gesell_ledger.storage.reading import Reader
from gesell_protocol.policy import Timeline, read_policy
from tests.sequences import LEDGER, MEMBERS, START_MS, STEWARD, Database, SetClock, Town
from tests.speaking import HOUR_MS, POLICY, submission_of

TICK = START_MS // HOUR_MS


class Watch:
    """Counts calls, and in which turn of the event loop each came."""

    def __init__(self) -> None:
        self._turn = 0
        self.turns: list[int] = []

    @asynccontextmanager
    async def turning(self) -> AsyncIterator[None]:
        """Turn with the loop: whatever lets others have their turn lets this."""
        task = asyncio.create_task(self._count())
        try:
            yield
        finally:
            task.cancel()

    async def _count(self) -> None:
        while True:
            self._turn += 1
            await asyncio.sleep(0)

    def over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.turns.append(self._turn)
            return function(*arguments, **named)

        return counted

    def most_in_a_turn(self) -> int:
        return max(Counter(self.turns).values())

    def take(self) -> int:
        """How many calls there were since the last time."""
        number = len(self.turns)
        self.turns.clear()
        return number


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """The policies that are decoded from here on."""
    watch = Watch()
    monkeypatch.setattr(rows, "read_policy", watch.over(rows.read_policy))
    return watch


@pytest.fixture
async def reader(database: Database) -> AsyncIterator[Reader]:
    async with postgres.open_pool(database.dsn) as pool:
        yield Reader(pool)


@pytest.fixture
async def late_reader(database: Database) -> AsyncIterator[Reader]:
    """One who has not looked yet."""
    async with postgres.open_pool(database.dsn) as pool:
        yield Reader(pool)


async def announce(sequencer: Sequencer, town: Town, from_ticks: Sequence[int], **changes: Any) -> None:
    """Announce policies, each another than the last."""
    said = [
        town.write("policy", STEWARD, from_tick=tick, policy={**POLICY, "rest_ticks": number % 366, **changes})
        for number, tick in enumerate(from_ticks)
    ]
    answers = await sequencer.submit([submission_of(one) for one in said])
    assert all(isinstance(answer, Receipted) for answer in answers), answers


async def timeline_of(reader: Reader, town: Town) -> Timeline:
    return (await commons_of(reader, town)).timeline


async def kinds_of(reader: Reader, town: Town) -> list[str]:
    return list((await commons_of(reader, town)).kinds)


async def commons_of(reader: Reader, town: Town) -> Commons:
    found = await reader.load_commons(town.name)
    assert found is not None
    return found[0]


async def stored(database: Database, town: Town) -> Timeline:
    """The timeline of all policies as the law has it, each entry after the other."""
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        found = await connection.fetch(
            "SELECT from_tick, policy FROM gesell.policy WHERE commons_id = $1 ORDER BY seq", rows.key_of(town.name)
        )
    finally:
        await connection.close()
    return Timeline.of((tick, read_policy(rows.unpack(policy), min_tick_seconds=1)) for tick, policy in found)


# ── How much is decoded ──────────────────────────────────────────────────────────────────────────────────────────


async def test_policies_that_were_replaced_are_not_decoded_and_one_more_costs_one(
    sequencer: Sequencer, town: Town, database: Database, reader: Reader, late_reader: Reader, decoded: Watch
) -> None:
    await announce(sequencer, town, [TICK + 1, TICK + 2] * 150)
    assert decoded.take() <= 1, "who decides them knows them"
    timeline = await timeline_of(reader, town)
    assert decoded.take() == 3, "the founding policy, and one for each tick"
    for _ in range(5):
        await announce(sequencer, town, [TICK + 1])
        decoded.take()
        timeline = await timeline_of(reader, town)
        assert decoded.take() == 1
    assert timeline == await timeline_of(late_reader, town) == await stored(database, town)


async def test_a_policy_more_is_decoded_once_however_many_were_in_force(
    sequencer: Sequencer, town: Town, clock: SetClock, database: Database, reader: Reader, decoded: Watch
) -> None:
    for _ in range(40):
        await announce(sequencer, town, [TICK + 1 + (clock.ms - START_MS) // HOUR_MS] * 3)
        await timeline_of(reader, town)
        clock.ms += HOUR_MS
    decoded.take()
    await announce(sequencer, town, [TICK + 100])
    assert decoded.take() == 0
    assert await timeline_of(reader, town) == await stored(database, town)
    assert decoded.take() == 1
    assert len((await timeline_of(reader, town)).changes) == 42


async def test_a_first_look_at_many_policies_lets_others_have_their_turn(
    sequencer: Sequencer,
    town: Town,
    database: Database,
    reader: Reader,
    decoded: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "RULES_AT_ONCE", 4)
    await announce(sequencer, town, range(TICK + 1, TICK + 17))
    decoded.take()
    async with decoded.turning():
        timeline = await timeline_of(reader, town)
    assert decoded.most_in_a_turn() <= 4
    assert decoded.take() == 17
    assert timeline == await stored(database, town)


# ── What is kept is what there is ────────────────────────────────────────────────────────────────────────────────


async def test_rules_that_are_kept_are_those_of_a_first_look(
    sequencer: Sequencer, town: Town, clock: SetClock, database: Database, reader: Reader
) -> None:
    luck = random.Random(7)
    for _ in range(12):
        ahead = [TICK + (clock.ms - START_MS) // HOUR_MS + luck.randint(1, 9) for _ in range(luck.randint(1, 4))]
        await announce(sequencer, town, ahead, vouch_min=luck.randint(1, 99))
        if luck.random() < 0.7:
            assert await timeline_of(reader, town) == await stored(database, town)
        clock.ms += luck.randint(0, 3) * HOUR_MS
    assert await timeline_of(reader, town) == await stored(database, town)


async def test_kinds_that_are_kept_are_those_of_a_first_look(
    sequencer: Sequencer, town: Town, reader: Reader, late_reader: Reader
) -> None:
    assert await kinds_of(reader, town) == ["hour"]
    for code in ("meal", "ride", "bread"):
        made = town.write("kind", STEWARD, code=code, name=code, unit="x", scale=0)
        assert isinstance((await sequencer.submit([submission_of(made)]))[0], Receipted)
        assert code in await kinds_of(reader, town)
    assert await kinds_of(reader, town) == ["hour", "meal", "ride", "bread"]
    assert await kinds_of(reader, town) == await kinds_of(late_reader, town)


async def test_a_look_from_before_sees_the_rules_of_then(
    sequencer: Sequencer, town: Town, database: Database, reader: Reader
) -> None:
    await announce(sequencer, town, [TICK + 1])
    then = await stored(database, town)
    async with reader.open_books(town.name) as batch:
        first = await batch.look()
        await announce(sequencer, town, [TICK + 2, TICK + 1])
        assert await timeline_of(reader, town) == await stored(database, town) != then
        again = await batch.look()
    assert first is not None
    assert again is not None
    assert first.commons is not None
    assert again.commons is not None
    assert first.commons.timeline == again.commons.timeline == then
    assert await timeline_of(reader, town) == await stored(database, town)


async def test_a_database_that_was_put_back_is_read_anew(
    sequencer: Sequencer, town: Town, database: Database, reader: Reader
) -> None:
    await announce(sequencer, town, [TICK + 1, TICK + 2, TICK + 3])
    made = town.write("kind", STEWARD, code="meal", name="meal", unit="x", scale=0)
    assert isinstance((await sequencer.submit([submission_of(made)]))[0], Receipted)
    await timeline_of(reader, town)
    commons_id = rows.key_of(town.name)
    connection = await asyncpg.connect(database.owner_dsn)
    await connection.execute(
        "DELETE FROM gesell.policy WHERE commons_id = $1 AND seq ="
        " (SELECT max(seq) FROM gesell.policy WHERE commons_id = $1)",
        commons_id,
    )
    await connection.execute(
        "UPDATE gesell.commons SET policies = policies - 1, kinds = 0 WHERE commons_id = $1", commons_id
    )
    kinds = await connection.fetch("DELETE FROM gesell.kind WHERE commons_id = $1 RETURNING seq", commons_id)
    assert await timeline_of(reader, town) == await stored(database, town)
    assert len((await timeline_of(reader, town)).changes) == 3
    assert await kinds_of(reader, town) == ["hour"]
    # … and goes on otherwise than it did.
    await connection.execute(
        "INSERT INTO gesell.kind (commons_id, seq, scale, code, name, unit) VALUES ($1, $2, 0, 'ride', 'ride', 'x')",
        commons_id,
        kinds[0]["seq"],
    )
    await connection.execute("UPDATE gesell.commons SET kinds = 1 WHERE commons_id = $1", commons_id)
    await connection.close()
    assert await kinds_of(reader, town) == ["hour", "ride"]


async def test_entries_that_were_lost_are_missed_though_more_came_since(
    sequencer: Sequencer, town: Town, database: Database, reader: Reader
) -> None:
    await announce(sequencer, town, [TICK + 1])
    assert isinstance((await sequencer.submit([town.pay()]))[0], Receipted)
    assert isinstance((await sequencer.submit([town.pay()]))[0], Receipted)
    await announce(sequencer, town, [TICK + 2])
    known = await timeline_of(reader, town)
    commons_id = rows.key_of(town.name)
    connection = await asyncpg.connect(database.owner_dsn)
    lost = await connection.fetchval(
        "DELETE FROM gesell.policy WHERE commons_id = $1 AND seq ="
        " (SELECT max(seq) FROM gesell.policy WHERE commons_id = $1) RETURNING seq",
        commons_id,
    )
    for before, tick in ((2, 5), (1, 6)):
        await connection.execute(
            "INSERT INTO gesell.policy (commons_id, seq, from_tick, policy)"
            " SELECT commons_id, $2, $3, policy FROM gesell.policy WHERE commons_id = $1 AND from_tick = 0",
            *(commons_id, lost - before, TICK + tick),
        )
    await connection.execute("UPDATE gesell.commons SET policies = policies + 1 WHERE commons_id = $1", commons_id)
    await connection.close()
    now = await timeline_of(reader, town)
    assert now == await stored(database, town)
    assert now != known


# ── What is done in one turn of the event loop ───────────────────────────────────────────────────────────────────


async def test_policies_of_one_request_are_decided_a_few_at_a_time(
    sequencer: Sequencer, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    monkeypatch.setattr(sequencing, "decide", watch.over(sequencing.decide))
    async with watch.turning():
        await announce(sequencer, town, [TICK + 1] * 100)
    assert watch.most_in_a_turn() <= sequencing.BREATH_WEIGHT // sequencing.KEYS_WEIGHT + 1


@pytest.mark.parametrize(("policies", "at_once"), [(0, 4), (1, 2), (16, 1)])
async def test_accounts_are_looked_at_a_few_at_a_time_the_fewer_the_more_policies_each_may_have_slept_through(
    sequencer: Sequencer,
    town: Town,
    clock: SetClock,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    policies: int,
    at_once: int,
) -> None:
    if policies:
        await announce(sequencer, town, range(TICK + 1, TICK + 1 + policies))
    clock.ms += 100 * HOUR_MS
    commons = await commons_of(reader, town)
    swept, shown = Watch(), Watch()
    monkeypatch.setattr(present, "LOOKS_AT_ONCE", 4)
    monkeypatch.setattr(housekeeping, "has_melt_due", swept.over(housekeeping.has_melt_due))
    monkeypatch.setattr(reads, "melt_due", shown.over(reads.melt_due))
    keeper = Housekeeper(reader, sequencer, clock, LEDGER, Metrics(), sweep_ticks=5)  # type: ignore[arg-type]
    request = cast(web.Request, SimpleNamespace(app={READER: reader, reads.DUE: {}}))
    async with swept.turning(), shown.turning():
        due = await reads._melt_due(request, commons, TICK + 100)
        listed = [peer async for peers in keeper._list_due(commons, TICK + 100) for peer in peers]
    assert due > 0
    assert sorted(listed) == sorted(member.public_key for member in MEMBERS)
    assert swept.most_in_a_turn() <= at_once
    assert shown.most_in_a_turn() <= at_once

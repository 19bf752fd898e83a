"""What the loader leaves in a database is what the service would have left: a log and books that hold.

Owns small fillings on a real PostgreSQL. Measures nothing.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from bench import filling
from bench.filling import Refused, make_readings, open_loader, readings_beside, sleeper
from bench.signing import Crew, found, memberships
from bench.verdicts import find_unsound
from gesell_ledger.clock import Clock
from gesell_ledger.core.decide import Submission
from gesell_ledger.metrics import Metrics
from gesell_ledger.readings.folder import rebuild
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.rows import key_of
from gesell_ledger.storage.trees import Trees
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, verify_envelope
from gesell_protocol.statements import read_statement
from gesell_protocol.tree import Frontier

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool
    from tests.own_postgres import OwnPostgres

LEDGER = Signer(bytes(32)).public_key
CREW = Crew.drawn(5)
FOUNDED = 1 + 2 * len(CREW.accounts)
SLEEPERS = 300
FUNDS = 1_000


class Filled:
    """A founded commons in a database of its own."""

    def __init__(self, dsn: str, pool: Pool, commons: bytes) -> None:
        self.dsn = dsn
        self.pool = pool
        self.commons = commons

    def load(self) -> Any:
        """A loader of it."""
        return open_loader(self.dsn, ledger=LEDGER, clock=Clock(), crew=CREW, commons=self.commons)


@pytest.fixture
async def founded(postgres: OwnPostgres) -> Any:
    name = await asyncio.to_thread(postgres.make_database)
    await migrate(postgres.owner_dsn(name))
    dsn = postgres.service_dsn(name)
    async with open_pool(dsn, connections=4) as pool:
        now_ms = Clock().now_ms()
        commons, founding = found(CREW, ledger=LEDGER, time_ms=now_ms)
        sequencer = Sequencer(pool, Clock(), ledger=LEDGER, metrics=Metrics())
        said = [founding, *memberships(CREW, commons, time_ms=now_ms)]
        envelopes = [Envelope(one.body, ((one.key, one.signature),)) for one in said]
        answers = await sequencer.submit([Submission(one, read_statement(one)) for one in envelopes])
        assert all(isinstance(answer, Receipted) for answer in answers), answers
        yield Filled(dsn, pool, commons)


async def test_filled_ledger_holds_and_its_signatures_do(founded: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PORTION", 40)
    async with founded.load() as loader:
        payments = await loader.add_payments(250)
        sleepers = await loader.add_sleepers(SLEEPERS, amount=FUNDS)
    # One issue to who pays them, and two payments of 256 legs at most.
    assert (payments.entries, sleepers.entries) == (250, SLEEPERS + 3)
    size = FOUNDED + 250 + SLEEPERS + 3
    assert await find_unsound(founded.dsn, founded.commons, start=0, end=size) == []
    entries = [entry for entry, _ in await Reader(founded.pool).list_entries(founded.commons, after=0, limit=1_000)]
    assert len(entries) == size
    for entry in entries:
        envelope = Envelope(entry.body, tuple(entry.signatures))
        verify_envelope(envelope)
        read_statement(envelope)
    tree = await Trees(founded.pool).load(founded.commons)
    assert tree is not None
    assert tree.frontier.root == Frontier().grown([entry.leaf for entry in entries])[0].root
    rows = await founded.pool.fetch(
        "SELECT holder FROM gesell.account WHERE commons_id = $1 AND balance = $2", key_of(founded.commons), FUNDS
    )
    names = {sleeper(founded.commons, number).public_key for number in range(SLEEPERS)}
    assert {row["holder"] for row in rows} == names


async def test_filling_that_is_refused_says_so(founded: Filled) -> None:
    async with founded.load() as loader:
        await loader.add_sleepers(3, amount=FUNDS)
        with pytest.raises(Refused, match="already-member"):
            await loader.add_sleepers(3, amount=FUNDS)


async def test_readings_of_a_filled_ledger_are_those_that_a_rebuild_makes(founded: Filled) -> None:
    async with founded.load() as loader:
        await loader.add_payments(120)
    await make_readings(founded.dsn, founded.commons)
    made = await _readings(founded)
    assert made[0]["seq"] == FOUNDED + 120
    await rebuild(Folds(founded.pool), founded.commons, half_life_ms=filling.HALF_LIFE_MS)
    assert await _readings(founded) == made


async def _readings(founded: Filled) -> list[Any]:
    tables = ("reading", "relation", "standing", "flow_tick", "flow_pairs")
    return [
        row
        for table in tables
        for row in await founded.pool.fetch(
            f"SELECT t.* FROM gesell.{table} t WHERE commons_id = $1 ORDER BY t::text", key_of(founded.commons)
        )
    ]


async def test_it_is_told_where_the_readings_could_not_be_made_beside() -> None:
    async def fill_nothing() -> None:
        async with readings_beside("postgresql://nobody@127.0.0.1:1/nothing", bytes(16)):
            for child in multiprocessing.active_children():
                await asyncio.to_thread(child.join)

    with pytest.raises(RuntimeError, match="ended with status 1"):
        await fill_nothing()

"""Fixtures of tests that speak to the database: a server for each file, connections to a new database, and a commons
with a sequencer on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from tests.own_postgres import OwnPostgres, own_postgres
from tests.running import lay_cluster, open_folder
from tests.sequences import Database, SetClock, Town, Wire, open_sequencer

if TYPE_CHECKING:
    from gesell_ledger.sequencer import Sequencer
    from gesell_ledger.storage.postgres import Pool


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A server that is quick rather than durable; files that serve from it, or need more, start their own."""
    with own_postgres() as started:
        yield started


@pytest.fixture
async def pool(postgres: OwnPostgres) -> AsyncIterator[Pool]:
    """Connections to a database with the tables in it."""
    name = await asyncio.to_thread(postgres.make_database)
    await migrate(postgres.owner_dsn(name))
    async with open_pool(postgres.service_dsn(name), connections=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A PostgreSQL with the tables in its database `postgres`."""
    with open_folder() as folder, asyncio.Runner() as runner:
        lay_cluster(folder / "data")
        started = PrivatePostgres(folder / "data")
        runner.run(started.start())
        try:
            runner.run(migrate(started.dsn(role=started.owner, database="postgres")))
            yield started
        finally:
            runner.run(started.stop())


@pytest.fixture(scope="module")
def database(server: PrivatePostgres) -> Database:
    return Database(server, "postgres")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def sequencer(database: Database, clock: SetClock) -> AsyncIterator[Sequencer]:
    async with open_sequencer(database.dsn, clock) as opened:
        yield opened


@pytest.fixture
async def town(sequencer: Sequencer, clock: SetClock) -> Town:
    return await Town(clock).found(sequencer)


@pytest.fixture
async def wire(database: Database) -> AsyncIterator[Wire]:
    async with Wire(database.dsn).laid() as wire:
        yield wire

"""Fixtures of tests that speak to the database: a server for each file, and connections to a new database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from tests.own_postgres import OwnPostgres, own_postgres

if TYPE_CHECKING:
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

"""Makes the tables, and the role that can't rewrite history. Runs as the database's owner, never as the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg

from gesell_ledger.storage.faults import DatabaseUnfit, not_an_address
from gesell_ledger.storage.mentions import fill_mentions
from gesell_ledger.storage.queries import migrations
from gesell_ledger.storage.trees import fill_trees

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: The role that the service works as: it can log in, and may add history but not change it.
SERVICE_ROLE = "gesell_service"

#: Two operators who migrate at once wait for each other; a hint on one node, as all advisory locks are.
_LOCK = 0x6E5E11


#: What a migration's SQL can't do by itself, since the rules are the core's: done within its transaction.
_FILLS: Final[Mapping[int, Callable[[Connection], Awaitable[None]]]] = {2: fill_mentions, 6: fill_trees}


async def migrate(dsn: str) -> list[str]:
    """Bring a database to the newest schema; returns the names of the migrations that were applied.

    Each migration is a transaction of its own, so one that fails leaves the ones before it. Needs an owner who may
    create schemas and, the first time, roles. Running it again applies nothing. Raises `DatabaseUnfit` for a schema
    that is newer than this program, and what asyncpg raises.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=15, server_settings={"application_name": "gesell db migrate"})
    except ValueError:
        raise not_an_address() from None
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await _make_role(connection)
        done = await _applied(connection)
        known = migrations()
        if newer := done - {number for number, _, _ in known}:
            raise DatabaseUnfit(
                f"the database's schema is at version {max(newer)}, this program knows {known[-1][0]}."
                " Install the version of Gesell that made it, or a newer one."
            )
        applied = []
        for number, name, sql in known:
            if number in done:
                continue
            async with connection.transaction():
                await connection.execute(sql)
                if number in _FILLS:
                    await connection.execute("SET LOCAL search_path = gesell")
                    await _FILLS[number](connection)
                await connection.execute("INSERT INTO gesell.migration (number, name) VALUES ($1, $2)", number, name)
            applied.append(name)
        return applied
    finally:
        await connection.close()


async def _make_role(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", SERVICE_ROLE)
    if exists:
        return
    # Roles belong to the whole server and the lock to one database, so somebody may make it at the same moment
    # for another database: then one of us is told that it exists, or that its name is taken.
    with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        await connection.execute(f"CREATE ROLE {SERVICE_ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION")


async def _applied(connection: asyncpg.Connection[asyncpg.Record]) -> set[int]:
    if await connection.fetchval("SELECT to_regclass('gesell.migration')") is None:
        return set()
    return {row["number"] for row in await connection.fetch("SELECT number FROM gesell.migration")}

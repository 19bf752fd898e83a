"""An operator's own PostgreSQL, for `--database`: one server, and as many databases as tests want to spoil.

Owns the server and its databases. Knows no table: what is in a database, a migration or a template says.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import asyncpg

from gesell_ledger.storage import embedded
from gesell_ledger.storage.embedded import PrivatePostgres
from tests.running import lay_cluster, open_folder

SERVICE = embedded.SERVICE

#: A private PostgreSQL is told these on its command line, which nobody can overrule; an operator's own server has
#: them in files, where they can be wrong.
_DURABILITY = ("fsync=", "synchronous_commit=", "full_page_writes=")


class OwnPostgres:
    """A running server. Its methods open a connection of their own each, so that they fit any test."""

    def __init__(self, server: PrivatePostgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)

    def owner_dsn(self, database: str) -> str:
        """The address of a database for its owner."""
        return self._server.dsn(role=self._server.owner, database=database)

    def service_dsn(self, database: str) -> str:
        """The address of a database for the service's role."""
        return self._server.dsn(role=SERVICE, database=database)

    def make_database(self, *, template: str = "template0") -> str:
        """Make a database, empty or a copy of another that nobody is connected to; returns its name."""
        name = f"test_{next(self._numbers)}"
        self.execute("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def execute(self, database: str, *statements: str) -> None:
        """Run statements as the owner, each on its own."""
        asyncio.run(_run(self.owner_dsn(database), statements))

    def fetch(self, database: str, sql: str, *arguments: object, as_service: bool = False) -> list[tuple[Any, ...]]:
        """The rows of one query."""
        dsn = self.service_dsn(database) if as_service else self.owner_dsn(database)
        return asyncio.run(_fetch(dsn, sql, arguments))

    def try_out(self, database: str, *statements: str, as_service: bool = False) -> list[list[tuple[Any, ...]]]:
        """The rows of each of some statements, of which nothing stays: their transaction is rolled back."""
        dsn = self.service_dsn(database) if as_service else self.owner_dsn(database)
        return asyncio.run(_try_out(dsn, statements))

    @contextmanager
    def spoiled(self, name: str, value: str) -> Iterator[None]:
        """Change a setting of the whole server for a while."""
        self.set(name, value)
        try:
            yield
        finally:
            self.set(name, "on")

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server; returns when it counts."""
        self.execute("postgres", f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")
        for _ in range(200):
            if self.fetch("postgres", f"SHOW {name}") == [(value,)]:
                return
        raise AssertionError(f"{name} did not become {value}")


@contextmanager
def own_postgres(*, fsync: str = "off") -> Iterator[OwnPostgres]:
    """A server in a folder of its own, gone afterwards. Must be called in the main thread.

    Only tests that serve from it need `fsync="on"`; without, databases are made and left in no time.
    """
    settings = tuple(one for one in embedded._SETTINGS if not one.startswith(_DURABILITY))
    with open_folder() as folder, asyncio.Runner() as runner:
        lay_cluster(folder / "data")
        server = PrivatePostgres(folder / "data")
        with mock.patch.object(embedded, "_SETTINGS", settings):
            runner.run(server.start())
        postgres = OwnPostgres(server)
        try:
            postgres.set("fsync", fsync)
            yield postgres
        finally:
            # Nobody will read these files again, so nothing is written that was not yet.
            assert server.pid is not None
            os.kill(server.pid, signal.SIGQUIT)
            runner.run(server.stop())


async def _run(dsn: str, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _fetch(dsn: str, sql: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def _try_out(dsn: str, statements: tuple[str, ...]) -> list[list[tuple[Any, ...]]]:
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
    finally:
        await transaction.rollback()
        await connection.close()

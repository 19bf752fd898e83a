"""Bytes on disk a payment: by how much all tables and indexes of the ledger grow over payments of one leg.

Owns what is counted: every table of the schema with its indexes and TOAST, the readings that are folded from the
payments included, after they have caught up. Not the write-ahead log, which is recycled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from bench.driver import LoadFault
from bench.measures import Run
from bench.orders import random_payments
from bench.plan import Plan
from bench.town import Town

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

NAME: Final = "disk.payment"
#: The workload over whose runs the growth is seen.
WORKLOAD: Final = "pay.each-1000"
#: The longest wait for the readings to catch up with the payments, and how often it is looked.
CATCH_UP_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.2
_SIZES: Final = """
    SELECT part.name, part.bytes
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        VALUES (c.relname::text, pg_table_size(c.oid)), (c.relname || ' indexes', pg_indexes_size(c.oid))
    ) AS part (name, bytes)
    WHERE n.nspname = 'gesell' AND c.relkind = 'r'
"""
_ENTRIES: Final = "SELECT seq FROM gesell.commons WHERE hash = $1"
#: Of all commons: another one's readings would grow the same tables.
_LAGGING: Final = """
    SELECT coalesce(sum(c.seq - coalesce(r.seq, 0)), 0)::bigint
    FROM gesell.commons AS c LEFT JOIN gesell.reading AS r USING (commons_id)
"""


class Growth:
    """Adds up what a town's payments took on disk, in the parts of a group that it is told to look at."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._payments = 0
        self._grown: dict[str, int] = {}

    @asynccontextmanager
    async def seen(self) -> AsyncIterator[None]:
        """Look at the tables before and after what is done inside: payments of one leg in the town, nothing else."""
        if self._town.stand.database_dsn is None:
            yield
            return
        entries, sizes = await self._look()
        yield
        entries_after, sizes_after = await self._look()
        self._payments += entries_after - entries
        for part, size in sizes_after.items():
            self._grown[part] = self._grown.get(part, 0) + size - sizes.get(part, 0)

    async def note(self, plan: Plan) -> None:
        """Make as many payments as still lack, and note the measure."""
        town = self._town
        title = "bytes on disk a payment: growth of all tables and indexes over {} payments"
        if town.stand.database_dsn is None:
            why = "the service is not ours: its database can't be seen"
            town.notebook.skip(NAME, title.format(f"{plan.disk_payments:,}"), "bytes", why)
            return
        lacking = plan.disk_payments - self._payments
        if lacking > 0:
            async with self.seen():
                await town.say(random_payments(town.draw, lacking, accounts=plan.accounts), after="filling for disk")
        # Rounded up: a byte that is taken counts whole.
        value = -(-sum(self._grown.values()) // self._payments)
        shares = {part: size / self._payments for part, size in self._grown.items() if size}
        details = {"payments": float(self._payments), **shares}
        # How many there were differs from run to run, the name of the measure does not.
        town.notebook.note(
            NAME, title.format(f"{plan.disk_payments:,} or more"), "bytes", Run(value=value, details=details)
        )

    async def _look(self) -> tuple[int, dict[str, int]]:
        """Entries of the commons, and the bytes of each table and of its indexes, once the readings have caught up."""
        town = self._town
        assert town.stand.database_dsn is not None
        connection = await asyncpg.connect(town.stand.database_dsn)
        try:
            await _catch_up(connection)
            entries = await connection.fetchval(_ENTRIES, town.commons)
            return int(entries), {row["name"]: int(row["bytes"]) for row in await connection.fetch(_SIZES)}
        finally:
            await connection.close()


async def _catch_up(connection: Connection) -> None:
    """Wait until the readings have all entries; raises `LoadFault` if that takes too long."""
    until = time.monotonic() + CATCH_UP_SECONDS
    while lagging := await connection.fetchval(_LAGGING):
        if time.monotonic() > until:
            raise LoadFault(f"the readings still lag {lagging} entries behind, so what is on disk is not known")
        await asyncio.sleep(LOOK_SECONDS)

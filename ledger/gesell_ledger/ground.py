"""What a service stands on, settled once for all its workers: the database, whose it is, the key, the clock.

Owns the private PostgreSQL for as long as the service lives, and the note in the database that a service runs. Serves
nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from gesell_ledger.clock import Clock, DemoClock, LedgerClock
from gesell_ledger.keyfile import LedgerKey, load_or_make_key
from gesell_ledger.settings import Settings
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.faults import DatabaseUnfit, fault_of, is_transient, not_an_address
from gesell_ledger.storage.imports import UNFINISHED
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_ledger.storage.postgres import check_fit, claim_ledger, load_ledger, open_pool, store_heartbeat
from gesell_ledger.storage.trees import Trees
from gesell_protocol.names import did_of

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

HEARTBEAT_SECONDS: Final = 1.0
#: A service that has not noted for so long that it runs does not.
SILENCE_SECONDS: Final = 2.5
HEARTBEAT_QUERY_SECONDS: Final = 15
#: Connections of a private PostgreSQL: for each worker, and for the service itself, a check of the books and a psql.
WORKER_CONNECTIONS: Final = 16
OTHER_CONNECTIONS: Final = 20
CONNECTIONS_MIN: Final = 60

log = structlog.get_logger("gesell")


@dataclass(frozen=True, slots=True)
class Ground:
    """A database fit to serve from, the ledger's key, and the clock."""

    dsn: str = field(repr=False)
    key: LedgerKey
    clock: LedgerClock


@asynccontextmanager
async def settle(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Ground]:
    """Start or find the database, check it, and keep noting that the service runs; undone in the reverse order.

    Sets `stopping` when the ground gives way (its PostgreSQL can't be started again, say), and raises why on leaving.
    Raises a `Fault` or `PostgresFault` that says what to do when it can't be settled.
    """
    async with (
        _database(settings, stopping) as dsn,
        connect(dsn, connections=1, seconds=HEARTBEAT_QUERY_SECONDS) as pool,
    ):
        await check_fit(pool, unsafe_durability=settings.unsafe_durability)
        key = load_or_make_key(settings.key_file, passphrase=settings.key_passphrase)
        clock = await _start_clock(pool, settings, key)
        await _check_handed_over(pool, key)
        try:
            async with _beside(_keep_beating(pool, clock), stopping):
                yield Ground(dsn, key, clock)
        finally:
            await _beat(pool, clock)


@asynccontextmanager
async def connect(dsn: str, *, connections: int, seconds: int, writing: bool = False) -> AsyncIterator[Pool]:
    """A pool of connections; what keeps it from the database is a `Fault`."""
    opening = open_pool(dsn, connections=connections, seconds=seconds, writing=writing)
    try:
        pool = await opening.__aenter__()
    except ValueError:
        raise not_an_address() from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise fault_of(error) from None
    try:
        yield pool
    finally:
        await opening.__aexit__(None, None, None)


@asynccontextmanager
async def _database(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[str]:
    """The DSN to serve with: the operator's, or that of a private PostgreSQL that lives as long as the service."""
    if settings.database is not None:
        yield settings.database
        return
    connections = max(CONNECTIONS_MIN, OTHER_CONNECTIONS + WORKER_CONNECTIONS * settings.workers)
    async with PrivatePostgres(settings.data, connections=connections) as private:
        await migrate(private.dsn(role=private.owner, database="postgres"))
        async with _beside(private.watch(), stopping):
            yield private.dsn(role=SERVICE_ROLE, database="postgres")


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> AsyncIterator[None]:
    """Run endless work beside the block; if it ends by itself, the service stops and its fault is raised."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stopping.set())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _start_clock(pool: Pool, settings: Settings, key: LedgerKey) -> LedgerClock:
    """The clock of this database, compared with when a service last ran on it; also whose database it is."""
    clock: LedgerClock = Clock()
    if settings.demo:
        start = settings.clock_start_ms if settings.clock_start_ms is not None else clock.look()
        clock = DemoClock(start_ms=start, speed=settings.clock_speed)
    row = await claim_ledger(pool, key=key.public_key, demo=settings.demo, now_ms=clock.look())
    if row["key"] != key.public_key:
        raise DatabaseUnfit(
            f"this database belongs to the ledger {did_of(row['key'])}, and {settings.key_file} is the key of"
            f" {did_of(key.public_key)}. Say which key file is the right one: --key FILE"
        )
    if row["demo"] != settings.demo:
        kinds = ("a real clock", "a demo clock")
        raise DatabaseUnfit(
            f"this database ran on {kinds[row['demo']]} and can't go on with {kinds[settings.demo]}:"
            " its money would melt by the wrong time. Use other --data."
        )
    # A demo clock has nothing to confirm: it goes on where it was.
    if settings.demo or not settings.accept_clock:
        clock.check_start(row["heartbeat_ms"])
    if clock.fault is not None:
        log.error("clock_not_trusted", why=clock.fault)
    return clock


async def _check_handed_over(pool: Pool, key: LedgerKey) -> None:
    """Refuse to serve logs that another key speaks for: nothing could be signed in them."""
    foreign = await Trees(pool).find_foreign(key.public_key)
    if foreign is not None and foreign[1] == UNFINISHED:
        raise DatabaseUnfit(
            f"the log of the commons {foreign[0].hex()} is imported by half. Run `gesell import` again, to its end."
        )
    if foreign is not None:
        raise DatabaseUnfit(
            f"the log of the commons {foreign[0].hex()} is {did_of(foreign[1])}'s by now, not"
            f" {did_of(key.public_key)}'s: a hand-over was begun. Run `gesell rekey` again, to its end."
        )


async def check_unserved(pool: Pool) -> asyncpg.Record | None:
    """Check that no service runs on a database, and return whose it is: (key, demo, heartbeat_ms), None if nobody's.

    Takes as long as a service may be silent. Raises `DatabaseUnfit`.
    """
    row = await load_ledger(pool)
    if row is not None:
        await asyncio.sleep(SILENCE_SECONDS)
        again = await load_ledger(pool)
        if again is None or again["heartbeat_ms"] != row["heartbeat_ms"]:
            raise DatabaseUnfit("a service runs on this database; stop it first")
    return row


async def _keep_beating(pool: Pool, clock: LedgerClock) -> None:
    """Note every second that the service runs; a database that is away for a while does not end it."""
    while True:
        await _beat(pool, clock)
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _beat(pool: Pool, clock: LedgerClock) -> None:
    now = clock.look()
    if clock.fault is not None:
        return
    try:
        await store_heartbeat(pool, now)
    except Exception as error:
        if not is_transient(error):
            raise
        log.warning("heartbeat_missed", error=repr(error))

"""Wiring only: from settings to a running service, and back down in order.

Owns the order of starting and stopping. Start: database, its fitness, the key, the clock, then the port. Stop: the
port, the queues, the database; what was acknowledged is durable, what was queued gets an answer.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg
import structlog
from aiohttp import web

from gesell_ledger.api.connections import make_runner
from gesell_ledger.api.routes import make_app
from gesell_ledger.clock import Clock, DemoClock, LedgerClock
from gesell_ledger.housekeeper import Housekeeper
from gesell_ledger.intake import Intake
from gesell_ledger.keyfile import load_or_make_key
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Sequencer
from gesell_ledger.settings import Settings
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.faults import DatabaseUnfit, Fault, fault_of, is_transient, not_an_address
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_ledger.storage.postgres import check_fit, claim_ledger, open_pool, store_heartbeat
from gesell_ledger.storage.reading import Reader
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import did_of

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

HEARTBEAT_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
GC_OBJECTS = 100_000
#: Connections for writing, and as many for reading; how long one statement of each may take.
CONNECTIONS = 6
WRITE_SECONDS = 60
READ_SECONDS = 10
#: How long one slow reader may hold up the end, after everything queued has its answer.
FAREWELL_SECONDS = 5.0

log = structlog.get_logger("gesell")


def configure_logs() -> None:
    """Logs go to stderr as lines of key=value, so that stdout says only `listening on`."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT. Raises a `Fault` that says what to do when it can't start."""
    _tune_interpreter()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(_database(settings, stopping))
        pool = await _connect(stack, dsn)
        await check_fit(pool, unsafe_durability=settings.unsafe_durability)
        signer = load_or_make_key(settings.key_file, passphrase=settings.key_passphrase)
        clock = await _start_clock(pool, settings, signer)
        stack.push_async_callback(_beat, pool, clock)
        # Readers have connections of their own, and less time, so that no question holds up a payment.
        reader = Reader(await _connect(stack, dsn, seconds=READ_SECONDS))
        await _run(stack, pool, reader, clock, signer, settings, stopping)


def _tune_interpreter() -> None:
    """Two settings of the interpreter that cost nothing and were measured to give a tenth to a fifth more payments."""
    # A thread that verified a signature wants the interpreter for a moment only, to take the next one: it should not
    # wait the 5 ms for which the event loop may keep it otherwise.
    sys.setswitchinterval(SWITCH_SECONDS)
    # A batch makes many thousand objects and no cycles; looking for cycles among all that is warm takes longer than
    # deciding does.
    gc.set_threshold(GC_OBJECTS, 20, 20)


@asynccontextmanager
async def _database(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[str]:
    """The DSN to serve with: the operator's, or that of a private PostgreSQL that lives as long as the service."""
    if settings.database is not None:
        yield settings.database
        return
    async with PrivatePostgres(settings.data) as private:
        await migrate(private.dsn(role=private.owner, database="postgres"))
        watch = asyncio.create_task(private.watch())
        watch.add_done_callback(lambda _: stopping.set())
        try:
            yield private.dsn(role=SERVICE_ROLE, database="postgres")
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch


async def _connect(stack: AsyncExitStack, dsn: str, *, seconds: int = WRITE_SECONDS) -> Pool:
    try:
        return await stack.enter_async_context(open_pool(dsn, connections=CONNECTIONS, seconds=seconds))
    except ValueError as error:
        raise not_an_address(error) from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise fault_of(error) from None


async def _start_clock(pool: Pool, settings: Settings, signer: Signer) -> LedgerClock:
    """The clock of this database, compared with when a service last ran on it; also whose database it is."""
    clock: LedgerClock = Clock()
    if settings.demo:
        start = settings.clock_start_ms if settings.clock_start_ms is not None else clock.look()
        clock = DemoClock(start_ms=start, speed=settings.clock_speed)
    row = await claim_ledger(pool, key=signer.public_key, demo=settings.demo, now_ms=clock.look())
    if row["key"] != signer.public_key:
        raise DatabaseUnfit(
            f"this database belongs to the ledger {did_of(row['key'])}, and {settings.key_file} is the key of"
            f" {did_of(signer.public_key)}. Say which key file is the right one: --key FILE"
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


async def _run(
    stack: AsyncExitStack,
    pool: Pool,
    reader: Reader,
    clock: LedgerClock,
    signer: Signer,
    settings: Settings,
    stopping: asyncio.Event,
) -> None:
    metrics = Metrics()
    sequencer = Sequencer(pool, clock, ledger=signer.public_key, metrics=metrics)
    intake = Intake(sequencer, min_tick_seconds=settings.min_tick_seconds)
    stack.callback(intake.close)
    app = make_app(
        intake=intake,
        reader=reader,
        clock=clock,
        metrics=metrics,
        ledger=signer.public_key,
        min_tick_seconds=settings.min_tick_seconds,
    )
    runner = make_runner(app, shutdown_seconds=FAREWELL_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        raise Fault(
            f"can't listen on {settings.host}:{settings.port}: {error.strerror or error}. Say another --port."
        ) from None
    keeper = Housekeeper(reader, sequencer, clock, signer, metrics, sweep_ticks=settings.sweep_ticks)
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(_keep_beating(pool, clock))]
    host, port = runner.addresses[0][:2]
    print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    ended = [asyncio.create_task(stopping.wait()), *tasks]
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    await site.stop()
    await sequencer.stop()
    for task in ended:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


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

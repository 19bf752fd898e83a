"""One process that answers: from its orders and its sockets to a running service, and back down in order.

Owns the wiring of what serves: connections, sequencer, intake, HTTP, housekeeping. It must not know whether it is the
only process or one of several: the ground and the sockets are given. Stop: the sockets, the queues, the connections;
what was acknowledged is durable, what was queued gets an answer.

`python -m gesell_ledger.worker` is a worker of a supervisor: its orders come on stdin, whose end means that it shall
end; on stdout it says once that it serves, or why it can't, and then an empty line now and then: that it is not stuck.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

from gesell_ledger.api import pieces
from gesell_ledger.api.connections import make_runner
from gesell_ledger.api.cursors import Cursors
from gesell_ledger.api.live import LIVE
from gesell_ledger.api.routes import make_app
from gesell_ledger.checkers import Checkers, count_for
from gesell_ledger.clock import ClockState, LedgerClock, clock_of
from gesell_ledger.deliverer import Deliverer
from gesell_ledger.ground import connect
from gesell_ledger.housekeeper import Housekeeper
from gesell_ledger.intake import Intake
from gesell_ledger.keyfile import LedgerKey
from gesell_ledger.logs import configure_logs
from gesell_ledger.metrics import Metrics, Shared
from gesell_ledger.readings.folder import Folder
from gesell_ledger.sequencer import Sequencer
from gesell_ledger.settings import Settings
from gesell_ledger.sockets import BACKLOG, Sockets
from gesell_ledger.storage.cosigned import Cosigned
from gesell_ledger.storage.embedded import PostgresFault
from gesell_ledger.storage.faults import Fault
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.readings import Readings
from gesell_ledger.storage.trees import Trees
from gesell_ledger.storage.trust import VouchReader
from gesell_ledger.storage.webhooks import Webhooks
from gesell_ledger.witnessing import Witnessing

GC_OBJECTS: Final = 100_000
FILES: Final = 16_384
#: Connections for writing, and as many for reading; how long one statement of each may take.
CONNECTIONS: Final = 6
#: Webhooks have their own too, so that deliveries take no more of the database than this.
DELIVERY_CONNECTIONS: Final = 2
#: So has the folder, whose run may first have to clear away all readings of a commons.
FOLDING_CONNECTIONS: Final = 1
#: And so have proofs for witnesses.
WITNESSING_CONNECTIONS: Final = 2
WRITE_SECONDS: Final = 60
READ_SECONDS: Final = 10
FOLD_SECONDS: Final = 600
#: How long one slow reader may hold up the end, after everything queued has its answer.
FAREWELL_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 1.0
#: Longer than a supervisor waits before it kills.
LAST_SECONDS: Final = 40.0
#: How often a worker says that its loop goes round.
BEAT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker works with. `sockets` are inherited descriptors; one worker of a service keeps house."""

    settings: Settings
    dsn: str = field(repr=False)
    key: LedgerKey
    clock: ClockState
    housekeeping: bool = True
    sockets: tuple[int, ...] = ()
    shared: Shared | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a worker says to its supervisor, once: that it serves, or the fault that keeps it from it."""

    fault: str | None = None


def pack(orders: Orders) -> bytes:
    """Orders as they are handed to a worker: their length in four bytes, then MessagePack."""
    packed = msgspec.msgpack.encode(orders, enc_hook=os.fsencode)
    return len(packed).to_bytes(4, "big") + packed


def _unpack(packed: bytes) -> Orders:
    def read_path(kind: type, value: Any) -> Any:
        assert kind is Path
        return Path(os.fsdecode(value))

    return msgspec.msgpack.decode(packed, type=Orders, dec_hook=read_path)


async def work(
    orders: Orders, clock: LedgerClock, sockets: Sockets, *, stopping: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Serve on the sockets, which listen already, until `stopping`; calls `ready` when requests are taken.

    Raises a `Fault` that says what to do when it can't start, and what breaks while it runs.
    """
    _tune_interpreter()
    _open_all_files_allowed()
    async with AsyncExitStack() as stack:
        parts = await _wire(stack, orders, clock)
        runner = make_runner(parts.app, shutdown_seconds=FAREWELL_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        chores = await _housekeeping(stack, orders, clock, parts) if orders.housekeeping else []
        chores.append(_watch_clock(clock, parts.metrics))
        sites = [web.SockSite(runner, one, backlog=BACKLOG) for one in sockets]
        for site in sites:
            await site.start()
        tasks = [asyncio.create_task(chore) for chore in chores]
        parts.metrics.workers.set(1)
        parts.metrics.worker_starts.inc()
        ready()
        ended = [asyncio.create_task(stopping.wait()), *tasks]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for site in sites:
            await site.stop()
        await parts.intake.stop()
        await parts.sequencer.stop()
        for task in ended:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@dataclass(frozen=True, slots=True)
class _Parts:
    """What serves, wired together."""

    app: web.Application
    intake: Intake
    sequencer: Sequencer
    reader: Reader
    metrics: Metrics


async def _wire(stack: AsyncExitStack, orders: Orders, clock: LedgerClock) -> _Parts:
    """Open the connections and put together what answers."""
    settings, ledger = orders.settings, orders.key.public_key
    pool = await stack.enter_async_context(
        connect(orders.dsn, connections=CONNECTIONS, seconds=WRITE_SECONDS, writing=True)
    )
    # Readers have connections of their own, and less time, so that no question holds up a payment.
    reading = await stack.enter_async_context(connect(orders.dsn, connections=CONNECTIONS, seconds=READ_SECONDS))
    reader = Reader(reading)
    metrics = Metrics(orders.shared)
    sequencer = Sequencer(pool, clock, ledger=ledger, metrics=metrics)
    checkers = Checkers(pieces.check, processes=count_for(settings.workers), min_tick_seconds=settings.min_tick_seconds)
    stack.push_async_callback(checkers.close)
    await checkers.start()
    intake = Intake(sequencer, checkers)
    app = make_app(
        intake=intake,
        reader=reader,
        readings=Readings(reading),
        vouches=VouchReader(reading),
        hooks=Webhooks(reading),
        clock=clock,
        metrics=metrics,
        ledger=ledger,
        min_tick_seconds=settings.min_tick_seconds,
        webhooks_to_private=settings.webhooks_to_private,
        cursors=Cursors(orders.key.seed),
        trees=Trees(reading),
        cosigned=Cosigned(reading),
        signer=orders.key.signer(),
    )
    sequencer.after_commit.append(app[LIVE].feeds.wake)
    return _Parts(app, intake, sequencer, reader, metrics)


async def _housekeeping(
    stack: AsyncExitStack, orders: Orders, clock: LedgerClock, parts: _Parts
) -> list[Coroutine[Any, Any, None]]:
    """What one worker of a service does for all."""
    settings, metrics = orders.settings, parts.metrics
    delivering = await stack.enter_async_context(
        connect(orders.dsn, connections=DELIVERY_CONNECTIONS, seconds=READ_SECONDS)
    )
    keeper = Housekeeper(
        parts.reader, parts.sequencer, clock, orders.key.signer(), metrics, sweep_ticks=settings.sweep_ticks
    )
    deliverer = Deliverer(
        Webhooks(delivering), Reader(delivering), clock, metrics, to_private=settings.webhooks_to_private
    )
    folding = await stack.enter_async_context(
        connect(orders.dsn, connections=FOLDING_CONNECTIONS, seconds=FOLD_SECONDS)
    )
    folder = Folder(Folds(folding), metrics, half_life_ms=settings.half_life_ms)
    parts.sequencer.after_commit.append(folder.wake)
    chores = [keeper.run(), deliverer.run(), folder.run()]
    if settings.witnesses:
        proving = await stack.enter_async_context(
            connect(orders.dsn, connections=WITNESSING_CONNECTIONS, seconds=READ_SECONDS)
        )
        witnessing = Witnessing(Trees(proving), Cosigned(proving), orders.key.signer(), metrics, settings.witnesses)
        parts.sequencer.after_commit.append(witnessing.wake)
        chores.append(witnessing.run())
    return chores


async def _watch_clock(clock: LedgerClock, metrics: Metrics) -> None:
    """Look at the clock also while nobody asks, so that any worker can tell of the fault of another's."""
    while True:
        clock.look()
        metrics.clock_fault.set(clock.fault is not None)
        await asyncio.sleep(WATCH_SECONDS)


def _tune_interpreter() -> None:
    """A setting of the interpreter that costs nothing."""
    # A batch makes many thousand objects and no cycles; looking for cycles among all that is warm takes longer than
    # deciding does.
    gc.set_threshold(GC_OBJECTS, 20, 20)


def _open_all_files_allowed() -> None:
    """Every listener is an open file, and many systems allow a process 1,024 of them until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < soft < FILES and (hard < 0 or hard > soft):
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard < 0 else min(FILES, hard), hard))


def stop_on_signals(stopping: asyncio.Event) -> None:
    """SIGTERM and SIGINT ask for an orderly end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


# ── A worker of a supervisor ─────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Read the orders from stdin and serve; the exit status."""
    packed = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))
    if not packed:
        return 1  # The supervisor ended before it gave orders.
    orders = _unpack(packed)
    configure_logs(orders.settings.log_format, worker=orders.shared.place if orders.shared is not None else None)
    supervisor = os.getppid()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(orders))
    except (Fault, PostgresFault) as fault:
        _say(Word(fault=str(fault)))
        return 1
    finally:
        if os.getppid() != supervisor and orders.shared is not None:
            # A supervisor that was killed can't tidy up.
            shutil.rmtree(orders.shared.folder, ignore_errors=True)
    return 0


async def _serve(orders: Orders) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    loop = asyncio.get_running_loop()

    def end() -> None:
        # An end can be read again and again: left there, it would keep the loop from ever resting.
        loop.remove_reader(sys.stdin.fileno())
        stopping.set()
        # Nobody may be left to kill a worker that does not get to its end, for want of a database, say.
        loop.call_later(LAST_SECONDS, os._exit, 1)

    # Nothing more is said on stdin: it can be read only when it ends, with the supervisor or by its will.
    loop.add_reader(sys.stdin.fileno(), end)
    sockets = [socket.socket(fileno=descriptor) for descriptor in orders.sockets]
    for one in sockets:
        one.set_inheritable(False)
    served = asyncio.Event()
    beating = asyncio.create_task(_beat(served))

    def ready() -> None:
        _say(Word())
        served.set()

    try:
        await work(orders, clock_of(orders.clock), sockets, stopping=stopping, ready=ready)
    finally:
        beating.cancel()


async def _beat(served: asyncio.Event) -> None:
    """Say again and again, from the loop that answers everybody, that it goes round."""
    await served.wait()
    os.set_blocking(sys.stdout.fileno(), False)
    while True:
        # A pipe is full when the supervisor has not read for hours, and closed when it is gone: stdin tells of that.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(sys.stdout.fileno(), b"\n")
        await asyncio.sleep(BEAT_SECONDS)


def _say(word: Word) -> None:
    """Say it unless the supervisor is gone; then the end of stdin says the rest."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(word) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        pass


if __name__ == "__main__":
    sys.exit(main())

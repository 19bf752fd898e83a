"""Wiring only: from settings to a running service, and back down in order.

Owns the order of starting and stopping. Start: the port, the database, its fitness, the key, the clock, then who
serves: this process itself, or workers. Stop: the port, the queues, the database; what was acknowledged is durable,
what was queued gets an answer.
"""

from __future__ import annotations

import asyncio

import structlog

from gesell_ledger.ground import Ground, settle
from gesell_ledger.settings import Settings
from gesell_ledger.sockets import Sockets, listen, reserve, url_of
from gesell_ledger.supervisor import supervise
from gesell_ledger.worker import Orders, stop_on_signals, work
from gesell_protocol.names import did_of

log = structlog.get_logger("gesell")


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT. Raises a `Fault` that says what to do when it can't start."""
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    # The port first: who started the service twice by mistake hears of it before there is a second data folder.
    with reserve(settings.host, settings.port) as reserved:
        async with settle(settings, stopping) as ground:
            await _run(ground, settings, reserved, stopping)


async def _run(ground: Ground, settings: Settings, reserved: Sockets, stopping: asyncio.Event) -> None:
    url = url_of(reserved)
    # What an operator wants to know of a service that was started by somebody else, or from another folder.
    own = {} if settings.database is not None else {"data": str(settings.data)}
    log.info("starting", ledger=did_of(ground.key.public_key), key_file=str(settings.key_file), **own)

    def ready() -> None:
        print(f"listening on {url}", flush=True)

    with listen(reserved, workers=settings.workers) as groups:
        if settings.workers == 1:
            orders = Orders(settings=settings, dsn=ground.dsn, key=ground.key, clock=ground.clock.state())
            await work(orders, ground.clock, groups[0], stopping=stopping, ready=ready)
        else:
            await supervise(ground, settings, groups, stopping=stopping, ready=ready)

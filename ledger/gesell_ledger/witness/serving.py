"""A witness over HTTP: what C2SP tlog-witness asks for, and two pages for people.

Owns the paths, the bounds on what a request may cost, and the one thread in which the witness works. Judges nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from gesell_ledger.api.connections import make_runner
from gesell_ledger.sockets import BACKLOG, listen, reserve, url_of
from gesell_ledger.witness.cosigning import Witness, open_witness
from gesell_ledger.witness.submissions import BODY_MAX_BYTES, Rejected
from gesell_ledger.witness.trusted import Trusted
from gesell_protocol.names import base64_text
from gesell_protocol.tree import split_hashes

T = TypeVar("T")

BODY_SECONDS: Final = 10.0
#: Who comes while so many wait for the witness is sent away.
WAITING_MAX: Final = 1_000
FAREWELL_SECONDS: Final = 5.0

log = structlog.get_logger("gesell.witness")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSettings:
    """What an operator says to a witness, checked."""

    name: str
    folder: Path
    key_file: Path
    passphrase: bytes | None
    host: str
    port: int
    trusted: Trusted


async def run(settings: WitnessSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping`; prints the verifier key and where it listens. Raises a `Fault` when it can't start."""
    # The port first, so that a witness started twice by mistake says so.
    with reserve(settings.host, settings.port) as reserved:
        witness = open_witness(
            settings.folder,
            name=settings.name,
            key_file=settings.key_file,
            passphrase=settings.passphrase,
            trusted=settings.trusted,
        )
        with closing(witness), ThreadPoolExecutor(1, "witness") as thread, listen(reserved, workers=1):
            runner = make_runner(make_app(witness, thread), shutdown_seconds=FAREWELL_SECONDS)
            await runner.setup()
            try:
                for one in reserved:
                    await web.SockSite(runner, one, backlog=BACKLOG).start()
                print(f"{witness.key}\nlistening on {url_of(reserved)}", flush=True)
                await stopping.wait()
            finally:
                await runner.cleanup()


def make_app(witness: Witness, thread: ThreadPoolExecutor) -> web.Application:
    """The application; `thread` is one thread, in which all work on the witness is done."""
    app = web.Application(middlewares=[_guard], client_max_size=BODY_MAX_BYTES)
    app[_WITNESS] = _Served(witness, thread)
    app.add_routes(
        [
            web.get("/", _tell),
            web.post("/add-checkpoint", _add_checkpoint),
            web.get("/{origin_hash:[0-9a-f]{64}}/checkpoint", _get_checkpoint),
            web.get("/{origin_hash:[0-9a-f]{64}}/conflicts", _list_conflicts),
        ]
    )
    return app


class _Served:
    """A witness, called from the event loop."""

    def __init__(self, witness: Witness, thread: ThreadPoolExecutor) -> None:
        self.witness = witness
        self._thread = thread
        self._waiting = 0

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do some work in the witness's thread; what has begun is done to its end, whoever hangs up."""
        if self._waiting >= WAITING_MAX:
            raise web.HTTPServiceUnavailable(text="too many wait already\n", headers={"Retry-After": "1"})
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        # Nobody may be left to ask how it went.
        if not future.cancelled():
            future.exception()


_WITNESS: Final = web.AppKey("witness", _Served)


async def _add_checkpoint(request: web.Request) -> web.Response:
    served = request.app[_WITNESS]
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the submission did not arrive in time\n") from None
    try:
        lines = await served.call(served.witness.cosign, served.witness.read(body))
    except Rejected as rejected:
        if rejected.status == 409:
            return web.Response(status=409, body=b"%d\n" % rejected.size, content_type="text/x.tlog.size")
        return web.Response(status=rejected.status, text=f"{rejected}\n")
    return web.Response(text=lines)


async def _get_checkpoint(request: web.Request) -> web.Response:
    served = request.app[_WITNESS]
    note = await served.call(served.witness.load_note, bytes.fromhex(request.match_info["origin_hash"]))
    if note is None:
        return web.Response(status=404, text="this witness never cosigned a checkpoint of the log\n")
    return web.Response(text=note, headers={"Cache-Control": "no-cache"})


async def _list_conflicts(request: web.Request) -> web.Response:
    served = request.app[_WITNESS]
    found = await served.call(served.witness.list_conflicts, bytes.fromhex(request.match_info["origin_hash"]))
    items: Sequence[dict[str, object]] = [
        {
            "kind": one.kind,
            "received": one.received_s,
            "cosigned": one.cosigned,
            "refused": one.note,
            "old": one.old,
            "proof": [base64_text(each) for each in split_hashes(one.proof)],
        }
        for one in found
    ]
    return _json({"items": items})


async def _tell(request: web.Request) -> web.Response:
    served = request.app[_WITNESS]
    logs, forked = await served.call(served.witness.count)
    key = served.witness.key
    return _json({"name": key.name, "vkey": str(key), "logs": logs, "forked": forked})


def _json(what: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(what) + b"\n", content_type="application/json")


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer for what went wrong here, in the way of all other answers."""
    try:
        return await handler(request)
    except sqlite3.Error as error:
        log.error("not_stored", why=str(error))
        return web.Response(status=503, text="the witness can't store anything now; nothing was cosigned\n")
    except web.HTTPException as error:
        # As a plain answer, so that the connection does not take it for one of its own.
        kept = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
        return web.Response(status=error.status, text=error.text, headers=kept)
    except ConnectionError:
        raise  # who asked has hung up
    except Exception as error:
        log.critical("request_failed", exc_info=error)
        return web.Response(status=500, text="the witness has a fault of its own\n")

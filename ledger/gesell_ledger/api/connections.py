"""What a connection may cost before any handler sees a request, and what it is told when it speaks no HTTP.

Owns the server's bounds on headers, idle time and bodies that nobody reads, and the answers to what the parser
refuses: problems too, and no traceback in the log, or anybody could fill the disk. Knows no route.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from gesell_ledger.api.problems import problem_response
from gesell_protocol.refusals import Refusal

#: A connection on which no whole request has arrived for so long is closed: idle ones, and headers sent drop by drop.
IDLE_SECONDS = 75.0
#: How long what nobody reads of a refused body is still taken off the wire, so that its sender sees the answer.
LINGER_SECONDS = 2.0

log = structlog.get_logger("gesell.api")


class Connection(web.RequestHandler):
    """aiohttp's handler of one connection, with our answer to what its parser refuses."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The problem for a request that could not be parsed, or that failed outside of the handlers."""
        if status >= 500:
            log.error("connection_failed", exc_info=exc)
            response = problem_response(Refusal(code="internal", detail="the ledger has a fault of its own"))
        else:
            why = " ".join((message or "").split())
            response = problem_response(Refusal(code="malformed", detail=f"not HTTP/1.1 as it is written: {why}"))
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; what the framework refused before any handler (an `Expect` of another kind) is a problem."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = problem_response(Refusal(code="malformed", detail=resp.reason))
            resp.force_close()
        return await super().finish_response(request, resp, start_time)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application on connections of ours."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp offers no other way to say of which class its connections are.
        server.__class__ = _Server
        return server


def make_runner(app: web.Application, *, shutdown_seconds: float) -> web.AppRunner:
    """The runner of the HTTP application, with every bound set. Bodies arrive as they were sent: `writing` unpacks."""
    return Runner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=shutdown_seconds,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
        auto_decompress=False,
    )

"""Refusals and faults as HTTP answers: RFC 9457, and nothing of the inside shown.

Owns the middleware through which every answer passes: what was refused becomes a problem, what failed becomes
`internal`, what the framework refused by itself gets our codes. It also sends them, within bounds of its own: an answer
that nobody fetches is held neither for ever nor beside too many others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final

import msgspec
import structlog
from aiohttp import web

from gesell_ledger.api import answers
from gesell_ledger.api.room import Room
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Unavailable
from gesell_ledger.storage.faults import is_transient
from gesell_protocol.refusals import Refusal

PROBLEM_TYPE: Final = "application/problem+json"
METRICS: Final = web.AppKey("metrics", Metrics)
ANSWERS: Final = web.AppKey("answers", Room)

#: Bytes of answers that are held in memory at once, and how long a reader may take to fetch one.
ANSWERS_MAX_BYTES: Final = 128 * 1024 * 1024
FETCH_SECONDS: Final = 60.0
#: Less than what a connection buffers before it waits for its reader.
_SMALL_BYTES: Final = 32 * 1024

#: What aiohttp refuses by itself, in our codes.
_FRAMEWORK: Final = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported-media-type"}

log = structlog.get_logger("gesell.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """Ends a request with a refusal."""

    def __init__(self, code: str, detail: str, *, retry_after: int | None = None, **fields: int) -> None:
        super().__init__(detail)
        self.refusal = Refusal(code=code, detail=detail, fields=fields)
        self.retry_after = retry_after


def problem_response(refusal: Refusal, *, retry_after: int | None = None) -> web.Response:
    """A problem document with the status of its code; `Retry-After` in seconds where trying again makes sense."""
    headers = {"Content-Type": PROBLEM_TYPE}
    if refusal.code == "bad-token":
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'  # RFC 6750 §3
    if retry_after is None and refusal.code in ("unavailable", "rate-limited"):
        retry_after = 2
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return web.Response(status=refusal.status, body=msgspec.json.encode(answers.problem_json(refusal)), headers=headers)


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal and fault into its problem, and count the answer."""
    try:
        response = await handler(request)
    except Refused as refused:
        response = problem_response(refused.refusal, retry_after=refused.retry_after)
    except Unavailable as fault:
        response = problem_response(Refusal(code="unavailable", detail=str(fault)), retry_after=fault.retry_after)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _framework_problem(request, error)
    except ConnectionError:
        raise
    except Exception as error:
        response = _fault_problem(request, error)
    response = await _send(request, response)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    request.app[METRICS].requests.labels(route, str(response.status)).inc()
    return response


async def _send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send an answer, or `unavailable` if too many wait for their readers; who does not fetch it in time is cut off.

    Left to itself, the framework holds an answer for as long as its reader keeps the connection.
    """
    with request.app[ANSWERS].hold() as take:
        try:
            take(response.content_length or 0)
        except Unavailable as fault:
            response = problem_response(Refusal(code="unavailable", detail=str(fault)), retry_after=fault.retry_after)
        try:
            # A small answer on a connection whose reader has fetched all before goes out at once, or into its buffer.
            waits = (response.content_length or _SMALL_BYTES) >= _SMALL_BYTES or _unfetched(request) > 0
            async with asyncio.timeout(FETCH_SECONDS) if waits else nullcontext():
                await response.prepare(request)
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            # The framework sees the closed connection by itself; raised from here it would be logged as our fault.
            if request.transport is not None:
                request.transport.abort()
    return response


def _unfetched(request: web.Request) -> int:
    """How many bytes of earlier answers its connection still holds."""
    return 0 if request.transport is None else request.transport.get_write_buffer_size()


def _framework_problem(request: web.Request, error: web.HTTPException) -> web.Response:
    code = _FRAMEWORK.get(error.status, "malformed" if error.status < 500 else "internal")
    detail = f"{request.method} {request.path}: {error.reason}"
    response = problem_response(Refusal(code=code, detail=detail))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _fault_problem(request: web.Request, error: Exception) -> web.Response:
    if is_transient(error):
        log.warning("read_failed", path=request.path, error=repr(error))
        return problem_response(Refusal(code="unavailable", detail="the database does not answer"))
    log.error("request_failed", path=request.path, exc_info=error)
    return problem_response(Refusal(code="internal", detail="the ledger has a fault of its own; it was logged"))

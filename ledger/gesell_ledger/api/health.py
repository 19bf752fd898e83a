"""`/healthz`, `/readyz`, `/metrics`: what an operator's machines ask."""

from __future__ import annotations

import msgspec
from aiohttp import web

from gesell_ledger.api.problems import METRICS, Refused
from gesell_ledger.api.rights import CLOCK, READER


async def get_health(request: web.Request) -> web.Response:
    """The process runs and answers."""
    return web.json_response({"status": "ok"})


async def get_readiness(request: web.Request) -> web.Response:
    """Statements can be taken: the clock is trusted and the database answers; `unavailable` says why not."""
    fault = request.app[CLOCK].fault
    if fault is not None:
        raise Refused("unavailable", fault)
    await request.app[READER].list_commons(after=None, limit=1)
    return web.Response(body=msgspec.json.encode({"status": "ready"}), content_type="application/json")


async def get_metrics(request: web.Request) -> web.Response:
    """The counters, in the OpenMetrics text format."""
    metrics = request.app[METRICS]
    metrics.clock_fault.set(request.app[CLOCK].fault is not None)
    return web.Response(
        body=metrics.exposition(),
        headers={"Content-Type": "application/openmetrics-text; version=1.0.0; charset=utf-8"},
    )

"""`/healthz`, `/readyz`, `/metrics`: what an operator's machines ask."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gesell_ledger.api.answers import Health, json_response
from gesell_ledger.api.problems import METRICS, Refused
from gesell_ledger.api.rights import CLOCK, READER
from gesell_ledger.api.writing import INTAKE

OPENMETRICS: Final = "application/openmetrics-text"


async def get_health(request: web.Request) -> web.Response:
    """The process runs and answers."""
    return json_response(Health(status="ok"))


async def get_readiness(request: web.Request) -> web.Response:
    """Statements can be taken: the clock is trusted, they can be checked, and the database answers; `unavailable` says
    why not.
    """
    fault = request.app[CLOCK].fault
    if fault is not None:
        raise Refused("unavailable", fault)
    if not request.app[INTAKE].ready:
        raise Refused("unavailable", "no process that checks statements runs; the log says why")
    await request.app[READER].list_commons(after=None, limit=1)
    return json_response(Health(status="ready"))


async def get_metrics(request: web.Request) -> web.Response:
    """The counters of all workers, in the OpenMetrics text format."""
    return web.Response(
        body=request.app[METRICS].exposition(),
        headers={"Content-Type": f"{OPENMETRICS}; version=1.0.0; charset=utf-8"},
    )

"""The only table of paths: from a URL to the rule behind it takes two jumps, and this is the first."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gesell_ledger.api import health, reads, rights, writing
from gesell_ledger.api.problems import ANSWERS, ANSWERS_MAX_BYTES, METRICS, answer_problems
from gesell_ledger.api.receiving import BODIES, BODIES_MAX_BYTES
from gesell_ledger.api.room import Room
from gesell_ledger.api.tokens import Tokens
from gesell_ledger.clock import LedgerClock
from gesell_ledger.intake import Intake
from gesell_ledger.metrics import Metrics
from gesell_ledger.storage.reading import Reader

_COMMONS: Final = "/v1/commons/{commons}"

ROUTES: Final = (
    web.get("/v1", reads.get_service),
    web.get("/v1/", reads.get_service),
    web.post("/v1/statements", writing.post_statements),
    web.get("/v1/commons", reads.get_commons_list),
    web.get(_COMMONS, reads.get_commons),
    web.get(_COMMONS + "/members", reads.get_members),
    web.get(_COMMONS + "/members/{member}", reads.get_member),
    web.get(_COMMONS + "/members/{member}/balances", reads.get_balances),
    web.get(_COMMONS + "/members/{member}/postings", reads.get_postings),
    web.get(_COMMONS + "/entries", reads.get_entries),
    web.get(_COMMONS + "/entries/{seq}", reads.get_entry),
    web.get(_COMMONS + "/statements/{id}", reads.get_statement),
    web.get("/healthz", health.get_health),
    web.get("/readyz", health.get_readiness),
    web.get("/metrics", health.get_metrics),
)


def make_app(
    *, intake: Intake, reader: Reader, clock: LedgerClock, metrics: Metrics, ledger: bytes, min_tick_seconds: int
) -> web.Application:
    """The HTTP application over one intake and one reader."""
    app = web.Application(middlewares=[answer_problems], client_max_size=writing.REQUEST_MAX_BYTES)
    app[writing.INTAKE] = intake
    app[BODIES] = Room(BODIES_MAX_BYTES)
    app[ANSWERS] = Room(ANSWERS_MAX_BYTES)
    app[rights.READER] = reader
    app[rights.CLOCK] = clock
    app[rights.TOKENS] = Tokens(ledger=ledger)
    app[reads.LEDGER] = ledger
    app[reads.DUE] = {}
    app[reads.MIN_TICK_SECONDS] = min_tick_seconds
    app[METRICS] = metrics
    app.add_routes(ROUTES)
    return app

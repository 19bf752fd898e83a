"""The only table of paths: from a URL to the rule behind it takes two jumps, and this is the first."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from gesell_ledger.api import (
    accounts,
    answers,
    circulation,
    document,
    gifts,
    health,
    log,
    pages,
    preparing,
    reads,
    relations,
    rights,
    trusting,
    webhooks,
    writing,
)
from gesell_ledger.api.answers import Page
from gesell_ledger.api.cursors import Cursors
from gesell_ledger.api.forms import AnyForm
from gesell_ledger.api.live import EVENT_STREAM, LIVE, Live
from gesell_ledger.api.parameters import (
    AFTER_COMMONS,
    AFTER_LINE,
    AFTER_SEQ,
    ASSET,
    AT,
    LAST_EVENT_ID,
    LIMIT,
    ORDER,
)
from gesell_ledger.api.problems import ANSWERS, ANSWERS_MAX_BYTES, METRICS, answer_problems
from gesell_ledger.api.receiving import BODIES, BODIES_MAX_BYTES
from gesell_ledger.api.room import Room
from gesell_ledger.api.routing import Route, delete, get, post
from gesell_ledger.api.shapes import JSON
from gesell_ledger.api.tokens import Tokens
from gesell_ledger.clock import LedgerClock
from gesell_ledger.intake import Intake
from gesell_ledger.metrics import Metrics
from gesell_ledger.readings.circulation import Circulation
from gesell_ledger.readings.trust import Trust
from gesell_ledger.storage.cosigned import Cosigned
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.readings import Readings
from gesell_ledger.storage.trees import Trees
from gesell_ledger.storage.trust import VouchReader
from gesell_ledger.storage.webhooks import Webhooks
from gesell_ledger.webhooks.addresses import Resolver
from gesell_protocol.ed25519 import Signer

_COMMONS: Final = "/v1/commons/{commons}"
_ACCOUNT: Final = _COMMONS + "/members/{member}"
_LOG: Final = _COMMONS + "/log"
#: What is refused to who sees a part of a commons only: the whole of it, and the accounts of others.
_WHOLE: Final = ("not-authorised",)
_OWN: Final = ("not-authorised", "unknown-member", "not-found")

ROUTES: Final[tuple[Route, ...]] = (
    get("/v1", reads.get_service, answers.Service),
    get("/v1/", reads.get_service, answers.Service, name="get_service_too"),
    post("/v1/statements", writing.post_statements, writing.ANSWER, writing.BODY, codes=writing.REFUSALS),
    post("/v1/prepare", preparing.post_prepare, answers.Prepared, AnyForm, codes=preparing.REFUSALS),
    get("/v1/commons", reads.get_commons_list, Page[answers.CommonsPage], query=(AFTER_COMMONS, LIMIT)),
    get(_COMMONS, reads.get_commons, answers.CommonsPage, codes=_WHOLE),
    get(
        _COMMONS + "/members",
        trusting.get_members,
        Page[trusting.MemberRow],
        query=(trusting.TRUSTED_BY, trusting.AFTER, LIMIT),
        codes=(*_WHOLE, "unknown-member", "limit-exceeded"),
    ),
    get(_COMMONS + "/members/{member}", reads.get_member, answers.MemberRow, codes=("unknown-member",)),
    get(_ACCOUNT + "/balances", accounts.get_balances, answers.Balances, query=(AT,), codes=(*_OWN, "limit-exceeded")),
    get(
        _ACCOUNT + "/postings",
        accounts.get_postings,
        Page[answers.HistoryLine],
        query=(ASSET, ORDER, AFTER_LINE, LIMIT),
        codes=_OWN,
    ),
    get(
        _COMMONS + "/entries",
        reads.get_entries,
        {JSON: Page[answers.EntryRow], EVENT_STREAM: "Each entry as an event `entry`; its id is the entry's number."},
        query=(AFTER_SEQ, LIMIT, LAST_EVENT_ID),
    ),
    get(_COMMONS + "/entries/{seq}", reads.get_entry, answers.EntryRow, codes=("not-found",)),
    get(_COMMONS + "/statements/{id}", reads.get_statement, answers.Receipt, codes=("not-found",)),
    get(
        _COMMONS + "/statements/{id}/proof",
        log.get_proof,
        {log.TEXT: "A C2SP tlog-proof; its extra line holds the entry and the hand-overs of the ledger's key."},
        query=(log.WITNESSES,),
        codes=("not-found",),
    ),
    get(
        _LOG + "/checkpoint",
        log.get_checkpoint,
        {log.TEXT: "A C2SP tlog-checkpoint."},
        query=(log.WITNESSES,),
        codes=("not-found",),
    ),
    get(_LOG + "/handovers", log.get_handovers, Page[log.HandoverRow]),
    get(
        _LOG + "/tile/entries/{place:.+}",
        log.get_bundle,
        {log.BYTES: "An entry bundle of C2SP tlog-tiles."},
        codes=(*_WHOLE, "not-found"),
    ),
    get(
        _LOG + "/tile/{level}/{place:.+}",
        log.get_tile,
        {log.BYTES: "A tile of C2SP tlog-tiles."},
        codes=("not-found",),
    ),
    get(
        _COMMONS + "/gifts",
        gifts.get_gifts,
        Page[gifts.GiftRow],
        query=(gifts.STATE, gifts.FROM, gifts.TO, gifts.MOVED_BY, gifts.BEFORE_SEQ, LIMIT),
        codes=("unknown-member",),
    ),
    get(_COMMONS + "/gifts/{id}", gifts.get_gift, gifts.GiftPage, codes=("not-found",)),
    get(
        _ACCOUNT + "/relationships",
        relations.get_relationships,
        relations.Relationships,
        query=(relations.AFTER_PEER, LIMIT),
        codes=("not-authorised", "unknown-member"),
    ),
    get(
        _ACCOUNT + "/standing",
        relations.get_standing,
        relations.StandingPage,
        codes=("not-authorised", "unknown-member"),
    ),
    get(
        _ACCOUNT + "/trust",
        trusting.get_trust,
        trusting.TrustPage,
        query=(trusting.TO,),
        codes=(*_WHOLE, "unknown-member", "limit-exceeded"),
    ),
    get(
        _COMMONS + "/flow",
        circulation.get_flow,
        circulation.FlowPage,
        query=(circulation.FROM, circulation.TO, circulation.STEP),
        codes=(*_WHOLE, "limit-exceeded"),
    ),
    post(
        _COMMONS + "/webhooks",
        webhooks.post_webhook,
        webhooks.WebhookRow,
        {webhooks.JWT: "The request, signed: a token with the claims `commons` and `webhook` besides (SPEC §7.5)."},
        statuses=(200, 201),
        codes=("not-authorised", "expired", "limit-exceeded"),
    ),
    get(_COMMONS + "/webhooks", webhooks.get_webhooks, Page[webhooks.WebhookRow]),
    delete(_COMMONS + "/webhooks/{id}", webhooks.delete_webhook, {}, statuses=(204,), codes=("not-found",)),
    get("/", pages.get_welcome, pages.Welcome),
    get("/docs", pages.get_docs, {"text/html": "The page."}),
    get("/docs/{asset}", pages.get_docs_asset, pages.ASSETS, statuses=(200, 304), codes=("not-found",)),
    get("/openapi.json", document.get_document, {JSON: "OpenAPI 3.1."}),
    get("/healthz", health.get_health, answers.Health),
    get("/readyz", health.get_readiness, answers.Health),
    get("/metrics", health.get_metrics, {health.OPENMETRICS: "The counters."}),
)


def make_app(
    *,
    intake: Intake,
    reader: Reader,
    readings: Readings,
    vouches: VouchReader,
    hooks: Webhooks,
    clock: LedgerClock,
    metrics: Metrics,
    ledger: bytes,
    min_tick_seconds: int,
    webhooks_to_private: bool,
    cursors: Cursors,
    trees: Trees,
    cosigned: Cosigned,
    signer: Signer,
) -> web.Application:
    """The HTTP application over one intake and one reader."""
    app = web.Application(middlewares=[answer_problems], client_max_size=writing.REQUEST_MAX_BYTES)
    app[writing.INTAKE] = intake
    app[BODIES] = Room(BODIES_MAX_BYTES)
    app[ANSWERS] = Room(ANSWERS_MAX_BYTES)
    app[rights.READER] = reader
    app[relations.READINGS] = readings
    app[circulation.CIRCULATION] = Circulation(readings)
    app[trusting.VOUCHES] = vouches
    app[trusting.TRUST] = Trust(vouches)
    app.on_cleanup.append(trusting.stop)
    app[rights.CLOCK] = clock
    app[rights.TOKENS] = Tokens(ledger=ledger)
    app[reads.LEDGER] = ledger
    app[reads.DUE] = {}
    app[reads.CURSORS] = cursors
    app[reads.MIN_TICK_SECONDS] = min_tick_seconds
    app[log.TREES] = trees
    app[log.COSIGNED] = cosigned
    app[log.SIGNER] = signer
    app[log.BUNDLING] = asyncio.Semaphore(log.BUNDLES_AT_ONCE)
    app[webhooks.WEBHOOKS] = hooks
    app[webhooks.RESOLVER] = Resolver()
    app[webhooks.TO_PRIVATE] = webhooks_to_private
    app[METRICS] = metrics
    app[LIVE] = Live(reader, clock, metrics)
    app.on_shutdown.append(app[LIVE].stop)
    app[document.DOCUMENT] = document.write_document(ROUTES, webhooks.MESSAGES)
    app.add_routes(route.served() for route in ROUTES)
    return app

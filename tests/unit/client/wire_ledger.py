"""A small aiohttp server that speaks the ledger's wire for the client's tests, and can be told to misbehave.

It keeps what it was sent, accepts every statement, and answers receipts made by the protocol's own functions. It
knows no funds and no membership: those are the real ledger's tests.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgpack
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from wire_log import WireLog, WireWitness

from gesell import Peer, default_policy
from gesell_protocol import ed25519
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, read_envelope
from gesell_protocol.log import Posting, leaf_data, leaf_hash, write_bundle
from gesell_protocol.names import base64url, commons_of, did_of, id_of, id_text, uuid7
from gesell_protocol.notes import Note
from gesell_protocol.statements import Issue, Pay, read_statement, write_body
from gesell_protocol.tree import Tile, read_place

KEY_SEED = b"\x07" * 32
KEY = Peer(KEY_SEED)
STEWARD = Peer(b"\x08" * 32)
BOB = Peer(b"\x09" * 32)
Behaviour = Callable[[web.Request, "WireLedger"], Any]


def founding(scale: int = 6) -> Envelope:
    """The first entry of the test's commons."""
    body = write_body(
        {
            "type": "found",
            "ledger": KEY.key,
            "by": STEWARD.key,
            "id": uuid7(1_000_000, bytes(10)),
            "expires": 1_000_001,
            "name": "Test",
            "currency": {"code": "WRG", "scale": scale},
            "policy": default_policy(scale=scale).fields(),
            "stewards": [STEWARD.key],
            "threshold": 1,
        }
    )
    return Envelope(body, ((STEWARD.key, STEWARD.sign(STATEMENT_PREFIX + body)),))


class WireLedger:
    """The state of the server, and the list of odd behaviours that its next answers to a POST take."""

    def __init__(self) -> None:
        self.posts: list[bytes] = []
        self.reads: list[str] = []
        #: (path, Authorization) of every request.
        self.tokens: list[tuple[str, str | None]] = []
        self.odd: list[Behaviour] = []
        #: The same for the next reads of a commons.
        self.odd_reads: list[Behaviour] = []
        self.change_receipt: Callable[[dict[str, Any]], None] = lambda receipt: None
        self.receipts: dict[bytes, dict[str, Any]] = {}
        self.seq = 1
        self.speed = 1
        self.time_ms: Callable[[], int] = lambda: int(time.time() * 1000)
        self.found = founding()
        self.commons = commons_of(self.found.body)
        self.pages = 3
        #: Whether it shows its commons only to those who say who they are.
        self.closed = False
        #: The log that it shows, which a liar may change for another; honest ones are not.
        self.log = WireLog(self.commons, KEY_SEED, [self._founding_leaf()])
        #: What its next answers about the log are instead, and the paths that were asked for.
        self.odd_log: list[Behaviour] = []
        self.asked: list[str] = []
        self.witnesses: list[WireWitness] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=32 * 2**20, middlewares=[self.note])
        root = f"/v1/commons/{self.commons.hex()}"
        app.router.add_get("/v1", self.service)
        app.router.add_get(root + "/entries/1", self.first_entry)
        app.router.add_get(root + "/members", self.members)
        app.router.add_get(root + "/members/{name}", self.member)
        app.router.add_get(root + "/log/checkpoint", self.checkpoint)
        app.router.add_get(root + "/log/handovers", self.handovers)
        app.router.add_get(root + "/log/tile/entries/{place:.+}", self.bundle)
        app.router.add_get(root + "/log/tile/{level}/{place:.+}", self.tile)
        app.router.add_get(root + "/statements/{id}/proof", self.proof)
        app.router.add_post("/v1/statements", self.statements)
        return app

    @web.middleware
    async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.tokens.append((request.path, request.headers.get("Authorization")))
        public = "/log/" in request.path and "/entries/" not in request.path
        if "/log/" in request.path or request.path.endswith("/proof"):
            self.asked.append(request.path.partition(self.commons.hex())[2])
            if self.odd_log:
                answer = self.odd_log.pop(0)(request, self)
                answer = await answer if inspect.isawaitable(answer) else answer
                if answer is not None:
                    return cast(web.StreamResponse, answer)
        if self.closed and not public and "/commons/" in request.path and "Authorization" not in request.headers:
            return problem("unknown-commons", 404)
        if self.odd_reads and "/commons/" in request.path and "/log/" not in request.path:
            answer = self.odd_reads.pop(0)(request, self)
            answer = await answer if inspect.isawaitable(answer) else answer
            if answer is not None:
                return cast(web.StreamResponse, answer)
        return await handler(request)

    async def service(self, request: web.Request) -> web.Response:
        self.reads.append(request.path)
        fields = {"ledger": KEY.did, "version": "0", "time": self.time_ms(), "clock_speed": self.speed}
        return web.json_response({**fields, "limits": {"statements": 10_000}})

    async def first_entry(self, request: web.Request) -> web.Response:
        entry = {
            "seq": 1,
            "at": 1_000_000,
            "type": "found",
            "by": STEWARD.did,
            "id": id_text(uuid7(1_000_000, bytes(10))),
            "body": base64url(self.found.body),
            "signatures": [
                {"key": did_of(key), "signature": base64url(signature)} for key, signature in self.found.signatures
            ],
            "postings": [],
            "leaf": leaf_hash(self._founding_leaf()).hex(),
        }
        return web.json_response(entry)

    def _founding_leaf(self) -> bytes:
        return leaf_data(seq=1, at_ms=1_000_000, body=self.found.body, signatures=self.found.signatures, postings=())

    # ── The log ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def checkpoint(self, request: web.Request) -> web.Response:
        note = self._note(int(request.query.get("witnesses", "0")))
        return problem("not-found", 404) if note is None else web.Response(text=str(note))

    def _note(self, witnesses: int) -> Note | None:
        if witnesses > len(self.witnesses):
            return None
        note = self.log.checkpoint()
        for witness in self.witnesses[:witnesses]:
            note = witness.cosign(note)
        return note

    async def handovers(self, request: web.Request) -> web.Response:
        items = [
            {
                "seq": 1,
                "ledger": did_of(unpack(envelope.body)["ledger"]),
                "body": base64url(envelope.body),
                "signatures": [{"key": did_of(key), "signature": base64url(sign)} for key, sign in envelope.signatures],
            }
            for envelope in self.log.handovers
        ]
        return web.json_response({"items": items})

    async def tile(self, request: web.Request) -> web.Response:
        data = self.log.tile(Tile(int(request.match_info["level"]), *read_place(request.match_info["place"])))
        return problem("not-found", 404) if data is None else web.Response(body=data)

    async def bundle(self, request: web.Request) -> web.Response:
        place, width = read_place(request.match_info["place"])
        entries = self.log.entries[place * 256 : place * 256 + width]
        return problem("not-found", 404) if len(entries) < width else web.Response(body=write_bundle(entries))

    async def proof(self, request: web.Request) -> web.Response:
        note = self._note(int(request.query.get("witnesses", "0")))
        receipt = self.receipts.get(id_of(request.match_info["id"]))
        if note is None or receipt is None:
            return problem("not-found", 404)
        return web.Response(text=self.log.receipt(receipt["seq"] - 1, note, len(self.log.entries)))

    def _member(self, handle: str, peer: Peer) -> dict[str, Any]:
        fields = {"peer": peer.did, "handle": handle, "status": "active", "joined": 1, "credit_limit": "0"}
        return {**fields, "keys": [peer.did]}

    async def member(self, request: web.Request) -> web.Response:
        self.reads.append(request.path)
        if request.match_info["name"] not in ("bob", BOB.did):
            return problem("unknown-member", 404)
        return web.json_response(self._member("bob", BOB))

    async def members(self, request: web.Request) -> web.Response:
        page = int(request.query.get("after", "0"))
        headers = {}
        if page + 1 < self.pages:
            headers["Link"] = f'<{request.path}?after={page + 1}&limit=1>; rel="next"'
        return web.json_response({"items": [self._member(f"member{page}", BOB)]}, headers=headers)

    async def statements(self, request: web.Request) -> web.StreamResponse:
        self.posts.append(await request.read())
        if self.odd:
            answer = self.odd.pop(0)(request, self)
            if answer is not None:
                return answer
        envelopes = msgpack.unpackb(self.posts[-1])["statements"]
        return packed([self.accept(read_envelope(value)) for value in envelopes])

    def accept(self, envelope: Envelope) -> dict[str, Any]:
        """Accept a statement once, and answer its receipt."""
        for key, signature in envelope.signatures:
            ed25519.verify(key, STATEMENT_PREFIX + envelope.body, signature)
        statement = read_statement(envelope, min_tick_seconds=1)
        if statement.id in self.receipts:
            return {"status": "replayed", "receipt": self.receipts[statement.id]}
        self.seq += 1
        at = max(self.time_ms(), 1)
        postings: list[Posting] = []
        if isinstance(statement, Pay):
            total = sum(leg.amount for leg in statement.legs)
            postings.append(Posting("pay", statement.by, "WRG", -total))
            postings += [Posting("pay", leg.to, "WRG", leg.amount) for leg in statement.legs]
        if isinstance(statement, Issue):
            postings.append(Posting("issue", "issuer", "WRG", -statement.amount))
            postings.append(Posting("issue", statement.to, "WRG", statement.amount))
        receipt = self.receipt(envelope, statement.commons, statement.id, at, postings)
        self.log.append(self._leaf(envelope, at, postings))
        self.change_receipt(receipt)
        self.receipts[statement.id] = receipt
        return {"status": "accepted", "receipt": receipt}

    def receipt(
        self, envelope: Envelope, commons: bytes, name: bytes, at: int, postings: list[Posting]
    ) -> dict[str, Any]:
        """An honest receipt of these postings."""
        return {
            "commons": commons,
            "seq": self.seq,
            "at": at,
            "tick": at // 86_400_000,
            "id": name,
            "leaf": leaf_hash(self._leaf(envelope, at, postings)),
            "postings": postings,
        }

    def _leaf(self, envelope: Envelope, at: int, postings: list[Posting]) -> bytes:
        return leaf_data(seq=self.seq, at_ms=at, body=envelope.body, signatures=envelope.signatures, postings=postings)


def packed(results: list[dict[str, Any]]) -> web.Response:
    """An answer of results in MessagePack."""
    return web.Response(body=msgpack.packb({"results": results}), content_type="application/msgpack")


def problem(code: str, status: int, *, retry_after: int | None = None, **fields: Any) -> web.Response:
    """A problem as the ledger answers it."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response(
        {"type": f"urn:gesell:problem:{code}", "status": status, "code": code, "detail": code, **fields},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )


def drop_unread(request: web.Request, ledger: WireLedger) -> None:
    """Cut the connection before the statement takes effect."""
    assert request.transport is not None
    request.transport.abort()


def drop_applied(request: web.Request, ledger: WireLedger) -> None:
    """Apply the statement, then cut the connection before the answer leaves."""
    for value in msgpack.unpackb(ledger.posts[-1])["statements"]:
        ledger.accept(read_envelope(value))
    drop_unread(request, ledger)


@asynccontextmanager
async def serving(ledger: WireLedger) -> AsyncIterator[str]:
    """Serve on a free port; yields the address."""
    server = TestServer(ledger.app())
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()

"""`POST /v1/statements`: bytes in, envelopes to the intake, results out (SPEC §7.1).

Owns the two formats of the request and of its answer, and the bounds on what a request may cost before anything is
verified: its size after decompression, its number of statements, and the time it may take to arrive.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgpack
import msgspec
from aiohttp import web

from gesell_ledger.api import answers
from gesell_ledger.api.problems import Refused, problem_response
from gesell_ledger.intake import Intake
from gesell_ledger.sequencer import Answer, Unavailable
from gesell_protocol.envelopes import Envelope, read_envelope
from gesell_protocol.names import peer_of, unbase64url
from gesell_protocol.refusals import Refusal, Rejected

REQUEST_MAX_BYTES: Final = 16 * 1024 * 1024
STATEMENTS_MAX: Final = 10_000
ARRIVAL_SECONDS: Final = 30.0
#: Bodies of requests that are held in memory at once, in bytes; beyond, a request waits outside.
BODIES_MAX_BYTES: Final = 64 * 1024 * 1024

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
INTAKE: Final = web.AppKey("intake", Intake)


class _SignatureJson(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    signature: str


class _MemoJson(msgspec.Struct, forbid_unknown_fields=True):
    salt: str
    text: str


class _StatementJson(msgspec.Struct, forbid_unknown_fields=True):
    body: str
    signatures: list[_SignatureJson]
    memo: _MemoJson | msgspec.UnsetType = msgspec.UNSET


class _RequestJson(msgspec.Struct, forbid_unknown_fields=True):
    statements: list[msgspec.Raw]


_request_decoder = msgspec.json.Decoder(_RequestJson)
_statement_decoder = msgspec.json.Decoder(_StatementJson)


class Bodies:
    """How many bytes of request bodies are held at once. Bounds memory whatever is sent."""

    def __init__(self, room: int = BODIES_MAX_BYTES) -> None:
        self._room = room

    def take(self, size: int) -> None:
        """Reserve room; raises `Unavailable` when there is none."""
        if size > self._room:
            raise Unavailable("too many large requests are under way", retry_after=1)
        self._room -= size

    def give(self, size: int) -> None:
        """Return what was reserved."""
        self._room += size


BODIES: Final = web.AppKey("bodies", Bodies)


async def post_statements(request: web.Request) -> web.Response:
    """Take up to 10,000 statements and answer each, in the order sent."""
    if request.content_type not in (MSGPACK, JSON):
        raise Refused("unsupported-media-type", f"send {MSGPACK} or {JSON}")
    bodies = request.app[BODIES]
    held = 0
    try:
        chunks: list[bytes] = []
        async with asyncio.timeout(ARRIVAL_SECONDS):
            # Chunk by chunk and counted after decompression: a small body that unpacks to a large one stops early.
            async for chunk in request.content.iter_any():
                bodies.take(len(chunk))
                held += len(chunk)
                if held > REQUEST_MAX_BYTES:
                    raise Refused("too-large", f"a request has at most {REQUEST_MAX_BYTES} bytes after decompression")
                chunks.append(chunk)
        envelopes = _read_request(b"".join(chunks), is_json=request.content_type == JSON)
        del chunks
        results = await request.app[INTAKE].submit(envelopes)
    except TimeoutError:
        raise Refused("timeout", f"the request did not arrive within {ARRIVAL_SECONDS:.0f} seconds") from None
    except web.HTTPException:
        raise
    except (ValueError, OSError) as error:
        raise Refused("malformed", f"the body can't be read: {type(error).__name__}") from None
    finally:
        bodies.give(held)
    return _respond(request, results)


def _respond(request: web.Request, results: list[Answer]) -> web.Response:
    if len(results) == 1 and isinstance(results[0], Refusal):
        return problem_response(results[0])
    if _wants_msgpack(request):
        packed = msgpack.packb({"results": [answers.result(one, as_json=False) for one in results]})
        return web.Response(body=packed, content_type=MSGPACK)
    encoded = msgspec.json.encode({"results": [answers.result(one, as_json=True) for one in results]})
    return web.Response(body=encoded, content_type=JSON)


def _wants_msgpack(request: web.Request) -> bool:
    """The format of `Accept`; without a preference, the format of the request."""
    accept = request.headers.get("Accept", "")
    if MSGPACK in accept:
        return True
    return JSON not in accept and request.content_type == MSGPACK


def _read_request(body: bytes, *, is_json: bool) -> list[Envelope | Refusal]:
    """The envelopes of a request; one that can't be read is its own refusal, the rest go on."""
    read = _read_json if is_json else _read_msgpack
    envelopes = read(body)
    if not envelopes:
        raise Refused("malformed", "a request has at least one statement")
    return envelopes


def _read_msgpack(body: bytes) -> list[Envelope | Refusal]:
    try:
        request = msgpack.unpackb(body, strict_map_key=True, max_array_len=STATEMENTS_MAX, max_map_len=1)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused("malformed", f"not MessagePack of the form {{statements: [envelope…]}}: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("statements"), list):
        raise Refused("malformed", "a request is the map {statements: [envelope…]}")
    return [_read_one(value) for value in request["statements"]]


def _read_one(value: Any) -> Envelope | Refusal:
    try:
        return read_envelope(value)
    except Rejected as rejected:
        return rejected.refusal


def _read_json(body: bytes) -> list[Envelope | Refusal]:
    try:
        raw = _request_decoder.decode(body).statements
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("malformed", f"not JSON of the form {{statements: […]}}: {error}") from None
    if len(raw) > STATEMENTS_MAX:
        raise Refused("too-large", f"a request has at most {STATEMENTS_MAX} statements")
    return [_read_one_json(one) for one in raw]


def _read_one_json(raw: msgspec.Raw) -> Envelope | Refusal:
    try:
        one = _statement_decoder.decode(raw)
        value: list[Any] = [
            unbase64url(one.body),
            [[peer_of(item.key), unbase64url(item.signature)] for item in one.signatures],
        ]
        if isinstance(one.memo, _MemoJson):
            value.append([unbase64url(one.memo.salt), one.memo.text])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return Refusal(code="malformed", detail=f"a statement in JSON is {{body, signatures, memo?}}: {error}")
    return _read_one(value)

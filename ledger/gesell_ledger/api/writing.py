"""`POST /v1/statements`: bytes in, the bytes of each statement to the intake, results out (SPEC §7.1).

Owns the two formats of the request and of its answer, and the bounds on what a request may cost before anything is
looked at: its size and its number of statements. No part of it becomes Python objects before its size and number are
known: an empty list takes one byte in a request and 64 here.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Annotated, Final

import msgpack
import msgspec
from aiohttp import web
from msgspec import Meta

from gesell_ledger.api import answers
from gesell_ledger.api.member_names import count_names
from gesell_ledger.api.pieces import PIECE_MAX_BYTES, EnvelopeForm
from gesell_ledger.api.problems import Refused, problem_response
from gesell_ledger.api.receiving import BODIES, receive
from gesell_ledger.api.shapes import JSON
from gesell_ledger.intake import Intake
from gesell_ledger.sequencer import Answer
from gesell_protocol.envelopes import SIGNATURES_MAX
from gesell_protocol.refusals import CODES, Refusal

REQUEST_MAX_BYTES: Final = 16 * 1024 * 1024
STATEMENTS_MAX: Final = 10_000

MSGPACK: Final = "application/msgpack"
INTAKE: Final = web.AppKey("intake", Intake)

#: More strings and commas than this are not in any request of 10,000 statements in JSON: each statement has at most
#: 16 signatures of four strings and three commas, and 12 of each beside them.
_TOKENS_MAX: Final = STATEMENTS_MAX * (SIGNATURES_MAX * 7 + 24)
_COMMAS_MAX: Final = STATEMENTS_MAX * (SIGNATURES_MAX * 3 + 12)
#: A comma or a whole string. Possessive, and it takes a string that never ends too: no byte is looked at twice.
_TOKEN: Final = re.compile(rb',|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


class RequestForm(msgspec.Struct, forbid_unknown_fields=True):
    """Statements, each for itself."""

    statements: Annotated[list[EnvelopeForm], Meta(min_length=1, max_length=STATEMENTS_MAX)]


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """The same, with each statement still as it came: one that is malformed stops none of the others."""

    statements: list[msgspec.Raw]


_request_decoder = msgspec.json.Decoder(_Request)

#: With what a lone statement, or the request, may be refused: nearly everything.
REFUSALS: Final = tuple(code for code in CODES if code not in ("bad-token", "method-not-allowed"))
#: What goes in and out, by content type.
BODY: Final = {JSON: RequestForm, MSGPACK: "The map `{statements: [envelope…]}` of SPEC §7.1, as MessagePack."}
ANSWER: Final = {JSON: answers.Results, MSGPACK: "The same as MessagePack, with bin for bytes and ints for amounts."}


async def post_statements(request: web.Request) -> web.Response:
    """Take up to 10,000 statements and answer each, in the order sent."""
    if request.content_type not in (MSGPACK, JSON):
        raise Refused("unsupported-media-type", f"send {MSGPACK} or {JSON}")
    with request.app[BODIES].hold() as take:
        body = await receive(request, take, max_bytes=REQUEST_MAX_BYTES)
        is_json = request.content_type == JSON
        pieces = _cut_json(body) if is_json else _cut_msgpack(body)
        del body
        if not pieces:
            raise Refused("malformed", "a request has at least one statement")
        results = await request.app[INTAKE].submit(pieces, is_json=is_json)
    return _respond(request, results)


def _respond(request: web.Request, results: list[Answer]) -> web.Response:
    if len(results) == 1 and isinstance(results[0], Refusal):
        return problem_response(results[0])
    if _wants_msgpack(request):
        packed = msgpack.packb({"results": [answers.result_wire(one) for one in results]})
        return web.Response(body=packed, content_type=MSGPACK)
    return answers.json_response(answers.Results(results=[answers.result_json(one) for one in results]))


def _wants_msgpack(request: web.Request) -> bool:
    """The format of `Accept`; without a preference, the format of the request."""
    accept = request.headers.get("Accept", "")
    if MSGPACK in accept:
        return True
    return JSON not in accept and request.content_type == MSGPACK


def _cut_msgpack(body: bytes) -> list[bytes]:
    """The bytes of each statement: lengths are walked over, nothing is built."""
    try:
        return _pieces_of(body)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise Refused("malformed", f"not MessagePack of the form {{statements: [envelope…]}}: {why}") from None


def _pieces_of(body: bytes) -> list[bytes]:
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(body)))
    unpacker.feed(body)

    def cut() -> bytes:
        start = unpacker.tell()
        unpacker.skip()
        # Of one that is too long, no more than it takes to see that.
        return body[start : min(unpacker.tell(), start + PIECE_MAX_BYTES + 1)]

    if unpacker.read_map_header() != 1:
        raise ValueError("the map has one member")
    name = cut()
    if len(name) > 16 or msgpack.unpackb(name) != "statements":
        raise ValueError("its member is statements")
    count = unpacker.read_array_header()
    if count > STATEMENTS_MAX:
        raise Refused("too-large", f"a request has at most {STATEMENTS_MAX} statements")
    pieces = [cut() for _ in range(count)]
    if unpacker.tell() != len(body):
        raise ValueError("something follows the map")
    return pieces


def _cut_json(body: bytes) -> list[bytes]:
    """The JSON of each statement, not decoded yet."""
    if _has_too_many_tokens(body):
        raise Refused("too-large", f"more strings and commas than {STATEMENTS_MAX} statements have")
    try:
        raw = _request_decoder.decode(body).statements
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not JSON of the form {{statements: […]}}: {error}") from None
    if len(raw) > STATEMENTS_MAX:
        raise Refused("too-large", f"a request has at most {STATEMENTS_MAX} statements")
    if count_names(body) != 1 + sum(count_names(one) for one in raw):
        raise Refused("malformed", "statements stands there more than once")
    return [bytes(one) for one in raw]


def _has_too_many_tokens(body: bytes) -> bool:
    """Whether the body holds more items than any honest one, told without decoding it."""
    if body.count(b",") <= _COMMAS_MAX:
        return False
    # Memos may be full of commas, so only now each string is taken as one.
    return next(islice(_TOKEN.finditer(body), _TOKENS_MAX, None), None) is not None

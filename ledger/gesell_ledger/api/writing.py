"""`POST /v1/statements`: bytes in, the bytes of each statement to the intake, results out (SPEC §7.1).

Owns the two formats of the request and of its answer, and the bounds on what a request may cost before anything is
looked at: its size and its number of statements. No part of it becomes Python objects before its size and number are
known: an empty list takes one byte in a request and 64 here. An answer may be a hundred MB, of a request of a few KB:
it is made, counted and sent piece by piece.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Final

import msgpack
import msgspec
from aiohttp import web
from msgspec import Meta

from gesell_ledger.api import answers
from gesell_ledger.api.member_names import count_names
from gesell_ledger.api.pieces import PIECE_MAX_BYTES, EnvelopeForm
from gesell_ledger.api.problems import ANSWERS, Refused, problem_response
from gesell_ledger.api.receiving import BODIES, receive
from gesell_ledger.api.shapes import JSON
from gesell_ledger.intake import Intake
from gesell_ledger.sequencer import BREATH_WEIGHT, Answer, Receipted
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


async def post_statements(request: web.Request) -> web.StreamResponse:
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
        del pieces
    return await respond(request, results)


async def respond(request: web.Request, results: list[Answer]) -> web.StreamResponse:
    """The answer of a request, from the results of its statements, which are taken off the list as they are encoded:
    as they stand here, they are several times as large as their bytes.

    Others get their turn after about every 1,000 postings. Raises `Unavailable` as soon as there is no more room among
    the answers that are under way; what was accepted is then found under its id.
    """
    if len(results) == 1 and isinstance(results[0], Refusal):
        return problem_response(results[0])
    is_msgpack = _wants_msgpack(request)
    encode = _encode_msgpack if is_msgpack else _encode_json
    content_type = MSGPACK if is_msgpack else JSON
    count = len(results)
    pieces = [encode(_take_off(results), first_of=count, is_last=not results)]
    if not results:
        return web.Response(body=pieces[0], content_type=content_type)
    # The room is given back at the end, and taken again by who sends the answer, with no turn for others in between.
    with request.app[ANSWERS].hold() as take:
        take(len(pieces[0]))
        while results:
            await asyncio.sleep(0)
            pieces.append(encode(_take_off(results), first_of=0, is_last=not results))
            take(len(pieces[-1]))
    return _Pieces(pieces, content_type=content_type)


class _Pieces(web.StreamResponse):
    """A body that goes out piece by piece, as its reader takes it: to join them would hold up everybody once more, and
    take the same room again.
    """

    def __init__(self, pieces: Sequence[bytes], *, content_type: str) -> None:
        super().__init__()
        self.content_type = content_type
        self.content_length = sum(map(len, pieces))
        self._pieces = pieces

    async def write_eof(self, data: bytes = b"") -> None:
        # The framework says it again of an answer that was sent already.
        pieces, self._pieces = self._pieces, ()
        for piece in pieces:
            await self.write(piece)
        await super().write_eof(data)


def _take_off(results: list[Answer]) -> list[Answer]:
    """The first results, until they have about 1,000 postings; they are gone from the list."""
    weight = count = 0
    while count < len(results) and weight < BREATH_WEIGHT:
        result = results[count]
        weight += 1 + len(result.receipt.postings) if isinstance(result, Receipted) else 1
        count += 1
    taken = results[:count]
    del results[:count]
    return taken


def _encode_json(results: Sequence[Answer], *, first_of: int, is_last: bool) -> bytes:
    """So much of `answers.Results`; the first piece is `first_of` so many results, any other of 0."""
    items = msgspec.json.encode([answers.result_json(one) for one in results])
    return b"".join((b'{"results":[' if first_of else b",", memoryview(items)[1:-1], b"]}" if is_last else b""))


def _encode_msgpack(results: Sequence[Answer], *, first_of: int, is_last: bool) -> bytes:
    """The same in MessagePack, which tells at the beginning how many there are, and nothing at the end."""
    packer = msgpack.Packer(autoreset=False)
    if first_of:
        packer.pack_map_header(1)
        packer.pack("results")
        packer.pack_array_header(first_of)
    for result in results:
        packer.pack(answers.result_wire(result))
    return bytes(packer.bytes())


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

"""`POST /v1/statements`: bytes in, envelopes to the intake, results out (SPEC §7.1).

Owns the two formats of the request and of its answer, and the bounds on what a request may cost before anything is
verified: its size and its number of statements. No part of it becomes Python objects before its size and number are
known: an empty list takes one byte in a request and 64 here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any, Final

import msgpack
import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api import answers
from gesell_ledger.api.forms import read_key
from gesell_ledger.api.problems import Refused, problem_response
from gesell_ledger.api.receiving import BODIES, count_names, receive
from gesell_ledger.api.shapes import JSON, Base64url, KeyName, Memo, Signature
from gesell_ledger.intake import Intake
from gesell_ledger.sequencer import Answer
from gesell_protocol.envelopes import ENVELOPE_MAX_BYTES, SIGNATURES_MAX, Envelope, read_envelope
from gesell_protocol.names import unbase64url
from gesell_protocol.refusals import CODES, Refusal, Rejected

REQUEST_MAX_BYTES: Final = 16 * 1024 * 1024
STATEMENTS_MAX: Final = 10_000

MSGPACK: Final = "application/msgpack"
INTAKE: Final = web.AppKey("intake", Intake)

#: The event loop breathes after so many bytes of statements.
_BREATH_BYTES: Final = 64 * 1024
#: First bytes of bin and str in MessagePack.
_LEAVES: Final = frozenset({0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB, *range(0xA0, 0xC0)})

#: An envelope in MessagePack may have longer headers than it needs, but not more than this in all.
_PIECE_MAX_BYTES: Final = 2 * ENVELOPE_MAX_BYTES
#: More strings and commas than this are not in any request of 10,000 statements in JSON: each statement has at most
#: 16 signatures of four strings and three commas, and 12 of each beside them.
_TOKENS_MAX: Final = STATEMENTS_MAX * (SIGNATURES_MAX * 7 + 24)
_COMMAS_MAX: Final = STATEMENTS_MAX * (SIGNATURES_MAX * 3 + 12)
#: A comma or a whole string. Possessive, and it takes a string that never ends too: no byte is looked at twice.
_TOKEN: Final = re.compile(rb',|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)


class SignatureForm(msgspec.Struct, forbid_unknown_fields=True):
    """A signature and the key that made it."""

    key: KeyName
    signature: Signature


class EnvelopeForm(msgspec.Struct, forbid_unknown_fields=True):
    """A statement's body with its signatures, in ascending order of their keys, and its memo if it carries a seal."""

    body: Base64url
    signatures: Annotated[list[SignatureForm], Meta(min_length=1, max_length=SIGNATURES_MAX)]
    memo: Memo | UnsetType = UNSET


class RequestForm(msgspec.Struct, forbid_unknown_fields=True):
    """Statements, each for itself."""

    statements: Annotated[list[EnvelopeForm], Meta(min_length=1, max_length=STATEMENTS_MAX)]


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """The same, with each statement still as it came: one that is malformed stops none of the others."""

    statements: list[msgspec.Raw]


_request_decoder = msgspec.json.Decoder(_Request)
_statement_decoder = msgspec.json.Decoder(EnvelopeForm)

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
        envelopes = await _read_request(body, is_json=request.content_type == JSON)
        del body
        results = await request.app[INTAKE].submit(envelopes)
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


async def _read_request(body: bytes, *, is_json: bool) -> list[Envelope | Refusal]:
    """The envelopes of a request; one that can't be read is its own refusal, the rest go on.

    The event loop breathes after every `_BREATH_BYTES`, so that a large request does not hold up the small ones.
    """
    pieces: Sequence[msgspec.Raw | bytes] = _cut_json(body) if is_json else _cut_msgpack(body)
    if not pieces:
        raise Refused("malformed", "a request has at least one statement")
    envelopes: list[Envelope | Refusal] = []
    weight = 0
    for piece in pieces:
        envelopes.append(_read_one_json(piece) if isinstance(piece, msgspec.Raw) else _read_one_msgpack(piece))
        weight += len(memoryview(piece))
        if weight > _BREATH_BYTES:
            weight = 0
            await asyncio.sleep(0)
    return envelopes


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
        return body[start : unpacker.tell()]

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


def _read_one_msgpack(piece: bytes) -> Envelope | Refusal:
    if len(piece) > _PIECE_MAX_BYTES:
        return Refusal(code="too-large", detail=f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
    try:
        value = _Walk(piece).envelope()
    except (ValueError, TypeError, IndexError, RecursionError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        return Refusal(code="malformed", detail=f"not an envelope in MessagePack: {why}")
    return _read_one(value)


class _Walk:
    """Reads one envelope header by header, so that nothing is built but its three levels and their leaves: decoded as
    a whole, a byte of nested arrays would become a list of its own.
    """

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self._unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(piece)))
        self._unpacker.feed(piece)

    def envelope(self) -> list[Any]:
        """The array of SPEC §3; raises `ValueError` for anything of another form."""
        size = self._array(2, 3)
        envelope: list[Any] = [self._leaf(), [self._pair() for _ in range(self._array(0, SIGNATURES_MAX))]]
        if size == 3:
            envelope.append(self._pair())
        return envelope

    def _pair(self) -> list[Any]:
        self._array(2, 2)
        return [self._leaf(), self._leaf()]

    def _array(self, low: int, high: int) -> int:
        size: int = self._unpacker.read_array_header()
        if not low <= size <= high:
            raise ValueError(f"an array of {size} where {low} to {high} items stand")
        return size

    def _leaf(self) -> bytes | str:
        code = self._piece[self._unpacker.tell()]
        if code not in _LEAVES:
            raise ValueError("neither bin nor str where one of them stands")
        leaf: bytes | str = self._unpacker.unpack()
        return leaf


def _read_one(value: Any) -> Envelope | Refusal:
    try:
        return read_envelope(value)
    except Rejected as rejected:
        return rejected.refusal


def _cut_json(body: bytes) -> list[msgspec.Raw]:
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
    return raw


def _has_too_many_tokens(body: bytes) -> bool:
    """Whether the body holds more items than any honest one, told without decoding it."""
    if body.count(b",") <= _COMMAS_MAX:
        return False
    # Memos may be full of commas, so only now each string is taken as one.
    return next(islice(_TOKEN.finditer(body), _TOKENS_MAX, None), None) is not None


def _read_one_json(raw: msgspec.Raw) -> Envelope | Refusal:
    try:
        one = _statement_decoder.decode(raw)
        value: list[Any] = [
            unbase64url(one.body),
            [[read_key(item.key), unbase64url(item.signature)] for item in one.signatures],
        ]
        members = 2 + 2 * len(one.signatures)
        if isinstance(one.memo, Memo):
            value.append([unbase64url(one.memo.salt), one.memo.text])
            members += 3
        # The decoder takes the last of two members of one name; another reader might take the first.
        if count_names(raw) != members:
            raise ValueError("a member stands there twice")
    except (ValueError, RecursionError) as error:
        return Refusal(code="malformed", detail=f"a statement in JSON is {{body, signatures, memo?}}: {error}")
    return _read_one(value)

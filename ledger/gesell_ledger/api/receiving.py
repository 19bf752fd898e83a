"""The body of a request: taken off the wire, unpacked, counted.

Owns what a body may cost before anything in it is understood: its bytes after decompression, the time it may take to
arrive, and how many bytes of all bodies are held at once. Knows no statement.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gesell_ledger.api.problems import Refused
from gesell_ledger.api.room import Room

ARRIVAL_SECONDS: Final = 30.0
#: Bodies of requests that are held in memory at once, in bytes; beyond, a request waits outside.
BODIES_MAX_BYTES: Final = 64 * 1024 * 1024
BODIES: Final = web.AppKey("bodies", Room)

#: What zlib calls the window's size, by Content-Encoding: with gzip's header, with zlib's.
_WINDOWS: Final = {"gzip": 31, "deflate": 15}
_CHUNK_BYTES: Final = 64 * 1024


async def receive(request: web.Request, take: Callable[[int], None], *, max_bytes: int) -> bytes:
    """The body after decompression, counted chunk by chunk: a small one that unpacks to a large one stops early.

    `take` counts what is held (`Room.hold`). Refuses `too-large`, `timeout`, `unsupported-media-type` for an encoding
    that is not known, and `malformed` for what can't be unpacked.
    """
    if request.content.is_eof() and "Content-Encoding" not in request.headers and request.content.exception() is None:
        # It came with its head, as small ones do: there is nothing to wait for.
        body = request.content.read_nowait()
        take(len(body))
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            async for chunk in _unpacked(request):
                take(len(chunk))
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise Refused("timeout", f"the request did not arrive within {ARRIVAL_SECONDS:.0f} seconds") from None
    except (web.RequestPayloadError, HttpProcessingError, OSError, zlib.error) as error:
        raise Refused("malformed", f"the body can't be read: {type(error).__name__}") from None
    return b"".join(chunks)


def _too_large(max_bytes: int) -> Refused:
    return Refused("too-large", f"a request has at most {max_bytes} bytes after decompression")


async def _unpacked(request: web.Request) -> AsyncIterator[bytes]:
    """The chunks of the body, decompressed here: the framework would go on unpacking a body that was refused.

    Each chunk is at most `_CHUNK_BYTES` long if it was compressed.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        async for chunk in request.content.iter_any():
            yield chunk
        return
    if encoding not in _WINDOWS:
        raise Refused("unsupported-media-type", f"Content-Encoding is {', '.join(_WINDOWS)}, or absent")
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    async for chunk in request.content.iter_any():
        for piece in _inflate(inflater, chunk):
            yield piece
        if inflater.unused_data:
            break
    if not inflater.eof or inflater.unused_data:
        raise Refused("malformed", f"the body is not one whole {encoding} stream")


def _inflate(inflater: zlib._Decompress, chunk: bytes) -> Iterator[bytes]:
    piece = inflater.decompress(chunk, _CHUNK_BYTES)
    while piece:
        yield piece
        piece = inflater.decompress(inflater.unconsumed_tail, _CHUNK_BYTES)

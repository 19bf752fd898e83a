"""A log as a ledger serves it (SPEC §6.1): checkpoint, tiles and entry bundles over HTTP.

Owns the way from a URL to entries: which commons, a few requests ahead, again where the network fails. Judges nothing
but that the answers are of the right shape. What a hostile server can cost is bounded: the size of each answer, packed
and unpacked, and the time it may take.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from gesell_ledger.auditor.checks import FORM
from gesell_ledger.auditor.findings import Wrong
from gesell_ledger.auditor.sentences import name_of, reason_of
from gesell_protocol.log import LEAF_MAX_BYTES, read_bundle
from gesell_protocol.notes import (
    NOTE_MAX_BYTES,
    WITNESSES_MAX,
    BadNote,
    Checkpoint,
    Note,
    NoteKey,
    count_cosigned,
    read_checkpoint,
    read_note,
)
from gesell_protocol.proven_tree import ProvenTree, tiles_of
from gesell_protocol.refusals import Rejected
from gesell_protocol.tree import HASH_BYTES, TILE_WIDTH, BadProof, Tile, place_path, tile_width

AHEAD: Final = 6
TRIES: Final = 6
REQUEST_SECONDS: Final = 60.0
BUNDLE_MAX_BYTES: Final = TILE_WIDTH * (LEAF_MAX_BYTES + 2)
ANSWER_MAX_BYTES: Final = 1024 * 1024
_COMMONS: Final = re.compile(r"(.*)/v1/commons/([0-9a-f]{32})(?:/log(?:/checkpoint)?)?")


class FetchFault(Exception):
    """The log can't be fetched; the sentence says what to do."""


class _NotThere(FetchFault):
    """The server answers that there is no such thing for this reader."""


class WebLog:
    """A commons' log at a ledger, as of one checkpoint. Use it as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        commons: str | None = None,
        witnesses: Sequence[NoteKey] = (),
        quorum: int = 0,
        needed: int = 0,
    ) -> None:
        """Name a log: by its commons' URL, or by the ledger's with `commons` (hex), or by the ledger's alone.

        With a quorum its checkpoint is the newest that so many of `witnesses` have cosigned, of at least `needed`
        entries: as many as the reader knows that there are. Raises `FetchFault` for what is no such URL.
        """
        self._witnesses = witnesses
        self._quorum = quorum
        self._needed = needed
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise FetchFault(f"{url} is no address of a ledger: say https://…, or https://…/v1/commons/<32 hex digits>")
        path = parts.path.rstrip("/")
        found = _COMMONS.fullmatch(path)
        if found is not None and commons not in (None, found[2]):
            raise FetchFault(f"the address names the commons {found[2]}, --commons another")
        if commons is not None and not re.fullmatch("[0-9a-f]{32}", commons):
            raise FetchFault("--commons is the name of a commons: 32 hex digits")
        self._commons = found[2] if found is not None else commons
        base = found[1] if found is not None else path.removesuffix("/v1")
        self._base = urlunsplit((parts.scheme, parts.netloc, f"{base}/v1", "", ""))
        self.note = ""
        self._checkpoint: Checkpoint | None = None

    async def __aenter__(self) -> WebLog:
        """Connect and fetch the checkpoint. Raises `FetchFault`, and `Wrong` for what is no checkpoint."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            auto_decompress=False,
            headers={"Accept-Encoding": "gzip", "User-Agent": "gesell-audit"},
        )
        try:
            if self._commons is None:
                self._commons = await self._only_commons()
            self._log = f"{self._base}/commons/{self._commons}/log"
            note = await self._shown()
            self._checkpoint = read_checkpoint(note)
            self.note = str(note)
        except _NotThere as fault:
            await self._session.close()
            raise FetchFault(f"there is no such commons at {self._base}: {fault}") from None
        except BadNote as error:
            await self._session.close()
            raise Wrong(FORM, f"the log's checkpoint can't be read: {reason_of(error)}") from None
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def size(self) -> int:
        """How many entries the checkpoint says."""
        assert self._checkpoint is not None
        return self._checkpoint.size

    async def entries(self, after: int) -> AsyncIterator[list[bytes]]:
        """The entries that follow the first `after`, up to the checkpoint's size, bundle by bundle."""
        under_way = deque[asyncio.Task[list[bytes]]]()
        places = iter(range(after // TILE_WIDTH, -(-self.size // TILE_WIDTH)))
        try:
            while True:
                while len(under_way) < AHEAD and (place := next(places, None)) is not None:
                    under_way.append(asyncio.create_task(self._bundle(place)))
                if not under_way:
                    return
                entries = await under_way.popleft()
                yield entries[after % TILE_WIDTH :]
                after = 0
        finally:
            for task in under_way:
                task.cancel()
            for task in under_way:
                with suppress(asyncio.CancelledError, FetchFault, Wrong):
                    await task

    async def roots(self, sizes: Collection[int]) -> dict[int, bytes]:
        """The roots that the log has at some sizes, proven from its tiles to lead up to its checkpoint.

        Raises `Wrong` where the tiles do not.
        """
        assert self._checkpoint is not None
        size, earlier = self._checkpoint.size, [one for one in sizes if one <= self._checkpoint.size]
        if not earlier:
            return {}
        tiles = {tile: await self._tile(tile) for tile in tiles_of(size, earlier=earlier)}
        try:
            tree = ProvenTree(size=size, root=self._checkpoint.root, tiles=tiles)
        except BadProof:
            raise Wrong(FORM, "the log's tiles do not hash to its checkpoint") from None
        return {one: tree.root_at(one) for one in earlier}

    async def _shown(self) -> Note:
        """The checkpoint to audit under; raises `FetchFault` while none is cosigned as the reader asks."""
        if not self._quorum:
            return await self._fetch_note()
        witnessed, best = await self._find_witnessed()
        if witnessed is not None and read_checkpoint(witnessed).size >= self._needed:
            return witnessed
        tip = await self._fetch_note()
        if read_checkpoint(tip).size < self._needed:
            # The whole log is shorter than what the reader knows of it: that is for the checks to say.
            return witnessed or tip
        covering = f" that covers the {self._needed} entries you know of" if witnessed is not None else ""
        raise FetchFault(
            f"none yet: no checkpoint{covering} has been cosigned by {self._quorum} of your {len(self._witnesses)}"
            f" witnesses together; the most is {best}. Try again in a while, or ask for fewer with --quorum"
        )

    async def _find_witnessed(self) -> tuple[Note | None, int]:
        """The newest checkpoint with enough of the reader's witnesses, if any, and how many of them were the most.

        The ledger counts all of its witnesses, so more are asked for where those it shows are not enough of ours.
        """
        best = 0
        for asked in range(self._quorum, WITNESSES_MAX + 1):
            try:
                note = await self._fetch_note(f"?witnesses={asked}")
            except _NotThere:
                break
            try:
                cosigned = count_cosigned(note, self._witnesses)
            except BadNote:
                # A line in a witness's name that does not hold: that is for the checks to say.
                return note, best
            best = max(best, cosigned)
            if cosigned >= self._quorum:
                return note, best
        return None, best

    async def _fetch_note(self, query: str = "") -> Note:
        return read_note(await self._get(f"{self._log}/checkpoint{query}", most=NOTE_MAX_BYTES))

    async def _tile(self, tile: Tile) -> bytes:
        path = f"tile/{tile.path}"
        data = await self._partial(path, f"tile/{Tile(tile.level, tile.place).path}", most=TILE_WIDTH * HASH_BYTES)
        data = data[: tile.width * HASH_BYTES]
        if len(data) != tile.width * HASH_BYTES:
            raise Wrong(FORM, f"the tile {path} has not {tile.width} hashes")
        return data

    async def _bundle(self, place: int) -> list[bytes]:
        width = tile_width(0, place, self.size)
        path = f"tile/entries/{place_path(place, width)}"
        first = place * TILE_WIDTH + 1
        try:
            data = await self._partial(path, f"tile/entries/{place_path(place, TILE_WIDTH)}", most=BUNDLE_MAX_BYTES)
        except _NotThere as fault:
            raise FetchFault(
                f"the ledger gives entries {first} to {first + width - 1} to nobody unknown ({fault}). Only open"
                " commons are audited by their address: of others, `gesell export` with your key, then audit the file"
            ) from None
        try:
            entries = read_bundle(data)
        except Rejected as rejected:
            raise Wrong(FORM, f"{path}: {rejected.refusal.detail}", seq=first) from None
        if len(entries) < width:
            raise Wrong(FORM, f"{path} has {len(entries)} entries, not {width}", seq=first + len(entries))
        return entries[:width]

    async def _partial(self, path: str, whole: str, *, most: int) -> bytes:
        """A tile that may be partial; where only the whole one is kept, as tlog-tiles allows, that one."""
        try:
            return await self._get(f"{self._log}/{path}", most=most)
        except _NotThere:
            if path == whole:
                raise
        return await self._get(f"{self._log}/{whole}", most=most)

    async def _only_commons(self) -> str:
        answer = await self._get(f"{self._base}/commons", most=ANSWER_MAX_BYTES)
        try:
            items = [(str(item["commons"]), str(item["name"])) for item in json.loads(answer)["items"]]
        except (ValueError, TypeError, LookupError):
            raise FetchFault(f"{self._base} answers as no ledger does") from None
        if len(items) == 1 and re.fullmatch("[0-9a-f]{32}", items[0][0]):
            return items[0][0]
        listed = "".join(f"\n  {name_of(commons)}  {name_of(name)}" for commons, name in items[:20])
        raise FetchFault(f"the ledger has {len(items)} open commons: say which with --commons{listed}")

    async def _get(self, url: str, *, most: int) -> bytes:
        """GET a URL, again where the network or the server fails for a while; raises `FetchFault`."""
        pause = 0.2
        for left in reversed(range(TRIES)):
            try:
                return await self._once(url, most=most)
            except (aiohttp.ClientError, TimeoutError, OSError, _Again) as error:
                if not left or isinstance(error, aiohttp.InvalidURL):
                    raise FetchFault(f"{url} can't be fetched: {reason_of(error) or type(error).__name__}") from None
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(self, url: str, *, most: int) -> bytes:
        async with self._session.get(url, max_redirects=3) as answer:
            if answer.status == 429 or answer.status >= 500:
                raise _Again(f"HTTP {answer.status}")
            packed = answer.headers.get("Content-Encoding", "identity")
            data = await _read(answer.content, most=most)
            if packed not in ("identity", "gzip"):
                raise FetchFault(f"{url} comes with the content encoding {packed[:40]!r}")
            if packed == "gzip":
                data = _unzip(data, most=most, url=url)
            if answer.status != 200:
                raise _NotThere(f"HTTP {answer.status}{_code_of(data)}")
            return data


class _Again(Exception):
    """The server can't answer now."""


async def _read(content: aiohttp.StreamReader, *, most: int) -> bytes:
    """A body of at most so many bytes; raises `FetchFault` for a longer one."""
    pieces, size = list[bytes](), 0
    async for piece in content.iter_any():
        size += len(piece)
        if size > most:
            raise FetchFault(f"the server sends more than the {most} bytes that this can have")
        pieces.append(piece)
    return b"".join(pieces)


def _unzip(data: bytes, *, most: int, url: str) -> bytes:
    packed = zlib.decompressobj(wbits=31)
    try:
        plain = packed.decompress(data, most + 1)
    except zlib.error as error:
        raise FetchFault(f"{url} is not gzip: {error}") from None
    if len(plain) > most or not packed.eof:
        raise FetchFault(f"{url} is cut, or unpacks to more than the {most} bytes that it can have")
    return plain


def _code_of(problem: bytes) -> str:
    """The refusal's code in a problem, if there is one."""
    with suppress(ValueError, TypeError, AttributeError):
        answer: Any = json.loads(problem)
        code = answer.get("code")
        if isinstance(code, str):
            return f", {name_of(code)}"
    return ""

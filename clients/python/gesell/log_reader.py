"""What a ledger serves of a commons' log (SPEC §6.1): checkpoints, tiles, entry bundles, hand-overs of its key.

Owns the paths, how long each answer may be, and the tiles that are kept. Believes nothing and proves nothing: what is
read here is held against a root and a signature by `checking`, `export` or whoever asked.

1. Every answer is bounded before it is read, and of its own length, or it is an `UnexpectedAnswer`.
2. A tile is only ever asked for where a tree of the named size has it (C2SP tlog-tiles). A partial one that is gone
   stands at the beginning of the full one.
3. What a tile begins with never changes, so the latest used are kept. `forget` drops what did not fit a root.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeVar

from yarl import URL

from gesell.answers import read_json_envelope
from gesell.errors import NotFound, UnexpectedAnswer
from gesell.transport import Answer, Form, Transport, json_of
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import LEAF_MAX_BYTES, read_bundle
from gesell_protocol.notes import NOTE_MAX_BYTES, BadNote, Note, read_note
from gesell_protocol.refusals import Rejected
from gesell_protocol.tree import HASH_BYTES, TILE_WIDTH, Tile, place_path, tile_width

_In = TypeVar("_In")
_Out = TypeVar("_Out")
#: Tiles asked for at a time.
AT_ONCE: Final = 8
#: Tiles kept, of at most 8 KiB each.
KEPT_TILES: Final = 512
#: A ledger that hands its key over more often is none that can be followed.
HANDOVERS_MAX: Final = 1_000
HANDOVERS_MAX_BYTES: Final = 4 * 1024 * 1024
#: Room for a problem where the answer hoped for is shorter.
_PROBLEM_MAX_BYTES: Final = 16 * 1024
#: Any media type: files of a log may as well come from a plain file server.
_ANY: Final = "*/*"


class ReadUrl(Protocol):
    """A read in a reader's own name, with a token where the commons asks who reads."""

    async def __call__(self, url: URL, form: Form) -> Answer: ...


class LogReader:
    """Reads the log of one commons; `read` is the read for what follows the commons' visibility.

    Serves many tasks at once. All calls raise `Unreachable`, `Refused` (`NotFound` for what is not there) and
    `UnexpectedAnswer`.
    """

    def __init__(self, transport: Transport, *, commons: bytes, read: ReadUrl) -> None:
        self._transport = transport
        self._read = read
        self._root = f"/commons/{commons.hex()}/log"
        #: (level, place) → as much of the tile as was fetched.
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    async def checkpoint(self, *, witnesses: int = 0) -> Note:
        """The checkpoint of the log as it stands, or the newest that so many witnesses have cosigned; not verified.

        Raises `NotFound` while there is none that so many have cosigned.
        """
        params = {"witnesses": str(witnesses)} if witnesses else None
        url = self._transport.url_of(f"{self._root}/checkpoint", params)
        answer = await self._transport.read(url, Form(_ANY, NOTE_MAX_BYTES))
        try:
            return read_note(answer.body)
        except BadNote as error:
            raise UnexpectedAnswer(f"{url} is no checkpoint: {error}") from None

    async def tiles(self, wanted: Iterable[Tile], *, size: int) -> dict[Tile, bytes]:
        """Tiles of the tree of `size` leaves, each of its width's length; fetched a few at a time.

        `size` is that of a checkpoint whose signature was verified. Raises `ValueError` for a tile that this tree has
        not, `NotFound` if the ledger does not serve one.
        """
        there, missing = dict[Tile, bytes](), list[Tile]()
        for tile in dict.fromkeys(wanted):
            if not 0 < tile.width <= tile_width(tile.level, tile.place, size):
                raise ValueError(f"a tree of {size} leaves has no tile {tile.path}")
            kept = self._kept(tile)
            if kept is None:
                missing.append(tile)
            else:
                there[tile] = kept
        there |= zip(missing, await _a_few_at_a_time(self._tile, missing), strict=True)
        return there

    async def bundle(self, place: int, width: int = TILE_WIDTH) -> list[bytes]:
        """The leaf data of `width` entries from entry 256 · `place` + 1 on; read in the reader's own name.

        Nothing in it is checked but that it has so many entries.
        """
        path = f"{self._root}/tile/entries/{place_path(place, width)}"
        url = self._transport.url_of(path)
        answer = await self._read(url, Form(_ANY, _PROBLEM_MAX_BYTES + width * (LEAF_MAX_BYTES + 2)))
        try:
            entries = read_bundle(answer.body)
        except Rejected as error:
            raise UnexpectedAnswer(f"{url} is no bundle of entries: {error}") from None
        if len(entries) != width:
            raise UnexpectedAnswer(f"{url} has {len(entries)} entries and not {width}")
        return entries

    async def handovers(self) -> list[Envelope]:
        """The statements that handed the ledger's key over, in the order of the log; not verified."""
        url = self._transport.url_of(f"{self._root}/handovers")
        items = json_of(await self._transport.read(url, Form(max_bytes=HANDOVERS_MAX_BYTES))).get("items")
        if not isinstance(items, list) or len(items) > HANDOVERS_MAX:
            raise UnexpectedAnswer(f"{url} is no list of at most {HANDOVERS_MAX} hand-overs")
        try:
            return [read_json_envelope(item) for item in items]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UnexpectedAnswer(f"{url} has a hand-over that can't be read: {error!r}") from None

    def forget(self, tiles: Iterable[Tile]) -> None:
        """Keep these tiles no longer: they did not fit."""
        for tile in tiles:
            self._tiles.pop((tile.level, tile.place), None)

    def _kept(self, tile: Tile) -> bytes | None:
        kept = self._tiles.get((tile.level, tile.place), b"")
        if len(kept) < tile.width * HASH_BYTES:
            return None
        self._tiles.move_to_end((tile.level, tile.place))
        return kept[: tile.width * HASH_BYTES]

    async def _tile(self, tile: Tile) -> bytes:
        """A tile from the ledger; the beginning of the full one where a partial one is there no more."""
        try:
            return await self._fetched(tile)
        except NotFound:
            if tile.width == TILE_WIDTH:
                raise
            return (await self._fetched(Tile(tile.level, tile.place)))[: tile.width * HASH_BYTES]

    async def _fetched(self, tile: Tile) -> bytes:
        url = self._transport.url_of(f"{self._root}/tile/{tile.path}")
        answer = await self._transport.read(url, Form(_ANY, _PROBLEM_MAX_BYTES))
        if len(answer.body) != tile.width * HASH_BYTES:
            raise UnexpectedAnswer(f"{url} has {len(answer.body)} bytes, not those of {tile.width} hashes")
        self._tiles[tile.level, tile.place] = answer.body
        while len(self._tiles) > KEPT_TILES:
            self._tiles.popitem(last=False)
        return answer.body


async def _a_few_at_a_time(call: Callable[[_In], Awaitable[_Out]], items: Iterable[_In]) -> list[_Out]:
    """What the call returns for each item, in their order; the first that fails ends the others."""
    places = asyncio.Semaphore(AT_ONCE)

    async def in_turn(item: _In) -> _Out:
        async with places:
            return await call(item)

    tasks = [asyncio.create_task(in_turn(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise

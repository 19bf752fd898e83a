"""Entries as server-sent events, encoded once for all who follow them (SPEC §7.2).

Owns the shape of an event, the batches that listeners share, and what is kept of them: the last ones, and pages of the
past. Knows no connection, and nobody's rights but those it is handed.

1. An entry is read and encoded once, not once for each listener; a batch is one bytes object that all of them write.
2. What is kept is bounded, for all commons together; what a listener still writes it holds itself.
3. A memo that is erased, and a change of visibility, empty what is kept of a commons.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from gesell_ledger.api import answers
from gesell_ledger.core.books import Entry, Gift, Hold
from gesell_ledger.core.visibility import EVERYBODY, Sight, parties_of, sides_of
from gesell_ledger.storage.reading import Reader
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.statements import answered_by, read_statement

#: A batch ends at about so many bytes: what a listener has to take within the time that it is given.
BATCH_MAX_BYTES: Final = 384 * 1024
#: So many bytes of the last batches are kept, of all commons together.
RECENT_MAX_BYTES: Final = 16 * 1024 * 1024
#: What a batch, and the parties of an entry, cost beside the bytes of the events.
_BATCH_BYTES: Final = 600
_PARTIES_BYTES: Final = 900

#: A page of the past: few entries, since every listener in the past holds one of its own while it writes.
PAGE_ENTRIES: Final = 64
PAGE_MAX_BYTES: Final = 64 * 1024
#: So many pages are kept, for so long: those who come back together after an interruption ask for the same.
PAGES_MAX: Final = 128
PAGE_SECONDS: Final = 5.0
#: How many pages are read at once: listeners leave most of the connections to other readers.
PAGES_AT_ONCE: Final = 1

#: What a gzip stream begins with (RFC 1952 §2.3): deflate, no name, no time, no system in particular.
GZIP_HEAD: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry as it is sent; `type` is its statement's."""

    entry: Entry
    type: str
    data: bytes


@dataclass(slots=True)
class Batch:
    """Entries `after` + 1 to `last`, without a gap: `data` is their events, each beginning where `starts` says.

    `parties` tells whom each concerns, and `places` which concern whom; both are empty where that was not asked for.
    """

    after: int
    last: int
    data: bytes
    starts: tuple[int, ...]
    parties: tuple[frozenset[bytes], ...] = ()
    places: Mapping[bytes, Sequence[int]] | None = None
    _packed: bytes = b""

    @property
    def weight(self) -> int:
        """About how many bytes it takes, packed too."""
        return len(self.data) * 3 // 2 + _BATCH_BYTES + _PARTIES_BYTES * len(self.parties)

    def serves(self, sight: Sight) -> bool:
        """Whether it can tell what this reader sees of it."""
        return sight.every_entry or self.places is not None

    def beyond(self, seq: int, sight: Sight, *, packed: bool) -> bytes:
        """The events after entry `seq`, which is `after` or in the batch, that a reader whom it serves sees.

        The same object for all who see all of them.
        """
        if sight.every_entry and seq == self.after:
            return self._all_packed() if packed else self.data
        events = self.data[self.starts[seq - self.after] :] if sight.every_entry else self._seen(seq, sight)
        return pack(events) if packed and events else events

    def _all_packed(self) -> bytes:
        self._packed = self._packed or pack(self.data)
        return self._packed

    def _seen(self, seq: int, sight: Sight) -> bytes:
        assert self.places is not None
        assert sight.peer is not None
        near = {*self.places.get(sight.peer, ()), *self.places.get(EVERYBODY, ()), *((0,) if self.after == 0 else ())}
        return b"".join(
            self._event(place)
            for place in sorted(near)
            if self.after + place >= seq and sight.entry(self.after + place + 1, self.parties[place])
        )

    def _event(self, place: int) -> bytes:
        end = self.starts[place + 1] if place + 1 < len(self.starts) else len(self.data)
        return self.data[self.starts[place] : end]


def pack(data: bytes) -> bytes:
    """Bytes as a part of a gzip stream (RFC 1951 §3.2.3: blocks, none of them the last, ending at a whole byte).

    It refers to nothing before it, so it may stand in any stream, after `GZIP_HEAD` and whatever other parts.
    """
    deflate = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)


def encode(listed: Iterable[tuple[Entry, Memo | None]]) -> list[Event]:
    """Entries as events; JSON as `msgspec` writes it has no line break in it."""
    rows = [(entry, answers.entry_json(entry, memo)) for entry, memo in listed]
    return [
        Event(entry, row.type, b"id: %d\nevent: entry\ndata: %b\n\n" % (entry.seq, msgspec.json.encode(row)))
        for entry, row in rows
    ]


def entry_parties(entry: Entry, answered: Mapping[bytes, Gift | Hold]) -> frozenset[bytes]:
    """Whom a stored entry concerns; `answered` has the gift or hold that it answers, if any (`load_answered`)."""
    statement = read_statement(Envelope(entry.body, tuple(entry.signatures)), min_tick_seconds=1)
    name = answered_by(statement)
    return parties_of(statement, entry.postings, frozenset() if name is None else sides_of(answered[name]))


async def load_answered(reader: Reader, commons: bytes, bodies: Iterable[bytes]) -> Mapping[bytes, Gift | Hold]:
    """The gifts and holds that some bodies answer, whose sides no body names; asks nothing where none does."""
    names = {name for body in bodies if (name := _answered_by(body)) is not None}
    return await reader.load_answered(commons, names) if names else {}


def _answered_by(body: bytes) -> bytes | None:
    fields = unpack(body)
    assert isinstance(fields, dict)
    name = fields.get("gift") or fields.get("hold") or fields.get("of")
    return name if isinstance(name, bytes) else None


def batches_of(
    events: Sequence[Event], *, answered: Mapping[bytes, Gift | Hold] | None, max_bytes: int = BATCH_MAX_BYTES
) -> list[Batch]:
    """Consecutive events as batches of about `max_bytes` at most, and one event at least.

    They tell whom each concerns if `answered`, the gifts and holds that the entries answer, are given.
    """
    batches: list[Batch] = []
    first, size = 0, 0
    for number, event in enumerate(events, start=1):
        size += len(event.data)
        if size >= max_bytes or number == len(events):
            batches.append(_batch_of(events[first:number], answered))
            first, size = number, 0
    return batches


def _batch_of(events: Sequence[Event], answered: Mapping[bytes, Gift | Hold] | None) -> Batch:
    starts = tuple(itertools.accumulate((len(event.data) for event in events[:-1]), initial=0))
    batch = Batch(events[0].entry.seq - 1, events[-1].entry.seq, b"".join(event.data for event in events), starts)
    if answered is not None:
        batch.parties = tuple(entry_parties(event.entry, answered) for event in events)
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, concerned in enumerate(batch.parties):
            for peer in concerned:
                places[peer].append(place)
        batch.places = places
    return batch


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────────────


class Ring:
    """The last batches of one commons, one after the other without a gap; `Recent` says how many."""

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        #: The last entry that had to make room for others.
        self.evicted = 0

    def after(self, seq: int) -> Batch | None:
        """The batch with the entry after `seq`, if it is kept."""
        batches = self.batches
        if not batches or not batches[0].after <= seq < batches[-1].last:
            return None
        last = batches[-1]  # where nearly everybody is
        return last if last.after <= seq else batches[bisect_right(batches, seq, key=lambda batch: batch.after) - 1]


class Recent:
    """The last batches of all commons, within one bound."""

    def __init__(self, size: int = RECENT_MAX_BYTES) -> None:
        self._left = size
        self._order: deque[tuple[Ring, Batch]] = deque()

    def put(self, ring: Ring, batch: Batch) -> None:
        """Keep a batch that follows the ring's last; the oldest ones of all rings make room."""
        ring.batches.append(batch)
        self._order.append((ring, batch))
        self._left -= batch.weight
        while self._left < 0 and len(self._order) > 1:
            oldest, gone = self._order.popleft()
            self._left += gone.weight
            oldest.batches.popleft()
            oldest.evicted = gone.last

    def clear(self, ring: Ring) -> None:
        """Forget a ring's batches; nobody was too slow for them."""
        ring.batches.clear()
        self._left += sum(batch.weight for whose, batch in self._order if whose is ring)
        self._order = deque(kept for kept in self._order if kept[0] is not ring)


#: A page: of which commons, after which entry, how many.
_Name = tuple[bytes, int, int]


class Past:
    """Pages of what lies behind, and for whom it may be shared. One event loop."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._turn = asyncio.Semaphore(PAGES_AT_ONCE)
        self._pages: dict[_Name, asyncio.Task[Batch]] = {}

    async def page(self, commons: bytes, sight: Sight, *, after: int, head: int, packed: bool) -> tuple[int, bytes]:
        """What a reader sees of the next entries: how far that goes, and the events.

        `head` is an entry beyond `after` that is there, and beyond which nothing is told: rights that later entries
        change were not looked at. What the reader may not see is passed over.
        """
        if sight.every_entry:
            batch = await asyncio.shield(self._shared(commons, after, head))
            return batch.last, batch.beyond(after, sight, packed=packed)
        last, events = await self._page_of(commons, sight, after, head)
        return last, pack(events) if packed and events else events

    def clear(self, commons: bytes) -> None:
        """Forget what is kept of a commons."""
        for name in [name for name in self._pages if name[0] == commons]:
            del self._pages[name]

    def _shared(self, commons: bytes, after: int, head: int) -> asyncio.Task[Batch]:
        """The page that begins here, read once for all who ask within `PAGE_SECONDS`.

        Pages end at round numbers, so that listeners who begin here and there soon read the same ones.
        """
        name = (commons, after, min(head - after, PAGE_ENTRIES - after % PAGE_ENTRIES))
        page = self._pages.get(name)
        if page is None:
            page = self._pages[name] = asyncio.create_task(self._read(*name))
            page.add_done_callback(lambda done: self._keep(name, done))
            if len(self._pages) > PAGES_MAX:
                del self._pages[next(iter(self._pages))]
        return page

    def _keep(self, name: _Name, page: asyncio.Task[Batch]) -> None:
        """Keep a page for a while; one that is not full yet, or failed, for nobody."""
        failed = page.cancelled() or page.exception() is not None
        full = not failed and (page.result().last % PAGE_ENTRIES == 0 or len(page.result().data) >= PAGE_MAX_BYTES)
        asyncio.get_running_loop().call_later(PAGE_SECONDS if full else 0, self._drop, name, page)

    def _drop(self, name: _Name, page: asyncio.Task[Batch]) -> None:
        if self._pages.get(name) is page:
            del self._pages[name]

    async def _read(self, commons: bytes, after: int, limit: int) -> Batch:
        async with self._turn:
            listed = await self._reader.list_entries(commons, after=after, limit=limit)
            return batches_of(encode(listed), answered=None, max_bytes=PAGE_MAX_BYTES)[0]

    async def _page_of(self, commons: bytes, sight: Sight, after: int, head: int) -> tuple[int, bytes]:
        """A page of a party's own entries, which nobody shares."""
        async with self._turn:
            listed, more = await self._reader.list_entries_of(commons, sight, after=after, limit=PAGE_ENTRIES)
        seen: list[bytes] = []
        size, last = 0, after
        for event in encode((entry, memo) for entry, memo in listed if entry.seq <= head):
            if size >= PAGE_MAX_BYTES:
                return last, b"".join(seen)
            seen.append(event.data)
            size += len(event.data)
            last = event.entry.seq
        # Without more, or with some beyond the head, nothing else up to there concerns the reader.
        told_all = not more or listed[-1][0].seq > head
        return head if told_all else last, b"".join(seen)

"""Entries that follow live, as server-sent events (SPEC §7.2; WHATWG HTML §9.2).

Owns the connections of those who listen: where one begins, how it is written to, and when it is cut off. What is
written comes from `feeds`, what may be seen from `rights`.

1. A listener holds its place and what it is being written, nothing else: it takes the next batch when its connection
   has taken the last.
2. One that takes nothing for `STALL_SECONDS`, or falls behind what is kept, is cut off. It comes back with
   `Last-Event-ID` and has lost nothing.
3. A stream ends with the connection: it has no length and no end of its own, so it is never sent in chunks. Who takes
   gzip gets it: events shrink to less than half, and all who see the same share the work.
"""

from __future__ import annotations

import asyncio
import random
import resource
import socket
from typing import Final

import structlog
from aiohttp import web

from gesell_ledger.api.events import GZIP_HEAD, pack
from gesell_ledger.api.feeds import Feed, Feeds, Listener, TooSlow
from gesell_ledger.api.parameters import AFTER_SEQ, LAST_EVENT_ID
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.rights import BEARER, Visit
from gesell_ledger.clock import LedgerClock
from gesell_ledger.metrics import Metrics
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.reading import Reader

EVENT_STREAM: Final = "text/event-stream"
#: So many listen to one process at most; fewer where it may not open that many files and the usual ones beside.
LISTENERS_MAX: Final = 5_000
FILES_BESIDE: Final = 256
#: A comment line goes out after so long a silence: one every 15 seconds at least, as proxies and clients expect.
SILENCE_SECONDS: Final = 13.0
STALL_SECONDS: Final = 10.0
LIVE_BUFFER_BYTES: Final = 512 * 1024
#: What the kernel may hold for one listener; it doubles the number.
SEND_BUFFER_BYTES: Final = 128 * 1024
CARE_SECONDS: Final = 1.0
#: When a browser comes back: not all at once.
RETRY_MS: Final = (1_000, 4_000)

log = structlog.get_logger("gesell.live")

LIVE: Final = web.AppKey["Live"]("live")


class Stream(web.StreamResponse):
    """An answer that lasts as long as its connection, in HTTP/1.0 and 1.1 alike."""

    #: aiohttp sends answers without a length in chunks, except where this is off. A chunk's frame would have to be
    #: copied together with the events for each listener; without frames, all of them write the same bytes.
    _length_check = False

    def __init__(self, *, packed: bool) -> None:
        headers = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        super().__init__(headers=headers)
        self.force_close()


def wants_events(request: web.Request) -> bool:
    """Whether entries are asked for as an event stream."""
    return _accepts(request.headers.get("Accept", ""), EVENT_STREAM)


def _accepts(header: str, name: str) -> bool:
    """Whether a list of names with weights has this one, with a weight above 0 (RFC 9110 §12.5)."""
    for one in header.lower().split(","):
        said, *parameters = (part.strip() for part in one.split(";"))
        if said == name:
            return all(parameter.partition("=")[2].strip("0.") for parameter in parameters if parameter[:2] == "q=")
    return False


class Live:
    """All who listen to this process."""

    def __init__(self, reader: Reader, clock: LedgerClock, metrics: Metrics) -> None:
        self.feeds = Feeds(reader, clock)
        self._metrics = metrics
        self._lines: set[_Line] = set()
        self._caring: asyncio.Task[None] | None = None
        self._stopping = False
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = max(1, min(LISTENERS_MAX, files - FILES_BESIDE)) if files > 0 else LISTENERS_MAX

    async def follow(self, request: web.Request, here: Visit) -> web.StreamResponse:
        """Write the entries that a visitor sees, from the one it asks for, until it goes or is cut off.

        Raises `Refused` before anything is written.
        """
        after = _begin(request, here)
        packed = _accepts(request.headers.get("Accept-Encoding", ""), "gzip")
        stream = Stream(packed=packed)
        if request.method == "HEAD":
            return stream
        if self._stopping or len(self._lines) >= self._room:
            raise Refused("unavailable", "as many listen as this service can bear", retry_after=5)
        listener = Listener(request[BEARER], here.sight, seq=after, packed=packed)
        line = _Line(request, stream, listener, asyncio.get_running_loop())
        feed = self.feeds.join(here.commons, listener, seen_ms=here.now_ms)
        self._add(line)
        try:
            await line.run(feed)
        except TooSlow:
            self._drop(line)
        except ConnectionError:
            pass  # it went away
        except Exception as error:
            # The answer has begun: there is no other way left to tell than to end it.
            if is_transient(error):
                log.warning("stream_ended", error=repr(error))
            else:
                log.error("stream_failed", exc_info=error)
            line.abort()
        finally:
            self._remove(line)
            self.feeds.leave(feed, listener)
        return stream

    async def stop(self, _: web.Application) -> None:
        """End all streams and take no more; what is still being written to slow ones is not waited for."""
        self._stopping = True
        for line in self._lines:
            line.hang_up()

    def _add(self, line: _Line) -> None:
        self._lines.add(line)
        self._metrics.listeners.inc()
        if self._caring is None:
            self._caring = asyncio.create_task(self._care())

    def _remove(self, line: _Line) -> None:
        self._lines.discard(line)
        self._metrics.listeners.dec()
        if not self._lines and self._caring is not None:
            self._caring.cancel()
            self._caring = None

    def _drop(self, line: _Line) -> None:
        self._metrics.listeners_dropped.inc()
        line.abort()

    async def _care(self) -> None:
        """Notice who went away, who takes nothing, whose token expired, and who has heard nothing for long.

        One look at all of them every second: a timer for each and every wait would cost more than the writing.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CARE_SECONDS)
            now = loop.time()
            for line in tuple(self._lines):
                if line.stalls(now):
                    self._drop(line)
                else:
                    line.check(now, self.feeds.clock.look())


class _Line:
    """One listener's connection."""

    __slots__ = ("_left", "_listener", "_loop", "_request", "_silent_since", "_stream", "_writing_since")

    def __init__(
        self, request: web.Request, stream: Stream, listener: Listener, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._request = request
        self._stream = stream
        self._listener = listener
        self._loop = loop
        self._silent_since = loop.time()
        #: Since when it takes nothing, while it is written to, and how many bytes were left then.
        self._writing_since: float | None = None
        self._left = 0

    async def run(self, feed: Feed) -> None:
        """Write what follows, batch after batch, until the listener goes, may see nothing any more, or holds no more.

        Raises `TooSlow`, and `ConnectionError` where the connection broke.
        """
        listener = self._listener
        if self._request.transport is not None:
            # The kernel would take megabytes for a listener who fetches nothing, of memory that is everybody's.
            line = self._request.transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        await self._stream.prepare(self._request)
        if listener.packed:
            await self._write(GZIP_HEAD)
        await self._say(b"retry: %d\n\n" % random.randint(*RETRY_MS))
        while feed.serves(listener):
            if listener.stale:
                if not await feed.look_again(listener):
                    return
            elif listener.seq < feed.head:
                upto, events = await feed.next(listener)
                if listener.stale or not feed.serves(listener):
                    continue
                await self._write(events)
                listener.seq = upto
            elif self._loop.time() - self._silent_since >= SILENCE_SECONDS:
                await self._say(b":\n\n")
            else:
                self._go_live()
                await listener.wait()

    def _go_live(self) -> None:
        """Note that the listener is at the head, and let it be ahead of its connection by some batches.

        They are shared by all, unlike pages of the past; waiting for each would cost a turn of the event loop more.
        """
        if not self._listener.live and self._request.transport is not None:
            self._listener.live = True
            self._request.transport.set_write_buffer_limits(high=LIVE_BUFFER_BYTES)

    async def _say(self, line: bytes) -> None:
        """Write what is no event."""
        await self._write(pack(line) if self._listener.packed else line)

    async def _write(self, data: bytes) -> None:
        """Write, and wait until the connection can take more."""
        if not data:
            return
        self._writing_since, self._left = self._loop.time(), len(data)
        await self._stream.write(data)
        self._writing_since = None
        self._silent_since = self._loop.time()

    def stalls(self, now: float) -> bool:
        """Whether the connection has taken nothing for too long; to be asked now and then."""
        if self._writing_since is None or self._request.transport is None:
            return False
        left = self._request.transport.get_write_buffer_size()
        if left != self._left:
            self._writing_since, self._left = now, left
        return now - self._writing_since > STALL_SECONDS

    def check(self, now: float, now_ms: int) -> None:
        """Have the line look after itself if the reader hung up, its token expired, or it has heard nothing for long.

        `now` is the event loop's time, `now_ms` the ledger's.
        """
        if self._request.transport is None or not self._listener.holds(now_ms):
            self._listener.end()
        elif now - self._silent_since >= SILENCE_SECONDS:
            self._listener.poke()

    def hang_up(self) -> None:
        """End the stream; one that is being written to is cut off."""
        self._listener.end()
        if self._writing_since is not None:
            self.abort()

    def abort(self) -> None:
        """Cut the connection off, with what it has not taken."""
        self._listener.end()
        if self._request.transport is not None:
            self._request.transport.abort()


def _begin(request: web.Request, here: Visit) -> int:
    """After which entry to begin: `Last-Event-ID`, or else `after`, or else the last one there is.

    Raises `Refused` (`malformed`) for what is no number, or that of an entry that is not there yet. Who does not see
    the commons' page, which tells how many entries there are, is not told that either: it begins after the last one.
    """
    head = here.commons.seq
    after = AFTER_SEQ.find(request) if AFTER_SEQ.name in request.query else head
    # An empty one is what some send for none.
    if request.headers.get(LAST_EVENT_ID.name):
        after = LAST_EVENT_ID.find(request)
    assert after is not None
    if after > head and here.sight.whole:
        raise Refused("malformed", "Last-Event-ID, or after: the commons has no such entry yet")
    return min(after, head)

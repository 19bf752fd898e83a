"""A crowd of listeners in a process of its own: it takes event streams as fast as they come, and notes what came when.

Owns the sockets of the listeners and the comparison of what they got. The first to get a byte makes the reference, and
everybody else's bytes are compared with it as they arrive: one comparison of memory for each read, so that a thousand
listeners at 2 GB a second leave the processor to the service. Understands events only after the clock has stopped.
"""

from __future__ import annotations

import select
import socket
import time
import zlib
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from gesell_ledger.api.events import GZIP_HEAD

CONNECT_SECONDS: Final = 30.0
#: How long after the last answer the last event may take to reach the last listener.
PATIENCE_SECONDS: Final = 60.0
BUFFER: Final = 512 * 1024
GZIP: Final = "Accept-Encoding: gzip\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_EVENT_END: Final = b"\n\n"
#: What ends a part of a packed stream that was flushed (RFC 1951 §3.2.4: an empty block of stored bytes).
_FLUSH_END: Final = b"\x00\x00\xff\xff"
#: Of the events of a run, so many are looked up at every listener to tell how late they came.
_SAMPLES: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Where to listen, and how many shall."""

    host: str
    port: int
    path: str
    listeners: int
    packed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a crowd got: the reference stream, unpacked, and how many listeners got exactly that, or something else.

    `wire_bytes` is how long it was on the wire. `times` are, for some events (named by the place where each ends in
    the stream; the last is one of them), when each listener had it, sorted.
    """

    stream: bytes
    wire_bytes: int
    whole: int
    short: int
    differing: int
    refused: int
    times: dict[int, array[float]]
    cpu_seconds: float


@dataclass(slots=True)
class _Listener:
    sock: socket.socket
    #: Bytes of the stream so far, -1 while head and preamble have not come.
    offset: int = -1
    head: bytearray = field(default_factory=bytearray)
    marks: array[float] = field(default_factory=lambda: array("d"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    fault: str = ""


def listen(ask: Ask, pipe: Connection) -> None:
    """The whole life of the crowd: says "ready" when all listen, is told the last entry's number, answers `Heard`."""
    crowd = _Crowd(ask)
    crowd.open()
    pipe.send("ready")
    began = time.process_time()
    crowd.take(pipe)
    cost = time.process_time() - began
    pipe.send(crowd.tell(cost))
    pipe.close()


class _Crowd:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._poll = select.epoll()
        self._listeners: dict[int, _Listener] = {}
        self._stream = bytearray()
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16) if ask.packed else None
        if self._inflate is not None:
            self._inflate.decompress(GZIP_HEAD)
        self._plain = bytearray()
        #: Places in the plain stream, and where on the wire all up to them had come.
        self._places: list[tuple[int, int]] = [(0, 0)]
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._end: int | None = None

    def open(self) -> None:
        """Connect and ask; returns when every listener has the head of its answer."""
        head = (
            f"GET {self._ask.path} HTTP/1.1\r\nHost: {self._ask.host}:{self._ask.port}\r\n"
            f"Accept: text/event-stream\r\n{GZIP if self._ask.packed else ''}\r\n"
        ).encode()
        for _ in range(self._ask.listeners):
            sock = socket.create_connection((self._ask.host, self._ask.port), timeout=CONNECT_SECONDS)
            sock.sendall(head)
            sock.setblocking(False)
            self._listeners[sock.fileno()] = _Listener(sock)
            self._poll.register(sock.fileno(), select.EPOLLIN)
        until = time.monotonic() + CONNECT_SECONDS
        while any(one.offset < 0 and not one.fault for one in self._listeners.values()):
            if time.monotonic() > until:
                raise TimeoutError("not every listener got an answer")
            self._take_ready(0.1)

    def take(self, pipe: Connection) -> None:
        """Take what comes until all have the last entry, or hung up, or it takes too long."""
        self._poll.register(pipe.fileno(), select.EPOLLIN)
        last: int | None = None
        until = float("inf")
        while time.monotonic() < until:
            if self._take_ready(0.2, pipe.fileno()):
                last = int(pipe.recv())
                until = time.monotonic() + PATIENCE_SECONDS
                self._poll.unregister(pipe.fileno())
            self._read_reference()
            if last is not None and self._end is None:
                self._find_end(last)
            if self._end is not None:
                wire = self._on_the_wire(self._end)
                if all(one.offset >= wire or one.fault for one in self._listeners.values()):
                    return

    def _read_reference(self) -> None:
        """Unpack what the reference has grown by."""
        known = self._places[-1][1]
        if len(self._stream) > known:
            grown = bytes(memoryview(self._stream)[known:])
            self._plain += grown if self._inflate is None else self._inflate.decompress(grown)
            self._places.append((len(self._plain), known + len(grown)))

    def _on_the_wire(self, place: int) -> int:
        """Up to where on the wire a listener must have come to have all up to a place in the plain stream."""
        return place if self._inflate is None else self._places[bisect_left(self._places, (place, 0))][1]

    def _find_end(self, last: int) -> None:
        at = self._plain.rfind(b"id: %d\n" % last)
        end = self._plain.find(_EVENT_END, at) if at >= 0 else -1
        if end >= 0:
            self._end = end + len(_EVENT_END)

    def _take_ready(self, seconds: float, pipe: int = -1) -> bool:
        """Read once from every socket that has something; whether the pipe has."""
        told = False
        for fd, _ in self._poll.poll(seconds):
            if fd == pipe:
                told = True
            else:
                self._take_one(self._listeners[fd])
        return told

    def _take_one(self, one: _Listener) -> None:
        try:
            size = one.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            size = 0
        if size == 0:
            one.fault = one.fault or "hung up"
        elif one.offset < 0:
            self._take_head(one, bytes(self._view[:size]))
        else:
            self._compare(one, self._view[:size])
        if one.fault:
            self._poll.unregister(one.sock.fileno())

    def _take_head(self, one: _Listener, data: bytes) -> None:
        """The answer's head, and the `retry:` that differs from listener to listener."""
        one.head += data
        if not one.head.startswith(b"HTTP/1.1 200 "[: len(one.head)]):
            one.fault = "refused"
            return
        head = one.head.find(_HEAD_END)
        if head < 0:
            return
        mark = _FLUSH_END if self._ask.packed else _EVENT_END
        preamble = one.head.find(mark, head + len(_HEAD_END) + (len(GZIP_HEAD) if self._ask.packed else 0))
        if preamble >= 0:
            one.offset = 0
            rest = bytes(one.head[preamble + len(mark) :])
            if rest:
                self._compare(one, memoryview(rest))

    def _compare(self, one: _Listener, data: memoryview) -> None:
        known = len(self._stream) - one.offset
        if known < len(data):
            self._stream += data[max(0, known) :]
        if known > 0 and not self._stream.startswith(data[:known], one.offset):
            one.fault = "differs"
            return
        one.offset += len(data)
        one.marks.append(time.time())
        one.offsets.append(one.offset)

    def tell(self, cpu_seconds: float) -> Heard:
        """What was heard."""
        everybody = self._listeners.values()
        end = len(self._plain) if self._end is None else self._end
        wire = self._on_the_wire(end)
        whole = [one for one in everybody if not one.fault and self._end is not None and one.offset >= wire]
        faults = [one.fault for one in everybody if one not in whole]
        return Heard(
            stream=bytes(self._plain[:end]),
            wire_bytes=wire,
            whole=len(whole),
            short=len(faults) - faults.count("differs") - faults.count("refused"),
            differing=faults.count("differs"),
            refused=faults.count("refused"),
            times=self._times(whole, end),
            cpu_seconds=cpu_seconds,
        )

    def _times(self, whole: list[_Listener], end: int) -> dict[int, array[float]]:
        ends: list[int] = []
        place = 0
        while (found := self._plain.find(_EVENT_END, place, end)) >= 0:
            place = found + len(_EVENT_END)
            ends.append(place)
        # The last one also tells how long all of it took.
        sampled = {*ends[:: max(1, len(ends) // _SAMPLES)], *ends[-1:]}
        return {
            place: array("d", sorted(one.marks[bisect_left(one.offsets, self._on_the_wire(place))] for one in whole))
            for place in sorted(sampled)
        }

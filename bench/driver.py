"""Sends prebuilt requests over keep-alive connections and keeps what came back.

Owns the sockets, the clock and the least of HTTP/1.1 that `gesell serve` speaks: a status line, a Content-Length, a
body. Decodes nothing while the clock runs, so that the machine's cores are the service's: each connection is a
protocol that sends the next request from within the callback that took the last answer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgpack

ANSWER_SECONDS: Final = 60.0
_HEAD_END: Final = b"\r\n\r\n"


class LoadFault(Exception):
    """The service hung up, did not answer, or answered what is no HTTP of the expected kind."""


@dataclass(slots=True)
class Run:
    """What one run sent and got. `seconds` from the first byte sent to the last answer; latencies in seconds.

    Answers and latencies stand in the order in which the answers came; `places` says which request each is to, by
    its place among those handed to `drive`.
    """

    requests: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def outcomes(self) -> Counter[str]:
        """How many statements got which answer: `accepted`, `replayed`, or the code of a refusal.

        A request that was refused as a whole counts once, whatever it held: the sum then differs from what was sent.
        """
        counted: Counter[str] = Counter()
        for status, body in self.answers:
            if status != 200:
                counted[_code_of(status, body)] += 1
                continue
            for result in msgpack.unpackb(body)["results"]:
                counted[result["problem"]["code"] if result["status"] == "refused" else result["status"]] += 1
        return counted


def _code_of(status: int, body: bytes) -> str:
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return f"http-{status}"


async def drive(
    url: str,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    every: float = 0.0,
    pause: float = 0.0,
) -> Run:
    """Send `requests` in order over that many connections, one in flight on each, until all are sent or `seconds`
    have passed; what is in flight then is waited for. With `every`, none is sent before its turn, that many seconds
    after the turn of the one before; one that is late is made up for. With `pause`, each connection rests for so many
    seconds between an answer and its next request. Raises `LoadFault`.
    """
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    run = Run()
    queue = enumerate(requests)
    lines = [_Line(run, queue, loop.create_future()) for _ in range(min(connections, len(requests)))]
    for line in lines:
        await loop.create_connection(partial(_same, line), parts.hostname or "", parts.port or 80)
    started = time.perf_counter()
    turns = itertools.count(started, every)
    for line in lines:
        line.start(turns, until=started + seconds, pause=pause)
    try:
        async with asyncio.timeout(seconds + ANSWER_SECONDS):
            await asyncio.gather(*(line.done for line in lines))
    except TimeoutError:
        raise LoadFault(f"no answer within {ANSWER_SECONDS:.0f} seconds") from None
    finally:
        for line in lines:
            line.close()
    run.seconds = time.perf_counter() - started
    return run


async def get_json(url: str, path: str) -> Any:
    """The JSON at `path` of the service."""
    host = urlsplit(url).netloc
    run = await drive(url, [f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()], connections=1, seconds=1.0)
    status, body = run.answers[0]
    if status != 200:
        raise LoadFault(f"GET {path} answered {status}")
    return json.loads(body)


def _same(line: _Line) -> _Line:
    return line


class _Line(asyncio.Protocol):
    """One connection: send, wait for the whole answer, note it, send the next."""

    def __init__(self, run: Run, queue: Iterator[tuple[int, bytes]], done: asyncio.Future[None]) -> None:
        self.done = done
        self._run = run
        self._queue = queue
        self._transport: asyncio.Transport | None = None
        self._until = 0.0
        self._turns: Iterator[float] = iter(())
        self._pause = 0.0
        self._place = 0
        self._sent = 0.0
        self._held = bytearray()
        self._status = 0
        self._body_at = 0
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by class.
        self._transport = cast(asyncio.Transport, transport)

    def start(self, turns: Iterator[float], *, until: float, pause: float) -> None:
        """Send the first request in its turn; none is sent after `until` (both of the performance counter)."""
        self._turns = turns
        self._until = until
        self._pause = pause
        self._send()

    def _send(self) -> None:
        now = time.perf_counter()
        following = next(self._queue, None) if now < self._until else None
        if following is None:
            self._finish(None)
            return
        wait = next(self._turns) - now
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._write, *following)
        else:
            self._write(*following)

    def _write(self, place: int, following: bytes) -> None:
        if self.done.done():
            return
        assert self._transport is not None
        self._place = place
        self._sent = time.perf_counter()
        self._run.requests += 1
        self._transport.write(following)

    def data_received(self, data: bytes) -> None:
        self._held += data
        if not self._needed and not self._read_head():
            return
        if len(self._held) < self._needed:
            return
        self._run.latencies.append(time.perf_counter() - self._sent)
        self._run.answers.append((self._status, bytes(self._held[self._body_at : self._needed])))
        self._run.places.append(self._place)
        self._held.clear()
        self._needed = 0
        if self._pause:
            asyncio.get_running_loop().call_later(self._pause, self._send)
        else:
            self._send()

    def _read_head(self) -> bool:
        """Note status and length once the head is whole; whether it is."""
        end = self._held.find(_HEAD_END)
        if end < 0:
            return False
        head = bytes(self._held[:end]).lower()
        mark = head.find(b"\r\ncontent-length:")
        if mark < 0 or not head.startswith(b"http/1.1 "):
            self._finish(LoadFault("an answer without Content-Length"))
            return False
        self._status = int(head[9:12])
        self._body_at = end + len(_HEAD_END)
        self._needed = self._body_at + int(head[mark + 17 :].split(b"\r\n", 1)[0])
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(LoadFault(f"the service hung up: {error or 'end of stream'}"))

    def _finish(self, error: LoadFault | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def close(self) -> None:
        """Hang up; what comes later is nobody's."""
        if not self.done.done():
            self.done.cancel()
        if self._transport is not None:
            self._transport.close()

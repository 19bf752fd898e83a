"""The processes that check statements, and what is handed to them and comes back.

Owns the processes, their sockets, and how the statements of many requests are parted among them. What is checked is
`api.pieces`' business.

Processes, not threads: libsodium lets other threads run while it verifies, but a thread that comes back has to wait for
the interpreter, which the event loop gives away every half a millisecond only; half of the time of a second core went
into this waiting.

1. A process is given what waits, of whatever requests, as soon as it has little to do; while it is busy, only whole
   chunks, so that requests of one statement share the cost of handing them over.
2. A few small statements, with nothing else under way, are checked where they are: to wake another process, and to be
   woken by it, takes longer than to verify a signature.
3. A process that ends takes what it had with it: those requests are told to come again. Another one takes its place.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

import structlog

from gesell_ledger.checked import HEAD_BYTES, Broken, Checked, Parcel, read_checked, write_parcels
from gesell_ledger.core.decide import Submission
from gesell_protocol.refusals import Refusal

#: Statements that are handed over at once at most: some 6 ms of work.
CHUNK: Final = 64
#: Chunks of any size that a process may have before it is given whole ones only, and how many of these: enough to be
#: busy while the event loop decides a batch.
AHEAD: Final = 2
AHEAD_WHOLE: Final = 6
#: So many statements, of so many bytes in all, are few and small (rule 2): less than half a millisecond.
HERE_MAX: Final = 3
HERE_MAX_BYTES: Final = 4_096
CHECKERS_MAX: Final = 4
PAUSE_SECONDS: Final = 0.1
PAUSE_MAX_SECONDS: Final = 5.0
END_SECONDS: Final = 5.0

log = structlog.get_logger("gesell.checkers")


_BROKEN: Final = Refusal(code="internal", detail="the statement could not be checked; nothing was applied")


class Check(Protocol):
    """How one statement is checked (`api.pieces.check_piece`, and what becomes of a fault)."""

    def __call__(self, piece: bytes, *, is_json: bool, min_tick_seconds: int) -> Checked: ...


class CheckerLost(Exception):
    """The process that checked a request's statements has ended; nothing of it was applied."""


def count_for(workers: int) -> int:
    """How many processes one of so many workers should have on this machine."""
    return max(1, min(CHECKERS_MAX, len(os.sched_getaffinity(0))) // workers)


class _Job:
    """The statements of one request: `given` of them are with a process or back, `left` are not back yet."""

    __slots__ = ("checked", "done", "given", "is_json", "left", "pieces")

    def __init__(self, pieces: Sequence[bytes], *, is_json: bool, done: asyncio.Future[None]) -> None:
        self.pieces = pieces
        self.is_json = is_json
        self.checked: list[Submission | Refusal] = [_BROKEN] * len(pieces)
        self.given = 0
        self.left = len(pieces)
        self.done = done


#: A run of statements of one job: the job, the first one's place, and how many.
_Run = tuple[_Job, int, int]


class Checkers:
    """Checks statements. One per process of the service; safe for any number of requests at once, from one loop.

    `check` is what the processes do too, for rule 2.
    """

    def __init__(self, check: Check, *, processes: int, min_tick_seconds: int) -> None:
        self._check = check
        self._count = processes
        self._min_tick_seconds = min_tick_seconds
        self._waiting: deque[_Job] = deque()
        self._in_line = 0
        self._gathering = False
        self._lines: list[_Line] = []
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the processes; raises `OSError` where none can be started."""
        first = [await self._open() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(line)) for line in first]

    async def close(self) -> None:
        """End the processes; what is with them is not answered any more."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def check(self, pieces: Sequence[bytes], *, is_json: bool) -> list[Submission | Refusal]:
        """Check all statements of a request, together with those of others; in the order given.

        Raises `CheckerLost` if that can't be brought to an end.
        """
        job = _Job(pieces, is_json=is_json, done=asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._in_line += len(pieces)
        if not self._gathering:
            # What other connections have brought by now is read first, so that it goes along.
            self._gathering = True
            asyncio.get_running_loop().call_soon(self.hand_out)
        await job.done
        return job.checked

    def hand_out(self) -> None:
        """Rule 1, for whoever has least to do first."""
        self._gathering = False
        if 0 < self._in_line <= HERE_MAX and not any(line.load() for line in self._lines):
            self._check_here()
        while self._waiting and self._lines:
            line = min(self._lines, key=_Line.load)
            if line.load() >= (AHEAD if self._in_line < CHUNK else AHEAD_WHOLE):
                return
            # Rounded up, so that nothing is left when each has had its part.
            line.send(self._take_chunk(min(CHUNK, -(-self._in_line // self._idle()))))

    def _check_here(self) -> None:
        """Rule 2."""
        if sum(len(piece) for job in self._waiting for piece in job.pieces) > HERE_MAX_BYTES:
            return
        runs = self._take_chunk(self._in_line)
        checked: list[Checked] = [
            self._check(piece, is_json=job.is_json, min_tick_seconds=self._min_tick_seconds)
            for job, first, size in runs
            for piece in job.pieces[first : first + size]
        ]
        take_back(runs, checked)

    def _idle(self) -> int:
        """Among how many processes to part what waits: those with nothing to do, or one."""
        return max(1, sum(line.load() == 0 for line in self._lines))

    def _take_chunk(self, room: int) -> list[_Run]:
        runs: list[_Run] = []
        while room and self._waiting:
            job = self._waiting[0]
            size = min(room, len(job.pieces) - job.given)
            # A request that was given up, because a process ended, is not worth more work.
            if not job.done.done():
                runs.append((job, job.given, size))
                room -= size
            self._in_line -= size
            job.given += size
            if job.given == len(job.pieces):
                self._waiting.popleft()
        return runs

    async def _open(self) -> _Line:
        """A new process at the other end of a new socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "gesell_ledger.checker", str(self._min_tick_seconds), stdin=theirs.fileno()
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        line = _Line(self)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        line.process = process
        self._lines.append(line)
        self.hand_out()
        return line

    async def _keep(self, line: _Line) -> None:
        """Have a process in this place for ever; when cancelled, end it."""
        pause = PAUSE_SECONDS
        try:
            while True:
                await line.lost
                self._lines.remove(line)
                line.give_up()
                status = await line.end()
                log.error("checker_ended", status=status, again_in_seconds=pause)
                while line.lost.done():
                    await asyncio.sleep(pause)
                    pause = min(PAUSE_MAX_SECONDS, 2 * pause)
                    with suppress(OSError):
                        line = await self._open()
        finally:
            await line.end()


class _Line(asyncio.Protocol):
    """The service's end of one process: what it has been given, in order, and the answers as they come."""

    process: asyncio.subprocess.Process

    def __init__(self, checkers: Checkers) -> None:
        self._checkers = checkers
        self._transport: asyncio.Transport | None = None
        self._given: deque[list[_Run]] = deque()
        self._held = bytearray()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def load(self) -> int:
        """How many chunks it has."""
        return len(self._given)

    def send(self, runs: list[_Run]) -> None:
        """Hand over a chunk."""
        if not runs:
            return
        assert self._transport is not None
        parcels: list[Parcel] = [(job.is_json, list(job.pieces[first : first + size])) for job, first, size in runs]
        self._given.append(runs)
        self._transport.write(write_parcels(parcels))

    def give_up(self) -> None:
        """Rule 2."""
        while self._given:
            for job, _, _ in self._given.popleft():
                if not job.done.done():
                    job.done.set_exception(CheckerLost())

    async def end(self) -> int:
        """Hang up and wait for the process to end; returns its exit status."""
        assert self._transport is not None
        self._transport.abort()
        try:
            async with asyncio.timeout(END_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        at = 0
        while len(self._held) - at >= HEAD_BYTES:
            end = at + HEAD_BYTES + int.from_bytes(self._held[at : at + HEAD_BYTES], "big")
            if len(self._held) < end:
                break
            take_back(self._given.popleft(), read_checked(bytes(self._held[at + HEAD_BYTES : end])))
            at = end
        del self._held[:at]
        self._checkers.hand_out()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


def take_back(runs: Sequence[_Run], checked: Sequence[Checked]) -> None:
    """Give what was checked to the jobs that it belongs to."""
    at = 0
    for job, first, size in runs:
        job.checked[first : first + size] = map(_taken, checked[at : at + size])
        at += size
        job.left -= size
        if job.left == 0 and not job.done.done():
            job.done.set_result(None)


def _taken(checked: Checked) -> Submission | Refusal:
    if isinstance(checked, Broken):
        log.critical("statement_not_checked", trace=checked.trace)
        return _BROKEN
    return checked

"""The processes that check statements, and what is handed to them and comes back.

Owns the processes, their sockets, and how the statements of many requests are parted among them. What is checked is
`api.pieces`' business.

Processes, not threads: libsodium lets other threads run while it verifies, but a thread that comes back has to wait for
the interpreter, which a busy event loop gives away only now and then; half of the time of a second core went into this
waiting.

1. A process is given what waits, of whatever requests, as soon as it has little to do; while it is busy, only whole
   chunks, so that requests of one statement share the cost of handing them over.
2. A few small statements, with nothing else under way, are checked where they are: to wake another process, and to be
   woken by it, takes longer than to verify a signature.
3. Small requests have a queue of their own, and it and the other one take turns: a payment never waits for megabytes of
   somebody else's to be gone through (`queues`).
4. A process that ends takes what it had with it: those requests are told to come again. One that is stuck is ended.
   Another takes its place; where there is none at all for some seconds, requests are sent away.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, cast

import structlog

from gesell_ledger.checked import HEAD_BYTES, Broken, Checked, Parcel, read_checked, write_parcels
from gesell_ledger.core.decide import Submission
from gesell_ledger.queues import FEW, Queues
from gesell_ledger.storage.faults import Fault
from gesell_protocol.refusals import Refusal

#: Statements that are handed over at once at most, and of how many bytes: some 6 ms of work for payments, and less than
#: 30 for what has sixteen signatures each.
CHUNK: Final = 64
CHUNK_BYTES: Final = 32 * 1024
#: Chunks of any size that a process may have before it is given whole ones only, and how many of these: enough to be
#: busy while the event loop decides a batch.
AHEAD: Final = 2
AHEAD_WHOLE: Final = 6
#: So many statements, of so many bytes in all, are few and small (rule 2): what three payments have.
HERE_MAX: Final = 3
HERE_MAX_BYTES: Final = 1_200
_HERE: Final = (HERE_MAX, HERE_MAX_BYTES)
#: A small request (rule 3): what a dozen payments have, or forty signatures.
_SMALL: Final = (FEW, 4 * 1024)
CHECKERS_MAX: Final = 4
PAUSE_SECONDS: Final = 0.1
PAUSE_MAX_SECONDS: Final = 5.0
#: Who has been there for so long is followed at once.
STEADY_SECONDS: Final = 10.0
#: A process that has had a chunk for so long is stuck; one that does not answer for so long does not start.
STUCK_SECONDS: Final = 15.0
START_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 1.0
#: For so long a request waits for a process where there is none.
ALONE_SECONDS: Final = 5.0
END_SECONDS: Final = 5.0

log = structlog.get_logger("gesell.checkers")


_BROKEN: Final = Refusal(code="internal", detail="the statement could not be checked; nothing was applied")


class Check(Protocol):
    """How one statement is checked: `api.pieces.check`."""

    def __call__(self, piece: bytes, *, is_json: bool, min_tick_seconds: int) -> Checked: ...


class CheckerLost(Exception):
    """The process that checked a request's statements has ended; nothing of it was applied."""


def count_for(workers: int) -> int:
    """How many processes one of so many workers should have on this machine."""
    # Only Linux says how many of the machine's cores are meant for us.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(CHECKERS_MAX, cores) // workers)


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
        self._waiting: Queues[_Job] = Queues()
        self._in_line = 0
        self._gathering = False
        self._lines: list[_Line] = []
        #: Since when there is no process.
        self._alone_since: float | None = None
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the processes, and wait until they answer; raises a `Fault` where that fails."""
        opened = await asyncio.gather(*(self._open() for _ in range(self._count)), return_exceptions=True)
        lines = [line for line in opened if isinstance(line, _Line)]
        self._keepers = [asyncio.create_task(self._keep(line)) for line in lines]
        for failed in opened:
            if isinstance(failed, BaseException):
                await self.close()
                raise Fault(f"no process that checks statements could be started: {failed}") from failed

    @property
    def ready(self) -> bool:
        """Whether there is a process that checks."""
        return bool(self._lines)

    async def close(self) -> None:
        """End the processes; what is with them is not answered any more."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def check(self, pieces: Sequence[bytes], *, is_json: bool) -> list[Submission | Refusal]:
        """Check all statements of a request, together with those of others; in the order given.

        Raises `CheckerLost` if that can't be brought to an end.
        """
        if self._alone() and not _within(pieces, _HERE):
            raise CheckerLost
        job = _Job(pieces, is_json=is_json, done=asyncio.get_running_loop().create_future())
        (self._waiting.few if _within(pieces, _SMALL) else self._waiting.many).append(job)
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
        if not any(line.load() for line in self._lines):
            self._check_here()
        lines = [line for line in self._lines if line.takes()]
        while self._in_line and lines:
            line = min(lines, key=_Line.load)
            if line.load() >= (AHEAD if self._in_line < CHUNK else AHEAD_WHOLE):
                break
            # Parted among those with nothing to do, rounded up, so that nothing is left when each has had its part.
            idle = max(1, sum(one.load() == 0 for one in lines))
            line.send(self._take_chunk(min(CHUNK, -(-self._in_line // idle))))
        if not self._lines:
            self._send_away()

    def _check_here(self) -> None:
        """Rule 2."""
        if self._in_line > HERE_MAX or not _within([piece for job in self._waiting for piece in job.pieces], _HERE):
            return
        runs = self._take_chunk(self._in_line)
        checked: list[Checked] = [
            self._check(piece, is_json=job.is_json, min_tick_seconds=self._min_tick_seconds)
            for job, first, size in runs
            for piece in job.pieces[first : first + size]
        ]
        take_back(runs, checked)

    def _take_chunk(self, room: int) -> list[_Run]:
        runs: list[_Run] = []
        left = CHUNK_BYTES
        for waiting in self._waiting.turn():
            while room > 0 and left > 0 and waiting:
                job = waiting[0]
                # A request that was given up, because a process ended, is not worth more work.
                gone = job.done.done()
                size = len(job.pieces) - job.given
                if not gone:
                    size, left = _fitting(job.pieces, job.given, min(room, size), left)
                    runs.append((job, job.given, size))
                    room -= size
                self._in_line -= size
                job.given += size
                if job.given == len(job.pieces):
                    waiting.popleft()
        return runs

    async def _open(self) -> _Line:
        """A new process at the other end of a new socket, which has answered once."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    # Nothing is imported from the folder in which the service happens to be started.
                    "-P",
                    "-m",
                    "gesell_ledger.checker",
                    str(self._min_tick_seconds),
                    stdin=theirs.fileno(),
                    # Ctrl-C in a terminal is for the service, which hangs up when it has ended.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        line = _Line(self, process)
        await asyncio.get_running_loop().create_connection(lambda: line, sock=ours)
        line.greet()
        try:
            await asyncio.wait([line.answered, line.lost], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not line.answered.done() or line.lost.done():
                raise OSError(f"it ended with status {await line.end()} before it answered; what it said stands above")
        except asyncio.CancelledError:
            await line.end(at_once=True)
            raise
        self._lines.append(line)
        self._alone_since = None
        self.hand_out()
        return line

    async def _keep(self, line: _Line) -> None:
        """Have a process in this place for ever; when cancelled, end it."""
        pause = 0.0
        try:
            while True:
                began = time.monotonic()
                await self._watch(line)
                self._lines.remove(line)
                line.give_up()
                self._note_loss()
                status = await line.end()
                pause = 0.0 if time.monotonic() - began > STEADY_SECONDS else _next(pause)
                log.error("checker_ended", status=status, again_in_seconds=pause)
                while line.lost.done():
                    await asyncio.sleep(pause)
                    try:
                        line = await self._open()
                    except OSError as error:
                        pause = _next(pause)
                        log.error("checker_not_started", why=str(error), again_in_seconds=pause)
        finally:
            line.give_up()
            await line.end()

    async def _watch(self, line: _Line) -> None:
        """Wait for the end of a process, and bring it about when it is stuck."""
        while not line.lost.done():
            await asyncio.wait([line.lost], timeout=LOOK_SECONDS)
            if line.stuck() and not line.lost.done():
                log.error("checker_stuck", why=f"it had a chunk for {STUCK_SECONDS:.0f} seconds")
                await line.end(at_once=True)
                return

    def _note_loss(self) -> None:
        """Rule 4, where this was the last one."""
        if not self._lines and self._alone_since is None:
            self._alone_since = time.monotonic()
            asyncio.get_running_loop().call_later(ALONE_SECONDS + LOOK_SECONDS, self._send_away)

    def _alone(self) -> bool:
        """Whether there has been no process for too long."""
        return self._alone_since is not None and time.monotonic() - self._alone_since > ALONE_SECONDS

    def _send_away(self) -> None:
        if not self._alone():
            return
        for job in self._waiting:
            if not job.done.done():
                job.done.set_exception(CheckerLost())
        self._waiting.clear()
        self._in_line = 0


def _next(pause: float) -> float:
    return min(PAUSE_MAX_SECONDS, max(PAUSE_SECONDS, 2 * pause))


def _within(pieces: Sequence[bytes], bounds: tuple[int, int]) -> bool:
    """Whether these are so many at most, of so many bytes in all."""
    most, most_bytes = bounds
    return len(pieces) <= most and sum(map(len, pieces)) <= most_bytes


def _fitting(pieces: Sequence[bytes], first: int, most: int, left: int) -> tuple[int, int]:
    """How many pieces from the first on fit into so many bytes, at least one; and how many bytes are left then."""
    size = 0
    while size < most and left > 0:
        left -= len(pieces[first + size])
        size += 1
    return size, left


class _Line(asyncio.Protocol):
    """The service's end of one process: what it has been given, in order, and the answers as they come."""

    def __init__(self, checkers: Checkers, process: asyncio.subprocess.Process) -> None:
        self._checkers = checkers
        self._process = process
        self._transport: asyncio.Transport | None = None
        self._given: deque[list[_Run]] = deque()
        #: Since when it has had the oldest of its chunks.
        self._since = 0.0
        self._held = bytearray()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def load(self) -> int:
        """How many chunks it has."""
        return len(self._given)

    def takes(self) -> bool:
        """Whether what is sent would reach it: its end is seen here before it is out of the list of processes."""
        return self._transport is not None and not self._transport.is_closing()

    def stuck(self) -> bool:
        """Whether it has had a chunk for longer than any takes."""
        return bool(self._given) and time.monotonic() - self._since > STUCK_SECONDS

    def greet(self) -> None:
        """Hand over an empty chunk, so that it answers."""
        self._hand_over([])

    def send(self, runs: list[_Run]) -> None:
        """Hand over a chunk, if there is something in it."""
        if runs:
            self._hand_over(runs)

    def _hand_over(self, runs: list[_Run]) -> None:
        assert self._transport is not None
        if not self._given:
            self._since = time.monotonic()
        parcels: list[Parcel] = [(job.is_json, list(job.pieces[first : first + size])) for job, first, size in runs]
        self._given.append(runs)
        self._transport.write(write_parcels(parcels))

    def give_up(self) -> None:
        """Rule 4."""
        while self._given:
            for job, _, _ in self._given.popleft():
                if not job.done.done():
                    job.done.set_exception(CheckerLost())

    async def end(self, *, at_once: bool = False) -> int:
        """Hang up and wait for the process to end, or end it at once; returns its exit status."""
        assert self._transport is not None
        self._transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0 if at_once else END_SECONDS):
                return await self._process.wait()
        with suppress(ProcessLookupError):
            self._process.kill()
        return await self._process.wait()

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
            checked = read_checked(bytes(self._held[at + HEAD_BYTES : end]))
            take_back(self._given.popleft(), checked)
            self._since = time.monotonic()
            at = end
            if not self.answered.done():
                self.answered.set_result(None)
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

"""Who trusts whom, and how far: what is asked of the vouches of a commons (docs/trust.md).

Owns the process that reckons (`solver`) and what it knows: which commons' vouches, as of which entry, and how many of
them it may keep. Knows no request and no rule of vouches.

1. An answer is that of one moment of the commons: of all vouches after its entry `as_of_seq`, which is never before the
   entry that the asker has seen.
2. What changed since the last question is read from `vouch_change`, all vouches only for a commons that is not known or
   changed much.
3. One question is worked on at a time (`turns`); one that takes too long is given up, and its commons is left alone for
   a while, so that nobody's graph keeps the others waiting for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from gesell_ledger.readings.solver import (
    LENGTH_BYTES,
    Answer,
    AskBetween,
    AskRanking,
    Between,
    Failed,
    Forget,
    Message,
    Question,
    Ranking,
    Vouches,
    pack,
)
from gesell_ledger.readings.turns import Turns, Unanswered
from gesell_ledger.storage.trust import VOUCH_BYTES, VouchReader

#: Vouches that are kept in memory, of all commons together; one commons with more is not answered for.
VOUCHES_MAX: Final = 500_000
#: Changes that are read one by one; after more of them all vouches are read again.
CHANGES_MAX: Final = 20_000
#: Longer than the process works at a question before it ends itself.
TURN_SECONDS: Final = 20.0
#: How long the process is kept while nobody asks.
IDLE_SECONDS: Final = 300.0
#: How long a process that says no more may take to end.
ENDING_SECONDS: Final = 5.0
#: How long a commons is left alone whose question took too long.
BARRED_SECONDS: Final = 60.0

log = structlog.get_logger("gesell.trust")


class TooManyVouches(Exception):
    """A commons has more vouches than are kept in memory."""


class _Ended(Exception):
    """The process ended instead of answering."""


@dataclass(slots=True)
class _Known:
    """What the process knows of a commons: its vouches after which entry, and how many they are."""

    seq: int
    vouches: int = 0


class Trust:
    """Answers questions of trust over the commons of one database. Safe for any number of requests at once."""

    def __init__(self, vouches: VouchReader) -> None:
        self._vouches = vouches
        self._turns = Turns(turn_seconds=TURN_SECONDS)
        self._process: asyncio.subprocess.Process | None = None
        # The least recently asked first.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        #: Commons that are left alone: until when, and what they are told.
        self._barred: dict[bytes, tuple[float, Unanswered | TooManyVouches]] = {}
        self._idle: asyncio.TimerHandle | None = None

    async def between(self, commons: bytes, *, seq: int, source: bytes, sink: bytes) -> tuple[int, Between]:
        """How much trust flows from one to another and over which strongest chain, after which entry: `seq` or later.

        Raises `Unanswered` or `TooManyVouches`.
        """
        as_of_seq, answer = await self._ask(commons, seq, AskBetween(commons, source, sink))
        assert isinstance(answer, Between)
        return as_of_seq, answer

    async def rank(
        self, commons: bytes, *, seq: int, source: bytes, after: tuple[int, int, bytes] | None, limit: int
    ) -> Ranking:
        """Whom trust from `source` reaches, in order, after a place; raises as `between` does."""
        _, answer = await self._ask(commons, seq, AskRanking(commons, source, after, limit))
        assert isinstance(answer, Ranking)
        return answer

    async def stop(self) -> None:
        """End the process; whoever waits for it gets no answer."""
        self._rest()
        process, self._process = self._process, None
        if process is not None:
            await self._end(process)

    # ── One question ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, commons: bytes, seq: int, question: Question) -> tuple[int, Answer]:
        self._check_bar(commons)
        try:
            async with self._turns.turn(commons):
                self._check_bar(commons)
                return await self._answer(commons, seq, question)
        except TooManyVouches as error:
            self._bar(commons, error)
            raise

    async def _answer(self, commons: bytes, seq: int, question: Question) -> tuple[int, Answer]:
        """Bring the process up to date with the commons, and ask it."""
        self._rest()
        process = self._process or await self._start()
        try:
            if not await self._catch_up(process, commons, seq):
                await self._load(process, commons)
            await _send(process, question)
            answer = await _receive(process)
            if isinstance(answer, Failed):
                raise RuntimeError(f"the solver failed: {answer.why}")
            known = self._known[commons]
            known.vouches = answer.vouches
            await self._make_room(process)
        except TooManyVouches:
            raise
        except _Ended:
            # Killed a moment too late, it would not be known any more how it ended.
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), ENDING_SECONDS)
            await self._end(process)
            raise self._explain(process, commons) from None
        except BaseException:
            # The process may be in the middle of anything: what it says next need not answer what it is asked next.
            await self._end(process)
            raise
        finally:
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close)
        return known.seq, answer

    def _explain(self, process: asyncio.subprocess.Process, commons: bytes) -> Unanswered:
        """What they are told whom the process left without an answer."""
        log.warning("solver_ended", commons=commons.hex(), status=process.returncode)
        if process.returncode != -signal.SIGALRM:
            return Unanswered("the process that reckons trust ended", retry_after=2)
        why = Unanswered("trust in this commons takes too long to reckon", retry_after=int(BARRED_SECONDS))
        self._bar(commons, why)
        return why

    def _check_bar(self, commons: bytes) -> None:
        until, told = self._barred.get(commons, (0.0, None))
        if told is not None and until > time.monotonic():
            # Told again and again, it must not gather the traces of all who were told.
            raise told.with_traceback(None)

    def _bar(self, commons: bytes, why: Unanswered | TooManyVouches) -> None:
        now = time.monotonic()
        self._barred = {name: barred for name, barred in self._barred.items() if barred[0] > now}
        self._barred[commons] = (now + BARRED_SECONDS, why)

    async def _catch_up(self, process: asyncio.subprocess.Process, commons: bytes, seq: int) -> bool:
        """Tell what changed up to an entry since the process was told last (rule 2); whether that was enough."""
        known = self._known.get(commons)
        if known is None:
            return False
        if known.seq < seq:
            changes = await self._vouches.load_changes(commons, after=known.seq, until=seq, limit=CHANGES_MAX)
            if changes is None:
                return False
            if changes:
                await _send(process, Vouches(commons, changes))
            known.seq = seq
        self._known.move_to_end(commons)
        return True

    async def _load(self, process: asyncio.subprocess.Process, commons: bytes) -> None:
        """Tell all vouches of a commons as they are now."""
        await self._forget(process, commons)
        async with self._vouches.open_vouches(commons) as (seq, pages):
            count = 0
            async for page in pages:
                count += len(page) // VOUCH_BYTES
                if count > VOUCHES_MAX:
                    await _send(process, Forget(commons))
                    raise TooManyVouches
                await _send(process, Vouches(commons, page))
        self._known[commons] = _Known(seq)

    async def _make_room(self, process: asyncio.subprocess.Process) -> None:
        """Forget whom nobody asked for longest, until what is kept is within the bound."""
        kept = sum(known.vouches for known in self._known.values())
        while kept > VOUCHES_MAX:
            commons, known = next(iter(self._known.items()))
            kept -= known.vouches
            await self._forget(process, commons)

    async def _forget(self, process: asyncio.subprocess.Process, commons: bytes) -> None:
        if self._known.pop(commons, None) is not None:
            await _send(process, Forget(commons))

    # ── The process ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Nothing is imported from the folder in which the service happens to be started.
            "-P",
            "-m",
            "gesell_ledger.readings.solver",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # What it has to say it says in its answers; the service's own stderr is for the log.
            stderr=asyncio.subprocess.DEVNULL,
            # It calls no linear algebra, for which numpy would keep threads and their memory ready.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End a process, whatever it does; the next one knows nothing."""
        if self._process is process:
            self._process = None
        self._known.clear()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close(self) -> None:
        """Let the process end by itself: nobody has asked for long."""
        process, self._process = self._process, None
        self._known.clear()
        if process is not None and process.stdin is not None:
            process.stdin.close()


async def _send(process: asyncio.subprocess.Process, message: Message) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(pack(message))
        await process.stdin.drain()
    except (ConnectionError, RuntimeError):
        # uvloop says RuntimeError of a pipe that it has closed.
        raise _Ended from None


async def _receive(process: asyncio.subprocess.Process) -> Answer:
    assert process.stdout is not None
    try:
        head = await process.stdout.readexactly(LENGTH_BYTES)
        packed = await process.stdout.readexactly(int.from_bytes(head, "big"))
    except (ConnectionError, asyncio.IncompleteReadError):
        raise _Ended from None
    answer: Answer = msgspec.msgpack.decode(packed, type=Answer)
    return answer

"""The way in: envelopes are checked and verified in threads, then queue for their commons.

Owns the first three checks of SPEC §3 (form, schema, signatures) and how much may be under way at once. Decides
nothing about the books: that is the sequencer's call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from gesell_ledger.core.decide import Submission
from gesell_ledger.sequencer import Answer, Sequencer, Unavailable
from gesell_protocol.envelopes import Envelope, verify_envelope
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import read_statement

#: libsodium works without the GIL, so two threads verify while the event loop works. A thread takes what waits, of
#: whatever requests, up to this many: small enough to keep both threads busy, large enough to pay for the handing over.
CHUNK: Final = 32
THREADS: Final = 2


_UNCHECKED: Final = Refusal(code="internal", detail="the statement was not checked")


class _Job:
    """The envelopes of one request: `given` of them are with a thread or back, `left` are not back yet."""

    __slots__ = ("checked", "done", "envelopes", "given", "left")

    def __init__(self, envelopes: Sequence[Envelope | Refusal], done: asyncio.Future[None]) -> None:
        self.envelopes = envelopes
        self.checked: list[Submission | Refusal] = []
        self.given = 0
        self.left = len(envelopes)
        self.done = done


#: A run of envelopes of one job: the job, the first one's place, and how many.
_Run = tuple[_Job, int, int]


class Intake:
    """Takes envelopes, gives answers. One per process; safe for any number of requests at once.

    At most `in_flight` statements are under way; beyond, a request gets `Unavailable` at once and nothing of it is
    looked at, so memory stays bounded and an overload shows early.
    """

    def __init__(self, sequencer: Sequencer, *, min_tick_seconds: int, in_flight: int = 30_000) -> None:
        self._sequencer = sequencer
        self._min_tick_seconds = min_tick_seconds
        self._room = in_flight
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")
        self._idle = THREADS
        self._waiting: deque[_Job] = deque()

    async def submit(self, envelopes: Sequence[Envelope | Refusal]) -> list[Answer]:
        """Answer each envelope, in the order given; one that was refused while it was read stays refused.

        Statements of one commons act in this order. Raises `Unavailable` when too much is under way (nothing was
        applied) or the service stops.
        """
        if len(envelopes) > self._room:
            raise Unavailable("too many statements are under way", retry_after=1)
        self._room -= len(envelopes)
        try:
            checked = await self._check(envelopes)
            return await self._sequencer.submit(checked)
        finally:
            self._room += len(envelopes)

    async def _check(self, envelopes: Sequence[Envelope | Refusal]) -> Sequence[Submission | Refusal]:
        """Check all envelopes of a request in the threads, together with those of other requests."""
        job = _Job(envelopes, asyncio.get_running_loop().create_future())
        job.checked = [_UNCHECKED] * len(envelopes)
        self._waiting.append(job)
        self._hand_out()
        await job.done
        return job.checked

    def _hand_out(self) -> None:
        """Give idle threads what waits, in order, up to a chunk each."""
        loop = asyncio.get_running_loop()
        while self._idle and self._waiting:
            runs = self._take_chunk()
            chunk = [envelope for job, first, size in runs for envelope in job.envelopes[first : first + size]]
            self._idle -= 1
            checking = loop.run_in_executor(self._threads, self._check_chunk, chunk)
            checking.add_done_callback(partial(self._take_back, runs))

    def _take_chunk(self) -> list[_Run]:
        runs: list[_Run] = []
        room = CHUNK
        while room and self._waiting:
            job = self._waiting[0]
            size = min(room, len(job.envelopes) - job.given)
            runs.append((job, job.given, size))
            job.given += size
            room -= size
            if job.given == len(job.envelopes):
                self._waiting.popleft()
        return runs

    def _take_back(self, runs: Sequence[_Run], checking: asyncio.Future[list[Submission | Refusal]]) -> None:
        self._idle += 1
        if checking.cancelled():
            return
        fault = checking.exception()
        at = 0
        for job, first, size in runs:
            if fault is None:
                job.checked[first : first + size] = checking.result()[at : at + size]
            elif not job.done.done():
                job.done.set_exception(fault)
            at += size
            job.left -= size
            if job.left == 0 and not job.done.done():
                job.done.set_result(None)
        self._hand_out()

    def _check_chunk(self, envelopes: Sequence[Envelope | Refusal]) -> list[Submission | Refusal]:
        return [self._check_one(envelope) for envelope in envelopes]

    def _check_one(self, envelope: Envelope | Refusal) -> Submission | Refusal:
        if isinstance(envelope, Refusal):
            return envelope
        try:
            statement = read_statement(envelope, min_tick_seconds=self._min_tick_seconds)
            verify_envelope(envelope)
        except Rejected as rejected:
            return rejected.refusal
        return Submission(envelope, statement)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

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
from itertools import repeat
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


class _Job:
    """The envelopes of one request, what became of each, and how many are still to be checked."""

    __slots__ = ("checked", "done", "left")

    def __init__(self, size: int, done: asyncio.Future[None]) -> None:
        self.checked: list[Submission | Refusal | None] = [None] * size
        self.left = size
        self.done = done


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
        self._waiting: deque[tuple[_Job, int, Envelope]] = deque()

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
        job = _Job(len(envelopes), asyncio.get_running_loop().create_future())
        for place, envelope in enumerate(envelopes):
            if isinstance(envelope, Refusal):
                job.checked[place] = envelope
                job.left -= 1
            else:
                self._waiting.append((job, place, envelope))
        self._hand_out()
        if job.left:
            await job.done
        return [checked for checked in job.checked if checked is not None]

    def _hand_out(self) -> None:
        """Give idle threads what waits."""
        loop = asyncio.get_running_loop()
        while self._idle and self._waiting:
            chunk = [self._waiting.popleft() for _ in range(min(CHUNK, len(self._waiting)))]
            self._idle -= 1
            checking = loop.run_in_executor(self._threads, self._check_chunk, [envelope for _, _, envelope in chunk])
            checking.add_done_callback(partial(self._take_back, chunk))

    def _take_back(
        self, chunk: Sequence[tuple[_Job, int, Envelope]], checking: asyncio.Future[list[Submission | Refusal]]
    ) -> None:
        self._idle += 1
        if checking.cancelled():
            return
        fault = checking.exception()
        for (job, place, _), checked in zip(chunk, checking.result() if fault is None else repeat(None), strict=False):
            job.checked[place] = checked
            job.left -= 1
            if fault is not None and not job.done.done():
                job.done.set_exception(fault)
            if job.left == 0 and not job.done.done():
                job.done.set_result(None)
        self._hand_out()

    def _check_chunk(self, envelopes: Sequence[Envelope]) -> list[Submission | Refusal]:
        return [self._check_one(envelope) for envelope in envelopes]

    def _check_one(self, envelope: Envelope) -> Submission | Refusal:
        try:
            statement = read_statement(envelope, min_tick_seconds=self._min_tick_seconds)
            verify_envelope(envelope)
        except Rejected as rejected:
            return rejected.refusal
        return Submission(envelope, statement)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

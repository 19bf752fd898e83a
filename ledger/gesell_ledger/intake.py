"""The way in: envelopes are checked and verified in threads, then queue for their commons.

Owns the first three checks of SPEC §3 (form, schema, signatures) and how much may be under way at once. Decides
nothing about the books: that is the sequencer's call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

from gesell_ledger.core.decide import Submission
from gesell_ledger.sequencer import Answer, Sequencer, Unavailable
from gesell_protocol.envelopes import Envelope, verify_envelope
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import read_statement

#: libsodium works without the GIL, so two threads verify while the event loop works; chunks of about 32 keep the
#: cost of handing over small and the loop responsive.
CHUNK: Final = 32
THREADS: Final = 2


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

    async def _check(self, envelopes: Sequence[Envelope | Refusal]) -> list[Submission | Refusal]:
        loop = asyncio.get_running_loop()
        chunks = [envelopes[at : at + CHUNK] for at in range(0, len(envelopes), CHUNK)]
        done = [loop.run_in_executor(self._threads, self._check_chunk, chunk) for chunk in chunks]
        return list(chain.from_iterable(await asyncio.gather(*done)))

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

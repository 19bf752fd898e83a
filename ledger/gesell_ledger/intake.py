"""The way in: statements are checked, then queue for their commons.

Owns how much may be under way at once. The checks are the checkers', and the decision is the sequencer's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from gesell_ledger.checkers import CheckerLost, Checkers
from gesell_ledger.queues import FEW
from gesell_ledger.sequencer import Answer, Sequencer, Unavailable


class Intake:
    """Takes statements, gives answers. One per process; safe for any number of requests at once.

    At most `in_flight` statements are under way; beyond, a request gets `Unavailable` at once and nothing of it is
    looked at, so memory stays bounded and an overload shows early. Of these, `kept` are for requests of few statements
    alone, so that those of many never shut out a payment.
    """

    def __init__(self, sequencer: Sequencer, checkers: Checkers, *, in_flight: int = 30_000, kept: int = 2_000) -> None:
        self._sequencer = sequencer
        self._checkers = checkers
        self._room = in_flight
        self._kept = kept
        self._stopping = False
        self._under_way = 0
        self._none = asyncio.Event()
        self._none.set()

    async def submit(self, pieces: Sequence[bytes], *, is_json: bool) -> list[Answer]:
        """Answer each statement, in the order given: the bytes of each as it came, in JSON or MessagePack (SPEC §7.1).

        Statements of one commons act in this order. Raises `Unavailable` when too much is under way, when the process
        that checked them ended (nothing was applied), or when the service stops.
        """
        if self._stopping:
            raise Unavailable("the service is stopping", retry_after=2)
        if len(pieces) > self._room - (self._kept if len(pieces) > FEW else 0):
            raise Unavailable("too many statements are under way", retry_after=1)
        self._room -= len(pieces)
        self._under_way += 1
        self._none.clear()
        try:
            return await self._sequencer.submit(await self._checkers.check(pieces, is_json=is_json))
        except CheckerLost:
            raise Unavailable("the statements could not be checked; send them again", retry_after=1) from None
        finally:
            self._room += len(pieces)
            self._under_way -= 1
            if self._under_way == 0:
                self._none.set()

    @property
    def ready(self) -> bool:
        """Whether statements can be checked now."""
        return self._checkers.ready

    async def stop(self, *, seconds: float = 10.0) -> None:
        """Take nothing more, and wait until what is under way has its answers, at most so long."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()

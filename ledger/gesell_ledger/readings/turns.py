"""Turns: what costs much is done one at a time, and no commons keeps it from the others.

Owns who waits, who is turned away, and how much of the time a commons has had lately. Knows nothing of what is done.

1. One has its turn at a time; so many of one commons wait at most, and so many of all together.
2. A commons that had more than its share of the last minute waits until that is past.
3. A turn that lasts too long ends: it is told that it was too much, and counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

MINUTE: Final = 60.0
#: How many of one commons, and of all together, are served or wait.
EACH_MAX: Final = 16
ALL_MAX: Final = 64
#: How much of a minute is one commons' share, and how long one turn may last.
SHARE_SECONDS: Final = 12.0
TURN_SECONDS: Final = 8.0


class Unanswered(Exception):
    """A question that may be answered if it is asked again in `retry_after` seconds."""

    def __init__(self, why: str, *, retry_after: int) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Turns:
    """The turns of one kind of work. One event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, turn_seconds: float = TURN_SECONDS) -> None:
        self._clock = clock
        self._turn_seconds = turn_seconds
        self._lock = asyncio.Lock()
        self._waiting: Counter[bytes] = Counter()
        #: When a commons had its turns lately, and for how long.
        self._had: defaultdict[bytes, deque[tuple[float, float]]] = defaultdict(deque)

    @asynccontextmanager
    async def turn(self, commons: bytes) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block; raises `Unanswered`, also out of a block that lasts too long."""
        self._check_share(commons)
        if self._waiting[commons] >= EACH_MAX or self._waiting.total() >= ALL_MAX:
            raise Unanswered("too many ask for this at once", retry_after=2)
        self._waiting[commons] += 1
        try:
            async with self._lock:
                self._check_share(commons)
                began = self._clock()
                try:
                    async with asyncio.timeout(self._turn_seconds):
                        yield
                except TimeoutError:
                    raise Unanswered(
                        "it takes too long to reckon; ask for less of it", retry_after=int(MINUTE)
                    ) from None
                finally:
                    self._had[commons].append((began, self._clock() - began))
        finally:
            self._waiting[commons] -= 1
            if not self._waiting[commons]:
                del self._waiting[commons]

    def _check_share(self, commons: bytes) -> None:
        now = self._clock()
        for name in [name for name, had in self._had.items() if had[-1][0] < now - MINUTE]:
            del self._had[name]
        had = self._had.get(commons)
        if had is None:
            return
        while had[0][0] < now - MINUTE:
            had.popleft()
        if sum(seconds for _, seconds in had) > SHARE_SECONDS:
            wait = had[0][0] + MINUTE - now
            raise Unanswered("this commons has had its share of the last minute", retry_after=max(1, int(wait)))

"""The ledger's clock as a client sees it, and the statement ids that are made from it.

Owns the estimate of the ledger's time and the making of UUIDv7 ids. It must not know how the time is fetched.

1. The ledger sampled its time before its answer arrived, so "that time, plus what has passed here since the
   answer arrived, times the clock's speed" is never ahead of the ledger's clock.
2. What has passed is measured by the monotonic clock: a wrong or corrected wall clock here changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from gesell_protocol.names import uuid7
from gesell_protocol.statements import EXPIRES_MAX_MS

#: A sample older than this is read again, so that two quartzes do not drift apart for days.
SAMPLE_MAX_AGE_SECONDS: Final = 60.0
LIFETIME_MS: Final = 5 * 60 * 1000
_RAND_A_MAX: Final = 0xFFF


class LedgerClock:
    """Follows the clock of one ledger from samples of its time."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._sampled_ms = 0
        self._sampled_at = float("-inf")
        self.speed = 1

    def sample(self, time_ms: int, *, speed: int, received_at: float) -> None:
        """Take the ledger's `time` and `clock_speed` from an answer that arrived at `received_at` (monotonic)."""
        self._sampled_ms, self.speed, self._sampled_at = time_ms, speed, received_at

    def forget(self) -> None:
        """Mark the sample as doubtful, so that it is read again before it is used."""
        self._sampled_at = float("-inf")

    @property
    def is_known(self) -> bool:
        """Whether there is a sample, and it is not doubtful: without one there is no time to tell."""
        return self._sampled_at != float("-inf")

    @property
    def is_stale(self) -> bool:
        """Whether the ledger's time has to be read (again)."""
        return self._monotonic() - self._sampled_at > SAMPLE_MAX_AGE_SECONDS

    def now_ms(self) -> int:
        """The ledger's time in ms, estimated from below; only while it `is_known`."""
        passed = max(0.0, self._monotonic() - self._sampled_at)
        return self._sampled_ms + int(passed * 1000 * self.speed)

    def lifetime_ms(self) -> int:
        """How long a statement stays valid by default: 5 minutes of real time, at most the protocol's 7 days."""
        return min(LIFETIME_MS * self.speed, EXPIRES_MAX_MS)


class IdMaker:
    """Makes statement ids that ascend in the order in which they were made."""

    def __init__(self) -> None:
        self._last_ms = -1
        self._count = 0

    def new(self, now_ms: int) -> bytes:
        """A UUIDv7 for this moment. Within one ms a 12-bit count keeps the order (RFC 9562 §6.2, method 1); when
        it is full the id takes the next ms, which the ledger's allowance of 2 minutes covers many times over."""
        if now_ms > self._last_ms:
            self._start(now_ms)
        elif self._count == _RAND_A_MAX:
            self._start(self._last_ms + 1)
        else:
            self._count += 1
        # The other 62 bits stay random, so nobody can use an id up before its author does.
        return uuid7(self._last_ms, self._count.to_bytes(2, "big") + os.urandom(8))

    def _start(self, ms: int) -> None:
        self._last_ms = ms
        self._count = int.from_bytes(os.urandom(2), "big") & 0x7FF

"""The ledger's clock, and the watch over it.

Owns what time it is for the ledger. A broken clock would melt everybody's money, so a clock that jumps stops the
writing until an operator has looked. Knows no commons: that `at` never goes back is the core's rule.

1. On a real clock, time is the wall clock's; between two looks, and over an hour, it must move as the steady clock
   does, give or take a minute.
2. A service that starts before it last ran, or more than 30 days after, does not write until the operator confirms.
3. A demo clock starts where it is told and runs as many times faster as it is told; it needs no watch.
4. All processes of a service tell one time: a real clock is watched by each, a demo clock's start is handed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gesell_ledger.storage.faults import ClockFault


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """What a process hands on of its clock, so that another process of this machine tells the same time.

    `fault` is why nothing may be written. The rest is a demo clock's: `start_ms` was its time when the steady clock
    told `began_ns`.
    """

    demo: bool
    fault: str | None = None
    start_ms: int = 0
    speed: int = 1
    began_ns: int = 0


class LedgerClock(Protocol):
    """What the service asks of a clock: `now_ms` to write with, `look` to show, and why it stopped, if it did."""

    @property
    def speed(self) -> int: ...
    @property
    def demo(self) -> bool: ...
    @property
    def fault(self) -> str | None: ...
    def now_ms(self) -> int: ...
    def look(self) -> int: ...
    def check_start(self, heartbeat_ms: int) -> None: ...
    def state(self) -> ClockState: ...


def clock_of(state: ClockState) -> LedgerClock:
    """The clock that another process handed on (rule 4)."""
    if state.demo:
        return DemoClock(start_ms=state.start_ms, speed=state.speed, began_ns=state.began_ns)
    return Clock(fault=state.fault)


JUMP_MS: Final = 60_000
BASE_MS: Final = 3_600_000
ABSENCE_MS: Final = 30 * 24 * 3600 * 1000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    # BOOTTIME goes on while the machine sleeps, so closing a laptop is no jump. Where there is none, MONOTONIC serves.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class Clock:
    """A real clock under watch.

    `wall_ms` and `steady_ms` tell milliseconds since the Unix epoch and since some moment; tests hand in their own.
    """

    speed: int = 1
    demo: bool = False

    def __init__(
        self,
        *,
        wall_ms: Callable[[], int] = _wall_ms,
        steady_ms: Callable[[], int] = _steady_ms,
        fault: str | None = None,
    ) -> None:
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self._last = (wall_ms(), steady_ms())
        self._base = self._last
        self._fault = fault

    def now_ms(self) -> int:
        """The time to write with; raises `ClockFault` once the clock has jumped (rule 1) or was not confirmed (2)."""
        now = self.look()
        if self._fault is not None:
            raise ClockFault(self._fault)
        return now

    def look(self) -> int:
        """The time to show; notices a jump but does not raise."""
        wall, steady = self._wall_ms(), self._steady_ms()
        # Since the last look, and since up to an hour ago: many small jumps in one direction are a jump too, and what a
        # time server corrects by slewing stays below two seconds an hour.
        ahead = wall - steady
        jump, crept = ahead - (self._last[0] - self._last[1]), ahead - (self._base[0] - self._base[1])
        self._last = (wall, steady)
        if steady - self._base[1] > BASE_MS:
            self._base = self._last
        if self._fault is None and (abs(jump) > JUMP_MS or abs(crept) > JUMP_MS):
            jump = max(jump, crept, key=abs)
            self._fault = (
                f"the wall clock jumped by {jump / 1000:.0f} seconds while the service ran. Nothing is written until"
                " you have set the clock right and restarted: gesell serve --accept-clock"
            )
        return wall

    @property
    def fault(self) -> str | None:
        """Why nothing is written, or None."""
        return self._fault

    def check_start(self, heartbeat_ms: int) -> None:
        """Compare the start with when a service last ran on this database (rule 2)."""
        away = self.look() - heartbeat_ms
        if away < -JUMP_MS:
            when = f"{-away / 1000:.0f} seconds before a service last ran on this database"
        elif away > ABSENCE_MS:
            when = f"{away / 86_400_000:.0f} days after a service last ran on this database"
        else:
            return
        self._fault = (
            f"the service started {when}. If the clock is right, confirm it, and all melt of that time falls due:"
            " gesell serve --accept-clock"
        )

    def state(self) -> ClockState:
        """What another process must know of it; a fault stays one until an operator has looked."""
        return ClockState(demo=False, fault=self._fault)


class DemoClock:
    """A clock for demos and tests: it starts at `start_ms` and runs `speed` times as fast as the steady clock."""

    demo: bool = True
    fault: str | None = None

    def __init__(
        self,
        *,
        start_ms: int,
        speed: int,
        began_ns: int | None = None,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.speed = speed
        self._start_ms = start_ms
        self._steady_ns = steady_ns
        self._began_ns = steady_ns() if began_ns is None else began_ns

    def now_ms(self) -> int:
        """The time to write with."""
        return self._start_ms + (self._steady_ns() - self._began_ns) * self.speed // 1_000_000

    def look(self) -> int:
        """The time to show."""
        return self.now_ms()

    def check_start(self, heartbeat_ms: int) -> None:
        """A demo that starts again goes on where it was."""
        self._start_ms = max(self._start_ms, heartbeat_ms)

    def state(self) -> ClockState:
        """Its start, by the steady clock that all processes of this machine share."""
        return ClockState(demo=True, start_ms=self._start_ms, speed=self.speed, began_ns=self._began_ns)

"""Keeps the readings up with the log: folds what was added, run by run, behind the payments and never ahead of them.

Owns when which commons has its turn, and how the fold gives way. Any number of services and rebuilds may do this at
once on one database: the cursor's lock settles who folds, and that each entry is folded once.

1. What was added by this process is told by `wake`, what others added is found by a look now and then, a page of
   commons at a time: those that are always behind hold up nobody.
2. A run of entries is one transaction, the cursor with it: what is aborted is as if it had never begun.
3. After each run it rests as long as the run took, so that it takes half of a processor at most; and once a round, in
   which each commons that moved has one run, for a moment, so that single payments are folded together.
4. Where the half-life is another than before, the readings are made from nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

import structlog

from gesell_ledger.metrics import Metrics
from gesell_ledger.readings.tally import tally
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.folds import Folds

#: Entries of a run: few enough that nobody notices its longest stretch without a breath.
RUN: Final = 500
#: The rest after a round.
REST_SECONDS: Final = 0.3
#: How often it looks for what others added; a look that took long is followed by so many times its length of rest.
LOOK_SECONDS: Final = 1.0
REST_FACTOR: Final = 20
BEHIND_MAX: Final = 1_000
#: How long a commons whose fold failed through a fault of ours is left alone.
BROKEN_SECONDS: Final = 60.0
#: A rebuild folds more at once, and waits so long where a service has the cursor.
REBUILD_RUN: Final = 5_000
REBUILD_WAIT_SECONDS: Final = 0.05

log = structlog.get_logger("gesell.folder")


class Folder:
    """Folds the commons of a database, one after the other, with any number of others."""

    def __init__(self, folds: Folds, metrics: Metrics, *, half_life_ms: int) -> None:
        self._folds = folds
        self._metrics = metrics
        self._half_life_ms = half_life_ms
        self._woken: set[bytes] = set()
        self._awake = asyncio.Event()
        #: the last commons of the last look, if there may be more behind it
        self._seen: bytes | None = None
        self._broken: dict[bytes, float] = {}

    def wake(self, commons: bytes) -> None:
        """Something was added to a commons by this process (rule 1)."""
        self._woken.add(commons)
        self._awake.set()

    async def run(self) -> None:
        """Go round for ever; a fault of the world ends the round, not the folder."""
        next_look = 0.0
        while True:
            try:
                if time.monotonic() >= next_look:
                    began = time.monotonic()
                    await self._look()
                    took = time.monotonic() - began
                    next_look = time.monotonic() + max(LOOK_SECONDS, REST_FACTOR * took)
                await self.round()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("round_ended", why=repr(error))
                await asyncio.sleep(LOOK_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), max(0.0, next_look - time.monotonic()))

    async def _look(self) -> None:
        """Find the next page of those that are behind; after the last, the first again."""
        behind = await self._folds.list_behind(half_life_ms=self._half_life_ms, after=self._seen, limit=BEHIND_MAX)
        self._seen = behind[-1] if len(behind) == BEHIND_MAX else None
        self._woken.update(behind)

    async def round(self) -> None:
        """A run for each commons that is known to have moved, and the rests (rule 3)."""
        woken, self._woken = self._woken, set()
        self._awake.clear()
        for commons in woken:
            if self._broken.get(commons, 0.0) > time.monotonic():
                continue
            try:
                await self._turn(commons)
            except Exception as error:
                if is_transient(error):
                    self._woken |= woken
                    raise
                log.critical("readings_not_kept_up", commons=commons.hex(), exc_info=error)
                self._metrics.broken.inc()
                self._broken[commons] = time.monotonic() + BROKEN_SECONDS
        if woken:
            await asyncio.sleep(REST_SECONDS)

    async def _turn(self, commons: bytes) -> None:
        """One run of a commons; where there may be more, it is woken for the next round."""
        began = time.monotonic()
        folded = await fold_run(self._folds, commons, half_life_ms=self._half_life_ms, entries=RUN)
        if folded == RUN:
            self.wake(commons)
        await asyncio.sleep(time.monotonic() - began)


async def fold_run(folds: Folds, commons: bytes, *, half_life_ms: int, entries: int) -> int | None:
    """Fold the next entries of a commons, at most so many; returns how many, None if somebody else folds it now."""
    async with folds.begin(commons, half_life_ms=half_life_ms) as fold:
        if fold is None:
            return None
        run = await fold.load(entries=entries)
        if run is None:
            return 0
        made = await tally(fold, run)
        pairs = made.gift_pairs()
        given = await fold.load_gifts_between(pairs) if pairs else {}
        await fold.store(made.cursor(), made.finish(given), tick_ms=made.tick_ms)
        return len(run.entries)


async def rebuild(folds: Folds, commons: bytes, *, half_life_ms: int) -> int:
    """Make a commons' readings from nothing, up to its last entry as it is now; returns that entry's seq, 0 if there
    is no such commons. They keep the half-life that they have; `half_life_ms` is for those that have none yet.

    Services may run, and take part; readers are told less until it is done, and how far it is.
    """
    head = await folds.load_head(commons)
    if head == 0:
        return 0
    cursor = await folds.load_cursor(commons)
    half_life_ms = half_life_ms if cursor is None else cursor.half_life_ms
    while True:
        async with folds.begin(commons, half_life_ms=half_life_ms, anew=True) as fold:
            if fold is not None:
                break
        await asyncio.sleep(REBUILD_WAIT_SECONDS)
    while await folds.load_seq(commons) < head:
        if await fold_run(folds, commons, half_life_ms=half_life_ms, entries=REBUILD_RUN) is None:
            await asyncio.sleep(REBUILD_WAIT_SECONDS)
    return head

"""What the ledger itself says: `sweep`, `payout` and `lapse` (SPEC §3.6).

Owns when the ledger speaks, not what its statements do: they go through the sequencer like everybody's. What is owed
after a crash is found in the books and finished, once.

1. A share of the pool is paid out in order of peer, 300 at a time, until nobody is owed.
2. A hold that nobody ended lapses a day after its time came.
3. No account with melt due sleeps longer than `sweep_ticks`. Once a tick all accounts are looked through, in order of
   their numbers, and sweeps go in small batches between payments: while one is stored the next is made ready, and no
   more, so that a payment waits for one at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import structlog

from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import Commons
from gesell_ledger.core.decide import Submission
from gesell_ledger.core.holds import DAY_MS
from gesell_ledger.core.present import has_melt_due, looks_at_once
from gesell_ledger.metrics import Metrics
from gesell_ledger.own_statements import own_statement
from gesell_ledger.sequencer import Sequencer, Unavailable
from gesell_ledger.storage.faults import ClockFault, is_transient
from gesell_ledger.storage.reading import Reader
from gesell_ledger.unhurried import unhurried
from gesell_protocol.ed25519 import Signer
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import PAYOUT_MAX, SWEEP_MAX

#: So many accounts are looked at in one go …
PAGE: Final = 2_000
#: … and so many sweeps of 400 are submitted together: some 100 ms of work, for which a payment may have to wait.
SWEEPS_AT_ONCE: Final = 5
#: So many holds of a commons lapse in a round at most.
LAPSES: Final = 100
ROUND_SECONDS: Final = 0.5
#: On a real clock, ticks last long: all commons are looked at every ten seconds only.
SWEEP_ROUNDS: Final = 20
#: Of so many commons it is remembered that this tick's sweep is done; beyond, they are looked at once more.
SWEPT_MAX: Final = 100_000

#: Refusals that speak of the moment and not of the books.
_PASSING: Final = frozenset({"unavailable", "internal", "too-early", "expired"})

log = structlog.get_logger("gesell.housekeeper")


class Housekeeper:
    """Looks after every commons of a database, one after the other. One is enough; what two say twice is a refused
    payout, or a sweep that posts nothing."""

    def __init__(
        self,
        reader: Reader,
        sequencer: Sequencer,
        clock: LedgerClock,
        signer: Signer,
        metrics: Metrics,
        *,
        sweep_ticks: int,
    ) -> None:
        self._reader = reader
        self._sequencer = sequencer
        self._clock = clock
        self._signer = signer
        self._metrics = metrics
        self._sweep_ticks = sweep_ticks
        self._swept: dict[bytes, int] = {}
        self._rounds_to_sweep = 0

    async def run(self) -> None:
        """Go round for ever; a fault of the world ends the round, not the housekeeper."""
        while True:
            try:
                await self.round()
            except (Unavailable, ClockFault) as fault:
                log.info("round_ended", why=str(fault))
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("round_ended", why=repr(error))
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """One look at every commons that shares its pool, and, when a tick may have ended, at all the others."""
        for name in await self._reader.list_sharing():
            found = await self._reader.load_commons(name)
            if found is not None:
                await self._look_after(found[0])
        if self._rounds_to_sweep > 0:
            self._rounds_to_sweep -= 1
            return
        self._rounds_to_sweep = SWEEP_ROUNDS if self._clock.speed == 1 else 0
        after = None
        while listed := await self._reader.list_commons(after=after, limit=100):
            for commons in listed:
                await self._look_after(commons)
            after = listed[-1].id

    async def _look_after(self, commons: Commons) -> None:
        """One commons; what is broken in it raises the alarm and leaves the others their housekeeper."""
        if commons.ledger != self._signer.public_key:
            return  # its key was handed over to another, which speaks for it now
        try:
            if commons.share is not None:
                await self._pay_out(commons, commons.share)
            await self._lapse(commons)
            await self._sweep(commons)
        except (Unavailable, ClockFault):
            raise
        except Exception as error:
            if is_transient(error):
                raise
            log.critical("commons_not_looked_after", commons=commons.id.hex(), exc_info=error)
            self._metrics.broken.inc()

    async def _pay_out(self, commons: Commons, share_id: bytes) -> None:
        """Rule 1. Each payout is decided against the books, so one sent twice is refused, not paid twice."""
        while True:
            share = await self._reader.load_share(commons.id, share_id)
            if share is None or share.unpaid == 0:
                return
            members = await self._reader.list_unpaid(commons.id, share, limit=PAYOUT_MAX)
            fields = {"share": share_id, "members": members}
            if await self._submit(commons, "payout", [self._write(commons, "payout", fields)]):
                return

    async def _lapse(self, commons: Commons) -> None:
        """Rule 2. Each lapse is decided against the books, so one sent twice is refused."""
        over_ms = self._clock.now_ms() - DAY_MS
        # So many a round, since other commons wait for theirs.
        over = await self._reader.list_lapsing(commons.id, before_ms=over_ms, limit=LAPSES)
        if not over:
            return
        own = [self._write(commons, "lapse", {"of": hold}) for hold in over]
        if any(one.code == "internal" for one in await self._submit(commons, "lapse", own)):
            # A fault of ours that one of them meets takes the batch with it, and must not keep the others for ever.
            for one in own:
                await self._submit(commons, "lapse", [one])

    async def _sweep(self, commons: Commons) -> None:
        """Rule 3; each commons once a tick. What is refused for good would be refused again, so that counts as done."""
        tick = commons.tick_of(self._clock.now_ms())
        if self._swept.get(commons.id) == tick:
            return
        storing: asyncio.Task[list[Refusal]] | None = None
        try:
            async for peers in self._list_due(commons, tick):
                sweeps = [{"accounts": sorted(peers[at : at + SWEEP_MAX])} for at in range(0, len(peers), SWEEP_MAX)]
                following = [self._write(commons, "sweep", fields) for fields in sweeps]
                if storing is not None and _may_pass(await storing):
                    return
                storing = asyncio.create_task(self._submit(commons, "sweep", following))
                # So that it is with the sequencer before the next are made ready.
                await asyncio.sleep(0)
            if storing is not None and _may_pass(await storing):
                return
        finally:
            if storing is not None:
                storing.cancel()
        if len(self._swept) >= SWEPT_MAX:
            self._swept.clear()
        self._swept[commons.id] = tick

    async def _list_due(self, commons: Commons, tick: int) -> AsyncIterator[list[bytes]]:
        """The peers whose accounts slept too long and have melt due, as many at a time as are swept together."""
        due: list[bytes] = []
        room = SWEEPS_AT_ONCE * SWEEP_MAX
        at_once = looks_at_once(commons)
        async for page in self._reader.list_asleep(commons, before_tick=tick - self._sweep_ticks, page=PAGE):
            due += [
                account.holder
                async for account in unhurried(page, at_once=at_once)
                if isinstance(account.holder, bytes) and has_melt_due(account.holding, commons, tick=tick)
            ]
            while len(due) >= room:
                yield due[:room]
                del due[:room]
        if due:
            yield due

    def _write(self, commons: Commons, kind: str, fields: Mapping[str, Any]) -> Submission:
        return own_statement(kind, fields, commons=commons.id, now_ms=self._clock.now_ms(), signer=self._signer)

    async def _submit(self, commons: Commons, kind: str, own: Sequence[Submission]) -> list[Refusal]:
        """Submit statements of the ledger's own; returns what was refused."""
        refused = [one for one in await self._sequencer.submit(own) if isinstance(one, Refusal)]
        for one in refused:
            log.warning("own_statement_refused", kind=kind, commons=commons.id.hex(), code=one.code, why=one.detail)
        return refused


def _may_pass(refused: Sequence[Refusal]) -> bool:
    """Whether something was refused that may be accepted when it is said anew."""
    return any(one.code in _PASSING for one in refused)

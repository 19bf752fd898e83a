"""A commons to send load to: founded on a stand, its accounts joined and funded, and a press that signs for them.

Owns the set-up and the course of one run: signed before the clock, warmed up, v on both sides of it, checked after.
What is said is `orders`', how it is signed `signing`'s, what is looked at afterwards `verdicts`'.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlsplit

from bench import driver, machine, measures
from bench.driver import drive
from bench.measures import Notebook, percentile
from bench.orders import Order, issues, joins
from bench.signing import DAY_SECONDS, FUNDS, Crew, Press, found, request
from bench.stand import Stand
from bench.verdicts import Claim

SET_UP_EACH: Final = 1_000
SET_UP_CONNECTIONS: Final = 4
#: No more than so many statements are signed for one run: some 350 bytes each when sent, as much again answered.
SIGNED_MAX: Final = 400_000
#: More is signed than the run before took, so that a faster one does not run out.
SPARE: Final = 1.3
#: How long a set-up may take, or a request of it.
PATIENCE_SECONDS: Final = 600.0
#: The longest wait for the service to be quiet before v is measured.
QUIET_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run's requests, signed. The first `warm_up` of them go before the clock starts. `seconds` is the most that
    the clock runs; what has not been sent by then is not sent. `pause` as in `drive`.
    """

    after: str
    requests: Sequence[bytes]
    warm_up: int
    connections: int
    seconds: float
    pause: float = 0.0
    refusals: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What a run came to: what was sent and answered within the clock, how many statements were accepted in it, v
    around it, and the details that a `measures.Run` has.
    """

    run: driver.Run
    accepted: int
    v: float
    details: dict[str, float]

    def rate(self, *, times: int = 1) -> measures.Run:
        """Accepted statements a second, each counted `times` (its legs)."""
        return self._of(self.accepted * times / self.run.seconds)

    def operations(self) -> measures.Run:
        """Requests a second, where each is one operation."""
        return self._of(self.run.requests / self.run.seconds)

    def _of(self, value: float) -> measures.Run:
        return measures.Run(value=value, v=self.v, details=self.details)


class Town:
    """A commons with accounts. `Town.settled` makes one; `close` ends its signing processes."""

    def __init__(self, stand: Stand, notebook: Notebook, *, crew: Crew, commons: bytes) -> None:
        self.stand = stand
        self.notebook = notebook
        self.crew = crew
        self.commons = commons
        self.draw = Random(os.urandom(16))
        self._v = 0.0
        self.host = urlsplit(stand.url).netloc
        self._press = Press(crew, commons, self.host)

    @classmethod
    async def settled(
        cls,
        stand: Stand,
        notebook: Notebook,
        *,
        accounts: int,
        name: str = "Load",
        funds: int = FUNDS,
        tick_seconds: int = DAY_SECONDS,
    ) -> Town:
        """Found a commons (open, 673,197 ppb a tick: 2 % a month of days), have so many new accounts join it, and
        issue `funds` grains to each (0: nothing). Checked as runs are: raises `NotHeld`, and `LoadFault`.
        """
        crew = Crew.drawn(accounts)
        commons, founding = found(
            crew, ledger=stand.ledger, time_ms=await stand.time_ms(), name=name, tick_seconds=tick_seconds
        )
        town = cls(stand, notebook, crew=crew, commons=commons)
        try:
            await town.demand([request(town.host, [founding.wire()])], after=f"founding {name}")
            await town.say(joins(accounts), after=f"joining {name}")
            if funds:
                await town.say(issues(accounts, amount=funds), after=f"funding {name}")
        except BaseException:
            town.close()
            raise
        return town

    @property
    def v(self) -> float:
        """v as it was measured last, to reckon by; measured now if it never was."""
        self._v = self._v or self.stand.v()
        return self._v

    async def sign(self, orders: Sequence[Order], *, each: int, span_seconds: float = 1.0) -> list[bytes]:
        """Requests of `each` of these orders, their ids' times climbing over `span_seconds` up to the ledger's."""
        time_ms = await self.stand.time_ms()
        return self._press.requests(orders, each=each, time_ms=time_ms, span_ms=math.ceil(span_seconds * 1000))

    async def say(self, orders: Sequence[Order], *, after: str) -> int:
        """Send orders as fast as they are taken, with no clock, and check them; returns how many were accepted.

        Requests are sent a few at a time, so none may depend on another.
        """
        accepted = 0
        for start in range(0, len(orders), SIGNED_MAX // 4):
            requests = await self.sign(orders[start : start + SIGNED_MAX // 4], each=SET_UP_EACH)
            accepted += await self.demand(requests, after=after, connections=SET_UP_CONNECTIONS)
        return accepted

    async def demand(self, requests: Sequence[bytes], *, after: str, connections: int = 1) -> int:
        """Send signed requests and check that all were accepted; returns how many statements."""
        run = await drive(self.stand.url, requests, connections=connections, seconds=PATIENCE_SECONDS)
        claim = Claim(after=after, commons=self.commons, requests=requests, run=run)
        return await self.stand.check(self.notebook, claim)

    async def time(self, load: Load) -> Timed:
        """Warm up, measure v, run, measure v, check. The warm-up is checked like the run itself."""
        warm, timed = load.requests[: load.warm_up], load.requests[load.warm_up :]
        if warm:
            ready = await drive(self.stand.url, warm, connections=load.connections, seconds=PATIENCE_SECONDS)
            claim = Claim(
                after=f"{load.after}, warm-up", commons=self.commons, requests=warm, run=ready, refusals=load.refusals
            )
            await self.stand.check(self.notebook, claim)
        await self.stand.quiet(seconds=QUIET_SECONDS)
        before, spent, stolen = self.stand.v(), self.stand.cpu(), machine.stolen_seconds()
        with no_collection():
            run = await drive(
                self.stand.url, timed, connections=load.connections, seconds=load.seconds, pause=load.pause
            )
        cores = self.stand.cpu().cores_since(spent, seconds=run.seconds)
        cores["stolen_cores"] = (machine.stolen_seconds() - stolen) / run.seconds
        await self.stand.quiet(seconds=QUIET_SECONDS)
        self._v = v = (before + self.stand.v()) / 2
        claim = Claim(after=load.after, commons=self.commons, requests=timed, run=run, refusals=load.refusals)
        accepted = await self.stand.check(self.notebook, claim)
        details = {**latencies_of(run), **cores, **self._memory(), "accepted": float(accepted)}
        return Timed(run=run, accepted=accepted, v=v, details=details)

    def _memory(self) -> dict[str, float]:
        footprint = self.stand.memory()
        return {} if footprint is None else {"service_mib": footprint.service.resident}

    def close(self) -> None:
        """End the signing processes."""
        self._press.close()


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside: its pauses would be counted as the service's latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def latencies_of(run: driver.Run) -> dict[str, float]:
    """The percentiles of a run's requests, in ms, under the names that `measures.Run` has for them."""
    return {f"p{percent}_ms": percentile(run.latencies, percent) * 1000 for percent in (50, 95, 99)}

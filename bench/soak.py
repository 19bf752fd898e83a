"""`python -m bench.soak --minutes N`: does the service's memory grow under full load, hour after hour?

Owns the load that never ends, the samples of memory, and what is read from them. Payments at 1,000 a request, payments
alone, and reads come mixed over `CONNECTIONS` connections, each sending as soon as it has its answer, while listeners
follow every entry.

1. The load comes in slices of the same make. While one is sent, the next is signed in the press's processes; so at most
   two are ever held, and signing keeps pace by being waited for.
2. After each slice its answers are checked like those of any run, then forgotten; the load rests meanwhile, and what
   share of the time that was is told (`load_share`).
3. The listeners take each event as it comes, hold its number against the one before, and keep nothing.
4. Memory is what is resident of the service's processes, sampled every few seconds. The first tenth of the time is
   warm-up: caches fill, connections open. `soak.growth` is the median of the last tenth less that of the first tenth
   after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from statistics import median
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from bench import machine
from bench.crowd import GZIP
from bench.driver import LoadFault, drive, get_json
from bench.measures import Check, Notebook, Run
from bench.orders import random_payments
from bench.plan import Plan
from bench.signing import Press
from bench.stand import Stand
from bench.town import Town
from bench.verdicts import Claim, NotHeld
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import did_of
from tests.running import DidNotStart

NAME: Final = "soak.growth"
TITLE: Final = "Growth of the service's memory under full load, mixed, from the second tenth of the time to the last"
UNIT: Final = "MiB"

CONNECTIONS: Final = 8
#: What a slice is made of: requests of 1,000 payments, of one, and reads.
BULKS: Final = 10
BULK_EACH: Final = 1_000
SINGLES: Final = 200
READS: Final = 200
#: The longest a slice may take before the soak is given up.
SLICE_SECONDS: Final = 300.0
#: Half of them take their stream packed.
LISTENERS: Final = 8
#: How long the listeners may take, after the last slice, to have all of it.
PATIENCE_SECONDS: Final = 60.0
SAMPLES: Final = 720
SAMPLE_SECONDS_MIN: Final = 0.2
#: Memory over time is told as the medians of so many parts of it.
PARTS: Final = 60
TENTHS: Final = 10

_HEAD_END: Final = b"\r\n\r\n"
_NUMBER: Final = re.compile(rb"^id: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Memory at a moment, `at` seconds after the beginning: MiB resident of the service, of its PostgreSQL (pages that
    its processes share counted once, where that may be read), and of this process; and payments accepted so far.
    """

    at: float
    service: float
    postgres: float
    load: float
    accepted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """What a soak came to; `resting` are the seconds in which answers were checked and nothing was sent."""

    seconds: float
    resting: float
    accepted: int
    samples: tuple[Sample, ...]


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """One soak of `plan.soak_minutes`; skipped with the reason where there is none. Raises `NotHeld`, `LoadFault`."""
    if plan.soak_minutes == 0:
        notebook.skip(NAME, TITLE, UNIT, "no soak was asked for")
        return
    if plan.url is not None:
        notebook.skip(NAME, TITLE, UNIT, "the memory of a service at --url is not ours to read")
        return
    async with Stand.open(arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        soaked = await soak(stand, notebook, tell, accounts=plan.accounts, seconds=plan.soak_minutes * 60)
        notebook.note(NAME, TITLE, UNIT, run_of(soaked))


async def soak(
    stand: Stand, notebook: Notebook, tell: Callable[[str], None], *, accounts: int, seconds: float
) -> Soaked:
    """Keep a service of our own under load for so long. Notes one check of all; raises `NotHeld`, `LoadFault`."""
    # One check a slice would make a report of thousands of lines; they go elsewhere, and what fails raises.
    town = await Town.settled(stand, Notebook(), accounts=accounts, name="Soak")
    press = Press(town.crew, town.commons, urlsplit(stand.url).netloc)
    try:
        head = int((await get_json(stand.url, f"/v1/commons/{town.commons.hex()}"))["seq"])
        ears = [await Ear.opened(town, after=head, packed=bool(number % 2)) for number in range(LISTENERS)]
        try:
            soaked = await _Soak(town, press, ears, tell, seconds=seconds).run()
            last = int((await get_json(stand.url, f"/v1/commons/{town.commons.hex()}"))["seq"])
            await asyncio.gather(*(ear.hear_up_to(last) for ear in ears))
        finally:
            for ear in ears:
                ear.close()
    finally:
        press.close()
        town.close()
    lost = find_losses([ear.fault for ear in ears], accepted=soaked.accepted, entries=last - head)
    notebook.checks.append(Check(after="soak", acknowledged=soaked.accepted, held=not lost, detail=lost))
    if lost:
        raise NotHeld(f"after soak: {lost}")
    return soaked


def find_losses(faults: Sequence[str], *, accepted: int, entries: int) -> str:
    """What the log or the listeners did not get; empty if nothing is missing."""
    found = [f"listener {number}: {fault}" for number, fault in enumerate(faults) if fault]
    if accepted != entries:
        found.insert(0, f"{accepted} payments were accepted, the log grew by {entries}")
    return "; ".join(found)


class _Soak:
    """The load and the samples of one soak."""

    def __init__(
        self, town: Town, press: Press, ears: Sequence[Ear], tell: Callable[[str], None], *, seconds: float
    ) -> None:
        self._town = town
        self._press = press
        self._ears = ears
        self._tell = tell
        self._seconds = seconds
        self._accepted = 0
        self._resting = 0.0
        self._samples: list[Sample] = []
        self._reads = _reads_of(town)

    async def run(self) -> Soaked:
        """Slice after slice until the time is over; what was begun is finished."""
        following = await self._sign()
        started = time.perf_counter()
        watching = asyncio.create_task(self._watch(started))
        told = -1
        try:
            while (spent := time.perf_counter() - started) < self._seconds:
                told = self._tell_part(spent, told)
                present, signing = following, asyncio.create_task(self._sign())
                try:
                    await self._send(present)
                finally:
                    following = await signing
                if watching.done() or any(ear.fault for ear in self._ears):
                    # There is nothing left to learn: a watch ends only by an error.
                    break
            if watching.done():
                watching.result()
        finally:
            watching.cancel()
        return Soaked(
            seconds=time.perf_counter() - started,
            resting=self._resting,
            accepted=self._accepted,
            samples=tuple(self._samples),
        )

    def _tell_part(self, spent: float, told: int) -> int:
        """Say how far it is once in each part of the time; returns the last part that was told."""
        part = int(spent / self._seconds * PARTS)
        if part > told:
            self._tell(f"soak: {spent / 60:.1f} of {self._seconds / 60:.1f} minutes, {self._accepted:,} payments")
        return max(part, told)

    async def _sign(self) -> list[bytes]:
        """The requests of a slice, shuffled. The thread only waits for the press."""
        town = self._town
        orders = random_payments(town.draw, BULKS * BULK_EACH + SINGLES, accounts=len(town.crew.accounts))
        ask = partial(self._press.requests, time_ms=await town.stand.time_ms(), span_ms=1_000)
        bulks = await asyncio.to_thread(ask, orders[SINGLES:], each=BULK_EACH)
        singles = await asyncio.to_thread(ask, orders[:SINGLES], each=1)
        requests = [*bulks, *singles, *town.draw.choices(self._reads, k=READS)]
        town.draw.shuffle(requests)
        return requests

    async def _send(self, requests: Sequence[bytes]) -> None:
        town = self._town
        run = await drive(town.stand.url, requests, connections=CONNECTIONS, seconds=SLICE_SECONDS)
        if run.requests != len(requests):
            raise LoadFault(f"only {run.requests} of {len(requests)} requests were sent in {SLICE_SECONDS:.0f} seconds")
        rested = time.perf_counter()
        claim = Claim(after="soak", commons=town.commons, requests=requests, run=run)
        self._accepted += await town.stand.check(town.notebook, claim)
        town.notebook.checks.clear()
        self._resting += time.perf_counter() - rested

    async def _watch(self, started: float) -> None:
        while True:
            footprint = self._town.stand.memory()
            assert footprint is not None
            postgres = footprint.postgres
            self._samples.append(
                Sample(
                    at=time.perf_counter() - started,
                    service=footprint.service.resident,
                    postgres=postgres.resident if postgres.proportional is None else postgres.proportional,
                    load=machine.memory_of([os.getpid()]).resident,
                    accepted=self._accepted,
                )
            )
            await asyncio.sleep(max(SAMPLE_SECONDS_MIN, self._seconds / SAMPLES))


def _reads_of(town: Town) -> list[bytes]:
    """Reads of the balance and of the newest lines of every account."""
    host, commons = urlsplit(town.stand.url).netloc, town.commons.hex()
    dids = [did_of(Signer(seed).public_key) for seed in town.crew.accounts]
    return [
        f"GET /v1/commons/{commons}/members/{did}{tail} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        for did in dids
        for tail in ("/balances", "/postings?order=desc&limit=20")
    ]


# ── Listeners ────────────────────────────────────────────────────────────────────────────────────────────────────


class Ear(asyncio.Protocol):
    """A listener that keeps nothing but the number of the last entry it heard of; `fault` says what went wrong."""

    def __init__(self, ask: bytes, *, after: int, packed: bool) -> None:
        self.fault = ""
        self._heard = after
        self._ask = ask
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16) if packed else None
        self._in_head = True
        self._held = b""
        self._moved = asyncio.Event()
        self._closing = False
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def opened(cls, town: Town, *, after: int, packed: bool) -> Ear:
        """Connect and ask for the entries of a commons after that number."""
        place = urlsplit(town.stand.url)
        ask = (
            f"GET /v1/commons/{town.commons.hex()}/entries?after={after} HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Accept: text/event-stream\r\n{GZIP if packed else ''}\r\n"
        )
        ear = cls(ask.encode(), after=after, packed=packed)
        await asyncio.get_running_loop().create_connection(lambda: ear, place.hostname or "", place.port or 80)
        return ear

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._ask)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            head, mark, data = (self._held + data).partition(_HEAD_END)
            if not mark:
                self._held = head
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self._fail(f"was answered {head[:40]!r}")
            self._in_head, self._held = False, b""
        plain = self._held + (data if self._inflate is None else self._inflate.decompress(data))
        lines, mark, self._held = plain.rpartition(b"\n")
        for number in map(int, _NUMBER.findall(lines)):
            if number != self._heard + 1:
                self._fail(f"heard of entry {number} after {self._heard}")
            self._heard = number
        self._moved.set()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closing:
            self._fail(f"was cut off after entry {self._heard}: {error or 'end of stream'}")

    def _fail(self, fault: str) -> None:
        self.fault = self.fault or fault
        self._moved.set()

    async def hear_up_to(self, last: int) -> None:
        """Wait until it has heard of the last entry; not to get it in time is a fault."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while self._heard < last and not self.fault:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._fail(f"heard of entries up to {self._heard} of {last}")

    def close(self) -> None:
        """Hang up."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()


# ── What the samples say ─────────────────────────────────────────────────────────────────────────────────────────


def growth_of(samples: Sequence[Sample]) -> float:
    """MiB by which the service grew from the second tenth of the samples to the last; `ValueError` for less than ten.

    They are evenly spread over the time, so a tenth of them is a tenth of it.
    """
    tenth = len(samples) // TENTHS
    if not tenth:
        raise ValueError(f"{len(samples)} samples tell no growth")
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    return median(one.service for one in late) - median(one.service for one in early)


def run_of(soaked: Soaked) -> Run:
    """The run as the harness notes it. Over time, in MiB, a sixtieth of it each: `mib_00` to `mib_59` the service,
    `postgres_mib_00` … its PostgreSQL, `load_mib_00` … this process; a part without a sample is left out.
    """
    details = {
        "accepted": float(soaked.accepted),
        "minutes": soaked.seconds / 60,
        "rate": soaked.accepted / soaked.seconds,
        "load_share": 1 - soaked.resting / soaked.seconds,
        "service_mib": max(one.service for one in soaked.samples),
    }
    for part, grouped in groupby(soaked.samples, key=partial(_part_of, seconds=soaked.seconds)):
        within = list(grouped)
        details[f"mib_{part:02}"] = median(one.service for one in within)
        details[f"postgres_mib_{part:02}"] = median(one.postgres for one in within)
        details[f"load_mib_{part:02}"] = median(one.load for one in within)
    return Run(value=growth_of(soaked.samples), details=details)


def _part_of(sample: Sample, *, seconds: float) -> int:
    return min(PARTS - 1, int(sample.at / seconds * PARTS))


# ── Alone ────────────────────────────────────────────────────────────────────────────────────────────────────────


def show(soaked: Soaked) -> str:
    """A table of memory over time, and the growth."""
    details = run_of(soaked).details
    lines = [f"{'minute':>8}{'service MiB':>14}{'PostgreSQL MiB':>16}{'load MiB':>10}{'payments':>14}"]
    for part, grouped in groupby(soaked.samples, key=partial(_part_of, seconds=soaked.seconds)):
        last = list(grouped)[-1]
        figures = (details[f"{name}mib_{part:02}"] for name in ("", "postgres_", "load_"))
        service, postgres, load = figures
        lines.append(f"{last.at / 60:>8.1f}{service:>14.1f}{postgres:>16.1f}{load:>10.1f}{last.accepted:>14,}")
    growth = growth_of(soaked.samples)
    return "\n".join(
        (
            *lines,
            "",
            f"{soaked.accepted:,} payments in {details['minutes']:.1f} minutes, {details['rate']:,.0f} a second;"
            f" under load {details['load_share']:.0%} of the time; all are in the books, and {LISTENERS} listeners"
            " got each entry once",
            f"the service held {details['service_mib']:.0f} MiB at most, and grew by {growth:+.1f} MiB from the second"
            " tenth of the time to the last",
        )
    )


def main() -> int:
    """Read the arguments, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=1)
    told = parser.parse_args()
    if told.minutes <= 0 or told.accounts < 2 or told.workers < 1:
        parser.error("a soak takes time, and at least two accounts and one worker")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            soaked = runner.run(_soak_alone(told.minutes * 60, accounts=told.accounts, workers=told.workers))
    except (LoadFault, NotHeld, DidNotStart, OSError) as error:
        print(f"bench.soak: {error}", file=sys.stderr)
        return 1
    print(show(soaked))
    return 0


async def _soak_alone(seconds: float, *, accounts: int, workers: int) -> Soaked:
    arguments = ("--workers", str(workers)) if workers > 1 else ()
    async with Stand.open(arguments=arguments) as stand:
        return await soak(stand, Notebook(), partial(print, file=sys.stderr), accounts=accounts, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())

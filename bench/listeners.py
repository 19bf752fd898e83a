"""`python -m bench.listeners`: how many listeners follow how many entries a second, without loss, and what it costs.

Owns one run of listeners, for the harness and alone, and its report. The service, the listeners and the load are
processes of their own, on one machine. Exit status 0 only if every payment was accepted and every listener got every
entry once, in order: one stream is read and compared with the log, entry by entry, and all others were the same bytes.

1. Payments are signed ahead. 2. The listeners begin where the log ends. 3. Payments are sent at a steady rate. 4. When
all have answers, the listeners are told the last entry's number, and have a minute to get it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from bench.crowd import Ask, Heard, listen
from bench.driver import LoadFault, Run, drive, get_json
from bench.measures import Notebook, percentile
from bench.orders import random_payments
from bench.stand import Footprint, Stand
from bench.town import Town
from bench.verdicts import Claim, NotHeld
from tests.running import DidNotStart

CONNECTIONS: Final = 16
RATE: Final = 2_000
EACH: Final = 20
PAGE: Final = 1_000
#: Ids of payments climb over so many seconds, as they would have been drawn by as many clients.
SPAN_SECONDS: Final = 60.0
#: The load may fall behind its rate by so much before it is cut off.
LATE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What to run: so many listeners; payments a second and in a request, for so long; whether streams are packed."""

    listeners: int
    rate: int
    each: int
    seconds: float
    packed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it. Rates a second, lags (from an entry's `at` to its arrival) in ms, memory in MiB, work in cores.

    `rate` counts from the first request sent to the last answer, `delivered` (entries that reached a listener, over
    all of them) until the last listener had the last entry. `v` is from before and after. What the service and
    PostgreSQL spent and hold is None where they are not ours.
    """

    course: Course
    accepted: int
    rate: float
    delivered: float
    v: float
    answer_p50_ms: float
    answer_p99_ms: float
    whole: int
    short: int
    differing: int
    refused: int
    entries: int
    stream_matches_log: bool
    stream_bytes: int
    wire_bytes: int
    pushed_mb_a_second: float
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    service_mib: float | None
    service_peak_mib: float | None
    postgres_mib: float | None
    service_cores: float | None
    postgres_cores: float | None
    load_cores: float
    listeners_cores: float

    @property
    def holds(self) -> bool:
        """Whether nothing was lost."""
        return self.accepted == self.entries and self.whole == self.course.listeners and self.stream_matches_log


class Failed(Exception):
    """The run could not be made."""


async def follow(town: Town, course: Course) -> Report:
    """One run in a commons whose accounts have money, checked as all runs are.

    Raises `Failed`, `LoadFault`, and `NotHeld` for what became of the payments; what the listeners lost is in the
    report.
    """
    stand, path = town.stand, f"/v1/commons/{town.commons.hex()}"
    count = max(1, int(course.rate * course.seconds) // course.each) * course.each
    orders = random_payments(town.draw, count, accounts=len(town.crew.accounts))
    requests = await town.sign(orders, each=course.each, span_seconds=SPAN_SECONDS)
    head = (await get_json(stand.url, path))["seq"]
    await stand.quiet()
    before = stand.v()
    crowd, pipe = _gather(course, stand.url, f"{path}/entries?after={head}")
    try:
        await _await_word(crowd, pipe, "ready")
        cpu, began = stand.cpu(), time.time()
        run = await drive(
            stand.url,
            requests,
            connections=CONNECTIONS,
            seconds=course.seconds * LATE,
            every=course.each / course.rate,
        )
        cores = stand.cpu().cores_since(cpu, seconds=run.seconds)
        pipe.send((await get_json(stand.url, path))["seq"])
        heard = await _await_word(crowd, pipe, None)
    finally:
        crowd.kill()
        crowd.join()
        pipe.close()
    footprint = stand.memory()
    await stand.quiet()
    v = (before + stand.v()) / 2
    accepted = await stand.check(
        town.notebook, Claim(after="listen.entries", commons=town.commons, requests=requests, run=run)
    )
    log = await _read_log(stand.url, path, after=head)
    return _report(course, heard, log, began=began, run=run, accepted=accepted, v=v, cores=cores, footprint=footprint)


def _gather(course: Course, url: str, path: str) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start the crowd, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    place = urlsplit(url)
    ask = Ask(
        host=place.hostname or "",
        port=place.port or 80,
        path=path,
        listeners=course.listeners,
        packed=course.packed,
    )
    crowd = context.Process(target=listen, args=(ask, theirs), daemon=True)
    crowd.start()
    theirs.close()
    return crowd, ours


async def _await_word(crowd: multiprocessing.process.BaseProcess, pipe: Connection, word: str | None) -> Any:
    """What the crowd says next; raises `Failed` if it died, or said another word."""
    try:
        said = await asyncio.to_thread(pipe.recv)
    except EOFError:
        raise Failed("the listeners gave up; see above") from None
    if word is not None and said != word:
        raise Failed(f"the listeners said {said!r}")
    return said


async def _read_log(url: str, path: str, *, after: int) -> list[Any]:
    log: list[Any] = []
    while True:
        items = (await get_json(url, f"{path}/entries?after={after}&limit={PAGE}"))["items"]
        if not items:
            return log
        log += items
        after = items[-1]["seq"]


def _report(
    course: Course,
    heard: Heard,
    log: Sequence[Any],
    *,
    began: float,
    run: Run,
    accepted: int,
    v: float,
    cores: Mapping[str, float],
    footprint: Footprint | None,
) -> Report:
    events = events_of(heard.stream)
    lags = sorted(
        (moment - events[place]["at"] / 1000) * 1000 for place, moments in heard.times.items() for moment in moments
    )
    # The last event is always among those whose times were kept.
    finished = max((moments[-1] for moments in heard.times.values() if moments), default=began + run.seconds)
    return Report(
        course=course,
        accepted=accepted,
        rate=accepted / run.seconds,
        delivered=len(events) * heard.whole / (finished - began),
        v=v,
        answer_p50_ms=percentile(run.latencies, 50) * 1000,
        answer_p99_ms=percentile(run.latencies, 99) * 1000,
        whole=heard.whole,
        short=heard.short,
        differing=heard.differing,
        refused=heard.refused,
        entries=len(log),
        stream_matches_log=list(events.values()) == list(log),
        stream_bytes=len(heard.stream),
        wire_bytes=heard.wire_bytes,
        pushed_mb_a_second=heard.wire_bytes * heard.whole / run.seconds / 1e6,
        lag_p50_ms=percentile(lags, 50) if lags else float("nan"),
        lag_p99_ms=percentile(lags, 99) if lags else float("nan"),
        lag_max_ms=lags[-1] if lags else float("nan"),
        service_mib=None if footprint is None else footprint.service.resident,
        service_peak_mib=None if footprint is None else footprint.service.peak,
        postgres_mib=None if footprint is None else footprint.postgres.proportional,
        service_cores=cores.get("service_cores"),
        postgres_cores=cores.get("postgres_cores"),
        load_cores=cores["load_cores"],
        listeners_cores=heard.cpu_seconds / run.seconds,
    )


def events_of(stream: bytes) -> dict[int, Any]:
    """The entries of a stream, by the place where the event of each ends; raises `Failed` for any other event."""
    events: dict[int, Any] = {}
    place = 0
    for block in stream.split(b"\n\n")[:-1]:
        place += len(block) + 2
        lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
        if lines:
            entry = json.loads(lines[b"data"])
            if int(lines[b"id"]) != entry["seq"] or lines[b"event"] != b"entry":
                raise Failed(f"an event that is none of an entry: {block[:200]!r}")
            events[place] = entry
    return events


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────


def show(report: Report) -> str:
    """The report for people."""
    course = report.course
    return "\n".join(
        (
            f"{course.listeners:,} listeners, {report.accepted:,} payments, {course.each} a request;"
            f" v = {report.v:,.0f}",
            f"rate          {report.rate:,.0f} entries a second (asked for: {course.rate:,});"
            f" answers p50 {report.answer_p50_ms:.0f} ms, p99 {report.answer_p99_ms:.0f} ms;"
            f" {report.delivered:,.0f} a second delivered in all",
            f"without loss  {report.whole:,} listeners got all {report.entries:,} entries;"
            f" {report.short} less, {report.differing} something else, {report.refused} nothing;"
            f" the stream {'is' if report.stream_matches_log else 'IS NOT'} the log",
            f"pushed        {report.pushed_mb_a_second:,.0f} MB a second,"
            f" an entry has {report.stream_bytes / max(1, report.entries):,.0f} bytes,"
            f" {report.wire_bytes / max(1, report.entries):,.0f} on the wire",
            f"lag           p50 {report.lag_p50_ms:.0f} ms, p99 {report.lag_p99_ms:.0f} ms,"
            f" most {report.lag_max_ms:.0f} ms",
            f"memory        service {_known(report.service_mib, '.0f')} MiB"
            f" (peak {_known(report.service_peak_mib, '.0f')});"
            f" PostgreSQL {_known(report.postgres_mib, '.0f')} MiB, shared pages once",
            f"work          service {_known(report.service_cores, '.2f')} cores,"
            f" PostgreSQL {_known(report.postgres_cores, '.2f')},"
            f" listeners {report.listeners_cores:.2f}, load {report.load_cores:.2f}",
        )
    )


def _known(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def main() -> int:
    """Read the arguments, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.listeners", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=RATE, help="payments a second")
    parser.add_argument("--each", type=int, default=EACH, help="payments a request")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="listeners that take no gzip")
    parser.add_argument("--json", action="store_true", help="print JSON")
    told = parser.parse_args()
    if told.workers > 1 and not told.plain:
        parser.error("each worker packs its stream in its own way, so several are compared with --plain only")
    course = Course(
        listeners=told.listeners, rate=told.rate, each=told.each, seconds=told.seconds, packed=not told.plain
    )
    workers = ("--workers", str(told.workers)) if told.workers > 1 else ()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_follow_alone(course, workers, accounts=told.accounts))
    except (Failed, LoadFault, NotHeld, DidNotStart, OSError) as error:
        print(f"bench.listeners: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report) | {"holds": report.holds}, indent=2) if told.json else show(report))
    return 0 if report.holds else 1


async def _follow_alone(course: Course, workers: Sequence[str], *, accounts: int) -> Report:
    """A run with a service of its own."""
    async with Stand.open(arguments=workers) as stand:
        town = await Town.settled(stand, Notebook(), accounts=accounts)
        try:
            return await follow(town, course)
        finally:
            town.close()


if __name__ == "__main__":
    sys.exit(main())

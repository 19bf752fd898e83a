"""`python -m bench.listeners`: how many listeners follow how many entries a second, without loss, and what it costs.

Owns the run and the report. The service, the listeners and the load are processes of their own, on one machine. Exit
status 0 only if every payment was accepted and every listener got every entry once, in order: one stream is read and
compared with the log, entry by entry, and all others were the same bytes.

1. A commons is founded, accounts join and are funded, payments are signed ahead. 2. The listeners begin where the log
ends. 3. Payments are sent at a steady rate. 4. When all have answers, the listeners are told the last entry's number,
and have a minute to get it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from bench import machine
from bench.crowd import Ask, Heard, listen
from bench.driver import LoadFault, Run, drive, get_json
from bench.signing import Crew, Press, found, memberships, request
from gesell_protocol.names import peer_of
from tests.running import DidNotStart, Service, running

CONNECTIONS: Final = 16
SET_UP_EACH: Final = 1_000
MEMORY_SECONDS: Final = 0.5
PAGE: Final = 1_000
LOG_TAIL_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run: so many listeners, payments a second and in a request, for so long, among so many accounts."""

    listeners: int
    rate: int
    each: int
    seconds: float
    accounts: int
    workers: int
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of it. Rates a second, lags (from an entry's `at` to its arrival) in ms, memory in MiB, work in cores.

    `rate` counts from the first request sent to the last answer; how long the last event took then is in the lags.
    """

    plan: Plan
    accepted: int
    rate: float
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
    service_mib: float
    service_peak_mib: float
    postgres_mib: float | None
    service_cores: float
    postgres_cores: float
    listeners_cores: float

    @property
    def holds(self) -> bool:
        """Whether nothing was lost."""
        return self.accepted == self.entries and self.whole == self.plan.listeners and self.stream_matches_log


class Failed(Exception):
    """The run could not be made."""


async def measure(plan: Plan, service: Service) -> Report:
    """One run against a service of its own; raises `Failed` or `LoadFault`."""
    assert service.process is not None
    host = urlsplit(service.url).netloc
    crew = Crew.drawn(plan.accounts)
    commons = await _set_up(service.url, host, crew)
    now = (await get_json(service.url, "/v1"))["time"]
    press = Press(crew, commons, host)
    try:
        count = int(plan.rate * plan.seconds) // plan.each
        requests = press.payments(count, each=plan.each, time_ms=now, span_ms=60_000)
    finally:
        press.close()
    head = (await get_json(service.url, f"/v1/commons/{commons.hex()}"))["seq"]
    crowd, pipe = _gather(plan, service, commons, head)
    try:
        await _await_word(crowd, pipe, "ready")
        watch = _Watch(service.process.pid)
        watching = asyncio.create_task(watch.run())
        run = await drive(
            service.url, requests, connections=CONNECTIONS, seconds=plan.seconds * 3, every=plan.each / plan.rate
        )
        accepted = run.outcomes()["accepted"]
        pipe.send(head + accepted)
        heard = await _await_word(crowd, pipe, None)
        watching.cancel()
    finally:
        crowd.kill()
        crowd.join()
    log = await _read_log(service.url, commons, after=head)
    return _report(plan, run, accepted, heard, log, watch)


async def _set_up(url: str, host: str, crew: Crew) -> bytes:
    about = await get_json(url, "/v1")
    commons, founding = found(crew, ledger=peer_of(about["ledger"]), time_ms=about["time"])
    people = memberships(crew, commons, time_ms=about["time"])
    for some in ([founding], *(people[start : start + SET_UP_EACH] for start in range(0, len(people), SET_UP_EACH))):
        run = await drive(url, [request(host, [one.wire() for one in some])], connections=1, seconds=1.0)
        if run.outcomes() != {"accepted": len(some)}:
            raise Failed(f"setting up: {dict(run.outcomes())}")
    return commons


def _gather(
    plan: Plan, service: Service, commons: bytes, head: int
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    ask = Ask(
        host="127.0.0.1",
        port=service.port,
        path=f"/v1/commons/{commons.hex()}/entries?after={head}",
        listeners=plan.listeners,
        packed=not plan.plain,
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


class _Watch:
    """The service's memory and work while the load runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        below = machine.descendants(pid)
        self._workers = [one for one in below if _is_ours(one)]
        self._postgres = [one for one in below if one not in self._workers]
        self._before = self._work()
        self.service_mib = self.peak_mib = 0.0
        self.postgres_mib: float | None = None

    async def run(self) -> None:
        """Look twice a second."""
        while True:
            self.look()
            await asyncio.sleep(MEMORY_SECONDS)

    def look(self) -> None:
        """Note the most memory there was so far."""
        service = machine.memory_of([self.pid, *self._workers])
        self.service_mib = max(self.service_mib, service.resident)
        self.peak_mib = service.peak
        self.postgres_mib = machine.memory_of(self._postgres).proportional

    def cores(self, seconds: float) -> tuple[float, float]:
        """Processor time since the beginning, of the service and of PostgreSQL, in cores."""
        service, postgres = (now - before for now, before in zip(self._work(), self._before, strict=True))
        return service / seconds, postgres / seconds

    def _work(self) -> tuple[float, float]:
        return (
            machine.cpu_seconds([self.pid, *self._workers]),
            machine.cpu_seconds(self._postgres, with_ended_children=True),
        )


def _is_ours(pid: int) -> bool:
    """Whether a process below the service is a worker of it, and not of PostgreSQL."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            return b"gesell_ledger.worker" in command.read().split(b"\0")
    except OSError:
        return False


async def _read_log(url: str, commons: bytes, *, after: int) -> list[Any]:
    log: list[Any] = []
    while True:
        items = (await get_json(url, f"/v1/commons/{commons.hex()}/entries?after={after}&limit={PAGE}"))["items"]
        if not items:
            return log
        log += items
        after = items[-1]["seq"]


def _report(plan: Plan, run: Run, accepted: int, heard: Heard, log: Sequence[Any], watch: _Watch) -> Report:
    events = _events(heard.stream)
    lags = sorted(
        (moment - events[place]["at"] / 1000) * 1000 for place, moments in heard.times.items() for moment in moments
    )
    service, postgres = watch.cores(run.seconds)
    latencies = sorted(run.latencies)
    return Report(
        plan=plan,
        accepted=accepted,
        rate=accepted / run.seconds,
        answer_p50_ms=_percentile(latencies, 50) * 1000,
        answer_p99_ms=_percentile(latencies, 99) * 1000,
        whole=heard.whole,
        short=heard.short,
        differing=heard.differing,
        refused=heard.refused,
        entries=len(log),
        stream_matches_log=list(events.values()) == list(log),
        stream_bytes=len(heard.stream),
        wire_bytes=heard.wire_bytes,
        pushed_mb_a_second=heard.wire_bytes * heard.whole / run.seconds / 1e6,
        lag_p50_ms=_percentile(lags, 50),
        lag_p99_ms=_percentile(lags, 99),
        lag_max_ms=lags[-1] if lags else float("nan"),
        service_mib=watch.service_mib,
        service_peak_mib=watch.peak_mib,
        postgres_mib=watch.postgres_mib,
        service_cores=service,
        postgres_cores=postgres,
        listeners_cores=heard.cpu_seconds / run.seconds,
    )


def _events(stream: bytes) -> dict[int, Any]:
    """The entries of a stream, by the place where the event of each ends."""
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


def _percentile(ascending: Sequence[float], percent: int) -> float:
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)] if ascending else float("nan")


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────


def show(report: Report) -> str:
    """The report for people."""
    plan = report.plan
    return "\n".join(
        (
            f"{plan.listeners:,} listeners, {report.accepted:,} payments, {plan.each} a request,"
            f" {plan.workers} worker(s)",
            f"rate          {report.rate:,.0f} entries a second (asked for: {plan.rate:,});"
            f" answers p50 {report.answer_p50_ms:.0f} ms, p99 {report.answer_p99_ms:.0f} ms",
            f"without loss  {report.whole:,} listeners got all {report.entries:,} entries;"
            f" {report.short} less, {report.differing} something else, {report.refused} nothing;"
            f" the stream {'is' if report.stream_matches_log else 'IS NOT'} the log",
            f"pushed        {report.pushed_mb_a_second:,.0f} MB a second,"
            f" an entry has {report.stream_bytes / max(1, report.entries):,.0f} bytes,"
            f" {report.wire_bytes / max(1, report.entries):,.0f} on the wire",
            f"lag           p50 {report.lag_p50_ms:.0f} ms, p99 {report.lag_p99_ms:.0f} ms,"
            f" most {report.lag_max_ms:.0f} ms",
            f"memory        service {report.service_mib:.0f} MiB (peak {report.service_peak_mib:.0f});"
            f" PostgreSQL {report.postgres_mib or float('nan'):.0f} MiB, shared pages once",
            f"work          service {report.service_cores:.2f} cores, PostgreSQL {report.postgres_cores:.2f},"
            f" listeners {report.listeners_cores:.2f}",
        )
    )


def main() -> int:
    """Read the arguments, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.listeners", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--listeners", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=2_000, help="payments a second")
    parser.add_argument("--each", type=int, default=20, help="payments a request")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--accounts", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="listeners that take no gzip")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    if arguments["workers"] > 1 and not arguments["plain"]:
        parser.error("each worker packs its stream in its own way, so several are compared with --plain only")
    plan = Plan(**arguments)
    try:
        with running(*(("--workers", str(plan.workers)) if plan.workers > 1 else ())) as service:
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    report = runner.run(measure(plan, service))
            finally:
                print(service.read_log()[-LOG_TAIL_CHARS:], file=sys.stderr, end="")
    except (Failed, LoadFault, DidNotStart, OSError) as error:
        print(f"bench.listeners: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report) | {"holds": report.holds}, indent=2) if as_json else show(report))
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())

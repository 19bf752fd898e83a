"""`python -m bench.load`: signed payments a second, beside what libsodium verifies on one core in the same run.

Owns the phases, in this order, and the report. Every statement of a phase is signed before its clock starts; answers
are decoded after it has stopped; exit status 0 only if every statement that was sent was accepted.

1. v, measured alone. 2. A commons is founded, accounts join and are funded, and with --entries so many entries are
made before anything is measured. 3. Requests of 1,000 payments, a few in
flight. 4. Requests of one payment on 64 connections. 5. The same on one connection, the service otherwise idle.
6. v again: if the two differ much, somebody else was at work and the ratios say little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from bench import machine
from bench.driver import LoadFault, Run, drive, get_json
from bench.signing import Crew, Press, Signed, found, memberships, pay, request
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import peer_of
from tests.running import DidNotStart, running

#: Bounds the load process's memory whatever is asked: some 350 bytes a payment sent, as much answered.
SIGNED_MAX: Final = 400_000
SET_UP_EACH: Final = 1_000
FILL_AT_ONCE: Final = 50_000
FILL_SECONDS: Final = 600.0
SAMPLES: Final = 500
#: How far v before and v after may lie apart, as a part of their mean, before the report says so.
NOISE: Final = 0.1
LOG_TAIL_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Plan:
    """One phase: how many statements a request, how many connections, and how fast it could go at most, in v."""

    name: str
    each: int
    connections: int
    ceiling: float
    warm_up: int


PLANS: Final = (
    Plan("1,000 a request, 4 in flight", each=1_000, connections=4, ceiling=1.2, warm_up=12),
    Plan("1 a request, 64 connections", each=1, connections=64, ceiling=0.6, warm_up=640),
    Plan("1 a request, 1 connection, idle", each=1, connections=1, ceiling=0.1, warm_up=20),
)


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase measured. Rates a second, latencies of whole requests in ms, processor time in cores."""

    name: str
    requests: int
    statements: int
    seconds: float
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    load_cores: float
    service_cores: float | None
    postgres_cores: float | None
    outcomes: dict[str, int]

    @property
    def whole(self) -> bool:
        """Whether every statement sent was accepted."""
        return self.outcomes == {"accepted": self.statements}


class Rejected(Exception):
    """A statement of the set-up was not accepted."""


class Bench:
    """One run against one service; `pid` is the service's where it is ours, so that its costs can be read."""

    def __init__(self, url: str, *, pid: int | None, seconds: float, accounts: int, entries: int = 0) -> None:
        self._url = url
        self._host = urlsplit(url).netloc
        self._pid = pid
        self._seconds = seconds
        self._entries = entries
        self._crew = Crew.drawn(accounts)

    async def run(self) -> dict[str, Any]:
        """All phases; the report as plain values."""
        surroundings = machine.describe()
        samples = self._samples()
        before = machine.measure_v(samples)
        memory = {"start": self._memory()}
        commons = await self._set_up()
        memory["set up"] = self._memory()
        phases = [await self._phase(plan, commons, before) for plan in PLANS]
        memory["end"] = self._memory()
        after = machine.measure_v(samples)
        v = (before + after) / 2
        return {
            "machine": surroundings,
            "accounts": len(self._crew.accounts),
            "v": {"before": before, "after": after, "mean": v},
            "phases": [{**asdict(phase), "ratio": phase.rate / v} for phase in phases],
            "memory_mib": memory if self._pid is not None else None,
            "accepted_all": all(phase.whole for phase in phases),
        }

    def _samples(self) -> list[Signed]:
        peers = [Signer(seed) for seed in self._crew.accounts]
        return [pay(peers, bytes(16), time_ms=0) for _ in range(SAMPLES)]

    async def _set_up(self) -> bytes:
        """Found, join, fund; raises `Rejected` if any of it is refused. Returns the commons' name."""
        service = await get_json(self._url, "/v1")
        commons, founding = found(self._crew, ledger=peer_of(service["ledger"]), time_ms=service["time"])
        await self._demand([founding])
        people = memberships(self._crew, commons, time_ms=service["time"])
        for start in range(0, len(people), SET_UP_EACH):
            await self._demand(people[start : start + SET_UP_EACH])
        await self._fill(commons, self._entries - 1 - len(people))
        return commons

    async def _fill(self, commons: bytes, payments: int) -> None:
        """Make so many entries more, as fast as they are taken, in requests of 1,000."""
        press = Press(self._crew, commons, self._host)
        try:
            while payments > 0:
                requests = math.ceil(min(payments, FILL_AT_ONCE) / SET_UP_EACH)
                time_ms = (await get_json(self._url, "/v1"))["time"]
                signed = press.payments(requests, each=SET_UP_EACH, time_ms=time_ms, span_ms=1000)
                run = await drive(self._url, signed, connections=4, seconds=FILL_SECONDS)
                if run.outcomes() != {"accepted": requests * SET_UP_EACH}:
                    raise Rejected(f"filling: {dict(run.outcomes())}")
                payments -= requests * SET_UP_EACH
        finally:
            press.close()

    async def _demand(self, statements: Sequence[Signed]) -> None:
        whole = request(self._host, [one.wire() for one in statements])
        run = await drive(self._url, [whole], connections=1, seconds=1.0)
        outcomes = run.outcomes()
        if outcomes != {"accepted": len(statements)}:
            raise Rejected(f"setting up: {dict(outcomes)}")

    async def _phase(self, plan: Plan, commons: bytes, v: float) -> Phase:
        """Sign, warm up, measure."""
        requests = math.ceil(min(v * plan.ceiling * self._seconds, SIGNED_MAX) / plan.each)
        time_ms = (await get_json(self._url, "/v1"))["time"]
        press = Press(self._crew, commons, self._host)
        try:
            signed = press.payments(
                plan.warm_up + requests, each=plan.each, time_ms=time_ms, span_ms=int(self._seconds * 1000)
            )
        finally:
            press.close()
        warm = await drive(self._url, signed[: plan.warm_up], connections=plan.connections, seconds=self._seconds)
        if warm.outcomes() != {"accepted": warm.requests * plan.each}:
            raise Rejected(f"warming up: {dict(warm.outcomes())}")
        costs = self._cpu()
        run = await drive(self._url, signed[plan.warm_up :], connections=plan.connections, seconds=self._seconds)
        return _phase(
            plan, run, [None if b is None or a is None else b - a for a, b in zip(costs, self._cpu(), strict=True)]
        )

    def _cpu(self) -> list[float | None]:
        """Processor seconds so far of this process, the service, and the service's PostgreSQL."""
        if self._pid is None:
            return [time.process_time(), None, None]
        below = machine.descendants(self._pid)
        return [
            time.process_time(),
            machine.cpu_seconds([self._pid]),
            machine.cpu_seconds(below, with_ended_children=True),
        ]

    def _memory(self) -> dict[str, Any] | None:
        if self._pid is None:
            return None
        return {
            "service": asdict(machine.memory_of([self._pid])),
            "postgres": asdict(machine.memory_of(machine.descendants(self._pid))),
        }


def _phase(plan: Plan, run: Run, costs: Sequence[float | None]) -> Phase:
    load, service, postgres = (None if cost is None else cost / run.seconds for cost in costs)
    assert load is not None
    statements = run.requests * plan.each
    outcomes = run.outcomes()
    return Phase(
        name=plan.name,
        requests=run.requests,
        statements=statements,
        seconds=run.seconds,
        rate=outcomes["accepted"] / run.seconds,
        p50_ms=_percentile(run.latencies, 50),
        p95_ms=_percentile(run.latencies, 95),
        p99_ms=_percentile(run.latencies, 99),
        load_cores=load,
        service_cores=service,
        postgres_cores=postgres,
        outcomes=dict(outcomes),
    )


def _percentile(latencies: Sequence[float], percent: int) -> float:
    """The smallest latency, in ms, that at least `percent` % of the requests did not pass (nearest rank)."""
    return sorted(latencies)[math.ceil(len(latencies) * percent / 100) - 1] * 1000


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────


def show(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    about, v = report["machine"], report["v"]
    lines = [
        f"{about['cores']} cores, {about['cpu']}, {about['system']}, Python {about['python']}; "
        f"load average at the start {about['load_average']:.2f}",
        f"v = {v['mean']:,.0f} verifications a second on one core ({v['before']:,.0f} before, {v['after']:,.0f} after)",
        f"{report['accounts']:,} accounts, payer and payee at random, one payment a statement",
        "",
        f"{'':32}{'payments':>10}{'seconds':>9}{'a second':>10}{'of v':>8}"
        f"{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}   cores: service  postgres  load",
    ]
    lines += [_show_phase(phase) for phase in report["phases"]]
    if abs(v["after"] - v["before"]) > NOISE * v["mean"]:
        lines += ["", "v changed while we measured: the machine was not ours alone, and the ratios say little"]
    if report["memory_mib"] is not None:
        lines += ["", *_show_memory(report["memory_mib"])]
    lines += [
        f"NOT ALL ACCEPTED in {phase['name']}: {phase['outcomes']}"
        for phase in report["phases"]
        if phase["outcomes"] != {"accepted": phase["statements"]}
    ]
    if report["accepted_all"]:
        lines += ["", "every statement sent was accepted"]
    return "\n".join(lines)


def _show_phase(phase: dict[str, Any]) -> str:
    cores = "".join(
        f"{'—' if phase[name] is None else format(phase[name], '.2f'):>{width}}"
        for name, width in (("service_cores", 17), ("postgres_cores", 10), ("load_cores", 6))
    )
    return (
        f"{phase['name']:32}{phase['statements']:>10,}{phase['seconds']:>9.1f}{phase['rate']:>10,.0f}"
        f"{phase['ratio']:>6.2f} v{phase['p50_ms']:>9.1f}{phase['p95_ms']:>9.1f}{phase['p99_ms']:>9.1f}{cores}"
    )


def _show_memory(memory: dict[str, Any]) -> list[str]:
    lines = ["resident memory, MiB: now (peak)"]
    for when, parts in memory.items():
        service, postgres = parts["service"], parts["postgres"]
        shared = "" if postgres["proportional"] is None else f", {postgres['proportional']:.0f} with shared pages once"
        lines.append(
            f"  {when:8} service {service['resident']:.0f} ({service['peak']:.0f});"
            f" {postgres['processes']} of postgres {postgres['resident']:.0f} ({postgres['peak']:.0f}){shared}"
        )
    return lines


def main() -> int:
    """Read the arguments, run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", help="a running service; default: one of its own, gone afterwards")
    parser.add_argument("--seconds", type=float, default=10.0, help="the length of each phase (default 10)")
    parser.add_argument("--accounts", type=int, default=1_000, help="how many accounts pay each other (default 1000)")
    parser.add_argument("--entries", type=int, default=0, help="how many the ledger holds before it is measured")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.accounts < 2:
        parser.error("--seconds is above 0, --accounts at least 2")
    try:
        report = _measure(
            arguments.url, seconds=arguments.seconds, accounts=arguments.accounts, entries=arguments.entries
        )
    except (LoadFault, Rejected, DidNotStart, OSError) as error:
        print(f"bench.load: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=2) if arguments.json else show(report))
    return 0 if report["accepted_all"] else 1


def _measure(url: str | None, *, seconds: float, accounts: int, entries: int) -> dict[str, Any]:
    if url is not None:
        return _run(Bench(url, pid=None, seconds=seconds, accounts=accounts, entries=entries))
    with running() as service:
        assert service.process is not None
        whole = False
        try:
            pid = service.process.pid
            report = _run(Bench(service.url, pid=pid, seconds=seconds, accounts=accounts, entries=entries))
            whole = bool(report["accepted_all"])
        finally:
            # Before the service's folder goes, and the reason with it.
            if not whole:
                print(service.read_log()[-LOG_TAIL_CHARS:], file=sys.stderr)
        return report


def _run(bench: Bench) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bench.run())


if __name__ == "__main__":
    sys.exit(main())

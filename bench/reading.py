"""What readers get: balances, histories, and entries as they come, to many listeners at once.

Owns the reads and what is looked at in their answers. The commons holds `PAYMENTS_MIN` payments before anything is
read; what is prepared is prepared before the clock starts. Nothing is written while balances and histories are read, so
that two reads of an account can be held against each other:

1. Every read of an account's balance says the same `posted`.
2. In a history each balance is the one before it plus the line's amount, newest line first.
3. The newest line's balance is the `posted` of 1.
4. Every listener got every entry once, in order (see `listeners`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from bench.driver import Run as Driven
from bench.listeners import EACH, RATE, Course, Report, follow
from bench.measures import Check, Notebook, Run
from bench.orders import random_payments
from bench.plan import Plan
from bench.stand import Stand
from bench.town import Load, Timed, Town
from bench.verdicts import NotHeld
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import did_of

#: A history has some depth then: forty lines an account.
PAYMENTS_MIN: Final = 20_000
CONNECTIONS: Final = 16
WARM_UP: Final = 160
#: More than any machine we know answers a second; what is not sent costs only a place in a list.
READS_MAX_A_SECOND: Final = 20_000
#: One screen of a wallet.
LINES: Final = 20
#: Faults that are told; the others would say nothing new.
FAULTS_MAX: Final = 5

MEASURES: Final = {
    "read.balance": (f"Reads of a balance, {CONNECTIONS} connections", "requests/s"),
    "read.history": (f"Reads of the last {LINES} lines of an account, {CONNECTIONS} connections", "requests/s"),
    "listen.entries": (f"Entries delivered to all listeners, of {RATE:,} payments a second", "entries/s"),
}


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """Reads and listeners in turns, `plan.rounds` times. Raises `NotHeld`, `LoadFault`, and `Failed`."""
    async with Stand.open(url=plan.url, arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        tell(f"reading: {PAYMENTS_MIN:,} payments to read")
        town = await Town.settled(stand, notebook, accounts=plan.accounts, name="Reading")
        try:
            await town.say(
                random_payments(town.draw, PAYMENTS_MIN, accounts=plan.accounts), after="payments to be read"
            )
            for number in range(1, plan.rounds + 1):
                tell(f"reading, round {number} of {plan.rounds}")
                await _read(plan, town, notebook)
                tell(f"listening, round {number} of {plan.rounds}: {plan.listeners:,} listeners")
                await _listen(plan, town, notebook)
        finally:
            town.close()


async def _read(plan: Plan, town: Town, notebook: Notebook) -> None:
    balances, read = await _time(plan, town, "read.balance", "/balances")
    notebook.note("read.balance", *MEASURES["read.balance"], read.operations())
    histories, read = await _time(plan, town, "read.history", f"/postings?order=desc&limit={LINES}")
    notebook.note("read.history", *MEASURES["read.history"], read.operations())
    faults = find_faults(balances, histories)
    answers = sum(map(len, balances.values())) + sum(map(len, histories.values()))
    check = Check(after="reads", acknowledged=answers, held=not faults, detail="; ".join(faults[:FAULTS_MAX]))
    notebook.checks.append(check)
    if faults:
        raise NotHeld(f"after reads: {check.detail}")


async def _time(plan: Plan, town: Town, after: str, tail: str) -> tuple[dict[int, list[Any]], Timed]:
    """Read accounts at random for a while; the answers by account, and the run."""
    host, commons = urlsplit(town.stand.url).netloc, town.commons.hex()
    reads = [
        f"GET /v1/commons/{commons}/members/{did_of(Signer(seed).public_key)}{tail} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        for seed in town.crew.accounts
    ]
    packed = [read.encode() for read in reads]
    count = WARM_UP + max(1, int(plan.seconds * READS_MAX_A_SECOND))
    accounts = town.draw.choices(range(plan.accounts), k=count)
    load = Load(
        after=after,
        requests=[packed[account] for account in accounts],
        warm_up=WARM_UP,
        connections=CONNECTIONS,
        seconds=plan.seconds,
    )
    timed = await town.time(load)
    return answers_by_account(timed.run, accounts[WARM_UP:]), timed


def answers_by_account(run: Driven, accounts: Sequence[int]) -> dict[int, list[Any]]:
    """The decoded answers of a run of reads; `accounts` says whom each of its requests was about."""
    found: dict[int, list[Any]] = {}
    for place, (_, body) in zip(run.places, run.answers, strict=True):
        found.setdefault(accounts[place], []).append(msgspec.json.decode(body))
    return found


def find_faults(balances: Mapping[int, Sequence[Any]], histories: Mapping[int, Sequence[Any]]) -> list[str]:
    """What contradicts itself in answers about accounts (rules 1 to 3)."""
    faults = [
        f"account {account} had several balances while nobody paid"
        for account, answers in balances.items()
        if len({answer["items"][0]["posted"] for answer in answers}) != 1
    ]
    for account, answers in histories.items():
        known = balances.get(account)
        for answer in answers:
            lines = answer["items"]
            if not _adds_up(lines):
                faults.append(f"a history of account {account} does not add up")
            if known and _contradicts(lines[0], known[0]):
                faults.append(f"balance and history of account {account} differ")
    return faults


def _adds_up(lines: Sequence[Any]) -> bool:
    return all(int(new["balance"]) - int(new["amount"]) == int(old["balance"]) for new, old in pairwise(lines))


def _contradicts(newest: Any, balance: Any) -> bool:
    """What was posted after the balance was read, as a melt at the end of a tick, is no contradiction."""
    return bool(newest["seq"] <= balance["seq"] and newest["balance"] != balance["items"][0]["posted"])


# ── Listeners ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _listen(plan: Plan, town: Town, notebook: Notebook) -> None:
    # Each worker packs its stream in its own way, and streams are compared byte by byte; how many workers a service
    # has that is not ours, nobody tells us.
    packed = plan.url is None and "--workers" not in plan.service_arguments
    course = Course(listeners=plan.listeners, rate=RATE, each=EACH, seconds=plan.seconds, packed=packed)
    report = await follow(town, course)
    lost = "" if report.holds else describe_loss(report)
    notebook.checks.append(
        Check(after="listen.entries, heard", acknowledged=report.accepted, held=report.holds, detail=lost)
    )
    if lost:
        raise NotHeld(f"after listen.entries: {lost}")
    notebook.note("listen.entries", *MEASURES["listen.entries"], run_of(report))


def describe_loss(report: Report) -> str:
    """What the listeners did not get, in a sentence."""
    return (
        f"{report.whole} of {report.course.listeners} listeners got all {report.entries} entries of"
        f" {report.accepted} payments, {report.short} less, {report.differing} something else,"
        f" {report.refused} nothing; the stream {'is' if report.stream_matches_log else 'is not'} the log"
    )


def run_of(report: Report) -> Run:
    """The run as the harness notes it: delays are from an entry's `at` to its arrival, at all listeners."""
    known = {
        "p50_ms": report.answer_p50_ms,
        "p99_ms": report.answer_p99_ms,
        "delay_p50_ms": report.lag_p50_ms,
        "delay_p99_ms": report.lag_p99_ms,
        "delay_max_ms": report.lag_max_ms,
        "accepted": float(report.accepted),
        "listeners": float(report.course.listeners),
        "pushed_mb_a_second": report.pushed_mb_a_second,
        "load_cores": report.load_cores,
        "listeners_cores": report.listeners_cores,
        "service_cores": report.service_cores,
        "postgres_cores": report.postgres_cores,
        "service_mib": report.service_mib,
    }
    details = {name: value for name, value in known.items() if value is not None}
    return Run(value=report.delivered, v=report.v, details=details)

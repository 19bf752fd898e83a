"""`gesell replay`: how a replay is asked for, and how its report looks.

Owns the command's words, the reading of its policy, the advice about the clock, the progress bar and both forms of
the report. What a replay does is `replay`'s.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gesell import showing
from gesell.amount import Amount
from gesell.answers import Service, moment
from gesell.bodies import default_policy
from gesell.client import Client
from gesell.options import Mistake, run
from gesell.peer import Peer
from gesell.policy_file import policy_of
from gesell.proof import Advance
from gesell.replay import CURRENCY, SCALE, Phase, Replay, ReplayStopped, run_replay
from gesell.showing import say
from gesell.trace import Trace, survey
from gesell.wording import melt_rate
from gesell_protocol.policy import REST_TICKS_MAX, Policy

#: Beyond this, one is told beforehand how long a replay at pace will take.
LONG_SECONDS: Final = 900
#: What is reckoned with when a start for the demo clock is advised; most machines do more.
JOINS_PER_SECOND: Final = 500
ADVISED_SECONDS: Final = 60
FAULTS_SHOWN: Final = 20
TYPES: Final = ("issue", "pay", "retire")


def replay(
    file: Path,
    *,
    url: Annotated[str, Parameter(env_var="GESELL_URL")] = "http://127.0.0.1:8420",
    policy: Path | None = None,
    rest_ticks: int | None = None,
    pace: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Send a trace of real transfers through a commons of its own, and prove the books.

    Exit status 1 if the entries don't sum to the balances that the ledger shows. Refused transfers are counted by
    their codes; they are no failure.

    Parameters
    ----------
    file
        A CSV file with the columns at_ms, kind, from, to, amount.
    url
        The ledger's address.
    policy
        A JSON file with the fields of the policy that differ from: 2 % a month in daily steps, open to all.
    rest_ticks
        How many tick ends received money is spared (the policy's field, for short).
    pace
        Wait until the ledger's clock reaches each transfer's time; meant for a demo clock.
    json
        Answer in JSON for programs; amounts are decimal strings.
    """
    done = run(_replay(file, url, policy, rest_ticks, pace=pace))
    if json:
        showing.show_json(report(file, url, done))
    else:
        show(file, url, done)
    return 0 if done.proof.holds else 1


async def _replay(file: Path, url: str, policy: Path | None, rest_ticks: int | None, *, pace: bool) -> Replay:
    rules = _policy_of(policy, rest_ticks=rest_ticks)
    trace = survey(file)
    async with Client(url, peer=Peer.new()) as client:
        if pace:
            _look_at_the_clock(await client.service(), trace)
        try:
            with _progress() as phase:
                return await run_replay(client, trace, policy=rules, pace=pace, phase=phase)
        except ReplayStopped as stopped:
            raise Mistake(str(stopped), status=1) from None


def _policy_of(path: Path | None, *, rest_ticks: int | None) -> Policy:
    """The policy to found with: 2 % a month in daily ticks to the pool, open to all, and what is said instead."""
    policy = policy_of(path, default=replace(default_policy(scale=SCALE), admission="open"))
    if rest_ticks is not None and not 0 <= rest_ticks <= REST_TICKS_MAX:
        raise Mistake(f"--rest-ticks is from 0 to {REST_TICKS_MAX}")
    if rest_ticks is not None:
        policy = replace(policy, rest_ticks=rest_ticks)
    if policy.visibility != "open":
        raise Mistake(f"{path}: visibility must be open, else the entries can't be read back for the proof")
    return policy


# ── The clock ────────────────────────────────────────────────────────────────────────────────────────────────────


def _look_at_the_clock(service: Service, trace: Trace) -> None:
    """Refuse a pace that can't be kept, and say beforehand when it will take long."""
    if service.time_ms > trace.first_ms:
        raise Mistake(
            f"The ledger's clock is at {_utc(service.time_ms)}, past the first transfer ({_utc(trace.first_ms)}):"
            f" at pace nothing can be sent at its time. {_advice(trace)}\n        Or replay it without --pace.",
            status=1,
        )
    seconds = (trace.last_ms - service.time_ms) / 1000 / service.clock_speed
    if seconds > LONG_SECONDS:
        clock = "not a demo clock" if service.clock_speed == 1 else f"{service.clock_speed} times real time"
        print(
            f"gesell: At pace this takes {_span(seconds)}: the ledger's clock is {clock}. {_advice(trace)}",
            file=sys.stderr,
        )


def _advice(trace: Trace) -> str:
    """How to start a ledger that lives through the trace in a minute, and has the time for everybody to join."""
    speed = max(1, (trace.last_ms - trace.first_ms) // 1000 // ADVISED_SECONDS)
    lead_ms = speed * (2_000 + 1000 * len(trace.accounts) // JOINS_PER_SECOND)
    start = moment(max(0, trace.first_ms - lead_ms)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"Start a ledger for it: gesell serve --demo --clock-start {start} --clock-speed {speed}"


@contextmanager
def _progress() -> Iterator[Phase]:
    """A bar for each phase, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def phase(name: str, total: int) -> Advance:
            task = bars.add_task(name, total=total)
            return lambda count: bars.update(task, advance=count)

        yield phase


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────────────


def report(file: Path, url: str, done: Replay) -> dict[str, Any]:
    """The report for programs. Amounts are decimal strings; the policy is as it was signed, in grains."""
    tally, proof = done.tally, done.proof
    return {
        "file": file.name,
        "url": url,
        "ledger": done.service.ledger,
        "commons": done.commons,
        "currency": {"code": CURRENCY, "scale": SCALE},
        "policy": done.policy.fields(),
        "pace": done.pace,
        "clock_speed": done.service.clock_speed,
        "members": proof.members,
        "transfers": sum(tally.sent.values()),
        "by_type": {
            name: {
                "sent": tally.sent[name],
                "accepted": tally.accepted[name],
                "refused": _refused(done, name),
                "volume": _amount(tally.volume[name]).text,
            }
            for name in TYPES
        },
        "refusals": [
            {
                "line": denial.line,
                "type": denial.type,
                "code": denial.code,
                "available": denial.available and denial.available.text,
                "needed": denial.needed and denial.needed.text,
            }
            for denial in tally.denials
        ],
        "melt": {"posted": proof.melt_posted.text, "due": proof.melt_due.text},
        "supply": proof.supply.text,
        "pool": proof.pool.text,
        "escrow": proof.escrow.text,
        "seconds": {name: round(seconds, 3) for name, seconds in done.seconds.items()},
        "statements_per_second": {"join": _rate(done, "join"), "send": _rate(done, "send")},
        "ledger_ms": done.ledger_ms,
        "after_its_time_ms": _after_ms(done),
        "entries": {"count": proof.seq, "by_type": dict(sorted(proof.types.items())), "last_at": proof.at_ms},
        "holds": proof.holds,
        "faults": list(proof.faults),
    }


def show(file: Path, url: str, done: Replay) -> None:
    """The report for people."""
    tally, proof = done.tally, done.proof
    how = f"at pace, on a clock of {done.service.clock_speed} times real time" if done.pace else "as fast as it went"
    say(f"{file.name} · {sum(tally.sent.values()):,} transfers of {proof.members:,} accounts, {how}", strong=True)
    say(f"  {url}, commons {done.commons}")
    say(f"  Melt: {melt_rate(done.policy)}")
    _show_types(done)
    showing.facts(
        [
            ("in circulation", _text(proof.supply)),
            ("of it in the pool", _text(proof.pool)),
            ("melt posted", _text(proof.melt_posted)),
            ("melt due", f"{_text(proof.melt_due)}, not posted yet, at {_utc(proof.at_ms)}"),
            ("transfers", f"{_pace_of(done, 'send')}; {_span(done.ledger_ms / 1000)} by the ledger's clock"),
            ("after their time", _lateness(done)),
            ("joins", _pace_of(done, "join")),
        ]
    )
    _show_proof(done)


def _show_types(done: Replay) -> None:
    """Types down, outcomes across."""
    tally = done.tally
    codes = sorted(_refused(done))
    volumes = showing.column([_amount(tally.volume[name]) for name in TYPES])
    rows = [
        [name, f"{tally.sent[name]:,}", f"{tally.accepted[name]:,}"]
        + [f"{_refused(done, name).get(code, 0):,}" for code in codes]
        + [_grouped(volume)]
        for name, volume in zip(TYPES, volumes, strict=True)
    ]
    counts = [sum(tally.sent.values()), sum(tally.accepted.values()), *(_refused(done)[code] for code in codes)]
    rows.append(["all", *(f"{count:,}" for count in counts), ""])
    titles = ["Statement", "Sent", "Accepted", *codes, f"Volume, {CURRENCY}"]
    say()
    showing.table(titles, rows, right=range(1, len(titles)))
    say()


def _show_proof(done: Replay) -> None:
    proof = done.proof
    say()
    if proof.holds:
        say(
            f"The books hold: {proof.seq:,} entries, each the hash that was answered and each summing to zero, sum to"
            f" the balances of {proof.members:,} members, to the pool and to the supply.",
            strong=True,
        )
        return
    say(f"THE BOOKS DO NOT HOLD: {len(proof.faults):,} faults in {proof.seq:,} entries.", strong=True)
    for fault in proof.faults[:FAULTS_SHOWN]:
        say(f"  {fault}")
    if len(proof.faults) > FAULTS_SHOWN:
        say("  … all of them: --json")


def _refused(done: Replay, name: str | None = None) -> dict[str, int]:
    """How many transfers were refused by code, of one type or of all."""
    return dict(Counter(denial.code for denial in done.tally.denials if name in (None, denial.type)))


def _count(done: Replay, phase: str) -> int:
    return done.joins if phase == "join" else sum(done.tally.sent.values())


def _rate(done: Replay, phase: str) -> float:
    return round(_count(done, phase) / done.seconds[phase], 1) if done.seconds[phase] else 0.0


def _pace_of(done: Replay, phase: str) -> str:
    return f"{_count(done, phase):,} in {done.seconds[phase]:.1f} s, {_rate(done, phase):,.0f} a second"


def _after_ms(done: Replay) -> dict[str, int | None]:
    """By how much transfers were accepted after their time: the least, the median (the lower one), the most."""
    after: list[int | None] = [*sorted(done.tally.after_ms)] or [None]
    return {"least": after[0], "median": after[(len(after) - 1) // 2], "most": after[-1]}


def _lateness(done: Replay) -> str:
    """How far behind the trace the ledger was, where pace was asked for."""
    after = _after_ms(done)
    if not done.pace or after["most"] is None or after["median"] is None:
        return ""
    return f"half of them within {_span(after['median'] / 1000)}, all within {_span(after['most'] / 1000)}"


def _amount(grains: int) -> Amount:
    return Amount(grains, CURRENCY, SCALE)


def _text(amount: Amount) -> str:
    return f"{_grouped(amount.text)} {amount.code}"


def _grouped(number: str) -> str:
    """A decimal number with its thousands set apart."""
    whole, dot, fraction = number.partition(".")
    return f"{int(whole):,}{dot}{fraction}"


def _utc(ms: int) -> str:
    return moment(ms).strftime("%Y-%m-%d %H:%M UTC")


def _span(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"

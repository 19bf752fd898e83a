"""The sleep group: what accounts cost that nobody touches, while their money melts by the day.

Owns accounts that slept ten years, read in this process and over HTTP, and the sweep of very many at once by the
service's own housekeeper. Its services run on demo clocks, which start where they are told.

1. `asleep.ten-years` times the one function through which every read sees a balance, for accounts of several kinds
   that slept 3,650 daily ticks: the median of many calls each, and the slowest kind counts.
2. `asleep.ten-years-http` times reads of balances of such accounts at a real service, which was told not to sweep.
3. `sweep.million` is the time from the moment when the service listens, its clock a month after everybody was touched
   last, until nobody is asleep: as long as sweeps are added, the time of the last one, and then the accounts are looked
   at. Meanwhile somebody pays now and then; how long that took is in the details.
4. What is shown and what was swept is held against the law as it is written, tick by tick.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

import asyncpg
import msgspec

from bench import driver
from bench.driver import drive, get_json
from bench.filling import open_loader, sleeper
from bench.measures import Check, Notebook, Run
from bench.orders import random_payments
from bench.plan import Plan
from bench.signing import FUNDS
from bench.stand import Stand
from bench.town import Town, latencies_of
from bench.verdicts import Claim, NotHeld
from gesell_ledger.clock import DemoClock
from gesell_ledger.core.books import Commons
from gesell_ledger.core.present import present
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_protocol.demurrage import Holding, melt_by_the_letter
from gesell_protocol.ed25519 import Signer
from gesell_protocol.fields import Currency
from gesell_protocol.names import did_of, peer_of
from gesell_protocol.policy import Policy, Timeline
from tests.running import Service, open_folder

ASLEEP: Final = ("asleep.ten-years", "Effective balance of an account that slept ten years of daily ticks", "ms")
ASLEEP_HTTP: Final = ("asleep.ten-years-http", "Read of the balance of an account that slept ten years, p50", "ms")
SWEEP: Final = ("sweep.million", "Sweep of idle accounts by the service, payments served meanwhile", "accounts/s")

DAY_MS: Final = 86_400_000
#: Ten years of daily ticks, and the day on which the services of this group are first started: 2025-01-01.
SLEPT: Final = 3_650
FIRST_DAY: Final = 20_089
#: 2 % a month of daily ticks.
PPB: Final = 673_197
#: Calls of each kind in a run, and reads over HTTP.
CALLS: Final = 200
READS: Final = 300
READ_ACCOUNTS: Final = 20
#: No service sweeps an account that slept less than so many ticks if it is told this, the most that it can be told.
NEVER_SWEEP: Final = ("--sweep-ticks", "10000")

#: What each sleeper holds: a payment of 256 legs must stay below 10^15.
SLEEPER_FUNDS: Final = 10**9
#: The service's own bound, and how far its clock moves between two sweeps: then everybody is due.
SWEEP_TICKS: Final = 30
BETWEEN_DAYS: Final = SWEEP_TICKS + 1
#: Payments beside the sweep: one for so many sleepers, so many seconds apart.
PAYMENT_FOR: Final = 10_000
PAYMENT_EVERY: Final = 0.25
#: The head is looked at so often; when it stood still for so long, the accounts are.
LOOK_SECONDS: Final = 0.05
STILL_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 3_600.0
SQL_SECONDS: Final = 600.0
#: Of the sleepers, so many are held against the law after a sweep.
SAMPLE: Final = 200
LOG_TAIL_CHARS: Final = 2_000

Tell = Callable[[str], None]


async def measure(plan: Plan, notebook: Notebook, tell: Tell) -> None:
    """Measure the whole group, `plan.rounds` times each; raises `NotHeld`, `LoadFault`, `Refused`, `DidNotStart`."""
    for number in range(1, plan.rounds + 1):
        tell(f"asleep for ten years, round {number} of {plan.rounds}")
        notebook.note(*ASLEEP, time_kinds(notebook))
    if plan.url is not None:
        why_not = "its clock can't be set forward: the service is not ours"
        notebook.skip(*ASLEEP_HTTP, why_not)
        notebook.skip(*SWEEP, why_not)
        return
    if plan.quick:
        notebook.skip(*ASLEEP_HTTP, "a quick run asks the law only")
    else:
        await _read_asleep(plan, notebook, tell)
    await _sweep_all(plan, notebook, tell)


# ── In this process ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of account, as it was when it fell asleep at tick `FIRST_DAY`, and the rules it sleeps under."""

    holding: Holding
    timeline: Timeline


def kinds() -> Mapping[str, Kind]:
    """The kinds of accounts that are looked at, by what is special about them."""
    inflows = tuple((FIRST_DAY - 29 + day, 10**9) for day in range(30))
    brackets = ((0, 0), (10**9, 300_000), (10**11, PPB), (10**13, 2 * PPB))
    later = tuple((FIRST_DAY + 365 * year, _policy(brackets=((0, PPB + year),))) for year in range(1, 10))
    return {
        "large": Kind(holding=_held(10**18), timeline=_under(_policy())),
        "usual": Kind(holding=_held(10**8), timeline=_under(_policy())),
        "small_fees": Kind(holding=_held(2_000_000), timeline=_under(_policy())),
        "down_to_dust": Kind(holding=_held(10**9), timeline=_under(_policy(brackets=((0, 20_000_000),)))),
        "sixteen_brackets": Kind(
            holding=_held(10**12),
            timeline=_under(_policy(brackets=tuple((n * 10**10, n * 100_000) for n in range(16)))),
        ),
        "fresh_money": Kind(
            holding=Holding(10**14, 10**10, FIRST_DAY, inflows),
            timeline=_under(_policy(brackets=brackets, rest_ticks=30)),
        ),
        "new_rules_each_year": Kind(
            holding=Holding(10**14, 10**10, FIRST_DAY, inflows),
            timeline=Timeline.of([(0, _policy(brackets=brackets, rest_ticks=30)), *later]),
        ),
    }


def _held(balance: int) -> Holding:
    return Holding(balance, 0, FIRST_DAY, ())


def _under(policy: Policy) -> Timeline:
    return Timeline.of([(0, policy)])


def _policy(*, brackets: tuple[tuple[int, int], ...] = ((0, PPB),), rest_ticks: int = 0) -> Policy:
    return Policy(
        tick_seconds=86_400,
        rest_ticks=rest_ticks,
        brackets=brackets,
        melt_to="pool",
        admission="open",
        credit_limit=0,
        vouch_min=1,
        visibility="open",
        notice_ticks=0,
    )


def time_kinds(notebook: Notebook) -> Run:
    """One run: every kind is shown once and held against the law by the letter, then timed; raises `NotHeld`."""
    wrong = [name for name, kind in kinds().items() if not _is_right(kind)]
    _note(notebook, ASLEEP[0], len(kinds()), [f"{name}: another balance than the law says" for name in wrong])
    took = {name: _time_kind(kind) for name, kind in kinds().items()}
    return Run(value=max(took.values()), details={f"{name}_ms": ms for name, ms in took.items()})


def _is_right(kind: Kind) -> bool:
    shown = present(kind.holding, _commons_of(kind), tick=FIRST_DAY + SLEPT, credit_limit=0)
    then = melt_by_the_letter(kind.holding, kind.timeline, FIRST_DAY + SLEPT)
    return shown.balance == then.balance


def _time_kind(kind: Kind) -> float:
    """The median of many calls, in ms."""
    commons = _commons_of(kind)
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        present(kind.holding, commons, tick=FIRST_DAY + SLEPT, credit_limit=0)
        took.append(time.perf_counter() - began)
    return median(took) * 1000


def _commons_of(kind: Kind) -> Commons:
    return Commons(
        id=bytes(16),
        name="Asleep",
        currency=Currency("WRG", 6),
        ledger=bytes(32),
        stewards=(bytes(32),),
        threshold=1,
        timeline=kind.timeline,
    )


# ── A service whose clock is set forward ─────────────────────────────────────────────────────────────────────────


class Clocked:
    """A service of its own on a demo clock that starts at 0:00 of a day; made by `open_clocked`.

    `stand` stays the same, and the service keeps its port, when the clock is set forward.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.day = FIRST_DAY
        self.stand = Stand("", pid=None, database_dsn=None, ledger=b"", v_seconds=0)

    async def start(self, *, v_seconds: float) -> None:
        """Start it on the first day."""
        service = self._service
        await self._start()
        assert service.process is not None
        private = PrivatePostgres(service.folder / "data")
        self.stand = Stand(
            service.url,
            pid=service.process.pid,
            database_dsn=private.dsn(role=private.owner, database="postgres"),
            ledger=peer_of((await get_json(service.url, "/v1"))["ledger"]),
            v_seconds=v_seconds,
        )

    async def set_forward(self, days: int) -> float:
        """Stop the service and start it so many days later; returns when it listened, by the performance counter."""
        await asyncio.to_thread(self._service.stop)
        self.day += days
        await self._start()
        listened = time.perf_counter()
        assert self._service.process is not None
        self.stand.pid = self._service.process.pid
        return listened

    async def _start(self) -> None:
        moment = datetime.fromtimestamp(self.day * DAY_MS / 1000, UTC)
        await asyncio.to_thread(self._service.start, "--clock-start", moment.isoformat())

    def clock(self) -> DemoClock:
        """A clock for a loader: a moment of the day that it is, not after the service's own."""
        return DemoClock(start_ms=self.day * DAY_MS, speed=1)


@asynccontextmanager
async def open_clocked(plan: Plan, *arguments: str) -> AsyncIterator[Clocked]:
    """A service on its first day, gone afterwards; where what is done with it fails, its log's end goes to stderr."""
    with open_folder() as folder:
        service = Service(folder, *plan.service_arguments, "--demo", *arguments)
        clocked = Clocked(service)
        try:
            await clocked.start(v_seconds=plan.v_seconds)
            yield clocked
        except BaseException:
            print(service.read_log()[-LOG_TAIL_CHARS:], file=sys.stderr)
            raise
        finally:
            await asyncio.to_thread(service.end)


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _read_asleep(plan: Plan, notebook: Notebook, tell: Tell) -> None:
    async with open_clocked(plan, *NEVER_SWEEP) as clocked:
        town = await Town.settled(clocked.stand, notebook, accounts=READ_ACCOUNTS, name="Asleep")
        try:
            await clocked.set_forward(SLEPT)
            for number in range(1, plan.rounds + 1):
                tell(f"reads of what slept for ten years, round {number} of {plan.rounds}")
                notebook.note(*ASLEEP_HTTP, await read_balances(town, notebook))
        finally:
            town.close()


async def read_balances(town: Town, notebook: Notebook) -> Run:
    """Read balances one after the other, and hold them against the law by the letter; raises `NotHeld`."""
    commons = town.commons.hex()
    peers = [Signer(seed).public_key for seed in town.crew.accounts]
    reads = [
        f"GET /v1/commons/{commons}/members/{did_of(peer)}/balances HTTP/1.1\r\nHost: {town.host}\r\n\r\n".encode()
        for peer in peers
    ]
    await town.stand.quiet()
    run = await drive(town.stand.url, (reads * READS)[:READS], connections=1, seconds=SQL_SECONDS)
    timeline = _under(_policy())
    due = melt_by_the_letter(_held(FUNDS), timeline, FIRST_DAY + SLEPT).balance
    _note(notebook, ASLEEP_HTTP[0], len(run.answers), find_other_balances(run, balance=due))
    latencies = latencies_of(run)
    return Run(value=latencies["p50_ms"], details=latencies)


def find_other_balances(run: driver.Run, *, balance: int) -> list[str]:
    """What is amiss with answers that should each show this balance, in grains."""
    faults = []
    for status, body in run.answers:
        shown = msgspec.json.decode(body)["items"][0]["balance"] if status == 200 else f"status {status}"
        if shown != str(balance):
            faults.append(f"{shown} was shown, the law says {balance}")
    return faults


# ── The sweep ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _sweep_all(plan: Plan, notebook: Notebook, tell: Tell) -> None:
    async with open_clocked(plan, "--sweep-ticks", str(SWEEP_TICKS)) as clocked:
        stand = clocked.stand
        town = await Town.settled(stand, notebook, accounts=plan.accounts, name="Sleepers")
        try:
            tell(f"filling a commons with {plan.sleepers:,} members")
            assert stand.database_dsn is not None
            async with open_loader(
                stand.database_dsn, ledger=stand.ledger, clock=clocked.clock(), crew=town.crew, commons=town.commons
            ) as loader:
                await loader.add_sleepers(plan.sleepers, amount=SLEEPER_FUNDS, tell=tell)
            await stand.pass_over(town.commons)
            async with _connected(stand) as connection:
                await connection.execute("VACUUM ANALYZE")
                await connection.execute("CHECKPOINT")
            for number in range(1, plan.rounds + 1):
                tell(f"sweep of {plan.sleepers:,} accounts, round {number} of {plan.rounds}")
                notebook.note(*SWEEP, await _sweep(plan, clocked, town, notebook))
        finally:
            town.close()


async def _sweep(plan: Plan, clocked: Clocked, town: Town, notebook: Notebook) -> Run:
    """Set the clock forward, time the sweep, pay beside it, and check all; raises `NotHeld`."""
    stand = clocked.stand
    listened = await clocked.set_forward(BETWEEN_DAYS)
    spent = stand.cpu()
    orders = random_payments(town.draw, max(1, plan.sleepers // PAYMENT_FOR), accounts=plan.accounts)
    requests = await town.sign(orders, each=1)
    paying = asyncio.create_task(drive(stand.url, requests, connections=2, seconds=SWEEP_SECONDS, every=PAYMENT_EVERY))
    try:
        async with _connected(stand) as connection:
            swept = await wait_until_swept(connection, town.commons, before_tick=clocked.day - SWEEP_TICKS)
            cores = stand.cpu().cores_since(spent, seconds=time.perf_counter() - listened)
            paid = await paying
            faults = await find_missed(connection, town.commons, day=clocked.day, sleepers=plan.sleepers)
    finally:
        paying.cancel()
    _note(notebook, SWEEP[0], plan.sleepers, faults)
    claim = Claim(after="payments beside the sweep", commons=town.commons, requests=requests, run=paid)
    await stand.check(notebook, claim)
    footprint = stand.memory()
    memory = {} if footprint is None else {"service_mib": footprint.service.resident}
    return Run(
        value=plan.sleepers / (swept - listened),
        details={"accounts": float(plan.sleepers), **latencies_of(paid), **cores, **memory},
    )


async def wait_until_swept(connection: asyncpg.Connection[Any], commons: bytes, *, before_tick: int) -> float:
    """Wait until no account with money was last touched before a tick; returns when the last melt was posted, by the
    performance counter, to `LOOK_SECONDS`. Raises `NotHeld` where it takes longer than `SWEEP_SECONDS`.
    """
    pool = None
    began = moved = time.perf_counter()
    while True:
        # What melts comes to the pool, and nothing else does here: its account tells that a sweep was stored.
        found, now = await connection.fetchval(_POOL, commons), time.perf_counter()
        if found != pool:
            pool, moved = found, now
        elif now - moved > STILL_SECONDS and await connection.fetchval(_ASLEEP, commons, before_tick) == 0:
            return moved
        if now - began > SWEEP_SECONDS:
            raise NotHeld("the sweep did not come to an end")
        await asyncio.sleep(LOOK_SECONDS)


async def find_missed(connection: asyncpg.Connection[Any], commons: bytes, *, day: int, sleepers: int) -> list[str]:
    """What of some sleepers, evenly spread, does not have the balance that the law gives on a day that swept them."""
    numbers = range(0, sleepers, max(1, sleepers // SAMPLE))
    peers = [sleeper(commons, number).public_key for number in numbers]
    due = melt_by_the_letter(_held(SLEEPER_FUNDS), _under(_policy()), day).balance
    right = await connection.fetchval(_SWEPT, commons, peers, due, day)
    return [] if right == len(peers) else [f"of {len(peers)} sleepers {right} have {due} grains on day {day}"]


_POOL: Final = """
SELECT a.balance FROM gesell.commons c JOIN gesell.account a ON a.commons_id = c.commons_id
WHERE c.hash = $1 AND a.holder = 'pool' AND a.asset = c.currency_code
"""
_ASLEEP: Final = """
SELECT count(*) FROM gesell.commons c JOIN gesell.account a ON a.commons_id = c.commons_id
WHERE c.hash = $1 AND a.asset = c.currency_code AND octet_length(a.holder) = 32 AND a.balance > 0 AND a.tick < $2
"""
_SWEPT: Final = """
SELECT count(*) FROM gesell.commons c JOIN gesell.account a ON a.commons_id = c.commons_id
WHERE c.hash = $1 AND a.asset = c.currency_code AND a.holder = ANY($2::bytea[]) AND a.balance = $3 AND a.tick = $4
"""


@asynccontextmanager
async def _connected(stand: Stand) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the stand's database."""
    connection = await asyncpg.connect(stand.database_dsn, command_timeout=SQL_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()


def _note(notebook: Notebook, after: str, looked_at: int, faults: Sequence[str]) -> None:
    """Note a check of this group; raises `NotHeld` where anything is amiss."""
    said = "; ".join(faults[:3])
    notebook.checks.append(Check(after=after, acknowledged=looked_at, held=not faults, detail=said))
    if faults:
        raise NotHeld(f"after {after}: {said}")

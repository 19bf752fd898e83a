"""The harness measures payments at a real service, and goes red where what was acknowledged is not in the books.

Owns tiny runs of the whole group, and the checks against a database that was spoiled between a run and its check.
No figure is judged here: only that each is there, and what must be true of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from bench import payments, trace_run
from bench.driver import drive, get_json
from bench.measures import Notebook
from bench.orders import random_payments
from bench.plan import Plan
from bench.stand import Stand
from bench.town import Town
from bench.verdicts import Claim, NotHeld, find_unsound
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_protocol.names import peer_of
from tests.running import Service, running

ACCOUNTS = 200
TINY = replace(
    Plan.short(), accounts=ACCOUNTS, seconds=0.1, v_seconds=0.05, disk_payments=1_500, idle_samples=10, quick=False
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@asynccontextmanager
async def town_at(service: Service) -> AsyncIterator[Town]:
    """A town of two hundred, at the service as if it were the harness's own."""
    assert service.process is not None
    private = PrivatePostgres(service.folder / "data")
    stand = Stand(
        service.url,
        pid=service.process.pid,
        database_dsn=private.dsn(role=private.owner, database="postgres"),
        ledger=peer_of((await get_json(service.url, "/v1"))["ledger"]),
        v_seconds=0.05,
    )
    town = await Town.settled(stand, Notebook(), accounts=ACCOUNTS)
    try:
        yield town
    finally:
        town.close()


async def paid(town: Town, count: int = 60) -> Claim:
    """Payments that were made and acknowledged, before anybody checks them."""
    requests = await town.sign(random_payments(town.draw, count, accounts=ACCOUNTS), each=20)
    run = await drive(town.stand.url, requests, connections=2, seconds=30.0)
    return Claim(after="payments", commons=town.commons, requests=requests, run=run)


# ── Measured ─────────────────────────────────────────────────────────────────────────────────────────────────────


def names_of(book: Notebook) -> set[str]:
    return {measure.name for measure in book.measures() if measure.runs}


async def test_each_workload_is_measured_at_a_service_of_its_own_and_its_books_are_proven() -> None:
    book, told = Notebook(), list[str]()
    workloads = frozenset({"pay.each-10", "pay.one-c16", "mixed", "idle", "disk.payment", "memory.service"})
    await payments.measure(replace(TINY, workloads=workloads), book, told.append)
    assert names_of(book) == workloads - {"idle"} | {"idle.p50", "idle.p99"}
    assert told[-1] == "proving the books"
    for measure in book.measures():
        assert len(measure.runs) == 1
        assert measure.median > 0
    details = {measure.name: measure.runs[0].details for measure in book.measures()}
    for name in ("pay.each-10", "pay.one-c16", "mixed", "idle.p50"):
        assert details[name].keys() >= {"p50_ms", "p95_ms", "p99_ms", "load_cores", "service_cores", "postgres_cores"}
        assert details[name]["accepted"] > 0
    assert details["disk.payment"]["payments"] >= 1_500
    assert all(check.held for check in book.checks)
    assert "reads" in next(check.detail for check in book.checks if check.after == "mixed")
    assert book.checks[-1].detail.startswith("gesell db check: ")


async def test_a_service_that_runs_already_is_measured_by_what_the_public_sees(service: Service) -> None:
    book = Notebook()
    workloads = frozenset({"pay.legs-100", "pay.hot", "disk.payment", "memory.service"})
    await payments.measure(replace(TINY, url=service.url, workloads=workloads), book, lambda _: None)
    assert names_of(book) == {"pay.legs-100", "pay.hot"}
    for measure in book.measures():
        if measure.runs:
            assert "service_cores" not in measure.runs[0].details
        else:
            assert "not ours" in measure.why_not
    assert book.checks[-1].detail.startswith("gesell audit: ")
    assert all(check.held for check in book.checks)


TRACE = """at_ms,kind,from,to,amount
1580000000000,disbursement,1,2,1000
1580000000001,standard,2,3,600
1580000000002,standard,2,3,500
1580000000003,reclamation,3,1,100
1580000000004,disbursement,1,9,1
"""


async def test_the_trace_is_judged_as_the_count_of_money_says(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    async with town_at(service) as town:
        await trace_run.measure(TINY, town, file=file)
        await trace_run.measure(replace(TINY, quick=True), town, file=file)
        (measure,) = town.notebook.measures()
        assert [run.details["accepted"] for run in measure.runs] == [4, 3]
        assert "5 transfers of 3 peers" in measure.title
        await trace_run.measure(TINY, town, file=tmp_path / "none.csv")
        assert "the trace is not here" in town.notebook.measures()[0].why_not


# ── Checks that can fail ─────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_acknowledged_is_found_in_the_books(service: Service) -> None:
    async with town_at(service) as town:
        assert await town.stand.check(town.notebook, await paid(town)) == 60
        (*_, check) = town.notebook.checks
        assert (check.held, check.acknowledged, check.detail) == (True, 60, "60 accepted")


IN_COMMONS = "commons_id = (SELECT commons_id FROM gesell.commons WHERE hash = $1)"
LAST = f"(SELECT max(seq) FROM gesell.entry WHERE {IN_COMMONS})"


async def spoil_in(dsn: str, command: str, commons: bytes) -> None:
    """Change one row behind the service's back, as the database's owner."""
    connection = await asyncpg.connect(dsn)
    try:
        assert (await connection.execute(command, commons)).endswith(" 1")
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (f"DELETE FROM gesell.posting WHERE {IN_COMMONS} AND seq = {LAST} AND n = 1", "1 entries' postings do not sum"),
        (
            f"UPDATE gesell.posting SET amount = amount + 1 WHERE {IN_COMMONS} AND seq = {LAST} AND n = 0",
            "the balance beside 1 postings is not the one before plus the amount",
        ),
        (
            f"UPDATE gesell.account SET balance = balance - 1 WHERE {IN_COMMONS}"
            f" AND number = (SELECT account FROM gesell.posting WHERE {IN_COMMONS} AND seq = {LAST} AND n = 0)",
            "1 accounts have another balance than their last posting says; all accounts of 1 assets do not sum to zero",
        ),
        (
            f"UPDATE gesell.entry SET leaf = sha256('another') WHERE {IN_COMMONS} AND seq = {LAST}",
            "do not hash to the checkpoint",
        ),
    ],
)
async def test_a_database_that_was_spoiled_ends_the_run(service: Service, spoil: str, says: str) -> None:
    async with town_at(service) as town:
        claim = await paid(town)
        assert town.stand.database_dsn is not None
        await spoil_in(town.stand.database_dsn, spoil, town.commons)
        with pytest.raises(NotHeld, match=says):
            await town.stand.check(town.notebook, claim)
        assert not town.notebook.checks[-1].held


async def test_a_lost_entry_ends_the_run(service: Service) -> None:
    async with town_at(service) as town:
        claim = await paid(town)
        dsn = town.stand.database_dsn
        assert dsn is not None
        await spoil_in(dsn, f"DELETE FROM gesell.entry WHERE {IN_COMMONS} AND seq = {LAST} - 5", town.commons)
        faults = await find_unsound(dsn, town.commons, start=2 * ACCOUNTS + 1, end=2 * ACCOUNTS + 61)
        assert faults == ["of 60 entries 1 are missing"]
        with pytest.raises(NotHeld, match="the log can't be read"):
            await town.stand.check(town.notebook, claim)


async def test_what_is_acknowledged_twice_ends_the_run(service: Service) -> None:
    async with town_at(service) as town:
        claim = await paid(town)
        await town.stand.check(town.notebook, claim)
        again = await drive(town.stand.url, claim.requests, connections=2, seconds=30.0)
        with pytest.raises(NotHeld, match="a statement sent once was replayed"):
            await town.stand.check(town.notebook, replace(claim, run=again))


async def test_a_receipt_of_an_earlier_run_is_none_of_a_later(service: Service) -> None:
    async with town_at(service) as town:
        claim = await paid(town)
        await town.stand.check(town.notebook, claim)
        with pytest.raises(NotHeld, match=r"was acknowledged, the log grew from 4\d\d to"):
            await town.stand.check(town.notebook, claim)


async def test_a_ledger_filled_by_others_is_checked_from_there_on(service: Service) -> None:
    async with town_at(service) as town:
        await paid(town)
        fresh = Stand(
            town.stand.url,
            pid=None,
            database_dsn=town.stand.database_dsn,
            ledger=town.stand.ledger,
            v_seconds=0.05,
        )
        assert await fresh.pass_over(town.commons) == 1 + 2 * ACCOUNTS + 60
        assert await fresh.check(town.notebook, await paid(town)) == 60
        assert town.notebook.checks[-1].detail == "60 accepted"


async def test_books_that_do_not_hold_are_not_proven() -> None:
    with running() as service:
        async with town_at(service) as town:
            assert town.stand.database_dsn is not None
            later = f"UPDATE gesell.entry SET at_ms = at_ms + 1 WHERE {IN_COMMONS} AND seq = {LAST}"
            await spoil_in(town.stand.database_dsn, later, town.commons)
            with pytest.raises(NotHeld, match="entry 401: the hash that is stored beside it is not its own"):
                await town.stand.prove(town.notebook, after="all")
            assert not town.notebook.checks[-1].held

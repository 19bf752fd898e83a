"""The baselines on a real PostgreSQL, and their check on books that were spoiled after a run.

Owns tiny runs; no figure is judged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from bench.floor import (
    check,
    commit_alone,
    database_of_its_own,
    lay_tables,
    pay_in_batches,
    pay_singly,
    write_batches,
)
from bench.measures import Notebook
from bench.verdicts import NotHeld
from tests.own_postgres import OwnPostgres, own_postgres

ACCOUNTS = 40


@pytest.fixture(scope="module")
def durable() -> Iterator[OwnPostgres]:
    """The check demands that the server is durable."""
    with own_postgres(fsync="on") as started:
        yield started


@pytest.fixture
async def dsn(durable: OwnPostgres) -> AsyncIterator[str]:
    async with database_of_its_own(durable.owner_dsn("postgres")) as dsn:
        await lay_tables(dsn, accounts=ACCOUNTS)
        yield dsn


async def paid_in_batches(dsn: str) -> int:
    return (await pay_in_batches(dsn, write_batches(3, accounts=ACCOUNTS), seconds=30)).count


async def spoil(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_commits_one_after_another_are_all_stored(dsn: str) -> None:
    done = await commit_alone(dsn, seconds=0.1)
    assert done.count == len(done.latencies) > 0
    assert done.seconds >= sum(done.latencies) > 0
    notebook = Notebook()
    await check(dsn, notebook, after="commit", done=done.count, accounts=ACCOUNTS)
    assert [(one.acknowledged, one.held) for one in notebook.checks] == [(done.count, True)]


async def test_payments_of_pgbench_are_all_stored_whatever_the_environment_says(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c nothing_of_the_kind=off")
    done = await pay_singly(dsn, accounts=ACCOUNTS, seconds=0.1)
    assert done.count > 0
    assert done.load_cores is not None
    await check(dsn, Notebook(), after="plain.single", done=done.count, accounts=ACCOUNTS)


async def test_batches_are_all_stored(dsn: str) -> None:
    done = await paid_in_batches(dsn)
    assert done == 3_000
    await check(dsn, Notebook(), after="plain.batch", done=done, accounts=ACCOUNTS)


async def test_a_payment_beyond_the_funds_is_refused(dsn: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await spoil(dsn, "SELECT pay(uuidv7(), 1, 2, (SELECT balance + 1 FROM account WHERE number = 1), '')")
    await check(dsn, Notebook(), after="plain.single", done=0, accounts=ACCOUNTS)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM payment WHERE id = (SELECT max(id::text)::uuid FROM payment)", "2999 of 3000 are stored"),
        ("DELETE FROM posting WHERE ctid = (SELECT min(ctid) FROM posting)", "1 payments are not whole"),
        ("UPDATE posting SET amount = amount + 1 WHERE ctid = (SELECT min(ctid) FROM posting)", "not whole"),
        ("UPDATE account SET balance = balance + 1 WHERE number = 1", "1 grains too many"),
        (
            "UPDATE account SET balance = balance + CASE number WHEN 1 THEN 1 ELSE -1 END WHERE number IN (1, 2)",
            "2 balances are not the sum",
        ),
        ("ALTER ROLE CURRENT_USER SET synchronous_commit = off", "not durable: synchronous_commit off"),
    ],
)
async def test_the_check_sees_damage_of_each_kind(dsn: str, damage: str, told: str) -> None:
    done = await paid_in_batches(dsn)
    notebook = Notebook()
    try:
        await spoil(dsn, damage)
        with pytest.raises(NotHeld, match=told):
            await check(dsn, notebook, after="plain.batch", done=done, accounts=ACCOUNTS)
    finally:
        await spoil(dsn, "ALTER ROLE CURRENT_USER RESET synchronous_commit")
    assert [one.held for one in notebook.checks] == [False]
    assert told in notebook.checks[0].detail


async def test_the_database_is_gone_afterwards_even_after_an_error(durable: OwnPostgres) -> None:
    async def fail_in_it() -> None:
        async with database_of_its_own(durable.owner_dsn("postgres")) as dsn:
            # Left open, as by a baseline that failed.
            connection = await asyncpg.connect(dsn)
            assert str(await connection.fetchval("SELECT current_database()")).startswith("bench_floor_")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_it()
    connection = await asyncpg.connect(durable.owner_dsn("postgres"))
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE 'bench_floor_%'") == 0
    finally:
        await connection.close()

"""How the sequencer's queries find rows in a database of many small commons and a large one.

Its connections keep the first plan of a query, and that plan knows only how large a commons is on average. A plan that
looks at all accounts of a commons for the two that pay is the better one for the small ones, and what brings the large
one to a halt. So rows are to be found by what tells them from the others of their commons.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.queries import queries
from tests.own_postgres import OwnPostgres

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

#: Commons number 0 has a hundred rows in every table, the others have four; number 1000 has a long log.
FILL = """
SET session_replication_role = replica;
CREATE TEMPORARY TABLE place AS
SELECT greatest(0, n - 97) / 4 AS commons_id, n, sha256(n::text::bytea) AS key, md5(n::text)::uuid AS id
FROM generate_series(1, 2000) AS n;
INSERT INTO gesell.account (commons_id, number, balance, escrow, tick, holder, asset, inflows)
SELECT commons_id, n, 0, 0, 0, key, 'WRG', '' FROM place;
INSERT INTO gesell.member (commons_id, peer, joined_ms, handle_held, barred, status, handle, spans, trusted, lent,
    vouchers, vouchees, awaits)
SELECT commons_id, key, 0, true, false, 'active', 'm' || n, '', 0, 0, 0, 0, 0 FROM place;
INSERT INTO gesell.gift (commons_id, seq, quantity, id, giver, receiver, kind, state)
SELECT commons_id, n, 1, id, key, key, 'hour', 'offered' FROM place;
INSERT INTO gesell.hold (commons_id, seq, amount, until_ms, id, payer, payee)
SELECT commons_id, n, 1, 1, id, key, key FROM place;
INSERT INTO gesell.vouch (commons_id, amount, voucher, vouchee)
SELECT commons_id, 1, key, sha256(key) FROM place;
INSERT INTO gesell.peer_key (commons_id, key, rank, live, peer)
SELECT commons_id, key, 1, true, key FROM place;
INSERT INTO gesell.entry (commons_id, seq, at_ms, id, body, signatures, leaf)
SELECT commons_id, n, 1, id, key, key || key || key, key FROM place;
INSERT INTO gesell.entry (commons_id, seq, at_ms, id, body, signatures, leaf)
SELECT 1000, n, 1, md5(n::text)::uuid, h, h || h || h, h
FROM generate_series(1, 20000) AS n, sha256(n::text::bytea) AS h;
INSERT INTO gesell.subtree (commons_id, level, place, hash)
SELECT 1000, 1, n, sha256(n::text::bytea) FROM generate_series(1, 20000) AS n;
ANALYZE;
"""
#: By which columns, beside the commons, rows of a table may be found.
KEYS: Mapping[str, tuple[set[str], ...]] = {
    "account": ({"holder", "asset"}, {"number"}),
    "member": ({"peer"}, {"handle"}),
    "gift": ({"id"},),
    "hold": ({"id"},),
    "vouch": ({"voucher", "vouchee"}, {"voucher"}, {"vouchee"}),
    "peer_key": ({"key"}, {"peer"}),
    "entry": ({"id"},),
    "subtree": ({"level"},),
}
#: The queries of small and large batches, and how often each looks into these tables. Of accounts that change it looks
#: at none: an INSERT with ON CONFLICT goes by the key in any case.
LOOKS = {
    "load_batch": 6,
    "load_holders": 1,
    "load_given": 5,
    "load_gift_accounts": 1,
    "update_accounts": 0,
    "append": 1,
}


@pytest.fixture
async def filled(postgres: OwnPostgres) -> AsyncIterator[Pool]:
    name = await asyncio.to_thread(postgres.make_database)
    await migrate(postgres.owner_dsn(name))
    owner = await asyncpg.connect(postgres.owner_dsn(name))
    await owner.execute(FILL)
    await owner.close()
    async with open_pool(postgres.service_dsn(name), connections=1, writing=True) as opened:
        yield opened


async def plan_of(pool: Pool, sql: str) -> Mapping[str, Any]:
    """The plan that the sequencer's connections would keep."""
    nothing = ", ".join(["NULL"] * max(int(number) for number in re.findall(r"\$(\d+)", sql)))
    async with pool.acquire() as connection:
        await connection.execute(f"PREPARE asked AS {sql}")
        explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({nothing})")
        await connection.execute("DEALLOCATE asked")
    found: Mapping[str, Any] = json.loads(explained)[0]["Plan"]
    return found


def scans_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every step that takes rows from one of the tables."""
    if "Scan" in plan["Node Type"] and plan.get("Relation Name") in KEYS:
        yield plan
    for step in plan.get("Plans", ()):
        yield from scans_of(step)


def by_key(scan: Mapping[str, Any]) -> bool:
    columns = set(re.findall(r"(\w+) = ", scan.get("Index Cond", "")))
    return any(columns == key | {"commons_id"} for key in KEYS[scan["Relation Name"]])


@pytest.mark.parametrize("name", LOOKS)
async def test_rows_are_found_by_their_keys_whatever_the_planner_takes_a_commons_for(filled: Pool, name: str) -> None:
    scans = list(scans_of(await plan_of(filled, queries("sequence")[name])))
    assert [scan for scan in scans if not by_key(scan)] == []
    assert len(scans) == LOOKS[name]


@pytest.mark.parametrize(("name", "range_of"), [("list_leaves", "seq"), ("list_subtrees", "place")])
async def test_a_tile_is_read_without_a_walk_through_the_log(filled: Pool, name: str, range_of: str) -> None:
    (scan,) = scans_of(await plan_of(filled, queries("trees")[name]))
    assert f"({range_of} >= " in scan.get("Index Cond", "")
    assert f"({range_of} <= " in scan.get("Index Cond", "")


async def test_a_plan_that_walks_through_a_commons_is_noticed(filled: Pool) -> None:
    """As the planner makes it of a condition on a list, and of a join, where nobody keeps it from doing so."""
    for sql in (
        "SELECT number FROM gesell.account WHERE commons_id = $1 AND holder = ANY($2::bytea[]) AND asset = $3",
        "UPDATE gesell.account a SET balance = u.balance FROM unnest($2::bigint[], $3::bigint[]) AS u (number, balance)"
        " WHERE a.commons_id = $1 AND a.number = u.number",
    ):
        scans = list(scans_of(await plan_of(filled, sql)))
        assert scans
        assert not all(by_key(scan) for scan in scans), sql

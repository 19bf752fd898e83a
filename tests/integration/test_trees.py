"""The trees as they are stored: tiles and proofs of any place and size come out of the rows, and databases from before
there were trees get theirs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from hashlib import sha256

import asyncpg
import pytest

from gesell_ledger.clock import DemoClock
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.audit import audit
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.rows import key_of
from gesell_ledger.storage.trees import Trees
from gesell_protocol.tree import (
    Frontier,
    Tile,
    check_consistency,
    check_inclusion,
    consistency_spans,
    inclusion_spans,
    tile_width,
    tiles_for,
)
from tests.own_postgres import OwnPostgres, own_postgres
from tests.speaking import name_of, signer_of, submission_of, write_envelope, write_found

COMMONS = bytes(range(16))
#: Two levels of whole tiles above the leaves, and something of each begun.
SIZE = 256 * 256 + 3 * 256 + 7
LEAVES = [sha256(place.to_bytes(4, "big")).digest() for place in range(SIZE)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as started:
        yield started


@pytest.fixture(scope="module")
def dsn(postgres: OwnPostgres) -> str:
    """A database with one tree of made-up leaves."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    asyncio.run(_plant(postgres.owner_dsn(name)))
    return postgres.service_dsn(name)


async def _plant(dsn: str) -> None:
    tree, subtrees = Frontier().grown(LEAVES)
    connection = await asyncpg.connect(dsn)
    where = key_of(COMMONS)
    await connection.execute(
        "INSERT INTO gesell.commons"
        " VALUES ($1, $2, 1, 0, 0, 1, 1, 2, 'WRG', 'W', $3, $4, ARRAY[$4::bytea], NULL, 0, $5)",
        where,
        SIZE,
        COMMONS,
        bytes(32),
        tree.pack(),
    )
    await connection.copy_records_to_table(
        "entry",
        schema_name="gesell",
        columns=["commons_id", "seq", "at_ms", "id", "body", "signatures", "leaf"],
        records=[
            (where, place + 1, 1, asyncpg.pgproto.pgproto.UUID(leaf[:16]), b"body", bytes(96), leaf)
            for place, leaf in enumerate(LEAVES)
        ],
    )
    await connection.copy_records_to_table(
        "subtree",
        schema_name="gesell",
        columns=["commons_id", "level", "place", "hash"],
        records=[(where, *node) for node in subtrees],
    )
    await connection.close()


async def test_every_level_has_its_tiles(dsn: str) -> None:
    async with open_pool(dsn) as pool:
        trees = Trees(pool)
        tree = await trees.load(COMMONS)
        assert tree is not None
        assert tree.frontier == Frontier().grown(LEAVES)[0]
        wanted = {Tile(level, 0, tile_width(level, 0, SIZE)) for level in range(3)}
        wanted |= {Tile(0, 258, 256), Tile(0, 259, 7), Tile(0, 259, 2), Tile(1, 1, 3)}
        tiles = await trees.load_tiles(COMMONS, wanted)
        assert {tile: len(tiles[tile]) // 32 for tile in wanted} == {tile: tile.width for tile in wanted}
        assert tiles[Tile(0, 259, 7)] == b"".join(LEAVES[-7:])
        assert tiles[Tile(2, 0, 1)] == Frontier().grown(LEAVES[: 256 * 256])[0].root
        assert await trees.load(bytes(16)) is None
        assert await trees.load(COMMONS[:8] + bytes(8)) is None


async def test_any_entry_of_any_size_is_proved(dsn: str) -> None:
    draw = random.Random(7)
    sizes = [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, SIZE, *(draw.randint(1, SIZE) for _ in range(6))]
    async with open_pool(dsn) as pool:
        trees = Trees(pool)
        for size in sizes:
            root = Frontier().grown(LEAVES[:size])[0].root
            for index in {0, size - 1, draw.randrange(size)}:
                proof = await trees.prove(COMMONS, inclusion_spans(index, size), size=size)
                check_inclusion(LEAVES[index], index=index, size=size, root=root, proof=proof)
            old = draw.randint(1, size)
            proof = await trees.prove(COMMONS, consistency_spans(old, size), size=size)
            old_root = Frontier().grown(LEAVES[:old])[0].root
            check_consistency(old=old, old_root=old_root, new=size, new_root=root, proof=proof)


async def test_a_proof_takes_few_tiles_however_large_the_tree() -> None:
    assert len(tiles_for(inclusion_spans(5, 10_000_000), 10_000_000)) <= 6


LEDGER, STEWARD, ADA, BOB = (signer_of(name) for name in ("ledger", "steward", "ada", "bob"))


async def _live(dsn: str) -> None:
    """A commons in which Ada pays Bob three hundred times."""
    clock = DemoClock(start_ms=1_800_000_000_000, speed=1)
    now = clock.now_ms()
    founding = write_found([STEWARD], ledger=LEDGER.public_key, now_ms=now)
    commons = name_of(founding)
    said = [founding]
    for handle, one in (("ada", ADA), ("bob", BOB)):
        said.append(write_envelope("join", one.public_key, [one], now_ms=now, commons=commons, handle=handle))
    key, legs = ADA.public_key, [[BOB.public_key, 1]]
    issue = write_envelope("issue", STEWARD.public_key, [STEWARD], now_ms=now, commons=commons, to=key, amount=1_000)
    said += [issue, *(write_envelope("pay", key, [ADA], now_ms=now, commons=commons, legs=legs) for _ in range(300))]
    async with open_pool(dsn) as pool:
        sequencer = Sequencer(pool, clock, ledger=LEDGER.public_key, metrics=Metrics())
        answers = await sequencer.submit([submission_of(one) for one in said])
        assert all(isinstance(answer, Receipted) for answer in answers), answers
        await sequencer.stop(seconds=5)


#: What undoes the migrations that brought trees.
WITHOUT_TREES = (
    "DROP TABLE gesell.subtree, gesell.handover",
    "ALTER TABLE gesell.entry DROP COLUMN leaf",
    "ALTER TABLE gesell.commons DROP COLUMN tree",
    "DELETE FROM gesell.migration WHERE number IN (6, 8)",
)


async def test_entries_from_before_there_were_trees_get_theirs(postgres: OwnPostgres) -> None:
    name = await asyncio.to_thread(postgres.make_database)
    owner = postgres.owner_dsn(name)
    await migrate(owner)
    for _ in range(2):
        await _live(postgres.service_dsn(name))
    query = "SELECT hash, seq, tree FROM gesell.commons ORDER BY hash"
    leaves = "SELECT commons_id, seq, leaf FROM gesell.entry ORDER BY 1, 2"
    nodes = "SELECT commons_id, level, place, hash FROM gesell.subtree ORDER BY 1, 2, 3"
    before = [await asyncio.to_thread(postgres.fetch, name, one) for one in (query, leaves, nodes)]
    assert max(seq for _, seq, _ in before[0]) > 300
    assert before[2]
    await asyncio.to_thread(postgres.execute, name, *WITHOUT_TREES)
    assert await migrate(owner) == ["add_trees", "require_leaves"]
    after = [await asyncio.to_thread(postgres.fetch, name, one) for one in (query, leaves, nodes)]
    assert after == before
    assert all(report.holds for report in await audit(owner))

"""The Merkle trees as they are stored, and what is read off them: tiles, proofs, hand-overs.

Owns the way from rows to tiles. A tile is made of the leaves beside the entries, or of the nodes of whole tiles one
level below; partial tiles of any width come out of the same rows, so nothing is ever rewritten. How trees hash is
`gesell_protocol.tree`'s, who may see an entry `api.rights`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_protocol.envelopes import Envelope
from gesell_protocol.tree import TILE_WIDTH, Frontier, Tile, hash_of, tiles_for

if TYPE_CHECKING:
    import asyncpg

    from gesell_ledger.storage.postgres import Pool

_TREES = queries("trees")
_READING = queries("reading")
_SEQUENCE = queries("sequence")
PAGE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A commons' tree as of its last entry, and the key that signs for it."""

    commons: bytes
    frontier: Frontier
    ledger: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Entry `seq`, by which the ledger went over to the key `ledger`."""

    seq: int
    ledger: bytes
    envelope: Envelope


class Trees:
    """Reads of the trees of one database. Safe for any number of requests at once.

    Trees only grow, so what is read of one of a certain size stays true: several queries need no common moment.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, commons: bytes) -> Tree | None:
        """The tree of a commons as it stands; None if it was not founded here."""
        row = await self._pool.fetchrow(_TREES["load_tree"], rows.key_of(commons))
        if row is None or row["hash"] != commons:
            return None
        return Tree(commons=commons, frontier=Frontier.unpack(row["seq"], row["tree"]), ledger=row["ledger"])

    async def load_tiles(self, commons: bytes, tiles: Iterable[Tile]) -> dict[Tile, bytes]:
        """The bytes of tiles that the tree reaches, two queries however many they are."""
        wanted = sorted(tiles)
        commons_id = rows.key_of(commons)
        runs = [(tile.level, tile.place * TILE_WIDTH, tile.place * TILE_WIDTH + tile.width - 1) for tile in wanted]
        hashes: dict[tuple[int, int], bytes] = {}
        # Leaf n stands beside entry n + 1.
        if leaves := [(first + 1, last + 1) for level, first, last in runs if level == 0]:
            found = await self._pool.fetch(_TREES["list_leaves"], commons_id, *map(list, zip(*leaves, strict=True)))
            hashes |= {(0, row["seq"] - 1): row["leaf"] for row in found}
        if above := [run for run in runs if run[0] > 0]:
            found = await self._pool.fetch(_TREES["list_subtrees"], commons_id, *map(list, zip(*above, strict=True)))
            hashes |= {(row["level"], row["place"]): row["hash"] for row in found}
        return {
            tile: b"".join([hashes[level, place] for place in range(first, last + 1)])
            for tile, (level, first, last) in zip(wanted, runs, strict=True)
        }

    async def prove(self, commons: bytes, spans: Sequence[tuple[int, int]], *, size: int) -> list[bytes]:
        """The hashes over spans of leaves of the tree of `size` leaves: a proof, as `gesell_protocol.tree` names it."""
        tiles = await self.load_tiles(commons, tiles_for(spans, size))
        return [hash_of(start, end, size, tiles) for start, end in spans]

    async def list_handovers(self, commons: bytes) -> list[Handover]:
        """How the ledger's key changed hands, in order."""
        return [
            Handover(
                seq=row["seq"],
                ledger=row["ledger"],
                envelope=Envelope(row["body"], rows.read_signatures(row["signatures"])),
            )
            for row in await self._pool.fetch(_TREES["list_handovers"], rows.key_of(commons))
        ]

    async def find_foreign(self, *ledger: bytes) -> tuple[bytes, bytes] | None:
        """A commons for whose log another key speaks than these, with that key."""
        row = await self._pool.fetchrow(_TREES["find_foreign"], list(ledger))
        return None if row is None else (row["hash"], row["ledger"])

    async def list_of_ledger(self, ledger: bytes, *, limit: int) -> list[bytes]:
        """Some of the commons for whose logs a key speaks; none if there are none."""
        return [row["hash"] for row in await self._pool.fetch(_TREES["list_of_ledger"], ledger, limit)]


async def fill_trees(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Grow the trees over what was stored before there were any, a page at a time. Runs once, within its migration."""
    for head in await connection.fetch(_READING["list_all_commons"]):
        commons_id, commons = head["commons_id"], head["hash"]
        tree = Frontier()
        while found := await connection.fetch(_READING["list_entries"], commons_id, tree.size, PAGE):
            seqs = [row["seq"] for row in found]
            postings = rows.read_postings(await connection.fetch(_SEQUENCE["load_postings"], commons_id, seqs))
            leaves = [rows.read_entry(commons, row, postings[row["seq"]]).leaf for row in found]
            tree, subtrees = tree.grown(leaves)
            await connection.execute(_TREES["fill_leaves"], commons_id, seqs, leaves)
            await connection.copy_records_to_table(
                "subtree",
                schema_name="gesell",
                columns=["commons_id", "level", "place", "hash"],
                records=[(commons_id, *subtree) for subtree in subtrees],
            )
        await connection.execute(_TREES["fill_tree"], commons_id, tree.pack())

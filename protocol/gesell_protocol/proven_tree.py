"""A tree that a ledger's tiles were shown to be: they hash to the root that it signed (SPEC §6, RFC 6962 §2.1).

Owns which tiles are needed, and the check that binds each to the root. Pure: who fetches tiles hands them in. What is
read off a `ProvenTree` is as true as the root; what could not be proven raises `BadProof` and accuses nobody, since
whoever stands in between can spoil a tile.

1. The tiles at the right edge of a tree hold its peaks and nothing else, which fold into the root.
2. Every other tile is full; its hash stands in the tile above it, and so up to the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gesell_protocol.tree import (
    HASH_BYTES,
    TILE_WIDTH,
    BadProof,
    Frontier,
    Tile,
    consistency_spans,
    hash_of,
    split_hashes,
    tile_width,
    tiles_for,
)


def tiles_of(size: int, *, earlier: Iterable[int] = (), leaves: Iterable[int] = ()) -> set[Tile]:
    """The tiles by which a tree of `size` leaves proves its `earlier` sizes and the leaves of these indexes."""
    spans = [(0, size)]
    for old in earlier:
        spans += [(0, old), *consistency_spans(old, size)]
    wanted = tiles_for(spans, size)
    wanted |= {Tile(0, place, tile_width(0, place, size)) for place in {index // TILE_WIDTH for index in leaves}}
    for tile in tuple(wanted):
        while tile.width == TILE_WIDTH:
            tile = _above(tile, size)
            wanted.add(tile)
    return wanted


class ProvenTree:
    """The tree of `size` leaves with this root, as far as its tiles tell."""

    def __init__(self, *, size: int, root: bytes, tiles: Mapping[Tile, bytes]) -> None:
        """Check all tiles against the root; raises `BadProof` if they are not this tree's.

        `tiles` are those of `tiles_of`. It takes a hash for each hash in them.
        """
        self.size = size
        self._tiles = tiles
        if hash_of(0, size, size, tiles) != root:
            raise BadProof("the tiles do not hash to the root")
        for tile in tiles:
            if tile.width == TILE_WIDTH:
                self._check_full(tile)

    def leaf(self, index: int) -> bytes:
        """The hash of leaf `index`."""
        tile = Tile(0, index // TILE_WIDTH, tile_width(0, index // TILE_WIDTH, self.size))
        return self._hash_in(tile, index % TILE_WIDTH)

    def root_at(self, size: int) -> bytes:
        """The root that this tree had when it was of an earlier size."""
        return hash_of(0, size, self.size, self._tiles)

    def proof_since(self, size: int) -> tuple[bytes, ...]:
        """The consistency proof (RFC 6962 §2.1.2) of this tree for an earlier size."""
        spans = consistency_spans(size, self.size)
        return tuple(hash_of(start, end, self.size, self._tiles) for start, end in spans)

    def _check_full(self, tile: Tile) -> None:
        [whole] = Frontier().grown(split_hashes(self._tiles[tile]))[0].peaks
        if self._hash_in(_above(tile, self.size), tile.place % TILE_WIDTH) != whole:
            raise BadProof(f"tile {tile.path} does not hash to what stands above it")

    def _hash_in(self, tile: Tile, place: int) -> bytes:
        return self._tiles[tile][place * HASH_BYTES : (place + 1) * HASH_BYTES]


def _above(tile: Tile, size: int) -> Tile:
    place = tile.place // TILE_WIDTH
    return Tile(tile.level + 1, place, tile_width(tile.level + 1, place, size))

"""The Merkle tree over a commons' log (SPEC §6; RFC 6962 §2.1, C2SP tlog-tiles): growing it, and proving from it.

Owns the shape of the tree: how leaves fold into a root, which tile holds which hash, which hashes make a proof, and
what a proof proves. Pure: who has tiles hands them in, so that the ledger, a client and an auditor prove by one code.

1. A node is the hash of 2^height leaves that begin at a multiple of 2^height; it never changes once they are there.
2. A tree of n leaves is its peaks: one node for each bit of n that is set, the largest first. They fold into the root
   from the smallest on.
3. A tile of level L holds up to 256 neighbouring nodes of height 8·L; nodes between these heights are hashed anew.
4. Verification raises `BadProof` and never returns a bool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

HASH_BYTES: Final = 32
#: Nodes in a full tile, and the height of the tree that stands on them.
TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
#: No tree has more leaves: what a proof or a checkpoint can claim is bounded by it.
SIZE_MAX: Final = 2**63 - 1
EMPTY_ROOT: Final = sha256(b"").digest()
#: Begun once and copied: to look the algorithm up takes as long as to hash two nodes.
_NODE: Final = sha256(b"\x01")


class BadProof(ValueError):
    """A proof, a tile or a root does not fit; the message says which."""


class Node(NamedTuple):
    """The complete subtree over leaves [place · 2^height, (place + 1) · 2^height)."""

    height: int
    place: int


class Tile(NamedTuple):
    """Which tile: its level, its place in that level, and how many nodes it has, 1 to 256."""

    level: int
    place: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Its path below `tile/`, as in `1/x001/234.p/7`."""
        return f"{self.level}/{place_path(self.place, self.width)}"


class Subtree(NamedTuple):
    """A node of height 8·level, level 1 or more: the hash of a full tile of the level below."""

    level: int
    place: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree by its size and its peaks: all that growing it needs (rule 2)."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX or len(self.peaks) != self.size.bit_count():
            raise BadProof("the peaks are not those of a tree of this size")

    @staticmethod
    def unpack(size: int, packed: bytes) -> Frontier:
        """The tree of `size` leaves whose peaks were packed; raises `BadProof` if they can't be its."""
        return Frontier(size, split_hashes(packed))

    def pack(self) -> bytes:
        """The peaks, 32 bytes each, the largest first."""
        return b"".join(self.peaks)

    def grown(self, leaves: Iterable[bytes]) -> tuple[Frontier, list[Subtree]]:
        """The tree with more leaf hashes, and the subtrees of whole tiles that they complete, in their order.

        About two hashes a leaf, whatever the size of the tree.
        """
        peaks, size, subtrees = list(self.peaks), self.size, list[Subtree]()
        for leaf in leaves:
            peaks.append(leaf)
            size += 1
            height, rest = 0, size
            while not rest & 1:
                right = peaks.pop()
                peaks[-1] = node_hash(peaks[-1], right)
                height, rest = height + 1, rest >> 1
                if height % TILE_HEIGHT == 0:
                    subtrees.append(Subtree(height // TILE_HEIGHT, rest - 1, peaks[-1]))
        return Frontier(size, tuple(peaks)), subtrees

    @property
    def root(self) -> bytes:
        """The root hash; that of an empty tree is the hash of nothing."""
        return _folded(self.peaks)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbouring nodes (RFC 6962 §2.1)."""
    hashed = _NODE.copy()
    hashed.update(left + right)
    return hashed.digest()


def split_hashes(packed: bytes) -> tuple[bytes, ...]:
    """The hashes of a tile or of packed peaks; raises `BadProof` for a cut one."""
    if len(packed) % HASH_BYTES:
        raise BadProof("a hash is cut off")
    return tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES))


def _folded(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


# ── Tiles ────────────────────────────────────────────────────────────────────────────────────────────────────────


def place_path(place: int, width: int) -> str:
    """The place of a tile or an entry bundle within its level as a path: `x001/234`, or `x001/234.p/7` if partial."""
    digits = f"{place % 1000:03}"
    while place >= 1000:
        place //= 1000
        digits = f"x{place % 1000:03}/{digits}"
    return digits if width == TILE_WIDTH else f"{digits}.p/{width}"


def read_place(path: str) -> tuple[int, int]:
    """Place and width that a path names; raises `ValueError` for any but the one way to write them."""
    digits, partial, tail = path.partition(".p/")
    parts = digits.split("/")
    if len(parts) > 7 or not all(part.startswith("x") for part in parts[:-1]):
        raise ValueError("not the path of a tile")
    numbers = [part[1:] for part in parts[:-1]] + parts[-1:]
    if not all(len(number) == 3 and _digits(number) for number in numbers):
        raise ValueError("not the path of a tile")
    if partial and not _digits(tail):
        raise ValueError("not the width of a tile")
    place, width = int("".join(numbers)), int(tail) if partial else TILE_WIDTH
    if place > SIZE_MAX or place_path(place, width) != path or (partial and not 1 <= width < TILE_WIDTH):
        raise ValueError("not the path of a tile")
    return place, width


def _digits(text: str) -> bool:
    return 0 < len(text) <= 3 and text.isascii() and text.isdigit()


def tile_width(level: int, place: int, size: int) -> int:
    """How many nodes tile `place` of a level has in a tree of `size` leaves; 0 if there is none."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - place * TILE_WIDTH))


def tile_with(node: Node, size: int) -> Tile:
    """The tile from which a node of a tree of `size` leaves is had."""
    level = node.height // TILE_HEIGHT
    place = (node.place << (node.height % TILE_HEIGHT)) // TILE_WIDTH
    return Tile(level, place, tile_width(level, place, size))


def tiles_for(spans: Iterable[tuple[int, int]], size: int) -> set[Tile]:
    """The tiles of a tree of `size` leaves that hold what `hash_of` needs for some spans of leaves."""
    return {tile_with(node, size) for start, end in spans for node in _nodes_of(start, end)}


def hash_of(start: int, end: int, size: int, tiles: Mapping[Tile, bytes]) -> bytes:
    """The hash over leaves [start, end) of a tree of `size` leaves, from its tiles (as `tiles_for` names them).

    `start` is a multiple of the largest power of two below the span's length, as it is in every proof. Raises
    `BadProof` for a tile that has not its width, `KeyError` for one that is missing.
    """
    return _folded([_node_in(node, tile_with(node, size), tiles) for node in _nodes_of(start, end)])


def _node_in(node: Node, tile: Tile, tiles: Mapping[Tile, bytes]) -> bytes:
    packed = tiles[tile]
    if len(packed) != tile.width * HASH_BYTES:
        raise BadProof(f"tile {tile.path} has not {tile.width} hashes")
    span = 1 << (node.height % TILE_HEIGHT)
    first = node.place * span - tile.place * TILE_WIDTH
    row = split_hashes(packed[first * HASH_BYTES : (first + span) * HASH_BYTES])
    while len(row) > 1:
        row = tuple(node_hash(*pair) for pair in zip(row[::2], row[1::2], strict=True))
    return row[0]


def _nodes_of(start: int, end: int) -> Iterator[Node]:
    """The complete subtrees that make up a span of leaves, left to right, which is largest first."""
    while start < end:
        height = (end - start).bit_length() - 1
        if start % (1 << height):
            raise ValueError("no proof has a span like this")
        yield Node(height, start >> height)
        start += 1 << height


# ── Proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def inclusion_spans(index: int, size: int) -> list[tuple[int, int]]:
    """The spans of leaves whose hashes prove leaf `index` of `size`: from its sibling to the root's child (§2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("a proof is of a leaf that the tree has")
    start, end, spans = 0, size, list[tuple[int, int]]()
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start = split
    return spans[::-1]


def consistency_spans(old: int, new: int) -> list[tuple[int, int]]:
    """The spans of leaves whose hashes prove that a tree of `new` leaves begins with that of `old` (§2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError("the later tree is the larger one")
    if old in (0, new):
        return []
    start, end, spans, whole = 0, new, list[tuple[int, int]](), True
    while old != end:
        split = start + _split(end - start)
        if old <= split:
            spans.append((split, end))
            end = split
        else:
            spans.append((start, split))
            start, whole = split, False
    return [*([] if whole else [(start, end)]), *spans[::-1]]


def _split(count: int) -> int:
    """The largest power of two below a count of at least two."""
    return 1 << ((count - 1).bit_length() - 1)


def root_of_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a tree of `size` leaves has if `leaf` is its leaf `index`; raises `BadProof` for a wrong length."""
    if not 0 <= index < size <= SIZE_MAX:
        raise BadProof("the tree has no such leaf")
    place, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the proof is too long")
        if place & 1 or place == last:
            root = node_hash(sibling, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the proof is too short")
    return root


def check_inclusion(leaf: bytes, *, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that `leaf` is leaf `index` of the tree with this size and root; raises `BadProof`."""
    if root_of_inclusion(leaf, index=index, size=size, proof=proof) != root:
        raise BadProof("the entry is not in the tree")


def check_consistency(*, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` leaves begins with all `old` leaves of the other; raises `BadProof`."""
    if not 0 <= old <= new <= SIZE_MAX:
        raise BadProof("the later tree is not the larger one")
    if old in (0, new):
        if proof or (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
            raise BadProof("the trees are not the same")
        return
    before, after = roots_of_consistency(old=old, old_root=old_root, new=new, proof=proof)
    if before != old_root or after != new_root:
        raise BadProof("the later tree does not begin with the earlier one")


def roots_of_consistency(*, old: int, old_root: bytes, new: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The roots that trees of `old` and `new` leaves, 0 < old < new, have by a proof; raises `BadProof` for a wrong
    length. Where `old` is a power of two, proofs leave the old root out: it is taken as it is given.
    """
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise BadProof("the proof is too short")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise BadProof("the proof is too long")
        if place & 1 or place == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the proof is too short")
    return before, after

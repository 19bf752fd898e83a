"""The tree over a log: held against RFC 6962 said plainly, against published roots, and against every kind of lie.

Owns the plain twin: recursion over lists of leaves, word for word what the RFC defines, with no thought of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_protocol.tree import (
    EMPTY_ROOT,
    SIZE_MAX,
    TILE_WIDTH,
    BadProof,
    Frontier,
    Node,
    Subtree,
    Tile,
    check_consistency,
    check_inclusion,
    consistency_spans,
    hash_of,
    inclusion_spans,
    place_path,
    read_place,
    root_of_inclusion,
    split_hashes,
    tile_width,
    tile_with,
    tiles_for,
)

#: Sizes at which tiles and levels begin and end, with their neighbours.
EDGES: Final = (1, 2, 3, 255, 256, 257, 511, 512, 513, 768, 65_535, 65_536, 65_537, 65_792, 65_793, 66_050)
MOST: Final = 66_100


class Plain:
    """RFC 6962 §2.1 by its recursive definitions. Keeps what it has hashed, since it is asked for much of it twice."""

    def __init__(self, count: int) -> None:
        self.leaves = [sha256(b"\x00" + number.to_bytes(8, "big")).digest() for number in range(count)]
        self._hashed: dict[tuple[int, int], bytes] = {}

    def root(self, size: int, start: int = 0) -> bytes:
        """MTH(D[start:size])."""
        if start == size:
            return sha256(b"").digest()
        if size - start == 1:
            return self.leaves[start]
        if (start, size) not in self._hashed:
            split = start + halved(size - start)
            both = self.root(split, start) + self.root(size, split)
            self._hashed[start, size] = sha256(b"\x01" + both).digest()
        return self._hashed[start, size]

    def path(self, index: int, size: int, start: int = 0) -> list[bytes]:
        """PATH(index - start, D[start:size])."""
        if size - start == 1:
            return []
        split = start + halved(size - start)
        if index < split:
            return [*self.path(index, split, start), self.root(size, split)]
        return [*self.path(index, size, split), self.root(split, start)]

    def proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[0:new])."""
        return self._sub(old, new, 0, whole=True) if 0 < old < new else []

    def _sub(self, old: int, new: int, start: int, *, whole: bool) -> list[bytes]:
        if old == new:
            return [] if whole else [self.root(new, start)]
        split = start + halved(new - start)
        if old <= split:
            return [*self._sub(old, split, start, whole=whole), self.root(new, split)]
        return [*self._sub(old, new, split, whole=False), self.root(split, start)]

    def tile(self, tile: Tile) -> bytes:
        """A tile, hash by hash, as C2SP tlog-tiles defines it over MTH."""
        span = 256**tile.level
        first = tile.place * 256
        return b"".join(self.root((place + 1) * span, place * span) for place in range(first, first + tile.width))


def halved(count: int) -> int:
    """The largest power of two that is less than `count`."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


PLAIN: Final = Plain(MOST)


class Tiles(dict[Tile, bytes]):
    """The plain tree's tiles, made when they are asked for."""

    def __missing__(self, tile: Tile) -> bytes:
        self[tile] = PLAIN.tile(tile)
        return self[tile]


TILES: Final = Tiles()


def proof_of(spans: list[tuple[int, int]], size: int) -> list[bytes]:
    """The hashes over spans, from only those tiles that `tiles_for` names."""
    tiles = {tile: TILES[tile] for tile in tiles_for(spans, size)}
    return [hash_of(start, end, size, tiles) for start, end in spans]


def frontier(size: int) -> Frontier:
    return Frontier().grown(PLAIN.leaves[:size])[0]


# ── Roots ────────────────────────────────────────────────────────────────────────────────────────────────────────

#: The entries and the roots of their first n that implementations of RFC 6962 have been held against since 2013.
KNOWN: Final = (
    ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
)


def test_roots_are_those_that_other_implementations_of_the_rfc_have() -> None:
    tree = Frontier()
    for data, root in KNOWN:
        tree, _ = tree.grown([sha256(b"\x00" + bytes.fromhex(data)).digest()])
        assert tree.root.hex() == root


def test_the_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    assert Frontier().root == EMPTY_ROOT == sha256(b"").digest()
    assert Frontier().pack() == b""
    assert Frontier().grown([]) == (Frontier(), [])


def test_every_root_up_to_600_is_the_plain_one_though_the_tree_grew_leaf_by_leaf() -> None:
    tree = Frontier()
    for size in range(1, 601):
        tree, _ = tree.grown(PLAIN.leaves[size - 1 : size])
        assert tree.root == PLAIN.root(size)
        assert len(tree.peaks) == size.bit_count()


@pytest.mark.parametrize("size", EDGES)
def test_the_root_at_an_edge_is_the_plain_one(size: int) -> None:
    assert frontier(size).root == PLAIN.root(size)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.sampled_from((0, 250, 65_400)))
def test_growing_in_any_pieces_gives_the_same_tree_and_the_same_subtrees(pieces: list[int], start: int) -> None:
    tree, subtrees = frontier(start), list[Subtree]()
    for count in pieces:
        again = Frontier.unpack(tree.size, tree.pack())
        assert again == tree
        tree, more = again.grown(PLAIN.leaves[tree.size : min(MOST, tree.size + count)])
        subtrees += more
    assert tree.root == PLAIN.root(tree.size)
    at_once = frontier(start).grown(PLAIN.leaves[start : tree.size])
    assert at_once == (tree, subtrees)


def test_subtrees_are_the_hashes_of_full_tiles_in_the_order_of_their_completion() -> None:
    _, subtrees = Frontier().grown(PLAIN.leaves[:65_800])
    assert [(one.level, one.place) for one in subtrees if one.level == 1] == [(1, place) for place in range(257)]
    assert [(one.level, one.place) for one in subtrees if one.level > 1] == [(2, 0)]
    assert subtrees[255:258] == [
        Subtree(1, 255, PLAIN.root(65_536, 65_280)),
        Subtree(2, 0, PLAIN.root(65_536)),
        Subtree(1, 256, PLAIN.root(65_792, 65_536)),
    ]
    assert all(one.hash == PLAIN.root((one.place + 1) * 256, one.place * 256) for one in subtrees if one.level == 1)


@pytest.mark.parametrize(
    ("size", "peaks"),
    [(0, 1), (1, 0), (1, 2), (3, 1), (255, 7), (256, 8), (-1, 0), (SIZE_MAX + 1, 1), (SIZE_MAX, 62)],
)
def test_peaks_that_are_not_those_of_a_size_are_refused(size: int, peaks: int) -> None:
    with pytest.raises(BadProof):
        Frontier.unpack(size, bytes(32 * peaks))
    with pytest.raises(BadProof):
        Frontier(size, (bytes(32),) * peaks)


@pytest.mark.parametrize("length", [1, 31, 33, 63, 65])
def test_a_cut_hash_is_refused(length: int) -> None:
    with pytest.raises(BadProof):
        split_hashes(bytes(length))
    with pytest.raises(BadProof):
        Frontier.unpack(1, bytes(length))


# ── Tiles ────────────────────────────────────────────────────────────────────────────────────────────────────────

#: How C2SP tlog-tiles and Go's tlog write places.
PLACES: Final = (
    (0, 256, "000"),
    (0, 1, "000.p/1"),
    (7, 255, "007.p/255"),
    (999, 256, "999"),
    (1_000, 256, "x001/000"),
    (1_234, 7, "x001/234.p/7"),
    (1_234_067, 256, "x001/x234/067"),
    (1_000_000, 16, "x001/x000/000.p/16"),
    (SIZE_MAX, 256, "x009/x223/x372/x036/x854/x775/807"),
)


@pytest.mark.parametrize(("place", "width", "path"), PLACES)
def test_a_place_is_written_in_threes(place: int, width: int, path: str) -> None:
    assert place_path(place, width) == path
    assert read_place(path) == (place, width)
    assert Tile(2, place, width).path == f"2/{path}"


@given(st.integers(0, SIZE_MAX), st.integers(1, TILE_WIDTH))
def test_every_place_is_read_as_it_was_written(place: int, width: int) -> None:
    assert read_place(place_path(place, width)) == (place, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "00",
        "0000",
        "/000",
        "000/",
        "x000",
        "x000/000",
        "x000/001",
        "000/001",
        "x001/x002",
        "x01/000",
        "X001/000",
        "001/000",
        "x001//000",
        "+01",
        "-01",
        " 01",
        "0_1",
        "00a",
        "٠٠٠",
        "00²",
        "000.p",
        "000.p/",
        "000.p/0",
        "000.p/01",
        "000.p/256",
        "000.p/257",
        "000.p/1000",
        "000.p/-1",
        "000.p/+1",
        "000.p/1/2",
        "000.p/1.p/1",
        "000.p/٣",
        "000.P/1",
        "000 .p/1",
        "000\n",
        "000.p/1\n",
        "../000",
        "%30%30%30",
        "x009/x223/x372/x036/x854/x775/808",
        "x001/x000/x000/x000/x000/x000/x000/000",
        "x" * 10_000,
    ],
)
def test_a_path_that_is_written_otherwise_is_refused(path: str) -> None:
    with pytest.raises(ValueError):
        read_place(path)


@given(st.text("x0123456789/.p", max_size=16))
def test_there_is_one_way_to_write_a_place(path: str) -> None:
    try:
        place, width = read_place(path)
    except ValueError:
        return
    assert place_path(place, width) == path


def test_the_tiles_of_a_tree_of_70_000_are_those_of_the_example_in_tlog_tiles() -> None:
    widths = [[tile_width(level, place, 70_000) for place in range(276)] for level in range(4)]
    assert widths[0] == [256] * 273 + [112, 0, 0]
    assert widths[1] == [256, 17] + [0] * 274
    assert widths[2] == [1] + [0] * 275
    assert widths[3] == [0] * 276
    assert [tile_width(level, 0, 256) for level in (0, 1, 2)] == [256, 1, 0]


@pytest.mark.parametrize(
    ("node", "size", "tile"),
    [
        (Node(0, 0), 1, Tile(0, 0, 1)),
        (Node(0, 255), 256, Tile(0, 0, 256)),
        (Node(0, 256), 300, Tile(0, 1, 44)),
        (Node(7, 1), 256, Tile(0, 0, 256)),
        (Node(7, 2), 400, Tile(0, 1, 144)),
        (Node(8, 0), 256, Tile(1, 0, 1)),
        (Node(8, 256), 65_792, Tile(1, 1, 1)),
        (Node(15, 1), 70_000, Tile(1, 0, 256)),
        (Node(16, 0), 70_000, Tile(2, 0, 1)),
    ],
)
def test_a_node_is_had_from_the_tile_of_the_level_below_its_height(node: Node, size: int, tile: Tile) -> None:
    assert tile_with(node, size) == tile


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_the_root_is_had_from_tiles(data: st.DataObject) -> None:
    size = data.draw(sizes())
    tiles = {tile: TILES[tile] for tile in tiles_for([(0, size)], size)}
    assert hash_of(0, size, size, tiles) == PLAIN.root(size)
    assert all(tile.width == tile_width(tile.level, tile.place, size) for tile in tiles)


def test_a_missing_tile_is_told_from_a_bad_one() -> None:
    (tile,) = tiles_for([(0, 5)], 5)
    with pytest.raises(KeyError):
        hash_of(0, 5, 5, {})
    for packed in (b"", TILES[tile][:-1], TILES[tile][:-32], TILES[tile] + bytes(32)):
        with pytest.raises(BadProof, match=tile.path):
            hash_of(0, 5, 5, {tile: packed})


@pytest.mark.parametrize(("start", "end"), [(1, 3), (3, 5), (3, 6), (64, 257), (1, 257)])
def test_a_span_that_no_proof_has_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError):
        tiles_for([(start, end)], 1_000)


def test_a_proof_of_a_tree_as_large_as_can_be_takes_few_tiles() -> None:
    for index in (0, 1, 2**62, SIZE_MAX - 1):
        spans = inclusion_spans(index, SIZE_MAX)
        assert len(spans) <= 63
        assert len(tiles_for(spans, SIZE_MAX)) <= 16
    assert len(consistency_spans(2**62 - 1, SIZE_MAX)) <= 64


# ── Proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sizes() -> st.SearchStrategy[int]:
    """Any size there are leaves for, those at edges more often."""
    return st.one_of(st.integers(1, 700), st.sampled_from(EDGES), st.integers(65_500, MOST), st.integers(1, MOST))


def test_every_proof_in_trees_of_up_to_40_is_the_plain_one_and_holds() -> None:
    for size in range(1, 41):
        root = PLAIN.root(size)
        for index in range(size):
            proof = proof_of(inclusion_spans(index, size), size)
            assert proof == PLAIN.path(index, size)
            check_inclusion(PLAIN.leaves[index], index=index, size=size, root=root, proof=proof)
        for old in range(size + 1):
            proof = proof_of(consistency_spans(old, size), size)
            assert proof == PLAIN.proof(old, size)
            check_consistency(old=old, old_root=PLAIN.root(old), new=size, new_root=root, proof=proof)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_proof_of_inclusion_from_tiles_is_the_plain_one_and_holds(data: st.DataObject) -> None:
    size = data.draw(sizes())
    index = data.draw(st.one_of(st.integers(0, size - 1), st.sampled_from((0, size // 2, size - 1))))
    proof = proof_of(inclusion_spans(index, size), size)
    assert proof == PLAIN.path(index, size)
    check_inclusion(PLAIN.leaves[index], index=index, size=size, root=PLAIN.root(size), proof=proof)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_proof_of_consistency_from_tiles_is_the_plain_one_and_holds(data: st.DataObject) -> None:
    new = data.draw(sizes())
    old = data.draw(st.one_of(st.integers(0, new), st.sampled_from([one for one in (0, *EDGES) if one <= new])))
    proof = proof_of(consistency_spans(old, new), new)
    assert proof == PLAIN.proof(old, new)
    check_consistency(old=old, old_root=PLAIN.root(old), new=new, new_root=PLAIN.root(new), proof=proof)


def altered(proof: list[bytes]) -> Iterator[list[bytes]]:
    """A proof with one thing wrong: a hash changed, dropped, doubled, moved, added, cut or lengthened."""
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]
    for place, one in enumerate(proof):
        yield proof[:place] + proof[place + 1 :]
        yield [*proof[:place], one, *proof[place:]]
        for bit in (0, 7, 255):
            flipped = (int.from_bytes(one, "big") ^ 1 << bit).to_bytes(32, "big")
            yield [*proof[:place], flipped, *proof[place + 1 :]]
        yield [*proof[:place], one[:-1], *proof[place + 1 :]]
        yield [*proof[:place], one + b"\x00", *proof[place + 1 :]]
        if place:
            yield [*proof[: place - 1], one, proof[place - 1], *proof[place + 1 :]]


INCLUSIONS: Final = (
    (0, 1),
    (0, 2),
    (2, 3),
    (4, 5),
    (6, 7),
    (3, 8),
    (255, 256),
    (256, 257),
    (300, 600),
    (65_536, 65_537),
)


@pytest.mark.parametrize(("index", "size"), INCLUSIONS)
def test_an_inclusion_that_is_altered_anywhere_is_refused(index: int, size: int) -> None:
    leaf, root, proof = PLAIN.leaves[index], PLAIN.root(size), PLAIN.path(index, size)
    for lie in altered(proof):
        with pytest.raises(BadProof):
            check_inclusion(leaf, index=index, size=size, root=root, proof=lie)
    for lie in (bytes(32), PLAIN.leaves[index + 1], leaf[:-1]):
        with pytest.raises(BadProof):
            check_inclusion(lie, index=index, size=size, root=root, proof=proof)
    with pytest.raises(BadProof):
        check_inclusion(leaf, index=index, size=size, root=bytes(32), proof=proof)


def test_an_inclusion_proves_nothing_for_another_place_in_the_tree() -> None:
    for size in range(1, 34):
        for index in range(size):
            proof = PLAIN.path(index, size)
            for other in {*range(-1, size + 2)} - {index}:
                with pytest.raises(BadProof):
                    check_inclusion(PLAIN.leaves[index], index=other, size=size, root=PLAIN.root(size), proof=proof)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (5, 4), (0, SIZE_MAX + 1), (2**70, 2**71)])
def test_a_leaf_that_a_tree_cannot_have_is_refused(index: int, size: int) -> None:
    with pytest.raises(BadProof):
        check_inclusion(bytes(32), index=index, size=size, root=bytes(32), proof=[])
    if size <= SIZE_MAX:
        with pytest.raises(ValueError):
            inclusion_spans(index, size)


def test_an_inner_node_is_no_leaf() -> None:
    # The prefixes 0x00 and 0x01 see to it: what stands in a tile of level 1 can't be passed off as an entry.
    inner = sha256(b"\x00" + PLAIN.leaves[0] + PLAIN.leaves[1]).digest()
    with pytest.raises(BadProof):
        check_inclusion(inner, index=0, size=2, root=PLAIN.root(4), proof=[PLAIN.root(4, 2)])


CONSISTENCIES: Final = (
    (1, 2),
    (2, 3),
    (3, 4),
    (3, 7),
    (4, 7),
    (6, 8),
    (255, 256),
    (256, 257),
    (257, 600),
    (65_535, 65_537),
)


@pytest.mark.parametrize(("old", "new"), CONSISTENCIES)
def test_a_consistency_that_is_altered_anywhere_is_refused(old: int, new: int) -> None:
    before, after, proof = PLAIN.root(old), PLAIN.root(new), PLAIN.proof(old, new)
    for lie in (*altered(proof), []):
        with pytest.raises(BadProof):
            check_consistency(old=old, old_root=before, new=new, new_root=after, proof=lie)
    for old_root, new_root in ((bytes(32), after), (before, bytes(32)), (after, before), (after, after)):
        with pytest.raises(BadProof):
            check_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)


def test_a_tree_in_which_an_earlier_leaf_was_changed_is_not_consistent_with_any_proof_made_from_it() -> None:
    forked = Plain(40)
    forked.leaves[3] = bytes(32)
    for old in range(4, 40):
        for new in range(old, 41):
            with pytest.raises(BadProof):
                check_consistency(
                    old=old,
                    old_root=PLAIN.root(old),
                    new=new,
                    new_root=forked.root(new),
                    proof=forked.proof(old, new),
                )


@pytest.mark.parametrize(
    ("old", "new", "old_root", "new_root", "proof"),
    [
        pytest.param(3, 2, PLAIN.root(3), PLAIN.root(2), [], id="the later tree is smaller"),
        pytest.param(-1, 2, EMPTY_ROOT, PLAIN.root(2), [], id="less than nothing"),
        pytest.param(1, SIZE_MAX + 1, PLAIN.root(1), PLAIN.root(2), [bytes(32)], id="larger than can be"),
        pytest.param(0, 2, bytes(32), PLAIN.root(2), [], id="nothing with another root"),
        pytest.param(0, 2, EMPTY_ROOT, PLAIN.root(2), [bytes(32)], id="a proof from nothing"),
        pytest.param(0, 0, EMPTY_ROOT, bytes(32), [], id="nothing, twice, differently"),
        pytest.param(2, 2, PLAIN.root(2), PLAIN.root(3), [], id="one size, two roots"),
        pytest.param(2, 2, PLAIN.root(2), PLAIN.root(2), [bytes(32)], id="a proof of the same"),
        pytest.param(3, 7, PLAIN.root(3), PLAIN.root(7), [], id="no proof"),
    ],
)
def test_a_consistency_that_cannot_be_is_refused(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(BadProof):
        check_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)


def test_nothing_leads_to_everything_and_a_tree_to_itself_with_no_hash() -> None:
    for size in (0, 1, 7, 256):
        check_consistency(old=0, old_root=EMPTY_ROOT, new=size, new_root=PLAIN.root(size), proof=[])
        check_consistency(old=size, old_root=PLAIN.root(size), new=size, new_root=PLAIN.root(size), proof=[])


@pytest.mark.parametrize("asked", [lambda: consistency_spans(3, 2), lambda: consistency_spans(-1, 2)])
def test_no_proof_is_made_from_a_larger_tree_to_a_smaller(asked: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        asked()


def test_a_root_is_told_for_a_proof_of_the_right_length_only() -> None:
    proof = PLAIN.path(4, 7)
    assert root_of_inclusion(PLAIN.leaves[4], index=4, size=7, proof=proof) == PLAIN.root(7)
    with pytest.raises(BadProof, match="too long"):
        root_of_inclusion(PLAIN.leaves[4], index=4, size=7, proof=[*proof, bytes(32)])
    with pytest.raises(BadProof, match="too short"):
        root_of_inclusion(PLAIN.leaves[4], index=4, size=7, proof=proof[:-1])
    root_of_inclusion(bytes(32), index=0, size=SIZE_MAX, proof=[bytes(32)] * 63)
    with pytest.raises(BadProof, match="no such leaf"):
        root_of_inclusion(bytes(32), index=0, size=SIZE_MAX + 1, proof=[bytes(32)] * 63)


def test_a_consistency_is_told_by_its_first_fault() -> None:
    before, after, proof = PLAIN.root(3), PLAIN.root(7), PLAIN.proof(3, 7)
    faults = {"larger": (7, 3, proof), "too long": (3, 7, [*proof, bytes(32)]), "too short": (3, 7, proof[:-1])}
    for why, (old, new, said) in faults.items():
        with pytest.raises(BadProof, match=why):
            check_consistency(old=old, old_root=before, new=new, new_root=after, proof=said)
    with pytest.raises(BadProof, match="larger"):
        check_consistency(old=1, old_root=before, new=SIZE_MAX + 1, new_root=after, proof=[bytes(32)] * 64)

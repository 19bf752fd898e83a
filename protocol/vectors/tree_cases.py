"""Vectors of the tree over a log (SPEC §6; RFC 6962 §2.1, C2SP tlog-tiles): roots, tiles, places, proofs.

Owns which sizes and which lies are shown. All trees are of the same leaves, made by a rule, so that large ones need
no list: leaf i, counted from 0, is the hash of i written in 8 bytes, big-endian. Must not know what an entry is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from typing import Final

from gesell_protocol.log import leaf_hash
from gesell_protocol.tree import (
    TILE_WIDTH,
    BadProof,
    Frontier,
    Tile,
    check_consistency,
    check_inclusion,
    consistency_spans,
    hash_of,
    inclusion_spans,
    place_path,
    read_place,
    tile_width,
    tiles_for,
)
from vectors.notation import Case, file_text

LARGEST: Final = 70_000
SIZES: Final = (*range(18), 255, 256, 257, 511, 512, 513, 1_000, 65_535, 65_536, 65_537, LARGEST)
INCLUSIONS: Final = (
    (0, 1), (0, 2), (1, 2), (2, 3), (0, 7), (4, 7), (6, 7), (3, 8), (255, 256), (0, 257), (256, 257), (300, 1_000),
    (65_535, 65_536), (65_536, 65_537), (1, LARGEST), (69_999, LARGEST),
)  # fmt: skip
CONSISTENCIES: Final = (
    (0, 7), (7, 7), (1, 2), (2, 3), (3, 7), (4, 7), (6, 7), (4, 8), (255, 256), (256, 257), (257, 1_000), (512, 1_000),
    (65_535, 65_537), (65_536, LARGEST), (1_000, LARGEST),
)  # fmt: skip


def tree_json() -> str:
    """Give the text of `tree.json`. Asserts that the reference code says what each case claims."""
    return file_text(
        about="Roots, tiles and proofs of trees whose leaf i, from 0 on, is the leaf hash of i in 8 bytes, big-endian.",
        spec="§6, §6.1",
        cases=[*_roots(), *_tiles(), *_places(), *_inclusions(), *_consistencies()],
    )


@cache
def _levels() -> tuple[list[bytes], ...]:
    """The hashes of heights 0, 8 and 16 of the largest tree."""
    leaves = [leaf_hash(number.to_bytes(8, "big")) for number in range(LARGEST)]
    _, subtrees = Frontier().grown(leaves)
    return (leaves, *([one.hash for one in subtrees if one.level == level] for level in (1, 2)))


@cache
def _root(size: int) -> bytes:
    return Frontier().grown(_levels()[0][:size])[0].root


def _tile(tile: Tile) -> bytes:
    first = tile.place * TILE_WIDTH
    return b"".join(_levels()[tile.level][first : first + tile.width])


def _proof(spans: list[tuple[int, int]], size: int) -> list[bytes]:
    tiles = {tile: _tile(tile) for tile in tiles_for(spans, size)}
    return [hash_of(start, end, size, tiles) for start, end in spans]


def _roots() -> Iterator[Case]:
    for size in SIZES:
        yield {"name": f"root of {size}", "kind": "root", "size": size, "root": _root(size).hex()}


def _tiles() -> Iterator[Case]:
    places = ((0, 0, 1), (0, 0, 3), (0, 0, 256), (0, 1, 257), (0, 273, LARGEST), (1, 0, 256), (1, 0, 1_000))
    for level, place, size in (*places, (1, 1, LARGEST), (2, 0, 65_536), (2, 0, LARGEST)):
        tile = Tile(level, place, tile_width(level, place, size))
        packed = _tile(tile)
        shown = {"hex": packed.hex()} if tile.width <= 3 else {}
        yield {
            "name": f"tile {tile.path} of {size}",
            "kind": "tile",
            "size": size,
            "path": tile.path,
            "level": level,
            "place": place,
            "width": tile.width,
            "sha256": sha256(packed).hexdigest(),
            **shown,
        }


def _places() -> Iterator[Case]:
    for place, width in ((0, 256), (7, 255), (999, 256), (1_000, 256), (1_234, 7), (1_234_067, 256), (2**53 - 1, 1)):
        path = place_path(place, width)
        assert read_place(path) == (place, width)
        yield {"name": f"place {path}", "kind": "place", "path": path, "place": place, "width": width}
    refused = {
        "": "nothing",
        "0": "three digits make an element",
        "0000": "three digits make an element",
        "x000/001": "no leading element of zeros",
        "001/000": "all elements but the last begin with x",
        "x001": "the last element begins with no x",
        "x001//000": "an element is empty",
        "X001/000": "a capital X",
        "000.p/0": "a partial tile has at least one hash",
        "000.p/256": "a full tile is written without its width",
        "000.p/01": "no leading zero",
        "000.p": "a width is missing",
        "000.p/1/2": "something after the width",
        "00a": "digits only",
        "-01": "digits only",
    }
    for path, why in refused.items():
        yield {"name": f"no place: {path or 'empty'}", "kind": "place refused", "path": path, "why": why}


def _inclusions() -> Iterator[Case]:
    for index, size in INCLUSIONS:
        yield _inclusion(f"leaf {index} of {size}", index, size)
    true = _inclusion("", 4, 7)
    proof: list[str] = true["proof"]
    lies: dict[str, Case] = {
        "a proof too short": {"proof": proof[:-1]},
        "a proof too long": {"proof": [*proof, bytes(32).hex()]},
        "no proof": {"proof": []},
        "the hashes in another order": {"proof": proof[::-1]},
        "one hash another": {"proof": [bytes(32).hex(), *proof[1:]]},
        "another leaf": {"leaf": bytes(32).hex()},
        "another place": {"index": 5},
        "a place beyond the tree": {"index": 7},
        "another root": {"root": _root(8).hex()},
        "an empty tree": {"size": 0, "index": 0},
    }
    for why, changed in lies.items():
        case = {**true, **changed, "name": f"no inclusion: {why}", "kind": "inclusion refused", "why": why}
        assert _is_refused(case), why
        yield case


def _inclusion(name: str, index: int, size: int) -> Case:
    proof = _proof(inclusion_spans(index, size), size)
    leaf = _levels()[0][index]
    check_inclusion(leaf, index=index, size=size, root=_root(size), proof=proof)
    return {
        "name": f"inclusion of {name}",
        "kind": "inclusion",
        "index": index,
        "size": size,
        "leaf": leaf.hex(),
        "root": _root(size).hex(),
        "proof": [one.hex() for one in proof],
    }


def _consistencies() -> Iterator[Case]:
    for old, new in CONSISTENCIES:
        yield _consistency(f"{old} and {new}", old, new)
    true = _consistency("", 3, 7)
    proof: list[str] = true["proof"]
    lies: dict[str, Case] = {
        "a proof too short": {"proof": proof[:-1]},
        "a proof too long": {"proof": [*proof, bytes(32).hex()]},
        "no proof": {"proof": []},
        "the hashes in another order": {"proof": proof[::-1]},
        "one hash another": {"proof": [*proof[:-1], bytes(32).hex()]},
        "another earlier root": {"old_root": _root(4).hex()},
        "another later root": {"new_root": _root(8).hex()},
        "the later tree is smaller": {"old": 7, "new": 3},
        "one size with two roots": {"old": 7, "proof": []},
        "a proof from the empty tree": {"old": 0, "old_root": _root(0).hex()},
    }
    for why, changed in lies.items():
        case = {**true, **changed, "name": f"no consistency: {why}", "kind": "consistency refused", "why": why}
        assert _is_refused(case), why
        yield case


def _consistency(name: str, old: int, new: int) -> Case:
    proof = _proof(consistency_spans(old, new), new)
    check_consistency(old=old, old_root=_root(old), new=new, new_root=_root(new), proof=proof)
    return {
        "name": f"consistency of {name}",
        "kind": "consistency",
        "old": old,
        "old_root": _root(old).hex(),
        "new": new,
        "new_root": _root(new).hex(),
        "proof": [one.hex() for one in proof],
    }


def _is_refused(case: Case) -> bool:
    proof = [bytes.fromhex(one) for one in case["proof"]]
    try:
        if "leaf" in case:
            leaf, root = bytes.fromhex(case["leaf"]), bytes.fromhex(case["root"])
            check_inclusion(leaf, index=case["index"], size=case["size"], root=root, proof=proof)
        else:
            old_root, new_root = bytes.fromhex(case["old_root"]), bytes.fromhex(case["new_root"])
            check_consistency(old=case["old"], old_root=old_root, new=case["new"], new_root=new_root, proof=proof)
    except BadProof:
        return True
    return False

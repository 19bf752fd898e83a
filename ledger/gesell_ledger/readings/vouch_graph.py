"""The graph of a commons' vouches, and what trust comes to on it: exact in grains, nothing estimated.

Owns the graph in memory and the two questions that are asked of it. It must not know where vouches come from or who
asks; it is used by one process at a time (`solver`), never by several threads.

1. An arc leads from who vouches to whom it vouches for; what it can carry is the vouch's grains.
2. Trust between two is the maximum flow over all arcs: what could be passed on at most, hand to hand, with no vouch
   used for more than it is. It is never more than the vouches across any line between the two.
3. The strength of a chain of vouches is its smallest vouch. The strongest chain is the one of the greatest strength;
   of equally strong ones the one of the fewest vouches; of these the one whose members' keys, read from its end back
   to its beginning, come first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from ortools.graph.python import max_flow

#: A vouch as it is told: the keys of who vouches and of whom for, and the grains, 0 for one that has ended.
_VOUCH: Final = np.dtype([("voucher", "V32"), ("vouchee", "V32"), ("grains", ">i8")])
VOUCH_BYTES: Final = _VOUCH.itemsize

#: Rankings that are kept until the next change, for whoever reads on.
_RANKINGS_MAX: Final = 4
_CHUNK: Final = 8_192
#: More vouches than any chain has.
_FAR: Final = 2**62
_LOW: Final = 2**32 - 1

_Ints = npt.NDArray[np.int64]


class Link(NamedTuple):
    """A step of a chain: who is vouched for by the one before, and for how many grains."""

    peer: bytes
    grains: int


class Reached(NamedTuple):
    """Somebody whom trust reaches: the strength of the strongest chain, its vouches, and who gave the last of them."""

    peer: bytes
    strength: int
    hops: int
    by: bytes


class Place(NamedTuple):
    """A place in a ranking."""

    strength: int
    hops: int
    peer: bytes


class VouchGraph:
    """The vouches of one commons. `tell` it what they are and how they change, then ask."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        #: Where a member's key stands among all keys, by its number.
        self._places: list[int] = []
        # The arcs in order of (tail, head), which is their code.
        self._codes: _Ints = np.empty(0, np.int64)
        self._grains: _Ints = np.empty(0, np.int64)
        self._from = self._to = _Arcs(self._codes, self._grains, 0)
        self._told: list[tuple[_Ints, _Ints]] = []
        self._strongest_first: _Ints | None = None
        self._rankings: dict[bytes, _Ranking] = {}

    def tell(self, vouches: bytes) -> None:
        """Vouches as they are from now on, `VOUCH_BYTES` each; the last word on a pair counts."""
        told = np.frombuffer(vouches, dtype=_VOUCH)
        tails, heads = self._number(told["voucher"].tolist()), self._number(told["vouchee"].tolist())
        self._told.append((tails << 32 | heads, told["grains"].astype(np.int64)))

    def _number(self, keys: list[bytes]) -> _Ints:
        numbers = self._numbers
        for key in keys:
            if key not in numbers:
                numbers[key] = len(self._keys)
                self._keys.append(key)
        return np.array([numbers[key] for key in keys], np.int64)

    def count(self) -> int:
        """How many vouches there are."""
        self._settle()
        return len(self._codes)

    # ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def measure_flow(self, source: bytes, sink: bytes) -> int:
        """The maximum flow from one to another, in grains (rule 2); 0 where no vouch leads there, or to oneself."""
        self._settle()
        start, end = self._numbers.get(source), self._numbers.get(sink)
        if start is None or end is None or start == end:
            return 0
        solver = max_flow.SimpleMaxFlow()
        solver.add_arcs_with_capacity((self._codes >> 32).astype(np.int32), self._from.others, self._grains)
        status = solver.solve(start, end)
        if status != solver.OPTIMAL:
            # So it says where sums may pass 2^63; 256 vouches of 10^15 each do not come near.
            raise ArithmeticError(f"no exact flow: {status}")
        return int(solver.optimal_flow())

    def find_chain(self, source: bytes, sink: bytes) -> list[Link]:
        """The strongest chain of vouches from one to another (rule 3); empty where there is none."""
        self._settle()
        start, end = self._numbers.get(source), self._numbers.get(sink)
        if start is None or end is None or start == end:
            return []
        strength = self._measure_strength(start, end)
        return self._find_shortest(start, end, strength) if strength else []

    def rank(self, source: bytes, *, after: Place | None, limit: int) -> list[Reached]:
        """Whom trust from `source` reaches, after a place, at most `limit`: the strongest chain first, of equally
        strong ones the shorter, then by key.
        """
        self._settle()
        if source not in self._numbers:
            return []
        if source not in self._rankings:
            while len(self._rankings) >= _RANKINGS_MAX:
                del self._rankings[next(iter(self._rankings))]
            sweep = _Sweep(self._numbers[source], self._places)
            sweep.run(self._list_arcs())
            self._rankings[source] = _Ranking(sweep, self._keys, self._places)
        return self._rankings[source].page(after, limit)

    # ── Arcs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Take in what was told."""
        if not self._told:
            return
        codes = np.concatenate([self._codes, *(codes for codes, _ in self._told)])
        grains = np.concatenate([self._grains, *(grains for _, grains in self._told)])
        self._told.clear()
        # Stable: of one pair, what was told last stays last, and that is what stands.
        order = np.argsort(codes, kind="stable")
        codes, grains = codes[order], grains[order]
        standing = np.append(codes[1:] != codes[:-1], True) & (grains > 0)
        self._codes, self._grains = codes[standing], grains[standing]
        backwards = (self._codes & _LOW) << 32 | self._codes >> 32
        order = np.argsort(backwards)
        self._from = _Arcs(self._codes, self._grains, len(self._keys))
        self._to = _Arcs(backwards[order], self._grains[order], len(self._keys))
        self._strongest_first = None
        self._rankings.clear()
        if len(self._places) < len(self._keys):
            self._places = [0] * len(self._keys)
            for place, number in enumerate(sorted(range(len(self._keys)), key=self._keys.__getitem__)):
                self._places[number] = place

    def _list_arcs(self) -> Iterator[tuple[int, int, int]]:
        """(tail, head, grains) of every arc, the strongest first."""
        if self._strongest_first is None:
            self._strongest_first = np.argsort(-self._grains, kind="stable")
        for start in range(0, len(self._codes), _CHUNK):
            chosen = self._strongest_first[start : start + _CHUNK]
            tails, grains = self._codes[chosen] >> 32, self._grains[chosen]
            yield from zip(tails.tolist(), self._from.others[chosen].tolist(), grains.tolist(), strict=True)

    # ── The strongest chain between two ──────────────────────────────────────────────────────────────────────────

    def _measure_strength(self, start: int, end: int) -> int:
        """The strength of the strongest chain, 0 if there is none.

        Two searches go towards each other, each from the member that it reached most strongly; the one that has looked
        at less goes on. No chain that is not known yet is stronger than what either search would go on with, so it ends
        when a known one is as strong.
        """
        sides = (_Search(self._from, start), _Search(self._to, end))
        known = 0
        while True:
            here, other = sides if sides[0].looked <= sides[1].looked else sides[::-1]
            if known >= min(here.hope(), other.hope()):
                return known
            for member, strength in here.go_on():
                known = max(known, min(strength, other.best.get(member, 0)))

    def _find_shortest(self, start: int, end: int, strength: int) -> list[Link]:
        """The shortest of the chains of a strength, of which there is one; of the shortest, the first by keys from its
        end back: each member is reached from the first by key of those who were reached one vouch before it.
        """
        strong = self._grains >= strength
        arcs = _Arcs(self._codes[strong], self._grains[strong], len(self._keys))
        came: dict[int, tuple[int, int]] = {start: (start, 0)}
        ring = [start]
        while end not in came:
            nearer, ring = sorted(ring, key=self._places.__getitem__), []
            for member in nearer:
                for head, grains in arcs.of(member):
                    if head not in came:
                        came[head] = (member, grains)
                        ring.append(head)
        links = []
        while end != start:
            before, grains = came[end]
            links.append(Link(self._keys[end], grains))
            end = before
        return links[::-1]


class _Arcs:
    """Arcs by the member at one of their ends; `codes` are those of that end and the other, ascending."""

    def __init__(self, codes: _Ints, grains: _Ints, members: int) -> None:
        self.others = (codes & _LOW).astype(np.int32)
        self._grains = grains
        self._starts = np.searchsorted(codes, np.arange(members + 1) << 32).astype(np.int32)

    def of(self, member: int) -> Iterator[tuple[int, int]]:
        """(other end, grains) of a member's arcs."""
        start, end = self._starts[member], self._starts[member + 1]
        return zip(self.others[start:end].tolist(), self._grains[start:end].tolist(), strict=True)


class _Search:
    """A search for strong chains from one member, along arcs or against them."""

    def __init__(self, arcs: _Arcs, start: int) -> None:
        self._arcs = arcs
        #: How strongly members are reached, as far as is known.
        self.best = {start: _FAR}
        self._waiting = [(-_FAR, start)]
        self.looked = 0

    def hope(self) -> int:
        """The strength with which the search would go on; nobody whom it has not gone on from is reached better."""
        while self._waiting:
            strength, member = self._waiting[0]
            if -strength == self.best[member]:
                return -strength
            heappop(self._waiting)
        return 0

    def go_on(self) -> Iterator[tuple[int, int]]:
        """Go on from the member reached most strongly; yields whom it reaches better than before, and how strongly."""
        strength, member = heappop(self._waiting)
        best = self.best
        for other, grains in self._arcs.of(member):
            self.looked += 1
            through = min(grains, -strength)
            if through > best.get(other, 0):
                best[other] = through
                heappush(self._waiting, (-through, other))
                yield other, through


class _Sweep:
    """Strongest chains from one member to all: arcs are let in from the strongest down, and whoever is reached for the
    first time is reached with the strength of the arcs let in last.

    `_hops` counts the vouches of the shortest chain over the arcs let in so far; it only ever falls. A member's own
    figures are settled with the arcs of its strength, before weaker ones could shorten its way.
    """

    def __init__(self, start: int, places: list[int]) -> None:
        self._places = places
        self._hops: list[int] = [_FAR] * len(places)
        self._hops[start] = 0
        self._out: list[list[int]] = [[] for _ in places]
        self._into: list[list[int]] = [[] for _ in places]
        self._near: list[tuple[int, int]] = []
        #: (member, strength, hops, last voucher) of whoever was reached.
        self.reached: list[tuple[int, int, int, int]] = []

    def run(self, arcs: Iterator[tuple[int, int, int]]) -> None:
        """Let all arcs in, the strongest first."""
        hops, out, into, near = self._hops, self._out, self._into, self._near
        strength, anybody_new = 0, False
        for tail, head, grains in arcs:
            if grains != strength:
                # Ways that became shorter matter only when somebody new is reached over them: till then they wait.
                if anybody_new:
                    self._spread(strength)
                    anybody_new = False
                strength = grains
            out[tail].append(head)
            into[head].append(tail)
            if hops[tail] + 1 < hops[head]:
                heappush(near, (hops[tail] + 1, head))
                anybody_new = anybody_new or hops[head] == _FAR
        self._spread(strength)

    def _spread(self, strength: int) -> None:
        """Shorten ways by the arcs that were let in since the last time, the nearest first, and settle who is new."""
        hops, out, near = self._hops, self._out, self._near
        new = []
        while near:
            far, member = heappop(near)
            if far >= hops[member]:
                continue
            if hops[member] == _FAR:
                new.append(member)
            hops[member] = far
            far += 1
            for head in out[member]:
                if far < hops[head]:
                    heappush(near, (far, head))
        self.reached += [(member, strength, hops[member], self._voucher_of(member)) for member in new]

    def _voucher_of(self, member: int) -> int:
        """Who is before a member on its chain: the first by key of those who were reached one vouch before it."""
        before = self._hops[member] - 1
        return min((tail for tail in self._into[member] if self._hops[tail] == before), key=self._places.__getitem__)


class _Ranking:
    """Whom trust from one member reaches, in order."""

    def __init__(self, sweep: _Sweep, keys: list[bytes], places: list[int]) -> None:
        self._keys = keys
        rows = np.array(sweep.reached, np.int64).reshape(-1, 4)
        by_key = np.array(places, np.int64)[rows[:, 0]]
        self._rows = rows[np.lexsort((by_key, rows[:, 2], -rows[:, 1]))]

    def page(self, after: Place | None, limit: int) -> list[Reached]:
        """A page of it, from a place on; the place need not be taken."""
        start = 0
        if after is not None:
            sought = (-after.strength, after.hops, after.peer)
            start = bisect_right(range(len(self._rows)), sought, key=self._sort_key)
        return [
            Reached(self._keys[member], strength, hops, self._keys[by])
            for member, strength, hops, by in self._rows[start : start + limit].tolist()
        ]

    def _sort_key(self, place: int) -> tuple[Any, ...]:
        member, strength, hops, _ = self._rows[place].tolist()
        return -strength, hops, self._keys[member]

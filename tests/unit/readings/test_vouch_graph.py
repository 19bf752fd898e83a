"""Flows, chains and rankings over vouches agree with a second opinion, grain by grain, however the graph came to be."""

from __future__ import annotations

import random
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.readings.vouch_graph import VOUCH_BYTES, Place, VouchGraph
from gesell_ledger.storage import trust as storage
from tests import slow_trust

Vouches = dict[tuple[bytes, bytes], int]
AMOUNT_MAX = 10**15
KEYS = [sha256(b"member %d" % number).digest() for number in range(9)]


def packed(vouches: Vouches) -> bytes:
    return b"".join(by + whom + grains.to_bytes(8, "big") for (by, whom), grains in vouches.items())


def told(vouches: Vouches) -> VouchGraph:
    graph = VouchGraph()
    graph.tell(packed(vouches))
    return graph


#: Few members and few different amounts, so that there are many ways and many of them equal.
AMOUNTS = st.one_of(st.integers(1, 4), st.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 1, 2**32, 2**32 - 1, 2**49 + 1]))
PAIRS = st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)).filter(lambda pair: pair[0] != pair[1])
GRAPHS = st.dictionaries(PAIRS, AMOUNTS, min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(GRAPHS)
def test_flow_chain_and_ranking_agree_with_the_second_opinion(vouches: Vouches) -> None:
    ours, theirs = told(vouches), slow_trust.graph_of(vouches)
    for source in KEYS[:3]:
        for sink in KEYS[3:]:
            assert ours.measure_flow(source, sink) == slow_trust.flow(theirs, source, sink)
            assert [tuple(link) for link in ours.find_chain(source, sink)] == slow_trust.chain(theirs, source, sink)
        rows = ours.rank(source, after=None, limit=100)
        assert [tuple(row) for row in rows] == slow_trust.ranking(theirs, source)


@pytest.mark.parametrize("seed", range(6))
def test_larger_graphs_agree_too(seed: int) -> None:
    draw = random.Random(seed)
    keys = [draw.randbytes(32) for _ in range(60)]
    amounts = [draw.randrange(1, AMOUNT_MAX + 1) for _ in range(5)] if seed % 2 else range(AMOUNT_MAX - 400, AMOUNT_MAX)
    vouches = {}
    for _ in range(240):
        by, whom = draw.sample(keys, 2)
        vouches[by, whom] = draw.choice(amounts)
    ours, theirs = told(vouches), slow_trust.graph_of(vouches)
    for source in keys[:3]:
        assert [tuple(row) for row in ours.rank(source, after=None, limit=100)] == slow_trust.ranking(theirs, source)
        for sink in keys[3:20]:
            assert ours.measure_flow(source, sink) == slow_trust.flow(theirs, source, sink)
            assert [tuple(link) for link in ours.find_chain(source, sink)] == slow_trust.chain(theirs, source, sink)


@pytest.mark.parametrize("total", [2**32 + 1, 2**53 + 1, 256 * AMOUNT_MAX])
def test_a_flow_is_exact_beyond_what_floats_and_32_bits_hold(total: int) -> None:
    """256 hands between two, and each sum is odd somewhere."""
    source, sink, *hands = [sha256(b"%d" % number).digest() for number in range(258)]
    each, rest = divmod(total, 256)
    amounts = [each + (number < rest) for number in range(256)]
    vouches = {(source, hand): amount for hand, amount in zip(hands, amounts, strict=True)}
    vouches |= {(hand, sink): AMOUNT_MAX for hand in hands}
    graph = told(vouches)
    assert graph.measure_flow(source, sink) == total
    assert graph.find_chain(source, sink)[0].grains == max(amounts)


def test_a_chain_is_as_long_as_it_must_be() -> None:
    """A thousand vouches one after the other, and one weaker short cut from end to end."""
    keys = [sha256(b"link %d" % number).digest() for number in range(1001)]
    vouches = dict.fromkeys(pairwise(keys), 10)
    graph = told(vouches | {(keys[0], keys[-1]): 9})
    assert len(graph.find_chain(keys[0], keys[-1])) == 1000
    assert graph.rank(keys[0], after=None, limit=1001)[-1] == (keys[-1], 10, 1000, keys[-2])
    assert graph.measure_flow(keys[0], keys[-1]) == 19


def test_of_equal_chains_the_stronger_then_the_shorter_then_the_first_from_the_end() -> None:
    me, you, *others = sorted(KEYS[:6])
    a, b, c, _ = others
    assert [link.peer for link in told({(me, a): 5, (a, you): 5, (me, you): 4}).find_chain(me, you)] == [a, you]
    assert [link.peer for link in told({(me, a): 5, (a, you): 5, (me, you): 5}).find_chain(me, you)] == [you]
    # A way that is stronger than it need be does not win over a shorter one.
    long = {(me, a): 9, (a, b): 9, (b, you): 5, (me, c): 5, (c, you): 5}
    assert [link.peer for link in told(long).find_chain(me, you)] == [c, you]
    # From the end: a comes before b there, whatever comes before them.
    equal = {(me, c): 5, (c, a): 5, (a, you): 5, (me, b): 5, (b, others[3]): 5, (others[3], you): 5}
    assert [link.peer for link in told(equal).find_chain(me, you)] == [c, a, you]


STEPS = st.lists(st.tuples(PAIRS, st.one_of(st.just(0), AMOUNTS)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(GRAPHS, STEPS, st.randoms(use_true_random=False))
def test_a_graph_kept_up_change_by_change_is_the_one_made_anew(
    vouches: Vouches, steps: list[tuple[tuple[bytes, bytes], int]], draw: random.Random
) -> None:
    kept, standing = told(vouches), dict(vouches)
    for pair, grains in steps:
        kept.tell(packed({pair: grains}))
        standing[pair] = grains
        if draw.random() < 0.3:
            kept.rank(KEYS[0], after=None, limit=5)  # asked in between, it must not answer so later
    standing = {pair: grains for pair, grains in standing.items() if grains}
    anew = told(standing)
    assert kept.count() == anew.count() == len(standing)
    for source in KEYS[:2]:
        assert kept.rank(source, after=None, limit=100) == anew.rank(source, after=None, limit=100)
        for sink in KEYS[2:]:
            assert kept.measure_flow(source, sink) == anew.measure_flow(source, sink)
            assert kept.find_chain(source, sink) == anew.find_chain(source, sink)


@given(GRAPHS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_pages_together_are_the_ranking(vouches: Vouches, limit: int) -> None:
    graph = told(vouches)
    pages, after = [], None
    while page := graph.rank(KEYS[0], after=after, limit=limit):
        pages += page
        after = Place(page[-1].strength, page[-1].hops, page[-1].peer)
    assert pages == graph.rank(KEYS[0], after=None, limit=100)


def test_a_place_that_nobody_holds_any_more_is_a_place_all_the_same() -> None:
    me, a, b, c = KEYS[:4]
    graph = told({(me, a): 9, (me, b): 7, (me, c): 5})
    graph.tell(packed({(me, b): 0}))
    assert [row.peer for row in graph.rank(me, after=Place(7, 1, b), limit=9)] == [c]


def test_who_is_in_no_vouch_is_reached_by_nobody() -> None:
    me, a, stranger = KEYS[:3]
    graph = told({(me, a): 9})
    for source, sink in ((me, stranger), (stranger, a), (a, me), (me, me), (stranger, stranger)):
        assert graph.measure_flow(source, sink) == 0
        assert graph.find_chain(source, sink) == []
    assert graph.rank(stranger, after=None, limit=9) == graph.rank(a, after=None, limit=9) == []
    assert VouchGraph().count() == VouchGraph().measure_flow(me, a) == 0


def test_storage_packs_vouches_as_the_graph_takes_them() -> None:
    assert storage.VOUCH_BYTES == VOUCH_BYTES

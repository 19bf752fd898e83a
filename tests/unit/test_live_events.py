"""Batches of events: what is shared, what is kept, and who is shown what of them."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell_ledger.api.events import GZIP_HEAD, Batch, Event, Recent, Ring, batches_of, encode, pack
from gesell_ledger.api.feeds import Feeds, Listener, TooSlow
from gesell_ledger.api.live import _accepts
from gesell_ledger.api.tokens import Bearer
from gesell_ledger.clock import DemoClock
from gesell_ledger.core.books import Commons, Entry
from gesell_ledger.core.visibility import EVERYTHING, Sight
from gesell_ledger.storage.reading import Reader
from gesell_protocol.envelopes import Memo
from gesell_protocol.fields import Currency
from gesell_protocol.log import Posting
from gesell_protocol.policy import Timeline, read_policy
from tests.speaking import POLICY, signer_of, write_envelope

ADA, BOB, EVE = signer_of("ada"), signer_of("bob"), signer_of("eve")
PAIRS = ((ADA, BOB), (BOB, EVE), (EVE, ADA))


def entry_of(seq: int) -> Entry:
    """Entry `seq` of a commons in which people pay each other in turns."""
    payer, payee = PAIRS[seq % 3]
    legs = [[payee.public_key, 1]]
    envelope = write_envelope("pay", payer.public_key, [payer], now_ms=seq, commons=bytes(16), legs=legs)
    postings = (Posting("pay", payer.public_key, "WRG", -1), Posting("pay", payee.public_key, "WRG", 1))
    return Entry(bytes(16), seq, seq, bytes(16), envelope.body, envelope.signatures, postings)


ENTRIES = [(entry_of(seq), None) for seq in range(1, 41)]
EVENTS = encode(ENTRIES)


def seqs_in(data: bytes) -> list[int]:
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line.removeprefix(b"data: "))["seq"] for line in lines]


def sight_of(peer: bytes | None, *, belonged: bool = False) -> Sight:
    return Sight(peer=peer, whole=False, every_entry=False, belonged=belonged)


def unpacked(*parts: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(GZIP_HEAD + b"".join(parts))


def test_event_is_one_line_of_json_whatever_the_memo_says() -> None:
    [event] = encode([(entry_of(1), Memo(b"s" * 16, "a\n\nid: 7\r\ndata: {}\u2028"))])
    assert event.data.startswith(b"id: 1\nevent: entry\ndata: {")
    assert event.data.count(b"\n") == 4
    assert b"\r" not in event.data
    assert event.data.endswith(b"}\n\n")


@given(st.integers(0, 39), st.integers(1, 30_000), st.booleans())
def test_batches_follow_each_other_without_a_gap(after: int, max_bytes: int, with_parties: bool) -> None:
    batches = batches_of(EVENTS[after:], answered={} if with_parties else None, max_bytes=max_bytes)
    place = after
    for batch in batches:
        assert batch.after == place
        assert seqs_in(batch.data) == list(range(batch.after + 1, batch.last + 1))
        assert len(batch.starts) == batch.last - batch.after
        place = batch.last
    assert place == 40
    assert b"".join(batch.data for batch in batches) == b"".join(event.data for event in EVENTS[after:])


@given(st.integers(0, 39), st.sampled_from([None, *(who.public_key for who in (ADA, BOB, EVE))]), st.booleans())
def test_reader_is_shown_what_follows_and_what_its_sight_allows(seq: int, peer: bytes | None, packed: bool) -> None:
    [batch] = batches_of(EVENTS, answered={})
    sight = EVERYTHING if peer is None else sight_of(peer)
    data = batch.beyond(seq, sight, packed=packed)
    allowed = [
        number
        for number, parties in zip(range(1, 41), batch.parties, strict=True)
        if number > seq and sight.entry(number, parties)
    ]
    assert seqs_in(unpacked(data) if packed else data) == allowed


def test_founding_is_shown_to_who_belonged_and_to_nobody_beside_its_parties() -> None:
    [batch] = batches_of(EVENTS[:3], answered={})
    stranger = signer_of("stranger").public_key
    assert seqs_in(batch.beyond(0, sight_of(stranger, belonged=True), packed=False)) == [1]
    assert seqs_in(batch.beyond(0, sight_of(stranger), packed=False)) == []


def test_batch_without_parties_serves_only_who_sees_every_entry() -> None:
    [plain], [told] = (batches_of(EVENTS, answered=one) for one in (None, {}))
    assert plain.serves(EVERYTHING)
    assert not plain.serves(sight_of(ADA.public_key))
    assert told.serves(sight_of(ADA.public_key))


def test_all_who_see_everything_are_given_the_same_object() -> None:
    [batch] = batches_of(EVENTS, answered=None)
    assert batch.beyond(0, EVERYTHING, packed=True) is batch.beyond(0, EVERYTHING, packed=True)
    assert batch.beyond(0, EVERYTHING, packed=False) is batch.data


@given(st.lists(st.binary(max_size=2_000), max_size=8))
def test_packed_parts_make_one_stream_in_any_order(parts: list[bytes]) -> None:
    # Each part comes out whole as soon as it is in: nobody waits for the next to see the last event.
    inflate = zlib.decompressobj(31)
    assert inflate.decompress(GZIP_HEAD) == b""
    for part in parts:
        assert inflate.decompress(pack(part)) == part


def batch_at(after: int, size: int = 1_000) -> Batch:
    return Batch(after, after + 1, bytes(size), (0,))


def test_ring_finds_the_batch_with_the_next_entry() -> None:
    ring, recent = Ring(), Recent(10**6)
    for batch in batches_of(EVENTS[4:], answered=None, max_bytes=3_000):
        recent.put(ring, batch)
    assert len(ring.batches) > 5
    for seq in range(4, 40):
        found = ring.after(seq)
        assert found is not None
        assert found.after <= seq < found.last
    assert ring.after(3) is None
    assert ring.after(40) is None
    assert Ring().after(0) is None


def test_recent_keeps_all_rings_together_within_its_bound_and_drops_the_oldest() -> None:
    weight = batch_at(0).weight
    recent, one, two = Recent(10 * weight), Ring(), Ring()
    recent.put(one, batch_at(0))
    for seq in range(12):
        recent.put(two, batch_at(seq))
    assert (list(one.batches), one.evicted) == ([], 1)
    assert len(two.batches) == 10
    assert two.evicted == 2
    assert two.after(1) is None


def test_recent_that_is_cleared_has_room_again_and_nobody_was_too_slow() -> None:
    weight = batch_at(0).weight
    recent, one, two = Recent(4 * weight), Ring(), Ring()
    for seq in range(2):
        recent.put(one, batch_at(seq))
        recent.put(two, batch_at(seq))
    recent.clear(one)
    assert (list(one.batches), one.evicted) == ([], 0)
    for seq in range(2, 4):
        recent.put(two, batch_at(seq))
    assert (len(two.batches), two.evicted) == (4, 0)


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000, br", False),
        ("gzip;q=0.001", True),
        ("", False),
        ("gzipped", False),
        ("*", False),
    ],
)
def test_a_name_is_accepted_unless_its_weight_is_nothing(header: str, accepts: bool) -> None:
    assert _accepts(header, "gzip") is accepts


def test_event_knows_its_type() -> None:
    assert all(isinstance(event, Event) and event.type == "pay" for event in EVENTS)


def commons_at(seq: int, *, closing: int = 10**9) -> Commons:
    """A commons with so many entries, open until tick `closing`."""
    policies = [
        (tick, read_policy({**POLICY, "visibility": visibility}, min_tick_seconds=1))
        for tick, visibility in ((0, "open"), (closing, "members"))
    ]
    return Commons(
        id=bytes(16),
        name="Wörgl",
        currency=Currency("WRG", 2),
        ledger=bytes(32),
        stewards=(),
        threshold=1,
        timeline=Timeline.of(policies),
        seq=seq,
    )


def test_only_a_listener_who_was_at_the_head_and_fell_behind_what_is_kept_is_too_slow() -> None:
    async def fall_behind() -> None:
        # Nothing here gets as far as the database.
        feeds = Feeds(cast(Reader, None), DemoClock(start_ms=0, speed=1))
        feeds.recent = Recent(batch_at(0).weight * 3)
        slow, quick = (Listener(None, EVERYTHING, seq=0, packed=False) for _ in range(2))
        feed = feeds.join(commons_at(0), slow, seen_ms=0)
        assert feeds.join(commons_at(0), quick, seen_ms=0) is feed
        slow.live = True
        quick.seq = 4
        for seq in range(5):
            feeds.recent.put(feed._ring, batch_at(seq))
            feed.head = seq + 1
        with pytest.raises(TooSlow):
            await feed.next(slow)
        assert (await feed.next(quick))[0] == 5
        for listener in (slow, quick):
            feeds.leave(feed, listener)
        await asyncio.wait([feed.task])
        assert not feed._ring.batches

    asyncio.run(fall_behind())


def test_a_listener_that_joins_after_rights_may_have_changed_looks_again() -> None:
    async def join_late() -> None:
        feeds = Feeds(cast(Reader, None), DemoClock(start_ms=0, speed=1))
        first, late, new = (Listener(None, EVERYTHING, seq=0, packed=False) for _ in range(3))
        feed = feeds.join(commons_at(3), first, seen_ms=0)
        feed.head = 5
        feeds.join(commons_at(4), late, seen_ms=0)
        feeds.join(commons_at(5), new, seen_ms=0)
        assert [one.stale for one in (first, late, new)] == [False, True, False]
        for listener in (first, late, new):
            feeds.leave(feed, listener)

    asyncio.run(join_late())


def test_a_listener_whose_rights_were_seen_before_another_policy_came_into_force_looks_again() -> None:
    async def join_over_a_tick() -> None:
        tick_ms = POLICY["tick_seconds"] * 1_000
        feeds = Feeds(cast(Reader, None), DemoClock(start_ms=tick_ms, speed=1))
        before, after = (Listener(None, EVERYTHING, seq=0, packed=False) for _ in range(2))
        closing = commons_at(0, closing=1)
        feed = feeds.join(closing, before, seen_ms=tick_ms - 1)
        feeds.join(closing, after, seen_ms=tick_ms)
        assert (before.stale, after.stale) == (True, False)
        for listener in (before, after):
            feeds.leave(feed, listener)

    asyncio.run(join_over_a_tick())


def test_a_listener_holds_until_its_token_expires_or_it_is_ended() -> None:
    bearer = Bearer(ADA.public_key, ADA.public_key, 0, 60)
    with_token, without = (Listener(who, EVERYTHING, seq=0, packed=False) for who in (bearer, None))
    assert [with_token.holds(now_ms) for now_ms in (0, 59_999, 60_000)] == [True, True, False]
    assert without.holds(10**15)
    without.end()
    assert not without.holds(0)

"""Who follows which commons, and how a commons that moved becomes batches for them (SPEC §7.2).

Owns the following: one feed for each commons that somebody listens to, and the looks at the heads that wake it. Knows
no connection; a listener is where somebody has got to, and what it may see.

1. Entries are followed by their numbers. These have no gap and are given out under the lock of the head, so whoever
   reads all that is there after the last entry it knows has missed nothing. A commit of this process, or a look at the
   heads, only wakes.
2. The more listen, the longer a feed waits for more before it reads on: each then writes less often, and more at once.
3. Whoever an entry gives or takes a right to read looks again, before it is written that entry or any later one; so do
   all when another policy comes into force, by the clock or by the time of an entry.
4. Nobody is handed anything on a token that has expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from gesell_ledger.api.events import Event, Past, Recent, Ring, batches_of, encode, entry_parties, load_answered
from gesell_ledger.api.rights import look
from gesell_ledger.api.tokens import Bearer
from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import Commons
from gesell_ledger.core.visibility import EVERYBODY, Sight
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.reading import Reader
from gesell_ledger.unhurried import unhurried
from gesell_protocol.statements import (
    Capture,
    Decline,
    Erase,
    Gift,
    Grant,
    Hold,
    Issue,
    Lapse,
    MakeKind,
    Pay,
    Payout,
    Retire,
    Share,
    Sweep,
    Thank,
    Void,
    Vouch,
    Withdraw,
)

#: How often the heads of all followed commons are looked at, for entries that another process accepted.
LOOK_SECONDS: Final = 0.25
#: Entries read in one go: one question to the database, and some ten milliseconds of encoding.
READ_ENTRIES: Final = 400
#: How long a feed waits for more: with one listener, for each further one, and at most.
PAUSE_SECONDS: Final = 0.004
PAUSE_SECONDS_EACH: Final = 0.000_5
PAUSE_SECONDS_MAX: Final = 0.5
#: Where there is much to read, the listeners are told after so many entries.
TOLD_AFTER: Final = 2_000
#: So many listeners are woken before the event loop turns to others.
WOKEN_AT_ONCE: Final = 50
#: So many feeds, and so many listeners who look again, ask the database at once: most connections are others'.
FEEDS_AT_ONCE: Final = 2
LOOKS_AT_ONCE: Final = 1
AGAIN_SECONDS: Final = 1.0

#: What changes nobody's right to read.
_HARMLESS: Final = frozenset(
    kind.type
    for kind in (
        *(Pay, Issue, Retire, Grant, Share, Sweep, Payout, Erase),
        *(MakeKind, Gift, Thank, Decline, Withdraw, Vouch, Hold, Capture, Void, Lapse),
    )
)

log = structlog.get_logger("gesell.live")


class Listener:
    """Where one reader has got to in one commons, and what it sees there. `seq` is the last entry behind it.

    `packed`: it takes its events as parts of a gzip stream.
    """

    __slots__ = ("_waiter", "bearer", "ended", "live", "packed", "seq", "sight", "stale")

    def __init__(self, bearer: Bearer | None, sight: Sight, *, seq: int, packed: bool) -> None:
        self.bearer = bearer
        self.sight = sight
        self.seq = seq
        self.packed = packed
        #: It has met the head once; from then on the batches that are kept must do for it.
        self.live = False
        #: Its rights may have changed.
        self.stale = False
        self.ended = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def peer(self) -> bytes | None:
        """Whom its token speaks for."""
        return None if self.bearer is None else self.bearer.peer

    def holds(self, now_ms: int) -> bool:
        """Whether it goes on: it was not ended, and its token, if it has one, is good at this time of the ledger's."""
        return not self.ended and (self.bearer is None or now_ms // 1000 < self.bearer.expires)

    @property
    def untimed(self) -> bool:
        """Whether it goes on whatever the time is."""
        return self.bearer is None and not self.ended

    def poke(self) -> None:
        """Have it look whether there is something to do."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Have it end, now."""
        self.ended = True
        self.poke()

    async def wait(self) -> None:
        """Wait until it is poked. Between looking for something to do and this, nothing else may run."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class TooSlow(Exception):
    """A listener fell behind what is kept."""


class Feed:
    """One commons as it grows; `head` is the last entry that its listeners can have. `commons` tells its policies."""

    def __init__(self, feeds: Feeds, commons: Commons) -> None:
        self.commons = commons
        self.head = commons.seq
        self.listeners: set[Listener] = set()
        self._feeds = feeds
        self._ring = Ring()
        #: When the last entry was accepted that was read here; another process may have been ahead of this one's clock.
        self._at_ms = commons.at_ms
        self.visibility = commons.policy_at(self._now_ms()).visibility
        #: When the policies come into force that are announced and not in force yet.
        self._later_policies: list[int] = []
        self._judge_policy()
        self._woken = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """There may be entries after the head."""
        self._woken.set()

    async def next(self, listener: Listener) -> tuple[int, bytes]:
        """What follows for a listener who is behind the head: how far that goes, and the events of it that it sees.

        Not to be written to who has become `stale` or holds no more. Raises `TooSlow` for one that was at the head
        once and fell behind what is kept.
        """
        upto, events = await self._following(listener)
        # The clock went on since the last look, by much if the database let us wait.
        self.check_policy()
        return upto, events

    async def _following(self, listener: Listener) -> tuple[int, bytes]:
        batch = self._ring.after(listener.seq)
        if batch is not None and batch.serves(listener.sight):
            return batch.last, batch.beyond(listener.seq, listener.sight, packed=listener.packed)
        if listener.live and listener.seq < self._ring.evicted:
            raise TooSlow
        return await self._feeds.past.page(
            self.commons.id, listener.sight, after=listener.seq, head=self.head, packed=listener.packed
        )

    def serves(self, listener: Listener) -> bool:
        """Whether the listener may be handed something now (rule 4)."""
        return listener.untimed or listener.holds(self._feeds.clock.look())

    async def look_again(self, listener: Listener) -> bool:
        """What a listener sees now; whether it is anything at all."""
        listener.stale = False
        async with self._feeds.turn_to_look:
            sight = await look(self._feeds.reader, self.commons, listener.bearer, now_ms=self._now_ms())
        if sight is not None:
            listener.sight = sight
        return sight is not None

    def check_policy(self) -> None:
        """Notice that another policy has come into force (rule 3)."""
        # Most commons have none waiting, and this is asked for every listener at every batch.
        if self._later_policies and self._now_ms() >= self._later_policies[0]:
            self._judge_policy()

    def _adopt(self, commons: Commons) -> None:
        """Take a commons as it is by now: its rules, and when others come into force by the clock."""
        self.commons = commons
        self._at_ms = max(self._at_ms, commons.at_ms)
        self._judge_policy()

    def _judge_policy(self) -> None:
        """What the policy in force makes of the listeners' rights."""
        now_ms = self._now_ms()
        policy = self.commons.policy_at(now_ms)
        tick_ms = policy.tick_seconds * 1000
        self._later_policies = [
            from_tick * tick_ms for from_tick, _ in self.commons.timeline.waiting(self.commons.tick_of(now_ms))
        ]
        if policy.visibility != self.visibility:
            self.visibility = policy.visibility
            self._forget()
            for listener in self.listeners:
                listener.stale = True
                listener.poke()

    def close(self) -> None:
        """Nobody listens any more."""
        self.task.cancel()
        self._forget()

    def _now_ms(self) -> int:
        """The ledger's time, never before the last entry that was read."""
        return max(self._feeds.clock.look(), self._at_ms)

    def _forget(self) -> None:
        self._feeds.recent.clear(self._ring)
        self._feeds.past.clear(self.commons.id)

    async def _run(self) -> None:
        """Read on whenever there may be more, as long as somebody listens; a fault of ours ends all their streams."""
        try:
            while True:
                await self._woken.wait()
                await asyncio.sleep(min(PAUSE_SECONDS_MAX, PAUSE_SECONDS + PAUSE_SECONDS_EACH * len(self.listeners)))
                self._woken.clear()
                try:
                    await self._read_on()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    log.warning("feed_waits", commons=self.commons.id.hex(), error=repr(error))
                    await asyncio.sleep(AGAIN_SECONDS)
                    self._woken.set()
        except Exception as error:
            log.error("feed_failed", commons=self.commons.id.hex(), exc_info=error)
            self._feeds.end(self)

    async def _read_on(self) -> None:
        """Read all that follows the head, and tell the listeners."""
        told = self.head
        while await self._read_some():
            if self.head - told >= TOLD_AFTER:
                await self._tell()
                told = self.head
        if self.head != told:
            await self._tell()

    async def _read_some(self) -> bool:
        """Keep the next entries ready for those who follow; whether there were any."""
        async with self._feeds.turn:
            listed = await self._feeds.reader.list_entries(self.commons.id, after=self.head, limit=READ_ENTRIES)
        assert not listed or listed[0][0].seq == self.head + 1
        events = encode(listed)
        await self._mark_stale(events)
        if listed:
            self._at_ms = max(self._at_ms, listed[-1][0].at_ms)
            self.check_policy()
        answered = None
        if self.visibility != "open":
            bodies = [event.entry.body for event in events]
            answered = await load_answered(self._feeds.reader, self.commons.id, bodies)
        for batch in batches_of(events, answered=answered):
            self._feeds.recent.put(self._ring, batch)
            self.head = batch.last
        return bool(listed)

    async def _mark_stale(self, events: Sequence[Event]) -> None:
        """Have those look again whose right to read these entries touch; nothing of them was handed on yet."""
        touched: set[bytes] = set()
        for event in events:
            if event.type not in _HARMLESS:
                touched |= entry_parties(event.entry, {})
        if EVERYBODY in touched:
            found = await self._feeds.reader.load_commons(self.commons.id)
            assert found is not None
            self._adopt(found[0])
        if any(event.type == Erase.type for event in events):
            self._forget()
        if touched:
            for listener in self.listeners:
                if EVERYBODY in touched or listener.peer in touched:
                    listener.stale = True

    async def _tell(self) -> None:
        """Wake the listeners, some at a time: all at once would hold up the payments."""
        async for listener in unhurried(tuple(self.listeners), at_once=WOKEN_AT_ONCE):
            listener.poke()


class Feeds:
    """The feeds of one process. One event loop."""

    def __init__(self, reader: Reader, clock: LedgerClock) -> None:
        self.reader = reader
        self.recent = Recent()
        self.past = Past(reader)
        self.turn = asyncio.Semaphore(FEEDS_AT_ONCE)
        self.turn_to_look = asyncio.Semaphore(LOOKS_AT_ONCE)
        self.clock = clock
        self._feeds: dict[bytes, Feed] = {}
        self._watching: asyncio.Task[None] | None = None

    def wake(self, commons: bytes) -> None:
        """Entries of a commons were committed."""
        feed = self._feeds.get(commons)
        if feed is not None:
            feed.wake()

    def join(self, commons: Commons, listener: Listener, *, seen_ms: int) -> Feed:
        """The feed of a commons, which the listener now is one of.

        `commons` is as it was when the listener's rights were seen, by the policy that was in force at `seen_ms`.
        """
        feed = self._feeds.get(commons.id)
        if feed is None:
            feed = self._feeds[commons.id] = Feed(self, commons)
        # What the feed passed on between that look and now may have changed them, and so may another policy.
        listener.stale = feed.head > commons.seq or feed.visibility != commons.policy_at(seen_ms).visibility
        if commons.seq > feed.head:
            feed.wake()
        feed.listeners.add(listener)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return feed

    def leave(self, feed: Feed, listener: Listener) -> None:
        """The listener is gone; with the last one, the feed goes."""
        feed.listeners.discard(listener)
        if not feed.listeners:
            if self._feeds.get(feed.commons.id) is feed:
                del self._feeds[feed.commons.id]
            feed.close()
        if not self._feeds and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def end(self, feed: Feed) -> None:
        """End all streams of a feed that can't go on; who comes back gets a new one."""
        self._feeds.pop(feed.commons.id, None)
        for listener in feed.listeners:
            listener.end()

    async def _watch(self) -> None:
        """Look at the heads and at the policies now and then, as long as anybody listens."""
        try:
            await self._look_around()
        except Exception as error:
            log.error("heads_failed", exc_info=error)
            self._watching = None
            for feed in tuple(self._feeds.values()):
                self.end(feed)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for feed in self._feeds.values():
                feed.check_policy()
            try:
                heads = await self.reader.load_heads(tuple(self._feeds))
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("heads_not_seen", error=repr(error))
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            for commons, seq in heads.items():
                found = self._feeds.get(commons)
                if found is not None and seq > found.head:
                    found.wake()

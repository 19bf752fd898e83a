"""Delivers entries to the webhooks of those whom they concern: at least once, in order, one at a time for each.

Owns when which webhook has its turn. What is still to deliver is read off the entries, so nothing is queued and
nothing is lost with a process; who delivers is settled by leases in the database, so any number of services may run
one of these each.

1. A round finds the commons in which something was added, or a webhook was asked for, and the webhooks there that have
   entries before them. Commons that rest cost one look at all heads; finding takes a twentieth of the time at most.
2. A turn claims one webhook and delivers to it entry by entry, until there is no more, an attempt fails, or it has
   taken long enough for the others. Each attempt ends within seconds, well before the lease. Turns are few: a commons
   and a peer have some at once at most, and the next is always of who has fewest, so that slow endpoints hold up none
   but those beside them.
3. Rights are looked at again before each delivery, by membership, keys and visibility that are a second old at most.
4. What fails is tried again by the schedule, in order: the entries after it wait. What is given up is disabled with
   the reason, which its peer is shown. What could not be tried, for want of something of our own, counts for nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import msgspec
import structlog
from asyncpg.pgproto.pgproto import UUID

from gesell_ledger.api.answers import entry_json
from gesell_ledger.api.reads import list_entries
from gesell_ledger.api.subscribing import look_as_subscriber
from gesell_ledger.api.webhooks import Message, MessageData
from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import Entry
from gesell_ledger.metrics import Metrics
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.webhooks import Claimed, Due, Mark, Webhooks
from gesell_ledger.webhooks.schedule import SCHEDULE, wait_ms
from gesell_ledger.webhooks.sending import Outcome, Sender
from gesell_ledger.webhooks.signing import sign_message
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import id_text

ROUND_SECONDS: Final = 0.5
#: A round that took long is followed by so many times its length of rest; but what took long may have been something
#: else, such as a machine that slept, so not by more than some seconds.
REST_FACTOR: Final = 20
REST_MAX_SECONDS: Final = 10.0
#: Webhooks that one round finds, and how many of them in one commons.
PENDING_MAX: Final = 1_000
PENDING_EACH: Final = 100
#: Webhooks that have their turn at once, each with one connection; how many in one commons, and of one peer in it.
TURNS_MAX: Final = 32
TURNS_EACH: Final = 4
TURNS_OF_PEER: Final = 2
#: A turn that has taken so long ends, so that those who wait have theirs.
TURN_SECONDS: Final = 10.0
#: Renewed with each delivery, so longer than one attempt, the database's delays included.
LEASE_MS: Final = 30_000
#: Until an attempt that could not be made is made.
POSTPONED_MS: Final = 5_000
#: Entries that a turn holds at once, and how long they, and the right to see them, are taken to be as they were.
PAGE: Final = 10
PAGE_SECONDS: Final = 1.0

NO_RIGHT: Final = "its peer is no active or suspended member, no steward, or the key that asked for it is revoked"

log = structlog.get_logger("gesell.deliverer")


@dataclass(frozen=True, slots=True)
class _Page:
    """The next entries for a webhook, read at a moment of the steady clock."""

    entries: list[tuple[Entry, Memo | None]]
    more: bool
    read_at: float

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.read_at < PAGE_SECONDS


class Deliverer:
    """Looks after the webhooks of a database, with any number of others. `schedule` is seconds after each failure."""

    def __init__(
        self,
        webhooks: Webhooks,
        reader: Reader,
        clock: LedgerClock,
        metrics: Metrics,
        *,
        to_private: bool,
        schedule: tuple[float, ...] = SCHEDULE,
    ) -> None:
        self._webhooks = webhooks
        self._reader = reader
        self._clock = clock
        self._metrics = metrics
        self._schedule = schedule
        self._sender = Sender(to_private=to_private, connections=TURNS_MAX)
        #: Turns under way, by webhook; and who waits for one, by commons, the first due first.
        self._turns: dict[bytes, tuple[Due, asyncio.Task[None]]] = {}
        self._waiting: dict[int, list[Due]] = {}
        #: Commons in which nothing waited when they were last looked at, by what they were then.
        self._settled: dict[int, Mark] = {}
        self._ahead_ms = 0.0

    async def run(self) -> None:
        """Go round for ever; a fault of the world ends the round, not the deliverer. Cancelled, it lets go of what it
        has: an attempt under way is broken off, and made again by who claims the webhook next.
        """
        async with self._sender:
            try:
                while True:
                    began = time.monotonic()
                    await self._guarded("round", self.round)
                    took = time.monotonic() - began
                    await asyncio.sleep(min(REST_MAX_SECONDS, max(ROUND_SECONDS, REST_FACTOR * took)))
            finally:
                self._waiting.clear()
                turns = [turn for _, turn in self._turns.values()]
                for turn in turns:
                    turn.cancel()
                await asyncio.gather(*turns, return_exceptions=True)

    async def round(self) -> None:
        """Find what is due (rule 1) and begin the turns for which there is room."""
        before = time.monotonic()
        now_ms = await self._webhooks.now_ms()
        # The database's clock is read off the steady one until the next round.
        self._ahead_ms = now_ms - 1000 * before
        marks = await self._webhooks.list_marks()
        moved = [key for key, mark in marks.items() if self._settled.get(key) != mark]
        limits = {"limit": PENDING_MAX, "each": PENDING_EACH}
        pending = await self._webhooks.list_pending(moved, now_ms=now_ms, **limits) if moved else []
        waiting = {due.key for due in pending} if len(pending) < PENDING_MAX else set(moved)
        self._settled = {key: mark for key, mark in marks.items() if key not in waiting}
        self._waiting = {}
        for due in pending:
            if due.due_ms <= now_ms and due.id not in self._turns:
                self._waiting.setdefault(due.key, []).append(due)
        self._begin_turns()

    def _begin_turns(self) -> None:
        """Begin what waits, as far as there are places for it."""
        while len(self._turns) < TURNS_MAX and (due := self._take_next()) is not None:
            self._begin(due)

    def _take_next(self) -> Due | None:
        """The next of a commons that has fewest turns, among these of the one that waits longest; in it likewise of its
        peers. None if whoever waits has as many turns as it may have.
        """
        turns = [due for due, _ in self._turns.values()]
        of_commons, of_peer = Counter(due.key for due in turns), Counter((due.key, due.peer) for due in turns)
        for key in sorted(self._waiting, key=lambda one: (of_commons[one], self._waiting[one][0].due_ms)):
            if of_commons[key] >= TURNS_EACH:
                return None
            due = min(self._waiting[key], key=lambda one: (of_peer[one.key, one.peer], one.due_ms))
            if of_peer[key, due.peer] < TURNS_OF_PEER:
                self._waiting[key].remove(due)
                if not self._waiting[key]:
                    del self._waiting[key]
                return due
        return None

    def _begin(self, due: Due) -> None:
        def end(_: asyncio.Task[None]) -> None:
            del self._turns[due.id]
            self._begin_turns()

        task = asyncio.create_task(self._guarded("turn", lambda: self._turn(due)))
        self._turns[due.id] = due, task
        task.add_done_callback(end)

    async def _guarded(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work; what goes wrong is logged and ends it. A lease that it leaves behind ends by itself."""
        try:
            await work()
        except Exception as error:
            if is_transient(error):
                log.warning(f"{what}_ended", why=repr(error))
            else:
                log.critical(f"{what}_failed", exc_info=error)
                self._metrics.broken.inc()

    def _now_ms(self) -> int:
        """Real time by the database's clock."""
        return round(1000 * time.monotonic() + self._ahead_ms)

    async def _turn(self, due: Due) -> None:
        """Rule 2 for one webhook."""
        now_ms = self._now_ms()
        lease = UUID(uuid4().bytes)
        hook = await self._webhooks.claim(due.commons, due.id, lease=lease, now_ms=now_ms, until_ms=now_ms + LEASE_MS)
        if hook is None:
            return
        try:
            rests = await self._deliver(hook)
        except asyncio.CancelledError:
            await self._webhooks.release(hook)
            raise
        if rests is not None:
            await self._webhooks.store_rest(rests, why="", next_ms=self._now_ms())

    async def _deliver(self, hook: Claimed) -> Claimed | None:
        """Deliver what there is; returns the webhook as it rests, None once it is in our hands no more."""
        ends = time.monotonic() + TURN_SECONDS
        while time.monotonic() < ends:
            page = await self._load_page(hook)
            if page is None:
                await self._disable(hook, "not-authorised", NO_RIGHT)
                return None
            for place, (entry, memo) in enumerate(page.entries):
                if place > 0 and not page.is_fresh:
                    break
                after = replace(hook, seen=entry.seq)
                kind = str(entry.fields()["type"])
                if not hook.types or kind in hook.types:
                    outcome = await self._send(hook, entry, memo, kind)
                    if not await self._store(hook, after, outcome):
                        return None
                    after = replace(after, failures=0)
                hook = after
            else:
                if not page.more:
                    break
        return hook

    async def _load_page(self, hook: Claimed) -> _Page | None:
        """The next entries that the webhook's peer may see now (rule 3); None if it may have no webhook any more."""
        read_at = time.monotonic()
        found = await self._reader.load_commons(hook.commons)
        assert found is not None, "a webhook's commons is there for good"
        commons = found[0]
        now_ms = max(self._clock.look(), commons.at_ms)
        sight, may_have = await look_as_subscriber(self._reader, commons, peer=hook.peer, key=hook.key, now_ms=now_ms)
        if sight is None or not may_have or (hook.every_entry and not sight.every_entry):
            return None
        # Who may see all may have asked for its own only.
        asked = replace(sight, every_entry=hook.every_entry)
        listed, more = await list_entries(self._reader, commons, asked, after=hook.seen, limit=PAGE)
        return _Page(listed, more, read_at)

    async def _send(self, hook: Claimed, entry: Entry, memo: Memo | None, kind: str) -> Outcome:
        body = message(entry, memo, kind)
        message_id = f"{id_text(hook.id)}_{entry.seq}"
        headers = sign_message(body, secret=hook.secret, message_id=message_id, now_s=int(time.time()))
        outcome = await self._sender.send(hook.url, body, headers)
        self._metrics.webhook_deliveries.labels(outcome.kind).inc()
        return outcome

    async def _store(self, hook: Claimed, after: Claimed, outcome: Outcome) -> bool:
        """Note what became of an attempt; returns whether the webhook is still in our hands (rule 4)."""
        if outcome.kind == "delivered":
            return await self._webhooks.store_delivered(after, until_ms=self._now_ms() + LEASE_MS)
        if outcome.kind == "postponed":
            await self._webhooks.postpone(hook, next_ms=self._now_ms() + POSTPONED_MS)
            return False
        failed = replace(hook, failures=hook.failures + 1)
        if outcome.kind == "gone":
            await self._disable(failed, "gone", "the endpoint answered HTTP 410: it wants no more")
            return False
        wait = wait_ms(failed.failures, chance=random.random(), retry_after_s=outcome.wait_s, schedule=self._schedule)
        if wait is None:
            await self._disable(failed, "failing", f"{failed.failures} attempts failed, the last: {outcome.why}")
        else:
            await self._webhooks.store_rest(failed, why=outcome.why, next_ms=self._now_ms() + wait)
        return False

    async def _disable(self, hook: Claimed, reason: str, why: str) -> None:
        # The URL may hold a secret of its peer's, so the log tells of the webhook by its id.
        log.info("webhook_disabled", commons=hook.commons.hex(), webhook=id_text(hook.id), reason=reason)
        self._metrics.webhooks_disabled.labels(reason).inc()
        await self._webhooks.store_disabled(hook, why=f"{reason}: {why}")


def message(entry: Entry, memo: Memo | None, kind: str) -> bytes:
    """What is delivered of an entry, which is as `…/entries/{seq}` shows it."""
    at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    data = MessageData(commons=entry.commons.hex(), entry=entry_json(entry, memo))
    return msgspec.json.encode(Message(type=f"entry.{kind}", timestamp=at.replace("+00:00", "Z"), data=data))

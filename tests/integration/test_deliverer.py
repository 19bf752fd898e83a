"""The deliverer on a real PostgreSQL, to real endpoints: leases, giving up, and what it costs to find what is due.

Owns what needs a schedule or a lease of the test's own. That everything arrives is `tests/e2e/test_webhooks.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from asyncpg.pgproto.pgproto import UUID

from gesell_ledger import deliverer as deliverer_module
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.webhooks import _shown
from gesell_ledger.clock import Clock
from gesell_ledger.deliverer import TURNS_EACH, TURNS_OF_PEER, Deliverer
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.rows import key_of
from gesell_ledger.storage.webhooks import Claimed, Webhook, Webhooks, Wish
from gesell_ledger.webhooks import addresses
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import uuid7
from tests.speaking import name_of, signer_of, submission_of, write_envelope, write_found
from tests.webhooks import Attempt, endpoint, until

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

LEDGER, ADA, BOB = (signer_of(name) for name in ("ledger", "ada", "bob"))


class Village:
    """A commons of ada, its steward, and bob, to whom she issues."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.webhooks = Webhooks(pool)
        self.clock = Clock()
        self.sequencer = Sequencer(pool, self.clock, ledger=LEDGER.public_key, metrics=Metrics())
        self.founding = write_found([ADA], ledger=LEDGER.public_key, now_ms=self.clock.look())
        self.name = name_of(self.founding)
        self.seq = 0

    async def say(self, *envelopes: Envelope) -> int:
        for answer in await self.sequencer.submit([submission_of(envelope) for envelope in envelopes]):
            assert isinstance(answer, Receipted), answer
            self.seq = answer.receipt.seq
        return self.seq

    def join(self) -> Envelope:
        return write_envelope("join", BOB.public_key, [BOB], now_ms=self.clock.look(), commons=self.name, handle="bob")

    def issue(self) -> Envelope:
        fields = {"commons": self.name, "to": BOB.public_key, "amount": 1}
        return write_envelope("issue", ADA.public_key, [ADA], now_ms=self.clock.look(), **fields)

    async def hook(self, url: str, *, slot: int = 0, peer: Signer = BOB, after: int | None = None) -> bytes:
        """A webhook, of bob's unless it is said whose; its id."""
        wish = Wish(url=url, types=(), every_entry=False, after=None, key=peer.public_key, asked_s=1)
        name = uuid7(self.clock.look(), os.urandom(10))
        seen = self.seq if after is None else after
        added = await self.webhooks.add(
            self.name, peer.public_key, wish, slot=slot, name=name, secret=bytes(32), seen=seen
        )
        assert added
        return name

    async def list_of(self, peer: Signer) -> list[Webhook]:
        return await self.webhooks.list_of(self.name, peer.public_key)

    async def shown(self) -> Webhook:
        (hook,) = await self.webhooks.list_of(self.name, BOB.public_key)
        return hook

    async def claim(self, name: bytes, *, for_ms: int) -> Claimed | None:
        now = await self.webhooks.now_ms()
        lease = UUID(os.urandom(16))
        return await self.webhooks.claim(self.name, name, lease=lease, now_ms=now, until_ms=now + for_ms)

    async def leases(self) -> list[tuple[object, int]]:
        rows = await self.pool.fetch("SELECT lease, lease_ms FROM webhook WHERE commons_id = $1", key_of(self.name))
        return [tuple(row) for row in rows]

    def deliverer(self, *schedule: float) -> Deliverer:
        return Deliverer(self.webhooks, Reader(self.pool), self.clock, Metrics(), to_private=True, schedule=schedule)

    @asynccontextmanager
    async def delivering(self, *schedule: float) -> AsyncIterator[Deliverer]:
        """A deliverer at work, with a schedule of its own."""
        deliverer = self.deliverer(*schedule)
        task = asyncio.create_task(deliverer.run())
        try:
            yield deliverer
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def village(pool: Pool) -> AsyncIterator[Village]:
    made = Village(pool)
    await made.say(made.founding, made.join(), made.issue())
    yield made
    await made.sequencer.stop(seconds=5)


async def answer_badly(_: Attempt) -> web.StreamResponse:
    return web.Response(status=500)


async def test_what_fails_by_the_whole_schedule_is_disabled_with_the_reason(village: Village) -> None:
    async with endpoint(answer_badly) as end:
        await village.hook(end.url)
        seq = await village.say(village.issue())
        await village.say(village.issue())
        async with village.delivering(0.05, 0.05):
            async with asyncio.timeout(60):
                while (await village.shown()).state == "live":  # noqa: ASYNC110 (only the database can tell)
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.2)
        assert end.seqs == [seq] * 3, "the one after it was never tried"
        hook = await village.shown()
        assert (hook.state, hook.failures, hook.seen) == ("disabled", 3, seq - 1)
        assert hook.why == "failing: 3 attempts failed, the last: HTTP 500"


async def test_a_webhook_is_taken_over_when_the_lease_of_who_died_is_over(village: Village) -> None:
    async with endpoint() as end:
        name = await village.hook(end.url)
        assert await village.claim(name, for_ms=2_000) is not None
        claimed_at = time.time()
        seq = await village.say(village.issue())
        async with village.delivering(), village.delivering():
            await until(lambda: end.seqs == [seq])
        assert end.attempts[0].at - claimed_at >= 2.0


async def test_who_lost_a_webhook_can_store_nothing_of_it(village: Village) -> None:
    name = await village.hook("http://127.0.0.1:9/")
    late = await village.claim(name, for_ms=0)
    assert late is not None
    now = await village.claim(name, for_ms=60_000)
    assert now is not None
    assert await village.claim(name, for_ms=60_000) is None
    before = await village.leases()
    assert not await village.webhooks.store_delivered(late, until_ms=2**40)
    await village.webhooks.store_rest(late, why="late", next_ms=2**40)
    await village.webhooks.store_disabled(late, why="late")
    await village.webhooks.release(late)
    hook = await village.shown()
    assert (await village.leases(), hook.state, hook.why, hook.next_ms) == (before, "live", "", 0)
    assert await village.webhooks.store_delivered(now, until_ms=2**40)


async def test_who_is_told_to_end_lets_go_at_once(village: Village) -> None:
    over = asyncio.Event()

    async def hang(_: Attempt) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with endpoint(hang) as end:
        await village.hook(end.url)
        seq = await village.say(village.issue())
        async with village.delivering():
            await until(lambda: len(end.attempts) == 1)
            assert (await village.leases())[0][0] is not None
        assert await village.leases() == [(None, 0)]
        over.set()
        async with village.delivering():
            await until(lambda: len(end.attempts) == 2)
        assert end.seqs == [seq, seq]
        assert end.attempts[0].headers["webhook-id"] == end.attempts[1].headers["webhook-id"]


async def test_two_who_deliver_do_not_deliver_the_same(village: Village) -> None:
    async with endpoint() as end:
        for slot in range(8):
            await village.hook(f"{end.url}/{slot}", slot=slot)
        begin = village.seq
        async with village.delivering(), village.delivering(), village.delivering():
            for _ in range(5):
                await village.say(*[village.issue() for _ in range(5)])
            await until(lambda: len(end.attempts) >= 200)
            await asyncio.sleep(1.2)
        assert len({attempt.headers["webhook-id"] for attempt in end.attempts}) == len(end.attempts) == 200
        assert sorted(end.seqs) == sorted([*range(begin + 1, begin + 26)] * 8)


async def test_endpoints_that_hang_leave_room_for_the_others(village: Village) -> None:
    """Those of one peer for its neighbour, those of one commons for the commons beside it."""
    over = asyncio.Event()

    async def hang(_: Attempt) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    beside = Village(village.pool)
    await beside.say(beside.founding, beside.join(), beside.issue())
    async with endpoint(hang) as hanging, endpoint() as neighbour, endpoint() as end:
        for slot in range(8):
            await village.hook(f"{hanging.url}/{slot}", slot=slot)
        await village.say(village.issue())
        async with village.delivering():
            await until(lambda: len(hanging.attempts) == TURNS_OF_PEER)
            await village.hook(neighbour.url, peer=ADA)
            # The other places of the commons: its neighbour is done with one of them before this one takes both.
            seq = await village.say(village.issue())
            await until(lambda: neighbour.seqs == [seq])
            for slot in range(1, 8):
                await village.hook(f"{hanging.url}/{slot}", slot=slot, peer=ADA)
            await village.say(village.issue())
            await until(lambda: len(hanging.attempts) >= TURNS_EACH)
            await beside.hook(end.url)
            seq = await beside.say(beside.issue())
            await until(lambda: end.seqs == [seq])
            # All of them were still waited for: their attempts take 15 seconds.
            hooks = [hook for peer in (ADA, BOB) for hook in await village.list_of(peer)]
            assert [hook.failures for hook in hooks] == [0] * 16
            assert len(hanging.attempts) == TURNS_EACH
        over.set()
    await beside.sequencer.stop(seconds=5)


async def test_what_has_no_room_here_is_no_failure_there(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    asked: list[str] = []
    really = socket.getaddrinfo

    def getaddrinfo(host: Any, *more: Any, **fields: Any) -> Any:
        if host == "localhost" or not str(host).endswith(".example"):
            return really(host, *more, **fields)
        asked.append(host)
        over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(addresses, "LOOKUPS_MAX", 1)
    monkeypatch.setattr(deliverer_module, "POSTPONED_MS", 100)
    async with endpoint() as end:
        await village.hook("http://hangs.example/", slot=0)
        await village.say(village.issue())
        async with village.delivering(60.0):
            await until(lambda: asked == ["hangs.example"])
            await village.hook(end.url.replace("127.0.0.1", "localhost"), peer=ADA)
            seq = await village.say(village.issue())
            async with asyncio.timeout(60):
                while not (await village.list_of(ADA))[0].next_ms:  # noqa: ASYNC110 (only the database can tell)
                    await asyncio.sleep(0.05)
            hook = (await village.list_of(ADA))[0]
            assert (hook.state, hook.failures, hook.why, end.attempts) == ("live", 0, "", [])
            over.set()
            await until(lambda: end.seqs == [seq])
        assert (await village.list_of(ADA))[0].failures == 0


async def test_who_asks_in_the_second_in_which_another_ends_is_delivered(village: Village) -> None:
    """The one that was deleted and the one that was asked for have all in common that a request can choose."""
    async with endpoint() as end:
        first = await village.hook("http://127.0.0.1:9/")
        deliverer = village.deliverer()
        await deliverer.round()
        await deliverer.round()
        assert deliverer._settled, "nothing waits"
        assert await village.webhooks.delete(village.name, BOB.public_key, first, now_s=0)
        await village.hook(end.url, slot=1, after=0)
        async with deliverer._sender:
            await deliverer.round()
            await until(lambda: village.seq in end.seqs)


async def test_who_deletes_a_webhook_while_it_is_made_is_told_that_it_is_over(village: Village) -> None:
    kept = await village.hook("http://127.0.0.1:9/same")
    gone = await village.hook("http://127.0.0.1:9/same", slot=1)
    assert await village.webhooks.delete(village.name, BOB.public_key, gone, now_s=0)
    found = await Reader(village.pool).load_commons(village.name)
    assert found is not None
    with pytest.raises(Refused) as refused:
        await _shown(village.webhooks, found[0], BOB.public_key, gone, bytes(32))
    assert refused.value.refusal.code == "expired"
    assert (await _shown(village.webhooks, found[0], BOB.public_key, kept, bytes(32))).status == 201


async def test_a_commons_that_rests_is_not_looked_into(village: Village) -> None:
    await village.hook("http://127.0.0.1:9/")
    deliverer = village.deliverer()
    asked: list[list[int]] = []
    ask = village.webhooks.list_pending

    async def counted(keys: list[int], **limits: int) -> object:
        asked.append(keys)
        return await ask(keys, **limits)

    village.webhooks.list_pending = counted  # type: ignore[method-assign,assignment]
    for _ in range(3):
        await deliverer.round()
    assert asked == [[key_of(village.name)]]
    await village.hook("http://127.0.0.1:9/more", slot=1)
    await deliverer.round()
    await deliverer.round()
    assert len(asked) == 2, "a webhook was asked for"

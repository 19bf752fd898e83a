"""Entries that are followed at a real ledger: by everybody, by a party, over a crash, and by the sync client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gesell import Client, Entry, Peer, default_policy
from gesell.sync import Client as SyncClient
from tests.running import Service, lay_cluster


async def heard(entries: AsyncIterator[Entry], *, until: int) -> list[int]:
    seqs = []
    async for entry in entries:
        seqs.append(entry.seq)
        if entry.seq >= until:
            break
    return seqs


@asynccontextmanager
async def founded(url: str, visibility: str = "open") -> AsyncIterator[tuple[Client, Peer, Peer]]:
    """A client of ada, who is steward and waits to be a member, and bob, who has 100 in hand; five entries."""
    ada, bob = Peer.new(), Peer.new()
    async with asyncio.timeout(120), Client(url, peer=ada) as client:
        await client.found(name="Live", currency="WRG", policy=replace(default_policy(), visibility=visibility))
        await client.join("ada")
        await client.as_peer(bob).join("bob")
        await client.admit(bob)
        await client.issue(bob, "100")
        yield client, ada, bob


async def test_entries_follow_from_the_beginning_from_a_place_and_from_now_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with founded(service.url) as (client, ada, bob):
        await client.admit(ada)
        standing, stream = asyncio.Semaphore(0), client._link.transport.stream

        @asynccontextmanager
        async def noted(*args: Any, **how: Any) -> AsyncIterator[Any]:
            async with stream(*args, **how) as made:
                standing.release()
                yield made

        monkeypatch.setattr(client._link.transport, "stream", noted)
        tasks = [asyncio.create_task(heard(client.follow(after=after), until=16)) for after in (0, 4, None)]
        # Who follows from now on has to have begun before there is something new.
        for _ in tasks:
            await standing.acquire()
        for number in range(10):
            await client.as_peer(bob).pay(ada, "0.01", memo=f"payment {number}")
        assert [await task for task in tasks] == [list(range(1, 17)), list(range(5, 17)), list(range(7, 17))]


async def test_a_party_follows_what_concerns_it_and_a_steward_all(service: Service) -> None:
    cleo = Peer.new()
    async with founded(service.url, "parties") as (client, ada, bob):
        await client.as_peer(cleo).join("cleo")  # 6
        await client.admit(cleo)  # 7
        all_ = asyncio.create_task(heard(client.follow(after=0), until=9))
        own = asyncio.create_task(heard(client.as_peer(cleo).follow(after=0), until=9))
        await client.admit(ada)  # 8
        await client.as_peer(bob).pay(cleo, "1")  # 9
        assert await all_ == list(range(1, 10))
        assert await own == [1, 6, 7, 9]


async def test_following_goes_on_over_a_crash_of_the_ledger_without_loss_or_repeat(folder: Path) -> None:
    lay_cluster(folder / "data")
    service = Service(folder, "--min-tick-seconds", "1")
    try:
        async with founded(service.start().url) as (client, ada, bob):
            await client.admit(ada)
            following = asyncio.create_task(heard(client.follow(after=0), until=26))
            for number in range(20):
                if number in (7, 14):
                    await asyncio.to_thread(service.kill)
                    await asyncio.to_thread(service.start)
                await client.as_peer(bob).pay(ada, "0.01")
            assert await following == list(range(1, 27))
    finally:
        service.end()


async def test_a_member_follows_a_closed_commons_whose_tokens_last_a_second(fast_service: Service) -> None:
    async with founded(fast_service.url, "members") as (client, ada, bob):
        await client.admit(ada)
        following = asyncio.create_task(heard(client.as_peer(bob).follow(after=0), until=11))
        for number in range(5):
            await asyncio.sleep(0.8)
            await client.issue(bob, str(1 + number))
        assert (await following)[:6] == list(range(1, 7))
        assert len(set(following.result())) == len(following.result()) >= 11


async def test_who_has_left_follows_its_own_past(service: Service) -> None:
    async with founded(service.url, "parties") as (client, ada, bob):
        await client.admit(ada)  # 6
        mine = client.as_peer(bob)
        await mine.leave()  # 7 and what it leaves to the pool
        async with asyncio.timeout(30):
            assert await heard(mine.follow(after=0), until=7) == [1, 3, 4, 5, 7]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await heard(mine.follow(), until=1)


async def test_the_sync_client_follows_too(service: Service) -> None:
    async with founded(service.url) as (client, _, bob):

        def follow() -> list[int]:
            seqs = []
            with SyncClient(service.url, commons=client.commons_id, peer=bob) as gesell:
                for entry in gesell.follow(after=3):
                    seqs.append(entry.seq)
                    if entry.seq == 5:
                        gesell.retire("1")
                    if entry.seq == 6:
                        break
            return seqs

        assert await asyncio.to_thread(follow) == [4, 5, 6]

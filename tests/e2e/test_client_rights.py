"""The client and the wallet in commons that are not open: joining, paying and reading by a token of one's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gesell import Client, NotActive, NotAuthorised, Peer, UnknownCommons, default_policy
from tests.e2e.wallet import Wallet
from tests.running import Service, running


@dataclass(frozen=True)
class Closed:
    """A commons that only members see, with a steward who is a member, and somebody who is about to ask."""

    url: str
    commons: str
    ada: Peer
    bob: Peer

    def client(self, peer: Peer | None, *, by: Peer | None = None) -> Client:
        return Client(self.url, commons=self.commons, peer=peer, by=by)


@pytest.fixture(params=["members", "parties"])
async def closed(request: pytest.FixtureRequest, service: Service) -> AsyncIterator[Closed]:
    ada, bob = Peer.new(), Peer.new()
    policy = replace(default_policy(), visibility=request.param)
    async with Client(service.url, peer=ada) as client:
        commons = await client.found(name="Closed", currency="WRG", policy=policy)
        await client.join("ada")
        await client.admit(ada)
        yield Closed(service.url, commons, ada, bob)


async def test_who_asks_to_join_sees_only_its_own_asking_until_it_is_admitted(closed: Closed) -> None:
    async with closed.client(closed.bob) as bob, closed.client(closed.ada) as ada:
        with pytest.raises(UnknownCommons):
            await bob.currency()
        receipt = await bob.join("bob", memo="hello")
        me = await bob.member()
        assert (me.status, me.credit_limit) == ("pending", None)
        assert [entry.seq async for entry in bob.entries()] == [receipt.seq]
        with pytest.raises(NotActive, match="members only"):
            await bob.pay(closed.ada, "1")
        await ada.admit(closed.bob)
        await ada.issue("bob", "100")
        paid = await bob.pay("ada", "0.05", memo="thanks")
        assert (await bob.member()).credit_limit is not None
        assert str(await bob.balance()) == "99.95 WRG"
        assert [line.seq async for line in bob.history()] == [paid.seq - 1, paid.seq]
        assert await bob.receipt(paid) == paid


async def test_who_waits_may_leave_and_change_its_keys(closed: Closed) -> None:
    phone = Peer.new()
    async with closed.client(closed.bob) as bob:
        await bob.join("bob")
        await bob.keys(add=[phone])
        async with closed.client(phone, by=closed.bob) as on_phone:
            assert set((await on_phone.member()).keys) == {closed.bob.did, phone.did}
            await on_phone.leave()


async def test_who_has_left_still_sees_its_own_past(closed: Closed, folder: Path) -> None:
    closed.bob.save(folder / "bob.key", passphrase=None)
    gesell = Wallet(folder, closed.url, closed.commons).of("bob.key")
    async with closed.client(closed.bob) as bob, closed.client(closed.ada) as ada:
        await bob.join("bob")
        await ada.admit(closed.bob)
        await ada.issue("bob", "100")
        await bob.pay("ada", "1", memo="for bread")
        await bob.leave()
        with pytest.raises(NotAuthorised):
            await bob.commons()
    shown = await gesell("balance")
    assert (shown.status, shown.err) == (0, "")
    assert "Closed" in shown.out
    assert "balance    0 WRG" in shown.out
    assert "for bread" in (await gesell("history")).out


async def test_a_stranger_is_told_nothing(closed: Closed) -> None:
    for peer in (None, Peer.new()):
        async with closed.client(peer) as stranger:
            for ask in (stranger.commons, stranger.currency, stranger.member):
                with pytest.raises(UnknownCommons):
                    await (ask(closed.ada) if ask == stranger.member else ask())  # type: ignore[operator]
            with pytest.raises(UnknownCommons):
                assert [entry async for entry in stranger.follow()] == []


async def test_an_envelope_is_settled_by_who_may_not_read_the_commons(closed: Closed) -> None:
    async with closed.client(closed.ada) as ada, Client(closed.url) as carrier:
        envelope = await ada.sign({"type": "join", "handle": "bob"})
        [result] = await carrier.submit([await ada.as_peer(closed.bob).sign({"type": "join", "handle": "bob"})])
        assert result.status == "accepted"
        [result] = await carrier.submit([envelope])
        assert result.status == "refused"


async def test_with_parties_a_member_sees_its_own_account_alone(closed: Closed) -> None:
    async with closed.client(closed.bob) as bob, closed.client(closed.ada) as ada:
        await bob.join("bob")
        await ada.admit(closed.bob)
        await ada.issue("bob", "5")
        if (await ada.commons()).policy.visibility == "members":
            assert str(await bob.balance("ada")) == "0 WRG"
            assert [entry.seq async for entry in bob.entries()] == list(range(1, 7))
        else:
            with pytest.raises(NotAuthorised):
                await bob.balance("ada")
            assert [entry.seq async for entry in bob.entries()] == [1, 4, 5, 6]
        assert [entry.seq async for entry in ada.entries()] == list(range(1, 7))


@pytest.fixture
def hasty_service() -> Iterator[Service]:
    """A clock on which a day, and so the longest life of a token, passes in 43 seconds: too short to keep one, and long
    enough for a request on a slow machine."""
    with running("--min-tick-seconds", "1", "--demo", "--clock-speed", "2000") as started:
        yield started


async def test_a_fast_clock_and_its_tokens_go_together(hasty_service: Service) -> None:
    ada = Peer.new()
    policy = replace(default_policy(), visibility="members", tick_seconds=86_400)
    async with Client(hasty_service.url, peer=ada) as client:
        await client.found(name="Fast", currency="WRG", policy=policy)
        await client.join("ada")
        for _ in range(20):
            assert (await client.member()).status == "pending"
        assert (await client.commons()).name == "Fast"


async def test_the_wallet_opens_its_key_where_a_commons_asks_who_reads(closed: Closed, folder: Path) -> None:
    closed.bob.save(folder / "bob.key", passphrase="correct horse")
    closed.ada.save(folder / "ada.key", passphrase=None)
    wallet = Wallet(folder, closed.url, closed.commons)
    bob = wallet.of("bob.key", GESELL_PASSPHRASE="correct horse")
    ada = wallet.of("ada.key")
    assert "You have asked to join as bob" in (await bob("join", "bob")).out
    status, _, error = await wallet.of("bob.key")("balance")
    assert (status, "passphrase" in error) == (1, True)
    await ada("admit", closed.bob.did)
    await ada("issue", "bob", "10")
    assert "Paid 1 WRG to ada" in (await bob("pay", "ada", "1")).out
    assert json.loads((await bob("balance", "--json")).out)["balance"] == "9"
    assert "paid" in (await bob("history")).out
    assert "Closed" in (await bob("commons", closed.commons)).out
    assert (await wallet.of("nobody.key")("balance", "bob")).status == 1

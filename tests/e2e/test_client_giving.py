"""Gifts, trust and what they make of people, through the client and the wallet on a real ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gesell.sync
from gesell import (
    Amount,
    Client,
    Gift,
    InsufficientFunds,
    LimitExceeded,
    NotAuthorised,
    NotFound,
    Peer,
    Relationship,
    UnknownMember,
    VouchInUse,
    WrongState,
    default_policy,
)
from gesell.commands import main
from tests.running import Service

ADA, BOB, CY, EVE = (Peer(bytes([number]) * 32) for number in range(61, 65))


def hours(hundredths: int) -> Amount:
    return Amount(hundredths, "hour", 2, unit="h")


def lind(amount: str) -> Amount:
    return Amount(int(amount) * 10**6, "LIND", 6)


@asynccontextmanager
async def town(url: str, **policy: Any) -> AsyncIterator[Client]:
    """A client of ada, the steward of bob and cy, in a commons where each may go to 50 below zero."""
    async with Client(url, peer=ADA) as client:
        rules = replace(default_policy(), **{"credit_limit": 50_000_000, **policy})
        await client.found(name="Town", currency="LIND", policy=rules)
        for name, peer in (("ada", ADA), ("bob", BOB), ("cy", CY)):
            await client.as_peer(peer).join(name)
            await client.admit(peer)
        yield client


async def until_read(client: Client, of: Peer) -> None:
    """Wait until the ledger's readings are at the last entry."""
    seq = (await client.commons()).seq
    async with asyncio.timeout(60):
        while (await client.standing(of)).as_of_seq < seq:  # noqa: ASYNC110 - the ledger is a server, it sets no event
            await asyncio.sleep(0.02)


async def gifts_of(client: Client, **asked: Any) -> list[Gift]:
    return [gift async for gift in client.gifts(**asked)]


# ── Gifts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_gift_counts_once_it_is_thanked_for_and_touches_no_money(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        await ada.issue("bob", "10")
        before = await bob.balance()
        offered = await bob.give("ada", "1.5", category="gardening", memo="for last week")
        assert offered.postings == ()
        assert ((await ada.balance()).gifts, (await bob.balance()).gifts) == ((), ())
        [gift] = await gifts_of(ada, to="ada", state="offered")
        assert (gift.giver, gift.to, gift.quantity, gift.state) == (BOB.did, ADA.did, hours(150), "offered")
        assert (gift.category, gift.memo, gift.settled, gift.after) == ("gardening", "for last week", None, ())
        thanked = await ada.thank(gift, memo="lovely")
        assert [(one.asset, one.amount) for one in thanked.postings] == [("hour", -150), ("hour", 150)]
        gift = await ada.gift(offered)
        assert (gift.state, gift.settled_ms, gift.moved) == ("received", thanked.at_ms, ())
        [given] = (await bob.balance()).gifts
        [received] = (await ada.balance()).gifts
        assert (given.given, given.received, received.given, received.received) == (
            hours(150), hours(0), hours(0), hours(150),
        )  # fmt: skip
        assert (await bob.balance()).effective == before.effective
        [line] = [line async for line in bob.history(kind="hour")]
        assert (line.reason, str(line.amount), str(line.balance)) == ("gift", "-1.5 h", "-1.5 h")
        assert line.counterpart == ADA.did
        with pytest.raises(ValueError, match="not an amount of LIND"):
            await bob.pay("ada", gift.quantity)


async def test_the_thread_of_a_gift_is_followed_both_ways(service: Service) -> None:
    async with town(service.url) as ada:
        bob, cy = ada.as_peer(BOB), ada.as_peer(CY)
        first = await bob.give("ada", 1)
        with pytest.raises(WrongState):
            await ada.give("cy", 1, after=[first])  # not received yet
        await ada.thank(first)
        with pytest.raises(NotAuthorised):
            await cy.give("bob", 1, after=[first])  # it was ada's
        second = await ada.give("cy", "0.25", after=[first])
        await cy.decline(second)
        third = await ada.give("cy", 2, after=[first])
        found, moved = await ada.gift(third), await gifts_of(ada, moved_by=first)
        assert found.after == ((await ada.gift(first)).id,)
        assert [(one.id, one.state) for one in moved] == [
            (found.id, "offered"),
            ((await ada.gift(second)).id, "declined"),
        ]
        assert [(one.id, one.state) for one in (await ada.gift(first)).moved or ()] == [
            (one.id, one.state) for one in moved
        ]


async def test_gifts_are_answered_by_those_whose_they_are_and_once(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        gift = await bob.give("ada", 1)
        with pytest.raises(NotAuthorised):
            await ada.withdraw(gift)
        with pytest.raises(NotAuthorised):
            await bob.thank(gift)
        await bob.withdraw(gift)
        with pytest.raises(WrongState):
            await ada.thank(gift)
        for missing in (ada.thank, ada.decline, ada.withdraw, ada.gift):
            with pytest.raises(NotFound):
                await missing("0195d0c5-0a00-7000-8000-000000000000")
        with pytest.raises(UnknownMember):
            await bob.give(EVE, 1)
        with pytest.raises(ValueError, match="more than 2 decimals"):
            await bob.give("ada", "0.125")
        assert await gifts_of(ada, to="ada", state="offered") == []
        assert [one.state for one in await gifts_of(ada, page=1)] == ["withdrawn"]


async def test_stewards_make_kinds_and_thank_for_what_all_are_given(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        with pytest.raises(NotFound):
            await bob.give("pool", 3, kind="bread")
        await ada.make_kind("bread", name="Loaves of bread")
        with pytest.raises(WrongState):
            await ada.make_kind("bread")
        kind = await bob.kind("bread")
        assert (kind.name, kind.unit, kind.scale, str(kind.amount(3))) == ("Loaves of bread", "1", 0, "3 bread")
        with pytest.raises(ValueError, match="more than 0 decimals"):
            await bob.give("pool", "0.5", kind="bread")
        loaves = await bob.give("pool", 3, kind="bread")
        with pytest.raises(NotAuthorised):
            await bob.decline(loaves)
        [gift] = await gifts_of(bob, to="pool")
        assert repr(gift).startswith(f"<Gift {gift.id} offered: 3 bread from {BOB.did} to pool")
        await ada.thank(gift)
        [count] = (await bob.balance()).gifts
        assert (count.kind, str(count.given)) == ("bread", "3 bread")


async def test_in_a_commons_of_parties_others_do_not_see_a_gift(service: Service) -> None:
    async with town(service.url, visibility="parties") as ada:
        bob, cy = ada.as_peer(BOB), ada.as_peer(CY)
        gift = await bob.give("cy", 1, memo="between us")
        await cy.thank(gift)
        common = await bob.give("pool", 2)
        await cy.give("ada", 1)
        assert {one.seq for one in await gifts_of(bob)} == {gift.seq, common.seq}
        assert len(await gifts_of(cy)) == 3
        await bob.give("ada", 4)
        with pytest.raises(NotFound):
            await cy.gift((await gifts_of(bob, to="ada"))[0])
        await until_read(bob, BOB)
        assert [one.handle async for one in bob.relationships()] == ["cy"]
        with pytest.raises(NotAuthorised):
            _ = [one async for one in ada.relationships("bob")]  # not even stewards


async def test_what_is_asked_to_be_signed_says_which_gift_it_is(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        offer = await bob.sign({"type": "gift", "to": "ada", "kind": "hour", "quantity": "1.5", "category": "lift"})
        assert f"Give 1.5 h (hour) to ada ({ADA.did})" in await ada.describe(offer)
        [result] = await bob.submit([offer])
        answer = await ada.sign({"type": "thank", "gift": result.receipt_or_raise()})
        told = await ada.describe(answer)
        assert told.startswith(f"Thank for 1.5 h (hour) for lift from bob ({BOB.did}) to ada ({ADA.did}), gift ")
        assert result.receipt is not None
        assert "WRG" not in told


# ── Trust ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_vouch_lends_credit_room_and_can_be_taken_back_while_it_is_not_needed(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        await bob.vouch("cy", "20")
        limits = {member.handle: member.credit_limit async for member in ada.members()}
        assert limits == {"ada": lind("50"), "bob": lind("30"), "cy": lind("70")}
        cy = ada.as_peer(CY)
        await cy.pay("ada", "60")
        with pytest.raises(VouchInUse):
            await bob.vouch("cy", 0)
        await bob.vouch("cy", "10")
        with pytest.raises(LimitExceeded) as smallest:
            await bob.vouch("ada", "0.5")
        assert smallest.value.limit == 10**6
        with pytest.raises(LimitExceeded) as room:
            await bob.vouch("cy", "51")
        assert room.value.limit == 50 * 10**6
        await bob.pay("ada", "30")
        with pytest.raises(InsufficientFunds) as short:
            await bob.vouch("cy", "30")
        assert (short.value.available, short.value.needed) == (lind("10"), lind("20"))
        with pytest.raises(ValueError):
            await bob.vouch("cy", "-1")


async def test_trust_is_asked_for_and_a_write_off_is_borne_by_who_vouched(service: Service) -> None:
    async with town(service.url) as ada:
        bob, cy = ada.as_peer(BOB), ada.as_peer(CY)
        await ada.vouch("bob", "20")
        await bob.vouch("cy", "10")
        found = await ada.trust("cy")
        assert (found.of, found.to, found.flow, found.strength) == (ADA.did, CY.did, lind("10"), lind("10"))
        assert [(link.handle, link.vouch) for link in found.chain] == [("bob", lind("20")), ("cy", lind("10"))]
        reached = [(one.member.handle, one.strength, one.hops, one.by) async for one in ada.trusted()]
        assert reached == [("bob", lind("20"), 1, ADA.did), ("cy", lind("10"), 2, BOB.did)]
        assert (await cy.trust("ada")).flow == lind("0")
        assert (await bob.trust("cy", of="ada")) == found
        await cy.pay("ada", "55")
        receipt = await ada.write_off("cy", memo="moved away")
        assert [(p.holder, p.amount) for p in receipt.postings if p.reason == "writeoff"] == [
            (CY.key, 55_000_000), (BOB.key, -10_000_000), ("issuer", -45_000_000),
        ]  # fmt: skip
        assert (await ada.member("cy")).status == "suspended"
        assert (await ada.trust("cy")).flow == lind("0")


# ── Readings ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_relationships_standing_and_flow_are_told_in_amounts(service: Service) -> None:
    async with town(service.url) as ada:
        bob = ada.as_peer(BOB)
        await ada.make_kind("bread")
        await ada.issue("bob", "100")
        await bob.pay("ada", "3", category="food")
        await bob.pay("ada", "2")
        await ada.pay("bob", "1", category="food")
        for kind, quantity in (("hour", "1.5"), ("bread", 2)):
            await ada.thank(await bob.give("ada", quantity, kind=kind, category="help"))
        await bob.vouch("cy", "5")
        await until_read(ada, ADA)
        seen = {one.handle: one async for one in bob.relationships(page=1)}
        assert seen.keys() == {"ada", "cy"}
        one = seen["ada"]
        assert isinstance(one, Relationship)
        assert (one.paid.count, one.paid.amount, one.received.amount) == (2, lind("5"), lind("1"))
        assert [(part.category, part.count, part.amount) for part in one.paid.categories] == [("food", 1, lind("3"))]
        assert [str(total) for total in one.given.totals()] == ["2 bread", "1.5 h"]
        assert one.was_given.count == 0
        assert one.reciprocity == 0.25  # one the one way, four the other
        assert (seen["cy"].vouches, seen["cy"].vouched, seen["cy"].reciprocity) == (lind("5"), lind("0"), None)
        [back] = [other async for other in ada.relationships() if other.handle == "bob"]
        assert (back.strength, back.received.amount, back.first_ms) == (one.strength, one.paid.amount, one.first_ms)
        standing = await ada.standing("bob")
        assert (standing.given.count, standing.given.members, standing.received.count) == (2, 1, 0)
        assert standing.given.weight == pytest.approx(2, abs=0.01)
        flow = await ada.flow(step=7, since=0)
        [step] = flow.steps[-1:]
        assert (step.paid.count, step.paid.amount, step.issued, step.members) == (3, lind("6"), lind("100"), 3)
        assert {str(total) for total in step.gifts.totals()} == {"2 bread", "1.5 h"}
        assert step.returned_2 == pytest.approx(2 / 6, abs=1e-5)
        assert (step.active, step.both, step.gini) != (None, None, None)
        assert flow.as_of_seq == one.as_of_seq == standing.as_of_seq


def test_the_sync_client_gives_and_thanks_too(service: Service) -> None:
    with gesell.sync.Client(service.url, peer=ADA) as ada:
        ada.found(name="Sync", currency="LIND", policy=replace(default_policy(), admission="open"))
        bob = ada.as_peer(BOB)
        ada.join("ada")
        bob.join("bob")
        offered = bob.give("ada", "0.5")
        assert [gift.state for gift in ada.gifts(to="ada")] == ["offered"]
        ada.thank(offered)
        assert ada.gift(offered).state == "received"


# ── The wallet ───────────────────────────────────────────────────────────────────────────────────────────────────


Run = Callable[..., str]


@pytest.fixture
async def commons(service: Service, folder: Path) -> str:
    for name, peer in (("ada", ADA), ("bob", BOB), ("cy", CY)):
        peer.save(folder / f"{name}.key", passphrase=None)
    async with town(service.url) as ada:
        await ada.issue("bob", "100")
        assert ada.commons_id is not None
        return ada.commons_id


@pytest.fixture
def wallet(
    service: Service, folder: Path, commons: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Commands of the wallet in this process: `wallet("ada", "gifts")` gives what they say, and how they end."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GESELL_URL", service.url)
    monkeypatch.setenv("GESELL_COMMONS", commons)
    monkeypatch.chdir(folder)

    def run(who: str, *words: str, status: int = 0) -> str:
        monkeypatch.setenv("GESELL_KEY", str(folder / f"{who}.key"))
        try:
            ended: object = main(words)
        except SystemExit as error:
            ended = error.code
        told = capsys.readouterr()
        assert ended == status, told
        return told.out if status == 0 else told.err

    return run


def test_wallet_gives_and_thanks(wallet: Run) -> None:
    assert "Offered 1.5 h to ada" in wallet("bob", "give", "ada", "1.5", "for last week", "--for", "gardening")
    assert "for last week" in wallet("ada", "gifts")
    assert "Thanked bob for 1.5 h for gardening." in wallet("ada", "thank", "--memo", "lovely")
    assert "There is no gift that waits for you" in wallet("ada", "thank", status=1)
    assert "was given     1.5 h" in wallet("ada", "balance")
    assert json.loads(wallet("ada", "balance", "--json"))["gifts"] == [
        {"kind": "hour", "given": "0", "received": "1.5"}
    ]
    assert "which are no debt" in wallet("bob", "history", "--asset", "hour")
    [line] = json.loads(wallet("bob", "history", "--asset", "hour", "--json"))["items"]
    assert (line["amount"], line["memo"]) == ("-1.5", "lovely")
    assert "Offered 0.5 h to cy" in wallet("ada", "give", "cy", "0.5", "--after", "bob")
    [given] = json.loads(wallet("bob", "gifts", "--json"))["settled"]
    assert "moved " in wallet("bob", "gift", given["id"][:13])


def test_wallet_names_a_gift_by_who_by_id_or_not_at_all(wallet: Run) -> None:
    for giver, quantity in (("bob", "1"), ("bob", "2"), ("cy", "3")):
        wallet(giver, "give", "ada", quantity)
    assert "Which gift? " in wallet("ada", "thank", status=2)
    assert "Which gift? " in wallet("ada", "thank", "bob", status=2)
    assert "Thanked cy for 3 h." in wallet("ada", "thank", "cy")
    waiting = json.loads(wallet("ada", "gifts", "--json"))["waiting"]
    assert [gift["quantity"] for gift in waiting] == ["2", "1"]
    first, second = (gift["id"] for gift in waiting)
    alike = next(place for place in range(36) if first[place] != second[place])
    assert "Declined what bob offered: 2 h." in wallet("ada", "decline", first[: alike + 1])
    assert "Took back 1 h for ada." in wallet("bob", "withdraw")
    assert "no gift that you offer" in wallet("bob", "withdraw", "ada", status=1)
    assert "There is no member bbo here." in wallet("bob", "give", "bbo", "1", status=1)
    assert "Gifts are for others" in wallet("bob", "give", "bob", "1", status=2)
    assert "gesell kind list" in wallet("bob", "give", "ada", "1", "--kind", "gold", status=1)


def test_wallet_of_a_steward_makes_kinds_and_thanks_for_all(wallet: Run, folder: Path) -> None:
    assert "Made the kind of gift bread" in wallet("ada", "kind", "add", "bread", "--name", "Loaves")
    assert "Loaves" in wallet("bob", "kind", "list")
    assert "Offered 3 bread to the whole commons" in wallet("bob", "give", "pool", "3", "--kind", "bread")
    assert "There is no gift that waits for you" in wallet("bob", "thank", status=1)
    wallet("cy", "give", "ada", "1")
    wallet("cy", "give", "pool", "2")
    assert "Thanked cy for 1 h." in wallet("ada", "thank")  # her own goes before those of all
    assert "Which gift? " in wallet("ada", "thank", status=2)
    assert "There is no gift that waits for you, cy being on its other side" in wallet("ada", "thank", "cy", status=1)
    hours = json.loads(wallet("ada", "gifts", "--json"))["waiting"][0]["id"]
    assert "Declined what cy offered: 2 h." in wallet("ada", "decline", hours)
    drafted = wallet("ada", "thank", "pool", "--draft", "thanks.json")
    assert drafted.startswith(f"Thank for 3 bread (bread) from bob ({BOB.did}) to the pool, for the whole commons")
    assert (folder / "thanks.json").is_file()
    assert "It is applied now" in wallet("ada", "send", "thanks.json")
    sent = json.loads(wallet("ada", "send", "thanks.json", "--json"))
    assert [posting[2:] for posting in sent["postings"]] == [["bread", "-3"], ["bread", "3"]]


def test_wallet_vouches_and_says_in_money_what_does_not_fit(wallet: Run) -> None:
    told = wallet("bob", "vouch", "cy", "20")
    assert "You vouch for cy with 20 LIND now." in told
    assert "your own credit limit is 30 LIND" in told
    assert "credit limit  30 LIND" in wallet("bob", "balance")
    assert "You can vouch for ada with at most 30 LIND." in wallet("bob", "vouch", "ada", "31", status=1)
    assert "The smallest vouch here is 1 LIND." in wallet("bob", "vouch", "ada", "0.1", status=1)
    assert "You can't vouch for yourself." in wallet("bob", "vouch", "bob", "1", status=2)
    assert "0 takes it back" in wallet("bob", "vouch", "cy", status=2)
    wallet("cy", "pay", "ada", "60")
    assert "cy needs what you vouch" in wallet("bob", "vouch", "cy", "0", status=1)
    assert "bob vouches for cy with 20 LIND" in wallet("ada", "trust", "cy", "--of", "bob")
    assert json.loads(wallet("bob", "trust", "cy", "--json"))["flow"] == "20"
    assert "cy " in wallet("bob", "trust")
    assert "No vouch leads from there" in wallet("cy", "trust")
    told = wallet("ada", "writeoff", "cy")
    assert "Wrote off 60 LIND that cy owed" in told
    assert "bob bore 20 LIND" in told
    assert "all together (the issuer) bore 40 LIND" in told
    assert "owes nothing" in wallet("ada", "writeoff", "bob", status=1)


def test_wallet_shows_relationships_standing_and_flow(wallet: Run) -> None:
    wallet("bob", "pay", "ada", "7")
    wallet("bob", "give", "ada", "2")
    wallet("ada", "thank")
    rows: list[Any] = []
    for _ in range(300):  # the readings are a moment behind
        rows = json.loads(wallet("bob", "relationships", "--json"))
        if rows and rows[0]["given"]["count"]:
            break
        time.sleep(0.1)
    assert (rows[0]["handle"], rows[0]["paid"]["amount"], rows[0]["given"]["kinds"][0]["amount"]) == ("ada", "7", "2")
    shown = wallet("cy", "relationships", "bob")
    assert "2 h" in shown
    assert "1 gift, thanked by 1 member" in wallet("ada", "standing", "bob")
    assert json.loads(wallet("ada", "standing", "bob", "--json"))["given"]["count"] == 1
    shown = wallet("ada", "flow")
    assert "read up to" in shown
    assert json.loads(wallet("ada", "flow", "--step", "7", "--json"))["items"][-1]["paid"]["amount"] == "7"

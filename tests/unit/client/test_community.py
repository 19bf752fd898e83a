"""Gifts and readings as a ledger answers them, and what the client makes of answers that are none."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from wire_ledger import BOB, STEWARD, WireLedger, problem

from gesell import Client, NotFound, Peer, UnexpectedAnswer
from gesell.amount import Amount
from gesell.answers import HOUR
from gesell_protocol.statements import Gift, Vouch, read_statement

ADA = Peer(b"\x01" * 32)
ID = "0195d0c5-0a00-7000-8000-000000000010"
OTHER = "0195d0c5-0a00-7000-8000-000000000011"
GIFT: dict[str, Any] = {
    "id": ID, "seq": 7, "at": 1, "from": ADA.did, "to": BOB.did, "kind": "hour", "quantity": "150", "state": "received",
    "settled": 9, "category": "lift", "after": [OTHER], "memo": "hi", "moved": [{"id": OTHER, "state": "offered"}],
}  # fmt: skip
NO_PAYMENTS = {"count": 0, "amount": "0", "categories": []}
NO_GIFTS: dict[str, Any] = {"count": 0, "kinds": []}
RELATIONSHIP: dict[str, Any] = {
    "peer": BOB.did, "handle": "bob", "paid": NO_PAYMENTS, "received": NO_PAYMENTS, "given": NO_GIFTS,
    "was_given": NO_GIFTS, "vouches": "5", "vouched": "0", "first": 1, "last": 2, "strength": 1.5,
}  # fmt: skip


def answers(ledger: WireLedger, *fields: dict[str, Any]) -> None:
    """What the next reads of the commons get."""
    ledger.odd_reads += [lambda *_, one=one: web.json_response(one) for one in fields]


async def test_a_gift_is_read_whole(ledger: WireLedger, gesell: Client) -> None:
    answers(ledger, GIFT)
    gift = await gesell.gift(ID)
    assert (gift.id, gift.giver, gift.to, gift.quantity, gift.state) == (
        ID,
        ADA.did,
        BOB.did,
        HOUR.amount(150),
        "received",
    )
    assert (gift.settled_ms, gift.category, gift.memo, gift.after) == (9, "lift", "hi", (OTHER,))
    assert [(one.id, one.state) for one in gift.moved or ()] == [(OTHER, "offered")]


@pytest.mark.parametrize(
    "change",
    [
        {"id": OTHER}, {"id": "x"}, {"from": "pool"}, {"to": "escrow"}, {"quantity": 150}, {"state": "given"},
        {"seq": "7"}, {"settled": None}, {"after": ["x"]}, {"moved": [{}]}, {"kind": None},
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_such_gift_is_not_taken_for_one(
    ledger: WireLedger, gesell: Client, change: dict[str, Any]
) -> None:
    # The kinds are asked for where a code is not known.
    answers(ledger, {**GIFT, **change}, {"kinds": []})
    with pytest.raises(UnexpectedAnswer):
        await gesell.gift(ID)


async def test_a_kind_that_is_not_shown_is_told_in_grains_and_can_not_be_given(
    ledger: WireLedger, gesell: Client
) -> None:
    hidden = lambda *_: problem("not-authorised", 403)  # noqa: E731
    answers(ledger, {**GIFT, "kind": "bread"})
    ledger.odd_reads.append(hidden)
    gift = await gesell.gift(ID)
    assert str(gift.quantity) == "150 grains"
    ledger.odd_reads = [hidden]
    with pytest.raises(NotFound, match="no kind of gift bread"):
        await gesell.give(BOB, 1, kind="bread")
    assert not ledger.posts


async def test_quantities_are_in_the_unit_of_their_kind_and_a_vouch_may_be_nothing(gesell: Client) -> None:
    envelope = await gesell.sign({"type": "gift", "to": "pool", "kind": "hour", "quantity": "1.5", "after": [ID]})
    gift = read_statement(envelope)
    assert isinstance(gift, Gift)
    assert (gift.to, gift.quantity, len(gift.after)) == ("pool", 150, 1)
    again = await gesell.sign({"type": "gift", "to": BOB, "kind": "hour", "quantity": HOUR.amount(150)})
    assert read_statement(again).quantity == 150  # type: ignore[attr-defined]
    for quantity in ("0", "-1", "1.555", Amount(1, "WRG", 6)):
        with pytest.raises(ValueError):
            await gesell.sign({"type": "gift", "to": BOB, "kind": "hour", "quantity": quantity})
    for limit, grains in (("20", 20_000_000), (0, 0)):
        vouch = read_statement(await gesell.sign({"type": "vouch", "for": BOB, "limit": limit}))
        assert isinstance(vouch, Vouch)
        assert (vouch.whom, vouch.limit) == (BOB.key, grains)


async def test_relationships_say_up_to_which_entry_they_are(ledger: WireLedger, gesell: Client) -> None:
    await gesell.currency()
    answers(ledger, {"items": [RELATIONSHIP], "as_of_seq": 41, "tick": 3, "half_life": 5})
    [one] = [one async for one in gesell.relationships()]
    assert (one.handle, str(one.vouches), one.reciprocity, one.strength, one.as_of_seq) == (
        "bob", "0.000005 WRG", None, 1.5, 41,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"handle": "B"}, {"peer": "bob"}, {"strength": "1"}, {"vouches": 5}, {"paid": {}}, {"given": []}],
    ids=str,
)
async def test_what_is_no_relationship_is_not_taken_for_one(
    ledger: WireLedger, gesell: Client, change: dict[str, Any]
) -> None:
    await gesell.currency()
    answers(ledger, {"items": [{**RELATIONSHIP, **change}], "as_of_seq": 41})
    with pytest.raises(UnexpectedAnswer):
        _ = [one async for one in gesell.relationships()]


async def test_trust_is_read_with_its_chain(ledger: WireLedger, gesell: Client) -> None:
    await gesell.currency()
    link = {"peer": BOB.did, "handle": "bob", "vouch": "7"}
    trust = {"from": ADA.did, "to": BOB.did, "flow": "9", "strength": "7", "chain": [link], "as_of_seq": 3}
    answers(ledger, trust)
    found = await gesell.trust("bob")
    assert (str(found.flow), str(found.strength), found.as_of_seq) == ("0.000009 WRG", "0.000007 WRG", 3)
    assert repr(found.chain[0]) == "<0.000007 WRG for bob>"
    member = {"peer": BOB.did, "handle": "bob", "status": "active", "joined": 1, "credit_limit": "0", "keys": [BOB.did]}
    ways: dict[str, Any] = {"strength": "7", "hops": 2, "by": STEWARD.did}
    answers(ledger, {"items": [{**member, "trust": ways}]})
    [one] = [one async for one in gesell.trusted()]
    assert (one.member.handle, str(one.strength), one.hops, one.by) == ("bob", "0.000007 WRG", 2, STEWARD.did)
    for odd in ({**trust, "chain": [{**link, "peer": "bob"}]}, {**trust, "flow": 9}, {**trust, "to": "bob"}):
        answers(ledger, odd)
        with pytest.raises(UnexpectedAnswer):
            await gesell.trust("bob")


@pytest.mark.parametrize("fields", [{}, {"peer": BOB.did, "handle": "bob"}], ids=str)
async def test_what_is_no_standing_or_flow_is_not_taken_for_one(
    ledger: WireLedger, gesell: Client, fields: dict[str, Any]
) -> None:
    await gesell.currency()
    answers(ledger, fields, fields)
    with pytest.raises(UnexpectedAnswer):
        await gesell.standing("bob")
    with pytest.raises(UnexpectedAnswer):
        await gesell.flow()

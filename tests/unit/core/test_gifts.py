"""Gifts: what the tables of refusals in `test_decide` do not say. Each statement goes through the plain model too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import Books, Holding
from gesell_ledger.core.decide import Accepted, decide
from gesell_ledger.core.needs import needs_of
from gesell_protocol.names import POOL, Holder
from gesell_protocol.refusals import Refusal
from tests.histories import LEDGER, Twin, cut, key, submission

ANNA, BEN, CARL = key("anna"), key("ben"), key("carl")
PEOPLE = (ANNA, BEN, CARL)
STEWARD = key("steward")


def town(*, admission: str = "open") -> Twin:
    """A commons of three active members whose idle money loses 2 % a tick."""
    twin = Twin(admission=admission)
    for peer, handle in zip(PEOPLE, ("anna", "ben", "carl"), strict=True):
        twin.done("join", peer, handle=handle)
        if admission == "steward":
            twin.done("admit", STEWARD, peer=peer)
    return twin


def offered(twin: Twin, by: bytes, to: Holder, quantity: int = 1, **fields: Any) -> bytes:
    """Offer a gift of hours; its id."""
    assert twin.done("gift", by, **{"kind": "hour", "to": to, "quantity": quantity, **fields}) == []
    return twin.entries[-1].id


def counts(twin: Twin, *holders: Holder, kind: str = "hour") -> list[int]:
    return [twin.books.account(holder, kind).balance for holder in holders]


def test_gift_counts_once_its_receiver_thanks_and_money_does_not_notice() -> None:
    twin = town()
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    gift = offered(twin, ANNA, BEN, 150)
    assert counts(twin, ANNA, BEN) == [0, 0]
    twin.pass_ticks(3)
    money = {name: held for name, held in twin.books.accounts.items() if name[1] == "WRG"}
    assert twin.done("thank", BEN, gift=gift) == [("gift", ANNA, -150), ("gift", BEN, 150)]
    assert {name: held for name, held in twin.books.accounts.items() if name[1] == "WRG"} == money
    assert counts(twin, ANNA, BEN) == [-150, 150]


@pytest.mark.parametrize(("kind", "by", "state"), [("thank", BEN, "received"), ("decline", BEN, "declined")])
def test_gift_that_was_answered_is_answered_no_more(kind: str, by: bytes, state: str) -> None:
    twin = town()
    gift = offered(twin, ANNA, BEN)
    twin.done(kind, by, gift=gift)
    assert twin.books.gifts[gift].state == state
    for again, who in (("thank", BEN), ("decline", BEN), ("withdraw", ANNA)):
        assert twin.refusal(again, who, gift=gift) == "wrong-state"


def test_gift_that_was_withdrawn_is_answered_no_more_and_its_thread_ends() -> None:
    twin = town()
    gift = offered(twin, ANNA, BEN)
    twin.done("withdraw", ANNA, gift=gift)
    for again, who in (("thank", BEN), ("decline", BEN), ("withdraw", ANNA)):
        assert twin.refusal(again, who, gift=gift) == "wrong-state"
    assert twin.refusal("gift", BEN, to=CARL, kind="hour", quantity=1, after=[gift]) == "wrong-state"


def test_no_gift_comes_after_itself_nor_after_one_that_came_after_it() -> None:
    twin = town()
    own = twin.stamp()
    assert twin.refusal("gift", ANNA, to=BEN, kind="hour", quantity=1, after=[own["id"]], **own) == "not-found"
    first = offered(twin, ANNA, BEN)
    twin.done("thank", BEN, gift=first)
    second = offered(twin, BEN, ANNA, after=[first])
    twin.done("thank", ANNA, gift=second)
    # What moved the first is written down with it: it can't be said anew, under the same id or another.
    again = {"to": BEN, "kind": "hour", "quantity": 1, "after": [second]}
    assert twin.refusal("gift", ANNA, id=first, expires=twin.now_ms + 300_000, **again) == "id-conflict"
    offered(twin, ANNA, BEN, after=[second])


def test_gift_moved_by_sixteen_others_is_taken_in_whatever_order_they_are_named() -> None:
    twin = town()
    moving = [offered(twin, ANNA, BEN, n) for n in range(1, 17)]
    for gift in reversed(moving):
        twin.done("thank", BEN, gift=gift)
    offered(twin, BEN, CARL, after=[*moving[8:], *moving[:8]])
    assert counts(twin, ANNA, BEN) == [-136, 136]


def test_gift_to_one_who_is_suspended_is_offered_and_can_be_thanked_for() -> None:
    twin = town()
    twin.done("suspend", STEWARD, peer=BEN)
    gift = offered(twin, ANNA, BEN)
    assert twin.refusal("gift", BEN, to=ANNA, kind="hour", quantity=1) == "not-active"
    twin.done("thank", BEN, gift=gift)
    mine = offered(twin, ANNA, CARL)
    twin.done("suspend", STEWARD, peer=ANNA)
    twin.done("withdraw", ANNA, gift=mine)


def test_gift_stays_open_when_its_giver_leaves_and_what_was_given_is_no_debt() -> None:
    twin = town()
    first, second = offered(twin, ANNA, BEN, 7), offered(twin, ANNA, BEN, 8)
    twin.done("thank", BEN, gift=first)
    twin.done("leave", ANNA)
    assert twin.refusal("withdraw", ANNA, gift=second) == "unknown-member"
    twin.done("thank", BEN, gift=second)
    assert counts(twin, ANNA, BEN) == [-15, 15]
    twin.done("join", ANNA, handle="anna")
    assert counts(twin, ANNA, BEN) == [-15, 15]


def test_gift_for_one_who_left_waits_for_it() -> None:
    twin = town()
    gift = offered(twin, ANNA, BEN)
    twin.done("leave", BEN)
    for kind in ("thank", "decline"):
        assert twin.refusal(kind, BEN, gift=gift) == "unknown-member"
        assert twin.refusal(kind, STEWARD, gift=gift) == "not-authorised"
    twin.done("join", BEN, handle="ben")
    twin.done("thank", BEN, gift=gift)


@pytest.mark.parametrize("kind", ["thank", "decline"])
def test_gift_for_all_takes_as_many_stewards_as_any_joint_word(kind: str) -> None:
    twin = Twin(stewards=("steward", "second", "third"), threshold=2)
    twin.done("join", ANNA, handle="anna")
    first, second, third = twin.stewards
    gift = offered(twin, ANNA, POOL, 25)
    assert twin.refusal(kind, ANNA, gift=gift) == "not-authorised"
    assert twin.refusal(kind, ANNA, gift=gift, signers=(ANNA, first, second)) == "not-authorised"
    assert twin.refusal(kind, first, gift=gift) == "not-authorised"
    posted = twin.done(kind, first, gift=gift, signers=(first, third))
    assert posted == ([("gift", ANNA, -25), ("gift", POOL, 25)] if kind == "thank" else [])


def test_gift_to_a_steward_is_a_members_and_asks_for_its_standing() -> None:
    twin = town()
    twin.done("stewards", STEWARD, signers=(STEWARD, ANNA), stewards=sorted([STEWARD, ANNA]), threshold=2)
    own, common = offered(twin, BEN, ANNA), offered(twin, BEN, POOL)
    twin.done("leave", ANNA)
    assert twin.refusal("thank", ANNA, gift=own) == "unknown-member"
    assert twin.refusal("decline", ANNA, gift=own, signers=(ANNA, STEWARD)) == "unknown-member"
    assert twin.refusal("thank", ANNA, gift=b"no such gift id!") == "not-found"
    twin.done("thank", ANNA, gift=common, signers=(ANNA, STEWARD))
    twin.done("join", ANNA, handle="anna")
    # One signature is enough: here she speaks as who she is, not for the stewards.
    twin.done("thank", ANNA, gift=own)


def test_gift_to_a_steward_who_waits_to_be_admitted_waits_too() -> None:
    twin = town(admission="steward")
    twin.done("stewards", STEWARD, signers=(STEWARD, ANNA), stewards=sorted([STEWARD, ANNA]), threshold=1)
    own = offered(twin, BEN, ANNA)
    twin.done("leave", ANNA)
    twin.done("join", ANNA, handle="anna")
    assert twin.refusal("thank", ANNA, gift=own) == "not-active"


@pytest.mark.parametrize(("giver", "receiver"), [(-(10**18) + 4, 0), (0, 10**18 - 4)])
def test_count_of_gifts_stays_within_bounds(giver: int, receiver: int) -> None:
    twin = town()
    for holder, count in ((ANNA, giver), (BEN, receiver), (CARL, -giver - receiver)):
        twin.books.accounts[holder, "hour"] = Holding(count)
        twin.model.given[holder, "hour"] = count
    five, four = offered(twin, ANNA, BEN, 5), offered(twin, ANNA, BEN, 4)
    refused = twin.say("thank", BEN, gift=five)
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("limit-exceeded", {"limit": 10**18})
    twin.done("thank", BEN, gift=four)


def test_commons_has_at_most_256_kinds_and_hours_are_one_of_them() -> None:
    twin = Twin()
    for number in range(255):
        twin.done("kind", STEWARD, code=f"kind-{number}", name="Anything", unit="1", scale=number % 7)
    refused = twin.say("kind", STEWARD, code="one-more", name="Anything", unit="1", scale=0)
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("limit-exceeded", {"limit": 256})
    assert twin.refusal("kind", STEWARD, code="hour", name="Anything", unit="1", scale=0) == "wrong-state"


def test_kind_keeps_the_name_unit_and_scale_it_was_made_with() -> None:
    twin = town()
    twin.done("kind", STEWARD, code="milk", name="Milch, frisch", unit="dL", scale=1)
    assert twin.books.commons is not None
    made = twin.books.commons.kinds["milk"]
    assert (made.code, made.name, made.unit, made.scale) == ("milk", "Milch, frisch", "dL", 1)
    gift = offered(twin, ANNA, BEN, 15, kind="milk")
    twin.done("thank", BEN, gift=gift)
    assert counts(twin, ANNA, BEN) == [0, 0]
    assert counts(twin, ANNA, BEN, kind="milk") == [-15, 15]


def test_gift_can_be_made_offered_and_thanked_for_in_one_batch() -> None:
    """What is thanked for in the batch in which it was offered can't be loaded: it is nowhere yet."""
    twin = town()
    received = offered(twin, CARL, ANNA, 2)
    twin.done("thank", ANNA, gift=received)
    offer = twin.fields("gift", ANNA, to=BEN, kind="hour", quantity=3)
    common = twin.fields("gift", ANNA, to=POOL, kind="bread", quantity=4)
    batch = [
        submission(twin.fields("kind", STEWARD, code="bread", name="Bread", unit="1", scale=0), [STEWARD]),
        submission(offer, [ANNA]),
        submission(twin.fields("thank", BEN, gift=offer["id"]), [BEN]),
        submission(common, [ANNA]),
        submission(twin.fields("thank", STEWARD, gift=common["id"]), [STEWARD]),
    ]
    few: Books = cut(twin.books, needs_of(batch))
    for one in batch:
        outcome = decide(few, one, now_ms=twin.now_ms, ledger=LEDGER)
        assert isinstance(outcome, Accepted), outcome
        few.apply(outcome.decision, outcome.entry)
    assert few.account(ANNA, "hour").balance == 2 - 3
    assert few.account(BEN, "hour").balance == 3
    assert few.account(POOL, "bread").balance == 4


people = st.sampled_from(PEOPLE)


@given(
    st.lists(
        st.tuples(
            people, st.sampled_from([*PEOPLE, POOL]), st.integers(1, 10**15), st.sampled_from(["thank", "decline", ""])
        ),
        max_size=15,
    )
)
@settings(max_examples=30, deadline=None)
def test_counts_are_what_was_thanked_for_and_sum_to_zero(gifts: list[tuple[bytes, Holder, int, str]]) -> None:
    twin = town()
    expected: dict[Holder, int] = dict.fromkeys((*PEOPLE, POOL), 0)
    for giver, receiver, quantity, answer in gifts:
        if giver == receiver:
            continue
        gift = offered(twin, giver, receiver, quantity)
        if answer:
            twin.done(answer, receiver if isinstance(receiver, bytes) else STEWARD, gift=gift)
        if answer == "thank":
            expected[giver] -= quantity
            expected[receiver] += quantity
    assert counts(twin, *expected) == list(expected.values())
    assert sum(expected.values()) == 0


def test_nobody_thanks_for_an_own_gift_in_everybodys_name() -> None:
    twin = town()
    twin.done("stewards", STEWARD, signers=(STEWARD, ANNA), stewards=sorted([STEWARD, ANNA]), threshold=1)
    gift = offered(twin, ANNA, POOL, 150)
    assert twin.refusal("thank", ANNA, gift=gift) == "not-authorised"
    assert twin.done("thank", STEWARD, gift=gift) == [("gift", ANNA, -150), ("gift", POOL, 150)]

"""Vouches and write-offs: what the tables of refusals in `test_decide` do not say.

Each statement goes through the plain model too, which works out for itself what a vouch leaves and a loss costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import ACTIVE, PENDING, SUSPENDED, Vouches
from gesell_ledger.core.decide import Accepted, decide
from gesell_ledger.core.needs import needs_of
from gesell_ledger.core.trust import share_loss
from gesell_protocol.names import ISSUER, POOL
from gesell_protocol.refusals import Refusal
from tests import plain_model
from tests.histories import CODE, LEDGER, Twin, cut, key, keys_of, submission

ANNA, BEN, CARL, DORA, EMIL = keys_of("anna", "ben", "carl", "dora", "emil")
STEWARD = key("steward")
PEOPLE = (ANNA, BEN, CARL, DORA, EMIL)


def town(*, credit: int = 100, **policy: Any) -> Twin:
    """A commons of five active members, ascending by key, whose idle money loses 2 % a tick."""
    twin = Twin(admission="steward", credit_limit=credit, **policy)
    for peer, handle in zip(PEOPLE, ("anna", "ben", "carl", "dora", "emil"), strict=True):
        admit(twin, peer, handle)
    return twin


def admit(twin: Twin, peer: bytes, handle: str) -> None:
    twin.done("join", peer, handle=handle)
    twin.done("admit", STEWARD, peer=peer)


def vouch(twin: Twin, by: bytes, whom: bytes, limit: int) -> None:
    assert twin.done("vouch", by, limit=limit, **{"for": whom}) == []


def refused(twin: Twin, by: bytes, whom: bytes, limit: int) -> tuple[str, dict[str, int]]:
    """The code and the fields with which a vouch is refused."""
    outcome = twin.say("vouch", by, limit=limit, **{"for": whom})
    assert isinstance(outcome, Refusal), outcome
    return outcome.code, dict(outcome.fields)


def limits(twin: Twin, *peers: bytes) -> list[int]:
    """Credit limits by the policy in force."""
    assert twin.books.commons is not None
    limit = twin.books.commons.policy_at(twin.now_ms).credit_limit
    return [twin.books.members[peer].credit_limit(limit) for peer in peers]


def spend(twin: Twin, by: bytes, to: bytes, amount: int) -> None:
    twin.done("pay", by, legs=[[to, amount]])


def change(twin: Twin, **policy: Any) -> None:
    """Have a changed policy in force, one tick later."""
    twin.policy = {**twin.policy, **policy}
    twin.done("policy", STEWARD, policy=twin.policy, from_tick=twin.tick + 1)
    twin.pass_ticks(1)


# ── Vouches ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_credit_limits_follow_a_vouch_at_once_and_it_costs_no_posting() -> None:
    twin = town()
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    twin.pass_ticks(3)
    held = dict(twin.books.accounts)
    vouch(twin, ANNA, BEN, 60)
    assert twin.books.accounts == held, "not even the melt that is due"
    assert limits(twin, ANNA, BEN, CARL) == [40, 160, 100]
    spend(twin, BEN, CARL, 160)
    assert twin.refusal("pay", BEN, legs=[[CARL, 1]]) == "insufficient-funds"


def test_vouch_says_how_high_it_is_and_not_how_much_is_added() -> None:
    twin = town()
    for limit in (60, 60, 100, 1, 30):
        vouch(twin, ANNA, BEN, limit)
        assert limits(twin, ANNA, BEN) == [100 - limit, 100 + limit]
    vouch(twin, ANNA, BEN, 0)
    assert limits(twin, ANNA, BEN) == [100, 100]
    assert twin.refusal("vouch", ANNA, limit=0, **{"for": BEN}) == "wrong-state"


def test_what_is_lent_can_be_lent_on_but_only_once() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 100)
    vouch(twin, BEN, CARL, 200)
    assert limits(twin, ANNA, BEN, CARL) == [0, 0, 300]
    assert refused(twin, ANNA, DORA, 1) == ("limit-exceeded", {"limit": 0})
    assert refused(twin, BEN, DORA, 1) == ("limit-exceeded", {"limit": 0})
    assert refused(twin, BEN, CARL, 201) == ("limit-exceeded", {"limit": 200})
    # Round in a ring: nobody has more for it.
    vouch(twin, CARL, ANNA, 300)
    assert limits(twin, ANNA, BEN, CARL) == [300, 0, 0]


def test_raising_needs_the_room_to_be_free_after_melt() -> None:
    twin = town()
    twin.done("issue", STEWARD, to=ANNA, amount=100)
    spend(twin, ANNA, BEN, 150)
    assert refused(twin, ANNA, CARL, 51) == ("insufficient-funds", {"available": 50, "needed": 51})
    vouch(twin, ANNA, CARL, 20)
    assert refused(twin, ANNA, CARL, 51) == ("insufficient-funds", {"available": 30, "needed": 31})
    twin.done("issue", STEWARD, to=ANNA, amount=150)
    # 100 there, and 80 of credit: what she has more does not let her lend more than her credit.
    assert refused(twin, ANNA, CARL, 101) == ("limit-exceeded", {"limit": 100})
    vouch(twin, ANNA, CARL, 100)


def test_lowering_stops_where_it_is_needed_after_melt() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 50)
    spend(twin, BEN, CARL, 130)
    for limit in (29, 1, 0):
        assert refused(twin, ANNA, BEN, limit) == ("vouch-in-use", {})
    vouch(twin, ANNA, BEN, 30)
    spend(twin, CARL, BEN, 30)
    vouch(twin, ANNA, BEN, 0)
    # Ben lends on what he was lent; money of his own stands in for it, until it has melted too far.
    vouch(twin, ANNA, BEN, 100)
    twin.done("issue", STEWARD, to=BEN, amount=150)
    vouch(twin, BEN, DORA, 200)
    twin.pass_ticks(1)
    assert twin.balance(BEN) == 49
    assert refused(twin, ANNA, BEN, 50) == ("vouch-in-use", {})
    vouch(twin, ANNA, BEN, 51)
    assert limits(twin, BEN) == [-49]
    twin.pass_ticks(1)
    for says in ({"legs": [[CARL, 1]]}, {"legs": [[CARL, 1]], "balancing": True}):
        assert twin.refusal("pay", BEN, **says) == "insufficient-funds"
    assert refused(twin, ANNA, BEN, 50) == ("vouch-in-use", {})


def test_smallest_vouch_is_that_of_the_policy_in_force_and_old_ones_stay() -> None:
    twin = town(vouch_min=10)
    vouch(twin, ANNA, BEN, 10)
    change(twin, vouch_min=30)
    assert limits(twin, ANNA, BEN) == [90, 110]
    for limit in (10, 29):
        assert refused(twin, ANNA, BEN, limit) == ("limit-exceeded", {"limit": 30})
    vouch(twin, ANNA, BEN, 30)
    vouch(twin, ANNA, BEN, 0)


def test_limit_that_a_policy_lowered_may_be_below_zero_and_then_lends_nothing() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 90)
    change(twin, credit_limit=30)
    assert limits(twin, ANNA, BEN) == [-60, 120]
    assert refused(twin, ANNA, CARL, 1) == ("limit-exceeded", {"limit": 0})
    assert refused(twin, ANNA, BEN, 91) == ("limit-exceeded", {"limit": 30})
    vouch(twin, ANNA, BEN, 90)
    twin.done("issue", STEWARD, to=ANNA, amount=80)
    assert twin.refusal("pay", ANNA, legs=[[CARL, 21]]) == "insufficient-funds"
    spend(twin, ANNA, CARL, 20)
    vouch(twin, ANNA, BEN, 30)
    assert limits(twin, ANNA, BEN) == [0, 60]


def test_no_room_where_the_policy_gives_none() -> None:
    twin = town(credit=0)
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    assert refused(twin, ANNA, BEN, 1) == ("limit-exceeded", {"limit": 0})


class Crowd(Twin):
    """A twin of hundreds: the outcomes are compared as ever, what must hold after each statement is not looked at."""

    def _check(self, accepted: Accepted, lent_before: Mapping[tuple[bytes, bytes], int]) -> None:
        pass


def test_at_most_256_vouch_for_one_and_one_vouches_for_at_most_256() -> None:
    twin = Crowd(admission="steward", credit_limit=1_000)
    many = keys_of(*(f"peer {number}" for number in range(257)))
    for peer in (ANNA, *many):
        admit(twin, peer, f"p{peer.hex()[:12]}")
    for peer in many[:256]:
        vouch(twin, peer, ANNA, 1)
        vouch(twin, ANNA, peer, 1)
    assert refused(twin, many[256], ANNA, 1) == ("limit-exceeded", {"limit": 256})
    assert refused(twin, ANNA, many[256], 1) == ("limit-exceeded", {"limit": 256})
    # Before the room is looked at, and for new ones only.
    assert refused(twin, many[256], ANNA, 1_001) == ("limit-exceeded", {"limit": 256})
    vouch(twin, many[0], ANNA, 2)
    vouch(twin, ANNA, many[0], 2)
    vouch(twin, many[0], ANNA, 0)
    vouch(twin, many[256], ANNA, 1)
    twin.done("leave", many[1])
    vouch(twin, ANNA, many[256], 1)
    # One was taken back, one came for it; two ended with a membership, one came for them.
    assert len(twin.books.vouches) == 512 - 1 + 1 - 2 + 1


# ── Leaving ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_leaves_takes_its_room_along_and_gives_back_what_it_was_lent() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 30)
    vouch(twin, CARL, ANNA, 40)
    vouch(twin, ANNA, CARL, 20)
    twin.done("leave", ANNA)
    assert limits(twin, BEN, CARL) == [100, 100]
    assert dict(twin.books.vouches) == {}
    admit(twin, ANNA, "anna")
    assert limits(twin, ANNA) == [100]
    assert twin.refusal("vouch", ANNA, limit=0, **{"for": BEN}) == "wrong-state"


def test_nobody_leaves_from_under_those_who_need_their_vouch() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 30)
    vouch(twin, ANNA, CARL, 30)
    spend(twin, CARL, DORA, 101)
    assert twin.refusal("leave", ANNA) == "vouch-in-use"
    spend(twin, DORA, CARL, 1)
    spend(twin, ANNA, DORA, 1)
    # What it owes itself is looked at first.
    spend(twin, CARL, DORA, 1)
    assert twin.refusal("leave", ANNA) == "wrong-state"
    spend(twin, DORA, ANNA, 2)
    assert twin.refusal("leave", ANNA) == "vouch-in-use"
    # Who is suspended is as free to go as before, and no more.
    twin.done("suspend", STEWARD, peer=ANNA)
    assert limits(twin, ANNA, CARL) == [40, 130]
    assert twin.refusal("leave", ANNA) == "vouch-in-use"
    vouch(twin, EMIL, CARL, 1)
    twin.done("leave", ANNA)
    assert limits(twin, BEN, CARL, EMIL) == [100, 101, 99]


def test_suspension_ends_no_vouch_and_bars_who_lends_from_lending_more() -> None:
    twin = town()
    vouch(twin, ANNA, BEN, 30)
    for peer in (ANNA, BEN):
        twin.done("suspend", STEWARD, peer=peer)
    assert limits(twin, ANNA, BEN) == [70, 130]
    assert refused(twin, ANNA, BEN, 0) == ("not-active", {})
    vouch(twin, CARL, BEN, 10)
    twin.done("admit", STEWARD, peer=BEN)
    spend(twin, BEN, DORA, 140)


# ── Write-offs ───────────────────────────────────────────────────────────────────────────────────────────────────


def write_off(twin: Twin, peer: bytes) -> list[tuple[str, bytes | str, int]]:
    return twin.done("writeoff", STEWARD, peer=peer)


@pytest.mark.parametrize(
    ("debt", "vouches", "parts"),
    [
        (10, [7, 7, 6], [4, 3, 3]),  # 3.5, 3.5, 3: the one grain to the lower key of the equals
        (11, [7, 7, 6], [4, 4, 3]),  # 3.85, 3.85, 3.3
        (1, [1, 1, 1], [1, 0, 0]),
        (2, [1, 1, 1], [1, 1, 0]),
        (2, [1, 1, 4], [1, 0, 1]),  # 1/3, 1/3, 4/3: of three thirds the first
        (1, [1, 10**15], [0, 1]),
        (10**15, [1, 10**15], [1, 10**15 - 1]),  # nearly 1, and nearly 10^15 - 1 + 2/3 …
        (20, [7, 7, 6], [7, 7, 6]),
        (21, [7, 7, 6], [7, 7, 6]),
        (5, [], []),
    ],
)
def test_loss_is_shared_by_largest_remainder(debt: int, vouches: list[int], parts: list[int]) -> None:
    assert share_loss(debt, vouches) == parts


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(1, 300))
def test_shares_of_a_loss_are_those_of_the_plain_model_and_leave_nothing_out(vouches: list[int], debt: int) -> None:
    parts = share_loss(debt, vouches)
    assert sum(parts) == min(debt, sum(vouches))
    assert all(0 <= part <= vouched for part, vouched in zip(parts, vouches, strict=True))
    by_key = {bytes([number]): vouched for number, vouched in enumerate(vouches)}
    assert parts == list(plain_model.shares_of_loss(debt, by_key).values())


def test_debt_below_what_is_vouched_is_borne_by_who_vouched_alone() -> None:
    twin = town(vouch_min=5)
    for by, limit in ((CARL, 6), (BEN, 7), (ANNA, 7)):
        vouch(twin, by, EMIL, limit)
    spend(twin, EMIL, DORA, 10)
    assert write_off(twin, EMIL) == [
        ("writeoff", EMIL, 10),
        ("writeoff", ANNA, -4),
        ("writeoff", BEN, -3),
        ("writeoff", CARL, -3),
    ]
    assert dict(twin.books.vouches) == {(ANNA, EMIL): 3, (BEN, EMIL): 4, (CARL, EMIL): 3}
    assert limits(twin, ANNA, BEN, CARL, EMIL) == [97, 96, 97, 110]
    # A vouch that shrank below the smallest can go or grow, not stay as it is by a new word.
    assert refused(twin, ANNA, EMIL, 3) == ("limit-exceeded", {"limit": 5})
    vouch(twin, ANNA, EMIL, 5)


@pytest.mark.parametrize("melt_to", ["pool", "issuer"])
def test_debt_above_what_is_vouched_goes_on_to_the_pool_after_the_melt_and_then_to_the_issuer(melt_to: str) -> None:
    twin = town(melt_to=melt_to)
    vouch(twin, ANNA, EMIL, 40)
    vouch(twin, BEN, EMIL, 60)
    vouch(twin, CARL, EMIL, 10)
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    twin.done("issue", STEWARD, to=BEN, amount=500)
    twin.done("issue", STEWARD, to=DORA, amount=9_000)
    spend(twin, EMIL, DORA, 210)
    twin.pass_ticks(1)
    # Anna's 1,000 lose 20, Ben's 500 lose 10; Dora's are not touched. 100 are over.
    melted = [("melt", ANNA, -20), ("melt", melt_to, 20), ("melt", BEN, -10), ("melt", melt_to, 10)]
    paid = [("writeoff", peer, -part) for peer, part in ((ANNA, 40), (BEN, 60), (CARL, 10))]
    over = [("writeoff", POOL, -30), ("writeoff", ISSUER, -70)] if melt_to == "pool" else [("writeoff", ISSUER, -100)]
    assert write_off(twin, EMIL) == [*melted, ("writeoff", EMIL, 210), *paid, *over]
    assert [twin.balance(peer) for peer in (ANNA, BEN, CARL, EMIL)] == [940, 430, -10, 0]
    assert limits(twin, *PEOPLE) == [100] * 5
    assert dict(twin.books.vouches) == {}
    assert twin.books.account(POOL, CODE).balance == 0


def test_pool_that_is_full_bears_what_is_over_alone() -> None:
    twin = town()
    twin.done("issue", STEWARD, to=ANNA, amount=10_000)
    twin.pass_ticks(1)
    twin.done("sweep", LEDGER, accounts=[ANNA])
    spend(twin, EMIL, DORA, 100)
    assert write_off(twin, EMIL) == [("writeoff", EMIL, 100), ("writeoff", POOL, -100)]
    assert twin.books.account(POOL, CODE).balance == 100


def test_who_vouched_pays_past_its_own_limit_if_need_be() -> None:
    twin = town()
    vouch(twin, ANNA, EMIL, 80)
    spend(twin, ANNA, BEN, 20)
    spend(twin, EMIL, BEN, 150)
    change(twin, credit_limit=10)
    assert limits(twin, ANNA) == [-70]
    write_off(twin, EMIL)
    assert (twin.balance(ANNA), limits(twin, ANNA)) == (-100, [10])


def test_who_is_written_off_is_suspended_and_comes_back_by_the_stewards_only() -> None:
    twin = town()
    spend(twin, EMIL, DORA, 50)
    assert twin.books.commons is not None
    active = twin.books.commons.active_members
    write_off(twin, EMIL)
    assert twin.books.members[EMIL].status == SUSPENDED
    assert twin.books.commons.active_members == active - 1
    assert twin.refusal("writeoff", STEWARD, peer=EMIL) == "wrong-state"
    assert twin.refusal("pay", EMIL, legs=[[DORA, 1]]) == "not-active"
    twin.done("leave", EMIL)
    twin.done("join", EMIL, handle="emil")
    assert twin.books.members[EMIL].status == PENDING
    twin.done("admit", STEWARD, peer=EMIL)
    assert twin.books.members[EMIL].status == ACTIVE


def test_debt_of_one_who_is_suspended_is_written_off_too_and_counts_it_out_once() -> None:
    twin = town()
    vouch(twin, ANNA, EMIL, 10)
    spend(twin, EMIL, DORA, 50)
    twin.done("suspend", STEWARD, peer=EMIL)
    assert twin.books.commons is not None
    active = twin.books.commons.active_members
    write_off(twin, EMIL)
    assert twin.books.commons.active_members == active
    assert limits(twin, ANNA, EMIL) == [100, 100]


def test_who_is_written_off_still_takes_its_part_of_a_share_and_money_is_no_inflow_to_it() -> None:
    twin = town(rest_ticks=5)
    twin.done("issue", STEWARD, to=ANNA, amount=10_000)
    twin.pass_ticks(6)
    twin.done("sweep", LEDGER, accounts=[ANNA])
    twin.done("share", STEWARD, amount=100)
    share = twin.entries[-1].id
    spend(twin, EMIL, DORA, 50)
    write_off(twin, EMIL)
    assert twin.books.account(EMIL, CODE).inflows == ()
    twin.done("payout", LEDGER, share=share, members=list(PEOPLE))
    assert twin.balance(EMIL) == 20


def test_loans_and_the_debts_they_cover_can_be_made_and_written_off_in_one_batch() -> None:
    """Vouches of the batch itself are loaded nowhere; those who gave them are, with what they have."""
    twin = town()
    vouch(twin, CARL, EMIL, 10)
    batch = [
        submission(twin.fields("vouch", ANNA, limit=50, **{"for": EMIL}), [ANNA]),
        submission(twin.fields("pay", EMIL, legs=[[DORA, 160]]), [EMIL]),
        submission(twin.fields("vouch", BEN, limit=20, **{"for": ANNA}), [BEN]),
        submission(twin.fields("writeoff", STEWARD, peer=EMIL), [STEWARD]),
        submission(twin.fields("leave", BEN), [BEN]),
    ]
    few = cut(twin.books, needs_of(batch))
    for one in batch:
        outcome = decide(few, one, now_ms=twin.now_ms, ledger=LEDGER)
        assert isinstance(outcome, Accepted), outcome
        few.apply(outcome.decision, outcome.entry)
    assert dict(few.vouches) == {}
    assert [few.account(peer, CODE).balance for peer in (ANNA, CARL, EMIL)] == [-50, -10, 0]
    assert [few.members[peer].credit_limit(100) for peer in (ANNA, CARL, EMIL)] == [100, 100, 100]


@given(
    st.lists(st.integers(0, 100), min_size=4, max_size=4),
    st.integers(1, 500),
    st.integers(0, 2_000),
    st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_writeoff_conserves_every_grain_and_leaves_each_voucher_as_far_from_its_limit(
    vouched: list[int], debt: int, fortune: int, ticks: int
) -> None:
    """The debtor is Emil; the others vouch for him. What a voucher pays, its limit grows by: it loses no room."""
    twin = town()
    for by, limit in zip(PEOPLE[:4], vouched, strict=True):
        if limit:
            vouch(twin, by, EMIL, limit)
    debt = min(debt, 100 + sum(vouched))
    spend(twin, EMIL, ANNA, debt)
    if fortune:
        twin.done("issue", STEWARD, to=BEN, amount=fortune)
    twin.pass_ticks(ticks)
    before = {peer: twin.balance(peer) + limits(twin, peer)[0] for peer in PEOPLE}
    posted = [line for line in write_off(twin, EMIL) if line[0] == "writeoff"]
    assert posted[0] == ("writeoff", EMIL, debt)
    assert sum(amount for _, _, amount in posted) == 0
    assert all(amount < 0 for _, _, amount in posted[1:])
    holders = [holder for _, holder, _ in posted[1:]]
    peers = [holder for holder in holders if isinstance(holder, bytes)]
    assert holders == [*sorted(peers), *(name for name in (POOL, ISSUER) if name in holders)]
    after = {peer: twin.balance(peer) + limits(twin, peer)[0] for peer in PEOPLE}
    over = max(0, debt - sum(vouched))
    assert after == {**before, EMIL: before[EMIL] + over}


# ── The map of vouches ───────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE), st.integers(0, 3))))
def test_map_of_vouches_is_found_from_both_sides(changes: list[tuple[bytes, bytes, int]]) -> None:
    vouches, plain = Vouches(), dict[tuple[bytes, bytes], int]()
    for by, whom, amount in changes:
        vouches.put((by, whom), amount)
        plain[by, whom] = amount
    plain = {pair: amount for pair, amount in plain.items() if amount}
    assert vouches == plain == Vouches(plain)
    for peer in PEOPLE:
        assert vouches.by(peer) == sorted((whom, amount) for (by, whom), amount in plain.items() if by == peer)
        assert vouches.of(peer) == sorted((by, amount) for (by, whom), amount in plain.items() if whom == peer)

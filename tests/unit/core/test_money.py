"""Money statements by numbers worked out by hand, in a commons whose idle money loses 2 % at the end of every tick."""

from __future__ import annotations

import pytest

from gesell_ledger.core.decide import Accepted
from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.names import ESCROW, ISSUER, POOL
from gesell_protocol.refusals import Refusal
from tests.histories import CODE, LEDGER, Twin, key

ANNA, BEN, CARL = sorted(key(name) for name in ("anna", "ben", "carl"))


def town(*, melt_to: str = "pool", rest_ticks: int = 0, credit_limit: int = 0) -> tuple[Twin, bytes]:
    """A commons of three active members, in the order of their keys, and its steward."""
    twin = Twin(admission="steward", melt_to=melt_to, rest_ticks=rest_ticks, credit_limit=credit_limit)
    steward = twin.stewards[0]
    for peer, handle in ((ANNA, "anna"), (BEN, "ben"), (CARL, "carl")):
        twin.done("join", peer, handle=handle)
        twin.done("admit", steward, peer=peer)
    return twin, steward


def posted(twin: Twin, *holders: bytes | str) -> list[int]:
    """The sums of the postings of some holders."""
    return [twin.books.account(holder, CODE).balance for holder in holders]


@pytest.mark.parametrize("melt_to", ["pool", "issuer"])
def test_melt_is_posted_once_before_the_payment_and_each_balance_is_the_sum_of_its_postings(melt_to: str) -> None:
    twin, steward = town(melt_to=melt_to)
    twin.done("issue", steward, to=ANNA, amount=1_000)
    twin.done("issue", steward, to=BEN, amount=500)
    twin.pass_ticks(2)
    # 1000 → 980 → 961 (19.6 is floored to 19); 500 → 490 → 481 (9.8 to 9).
    assert twin.done("pay", ANNA, legs=[[CARL, 50], [BEN, 11]]) == [
        ("melt", ANNA, -39),
        ("melt", melt_to, 39),
        ("melt", BEN, -19),
        ("melt", melt_to, 19),
        ("pay", ANNA, -61),
        ("pay", CARL, 50),
        ("pay", BEN, 11),
    ]
    assert posted(twin, ANNA, BEN, CARL) == [900, 492, 50]
    assert posted(twin, POOL, ISSUER) == ([58, -1_500] if melt_to == "pool" else [0, -1_442])


def test_sweep_posts_the_melt_of_the_named_accounts_and_nothing_else_and_nothing_twice() -> None:
    twin, steward = town()
    twin.done("issue", steward, to=ANNA, amount=1_000)
    twin.pass_ticks(1)
    assert twin.done("sweep", LEDGER, accounts=[ANNA, BEN]) == [("melt", ANNA, -20), ("melt", POOL, 20)]
    assert twin.done("sweep", LEDGER, accounts=[ANNA, BEN]) == []
    assert posted(twin, ANNA, POOL) == [980, 20]


def test_funds_are_checked_after_the_melt_and_told_with_the_credit() -> None:
    twin, steward = town(credit_limit=50)
    twin.done("issue", steward, to=ANNA, amount=100)
    twin.pass_ticks(1)
    refused = twin.say("pay", ANNA, legs=[[BEN, 100], [CARL, 49]])
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("insufficient-funds", {"available": 148, "needed": 149})
    twin.done("pay", ANNA, legs=[[BEN, 100], [CARL, 48]])
    assert twin.balance(ANNA) == -50


def test_what_was_refused_melts_nothing_either() -> None:
    twin, steward = town()
    twin.done("issue", steward, to=ANNA, amount=100)
    twin.pass_ticks(3)
    assert twin.refusal("pay", ANNA, legs=[[BEN, 100]]) == "insufficient-funds"
    assert posted(twin, ANNA, POOL) == [100, 0]


@pytest.mark.parametrize(("signed", "moves"), [(1, 1), (98, 98), (99, 98), (10**15, 98)])
def test_balancing_moves_the_lesser_of_what_is_signed_and_what_there_is_after_melt(signed: int, moves: int) -> None:
    twin, steward = town(credit_limit=50)
    twin.done("issue", steward, to=ANNA, amount=100)
    twin.pass_ticks(1)
    pay = twin.done("pay", ANNA, legs=[[BEN, signed]], balancing=True)
    assert pay[2:] == [("pay", ANNA, -moves), ("pay", BEN, moves)]
    retire = twin.done("retire", BEN, amount=signed, balancing=True)
    assert retire == [("retire", BEN, -moves), ("retire", ISSUER, moves)]


@pytest.mark.parametrize("debt", [0, 7])
def test_balancing_with_nothing_there_is_refused_with_what_was_asked_for(debt: int) -> None:
    twin, _ = town(credit_limit=50)
    if debt:
        twin.done("pay", ANNA, legs=[[BEN, debt]])
    refused = twin.say("retire", ANNA, amount=9, balancing=True)
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("insufficient-funds", {"available": 50 - debt, "needed": 9})


def test_pool_pays_out_the_melt_of_the_grant_itself_but_not_the_melt_of_others() -> None:
    twin, steward = town()
    for peer in (ANNA, BEN):
        twin.done("issue", steward, to=peer, amount=100)
    twin.pass_ticks(1)
    refused = twin.say("grant", steward, legs=[[ANNA, 3]])
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("insufficient-funds", {"available": 2, "needed": 3})
    assert twin.done("grant", steward, legs=[[ANNA, 2]])[2:] == [("grant", POOL, -2), ("grant", ANNA, 2)]
    assert posted(twin, POOL, ANNA) == [0, 100]


def test_share_goes_to_who_was_active_then_and_the_part_of_who_left_goes_to_the_pool_in_its_place() -> None:
    twin, steward = town()
    twin.done("issue", steward, to=ANNA, amount=5_000)
    twin.pass_ticks(1)
    twin.done("sweep", LEDGER, accounts=[ANNA])
    share = twin.stamp()
    assert twin.done("share", steward, amount=100, **share) == [("share", POOL, -99), ("share", ESCROW, 99)]
    late = key("late")
    twin.done("join", late, handle="late")
    twin.done("admit", steward, peer=late)
    twin.done("leave", BEN)
    twin.done("suspend", steward, peer=CARL)
    assert twin.refusal("payout", LEDGER, share=share["id"], members=[late]) == "wrong-state"
    assert twin.refusal("share", steward, amount=4) == "wrong-state"
    assert twin.done("payout", LEDGER, share=share["id"], members=[ANNA, BEN]) == [
        ("share", ESCROW, -66),
        ("share", ANNA, 33),
        ("share", POOL, 33),
    ]
    assert twin.refusal("payout", LEDGER, share=share["id"], members=[ANNA]) == "wrong-state"
    # A suspended member still receives.
    assert twin.done("payout", LEDGER, share=share["id"], members=[CARL]) == [
        ("share", ESCROW, -33),
        ("share", CARL, 33),
    ]
    assert posted(twin, POOL, ESCROW, CARL) == [34, 0, 33]
    twin.done("share", steward, amount=34)


def test_part_of_a_share_rests_like_money_received_and_what_is_granted_too() -> None:
    twin, steward = town(rest_ticks=1)
    twin.done("issue", steward, to=ANNA, amount=10_000)
    twin.pass_ticks(2)
    twin.done("sweep", LEDGER, accounts=[ANNA])
    assert posted(twin, POOL) == [200]
    share = twin.stamp()
    twin.done("share", steward, amount=150, **share)
    twin.done("payout", LEDGER, share=share["id"], members=[ANNA, BEN, CARL])
    twin.done("grant", steward, legs=[[BEN, 50]])
    assert [twin.balance(peer, ticks_ahead=1) for peer in (BEN, CARL)] == [100, 50]
    assert [twin.balance(peer, ticks_ahead=2) for peer in (BEN, CARL)] == [98, 49]


def test_no_balance_leaves_the_range_of_a_quintillion() -> None:
    twin, steward = town()
    twin.endow(ANNA, BALANCE_MAX - 1)
    for amount, code in ((2, "limit-exceeded"), (1, "accepted"), (1, "limit-exceeded")):
        outcome = twin.say("issue", steward, to=ANNA, amount=amount)
        assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code
    assert posted(twin, ANNA, ISSUER) == [BALANCE_MAX, -BALANCE_MAX]


def test_leave_takes_what_is_left_after_melt_to_the_pool_and_is_refused_to_who_owes() -> None:
    twin, steward = town(credit_limit=50)
    twin.done("issue", steward, to=ANNA, amount=100)
    twin.pass_ticks(1)
    assert twin.done("leave", ANNA) == [
        ("melt", ANNA, -2),
        ("melt", POOL, 2),
        ("leave", ANNA, -98),
        ("leave", POOL, 98),
    ]
    twin.done("pay", BEN, legs=[[CARL, 1]])
    assert twin.refusal("leave", BEN) == "wrong-state"
    assert twin.refusal("pay", CARL, legs=[[ANNA, 1]]) == "unknown-member"
    assert posted(twin, ANNA, POOL) == [0, 100]


def test_what_melts_to_nothing_is_left_out_where_no_posting_touches_the_account() -> None:
    twin, steward = town()
    twin.done("issue", steward, to=ANNA, amount=50)
    twin.done("policy", steward, policy={**twin.policy, "brackets": [[0, 10**9]]}, from_tick=twin.tick + 1)
    twin.pass_ticks(2)
    assert twin.done("leave", ANNA) == []
    assert twin.done("sweep", LEDGER, accounts=[ANNA]) == [("melt", ANNA, -50), ("melt", POOL, 50)]


def test_statement_of_256_legs_is_one_entry_whose_leaf_fits_the_log() -> None:
    twin, steward = town()
    peers = [key(f"peer {number}") for number in range(256)]
    for number, peer in enumerate(peers):
        twin.done("join", peer, handle=f"p{number}")
        twin.done("admit", steward, peer=peer)
    # Every balance as long as it can be, every account with a melt due.
    legs = [[peer, 10**12] for peer in peers]
    for amount in (10**15, 10**15):
        twin.done("issue", steward, to=ANNA, amount=amount)
    twin.done("pay", ANNA, legs=legs)
    twin.pass_ticks(1)
    outcome = twin.say("pay", ANNA, legs=legs)
    assert isinstance(outcome, Accepted)
    assert len(outcome.entry.postings) == 2 * 257 + 257
    assert len(outcome.entry.leaf_data) < 65_535

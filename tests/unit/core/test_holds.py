"""Holds: what the tables of refusals in `test_decide` do not say. Each statement goes through the plain model too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import SUSPENDED
from gesell_ledger.core.decide import Accepted, decide
from gesell_ledger.core.needs import needs_of
from gesell_protocol.names import ESCROW, POOL
from gesell_protocol.refusals import Refusal
from tests.histories import CODE, HOUR_MS, LEDGER, Twin, cut, key, keys_of, submission

ANNA, BEN, CARL = keys_of("anna", "ben", "carl")
STEWARD = key("steward")
DAY_MS = 24 * HOUR_MS


def town(*, credit: int = 0, **policy: Any) -> Twin:
    """A commons of three active members whose idle money loses 2 % a tick; Anna has 1,000."""
    twin = Twin(admission="steward", credit_limit=credit, **policy)
    for peer, handle in ((ANNA, "anna"), (BEN, "ben"), (CARL, "carl")):
        twin.done("join", peer, handle=handle)
        twin.done("admit", STEWARD, peer=peer)
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    return twin


def hold(twin: Twin, by: bytes, to: bytes, amount: int, *, hours: int = 5) -> bytes:
    """Set money aside; the hold's id."""
    twin.done("hold", by, to=to, amount=amount, until=twin.now_ms + hours * HOUR_MS)
    return twin.entries[-1].id


def there(twin: Twin, peer: bytes) -> tuple[int, int]:
    """The melted balance, and what is in escrow."""
    return twin.balance(peer), twin.books.account(peer, CODE).escrow


def test_hold_takes_the_money_out_of_reach_and_a_capture_hands_it_over() -> None:
    twin = town()
    assert twin.done("hold", ANNA, to=BEN, amount=700, until=twin.now_ms + 1) == [
        ("hold", ANNA, -700),
        ("hold", ESCROW, 700),
    ]
    made = twin.entries[-1].id
    assert there(twin, ANNA) == (300, 700)
    assert twin.refusal("pay", ANNA, legs=[[CARL, 301]]) == "insufficient-funds"
    assert twin.done("capture", BEN, hold=made, amount=700) == [("capture", ESCROW, -700), ("capture", BEN, 700)]
    assert (there(twin, ANNA), there(twin, BEN)) == ((300, 0), (700, 0))


def test_capture_of_a_part_gives_the_rest_back_and_of_nothing_all_of_it() -> None:
    twin = town()
    first, second = hold(twin, ANNA, BEN, 400), hold(twin, ANNA, BEN, 300)
    assert twin.done("capture", BEN, hold=first, amount=150) == [
        ("capture", ESCROW, -400),
        ("capture", BEN, 150),
        ("void", ANNA, 250),
    ]
    assert twin.done("capture", BEN, hold=second, amount=0) == [("capture", ESCROW, -300), ("void", ANNA, 300)]
    assert there(twin, ANNA) == (850, 0)


def test_money_in_escrow_melts_as_its_payers_and_the_payer_melts_first() -> None:
    twin = town()
    twin.done("issue", STEWARD, to=BEN, amount=100)
    made = hold(twin, ANNA, BEN, 900)
    twin.pass_ticks(1)
    # 2 % of 1,000, out of the 100 that are free; Ben's 100 lose 2.
    assert there(twin, ANNA) == (80, 900)
    assert twin.done("capture", BEN, hold=made, amount=900) == [
        ("melt", ANNA, -20),
        ("melt", POOL, 20),
        ("melt", BEN, -2),
        ("melt", POOL, 2),
        ("capture", ESCROW, -900),
        ("capture", BEN, 900),
    ]


@pytest.mark.parametrize(("credit", "taken"), [(0, 980), (15, 995), (20, 1_000), (50, 1_000)])
def test_capture_gives_no_more_than_its_payer_could_have_paid_after_the_melt(credit: int, taken: int) -> None:
    twin = town(credit=credit)
    made = hold(twin, ANNA, BEN, 1_000)
    twin.pass_ticks(1)
    assert there(twin, ANNA) == (-20, 1_000)
    posted = twin.done("capture", BEN, hold=made, amount=1_000)
    assert posted[2:] == [
        ("capture", ESCROW, -1_000),
        ("capture", BEN, taken),
        *([("void", ANNA, 1_000 - taken)] if taken < 1_000 else []),
    ]
    assert there(twin, ANNA) == (980 - taken, 0)


def test_several_holds_share_what_has_melted_in_the_order_in_which_they_are_captured() -> None:
    twin = town()
    first, second = hold(twin, ANNA, BEN, 500), hold(twin, ANNA, CARL, 500)
    twin.pass_ticks(1)
    assert ("capture", CARL, 500) in twin.done("capture", CARL, hold=second, amount=500)
    assert ("capture", BEN, 480) in twin.done("capture", BEN, hold=first, amount=500)
    assert there(twin, ANNA) == (0, 0)


def test_nothing_is_left_to_capture_where_debt_has_eaten_it() -> None:
    """A policy took the credit away on which the money was held."""
    twin = town(credit=100)
    twin.done("pay", ANNA, legs=[[CARL, 1_000]])
    made = hold(twin, ANNA, BEN, 50)
    twin.done("policy", STEWARD, policy={**twin.policy, "credit_limit": 0}, from_tick=twin.tick + 1)
    twin.pass_ticks(1)
    assert twin.done("capture", BEN, hold=made, amount=50) == [("capture", ESCROW, -50), ("void", ANNA, 50)]


def test_money_that_comes_back_is_no_inflow_and_money_captured_is() -> None:
    twin = town(rest_ticks=2)
    twin.pass_ticks(3)
    first, second = hold(twin, ANNA, BEN, 500), hold(twin, ANNA, BEN, 100)
    twin.done("void", BEN, hold=first)
    twin.done("capture", BEN, hold=second, amount=100)
    before = twin.balance(ANNA)
    assert twin.balance(ANNA, ticks_ahead=1) == before - before * 2 // 100
    assert twin.balance(BEN, ticks_ahead=2) == 100


@pytest.mark.parametrize(
    ("by", "late_ms", "code"),
    [(BEN, -1, ""), (ANNA, -1, "wrong-state"), (ANNA, 0, ""), (BEN, DAY_MS, ""), (CARL, 0, "not-authorised")],
)
def test_payee_voids_a_hold_at_any_time_and_its_payer_from_its_time_on(by: bytes, late_ms: int, code: str) -> None:
    twin = town()
    made = hold(twin, ANNA, BEN, 10)
    twin.now_ms += 5 * HOUR_MS + late_ms
    outcome = twin.say("void", by, hold=made)
    assert (outcome.code if isinstance(outcome, Refusal) else "") == code


@pytest.mark.parametrize(("late_ms", "code"), [(-1, "wrong-state"), (0, "")])
def test_ledger_lets_a_hold_lapse_a_day_after_its_time(late_ms: int, code: str) -> None:
    twin = town()
    made = hold(twin, ANNA, BEN, 10)
    twin.now_ms += 5 * HOUR_MS + DAY_MS + late_ms
    outcome = twin.say("lapse", LEDGER, of=made)
    assert (outcome.code if isinstance(outcome, Refusal) else "") == code


def test_hold_is_open_until_it_is_ended_whatever_the_clock_says() -> None:
    twin = town()
    made = hold(twin, ANNA, BEN, 10)
    twin.now_ms += 10 * DAY_MS
    assert ("capture", BEN, 1) in twin.done("capture", BEN, hold=made, amount=1)
    for kind, by in (("capture", BEN), ("void", BEN), ("void", ANNA)):
        more = {"amount": 0} if kind == "capture" else {}
        assert twin.refusal(kind, by, hold=made, **more) == "wrong-state"
    assert twin.refusal("lapse", LEDGER, of=made) == "wrong-state"


@pytest.mark.parametrize(
    ("ahead_ms", "code"), [(0, "limit-exceeded"), (1, ""), (30 * DAY_MS, ""), (30 * DAY_MS + 1, "limit-exceeded")]
)
def test_hold_ends_after_now_and_within_thirty_days(ahead_ms: int, code: str) -> None:
    twin = town()
    outcome = twin.say("hold", ANNA, to=BEN, amount=1, until=twin.now_ms + ahead_ms)
    assert (outcome.code if isinstance(outcome, Refusal) else "") == code
    if isinstance(outcome, Refusal):
        assert dict(outcome.fields) == {"limit": 30 * DAY_MS}


def test_neither_side_of_a_hold_leaves_before_it_is_ended() -> None:
    twin = town()
    made = hold(twin, ANNA, BEN, 10)
    other = hold(twin, ANNA, BEN, 10)
    for peer in (ANNA, BEN):
        assert twin.refusal("leave", peer) == "wrong-state"
    twin.done("void", BEN, hold=made)
    assert twin.refusal("leave", BEN) == "wrong-state"
    twin.done("void", BEN, hold=other)
    for peer in (ANNA, BEN):
        twin.done("leave", peer)


def test_suspended_members_end_holds_and_make_none() -> None:
    twin = town()
    first, second = hold(twin, ANNA, BEN, 10), hold(twin, ANNA, BEN, 10, hours=1)
    for peer in (ANNA, BEN):
        twin.done("suspend", STEWARD, peer=peer)
    assert twin.refusal("hold", ANNA, to=CARL, amount=1, until=twin.now_ms + 1) == "not-active"
    twin.done("capture", BEN, hold=first, amount=10)
    twin.pass_ticks(1)
    twin.done("void", ANNA, hold=second)
    assert twin.books.members[ANNA].status == SUSPENDED


def test_debt_of_one_with_money_in_holds_is_not_written_off() -> None:
    twin = town(credit=100)
    twin.done("pay", ANNA, legs=[[BEN, 1_050]])
    made = hold(twin, ANNA, BEN, 20)
    assert twin.refusal("writeoff", STEWARD, peer=ANNA) == "wrong-state"
    twin.done("void", BEN, hold=made)
    twin.done("writeoff", STEWARD, peer=ANNA)


def test_what_is_held_is_as_gone_as_what_is_paid_for_those_who_vouch() -> None:
    twin = town(credit=100)
    twin.done("pay", ANNA, legs=[[CARL, 1_000]])
    twin.done("vouch", BEN, limit=50, **{"for": ANNA})
    made = hold(twin, ANNA, CARL, 130)
    assert twin.refusal("vouch", BEN, limit=29, **{"for": ANNA}) == "vouch-in-use"
    assert twin.refusal("vouch", ANNA, limit=21, **{"for": CARL}) == "insufficient-funds"
    twin.done("void", CARL, hold=made)
    twin.done("vouch", BEN, limit=0, **{"for": ANNA})


def test_hold_can_be_made_and_captured_in_one_batch() -> None:
    """What is captured in the batch in which it was held can't be loaded: both sides are there all the same."""
    twin = town()
    twin.done("issue", STEWARD, to=BEN, amount=5)
    made = twin.fields("hold", ANNA, to=BEN, amount=30, until=twin.now_ms + 1)
    stored = hold(twin, ANNA, CARL, 40)
    batch = [
        submission(made, [ANNA]),
        submission(twin.fields("capture", BEN, hold=made["id"], amount=20), [BEN]),
        submission(twin.fields("capture", CARL, hold=stored, amount=40), [CARL]),
    ]
    few = cut(twin.books, needs_of(batch))
    for one in batch:
        outcome = decide(few, one, now_ms=twin.now_ms, ledger=LEDGER)
        assert isinstance(outcome, Accepted), outcome
        few.apply(outcome.decision, outcome.entry)
    assert [few.account(peer, CODE).balance for peer in (ANNA, BEN, CARL, ESCROW)] == [940, 25, 40, 0]
    assert not any(few.members[peer].awaits for peer in (BEN, CARL))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(ANNA, BEN), (BEN, ANNA), (ANNA, CARL), (CARL, BEN)]),
            st.integers(1, 1_200),
            st.integers(0, 3),
            st.floats(0, 1, allow_nan=False),
        ),
        max_size=8,
    ),
    st.integers(0, 200),
)
@settings(max_examples=40, deadline=None)
def test_escrow_is_what_open_holds_hold_and_a_payer_melts_as_if_it_held_nothing(
    holds: list[tuple[tuple[bytes, bytes], int, int, float]], credit: int
) -> None:
    """Twice the same life, once with holds that are given back: balance and escrow together melt alike."""
    held, free = town(credit=credit, rest_ticks=1), town(credit=credit, rest_ticks=1)
    for (payer, payee), amount, ticks, _ in holds:
        outcome = held.say("hold", payer, to=payee, amount=amount, until=held.now_ms + 30 * DAY_MS)
        assert isinstance(outcome, (Accepted, Refusal))
        for twin in (held, free):
            twin.pass_ticks(ticks)
        for peer in (ANNA, BEN, CARL):
            assert sum(there(held, peer)) == free.balance(peer)
    still_open = [one for one in held.books.holds.values() if one.open]
    assert held.books.account(ESCROW, CODE).balance == sum(one.amount for one in still_open)
    for one, (_, _, _, part) in zip(still_open, holds, strict=False):
        before = sum(there(held, one.payer))
        held.done("capture", one.payee, hold=one.id, amount=int(part * one.amount))
        assert sum(there(held, one.payer)) >= min(before, -credit)
    assert held.books.account(ESCROW, CODE).balance == sum(one.amount for one in held.books.holds.values() if one.open)

"""Founding, membership, keys, stewards and policies: what the tables of refusals in `test_decide` do not say."""

from __future__ import annotations

from typing import Any

import pytest

from gesell_ledger.core.books import ACTIVE, LEFT, PENDING, SUSPENDED
from gesell_protocol.envelopes import Memo
from gesell_protocol.refusals import Refusal
from tests.histories import LEDGER, Twin, fields_of, key, keys_of

ANNA, BEN, PHONE, TABLET = key("anna"), key("ben"), key("phone"), key("tablet")
STEWARD = key("steward")


def status(twin: Twin, peer: bytes) -> str:
    return twin.books.members[peer].status


# ── Joining and leaving ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("admission", "standing"), [("open", ACTIVE), ("steward", PENDING)])
def test_join_is_at_once_where_admission_is_open_and_a_request_elsewhere(admission: str, standing: str) -> None:
    twin = Twin(admission=admission)
    twin.done("join", ANNA, handle="anna")
    assert status(twin, ANNA) == standing
    assert twin.books.held == ({"anna": ANNA} if standing == ACTIVE else {})


def test_who_left_comes_back_under_the_old_handle_only_and_nobody_else_gets_it() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("leave", ANNA)
    assert status(twin, ANNA) == LEFT
    assert twin.refusal("join", ANNA, handle="annie") == "handle-taken"
    assert twin.refusal("join", BEN, handle="anna") == "handle-taken"
    twin.done("join", ANNA, handle="anna")
    assert status(twin, ANNA) == ACTIVE


def test_who_comes_and_goes_leaves_no_more_behind_than_who_did_it_once() -> None:
    twin = Twin()
    for _ in range(600):
        twin.done("join", ANNA, handle="anna")
        twin.done("leave", ANNA)
    assert len(twin.books.members[ANNA].spans) == 1


def test_who_comes_back_while_a_share_is_open_is_still_known_to_take_part() -> None:
    twin = Twin(admission="steward", brackets=[[0, 500_000_000]])
    for peer, handle in ((ANNA, "anna"), (BEN, "ben")):
        twin.done("join", peer, handle=handle)
        twin.done("admit", STEWARD, peer=peer)
    twin.done("issue", STEWARD, to=ANNA, amount=1_000)
    twin.pass_ticks(1)
    twin.done("pay", ANNA, legs=[[BEN, 500]])
    twin.done("share", STEWARD, amount=100)
    shared_at = twin.entries[-1].seq
    for _ in range(3):
        twin.done("leave", ANNA)
        twin.done("join", ANNA, handle="anna")
        twin.done("admit", STEWARD, peer=ANNA)
    member = twin.books.members[ANNA]
    assert len(member.spans) == 2
    assert member.was_active_at(shared_at)


def test_who_was_suspended_comes_back_as_pending_until_admitted() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("suspend", STEWARD, peer=ANNA)
    assert status(twin, ANNA) == SUSPENDED
    twin.done("leave", ANNA)
    twin.done("join", ANNA, handle="anna")
    assert status(twin, ANNA) == PENDING
    # A request that ends does not wash the suspension away.
    twin.done("suspend", STEWARD, peer=ANNA)
    twin.done("join", ANNA, handle="anna")
    assert status(twin, ANNA) == PENDING
    twin.done("admit", STEWARD, peer=ANNA)
    twin.done("leave", ANNA)
    twin.done("join", ANNA, handle="anna")
    assert status(twin, ANNA) == ACTIVE


def test_handle_is_free_while_it_is_only_asked_for() -> None:
    twin = Twin(admission="steward")
    twin.done("join", ANNA, handle="queen")
    twin.done("join", BEN, handle="queen")
    twin.done("admit", STEWARD, peer=BEN)
    assert twin.refusal("admit", STEWARD, peer=ANNA) == "handle-taken"
    twin.done("leave", ANNA)
    twin.done("join", ANNA, handle="anna")
    twin.done("admit", STEWARD, peer=ANNA)
    assert twin.books.held == {"queen": BEN, "anna": ANNA}


@pytest.mark.parametrize("kind", ["keys", "leave", "erase"])
@pytest.mark.parametrize("standing", [PENDING, SUSPENDED])
def test_pending_and_suspended_members_speak_keys_leave_and_erase(kind: str, standing: str) -> None:
    twin = Twin(admission="steward")
    memo = Memo(b"salt" * 4, "about me")
    twin.done("join", ANNA, handle="anna", memo=memo)
    joined = twin.entries[-1].id
    if standing == SUSPENDED:
        twin.done("admit", STEWARD, peer=ANNA)
        twin.done("suspend", STEWARD, peer=ANNA)
    says: dict[str, dict[str, Any]] = {
        "keys": {"add": [PHONE], "signers": (ANNA, PHONE)},
        "leave": {},
        "erase": {"statement": joined},
    }
    twin.done(kind, ANNA, **says[kind])
    assert fields_of(twin.entries[-1])["type"] == kind


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_added_key_speaks_for_its_peer_until_it_is_revoked_and_never_for_itself() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE])
    assert twin.refusal("retire", ANNA, signers=(PHONE,), amount=1) == "insufficient-funds"
    assert twin.refusal("retire", PHONE, amount=1) == "not-authorised"
    assert twin.refusal("join", PHONE, handle="phone") == "key-taken"
    twin.done("keys", ANNA, revoke=[PHONE])
    assert twin.refusal("retire", ANNA, signers=(PHONE,), amount=1) == "not-authorised"
    assert twin.refusal("join", PHONE, handle="phone") == "key-taken"
    assert twin.refusal("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE]) == "key-taken"


def test_stolen_later_key_cannot_revoke_the_earlier_ones_but_the_earlier_can() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE])
    twin.done("keys", ANNA, signers=(PHONE, TABLET), add=[TABLET])
    assert twin.refusal("keys", ANNA, signers=(TABLET,), revoke=[PHONE]) == "not-authorised"
    assert twin.refusal("keys", ANNA, signers=(PHONE,), revoke=[ANNA]) == "not-authorised"
    twin.done("keys", ANNA, signers=(PHONE,), revoke=[TABLET])
    twin.done("keys", ANNA, revoke=[ANNA])
    assert twin.refusal("leave", ANNA) == "not-authorised"
    assert twin.refusal("keys", ANNA, signers=(PHONE,), revoke=[PHONE]) == "limit-exceeded"
    twin.done("leave", ANNA, signers=(PHONE,))
    twin.done("join", ANNA, signers=(PHONE,), handle="anna")


def test_keys_added_by_one_statement_rank_alike() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("keys", ANNA, signers=(ANNA, PHONE, TABLET), add=[PHONE, TABLET])
    for one, other in ((PHONE, TABLET), (TABLET, PHONE)):
        assert twin.refusal("keys", ANNA, signers=(one,), revoke=[other]) == "not-authorised"
    twin.done("keys", ANNA, signers=(PHONE, TABLET), revoke=[TABLET])


def test_eight_keys_live_at_a_time_and_one_may_be_exchanged_for_another() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    more = keys_of(*(f"device {number}" for number in range(7)))
    twin.done("keys", ANNA, signers=(ANNA, *more), add=more)
    refused = twin.say("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE])
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("limit-exceeded", {"limit": 8})
    twin.done("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE], revoke=more[:1])


# ── Stewards ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steward_counts_once_however_many_of_its_keys_sign() -> None:
    twin = Twin(stewards=("anna", "ben"), threshold=2)
    twin.done("join", ANNA, handle="anna")
    twin.done("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE])
    assert twin.refusal("issue", ANNA, signers=(ANNA, PHONE), to=BEN, amount=1) == "not-authorised"
    # With Ben's word it is only that nobody of that name is a member.
    assert twin.refusal("issue", ANNA, signers=(PHONE, BEN), to=BEN, amount=1) == "unknown-member"


def test_who_was_a_steward_speaks_as_one_no_more_and_who_stays_need_not_sign_again() -> None:
    twin = Twin(stewards=("anna", "ben"), threshold=1)
    twin.done("stewards", ANNA, signers=(ANNA, PHONE), stewards=sorted([BEN, PHONE]), threshold=1)
    assert twin.refusal("share", ANNA, amount=1) == "not-authorised"
    assert twin.refusal("share", BEN, amount=1) == "wrong-state"


@pytest.mark.parametrize(("signer", "code"), [(PHONE, "accepted"), (ANNA, "not-authorised")])
def test_new_steward_signs_with_a_live_key_and_not_with_a_revoked_one(signer: bytes, code: str) -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("keys", ANNA, signers=(ANNA, PHONE), add=[PHONE])
    twin.done("keys", ANNA, signers=(ANNA,), revoke=[ANNA])
    both = sorted([STEWARD, ANNA])
    outcome = twin.say("stewards", STEWARD, signers=(STEWARD, signer), stewards=both, threshold=1)
    assert (outcome.code if isinstance(outcome, Refusal) else "accepted") == code


# ── Policies ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sixteen_changes_may_wait_and_one_that_overrides_another_takes_its_place() -> None:
    twin = Twin()
    for number in range(16):
        changed = {**twin.policy, "rest_ticks": number}
        twin.done("policy", STEWARD, policy=changed, from_tick=twin.tick + 1 + number)
    refused = twin.say("policy", STEWARD, policy=twin.policy, from_tick=twin.tick + 17)
    assert isinstance(refused, Refusal)
    assert (refused.code, dict(refused.fields)) == ("limit-exceeded", {"limit": 16})
    twin.done("policy", STEWARD, policy={**twin.policy, "rest_ticks": 99}, from_tick=twin.tick + 16)
    twin.pass_ticks(1)
    twin.done("policy", STEWARD, policy=twin.policy, from_tick=twin.tick + 17)


@pytest.mark.parametrize(
    ("notice", "ahead", "code"), [(0, 0, "limit-exceeded"), (0, 1, ""), (3, 2, "limit-exceeded"), (3, 3, "")]
)
def test_change_is_announced_ahead_and_never_reaches_back(notice: int, ahead: int, code: str) -> None:
    twin = Twin(notice_ticks=notice)
    outcome = twin.say("policy", STEWARD, policy=twin.policy, from_tick=twin.tick + ahead)
    assert (outcome.code if isinstance(outcome, Refusal) else "") == code


def test_credit_never_comes_after_open_doors_but_may_come_before_they_open() -> None:
    closed = Twin(admission="steward")
    credit = {**closed.policy, "credit_limit": 9}
    closed.done("policy", STEWARD, policy={**closed.policy, "admission": "open"}, from_tick=closed.tick + 5)
    assert closed.refusal("policy", STEWARD, policy=credit, from_tick=closed.tick + 6) == "malformed"
    closed.done("policy", STEWARD, policy=credit, from_tick=closed.tick + 4)
    # What opened the doors is overridden before it was ever in force.
    closed.done("policy", STEWARD, policy=credit, from_tick=closed.tick + 5)
    closed.done("policy", STEWARD, policy=credit, from_tick=closed.tick + 6)
    opened = Twin(admission="open")
    closing = {**opened.policy, "admission": "steward"}
    opened.done("policy", STEWARD, policy=closing, from_tick=opened.tick + 1)
    opened.pass_ticks(5)
    again = {**closing, "credit_limit": 1}
    assert opened.refusal("policy", STEWARD, policy=again, from_tick=opened.tick + 1) == "malformed"


# ── Memos ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_memo_can_be_erased_by_its_author_or_the_stewards_and_the_seal_stays() -> None:
    twin = Twin()
    memo = Memo(b"salt" * 4, "I am Anna")
    twin.done("join", ANNA, handle="anna", memo=memo)
    joined = twin.entries[-1]
    twin.done("join", BEN, handle="ben")
    assert twin.refusal("erase", BEN, statement=joined.id) == "not-authorised"
    twin.done("erase", ANNA, statement=joined.id)
    twin.done("erase", STEWARD, statement=joined.id)
    assert fields_of(twin.books.entries[joined.id])["memo"] == memo.seal()


# ── The ledger's own key ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_that_was_the_ledgers_never_comes_back() -> None:
    then = key("the next ledger")
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("rekey", LEDGER, signers=(LEDGER, then), ledger=then)
    assert twin.books.commons is not None
    assert twin.books.commons.ledger == then
    assert twin.refusal("sweep", LEDGER, accounts=[ANNA]) == "not-authorised"
    assert twin.refusal("rekey", then, signers=(LEDGER, then), ledger=LEDGER) == "key-taken"
    assert twin.refusal("keys", ANNA, signers=(ANNA, LEDGER), add=[LEDGER]) == "key-taken"
    twin.done("sweep", then, accounts=[ANNA])

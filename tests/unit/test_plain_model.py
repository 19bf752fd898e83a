"""The plain model itself, held against numbers worked out by hand in the comments, and law against lots.

Owns: trust in `tests/plain_model.py`. Must not know: the project's protocol and ledger packages.
A grain is the unit of all amounts; the commons below has ticks of an hour and starts at tick 1000.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_model import (
    Accepted,
    PlainAccount,
    PlainCommons,
    PlainLedger,
    Refused,
    fee_on,
    melt_lots,
    next_window_start,
    shares_of_loss,
)

HOUR_MS = 3_600_000
START_TICK = 1000
TWO_PERCENT = [[0, 20_000_000]]
LEDGER = b"L" * 32
STEWARD = b"S" * 32
ANNA, BEN, CARL, DORA = b"a" * 32, b"b" * 32, b"c" * 32, b"d" * 32


class Town:
    """A commons in a ledger with a clock in ticks, for tests to speak to."""

    def __init__(self, **policy: Any) -> None:
        self.ledger = PlainLedger(LEDGER)
        self.now = START_TICK * HOUR_MS
        self.count = 0
        self.policy = {
            "tick_seconds": 3600,
            "rest_ticks": 0,
            "brackets": TWO_PERCENT,
            "melt_to": "pool",
            "admission": "open",
            "credit_limit": 0,
            "vouch_min": 1,
            "visibility": "open",
            "notice_ticks": 0,
            **policy,
        }
        founding = {
            "type": "found",
            "by": STEWARD,
            "ledger": LEDGER,
            "name": "Wörgl",
            "currency": {"code": "WRG", "scale": 6},
            "policy": self.policy,
            "stewards": [STEWARD],
            "threshold": 1,
            **self.stamp(),
        }
        self.name = hashlib.sha256(b"gesell/commons/1\n" + repr(founding).encode()).digest()[:16]
        assert self.submit(founding, {STEWARD}) == Accepted(1, self.now, [])

    @property
    def books(self) -> PlainCommons:
        return self.ledger.commons[self.name]

    def at_tick(self, tick: int) -> None:
        self.now = tick * HOUR_MS

    def stamp(self) -> dict[str, Any]:
        """Make an id with the time inside and a number of its own, and an expiry five minutes ahead."""
        self.count += 1
        name = self.now.to_bytes(6, "big") + b"\x70\x00\x80\x00" + self.count.to_bytes(6, "big")
        return {"id": name, "expires": self.now + 300_000}

    def submit(self, body: dict[str, Any], signers: set[bytes]) -> Accepted | Refused:
        return self.ledger.submit(body, signers, self.now, body_bytes=repr(body).encode())

    def say(self, kind: str, /, by: bytes, *, signers: set[bytes] | None = None, **fields: Any) -> Accepted | Refused:
        body = {"type": kind, "commons": self.name, "by": by, **self.stamp(), **fields}
        return self.submit(body, {by} if signers is None else signers)

    def done(self, kind: str, /, by: bytes, **fields: Any) -> list[list[Any]]:
        """Say something that must be accepted, and give its postings."""
        answer = self.say(kind, by, **fields)
        assert isinstance(answer, Accepted), answer
        return answer.postings

    def refusal(self, kind: str, /, by: bytes, **fields: Any) -> str:
        answer = self.say(kind, by, **fields)
        assert isinstance(answer, Refused), answer
        return answer.code

    def balance(self, peer: bytes) -> int:
        return self.books.balance(peer, self.now)


def town_of(*peers: bytes, **policy: Any) -> Town:
    """Found a town in which the peers are active members, each under the letter its key repeats."""
    town = Town(**policy)
    for peer in peers:
        town.done("join", peer, handle=peer[:2].decode())
        if town.books.status(peer) == "pending":
            town.done("admit", STEWARD, peer=peer)
    return town


# --- Melt ---


def test_idle_money_melts_two_percent_at_every_tick_end_when_nothing_rests() -> None:
    town = town_of(ANNA)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    assert town.balance(ANNA) == 100
    # 100·2% = 2 -> 98;  98·2% = 1.96 -> 1 -> 97;  97·2% = 1.94 -> 1 -> 96
    for tick, balance in ((1001, 98), (1002, 97), (1003, 96)):
        town.at_tick(tick)
        assert town.balance(ANNA) == balance
    assert (town.books.posted(ANNA), town.books.pool_due(town.now)) == (100, 4)


def test_money_rests_for_three_tick_ends_before_it_melts() -> None:
    town = town_of(ANNA, rest_ticks=3)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    # The ends of ticks 1000, 1001 and 1002 still see tick 1000 in their windows (s = 998, 999, 1000);
    # the end of 1003 has s = 1001 and charges 2.
    for tick, balance in ((1001, 100), (1002, 100), (1003, 100), (1004, 98)):
        town.at_tick(tick)
        assert town.balance(ANNA) == balance


def test_brackets_are_marginal_and_each_is_floored() -> None:
    # 1st bracket: 199·0.5% = 0.995 -> 0 (of 0…199);  2nd: (500-199)·1% = 3.01 -> 3
    assert fee_on(500, [[0, 5_000_000], [199, 10_000_000]]) == 3
    # Below the second bracket: 100·0.5% = 0.5 -> 0. All of it at 10^9 ppb: nothing is left.
    assert fee_on(100, [[0, 5_000_000], [199, 10_000_000]]) == 0
    assert fee_on(100, [[0, 10**9]]) == 100


def test_payment_posts_the_melt_of_payer_then_payee_then_itself() -> None:
    town = town_of(ANNA, BEN)
    town.done("issue", STEWARD, to=ANNA, amount=1000)
    town.done("issue", STEWARD, to=BEN, amount=500)
    town.at_tick(1002)
    # Anna: 1000 -> 980 -> 961 (19.6 -> 19), melt 39.  Ben: 500 -> 490 -> 481 (9.8 -> 9), melt 19.
    assert town.done("pay", ANNA, legs=[[BEN, 61]]) == [
        ["melt", ANNA, "WRG", -39],
        ["melt", "pool", "WRG", 39],
        ["melt", BEN, "WRG", -19],
        ["melt", "pool", "WRG", 19],
        ["pay", ANNA, "WRG", -61],
        ["pay", BEN, "WRG", 61],
    ]
    assert [town.balance(ANNA), town.balance(BEN), town.books.posted("pool")] == [900, 542, 58]
    assert town.books.history(ANNA)[1:] == [
        (6, town.now, "melt", -39, 961),
        (6, town.now, "pay", -61, 900),
    ]


def test_payment_spends_the_oldest_money_first() -> None:
    town = town_of(ANNA, BEN, rest_ticks=1)
    town.done("issue", STEWARD, to=ANNA, amount=1000)
    town.at_tick(1001)  # the end of 1000 spares it (s = 1000)
    town.done("issue", STEWARD, to=ANNA, amount=400)
    town.done("pay", ANNA, legs=[[BEN, 700]])
    town.at_tick(1002)
    # Anna has 700, of which 400 came in tick 1001 (s = 1001): 300 are still, 2% = 6.  Ben's 700 are fresh.
    assert (town.balance(ANNA), town.balance(BEN)) == (694, 700)


def test_window_never_moves_back_when_a_policy_lengthens_the_rest() -> None:
    town = town_of(ANNA)
    town.done("issue", STEWARD, to=ANNA, amount=1000)
    town.done("policy", STEWARD, policy={**town.policy, "rest_ticks": 3}, from_tick=1001)
    # End of 1000 with rest 0: s = 1001, fee 20 -> 980. End of 1001 with rest 3: max(1001, 999) = 1001, so the
    # old money stays old: 19.6 -> 19 -> 961.
    town.at_tick(1002)
    assert town.balance(ANNA) == 961
    # 100 more in tick 1002: the ends of 1002 to 1004 spare it.
    # 961 -> 942 (19.22) -> 924 (18.84) -> 906 (18.48).
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1005)
    assert town.balance(ANNA) == 906 + 100


def test_melt_goes_to_the_issuer_where_the_policy_says_so_and_sweep_posts_it() -> None:
    town = town_of(ANNA, BEN, melt_to="issuer")
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1001)
    assert town.done("sweep", LEDGER, accounts=[ANNA, BEN]) == [
        ["melt", ANNA, "WRG", -2],
        ["melt", "issuer", "WRG", 2],
    ]
    assert (town.books.posted("issuer"), town.books.posted("pool")) == (-98, 0)
    assert town.refusal("sweep", STEWARD, accounts=[ANNA]) == "not-authorised"


def test_debt_does_not_melt_and_credit_is_counted_after_the_melt() -> None:
    town = town_of(ANNA, BEN, admission="steward", credit_limit=50)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1001)  # 98 left, and 50 of credit
    assert town.say("pay", ANNA, legs=[[BEN, 149]]) == Refused("insufficient-funds", available=148, needed=149)
    town.done("pay", ANNA, legs=[[BEN, 148]])
    town.at_tick(1010)
    assert town.balance(ANNA) == -50


def test_balancing_payment_sends_what_there_is_after_the_melt() -> None:
    town = town_of(ANNA, BEN)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1001)
    assert town.done("pay", ANNA, legs=[[BEN, 100]], balancing=True)[2:] == [
        ["pay", ANNA, "WRG", -98],
        ["pay", BEN, "WRG", 98],
    ]
    assert town.say("retire", ANNA, amount=5, balancing=True) == Refused("insufficient-funds", available=0, needed=5)
    assert town.done("retire", BEN, amount=8, balancing=True) == [
        ["retire", BEN, "WRG", -8],
        ["retire", "issuer", "WRG", 8],
    ]


# --- The pool ---


def fill_pool(town: Town, peer: bytes) -> None:
    """Give the pool 100: 5,000 to a peer, one tick end at 2%, swept. The peer has 4,900 left."""
    town.done("issue", STEWARD, to=peer, amount=5000)
    town.at_tick(town.now // HOUR_MS + 1)
    town.done("sweep", LEDGER, accounts=[peer])


def test_share_leaves_the_remainder_in_the_pool_and_pays_the_part_of_who_left_to_it() -> None:
    town = town_of(ANNA, BEN, CARL, admission="steward", rest_ticks=0)
    fill_pool(town, ANNA)
    assert town.say("share", STEWARD, amount=101) == Refused("insufficient-funds", available=100, needed=101)
    assert town.say("share", STEWARD, amount=2) == Refused("limit-exceeded", limit=3)
    # floor(100 / 3) = 33, so that 99 move and 1 stays.
    share = town.stamp()
    assert town.done("share", STEWARD, amount=100, **share) == [
        ["share", "pool", "WRG", -99],
        ["share", "escrow", "WRG", 99],
    ]
    assert town.refusal("share", STEWARD, amount=1) == "wrong-state"
    town.done("leave", BEN)
    assert town.done("payout", LEDGER, share=share["id"], members=[ANNA, BEN]) == [
        ["share", "escrow", "WRG", -66],
        ["share", ANNA, "WRG", 33],
        ["share", "pool", "WRG", 33],
    ]
    assert town.refusal("payout", LEDGER, share=share["id"], members=[ANNA]) == "wrong-state"
    town.done("payout", LEDGER, share=share["id"], members=[CARL])
    assert [town.books.posted(h) for h in ("pool", "escrow", "issuer")] == [34, 0, -5000]
    assert [town.balance(p) for p in (ANNA, BEN, CARL)] == [4933, 0, 33]
    assert town.refusal("share", STEWARD, amount=1) == "limit-exceeded"


def test_part_of_a_share_rests_like_any_money_received() -> None:
    town = town_of(ANNA, BEN, admission="steward", rest_ticks=1)
    town.done("issue", STEWARD, to=ANNA, amount=5000)
    town.at_tick(1002)  # spared at the end of 1000, 2% = 100 at the end of 1001
    town.done("sweep", LEDGER, accounts=[ANNA])
    share = town.stamp()
    town.done("share", STEWARD, amount=100, **share)
    town.done("payout", LEDGER, share=share["id"], members=[ANNA, BEN])
    # Ben's 50 came in tick 1002: spared at its end, 1 at the end of 1003.
    town.at_tick(1003)
    assert town.balance(BEN) == 50
    town.at_tick(1004)
    assert town.balance(BEN) == 49


def test_grant_counts_the_melt_that_it_posts_itself() -> None:
    town = town_of(ANNA, BEN)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.done("issue", STEWARD, to=BEN, amount=100)
    town.at_tick(1001)
    # The pool has nothing posted; a grant to Anna posts her 2 first.
    # Ben's 2 are due, but not in the pool yet.
    assert town.say("grant", STEWARD, legs=[[ANNA, 3]]) == Refused("insufficient-funds", available=2, needed=3)
    assert town.done("grant", STEWARD, legs=[[ANNA, 2]])[2:] == [
        ["grant", "pool", "WRG", -2],
        ["grant", ANNA, "WRG", 2],
    ]


def test_who_leaves_gives_the_rest_to_the_pool_and_returns_under_the_old_handle_only() -> None:
    town = town_of(ANNA, BEN)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1001)
    assert town.done("leave", ANNA) == [
        ["melt", ANNA, "WRG", -2],
        ["melt", "pool", "WRG", 2],
        ["leave", ANNA, "WRG", -98],
        ["leave", "pool", "WRG", 98],
    ]
    assert town.refusal("pay", BEN, legs=[[ANNA, 1]]) == "unknown-member"
    assert town.refusal("leave", ANNA) == "unknown-member"
    assert town.refusal("join", CARL, handle="aa") == "handle-taken"
    assert town.refusal("join", ANNA, handle="anna") == "handle-taken"
    town.done("join", ANNA, handle="aa")
    assert town.books.status(ANNA) == "active"


# --- Members, stewards, keys ---


def test_who_was_suspended_returns_as_pending_until_admitted() -> None:
    town = town_of(ANNA, BEN)
    town.done("suspend", STEWARD, peer=ANNA)
    assert town.refusal("suspend", STEWARD, peer=ANNA) == "wrong-state"
    assert town.refusal("retire", ANNA, amount=1) == "not-active"
    town.done("issue", STEWARD, to=ANNA, amount=1)
    town.done("leave", ANNA)
    town.done("join", ANNA, handle="aa")
    assert town.books.status(ANNA) == "pending"
    assert town.refusal("issue", STEWARD, to=ANNA, amount=1) == "unknown-member"
    assert town.refusal("join", ANNA, handle="aa") == "already-member"
    town.done("admit", STEWARD, peer=ANNA)
    assert town.refusal("admit", STEWARD, peer=ANNA) == "wrong-state"
    town.done("leave", ANNA)
    town.done("join", ANNA, handle="aa")
    assert town.books.status(ANNA) == "active"


def test_handle_goes_to_who_is_admitted_first() -> None:
    town = Town(admission="steward")
    town.done("join", ANNA, handle="queen")
    town.done("join", BEN, handle="queen")
    town.done("admit", STEWARD, peer=BEN)
    assert town.refusal("admit", STEWARD, peer=ANNA) == "handle-taken"
    town.done("suspend", STEWARD, peer=ANNA)
    assert town.books.status(ANNA) == "left"


def test_keys_are_taken_once_and_revoked_only_by_older_ones() -> None:
    town = town_of(ANNA, BEN)
    phone, tablet = b"p" * 32, b"t" * 32
    assert town.refusal("keys", ANNA, add=[phone]) == "not-authorised"
    town.done("keys", ANNA, add=[phone], signers={ANNA, phone})
    town.done("keys", ANNA, add=[tablet], signers={phone, tablet})
    assert town.refusal("keys", BEN, add=[phone], signers={BEN, phone}) == "key-taken"
    assert town.refusal("keys", ANNA, revoke=[phone], signers={tablet}) == "not-authorised"
    assert town.refusal("keys", ANNA, revoke=[BEN]) == "not-found"
    town.done("keys", ANNA, revoke=[ANNA])
    assert town.refusal("retire", ANNA, amount=1) == "not-authorised"
    town.done("keys", ANNA, revoke=[tablet], signers={phone})
    assert town.say("keys", ANNA, revoke=[phone], signers={phone}) == Refused("limit-exceeded", limit=1)
    more = {bytes([i]) * 32 for i in range(8)}
    assert town.say("keys", ANNA, add=sorted(more), signers={phone} | more) == Refused("limit-exceeded", limit=8)


def test_stewards_change_only_with_enough_of_them_and_each_new_one() -> None:
    town = town_of(ANNA)
    both = sorted([STEWARD, DORA])
    assert town.refusal("stewards", STEWARD, stewards=both, threshold=2) == "not-authorised"
    town.done("stewards", STEWARD, stewards=both, threshold=2, signers=set(both))
    assert town.refusal("issue", STEWARD, to=ANNA, amount=1) == "not-authorised"
    assert town.refusal("issue", ANNA, to=ANNA, amount=1, signers={ANNA, *both}) == "not-authorised"
    town.done("issue", DORA, to=ANNA, amount=1, signers=set(both))
    assert town.balance(ANNA) == 1


def test_policy_needs_its_notice_and_a_steward_past_for_credit() -> None:
    town = Town(notice_ticks=5)
    assert town.say("policy", STEWARD, policy=town.policy, from_tick=1004) == Refused("limit-exceeded", limit=1005)
    credit = {**town.policy, "admission": "steward", "credit_limit": 9}
    assert town.refusal("policy", STEWARD, policy=credit, from_tick=1005) == "malformed"
    longer = {**town.policy, "tick_seconds": 7200}
    assert town.refusal("policy", STEWARD, policy=longer, from_tick=1005) == "malformed"
    for i in range(16):
        town.done("policy", STEWARD, policy={**town.policy, "rest_ticks": i}, from_tick=1005 + i)
    assert town.say("policy", STEWARD, policy=town.policy, from_tick=1030) == Refused("limit-exceeded", limit=16)
    # One that overrides a waiting one takes its place among the sixteen.
    town.done("policy", STEWARD, policy={**town.policy, "rest_ticks": 99}, from_tick=1005)
    assert (town.books.policy(1004)["rest_ticks"], town.books.policy(1005)["rest_ticks"]) == (0, 99)


def test_erase_is_for_the_author_and_the_stewards() -> None:
    town = town_of(ANNA, BEN)
    bare = next(name for name, entry in town.books.entries.items() if entry.by == ANNA)
    assert town.refusal("erase", BEN, statement=bare) == "not-authorised"
    assert town.refusal("erase", ANNA, statement=bare) == "wrong-state"
    paid = town.stamp()
    town.done("issue", STEWARD, to=ANNA, amount=1)
    town.done("retire", ANNA, amount=1, memo=b"m" * 32, **paid)
    joined = paid["id"]
    assert town.refusal("erase", BEN, statement=joined) == "not-authorised"
    assert town.refusal("erase", ANNA, statement=b"?" * 16) == "not-found"
    assert town.done("erase", ANNA, statement=joined) == []
    assert town.done("erase", STEWARD, statement=joined) == []


# --- Order and time ---


def test_refusals_come_in_the_order_of_the_protocol() -> None:
    """One payment with every fault at once; each line of the table mends one, and the next fault speaks."""
    town = town_of(ANNA, BEN, CARL)
    town.done("suspend", STEWARD, peer=ANNA)
    used = {**town.stamp()}
    town.done("issue", STEWARD, to=BEN, amount=10**15, **used)
    late = {"expires": town.now - 1}
    ahead = {"id": (town.now + 120_001).to_bytes(6, "big") + b"\x70" * 10}
    body = {"type": "pay", "by": ANNA, "legs": [[DORA, 1]], "commons": b"?" * 16, **used, **late}
    table: list[tuple[str, dict[str, Any], set[bytes]]] = [
        ("unknown-commons", {}, {BEN}),
        ("id-conflict", {"commons": town.name}, {BEN}),
        ("too-early", ahead, {BEN}),
        ("expired", {"id": town.stamp()["id"]}, {BEN}),
        ("not-authorised", {"expires": town.now}, {BEN}),
        ("not-active", {}, {ANNA}),
        ("unknown-member", {"by": CARL}, {CARL}),
        ("insufficient-funds", {"legs": [[BEN, 1]]}, {CARL}),
    ]
    for code, mended, signers in table:
        body |= mended
        answer = town.submit(body, signers)
        assert isinstance(answer, Refused)
        assert answer.code == code
    assert town.books.seq == 6


def test_limits_are_checked_before_funds() -> None:
    town = town_of(ANNA)
    for _ in range(1000):
        town.done("issue", STEWARD, to=ANNA, amount=10**15)
    assert town.say("issue", STEWARD, to=ANNA, amount=1) == Refused("limit-exceeded", limit=10**18)
    assert town.balance(ANNA) == 10**18


def test_replay_gives_the_first_receipt_and_time_never_goes_back() -> None:
    town = town_of(ANNA)
    body = {"type": "issue", "commons": town.name, "by": STEWARD, "to": ANNA, "amount": 7, **town.stamp()}
    first = town.submit(body, {STEWARD})
    assert isinstance(first, Accepted)
    town.at_tick(1100)
    again = town.submit(body, {STEWARD})
    assert again == Accepted(first.seq, first.at, first.postings, replayed=True)
    town.done("issue", STEWARD, to=ANNA, amount=1)
    town.now -= 1000
    earlier = town.say("issue", STEWARD, to=ANNA, amount=1)
    assert isinstance(earlier, Accepted)
    assert earlier.at == 1100 * HOUR_MS


def test_refused_statement_ends_no_ticks_for_good() -> None:
    town = town_of(ANNA)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    town.at_tick(1050)
    assert town.refusal("retire", ANNA, amount=100) == "insufficient-funds"
    # Were the ticks to 1049 ended for good, this policy of tick 1001 would come too late to stop the melt.
    town.at_tick(1000)
    town.done("policy", STEWARD, policy={**town.policy, "brackets": [[0, 0]]}, from_tick=1001)
    town.at_tick(1050)
    assert town.balance(ANNA) == 98


# --- The law against lots ---

Event = tuple[int, int, bool]
Step = tuple[str, int]
Policies = Sequence[tuple[int, int, list[list[int]]]]


def law_of(policies: Policies, tick: int) -> tuple[int, list[list[int]]]:
    """Give rest_ticks and brackets in force at a tick; from_ticks are distinct and ascending here."""
    _, rest_ticks, brackets = [p for p in policies if p[0] <= tick][-1]
    return rest_ticks, brackets


def test_lots_give_the_hand_computed_balances() -> None:
    flat = [(0, 1, TWO_PERCENT)]
    # As in test_payment_spends_the_oldest_money_first: 300 of 700 are still at the end of tick 6.
    assert melt_lots([(5, 1000, True), (6, 400, True), (6, -700, False)], flat, 6) == 694
    # 100 in at tick 5, 60 out and back again: still fresh at its end, still at the end of 6, fee 2.
    round_trip = [(5, 100, True), (5, -60, False), (5, 60, False)]
    assert [melt_lots(round_trip, flat, k) for k in (5, 6)] == [100, 98]
    # -80, then 100 in: 20 fresh; a tick later they are still, but 0.4 is no grain.
    assert melt_lots([(5, -80, False), (6, 100, True)], flat, 7) == 20
    # 100 in and out at tick 5 with rest 6; rest 0 at tick 6 puts the window's start at 7; rest 6 again from 7
    # on, where the 100 come back: they came before 7, so they are old, fee 2.
    changing = [(0, 6, TWO_PERCENT), (6, 0, TWO_PERCENT), (7, 6, TWO_PERCENT)]
    assert melt_lots([(5, 100, True), (5, -100, False), (7, 100, False)], changing, 7) == 98
    with pytest.raises(ValueError, match="after the tick"):
        melt_lots([(9, 1, True)], flat, 7)


brackets_of = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(0, 10**9)), min_size=0, max_size=3, unique_by=lambda b: b[0]
).flatmap(
    lambda upper: st.integers(0, 10**9).map(lambda ppb: [[0, ppb], *([start, rate] for start, rate in sorted(upper))])
)
policies_of = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 6), brackets_of), max_size=4, unique_by=lambda p: p[0]
).flatmap(lambda later: st.tuples(st.integers(0, 6), brackets_of).map(lambda first: [(0, *first), *sorted(later)]))
steps_of = st.lists(
    st.tuples(st.sampled_from(["in", "in", "out", "back", "hold", "void", "capture", "wait"]), st.integers(1, 2000)),
    max_size=40,
)


@given(policies_of, steps_of, st.integers(0, 12))
@settings(deadline=None, max_examples=300)
def test_law_at_every_tick_agrees_with_lots(policies: Policies, steps: list[Step], rest: int) -> None:
    account, tick, start = PlainAccount(), 0, 0
    events: list[Event] = []

    def end_tick() -> None:
        nonlocal tick, start
        rest_ticks, brackets = law_of(policies, tick)
        start = next_window_start(start, tick, rest_ticks)
        account.end_tick(tick, window_start=start, brackets=brackets)
        assert account.balance + account.escrowed == melt_lots(events, policies, tick)
        tick += 1

    for kind, amount in steps:
        if kind == "wait":
            for _ in range(amount % 4 + 1):
                end_tick()
            continue
        if kind == "hold":
            account.posted, account.escrowed = account.posted - amount, account.escrowed + amount
            continue
        if kind == "void":
            amount = min(amount, account.escrowed)
            account.posted, account.escrowed = account.posted + amount, account.escrowed - amount
            continue
        if kind == "capture":
            amount = min(amount, account.escrowed)
            account.escrowed -= amount
        else:
            account.posted += amount if kind in ("in", "back") else -amount
        if kind == "in":
            account.inflows[tick] = account.inflows.get(tick, 0) + amount
        events.append((tick, amount if kind in ("in", "back") else -amount, kind == "in"))
    for _ in range(rest):
        end_tick()


@given(
    policies_of,
    st.lists(
        st.tuples(st.sampled_from([ANNA, BEN]), st.integers(1, 3000), st.integers(0, 3), st.booleans()),
        max_size=20,
    ),
)
@settings(deadline=None, max_examples=60)
def test_books_agree_with_lots_and_sum_to_zero(
    policies: Policies, payments: list[tuple[bytes, int, int, bool]]
) -> None:
    timeline = [(START_TICK + start if start else 0, rest, brackets) for start, rest, brackets in policies]
    town = town_of(ANNA, BEN, rest_ticks=timeline[0][1], brackets=timeline[0][2])
    for start, rest, brackets in timeline[1:]:
        changed = {**town.policy, "rest_ticks": rest, "brackets": brackets}
        town.done("policy", STEWARD, policy=changed, from_tick=start)
    tick = START_TICK
    for payer, amount, waited, issues in payments:
        tick += waited
        town.at_tick(tick)
        payee = BEN if payer == ANNA else ANNA
        if issues:
            town.done("issue", STEWARD, to=payer, amount=amount)
        else:
            town.say("pay", payer, legs=[[payee, amount]])  # refused now and then: it must leave no trace
    town.at_tick(tick + 3)
    for peer in (ANNA, BEN):
        own = [
            (at // HOUR_MS, amount, amount > 0)
            for _, at, reason, amount, _ in town.books.history(peer)
            if reason != "melt"
        ]
        assert town.balance(peer) == melt_lots(own, timeline, tick + 2)
    assert sum(town.books.posted(h) for h in (ANNA, BEN, "pool", "issuer", "escrow")) == 0


# --- Gifts ---


def offered(town: Town, by: bytes, to: bytes | str, quantity: int, kind: str = "hour", **fields: Any) -> bytes:
    """Offer a gift and give its id."""
    stamp = town.stamp()
    assert town.done("gift", by, to=to, kind=kind, quantity=quantity, **stamp, **fields) == []
    name: bytes = stamp["id"]
    return name


def test_gift_counts_when_its_receiver_thanks_and_touches_no_money() -> None:
    town = town_of(ANNA, BEN, CARL)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    gift = offered(town, ANNA, BEN, 150)
    assert town.books.posted(ANNA, "hour") == 0
    town.at_tick(1001)
    for kind in ("thank", "decline"):
        assert town.refusal(kind, CARL, gift=gift) == "not-authorised"
        assert town.refusal(kind, ANNA, gift=gift) == "not-authorised"
        assert town.refusal(kind, STEWARD, gift=gift) == "not-authorised"
    # Anna's 2 of melt are due, but a gift is not money: they stay unposted.
    assert town.done("thank", BEN, gift=gift) == [["gift", ANNA, "hour", -150], ["gift", BEN, "hour", 150]]
    assert [town.books.posted(peer, "hour") for peer in (ANNA, BEN)] == [-150, 150]
    assert [town.books.posted(peer) for peer in (ANNA, BEN)] == [100, 0]
    assert town.books.history(ANNA, "hour") == [(7, town.now, "gift", -150, -150)]
    assert [row[2] for row in town.books.history(ANNA)] == ["issue"]
    for kind, by in (("thank", BEN), ("decline", BEN), ("withdraw", ANNA)):
        assert town.refusal(kind, by, gift=gift) == "wrong-state"


def test_gift_is_declined_by_its_receiver_or_withdrawn_by_its_giver_while_offered() -> None:
    town = town_of(ANNA, BEN)
    first, second = offered(town, ANNA, BEN, 1), offered(town, ANNA, BEN, 1)
    assert town.refusal("withdraw", BEN, gift=first) == "not-authorised"
    town.done("decline", BEN, gift=first)
    town.done("withdraw", ANNA, gift=second)
    assert [town.books.gifts[gift].state for gift in (first, second)] == ["declined", "withdrawn"]
    assert town.refusal("thank", BEN, gift=second) == "wrong-state"
    for kind in ("thank", "decline", "withdraw"):
        assert town.refusal(kind, BEN, gift=b"no such gift") == "not-found"
    assert town.books.given == {}


def test_gift_for_all_is_thanked_for_by_the_stewards_who_need_not_be_members() -> None:
    town = town_of(ANNA)
    gift = offered(town, ANNA, "pool", 25)
    assert town.refusal("thank", ANNA, gift=gift) == "not-authorised"
    assert town.done("thank", STEWARD, gift=gift) == [["gift", ANNA, "hour", -25], ["gift", "pool", "hour", 25]]
    assert (town.books.posted("pool", "hour"), town.books.posted("pool")) == (25, 0)


def test_steward_who_left_answers_no_gift_of_its_own_but_still_for_all() -> None:
    town = town_of(ANNA, STEWARD)
    own, common = offered(town, ANNA, STEWARD, 1), offered(town, ANNA, "pool", 1)
    town.done("leave", STEWARD)
    assert town.refusal("thank", STEWARD, gift=own) == "unknown-member"
    town.done("decline", STEWARD, gift=common)


def test_gifts_need_a_kind_and_gifts_received_before() -> None:
    town = town_of(ANNA, BEN)
    bread = {"code": "bread", "name": "Loaves of bread", "unit": "1", "scale": 0}
    assert town.refusal("gift", ANNA, to=BEN, kind="bread", quantity=1) == "not-found"
    assert town.refusal("kind", ANNA, **bread) == "not-authorised"
    assert town.done("kind", STEWARD, **bread) == []
    for code in ("bread", "hour"):
        assert town.refusal("kind", STEWARD, **{**bread, "code": code}) == "wrong-state"
    loaf = offered(town, ANNA, BEN, 1, "bread")
    assert town.refusal("gift", BEN, to=ANNA, kind="hour", quantity=1, after=[b"none"]) == "not-found"
    assert town.refusal("gift", ANNA, to=BEN, kind="hour", quantity=1, after=[loaf]) == "not-authorised"
    assert town.refusal("gift", BEN, to=ANNA, kind="hour", quantity=1, after=[loaf]) == "wrong-state"
    town.done("thank", BEN, gift=loaf)
    hours = offered(town, BEN, ANNA, 3, after=[loaf])
    assert town.done("thank", ANNA, gift=hours) == [["gift", BEN, "hour", -3], ["gift", ANNA, "hour", 3]]
    assert town.refusal("gift", ANNA, to=CARL, kind="hour", quantity=1) == "unknown-member"


# --- Trust ---


def trusting(*peers: bytes, credit: int = 100, **policy: Any) -> Town:
    return town_of(*peers, admission="steward", credit_limit=credit, **policy)


def limits(town: Town, *peers: bytes) -> list[int]:
    return [town.books.credit_limit(peer, town.now // HOUR_MS) for peer in peers]


def test_vouch_lends_room_to_the_grain_and_takes_it_back() -> None:
    town = trusting(ANNA, BEN, vouch_min=10)
    assert town.say("vouch", ANNA, **{"for": BEN}, limit=9) == Refused("limit-exceeded", limit=10)
    assert town.refusal("vouch", ANNA, **{"for": CARL}, limit=9) == "unknown-member"
    assert town.refusal("vouch", ANNA, **{"for": BEN}, limit=0) == "wrong-state"
    assert town.done("vouch", ANNA, **{"for": BEN}, limit=60) == []
    assert limits(town, ANNA, BEN) == [40, 160]
    # 40 are left to lend, on top of the 60.
    assert town.say("vouch", ANNA, **{"for": BEN}, limit=101) == Refused("limit-exceeded", limit=100)
    town.done("pay", ANNA, legs=[[BEN, 15]])
    # Anna is 25 from her limit of 40; 26 more is refused.
    refused = Refused("insufficient-funds", available=25, needed=26)
    assert town.say("vouch", ANNA, **{"for": BEN}, limit=86) == refused
    town.done("pay", BEN, legs=[[ANNA, 15 + 120]])
    # Ben is at -120 of -160: 40 of the 60 can be taken back, so 20 must stay.
    assert town.refusal("vouch", ANNA, **{"for": BEN}, limit=19) == "vouch-in-use"
    town.done("vouch", ANNA, **{"for": BEN}, limit=20)
    town.done("vouch", ANNA, **{"for": BEN}, limit=20)
    assert limits(town, ANNA, BEN) == [80, 120]
    assert town.refusal("leave", ANNA) == "vouch-in-use"
    town.done("issue", STEWARD, to=BEN, amount=20)
    town.done("leave", ANNA)
    assert (limits(town, BEN), town.books.vouches) == ([100], {})


def test_who_was_vouched_for_leaves_and_the_room_goes_home() -> None:
    town = trusting(ANNA, BEN)
    town.done("vouch", ANNA, **{"for": BEN}, limit=60)
    town.done("leave", BEN)
    assert (limits(town, ANNA), town.books.vouches) == ([100], {})


def test_loss_is_shared_by_largest_remainder_and_of_equals_the_lower_key_pays() -> None:
    # 10 over 7:7:6 of 20 is 3.5, 3.5, 3: the one grain that is over goes to the lower key of the equals.
    assert shares_of_loss(10, {BEN: 7, ANNA: 7, CARL: 6}) == {ANNA: 4, BEN: 3, CARL: 3}
    # 5 over 1:1:8 is 0.5, 0.5, 4; 7 over 1:2:3 is more than there is: each pays what it vouched.
    assert shares_of_loss(5, {CARL: 8, BEN: 1, ANNA: 1}) == {ANNA: 1, BEN: 0, CARL: 4}
    assert shares_of_loss(7, {ANNA: 1, BEN: 2, CARL: 3}) == {ANNA: 1, BEN: 2, CARL: 3}
    # 2 over 1:1:4 is 1/3, 1/3, 4/3: of thirds all alike, the lowest key's.
    assert shares_of_loss(2, {ANNA: 1, BEN: 1, CARL: 4}) == {ANNA: 1, BEN: 0, CARL: 1}
    assert shares_of_loss(2, {}) == {}


@given(st.dictionaries(st.binary(min_size=2, max_size=2), st.integers(1, 50), max_size=6), st.integers(1, 400))
def test_shares_of_a_loss_are_its_quotas_rounded_and_leave_nothing_out(vouches: dict[bytes, int], debt: int) -> None:
    parts, total = shares_of_loss(debt, vouches), sum(vouches.values())
    assert sum(parts.values()) == min(debt, total)
    for by, part in parts.items():
        assert 0 <= part <= vouches[by]
        assert abs(part * total - min(debt, total) * vouches[by]) < total


def test_writeoff_takes_from_vouchers_then_the_melted_pool_then_the_issuer() -> None:
    town = trusting(ANNA, BEN, CARL, DORA)
    town.done("vouch", ANNA, **{"for": DORA}, limit=40)
    town.done("vouch", BEN, **{"for": DORA}, limit=60)
    town.done("issue", STEWARD, to=ANNA, amount=1000)
    assert town.refusal("writeoff", STEWARD, peer=DORA) == "wrong-state"
    town.done("pay", DORA, legs=[[CARL, 150]])
    town.at_tick(1001)
    # Dora owes 150: Anna 40 after her melt of 20, Ben 60, and 50 are over: 20 of the pool, 30 of the issuer.
    assert town.done("writeoff", STEWARD, peer=DORA) == [
        ["melt", ANNA, "WRG", -20],
        ["melt", "pool", "WRG", 20],
        ["writeoff", DORA, "WRG", 150],
        ["writeoff", ANNA, "WRG", -40],
        ["writeoff", BEN, "WRG", -60],
        ["writeoff", "pool", "WRG", -20],
        ["writeoff", "issuer", "WRG", -30],
    ]
    assert [town.balance(peer) for peer in (ANNA, BEN, DORA)] == [940, -60, 0]
    assert limits(town, ANNA, BEN, DORA) == [100, 100, 100]
    assert (town.books.status(DORA), town.books.vouches) == ("suspended", {})
    assert town.refusal("writeoff", ANNA, peer=BEN) == "not-authorised"
    assert town.refusal("writeoff", STEWARD, peer=LEDGER) == "unknown-member"


def test_vouch_shrinks_by_what_it_paid_and_may_then_be_under_the_least() -> None:
    town = trusting(ANNA, BEN, DORA, vouch_min=30)
    town.done("vouch", ANNA, **{"for": DORA}, limit=40)
    town.done("pay", DORA, legs=[[BEN, 25]])
    assert town.done("writeoff", STEWARD, peer=DORA) == [
        ["writeoff", DORA, "WRG", 25],
        ["writeoff", ANNA, "WRG", -25],
    ]
    assert town.books.vouches == {(ANNA, DORA): 15}
    assert limits(town, ANNA, DORA) == [85, 115]
    town.done("leave", DORA)
    town.done("join", DORA, handle="dd")
    assert town.books.status(DORA) == "pending"


# --- Holds ---


def held(town: Town, amount: int, *, hours: int = 5) -> bytes:
    """Have Anna set money aside for Ben; the hold's id."""
    stamp = town.stamp()
    town.done("hold", ANNA, to=BEN, amount=amount, until=town.now + hours * HOUR_MS, **stamp)
    name: bytes = stamp["id"]
    return name


def test_held_money_melts_as_its_payers_and_a_capture_gives_what_is_there() -> None:
    town = town_of(ANNA, BEN, admission="steward", credit_limit=3)
    town.done("issue", STEWARD, to=ANNA, amount=1_000)
    hold = held(town, 1_000)
    assert (town.balance(ANNA), town.books.posted("escrow")) == (0, 1_000)
    town.at_tick(1001)
    # 2 % of 1,000, though nothing is free: she is at -20, and with her credit of 3 there are 983.
    assert town.balance(ANNA) == -20
    assert town.say("capture", BEN, hold=hold, amount=1_001) == Refused("limit-exceeded", limit=1_000)
    assert town.done("capture", BEN, hold=hold, amount=1_000) == [
        ["melt", ANNA, "WRG", -20],
        ["melt", "pool", "WRG", 20],
        ["capture", "escrow", "WRG", -1_000],
        ["capture", BEN, "WRG", 983],
        ["void", ANNA, "WRG", 17],
    ]
    assert (town.balance(ANNA), town.balance(BEN), town.books.posted("escrow")) == (-3, 983, 0)
    assert town.refusal("capture", BEN, hold=hold, amount=0) == "wrong-state"


def test_hold_is_voided_by_its_payee_by_its_payer_in_time_and_by_the_ledger_a_day_later() -> None:
    town = town_of(ANNA, BEN, CARL)
    town.done("issue", STEWARD, to=ANNA, amount=100)
    first, second, third = held(town, 10), held(town, 20), held(town, 30)
    assert town.refusal("void", CARL, hold=first) == "not-authorised"
    assert town.refusal("void", ANNA, hold=first) == "wrong-state"
    assert town.done("void", BEN, hold=first) == [["void", "escrow", "WRG", -10], ["void", ANNA, "WRG", 10]]
    for peer in (ANNA, BEN):
        assert town.refusal("leave", peer) == "wrong-state"
    town.at_tick(START_TICK + 5)
    # 100 -> 98 -> 97 -> 96 -> 95 -> 94, 50 of which are held.
    assert town.balance(ANNA) == 44
    assert town.done("void", ANNA, hold=second)[:2] == [["melt", ANNA, "WRG", -6], ["melt", "pool", "WRG", 6]]
    town.now += 24 * HOUR_MS - 1
    assert town.refusal("lapse", LEDGER, of=third) == "wrong-state"
    town.now += 1
    assert town.refusal("lapse", ANNA, of=third) == "not-authorised"
    assert town.done("lapse", LEDGER, of=third)[-2:] == [["void", "escrow", "WRG", -30], ["void", ANNA, "WRG", 30]]
    for peer in (ANNA, BEN):
        town.done("leave", peer)

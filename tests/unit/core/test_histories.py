"""Made-up histories, statement by statement through the core and the plain model, which must agree to the grain.

`Twin.take` compares outcome, refusal fields, postings and balances after every step, checks conservation and the
payer's limit, that deciding changes nothing, and that `needs_of` is enough. Here stands what a whole life must show.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import ISSUER, POOL, Books
from gesell_ledger.core.decide import Accepted, decide
from gesell_ledger.core.needs import needs_of
from tests.histories import LEDGER, cut, replayed, snapshot
from tests.lives import Life

#: What made-up lives must run into, or they would prove little: for each type the outcomes that were seen.
SEEN: Final = {
    "found": "accepted replayed",
    "join": "accepted replayed not-authorised already-member key-taken handle-taken too-early expired unknown-commons",
    "admit": "accepted not-authorised unknown-member wrong-state",
    "suspend": "accepted not-authorised unknown-member wrong-state",
    "leave": "accepted not-authorised unknown-member wrong-state vouch-in-use",
    "keys": "accepted not-authorised unknown-member not-found key-taken limit-exceeded",
    "policy": "accepted not-authorised malformed limit-exceeded",
    "stewards": "accepted not-authorised key-taken",
    "erase": "accepted not-authorised unknown-member not-found wrong-state",
    "issue": "accepted replayed not-authorised unknown-member too-early expired unknown-commons",
    "retire": "accepted not-authorised unknown-member not-active insufficient-funds",
    "pay": "accepted replayed id-conflict not-authorised unknown-member not-active insufficient-funds expired",
    "grant": "accepted not-authorised unknown-member insufficient-funds",
    "share": "accepted not-authorised wrong-state limit-exceeded insufficient-funds",
    "sweep": "accepted not-authorised unknown-member",
    "payout": "accepted not-authorised not-found wrong-state",
    "kind": "accepted replayed not-authorised wrong-state",
    "gift": "accepted replayed not-authorised unknown-member not-active not-found wrong-state",
    "thank": "accepted replayed not-authorised unknown-member not-found wrong-state",
    "decline": "accepted not-authorised unknown-member not-found wrong-state",
    "withdraw": "accepted not-authorised unknown-member not-found wrong-state",
    "vouch": "accepted replayed not-authorised unknown-member not-active wrong-state limit-exceeded"
    " insufficient-funds vouch-in-use",
    "writeoff": "accepted replayed not-authorised unknown-member wrong-state",
    "hold": "accepted replayed not-authorised unknown-member not-active limit-exceeded insufficient-funds",
    "capture": "accepted not-authorised unknown-member not-found wrong-state limit-exceeded",
    "void": "accepted not-authorised unknown-member not-found wrong-state",
    "lapse": "accepted not-authorised not-found wrong-state",
}
#: Which turns they must take with money that is lent and gifts that go to all.
TURNS: Final = {
    "a vouch raised",
    "a vouch lowered",
    "a vouch taken back",
    "the same vouch again",
    "a vouch that ended with a membership",
    "a vouch that ended with a debt",
    "a vouch that shrank with a debt",
    "a debt paid by several",
    "a debt paid by the pool",
    "a debt paid by the issuer",
    "a debt paid after a melt",
    "a gift received by the pool",
    "a gift moved by another",
    "a credit limit below zero",
    "a hold captured for less than was asked",
    "a hold captured in part",
    "a hold voided by its payer",
    "a balance that melted below its limit",
}


def test_many_lives_agree_with_the_plain_model_and_see_every_main_refusal() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    turns: Counter[str] = Counter()
    for number in range(100):
        life = Life(random.Random(number))
        for _ in range(100):
            lent = dict(life.twin.books.vouches)
            outcome = life.step()
            if isinstance(outcome, Accepted):
                turns.update(turns_of(outcome, lent, life.twin.books))
        outcomes += life.twin.outcomes
    missed = {(kind, code) for kind, codes in SEEN.items() for code in codes.split() if not outcomes[kind, code]}
    assert missed == set()
    assert {turn for turn in TURNS if not turns[turn]} == set()


def turns_of(accepted: Accepted, lent: dict[tuple[bytes, bytes], int], books: Books) -> Iterator[str]:
    """Which of `TURNS` an entry shows; `lent` are the vouches before it, `books` those after it."""
    said, postings = accepted.entry.fields(), accepted.entry.postings
    assert books.commons is not None
    changes = [(lent.get(pair, 0), grains) for pair, grains in accepted.decision.vouches.items()]
    kind = said["type"]
    if kind == "vouch" and not changes:
        yield "the same vouch again"
    for before, after in changes:
        if after > before:
            yield "a vouch raised"
        elif after > 0:
            yield "a vouch lowered" if kind == "vouch" else "a vouch that shrank with a debt"
        else:
            yield {
                "vouch": "a vouch taken back",
                "leave": "a vouch that ended with a membership",
                "writeoff": "a vouch that ended with a debt",
            }[kind]
    if kind == "writeoff":
        payers = [posting.holder for posting in postings if posting.reason == "writeoff"][1:]
        yield from (f"a debt paid by the {name}" for name in (POOL, ISSUER) if name in payers)
        if len(set(payers) - {POOL, ISSUER}) > 1:
            yield "a debt paid by several"
        if postings[0].reason == "melt":
            yield "a debt paid after a melt"
    if any(posting.holder == POOL and posting.reason == "gift" for posting in postings):
        yield "a gift received by the pool"
    if kind == "gift" and "after" in said:
        yield "a gift moved by another"
    yield from _turns_of_holds(accepted, books)
    limit = books.commons.policy_at(accepted.entry.at_ms).credit_limit
    if any(member.credit_limit(limit) < 0 for member in books.members.values()):
        yield "a credit limit below zero"


def _turns_of_holds(accepted: Accepted, books: Books) -> Iterator[str]:
    said, postings = accepted.entry.fields(), accepted.entry.postings
    assert books.commons is not None
    if said["type"] == "capture":
        taken = sum(posting.amount for posting in postings if posting.reason == "capture" and posting.amount > 0)
        if taken < said["amount"]:
            yield "a hold captured for less than was asked"
        elif 0 < taken < books.holds[said["hold"]].amount:
            yield "a hold captured in part"
    if said["type"] == "void" and said["by"] == books.holds[said["hold"]].payer:
        yield "a hold voided by its payer"
    limit = books.commons.policy_at(accepted.entry.at_ms).credit_limit
    for (holder, _), held in books.accounts.items():
        melted = any(posting.reason == "melt" and posting.holder == holder for posting in postings)
        if isinstance(holder, bytes) and melted and held.balance < -books.members[holder].credit_limit(limit):
            yield "a balance that melted below its limit"


@given(st.randoms(use_true_random=False), st.integers(1, 60))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_life_agrees_with_the_plain_model_and_its_entries_replayed_give_the_same_books(
    source: random.Random, steps: int
) -> None:
    life = Life(source)
    for _ in range(steps):
        life.step()
    assert snapshot(replayed(life.twin.entries)) == snapshot(life.twin.books)


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_batch_on_books_cut_to_its_needs_decides_as_on_the_whole_books(number: int) -> None:
    source = random.Random(number)
    life = Life(source)
    for _ in range(80):
        life.step()
    twin, books = life.twin, Books()
    offered = [one for one in zip(twin.submitted, twin.times, strict=True) if one[0].statement.commons == twin.commons]
    while offered:
        size = source.randint(1, 25)
        batch, offered = offered[:size], offered[size:]
        few = cut(books, needs_of(submission for submission, _ in batch))
        for submission, now_ms in batch:
            outcome = decide(few, submission, now_ms=now_ms, ledger=LEDGER)
            assert outcome == decide(books, submission, now_ms=now_ms, ledger=LEDGER)
            if isinstance(outcome, Accepted):
                few.apply(outcome.decision, outcome.entry)
                books.apply(outcome.decision, outcome.entry)
        assert few.commons == books.commons
        assert all(books.accounts[name] == holding for name, holding in few.accounts.items())
        assert all(books.members[peer] == member for peer, member in few.members.items())
        assert all(books.holds[name] == hold for name, hold in few.holds.items())
        assert all(books.gifts[name] == gift for name, gift in few.gifts.items())
        assert all(books.vouches[pair] == grains for pair, grains in few.vouches.items())
    assert snapshot(books) == snapshot(twin.books)

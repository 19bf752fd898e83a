"""Made-up histories, statement by statement through the core and the plain model, which must agree to the grain.

`Twin.take` compares outcome, refusal fields, postings and balances after every step, checks conservation and the
payer's limit, that deciding changes nothing, and that `needs_of` is enough. Here stands what a whole life must show.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, decide
from gesell_ledger.core.needs import needs_of
from tests.histories import LEDGER, Life, cut, replayed, snapshot

#: What made-up lives must run into, or they would prove little: for each type the outcomes that were seen.
SEEN: Final = {
    "found": "accepted replayed",
    "join": "accepted replayed not-authorised already-member key-taken handle-taken too-early expired unknown-commons",
    "admit": "accepted not-authorised unknown-member wrong-state",
    "suspend": "accepted not-authorised unknown-member wrong-state",
    "leave": "accepted not-authorised unknown-member wrong-state",
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
}


def test_many_lives_agree_with_the_plain_model_and_see_every_main_refusal() -> None:
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(40):
        life = Life(random.Random(number))
        for _ in range(100):
            life.step()
        outcomes += life.twin.outcomes
    missed = {(kind, code) for kind, codes in SEEN.items() for code in codes.split() if not outcomes[kind, code]}
    assert missed == set()


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
    assert snapshot(books) == snapshot(twin.books)

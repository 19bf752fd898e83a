"""What the books assert of every entry they take in: our own bugs must stop there, and nothing may be half taken."""

from __future__ import annotations

from typing import Any

import pytest

from gesell_ledger.core.books import Books, Decision, Entry, check_sums
from gesell_protocol.log import Posting, leaf_data, leaf_hash
from gesell_protocol.names import ISSUER
from tests.histories import CODE, Twin, key, snapshot

ANNA = key("anna")


def entry_after(twin: Twin, **changes: Any) -> Entry:
    """The entry that would come next, with no postings; some of its values changed."""
    last = twin.entries[-1]
    values: dict[str, Any] = {
        "commons": twin.commons,
        "seq": last.seq + 1,
        "at_ms": last.at_ms,
        "id": b"the next entry's",
        "body": b"",
        "signatures": (),
        "postings": (),
        **changes,
    }
    return Entry(**values)


def test_entry_that_follows_without_a_gap_is_taken() -> None:
    twin = Twin()
    twin.books.apply(Decision(), entry_after(twin))
    assert twin.books.commons is not None
    assert twin.books.commons.seq == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 1},
        {"seq": 3},
        {"at_ms": 0},
        {"postings": (Posting("issue", ISSUER, CODE, -5), Posting("issue", ANNA, CODE, 4))},
        {"postings": (Posting("issue", ISSUER, CODE, -5), Posting("issue", ANNA, "OTHER", 5))},
    ],
)
def test_entry_that_would_break_the_books_is_refused_by_them_and_leaves_no_trace(changes: dict[str, Any]) -> None:
    twin = Twin()
    before = snapshot(twin.books)
    with pytest.raises(AssertionError):
        twin.books.apply(Decision(), entry_after(twin, **changes))
    assert snapshot(twin.books) == before


def test_sums_are_taken_for_each_asset_by_itself() -> None:
    check_sums([Posting("pay", ANNA, "A", -1), Posting("pay", ANNA, "B", 2), Posting("x", "pool", "A", 1)][:0])
    check_sums([Posting("pay", ANNA, "A", -1), Posting("pay", "pool", "A", 1), Posting("gift", ANNA, "B", 0)])
    with pytest.raises(AssertionError):
        check_sums([Posting("pay", ANNA, "A", -1), Posting("pay", "pool", "B", 1)])


def test_account_that_was_never_touched_holds_nothing() -> None:
    assert Books().account(ANNA, CODE).balance == 0


def test_leaf_binds_every_part_of_an_entry() -> None:
    twin = Twin()
    twin.done("join", ANNA, handle="anna")
    twin.done("issue", twin.stewards[0], to=ANNA, amount=5)
    entry = twin.entries[-1]
    parts: dict[str, Any] = {
        "seq": entry.seq,
        "at_ms": entry.at_ms,
        "body": entry.body,
        "signatures": entry.signatures,
        "postings": entry.postings,
    }
    assert entry.leaf == leaf_hash(leaf_data(**parts))
    (signer, signature) = entry.signatures[0]
    others: dict[str, Any] = {
        "seq": entry.seq + 1,
        "at_ms": entry.at_ms + 1,
        "body": entry.body + b"\x00",
        "signatures": ((signer, signature[::-1]),),
        "postings": entry.postings[::-1],
    }
    for name, other in others.items():
        assert leaf_hash(leaf_data(**{**parts, name: other})) != entry.leaf

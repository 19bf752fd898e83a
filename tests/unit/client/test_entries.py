"""What a follower reads in an entry beside its postings: who is paid for what, in whose words."""

from __future__ import annotations

from typing import Any

import pytest
from wire_ledger import BOB, STEWARD

from gesell.answers import read_entry, understood
from gesell.errors import UnexpectedAnswer
from gesell_protocol.envelopes import Memo
from gesell_protocol.log import leaf_of
from gesell_protocol.names import base64url, id_text, uuid7
from gesell_protocol.statements import write_body

AT_MS = 1_767_225_600_000
ID, REF = (uuid7(AT_MS, bytes([n]) * 10) for n in (1, 2))
MEMO = Memo(b"s" * 16, "to the station")


def entry(memo: Memo | None = MEMO, **more: Any) -> dict[str, Any]:
    """A payment as a ledger shows it, with a memo's seal in its body and maybe more fields."""
    fields = {"type": "pay", "commons": bytes(16), "by": STEWARD.key, "id": ID, "expires": AT_MS + 1}
    body = write_body({**fields, "legs": [[BOB.key, 5]], "memo": None if memo is None else memo.seal(), **more})
    leaf = leaf_of(seq=3, at_ms=AT_MS, body=body, signatures=(), postings=())
    shown = {"seq": 3, "at": AT_MS, "type": "pay", "by": STEWARD.did, "id": id_text(ID), "body": base64url(body)}
    told = {} if memo is None else {"memo": {"salt": base64url(memo.salt), "text": memo.text}}
    return {**shown, "signatures": [], "postings": [], "leaf": leaf.hex(), **told}


def test_an_entry_tells_memo_category_and_ref() -> None:
    read = read_entry(entry(category="lift", ref=REF))
    assert (read.memo, read.category, read.ref) == ("to the station", "lift", id_text(REF))
    assert "pay for lift by did:key:" in repr(read)
    assert "'to the station'" in repr(read)


def test_an_entry_without_them_tells_none() -> None:
    read = read_entry(entry(memo=None))
    assert (read.memo, read.category, read.ref) == (None, None, None)


def test_an_entry_whose_memo_was_erased_has_none() -> None:
    shown = entry()
    del shown["memo"]
    assert read_entry(shown).memo is None


@pytest.mark.parametrize(
    "change",
    [
        {"memo": {"salt": base64url(MEMO.salt), "text": "to the moon"}},
        {"memo": {"salt": base64url(b"t" * 16), "text": MEMO.text}},
        {"memo": {"salt": base64url(MEMO.salt)}},
    ],
)
def test_a_memo_that_does_not_fit_its_seal_is_an_unexpected_answer(change: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer):
        understood(read_entry, {**entry(), **change})


def test_a_memo_that_nobody_sealed_is_an_unexpected_answer() -> None:
    with pytest.raises(UnexpectedAnswer, match="not the one that was sealed"):
        understood(read_entry, {**entry(memo=None), "memo": entry()["memo"]})


@pytest.mark.parametrize("more", [{"category": 7}, {"ref": "x"}, {"ref": b"short"}])
def test_a_category_or_ref_that_can_be_none_is_an_unexpected_answer(more: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer):
        understood(read_entry, entry(**more))

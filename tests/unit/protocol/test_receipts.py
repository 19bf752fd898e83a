"""Receipts: the true one is accepted by its author, and every change in it is found out (SPEC §7.1)."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesell_ledger.core.decide import Accepted, Submission
from gesell_protocol.envelopes import Memo
from gesell_protocol.log import Posting, leaf_data, leaf_hash
from gesell_protocol.names import ISSUER, POOL, Holder
from gesell_protocol.receipts import Receipt, ReceiptMismatch, check_receipt, read_receipt
from tests.histories import CODE, HOUR_MS, LEDGER, Twin, key

ANNA, BEN, CARL = sorted(key(name) for name in ("anna", "ben", "carl"))


def histories() -> dict[str, tuple[Receipt, Submission]]:
    """The true receipt of a statement of each type, with the statement; melt stands before most of their postings."""
    twin = Twin(admission="steward", credit_limit=10)
    steward = twin.stewards[0]
    found: dict[str, tuple[Receipt, Submission]] = {}

    def note(kind: str, by: bytes, /, **fields: Any) -> None:
        outcome = twin.say(kind, by, **fields)
        assert isinstance(outcome, Accepted), outcome
        name = f"balancing {kind}" if "balancing" in fields else kind
        found[name] = (outcome.entry.receipt(twin.tick), twin.submitted[-1])

    for peer, handle in ((ANNA, "anna"), (BEN, "ben"), (CARL, "carl")):
        note("join", peer, handle=handle, memo=Memo(b"salt" * 4, handle))
        note("admit", steward, peer=peer)
    joined = twin.entries[-2].id
    for amount in (1_000, 5_000):
        note("issue", steward, to=ANNA, amount=amount)
        twin.pass_ticks(1)
        note("issue", steward, to=BEN, amount=amount)
    twin.pass_ticks(1)
    note("pay", ANNA, legs=[[BEN, 10], [CARL, 20]])
    twin.pass_ticks(1)
    note("retire", BEN, amount=7)
    note("grant", steward, legs=[[CARL, 5], [ANNA, 1]])
    note("share", steward, amount=50)
    note("payout", LEDGER, share=twin.entries[-1].id, members=[ANNA, BEN, CARL])
    twin.pass_ticks(2)
    note("sweep", LEDGER, accounts=[BEN])
    note("pay", CARL, legs=[[BEN, 10**9]], balancing=True)
    note("retire", BEN, amount=10**9, balancing=True)
    note("kind", steward, code="bread", name="Bread", unit="1", scale=0)
    note("gift", ANNA, to=BEN, kind="hour", quantity=5)
    twin.pass_ticks(1)
    note("thank", BEN, gift=twin.entries[-1].id)
    for kind, more in (("capture", {"amount": 10}), ("void", {})):
        note("hold", ANNA, to=BEN, amount=30, until=twin.now_ms + 10 * HOUR_MS)
        twin.pass_ticks(1)
        note(kind, BEN, hold=twin.entries[-1].id, **more)
    note("vouch", ANNA, **{"for": CARL}, limit=5)
    twin.done("pay", CARL, legs=[[BEN, 12]])
    twin.pass_ticks(1)
    note("keys", ANNA, signers=(ANNA, key("phone")), add=[key("phone")])
    note("erase", CARL, statement=joined)
    note("suspend", steward, peer=CARL)
    note("writeoff", steward, peer=CARL)
    note("policy", steward, policy=twin.policy, from_tick=twin.tick + 1)
    note("stewards", steward, stewards=[steward], threshold=1)
    note("leave", ANNA)
    return found


TRUE = histories()
each = pytest.mark.parametrize("name", TRUE)


def check(receipt: Receipt, submission: Submission, currency: str | None = CODE) -> None:
    check_receipt(receipt, envelope=submission.envelope, statement=submission.statement, currency=currency)


def with_true_leaf(receipt: Receipt, submission: Submission) -> Receipt:
    """What a cheating ledger would send: its leaf fits what it says."""
    data = leaf_data(
        seq=receipt.seq,
        at_ms=receipt.at_ms,
        body=submission.envelope.body,
        signatures=submission.envelope.signatures,
        postings=receipt.postings,
    )
    return receipt._replace(leaf=leaf_hash(data))


@each
def test_true_receipt_is_accepted_also_after_its_way_over_the_wire(name: str) -> None:
    receipt, submission = TRUE[name]
    check(receipt, submission)
    check(receipt, submission, None)
    assert read_receipt(msgpack.unpackb(msgpack.packb(receipt.wire()))) == receipt


@each
@pytest.mark.parametrize("field", ["commons", "seq", "at_ms", "id", "leaf", "postings"])
def test_change_of_any_one_field_is_found_out(name: str, field: str) -> None:
    receipt, submission = TRUE[name]
    true: Any = getattr(receipt, field)
    others: list[Any] = [true + 1, true - 1] if isinstance(true, int) else []
    if isinstance(true, bytes):
        others = [bytes([true[0] ^ 1]) + true[1:], true[:-1] + bytes([true[-1] ^ 128]), b"", true[::-1]]
    if field == "postings":
        others = [(*true, Posting("pay", ANNA, CODE, 0))]
        others += [true[:-1], true[1:], true[::-1]] if true else []
        for place, posting in enumerate(true):
            for changes in ({"amount": posting.amount + 1}, {"holder": LEDGER}, {"asset": "EUR"}, {"reason": "gift"}):
                others.append((*true[:place], posting._replace(**changes), *true[place + 1 :]))
    for other in [one for one in others if one != true]:
        with pytest.raises(ReceiptMismatch):
            check(receipt._replace(**{field: other}), submission)


@each
def test_receipt_of_one_statement_is_none_of_another(name: str) -> None:
    receipt, _ = TRUE[name]
    for other, (_, submission) in TRUE.items():
        if other != name:
            with pytest.raises(ReceiptMismatch):
                check(receipt, submission)


LIES: dict[str, Any] = {
    "more than was signed": lambda own: [(line[0], line[1], line[2] * 2) for line in own],
    "less than was signed": lambda own: [(own[0][0], own[0][1], own[0][2] + 1), *own[1:-1], _less(own[-1])],
    "to somebody else": lambda own: [*own[:-1], (own[-1][0], LEDGER, own[-1][2])],
    "from somebody else": lambda own: [(own[0][0], LEDGER, own[0][2]), *own[1:]],
    "for another reason": lambda own: [("gift", *line[1:]) for line in own],
    "in another order": lambda own: own[::-1],
    "nothing at all": lambda own: [],
    "twice": lambda own: own * 2,
    "and a fee beside": lambda own: [*own, ("fee", own[0][1], -1), ("fee", POOL, 1)],
}


def _less(line: tuple[str, Any, int]) -> tuple[str, Any, int]:
    return (line[0], line[1], line[2] - 1)


@pytest.mark.parametrize("name", ["issue", "pay", "retire", "grant", "share", "hold"])
@pytest.mark.parametrize("lie", LIES)
def test_ledger_that_lies_with_a_leaf_that_fits_is_found_out(name: str, lie: str) -> None:
    receipt, submission = TRUE[name]
    melt = [posting for posting in receipt.postings if posting.reason == "melt"]
    own = [(posting.reason, posting.holder, posting.amount) for posting in receipt.postings if posting.reason != "melt"]
    if name == "share" and lie in ("more than was signed", "less than was signed"):
        # How many are active is not known here; that it is at most what was signed, is.
        own = [(reason, holder, amount + 1 if amount > 0 else amount - 1) for reason, holder, amount in own]
        told = [(reason, holder, 2 * amount) for reason, holder, amount in own]
    else:
        told = LIES[lie](own)
    postings = (*melt, *(Posting(reason, holder, CODE, amount) for reason, holder, amount in told))
    with pytest.raises(ReceiptMismatch):
        check(with_true_leaf(receipt._replace(postings=postings), submission), submission)


@pytest.mark.parametrize("name", TRUE)
def test_postings_that_do_not_sum_to_zero_are_found_out_for_every_type(name: str) -> None:
    receipt, submission = TRUE[name]
    for more in (Posting("share", POOL, CODE, 1), Posting("leave", ANNA, CODE, -1)):
        with pytest.raises(ReceiptMismatch):
            check(with_true_leaf(receipt._replace(postings=(*receipt.postings, more)), submission), submission)


@pytest.mark.parametrize("name", ["balancing pay", "balancing retire"])
@pytest.mark.parametrize("moved", [-5, 0, 10**9 + 1])
def test_balancing_moves_something_and_never_more_than_was_signed(name: str, moved: int) -> None:
    receipt, submission = TRUE[name]
    payer, payee = receipt.postings[-2:]
    postings = (*receipt.postings[:-2], payer._replace(amount=-moved), payee._replace(amount=moved))
    with pytest.raises(ReceiptMismatch):
        check(with_true_leaf(receipt._replace(postings=postings), submission), submission)


@pytest.mark.parametrize(
    "melt",
    [
        [("melt", ANNA, CODE, -5), ("melt", BEN, CODE, 5)],
        [("melt", ANNA, CODE, 5), ("melt", POOL, CODE, -5)],
        [("melt", ANNA, CODE, -5), ("melt", POOL, CODE, 3), ("melt", ISSUER, CODE, 2)],
        [("melt", ANNA, CODE, 0), ("melt", POOL, CODE, 0)],
        [("melt", ANNA, CODE, 0)],
        [("melt", ANNA, "EUR", -5), ("melt", POOL, "EUR", 5)],
    ],
)
def test_melt_goes_from_a_peer_to_the_pool_or_the_issuer_and_nowhere_else(melt: list[tuple[Any, ...]]) -> None:
    receipt, submission = TRUE["sweep"]
    true = (Posting("melt", ANNA, CODE, -5), Posting("melt", POOL, CODE, 5))
    check(with_true_leaf(receipt._replace(postings=true), submission), submission)
    postings = tuple(Posting(*line) for line in melt)
    with pytest.raises(ReceiptMismatch):
        check(with_true_leaf(receipt._replace(postings=postings), submission), submission)


def test_melt_stands_first_and_is_charged_to_peers_whom_the_statement_touches() -> None:
    receipt, submission = TRUE["pay"]
    own = tuple(posting for posting in receipt.postings if posting.reason != "melt")
    payer = own[0].holder

    def told(*postings: Posting) -> None:
        check(with_true_leaf(receipt._replace(postings=postings), submission), submission)

    def melted(holder: Holder) -> tuple[Posting, Posting]:
        return Posting("melt", holder, CODE, -5), Posting("melt", POOL, CODE, 5)

    told(*melted(payer), *own)
    for false in ((*own, *melted(payer)), (*melted(key("stranger")), *own), (*melted("escrow"), *own)):
        with pytest.raises(ReceiptMismatch, match="melt"):
            told(*false)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

WIRE = TRUE["pay"][0].wire()
junk = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=4) | st.binary(max_size=4)


@pytest.mark.parametrize("field", WIRE)
def test_receipt_without_a_field_or_with_one_of_another_type_is_none(field: str) -> None:
    with pytest.raises(ValueError, match="receipt"):
        read_receipt({name: value for name, value in WIRE.items() if name != field})
    for wrong in (None, True, 1.0, "text", {"a": 1}, b"" if not isinstance(WIRE[field], bytes) else 7):
        with pytest.raises(ValueError, match="receipt"):
            read_receipt({**WIRE, field: wrong})


LINE = ["pay", ANNA, CODE, -5]


@pytest.mark.parametrize(
    "line",
    [
        None,
        1,
        "abcd",
        b"abcd",
        {},
        [],
        LINE[:3],
        [*LINE, 1],
        [b"pay", *LINE[1:]],
        [None, *LINE[1:]],
        ["pay", 1, CODE, -5],
        ["pay", [ANNA], CODE, -5],
        ["pay", ANNA, b"WRG", -5],
        ["pay", ANNA, [CODE], -5],
        ["pay", ANNA, CODE, "-5"],
        ["pay", ANNA, CODE, -5.0],
        ["pay", ANNA, CODE, True],
        ["pay", ANNA, CODE, None],
    ],
)
def test_receipt_with_a_posting_of_another_form_is_none(line: Any) -> None:
    with pytest.raises(ValueError, match="receipt"):
        read_receipt({**WIRE, "postings": [line]})


@given(st.lists(st.lists(junk | st.lists(junk, max_size=2), max_size=5) | junk, max_size=3))
@settings(max_examples=40, deadline=None)
def test_whatever_a_ledger_sends_is_read_and_checked_or_refused_but_nothing_else(postings: list[Any]) -> None:
    _, submission = TRUE["pay"]
    try:
        receipt = read_receipt({**WIRE, "postings": postings})
        check(with_true_leaf(receipt, submission), submission)
    except ValueError:
        return
    raise AssertionError("junk passed for a receipt")


def test_no_money_melts_for_a_gift() -> None:
    receipt, submission = TRUE["thank"]
    for peer in (ANNA, BEN):
        melted = (Posting("melt", peer, "hour", -1), Posting("melt", POOL, "hour", 1))
        lie = with_true_leaf(receipt._replace(postings=(*melted, *receipt.postings)), submission)
        with pytest.raises(ReceiptMismatch, match="gift"):
            check(lie, submission)


def test_a_capture_melts_its_payer_and_nobody_else() -> None:
    receipt, submission = TRUE["capture"]
    stranger = (Posting("melt", CARL, CODE, -1), Posting("melt", POOL, CODE, 1))
    lie = with_true_leaf(receipt._replace(postings=(*stranger, *receipt.postings)), submission)
    with pytest.raises(ReceiptMismatch, match="touch"):
        check(lie, submission)

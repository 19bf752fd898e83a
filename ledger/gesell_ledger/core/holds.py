"""Holds: hold, capture, void, lapse (SPEC §3.2, §3.6, §4.2).

Owns how money is set aside for a payee and let go again. What is in escrow melts as its payer's, out of the payer's
balance, so a hold guarantees an amount less what melts meanwhile.

1. A hold is open until it is captured, voided or lapsed, whatever the clock says.
2. The payee may end it at any time, its payer once its time has come, the ledger a day later.
3. A capture gives the payee no more than its payer could have paid: balance, escrow and credit limit, after the melt.
4. Money that comes back to its payer is no inflow, and is not charged again.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from gesell_ledger.core.books import ESCROW, RECEIVERS, Books, Decision, Hold
from gesell_ledger.core.money import Draft, Signed, check_payer
from gesell_protocol import statements
from gesell_protocol.names import Holder, did_of
from gesell_protocol.refusals import Refusal

DAY_MS: Final = 24 * 3600 * 1000
HOLD_MAX_MS: Final = 30 * DAY_MS


def decide_hold(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`hold`: set money aside for a payee."""
    statement = submission.statement
    commons = books.commons
    assert isinstance(statement, statements.Hold)
    assert commons is not None
    payee = books.members.get(statement.to)
    if payee is None or payee.status not in RECEIVERS:
        return Refusal(
            code="unknown-member", detail=f"the payee {did_of(statement.to)} is not a member of this commons"
        )
    if not at_ms < statement.until <= at_ms + HOLD_MAX_MS:
        return Refusal(
            code="limit-exceeded",
            detail="a hold's time comes after now, and within 30 days (in ms)",
            fields={"limit": HOLD_MAX_MS},
        )
    draft = Draft(books, at_ms)
    draft.bring_up([statement.by])
    before = draft.balance(statement.by)
    draft.post("hold", [(statement.by, -statement.amount), (ESCROW, statement.amount)])
    draft.set_aside(statement.by, statement.amount)
    refusal = draft.check_limits() or check_payer(
        draft, statement.by, before=before, moves=statement.amount, asked=statement.amount
    )
    if refusal is not None:
        return refusal
    decision = draft.decision()
    decision.members[payee.peer] = structs.replace(payee, awaits=payee.awaits + 1)
    decision.holds[statement.id] = Hold(
        id=statement.id,
        seq=commons.seq + 1,
        payer=statement.by,
        payee=statement.to,
        amount=statement.amount,
        until_ms=statement.until,
    )
    return decision


def decide_capture(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`capture`: the payee takes what it asks for, as far as it is there; the rest goes back."""
    statement = submission.statement
    assert isinstance(statement, statements.Capture)
    hold = books.holds.get(statement.hold)
    if hold is None:
        return _no_such_hold()
    if hold.payee != statement.by:
        return Refusal(code="not-authorised", detail="only its payee captures a hold")
    if not hold.open:
        return _ended()
    if statement.amount > hold.amount:
        return Refusal(code="limit-exceeded", detail=f"{hold.amount} grains are held", fields={"limit": hold.amount})
    return _release(books, hold, "capture", at_ms, asked=statement.amount)


def decide_void(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`void`: everything goes back to the payer."""
    statement = submission.statement
    assert isinstance(statement, statements.Void)
    hold = books.holds.get(statement.hold)
    if hold is None:
        return _no_such_hold()
    if statement.by not in (hold.payer, hold.payee):
        return Refusal(code="not-authorised", detail="a hold is its payer's and its payee's")
    if not hold.open:
        return _ended()
    if statement.by == hold.payer and at_ms < hold.until_ms:
        return Refusal(code="wrong-state", detail="the payer may void a hold once its time has come, not before")
    return _release(books, hold, "void", at_ms)


def decide_lapse(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`lapse`: nobody ended the hold, and a day has passed since its time came."""
    statement = submission.statement
    assert isinstance(statement, statements.Lapse)
    hold = books.holds.get(statement.hold)
    if hold is None:
        return _no_such_hold()
    if not hold.open:
        return _ended()
    if at_ms < hold.until_ms + DAY_MS:
        return Refusal(code="wrong-state", detail="the hold's time was over less than a day ago")
    return _release(books, hold, "void", at_ms)


def _release(books: Books, hold: Hold, reason: str, at_ms: int, *, asked: int = 0) -> Decision | Refusal:
    """End a hold: `asked` grains to the payee as far as rule 3 lets it, the rest back to the payer."""
    draft = Draft(books, at_ms)
    draft.bring_up([hold.payer])
    there = draft.balance(hold.payer) + draft.escrow_of(hold.payer) + draft.credit_limit(hold.payer)
    taken = min(asked, max(0, there))
    if taken:
        draft.bring_up([hold.payee])
    lines: list[tuple[Holder, int]] = [(ESCROW, -hold.amount), (hold.payee, taken)]
    draft.post(reason, lines)
    draft.post("void", [(hold.payer, hold.amount - taken)])
    draft.set_aside(hold.payer, -hold.amount)
    refusal = draft.check_limits()
    if refusal is not None:
        return refusal
    decision = draft.decision()
    payee = books.members[hold.payee]
    decision.members[payee.peer] = structs.replace(payee, awaits=payee.awaits - 1)
    decision.holds[hold.id] = structs.replace(hold, open=False)
    return decision


def _no_such_hold() -> Refusal:
    return Refusal(code="not-found", detail="no hold of that id was made here")


def _ended() -> Refusal:
    return Refusal(code="wrong-state", detail="the hold was captured, voided or lapsed already")

"""Gifts: kind, gift, thank, decline, withdraw (SPEC §3.3).

Owns how a gift comes to count. A gift is no money: what is posted here is counted in a kind of gift, touches no
currency account, has no limit but that of all balances, and does not melt.

1. A gift counts once its receiver has thanked for it; until then it is offered, and nothing is posted.
2. What moved a giver to give are gifts that it received before. So the thread of gifts never closes: what is received
   was accepted earlier.
3. A gift to the pool is everybody's; the stewards thank for it, or decline.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from msgspec import structs

from gesell_ledger.core import membership
from gesell_ledger.core.books import (
    DECLINED,
    OFFERED,
    PENDING,
    POOL,
    RECEIVED,
    RECEIVERS,
    WITHDRAWN,
    Books,
    Decision,
    Gift,
    Holding,
    Kind,
)
from gesell_ledger.core.money import Signed
from gesell_protocol import statements
from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.log import Posting
from gesell_protocol.names import did_of
from gesell_protocol.refusals import Refusal

KINDS_MAX: Final = 256


def decide_kind(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`kind`: another kind of gift."""
    statement = submission.statement
    commons = books.commons
    assert isinstance(statement, statements.MakeKind)
    assert commons is not None
    if statement.code in commons.kinds:
        return Refusal(code="wrong-state", detail=f"there is a kind {statement.code} already")
    if len(commons.kinds) >= KINDS_MAX:
        return Refusal(
            code="limit-exceeded", detail=f"a commons has at most {KINDS_MAX} kinds", fields={"limit": KINDS_MAX}
        )
    kind = Kind(statement.code, statement.name, statement.unit, statement.scale)
    kinds = MappingProxyType({**commons.kinds, kind.code: kind})
    return Decision(commons=structs.replace(commons, kinds=kinds), kind=kind)


def decide_gift(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`gift`: offered to a member, or to the pool for the whole commons."""
    statement = submission.statement
    commons = books.commons
    assert isinstance(statement, statements.Gift)
    assert commons is not None
    if statement.kind not in commons.kinds:
        return Refusal(code="not-found", detail=f"there is no kind of gift {statement.kind} here")
    for name in statement.after:
        refusal = _check_moved_by(books.gifts.get(name), statement.by)
        if refusal is not None:
            return refusal
    if isinstance(statement.to, bytes):
        receiver = books.members.get(statement.to)
        if receiver is None or receiver.status not in RECEIVERS:
            return Refusal(
                code="unknown-member", detail=f"the receiver {did_of(statement.to)} is not a member of this commons"
            )
    gift = Gift(
        id=statement.id,
        seq=commons.seq + 1,
        giver=statement.by,
        receiver=statement.to,
        kind=statement.kind,
        quantity=statement.quantity,
    )
    return Decision(gifts={gift.id: gift})


def _check_moved_by(gift: Gift | None, giver: bytes) -> Refusal | None:
    """Rule 2."""
    if gift is None:
        return Refusal(code="not-found", detail="after names a gift that was never offered here")
    if gift.receiver != giver:
        return Refusal(code="not-authorised", detail="after names a gift that was for somebody else")
    if gift.state != RECEIVED:
        return Refusal(code="wrong-state", detail=f"after names a gift that is {gift.state}, not received")
    return None


def decide_thank(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`thank`: the gift counts from now on."""
    statement = submission.statement
    assert isinstance(statement, statements.Thank)
    gift = _find_received(books, submission, statement.gift)
    if isinstance(gift, Refusal):
        return gift
    if gift.giver == statement.by:
        # A gift counts when two have spoken.
        return Refusal(code="not-authorised", detail="another steward thanks for what a steward gave to the commons")
    lines = ((gift.giver, -gift.quantity), (gift.receiver, gift.quantity))
    accounts = {}
    for holder, quantity in lines:
        balance = books.account(holder, gift.kind).balance + quantity
        if not -BALANCE_MAX <= balance <= BALANCE_MAX:
            return Refusal(
                code="limit-exceeded", detail="a count of gifts would leave ±10^18", fields={"limit": BALANCE_MAX}
            )
        accounts[holder, gift.kind] = Holding(balance)
    return Decision(
        postings=tuple(Posting("gift", holder, gift.kind, quantity) for holder, quantity in lines),
        accounts=accounts,
        gifts={gift.id: structs.replace(gift, state=RECEIVED)},
    )


def decide_decline(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`decline`: the receiver does not take it."""
    statement = submission.statement
    assert isinstance(statement, statements.Decline)
    gift = _find_received(books, submission, statement.gift)
    return gift if isinstance(gift, Refusal) else Decision(gifts={gift.id: structs.replace(gift, state=DECLINED)})


def decide_withdraw(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`withdraw`: the giver takes the offer back."""
    statement = submission.statement
    assert isinstance(statement, statements.Withdraw)
    gift = books.gifts.get(statement.gift)
    if gift is None:
        return _no_such_gift()
    if gift.giver != statement.by:
        return Refusal(code="not-authorised", detail="only its giver withdraws a gift")
    return _check_offered(gift) or Decision(gifts={gift.id: structs.replace(gift, state=WITHDRAWN)})


def _find_received(books: Books, submission: Signed, name: bytes) -> Gift | Refusal:
    """The gift that its receiver, or the stewards for the pool, speak of, if it is still to be taken (rule 3)."""
    statement, signers = submission.statement, submission.envelope.signers
    gift = books.gifts.get(name)
    if gift is None:
        return _no_such_gift()
    if gift.receiver == POOL:
        if not membership.stewards_speak(books, statement.by, signers):
            return Refusal(code="not-authorised", detail="a gift to the commons is the stewards' to take")
    elif gift.receiver != statement.by:
        return Refusal(code="not-authorised", detail="the gift is for somebody else")
    elif books.members[statement.by].status == PENDING:
        # A steward's standing was not asked before, since it may speak without being a member: not for itself.
        return Refusal(code="not-active", detail=f"a pending member may not {statement.type}")
    elif books.members[statement.by].status not in RECEIVERS:
        return Refusal(code="unknown-member", detail="who speaks is not a member of this commons")
    return _check_offered(gift) or gift


def _no_such_gift() -> Refusal:
    return Refusal(code="not-found", detail="no gift of that id was offered here")


def _check_offered(gift: Gift) -> Refusal | None:
    if gift.state != OFFERED:
        return Refusal(code="wrong-state", detail=f"the gift was {gift.state} already")
    return None

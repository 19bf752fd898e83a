"""Trust: vouch, writeoff (SPEC §3.4).

Owns what a vouch asks and how a loss is shared. Knows vouches as grains of credit room that one member lends another;
how they change is `vouches`'.

1. Trust is given, not minted: raising a vouch takes from the room of who vouches, which must have it to give.
2. Taking trust back takes nothing from under anybody: who needs it keeps it.
3. A loss falls on those who vouched, in proportion to their vouches, then on the pool, then on the issuer. Each grain
   of it is somebody's: nothing is rounded away.
"""

from __future__ import annotations

from typing import Final

from gesell_ledger.core import membership
from gesell_ledger.core.books import ISSUER, POOL, RECEIVERS, Books, Decision
from gesell_ledger.core.money import Draft, Signed, balance_at, insufficient
from gesell_ledger.core.vouches import check_lowered, set_vouch
from gesell_protocol.names import Holder, did_of
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Vouch, Writeoff

VOUCHES_MAX: Final = 256


def decide_vouch(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`vouch`: lend another member so much of one's own credit room, instead of what one lent it before."""
    vouch = submission.statement
    assert isinstance(vouch, Vouch)
    before = books.vouches.get((vouch.by, vouch.whom), 0)
    if vouch.limit == 0 and before == 0:
        return Refusal(code="wrong-state", detail="there is no vouch to take back")
    receiver = books.members.get(vouch.whom)
    if receiver is None or receiver.status not in RECEIVERS:
        return Refusal(code="unknown-member", detail=f"{did_of(vouch.whom)} is not a member of this commons")
    refusal = _check_limits(books, vouch, new=before == 0, at_ms=at_ms)
    if refusal is None and vouch.limit > before:
        refusal = _check_room(books, vouch, before=before, at_ms=at_ms)
    if refusal is None and vouch.limit < before:
        refusal = check_lowered(books, vouch.whom, less=before - vouch.limit, at_ms=at_ms)
    if refusal is not None:
        return refusal
    decision = Decision()
    if vouch.limit != before:
        set_vouch(books, decision, vouch.by, vouch.whom, vouch.limit)
    return decision


def _check_limits(books: Books, vouch: Vouch, *, new: bool, at_ms: int) -> Refusal | None:
    """The smallest vouch, and how many there may be."""
    assert books.commons is not None
    smallest = books.commons.policy_at(at_ms).vouch_min
    if 0 < vouch.limit < smallest:
        return Refusal(
            code="limit-exceeded", detail=f"a vouch is at least {smallest} grains", fields={"limit": smallest}
        )
    many = max(books.members[vouch.by].vouchees, books.members[vouch.whom].vouchers)
    if new and many >= VOUCHES_MAX:
        return Refusal(
            code="limit-exceeded",
            detail=f"a member vouches for at most {VOUCHES_MAX}, and as many vouch for one",
            fields={"limit": VOUCHES_MAX},
        )
    return None


def _check_room(books: Books, vouch: Vouch, *, before: int, at_ms: int) -> Refusal | None:
    """Rule 1: the limit of who vouches stays at or above zero, and its balance above minus that limit."""
    assert books.commons is not None
    limit = books.members[vouch.by].credit_limit(books.commons.policy_at(at_ms).credit_limit)
    more = vouch.limit - before
    if more > limit:
        most = max(0, before + limit)
        return Refusal(
            code="limit-exceeded", detail=f"there is room to vouch for {most} grains", fields={"limit": most}
        )
    available = balance_at(books, vouch.by, at_ms) + limit
    return insufficient(available=available, needed=more) if more > available else None


def decide_writeoff(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`writeoff`: a member's debt is borne by those who vouched for it, then by all; the member is suspended."""
    writeoff = submission.statement
    assert isinstance(writeoff, Writeoff)
    assert books.commons is not None
    peer = writeoff.peer
    member = books.members.get(peer)
    if member is None or member.status not in RECEIVERS:
        return Refusal(code="unknown-member", detail="the peer is not a member of this commons")
    debt = -balance_at(books, peer, at_ms)
    if debt <= 0:
        return Refusal(code="wrong-state", detail="the member owes nothing")
    if books.account(peer, books.commons.currency.code).escrow:
        return Refusal(code="wrong-state", detail="the member has money in open holds")
    vouched = books.vouches.of(peer)
    parts = share_loss(debt, [amount for _, amount in vouched])
    paying = [(voucher, part) for (voucher, _), part in zip(vouched, parts, strict=True) if part]
    draft = Draft(books, at_ms)
    draft.bring_up([peer, *(voucher for voucher, _ in paying)])
    over = debt - sum(parts)
    from_pool = min(over, draft.balance(POOL))
    lines: list[tuple[Holder, int]] = [(peer, debt), *((voucher, -part) for voucher, part in paying)]
    draft.post("writeoff", [*lines, (POOL, -from_pool), (ISSUER, from_pool - over)])
    refusal = draft.check_limits()
    if refusal is not None:
        return refusal
    decision = draft.decision()
    for (voucher, amount), part in zip(vouched, parts, strict=True):
        if part:
            set_vouch(books, decision, voucher, peer, amount - part)
    membership.bar(books, decision, decision.members.get(peer, member))
    return decision


def share_loss(debt: int, vouches: list[int]) -> list[int]:
    """What each vouch bears of a debt, in their order: at most itself, in proportion, by largest remainder.

    Rounds down; the grains that are left go one each to those whose division left most, of equals to the first.
    """
    total = sum(vouches)
    if debt >= total:
        return list(vouches)
    parts = [debt * amount // total for amount in vouches]
    places = sorted(range(len(vouches)), key=lambda place: -(debt * vouches[place] % total))
    for place in places[: debt - sum(parts)]:
        parts[place] += 1
    return parts

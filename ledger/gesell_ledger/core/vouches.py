"""Vouches: how much credit room members lend each other, and how a change of it shows in their rows (SPEC §3.4).

Owns the one way in which a vouch changes: the pair, and both members' sums and counts, together. What a statement asks
before it changes one is `trust`'s and `membership`'s.

1. What is vouched for one member was lent by another: over all members, `trusted` and `lent` sum to the same.
2. A vouch of 0 is none.
"""

from __future__ import annotations

from msgspec import structs

from gesell_ledger.core.books import Books, Decision, Member
from gesell_ledger.core.money import balance_at
from gesell_protocol.names import did_of
from gesell_protocol.refusals import Refusal


def set_vouch(books: Books, decision: Decision, voucher: bytes, vouchee: bytes, amount: int) -> None:
    """Have a vouch be `amount` from this decision on, whatever it was before."""
    before = books.vouches.get((voucher, vouchee), 0)
    more, one = amount - before, bool(amount) - bool(before)
    giver, receiver = (_as_decided(books, decision, peer) for peer in (voucher, vouchee))
    decision.members[voucher] = structs.replace(giver, lent=giver.lent + more, vouchees=giver.vouchees + one)
    decision.members[vouchee] = structs.replace(
        receiver, trusted=receiver.trusted + more, vouchers=receiver.vouchers + one
    )
    decision.vouches[voucher, vouchee] = amount


def _as_decided(books: Books, decision: Decision, peer: bytes) -> Member:
    return decision.members.get(peer) or books.members[peer]


def check_lowered(books: Books, vouchee: bytes, *, less: int, at_ms: int) -> Refusal | None:
    """Whether a member stays within its credit limit when `less` is vouched for it no longer."""
    commons = books.commons
    assert commons is not None
    limit = books.members[vouchee].credit_limit(commons.policy_at(at_ms).credit_limit) - less
    if balance_at(books, vouchee, at_ms) < -limit:
        return Refusal(
            code="vouch-in-use", detail=f"without this vouch {did_of(vouchee)} would be below its credit limit"
        )
    return None


def end_vouches(books: Books, decision: Decision, peer: bytes, *, at_ms: int) -> Refusal | None:
    """End all vouches by and for a peer; refused where somebody lives on one of its own."""
    own = books.vouches.by(peer)
    for vouchee, amount in own:
        refusal = check_lowered(books, vouchee, less=amount, at_ms=at_ms)
        if refusal is not None:
            return refusal
    for vouchee, _ in own:
        set_vouch(books, decision, peer, vouchee, 0)
    for voucher, _ in books.vouches.of(peer):
        set_vouch(books, decision, voucher, peer, 0)
    return None

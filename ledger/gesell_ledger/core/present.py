"""What an account shows: the one function through which every reader sees a balance (SPEC §7.2).

Owns the step from an account as it was last brought up to date to what its holder has at a moment. No undecayed
balance leaves by another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gesell_ledger.core.books import Commons, Holding
from gesell_protocol.demurrage import melt, melts

#: Accounts of a commons with a single policy that are looked at between two breaths of the event loop.
LOOKS_AT_ONCE: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An account at a moment, in grains: `balance` after melt, `available` with the credit limit, `escrow`, `posted`
    (the sum of the postings so far), and `next_melt`, what the end of this tick will take if nothing moves.
    """

    balance: int
    available: int
    escrow: int
    posted: int
    next_melt: int


def present(holding: Holding, commons: Commons, *, tick: int, credit_limit: int) -> Shown:
    """Bring a peer's account up to date at the beginning of `tick` and show it; changes nothing."""
    now = melt(holding, commons.timeline, tick)
    then = melt(now, commons.timeline, tick + 1)
    return Shown(
        balance=now.balance,
        available=max(0, now.balance + credit_limit),
        escrow=now.escrow,
        posted=holding.balance,
        next_melt=now.balance - then.balance,
    )


def melt_due(holding: Holding, commons: Commons, *, tick: int) -> int:
    """What has melted by the beginning of `tick` and is not posted yet."""
    return holding.balance - melt(holding, commons.timeline, tick).balance


def has_melt_due(holding: Holding, commons: Commons, *, tick: int) -> bool:
    """Whether anything has melted by the beginning of `tick` that is not posted yet."""
    return melts(holding, commons.timeline, tick)


def looks_at_once(commons: Commons) -> int:
    """At so many accounts whoever looks at many may look without a break: each may have slept through all policies."""
    return max(1, LOOKS_AT_ONCE // len(commons.timeline.changes))

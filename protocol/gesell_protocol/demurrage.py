"""The law of demurrage (SPEC §4.2): what melts of an account that stays still.

Owns the law twice: as it is written (`melt_by_the_letter`, one tick after the other) and as the ledger runs it
(`melt`, whole stretches at once). They are equal for every history; the tests say so. Knows no book and no clock.

1. At the end of every tick k, with the policy in force at k, the window of fresh money starts at
   s(k) = max(s(k-1), k - rest_ticks + 1).
2. fresh = what came in during ticks s(k)…k; still = max(0, balance + escrow - fresh).
3. fee = the sum over the brackets of floor(part of `still` in the bracket · ppb / 10^9); the floors favour the holder.
4. balance = balance - fee.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.policy import PPB, Policy, Timeline

#: The reasons whose postings count as inflow, that is, as money that begins to rest anew.
INFLOW_REASONS: Final = frozenset({"issue", "pay", "grant", "capture", "settle", "share"})


#: More than this is not remembered of a tick's inflow. Balance and escrow are at most 10^18 each, so as long as the
#: tick is in the window nothing is still, whatever more came in; and it fits 64 bits, which money that goes round and
#: round within one tick would pass.
INFLOW_MAX: Final = 4 * BALANCE_MAX


class Holding(NamedTuple):
    """What the law needs to know of one account.

    `balance` and `escrow` in grains; the ends of all ticks before `tick` have been charged; `inflows` are
    (tick, grains) in ascending order of tick, from the window's start on.
    """

    balance: int = 0
    escrow: int = 0
    tick: int = 0
    inflows: tuple[tuple[int, int], ...] = ()


def melt(holding: Holding, timeline: Timeline, tick: int) -> Holding:
    """Bring a holding up to date: charge the ends of all ticks from `holding.tick` to `tick` - 1.

    Returns the holding as it stands at the beginning of `tick`, its inflows cut to the window of that tick. What
    melted is the difference of the balances. A `tick` that has passed already changes nothing.
    Cost: a step for each tick while the fee changes every tick, one step for each run of equal fees.
    """
    if tick <= holding.tick:
        return holding
    balance = holding.balance
    inflows = holding.inflows
    if balance + holding.escrow > 0:
        balance = _charge(holding, timeline, tick - 1)
    if inflows:
        start = timeline.window_start(tick)
        inflows = tuple(inflow for inflow in inflows if inflow[0] >= start)
    return Holding(balance, holding.escrow, tick, inflows)


def receive(holding: Holding, amount: int, timeline: Timeline) -> Holding:
    """Add money that came in during `holding.tick` and counts as inflow (`INFLOW_REASONS`)."""
    tick = holding.tick
    inflows = holding.inflows
    if timeline.policy_at(tick).rest_ticks > 0:
        if inflows and inflows[-1][0] == tick:
            inflows = (*inflows[:-1], (tick, min(inflows[-1][1] + amount, INFLOW_MAX)))
        else:
            inflows = (*inflows, (tick, amount))
    return Holding(holding.balance + amount, holding.escrow, tick, inflows)


def _charge(holding: Holding, timeline: Timeline, last: int) -> int:
    """The balance after the ends of ticks holding.tick…last: stretches of one policy and one `fresh` at a time."""
    balance, escrow = holding.balance, holding.escrow
    start = timeline.window_start(holding.tick - 1) if holding.tick else 0
    for begin, end, policy in timeline.segments(holding.tick, last):
        tick, rest = begin, policy.rest_ticks
        # Money that came in during tick j is fresh until tick j + rest, unless the window has passed j already.
        waiting = [(j + rest, grains) for j, grains in holding.inflows if j >= start and j + rest > tick]
        fresh = sum(grains for _, grains in waiting)
        while tick <= end:
            until = min(end, waiting[0][0] - 1) if waiting else end
            still = balance + escrow - fresh
            if still > 0:
                balance -= still - _melt_still(still, until - tick + 1, policy.brackets)
            tick = until + 1
            if waiting and waiting[0][0] == tick:
                fresh -= waiting.pop(0)[1]
        start = max(start, end - rest + 1)
    return balance


def _melt_still(still: int, ticks: int, brackets: tuple[tuple[int, int], ...]) -> int:
    """What is left of still money after `ticks` tick ends under one schedule of brackets."""
    while ticks > 0 and still > 0:
        low, ppb, full = _top_bracket(still, brackets)
        if ppb == 0 and full == 0:
            return still
        still, ticks = _melt_in_bracket(still, ticks, low, ppb, full)
        if ticks < 0:  # the fee has come to zero and stays there
            return still
    return still


def _top_bracket(still: int, brackets: tuple[tuple[int, int], ...]) -> tuple[int, int, int]:
    """The bracket in which `still` ends: its start, its ppb, and the fee of the full brackets below it."""
    full = 0
    for (low, ppb), (high, _) in pairwise(brackets):
        if still <= high:
            return low, ppb, full
        full += (high - low) * ppb // PPB
    low, ppb = brackets[-1]
    return low, ppb, full


def _melt_in_bracket(still: int, ticks: int, low: int, ppb: int, full: int) -> tuple[int, int]:
    """Charge tick ends while `still` ends above `low`; returns what is left, and the ticks left (-1: no more fees).

    While the fee is large it differs from tick to tick; once it is small it stays the same for long runs, which are
    charged in one step. `part` stays the same down to low + ceil(part · 10^9 / ppb).
    """
    while ticks > 0 and still > low:
        part = (still - low) * ppb // PPB
        fee = full + part
        if fee == 0:
            return still, -1
        if fee * ppb >= PPB:
            still -= fee
            ticks -= 1
            continue
        lowest = max(low + 1, low - (-part * PPB // ppb) if ppb else 0)
        run = min(ticks, (still - lowest) // fee + 1)
        still -= run * fee
        ticks -= run
    return still, ticks


def fee_of(still: int, policy: Policy) -> int:
    """The fee of one tick end on `still` grains (rule 3), as the law is written."""
    fee = 0
    for index, (low, ppb) in enumerate(policy.brackets):
        top = policy.brackets[index + 1][0] if index + 1 < len(policy.brackets) else still
        fee += max(0, min(still, top) - low) * ppb // PPB
    return fee


def melt_by_the_letter(holding: Holding, timeline: Timeline, tick: int) -> Holding:
    """The law as it is written, tick by tick: the plain reference for `melt`, which returns the same."""
    balance = holding.balance
    for k in range(holding.tick, tick):
        fresh = sum(grains for j, grains in holding.inflows if timeline.window_start(k) <= j <= k)
        still = max(0, balance + holding.escrow - fresh)
        balance -= fee_of(still, timeline.policy_at(k))
    if tick <= holding.tick:
        return holding
    start = timeline.window_start(tick)
    return Holding(balance, holding.escrow, tick, tuple(item for item in holding.inflows if item[0] >= start))

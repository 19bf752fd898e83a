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

from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Final, NamedTuple

from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.policy import PPB, Policy, Timeline

#: The reasons whose postings count as inflow, that is, as money that begins to rest anew.
INFLOW_REASONS: Final = frozenset({"issue", "pay", "grant", "capture", "settle", "share"})


#: More than this is not remembered of a tick's inflow. Balance and escrow are at most 10^18 each, so as long as the
#: tick is in the window nothing is still, whatever more came in; and it fits 64 bits, which money that goes round and
#: round within one tick would pass.
INFLOW_MAX: Final = 4 * BALANCE_MAX


#: (from, ppb) pairs as a `Policy` has them.
Brackets = tuple[tuple[int, int], ...]


class Holding(NamedTuple):
    """What the law needs to know of one account.

    `balance` and `escrow` in grains; the ends of all ticks before `tick` have been charged; `inflows` are
    (tick, grains) in ascending order of tick, from the window's start on.
    """

    balance: int = 0
    escrow: int = 0
    tick: int = 0
    inflows: tuple[tuple[int, int], ...] = ()


#: A holding of the tuple of its parts: `Holding` takes longer, and an entry may change hundreds.
holding_of: Final[Callable[[tuple[int, int, int, tuple[tuple[int, int], ...]]], Holding]] = partial(
    tuple.__new__, Holding
)


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


def melts(holding: Holding, timeline: Timeline, tick: int) -> bool:
    """Whether `melt` would take anything up to `tick`: what is due, without the time it takes to say how much."""
    if tick <= holding.tick:
        return False
    # Nothing melts before the first fee, so each stretch but the last one asked about finds the balance as it stands.
    for _, fresh, brackets in _stretches(holding, timeline, tick - 1):
        still = holding.balance + holding.escrow - fresh
        if still > 0 and _fee(still, brackets) > 0:
            return True
    return False


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
    """The balance after the ends of ticks holding.tick…last."""
    balance, escrow = holding.balance, holding.escrow
    for ticks, fresh, brackets in _stretches(holding, timeline, last):
        still = balance + escrow - fresh
        if still > 0:
            balance -= _fee(still, brackets) if ticks == 1 else still - _melt_still(still, ticks, brackets)
    return balance


def _stretches(holding: Holding, timeline: Timeline, last: int) -> Iterator[tuple[int, int, Brackets]]:
    """Cut the ticks holding.tick…last where policy or `fresh` changes: (ticks, fresh, brackets), in their order."""
    if not holding.inflows and len(timeline.changes) == 1:
        # Most accounts of most commons, and all that a sweep of a million finds.
        yield last - holding.tick + 1, 0, timeline.changes[0][1].brackets
        return
    start = timeline.window_start(holding.tick - 1) if holding.tick else 0
    for begin, end, policy in timeline.segments(holding.tick, last):
        tick, rest = begin, policy.rest_ticks
        # Money that came in during tick j is fresh until tick j + rest, unless the window has passed j already.
        waiting = [(j + rest, grains) for j, grains in holding.inflows if j >= start and j + rest > tick]
        fresh = sum([grains for _, grains in waiting])
        for until, grains in waiting:
            if until > end:
                break
            yield until - tick, fresh, policy.brackets
            tick = until
            fresh -= grains
        if tick <= end:
            yield end - tick + 1, fresh, policy.brackets
        start = max(start, end - rest + 1)


def _melt_still(still: int, ticks: int, brackets: Brackets) -> int:
    """What is left of still money after `ticks` tick ends under one schedule of brackets."""
    while ticks > 0 and still > 0:
        low, ppb, full = _top_bracket(still, brackets)
        if ppb == 0 and full == 0:
            return still
        above, ticks = _melt_in_bracket(still - low, ticks, ppb, full)
        still = low + above
    return still


def _fee(still: int, brackets: Brackets) -> int:
    """The fee of one tick end on `still` grains, above 0."""
    low, ppb, full = _top_bracket(still, brackets)
    return full + (still - low) * ppb // PPB


def _top_bracket(still: int, brackets: Brackets) -> tuple[int, int, int]:
    """The bracket in which `still` ends: its start, its ppb, and the fee of the full brackets below it."""
    low, ppb = brackets[0]
    full = 0
    for high, following in brackets[1:]:
        if still <= high:
            break
        full += (high - low) * ppb // PPB
        low, ppb = high, following
    return low, ppb, full


def _melt_in_bracket(above: int, ticks: int, ppb: int, full: int) -> tuple[int, int]:
    """Charge tick ends to still money while it ends in one bracket, `above` its start, and pays `full` for those below.

    Returns what is left above the start (0 or less: it ends in a bracket below now), and the ticks left. While the fee
    is large it differs from tick to tick; once it is small it stays the same for long runs, which are charged in one
    step each: `part` stays the same down to ceil(part · 10^9 / ppb).
    """
    if ppb:
        above, ticks = _melt_large(above, ticks, ppb, full)
    while ticks > 0 and above > 0:
        part = above * ppb // PPB
        fee = full + part
        if fee == 0:
            return above, 0
        lowest = max(1, -(-part * PPB // ppb) if ppb else 1)
        run = min(ticks, (above - lowest) // fee + 1)
        above -= run * fee
        ticks -= run
    return above, ticks


def _melt_large(above: int, ticks: int, ppb: int, full: int) -> tuple[int, int]:
    """Charge tick ends while a run of equal fees would be some four ticks at most: it is faster to go through them.

    Returns what is left above the bracket's start, positive, and the ticks left.
    """
    # Down to here `part` is more than a quarter of 10^9 / ppb.
    floor = -(-(PPB // (4 * ppb) + 1) * PPB // ppb)
    while ticks > 0:
        # The fee only falls, so for so many ticks nothing needs to be looked at: this loop is the whole cost of a
        # sleep of years, and a tenth of it would be the counting of a range.
        sure = min(ticks, (above - floor) // (full + above * ppb // PPB + 1))
        if sure <= 0:
            break
        ticks -= sure
        if full:
            for _ in repeat(None, sure):
                above -= full + above * ppb // PPB
        else:
            for _ in repeat(None, sure):
                above -= above * ppb // PPB
    return above, ticks


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

"""How a commons' money and gifts go round, step by step: `…/flow`.

Owns the figures of a step that are no sums, what they may cost, and what is remembered of them. docs/readings.md has
their formulas. Every ratio is in parts per million and rounds down; every amount is whole grains.

1. A step is so many ticks, the first of them a multiple of their number. One that is not over is told as far as it is.
2. What happened in a step is told of the entries up to the cursor. How things stood at its end is made of the postings
   up to then, melted by the law to the tick that begins there, or to this one.
3. A figure that costs more than a request may cost is left out; the latest steps come first. What was computed is
   remembered: what a moment's last entry left at a tick never changes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

from gesell_ledger.core.books import Commons
from gesell_ledger.core.present import looks_at_once
from gesell_ledger.readings.rounds import Pairs, Rounds
from gesell_ledger.readings.turns import Turns
from gesell_ledger.storage.readings import Cursor, End, Readings, Snapshot, Step, Sum
from gesell_ledger.unhurried import unhurried
from gesell_protocol.demurrage import melt

T = TypeVar("T")

STEPS_MAX: Final = 1_000
STEPS_DEFAULT: Final = 30
#: Longer than any community has lasted, and short enough that no moment leaves 64 bits.
STEP_TICKS_MAX: Final = 1_000_000
PPM: Final = 1_000_000
#: What one request may cost: accounts brought up to date and postings read for it, pairs put together, looks at who
#: could have brought a payment back.
ACCOUNTS_MAX: Final = 200_000
PAIRS_MAX: Final = 200_000
LOOKS_MAX: Final = 5_000_000
#: Figures remembered of all commons together.
KNOWN_MAX: Final = 20_000


class TooManySteps(Exception):
    """More steps than one answer may have."""


@dataclass(frozen=True, slots=True)
class Stock:
    """How money stood at a moment: what members held, how much of it was still, how unequally it was spread (None where
    nobody had any).
    """

    held: int
    still: int
    gini_ppm: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One step, from tick `first` to before tick `end`. `held_before` is what was held at its beginning."""

    first: int
    end: int
    sums: Step
    parts: Sequence[Sum]
    left: End
    rounds: Rounds | None
    stock: Stock | None
    held_before: int | None


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps that were asked for, first to last, as of a cursor and a moment."""

    cursor: Cursor
    now_ms: int
    steps: Sequence[Figures]


@dataclass(slots=True)
class _Budget:
    """What is left of what a request may cost."""

    accounts: int
    pairs: int
    looks: int


class Circulation:
    """Tells of circulation, one request at a time, so that it takes one connection and one core's part at most."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._known: OrderedDict[Hashable, object] = OrderedDict()
        self._turns = Turns()

    async def load(self, commons: Commons, *, now_ms: int, from_ms: int | None, to_ms: int | None, step: int) -> Flow:
        """The steps from that of `from_ms` to that of `to_ms`: now's if not said, and 30 up to it if not said; none
        before the founding and none after now. Raises `TooManySteps`, or `Unanswered` where it is not its turn or takes
        too long.
        """
        async with self._turns.turn(commons.id), self._readings.open(commons) as snapshot:
            cursor = snapshot.cursor
            # The readings may know of an entry that is later than the clock was when the request came.
            now_ms = max(now_ms, cursor.at_ms)
            founded = await snapshot.load_first_tick()
            if founded is None:
                return Flow(cursor, now_ms, ())
            now = commons.tick_of(now_ms)
            last = min(now, now if to_ms is None else commons.tick_of(to_ms)) // step
            start = last - STEPS_DEFAULT + 1 if from_ms is None else commons.tick_of(from_ms) // step
            start = max(start, founded // step)
            if last - start >= STEPS_MAX:
                raise TooManySteps
            ticks = [place * step for place in range(start, last + 2)]
            return Flow(cursor, now_ms, await self._figures(snapshot, commons, ticks, now=now))

    async def _figures(self, snapshot: Snapshot, commons: Commons, ticks: Sequence[int], *, now: int) -> list[Figures]:
        """The figures of the steps between some ticks."""
        if len(ticks) < 2:
            return []
        spans = list(pairwise(ticks))
        span = {"first": ticks[0], "step": ticks[1] - ticks[0], "end": ticks[-1]}
        sums = await snapshot.list_steps(**span)
        parts = await snapshot.list_sums(**span)
        ends = await snapshot.list_ends(ticks)
        budget = _Budget(accounts=ACCOUNTS_MAX, pairs=PAIRS_MAX, looks=LOOKS_MAX)
        stocks = await self._stocks(snapshot, commons, [min(tick, now) for tick in ticks], ends, budget)
        found = []
        for place in reversed(range(len(spans))):
            first, end = spans[place]
            rounds = await self._rounds(snapshot, commons, first, end, ends[place + 1], budget)
            before = stocks[place]
            found.append(
                Figures(
                    first=first,
                    end=end,
                    sums=sums.get(place, Step()),
                    parts=parts.get(place, ()),
                    left=ends[place + 1],
                    rounds=rounds,
                    stock=stocks[place + 1],
                    held_before=None if before is None else before.held,
                )
            )
        return found[::-1]

    # ── Who had to do with whom ──────────────────────────────────────────────────────────────────────────────────

    async def _rounds(
        self, snapshot: Snapshot, commons: Commons, first: int, end: int, left: End, budget: _Budget
    ) -> Rounds | None:
        key = (commons.id, "rounds", first, end, left.last_seq)
        known = self._recall(key, Rounds)
        if known is not None or budget.pairs <= 0:
            return known
        pairs = Pairs()
        async for paid, gave in snapshot.list_pairs(first=first, end=end):
            budget.pairs -= len(paid) // 3 + len(gave) // 2
            if budget.pairs < 0:
                return None
            pairs.add(paid, gave)
            await asyncio.sleep(0)
        if pairs.gift_accounts:
            pairs.know(await snapshot.load_givers(sorted(pairs.gift_accounts)))
        whole = budget.looks == LOOKS_MAX
        rounds, looks = await pairs.count(looks=budget.looks)
        budget.looks -= looks
        # Another request may have more to spend on it, unless nothing of this one's was spent before.
        return self._remember(key, rounds) if rounds.returned_3 is not None or whole else rounds

    # ── How money stood ──────────────────────────────────────────────────────────────────────────────────────────

    async def _stocks(
        self, snapshot: Snapshot, commons: Commons, moments: Sequence[int], ends: Sequence[End], budget: _Budget
    ) -> list[Stock | None]:
        """How money stood at the beginnings of some ticks, the last entries before them being those of `ends`."""
        stocks: list[Stock | None] = []
        for tick, end in reversed(list(zip(moments, ends, strict=True))):
            key = (commons.id, "stock", tick, end.last_seq)
            stock = Stock(0, 0, None) if end.last_seq == 0 else self._recall(key, Stock)
            if stock is None and budget.accounts > 0:
                stock = await _take_stock(snapshot, commons, tick, end, budget)
                if stock is not None:
                    self._remember(key, stock)
            stocks.append(stock)
        return stocks[::-1]

    # ── What is remembered ───────────────────────────────────────────────────────────────────────────────────────

    def _recall(self, key: Hashable, kind: type[T]) -> T | None:
        found = self._known.get(key)
        if found is None:
            return None
        assert isinstance(found, kind)
        self._known.move_to_end(key)
        return found

    def _remember(self, key: Hashable, value: T) -> T:
        self._known[key] = value
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return value


async def _take_stock(snapshot: Snapshot, commons: Commons, tick: int, end: End, budget: _Budget) -> Stock | None:
    """How money stood at the beginning of a tick; None where that costs more than is left."""
    timeline = commons.timeline
    rests = any(policy.rest_ticks > 0 for _, policy in timeline.changes)
    at_once = looks_at_once(commons)
    held = still = 0
    balances: list[int] = []
    async for looked_at, page in snapshot.list_balances(last_seq=end.last_seq):
        budget.accounts -= looked_at
        arrived: dict[int, list[tuple[int, int]]] = {}
        if rests and page:
            windows = [(number, timeline.window_start(holding.tick), seq) for number, seq, holding in page]
            inflows, postings = await snapshot.load_inflows(windows, limit=max(0, budget.accounts) + 1)
            arrived = dict(inflows)
            budget.accounts -= postings
        if budget.accounts < 0:
            return None
        async for number, _, holding in unhurried(page, at_once=at_once):
            now = melt(holding._replace(inflows=tuple(arrived.get(number, ()))), timeline, tick)
            balances.append(max(0, now.balance))
            held += balances[-1]
            still += max(0, now.balance + now.escrow - sum(grains for _, grains in now.inflows))
    return Stock(held + end.escrow, still, gini_ppm(balances, members=end.active + end.suspended))


def gini_ppm(balances: Sequence[int], *, members: int) -> int | None:
    """The Gini coefficient of `members` of whom those who have anything have `balances`, rounded down; None where
    nobody has anything.
    """
    total = sum(balances)
    if total == 0:
        return None
    nothing = members - len(balances)
    ranked = sum((nothing + rank) * balance for rank, balance in enumerate(sorted(balances), 1))
    return PPM * (2 * ranked - (members + 1) * total) // (members * total)


def ratio_ppm(part: int, whole: int) -> int | None:
    """A part of a whole, rounded down; None of nothing."""
    return PPM * part // whole if whole > 0 else None

"""Who had to do with whom in a step, and how much of what was paid came back.

Owns the graph of one step's payments and gifts, and what is counted on it. Members are numbers of their accounts here;
nobody is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: The event loop breathes after so many looks.
BREATH: Final = 10_000

_NOTHING: Final[Mapping[int, int]] = {}


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many members paid, were paid, gave or were given (`active`); of those in payments, who only paid, only
    received, did both; and the grains that came back in rounds of two and of three (None where that costs too much).
    """

    active: int
    only_paid: int
    only_received: int
    both: int
    returned_2: int
    returned_3: int | None


async def _breathing(out: Mapping[int, Mapping[int, int]]) -> AsyncIterator[tuple[int, Mapping[int, int]]]:
    """Each payer and whom it paid; in between, others have their turn."""
    weight = 0
    for payer, paid in out.items():
        yield payer, paid
        weight += 1 + len(paid)
        if weight > BREATH:
            weight = 0
            await asyncio.sleep(0)


class Pairs:
    """The pairs of one step, put together from bits in any order."""

    def __init__(self) -> None:
        self._out: dict[int, dict[int, int]] = {}
        self.gift_accounts: set[int] = set()
        self._gave: set[int | bytes] = set()

    def add(self, paid: Sequence[int], gave: Iterable[int]) -> None:
        """Add pairs: account, account and grains one after the other of payments, accounts of gifts."""
        flat = iter(paid)
        for payer, payee, amount in zip(flat, flat, flat, strict=True):
            out = self._out.setdefault(payer, {})
            out[payee] = out.get(payee, 0) + amount
        self.gift_accounts.update(gave)

    def know(self, givers: Mapping[int, tuple[bytes, int | None]]) -> None:
        """Learn whose the gift accounts are: a holder, and the number of its money account if there is one."""
        for account in self.gift_accounts:
            holder, money = givers[account]
            if len(holder) == 32:
                self._gave.add(holder if money is None else money)

    async def count(self, *, looks: int) -> tuple[Rounds, int]:
        """Count what there is, in rounds of three only if at most so many looks at a third member are enough; and how
        many it took. Breathes.
        """
        into: dict[int, dict[int, int]] = {}
        returned_2 = 0
        async for payer, out in _breathing(self._out):
            for payee, amount in out.items():
                into.setdefault(payee, {})[payer] = amount
                returned_2 += min(amount, self._out.get(payee, _NOTHING).get(payer, 0))
        paid, received = self._out.keys(), into.keys()
        needed = await self._looks(into)
        rounds = Rounds(
            active=len(paid | received | self._gave),
            only_paid=len(paid - received),
            only_received=len(received - paid),
            both=len(paid & received),
            returned_2=returned_2,
            returned_3=await self._returned_3(into) if needed <= looks else None,
        )
        return rounds, min(needed, looks)

    async def _looks(self, into: Mapping[int, Mapping[int, int]]) -> int:
        """How many looks at a third member the rounds of three take."""
        looks = 0
        async for payer, out in _breathing(self._out):
            back = len(into.get(payer, _NOTHING))
            looks += sum(min(len(self._out.get(payee, _NOTHING)), back) for payee in out)
        return looks

    async def _returned_3(self, into: Mapping[int, Mapping[int, int]]) -> int:
        """Of each a→b what could come back by others c: at most the sum of the lesser of b→c and c→a."""
        returned = weight = 0
        for a, out in self._out.items():
            back = into.get(a, _NOTHING)
            for b, amount in out.items():
                onward = self._out.get(b, _NOTHING)
                third = onward.keys() & back.keys()
                if third:
                    returned += min(amount, sum(min(onward[c], back[c]) for c in third))
                weight += 1 + min(len(onward), len(back))
            if weight > BREATH:
                weight = 0
                await asyncio.sleep(0)
        return returned

"""Amounts as the client hands them out and takes them: exact, with what they are of, never a float.

Owns `Amount`, the decimal face of grains. The arithmetic of parsing and printing is the protocol's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, Literal

from gesell_protocol.amounts import format_amount, parse_amount

#: Alignment and width, as text has them.
_COLUMNS: Final = re.compile(r"(?:.?[<>^])?(?:[1-9][0-9]*)?s?", re.DOTALL)
_SHOWING: Final = Context(prec=40, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many grains of a currency or of a kind of gift: exact, and safe to hand back to any call that takes an amount.

    `grains` may be negative (a balance below zero); `scale` is the number of decimals. Amounts of one currency, or of
    one kind, are compared, added and subtracted; another one is a `ValueError`, another type a `TypeError`. Gifts are
    shown by their kind's `unit`.

        >>> Amount(50_000, "WRG", 6)
        Amount('0.05 WRG')
        >>> str(Amount(50_000, "WRG", 6)), Amount(50_000, "WRG", 6).decimal
        ('0.05 WRG', Decimal('0.05'))
        >>> sum([Amount(50_000, "WRG", 6), Amount(950_000, "WRG", 6)])
        Amount('1 WRG')
        >>> Amount(150, "hour", 2, unit="h")
        Amount('1.5 h')
    """

    grains: int
    code: str
    scale: int
    #: Of a gift, as its kind has it; empty for money. What is counted in pieces (`1`) is shown by its code.
    unit: str = field(default="", compare=False, kw_only=True)

    @property
    def text(self) -> str:
        """The shortest exact decimal text without the currency or unit: `0.05`."""
        return format_amount(self.grains, scale=self.scale)

    @property
    def decimal(self) -> Decimal:
        """The amount in whole units as an exact `Decimal`, for sums and comparisons."""
        return Decimal(self.text)

    def __lt__(self, other: Amount) -> bool:
        return self.grains < self._grains_of(other) if isinstance(other, Amount) else NotImplemented

    def __le__(self, other: Amount) -> bool:
        return self.grains <= self._grains_of(other) if isinstance(other, Amount) else NotImplemented

    def __gt__(self, other: Amount) -> bool:
        return self.grains > self._grains_of(other) if isinstance(other, Amount) else NotImplemented

    def __ge__(self, other: Amount) -> bool:
        return self.grains >= self._grains_of(other) if isinstance(other, Amount) else NotImplemented

    def __add__(self, other: Amount) -> Amount:
        if not isinstance(other, Amount):
            return NotImplemented
        return replace(self, grains=self.grains + self._grains_of(other))

    def __radd__(self, other: Literal[0]) -> Amount:
        # `sum` begins with 0. No other number is added: 1 could mean a grain or a whole unit.
        return self if type(other) is int and other == 0 else NotImplemented

    def __sub__(self, other: Amount) -> Amount:
        if not isinstance(other, Amount):
            return NotImplemented
        return replace(self, grains=self.grains - self._grains_of(other))

    def __neg__(self) -> Amount:
        return replace(self, grains=-self.grains)

    def _grains_of(self, other: Amount) -> int:
        if (other.code, other.scale) != (self.code, self.scale):
            raise ValueError(f"{self} and {other} are of different currencies or kinds")
        return other.grains

    def __str__(self) -> str:
        return f"{self.text} {self.code if self.unit in ('', '1') else self.unit}"

    def __format__(self, spec: str) -> str:
        """As text, with the currency or unit, in so many columns (`f"{amount:>12}"`), or as a number (`f`).

        `f"{amount:.2f}"` is for showing only: it rounds as `Decimal` does, half to even. Other formats of numbers
        raise `TypeError`: use `.decimal`.
        """
        if _COLUMNS.fullmatch(spec):
            return format(str(self), spec)
        if not spec.endswith("f"):
            raise TypeError(f"an Amount has no format {spec!r}; its number has: format(amount.decimal, {spec!r})")
        with localcontext(_SHOWING):
            return format(self.decimal, spec)

    def __repr__(self) -> str:
        return f"Amount({str(self)!r})"


#: What calls take as an amount: text or a Decimal or an int in whole units of the currency or kind, or an `Amount`.
AmountLike = str | Decimal | int | Amount


def grains_of(amount: AmountLike, *, code: str, scale: int) -> int:
    """The grains of what a caller wrote, in the currency or kind `code` with `scale` decimals.

    Raises `TypeError` for a float, `ValueError` for what is no decimal number, is not more than 0, has too many
    decimals, or is an `Amount` of something else. Nothing is rounded.
    """
    grains = grains_from_zero(amount, code=code, scale=scale)
    if grains == 0:
        raise ValueError(f"what moves is more than 0, not {amount}")
    return grains


def grains_from_zero(amount: AmountLike, *, code: str, scale: int) -> int:
    """As `grains_of`, for a limit, which may be 0."""
    if isinstance(amount, Amount):
        if (amount.code, amount.scale) != (code, scale):
            raise ValueError(f"{amount} is not an amount of {code} with {scale} decimals")
        grains = amount.grains
    else:
        grains = parse_amount(amount, scale=scale)
    if grains < 0:
        raise ValueError(f"what moves is more than 0, not {amount}")
    return grains

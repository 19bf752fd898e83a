"""Amounts: grains as ints, and their decimal text (SPEC §2).

Owns the bounds and the conversion between grains and what people write. No float comes in or goes out: a float
has already lost what a member wrote.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

#: The most that one amount, one limit or the total of one statement may be, in grains.
AMOUNT_MAX: Final = 10**15
#: No balance ever leaves ±this, in grains.
BALANCE_MAX: Final = 10**18

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")


def parse_amount(amount: str | Decimal | int, *, scale: int) -> int:
    """The grains of an amount written in whole units of the currency (`"0.05"` at scale 6 is 50,000 grains).

    `scale` is the number of decimals, 0…9. Takes a str, a `Decimal` or an int of whole units. Raises `TypeError`
    for a float (write it as a str) and `ValueError` for anything that is no plain decimal number, that has more
    decimals than the currency (nothing is ever rounded), or that lies beyond ±10^18 grains.
    """
    if isinstance(amount, bool) or not isinstance(amount, (str, Decimal, int)):
        raise TypeError(f"an amount is a str or a Decimal, never a {type(amount).__name__}: write '0.05'")
    text = format(amount, "f") if isinstance(amount, Decimal) else str(amount).strip()
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a decimal number like 12 or 0.05")
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > scale:
        raise ValueError(f"{text} has more than {scale} decimals; nothing is rounded")
    if len(whole.lstrip("0")) > 19:
        raise ValueError(f"{text} is beyond what a balance can hold")
    grains: int = int(whole) * 10**scale + int(fraction.ljust(scale, "0") or "0")
    if grains > BALANCE_MAX:
        raise ValueError(f"{text} is beyond what a balance can hold")
    return -grains if sign else grains


def format_amount(grains: int, *, scale: int) -> str:
    """The shortest decimal text of an amount: 50,000 grains at scale 6 is `0.05`; exact, nothing is rounded."""
    digits = str(abs(grains)).rjust(scale + 1, "0")
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :].rstrip("0")
    return ("-" if grains < 0 else "") + whole + ("." + fraction if fraction else "")

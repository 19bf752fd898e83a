"""Fields: what one value of a statement's body may be (SPEC §2, §3).

Owns the readers of single values: each returns the value as statements hold it, or raises `ValueError` (`BadKey` for a
key that can't come into use). How fields make a statement is `statements`'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

from gesell_protocol import ed25519, policy
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.canonical import INT_MAX
from gesell_protocol.envelopes import has_control_characters
from gesell_protocol.names import CATEGORY, CURRENCY, KIND, POOL, UNIT, Holder, is_handle, is_uuid7

LEGS_MAX: Final = 256
STEWARDS_MAX: Final = 16
KEYS_MAX: Final = 16
NAME_MAX_CHARS: Final = 64
AFTER_MAX: Final = 16
GIFT_SCALE_MAX: Final = 6


class Leg(NamedTuple):
    """One payee and what it gets, in grains."""

    to: bytes
    amount: int


#: A leg of the tuple of its parts: `Leg` and `Leg._make` take longer, and a payment may have hundreds.
leg_of: Final[Callable[[tuple[bytes, int]], Leg]] = partial(tuple.__new__, Leg)


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency's code and its number of decimals."""

    code: str
    scale: int


def bin_of(size: int, what: str) -> Callable[[object], bytes]:
    def read(value: object) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise ValueError(f"{what} is bin of {size} bytes")
        return value

    return read


read_peer = bin_of(32, "a key")
read_name16 = bin_of(16, "an id")
read_seal = bin_of(32, "a seal")


def read_new_key(value: object) -> bytes:
    key = read_peer(value)
    ed25519.check_key(key)
    return key


def read_id(value: object) -> bytes:
    name = read_name16(value)
    if not is_uuid7(name):
        raise ValueError("an id is a UUIDv7")
    return name


def int_from(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an int from {low} to {high}")
        return value

    return read


read_time = int_from(0, INT_MAX)
read_amount = int_from(1, AMOUNT_MAX)


def read_type(value: object) -> object:
    return value


def read_true(value: object) -> bool:
    if value is not True:
        raise ValueError("present only as true")
    return True


def read_category(value: object) -> str:
    if type(value) is not str or not CATEGORY.fullmatch(value):
        raise ValueError("1 to 32 of a-z, 0-9 and -, not beginning with -")
    return value


def read_handle(value: object) -> str:
    if type(value) is not str or not is_handle(value):
        raise ValueError("2 to 31 of a-z, 0-9, _ and -, beginning with a letter, and no reserved holder")
    return value


def read_title(value: object) -> str:
    if type(value) is not str or not 1 <= len(value) <= NAME_MAX_CHARS or has_control_characters(value):
        raise ValueError(f"text of 1 to {NAME_MAX_CHARS} characters, no control characters")
    return value


def _read_list(value: object, high: int) -> list[Any]:
    if type(value) is not list or not 1 <= len(value) <= high:
        raise ValueError(f"a list of 1 to {high}")
    return value


def ascending(high: int, read_one: Callable[[object], bytes]) -> Callable[[object], tuple[bytes, ...]]:
    def read(value: object) -> tuple[bytes, ...]:
        keys = tuple(read_one(item) for item in _read_list(value, high))
        if any(left >= right for left, right in pairwise(keys)):
            raise ValueError("in ascending order, each once")
        return keys

    return read


def distinct_keys(read_one: Callable[[object], bytes]) -> Callable[[object], tuple[bytes, ...]]:
    def read(value: object) -> tuple[bytes, ...]:
        keys = tuple(read_one(item) for item in _read_list(value, KEYS_MAX))
        if len(set(keys)) != len(keys):
            raise ValueError("each key once")
        return keys

    return read


def read_legs(value: object) -> tuple[Leg, ...]:
    legs = []
    for item in _read_list(value, LEGS_MAX):
        if type(item) is not list or len(item) != 2:
            raise ValueError("a leg is [to, amount]")
        to, amount = item
        if type(to) is not bytes or len(to) != 32 or type(amount) is not int or not 1 <= amount <= AMOUNT_MAX:
            # Which of the two it is, said by those who own the rule.
            read_peer(to)
            read_amount(amount)
        legs.append(leg_of((to, amount)))
    if len(legs) > 1:
        if len({to for to, _ in legs}) != len(legs):
            raise ValueError("each payee once")
        if sum([amount for _, amount in legs]) > AMOUNT_MAX:
            raise ValueError("the total of a statement is at most 10^15 grains")
    return tuple(legs)


def read_currency(value: object) -> Currency:
    if type(value) is not dict or set(value) != {"code", "scale"}:
        raise ValueError("a currency is {code, scale}")
    code, scale = value["code"], value["scale"]
    if type(code) is not str or not CURRENCY.fullmatch(code):
        raise ValueError("code: 2 to 10 of A-Z and 0-9, beginning with a letter")
    if type(scale) is not int or not 0 <= scale <= 9:
        raise ValueError("scale: an int from 0 to 9")
    return Currency(code, scale)


def read_policy(value: object) -> policy.Policy:
    return policy.read_policy(value, min_tick_seconds=1)


def read_receiver(value: object) -> Holder:
    """A peer, or the pool for the whole commons."""
    return value if value == POOL and type(value) is str else read_peer(value)


def read_kind(value: object) -> str:
    if type(value) is not str or not KIND.fullmatch(value):
        raise ValueError("2 to 32 of a-z, 0-9 and -, beginning with a letter")
    return value


def read_unit(value: object) -> str:
    if type(value) is not str or not UNIT.fullmatch(value):
        raise ValueError("1 to 32 printable ASCII characters without space: a UCUM code, or 1")
    return value


def read_after(value: object) -> tuple[bytes, ...]:
    gifts = tuple(read_name16(item) for item in _read_list(value, AFTER_MAX))
    if len(set(gifts)) != len(gifts):
        raise ValueError("each gift once")
    return gifts

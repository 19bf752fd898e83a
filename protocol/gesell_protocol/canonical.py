"""Canonical MessagePack: one value, one encoding (SPEC §1).

Owns the restriction of MessagePack to a canonical subset. The `msgpack` package reads and writes; this module
refuses what it would let pass. Knows nothing of what the values mean.

1. Types: nil, bool, int in [-2^63, 2^63-1], str, bin, array, map with str keys. No floats, no extensions.
2. Integers and headers in their shortest form.
3. Map keys unique and ascending by their UTF-8 bytes.
4. Nothing after the value; at most 16 containers inside one another, at most 1,024 items in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack

from gesell_protocol.refusals import Rejected

MAX_DEPTH: Final = 16
#: Bounds what a hostile header can make the decoder allocate before it finds that the items are missing.
MAX_ITEMS: Final = 1024
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

#: A value of the canonical subset. `Any` inside containers, because mypy has no use for the recursion.
Value = None | bool | int | str | bytes | list[Any] | dict[str, Any]

pack_array = msgpack.Packer(use_bin_type=True, autoreset=True).pack
"""Encode nested arrays of ints, strs and bytes that this program built itself (no maps, no floats): the fast way."""


class NotCanonical(Rejected):
    """The bytes are not canonical MessagePack, or the value has no canonical form."""

    def __init__(self, detail: str) -> None:
        super().__init__("not-canonical", detail)


def pack(value: object) -> bytes:
    """Encode a value in its one canonical form.

    Maps may come with their keys in any order, sequences as lists or tuples. Raises `NotCanonical` for a value
    that has no canonical form (a float, an int beyond 64 bits, a key that is no str, too deep).
    """
    return bytes(msgpack.packb(_ordered(value, 1), use_bin_type=True))


def unpack(data: bytes) -> Value:
    """Decode bytes that must be canonical; raises `NotCanonical` for every other byte string.

    Cost is bounded by the length of `data` and rule 4. Arrays come back as lists, maps as dicts.
    """
    try:
        value = msgpack.unpackb(data, strict_map_key=True, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's own errors derive from ValueError
        raise NotCanonical(f"not MessagePack of the canonical kind: {error or type(error).__name__}") from None
    _check(value, 1)
    if msgpack.packb(value, use_bin_type=True) != data:
        raise NotCanonical("an int or a header is not in its shortest form, or a map key comes twice")
    return value  # type: ignore[no-any-return]


#: Types that need no second look; asked first, because most items of most statements are of them.
_PLAIN: Final = frozenset({bytes, str, bool})


def _check(value: object, depth: int) -> None:
    """Refuse types and orders that re-encoding alone would not catch (rules 1, 3, 4)."""
    kind = type(value)
    if kind is bytes or kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:  # type: ignore[operator]
            raise NotCanonical("an int is outside 64 bits")
        return
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested more than {MAX_DEPTH} deep")
    if kind is list:
        for item in value:  # type: ignore[attr-defined]
            if type(item) not in _PLAIN:
                _check(item, depth + 1)
    elif kind is dict:
        last: str | None = None
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise NotCanonical("a map key is not a str")
            # Code points order as their UTF-8 bytes do, so comparing str is comparing the bytes.
            if last is not None and key <= last:
                raise NotCanonical("map keys are not in ascending order")
            last = key
            if type(item) not in _PLAIN:
                _check(item, depth + 1)
    else:
        raise NotCanonical(f"{kind.__name__} has no canonical form")


def _ordered(value: object, depth: int) -> object:
    """The same value with its map keys in order; refuses what has no canonical form."""
    if isinstance(value, Mapping):
        _check_size(value, depth)
        if not all(type(key) is str for key in value):
            raise NotCanonical("a map key is not a str")
        return {key: _ordered(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        _check_size(value, depth)
        return [_ordered(item, depth + 1) for item in value]
    _check(value, depth)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotCanonical("a str is not valid Unicode") from None
    return value


def _check_size(value: Mapping[Any, Any] | Sequence[Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested more than {MAX_DEPTH} deep")
    if len(value) > MAX_ITEMS:
        raise NotCanonical(f"more than {MAX_ITEMS} items in one container")

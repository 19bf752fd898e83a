"""Canonical MessagePack: one value, one encoding (SPEC §1).

Owns the restriction of MessagePack to a canonical subset. The `msgpack` package reads and writes; this module
refuses what it would let pass. Knows nothing of what the values mean.

1. Types: nil, bool, int in [-2^63, 2^63-1], str, bin, array, map with str keys. No floats, no extensions.
2. Integers and headers in their shortest form.
3. Map keys unique and ascending by their UTF-8 bytes.
4. Nothing after the value; at most 16 containers inside one another, at most 1,024 items in each.
"""

from __future__ import annotations

import re
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
"""Encode nested arrays of ints, strs and bytes that this program built itself, maps as they stand: the fast way."""


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
    if data.count(b"\xdc") + data.count(b"\xdd") > _ARRAYS_UNSEEN and len(_LONG_ARRAY.findall(data)) > _ARRAYS_UNSEEN:
        _check_nesting(data)
    # An item takes a byte at least, so that a short text can't claim many of them.
    most = min(MAX_ITEMS, len(data))
    try:
        value = msgpack.unpackb(data, strict_map_key=True, max_array_len=most, max_map_len=most)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's own errors derive from ValueError
        raise NotCanonical(f"not MessagePack of the canonical kind: {error or type(error).__name__}") from None
    _check(value, 1)
    if pack_array(value) != data:
        raise NotCanonical("an int or a header is not in its shortest form, or a map key comes twice")
    return value  # type: ignore[no-any-return]


#: Types that need no second look; asked first, because most items of most statements are of them.
_PLAIN: Final = frozenset({bytes, str, bool})
_STR: Final = frozenset({str})


#: msgpack makes room for what an array's header claims before it has seen the items, and lets 1,024 of them nest: a
#: body of 3 KiB would cost 8 MiB and 10 ms. Where so many bytes look like long arrays, nesting is checked first.
_ARRAYS_UNSEEN: Final = 16
_LONG_ARRAY: Final = re.compile(rb"\xdc[\x00-\x04]|\xdd\x00\x00[\x00-\x04]")
#: code → bytes of the length that follows it, or bytes of its value, or bytes of its count and items for each
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_FIXED: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xC0: 0, 0xC2: 0, 0xC3: 0}
_COUNTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _check_nesting(data: bytes) -> None:
    """Walk over the headers and refuse what is nested too deep; what else is wrong is left to msgpack."""
    at, waiting = 0, [1]
    while at < len(data) and waiting:
        code = data[at]
        at += 1
        waiting[-1] -= 1
        items = 0
        if 0x80 <= code <= 0x9F:
            items = (code & 0x0F) * (2 if code < 0x90 else 1)
        elif code in _COUNTED:
            size, each = _COUNTED[code]
            items = int.from_bytes(data[at : at + size], "big") * each
            at += size
        elif code in _SIZED:
            at += _SIZED[code] + int.from_bytes(data[at : at + _SIZED[code]], "big")
        elif 0xA0 <= code <= 0xBF:
            at += code & 0x1F
        elif 0x80 < code < 0xE0:
            if code not in _FIXED:
                raise NotCanonical("a float or an extension")
            at += _FIXED[code]
        if items:
            waiting.append(items)
            if len(waiting) > MAX_DEPTH + 1:
                raise NotCanonical(f"nested more than {MAX_DEPTH} deep")
        while waiting and waiting[-1] == 0:
            waiting.pop()


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
            if type(item) not in _PLAIN and not (type(item) is int and item <= INT_MAX):
                _check(item, depth + 1)
    elif kind is dict:
        keys = list(value)  # type: ignore[call-overload]
        if not _STR.issuperset(map(type, keys)):
            raise NotCanonical("a map key is not a str")
        # Code points order as their UTF-8 bytes do, so comparing str is comparing the bytes.
        if keys != sorted(keys):
            raise NotCanonical("map keys are not in ascending order")
        for item in value.values():  # type: ignore[attr-defined]
            if type(item) not in _PLAIN and not (type(item) is int and item <= INT_MAX):
                _check(item, depth + 1)
    else:
        raise NotCanonical(f"{kind.__name__} has no canonical form")


def _ordered(value: object, depth: int) -> object:
    """The same value with its map keys in order; refuses what has no canonical form."""
    if type(value) is bytes:  # nothing to order and nothing to refuse; most items of long lists are keys
        return value
    if isinstance(value, Mapping):
        _check_size(value, depth)
        for key in value:
            if type(key) is not str:
                raise NotCanonical("a map key is not a str")
            _check_text(key)
        return {key: _ordered(value[key], depth + 1) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        _check_size(value, depth)
        return [_ordered(item, depth + 1) for item in value]
    _check(value, depth)
    if isinstance(value, str):
        _check_text(value)
    return value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotCanonical("a str is not valid Unicode") from None


def _check_size(value: Mapping[Any, Any] | Sequence[Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested more than {MAX_DEPTH} deep")
    if len(value) > MAX_ITEMS:
        raise NotCanonical(f"more than {MAX_ITEMS} items in one container")

"""One value, one encoding (SPEC §1): what goes in comes out, and every other byte string is refused at little cost.

`spell` below writes MessagePack by hand, in any form it is told to, so that the refused forms do not come from the
package that the code under test uses.
"""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gesell_protocol.canonical import INT_MAX, INT_MIN, MAX_DEPTH, MAX_ITEMS, NotCanonical, pack, pack_array, unpack

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
edges = [0, 1, -1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, -32, -33, -128, -129, -32_768, -32_769]
ints = st.integers(INT_MIN, INT_MAX) | st.sampled_from([*edges, -(2**31), -(2**31) - 1, INT_MIN, INT_MAX])
scalars = st.none() | st.booleans() | ints | texts | st.binary(max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(texts, inner, max_size=20), max_leaves=20
)
quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(values)
@quick
def test_every_value_of_the_subset_comes_back_from_its_bytes(value: Any) -> None:
    assert unpack(pack(value)) == value


@given(values)
@quick
def test_bytes_are_those_that_the_specification_spells(value: Any) -> None:
    assert pack(value) == spell(value)


@given(st.dictionaries(texts, scalars, min_size=2, max_size=8), st.randoms(use_true_random=False))
@quick
def test_order_in_which_a_map_is_built_does_not_matter(value: dict[str, Any], source: Any) -> None:
    names = list(value)
    source.shuffle(names)
    assert pack({name: value[name] for name in names}) == pack(value)


@pytest.mark.parametrize("length", [31, 32, 255, 256, 65_535, 65_536])
def test_lengths_at_every_header_border_come_back(length: int) -> None:
    for value in ("x" * length, b"x" * length, "€" * (length // 3)):
        assert unpack(pack(value)) == value


@pytest.mark.parametrize("length", [15, 16, MAX_ITEMS])
def test_containers_at_every_border_come_back_and_one_item_more_is_refused(length: int) -> None:
    many = {f"{number:05}": number for number in range(length)}
    assert unpack(pack([1] * length)) == [1] * length
    assert unpack(pack(many)) == many


def test_more_items_than_a_container_takes_are_refused_both_ways() -> None:
    many = {f"{number:05}": number for number in range(MAX_ITEMS + 1)}
    for value in ([1] * (MAX_ITEMS + 1), many):
        with pytest.raises(NotCanonical):
            pack(value)
        with pytest.raises(NotCanonical):
            unpack(spell(value))


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["arrays", "maps"])
def test_sixteen_containers_inside_one_another_and_no_more(wrap: Any) -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    assert unpack(pack(value)) == value
    with pytest.raises(NotCanonical):
        pack(wrap(value))
    with pytest.raises(NotCanonical):
        unpack(spell(wrap(value)))


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        INT_MAX + 1,
        INT_MIN - 1,
        {1: 1},
        {None: 1},
        {b"a": 1},
        {"a": {2: 1}},
        "\ud800",
        {"\ud800": 1},
        {"a": "\udfff"},
        [[Ellipsis]],
        {1, 2},
        msgpack.Timestamp(1),
    ],
    ids=repr,
)
def test_value_without_a_canonical_form_is_not_packed(value: Any) -> None:
    with pytest.raises(NotCanonical) as error:
        pack(value)
    assert error.value.refusal.code == "not-canonical"


@pytest.mark.parametrize("made", [bytearray(b"ab"), memoryview(b"ab")], ids=["bytearray", "memoryview"])
def test_other_kinds_of_bytes_are_never_taken_for_lists_of_numbers(made: Any) -> None:
    try:
        packed = pack(made)
    except NotCanonical:
        return
    assert packed == pack(b"ab")


def test_fast_way_gives_the_same_bytes_for_the_arrays_it_is_meant_for() -> None:
    value = (1, 2**40, (b"body", ((b"k" * 32, b"s" * 64),)), (("pay", b"p" * 32, "WRG", -5), ("pay", "pool", "WRG", 5)))
    assert pack_array(value) == pack(value)


# ── Refused bytes ────────────────────────────────────────────────────────────────────────────────────────────────


def spell(value: Any) -> bytes:
    """Canonical bytes written out by hand, straight from the MessagePack specification."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _spell_int(value)
    if isinstance(value, str):
        data = value.encode()
        return _header(len(data), fix=(0xA0, 32), codes=(0xD9, 0xDA, 0xDB)) + data
    if isinstance(value, bytes):
        return _header(len(value), fix=None, codes=(0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, list):
        return _header(len(value), fix=(0x90, 16), codes=(None, 0xDC, 0xDD)) + b"".join(map(spell, value))
    pairs = sorted((name.encode(), spell(name) + spell(item)) for name, item in value.items())
    return _header(len(value), fix=(0x80, 16), codes=(None, 0xDE, 0xDF)) + b"".join(pair for _, pair in pairs)


def _spell_int(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack("b" if value < 0 else "B", value)
    forms = [(0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q")]
    if value < 0:
        forms = [(0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q")]
    for code, form in forms:
        try:
            return bytes([code]) + struct.pack(form, value)
        except struct.error:
            continue
    raise AssertionError("no form for this int")


def _header(length: int, *, fix: tuple[int, int] | None, codes: tuple[int | None, int, int]) -> bytes:
    if fix is not None and length < fix[1]:
        return bytes([fix[0] | length])
    for code, form, limit in zip(codes, (">B", ">H", ">I"), (2**8, 2**16, 2**32), strict=True):
        if code is not None and length < limit:
            return bytes([code]) + struct.pack(form, length)
    raise AssertionError("no header for this length")


LONGER = {
    "fixint as uint8": b"\xcc\x01",
    "fixint as int8": b"\xd0\x01",
    "uint8 as uint16": b"\xcd\x00\xff",
    "uint8 as int16": b"\xd1\x00\xff",
    "uint16 as uint32": b"\xce\x00\x00\xff\xff",
    "uint32 as uint64": b"\xcf\x00\x00\x00\x00\xff\xff\xff\xff",
    "positive as int64": b"\xd3\x7f" + b"\xff" * 7,
    "negative fixint as int8": b"\xd0\xff",
    "int8 as int16": b"\xd1\xff\x80",
    "int16 as int32": b"\xd2\xff\xff\x80\x00",
    "int32 as int64": b"\xd3" + b"\xff" * 4 + b"\x80\x00\x00\x00",
    "fixstr as str8": b"\xd9\x01a",
    "str8 as str16": b"\xda\x00\x20" + b"a" * 32,
    "str8 as str32": b"\xdb\x00\x00\x00\x20" + b"a" * 32,
    "bin8 as bin16": b"\xc5\x00\x01a",
    "bin8 as bin32": b"\xc6\x00\x00\x00\x01a",
    "fixarray as array16": b"\xdc\x00\x01\x01",
    "fixarray as array32": b"\xdd\x00\x00\x00\x01\x01",
    "fixmap as map16": b"\xde\x00\x01\xa1a\x01",
    "fixmap as map32": b"\xdf\x00\x00\x00\x01\xa1a\x01",
    "empty array16": b"\xdc\x00\x00",
    "empty map32": b"\xdf\x00\x00\x00\x00",
}
OUTSIDE = {
    "uint64 above 2^63-1": b"\xcf\x80" + b"\x00" * 7,
    "float32": b"\xca\x3f\x80\x00\x00",
    "float64": b"\xcb\x3f\xf0" + b"\x00" * 6,
    "float64 nan": b"\xcb\x7f\xf8" + b"\x00" * 6,
    "fixext 1": b"\xd4\x01\x00",
    "fixext 16": b"\xd8\x01" + b"\x00" * 16,
    "ext 8": b"\xc7\x00\x01",
    "ext 32": b"\xc9\x00\x00\x00\x00\x01",
    "timestamp 32": b"\xd6\xff\x00\x00\x00\x01",
    "timestamp 64": b"\xd7\xff" + b"\x00" * 8,
    "timestamp 96": b"\xc7\x0c\xff" + b"\x00" * 12,
    "timestamp with too many nanoseconds": b"\xd7\xff" + b"\xff" * 8,
    "never used c1": b"\xc1",
    "nil key": b"\x81\xc0\x01",
    "int key": b"\x81\x01\x01",
    "bool key": b"\x81\xc3\x01",
    "bin key": b"\x81\xc4\x01a\x01",
    "array key": b"\x81\x90\x01",
    "ext key": b"\x81\xd4\x01\x00\x01",
    "float key": b"\x81\xca\x00\x00\x00\x00\x01",
    "keys out of order": b"\x82\xa1b\x01\xa1a\x01",
    "longer key before shorter": b"\x82\xa2aa\x01\xa1a\x01",
    "the same key twice": b"\x82\xa1a\x01\xa1a\x01",
    "the same key twice, apart": b"\x83\xa1a\x01\xa1b\x01\xa1a\x01",
    "keys out of order, deep inside": b"\x91\x81\xa1a\x82\xa1b\x01\xa1a\x01",
    "a byte after the value": b"\x01\x00",
    "a value after the value": b"\x90\x90",
    "nothing": b"",
    "str that is not UTF-8": b"\xa1\xff",
    "str with a surrogate": b"\xa3\xed\xa0\x80",
    "str with an overlong form": b"\xa2\xc0\x80",
    "str beyond Unicode": b"\xa4\xf4\x90\x80\x80",
    "key that is not UTF-8": b"\x81\xa1\xff\x01",
}


@pytest.mark.parametrize("data", [*LONGER.values(), *OUTSIDE.values()], ids=[*LONGER, *OUTSIDE])
@pytest.mark.parametrize("within", [b"", b"\x91", b"\x81\xa1a"], ids=["alone", "in an array", "in a map"])
def test_bytes_outside_the_subset_are_refused_wherever_they_stand(within: bytes, data: bytes) -> None:
    with pytest.raises(NotCanonical):
        unpack(within + data)


@given(values)
@quick
def test_every_truncation_of_canonical_bytes_is_refused(value: Any) -> None:
    data = pack(value)
    for length in {0, 1, len(data) // 2, len(data) - 1} - {len(data)}:
        with pytest.raises(NotCanonical):
            unpack(data[:length])


def _assert_the_one_encoding(data: bytes) -> None:
    try:
        value = unpack(data)
    except NotCanonical:
        return
    assert pack(value) == data == spell(value)


@given(st.binary(max_size=60))
@settings(max_examples=400, deadline=None)
@example(b"\xd9\x00")
@example(b"\x80")
def test_any_bytes_are_refused_or_are_the_one_encoding_of_their_value(data: bytes) -> None:
    _assert_the_one_encoding(data)


@given(values, st.integers(0, 2**16), st.integers(0, 255), st.sampled_from(["change", "insert", "delete"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_bytes_are_refused_or_are_the_one_encoding_of_another_value(
    value: Any, place: int, byte: int, how: str
) -> None:
    data = pack(value)
    place %= len(data)
    skipped = 0 if how == "insert" else 1
    _assert_the_one_encoding(data[:place] + (b"" if how == "delete" else bytes([byte])) + data[place + skipped :])


# ── Bounded cost ─────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = {
    "array32 of 2^32-1": b"\xdd\xff\xff\xff\xff",
    "map32 of 2^32-1": b"\xdf\xff\xff\xff\xff",
    "bin32 of 2^32-1": b"\xc6\xff\xff\xff\xff",
    "str32 of 2^32-1": b"\xdb\xff\xff\xff\xff",
    "ext32 of 2^32-1": b"\xc9\xff\xff\xff\xff\x01",
    "array16 headers, 16 KiB of them": b"\xdc\x04\x00" * 5461,
    "array32 headers, 16 KiB of them": b"\xdd\x00\x00\x04\x00" * 3276,
    "fixarrays, 16 KiB of them": b"\x9f" * 16_384,
    "arrays of one, 16 KiB deep": b"\x91" * 16_384,
    "maps of one, 16 KiB deep": b"\x81\xa1a" * 5461,
    "map16 headers, 16 KiB of them": b"\xde\x04\x00\xa1a" * 3276,
    "array of array headers": b"\xdc\x04\x00" + b"\xdc\x04\x00" * 1024,
    "array headers after a float": b"\x92\xcb" + b"\x00" * 8 + b"\xdc\x04\x00" * 1024,
    "array headers within an ext": b"\x92\xd4\x01\x00" + b"\xdc\x04\x00" * 1024,
    "array headers after a long str": b"\x92\xda\x04\x00" + b"x" * 1024 + b"\xdc\x04\x00" * 1024,
    "16 KiB of nils": b"\xdc\x3f\xfd" + b"\xc0" * 16_381,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_refused_in_milliseconds(data: bytes) -> None:
    # The processor's time, and the best of some tries, so that a busy machine doesn't count.
    took = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(NotCanonical):
            unpack(data)
        took.append(time.thread_time() - began)
    assert min(took) < 0.010


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_refused_without_much_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NotCanonical):
            unpack(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


def test_hostile_headers_do_not_make_the_process_grow() -> None:
    page, statm = os.sysconf("SC_PAGE_SIZE"), "/proc/self/statm"
    if not os.path.exists(statm):
        pytest.skip("only Linux tells a process its memory there")

    def resident() -> int:
        with open(statm, encoding="ascii") as file:
            return int(file.read().split()[1]) * page

    before = resident()
    for _ in range(5):
        for data in HOSTILE.values():
            with pytest.raises(NotCanonical):
                unpack(data)
    assert resident() - before < 64 * 2**20

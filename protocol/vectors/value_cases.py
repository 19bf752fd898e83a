"""Vectors of single values: canonical bytes (SPEC §1), names (§2) and amounts as people write them (§2, §8).

Owns which values and which malformed forms are shown. Every refused form is built here byte by byte from the
MessagePack specification, never by the encoder that must refuse it. Must not know statements or books.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gesell_protocol import amounts, canonical, names
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import write_body
from vectors.notation import Case, drawn, file_text, peer, written

TIME_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


# --- canonical.json ---------------------------------------------------------------------------------------


def canonical_json() -> str:
    """Give the text of `canonical.json`. Asserts that the reference code says what each case claims."""
    return file_text(
        about="The one encoding of a value, byte strings that no decoder may take, and values that have no encoding.",
        spec="§1",
        cases=[*_valid_cases(), *_refused_cases(), *_formless_cases()],
    )


def _valid_cases() -> Iterator[Case]:
    for name, value in _values():
        data = canonical.pack(value)
        assert canonical.unpack(data) == value, name
        yield {"name": name, "kind": "valid", "value": written(value), "hex": data.hex()}


def _values() -> Iterator[tuple[str, object]]:
    yield from (("nil", None), ("false", False), ("true", True))
    edges = [0, 1, 2**7 - 1, 2**7, 2**8 - 1, 2**8, 2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**31, 2**32 - 1, 2**32]
    edges += [2**53 - 1, 2**53, 2**53 + 1, 10**15, 10**18, 2**63 - 1]
    edges += [-1, -32, -33, -(2**7), -(2**7) - 1, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1]
    edges += [-(2**53) - 1, -(10**18), -(2**63)]
    for number in edges:
        yield f"int {number}", number
    for length in (0, 1, 31, 32, 255, 256):
        yield f"str of {length} bytes", "s" * length
    yield "str of two-byte characters", "Wörgl"
    yield "str of 16 two-byte characters, 32 bytes", "ö" * 16
    yield "str beyond the basic plane", "a😀b"
    yield "str with a null and a newline", "a\x00\n"
    yield "str not in a normal form of Unicode is left as it is", "e\u0301"
    for length in (0, 1, 32, 255, 256):
        yield f"bin of {length} bytes", drawn("bin", 1) * length
    for length in (0, 1, 15, 16):
        yield f"array of {length}", list(range(length))
        yield f"map of {length}", {f"k{n:02}": n for n in range(length)}
    yield "map, a key before those that it begins", {"a": 1, "aa": 2, "ab": 3, "b": 4}
    yield "map, the empty key first", {"": 0, "a": 1}
    yield "map, capitals before small letters", {"A": 1, "Z": 2, "a": 3}
    # UTF-16 would turn these two round: U+1F600 is D83D DE00 there, below FF5E.
    yield "map, keys in the order of UTF-8 and not of UTF-16", {"\uff5e": 1, "😀": 2}
    yield "all types together", {"a": [None, True, -7], "b": {"x": b"\x00", "y": "z"}, "c": 10**15}
    yield "16 arrays inside one another", _nested(16)
    yield "16 maps inside one another", _nested_maps(16)


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def _nested_maps(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"m": value}
    return value


def _refused_cases() -> Iterator[Case]:
    forms = (_long_ints, _long_headers, _foreign_types, _broken_maps, _broken_text, _broken_ends, _too_deep)
    for form in forms:
        for name, data, why in form():
            assert _is_refused(data), f"taken, though {why}: {name}"
            yield {"name": name, "kind": "refused", "hex": data.hex(), "code": "not-canonical", "why": why}


def _is_refused(data: bytes) -> bool:
    try:
        canonical.unpack(data)
    except Rejected as rejected:
        return rejected.refusal.code == "not-canonical"
    return False


Refused = Iterator[tuple[str, bytes, str]]

_UNSIGNED = ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))
_SIGNED = ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8))


def _long_ints() -> Refused:
    # Each number in every form of MessagePack that holds it, but for its shortest.
    for number in (0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1):
        for tag, size in _UNSIGNED:
            if number < 2 ** (8 * size // 2 if size > 1 else 7):
                data = bytes([tag]) + number.to_bytes(size, "big")
                yield f"int {number} as uint{8 * size}", data, "a shorter form holds it"
    for number in (0, 127, 128, 32_768, 2**31, 2**63 - 1):
        for tag, size in _SIGNED:
            if number < 2 ** (8 * size - 1):
                data = bytes([tag]) + number.to_bytes(size, "big")
                yield f"int {number} as int{8 * size}", data, "what is not negative takes the unsigned forms"
    for number in (-1, -32, -33, -128, -129, -32_768, -32_769, -(2**31)):
        for tag, size in _SIGNED:
            if number >= (-(2 ** (4 * size - 1)) if size > 1 else -32):
                data = bytes([tag]) + number.to_bytes(size, "big", signed=True)
                yield f"int {number} as int{8 * size}", data, "a shorter form holds it"
    yield "int 2^63", b"\xcf" + (2**63).to_bytes(8, "big"), "an int is at most 2^63-1"
    yield "int 2^64-1", b"\xcf" + b"\xff" * 8, "an int is at most 2^63-1"


def _long_headers() -> Refused:
    why = "a shorter header holds the length"
    for name, content, forms in (
        ("str of 0", b"", ((0xD9, 1), (0xDA, 2), (0xDB, 4))),
        ("str of 31", b"s" * 31, ((0xD9, 1), (0xDA, 2), (0xDB, 4))),
        ("str of 32", b"s" * 32, ((0xDA, 2), (0xDB, 4))),
        ("str of 256", b"s" * 256, ((0xDB, 4),)),
        ("bin of 0", b"", ((0xC5, 2), (0xC6, 4))),
        ("bin of 255", bytes(255), ((0xC5, 2), (0xC6, 4))),
        ("bin of 256", bytes(256), ((0xC6, 4),)),
        ("array of 0", b"", ((0xDC, 2), (0xDD, 4))),
        ("array of 15", bytes(15), ((0xDC, 2), (0xDD, 4))),
        ("array of 16", bytes(16), ((0xDD, 4),)),
        ("map of 0", b"", ((0xDE, 2), (0xDF, 4))),
        ("map of 15", _pairs(15), ((0xDE, 2), (0xDF, 4))),
        ("map of 16", _pairs(16), ((0xDF, 4),)),
    ):
        length = int(name.split()[-1])
        for tag, size in forms:
            yield f"{name} with a header of {8 * size} bits", bytes([tag]) + length.to_bytes(size, "big") + content, why


def _pairs(count: int) -> bytes:
    return b"".join(b"\xa1" + bytes([ord("a") + n, n]) for n in range(count))


def _foreign_types() -> Refused:
    yield "float32 1.0", bytes.fromhex("ca3f800000"), "there are no floats"
    yield "float64 1.0", bytes.fromhex("cb3ff0000000000000"), "there are no floats"
    yield "float64 NaN", bytes.fromhex("cb7ff8000000000000"), "there are no floats"
    yield "float inside a map", bytes.fromhex("81a161cb3ff0000000000000"), "there are no floats"
    for tag, size in ((0xD4, 1), (0xD5, 2), (0xD6, 4), (0xD7, 8), (0xD8, 16)):
        yield f"fixext{size}", bytes([tag, 1]) + bytes(size), "there are no extensions"
    for tag, size in ((0xC7, 1), (0xC8, 2), (0xC9, 4)):
        data = bytes([tag]) + (3).to_bytes(size, "big") + b"\x01abc"
        yield f"ext with a length of {8 * size} bits", data, "there are no extensions"
    yield "timestamp extension of 32 bits", bytes.fromhex("d6ff00000000"), "there are no extensions"
    yield "timestamp extension of 64 bits", bytes.fromhex("d7ff0000000000000000"), "there are no extensions"
    yield "timestamp extension of 96 bits", bytes.fromhex("c70cff") + bytes(12), "there are no extensions"
    yield "extension inside an array", bytes.fromhex("91d40100"), "there are no extensions"
    yield "the byte c1", b"\xc1", "MessagePack never uses it"
    yield "the byte c1 inside an array", b"\x91\xc1", "MessagePack never uses it"


def _broken_maps() -> Refused:
    order, once = "map keys ascend by their UTF-8 bytes", "a map key comes once"
    yield "map keys descending", bytes.fromhex("82a16200a16100"), order
    yield "map keys descending in a map inside", bytes.fromhex("81a16182a16200a16100"), order
    yield "map keys descending in a map inside an array", bytes.fromhex("9182a16200a16100"), order
    yield "map keys by length and not by bytes", bytes.fromhex("82a16200a2616100"), order
    yield "map keys, the longer before its beginning", bytes.fromhex("82a2616100a16100"), order
    yield "map keys without regard to case", bytes.fromhex("82a16100a14200"), order
    swapped = b"\x82\xa4" + "😀".encode() + b"\x02\xa3" + "\uff5e".encode() + b"\x01"
    yield "map keys in the order of UTF-16", swapped, order
    yield "map key twice", bytes.fromhex("82a16100a16101"), once
    yield "map key twice with the same value", bytes.fromhex("82a16100a16100"), once
    yield "map key twice, not side by side", bytes.fromhex("83a16100a16200a16100"), once
    for name, key in (("int", "01"), ("bin", "c40161"), ("nil", "c0"), ("bool", "c3"), ("array", "90"), ("map", "80")):
        yield f"map key that is {name}", bytes.fromhex(f"81{key}00"), "a map key is str"
    yield "map key that is a float", bytes.fromhex("81ca3f80000000"), "a map key is str"
    yield "map key with a long header", bytes.fromhex("81d9016100"), "a shorter header holds the length"


def _broken_text() -> Refused:
    for name, content in (
        ("a continuation byte alone", "80"),
        ("a character cut short", "c3"),
        ("an overlong null", "c080"),
        ("an overlong slash", "c0af"),
        ("a surrogate", "eda080"),
        ("a pair of surrogates", "eda0bdedb880"),
        ("a code point beyond U+10FFFF", "f4908080"),
        ("the byte ff", "ff"),
        ("Latin-1", "57f67267"),
    ):
        data = bytes.fromhex(content)
        yield f"str with {name}", bytes([0xA0 + len(data)]) + data, "a str is valid UTF-8"
    yield "map key that is no UTF-8", bytes.fromhex("81a1ff00"), "a str is valid UTF-8"


def _broken_ends() -> Refused:
    yield "nothing", b"", "there is no value"
    for name, data in (("nil", "c000"), ("a map", "8080"), ("an int", "0101"), ("a value and a newline", "c00a")):
        yield f"something after the value: {name}", bytes.fromhex(data), "nothing follows the value"
    for name, data in (
        ("a uint16", "cd01"),
        ("an int64", "d3ff"),
        ("a str", "a261"),
        ("the length of a str", "da01"),
        ("a bin", "c40200"),
        ("an array", "9201"),
        ("a map without its last value", "81a161"),
        ("a map without its last pair", "82a16100"),
        ("an array that claims 2^32-1 items", "ddffffffff"),
        ("a map that claims 2^32-1 pairs", "dfffffffff"),
        ("a bin that claims 2^32-1 bytes", "c6ffffffff"),
        ("a str that claims 2^32-1 bytes", "dbffffffff"),
    ):
        yield f"cut short: {name}", bytes.fromhex(data), "the value does not end"


def _too_deep() -> Refused:
    yield "17 arrays inside one another", b"\x91" * 17 + b"\x01", "nesting is at most 16 deep"
    yield "17 maps inside one another", b"\x81\xa1m" * 17 + b"\x01", "nesting is at most 16 deep"
    yield "17 deep, the innermost empty", b"\x91" * 16 + b"\x90", "nesting is at most 16 deep"
    yield "2,000 arrays inside one another", b"\x91" * 2_000 + b"\x01", "nesting is at most 16 deep"


def _formless_cases() -> Iterator[Case]:
    """Values that no encoder may write; those that the notation can't write at all are not shown."""
    for name, value, why in (
        ("int 2^63 to encode", 2**63, "an int is at most 2^63-1"),
        ("int -2^63-1 to encode", -(2**63) - 1, "an int is at least -2^63"),
        ("17 arrays to encode", _nested(17), "nesting is at most 16 deep"),
        ("17 maps to encode", _nested_maps(17), "nesting is at most 16 deep"),
    ):
        try:
            canonical.pack(value)
        except Rejected:
            yield {"name": name, "kind": "formless", "value": written(value), "code": "not-canonical", "why": why}
        else:
            raise AssertionError(f"encoded, though {why}: {name}")


# --- names.json -------------------------------------------------------------------------------------------


def names_json() -> str:
    """Give the text of `names.json`."""
    return file_text(
        about="Peers, commons and statement ids as bytes and as text, base64url, and what is a handle or a code.",
        spec="§2",
        cases=[*_peer_cases(), *_commons_cases(), *_id_cases(), *_base64url_cases(), *_word_cases()],
    )


def _peer_cases() -> Iterator[Case]:
    # RFC 8032 §7.1, TEST 1; a library of another hand writes this key as the same did.
    rfc = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    keys = [("the first key of RFC 8032 §7.1", rfc), *((name, peer(name)) for name in ("anna", "ben", "carla"))]
    keys += [("32 zero bytes, text alone", bytes(32)), ("32 bytes ff, text alone", b"\xff" * 32)]
    for name, key in keys:
        did = names.did_of(key)
        assert names.peer_of(did) == key, name
        yield {"name": f"peer: {name}", "kind": "peer", "key": key.hex(), "did": did}
    good = names.did_of(peer("anna"))
    for name, did, why in (
        ("empty", "", "no did:key"),
        ("another method", good.replace("did:key", "did:web"), "the method is key"),
        ("capital DID", good.replace("did", "DID"), "a did is written in small letters"),
        ("without the z", good.replace(":z", ":"), "the multibase prefix z stands for base58btc"),
        ("with a fragment", good + "#" + good[8:], "a peer is the did alone"),
        ("cut short", good[:-1], "not 34 bytes"),
        ("one character more", good + "1", "not 34 bytes"),
        ("with a zero", good[:-1] + "0", "0, O, I and l are not base58"),
        ("of an X25519 key", "did:key:" + _multibase(b"\xec\x01" + peer("anna")), "multicodec 0xec01"),
        ("of a secp256k1 key", "did:key:" + _multibase(b"\xe7\x01\x02" + peer("anna")), "multicodec 0xe701"),
        ("with a space", good + " ", "nothing stands around it"),
    ):
        _assert_refused(names.peer_of, did)
        yield {"name": f"peer refused: {name}", "kind": "peer refused", "did": did, "why": why}


def _multibase(data: bytes) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return "z" + text


def _commons_cases() -> Iterator[Case]:
    policy: dict[str, Any] = {"tick_seconds": 86_400, "rest_ticks": 0, "brackets": [[0, 673_197]], "melt_to": "pool"}
    policy |= {"admission": "open", "credit_limit": 0, "vouch_min": 1, "visibility": "open", "notice_ticks": 0}
    for name in ("Wörgl", "Schwanenkirchen"):
        founding = {
            "type": "found",
            "by": peer("anna"),
            "id": names.uuid7(TIME_MS, drawn(f"id {name}", 10)),
            "expires": TIME_MS + 300_000,
            "ledger": peer("ledger"),
            "name": name,
            "currency": {"code": "WRG", "scale": 6},
            "policy": policy,
            "stewards": [peer("anna")],
            "threshold": 1,
        }
        body = write_body(founding)
        commons = names.commons_of(body)
        yield {"name": f"commons: {name}", "kind": "commons", "found_body": body.hex(), "commons": commons.hex()}


def _id_cases() -> Iterator[Case]:
    # The example of RFC 9562, appendix A.6, and then our own.
    rfc = (0x017F22E279B0, bytes.fromhex("0cc318c4dc0c0c07398f"))
    for name, time_ms, randomness in (
        ("the example of RFC 9562 appendix A.6", *rfc),
        ("of the epoch, all random bits clear", 0, bytes(10)),
        ("of the last moment, all random bits set", 2**48 - 1, b"\xff" * 10),
        ("of 2026", TIME_MS, drawn("id of 2026", 10)),
    ):
        made = names.uuid7(time_ms, randomness)
        assert names.id_of(names.id_text(made)) == made
        yield {
            "name": f"id {name}",
            "kind": "id",
            "time_ms": time_ms,
            "randomness": randomness.hex(),
            "id": made.hex(),
            "text": names.id_text(made),
        }
    good = names.uuid7(TIME_MS, drawn("id", 10))
    for name, made, why in (
        ("version 4", good[:6] + bytes([0x4F & good[6] | 0x40]) + good[7:], "the version is 7"),
        ("version 6", good[:6] + bytes([0x6F & good[6] | 0x60]) + good[7:], "the version is 7"),
        ("variant 0", good[:8] + bytes([good[8] & 0x3F]) + good[9:], "the variant is 10"),
        ("variant 11", good[:8] + bytes([good[8] | 0xC0]) + good[9:], "the variant is 10"),
        ("15 bytes", good[:15], "an id has 16 bytes"),
        ("17 bytes", good + b"\x00", "an id has 16 bytes"),
        ("zeros", bytes(16), "the version is 7"),
    ):
        assert not names.is_uuid7(made), name
        yield {"name": f"id refused: {name}", "kind": "id refused", "id": made.hex(), "why": why}
    text = names.id_text(good)
    for name, wrong in (("without hyphens", text.replace("-", "")), ("in braces", "{" + text + "}"), ("cut", text[1:])):
        _assert_refused(names.id_of, wrong)
        yield {"name": f"id text refused: {name}", "kind": "id text refused", "text": wrong, "why": "8-4-4-4-12 hex"}


def _base64url_cases() -> Iterator[Case]:
    for data in (b"", b"f", b"fo", b"foo", b"foob", b"fooba", b"foobar", b"\xff\xef\xbe", b"\x00\x10\x83\xfb\xff"):
        text = names.base64url(data)
        assert names.unbase64url(text) == data
        yield {"name": f"base64url of {data.hex() or 'nothing'}", "kind": "base64url", "hex": data.hex(), "text": text}
    for text, why in (
        ("Zg==", "no padding"),
        ("Zg=", "no padding"),
        ("Z", "one character alone holds no byte"),
        ("Zm9vY", "one character alone holds no byte"),
        ("+/++", "the alphabet is that of RFC 4648 §5"),
        ("Zm 9v", "no spaces"),
        ("Zm9v\n", "no line ends"),
    ):
        _assert_refused(names.unbase64url, text)
        yield {"name": f"base64url refused: {text!r}", "kind": "base64url refused", "text": text, "why": why}


def _word_cases() -> Iterator[Case]:
    handles = ("ab", "anna", "a-1", "a_b", "a" * 31)
    no_handles = ("", "a", "a" * 32, "Anna", "1a", "-a", "_a", "a.b", "änna", "anna\n", "pool", "issuer", "escrow")
    yield from _words("handle", handles, no_handles, names.is_handle)
    codes, no_codes = ("AB", "WRG", "A1", "A123456789"), ("", "A", "wrg", "1AB", "A1234567890", "AB-", "WRG\n", "ÄB")
    yield from _words("currency code", codes, no_codes, lambda text: names.CURRENCY.fullmatch(text) is not None)
    categories, no_categories = ("a", "1", "lift", "3d-print", "a" * 32), ("", "-a", "A", "a_b", "a" * 33, "a\n")
    yield from _words("category", categories, no_categories, lambda text: names.CATEGORY.fullmatch(text) is not None)
    kinds, no_kinds = ("ab", "hour", "a-1", "a--", "a" * 32), ("", "a", "Hour", "1a", "-a", "a_b", "a" * 33, "hour\n")
    yield from _words("gift kind", kinds, no_kinds, lambda text: names.KIND.fullmatch(text) is not None)
    units, no_units = ("1", "h", "kg.m/s2", "{loaf}", "m" * 32), ("", "kg m", "m" * 33, "°C", "h\n", "h\x7f")
    yield from _words("unit", units, no_units, lambda text: names.UNIT.fullmatch(text) is not None)


def _words(kind: str, good: tuple[str, ...], bad: tuple[str, ...], is_one: Callable[[str], bool]) -> Iterator[Case]:
    for text in (*good, *bad):
        assert is_one(text) is (text in good), f"{kind} {text!r}"
        yield {"name": f"{kind} {text!r}", "kind": kind, "text": text, "valid": text in good}


def _assert_refused(read: Callable[[str], bytes], text: str) -> None:
    try:
        read(text)
    except ValueError:
        return
    raise AssertionError(f"taken: {text!r}")


# --- amounts.json -----------------------------------------------------------------------------------------


def amounts_json() -> str:
    """Give the text of `amounts.json`."""
    return file_text(
        about="Amounts in grains, and the decimal text in which people write them; nothing is ever rounded.",
        spec="§2, §8",
        cases=[*_exact_amounts(), *_other_amounts(), *_refused_amounts()],
    )


def _exact_amounts() -> Iterator[Case]:
    for grains, scale in (
        *((0, scale) for scale in (0, 2, 9)),
        *((1, scale) for scale in (0, 1, 2, 6, 9)),
        *((number, 6) for number in (50_000, 1_250_000, 999_999, 1_000_000, 1_000_001, -1, -1_500_000)),
        *((10**15, scale) for scale in (0, 6, 9)),
        *((number, 9) for number in (10**18, -(10**18), 10**18 - 1, 2**53 + 1)),
        (10**18, 0),
    ):
        text = amounts.format_amount(grains, scale=scale)
        assert amounts.parse_amount(text, scale=scale) == grains
        yield _amount("exact", text, scale, grains)


def _other_amounts() -> Iterator[Case]:
    for text, scale in (
        ("1.0", 0),
        ("1.50", 1),
        ("0.050", 6),
        ("007", 0),
        ("000.5", 2),
        ("-0", 2),
        ("1.0000000000000000000000000", 2),
    ):
        yield _amount("read only", text, scale, amounts.parse_amount(text, scale=scale))


def _refused_amounts() -> Iterator[Case]:
    for text, scale, why in (
        ("", 2, "no digit"),
        ("-", 2, "no digit"),
        (".", 2, "no digit"),
        (".5", 2, "a digit stands before the point"),
        ("5.", 2, "a digit stands after the point"),
        ("+1", 2, "no plus sign"),
        ("--1", 2, "one sign"),
        ("1,5", 2, "the decimals follow a point"),
        ("1 000", 2, "nothing parts the digits"),
        ("1_000", 2, "nothing parts the digits"),
        ("1e3", 2, "no exponent"),
        ("0x10", 2, "decimal digits"),
        ("\u0661", 2, "the digits are 0 to 9"),
        ("NaN", 2, "a number"),
        ("Infinity", 2, "a number"),
        ("1.2.3", 2, "one point"),
        ("0.001", 2, "more decimals than the currency has"),
        ("0.5", 0, "more decimals than the currency has"),
        ("1000000000000000001", 0, "beyond 10^18 grains"),
        ("-1000000000000000001", 0, "beyond 10^18 grains"),
        ("1000000000.000000001", 9, "beyond 10^18 grains"),
        ("9" * 400, 6, "beyond 10^18 grains"),
    ):
        try:
            amounts.parse_amount(text, scale=scale)
        except ValueError:
            name = f"refused: {text[:20]!r} at scale {scale}"
            yield {"name": name, "kind": "refused", "text": text, "scale": scale, "why": why}
        else:
            raise AssertionError(f"taken, though {why}: {text}")


def _amount(kind: str, text: str, scale: int, grains: int) -> Case:
    name = f"{kind}: {text} at scale {scale}"
    return {"name": name, "kind": kind, "text": text, "scale": scale, "grains": written(grains)}

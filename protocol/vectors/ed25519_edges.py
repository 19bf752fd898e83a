"""Make the Ed25519 edge cases of `ed25519.json` (SPEC §2, §9) in plain integers.

Owns the hostile keys and signatures on which Ed25519 libraries are known to part ways, each with the verdicts
of our rule and the reason. It must not know any Ed25519 library: the curve arithmetic below is written from
RFC 8032 §5.1, so that a library's fault can't become a vector. It is slow, not constant-time, and must never
touch a real secret. Everything is drawn from SHA-512 of labels: every run gives the same bytes.

How the cases are made. An honest signature is R = [r]B and S = r + k·a mod L, for the key A = [a]B and
k = SHA-512(R ‖ key ‖ message). The curve has 8·L points: each is a multiple of B plus one of eight *torsion*
points, whose order divides 8. Who adds torsion to R or to the key gets signatures that hold only in the
*cofactored* equation, where both sides are multiplied by 8, or in the plain one only for some k; there
libraries differ. Only points with y < 19 have a second, non-canonical encoding (and those with x = 0 one with
a needless sign bit). Of these a logarithm is known for none but the torsion points: the others can be shown,
but not signed for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final, Literal

Case = dict[str, str | bool]
Verdict = Literal["holds", "fails"]
Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, x·y = T/Z (RFC 8032 §5.1.4)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)
SIGN_BIT = 2**255
IDENTITY: Point = (0, 1, 1, 0)

HOLDS: Final = "holds"
FAILS: Final = "fails"
MESSAGE = b"gesell/statement/1\nan edge case"
ORDERS = (1, 8, 4, 8, 2, 8, 4, 8)
"""The order of torsion point i, which is i times the first one."""


def cases() -> list[Case]:
    """Return all edge cases in a fixed order.

    Each has `name`, `key`, `message` and `signature` in hex, two verdicts and `why`. `signature_accepted`
    speaks of the signature alone, the key taken as it stands, whether or not `key_may_be_taken_into_use`.
    Raises AssertionError if a name stands twice or a case is not what its maker claims.
    """
    found = [
        *_ordinary_cases(),
        *_length_cases(),
        *_scalar_cases(),
        *_unusual_r_cases(),
        *_odd_key_cases(),
        *_small_order_key_cases(),
        *_torsion_key_cases(),
    ]
    assert len({case["name"] for case in found}) == len(found), "two cases have one name"
    return found


def as_json(found: list[Case]) -> str:
    """Return the cases as the text of `ed25519.json`."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


# --- the rule of SPEC §2, in integers ---------------------------------------------------------------------


@cache
def key_may_be_taken_into_use(key: bytes) -> bool:
    """Tell whether `key` is the canonical encoding of a point of order L."""
    point = decode(key)
    return point is not None and key != encode(IDENTITY) and encode(multiply(L, point)) == encode(IDENTITY)


def signature_accepted(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` holds under the rule, for a key of whatever order."""
    point, r, s = decode(key), signature[:32], int.from_bytes(signature[32:], "little")
    if point is None or len(signature) != 64 or s >= L:
        return False
    if r in small_order_encodings() or key in small_order_encodings():
        return False
    k = challenge(r, key, message) % L
    return encode(add(multiply(s, BASE), negate(multiply(k, point)))) == r


@cache
def small_order_encodings() -> tuple[bytes, ...]:
    """Return the canonical encodings of the eight torsion points, the identity first."""
    return tuple(encode(point) for point in TORSION)


# --- ordinary signatures, and what is wrong with them at first sight --------------------------------------


def _ordinary_cases() -> Iterator[Case]:
    for length in (0, 1, 32, 1023):
        seed, message = _bytes(f"ordinary {length}", 32), _bytes(f"message {length}", length)
        name = f"ordinary, message of {length} bytes"
        yield _case(name, HOLDS, "a plain RFC 8032 signature", public_key(seed), sign(seed, message), message)
    seed = _bytes("ordinary", 32)
    key, signature = public_key(seed), sign(seed, MESSAGE)
    r, s = signature[:32], signature[32:]
    yield _case("wrong message", FAILS, "another message was signed", key, signature, MESSAGE + b".")
    yield _case("wrong key", FAILS, "another key has signed", public_key(_bytes("other", 32)), signature)
    yield _case("key negated", FAILS, "-A is a good key, but not the signer's", _negated(key), signature)
    yield _case("R negated", FAILS, "-R is not what was signed", key, _negated(r) + s)
    yield _case("halves swapped", FAILS, "S stands where R belongs", key, s + r)
    yield _case("signature of zeros", FAILS, "R is of order 4", key, bytes(64))
    yield _case("signature of ones", FAILS, "neither R nor S is canonical", key, b"\xff" * 64)


def _length_cases() -> Iterator[Case]:
    seed = _bytes("lengths", 32)
    key, signature, why = public_key(seed), sign(seed, MESSAGE), "a signature has 64 bytes"
    yield _case("signature empty", FAILS, why, key, b"")
    yield _case("signature of 32 bytes", FAILS, why, key, signature[:32])
    yield _case("signature of 63 bytes", FAILS, why, key, signature[:-1])
    yield _case("signature of 65 bytes", FAILS, why, key, signature + b"\0")
    # A library that takes signature and message glued together sees the right bytes in these two.
    yield _case("signature with the message glued to it", FAILS, why, key, signature + MESSAGE, b"")
    yield _case("message begins inside the signature", FAILS, why, key, signature[:-1], signature[-1:] + MESSAGE)
    # A library that takes a pointer sees the right key in the last of these, and reads beyond the others.
    yield _case("key empty", FAILS, "a key has 32 bytes", b"", signature)
    yield _case("key of 31 bytes", FAILS, "a key has 32 bytes", key[:-1], signature)
    yield _case("key of 33 bytes", FAILS, "a key has 32 bytes", key + b"\0", signature)


def _scalar_cases() -> Iterator[Case]:
    seed = _bytes("scalars", 32)
    key, signature = public_key(seed), sign(seed, MESSAGE)
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    for times in (1, 2, 7, 8, 15):
        yield _case(f"S + {times}L", FAILS, "S is not below L", key, r + _scalar(s + times * L))
    for bit in (253, 254, 255):
        yield _case(f"S with bit {bit} set", FAILS, "S is not below L", key, r + _scalar(s | 1 << bit))
    yield _case("S = L", FAILS, "S is not below L", key, r + _scalar(L))
    yield _case("S = L - 1", FAILS, "the equation does not hold", key, r + _scalar(L - 1))
    yield _case("S negated", FAILS, "the equation does not hold", key, r + _scalar(L - s))


# --- unusual R under a good key ---------------------------------------------------------------------------


def _unusual_r_cases() -> Iterator[Case]:
    seed = _bytes("unusual R", 32)
    key, secret = public_key(seed), _secret(seed)
    yield _forged("R the identity", FAILS, "R is of small order; the plain equation holds", key, TORSION[0], secret)
    for i in range(1, 8):
        why = "R is of small order; only the cofactored equation holds"
        yield _forged(f"R of order {ORDERS[i]}, torsion point {i}", FAILS, why, key, TORSION[i], secret)
    for name, r in _other_encodings_of_small_order():
        why = "R is not canonical; it is compared byte for byte"
        yield _forged(f"R non-canonical, {name}", FAILS, why, key, r, secret)
    yield _forged("R non-canonical, of large order", FAILS, "R is not canonical", key, _Y_BEYOND_P, secret)
    yield _forged("R off the curve", FAILS, "R encodes no point", key, _OFF_CURVE, secret)
    for i in (1, 2, 4):
        nonce = _number(f"R with torsion {i}")
        mixed, why = add(multiply(nonce, BASE), TORSION[i]), "only the cofactored equation holds"
        yield _forged(f"R with torsion of order {ORDERS[i]}", FAILS, why, key, mixed, secret, nonce)


# --- keys that are no good, whatever is signed ------------------------------------------------------------


def _odd_key_cases() -> Iterator[Case]:
    nonce = _number("odd keys")
    r = multiply(nonce, BASE)
    for name, key, why in (
        ("key off the curve", _OFF_CURVE, "the key encodes no point"),
        ("key non-canonical, of large order", _Y_BEYOND_P, "the key is not canonical, y >= p"),
        ("key non-canonical and off the curve", b"\xff" * 32, "the key is not canonical, y >= p"),
    ):
        yield _forged(name, FAILS, why, key, r, nonce=nonce)


def _small_order_key_cases() -> Iterator[Case]:
    """Keys of small order need no secret: R = [r]B with S = r holds whenever their order divides k."""
    nonce = _number("keys of small order")
    r = multiply(nonce, BASE)
    listed = [(f"of order {ORDERS[i]}, torsion point {i}", key) for i, key in enumerate(small_order_encodings())]
    listed += [(f"non-canonical, {name}", key) for name, key in _other_encodings_of_small_order()]
    for name, key in listed:
        why = "the plain equation holds, but a key of small order speaks for anybody"
        yield _forged(f"key {name}", FAILS, why, key, r, nonce=nonce, where=_reduced(8, 0))
    why = "0 = 0 holds for every message"
    yield _forged("key and R the identity, S = 0", FAILS, why, encode(IDENTITY), IDENTITY)


def _torsion_key_cases() -> Iterator[Case]:
    """Keys [a]B + torsion are never taken into use, but an envelope may carry one as a stranger's."""
    plain = "the plain equation holds; the key may sign as a stranger, but not be taken into use"
    cofactored = "only the cofactored equation holds"
    seed, nonce = _bytes("keys with torsion", 32), _number("keys with torsion")
    secret, r = _secret(seed), multiply(nonce, BASE)

    def forged(
        name: str,
        verdict: Verdict,
        why: str,
        where: Callable[[int], bool],
        i: int = 1,
        r: Point = r,
        nonce: int = nonce,
    ) -> Case:
        key = encode(add(multiply(secret, BASE), TORSION[i]))
        return _forged(f"key with torsion of order {ORDERS[i]}, {name}", verdict, why, key, r, secret, nonce, where)

    for i in (1, 2, 4):
        yield forged("plain equation holds", HOLDS, plain, _reduced(ORDERS[i], 0), i)
        yield forged("cofactored equation holds", FAILS, cofactored, _reduced(ORDERS[i], 1), i)
    why = "k is reduced modulo L before it multiplies A"
    yield forged("equation holds for k reduced", HOLDS, why, lambda k: k % L % 8 == 0 and k % 8 != 0)
    yield forged("equation holds for k unreduced", FAILS, why, lambda k: k % L % 8 != 0 and k % 8 == 0)
    r = add(r, negate(TORSION[3]))
    yield forged("torsion of R cancels it", HOLDS, plain, _reduced(8, 3), r=r)
    yield forged("torsion of R adds to it", FAILS, cofactored, _reduced(8, 5), r=r)
    why = "R is of small order, though the plain equation holds"
    for i, r in enumerate(TORSION):
        name = f"R of order {ORDERS[i]}, torsion point {i}"
        yield forged(name, FAILS, why, _reduced(8, -i % 8), r=r, nonce=0)


# --- how a case is made -----------------------------------------------------------------------------------


def _case(name: str, verdict: Verdict, why: str, key: bytes, signature: bytes, message: bytes = MESSAGE) -> Case:
    accepted = signature_accepted(key, message, signature)
    assert accepted is (verdict is HOLDS), f"{name}: meant to be one that {verdict}, which the rule denies"
    return {
        "name": name,
        "key": key.hex(),
        "message": message.hex(),
        "signature": signature.hex(),
        "key_may_be_taken_into_use": key_may_be_taken_into_use(key),
        "signature_accepted": accepted,
        "why": why,
    }


def _forged(
    name: str,
    verdict: Verdict,
    why: str,
    key: bytes,
    r: Point | bytes,
    secret: int = 0,
    nonce: int = 0,
    where: Callable[[int], bool] = lambda k: True,
) -> Case:
    """Return the case with this R and S = nonce + k·secret, for the first message whose k fits `where`."""
    encoded_r = r if isinstance(r, bytes) else encode(r)
    for number in count():
        message = MESSAGE + b", attempt %d" % number
        k = challenge(encoded_r, key, message)
        if where(k):
            return _case(name, verdict, why, key, encoded_r + _scalar((nonce + k * secret) % L), message)
    raise AssertionError("count() has no end")


def _reduced(modulus: int, rest: int) -> Callable[[int], bool]:
    """Return the condition that k mod L leaves `rest` when divided by `modulus`."""
    return lambda k: k % L % modulus == rest


def _other_encodings_of_small_order() -> Iterator[tuple[str, bytes]]:
    """Yield the six encodings of torsion points that RFC 8032 §5.1.3 refuses and lenient decoders take."""
    for name, number in (
        ("y = p", P),
        ("y = p, sign bit set", P | SIGN_BIT),
        ("y = p + 1, the identity", P + 1),
        ("y = p + 1, sign bit set, the identity", (P + 1) | SIGN_BIT),
        ("y = 1, sign bit set though x = 0, the identity", 1 | SIGN_BIT),
        ("y = p - 1, sign bit set though x = 0", (P - 1) | SIGN_BIT),
    ):
        yield name, number.to_bytes(32, "little")


def _negated(encoded: bytes) -> bytes:
    return encoded[:31] + bytes([encoded[31] ^ 0x80])


def _bytes(label: str, length: int) -> bytes:
    """Return `length` bytes that look random and are always the same."""
    blocks = (hashlib.sha512(b"gesell/vectors/ed25519\n%d\n%s" % (i, label.encode())) for i in range(length // 64 + 1))
    return b"".join(block.digest() for block in blocks)[:length]


def _number(label: str) -> int:
    return int.from_bytes(_bytes(label, 64), "little") % L


def _scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


# --- RFC 8032 §5.1, its own arithmetic --------------------------------------------------------------------


def public_key(seed: bytes) -> bytes:
    """Return the public key of a 32-byte seed (RFC 8032 §5.1.5)."""
    return encode(multiply(_secret(seed), BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the pure Ed25519 signature of `message` (RFC 8032 §5.1.6)."""
    nonce = int.from_bytes(hashlib.sha512(hashlib.sha512(seed).digest()[32:] + message).digest(), "little") % L
    r = encode(multiply(nonce, BASE))
    return r + _scalar((nonce + challenge(r, public_key(seed), message) * _secret(seed)) % L)


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    """Return k, below 2^512 and not reduced (RFC 8032 §5.1.6, step 4)."""
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little")


def decode(encoded: bytes) -> Point | None:
    """Return the point of a canonical encoding, None for anything else (RFC 8032 §5.1.3)."""
    number = int.from_bytes(encoded, "little")
    y, odd = number % SIGN_BIT, number // SIGN_BIT
    if len(encoded) != 32 or y >= P:
        return None
    x = _root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
    if x is None or (x == 0 and odd):
        return None
    x = P - x if x % 2 != odd else x
    return x, y, 1, x * y % P


def encode(point: Point) -> bytes:
    """Return y with the lowest bit of x above it, in 32 little-endian bytes (RFC 8032 §5.1.2)."""
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y + x % 2 * SIGN_BIT).to_bytes(32, "little")


def add(one: Point, other: Point) -> Point:
    """Return the sum of any two points of the curve, equal ones too (RFC 8032 §5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0])
    b = (one[1] + one[0]) * (other[1] + other[0])
    c = 2 * D * one[3] * other[3]
    d = 2 * one[2] * other[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def negate(point: Point) -> Point:
    """Return the point that gives the identity when added to `point`."""
    return -point[0] % P, point[1], point[2], -point[3] % P


def multiply(times: int, point: Point) -> Point:
    """Return `point` added up `times` >= 0 times."""
    total = IDENTITY
    while times:
        total = add(total, point) if times % 2 else total
        point = add(point, point)
        times //= 2
    return total


def _secret(seed: bytes) -> int:
    """Return the scalar a of a seed, clamped as in RFC 8032 §5.1.5."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return number % 2**254 // 8 * 8 + 2**254


def _root(square: int) -> int | None:
    """Return a square root modulo P, None where there is none; P mod 8 is 5."""
    root = pow(square, (P + 3) // 8, P)
    if root * root % P != square:
        root = root * SQRT_MINUS_1 % P
    return root if root * root % P == square else None


def _point_at(y: int) -> Point | None:
    return decode(y.to_bytes(32, "little"))


def _torsion_points() -> tuple[Point, ...]:
    """Return the eight points i·T, where T is L times the first point (by y) that leaves one of order 8."""
    for y in count(2):
        point = _point_at(y)
        first = multiply(L, point) if point else IDENTITY
        if encode(multiply(4, first)) != encode(IDENTITY):
            return tuple(multiply(i, first) for i in range(8))
    raise AssertionError("count() has no end")


def _base() -> Point:
    point = _point_at(4 * pow(5, -1, P) % P)
    assert point is not None
    return point


BASE = _base()
TORSION = _torsion_points()
_OFF_CURVE = next(y.to_bytes(32, "little") for y in count(2) if _point_at(y) is None)
_Y_BEYOND_P = next((y + P).to_bytes(32, "little") for y in range(2, 19) if _point_at(y) is not None)


if __name__ == "__main__":
    Path(__file__).with_name("ed25519.json").write_text(as_json(cases()), encoding="utf-8")

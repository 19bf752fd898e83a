"""Names: peers, commons, statement ids, handles, codes, and their text forms (SPEC §2).

Owns the bytes and the text of every name. Knows no statement and no book. Draws no random numbers: who makes an
id hands in the randomness.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from hashlib import sha256
from typing import Final
from uuid import UUID

KEY_BYTES: Final = 32
COMMONS_BYTES: Final = 16
ID_BYTES: Final = 16

ISSUER: Final = "issuer"
POOL: Final = "pool"
ESCROW: Final = "escrow"
RESERVED_HOLDERS: Final = (ISSUER, POOL, ESCROW)

#: Whoever holds an account: a peer's key, or one of the reserved holders as str.
Holder = bytes | str

HANDLE: Final = re.compile(r"[a-z][a-z0-9_-]{1,30}")
CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9]{1,9}")
KIND: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
UNIT: Final = re.compile(r"[!-~]{1,32}")
CATEGORY: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE: Final = {char: value for value, char in enumerate(_BASE58)}
_DID_PREFIX: Final = "did:key:z"
_ED25519_MULTICODEC: Final = b"\xed\x01"
#: An Ed25519 did:key always has 47 characters after the `z`, all but the first of the multicodec's `6Mk`.
_DID_LENGTH: Final = len(_DID_PREFIX) + 47


def commons_of(found_body: bytes) -> bytes:
    """The 16-byte name of the commons that a `found` statement's body makes (SPEC §2)."""
    return sha256(b"gesell/commons/1\n" + found_body).digest()[:COMMONS_BYTES]


def uuid7(time_ms: int, randomness: bytes) -> bytes:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of `time_ms` since the Unix epoch, then 74 bits of 10 random bytes."""
    if not 0 <= time_ms < 2**48:
        raise ValueError("a UUIDv7 holds times from 1970 to the year 10889")
    if len(randomness) != 10:
        raise ValueError("a UUIDv7 takes 10 random bytes")
    tail = bytearray(randomness)
    tail[0] = 0x70 | tail[0] & 0x0F
    tail[2] = 0x80 | tail[2] & 0x3F
    return time_ms.to_bytes(6, "big") + bytes(tail)


def is_uuid7(name: bytes) -> bool:
    """Whether 16 bytes carry version 7 and the variant of RFC 9562."""
    return len(name) == ID_BYTES and name[6] >> 4 == 7 and name[8] >> 6 == 2


def time_of_id(statement_id: bytes) -> int:
    """The milliseconds since the Unix epoch that a UUIDv7 carries."""
    return int.from_bytes(statement_id[:6], "big")


@lru_cache(maxsize=16_384)
def did_of(peer: bytes) -> str:
    """The did:key text of a peer's 32-byte Ed25519 key (multicodec 0xed01, base58btc)."""
    if len(peer) != KEY_BYTES:
        raise ValueError("a peer's key has 32 bytes")
    number = int.from_bytes(_ED25519_MULTICODEC + peer, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return _DID_PREFIX + text


def holder_text(holder: Holder) -> str:
    """How to show a holder to people: a did, a reserved holder as it is, and hex for bytes that are no key."""
    if isinstance(holder, str):
        return holder
    return did_of(holder) if len(holder) == KEY_BYTES else holder.hex()


@lru_cache(maxsize=16_384)
def peer_of(did: str) -> bytes:
    """The 32-byte key that an Ed25519 did:key names; raises `ValueError` for any other text."""
    if len(did) != _DID_LENGTH or not did.startswith(_DID_PREFIX):
        raise ValueError("not the did:key of an Ed25519 key (did:key:z6Mk…)")
    number = 0
    for char in did[len(_DID_PREFIX) :]:
        if char not in _BASE58_VALUE:
            raise ValueError(f"not base58: {char!r} in a did:key")
        number = number * 58 + _BASE58_VALUE[char]
    if number >> 256 != int.from_bytes(_ED25519_MULTICODEC, "big"):
        raise ValueError("the did:key is not of an Ed25519 key")
    return (number & (2**256 - 1)).to_bytes(KEY_BYTES, "big")


def id_text(statement_id: bytes) -> str:
    """The UUID text of a statement id."""
    return str(UUID(bytes=statement_id))


def id_of(text: str) -> bytes:
    """The bytes of an id's UUID text in its usual form (8-4-4-4-12 hex digits); `ValueError` for any other."""
    try:
        name = UUID(text)
    except ValueError:
        raise ValueError("not a UUID") from None
    if str(name) != text.lower():
        raise ValueError("not a UUID in its usual form")
    return name.bytes


def base64url(data: bytes) -> str:
    """base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")


def unbase64url(text: str) -> bytes:
    """The bytes of base64url text without padding; `ValueError` for other characters or a cut text."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url without padding")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url without padding") from None


def base64_text(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4), as notes and proofs of C2SP have it."""
    return base64.b64encode(data).decode()


def unbase64(text: str) -> bytes:
    """The bytes of standard base64 in its one form, padded; `ValueError` for any other text."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64") from None
    if base64_text(data) != text:
        raise ValueError("not base64 in its one form")
    return data


def unhex(text: str, *, size: int) -> bytes:
    """The `size` bytes of twice as many hex digits; `ValueError` for any other text."""
    # `fromhex` would pass over white space, a line's end after the last digit included.
    data = bytes.fromhex(text) if len(text) == 2 * size else b""
    if len(data) != size:
        raise ValueError(f"{2 * size} hex digits")
    return data


def is_handle(text: str) -> bool:
    """Whether a text can be a member's handle: of the right letters and not a reserved holder."""
    return HANDLE.fullmatch(text) is not None and text not in RESERVED_HOLDERS

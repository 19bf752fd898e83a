"""The one Ed25519 rule of SPEC §2: which keys are taken into use, which signatures hold, and how to sign.

Owns the choice of libsodium (through PyNaCl) and the checks that it leaves to its caller. It must not know
what is signed: prefixes such as `gesell/statement/1` are added by those who know what a message means.

1. A signature holds only if key and signature have their 32 and 64 bytes. PyNaCl does not look at the key's
   length, and takes signature and message glued together, so that a byte could pass from one to the other.
2. S is below L; neither R nor the key is non-canonical or of small order; the equation without cofactor
   holds, R compared byte for byte. libsodium sees to all of this itself: `vectors/ed25519.json` holds it to
   that. (Its releases up to 1.0.22 do; its unreleased branch of 2026 would take the cofactored equation.)
3. A key is taken into use only if it is also of prime order. A signature alone does not ask for that: it
   would nearly double the cost, and a key that was never taken into use speaks for nobody.
"""

from __future__ import annotations

from functools import lru_cache

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

KEY_BYTES = 32
SEED_BYTES = 32
SIGNATURE_BYTES = 64


class BadKey(Exception):
    """The bytes are not the canonical encoding of a point of prime order."""


class BadSignature(Exception):
    """The signature does not hold for this key and message."""


def check_key(key: bytes) -> None:
    """Check that `key` may be taken into use: as a peer, a steward, an added key, or a ledger's key.

    Takes about as long as a verification, and next to nothing for one of the last 4,096 keys asked about.
    Raises BadKey, for a wrong length too.
    """
    if len(key) != KEY_BYTES or not _is_of_prime_order(key):
        raise BadKey("not the canonical encoding of an Ed25519 point of prime order")


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Check that `signature` (64 bytes) of `message` (any length) holds for `key` (32 bytes).

    It says nothing about whether `key` may be taken into use (`check_key`). Safe to call from several
    threads: libsodium works without the GIL. Raises BadSignature, for wrong lengths too.
    """
    if len(signature) != SIGNATURE_BYTES or len(key) != KEY_BYTES:
        raise BadSignature("a signature has 64 bytes and a key 32")
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        raise BadSignature("the signature does not hold") from None


class Signer:
    """A secret key made ready to sign; it keeps what would else be computed anew for every signature."""

    __slots__ = ("_expanded", "public_key")

    public_key: bytes
    """The 32 bytes that name this key."""

    def __init__(self, seed: bytes) -> None:
        """Expand `seed`, the 32 secret bytes of RFC 8032 §5.1.5. Raises ValueError for another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.public_key, self._expanded = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """Return the pure signature of `message` (RFC 8032 §5.1.6): 64 bytes, always the same ones."""
        return crypto_sign(message, self._expanded)[:SIGNATURE_BYTES]


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the signature of `message` by `seed`; who signs more than once is served faster by a Signer."""
    return Signer(seed).sign(message)


def public_key(seed: bytes) -> bytes:
    """Return the public key of `seed`, 32 bytes each. Raises ValueError for another length."""
    return Signer(seed).public_key


@lru_cache(maxsize=4096)
def _is_of_prime_order(key: bytes) -> bool:
    # Before PyNaCl 1.6.2 it said yes to keys with torsion of order 2 (CVE-2025-69277).
    return crypto_core_ed25519_is_valid_point(key)

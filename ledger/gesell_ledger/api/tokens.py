"""The tokens by which readers show who they are: JWTs that they issue themselves (RFC 7519, EdDSA as in RFC 8037).

Owns what a token must say and for how long it holds (SPEC §7.3). Knows no commons: whether the key that signed is a
live one of the peer it speaks for is for `rights` to find out. The ledger keeps no session.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gesell_protocol import ed25519
from gesell_protocol.names import did_of, peer_of

TOKEN_MAX_CHARS: Final = 4_096
LIFE_MAX_SECONDS: Final = 24 * 3600
#: A token may come from a clock that is so much ahead of ours, as statements may.
AHEAD_MAX_SECONDS: Final = 120
#: Verified tokens that are remembered, so that who asks often is verified once.
KNOWN_MAX: Final = 10_000

_REQUIRED: Final = ["iss", "sub", "aud", "iat", "exp"]


class BadToken(Exception):
    """The token does not show who asks; the message says why."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a token speaks for, and the key that signed it; times in seconds."""

    peer: bytes
    key: bytes
    issued: int
    expires: int


class Tokens:
    """Verifies tokens for one ledger. For one event loop."""

    def __init__(self, *, ledger: bytes) -> None:
        self._audience = did_of(ledger)
        # By the hash of a token, and without its claims: anybody can issue tokens, as large as they may be.
        self._known: dict[bytes, Bearer] = {}

    def verify(self, token: str, *, now_ms: int) -> Bearer:
        """Whom the token speaks for at `now_ms` of the ledger's clock; raises `BadToken`."""
        name = sha256(token.encode("utf-8", "surrogateescape")).digest()
        bearer = self._known.get(name)
        if bearer is None:
            bearer, _ = self.read(token, now_ms=now_ms)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[name] = bearer
        _check_times(bearer, now_ms // 1000)
        return bearer

    def read(self, token: str, *, now_ms: int) -> tuple[Bearer, dict[str, Any]]:
        """Whom the token speaks for, as `verify` says it, and all its claims, which are not remembered."""
        if len(token) > TOKEN_MAX_CHARS:
            raise BadToken(f"a token has at most {TOKEN_MAX_CHARS} characters")
        bearer, claims = self._read(token)
        _check_times(bearer, now_ms // 1000)
        return bearer, claims

    def _read(self, token: str) -> tuple[Bearer, dict[str, Any]]:
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
            peer = _peer(unverified["payload"].get("iss"), "iss")
            kid = unverified["header"].get("kid")
            key = peer if kid is None else _peer(kid, "kid")
            # Times are judged by the ledger's clock, below; PyJWT would take the machine's.
            claims = jwt.decode(
                token,
                _public_key(key),
                algorithms=["EdDSA"],
                audience=self._audience,
                options={
                    "require": _REQUIRED,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ed25519.BadKey, ValueError, TypeError, RecursionError) as error:
            raise BadToken(f"not a token for this ledger: {error}") from None
        if claims["sub"] != claims["iss"]:
            raise BadToken("iss and sub are the same did: who reads issues the token itself")
        times = [claims["iat"], claims["exp"]]
        if any(type(time) is not int or not 0 <= time < 2**53 for time in times) or "nbf" in claims:
            raise BadToken("iat and exp are whole seconds, and nbf is not used")
        return Bearer(peer, key, claims["iat"], claims["exp"]), claims


def _peer(did: object, where: str) -> bytes:
    if not isinstance(did, str):
        raise BadToken(f"{where} is a did:key")
    try:
        return peer_of(did)
    except ValueError as error:
        raise BadToken(f"{where}: {error}") from None


def _public_key(key: bytes) -> Ed25519PublicKey:
    # Under a key of small order, anybody could sign.
    ed25519.check_key(key)
    return Ed25519PublicKey.from_public_bytes(key)


def _check_times(bearer: Bearer, now: int) -> None:
    if bearer.expires - bearer.issued > LIFE_MAX_SECONDS:
        raise BadToken(f"a token lives at most {LIFE_MAX_SECONDS} seconds")
    if bearer.issued > now + AHEAD_MAX_SECONDS:
        raise BadToken(f"iat is {bearer.issued - now} seconds ahead of the ledger's clock")
    if bearer.expires <= now:
        raise BadToken(f"it expired {now - bearer.expires} seconds ago by the ledger's clock")

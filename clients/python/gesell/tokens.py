"""Tokens: how a reader shows a ledger who it is (SPEC §7.3).

Owns the making of the JWT that a peer issues for itself, and how long one is used again. Knows neither HTTP nor where
the ledger's did and its time come from.

1. A token says: this peer reads, at this ledger, until then. It moves nothing; who steals one may read for minutes.
2. It lives as long as a statement does by default, 5 minutes of real time, and never longer than the protocol's 24
   hours of the ledger's clock. It is used for half of its life, so that it does not expire on the way.
3. On a demo clock so fast that 24 hours pass within a minute, each request gets a token of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from gesell.clock import LedgerClock
from gesell.peer import Peer
from gesell_protocol.names import base64url, did_of

TOKEN_MAX_MS: Final = 24 * 3600 * 1000
#: A token that lives shorter than this in real time is not kept.
KEPT_FROM_MS: Final = 60_000


class Tokens:
    """The tokens with which `peer` reads for `by` (the 32-byte key that names who reads)."""

    def __init__(self, peer: Peer, *, by: bytes) -> None:
        self._peer = peer
        self._by = by
        self._token = ""
        self._ledger = ""
        self._use_until_ms = -1

    def kept(self, *, ledger: str, clock: LedgerClock) -> str | None:
        """The last token, if it is for this ledger and may still be used."""
        # A clock that is in doubt may have jumped, and the token's times with it.
        good = self._ledger == ledger and clock.is_known and clock.now_ms() < self._use_until_ms
        return self._token if good else None

    def new(self, *, ledger: str, clock: LedgerClock) -> str:
        """A token for the ledger of this did, by its clock, which must have been sampled."""
        now_ms = clock.now_ms()
        life_ms = min(clock.lifetime_ms(), TOKEN_MAX_MS)
        self._token = write_token(
            self._peer, by=self._by, ledger=ledger, issued_s=now_ms // 1000, expires_s=(now_ms + life_ms) // 1000
        )
        self._ledger = ledger
        self._use_until_ms = now_ms + life_ms // 2 if life_ms // clock.speed >= KEPT_FROM_MS else -1
        return self._token

    def forget(self) -> None:
        """Use the last token no more."""
        self._use_until_ms = -1


def write_token(
    peer: Peer,
    *,
    by: bytes,
    ledger: str,
    issued_s: int,
    expires_s: int,
    more: Mapping[str, object] | None = None,
) -> str:
    """A JWT (RFC 7519) signed with EdDSA (RFC 8037): `by` reads at `ledger`; times in seconds of its clock.

    An added key that signs for `by` names itself in the header's `kid`. `more` are the claims of a request that
    is signed as a whole.
    """
    header = {"alg": "EdDSA", "typ": "JWT"}
    if peer.key != by:
        header["kid"] = peer.did
    name = did_of(by)
    claims = {"iss": name, "sub": name, "aud": ledger, "iat": issued_s, "exp": expires_s, **(more or {})}
    signed = f"{_part(header)}.{_part(claims)}"
    # The first bytes are `{"alg":…` in base64url, so that this signature can't pass for one of a statement.
    return f"{signed}.{base64url(peer.sign(signed.encode()))}"


def _part(value: Mapping[str, object]) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())

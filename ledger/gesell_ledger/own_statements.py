"""What the ledger itself signs as statements (SPEC §3.6), and how it is sent through the sequence like everybody's.

Owns the envelope around a ledger's own words. When the ledger speaks is the housekeeper's matter, or the operator's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gesell_ledger.core.decide import Submission
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope
from gesell_protocol.names import uuid7
from gesell_protocol.statements import EXPIRES_MAX_MS, read_statement, write_body


def own_statement(
    kind: str, fields: Mapping[str, Any], *, commons: bytes, now_ms: int, signer: Signer, beside: Signer | None = None
) -> Submission:
    """A statement of type `kind` by the ledger whose key is `signer`'s, dated `now_ms`; `beside` signs it too."""
    body = write_body(
        {
            "type": kind,
            "commons": commons,
            "by": signer.public_key,
            "id": uuid7(now_ms, os.urandom(10)),
            "expires": now_ms + EXPIRES_MAX_MS,
            **fields,
        }
    )
    signers = [signer] if beside is None else [signer, beside]
    signatures = sorted((one.public_key, one.sign(STATEMENT_PREFIX + body)) for one in signers)
    envelope = Envelope(body, tuple(signatures))
    return Submission(envelope, read_statement(envelope))

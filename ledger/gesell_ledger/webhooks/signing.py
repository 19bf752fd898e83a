"""Messages by the Standard Webhooks specification 1.0.0: ids, headers, HMAC-SHA256 (`v1`).

Owns what an endpoint verifies. The specification has asymmetric signatures too; the ledger's key does not make them,
since one key for all endpoints would let who receives a message pass it on to another endpoint as meant for that one.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import Final

SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "whsec_"
#: What a message's id, time and signature are sent as.
HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")


def secret_text(secret: bytes) -> str:
    """A secret as receivers take it."""
    return SECRET_PREFIX + b64encode(secret).decode()


def sign_message(body: bytes, *, secret: bytes, message_id: str, now_s: int) -> dict[str, str]:
    """The headers of one attempt; `message_id`, which has no full stop, is the same in all attempts."""
    signed = f"{message_id}.{now_s}.".encode() + body
    signature = b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return dict(zip(HEADERS, (message_id, str(now_s), f"v1,{signature}"), strict=True))

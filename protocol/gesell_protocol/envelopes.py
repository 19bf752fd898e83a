"""Envelopes and sealed memos (SPEC §3): a body, its signatures, and the text that may travel beside it.

Owns the outer form of what is submitted, its sizes, the bytes that are signed, and the seal of a memo. Knows
nothing of what the body says.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from gesell_protocol import ed25519
from gesell_protocol.canonical import pack
from gesell_protocol.names import holder_text
from gesell_protocol.refusals import Rejected

BODY_MAX_BYTES: Final = 16 * 1024
ENVELOPE_MAX_BYTES: Final = 20 * 1024
SIGNATURES_MAX: Final = 16
MEMO_MAX_CHARS: Final = 1_000
SALT_BYTES: Final = 16

#: What is signed is this prefix and the body, so that no signature for another purpose can pass for a statement.
STATEMENT_PREFIX: Final = b"gesell/statement/1\n"
MEMO_PREFIX: Final = b"gesell/memo/1\n"


@dataclass(frozen=True, slots=True)
class Memo:
    """A text of at most 1,000 characters for the readers of an entry, and the 16 random bytes that seal it."""

    salt: bytes
    text: str

    def seal(self) -> bytes:
        """The 32 bytes that stand in the body: they bind the text and tell nothing of it."""
        return sha256(MEMO_PREFIX + self.salt + self.text.encode()).digest()


class Envelope(NamedTuple):
    """A body with 1 to 16 (key, signature) pairs in ascending order of key, and maybe its memo's text."""

    body: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    memo: Memo | None = None

    def __repr__(self) -> str:
        return f"<Envelope of {len(self.body)} bytes, signed by {', '.join(holder_text(key) for key in self.signers)}>"

    @property
    def signers(self) -> tuple[bytes, ...]:
        """The keys that signed, ascending."""
        return tuple([key for key, _ in self.signatures])

    def wire(self) -> list[object]:
        """The array of SPEC §3, ready to be packed."""
        array: list[object] = [self.body, [[key, signature] for key, signature in self.signatures]]
        if self.memo is not None:
            array.append([self.memo.salt, self.memo.text])
        return array


def read_envelope(value: object) -> Envelope:
    """Make an `Envelope` of a decoded array; raises `Rejected` (`malformed` or `too-large`).

    Checks forms and sizes only: neither the body nor a signature is looked into.
    """
    if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= 3:
        raise Rejected("malformed", "an envelope is [body, signatures] or [body, signatures, [salt, text]]")
    body = value[0]
    if type(body) is not bytes:
        raise Rejected("malformed", "the body of an envelope is bin")
    if len(body) > BODY_MAX_BYTES:
        raise Rejected("too-large", f"a body has at most {BODY_MAX_BYTES} bytes")
    memo = _read_memo(value[2]) if len(value) == 3 else None
    envelope = Envelope(body, _read_signatures(value[1]), memo)
    # Only a long body beside many signatures and a memo can pass the bound, so most envelopes are not packed again.
    if len(body) > ENVELOPE_MAX_BYTES // 2 and len(pack(envelope.wire())) > ENVELOPE_MAX_BYTES:
        raise Rejected("too-large", f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
    return envelope


def _read_signatures(value: object) -> tuple[tuple[bytes, bytes], ...]:
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= SIGNATURES_MAX:
        raise Rejected("malformed", f"an envelope has 1 to {SIGNATURES_MAX} signatures")
    signatures = []
    last = b""
    for item in value:
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise Rejected("malformed", "a signature is [key, signature]")
        key, signature = item
        if type(key) is not bytes or len(key) != 32 or type(signature) is not bytes or len(signature) != 64:
            raise Rejected("malformed", "a key is bin of 32 bytes, a signature bin of 64")
        if key <= last:
            raise Rejected("malformed", "signatures stand in ascending order of their keys, each key once")
        last = key
        signatures.append((key, signature))
    return tuple(signatures)


def _read_memo(value: object) -> Memo:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise Rejected("malformed", "a memo beside an envelope is [salt, text]")
    salt, text = value
    if type(salt) is not bytes or len(salt) != SALT_BYTES:
        raise Rejected("malformed", f"a memo's salt is bin of {SALT_BYTES} bytes")
    if type(text) is not str or len(text) > MEMO_MAX_CHARS or has_control_characters(text, but="\n\t"):
        raise Rejected("malformed", f"a memo is text of at most {MEMO_MAX_CHARS} characters, no control characters")
    return Memo(salt, text)


def has_control_characters(text: str, *, but: str = "") -> bool:
    """Whether a text holds a control character (Unicode category Cc) other than those in `but`, or a surrogate."""
    return not text.isprintable() and any(
        unicodedata.category(char) in ("Cc", "Cs") and char not in but for char in text
    )


def verify_envelope(envelope: Envelope) -> None:
    """Verify every signature; raises `Rejected` with `bad-signature` at the first that does not hold."""
    message = STATEMENT_PREFIX + envelope.body
    for key, signature in envelope.signatures:
        try:
            ed25519.verify(key, message, signature)
        except ed25519.BadSignature as error:
            raise Rejected("bad-signature", f"the signature by key {key.hex()} does not verify: {error}") from None

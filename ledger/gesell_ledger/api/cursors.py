"""Cursors of a list that passes over what is hidden: they say where a page begins, and tell nobody but us.

Owns how a place among all commons becomes a cursor and comes back. It must not know which commons are hidden: the last
one that a page looked at may be, and so may any other, so every cursor is written in the same way.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gesell_protocol.names import base64url

#: The part of a commons' name that says where it stands among the others.
PLACE_BYTES: Final = 8
_ZEROS: Final = bytes(8)


class Cursors:
    """Writes and reads cursors under a key of its own, made from the ledger's: every service of a ledger reads them."""

    def __init__(self, seed: bytes) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"gesell cursors v1").derive(seed)
        # A cursor is one block, so ECB is the bare cipher; the zeros in it tell a cursor of ours from a guess.
        self._cipher = Cipher(AES(key), ECB())

    def write(self, commons: bytes) -> str:
        """The cursor of the place of a commons: 22 characters, for one place always the same."""
        return base64url(self._cipher.encryptor().update(commons[:PLACE_BYTES] + _ZEROS))

    def read(self, cursor: bytes) -> bytes:
        """The first 8 bytes of the name of the commons that was there; `ValueError` for 16 bytes of another origin."""
        block = self._cipher.decryptor().update(cursor)
        if block[PLACE_BYTES:] != _ZEROS:
            raise ValueError("take it from the Link of the page before")
        return block[:PLACE_BYTES]

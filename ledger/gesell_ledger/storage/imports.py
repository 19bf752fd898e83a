"""How a commons is marked while its log is imported: no key speaks for it, so that no service starts on it by half.

A log that went on from the middle would be another one than its ledger has signed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection

_IMPORTS = queries("imports")

#: Stands in the place of the ledger's key; 32 bytes of which nobody knows a secret.
UNFINISHED: Final = sha256(b"the log of this commons is imported by half").digest()


async def mark_unfinished(connection: Connection, commons: bytes) -> None:
    """Note, in the transaction that stores a batch, that more is to come."""
    await connection.execute(_IMPORTS["speak_for"], rows.key_of(commons), UNFINISHED)

"""Logs in memory as files: leaf data under a checkpoint that the test ledger signed.

Owns how a test makes a log file of entries, true ones or others. Must not know any reader of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import leaf_hash, read_leaf, write_bundle, write_file_head
from gesell_protocol.names import commons_of
from gesell_protocol.notes import Note, sign_checkpoint
from gesell_protocol.tree import Frontier
from tests.histories import LEDGER

#: Who signs for `tests.histories.LEDGER`.
LEDGER_SIGNER: Final = Signer(sha256(b"a test peer called the ledger").digest())
assert LEDGER_SIGNER.public_key == LEDGER


def checkpoint_over(entries: Sequence[bytes], *, signer: Signer = LEDGER_SIGNER) -> Note:
    """The signed checkpoint of a log with this leaf data; its commons is the one that entry 1 founds."""
    tree, _ = Frontier().grown(map(leaf_hash, entries))
    commons = commons_of(read_leaf(entries[0]).body)
    return sign_checkpoint(commons=commons, size=tree.size, root=tree.root, signer=signer)


def log_file(entries: Sequence[bytes], *, signer: Signer = LEDGER_SIGNER, note: Note | None = None) -> bytes:
    """A log file of this leaf data, under its own checkpoint or another."""
    return write_file_head(str(note or checkpoint_over(entries, signer=signer))) + write_bundle(entries)


def entry_of(data: bytes) -> Envelope:
    """What was signed in an entry."""
    leaf = read_leaf(data)
    return Envelope(leaf.body, leaf.signatures)

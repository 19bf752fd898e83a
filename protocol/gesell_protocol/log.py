"""The log's leaves (SPEC §6, RFC 6962 §2.1): the bytes of an entry that anybody can hash again.

Owns leaf data and leaf hash. The tree over the leaves, its tiles and checkpoints come later and stand on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from gesell_protocol.canonical import pack_array
from gesell_protocol.names import Holder, holder_text


class Posting(NamedTuple):
    """One line of an entry: why, whose account, which asset, how many grains (SPEC §4)."""

    reason: str
    holder: Holder
    asset: str
    amount: int

    def __repr__(self) -> str:
        return f"<{self.reason} {self.amount:+d} grains of {self.asset} {holder_text(self.holder)}>"


#: Signatures as they stand in an envelope: (key, signature) pairs in ascending order of key.
Signatures = Sequence[tuple[bytes, bytes]]


def leaf_data(*, seq: int, at_ms: int, body: bytes, signatures: Signatures, postings: Sequence[Posting]) -> bytes:
    """The canonical bytes of entry `seq`, accepted at `at_ms`: what the log commits to."""
    return bytes(pack_array((seq, at_ms, (body, signatures), postings)))


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte RFC 6962 hash of one leaf."""
    return sha256(b"\x00" + data).digest()


def leaf_of(*, seq: int, at_ms: int, body: bytes, signatures: Signatures, postings: Sequence[Posting]) -> bytes:
    """The leaf hash of an entry from its parts: what whoever holds an entry or a receipt computes again."""
    return leaf_hash(leaf_data(seq=seq, at_ms=at_ms, body=body, signatures=signatures, postings=postings))

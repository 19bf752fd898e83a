"""Logs made for tests, honest and forked ones, and what they submit to a witness.

Owns trees in memory, with every leaf kept. Judges no answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from gesell_ledger.witness.submissions import Submission, read_submission
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import base64_text
from gesell_protocol.notes import Checkpoint, Note, sign_note
from gesell_protocol.tree import Frontier, consistency_spans, node_hash


class GrowingLog:
    """A log as a list of leaf hashes; `forked` makes another that begins the same. Its key's name is its origin."""

    def __init__(self, origin: str, signer: Signer, leaves: Iterable[bytes] = ()) -> None:
        self.origin = origin
        self.signer = signer
        self.leaves = list(leaves)

    def grow(self, count: int, *, salt: str = "") -> GrowingLog:
        """Add some leaves, which are others for another salt."""
        size = len(self.leaves)
        self.leaves += [sha256(f"leaf {size + n} {salt}".encode()).digest() for n in range(count)]
        return self

    def forked(self, at: int) -> GrowingLog:
        """A log of the same origin and key with the first leaves of this one."""
        return GrowingLog(self.origin, self.signer, self.leaves[:at])

    def root(self, size: int) -> bytes:
        """The root over the first leaves."""
        return Frontier().grown(self.leaves[:size])[0].root

    def prove(self, old: int, new: int) -> list[bytes]:
        """The proof that the tree of `new` leaves begins with that of `old`, by the definition of RFC 6962."""
        return [self._hash(start, end) for start, end in consistency_spans(old, new)]

    def checkpoint(self, size: int | None = None, *, extension: str = "") -> Note:
        """The signed checkpoint of the first leaves, or of all."""
        size = len(self.leaves) if size is None else size
        extensions = (extension,) if extension else ()
        text = Checkpoint(self.origin, size, self.root(size), extensions).text()
        return sign_note(text, name=self.origin, signer=self.signer)

    def submission(self, old: int, size: int | None = None) -> bytes:
        """The body that submits the first leaves, or all, to a witness that saw `old` of them."""
        size = len(self.leaves) if size is None else size
        return write_submission(old, self.prove(old, size) if old <= size else [], self.checkpoint(size))

    def _hash(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self.leaves[start]
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        return node_hash(self._hash(start, split), self._hash(split, end))


def write_submission(old: int | str, proof: Iterable[bytes], note: Note | str) -> bytes:
    """The body of an add-checkpoint request."""
    return "".join([f"old {old}\n", *(f"{base64_text(one)}\n" for one in proof), "\n", str(note)]).encode()


def read(body: bytes) -> Submission:
    """The submission that a body is."""
    return read_submission(body)

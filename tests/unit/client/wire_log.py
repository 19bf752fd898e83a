"""The log of the client tests' ledger: real leaves, tiles, checkpoints and proofs, of the protocol's own parts.

It can be copied, cut and written over, so that a ledger which shows it lies; what it signs then is what a lying ledger
would sign, since the tree is always computed from the leaves that are there.
"""

from __future__ import annotations

from collections.abc import Iterable

from gesell import Peer
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope
from gesell_protocol.log import leaf_hash
from gesell_protocol.names import uuid7
from gesell_protocol.notes import WITNESS_KEY, Note, NoteKey, cosign, sign_checkpoint
from gesell_protocol.proofs import write_receipt
from gesell_protocol.statements import write_body
from gesell_protocol.tree import Frontier, Tile, hash_of, inclusion_spans, tile_width, tiles_for


class WireLog:
    """Leaf data in order, and who signs checkpoints of it."""

    def __init__(self, commons: bytes, signer: bytes, entries: Iterable[bytes] = ()) -> None:
        self.commons = commons
        #: The seed of the key that signs.
        self.signer = signer
        self.entries = list(entries)
        self.handovers: list[Envelope] = []
        self._rows: list[list[bytes]] = [[]]

    def copy(self, *, size: int | None = None) -> WireLog:
        """The same log, or its beginning, to go on by itself."""
        other = WireLog(self.commons, self.signer, self.entries[:size])
        other.handovers = list(self.handovers)
        return other

    def append(self, data: bytes) -> None:
        """One more entry."""
        self.entries.append(data)

    def rewrite(self, seq: int, data: bytes) -> None:
        """Put another entry in the place of one."""
        self.entries[seq - 1] = data
        self._rows = [[]]

    def frontier(self, size: int | None = None) -> Frontier:
        """The tree of the entries, or of the first of them."""
        return Frontier().grown(leaf_hash(data) for data in self.entries[:size])[0]

    def checkpoint(self, size: int | None = None, *, signer: bytes | None = None) -> Note:
        """The signed checkpoint of the log, or of its beginning."""
        tree = self.frontier(size)
        return sign_checkpoint(
            commons=self.commons, size=tree.size, root=tree.root, signer=Signer(signer or self.signer)
        )

    def tile(self, tile: Tile) -> bytes | None:
        """A tile, or None if the tree does not reach so far."""
        if tile.level > 7 or tile.width > tile_width(tile.level, tile.place, len(self.entries)):
            return None
        row = self._row(tile.level)
        return b"".join(row[tile.place * 256 : tile.place * 256 + tile.width])

    def tiles_for(self, spans: list[tuple[int, int]], size: int) -> dict[Tile, bytes]:
        """The tiles that a proof is made of."""
        return {tile: self.tile(tile) or b"" for tile in tiles_for(spans, size)}

    def receipt(self, index: int, note: Note, size: int) -> str:
        """The offline receipt of an entry under a checkpoint of this log."""
        spans = inclusion_spans(index, size)
        tiles = self.tiles_for(spans, size)
        hashes = [hash_of(start, end, size, tiles) for start, end in spans]
        return write_receipt(self.entries[index], index=index, hashes=hashes, note=note, handovers=self.handovers)

    def _row(self, level: int) -> list[bytes]:
        """The hashes of a level, kept and added to as the log grows."""
        while len(self._rows) <= level:
            self._rows.append([])
        row = self._rows[level]
        if level == 0:
            row += [leaf_hash(data) for data in self.entries[len(row) :]]
            return row
        below = self._row(level - 1)
        for place in range(len(row), len(below) // 256):
            row.append(Frontier().grown(below[place * 256 : place * 256 + 256])[0].root)
        return row


class WireWitness:
    """A witness that cosigns whatever it is shown."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.name = name
        self.signer = Signer(seed)
        self.key = NoteKey(name, self.signer.public_key, WITNESS_KEY)

    def cosign(self, note: Note, *, time_s: int = 1_800_000_000) -> Note:
        """The note with one more line."""
        return note.with_signatures([cosign(note, name=self.name, signer=self.signer, time_s=time_s)])


def rekey(commons: bytes, old: Peer, new: Peer, *, signers: Iterable[Peer] | None = None) -> Envelope:
    """A statement that hands a ledger's key over, signed by both unless told otherwise."""
    body = write_body(
        {
            "type": "rekey",
            "commons": commons,
            "by": old.key,
            "id": uuid7(2_000_000, bytes(10)),
            "expires": 2_000_001,
            "ledger": new.key,
        }
    )
    by = (old, new) if signers is None else tuple(signers)
    return Envelope(body, tuple(sorted((peer.key, peer.sign(STATEMENT_PREFIX + body)) for peer in by)))

"""Where an export comes from: the log of a ledger's commons, or a log file; and the proof that it came whole.

Owns how the entries are had, piece by piece, and `Proving`, which holds them against the checkpoint. Knows no format
that they are written in. What the entries say is not judged here: that is `gesell audit`.

1. The checkpoint comes first; then exactly as many entries as it covers. What is appended meanwhile waits for the next
   export.
2. An export holds only if the entries hash to the checkpoint's root, and the checkpoint is signed by the key that the
   founding names, or by the one to which it was handed over in the log itself.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Generic, TypeVar

from gesell.log_reader import LogReader
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import leaf_hash, read_file_entries, read_file_head, read_leaf, unpacked
from gesell_protocol.notes import BadNote, Checkpoint, Note, read_checkpoint, read_note, verify_checkpoint
from gesell_protocol.proofs import BadReceipt, follow
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Found, Rekey, Statement, read_statement
from gesell_protocol.tree import TILE_WIDTH, Frontier

#: Bundles asked for before the one at hand is written.
AHEAD: Final = 4
Pieces = TypeVar("Pieces")


class BadLog(ValueError):
    """The log is not what its checkpoint says, or can't be read; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[Pieces]):
    """A log: its checkpoint, and the leaf data of its entries from the first on, in pieces; neither verified."""

    note: Note
    checkpoint: Checkpoint
    pieces: Pieces


def ledger_source(log: LogReader, note: Note) -> Source[AsyncIterator[Sequence[bytes]]]:
    """The log of a commons as a ledger serves it, up to a checkpoint; the entries of some bundles are fetched ahead."""
    checkpoint = _checkpoint_of(note)
    return Source(note=note, checkpoint=checkpoint, pieces=_bundles(log, checkpoint.size))


async def _bundles(log: LogReader, size: int) -> AsyncIterator[Sequence[bytes]]:
    coming: deque[asyncio.Task[list[bytes]]] = deque()
    widths = ((place, min(TILE_WIDTH, size - place * TILE_WIDTH)) for place in range(-(-size // TILE_WIDTH)))
    try:
        for place, width in widths:
            coming.append(asyncio.create_task(log.bundle(place, width)))
            if len(coming) > AHEAD:
                yield await coming.popleft()
        while coming:
            yield await coming.popleft()
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)


@contextmanager
def file_source(path: Path) -> Iterator[Source[Iterator[Sequence[bytes]]]]:
    """The log in a file, compressed by gzip or not; raises `BadLog` for a file that is none."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadLog(f"{path} can't be read: {error.strerror}") from None
    with file:
        with _faults_told(path):
            opened = unpacked(file)
            note = read_note(read_file_head(opened))
            checkpoint = _checkpoint_of(note)
        yield Source(note=note, checkpoint=checkpoint, pieces=_file_pieces(opened, path))


def _file_pieces(file: BinaryIO, path: Path) -> Iterator[Sequence[bytes]]:
    piece: list[bytes] = []
    with _faults_told(path):
        for data in read_file_entries(file):
            piece.append(data)
            if len(piece) == TILE_WIDTH:
                yield piece
                piece = []
    yield piece


@contextmanager
def _faults_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BadLog(f"{path} is cut off, or was not compressed whole") from None
    except Rejected as rejected:
        raise BadLog(f"{path}: {rejected.refusal.detail}") from None
    except BadNote as error:
        raise BadLog(f"{path}: its checkpoint can't be read: {error}") from None
    except OSError as error:
        raise BadLog(f"{path} can't be read: {error.strerror or error}") from None


def _checkpoint_of(note: Note) -> Checkpoint:
    try:
        return read_checkpoint(note)
    except BadNote as error:
        raise BadLog(f"the checkpoint can't be read: {error}") from None


class Proving:
    """Holds entries, as they pass, against a checkpoint (rule 2). Memory does not grow with the log."""

    def __init__(self, source: Source[Any]) -> None:
        self._note = source.note
        self._checkpoint = source.checkpoint
        self._tree = Frontier()
        self._found: Found | None = None
        self._handovers: list[Envelope] = []

    def take(self, piece: Sequence[bytes]) -> None:
        """Take the next entries in; raises `BadLog` for more than there should be."""
        if self._tree.size + len(piece) > self._checkpoint.size:
            raise BadLog(f"the log has more entries than the {self._checkpoint.size} that its checkpoint covers")
        for seq, data in enumerate(piece, self._tree.size + 1):
            if seq == 1:
                statement, _ = _spoken(data, seq)
                if not isinstance(statement, Found):
                    raise BadLog("entry 1 founds no commons")
                self._found = statement
            elif b"rekey" in data:
                self._note_handover(data, seq)
        self._tree, _ = self._tree.grown(map(leaf_hash, piece))

    def finish(self) -> None:
        """Check that all entries came and are those of the checkpoint; raises `BadLog`."""
        if self._found is None or self._tree.size < self._checkpoint.size:
            raise BadLog(f"the log ends after {self._tree.size} of the {self._checkpoint.size} entries it should have")
        try:
            keys = follow(self._found.ledger, self._handovers, commons=self._found.commons)
            verify_checkpoint(self._note, commons=self._found.commons, ledger=keys[-1])
        except (BadNote, BadReceipt) as error:
            raise BadLog(f"the log's checkpoint does not hold: {error}") from None
        if self._tree.root != self._checkpoint.root:
            raise BadLog("the entries are not those that the log's checkpoint was signed over")

    def _note_handover(self, data: bytes, seq: int) -> None:
        # Of an entry that is of another kind, or can't be read, nothing is said here: the root decides.
        with suppress(BadLog):
            statement, envelope = _spoken(data, seq)
            if isinstance(statement, Rekey):
                self._handovers.append(envelope)


def _spoken(data: bytes, seq: int) -> tuple[Statement, Envelope]:
    try:
        leaf = read_leaf(data)
        envelope = Envelope(leaf.body, leaf.signatures)
        return read_statement(envelope, min_tick_seconds=1), envelope
    except Rejected as rejected:
        raise BadLog(f"entry {seq} can't be read: {rejected.refusal.detail}") from None

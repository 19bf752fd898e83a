"""A log as a file (SPEC §6.5), gzip or not: read piece by piece, never whole.

Owns the way from a path to entries. Judges nothing but that it is a log file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from gesell_ledger.auditor.checks import FORM
from gesell_ledger.auditor.findings import Wrong
from gesell_protocol.log import leaf_hash, read_file_entries, read_file_head, unpacked
from gesell_protocol.refusals import Rejected
from gesell_protocol.tree import Frontier

#: Entries that are handed on at a time.
PIECE: Final = 256


class LogFile:
    """A log file that is open: its checkpoint, unverified, then its entries, once. Close it after use.

    Everything raises `Wrong` where the bytes are no log file; opening raises `OSError` where there is none.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and read its checkpoint."""
        self._raw = path.open("rb")
        self._file = unpacked(self._raw)
        try:
            with _reading():
                self.note = read_file_head(self._file)
        except Wrong:
            self.close()
            raise
        self._entries = read_file_entries(self._file)

    def entries(self) -> Iterator[list[bytes]]:
        """The entries that were not read yet, some at a time."""
        while True:
            piece = list[bytes]()
            try:
                with _reading():
                    for data in islice(self._entries, PIECE):
                        piece.append(data)
            except Wrong:
                # What came before the fault is judged first: it may be wrong in an earlier place.
                if piece:
                    yield piece
                raise
            if not piece:
                return
            yield piece

    def skip(self, sizes: Collection[int]) -> dict[int, bytes]:
        """Pass over entries up to the greatest of some sizes; the roots that the log has there.

        Where it ends before the greatest, the root at its end is there instead of those beyond.
        """
        roots, frontier = dict[int, bytes](), Frontier()
        for size in sorted(sizes):
            while frontier.size < size:
                with _reading():
                    ahead = min(PIECE, size - frontier.size)
                    hashes = [leaf_hash(data) for data in islice(self._entries, ahead)]
                if not hashes:
                    return {**roots, frontier.size: frontier.root}
                frontier, _ = frontier.grown(hashes)
            roots[size] = frontier.root
        return roots

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except Rejected as rejected:
        raise Wrong(FORM, rejected.refusal.detail) from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise Wrong(FORM, f"the file is not whole as gzip: {error}") from None

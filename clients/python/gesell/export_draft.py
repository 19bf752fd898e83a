"""A file that has its name only once it is whole.

Owns the draft beside it, the compression that the name asks for, and the flushing to disk. Knows nothing of what is
written.
"""

from __future__ import annotations

import gzip
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

STDOUT: Final = "-"


@contextmanager
def draft_of(name: str) -> Iterator[BinaryIO]:
    """A file to write, which takes the name when the block ends well, in one step, in place of what had it.

    If the block ends otherwise, nothing of it is left and what had the name still has it. `-` is the standard output,
    where what was written stays. Compressed by gzip, the same bytes for the same content, if the name ends in `.gz`.
    Raises `OSError` for a place where it can't be, and `ValueError` for one that is no file.
    """
    if name == STDOUT:
        out = Stdout()
        yield cast(BinaryIO, out)
        out.flush()
        return
    # A link keeps pointing where it did: what it names is replaced.
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        raise ValueError(f"{name} is no file that could be written anew")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    try:
        with draft.open("xb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


class Stdout:
    """The standard output as a file that is only appended to: it knows how far it is, though a pipe does not."""

    closed = False

    def __init__(self) -> None:
        self._written = 0

    def write(self, data: bytes) -> int:
        """Write some bytes."""
        sys.stdout.buffer.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._written

    def flush(self) -> None:
        """Hand on what was written."""
        sys.stdout.buffer.flush()

    def readable(self) -> bool:
        """It is not read."""
        return False

    def writable(self) -> bool:
        """It is written."""
        return True

    def seekable(self) -> bool:
        """What was written stays."""
        return False

    def close(self) -> None:
        """The standard output is not ours to close."""

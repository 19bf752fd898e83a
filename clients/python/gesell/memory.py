"""What a client remembers of each commons' log from one run to the next: the last checkpoint that held.

Owns the form of it and the two places where it can be kept, for the life of a client or in a folder. What is read back
was verified before and is verified again; that it was not tampered with here is for the owner of the folder.

A commons' name binds the ledger that it was founded at, so one file a commons is one a ledger too: a copy of it at
another address that shows another history is just what is to be noticed.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gesell.answers import json_envelope, read_json_envelope
from gesell.check_errors import MemoryFileError
from gesell.key_notes import sync_folder
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of, peer_of
from gesell_protocol.notes import Checkpoint, Note, read_note
from gesell_protocol.proofs import follow, verify_followed

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A checkpoint that held: its note, the ledger's keys from the one trusted first to the one that signed it.

    `handovers` lead from each key to the next. `since_ms` (this machine's clock) and `since_size` say from when and
    from how many entries on the log has been looked after.
    """

    note: Note
    checkpoint: Checkpoint
    keys: tuple[bytes, ...]
    handovers: tuple[Envelope, ...]
    since_ms: int
    since_size: int

    def text(self) -> str:
        """As JSON, for a `Memory`."""
        fields = {
            "checkpoint": str(self.note),
            "ledger": did_of(self.keys[0]),
            "handovers": [json_envelope(envelope) for envelope in self.handovers],
            "since": self.since_ms,
            "since_size": self.since_size,
        }
        return json.dumps(fields, indent=2) + "\n"


def read_remembered(text: str, *, commons: bytes) -> Remembered:
    """What was remembered of a commons' log; raises `ValueError` for anything else, and for what does not verify."""
    fields: dict[str, Any] = json.loads(text)
    try:
        note = read_note(fields["checkpoint"])
        handovers = tuple(read_json_envelope(item) for item in fields["handovers"])
        ledger = peer_of(fields["ledger"])
        keys = follow(ledger, handovers, commons=commons)
        checkpoint, signer = verify_followed(note, commons=commons, ledger=ledger, handovers=handovers)
        since_ms, since_size = int(fields["since"]), int(fields["since_size"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no checkpoint is remembered there: {error!r}") from None
    return Remembered(
        note=note,
        checkpoint=checkpoint,
        keys=keys[: keys.index(signer) + 1],
        handovers=handovers,
        since_ms=since_ms,
        since_size=since_size,
    )


class Memory(Protocol):
    """Where a text for each commons (32 hex digits) is kept. Called in threads of their own, so it may block."""

    def load(self, commons: str) -> str | None:
        """The text, or None where there is none yet. Raises `MemoryFileError`."""

    def replace(self, commons: str, *, old: str | None, new: str) -> bool:
        """Keep `new` for good if `old` is what is kept, else change nothing and say False. Raises `MemoryFileError`."""


class LifeMemory:
    """Remembers as long as the program keeps it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}

    def load(self, commons: str) -> str | None:
        """The text of a commons."""
        return self._texts.get(commons)

    def replace(self, commons: str, *, old: str | None, new: str) -> bool:
        """Keep a text in place of `old`."""
        with self._lock:
            if self._texts.get(commons) != old:
                return False
            self._texts[commons] = new
            return True


class FolderMemory:
    """Remembers in a folder, one file a commons, replaced whole; several programs may share it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path_of(self, commons: str) -> Path:
        """The file of a commons."""
        return self.folder / f"{commons}.json"

    def load(self, commons: str) -> str | None:
        """The text of a commons."""
        with _told(self.path_of(commons), "read"):
            try:
                return self.path_of(commons).read_text()
            except FileNotFoundError:
                return None

    def replace(self, commons: str, *, old: str | None, new: str) -> bool:
        """Keep a text in place of `old`, on disk before this returns."""
        path = self.path_of(commons)
        with _told(path, "written"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.folder / "lock"):
                if self.load(commons) != old:
                    return False
                _write_whole(path, new)
        return True


def _write_whole(path: Path, text: str) -> None:
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold off other programs; where there are no such locks, a checkpoint of one of two may be forgotten."""
    if fcntl is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise MemoryFileError(f"{path} can't be {what}: {error}") from None

"""What the wallet keeps beside keys: statements whose outcome stayed unknown, until `gesell resend` settles them; what
it has seen of logs; and what it found that others should see.

Owns the folder and the names in it. Knows nothing of what the statements say, nor how they are sent.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from gesell.check_errors import CheckFailed
from gesell.errors import OutcomeUnknown


def keep(error: OutcomeUnknown) -> Path:
    """Keep the envelope of an unknown outcome, so that `gesell resend` can settle it; returns the file."""
    path = _made(state_folder()) / f"{error.id}.envelope"
    # A memo may travel in it: nobody else's to read, whatever the folder lets through.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(error.envelope_bytes)
    return path


def kept() -> list[Path]:
    """The files that wait to be settled, oldest first: their names begin with the time."""
    return sorted(state_folder().glob("*.envelope"))


def keep_evidence(error: CheckFailed) -> Path:
    """Keep what a check found, so that it can be shown to others; returns the file."""
    name = f"{type(error).__name__.lower()}-{time.time_ns() // 1_000_000}.json"
    return error.save(_made(_made(state_folder()) / "evidence") / name)


def logs_folder() -> Path:
    """Where the last checkpoint of each commons is remembered."""
    return _made(state_folder()) / "logs"


def state_folder() -> Path:
    """`gesell` below the user's folder for what programs keep from one run to the next."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "gesell"


def _made(folder: Path) -> Path:
    """The folder, its own user's alone; parents that are made get the system's usual mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder

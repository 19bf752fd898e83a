"""The statements whose outcome stayed unknown, kept as files until `gesell resend` settles them.

Owns the folder and the names in it. Knows nothing of what the statements say, nor how they are sent.
"""

from __future__ import annotations

import os
from pathlib import Path

from gesell.errors import OutcomeUnknown


def keep(error: OutcomeUnknown) -> Path:
    """Keep the envelope of an unknown outcome, so that `gesell resend` can settle it; returns the file."""
    folder = _folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{error.id}.envelope"
    path.write_bytes(error.envelope_bytes)
    return path


def kept() -> list[Path]:
    """The files that wait to be settled, oldest first: their names begin with the time."""
    return sorted(_folder().glob("*.envelope"))


def _folder() -> Path:
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "gesell"

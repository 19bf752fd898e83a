"""How a new key file takes the place of the one in use, so that no moment of it loses a key or whom it speaks for.

Owns the order of the steps, and where the old key file lies afterwards. Knows no ledger: that the new key signs in this
commons is known before.

1. No file is ever overwritten but the key file in use, by the new one, when the old one has a second name.
2. After every step the key file in use is a whole key with a note that is true of it in this commons. So whatever ends
   the program, the wallet works, and a second call does the steps that are left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from gesell.errors import KeyFileError
from gesell.key_notes import note_path, read_note, replace_note, sync_folder, write_note


def take_place(old: Path, new: Path, *, commons: str, by: str) -> Path:
    """Put the new key where the old one is, which is kept beside it; returns where.

    Both keys speak for `by` in this commons (the old one did). Raises `KeyFileError`; call it again then.
    """
    try:
        write_note(old, commons=commons, by=by)  # true of both keys, so it holds on either side of the replacement
        aside = _free_or_begun(old)
        if not aside.exists():
            os.link(old, aside)
        replace_note(aside, {**read_note(aside), **read_note(old)})
        os.replace(new, old)
        sync_folder(old.parent)
    except OSError as error:
        raise KeyFileError(
            f"{new} can't take the place of {old}: {error.strerror}. It signs where it is: --key {new}"
        ) from None
    finish(old, new)
    return aside


def is_half_done(old: Path, new: Path) -> bool:
    """Whether the new key is in its place, and its note is not."""
    return not new.exists() and note_path(new).exists() and next(_asides(old)).exists()


def finish(old: Path, new: Path) -> None:
    """Give the key in its new place its own note; what was noted of the old key alone stays beside that."""
    kept = {item for aside in _taken(old) for item in read_note(aside).items()}
    # A line that stands nowhere else is not thrown away, even where it can't be told of which key it is true.
    alone = dict(item for item in read_note(old).items() if item not in kept)
    replace_note(old, {**alone, **read_note(new)})
    try:
        os.unlink(note_path(new))
    except OSError as error:
        raise KeyFileError(f"{note_path(new)} can't be removed: {error.strerror}") from None
    sync_folder(old.parent)


def last_aside(old: Path) -> Path:
    """Where the key lies that was put aside last."""
    return list(_taken(old))[-1]


def _free_or_begun(old: Path) -> Path:
    """The name that an earlier try gave the old key, else the first that is free, for a note too."""
    key = old.read_bytes()
    for aside in _asides(old):
        if aside.is_file() and aside.read_bytes() == key:
            return aside
        if not os.path.lexists(aside) and not os.path.lexists(note_path(aside)):
            return aside
    raise AssertionError("there are names without end")


def _taken(old: Path) -> Iterator[Path]:
    for aside in _asides(old):
        if not aside.exists():
            return
        yield aside


def _asides(old: Path) -> Iterator[Path]:
    yield old.with_name(f"{old.name}.old")
    yield from (old.with_name(f"{old.name}.old-{number}") for number in count(2))

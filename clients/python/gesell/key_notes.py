"""The note beside a key file: for whom the key speaks, where that is not itself.

Owns the file `<key file>.by`, one line a commons: its 32 hex digits and the did of the peer that the key was added to.
A key file knows only its own public key, and a ledger can't be asked whose a key is by who may not read it yet; so the
wallet notes it when a key is rotated or added. Nothing in it is secret, and `--by` says the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gesell.errors import KeyFileError
from gesell_protocol.names import peer_of


def note_path(key_path: Path) -> Path:
    """Where the note of a key file is."""
    return key_path.with_name(key_path.name + ".by")


def read_note(key_path: Path) -> dict[str, str]:
    """Commons → did, as noted beside a key file; empty where nothing is. Raises `KeyFileError` for what is no note."""
    path = note_path(key_path)
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} can't be read: {error}") from None
    try:
        noted = dict(line.split() for line in lines if line.strip())
        for did in noted.values():
            peer_of(did)
    except ValueError:
        raise KeyFileError(f"{path} is no note of whom a key speaks for: a commons and a did on each line") from None
    return noted


def write_note(key_path: Path, *, commons: str, by: str) -> None:
    """Note that a key speaks for `by` in a commons; what was noted of others stays."""
    noted = read_note(key_path)
    if noted.get(commons) != by:
        replace_note(key_path, {**noted, commons: by})


def replace_note(key_path: Path, noted: Mapping[str, str]) -> None:
    """Note exactly this of a key, whole or not at all, kept on disk before this returns."""
    path = note_path(key_path)
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("w") as file:
            file.writelines(f"{name} {did}\n" for name, did in sorted(noted.items()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror}") from None
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have what was named in a folder kept on disk, on systems that can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

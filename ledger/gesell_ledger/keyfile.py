"""The ledger's key: made at first start, kept in a file of its own.

Owns the file: OpenSSH format, mode 0600, with a passphrase if the operator wants one. All services of one database
share it; a `found` statement is bound to it, so it is made once and never replaced by accident.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from gesell_ledger.storage.faults import Fault
from gesell_protocol.ed25519 import Signer

#: The variable in which an operator may leave the passphrase.
PASSPHRASE: Final = "GESELL_KEY_PASSPHRASE"


class KeyFault(Fault):
    """The ledger's key can't be read or made; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """The ledger's key: its 32 secret bytes, which no log may show, and the public ones that name the ledger."""

    seed: bytes = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The ledger's name."""
        return self.signer().public_key

    def signer(self) -> Signer:
        """The key made ready to sign."""
        return Signer(self.seed)


def load_or_make_key(path: Path, *, passphrase: bytes | None) -> LedgerKey:
    """The ledger's key from its file; makes key and file when there is none.

    Raises `KeyFault` for a file that others can read, that is no Ed25519 key, or that the passphrase does not open.
    Several services that start at once with one path end with one key.
    """
    try:
        if not path.exists():
            _make(path, passphrase)
        if path.stat().st_mode & 0o077:
            raise KeyFault(f"{path} can be read by others; the ledger's key is secret: chmod 600 {path}")
        data = path.read_bytes()
    except OSError as error:
        raise KeyFault(
            f"the ledger's key {path} can't be read or made: {error.strerror or error}. Say another place: --key FILE"
        ) from None
    return _open(path, data, passphrase)


def read_passphrase(file: Path | None, *, environment: str) -> bytes | None:
    """The passphrase: the first line of `file`, else the text that stood in the environment; None if there is none.

    Raises `KeyFault` for a file that can't be read or begins with no text: a key that its operator believes to be
    locked must not lie open.
    """
    if file is None:
        return environment.encode() or None
    try:
        first = file.read_bytes().partition(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise KeyFault(f"the passphrase file {file} can't be read: {error.strerror or error}") from None
    if not first:
        raise KeyFault(f"the passphrase file {file} holds no passphrase in its first line; without one, leave it out")
    return first


def _open(path: Path, data: bytes, passphrase: bytes | None) -> LedgerKey:
    try:
        key = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFault(
            f"{path} can't be opened ({error}). If it has a passphrase, say where it is: --key-passphrase-file FILE"
            f" or {PASSPHRASE}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFault(f"{path} holds no Ed25519 key; leave --key out to let the ledger make one")
    return LedgerKey(key.private_bytes_raw())


def _make(path: Path, passphrase: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    # Written beside and linked into place: a crash leaves no half key, and a file that is there is never replaced.
    # mkstemp makes it 0600, under a name of its own: in containers two services may have the same process id.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".new")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)

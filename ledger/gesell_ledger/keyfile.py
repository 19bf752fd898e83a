"""The ledger's key: made at first start, kept in a file of its own.

Owns the file: OpenSSH format, mode 0600, with a passphrase if the operator wants one. All services of one database
share it; a `found` statement is bound to it, so it is made once and never replaced by accident.
"""

from __future__ import annotations

import os
from pathlib import Path

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


class KeyFault(Fault):
    """The ledger's key can't be read or made; the sentence says what to do."""


def load_or_make_key(path: Path, *, passphrase: bytes | None) -> Signer:
    """The ledger's signer from its file; makes key and file when there is none.

    Raises `KeyFault` for a file that others can read, that is no Ed25519 key, or that the passphrase does not open.
    """
    if not path.exists():
        _make(path, passphrase)
    if path.stat().st_mode & 0o077:
        raise KeyFault(f"{path} can be read by others; the ledger's key is secret: chmod 600 {path}")
    try:
        key = load_ssh_private_key(path.read_bytes(), passphrase)
    except (ValueError, TypeError) as error:
        raise KeyFault(
            f"{path} can't be opened ({error}). If it has a passphrase, say where it is: --key-passphrase-file FILE"
            " or GESELL_KEY_PASSPHRASE"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFault(f"{path} holds no Ed25519 key")
    return Signer(key.private_bytes_raw())


def _make(path: Path, passphrase: bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)
    # Written beside and linked into place: a crash leaves no half key, and a file that is there is never replaced.
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)

"""Peers: an Ed25519 key that signs, and the file that keeps it.

Owns the secret key and its file (OpenSSH's private key format, so that `ssh-keygen` makes, re-encrypts and shows
the same files; OpenSSL's, PKCS #8 in PEM, is read too). Knows no ledger and no statement beyond the bytes that are
signed.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from gesell.errors import KeyFileError, NoKeyFile, PassphraseNeeded, WrongPassphrase
from gesell_protocol.ed25519 import SEED_BYTES, Signer
from gesell_protocol.names import KEY_BYTES, did_of

#: bcrypt rounds: about half a second of one core for each guess at a passphrase (ssh-keygen's own default is 24).
KDF_ROUNDS: Final = 48
_FILE_MAX_BYTES: Final = 64 * 1024
_MAGIC: Final = b"openssh-key-v1\0"
_PKCS8: Final = b"-----BEGIN PRIVATE KEY-----"
_PKCS8_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class Peer:
    """Whoever holds a secret Ed25519 key: makes signatures, and is named by its did.

    ada = Peer.new()
    ada.save("ada.key", passphrase="correct horse")
    ada = Peer.load("ada.key", passphrase="correct horse")
    print(ada.did)                                            # did:key:z6Mk…
    """

    __slots__ = ("_seed", "_signer")

    def __init__(self, seed: bytes) -> None:
        """Make the peer of a 32-byte secret seed (RFC 8032 §5.1.5); `ValueError` for another length."""
        self._signer = Signer(seed)
        self._seed = bytes(seed)

    @classmethod
    def new(cls) -> Self:
        """A new peer with a random key: `ada = Peer.new()`. It is lost unless it is saved."""
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, passphrase: str | bytes | None = None) -> Self:
        """Read a key file: `Peer.load("ada.key", passphrase="correct horse")`.

        A passphrase given for a file that needs none is ignored. Raises `NoKeyFile`, `PassphraseNeeded`,
        `WrongPassphrase`, or `KeyFileError` for a file that is no ed25519 private key of OpenSSH or OpenSSL.
        """
        return cls(load_seed(path, passphrase=passphrase))

    @classmethod
    def did_in(cls, path: str | os.PathLike[str]) -> str:
        """The did of a key file, read without its passphrase: `Peer.did_in("ada.key")`.

        The file's public part is taken at its word: good for looking things up, while what signs is only known
        once the file is open. An encrypted file of OpenSSL's has no public part: it raises `PassphraseNeeded`. Else
        raises `NoKeyFile` or `KeyFileError`.
        """
        data = _read(Path(path))
        if data.lstrip().startswith((_PKCS8, _PKCS8_ENCRYPTED)):
            return cls.load(path).did
        try:
            return did_of(_public_part(data))
        except ValueError:
            raise _no_key(path) from None

    def save(self, path: str | os.PathLike[str], *, passphrase: str | bytes | None) -> None:
        """Write the key to a new file that only its owner may read: `ada.save("ada.key", passphrase="…")`.

        `passphrase=None` must be said to leave the key unprotected. Never overwrites: raises `KeyFileError` if
        the file exists or can't be written, and leaves nothing behind then; `ValueError` for an empty passphrase.
        """
        if passphrase is not None and not passphrase:
            raise ValueError("an empty passphrase protects nothing; say passphrase=None to do without")
        data = Ed25519PrivateKey.from_private_bytes(self._seed).private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, _encryption(passphrase)
        )
        try:
            # O_EXCL: a key that is overwritten is money that nobody can move again.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise KeyFileError(f"{path} exists; a key is never overwritten") from None
        except OSError as error:
            raise KeyFileError(f"{path} can't be written: {error.strerror}") from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.unlink(path)
            raise KeyFileError(f"{path} can't be written: {error.strerror}") from None

    @property
    def key(self) -> bytes:
        """The 32 bytes of the public key: the peer's name in statements."""
        return self._signer.public_key

    @property
    def did(self) -> str:
        """The peer's name as text: `did:key:z6Mk…`."""
        return did_of(self.key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte pure Ed25519 signature of exactly these bytes: `peer.sign(b"…")`.

        Sign only what says by its first bytes what it is for (`gesell/statement/1`), else a signature for one
        purpose may pass for another.
        """
        return self._signer.sign(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Peer {self.did}>"


#: How calls name a peer: a `Peer`, the 32 bytes of its key, its did, or a member's handle.
PeerLike = Peer | bytes | str


def load_seed(path: str | os.PathLike[str], *, passphrase: str | bytes | None) -> bytes:
    """The 32 secret bytes of a key file; raises as `Peer.load` does."""
    data = _read(Path(path))
    read = load_pem_private_key if data.lstrip().startswith((_PKCS8, _PKCS8_ENCRYPTED)) else load_ssh_private_key
    key: object
    try:
        key = read(data, None)
    except TypeError:  # what `cryptography` raises when a passphrase is needed
        key = _unlock(read, data, path, passphrase)
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key.private_bytes_raw()


def _no_key(path: object) -> KeyFileError:
    return KeyFileError(
        f"{path} is no ed25519 private key of OpenSSH (gesell key new, ssh-keygen -t ed25519) or OpenSSL (PKCS #8)"
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_MAX_BYTES)
    except FileNotFoundError:
        raise NoKeyFile(f"there is no key file {path}") from None
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror}") from None


def _public_part(data: bytes) -> bytes:
    """The public key at the head of an OpenSSH private key (OpenSSH's PROTOCOL.key); `ValueError` for others."""
    lines = data.split()
    text = b"".join(lines[4:-4])  # between "-----BEGIN OPENSSH PRIVATE KEY-----" and its end
    blob = base64.b64decode(text, validate=True)
    if not blob.startswith(_MAGIC):
        raise ValueError("not OpenSSH's format")
    rest = blob[len(_MAGIC) :]
    for _ in ("cipher", "kdf", "kdf options"):
        _, rest = _field(rest)
    public, _ = _field(rest[4:])  # after the number of keys
    kind, public = _field(public)
    key, _ = _field(public)
    if kind != b"ssh-ed25519" or len(key) != KEY_BYTES:
        raise ValueError("not ed25519")
    return key


def _field(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise ValueError("cut short")
    return data[4 : 4 + length], data[4 + length :]


def _unlock(
    read: Callable[[bytes, bytes], object], data: bytes, path: object, passphrase: str | bytes | None
) -> object:
    if not passphrase:
        raise PassphraseNeeded(f"{path} is protected by a passphrase")
    try:
        return read(data, _bytes(passphrase))
    except ValueError:
        # A file that is broken elsewhere has failed before: without a passphrase everything outside is read.
        raise WrongPassphrase(f"the passphrase does not open {path}") from None
    except UnsupportedAlgorithm as error:
        raise KeyFileError(f"{path} is encrypted in a way that can't be read: {error}") from None


def _encryption(passphrase: str | bytes | None) -> KeySerializationEncryption:
    if passphrase is None:
        return NoEncryption()
    return PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(KDF_ROUNDS).build(_bytes(passphrase))


def _bytes(passphrase: str | bytes) -> bytes:
    return passphrase.encode() if isinstance(passphrase, str) else passphrase

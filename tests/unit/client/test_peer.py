"""Keys and their files."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gesell import KeyFileError, NoKeyFile, PassphraseNeeded, Peer, WrongPassphrase
from gesell_protocol import ed25519
from gesell_protocol.names import peer_of

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not here")


def ssh_keygen(*words: str) -> str:
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("passphrase", [None, "correct horse", b"bytes \xff"])
def test_a_saved_key_is_loaded_again(tmp_path: Path, passphrase: str | bytes | None) -> None:
    peer = Peer.new()
    peer.save(tmp_path / "key", passphrase=passphrase)
    assert Peer.load(tmp_path / "key", passphrase=passphrase) == peer
    assert Peer.did_in(tmp_path / "key") == peer.did


def test_a_key_file_belongs_to_its_owner_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    peer = Peer.new()
    peer.save(path, passphrase=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(KeyFileError, match="never overwritten"):
        Peer.new().save(path, passphrase=None)
    assert Peer.load(path) == peer


def test_a_passphrase_is_asked_for_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "key"
    Peer.new().save(path, passphrase="right")
    with pytest.raises(PassphraseNeeded):
        Peer.load(path)
    with pytest.raises(WrongPassphrase):
        Peer.load(path, passphrase="wrong")


@pytest.mark.parametrize("passphrase", [None, b"right"])
def test_a_key_of_openssl_is_loaded_too(tmp_path: Path, passphrase: bytes | None) -> None:
    key, path = Ed25519PrivateKey.generate(), tmp_path / "key.pem"
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    assert Peer.load(path, passphrase=passphrase).key == key.public_key().public_bytes_raw()
    if passphrase is None:
        assert Peer.did_in(path) == Peer.load(path).did
        return
    with pytest.raises(WrongPassphrase):
        Peer.load(path, passphrase="wrong")
    for read in (Peer.load, Peer.did_in):  # its public part is encrypted too
        with pytest.raises(PassphraseNeeded):
            read(path)


def test_a_passphrase_for_an_open_key_is_ignored_and_an_empty_one_protects_nothing(tmp_path: Path) -> None:
    peer = Peer.new()
    peer.save(tmp_path / "open", passphrase=None)
    assert Peer.load(tmp_path / "open", passphrase="whatever") == peer
    with pytest.raises(ValueError, match="protects nothing"):
        peer.save(tmp_path / "other", passphrase="")
    assert not (tmp_path / "other").exists()


def test_what_is_no_ed25519_key_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NoKeyFile):
        Peer.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    other = generate_private_key(SECP256R1())
    (tmp_path / "ecdsa").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    for name in ("text", "ecdsa"):
        with pytest.raises(KeyFileError):
            Peer.load(tmp_path / name)
        with pytest.raises(KeyFileError):
            Peer.did_in(tmp_path / name)
    with pytest.raises(KeyFileError):
        Peer.load(tmp_path)


def test_a_peer_signs_by_its_key_and_does_not_show_its_secret() -> None:
    seed = bytes(range(32))
    peer = Peer(seed)
    ed25519.verify(peer.key, b"message", peer.sign(b"message"))
    assert peer_of(peer.did) == peer.key
    assert seed.hex() not in repr(peer)
    assert repr(seed) not in repr(peer)
    assert peer.did in repr(peer)


@needs_ssh_keygen
def test_ssh_keygen_reads_and_changes_the_passphrase_of_our_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    peer = Peer.new()
    peer.save(path, passphrase="first")
    public = ssh_keygen("-y", "-P", "first", "-f", str(path))
    assert public.startswith("ssh-ed25519 ")
    ssh_keygen("-p", "-P", "first", "-N", "second", "-f", str(path))
    assert Peer.load(path, passphrase="second") == peer


@needs_ssh_keygen
@pytest.mark.parametrize("passphrase", ["", "geheim"])
def test_we_read_what_ssh_keygen_makes(tmp_path: Path, passphrase: str) -> None:
    path = tmp_path / "key"
    ssh_keygen("-q", "-t", "ed25519", "-N", passphrase, "-f", str(path))
    peer = Peer.load(path, passphrase=passphrase or None)
    assert Peer.did_in(path) == peer.did
    peer.save(tmp_path / "copy", passphrase=None)
    assert (
        ssh_keygen("-y", "-f", str(tmp_path / "copy")).split()[:2] == ((tmp_path / "key.pub").read_text().split()[:2])
    )

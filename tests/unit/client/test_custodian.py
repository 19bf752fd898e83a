"""Custodians: one master, a peer for each user, the same for ever."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gesell import Custodian, KeyFileError, Peer, WrongPassphrase

MASTER = bytes(range(32))
#: (user id, did), computed once by `derived` below; a version that makes others loses its users' money.
VECTORS = [
    ("user-42", "did:key:z6MkuN8tLLXVpWD6bWgTS1r2JDB4jvfCPfbJTrSYkfeDZ8kD"),
    ("a", "did:key:z6MkigbEUNFkyrss7QcEFCTvPZCtdrMYAhas8kdmF38UFMZY"),
    ("Zoë ☺", "did:key:z6Mkn8mNk6t31DLcGQbYUjNkjWueMBzZ1UzyW22Wr2aPedJX"),
    ("x" * 256, "did:key:z6MkkkqSi41RyNSF61QUxtXmd4nRPNJEhSnKnvfiAAMyQgT4"),
]


def derived(master: bytes, user_id: str) -> Peer:
    """HKDF-SHA256 written out by hand: extract with 32 zero bytes as salt, expand to a single block."""
    key = hmac.digest(bytes(32), master, sha256)
    return Peer(hmac.digest(key, b"gesell/custodian/1\n" + user_id.encode() + b"\x01", sha256))


@pytest.mark.parametrize(("user_id", "did"), VECTORS)
def test_a_users_peer_never_changes(user_id: str, did: str) -> None:
    assert derived(MASTER, user_id).did == did
    assert Custodian(MASTER).peer(user_id).did == did


def test_ids_are_taken_as_they_are() -> None:
    custodian = Custodian(MASTER)
    composed, decomposed = "\u00e9", "e\u0301"
    names = ["ada", "Ada", "ada ", composed, decomposed]
    assert len({custodian.peer(name) for name in names}) == len(names)


@pytest.mark.parametrize("user_id", ["", "x" * 257, "é" * 129, "a\ud800"])
def test_an_id_that_names_nobody_is_refused(user_id: str) -> None:
    with pytest.raises(ValueError, match="user id"):
        Custodian(MASTER).peer(user_id)


@pytest.mark.parametrize("user_id", [42, b"user-42", None])
def test_an_id_is_text(user_id: Any) -> None:
    with pytest.raises(TypeError):
        Custodian(MASTER).peer(user_id)


@pytest.mark.parametrize("master", [b"", bytes(31), bytes(33)])
def test_a_master_has_32_bytes(master: bytes) -> None:
    with pytest.raises(ValueError):
        Custodian(master)


def test_a_custodian_is_kept_in_a_key_file(tmp_path: Path) -> None:
    custodian = Custodian.new()
    custodian.save(tmp_path / "app.key", passphrase="right")
    assert Custodian.load(tmp_path / "app.key", passphrase="right").peer("a") == custodian.peer("a")
    assert Custodian.new().peer("a") != custodian.peer("a")
    with pytest.raises(WrongPassphrase):
        Custodian.load(tmp_path / "app.key", passphrase="wrong")
    with pytest.raises(KeyFileError, match="never overwritten"):
        custodian.save(tmp_path / "app.key", passphrase="right")


def test_a_custodian_does_not_show_its_secret() -> None:
    for shown in (repr(Custodian(MASTER)), str(Custodian(MASTER))):
        assert MASTER.hex() not in shown
        assert repr(MASTER)[2:-1] not in shown
    assert Custodian(MASTER).peer("a").did not in repr(Custodian(MASTER))

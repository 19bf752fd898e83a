"""Custodians: an app that holds the keys of its users, all of them made from one secret.

Owns the derivation, which is fixed for ever, and the file of the secret. Knows no ledger and no user.

The seed of a user's peer is HKDF-SHA256 (RFC 5869) with

    input key material   the 32 bytes of the master seed
    salt                 none (which RFC 5869 §2.2 makes 32 zero bytes)
    info                 the bytes "gesell/custodian/1\\n", then the user id in UTF-8
    length               32 bytes

and the peer is the Ed25519 key of that seed (RFC 8032 §5.1.5). The id is taken as it is: nothing is normalised, so
"Ada", "ada" and "ada " are three peers.

1. Who has the master seed can move what is all the users'. It is to be kept as a bank keeps its keys.
2. The same master and the same id make the same peer, in every version: a lost database of users loses no money.
3. No peer tells anything about another, or about the master.
"""

from __future__ import annotations

import os
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gesell.peer import Peer, load_seed
from gesell_protocol.ed25519 import SEED_BYTES

INFO: Final = b"gesell/custodian/1\n"
USER_ID_MAX_BYTES: Final = 256


class Custodian:
    """Makes a peer for each user of an app from one master seed of 32 bytes.

        custodian = Custodian.load("app.key", passphrase="correct horse")
        await gesell.as_peer(custodian.peer("user-42")).pay("ada", "0.05")

    An id must name one user for ever: a number of your database rather than an e-mail address. `ValueError` for a
    master of another length.
    """

    __slots__ = ("_keeper", "_master")

    def __init__(self, master: bytes) -> None:
        # As a peer the master signs nothing; that form has a file that is written, read and protected already.
        self._keeper = Peer(master)
        self._master = bytes(master)

    @classmethod
    def new(cls) -> Self:
        """A custodian with a random master seed: `Custodian.new()`. All its peers are lost unless it is saved."""
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, passphrase: str | bytes | None = None) -> Self:
        """Read the file that `save` wrote; raises what `Peer.load` does.

        custodian = Custodian.load("app.key", passphrase=os.environ["APP_PASSPHRASE"])
        """
        return cls(load_seed(path, passphrase=passphrase))

    def save(self, path: str | os.PathLike[str], *, passphrase: str | bytes | None) -> None:
        """Write the master to a new file that only its owner may read, as `Peer.save` writes a key; never overwrites.

        Keep this file and no peer's: `Custodian.new().save("app.key", passphrase="correct horse")`.
        """
        self._keeper.save(path, passphrase=passphrase)

    def peer(self, user_id: str) -> Peer:
        """The peer of a user, the same every time: `custodian.peer("user-42")`. Takes some microseconds.

        `user_id` is text of 1 to 256 bytes in UTF-8; raises `TypeError` or `ValueError` for anything else.
        """
        if not isinstance(user_id, str):
            raise TypeError(f"a user id is text, not {type(user_id).__name__}: str(id) if it is a number")
        try:
            name = user_id.encode()
        except UnicodeEncodeError:
            raise ValueError("a user id is text that UTF-8 can hold, without lone surrogates") from None
        if not 1 <= len(name) <= USER_ID_MAX_BYTES:
            raise ValueError(f"a user id has 1 to {USER_ID_MAX_BYTES} bytes in UTF-8, not {len(name)}")
        return Peer(HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=INFO + name).derive(self._master))

    def __repr__(self) -> str:
        return f"<Custodian whose file is {self._keeper.did}>"

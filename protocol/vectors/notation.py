"""The notation of the vector files, and the seeds, salts and ids that stand in them.

Owns how a value is written in JSON so that any language reads the same value, and where the bytes come from that
would be random elsewhere: from SHA-512 of labels, so that every run gives the same files. Must not know what any
file is about.

A value of SPEC §1 is written like this; an object always has exactly one key, which tells what it is:
nil, bool, str   null, true/false, a JSON string
int              {"int": "123"}, always, because a JSON number is a float in many languages
bin              {"bin": "00ff"}, in hex
array            a JSON array
map              {"map": [[key, value], …]}, keys in canonical order
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import uuid7

Case = dict[str, Any]


def written(value: object) -> Any:
    """Write a value in the notation. Map keys come out in ascending order; a tuple is written as an array."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, Mapping):
        return {"map": [[key, written(value[key])] for key in sorted(value)]}
    if isinstance(value, Sequence):
        return [written(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no place in the vectors")


def file_text(*, about: str, spec: str, cases: Sequence[Case]) -> str:
    """Give the text of one vector file: ASCII only, so that no editor and no encoding can change a character."""
    twice = [name for name, times in Counter(case["name"] for case in cases).items() if times > 1]
    assert not twice, f"cases of one name: {twice}"
    return json.dumps({"about": about, "spec": spec, "cases": cases}, indent=1) + "\n"


def drawn(label: str, length: int) -> bytes:
    """Give up to 64 bytes that look random and are always the same for a label."""
    return hashlib.sha512(b"gesell/vectors/1\n" + label.encode()).digest()[:length]


def seed_of(name: str) -> bytes:
    """Give the 32 secret bytes of somebody's Ed25519 key. Everybody knows them: no money may ever lie there."""
    return drawn(f"seed {name}", 32)


@cache
def signer_of(name: str) -> Signer:
    """Give somebody's key, ready to sign."""
    return Signer(seed_of(name))


def peer(name: str) -> bytes:
    """Give somebody's public key."""
    return signer_of(name).public_key


def id_at(time_ms: int, label: str) -> bytes:
    """Give a statement's UUIDv7 with a time inside and the rest drawn from a label."""
    return uuid7(time_ms, drawn(f"id {label}", 10))

"""The vectors of the log as a foreign client reads them: by hashlib, another Ed25519 library, the RFC said plainly.

Owns a second reader of notes, receipts and log files that shares no code with the reference. That the files are what
the generator makes, `test_vectors` says.
"""

from __future__ import annotations

import base64
import io
import json
import re
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gesell_protocol.log import read_bundle, read_file_entries, read_file_head, write_bundle
from gesell_protocol.names import unbase64
from gesell_protocol.notes import BadNote, NoteKey, count_cosigned, read_checkpoint, read_note
from gesell_protocol.proofs import BadReceipt, verify_receipt
from gesell_protocol.refusals import Rejected
from gesell_protocol.tree import (
    BadProof,
    Frontier,
    Tile,
    check_consistency,
    check_inclusion,
    place_path,
    read_place,
    tile_width,
)

VECTORS: Final = Path(__file__).parents[2] / "protocol" / "vectors"
Case = dict[str, Any]


def _each(file: str, *kinds: str) -> pytest.MarkDecorator:
    """Run a test for each case of a file that has one of these kinds."""
    read = json.loads((VECTORS / f"{file}.json").read_text(encoding="ascii"))
    cases = [case for case in read["cases"] if case["kind"] in kinds]
    assert cases
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def test_every_kind_of_case_is_read_by_a_test() -> None:
    text = Path(__file__).read_text()
    for file in ("tree", "notes", "proofs", "logfile"):
        cases = json.loads((VECTORS / f"{file}.json").read_text(encoding="ascii"))["cases"]
        for kind in {case["kind"] for case in cases}:
            assert re.search(rf'_each\("{file}"[^)]*"{kind}"', text), (file, kind)


# --- tree.json --------------------------------------------------------------------------------------------


def _leaf(number: int) -> bytes:
    return sha256(b"\x00" + number.to_bytes(8, "big")).digest()


@cache
def _plain(start: int, end: int) -> bytes:
    """MTH of RFC 6962 over leaves [start, end), as it is defined."""
    if start == end:
        return sha256(b"").digest()
    if end - start == 1:
        return _leaf(start)
    split = 1
    while split * 2 < end - start:
        split *= 2
    return sha256(b"\x01" + _plain(start, start + split) + _plain(start + split, end)).digest()


@_each("tree", "root")
def test_a_root_is_the_plain_one(case: Case) -> None:
    assert _plain(0, case["size"]).hex() == case["root"]
    assert Frontier().grown(map(_leaf, range(case["size"])))[0].root.hex() == case["root"]


@_each("tree", "tile")
def test_a_tile_is_the_hashes_of_its_level(case: Case) -> None:
    span, first = 256 ** case["level"], case["place"] * 256
    nodes = [_plain(n * span, (n + 1) * span) for n in range(first, first + case["width"])]
    packed = b"".join(nodes)
    assert sha256(packed).hexdigest() == case["sha256"]
    assert case.get("hex", packed.hex()) == packed.hex()
    assert case["width"] == min(256, case["size"] // span - first)
    assert case["width"] == tile_width(case["level"], case["place"], case["size"])
    assert Tile(case["level"], case["place"], case["width"]).path == case["path"]


@_each("tree", "place")
def test_a_place_is_its_path(case: Case) -> None:
    assert place_path(case["place"], case["width"]) == case["path"]
    digits = re.sub("[x/]|[.]p/.*", "", case["path"])
    assert int(digits) == case["place"]


@_each("tree", "place refused")
def test_a_path_is_no_place(case: Case) -> None:
    assert case["why"]
    with pytest.raises(ValueError):
        read_place(case["path"])


@_each("tree", "inclusion", "inclusion refused")
def test_an_inclusion_is_judged(case: Case) -> None:
    holds = case["kind"] == "inclusion"
    proof = [bytes.fromhex(one) for one in case["proof"]]
    leaf, root = bytes.fromhex(case["leaf"]), bytes.fromhex(case["root"])
    if holds:
        assert leaf == _leaf(case["index"])
        assert root == _plain(0, case["size"])
    assert (_plain_inclusion(leaf, case["index"], case["size"], proof) == root) == holds
    try:
        check_inclusion(leaf, index=case["index"], size=case["size"], root=root, proof=proof)
    except BadProof:
        assert not holds
    else:
        assert holds


def _plain_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes | None:
    """The root by recursion over the tree's halves, from the root's child down; None for a proof of wrong length."""
    if size == 1:
        return None if proof else leaf
    if not proof or not 0 <= index < size:
        return None
    split = 1
    while split * 2 < size:
        split *= 2
    if index < split:
        below = _plain_inclusion(leaf, index, split, proof[:-1])
        return below and sha256(b"\x01" + below + proof[-1]).digest()
    below = _plain_inclusion(leaf, index - split, size - split, proof[:-1])
    return below and sha256(b"\x01" + proof[-1] + below).digest()


@_each("tree", "consistency", "consistency refused")
def test_a_consistency_is_judged(case: Case) -> None:
    holds = case["kind"] == "consistency"
    proof = [bytes.fromhex(one) for one in case["proof"]]
    roots = {"old_root": bytes.fromhex(case["old_root"]), "new_root": bytes.fromhex(case["new_root"])}
    if holds:
        assert roots == {"old_root": _plain(0, case["old"]), "new_root": _plain(0, case["new"])}
    try:
        check_consistency(old=case["old"], new=case["new"], proof=proof, **roots)
    except BadProof:
        assert not holds
    else:
        assert holds


# --- notes.json -------------------------------------------------------------------------------------------


def _key(vkey: str) -> tuple[str, str, bytes, int]:
    """A verifier key taken apart with nothing of ours: name, id, key, kind."""
    name, key_id, packed = vkey.split("+", 2)
    data = base64.b64decode(packed, validate=True)
    assert sha256(name.encode() + b"\n" + data).hexdigest()[:8] == key_id
    return name, key_id, data[1:], data[0]


def _lines(note: str) -> tuple[str, list[tuple[str, str, bytes]]]:
    """A note taken apart with nothing of ours: its text, and (name, id, signature) of each line."""
    text, _, tail = note.rpartition("\n\n")
    lines = [re.fullmatch("— (\\S+) (\\S+)", line) for line in tail.splitlines()]
    signatures = [(line[1], base64.b64decode(line[2])) for line in lines if line is not None]
    return text + "\n", [(name, data[:4].hex(), data[4:]) for name, data in signatures]


def _signed(note: str, vkey: str) -> bool:
    name, key_id, key, kind = _key(vkey)
    text, signatures = _lines(note)
    own = [signature for who, by, signature in signatures if (who, by) == (name, key_id)]
    try:
        for signature in own:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, text.encode())
    except InvalidSignature:
        return False
    return bool(own) and kind == 1


@_each("notes", "vkey")
def test_a_vkey_names_its_key(case: Case) -> None:
    assert _key(case["text"]) == (case["key_name"], case["id"], bytes.fromhex(case["key"]), case["key_kind"])
    key = NoteKey.parse(case["text"])
    assert (key.name, key.id.hex(), key.key.hex(), key.kind) == (
        case["key_name"], case["id"], case["key"], case["key_kind"],
    )  # fmt: skip
    assert str(key) == case["text"]


@_each("notes", "vkey refused")
def test_a_text_is_no_vkey(case: Case) -> None:
    with pytest.raises(ValueError):
        NoteKey.parse(case["text"])


@_each("notes", "note")
def test_a_note_holds(case: Case) -> None:
    assert _signed(case["note"], case["vkey"])
    note = read_note(case["note"])
    note.verify(NoteKey.parse(case["vkey"]))
    assert note.text == case["text"] == _lines(case["note"])[0]
    assert str(note) == case["note"]


@_each("notes", "note refused")
def test_a_note_does_not_hold(case: Case) -> None:
    with pytest.raises(BadNote):
        read_note(case["note"]).verify(NoteKey.parse(case["vkey"]))


@_each("notes", "checkpoint")
def test_a_checkpoint_is_its_lines(case: Case) -> None:
    assert _signed(case["note"], case["vkey"])
    lines = [case["origin"], str(case["size"]), base64.b64encode(bytes.fromhex(case["root"])).decode()]
    assert case["note"].split("\n\n")[0].split("\n") == lines
    told = read_checkpoint(read_note(case["note"]))
    assert (told.origin, told.size, told.root.hex()) == (case["origin"], case["size"], case["root"])


@_each("notes", "checkpoint refused")
def test_a_note_is_no_checkpoint(case: Case) -> None:
    with pytest.raises(BadNote):
        read_checkpoint(read_note(case["note"]))


@_each("notes", "cosigned")
def test_cosignatures_are_counted(case: Case) -> None:
    note, keys = read_note(case["note"]), [NoteKey.parse(text) for text in case["witnesses"]]
    assert count_cosigned(note, keys) == case["count"] == len(case["times"])
    assert {str(key): note.cosigned(key) for key in keys if note.cosigned(key) is not None} == case["times"]
    text, signatures = _lines(case["note"])
    for vkey, time in case["times"].items():
        name, key_id, key, kind = _key(vkey)
        assert kind == 4
        own = [data for who, by, data in signatures if (who, by) == (name, key_id)]
        assert max(int.from_bytes(data[:8], "big") for data in own) == time
        for data in own:
            message = f"cosignature/v1\ntime {int.from_bytes(data[:8], 'big')}\n{text}".encode()
            Ed25519PublicKey.from_public_bytes(key).verify(data[8:], message)


@_each("notes", "cosigned refused")
def test_a_cosignature_does_not_hold(case: Case) -> None:
    with pytest.raises(BadNote):
        count_cosigned(read_note(case["note"]), [NoteKey.parse(text) for text in case["witnesses"]])


# --- proofs.json ------------------------------------------------------------------------------------------


def _asked(case: Case) -> dict[str, Any]:
    witnesses = [NoteKey.parse(text) for text in case["witnesses"]]
    return {"ledger": bytes.fromhex(case["ledger"]), "witnesses": witnesses, "quorum": case["quorum"]}


@_each("proofs", "receipt")
def test_a_receipt_proves_its_entry(case: Case) -> None:
    proven = verify_receipt(case["file"], **_asked(case))
    assert {
        "commons": proven.commons.hex(),
        "seq": proven.leaf.seq,
        "at": proven.leaf.at_ms,
        "type": proven.statement.type,
        "size": proven.checkpoint.size,
        "root": proven.checkpoint.root.hex(),
        "signed_by": proven.ledger.hex(),
        "cosigned": proven.cosigned,
    }.items() <= case.items()


@_each("proofs", "receipt")
def test_a_receipt_is_read_with_nothing_of_ours(case: Case) -> None:
    head, _, note = case["file"].partition("\n\n")
    first, extra, index, *hashes = head.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    data, handovers, *founding = msgpack.unpackb(base64.b64decode(extra.removeprefix("extra ")))
    seq, at, (body, signatures), _ = msgpack.unpackb(data)
    assert (seq, at, int(index.removeprefix("index "))) == (case["seq"], case["at"], case["seq"] - 1)
    for key, signature in signatures:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, b"gesell/statement/1\n" + body)
    leaf = sha256(b"\x00" + data).digest()
    assert leaf.hex() == case["leaf"]
    bodies = [*founding, *([body] if seq == 1 else [])]
    assert [msgpack.unpackb(one)["name"] for one in bodies] == [case["name_of_commons"]][: len(bodies)]
    assert all(sha256(b"gesell/commons/1\n" + one).hexdigest()[:32] == case["commons"] for one in bodies)
    root = _plain_inclusion(leaf, seq - 1, case["size"], [base64.b64decode(one) for one in hashes])
    assert root is not None
    assert root.hex() == case["root"]
    origin, size, told = note.split("\n\n")[0].split("\n")
    assert (origin, int(size), base64.b64decode(told)) == (f"gesell/{case['commons']}", case["size"], root)
    keys = [bytes.fromhex(case["ledger"])]
    for said, signed in handovers:
        fields = msgpack.unpackb(said)
        if fields["by"] == keys[-1]:
            assert {fields["by"], fields["ledger"]} <= {key for key, _ in signed}
            for key, signature in signed:
                Ed25519PublicKey.from_public_bytes(key).verify(signature, b"gesell/statement/1\n" + said)
            keys.append(fields["ledger"])
    assert bytes.fromhex(case["signed_by"]) in keys
    assert _signed(note, str(NoteKey(origin, bytes.fromhex(case["signed_by"]))))


@_each("proofs", "receipt refused")
def test_a_receipt_does_not_hold(case: Case) -> None:
    assert case["why"]
    with pytest.raises(BadReceipt):
        verify_receipt(case["file"], **_asked(case))


# --- logfile.json -----------------------------------------------------------------------------------------


@_each("logfile", "bundle")
def test_a_bundle_is_lengths_and_entries(case: Case) -> None:
    entries = [bytes.fromhex(one) for one in case["entries"]]
    data = bytes.fromhex(case["hex"])
    assert b"".join(len(one).to_bytes(2, "big") + one for one in entries) == data == write_bundle(entries)
    assert read_bundle(data) == entries


@_each("logfile", "bundle refused")
def test_a_bundle_is_cut(case: Case) -> None:
    with pytest.raises(Rejected):
        read_bundle(bytes.fromhex(case["hex"]))


@_each("logfile", "log file")
def test_a_log_file_is_its_checkpoint_and_its_entries(case: Case) -> None:
    file = io.BytesIO(bytes.fromhex(case["hex"]))
    assert read_file_head(file) == case["note"]
    entries = list(read_file_entries(file))
    assert [one.hex() for one in entries] == case["entries"]
    told = read_checkpoint(read_note(case["note"]))
    assert len(entries) == told.size
    assert _root_over([sha256(b"\x00" + one).digest() for one in entries]) == told.root
    assert unbase64(case["note"].split("\n")[2]) == told.root


def _root_over(hashes: list[bytes]) -> bytes:
    """The root by folding neighbours, a row at a time; one that is left over rises as it is."""
    while len(hashes) > 1:
        pairs = [sha256(b"\x01" + a + b).digest() for a, b in zip(hashes[::2], hashes[1::2], strict=False)]
        hashes = pairs + ([hashes[-1]] if len(hashes) % 2 else [])
    return hashes[0]


@_each("logfile", "log file refused")
def test_a_file_is_no_log(case: Case) -> None:
    with pytest.raises(Rejected):
        _read(io.BytesIO(bytes.fromhex(case["hex"])))


def _read(file: io.BytesIO) -> list[bytes]:
    read_file_head(file)
    return list(read_file_entries(file))

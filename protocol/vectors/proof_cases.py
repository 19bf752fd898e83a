"""Vectors of what proves a log (SPEC §6): notes, checkpoints, cosignatures, receipts without a ledger, log files.

Owns the small log that they are all of, and which lies are shown. Must not know the tree from within.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from gesell_protocol.canonical import pack, unpack
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import (
    leaf_hash,
    read_bundle,
    read_file_entries,
    read_file_head,
    read_leaf,
    write_bundle,
    write_file_head,
)
from gesell_protocol.names import base64_text
from gesell_protocol.notes import (
    WITNESS_KEY,
    BadNote,
    Note,
    NoteKey,
    cosign,
    count_cosigned,
    origin_of,
    read_checkpoint,
    read_note,
    sign_checkpoint,
    sign_note,
)
from gesell_protocol.proofs import BadReceipt, read_proof_file, verify_receipt, write_receipt
from gesell_protocol.refusals import Rejected
from gesell_protocol.tree import Frontier, hash_of, inclusion_spans, tiles_for
from vectors.history_cases import legs_to, town_of
from vectors.notation import Case, file_text, peer, signer_of

NEXT: Final = "the next ledger"
WITNESSES: Final = ("first witness", "second witness")
COSIGNED_AT: Final = 1_767_312_000


@cache
def _log() -> tuple[bytes, tuple[bytes, ...]]:
    """The commons, and the leaf data of its log: a founding, joins, money that moves and melts, and a new key."""
    town = town_of("a log to prove from", "ben", "carla")
    town.say("anna issues to ben", "issue", "anna", to=peer("ben"), amount=1_000_000)
    town.wait(ticks=1)
    town.say("ben pays", "pay", "ben", legs=legs_to(carla=1_000), category="lift")
    town.say("ben pays again", "pay", "ben", legs=legs_to(carla=2_000))
    town.say("the key changes hands", "rekey", "ledger", signers=("ledger", NEXT), ledger=peer(NEXT))
    town.say("ben pays a third time", "pay", "ben", legs=legs_to(carla=3_000))
    entries = sorted(town.books[town.commons].entries.values(), key=lambda entry: entry.seq)
    return town.commons, tuple(entry.leaf_data for entry in entries)


#: Up to this entry, the one that hands over included, checkpoints were the first key's until it was there.
HANDED_OVER: Final = 7


def _checkpoint(size: int, *, by: str, entries: Sequence[bytes] | None = None) -> Note:
    commons, log = _log()
    tree, _ = Frontier().grown(map(leaf_hash, (entries or log)[:size]))
    return sign_checkpoint(commons=commons, size=size, root=tree.root, signer=signer_of(by))


def _witness(name: str) -> NoteKey:
    return NoteKey(f"{name.partition(' ')[0]}.example/witness", peer(name), WITNESS_KEY)


def _cosigned(note: Note, *names: str, time_s: int = COSIGNED_AT) -> Note:
    return note.with_signatures(
        cosign(note, name=_witness(name).name, signer=signer_of(name), time_s=time_s) for name in names
    )


# --- notes.json -------------------------------------------------------------------------------------------


def notes_json() -> str:
    """Give the text of `notes.json`. Asserts that the reference code says what each case claims."""
    return file_text(
        about="Verifier keys, signed notes, checkpoints and cosignatures: those that hold, and those that do not.",
        spec="§6, §6.4",
        cases=[*_keys(), *_refused_keys(), *_notes(), *_refused_notes(), *_checkpoints(), *_cosignatures()],
    )


def _keys() -> Iterator[Case]:
    for key in (NoteKey(origin_of(_log()[0]), peer("ledger")), _witness(WITNESSES[0])):
        shown = {"key_name": key.name, "key_kind": key.kind, "key": key.key.hex(), "id": key.id.hex()}
        yield {"name": f"vkey of {key.name}", "kind": "vkey", "text": str(key), **shown}


def _refused_keys() -> Iterator[Case]:
    name, key_id, packed = str(_witness(WITNESSES[0])).split("+", 2)
    refused = {
        "no id": f"{name}+{packed}",
        "the id of another key": f"{name}+00000000+{packed}",
        "the id in capitals": f"{name}+{key_id.upper()}+{packed}",
        "another name": f"x{name}+{key_id}+{packed}",
        "a space in the name": f"{name[:5]} {name[5:]}+{key_id}+{packed}",
        "no name": f"+{key_id}+{packed}",
        "a cut key": f"{name}+{key_id}+{packed[:-4]}",
        "a kind that is not known": f"{name}+{key_id}+{base64_text(bytes([2]) + peer(WITNESSES[0]))}",
    }
    for why, text in refused.items():
        try:
            NoteKey.parse(text)
        except ValueError:
            yield {"name": f"no vkey: {why}", "kind": "vkey refused", "text": text, "why": why}
        else:
            raise AssertionError(why)


def _notes() -> Iterator[Case]:
    key = NoteKey("example.org/notes", peer("ledger"))
    texts = {"one line": "hello\n", "empty lines inside": "a\n\nb\n\n\nc\n", "beyond ASCII": "Wörgl 😀\n"}
    for name, text in texts.items():
        note = sign_note(text, name=key.name, signer=signer_of("ledger"))
        read_note(str(note)).verify(key)
        yield {"name": f"note: {name}", "kind": "note", "note": str(note), "vkey": str(key), "text": text}
    note = _cosigned(sign_note("hello\n", name=key.name, signer=signer_of("ledger")), *WITNESSES)
    told = {"note": str(note), "vkey": str(key), "text": "hello\n"}
    yield {"name": "note: signatures by others are passed over", "kind": "note", **told}


def _refused_notes() -> Iterator[Case]:
    key = NoteKey("example.org/notes", peer("ledger"))
    note = sign_note("hello\n", name=key.name, signer=signer_of("ledger"))
    line = note.signatures[0].line()
    spoilt = replace(note, signatures=(*note.signatures, note.signatures[0]._replace(signature=bytes(64))))
    refused = {
        "no signature": "hello\n\n",
        "no empty line": "hello\n" + line,
        "no text": "\n\n" + line,
        "no newline at the end": str(note)[:-1],
        "a line after the signatures": str(note) + "more\n",
        "a hyphen for the dash": str(note).replace("—", "-"),
        "a tab in the text": str(note).replace("hello", "hel\tlo"),
        "carriage returns": str(note).replace("\n", "\r\n"),
        "base64 without padding": str(note).replace("=\n", "\n"),
        "another text": str(note).replace("hello", "hallo"),
        "signed by another key": str(sign_note("hello\n", name=key.name, signer=signer_of(NEXT))),
        "signed under another name": str(sign_note("hello\n", name="example.org/x", signer=signer_of("ledger"))),
        "one of two signatures of the key does not hold": str(spoilt),
    }
    for why, text in refused.items():
        assert not _holds(text, key), why
        yield {"name": f"no note: {why}", "kind": "note refused", "note": text, "vkey": str(key), "why": why}


def _holds(text: str, key: NoteKey) -> bool:
    try:
        read_note(text).verify(key)
    except BadNote:
        return False
    return True


def _checkpoints() -> Iterator[Case]:
    for size, by in ((1, "ledger"), (6, "ledger"), (HANDED_OVER, NEXT), (8, NEXT)):
        note = _checkpoint(size, by=by)
        told = read_checkpoint(read_note(str(note)))
        vkey = str(NoteKey(told.origin, peer(by)))
        shown = {"note": str(note), "vkey": vkey, "origin": told.origin, "size": size, "root": told.root.hex()}
        yield {"name": f"checkpoint of {size}", "kind": "checkpoint", **shown}
    origin, size, root, _ = _checkpoint(6, by="ledger").text.split("\n")
    refused = {
        "two lines": f"{origin}\n{size}\n",
        "no origin": f"\n{size}\n{root}\n",
        "a size with a zero before it": f"{origin}\n0{size}\n{root}\n",
        "a negative size": f"{origin}\n-1\n{root}\n",
        "a size beyond 2^63 - 1": f"{origin}\n{2**63}\n{root}\n",
        "a root in hex": f"{origin}\n{size}\n{bytes(32).hex()}\n",
        "a root of 31 bytes": f"{origin}\n{size}\n{base64_text(bytes(31))}\n",
        "an empty line at the end": f"{origin}\n{size}\n{root}\n\n",
    }
    for why, text in refused.items():
        note = sign_note(text, name=origin, signer=signer_of("ledger"))
        try:
            read_checkpoint(read_note(str(note)))
        except BadNote:
            yield {"name": f"no checkpoint: {why}", "kind": "checkpoint refused", "note": str(note), "why": why}
        else:
            raise AssertionError(why)


def _cosignatures() -> Iterator[Case]:
    keys = [_witness(name) for name in WITNESSES]
    note = _checkpoint(6, by="ledger")
    later = _cosigned(_cosigned(note, WITNESSES[0]), WITNESSES[0], time_s=COSIGNED_AT + 5)
    cases = {
        "by nobody": note,
        "by one": _cosigned(note, WITNESSES[0]),
        "by both": _cosigned(note, *WITNESSES),
        "twice by one": later,
    }
    for name, one in cases.items():
        times = {str(key): time for key in keys if (time := one.cosigned(key)) is not None}
        shown = {"note": str(one), "witnesses": [str(key) for key in keys], "times": times}
        yield {"name": f"cosigned {name}", "kind": "cosigned", **shown, "count": count_cosigned(one, keys)}
    good = _cosigned(note, WITNESSES[0]).signatures[1]
    lies = {
        "another time": (COSIGNED_AT + 1).to_bytes(8, "big") + good.signature[8:],
        "no time": good.signature[8:],
        "of another checkpoint": _cosigned(_checkpoint(5, by="ledger"), WITNESSES[0]).signatures[1].signature,
        "as a log signs": bytes(8) + signer_of(WITNESSES[0]).sign(note.text.encode()),
    }
    for why, signature in lies.items():
        one = note.with_signatures([good._replace(signature=signature)])
        try:
            count_cosigned(one, keys)
        except BadNote:
            shown = {"note": str(one), "witnesses": [str(key) for key in keys]}
            yield {"name": f"not cosigned: {why}", "kind": "cosigned refused", **shown, "why": why}
        else:
            raise AssertionError(why)


# --- proofs.json ------------------------------------------------------------------------------------------


def proofs_json() -> str:
    """Give the text of `proofs.json`. Asserts that the reference code says what each case claims."""
    return file_text(
        about="Receipts that prove an entry with nothing but the ledger's key of some day, and those that do not.",
        spec="§6.2, §6.3",
        cases=[*_receipts(), *_refused_receipts()],
    )


def _handovers() -> tuple[Envelope, ...]:
    leaf = read_leaf(_log()[1][HANDED_OVER - 1])
    return (Envelope(leaf.body, leaf.signatures),)


def _receipt(
    seq: int,
    *,
    size: int = 8,
    by: str = NEXT,
    note: Note | None = None,
    handovers: Sequence[Envelope] | None = None,
    founding: bytes | None = None,
) -> str:
    _, log = _log()
    packed = b"".join(map(leaf_hash, log[:size]))
    spans = inclusion_spans(seq - 1, size)
    tiles = dict.fromkeys(tiles_for(spans, size), packed)
    return write_receipt(
        log[seq - 1],
        index=seq - 1,
        hashes=[hash_of(start, end, size, tiles) for start, end in spans],
        note=note or _checkpoint(size, by=by),
        handovers=_handovers() if handovers is None else handovers,
        founding=founding,
    )


def _receipts() -> Iterator[Case]:
    witnesses = [str(_witness(name)) for name in WITNESSES]
    for seq in (1, 5, 8):
        yield _held(f"entry {seq} of 8, by the key of today", _receipt(seq), ledger=NEXT)
    yield _held("entry 5 of 8, by the key of the founding", _receipt(5), ledger="ledger")
    yield _held("entry 1 of 1", _receipt(1, size=1, by="ledger", handovers=()), ledger="ledger")
    yield _held("entry 5 of 6, before the key changed hands", _receipt(5, size=6, by="ledger"), ledger="ledger")
    founding = _envelope(_log()[1][0]).body
    yield _held("entry 5 of 8, with the founding", _receipt(5, founding=founding), ledger=NEXT)
    both = _receipt(6, note=_cosigned(_checkpoint(8, by=NEXT), *WITNESSES))
    yield _held("cosigned by two of two", both, ledger="ledger", witnesses=witnesses, quorum=2)


def _held(name: str, file: str, *, ledger: str, witnesses: Sequence[str] = (), quorum: int = 0) -> Case:
    keys = [NoteKey.parse(text) for text in witnesses]
    proven = verify_receipt(file, ledger=peer(ledger), witnesses=keys, quorum=quorum)
    return {
        "name": name,
        "kind": "receipt",
        **_asked(file, ledger, witnesses, quorum),
        "commons": proven.commons.hex(),
        "seq": proven.leaf.seq,
        "at": proven.leaf.at_ms,
        "type": proven.statement.type,
        "leaf": leaf_hash(_log()[1][proven.leaf.seq - 1]).hex(),
        "size": proven.checkpoint.size,
        "root": proven.checkpoint.root.hex(),
        "signed_by": proven.ledger.hex(),
        "cosigned": proven.cosigned,
        "name_of_commons": None if proven.founding is None else proven.founding.name,
    }


def _asked(file: str, ledger: str, witnesses: Sequence[str], quorum: int) -> Case:
    return {"file": file, "ledger": peer(ledger).hex(), "witnesses": list(witnesses), "quorum": quorum}


def _refused_receipts() -> Iterator[Case]:
    _, log = _log()
    true = read_proof_file(_receipt(5))
    extra: Any = unpack(true.extra or b"")
    data = extra[0]
    handover = _handovers()[0]
    half = Envelope(handover.body, handover.signatures[:1])
    lies: dict[str, tuple[str, str]] = {
        "another entry": (str(replace(true, extra=pack([log[5], extra[1]]))), "ledger"),
        "an entry with one bit changed": (str(replace(true, extra=pack([_flipped(data), extra[1]]))), "ledger"),
        "no entry": (str(replace(true, extra=None)), "ledger"),
        "another index": (str(replace(true, index=5)), "ledger"),
        "an index beyond the log": (str(replace(true, index=8)), "ledger"),
        "a hash less": (str(replace(true, hashes=true.hashes[:-1])), "ledger"),
        "a hash more": (str(replace(true, hashes=(*true.hashes, bytes(32)))), "ledger"),
        "a hash changed": (str(replace(true, hashes=(bytes(32), *true.hashes[1:]))), "ledger"),
        "a checkpoint that does not hold the entry": (str(replace(true, note=_checkpoint(4, by="ledger"))), "ledger"),
        "a checkpoint of another size": (str(replace(true, note=_checkpoint(6, by="ledger"))), "ledger"),
        "a checkpoint of a forked log": (
            str(replace(true, note=_checkpoint(8, by=NEXT, entries=[*log[:7], log[0]]))), "ledger",
        ),
        "a key that was never the ledger's": (_receipt(5), "anna"),
        "the new key, and a checkpoint by the old one": (_receipt(5, size=6, by="ledger"), NEXT),
        "no hand-over": (_receipt(5, handovers=()), "ledger"),
        "a hand-over that the new key has not signed": (_receipt(5, handovers=(half,)), "ledger"),
        "a hand-over that is another statement": (_receipt(5, handovers=(_envelope(log[4]),)), "ledger"),
        "a founding of another commons": (_receipt(5, founding=_elsewhere()), "ledger"),
        "a founding that is another statement": (_receipt(5, founding=_envelope(log[4]).body), "ledger"),
        "another first line": (_receipt(5).replace("@v1", "@v2"), "ledger"),
        "something after the file": (_receipt(5) + "more\n", "ledger"),
        "carriage returns": (_receipt(5).replace("\n", "\r\n"), "ledger"),
    }  # fmt: skip
    for why, (file, ledger) in lies.items():
        yield _denied(why, file, ledger=ledger)
    keys = [str(_witness(name)) for name in WITNESSES]
    one = _receipt(5, note=_cosigned(_checkpoint(8, by=NEXT), WITNESSES[0]))
    yield _denied("cosigned by one where two are asked for", one, ledger=NEXT, witnesses=keys, quorum=2)


def _denied(why: str, file: str, *, ledger: str, witnesses: Sequence[str] = (), quorum: int = 0) -> Case:
    keys = [NoteKey.parse(text) for text in witnesses]
    try:
        verify_receipt(file, ledger=peer(ledger), witnesses=keys, quorum=quorum)
    except BadReceipt:
        asked = _asked(file, ledger, witnesses, quorum)
        return {"name": f"no receipt: {why}", "kind": "receipt refused", **asked, "why": why}
    raise AssertionError(why)


def _elsewhere() -> bytes:
    """The body of a founding that makes another commons."""
    fields = unpack(_envelope(_log()[1][0]).body)
    assert isinstance(fields, dict)
    return pack({**fields, "name": "Elsewhere"})


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _envelope(data: bytes) -> Envelope:
    leaf = read_leaf(data)
    return Envelope(leaf.body, leaf.signatures)


# --- logfile.json -----------------------------------------------------------------------------------------


def logfile_json() -> str:
    """Give the text of `logfile.json`. Asserts that the reference code says what each case claims."""
    return file_text(
        about="Entry bundles and log files, whole and cut.",
        spec="§6.1, §6.5",
        cases=[*_bundles(), *_files()],
    )


def _bundles() -> Iterator[Case]:
    _, log = _log()
    for name, entries in (("none", []), ("one", [log[0]]), ("all", list(log)), ("empty ones", [b"", b"\x00", b""])):
        shown = {"entries": [data.hex() for data in entries], "hex": write_bundle(entries).hex()}
        yield {"name": f"bundle of {name}", "kind": "bundle", **shown}
    whole = write_bundle([b"one", b"two"])
    cuts = {"cut within an entry": whole[:-1], "cut within a length": whole[:6], "a length alone": whole[:2]}
    for why, cut in cuts.items():
        try:
            read_bundle(cut)
        except Rejected:
            yield {"name": f"no bundle: {why}", "kind": "bundle refused", "hex": cut.hex(), "why": why}
        else:
            raise AssertionError(why)


def _files() -> Iterator[Case]:
    _, log = _log()
    for size, by in ((6, "ledger"), (8, NEXT)):
        note = str(_checkpoint(size, by=by))
        data = write_file_head(note) + write_bundle(log[:size])
        assert _read(data) == (note, list(log[:size]))
        shown = {"hex": data.hex(), "note": note, "entries": [one.hex() for one in log[:size]]}
        yield {"name": f"log file of {size}", "kind": "log file", **shown}
    head = write_file_head(str(_checkpoint(1, by="ledger")))
    lies = {
        "another first line": head.replace(b"log/1", b"log/2") + write_bundle(log[:1]),
        "no checkpoint": b"gesell/log/1\n",
        "cut within the checkpoint": head[:60],
        "cut before the empty line": head[:-1],
        "cut within an entry": head + write_bundle(log[:1])[:-1],
        "a byte too many": head + write_bundle(log[:1]) + b"\x00",
    }
    for why, data in lies.items():
        try:
            _read(data)
        except Rejected:
            yield {"name": f"no log file: {why}", "kind": "log file refused", "hex": data.hex(), "why": why}
        else:
            raise AssertionError(why)


def _read(data: bytes) -> tuple[str, list[bytes]]:
    file = io.BytesIO(data)
    return read_file_head(file), list(read_file_entries(file))

"""Offline receipts and hand-overs of the ledger's key (SPEC §3.6, §6; C2SP tlog-proof).

Owns the file that proves that an entry stands in a commons' log, and the chain of keys by which a ledger's signature
is followed from a key that one trusts. Needs nothing but the file and that key: no network, no ledger.

A tlog-proof file is text: what the entry is (in its `extra` line), where it stands, the hashes up to the root, and the
checkpoint with that root. In `extra` stands canonical MessagePack `[leaf data, [envelope of a rekey …]]`, and after
these maybe the body of the commons' founding, which its name binds: it says what the amounts are of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gesell_protocol.canonical import pack, unpack
from gesell_protocol.envelopes import Envelope, read_envelope, verify_envelope
from gesell_protocol.log import Leaf, leaf_hash, leaf_of, read_leaf
from gesell_protocol.names import base64_text, unbase64
from gesell_protocol.notes import (
    BadNote,
    Checkpoint,
    Note,
    NoteKey,
    count_cosigned,
    read_checkpoint,
    read_note,
    verify_checkpoint,
)
from gesell_protocol.receipts import Receipt, ReceiptMismatch, check_receipt
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Found, Rekey, Statement, read_statement
from gesell_protocol.tree import HASH_BYTES, BadProof, check_inclusion

FIRST_LINE: Final = "c2sp.org/tlog-proof@v1"
#: A leaf of 64 KiB and a hundred hand-overs, in base64, and the rest.
FILE_MAX_BYTES: Final = 512 * 1024
HASHES_MAX: Final = 63
#: Leaf data, hand-overs, and maybe the founding.
_EXTRAS: Final = ([bytes, list], [bytes, list, bytes])


class BadReceipt(ValueError):
    """The file is no receipt, or does not prove what it says; the message says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFile:
    """A tlog-proof file: leaf `index` (entry index + 1), the hashes from its sibling up, and the checkpoint."""

    index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    def __str__(self) -> str:
        """The file's text."""
        extra = [] if self.extra is None else [f"extra {base64_text(self.extra)}"]
        hashes = [base64_text(one) for one in self.hashes]
        return "\n".join([FIRST_LINE, *extra, f"index {self.index}", *hashes, "", str(self.note)])


def read_proof_file(text: str | bytes) -> ProofFile:
    """Take a tlog-proof file apart; raises `BadReceipt` for what is none. Nothing in it is verified."""
    if len(text) > FILE_MAX_BYTES:
        raise BadReceipt(f"a proof has at most {FILE_MAX_BYTES} bytes")
    try:
        text = text if isinstance(text, str) else text.decode()
    except UnicodeError:
        raise BadReceipt("a proof is UTF-8") from None
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != FIRST_LINE:
        raise BadReceipt(f"a proof begins with the line {FIRST_LINE}")
    extra = _line(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    index = lines.pop(0) if lines else ""
    number = index.removeprefix("index ")
    if number == index or not (number.isascii() and number.isdigit()) or len(number) > 19 or str(int(number)) != number:
        raise BadReceipt("a proof says the index of its entry")
    hashes = tuple(_line(line) for line in lines)
    if len(hashes) > HASHES_MAX or any(len(one) != HASH_BYTES for one in hashes):
        raise BadReceipt(f"a proof has at most {HASHES_MAX} hashes of {HASH_BYTES} bytes")
    try:
        return ProofFile(index=int(number), hashes=hashes, note=read_note(note), extra=extra)
    except BadNote as error:
        raise BadReceipt(f"the checkpoint can't be read: {error}") from None


# ── Hand-overs ───────────────────────────────────────────────────────────────────────────────────────────────────


def follow(ledger: bytes, handovers: Iterable[Envelope], *, commons: bytes) -> tuple[bytes, ...]:
    """The keys that a ledger went over to, from one that is trusted: that one first, the one in force last.

    `handovers` are the envelopes of `rekey` statements of this commons, in the order of its log; those before the
    trusted key's time are passed over. Raises `BadReceipt` for one that is no hand-over or is not signed by both keys.
    """
    keys = [ledger]
    for envelope in handovers:
        statement = read_handover(envelope, commons=commons)
        if statement.by == keys[-1]:
            keys.append(statement.ledger)
    return tuple(keys)


def read_handover(envelope: Envelope, *, commons: bytes) -> Rekey:
    """The `rekey` in an envelope, signed by the old key and the new; raises `BadReceipt`."""
    try:
        statement = read_statement(envelope)
        verify_envelope(envelope)
    except Rejected as rejected:
        raise BadReceipt(f"a hand-over of the ledger's key does not hold: {rejected}") from None
    if not isinstance(statement, Rekey) or statement.commons != commons:
        raise BadReceipt("what should hand over the ledger's key of this commons is something else")
    if not {statement.by, statement.ledger} <= set(envelope.signers):
        raise BadReceipt("a hand-over of the ledger's key is not signed by both keys")
    return statement


def verify_followed(
    note: Note, *, commons: bytes, ledger: bytes, handovers: Sequence[Envelope]
) -> tuple[Checkpoint, bytes]:
    """What a note says as a checkpoint of a commons' log by a ledger whose key may have been handed over since.

    Returns it with the key that signed it: `ledger` or one that followed. Raises `BadNote` or `BadReceipt`.
    """
    keys = follow(ledger, handovers, commons=commons)
    for key in reversed(keys[1:]):
        named = NoteKey(read_checkpoint(note).origin, key)
        if any(one.name == named.name and one.key_id == named.id for one in note.signatures):
            return verify_checkpoint(note, commons=commons, ledger=key), key
    return verify_checkpoint(note, commons=commons, ledger=ledger), ledger


# ── Receipts ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What an offline receipt proves: this entry stands in the log of which this is a checkpoint.

    `commons` is the log's; `leaf` the entry, its signatures not verified; `statement` what was signed; `ledger` the
    key that signed the checkpoint; `cosigned` how many of the witnesses asked for have cosigned it; `founding` what the
    commons was founded with, where the file tells.
    """

    commons: bytes
    leaf: Leaf
    statement: Statement
    checkpoint: Checkpoint
    ledger: bytes
    cosigned: int
    founding: Found | None


def write_receipt(
    leaf_data: bytes,
    *,
    index: int,
    hashes: Sequence[bytes],
    note: Note,
    handovers: Sequence[Envelope],
    founding: bytes | None = None,
) -> str:
    """The offline receipt of an entry as text; `founding` is the body of the commons' `found`, for who may see it."""
    carried = [leaf_data, [envelope.wire()[:2] for envelope in handovers]]
    extra = pack(carried if founding is None else [*carried, founding])
    return str(ProofFile(index=index, hashes=tuple(hashes), note=note, extra=extra))


class Extra(NamedTuple):
    """What a receipt carries beside the proof; `founding` is the body of the commons' `found`, if it is there."""

    leaf: bytes
    handovers: tuple[Envelope, ...]
    founding: bytes | None


def read_extra(extra: bytes | None) -> Extra:
    """What stands in a receipt's `extra`; raises `BadReceipt` for anything else. Nothing in it is verified."""
    if extra is None:
        raise BadReceipt("the file does not carry the entry that it is to prove")
    try:
        value = unpack(extra)
        if not isinstance(value, list) or [type(item) for item in value] not in _EXTRAS:
            raise BadReceipt("the file does not carry the entry that it is to prove")
        handovers = tuple(read_envelope(one) for one in value[1])
    except Rejected as rejected:
        raise BadReceipt(f"the entry in the file can't be read: {rejected}") from None
    return Extra(value[0], handovers, value[2] if len(value) == 3 else None)


def verify_receipt(text: str | bytes, *, ledger: bytes, witnesses: Sequence[NoteKey] = (), quorum: int = 0) -> Proven:
    """Check an offline receipt with nothing but the ledger's public key; raises `BadReceipt`, saying what is wrong.

    `ledger` is the key now or at any time before: hand-overs in the file are followed from it. At least `quorum` of
    `witnesses` must have cosigned the checkpoint. Checked are the checkpoint's signature, the hashes from the entry to
    its root, every signature of the statement in the entry, and that it posts what was signed.
    """
    proof = read_proof_file(text)
    data, handovers, body = read_extra(proof.extra)
    try:
        leaf = read_leaf(data)
        envelope = Envelope(leaf.body, leaf.signatures)
        statement = read_statement(envelope, min_tick_seconds=1)
        verify_envelope(envelope)
        founding = _founding(statement, body)
        checkpoint, signer = verify_followed(proof.note, commons=statement.commons, ledger=ledger, handovers=handovers)
        cosigned = count_cosigned(proof.note, witnesses)
        if leaf.seq != proof.index + 1:
            raise BadReceipt("the entry's number is not that of its place in the log")
        check_inclusion(
            leaf_hash(data), index=proof.index, size=checkpoint.size, root=checkpoint.root, proof=proof.hashes
        )
        _check_posted(leaf, envelope, statement, founding)
    except (Rejected, BadNote, BadProof, ReceiptMismatch) as error:
        raise BadReceipt(str(error)) from None
    if cosigned < quorum:
        raise BadReceipt(f"{cosigned} of the witnesses have cosigned its checkpoint, {quorum} must have")
    return Proven(
        commons=statement.commons,
        leaf=leaf,
        statement=statement,
        checkpoint=checkpoint,
        ledger=signer,
        cosigned=cosigned,
        founding=founding,
    )


def _check_posted(leaf: Leaf, envelope: Envelope, statement: Statement, founding: Found | None) -> None:
    """Check that the entry posts what was signed, and was taken while that was valid: a ledger could prove its lie."""
    if leaf.at_ms > statement.expires_ms:
        raise BadReceipt("the statement had expired by the entry's time")
    receipt = Receipt(
        commons=statement.commons,
        seq=leaf.seq,
        at_ms=leaf.at_ms,
        tick=0,
        id=statement.id,
        leaf=leaf_of(**leaf._asdict()),
        postings=leaf.postings,
    )
    currency = None if founding is None else founding.currency.code
    check_receipt(receipt, envelope=envelope, statement=statement, currency=currency)


def _founding(statement: Statement, body: bytes | None) -> Found | None:
    """The founding that a receipt carries, if it is that of the statement's commons."""
    if body is None:
        return statement if isinstance(statement, Found) else None
    founding = read_statement(Envelope(body, ()), min_tick_seconds=1)
    if not isinstance(founding, Found) or founding.commons != statement.commons:
        raise BadReceipt("the founding in the file is not that of its commons")
    return founding


def _line(text: str) -> bytes:
    try:
        return unbase64(text)
    except ValueError:
        raise BadReceipt("a line of the proof is not base64") from None

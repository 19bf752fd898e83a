"""What the reader of a log holds of it from elsewhere: checkpoints and receipts, and what it audited before.

Owns how they are read from files and states. Judges nothing: that is `checks`'.
"""

from __future__ import annotations

from dataclasses import dataclass

from gesell_ledger.auditor.memory import Progress
from gesell_protocol.notes import Checkpoint, Note, read_checkpoint, read_note
from gesell_protocol.proofs import FIRST_LINE, BadReceipt, Proven, read_extra, read_proof_file


@dataclass(slots=True, eq=False)
class Held:
    """A checkpoint that the reader has from elsewhere.

    Of a receipt also its text, leaf data and entry (from 1), and what it proves once its key is known.
    """

    name: str
    note: Note
    checkpoint: Checkpoint
    receipt: str | None = None
    place: int = 0
    leaf: bytes = b""
    proven: Proven | None = None


def audited_before(progress: Progress) -> tuple[Held, ...]:
    """The last checkpoint up to which everything held in an earlier audit, if it came to one."""
    if not progress.note:
        return ()
    note = read_note(progress.note)
    return (Held("what you audited before", note, read_checkpoint(note)),)


def read_held(name: str, text: str) -> Held:
    """What a file holds: a checkpoint, or a receipt with its own; raises `BadNote` or `BadReceipt` for another file."""
    if not text.startswith(FIRST_LINE):
        note = read_note(text)
        return Held(name, note, read_checkpoint(note))
    proof = read_proof_file(text)
    checkpoint = read_checkpoint(proof.note)
    if proof.index >= checkpoint.size:
        # Such an entry would never come by, and a receipt that nobody looked at must not seem to hold.
        raise BadReceipt(f"its checkpoint is of {checkpoint.size} entries and does not cover entry {proof.index + 1}")
    leaf = read_extra(proof.extra).leaf
    return Held(name, proof.note, checkpoint, text, proof.index + 1, leaf)

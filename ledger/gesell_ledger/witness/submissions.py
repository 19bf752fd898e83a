"""What is submitted to a witness, and whether it fits what the witness saw before (C2SP tlog-witness, add-checkpoint).

Owns the text of a submission and the order of refusals once it is known whose it is. Pure; `trusted` knows whose
checkpoints are taken. A submission is refused, in this order,

1. with 400 if it can't be read,
2. with 404 and 403 as `trusted` says,
3. with 400 if its old size is above the checkpoint's size,
4. with 409, and the size of the latest cosigned checkpoint, if its old size is another one,
5. with 422 if the checkpoint does not lead up from the latest one by the proof that came with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from gesell_protocol.names import unbase64
from gesell_protocol.notes import NOTE_MAX_BYTES, BadNote, Checkpoint, Note, read_checkpoint, read_note
from gesell_protocol.tree import EMPTY_ROOT, HASH_BYTES, SIZE_MAX, BadProof, check_consistency, roots_of_consistency

PROOF_MAX: Final = 63
#: A note, and before it the old size and a proof.
BODY_MAX_BYTES: Final = NOTE_MAX_BYTES + 4 * 1024

_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")

#: Of a checkpoint that was refused: `fork`, it contradicts one that the log signed before, for everybody to see;
#: `unproven`, it came with a proof that does not hold, as anybody can send one along.
Contradiction = Literal["fork", "unproven"]


class Rejected(Exception):
    """A submission is refused with this HTTP status; with 409, `size` is that of the latest cosigned checkpoint."""

    def __init__(self, status: int, why: str, *, size: int = 0) -> None:
        super().__init__(why)
        self.status = status
        self.size = size


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint, none of its signatures verified, and the proof that it leads up from a tree of `old` leaves."""

    old: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Latest:
    """What a witness cosigned last of a log, with the log's key under it; an empty tree if it never did."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    key: bytes | None = None
    note: str = ""


def read_submission(body: bytes) -> Submission:
    """Take a submission apart (rule 1); raises `Rejected`."""
    head, _, tail = body.partition(b"\n\n")
    try:
        first, *hashes = head.decode("ascii").split("\n")
        old = _OLD.fullmatch(first)
        if old is None or int(old[1]) > SIZE_MAX:
            raise Rejected(400, "a submission begins with a line like: old 20852014")
        if len(hashes) > PROOF_MAX:
            raise Rejected(400, f"a proof has at most {PROOF_MAX} lines")
        proof = tuple(unbase64(line) for line in hashes)
        if any(len(one) != HASH_BYTES for one in proof):
            raise ValueError("not 32 bytes")
    except ValueError:
        raise Rejected(400, "the lines of a proof are base64 of 32 bytes each, and an empty line follows") from None
    try:
        note = read_note(tail)
        return Submission(int(old[1]), proof, note, read_checkpoint(note))
    except BadNote as error:
        raise Rejected(400, f"no checkpoint: {error}") from None


def judge(submission: Submission, latest: Latest) -> None:
    """Check that a checkpoint leads up from the latest one (rules 3 to 5); raises `Rejected`."""
    checkpoint = submission.checkpoint
    if submission.old > checkpoint.size:
        raise Rejected(400, "the old size is above the checkpoint's")
    if submission.old != latest.size:
        raise Rejected(409, "the latest cosigned checkpoint has another size", size=latest.size)
    try:
        check_consistency(
            old=latest.size,
            old_root=latest.root,
            new=checkpoint.size,
            new_root=checkpoint.root,
            proof=submission.proof,
        )
    except BadProof as error:
        raise Rejected(422, f"the checkpoint does not lead up from the latest one: {error}") from None


def contradiction_of(submission: Submission, latest: Latest) -> Contradiction | None:
    """Whether a checkpoint that the log did sign, and `judge` refused, tells of a fork; None for one that is only old,
    early or misspelt.
    """
    checkpoint = submission.checkpoint
    if latest.key is None:
        return None
    if checkpoint.size == latest.size and checkpoint.root != latest.root:
        return "fork"
    if submission.old != latest.size or checkpoint.size <= latest.size:
        return None
    try:
        before, after = roots_of_consistency(
            old=latest.size, old_root=latest.root, new=checkpoint.size, proof=submission.proof
        )
    except BadProof:
        return "unproven"
    # A proof that ends in the checkpoint's root is a proof of what its tree began with.
    return "fork" if after == checkpoint.root and before != latest.root else "unproven"

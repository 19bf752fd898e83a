"""The witness itself: reads a submission, judges it by what it remembers, remembers it, and only then cosigns.

Owns the order of these. Speaks no HTTP and no SQL.

1. Of all checkpoints of one origin that it ever cosigned, each leads up from those before.
2. A checkpoint is on the disk before its cosignature leaves; one that the disk did not take is not cosigned.
3. A cosignature's time is read within the transaction that makes its checkpoint the latest, so that it is the latest
   at that time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gesell_ledger.keyfile import load_or_make_key
from gesell_ledger.witness.records import Conflict, Records, RecordsFault
from gesell_ledger.witness.submissions import Latest, Rejected, Submission, contradiction_of, judge, read_submission
from gesell_ledger.witness.trusted import Trusted, lines_of
from gesell_protocol.ed25519 import Signer
from gesell_protocol.notes import WITNESS_KEY, Note, NoteKey, cosign

FILE: Final = "witness.sqlite"

log = structlog.get_logger("gesell.witness")


def _now_s() -> int:
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Received:
    """A submission with the keys that may speak for its origin and signed it."""

    submission: Submission
    signed: tuple[NoteKey, ...]


class Witness:
    """One witness. `read` may be called from anywhere, all the rest from one thread at a time."""

    def __init__(
        self, records: Records, trusted: Trusted, *, name: str, signer: Signer, now_s: Callable[[], int] = _now_s
    ) -> None:
        self._records = records
        self._trusted = trusted
        self._signer = signer
        self._now_s = now_s
        self.key = NoteKey(name, signer.public_key, WITNESS_KEY)

    def read(self, body: bytes) -> Received:
        """Take a submission and verify whose it is; raises `Rejected`."""
        submission = read_submission(body)
        return Received(submission, self._trusted.verify(submission.note, submission.checkpoint.origin))

    def cosign(self, received: Received) -> str:
        """Remember a checkpoint that leads up from the latest one, and return the lines of our cosignature.

        Raises `Rejected`; a checkpoint that tells of a fork is kept as evidence. On `sqlite3.Error` nothing was
        cosigned.
        """
        submission, origin = received.submission, received.submission.checkpoint.origin
        rejected: Rejected | None = None
        with self._records.transaction():
            latest = self._records.load(origin)
            key = self._trusted.speaker(received.signed, origin, latest)
            note = Note(submission.note.text, lines_of(submission.note, [key]))
            try:
                judge(submission, latest)
            except Rejected as error:
                # Raised after the block, which would take the evidence back otherwise.
                rejected = error
                self._keep_evidence(submission, note, latest)
            else:
                line = cosign(note, name=self.key.name, signer=self._signer, time_s=self._now_s())
                cosigned = str(note.with_signatures([line]))
                checkpoint = submission.checkpoint
                self._records.store(origin, Latest(checkpoint.size, checkpoint.root, key.key, cosigned))
        if rejected is not None:
            raise rejected
        return line.line()

    def load_note(self, origin_hash: bytes) -> str | None:
        """The latest checkpoint of a log that was cosigned, with its log's signature and ours."""
        return self._records.load_note(origin_hash)

    def list_conflicts(self, origin_hash: bytes) -> list[Conflict]:
        """What contradicted the checkpoints of a log."""
        return self._records.list_conflicts(origin_hash)

    def count(self) -> tuple[int, int]:
        """How many logs were cosigned, and how many of them are known to have forked."""
        return self._records.count()

    def close(self) -> None:
        """Close what it remembers in."""
        self._records.close()

    def _keep_evidence(self, submission: Submission, note: Note, latest: Latest) -> None:
        kind = contradiction_of(submission, latest)
        if kind is None:
            return
        new = self._records.store_conflict(
            kind, submission, note=str(note), cosigned=latest.note, received_s=self._now_s()
        )
        if new:
            sizes = {"cosigned": latest.size, "refused": submission.checkpoint.size}
            tell = log.critical if kind == "fork" else log.warning
            tell("log_forked" if kind == "fork" else "proof_refused", origin=submission.checkpoint.origin, **sizes)


def open_witness(folder: Path, *, name: str, key_file: Path, passphrase: bytes | None, trusted: Trusted) -> Witness:
    """The witness whose memory is in a folder; makes memory and key at the first start.

    Raises a `Fault` where they are not of this name, not of each other, or where one of them is gone.
    """
    file = folder / FILE
    if key_file.exists() and not file.exists():
        raise RecordsFault(
            f"{key_file} is there, and what its witness remembered is not ({file}). A witness that forgot could cosign"
            " a fork: put its memory back, or move the key away and begin as another witness, with another name"
        )
    had_key = key_file.exists()
    records = Records.open(file)
    owner = records.owner()
    if owner is None and had_key:
        raise RecordsFault(
            f"{file} remembers nothing, and its key {key_file} was there before it. A witness that forgot could cosign"
            " a fork: put its memory back, or move the key away and begin as another witness, with another name"
        )
    if owner is not None and not key_file.exists():
        raise RecordsFault(f"{folder} remembers what {owner[0]} cosigned, and its key {key_file} is not there")
    signer = load_or_make_key(key_file, passphrase=passphrase).signer()
    records.claim(name, signer.public_key)
    if records.owner() != (name, signer.public_key):
        assert owner is not None
        raise RecordsFault(f"{folder} is the memory of {owner[0]}, with another key or name than {key_file} and {name}")
    return Witness(records, trusted, name=name, signer=signer)

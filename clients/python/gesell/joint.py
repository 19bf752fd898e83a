"""Statements that several sign in turns: the file that goes from hand to hand, and one more signature on it.

Owns the file's form and what is checked before a signature is added. What a statement says in plain words is
`wording`'s. Knows no ledger: the time is told by the caller.

The file is JSON in UTF-8, as SPEC §7.1 has a statement: `{"body", "signatures": [{"key", "signature"}], "memo"?}`. It
holds nothing secret but the memo's text. Who has it can send it, once enough have signed, and change nothing in it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from gesell.answers import json_envelope, read_json_envelope
from gesell.errors import Refused, StatementFileError, refused
from gesell.peer import Peer
from gesell.wording import moment_text
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, read_envelope, verify_envelope
from gesell_protocol.names import base64url
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Statement, read_statement

FILE_MAX_BYTES: Final = 64 * 1024
#: How the detail of a refusal ends that was given here, before anything was sent.
NOT_SENT: Final = " (nothing was sent)"


def cosign(envelope: Envelope, peer: Peer, *, now_ms: int) -> Envelope:
    """The envelope with the signature of `peer` beside those it has; the same if it has signed already.

    `now_ms` is the ledger's time. Raises `Malformed`, `TooLarge` or `BadSignature` for what no ledger would take, and
    `Expired` for what none takes any more.
    """
    statement = check(envelope)
    if now_ms > statement.expires_ms:
        raise not_sent(Rejected("expired", f"it was good until {moment_text(statement.expires_ms)}"))
    signatures = {**dict(envelope.signatures), peer.key: peer.sign(STATEMENT_PREFIX + envelope.body)}
    signed = Envelope(envelope.body, tuple(sorted(signatures.items())), envelope.memo)
    check(signed)
    return signed


def check(envelope: Envelope) -> Statement:
    """What an envelope says; raises the refusal that any ledger would answer if form or signatures do not hold."""
    try:
        read_envelope(envelope.wire())
        statement = read_statement(envelope, min_tick_seconds=1)
        verify_envelope(envelope)
    except Rejected as error:
        raise not_sent(error) from None
    return statement


def signatures_of(body: bytes, signers: Sequence[Peer]) -> tuple[tuple[bytes, bytes], ...]:
    """The signatures of a new body, as an envelope has them: each signer once, in the order of their keys."""
    message = STATEMENT_PREFIX + body
    if len(signers) == 1:
        return ((signers[0].key, signers[0].sign(message)),)
    return tuple(sorted((peer.key, peer.sign(message)) for peer in set(signers)))


def read_signed(envelope: Envelope | bytes) -> tuple[Envelope, Statement]:
    """An envelope, given as it is or as its bytes, and what it says, signatures unverified; raises a refusal."""
    try:
        if isinstance(envelope, bytes):
            envelope = read_envelope(unpack(envelope))
        return envelope, read_statement(envelope, min_tick_seconds=1)
    except Rejected as error:
        raise not_sent(error) from None


def not_sent(error: Rejected) -> Refused:
    """The refusal that any ledger would answer, given here before anything is sent."""
    return refused({"code": error.refusal.code, "detail": error.refusal.detail + NOT_SENT})


def save_statement(envelope: Envelope, path: str | os.PathLike[str]) -> Envelope:
    """Write an envelope to a new statement file, or add its signatures to those in the file of the same statement.

    Returns what the file holds now: `save_statement(draft, "issue.json")`. Never touches a file that holds anything
    else. The file is made or replaced whole or not at all, and what others add to it meanwhile stays in it (on one
    machine). Raises `StatementFileError`, or `Malformed` if there are more signatures than one statement may have.
    """
    target = Path(path)
    try:
        with _alone_in(target.parent):
            if os.path.lexists(target):
                envelope = _joined(envelope, load_statement(target), target)
                _replace(envelope, target)
            else:
                _make(envelope, target)
    except OSError as error:
        raise StatementFileError(f"{path} can't be written: {error.strerror}") from None
    return envelope


def _joined(envelope: Envelope, there: Envelope, path: Path) -> Envelope:
    """The signatures of both; `StatementFileError` if the file's statement is another."""
    if there.body != envelope.body:
        raise StatementFileError(f"{path} holds another statement; nothing was written")
    signatures = {**dict(there.signatures), **dict(envelope.signatures)}
    joined = Envelope(envelope.body, tuple(sorted(signatures.items())), envelope.memo or there.memo)
    check(joined)
    return joined


def _make(envelope: Envelope, target: Path) -> None:
    # O_EXCL: whatever may have come there since we looked stays as it is.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _write(envelope, file)
    except OSError:
        with suppress(OSError):
            os.unlink(target)
        raise


def _replace(envelope: Envelope, target: Path) -> None:
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _write(envelope, file)
        os.replace(beside, target)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _write(envelope: Envelope, file: IO[str]) -> None:
    json.dump(_fields_of(envelope), file, indent=1, ensure_ascii=False)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers of statement files in this folder waiting, on systems and file systems that can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        yield
        return
    try:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def load_statement(path: str | os.PathLike[str]) -> Envelope:
    """Read a statement file, whose signatures must hold: `envelope = load_statement("issue.json")`.

    Raises `StatementFileError`, or `Malformed` or `BadSignature` for a statement that no ledger would take.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise StatementFileError(f"{path} can't be read: {error.strerror}") from None
    try:
        if len(data) > FILE_MAX_BYTES:
            raise ValueError("too large")
        envelope = read_json_envelope(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StatementFileError(f"{path} is no statement file") from None
    check(envelope)
    return envelope


def _fields_of(envelope: Envelope) -> dict[str, Any]:
    fields = json_envelope(envelope)
    if envelope.memo is not None:
        fields["memo"] = {"salt": base64url(envelope.memo.salt), "text": envelope.memo.text}
    return fields

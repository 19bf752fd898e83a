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
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gesell.errors import Refused, StatementFileError, refused
from gesell.peer import Peer
from gesell.wording import moment_text
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, Memo, read_envelope, verify_envelope
from gesell_protocol.names import base64url, did_of, peer_of, unbase64url
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Statement, read_statement

FILE_MAX_BYTES: Final = 64 * 1024


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


def not_sent(error: Rejected) -> Refused:
    """The refusal that any ledger would answer, given here before anything is sent."""
    return refused({"code": error.refusal.code, "detail": f"{error.refusal.detail} (nothing was sent)"})


def save_statement(envelope: Envelope, path: str | os.PathLike[str]) -> None:
    """Write an envelope to a statement file, in place of what was there: `save_statement(draft, "issue.json")`.

    The file is replaced whole or not at all. Raises `StatementFileError`.
    """
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = file.name
            json.dump(_fields_of(envelope), file, indent=1, ensure_ascii=False)
            file.write("\n")
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise StatementFileError(f"{path} can't be written: {error.strerror}") from None


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
        envelope = _envelope_of(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise StatementFileError(f"{path} is no statement file") from None
    check(envelope)
    return envelope


def _fields_of(envelope: Envelope) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "body": base64url(envelope.body),
        "signatures": [{"key": did_of(key), "signature": base64url(made)} for key, made in envelope.signatures],
    }
    if envelope.memo is not None:
        fields["memo"] = {"salt": base64url(envelope.memo.salt), "text": envelope.memo.text}
    return fields


def _envelope_of(fields: dict[str, Any]) -> Envelope:
    memo = fields.get("memo")
    return Envelope(
        unbase64url(fields["body"]),
        tuple((peer_of(item["key"]), unbase64url(item["signature"])) for item in fields["signatures"]),
        None if memo is None else Memo(unbase64url(memo["salt"]), memo["text"]),
    )

"""One statement as it came over HTTP: checked, or refused (SPEC §3, §7.1).

Owns the form of an envelope in both formats, and the first three checks of SPEC §3: form, schema, signatures. Decides
nothing about the books. Runs in processes of its own (`checker`), so it imports neither the framework nor the service.
"""

from __future__ import annotations

import traceback
from typing import Annotated, Any, Final

import msgpack
import msgspec
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api.member_names import count_names
from gesell_ledger.api.shapes import Base64url, KeyName, Memo, Signature, read_key
from gesell_ledger.checked import Broken, Checked
from gesell_ledger.core.decide import Submission
from gesell_protocol.envelopes import ENVELOPE_MAX_BYTES, SIGNATURES_MAX, read_envelope, verify_envelope
from gesell_protocol.names import unbase64url
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import read_statement

#: An envelope in MessagePack may have longer headers than it needs, but not more than this in all.
PIECE_MAX_BYTES: Final = 2 * ENVELOPE_MAX_BYTES


class SignatureForm(msgspec.Struct, forbid_unknown_fields=True):
    """A signature and the key that made it."""

    key: KeyName
    signature: Signature


class EnvelopeForm(msgspec.Struct, forbid_unknown_fields=True):
    """A statement's body with its signatures, in ascending order of their keys, and its memo if it carries a seal."""

    body: Base64url
    signatures: Annotated[list[SignatureForm], Meta(min_length=1, max_length=SIGNATURES_MAX)]
    memo: Memo | UnsetType = UNSET


_decoder = msgspec.json.Decoder(EnvelopeForm)


def check(piece: bytes, *, is_json: bool, min_tick_seconds: int) -> Checked:
    """What becomes of one statement; a fault of ours is its own answer and ends nothing else."""
    try:
        return check_piece(piece, is_json=is_json, min_tick_seconds=min_tick_seconds)
    except Exception:
        return Broken(traceback.format_exc())


def check_piece(piece: bytes, *, is_json: bool, min_tick_seconds: int) -> Submission | Refusal:
    """The statement with its envelope, every signature verified; or why it can't be taken."""
    try:
        envelope = read_envelope(_read_json(piece) if is_json else _read_msgpack(piece))
        statement = read_statement(envelope, min_tick_seconds=min_tick_seconds)
        verify_envelope(envelope)
    except Rejected as rejected:
        return rejected.refusal
    return Submission(envelope, statement)


def _read_msgpack(piece: bytes) -> object:
    if len(piece) > PIECE_MAX_BYTES:
        raise Rejected("too-large", f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes")
    try:
        # No array of an envelope is longer than this, so nested headers can't claim more room than they take.
        return msgpack.unpackb(piece, max_array_len=SIGNATURES_MAX, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected("malformed", f"not an envelope in MessagePack: {error or type(error).__name__}") from None


def _read_json(piece: bytes) -> object:
    try:
        one = _decoder.decode(piece)
        value: list[Any] = [
            unbase64url(one.body),
            [[read_key(item.key), unbase64url(item.signature)] for item in one.signatures],
        ]
        members = 2 + 2 * len(one.signatures)
        if isinstance(one.memo, Memo):
            value.append([unbase64url(one.memo.salt), one.memo.text])
            members += 3
        # The decoder takes the last of two members of one name; another reader might take the first.
        if count_names(piece) != members:
            raise ValueError("a member stands there twice")
    except (ValueError, RecursionError) as error:
        raise Rejected("malformed", f"a statement in JSON is {{body, signatures, memo?}}: {error}") from None
    return value

"""How statements go to a process that checks them, and what became of each comes back.

Owns the frames between `checkers` and `checker`: a length in four bytes, then `marshal`, which takes a fifth of what
pickle takes: the two ends are one program of one interpreter, and nobody else holds the socket. Payments, which most
statements are, travel as the tuple of their parts, all else as a pickle within the frame.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from gesell_ledger.core.decide import Submission
from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import leg_of
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Pay

#: The bytes of a frame's length.
HEAD_BYTES: Final = 4


class Broken(NamedTuple):
    """The check itself failed, which is a fault of ours."""

    trace: str


Checked = Submission | Refusal | Broken
#: Statements of one format, as they came: whether they are JSON, and the bytes of each.
Parcel = tuple[bool, list[bytes]]

_PARTS: Final = ("commons", "by", "id", "expires_ms", "memo", "ref", "balancing", "category")
_parts_of = attrgetter(*_PARTS)


def write_parcels(parcels: Sequence[Parcel]) -> bytes:
    """The frame that hands statements over."""
    return _frame(marshal.dumps(list(parcels)))


def read_parcels(packed: bytes) -> list[Parcel]:
    """What `write_parcels` wrote, without the frame's head."""
    parcels: list[Parcel] = marshal.loads(packed)
    return parcels


def write_checked(checked: Iterable[Checked]) -> bytes:
    """The frame that brings the outcomes back, in the order of the statements."""
    return _frame(marshal.dumps([_pack(one) for one in checked]))


def read_checked(packed: bytes) -> list[Checked]:
    """What `write_checked` wrote, without the frame's head."""
    return [_unpack(one) for one in marshal.loads(packed)]


def _frame(packed: bytes) -> bytes:
    return len(packed).to_bytes(HEAD_BYTES, "big") + packed


def _pack(checked: Checked) -> object:
    if isinstance(checked, Submission) and isinstance(checked.statement, Pay) and checked.envelope.memo is None:
        pay, envelope = checked.statement, checked.envelope
        return envelope.body, envelope.signatures, list(map(tuple, pay.legs)), *_parts_of(pay)
    return pickle.dumps(checked, pickle.HIGHEST_PROTOCOL)


def _unpack(packed: object) -> Checked:
    if isinstance(packed, bytes):
        checked: Checked = pickle.loads(packed)
        return checked
    assert isinstance(packed, tuple)
    body, signatures, legs, commons, by, name, expires_ms, memo, ref, balancing, category = packed
    pay = Pay(
        commons=commons,
        by=by,
        id=name,
        expires_ms=expires_ms,
        memo=memo,
        legs=tuple(map(leg_of, legs)),
        ref=ref,
        balancing=balancing,
        category=category,
    )
    return Submission(Envelope(body, signatures), pay)

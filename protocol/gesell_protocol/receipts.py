"""Receipts: what the ledger answers to an accepted statement, and what its author can check about it (SPEC §7.1).

Owns the receipt's form on the wire and the checks that need nothing but the author's own envelope. That the entry
stands in the log is proved with the log's tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import Leg
from gesell_protocol.log import Posting, leaf_of
from gesell_protocol.names import ESCROW, ISSUER, KIND, POOL, Holder, id_text
from gesell_protocol.statements import (
    LEDGER_TYPES,
    Capture,
    Grant,
    Hold,
    Issue,
    Leave,
    Pay,
    Retire,
    Share,
    Statement,
    Thank,
    Void,
    Writeoff,
)


class Receipt(NamedTuple):
    """Entry `seq` of a commons: accepted at `at_ms`, in tick `tick`, with the postings, in grains, that it made."""

    commons: bytes
    seq: int
    at_ms: int
    tick: int
    id: bytes
    leaf: bytes
    postings: tuple[Posting, ...]

    def __repr__(self) -> str:
        moved = " ".join(f"{posting!r}" for posting in self.postings)
        about = f"entry {self.seq}, statement {id_text(self.id)}, at {_utc(self.at_ms)}"
        return f"<Receipt {about}: {moved or 'no postings'}>"

    def wire(self) -> dict[str, object]:
        """The map of SPEC §7.1 with bytes and ints, as MessagePack answers carry it."""
        return {
            "commons": self.commons,
            "seq": self.seq,
            "at": self.at_ms,
            "tick": self.tick,
            "id": self.id,
            "leaf": self.leaf,
            "postings": self.postings,
        }


def _utc(ms: int) -> str:
    """A moment as people write it, `2026-01-01 12:00:00`; by hand, since the protocol imports nothing that has a clock.

    Years begin in March here, so that a leap day comes last: 153 days are the five months from there.
    """
    days, seconds = divmod(ms // 1000, 86_400)
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year, month = era * 400 + year + (month >= 10), month + 3 if month < 10 else month - 9
    return f"{year}-{month:02}-{day + 1:02} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def read_receipt(fields: Mapping[str, Any]) -> Receipt:
    """Make a `Receipt` of a decoded MessagePack map; raises `ValueError` for anything that is none."""
    try:
        postings = tuple(_read_posting(posting) for posting in _listed(fields["postings"]))
        return Receipt(
            commons=_typed(fields, "commons", bytes),
            seq=_typed(fields, "seq", int),
            at_ms=_typed(fields, "at", int),
            tick=_typed(fields, "tick", int),
            id=_typed(fields, "id", bytes),
            leaf=_typed(fields, "leaf", bytes),
            postings=postings,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a receipt: {error!r}") from None


def _listed(value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("not a receipt: postings are a list")
    return value


def _read_posting(value: object) -> Posting:
    """Types are checked here, so that no float or odd thing that packs alike gets as far as being compared."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError("not a receipt: a posting is [reason, holder, asset, amount]")
    reason, holder, asset, amount = value
    if type(reason) is not str or type(holder) not in (bytes, str) or type(asset) is not str or type(amount) is not int:
        raise ValueError("not a receipt: a posting is [str, bin or str, str, int]")
    return Posting(reason, holder, asset, amount)


def _typed(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields[name]
    if type(value) is not kind:
        raise ValueError(f"not a receipt: {name} is no {kind.__name__}")
    return value


class ReceiptMismatch(ValueError):
    """The ledger's receipt does not say what was signed: keep the envelope and the receipt, they are the proof."""


def check_receipt(receipt: Receipt, *, envelope: Envelope, statement: Statement, currency: str | None) -> None:
    """Hold a receipt against the envelope it answers; raises `ReceiptMismatch` with what differs.

    Checks names, that the leaf is the hash of this envelope at this seq and time with these postings, that the
    postings of each asset sum to zero, that what was not signed is melt alone, and that the rest is exactly what
    was signed. `currency` is the commons' code where the caller knows it.
    """
    if receipt.commons != statement.commons or receipt.id != statement.id:
        raise ReceiptMismatch("the receipt is for another statement")
    leaf = leaf_of(
        seq=receipt.seq,
        at_ms=receipt.at_ms,
        body=envelope.body,
        signatures=envelope.signatures,
        postings=receipt.postings,
    )
    if leaf != receipt.leaf:
        raise ReceiptMismatch("the leaf is not the hash of what was signed")
    _check_sums(receipt.postings)
    own = [posting for posting in receipt.postings if posting.reason != "melt"]
    melt = receipt.postings[: len(receipt.postings) - len(own)]
    _check_melt(melt, own, statement)
    if isinstance(statement, Thank):
        _check_kind(receipt.postings)
    elif currency is not None and any(posting.asset != currency for posting in receipt.postings):
        raise ReceiptMismatch(f"a posting is not in {currency}")
    signed = signed_postings(statement, own)
    if signed is not None and [(p.reason, p.holder, p.amount) for p in own] != signed:
        raise ReceiptMismatch("the postings are not what was signed")


def _check_kind(postings: Sequence[Posting]) -> None:
    """Gifts are no money: what is thanked for is counted in one kind of gift, and nothing melts."""
    if len({posting.asset for posting in postings}) != 1 or not KIND.fullmatch(postings[0].asset):
        raise ReceiptMismatch("a gift is not counted in one kind of gift")


def _check_sums(postings: Sequence[Posting]) -> None:
    sums: dict[str, int] = {}
    for posting in postings:
        sums[posting.asset] = sums.get(posting.asset, 0) + posting.amount
    if any(sums.values()):
        raise ReceiptMismatch("the postings do not sum to zero")


def _check_melt(melt: Sequence[Posting], own: Sequence[Posting], statement: Statement) -> None:
    """Melt comes first, in pairs, from peers whom the statement touches to the pool or the issuer (SPEC §4.3).

    A sweep touches nobody otherwise, so anybody may melt there; the payer whose hold a capture took whole is the one
    whom it touches without a posting, and melts first; gifts melt nobody.
    """
    if len(melt) % 2 or any(posting.reason != "melt" for posting in melt):
        raise ReceiptMismatch("melt does not stand first, in pairs")
    if melt and isinstance(statement, Thank):
        raise ReceiptMismatch("money melts for a gift")
    touched = {posting.holder for posting in own}
    for place, (charged, gained) in enumerate(zip(melt[::2], melt[1::2], strict=True)):
        if charged.amount >= 0 or gained.amount != -charged.amount or gained.holder not in (POOL, ISSUER):
            raise ReceiptMismatch("a melt does not go from a peer to the pool or the issuer")
        payer = isinstance(statement, Capture) and place == 0 and all(one.reason == "capture" for one in own)
        if isinstance(charged.holder, str) or not (charged.holder in touched or payer or statement.type == "sweep"):
            raise ReceiptMismatch("a melt is charged to somebody whom the statement does not touch")


def signed_postings(statement: Statement, own: Sequence[Posting]) -> list[tuple[str, Holder, int]] | None:
    """The (reason, holder, amount) lines that a money statement fixes by itself; [] for one that moves nothing.

    None for what only the ledger says (`sweep`, `payout`, `lapse`). Under `balancing` the amount is the receipt's,
    held between 1 and what was signed.
    """
    match statement:
        case Issue(to=to, amount=amount):
            return _move("issue", ISSUER, (Leg(to, amount),))
        case Retire():
            amount = _balanced(own, statement.amount) if statement.balancing else statement.amount
            return [("retire", statement.by, -amount), ("retire", ISSUER, amount)]
        case Pay():
            legs = statement.legs
            if statement.balancing:
                legs = (Leg(legs[0].to, _balanced(own, legs[0].amount)),)
            return _move("pay", statement.by, legs)
        case Grant(legs=legs):
            return _move("grant", POOL, legs)
        case Share():
            return _share(statement, own)
        case Leave():
            left = own[-1].amount if own else 0
            return [("leave", statement.by, -left), ("leave", POOL, left)] if left > 0 else []
        case Thank():
            return _thank(statement, own)
        case Writeoff():
            return _writeoff(statement, own)
        case Hold(amount=amount):
            return [("hold", statement.by, -amount), ("hold", ESCROW, amount)]
        case Capture() | Void():
            return _release(statement, own)
        case _ if statement.type in LEDGER_TYPES:
            return None
    return []


def _move(reason: str, payer: Holder, legs: Sequence[Leg]) -> list[tuple[str, Holder, int]]:
    return [
        (reason, payer, -sum(leg.amount for leg in legs)),
        *((reason, leg.to, leg.amount) for leg in legs),
    ]


def _balanced(own: Sequence[Posting], signed: int) -> int:
    moved = own[-1].amount if own else 0
    if not 0 < moved <= signed:
        raise ReceiptMismatch("a balancing statement moved nothing, or more than was signed")
    return moved


def _share(statement: Share, own: Sequence[Posting]) -> list[tuple[str, Holder, int]]:
    shared = own[-1].amount if own else 0
    if not 0 < shared <= statement.amount:
        raise ReceiptMismatch("a share took nothing, or more than was signed")
    return [("share", POOL, -shared), ("share", ESCROW, shared)]


def _thank(statement: Thank, own: Sequence[Posting]) -> list[tuple[str, Holder, int]]:
    """Who thanks is the receiver, or a steward for the pool; giver and quantity stand in the gift."""
    if len(own) != 2 or own[1].holder not in (statement.by, POOL) or isinstance(own[0].holder, str):
        raise ReceiptMismatch("a gift does not go from its giver to who thanks, or to the pool")
    quantity = own[1].amount
    if quantity <= 0 or own[0].holder == own[1].holder:
        raise ReceiptMismatch("a gift gives nothing")
    return [("gift", own[0].holder, -quantity), ("gift", own[1].holder, quantity)]


def _release(statement: Capture | Void, own: Sequence[Posting]) -> list[tuple[str, Holder, int]]:
    """What was held goes to the payee, who speaks a capture, as far as it takes it; the rest back to the payer."""
    held = -own[0].amount if own else 0
    taken = sum(one.amount for one in own[1:] if one.reason == "capture")
    most = statement.amount if isinstance(statement, Capture) else 0
    if held <= 0 or not 0 <= taken <= min(most, held):
        raise ReceiptMismatch("a hold is released by more, or by less, than was signed")
    payer = own[-1].holder
    if taken < held and (isinstance(payer, str) or (payer == statement.by and isinstance(statement, Capture))):
        raise ReceiptMismatch("what is left of a hold does not go back to its payer")
    lines: list[tuple[str, Holder, int]] = [(statement.type, ESCROW, -held)]
    lines += [("capture", statement.by, taken)] if taken else []
    return lines + ([("void", payer, held - taken)] if taken < held else [])


def _writeoff(statement: Writeoff, own: Sequence[Posting]) -> list[tuple[str, Holder, int]]:
    """The debt goes to who vouched, ascending, then to the pool, then to the issuer."""
    payers = own[1:]
    if not payers or any(posting.amount >= 0 for posting in payers):
        raise ReceiptMismatch("a write-off that nobody pays")
    peers = [one.holder for one in payers if not isinstance(one.holder, str)]
    expected = [*sorted(set(peers)), *(name for name in (POOL, ISSUER) if any(one.holder == name for one in payers))]
    if [one.holder for one in payers] != expected or statement.peer in peers:
        raise ReceiptMismatch("a write-off is paid by others than those who vouched, the pool and the issuer")
    paid = [("writeoff", one.holder, one.amount) for one in payers]
    return [("writeoff", statement.peer, -sum(one.amount for one in payers)), *paid]

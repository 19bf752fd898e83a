"""Results: what became of a submitted envelope, once its delivery has ended.

Owns the judging: a receipt is held against what was signed and against the commons' founding, an error is completed
with the currency. How envelopes travel is `delivery`'s; what a receipt must say is the protocol's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gesell.delivery import Parcel
from gesell.errors import GesellError, ReceiptMismatch, Refused, with_currency
from gesell_protocol import receipts
from gesell_protocol.envelopes import Envelope
from gesell_protocol.receipts import Receipt
from gesell_protocol.statements import Found, Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one submitted envelope.

    `status` is `accepted` or `replayed` (with `receipt`), `refused` (with `error`, a `Refused`; nothing was
    applied), `unknown` (with `error`, an `OutcomeUnknown`: resend the same envelope), `unsent` (with `error`;
    nothing was applied) or `mismatched` (with both: the receipt is not for what was signed). That nothing was applied
    is said of this sending: if the envelope was sent before, and that is not settled, it is as unknown as it was.
    """

    envelope: Envelope
    status: Literal["accepted", "replayed", "refused", "unknown", "unsent", "mismatched"]
    receipt: Receipt | None = None
    error: GesellError | None = None

    def __repr__(self) -> str:
        told = (f"entry {self.receipt.seq}" if self.receipt is not None else "", str(self.error or ""))
        return f"<Result {', '.join(part for part in (self.status, *told) if part)}>"

    def receipt_or_raise(self) -> Receipt:
        """The receipt, or the error raised: `result.receipt_or_raise().seq`."""
        if self.error is not None:
            raise self.error
        assert self.receipt is not None
        return self.receipt


def judge(item: Parcel, statement: Statement, *, found: Found | None) -> Result:
    """The result of a settled (or given up) parcel; `found` is the commons' founding where it is known."""
    if item.receipt is not None and item.status in ("accepted", "replayed"):
        try:
            _check(item.receipt, envelope=item.envelope, statement=statement, found=found)
        except receipts.ReceiptMismatch as mismatch:
            error = ReceiptMismatch(str(mismatch), receipt=item.receipt, envelope=item.envelope)
            return Result(envelope=item.envelope, status="mismatched", receipt=item.receipt, error=error)
        return Result(envelope=item.envelope, status=item.status, receipt=item.receipt)
    if isinstance(item.error, Refused):
        if found is not None:
            with_currency(item.error, code=found.currency.code, scale=found.currency.scale)
        return Result(envelope=item.envelope, status="refused", error=item.error)
    status: Literal["unknown", "unsent"] = "unknown" if item.may_be_applied else "unsent"
    return Result(envelope=item.envelope, status=status, error=item.error)


def _check(receipt: Receipt, *, envelope: Envelope, statement: Statement, found: Found | None) -> None:
    """Hold a receipt against what was signed and, where it is known, what the commons' founding fixed for good."""
    currency = None if found is None else found.currency.code
    receipts.check_receipt(receipt, envelope=envelope, statement=statement, currency=currency)
    if found is None:
        return
    if receipt.tick != found.policy.tick_of(receipt.at_ms):
        raise receipts.ReceiptMismatch("the tick is not the one of its time")
    if any(p.reason == "melt" and p.amount > 0 and p.holder != found.policy.melt_to for p in receipt.postings):
        raise receipts.ReceiptMismatch(f"a melt does not go to the {found.policy.melt_to}")

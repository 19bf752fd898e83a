"""What a client finds when it checks a ledger: what may be shown to others, and what was given all the same.

Owns the exceptions of the checks and the form of the evidence. A receipt that was given stays given, whatever a check
finds: the error of a call carries what the call was answered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gesell.answers import json_envelope
from gesell.errors import GesellError
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import base64_text, did_of, id_text
from gesell_protocol.receipts import Receipt

if TYPE_CHECKING:
    from gesell.results import Result


class CheckFailed(GesellError):
    """The ledger did not prove what it told, or could not be asked to.

    `results` are what the call that raised this was answered, `receipts` those that it was given: they stay given, so
    nothing of it is to be signed anew. Both are empty where nothing was sent; at the end of a client `receipts` are
    those that are not proven.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.results: tuple[Result, ...] = ()
        self.receipts: tuple[Receipt, ...] = ()

    def carrying(self, *, results: Sequence[Result] = (), receipts: Sequence[Receipt] = ()) -> Self:
        """The same error with what was answered."""
        self.results, self.receipts = tuple(results), tuple(receipts)
        self.applied = bool(receipts)
        return self

    @property
    def evidence(self) -> Mapping[str, Any]:
        """What there is to show to others, as JSON; empty where there is nothing."""
        return {}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the evidence to a file, as JSON: `error.save("ledger-forked.json")`; returns its path."""
        path = Path(path)
        path.write_text(json.dumps({"what": str(self), **self.evidence}, indent=2, ensure_ascii=False) + "\n")
        return path


class Equivocation(CheckFailed):
    """The ledger signed two checkpoints of which neither leads up to the other: it forked, or rewrote its log.

    `first` is what it had signed before, `second` what it signs now, both as text with its signatures. If `proves`,
    whoever knows its key can see it from what `save` writes and needs nobody's word: either both have one size and
    two roots, or `hashes` (a consistency proof, RFC 6962 §2.1.2, of the larger one) lead to the larger root and not to
    the smaller. Otherwise the ledger went back behind what it had signed, and does not show that log any more; that it
    does not, others have to see for themselves.

        except Equivocation as error:
            error.save("fork.json")
    """

    def __init__(
        self,
        message: str,
        *,
        first: str,
        second: str,
        proves: bool,
        hashes: Sequence[bytes] = (),
        keys: Sequence[bytes] = (),
        handovers: Sequence[Envelope] = (),
    ) -> None:
        super().__init__(message)
        self.first = first
        self.second = second
        self.proves = proves
        self.hashes = tuple(hashes)
        #: The ledger's keys, as dids: the one that was trusted first, and those that it was handed over to.
        self.ledger = tuple(did_of(key) for key in keys)
        self.handovers = tuple(handovers)

    @property
    def evidence(self) -> Mapping[str, Any]:
        """Both checkpoints, the hashes, the ledger's keys and how one was handed over to the next."""
        return {
            "first": self.first,
            "second": self.second,
            "proves": self.proves,
            "hashes": [base64_text(one) for one in self.hashes],
            "ledger": list(self.ledger),
            "handovers": [json_envelope(envelope) for envelope in self.handovers],
        }


class NotInLog(CheckFailed):
    """The ledger gave a receipt for an entry that its log does not hold.

    `receipt` and `envelope` are what was given for what, `checkpoint` is the signed text of the log that does not hold
    it. A receipt is the ledger's word and carries no signature of its own; the checkpoint is signed.
    """

    def __init__(self, message: str, *, receipt: Receipt, envelope: Envelope, checkpoint: str) -> None:
        super().__init__(message)
        self.receipt = receipt
        self.envelope = envelope
        self.checkpoint = checkpoint

    @property
    def evidence(self) -> Mapping[str, Any]:
        """The receipt, what was signed, and the checkpoint."""
        receipt = self.receipt
        return {
            "receipt": {
                "commons": receipt.commons.hex(),
                "seq": receipt.seq,
                "at": receipt.at_ms,
                "tick": receipt.tick,
                "id": id_text(receipt.id),
                "leaf": receipt.leaf.hex(),
            },
            "envelope": json_envelope(self.envelope),
            "checkpoint": self.checkpoint,
        }


class WrongKey(CheckFailed):
    """The checkpoint is not signed by the ledger that is trusted, nor by a key that it handed over to.

    `checkpoint` is its text. Nobody is accused: whoever answers at this address can write one.
    """

    def __init__(self, message: str, *, checkpoint: str) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint

    @property
    def evidence(self) -> Mapping[str, Any]:
        """The checkpoint."""
        return {"checkpoint": self.checkpoint}


class Unwitnessed(CheckFailed):
    """Fewer of the named witnesses than demanded have cosigned, within the time that was waited."""


class Unchecked(CheckFailed):
    """The ledger gave no usable answer about its log (`__cause__` says what it was), so receipts stay unproven."""


class MemoryFileError(GesellError):
    """What is remembered of a log can't be read or written; the message says why."""

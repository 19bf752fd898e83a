"""What can go wrong for a caller, typed, and always with an answer to: was anything applied?

Owns the client's exceptions: a tree of depth two (`GesellError`, its branches, and under `Refused` a class for
each refusal code of the protocol). Knows neither HTTP nor how errors are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from gesell.amount import Amount
from gesell_protocol.canonical import pack
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import id_text
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import CODES


class GesellError(Exception):
    """Whatever the client raises of its own.

    `applied` says what is known of the statement it is about: False means that nothing was applied, True that it
    was, None that it is not known.
    """

    applied: bool | None = False


class KeyFileError(GesellError):
    """A key file can't be read or written; the message says why and what to do."""


class NoKeyFile(KeyFileError):
    """There is no such key file."""


class PassphraseNeeded(KeyFileError):
    """The key file is protected by a passphrase and none was given."""


class WrongPassphrase(KeyFileError):
    """The passphrase does not open the key file."""


class StatementFileError(GesellError):
    """A statement file can't be read or written, or holds no statement; the message says why."""


class Unreachable(GesellError):
    """The ledger could not be reached, or gave no answer to a read: nothing was applied."""


class UnexpectedAnswer(GesellError):
    """Something answered that does not speak as a ledger does (a proxy, another service, a broken ledger)."""

    def __init__(self, message: str, *, applied: bool | None = False) -> None:
        super().__init__(message)
        self.applied = applied


class OutcomeUnknown(GesellError):
    """No answer came in time: the statement may have been applied or not. Never sign it anew; resend it.

    Resending the same envelope is always safe: it takes effect at most once, and the answer will tell.
    `envelope` is what was sent, `envelope_bytes` the same to keep in a file, `id` the statement's UUID.

        try:
            await gesell.pay("bob", "0.05")
        except OutcomeUnknown as error:
            outbox.write_bytes(error.envelope_bytes)   # later: await gesell.submit([outbox.read_bytes()])
    """

    applied = None

    def __init__(self, envelope: Envelope, statement_id: bytes, *, why: str) -> None:
        self.envelope = envelope
        self.id = id_text(statement_id)
        super().__init__(
            f"no answer that settles statement {self.id} ({why}); it is not known whether it was applied. "
            "Resend the same envelope: it takes effect at most once"
        )

    @property
    def envelope_bytes(self) -> bytes:
        """The envelope as bytes that `Client.submit` takes."""
        return pack(self.envelope.wire())


class ReceiptMismatch(GesellError):
    """The ledger answered with a receipt that does not say what was signed: keep both, they are the proof."""

    applied = True

    def __init__(self, why: str, *, receipt: Receipt, envelope: Envelope) -> None:
        self.receipt = receipt
        self.envelope = envelope
        super().__init__(f"the receipt of statement {id_text(receipt.id)} is not for what was signed: {why}")


class Refused(GesellError):
    """The ledger said no: nothing was applied, and nothing will be unless the same envelope is sent again.

    `code` and `detail` are the ledger's; `fields` holds the numbers it named (grains or counts); `envelope` is
    what it refused, where it was a statement.
    """

    code: str = ""

    def __init__(self, detail: str, *, code: str, fields: Mapping[str, int], envelope: Envelope | None = None) -> None:
        self.code = code
        self.detail = detail
        self.fields = fields
        self.envelope = envelope
        super().__init__(f"{code}: {detail}")


class Malformed(Refused):
    """A field is missing, unknown or out of range."""

    code = "malformed"


class NotCanonical(Refused):
    """The bytes are not the one canonical encoding of their value."""

    code = "not-canonical"


class BadSignature(Refused):
    """A signature does not verify."""

    code = "bad-signature"


class BadToken(Refused):
    """The token that says who reads is not valid."""

    code = "bad-token"


class NotAuthorised(Refused):
    """The right keys have not signed: more stewards have to, or a key was revoked."""

    code = "not-authorised"


class NotActive(Refused):
    """The member's standing (pending, suspended) does not allow this."""

    code = "not-active"


class NotFound(Refused):
    """There is no such thing."""

    code = "not-found"


class UnknownCommons(Refused):
    """There is no such commons at this ledger."""

    code = "unknown-commons"


class UnknownMember(Refused):
    """There is no such member in this commons."""

    code = "unknown-member"


class MethodNotAllowed(Refused):
    """The path does not take that method."""

    code = "method-not-allowed"


class Timeout(Refused):
    """The request took too long to arrive; nothing was applied."""

    code = "timeout"


class IdConflict(Refused):
    """The id was used for a different statement."""

    code = "id-conflict"


class HandleTaken(Refused):
    """The handle belongs to another member."""

    code = "handle-taken"


class AlreadyMember(Refused):
    """The peer is a member already."""

    code = "already-member"


class KeyTaken(Refused):
    """The key belongs to a peer of this commons already."""

    code = "key-taken"


class WrongState(Refused):
    """What the statement speaks of is not in a state that allows this."""

    code = "wrong-state"


class Expired(Refused):
    """The statement's time has passed: it was not applied and never will be."""

    code = "expired"


class TooLarge(Refused):
    """It is larger than the ledger takes."""

    code = "too-large"


class UnsupportedMediaType(Refused):
    """The body is of a type that the path does not take."""

    code = "unsupported-media-type"


class TooEarly(Refused):
    """The time inside the id is ahead of the ledger's clock."""

    code = "too-early"


class InsufficientFunds(Refused):
    """The account does not hold enough after melt: it has `available` and the statement takes `needed`."""

    code = "insufficient-funds"

    #: Balance after melt plus credit limit; None if the ledger did not say.
    available: Amount | None = None
    #: What the statement takes; None if the ledger did not say.
    needed: Amount | None = None

    def __str__(self) -> str:
        if self.available is None or self.needed is None:
            return super().__str__()
        return f"There is not enough: {self.available} to spend after melt, and this takes {self.needed}."

    def __repr__(self) -> str:
        return f"InsufficientFunds({str(self)!r})"


class LimitExceeded(Refused):
    """It would pass a limit: `limit`, in grains or a count as the detail says, where the ledger named it."""

    code = "limit-exceeded"

    @property
    def limit(self) -> int | None:
        """The limit that would be passed; None if the ledger did not say."""
        return self.fields.get("limit")


class VouchInUse(Refused):
    """Somebody's credit limit rests on the vouch."""

    code = "vouch-in-use"


class BadWord(Refused):
    """The word does not hash to the last one settled."""

    code = "bad-word"


class WrongLedger(Refused):
    """The statement is meant for another ledger."""

    code = "wrong-ledger"


class RateLimited(Refused):
    """Too much at once, and still so after waiting; nothing was applied."""

    code = "rate-limited"


class Internal(Refused):
    """The ledger has a fault of its own (only reads raise this; a statement's outcome is unknown then)."""

    code = "internal"


class Unavailable(Refused):
    """The ledger can't answer now (only reads raise this; a statement's outcome is unknown then)."""

    code = "unavailable"


#: Refusal code → its class. `gesell_protocol.refusals.CODES` and this name the same codes; a test says so.
REFUSALS: Final[Mapping[str, type[Refused]]] = MappingProxyType(
    {
        kind.code: kind
        for kind in (
            Malformed, NotCanonical, BadSignature, BadToken, NotAuthorised, NotActive, NotFound, UnknownCommons,
            UnknownMember, MethodNotAllowed, Timeout, IdConflict, HandleTaken, AlreadyMember, KeyTaken, WrongState,
            Expired, TooLarge, UnsupportedMediaType, TooEarly, InsufficientFunds, LimitExceeded, VouchInUse, BadWord,
            WrongLedger, RateLimited, Internal, Unavailable,
        )
    }
)  # fmt: skip

_FIELDS: Final = ("available", "needed", "limit")


def refused(problem: Mapping[str, Any], *, envelope: Envelope | None = None) -> Refused:
    """The error for a problem that the ledger answered; a code of a later protocol gives a plain `Refused`.

    Raises `ValueError` if `problem` is no problem of a ledger (SPEC §7.4).
    """
    code, detail = problem.get("code"), problem.get("detail")
    if not isinstance(code, str):
        raise ValueError("a problem without a code")
    if not isinstance(detail, str):
        detail = CODES[code][1] if code in CODES else str(problem.get("title", "refused"))
    fields = {name: int(problem[name]) for name in _FIELDS if isinstance(problem.get(name), (int, str))}
    return REFUSALS.get(code, Refused)(detail, code=code, fields=fields, envelope=envelope)


def with_currency(error: Refused, *, code: str, scale: int) -> Refused:
    """The same error, with its amounts in the commons' currency where it has some."""
    if isinstance(error, InsufficientFunds):
        available, needed = error.fields.get("available"), error.fields.get("needed")
        error.available = None if available is None else Amount(available, code, scale)
        error.needed = None if needed is None else Amount(needed, code, scale)
    return error

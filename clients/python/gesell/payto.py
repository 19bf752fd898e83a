"""Requests for payment as `payto` links (SPEC §8, RFC 8905): the value, its text, and what is refused.

Owns the grammar in both directions. Knows no ledger: whether the commons, the payee and the currency exist is for
whoever pays to find out, and no link is ever an order to pay.

1. A link that can be read in two ways is refused, never guessed at: what is at stake is somebody's money.
2. What this module writes it reads back as the same value, and two different values never have the same text.
3. Nothing of what is shown to the payer can pretend to be another line or run the other way.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from gesell.amount import Amount, grains_of
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.envelopes import MEMO_MAX_CHARS, has_control_characters
from gesell_protocol.fields import Currency
from gesell_protocol.names import CATEGORY, CURRENCY, id_of, is_handle, peer_of

#: A message of 1,000 characters takes at most 12,000 once it is percent-encoded; the rest is far below this.
LINK_MAX_CHARS: Final = 16_384
DECIMALS_MAX: Final = 9

_LINK: Final = re.compile(r"(?i:payto)://(?P<authority>[A-Za-z][A-Za-z0-9.-]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?")
#: RFC 3986's unreserved characters, sub-delims, `:`, `@`, `/`, `?` and whole percent-encodings; so no fragment.
_CHARS: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")
_COMMONS: Final = re.compile(r"[0-9a-f]{32}")
#: Commas only where they group thousands. RFC 8905 has them ignored wherever they stand, by which `0,05` would be 5.
_AMOUNT: Final = re.compile(
    r"(?P<code>[^:]*):(?P<unit>[0-9]{1,24}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,7})(?:\.(?P<fraction>[0-9]{1,24}))?"
)
#: Characters that turn the direction of what follows them, by which a text could show other than it says.
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_OPTIONS: Final = ("amount", "category", "message", "ref")


class BadLink(ValueError):
    """A text that is no request for payment, or one that can't be paid here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRequest:
    """Somebody asks to be paid: `str(request)` is the link, `PaymentRequest.parse(link)` the way back.

    `commons` is 32 lower-case hex digits; `to` a did or a handle (for a handle the ledger's word is taken for who
    bears it); `amount`, in whole units of `currency`, is more than 0, and absent where the payer is to choose;
    `message` is one line of at most 1,000 characters, which becomes the payment's memo; `category` the type of
    interaction that is valued; `ref` the request's own id, a UUID, which the payment names as its `ref`. Raises
    `BadLink` for a value that no link can carry, `TypeError` for an amount that is no `Decimal`.

        >>> request = PaymentRequest(commons="0" * 32, to="ada", currency="WRG", amount=Decimal("0.05"))
        >>> str(request)
        'payto://gesell/00000000000000000000000000000000/ada?amount=WRG:0.05'
        >>> PaymentRequest.parse(str(request)) == request
        True
    """

    commons: str
    to: str
    currency: str | None = None
    amount: Decimal | None = None
    message: str | None = None
    category: str | None = None
    ref: str | None = None

    def __post_init__(self) -> None:
        if not _COMMONS.fullmatch(self.commons):
            raise BadLink("a commons is named by 32 hex digits")
        _check_payee(self.to)
        if self.amount is not None:
            _check_amount(self.amount)
        if (self.currency is None) != (self.amount is None):
            raise BadLink("an amount and its currency stand together")
        if self.currency is not None and not CURRENCY.fullmatch(self.currency):
            raise BadLink(f"{self.currency!r} is no code of a currency, like WRG")
        if self.message is not None:
            _check_message(self.message)
        if self.category is not None and not CATEGORY.fullmatch(self.category):
            raise BadLink(f"{self.category!r} is no category: 1 to 32 of a-z, 0-9 and -")
        if self.ref is not None and (self.ref != self.ref.lower() or not _is_id(self.ref)):
            raise BadLink(f"{self.ref!r} is no id: a UUID in its usual form")

    @classmethod
    def parse(cls, link: str) -> Self:
        """Read a link; raises `BadLink` for anything else, and nothing but that.

        Reads no network. Options of RFC 8905 that say nothing here, and unknown ones, are passed over; but
        `instruction`, which no payment can carry, and whatever begins with `req-` are refused.
        """
        commons, to, query = _parts(link)
        options = {} if query is None else _options(query)
        code, amount = _read_amount(options["amount"]) if "amount" in options else (None, None)
        ref = options.get("ref")
        return cls(
            commons=commons.lower(),
            to=to,
            currency=code,
            amount=amount,
            message=options.get("message") or None,
            category=options.get("category"),
            ref=None if ref is None else ref.lower(),
        )

    @property
    def link(self) -> str:
        """The `payto` link, which is also what a QR code of it carries."""
        values = {
            "amount": None if self.amount is None else f"{self.currency}:{self.amount_text}",
            "category": self.category,
            "message": self.message,
            "ref": self.ref,
        }
        # Everything but letters, digits and -._~:,@ is encoded, a quote or a bracket too: links are pasted into
        # shells and texts, and a + is read as a space by more than one program.
        options = [f"{name}={quote(value, safe=':,@')}" for name, value in values.items() if value is not None]
        return f"payto://gesell/{self.commons}/{self.to}" + ("?" + "&".join(options) if options else "")

    @property
    def amount_text(self) -> str | None:
        """The amount as the shortest exact decimal text, `0.05`; None where the payer is to choose."""
        if self.amount is None:
            return None
        text = format(self.amount, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text

    def amount_in(self, *, commons: str, currency: Currency) -> Amount | None:
        """The amount in the currency of the commons where it is to be paid; None where the payer is to choose.

        Raises `BadLink` if the link is for another commons or currency, or asks for parts of a grain.
        """
        if self.commons != commons:
            raise BadLink(f"the link is for commons {self.commons}, not for {commons}")
        if self.amount is None:
            return None
        if self.currency != currency.code:
            raise BadLink(f"the link asks for {self.currency}, and this commons has {currency.code}")
        try:
            grains = grains_of(self.amount, code=currency.code, scale=currency.scale)
        except ValueError as error:
            raise BadLink(str(error)) from None
        return Amount(grains, currency.code, currency.scale)

    def __str__(self) -> str:
        return self.link


def is_link(text: str) -> bool:
    """Whether a text is meant as a payto link, right or wrong."""
    return text[:6].lower() == "payto:"


def _parts(link: str) -> tuple[str, str, str | None]:
    """The commons, the payee and the options' text."""
    if len(link) > LINK_MAX_CHARS:
        raise BadLink(f"a link has at most {LINK_MAX_CHARS} characters")
    if not is_link(link):
        raise BadLink("a request for payment begins with payto://gesell/")
    if not _CHARS.fullmatch(link):
        raise BadLink("a link has no spaces, no #, nothing but ASCII, and each % stands before two hex digits")
    match = _LINK.fullmatch(link)
    if match is None:
        raise BadLink("a request for payment begins with payto://gesell/")
    if match["authority"].lower() != "gesell":
        raise BadLink(f"this link is for {match['authority']}, not for gesell")
    path = (match["path"] or "").split("/")
    if len(path) != 3:
        raise BadLink("a request for payment names a commons and a payee: payto://gesell/COMMONS/PAYEE")
    return _decoded(path[1]), _decoded(path[2]), match["query"]


def _options(query: str) -> dict[str, str]:
    """The options that are understood, each at most once, names in lower case (RFC 5234 §2.3)."""
    options: dict[str, str] = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not equals or not _NAME.fullmatch(name) or "/" in value or "?" in value:
            raise BadLink(f"{part[:40]!r} is no option like amount=WRG:0.05")
        name = name.lower()
        if name in options:
            raise BadLink(f"{name} is said twice")
        if name == "instruction" or name.startswith("req-"):
            raise BadLink(f"the link asks for {name}, which can't be heeded here")
        options[name] = _decoded(value)
    return {name: options[name] for name in _OPTIONS if name in options}


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadLink(f"{text[:40]!r} is not UTF-8") from None


def _read_amount(text: str) -> tuple[str, Decimal]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise BadLink(f"{text[:40]!r} is no amount like WRG:0.05 or WRG:1,250")
    return match["code"], Decimal(match["unit"].replace(",", "") + "." + (match["fraction"] or "0"))


def _check_amount(amount: Decimal) -> None:
    if not isinstance(amount, Decimal):
        raise TypeError(f"an amount is a Decimal, never a {type(amount).__name__}")
    if not amount.is_finite() or not 0 < amount <= AMOUNT_MAX:
        raise BadLink("what is asked for is more than 0 and at most 10^15")
    # Bounded on both sides before its digits are looked at: a Decimal can name a number of a billion of them.
    if amount.adjusted() < -DECIMALS_MAX or amount != amount.quantize(Decimal(1).scaleb(-DECIMALS_MAX)):
        raise BadLink(f"no currency has more than {DECIMALS_MAX} decimals; nothing is rounded")


def _check_payee(to: str) -> None:
    if not to.startswith("did:"):
        if not is_handle(to):
            raise BadLink(f"{to[:60]!r} is neither a handle nor a did")
        return
    try:
        peer_of(to)
    except ValueError as error:
        raise BadLink(f"{to[:60]!r}: {error}") from None


def _check_message(message: str) -> None:
    if not 1 <= len(message) <= MEMO_MAX_CHARS:
        raise BadLink(f"a message has 1 to {MEMO_MAX_CHARS} characters")
    if has_control_characters(message) or any(
        char in _TURNING or unicodedata.category(char) in ("Zl", "Zp") for char in message
    ):
        raise BadLink("a message is one line, without control characters or characters that turn its direction")


def _is_id(text: str) -> bool:
    try:
        id_of(text)
    except ValueError:
        return False
    return True

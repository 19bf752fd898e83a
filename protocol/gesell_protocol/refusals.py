"""Every way of saying no, in one table (SPEC §7.4).

Owns the codes, their HTTP status and what each means. A `Refusal` is a value that the core returns; `Rejected`
carries one where bytes are parsed or verified, because verification raises and never returns a bool.
Knows nothing of who refuses or how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

#: code → (HTTP status, what it means, in a sentence for the one who was refused)
CODES: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "malformed": (400, "a field is missing, unknown or out of range"),
        "not-canonical": (400, "the bytes are not the one canonical encoding of their value"),
        "bad-signature": (401, "a signature does not verify"),
        "bad-token": (401, "the token that says who reads is not valid"),
        "not-authorised": (403, "the right keys have not signed"),
        "not-active": (403, "the member's standing does not allow this"),
        "not-found": (404, "there is no such thing"),
        "unknown-commons": (404, "there is no such commons here"),
        "unknown-member": (404, "there is no such member"),
        "method-not-allowed": (405, "this path does not take that method"),
        "timeout": (408, "the request took too long to arrive"),
        "id-conflict": (409, "the id was used for a different statement"),
        "handle-taken": (409, "the handle belongs to another member"),
        "already-member": (409, "the peer is a member already"),
        "key-taken": (409, "the key belongs to a peer of this commons already"),
        "wrong-state": (409, "it is not in a state that allows this"),
        "expired": (410, "the statement's time has passed"),
        "too-large": (413, "it is larger than the ledger takes"),
        "unsupported-media-type": (415, "the body is of a type that this path does not take"),
        "too-early": (422, "the time inside the id is ahead of the ledger's clock"),
        "insufficient-funds": (422, "the account does not hold enough after melt"),
        "limit-exceeded": (422, "it would pass a limit"),
        "vouch-in-use": (422, "somebody's credit limit rests on the vouch"),
        "bad-word": (422, "the word does not hash to the last one settled"),
        "wrong-ledger": (422, "the statement is meant for another ledger"),
        "rate-limited": (429, "too much at once; try again later"),
        "internal": (500, "the ledger has a fault of its own"),
        "unavailable": (
            503,
            "the ledger can't take it now; nothing was applied, or it will be found under its id",
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An expected no: its code, a sentence for people, and the fields that SPEC §7.4 names with the code.

    `fields` holds grains as ints (`available`, `needed`) or counts (`limit`).
    """

    code: str
    detail: str
    fields: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.code in CODES, f"{self.code} is not a refusal code of SPEC §7.4"

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return CODES[self.code][0]


class Rejected(ValueError):
    """Bytes that can't be taken as what they claim to be; `refusal` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.refusal = Refusal(code=code, detail=detail)

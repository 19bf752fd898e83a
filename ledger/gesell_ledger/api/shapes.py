"""The values that stand in JSON, as types: what a did, an amount or an id looks like (SPEC §2, §7.1).

Owns the patterns and bounds that requests are checked against and that the OpenAPI document shows: the same objects
serve both, so that they can't differ. Knows no statement, no answer and no route.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.envelopes import MEMO_MAX_CHARS
from gesell_protocol.fields import GIFT_SCALE_MAX, NAME_MAX_CHARS
from gesell_protocol.names import did_of, peer_of, unhex
from gesell_protocol.policy import BRACKETS_MAX, NOTICE_TICKS_MAX, PPB, REST_TICKS_MAX, TICK_MAX, TICK_SECONDS_MAX

JSON: Final = "application/json"
INT_MAX: Final = 2**63 - 1

_DID: Final = "did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{44}"
_HANDLE: Final = "[a-z][a-z0-9_-]{1,30}"
#: Shown as an example; nobody has its key.
EXAMPLE_DID: Final = did_of(bytes(range(32)))

Did = Annotated[
    str,
    Meta(pattern=f"^{_DID}$", description="A peer's name: the did:key of its Ed25519 key.", examples=[EXAMPLE_DID]),
]
KeyName = Annotated[
    str, Meta(pattern=f"^({_DID}|[0-9a-f]{{64}})$", description="An Ed25519 key: its did:key, or its 64 hex digits.")
]
PeerName = Annotated[
    str,
    Meta(
        pattern=f"^({_DID}|[0-9a-f]{{64}}|{_HANDLE})$",
        description="A peer: its did:key, the 64 hex digits of its key, or the handle of a member.",
    ),
]
MEMBER_PATTERN: Final = f"^({_DID}|{_HANDLE})$"
MemberName = Annotated[str, Meta(pattern=MEMBER_PATTERN)]
HolderName = Annotated[
    str,
    Meta(
        pattern=f"^({_DID}|issuer|pool|escrow)$", description="Who holds an account: a did, or issuer, pool or escrow."
    ),
]
CommonsName = Annotated[
    str, Meta(pattern="^[0-9a-f]{32}$", description="The name of a commons.", examples=["0123456789abcdef" * 2])
]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="A SHA-256 hash.")]
Id = Annotated[
    str,
    Meta(
        pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        description="A statement's id: a UUIDv7.",
        examples=["0195d0c5-0a00-7000-8000-000000000000"],
    ),
]
Base64url = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]*$", description="base64url without padding.")]
Signature = Annotated[
    str, Meta(pattern="^[A-Za-z0-9_-]{86}$", description="An Ed25519 signature, base64url without padding.")
]
Salt = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{22}$", description="16 random bytes, base64url without padding.")]

Grains = Annotated[
    str, Meta(pattern="^[0-9]{1,16}$", description=f"An amount in grains, at most {AMOUNT_MAX}.", examples=["50000"])
]
SignedGrains = Annotated[
    str, Meta(pattern="^-?[0-9]{1,19}$", description="An amount in grains, maybe negative.", examples=["-50000"])
]
Quantity = Annotated[
    str, Meta(pattern="^[0-9]{1,19}$", description="A quantity in 10^-scale of the kind's unit.", examples=["150"])
]
#: What comes and goes adds up to more than any balance may be.
Total = Annotated[str, Meta(pattern="^[0-9]{1,38}$", description="A sum of amounts.", examples=["50000"])]
KindCode = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{1,31}$", description="A kind of gift.", examples=["hour"])]
GiftScale = Annotated[int, Meta(ge=0, le=GIFT_SCALE_MAX, description="How many decimals the kind has.")]
Unit = Annotated[str, Meta(pattern="^[!-~]{1,32}$", description="A UCUM code, or 1.", examples=["h"])]
Moment = Annotated[
    int, Meta(ge=0, le=INT_MAX, description="Milliseconds since the Unix epoch.", examples=[1_767_225_600_000])
]
Seq = Annotated[int, Meta(ge=1, le=INT_MAX, description="The number of an entry in its commons.")]
Tick = Annotated[int, Meta(ge=0, le=TICK_MAX)]
Count = Annotated[int, Meta(ge=0)]

Handle = Annotated[str, Meta(pattern=f"^{_HANDLE}$", description="A member's name within a commons.")]
Title = Annotated[str, Meta(min_length=1, max_length=NAME_MAX_CHARS)]
Category = Annotated[
    str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$", description="The type of interaction that is valued.")
]
Text = Annotated[str, Meta(max_length=MEMO_MAX_CHARS, description="No control characters but newline and tab.")]
AssetCode = Annotated[str, Meta(pattern="^[A-Z][A-Z0-9]{1,9}$", examples=["WRG"])]
Scale = Annotated[int, Meta(ge=0, le=9, description="How many decimals the currency has: one unit is 10^scale grains.")]

PartsPerBillion = Annotated[int, Meta(ge=0, le=PPB)]
Bracket = Annotated[
    tuple[Grains, PartsPerBillion], Meta(description="From so many grains on, so many parts per billion a tick.")
]


class Currency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A currency: its code and its number of decimals."""

    code: AssetCode
    scale: Scale


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of a commons from some tick on (SPEC §5)."""

    tick_seconds: Annotated[int, Meta(ge=1, le=TICK_SECONDS_MAX, description="The length of a tick.")]
    rest_ticks: Annotated[
        int, Meta(ge=0, le=REST_TICKS_MAX, description="How many tick ends received money is spared.")
    ]
    brackets: Annotated[
        list[Bracket],
        Meta(min_length=1, max_length=BRACKETS_MAX, description="What melts a tick, marginal, the first from 0."),
    ]
    melt_to: Annotated[Literal["pool", "issuer"], Meta(description="Where what melts goes.")]
    admission: Annotated[Literal["open", "steward"], Meta(description="Who decides on joining.")]
    credit_limit: Annotated[Grains, Meta(description="How far below zero a member may go.")]
    vouch_min: Annotated[Grains, Meta(description="The smallest vouch.")]
    visibility: Annotated[Literal["open", "members", "parties"], Meta(description="Who may read.")]
    notice_ticks: Annotated[
        int, Meta(ge=0, le=NOTICE_TICKS_MAX, description="How far ahead a change of policy is announced.")
    ]


class Memo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text for an entry's readers, and the salt of its seal."""

    salt: Salt
    text: Text


Posting = Annotated[
    tuple[str, HolderName, str, SignedGrains],
    Meta(description="A posting: [reason, holder, asset, amount].", examples=[["pay", EXAMPLE_DID, "WRG", "-50000"]]),
]


def read_key(text: str) -> bytes:
    """The key that a did:key or 64 hex digits name; `ValueError` for any other text."""
    return peer_of(text) if text.startswith("did:") else unhex(text, size=32)

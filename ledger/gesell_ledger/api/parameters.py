"""What stands in a path, a query or a header: each once, for the handlers that read it and the document that shows it.

Owns name, type, range and default of every parameter, and the refusal of what does not fit. Knows no route.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from gesell_ledger.api import shapes
from gesell_ledger.api.problems import Refused
from gesell_protocol.names import COMMONS_BYTES, id_of, is_handle, peer_of, unbase64url, unhex
from gesell_protocol.tree import read_place

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
#: How much of a name that nobody knows is told back.
NAME_SHOWN_MAX: Final = 40

T = TypeVar("T")


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Generic[T]):
    """A parameter of a path, a query or a header.

    `type` says what its text may be, in the way of msgspec; `parse` makes the value of it, or raises `ValueError`.
    What does not fit is refused with `code`. A parameter without `default` that is not there is None, or `malformed` if
    it is `required`.
    """

    name: str
    place: Literal["path", "query", "header"] = "query"
    type: Any
    parse: Callable[[Any], T] = _as_it_is
    default: T | None = None
    code: str = "malformed"
    required: bool = False
    about: str = ""

    def find(self, request: web.Request) -> T | None:
        """The value in a request, or the default; raises `Refused`."""
        sources = {"path": request.match_info, "query": request.query, "header": request.headers}
        text = sources[self.place].get(self.name)
        return self.default if text is None else self._read(text)

    def read(self, request: web.Request) -> T:
        """The value of a parameter that is always there: in the path, required, or by its default; raises `Refused`."""
        value = self.find(request)
        if value is None and self.required:
            raise Refused("malformed", f"{self.name}: must be said")
        assert value is not None
        return value

    def _read(self, text: str) -> T:
        try:
            # Only digits are a number: left to itself, the conversion would take 1e2 for a hundred.
            strict = not (text.isascii() and text.isdigit())
            return self.parse(msgspec.convert(text, self.type, strict=strict))
        except ValueError as error:
            raise Refused(self.code, f"{self.name}: {error}") from None


def check_query(request: web.Request, known: Collection[str]) -> None:
    """Refuse a query that says what the path does not know, or says a thing twice: a slip would go unnoticed else."""
    for name in request.query:
        if name not in known:
            raise Refused("malformed", f"{name[:NAME_SHOWN_MAX]}: no parameter of this path")
        if len(request.query.getall(name)) > 1:
            raise Refused("malformed", f"{name}: stands there twice")


# ── In the path ──────────────────────────────────────────────────────────────────────────────────────────────────


def member_of(text: str) -> bytes | str:
    """The key that a did names, or a handle as it stands; raises `ValueError` for any other text."""
    if text.startswith("did:"):
        return peer_of(text)
    if not is_handle(text):
        raise ValueError("not a handle or did")
    return text


COMMONS: Final[Parameter[bytes]] = Parameter(
    name="commons",
    place="path",
    type=shapes.CommonsName,
    parse=partial(unhex, size=COMMONS_BYTES),
    code="unknown-commons",
)
MEMBER: Final[Parameter[bytes | str]] = Parameter(
    name="member",
    place="path",
    type=shapes.MemberName,
    parse=member_of,
    code="unknown-member",
    about="A member's did:key, or the handle that it holds.",
)
SEQ: Final[Parameter[int]] = Parameter(name="seq", place="path", type=shapes.Seq, code="not-found")
ID: Final[Parameter[bytes]] = Parameter(name="id", place="path", type=shapes.Id, parse=id_of, code="not-found")

ASSET_OF_DOCS: Final[Parameter[str]] = Parameter(
    name="asset", place="path", type=Annotated[str, Meta(pattern=r"^[a-z0-9-]+\.[a-z]+$")], code="not-found"
)

LEVEL: Final[Parameter[int]] = Parameter(
    name="level",
    place="path",
    type=Annotated[str, Meta(pattern="^(0|[1-9][0-9]?)$")],
    parse=int,
    code="not-found",
    about="The level of a tile: 0 holds the hashes of entries, each further one those of 256 times as many.",
)
TILE_PLACE: Final[Parameter[tuple[int, int]]] = Parameter(
    name="place",
    place="path",
    type=Annotated[str, Meta(pattern="^[0-9px./]{3,40}$", examples=["000", "x001/234", "067.p/5"])],
    parse=read_place,
    code="not-found",
    about="The place in its level, three digits at a time, `x001/x234/067`; a partial one says its width, `067.p/5`.",
)

#: Every parameter that a path may have, by its name there.
IN_PATHS: Final = {
    parameter.name: parameter for parameter in (COMMONS, MEMBER, SEQ, ID, LEVEL, TILE_PLACE, ASSET_OF_DOCS)
}


# ── In queries ───────────────────────────────────────────────────────────────────────────────────────────────────

_NEXT: Final = "Where the page begins; take it from the `Link` of the page before."


def _cursor(*, size: int) -> Parameter[bytes]:
    """A cursor made of so many bytes in base64url."""

    def parse(text: str) -> bytes:
        cursor = unbase64url(text)
        if len(cursor) != size:
            raise ValueError("take it from the Link of the page before")
        return cursor

    characters = (size * 4 + 2) // 3
    return Parameter(
        name="after",
        type=Annotated[str, Meta(pattern=f"^[A-Za-z0-9_-]{{{characters}}}$")],
        parse=parse,
        about=_NEXT,
    )


def _place(text: str) -> tuple[int, int]:
    seq, _, n = text.partition(".")
    if not (seq.isdecimal() and n.isdecimal()):
        raise ValueError("take it from the Link of the page before")
    return int(seq), int(n)


LIMIT: Final[Parameter[int]] = Parameter(
    name="limit",
    type=Annotated[int, Meta(ge=1, le=LIMIT_MAX)],
    default=LIMIT_DEFAULT,
    about="How many items a page has at most; it may have fewer.",
)
AFTER_COMMONS: Final[Parameter[bytes]] = _cursor(size=16)
AFTER_MEMBER: Final[Parameter[bytes]] = _cursor(size=32)
AFTER_SEQ: Final[Parameter[int]] = Parameter(
    name="after",
    type=Annotated[int, Meta(ge=0, le=shapes.INT_MAX)],
    default=0,
    about="The number of an entry; the page begins with the next.",
)
LAST_EVENT_ID: Final[Parameter[int]] = Parameter(
    name="Last-Event-ID",
    place="header",
    type=Annotated[int, Meta(ge=0, le=shapes.INT_MAX)],
    about="With events: the number of the last entry that arrived. It counts before `after`.",
)
AFTER_LINE: Final[Parameter[tuple[int, int]]] = Parameter(
    name="after", type=Annotated[str, Meta(pattern=r"^[0-9]{1,18}\.[0-9]{1,4}$")], parse=_place, about=_NEXT
)
AT: Final[Parameter[int]] = Parameter(
    name="at", type=shapes.Moment, about="At which moment: milliseconds since the Unix epoch, now if not said."
)
ORDER: Final[Parameter[str]] = Parameter(
    name="order", type=Literal["asc", "desc"], default="asc", about="First to last, or last to first."
)
ASSET: Final[Parameter[str]] = Parameter(
    name="asset",
    type=Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9-]{1,31}$")],
    code="not-found",
    about="Of which asset; the currency if not said.",
)

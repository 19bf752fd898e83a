"""The reads of gifts (SPEC §7.2): who offered what to whom, what became of it, and the thread by which gifts move on.

Owns the JSON of a gift and the paths under `…/gifts`. A gift is for the eyes of who sees its entry: its giver, its
receiver, everybody where it was given to the pool, and who sees every entry.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from aiohttp import web
from msgspec import UNSET, Meta, UnsetType, field

from gesell_ledger.api import parameters, shapes
from gesell_ledger.api.answers import Answered, holder_json, json_response
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import page
from gesell_ledger.api.rights import READER, Visit, visit
from gesell_ledger.core.books import POOL
from gesell_ledger.core.visibility import sides_of
from gesell_ledger.storage.reading import GiftLine
from gesell_protocol.canonical import unpack
from gesell_protocol.names import Holder, id_of, id_text

#: How many of the gifts that one moved are told with it; all are listed by `moved_by`.
MOVED_MAX: Final = 100

State = Literal["offered", "received", "declined", "withdrawn"]

_HOLDER: Final = Annotated[str, Meta(pattern=shapes.MEMBER_PATTERN)]


def _holder(text: str) -> bytes | str:
    return POOL if text == POOL else parameters.member_of(text)


STATE: Final[Parameter[str]] = Parameter(name="state", type=State, about="Only gifts in this state.")
FROM: Final[Parameter[bytes | str]] = Parameter(
    name="from",
    type=shapes.MemberName,
    parse=parameters.member_of,
    code="unknown-member",
    about="Only gifts that this member gave: its did, or its handle.",
)
TO: Final[Parameter[bytes | str]] = Parameter(
    name="to",
    type=_HOLDER,
    parse=_holder,
    code="unknown-member",
    about="Only gifts for this member, or for `pool`, the whole commons.",
)
MOVED_BY: Final[Parameter[bytes]] = Parameter(
    name="moved_by", type=shapes.Id, parse=id_of, about="Only gifts whose `after` names this one."
)
BEFORE_SEQ: Final[Parameter[int]] = Parameter(
    name="after",
    type=Annotated[int, Meta(ge=1, le=shapes.INT_MAX)],
    about="Where the page begins; take it from the `Link` of the page before.",
)


class GiftRow(Answered, frozen=True, kw_only=True):
    """A gift: who offered what to whom, and what became of it."""

    id: shapes.Id
    seq: Annotated[shapes.Seq, Meta(description="The entry that offered it.")]
    at: shapes.Moment
    giver: shapes.Did = field(name="from")
    to: Annotated[shapes.HolderName, Meta(description="A did, or `pool` for the whole commons.")]
    kind: shapes.KindCode
    quantity: shapes.Quantity
    state: State
    settled: Annotated[shapes.Moment, Meta(description="When it was received, declined or withdrawn.")] | UnsetType = (
        UNSET
    )
    category: shapes.Category | UnsetType = UNSET
    after: Annotated[list[shapes.Id], Meta(description="The gifts that moved its giver to give.")] | UnsetType = UNSET
    memo: shapes.Text | UnsetType = UNSET
    reply: Annotated[shapes.Text, Meta(description="What was said with the thanks, or in their place.")] | UnsetType = (
        UNSET
    )


class MovedRow(Answered, frozen=True, kw_only=True):
    """A gift that another one moved."""

    id: shapes.Id
    state: State


class GiftPage(GiftRow, frozen=True, kw_only=True):
    """A gift with what it moved."""

    moved: Annotated[
        list[MovedRow],
        Meta(description=f"The gifts that it moved, newest first, {MOVED_MAX} at most; `?moved_by=` lists all."),
    ]


def _fields(line: GiftLine) -> dict[str, Any]:
    body = unpack(line.body)
    assert isinstance(body, dict)
    gift = line.gift
    return {
        "id": id_text(gift.id),
        "seq": gift.seq,
        "at": line.at_ms,
        "giver": holder_json(gift.giver),
        "to": holder_json(gift.receiver),
        "kind": gift.kind,
        "quantity": str(gift.quantity),
        "state": gift.state,
        "settled": UNSET if line.settled_ms is None else line.settled_ms,
        "category": body.get("category", UNSET),
        "after": [id_text(name) for name in body["after"]] if "after" in body else UNSET,
        "memo": UNSET if line.memo is None else line.memo,
        "reply": UNSET if line.reply is None else line.reply,
    }


async def get_gifts(request: web.Request) -> web.Response:
    """Gifts, the newest first."""
    here = await visit(request)
    limit = parameters.LIMIT.read(request)
    lines = await request.app[READER].list_gifts(
        here.commons.id,
        here.sight,
        giver=await _peer(request, here, FROM.find(request)),
        receiver=await _peer(request, here, TO.find(request)),
        state=STATE.find(request),
        moved_by=MOVED_BY.find(request),
        before=BEFORE_SEQ.find(request),
        limit=limit + 1,
    )
    items = [GiftRow(**_fields(line)) for line in lines[:limit]]
    return page(request, items, last=str(lines[limit - 1].gift.seq) if len(lines) > limit else None)


async def get_gift(request: web.Request) -> web.Response:
    """One gift, what moved it and what it moved."""
    here = await visit(request)
    name = parameters.ID.read(request)
    reader = request.app[READER]
    line = await reader.load_gift(here.commons.id, name)
    if line is None or not here.sight.entry(line.gift.seq, sides_of(line.gift)):
        raise Refused("not-found", "no gift of this id was offered, or it is not for you")
    moved = await reader.list_gifts(here.commons.id, here.sight, moved_by=name, limit=MOVED_MAX)
    rows = [MovedRow(id=id_text(one.gift.id), state=one.gift.state) for one in moved]  # type: ignore[arg-type]
    return json_response(GiftPage(**_fields(line), moved=rows))


async def _peer(request: web.Request, here: Visit, name: bytes | str | None) -> Holder | None:
    """The key that a did or a handle names, `pool` as it is; raises `Refused` for a handle that nobody shown holds."""
    if name is None or name == POOL or isinstance(name, bytes):
        return name
    member = await request.app[READER].load_member(here.commons.id, name)
    if member is None or not here.sight.member(member.peer):
        raise Refused("unknown-member", f"there is no member {name} in this commons")
    return member.peer

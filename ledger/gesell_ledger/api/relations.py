"""The reads of relationships and of standing (SPEC §7.2): what members had to do with each other, as of a cursor.

Owns their JSON and who sees them. A relationship is for the member whose it is, and for others only where the entries
that made it are open to all; a standing is for who sees the commons. docs/readings.md has the formulas.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Final

from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api import parameters, shapes
from gesell_ledger.api.answers import Answered, Page, json_response
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import named_member, visit_whole
from gesell_ledger.api.rights import Visit, visit
from gesell_ledger.core.books import Commons
from gesell_ledger.readings.tally import fading
from gesell_ledger.storage.readings import SUMS_MAX, Cursor, Readings, Relation, Sum
from gesell_protocol.names import base64url, did_of, unbase64url

READINGS: Final = web.AppKey("readings", Readings)

PPM: Final = 1_000_000
#: How many decimals of a strength or a weight are told.
DECIMALS: Final = 6

AsOf = Annotated[int, Meta(ge=0, description="The entry up to which the readings are; 0 before the first.")]
Ppm = Annotated[int, Meta(ge=0, description="Parts per million, rounded down.")]
HalfLife = Annotated[int, Meta(ge=0, description="In milliseconds; 0 while nothing is read yet.")]
Weight = Annotated[float, Meta(ge=0, description="What counted 1 when it happened, halved with each half-life.")]


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class CategorySum(Answered, frozen=True, kw_only=True):
    """Payments of one category."""

    category: shapes.Category
    count: shapes.Count
    amount: shapes.Total


class Paid(Answered, frozen=True, kw_only=True):
    """Payments of one way; those without a category are in the totals alone."""

    count: shapes.Count
    amount: shapes.Total
    categories: Annotated[list[CategorySum], Meta(max_length=SUMS_MAX)]


class GiftSum(Answered, frozen=True, kw_only=True):
    """Gifts of one kind and one category, or of none."""

    kind: shapes.KindCode
    category: shapes.Category | UnsetType = UNSET
    count: shapes.Count
    quantity: shapes.Total


class Given(Answered, frozen=True, kw_only=True):
    """Gifts of one way that were thanked for."""

    count: shapes.Count
    kinds: Annotated[list[GiftSum], Meta(max_length=SUMS_MAX)]


class Relationship(Answered, frozen=True, kw_only=True):
    """What a member and a peer had to do with each other, seen from the member."""

    peer: shapes.Did
    handle: shapes.Handle
    paid: Paid
    received: Paid
    given: Given
    was_given: Given
    vouches: Annotated[shapes.Total, Meta(description="What the member vouches for the peer.")]
    vouched: Annotated[shapes.Total, Meta(description="What the peer vouches for the member.")]
    first: Annotated[shapes.Moment, Meta(description="The first contact.")]
    last: Annotated[shapes.Moment, Meta(description="The last contact.")]
    reciprocity_ppm: (
        Annotated[
            Ppm, Meta(description="The fewer payments and gifts of the two ways, of the more; absent without any.")
        ]
        | UnsetType
    ) = UNSET
    strength: Annotated[Weight, Meta(description="The same for both sides.")]


class Relationships(Page[Relationship], frozen=True, kw_only=True):
    """A member's relationships at a tick, strongest first."""

    as_of_seq: AsOf
    tick: shapes.Tick
    half_life: HalfLife


class Gifts(Answered, frozen=True, kw_only=True):
    """How many gifts, what they weigh by now, and with how many different members."""

    count: shapes.Count
    weight: Weight
    members: shapes.Count


class StandingPage(Answered, frozen=True, kw_only=True):
    """A member's standing: the gifts that it gave and received, and who thanked whom for them."""

    peer: shapes.Did
    handle: shapes.Handle
    given: Annotated[Gifts, Meta(description="Members: how many thanked it. What the pool was given counts too.")]
    received: Annotated[Gifts, Meta(description="Members: how many it thanked.")]
    as_of_seq: AsOf
    tick: shapes.Tick
    half_life: HalfLife


def paid_json(sums: Sequence[Sum], code: str, *, count: int, amount: int) -> Paid:
    """Payments of one way, or of a step, with their categories in order of their names."""
    named = sorted((one for one in sums if one.asset == code), key=lambda one: one.category)
    rows = [CategorySum(category=one.category, count=one.count, amount=str(one.amount)) for one in named]
    return Paid(count=count, amount=str(amount), categories=rows)


def gifts_json(sums: Sequence[Sum], code: str) -> list[GiftSum]:
    """Gifts by kind and category, in order of their names."""
    return [
        GiftSum(kind=one.asset, category=one.category or UNSET, count=one.count, quantity=str(one.amount))
        for one in sorted((one for one in sums if one.asset != code), key=lambda one: (one.asset, one.category))
    ]


# ── Paths ────────────────────────────────────────────────────────────────────────────────────────────────────────

_PLACE: Final = struct.Struct(">d32s")


def _place(text: str) -> tuple[float, bytes]:
    cursor = unbase64url(text)
    if len(cursor) != _PLACE.size:
        raise ValueError("take it from the Link of the page before")
    weight, peer = _PLACE.unpack(cursor)
    if not abs(weight) < float("inf"):
        raise ValueError("take it from the Link of the page before")
    return weight, peer


AFTER_PEER: Final[Parameter[tuple[float, bytes]]] = Parameter(
    name="after",
    type=Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{54}$")],
    parse=_place,
    about="Where the page begins; take it from the `Link` of the page before.",
)


async def get_relationships(request: web.Request) -> web.Response:
    """A member's relationships, strongest first."""
    here = await visit(request)
    member = await named_member(request, here)
    sight = here.sight
    own = member.peer == sight.peer and sight.account_of(member.peer)
    if not own and here.commons.policy_at(here.now_ms).visibility != "open":
        raise Refused("not-authorised", "only the member itself sees this where the commons is not open")
    limit = parameters.LIMIT.read(request)
    async with request.app[READINGS].open(here.commons) as snapshot:
        listed, more = await snapshot.list_relations(member.peer, after=AFTER_PEER.find(request), limit=limit)
        cursor = snapshot.cursor
    tick = _tick(here, cursor)
    items = [_relationship_json(here.commons, relation, cursor, tick) for relation in listed]
    answer = Relationships(items=items, as_of_seq=cursor.seq, tick=tick, half_life=cursor.half_life_ms)
    response = json_response(answer)
    if more:
        after = base64url(_PLACE.pack(listed[-1].weight, listed[-1].peer))
        response.headers["Link"] = f'<{request.rel_url.update_query(after=after)}>; rel="next"'
    return response


async def get_standing(request: web.Request) -> web.Response:
    """A member's standing: what it gave and received that was thanked for."""
    here = await visit_whole(request)
    member = await named_member(request, here)
    async with request.app[READINGS].open(here.commons) as snapshot:
        standing = await snapshot.load_standing(member.peer)
        cursor = snapshot.cursor
    tick = _tick(here, cursor)
    given = _faded(here.commons, cursor, standing.given_weight, standing.given_ms, tick)
    received = _faded(here.commons, cursor, standing.received_weight, standing.received_ms, tick)
    return json_response(
        StandingPage(
            peer=did_of(member.peer),
            handle=member.handle,
            given=Gifts(count=standing.given, weight=given, members=standing.thanked_by),
            received=Gifts(count=standing.received, weight=received, members=standing.thanked),
            as_of_seq=cursor.seq,
            tick=tick,
            half_life=cursor.half_life_ms,
        )
    )


def _relationship_json(commons: Commons, relation: Relation, cursor: Cursor, tick: int) -> Relationship:
    code = commons.currency.code
    to, back = relation.payments_to + relation.gifts_to, relation.payments_from + relation.gifts_from
    return Relationship(
        peer=did_of(relation.peer),
        handle=relation.handle,
        paid=paid_json(relation.sums_to, code, count=relation.payments_to, amount=relation.paid),
        received=paid_json(relation.sums_from, code, count=relation.payments_from, amount=relation.received),
        given=Given(count=relation.gifts_to, kinds=gifts_json(relation.sums_to, code)),
        was_given=Given(count=relation.gifts_from, kinds=gifts_json(relation.sums_from, code)),
        vouches=str(relation.vouches),
        vouched=str(relation.vouched),
        first=relation.first_ms,
        last=relation.last_ms,
        reciprocity_ppm=PPM * min(to, back) // max(to, back) if to or back else UNSET,
        strength=_faded(commons, cursor, relation.strength, relation.last_ms, tick),
    )


def _tick(here: Visit, cursor: Cursor) -> int:
    """The tick of the answer: now's. The readings may know of an entry that is later than the request was."""
    return here.commons.tick_of(max(here.now_ms, cursor.at_ms))


def _faded(commons: Commons, cursor: Cursor, weight: float, since_ms: int, tick: int) -> float:
    """A strength or weight as of a tick, from what it was at the tick of a moment."""
    if weight == 0:
        return 0.0
    tick_ms = commons.policy_at(since_ms).tick_seconds * 1000
    left = fading(tick - commons.tick_of(since_ms), tick_ms=tick_ms, half_life_ms=cursor.half_life_ms)
    return round(weight * left, DECIMALS)

"""The reads of trust (SPEC §7.2): how much of it flows between two members, and whom it reaches from one.

Owns their JSON and the paging of the ranking. What trust comes to is `readings.trust`'s; who sees the commons as a
whole sees it. docs/trust.md says what is reckoned.
"""

from __future__ import annotations

from typing import Annotated, Final, NoReturn

from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api import answers, parameters, reads, shapes
from gesell_ledger.api.answers import Answered, json_response
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import members_json, named_member, page, visit_whole
from gesell_ledger.api.rights import READER, Visit
from gesell_ledger.core.books import LEFT, Member
from gesell_ledger.readings.trust import VOUCHES_MAX, TooManyVouches, Trust
from gesell_ledger.readings.turns import Unanswered
from gesell_ledger.storage.trust import VouchReader
from gesell_protocol.names import base64url, did_of, unbase64url

TRUST: Final = web.AppKey("trust", Trust)
VOUCHES: Final = web.AppKey("vouches", VouchReader)

TrustGrains = Annotated[
    str, Meta(pattern="^[0-9]{1,18}$", description="Trust in grains, 0 for none.", examples=["50000"])
]
Hops = Annotated[int, Meta(ge=1, description="How many vouches the chain has.")]


def _place(text: str) -> tuple[int, int, bytes]:
    strength, hops, peer = text.split(".")
    if not (strength.isdecimal() and hops.isdecimal()):
        raise ValueError("take it from the Link of the page before")
    return int(strength), int(hops), unbase64url(peer)


TO: Final[Parameter[bytes | str]] = Parameter(
    name="to",
    type=shapes.MemberName,
    parse=parameters.member_of,
    required=True,
    about="To which other member: its did, or its handle.",
)
TRUSTED_BY: Final[Parameter[bytes | str]] = Parameter(
    name="trusted_by",
    type=shapes.MemberName,
    parse=parameters.member_of,
    code="unknown-member",
    about="Only whom trust from this member (its did, or its handle) reaches, the most trusted first.",
)
#: As it stands in the document: a list by keys and one by trust each have their own cursors.
AFTER: Final[Parameter[str]] = Parameter(
    name="after",
    type=Annotated[str, Meta(pattern=r"^([0-9]{1,18}\.[0-9]{1,9}\.)?[A-Za-z0-9_-]{43}$")],
    about=parameters.AFTER_MEMBER.about,
)
_AFTER_TRUSTED: Final[Parameter[tuple[int, int, bytes]]] = Parameter(
    name="after",
    type=Annotated[str, Meta(pattern=r"^[0-9]{1,18}\.[0-9]{1,9}\.[A-Za-z0-9_-]{43}$")],
    parse=_place,
)


async def stop(app: web.Application) -> None:
    """End what reckons trust, when nobody waits for an answer any more."""
    await app[TRUST].stop()


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


class ChainLink(Answered, frozen=True, kw_only=True):
    """A step of a chain: a member for whom the one before vouches."""

    peer: shapes.Did
    handle: shapes.Handle
    vouch: (
        Annotated[
            TrustGrains,
            Meta(
                description="What the one before vouches for it; the first step's is `from`. Absent where the entry"
                " that says so is not for the reader."
            ),
        ]
        | UnsetType
    ) = UNSET


class TrustPage(Answered, frozen=True, kw_only=True, rename={"source": "from"}):
    """The trust that flows from one member to another, and the strongest chain of vouches over which it does."""

    source: shapes.Did
    to: shapes.Did
    flow: Annotated[TrustGrains, Meta(description="The maximum flow over vouches, each as wide as its grains.")]
    strength: Annotated[TrustGrains, Meta(description="The smallest vouch of the chain.")]
    chain: Annotated[
        list[ChainLink],
        Meta(
            description="From the first for whom `from` vouches to `to`; empty where none leads there. Its smallest"
            " vouch is the greatest possible; of such chains it is the shortest; of these the one whose keys, read"
            " from its end, come first."
        ),
    ]
    as_of_seq: Annotated[shapes.Seq, Meta(description="Vouches are taken as they stood after this entry.")]


class TrustRow(Answered, frozen=True, kw_only=True):
    """How trust reaches a member: its strongest chain's smallest vouch, its vouches, who gave the last of them."""

    strength: TrustGrains
    hops: Hops
    by: shapes.Did


class MemberRow(answers.MemberRow, frozen=True, kw_only=True):
    """A member of a commons, with `trusted_by` also how trust reaches it."""

    trust: TrustRow | UnsetType = UNSET


# ── Paths ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_trust(request: web.Request) -> web.Response:
    """How much trust flows from a member to another one, and over which strongest chain of vouches."""
    here = await visit_whole(request)
    name = TO.read(request)
    source = (await named_member(request, here)).peer
    sink = (await _find(request, here, name)).peer
    _check_own(here, source)
    if source == sink:
        raise Refused("malformed", "to: nobody's trust in itself is measured")
    commons = here.commons
    try:
        seq, trust = await request.app[TRUST].between(commons.id, seq=commons.seq, source=source, sink=sink)
    except (Unanswered, TooManyVouches) as error:
        _refuse(error)
    members = await request.app[VOUCHES].load_members(commons.id, [peer for peer, _ in trust.chain])
    chain = [
        ChainLink(
            peer=did_of(peer),
            handle=members[peer].handle,
            # Others' vouches are entries that are not for everybody; the first is the asker's own.
            vouch=str(grains) if place == 0 or here.sight.every_entry else UNSET,
        )
        for place, (peer, grains) in enumerate(trust.chain)
    ]
    strength = min((grains for _, grains in trust.chain), default=0)
    return json_response(
        TrustPage(
            source=did_of(source),
            to=did_of(sink),
            flow=str(trust.flow),
            strength=str(strength),
            chain=chain,
            as_of_seq=seq,
        )
    )


async def get_members(request: web.Request) -> web.Response:
    """The members in order of their keys, or those whom trust from one reaches, the most trusted first."""
    name = TRUSTED_BY.find(request)
    return await (reads.get_members(request) if name is None else _get_trusted(request, name))


async def _get_trusted(request: web.Request, name: bytes | str) -> web.Response:
    here = await visit_whole(request)
    limit, after = parameters.LIMIT.read(request), _AFTER_TRUSTED.find(request)
    source = (await _find(request, here, name)).peer
    _check_own(here, source)
    commons = here.commons
    try:
        ranking = await request.app[TRUST].rank(
            commons.id, seq=commons.seq, source=source, after=after, limit=limit + 1
        )
    except (Unanswered, TooManyVouches) as error:
        _refuse(error)
    reached = {peer: TrustRow(strength=str(s), hops=hops, by=did_of(by)) for peer, s, hops, by in ranking.rows[:limit]}
    known = await request.app[VOUCHES].load_members(commons.id, reached)
    # Who has left since is not listed, whatever led there a moment ago.
    members = [known[peer] for peer in reached if known[peer].status != LEFT]
    rows = await members_json(request, here, members)
    items = [
        MemberRow(**{name: getattr(row, name) for name in row.__struct_fields__}, trust=reached[member.peer])
        for member, row in zip(members, rows, strict=True)
    ]
    if len(ranking.rows) <= limit:
        return page(request, items, last=None)
    peer, strength, hops, _ = ranking.rows[limit - 1]
    return page(request, items, last=f"{strength}.{hops}.{base64url(peer)}")


def _check_own(here: Visit, source: bytes) -> None:
    """Where entries are their parties' alone, trust is told as it goes out from the reader itself."""
    if not here.sight.every_entry and source != here.sight.peer:
        raise Refused("not-authorised", "only the member itself and stewards ask for its trust here")


async def _find(request: web.Request, here: Visit, name: bytes | str) -> Member:
    """A member whom the query names; raises `Refused`."""
    member = await request.app[READER].load_member(here.commons.id, name)
    if member is None:
        raise Refused("unknown-member", "there is no such member in this commons")
    return member


def _refuse(error: Unanswered | TooManyVouches) -> NoReturn:
    if isinstance(error, TooManyVouches):
        raise Refused("limit-exceeded", "trust is told where there are fewer vouches", limit=VOUCHES_MAX) from None
    raise Refused("unavailable", str(error), retry_after=error.retry_after) from None

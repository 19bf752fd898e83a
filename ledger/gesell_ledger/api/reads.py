"""The reads of SPEC §7.2.

Owns how a path and its query become one call to the reader, and the paging. Who may see what comes from `rights`,
through `visit`, before anything is looked up; balances come out of `core.present` and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from gesell_ledger import __version__
from gesell_ledger.api import answers, parameters
from gesell_ledger.api.answers import json_response
from gesell_ledger.api.cursors import Cursors
from gesell_ledger.api.events import entry_parties, load_answered
from gesell_ledger.api.live import LIVE, wants_events
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.rights import CLOCK, READER, Visit, visit
from gesell_ledger.api.writing import REQUEST_MAX_BYTES, STATEMENTS_MAX
from gesell_ledger.core.books import ESCROW, ISSUER, POOL, Commons, Entry, Member
from gesell_ledger.core.present import looks_at_once, melt_due
from gesell_ledger.core.visibility import Sight
from gesell_ledger.storage.reading import Reader
from gesell_ledger.unhurried import unhurried
from gesell_protocol.envelopes import BODY_MAX_BYTES, ENVELOPE_MAX_BYTES, Memo
from gesell_protocol.names import base64url, did_of

LEDGER: Final = web.AppKey("ledger", bytes)
#: commons → ((seq, tick), melt due then)
DUE: Final = web.AppKey[dict[bytes, tuple[tuple[int, int], int]]]("due")
MIN_TICK_SECONDS: Final = web.AppKey("min_tick_seconds", int)
CURSORS: Final = web.AppKey("cursors", Cursors)

#: How many commons are looked at for a page that hidden ones would leave short, a chunk at a time.
SCANS: Final = (200,) * 9
#: Above this many accounts, what is due but unposted is not added up for a read.
DUE_ACCOUNTS_MAX: Final = 10_000
DUE_KNOWN_MAX: Final = 1_000


# ── The service ──────────────────────────────────────────────────────────────────────────────────────────────────


async def get_service(request: web.Request) -> web.Response:
    """Whose ledger this is, what time it has, and how much it takes."""
    clock = request.app[CLOCK]
    limits = answers.Limits(
        min_tick_seconds=request.app[MIN_TICK_SECONDS],
        statements=STATEMENTS_MAX,
        request_bytes=REQUEST_MAX_BYTES,
        body_bytes=BODY_MAX_BYTES,
        envelope_bytes=ENVELOPE_MAX_BYTES,
    )
    return json_response(
        answers.Service(
            ledger=did_of(request.app[LEDGER]),
            version=__version__,
            time=clock.look(),
            clock_speed=clock.speed,
            limits=limits,
        )
    )


# ── The commons ──────────────────────────────────────────────────────────────────────────────────────────────────


async def get_commons_list(request: web.Request) -> web.Response:
    """The open commons of this ledger."""
    limit = parameters.LIMIT.read(request)
    cursor = parameters.AFTER_COMMONS.find(request)
    try:
        after = None if cursor is None else request.app[CURSORS].read(cursor)
    except ValueError as error:
        raise Refused("malformed", f"after: {error}") from None
    now = request.app[CLOCK].look()
    listed, last = await list_open(request.app[READER], after=after, limit=limit, now_ms=now)
    items = [await _commons_json(request, commons, now, due=False) for commons in listed]
    return page(request, items, last=None if last is None else request.app[CURSORS].write(last))


async def list_open(
    reader: Reader, *, after: bytes | None, limit: int, now_ms: int
) -> tuple[list[Commons], bytes | None]:
    """Open commons after a place, at most `limit`, and the place after which there may be more.

    Looks at a bounded number of commons, so there may be none among them; the place may be that of a hidden one.
    """
    found: list[Commons] = []
    for size in (limit + 1, *SCANS):
        listed = await reader.list_commons(after=after, limit=size)
        for commons in listed:
            if _is_open(commons, now_ms):
                if len(found) == limit:
                    return found, found[-1].id
                found.append(commons)
        if len(listed) < size:
            return found, None
        after = listed[-1].id
    return found, after


async def get_commons(request: web.Request) -> web.Response:
    """One commons: its rules, its stewards, its money."""
    here = await visit_whole(request)
    return json_response(await _commons_json(request, here.commons, here.now_ms, due=here.accounts <= DUE_ACCOUNTS_MAX))


async def _commons_json(request: web.Request, commons: Commons, now: int, *, due: bool) -> answers.CommonsPage:
    commons, posted = await request.app[READER].load_reserved(commons)
    tick = commons.tick_of(max(now, commons.at_ms))
    unposted = await _melt_due(request, commons, tick) if due else None
    return answers.commons_json(
        commons,
        tick=tick,
        supply=-posted[ISSUER],
        pool=posted[POOL],
        escrow=posted[ESCROW],
        melt_due=unposted,
    )


async def _melt_due(request: web.Request, commons: Commons, tick: int) -> int:
    """What has melted by `tick` and is not posted; added up once for each entry and tick, however often it is asked."""
    known = request.app[DUE]
    moment = (commons.seq, tick)
    if commons.id not in known or known[commons.id][0] != moment:
        due, at_once = 0, looks_at_once(commons)
        async for page in request.app[READER].list_asleep(commons, before_tick=tick, page=parameters.LIMIT_MAX):
            async for account in unhurried(page, at_once=at_once):
                due += melt_due(account.holding, commons, tick=tick)
        if len(known) >= DUE_KNOWN_MAX:
            known.clear()
        now = await request.app[READER].load_commons(commons.id)
        if now is None or now[0].seq != commons.seq:
            return due  # something moved while it was added up: good enough to show, not to keep
        known[commons.id] = (moment, due)
    return known[commons.id][1]


async def visit_whole(request: web.Request) -> Visit:
    """A visit by somebody who sees the commons as a whole."""
    here = await visit(request)
    if not here.sight.whole:
        raise Refused("not-authorised", "only active and suspended members and stewards see this")
    return here


def _is_open(commons: Commons, now: int) -> bool:
    return commons.policy_at(now).visibility == "open"


# ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_members(request: web.Request) -> web.Response:
    """The members in order of their keys."""
    here = await visit_whole(request)
    limit = parameters.LIMIT.read(request)
    reader = request.app[READER]
    members = await reader.list_members(
        here.commons.id, after=parameters.AFTER_MEMBER.find(request) or b"", limit=limit + 1
    )
    items = await members_json(request, here, members[:limit])
    return page(request, items, last=base64url(members[limit - 1].peer) if len(members) > limit else None)


async def get_member(request: web.Request) -> web.Response:
    """One member, by did or handle."""
    here = await visit(request)
    member = await named_member(request, here)
    return json_response((await members_json(request, here, [member]))[0])


async def members_json(request: web.Request, here: Visit, members: Sequence[Member]) -> list[answers.MemberRow]:
    """Members as they are shown, with their keys and their limits by the policy in force."""
    rings = await request.app[READER].load_key_rings(here.commons.id, [member.peer for member in members])
    limit = here.commons.policy_at(here.now_ms).credit_limit
    return [answers.member_json(member, rings.get(member.peer, []), policy_limit=limit) for member in members]


async def named_member(request: web.Request, here: Visit) -> Member:
    """The member that the path names, if the reader sees members, or is that one; who has left is found by did."""
    name = parameters.MEMBER.read(request)
    member = await request.app[READER].load_member(here.commons.id, name)
    if member is None or not here.sight.member(member.peer):
        # Who does not see the members is not told which there are.
        raise Refused("unknown-member", f"there is no member {request.match_info['member']} in this commons")
    return member


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_entries(request: web.Request) -> web.StreamResponse:
    """Entries in order, from the one after `after` on: all of them, or those that concern the reader."""
    here = await visit(request)
    if wants_events(request):
        return await request.app[LIVE].follow(request, here)
    # It says nothing here, but what is no number is refused on either way: the path is one.
    parameters.LAST_EVENT_ID.find(request)
    limit = parameters.LIMIT.read(request)
    after = parameters.AFTER_SEQ.read(request)
    listed, more = await list_entries(request.app[READER], here.commons, here.sight, after=after, limit=limit)
    items = [answers.entry_json(entry, memo) for entry, memo in listed]
    return page(request, items, last=str(listed[-1][0].seq) if more else None)


async def list_entries(
    reader: Reader, commons: Commons, sight: Sight, *, after: int, limit: int
) -> tuple[list[tuple[Entry, Memo | None]], bool]:
    """The entries after one that a reader sees, at most `limit`, and whether there are more."""
    if sight.every_entry:
        listed = await reader.list_entries(commons.id, after=after, limit=limit)
        return listed, bool(listed) and listed[-1][0].seq < commons.seq
    return await reader.list_entries_of(commons.id, sight, after=after, limit=limit)


async def get_entry(request: web.Request) -> web.Response:
    """One entry by its number."""
    here = await visit(request)
    seq = parameters.SEQ.read(request)
    listed = await request.app[READER].list_entries(here.commons.id, after=seq - 1, limit=1)
    if not listed or listed[0][0].seq != seq or not await sees(request, here, listed[0][0]):
        raise Refused("not-found", "the commons has no entry of this number, or it is not for you")
    return json_response(answers.entry_json(*listed[0]))


async def get_statement(request: web.Request) -> web.Response:
    """The receipt of an accepted statement, by its id."""
    here = await visit(request)
    name = parameters.ID.read(request)
    entry = await request.app[READER].find_entry(here.commons.id, name)
    if entry is None or not await sees(request, here, entry):
        raise Refused("not-found", "no statement of this id was accepted, or it is not for you")
    return json_response(answers.receipt_json(entry.receipt(here.commons.tick_of(entry.at_ms))))


async def sees(request: web.Request, here: Visit, entry: Entry) -> bool:
    """Whether the reader sees an entry; only where it does not see all, its body is read again."""
    if here.sight.every_entry:
        return True
    answered = await load_answered(request.app[READER], here.commons.id, [entry.body])
    return here.sight.entry(entry.seq, entry_parties(entry, answered))


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(request: web.Request, items: list[Any], *, last: str | None) -> web.Response:
    """A page of a list; `last` is the cursor of its last item if there is more (RFC 8288)."""
    response = json_response(answers.Page[Any](items=items))
    if last is not None:
        response.headers["Link"] = f'<{request.rel_url.update_query(after=last)}>; rel="next"'
    return response

"""The reads of one member's account: what it has, and how it came to that (SPEC §7.2).

Owns balances and histories, of money and of gifts. Who may see what comes from `rights`; a balance comes out of
`core.present` and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gesell_ledger.api import answers, parameters
from gesell_ledger.api.answers import json_response
from gesell_ledger.api.events import load_answered
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import named_member, page
from gesell_ledger.api.rights import READER, Visit, visit
from gesell_ledger.core.books import ESCROW, ISSUER, POOL, Commons, Gift, Hold, Member
from gesell_ledger.core.present import present
from gesell_ledger.storage.reading import Account, Line
from gesell_protocol.canonical import unpack
from gesell_protocol.demurrage import Holding
from gesell_protocol.names import Holder

TICKS_AHEAD_MAX: Final = 10_000


async def _visit_account(request: web.Request) -> tuple[Visit, Member]:
    """A visit to a member's account, by who may see into it."""
    here = await visit(request)
    member = await named_member(request, here)
    if not here.sight.account_of(member.peer):
        raise Refused("not-authorised", "only the member itself and stewards see this")
    return here, member


async def get_balances(request: web.Request) -> web.Response:
    """What a member has, had, or will have: at `at`, or now. Money, and beside it gifts given and received."""
    here, member = await _visit_account(request)
    commons, reader = here.commons, request.app[READER]
    asked_ms = parameters.AT.find(request)
    at_ms = here.now_ms if asked_ms is None else asked_ms
    tick = commons.tick_of(at_ms)
    if tick > commons.tick_of(here.now_ms) + TICKS_AHEAD_MAX:
        raise Refused("limit-exceeded", f"at most {TICKS_AHEAD_MAX} ticks ahead", limit=TICKS_AHEAD_MAX)
    holding, seq = await _holding(request, commons, member.peer, at_ms)
    limit = commons.timeline.policy_at(tick).credit_limit + await reader.load_vouched(commons.id, member.peer, seq=seq)
    shown = present(holding, commons, tick=tick, credit_limit=limit)
    gifts = await reader.list_gift_counts(commons.id, member.peer, seq=seq)
    return json_response(
        answers.Balances(
            items=[answers.balance_json(commons, shown)],
            gifts=[answers.gift_count_json(commons, count) for count in gifts],
            at=at_ms,
            tick=tick,
            seq=seq,
        )
    )


async def _holding(request: web.Request, commons: Commons, peer: bytes, at_ms: int) -> tuple[Holding, int]:
    """The account as of the last entry at or before `at_ms`, and that entry's seq."""
    reader = request.app[READER]
    account, seq, last_ms = await reader.load_account_now(commons, peer)
    if at_ms >= last_ms:
        return (account.holding if account is not None else Holding()), seq
    found = await reader.load_account_at(commons, account or Account(-1, peer, "", Holding()), at_ms)
    if found is None:
        raise Refused("not-found", "the commons was not founded by then")
    return found[0], found[1]


async def get_postings(request: web.Request) -> web.Response:
    """An account's history, first to last, or last to first with `order=desc`."""
    here, member = await _visit_account(request)
    commons = here.commons
    newest_first = parameters.ORDER.read(request) == "desc"
    asset = parameters.ASSET.find(request) or commons.currency.code
    if asset != commons.currency.code and asset not in commons.kinds:
        raise Refused("not-found", "the commons has no such asset")
    limit = parameters.LIMIT.read(request)
    account, _, _ = await request.app[READER].load_account_now(commons, member.peer, asset=asset)
    lines: list[Line] = []
    if account is not None:
        lines = await request.app[READER].list_postings(
            commons.id, account, after=parameters.AFTER_LINE.find(request), newest_first=newest_first, limit=limit + 1
        )
    answered = await load_answered(request.app[READER], commons.id, [line.body for line in lines])
    items = [_line_json(commons, member.peer, line, answered) for line in lines[:limit]]
    last = f"{lines[limit - 1].seq}.{lines[limit - 1].n}" if len(lines) > limit else None
    return page(request, items, last=last)


def _line_json(commons: Commons, peer: bytes, line: Line, answered: Mapping[bytes, Gift | Hold]) -> answers.HistoryLine:
    fields = unpack(line.body)
    assert isinstance(fields, dict)
    gift = answered.get(fields.get("gift", b""))
    if line.reason == "gift" and isinstance(gift, Gift):
        return answers.line_json(line, fields, gift.receiver if gift.giver == peer else gift.giver)
    return answers.line_json(line, fields, _counterpart(commons, peer, line, fields))


def _counterpart(commons: Commons, peer: bytes, line: Line, fields: dict[str, Any]) -> Holder | None:
    """Who stands on the other side of a line; None where several do."""
    match line.reason:
        case "melt":
            return commons.melt_to
        case "issue" | "retire":
            return ISSUER
        case "grant" | "leave":
            return POOL
        case "share" | "hold" | "capture" | "void":
            return ESCROW
        case "pay" if fields["by"] != peer:
            by: bytes = fields["by"]
            return by
        case "pay" if len(fields["legs"]) == 1:
            to: bytes = fields["legs"][0][0]
            return to
        case "writeoff" if fields["peer"] != peer:
            owed: bytes = fields["peer"]
            return owed
    return None

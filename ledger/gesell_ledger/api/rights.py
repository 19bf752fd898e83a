"""Who asks, and what they may see: the one door through which every read of a commons goes (SPEC §7.3).

Owns the way from a request to a `Sight`. The rule itself is `core.visibility`'s, the token `tokens`'. Who may see
nothing is told the same as if there were no such commons, whatever the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gesell_ledger.api.parameters import COMMONS
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.tokens import BadToken, Bearer, Tokens
from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import Commons, Member
from gesell_ledger.core.visibility import EVERYTHING, Sight, sight_of
from gesell_ledger.storage.reading import Reader

READER: Final = web.AppKey("reader", Reader)
CLOCK: Final = web.AppKey[LedgerClock]("clock")
TOKENS: Final = web.AppKey("tokens", Tokens)
#: Who a request's token speaks for, None without one: found out once, before anything else is done for it.
BEARER: Final = web.RequestKey[Bearer | None]("bearer")


@dataclass(frozen=True, slots=True)
class Visit:
    """A reader at a commons: its head, the time (never before its last entry's), its accounts, what is seen."""

    commons: Commons
    now_ms: int
    accounts: int
    sight: Sight


async def visit(request: web.Request) -> Visit:
    """Whom the path and the token name together; raises `Refused` (`unknown-commons`) for who may see nothing of it."""
    commons, accounts = await load_commons(request)
    now = max(request.app[CLOCK].look(), commons.at_ms)
    sight = await look(request.app[READER], commons, request[BEARER], now_ms=now)
    if sight is None:
        raise nowhere()
    return Visit(commons, now, accounts, sight)


def verify_bearer(request: web.Request) -> Bearer | None:
    """Who the request's token speaks for, None without one; raises `Refused` (`bad-token`) if it does not hold."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Refused("bad-token", "the scheme is Bearer, with a token that the reader issues itself")
    try:
        return request.app[TOKENS].verify(token.strip(), now_ms=request.app[CLOCK].look())
    except BadToken as bad:
        raise Refused("bad-token", str(bad)) from None


async def load_commons(request: web.Request) -> tuple[Commons, int]:
    """The commons that the path names, whoever asks, and how many accounts it has; raises `unknown-commons`."""
    try:
        name = COMMONS.parse(request.match_info["commons"])
    except ValueError:
        raise nowhere() from None
    found = await request.app[READER].load_commons(name)
    if found is None:
        raise nowhere()
    return found


async def look(reader: Reader, commons: Commons, bearer: Bearer | None, *, now_ms: int) -> Sight | None:
    """What a bearer (None: a stranger) sees of a commons at a moment, by its membership and its keys as they are now.

    Ask again to learn whether it still does: policies change, members are suspended, keys are revoked.
    """
    policy = commons.policy_at(now_ms)
    if bearer is None:
        return EVERYTHING if policy.visibility == "open" else None
    peer, member = await load_standing(reader, commons, peer=bearer.peer, key=bearer.key)
    return sight_of(commons, policy, peer, member)


async def load_standing(
    reader: Reader, commons: Commons, *, peer: bytes, key: bytes
) -> tuple[bytes | None, Member | None]:
    """Whom a key that would speak for `peer` speaks for, None if it is no live key of it; and the membership of
    `peer`.
    """
    member = await reader.load_member(commons.id, peer)
    known = await reader.load_key(commons.id, key)
    speaks = key == peer if known is None else known.live and known.peer == peer
    return peer if speaks else None, member


def nowhere() -> Refused:
    """What who may see nothing is told, and who asks for what is not there: word for word the same."""
    return Refused("unknown-commons", "no commons of this name was founded here, or it is not open to you")

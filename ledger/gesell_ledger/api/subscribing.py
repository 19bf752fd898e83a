"""Who may have webhooks, and what they may see: the rule that a request is held against, and every delivery again.

Owns the difference between reading and being delivered to: an open commons is read by anyone, its webhooks are its
members'. Knows no request and no endpoint.
"""

from __future__ import annotations

from gesell_ledger.api.rights import look
from gesell_ledger.api.tokens import Bearer
from gesell_ledger.core.books import RECEIVERS, Commons
from gesell_ledger.core.visibility import Sight
from gesell_ledger.storage.reading import Reader


async def look_as_subscriber(reader: Reader, commons: Commons, bearer: Bearer, *, now_ms: int) -> Sight | None:
    """What a peer's webhooks may tell it: None unless it is an active or suspended member or a steward, and the key
    that asked for them is a live one of its own.
    """
    sight = await look(reader, commons, bearer, now_ms=now_ms)
    if sight is None or sight.peer is None or sight.peer in commons.stewards:
        return None if sight is None or sight.peer is None else sight
    member = await reader.load_member(commons.id, sight.peer)
    return sight if member is not None and member.status in RECEIVERS else None

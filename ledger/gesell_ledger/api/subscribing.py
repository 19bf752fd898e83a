"""Who may have webhooks, and what they may see: the rule that a request is held against, and every delivery again.

Owns the difference between reading and being delivered to: an open commons is read by anyone, its webhooks are its
members'. Knows no request and no endpoint.
"""

from __future__ import annotations

from gesell_ledger.api.rights import load_standing
from gesell_ledger.core.books import RECEIVERS, Commons
from gesell_ledger.core.visibility import Sight, sight_of
from gesell_ledger.storage.reading import Reader


async def look_as_subscriber(
    reader: Reader, commons: Commons, *, peer: bytes, key: bytes, now_ms: int
) -> tuple[Sight | None, bool]:
    """What `peer` sees of a commons by a key that speaks for it, None for nothing; and whether it may have webhooks
    there: as an active or suspended member or a steward, by a live key of its own.
    """
    speaker, member = await load_standing(reader, commons, peer=peer, key=key)
    sight = sight_of(commons, commons.policy_at(now_ms), speaker, member)
    inside = peer in commons.stewards or (member is not None and member.status in RECEIVERS)
    return sight, speaker is not None and inside

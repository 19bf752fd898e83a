"""Whom a command gives money to: found, and told apart from oneself and from who is no member yet.

Owns what is said where that fails. Who a handle belongs to is the ledger's word.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from gesell.advice import NOTHING_SENT, WHO_IS_THERE, waits
from gesell.client import Client
from gesell.errors import GesellError, UnknownMember
from gesell.options import Mistake
from gesell_protocol.names import did_of

#: Where more have a place, nobody is looked for among those who only asked for one.
_LOOKED_THROUGH_MAX: Final = 5_000


async def find_payee(client: Client, who: str, *, own: str, not_oneself: str) -> str:
    """The did of a payee named by handle or did, who is not `own`; `not_oneself` says why that can't be.

    Ends the command, before anything is sent, for oneself and for a handle that is no member's.
    """
    try:
        did = did_of(await client.key_of(who))
    except UnknownMember:
        if await _has_asked(client, who):
            advice = f"{NOTHING_SENT} A steward admits who asked: gesell admit {who}"
            raise Mistake(waits(who), advice, status=1) from None
        raise Mistake(f"There is no member {who} here.", f"{NOTHING_SENT} {WHO_IS_THERE}", status=1) from None
    if did == own:
        raise Mistake(not_oneself, NOTHING_SENT)
    return did


async def _has_asked(client: Client, handle: str) -> bool:
    looked = 0
    with suppress(GesellError):  # who may not see the members is not told who asks to be one
        async for member in client.members():
            if member.handle == handle and member.status == "pending":
                return True
            looked += 1
            if looked == _LOOKED_THROUGH_MAX:
                break
    return False

"""The commands by which stewards move money: issue, grant, share.

Owns their words. How several stewards sign is `joint_commands`', the rules are the ledger's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gesell import showing
from gesell.joint_commands import ALONE, Together, speak
from gesell.options import DEFAULTS, MemoOption, Options, run


def issue(
    to: str, amount: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS
) -> None:
    """As steward, make new money for a member.

    Parameters
    ----------
    to
        A handle or a did, never your own.
    amount
        Like 100 or 0.05.
    memo
        A note for the members.
    """
    fields = {"type": "issue", "to": to, "amount": amount, "memo": memo}
    run(_say(fields, f"Issued {{moved}} to {showing.short(to)}", together, options))


def grant(
    to: str, amount: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS
) -> None:
    """As steward, pay a member out of the pool.

    Parameters
    ----------
    to
        A handle or a did, never your own.
    amount
        Like 100 or 0.05.
    memo
        A note for the members.
    """
    fields = {"type": "grant", "legs": [(to, amount)], "memo": memo}
    run(_say(fields, f"Granted {{moved}} from the pool to {showing.short(to)}", together, options))


def share(amount: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS) -> None:
    """As steward, share money of the pool out to all active members alike.

    Parameters
    ----------
    amount
        Like 100 or 0.05, at most what the pool holds.
    memo
        A note for the members.
    """
    fields = {"type": "share", "amount": amount, "memo": memo}
    run(_say(fields, "Shared {moved} of the pool; the ledger pays it out now", together, options))


async def _say(fields: Mapping[str, Any], sentence: str, together: Together, options: Options) -> None:
    async with options.signer() as client:
        await speak(client, fields, together=together, sentence=sentence, options=options)

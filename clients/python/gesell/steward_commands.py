"""The commands by which stewards move money: issue, grant, share.

Owns their words. How several stewards sign is `joint_commands`', the rules are the ledger's.
"""

from __future__ import annotations

from gesell import showing
from gesell.joint_commands import ALONE, Together, speak
from gesell.options import DEFAULTS, MemoOption, Options, run
from gesell.payees import find_payee


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
    run(_issue(to, amount, memo, together, options))


async def _issue(to: str, amount: str, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        payee = await find_payee(client, to, own=own, not_oneself="Stewards issue to others, nobody to themselves.")
        fields = {"type": "issue", "to": payee, "amount": amount, "memo": memo}
        sentence = f"Issued {{moved}} to {showing.short(to)}"
        await speak(client, fields, together=together, sentence=sentence, options=options)


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
    run(_grant(to, amount, memo, together, options))


async def _grant(to: str, amount: str, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        payee = await find_payee(client, to, own=own, not_oneself="Stewards grant to others, nobody to themselves.")
        fields = {"type": "grant", "legs": [(payee, amount)], "memo": memo}
        sentence = f"Granted {{moved}} from the pool to {showing.short(to)}"
        await speak(client, fields, together=together, sentence=sentence, options=options)


def share(amount: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS) -> None:
    """As steward, share money of the pool out to all active members alike.

    Parameters
    ----------
    amount
        Like 100 or 0.05, at most what the pool holds.
    memo
        A note for the members.
    """
    run(_share(amount, memo, together, options))


async def _share(amount: str, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        fields = {"type": "share", "amount": amount, "memo": memo}
        sentence = "Shared {moved} of the pool; the ledger pays it out now"
        await speak(client, fields, together=together, sentence=sentence, options=options)

"""The commands of stewards: issue, grant, share, writeoff, and the kinds of gifts.

Owns their words. How several stewards sign is `joint_commands`', the rules are the ledger's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from gesell import showing
from gesell.account_commands import handle_of
from gesell.amount import Amount
from gesell.client import Client
from gesell.commons_commands import kind_json
from gesell.errors import GesellError
from gesell.joint_commands import ALONE, Together, speak
from gesell.options import DEFAULTS, MemoOption, Options, run
from gesell.payees import find_payee
from gesell.showing import say, show_json
from gesell_protocol.log import Posting
from gesell_protocol.names import POOL, did_of


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


def writeoff(who: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS) -> None:
    """As steward, have a member's debt borne by those who vouched, then by the pool, then by all; it is suspended.

    Parameters
    ----------
    who
        A handle or a did.
    memo
        A note for the members.
    """
    run(_writeoff(who, memo, together, options))


async def _writeoff(who: str, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        peer = did_of(await client.key_of(who))
        fields = {"type": "writeoff", "peer": peer, "memo": memo}
        sentence = f"Wrote off {{moved}} that {showing.short(who)} owed, who is suspended now"
        receipt = await speak(client, fields, together=together, sentence=sentence, options=options)
        if receipt is None or options.json:
            return
        for posting in receipt.postings:
            if posting.reason == "writeoff" and posting.amount < 0:
                await _tell_loss(client, posting)


async def _tell_loss(client: Client, posting: Posting) -> None:
    currency = await client.currency()
    if isinstance(posting.holder, str):
        bearer = "the pool" if posting.holder == POOL else "all together (the issuer)"
    else:
        bearer = showing.short(did_of(posting.holder))
        with suppress(GesellError):  # it is applied, whatever becomes of this look
            bearer = await handle_of(client, did_of(posting.holder))
    say(f"  {bearer} bore {Amount(-posting.amount, currency.code, currency.scale)}")


def add_kind(
    code: str,
    *,
    name: str | None = None,
    unit: str = "1",
    scale: int = 0,
    memo: MemoOption = None,
    together: Together = ALONE,
    options: Options = DEFAULTS,
) -> None:
    """As steward, make a kind of gift, for good: gesell kind add bread --name "Loaves of bread"

    Parameters
    ----------
    code
        Its name in commands: 2 to 32 of a-z, 0-9 and -, beginning with a letter.
    name
        What people call it (default: its code).
    unit
        A UCUM code, like h or kg; 1 is for what is counted in pieces.
    scale
        The number of decimals, at most 6.
    memo
        A note for the members.
    """
    fields = {"type": "kind", "code": code, "name": name or code, "unit": unit, "scale": scale, "memo": memo}
    run(_add_kind(fields, together, options))


async def _add_kind(fields: dict[str, Any], together: Together, options: Options) -> None:
    async with options.signer() as client:
        sentence = f"Made the kind of gift {fields['code']}"
        await speak(client, fields, together=together, sentence=sentence, options=options)


def list_kinds(*, options: Options = DEFAULTS) -> None:
    """List the kinds of gifts of this commons."""
    run(_list_kinds(options), reads=True)


async def _list_kinds(options: Options) -> None:
    async with options.reader() as client:
        kinds = (await client.commons()).kinds
    if options.json:
        show_json([kind_json(one) for one in kinds])
        return
    rows = [(one.code, one.name, "pieces" if one.unit == "1" else one.unit, str(one.scale)) for one in kinds]
    showing.table(("Kind", "Name", "Unit", "Decimals"), rows, right=(3,))

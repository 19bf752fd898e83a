"""The commands of trust: vouch, and the looks at who trusts whom.

Owns their words. What a vouch may be is the ledger's rule, how trust is reckoned its reading.
"""

from __future__ import annotations

from contextlib import suppress

from gesell import showing
from gesell.account_commands import handle_of
from gesell.client import Client
from gesell.errors import GesellError
from gesell.options import DEFAULTS, MemoOption, Options, fail, run, waiting_told
from gesell.payees import find_payee
from gesell.readings import Trust
from gesell.showing import say, show_json


def vouch(who: str, limit: str | None = None, *, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """Lend a member some of your own credit room: they may go so much further below zero, and you so much less.

    What they don't pay back, stewards may have borne by those who vouched for them. Take it back with 0, as long as
    they don't need it.

    Parameters
    ----------
    who
        A handle or a did.
    limit
        How much in all, like 20; it takes the place of what you vouched before.
    memo
        A text for those who may read the entry.
    """
    if limit is None:
        fail(f"For how much, in all? gesell vouch {who} 20 (0 takes it back)", status=2)
    run(_vouch(who, limit, memo, options))


async def _vouch(who: str, limit: str, memo: str | None, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        peer = await find_payee(client, who, own=own, not_oneself="You can't vouch for yourself.")
        with waiting_told():
            receipt = await client.vouch(peer, limit, memo=memo)
        currency = await client.currency()
        taken_back = not any(digit in limit for digit in "123456789")
        about = f"You vouch for {showing.short(who)} with {limit} {currency.code} now"
        if taken_back:
            about = f"You don't vouch for {showing.short(who)} any more"
        showing.show_receipt(receipt, about, currency=currency, as_json=options.json)
        if not options.json:
            with suppress(GesellError):  # it is applied, whatever becomes of this look
                say(f"  your own credit limit is {(await client.member()).credit_limit}")


def trust(who: str | None = None, *, of: str | None = None, options: Options = DEFAULTS) -> None:
    """Show how much trust flows from you to a member, or to whom it flows at all: by vouches, yours and others'.

    Parameters
    ----------
    who
        A handle or a did (default: everybody whom it reaches).
    of
        From somebody else instead of you.
    """
    run(_trust(who, of, options) if who is not None else _trusted(of, options), reads=True)


async def _trust(who: str, of: str | None, options: Options) -> None:
    async with options.reader() as client:
        of = of or (await options.me(client)).peer
        found = await client.trust(who, of=of)
        first = (await client.member(of)).handle
    if options.json:
        show_json(_trust_json(found))
        return
    say(f"{first} trusts {showing.short(who)} with {found.flow}", strong=True)
    if not found.chain:
        say("  No chain of vouches leads there.")
        return
    names = [first, *(link.handle or showing.short(link.peer) for link in found.chain)]
    steps = [
        f"{one} vouches for {other}" + ("" if link.vouch is None else f" with {link.vouch}")
        for one, other, link in zip(names, names[1:], found.chain, strict=False)
    ]
    showing.facts([("strongest", f"{found.strength}, by {len(steps)} vouches"), *(("", step) for step in steps)])


async def _trusted(of: str | None, options: Options) -> None:
    async with options.reader() as client:
        of = of or (await options.me(client)).peer
        reached = [one async for one in client.trusted(of)]
        names = await _names(client, {one.by for one in reached})
    if options.json:
        fields = [
            {
                "peer": one.member.peer,
                "handle": one.member.handle,
                "strength": one.strength.text,
                "hops": one.hops,
                "by": one.by,
            }
            for one in reached
        ]
        show_json(fields)
    elif not reached:
        say("No vouch leads from there to anybody. Vouch for somebody: gesell vouch HANDLE 20")
    else:
        rows = [(one.member.handle, str(one.strength), str(one.hops), names[one.by]) for one in reached]
        showing.table(("Member", "Strongest chain", "Vouches", "The last by"), rows, right=(1, 2))


async def _names(client: Client, dids: set[str]) -> dict[str, str]:
    return {did: await handle_of(client, did) for did in dids}


def _trust_json(found: Trust) -> dict[str, object]:
    return {
        "from": found.of,
        "to": found.to,
        "flow": found.flow.text,
        "strength": found.strength.text,
        "chain": [
            {"peer": link.peer, "handle": link.handle, "vouch": link.vouch and link.vouch.text} for link in found.chain
        ],
        "as_of_seq": found.as_of_seq,
    }

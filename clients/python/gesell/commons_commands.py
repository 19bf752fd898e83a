"""The commands about a commons and who belongs to it: found, join, admit, members, commons.

Owns their words and their reports. The rules are the ledger's, the signing is the client's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gesell import showing
from gesell.advice import NOTHING_SENT
from gesell.answers import Commons, Kind
from gesell.bodies import default_policy
from gesell.client import Client
from gesell.errors import GesellError
from gesell.joint_commands import ALONE, Together, speak
from gesell.options import (
    DEFAULTS,
    MemoOption,
    Mistake,
    Options,
    check_log,
    fail,
    load_key,
    load_keys,
    run,
    waiting_told,
)
from gesell.policy_file import policy_of
from gesell.showing import say, show_json
from gesell.wording import melt_rate
from gesell_protocol.amounts import format_amount
from gesell_protocol.names import is_handle
from gesell_protocol.policy import Policy


def found(
    *,
    name: str,
    currency: str,
    scale: int = 6,
    policy: Path | None = None,
    steward: Annotated[list[str] | None, Parameter(negative="")] = None,
    threshold: int | None = None,
    together: Together = ALONE,
    options: Options = DEFAULTS,
) -> None:
    """Found a commons with its own currency.

    Parameters
    ----------
    name
        What the commons is called.
    currency
        The currency's code, like WRG.
    scale
        The currency's number of decimals.
    policy
        A JSON file with the fields of the policy that differ from the default (2 % a month in daily steps).
    steward
        The did of a steward; repeat for several (default: you).
    threshold
        How many stewards must sign what stewards do (default: the majority).
    """
    fields: dict[str, Any] = {"type": "found", "name": name, "currency": {"code": currency, "scale": scale}}
    fields |= {"stewards": steward} if steward else {}
    fields |= {"threshold": threshold} if threshold is not None else {}
    run(_found(fields, policy, together, options))


async def _found(fields: dict[str, Any], policy: Path | None, together: Together, options: Options) -> None:
    rules = policy_of(policy, default=default_policy(scale=fields["currency"]["scale"]))
    fields = {**fields, "policy": rules}
    async with options.client(peer=load_key(options.key_path)) as client:
        if together.draft is not None:
            await speak(client, fields, together=together, sentence="", options=options)
            return
        [result] = await client.submit([await client.sign(fields, signers=load_keys(together.cosign or []))])
        commons = result.receipt_or_raise().commons.hex()
        await check_log(client.as_commons(commons))
    name, currency = fields["name"], fields["currency"]["code"]
    if options.json:
        show_json({"commons": commons, "name": name, "currency": currency})
        return
    say(f"Founded {name}: {commons}", strong=True)
    say(f"Melt: {melt_rate(rules)}.")
    if rules.visibility == "open":
        say("Open: anyone may read balances, history and memos.")
    say(f"Next: export GESELL_COMMONS={commons} and gesell join HANDLE")


def join(handle: str, *, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """Ask to be a member.

    Parameters
    ----------
    handle
        What you will be called: 2 to 31 of a-z, 0-9, _ and -, beginning with a letter.
    memo
        Something about yourself for the others.
    """
    if not is_handle(handle):
        rule = "2 to 31 of a-z, 0-9, _ and -, beginning with a letter, and not pool, issuer or escrow"
        fail(f"{handle!r} can't be a handle: {rule}.", NOTHING_SENT, status=2)
    run(_join(handle, memo, options))


async def _join(handle: str, memo: str | None, options: Options) -> None:
    async with options.signer() as client:
        with waiting_told():
            receipt = await client.join(handle, memo=memo)
        member = None
        with suppress(GesellError):  # it is applied, whatever becomes of this look
            member = await client.member()
    if options.json:
        show_json(showing.receipt_json(receipt, scale=0))  # a joining has no postings, and so no amounts
    elif member is None:
        say(f"You have asked to join as {handle} (entry {receipt.seq}). Whether you are in by now: gesell members")
    elif member.status == "active":
        say(f"You are a member: {handle} (entry {receipt.seq}).")
    else:
        say(f"You have asked to join as {handle} (entry {receipt.seq}). A steward admits you with:")
        say(f"  gesell admit {member.peer}")


def admit(who: str, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS) -> None:
    """As steward, admit somebody who asked to join, or who was suspended.

    Parameters
    ----------
    who
        A did, or a handle.
    memo
        A note for the members.
    """
    run(_admit(who, memo, together, options))


async def _admit(who: str, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        peer = who if who.startswith("did:") else await _who_waits(client, who)
        fields = {"type": "admit", "peer": peer, "memo": memo}
        await speak(client, fields, together=together, sentence=f"Admitted {showing.short(who)}", options=options)


async def _who_waits(client: Client, handle: str) -> str:
    """The did of the one who may be admitted under a handle; several may have asked for the same."""
    there = [
        member.peer
        async for member in client.members()
        if member.handle == handle and member.status in ("pending", "suspended")
    ]
    if len(there) == 1:
        return there[0]
    if not there:
        raise Mistake(f"Nobody called {handle} waits to be admitted. See who does: gesell members", status=1)
    raise Mistake(f"Several ask to be {handle}; say which did: {', '.join(there)}")


def members(*, options: Options = DEFAULTS) -> None:
    """List the members by handle, pending ones too."""
    run(_members(options), reads=True)


async def _members(options: Options) -> None:
    async with options.reader() as client:
        everybody = sorted([member async for member in client.members()], key=lambda member: member.handle)
    if options.json:
        show_json(
            [
                {
                    "peer": member.peer,
                    "handle": member.handle,
                    "status": member.status,
                    "joined": member.joined_ms,
                    "credit_limit": member.credit_limit and member.credit_limit.text,
                }
                for member in everybody
            ]
        )
        return
    rows = [
        (
            member.handle,
            member.status,
            showing.when(member.joined_ms),
            str(member.credit_limit) if member.credit_limit is not None and member.credit_limit.grains else "",
            member.peer,
        )
        for member in everybody
    ]
    showing.table(("Handle", "Status", "Since", "Credit", "Peer"), rows, right=(3,))


def commons(which: str | None = None, *, options: Options = DEFAULTS) -> None:
    """Show the commons of this ledger: one in full, or the list where there are several.

    Parameters
    ----------
    which
        The commons' hex digits, or as many as tell it apart.
    """
    run(_commons(which or options.commons, options), reads=True)


async def _commons(which: str | None, options: Options) -> None:
    async with Client(options.url) as client:
        there = [item for item in await client.commons_list() if item.id.startswith((which or "").lower())]
    if len(there) == 1 or len(which or "") == 32:  # the list says less, and leaves out what is not open
        async with replace(options, commons=there[0].id if there else which).reader() as client:
            there = [await client.commons()]
    if options.json:
        show_json([_commons_json(item) for item in there])
    elif not there:
        raise Mistake("No such commons here. Found one: gesell found --name … --currency …", status=1)
    elif len(there) == 1:
        _show_commons(there[0])
    else:
        rows = [(item.name, item.currency.code, str(item.members), str(item.pool), item.id) for item in there]
        showing.table(("Name", "Currency", "Members", "Pool", "Commons"), rows, right=(2, 3))


def _show_commons(item: Commons) -> None:
    say(f"{item.name} · {item.currency.code}", strong=True)
    scale = item.currency.scale
    credit = item.policy.credit_limit
    showing.facts(
        [
            ("commons", item.id),
            ("members", f"{item.members} (admission: {item.policy.admission})"),
            ("in circulation", str(item.supply)),
            ("in the pool", str(item.pool)),
            ("in escrow", str(item.escrow) if item.escrow.grains else ""),
            ("melt due", f"{item.melt_due}, not posted yet" if item.melt_due and item.melt_due.grains else ""),
            ("melt", melt_rate(item.policy)),
            *((f"from tick {tick}", melt_rate(policy)) for tick, policy in item.upcoming),
            ("credit limit", f"{format_amount(credit, scale=scale)} {item.currency.code}" if credit else ""),
            ("gifts", ", ".join(kind.code for kind in item.kinds)),
            ("stewards", f"{item.threshold} of {len(item.stewards)} sign"),
            *(("", did) for did in item.stewards),
            ("entries", f"{item.seq}, the last at {showing.when(item.at_ms)}"),
            ("ledger", item.ledger),
        ]
    )


def _commons_json(item: Commons) -> dict[str, Any]:
    return {
        "commons": item.id,
        "name": item.name,
        "ledger": item.ledger,
        "currency": {"code": item.currency.code, "scale": item.currency.scale},
        "stewards": list(item.stewards),
        "threshold": item.threshold,
        "seq": item.seq,
        "at": item.at_ms,
        "tick": item.tick,
        "supply": item.supply.text,
        "pool": item.pool.text,
        "escrow": item.escrow.text,
        "melt_due": item.melt_due and item.melt_due.text,
        "members": item.members,
        "kinds": [kind_json(kind) for kind in item.kinds],
        "policy": _policy_json(item.policy, scale=item.currency.scale),
        "upcoming": [
            {"from_tick": tick, "policy": _policy_json(policy, scale=item.currency.scale)}
            for tick, policy in item.upcoming
        ],
    }


def kind_json(kind: Kind) -> dict[str, Any]:
    """A kind of gift in JSON."""
    return {"code": kind.code, "name": kind.name, "unit": kind.unit, "scale": kind.scale}


def _policy_json(policy: Policy, *, scale: int) -> dict[str, Any]:
    return {
        **policy.fields(),
        "brackets": [[format_amount(start, scale=scale), ppb] for start, ppb in policy.brackets],
        "credit_limit": format_amount(policy.credit_limit, scale=scale),
        "vouch_min": format_amount(policy.vouch_min, scale=scale),
    }

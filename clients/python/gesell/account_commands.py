"""The commands that look at an account: balance and history.

Owns what a member sees of its money and of the gifts beside it, and its JSON form. Melting is the ledger's reckoning;
nothing is computed here.
"""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from gesell import errors, showing
from gesell.amount import Amount
from gesell.answers import Balance, HistoryLine
from gesell.client import Client
from gesell.options import DEFAULTS, Options, run
from gesell.showing import say, show_json
from gesell_protocol.names import RESERVED_HOLDERS


def balance(who: str | None = None, *, at: str | None = None, options: Options = DEFAULTS) -> None:
    """Show what an account holds now, what melts next, and what will be left at a later date.

    Parameters
    ----------
    who
        A handle or a did (default: you).
    at
        An ISO date or time, past or to come: what the account held then, or will hold if nothing moves.
    """
    run(_balance(who, at, options), reads=True)


async def _balance(who: str | None, at: str | None, options: Options) -> None:
    then_at = None if at is None else showing.parse_when(at)
    async with options.reader() as client:
        who = who or (await options.me(client)).peer
        now = await client.balance(who)
        then = None if then_at is None else await client.balance(who, at=then_at)
        about = await client.founding()
        name, limit = await handle_of(client, who), await _credit_limit(client, who)
    if options.json:
        fields = {"member": who, "currency": about.currency.code, **_balance_json(now)}
        show_json(fields if then is None else {**fields, "then": _balance_json(then)})
        return
    say(f"{name} · {about.name}", strong=True)
    tick_end = (now.tick + 1) * about.policy.tick_seconds * 1000
    melt = f"{now.next_melt} at {showing.when(tick_end)}, of what stays till then"
    pairs = [
        ("balance", str(now)),
        ("next melt", melt if now.next_melt.grains else "nothing at the next tick's end"),
        ("in escrow", str(now.escrow) if now.escrow.grains else ""),
        ("to spend", str(now.available) if now.available != now.effective else ""),
        ("credit limit", str(limit) if limit is not None and limit.grains else ""),
        ("given", _sum_of([count.given for count in now.gifts])),
        ("was given", _sum_of([count.received for count in now.gifts])),
    ]
    if then is not None:
        ahead = ", if nothing moves" if then.at_ms > now.at_ms else ""
        pairs.append((showing.when(then.at_ms), f"{then}{ahead}"))
    showing.facts(pairs)


async def _credit_limit(client: Client, who: str) -> Amount | None:
    try:
        return (await client.member(who)).credit_limit
    except errors.UnknownMember:  # who has left
        return None


def _sum_of(gifts: list[Amount]) -> str:
    """Gifts of several kinds, which nobody can add up."""
    return ", ".join(str(amount) for amount in gifts if amount.grains)


def _balance_json(item: Balance) -> dict[str, Any]:
    return {
        "balance": item.effective.text,
        "available": item.available.text,
        "escrow": item.escrow.text,
        "posted": item.posted.text,
        "next_melt": item.next_melt.text,
        "gifts": [
            {"kind": count.kind, "given": count.given.text, "received": count.received.text} for count in item.gifts
        ],
        "at": item.at_ms,
        "tick": item.tick,
        "seq": item.seq,
    }


def history(
    who: str | None = None,
    *,
    last: int = 40,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    kind: Annotated[str | None, Parameter(name=("--kind", "--asset"))] = None,
    options: Options = DEFAULTS,
) -> None:
    """Show an account's history like a bank statement: newest last, melt and running balance included.

    Parameters
    ----------
    who
        A handle or a did (default: you).
    last
        How many lines.
    every
        All of them.
    kind
        Gifts of this kind instead of money, like hour.
    """
    run(_history(who, None if every else max(1, last), kind, options), reads=True)


async def _history(who: str | None, last: int | None, kind: str | None, options: Options) -> None:
    async with options.reader() as client:
        who = who or (await options.me(client)).peer
        about = await client.founding()
        money = kind is None or kind == about.currency.code
        lines: list[HistoryLine] = []
        async for line in client.history(who, kind=None if money else kind, newest_first=True):
            lines.append(line)
            if len(lines) == last:
                break
        lines.reverse()
        now = await client.balance(who) if money else None
        names = {did: await handle_of(client, did) for did in {line.counterpart or "" for line in lines}}
        name = await handle_of(client, who)
    if options.json:
        of = {"kind": kind} if now is None else {"currency": about.currency.code}
        more = {} if now is None else _balance_json(now)
        show_json({"member": who, **of, "items": [_line_json(line) for line in lines], **more})
        return
    what = f"gifts of the kind {kind}, which are no debt" if now is None else f"amounts in {about.currency.code}"
    say(f"{name} · {about.name} · {what}", strong=True)
    _show_history(lines, now, names)


def _show_history(lines: list[HistoryLine], now: Balance | None, names: dict[str, str]) -> None:
    if not lines:
        say("  Nothing has moved here yet." if now is None else "  No money has moved here yet.")
        return
    rows = [
        [
            showing.when(line.at_ms),
            showing.what(line),
            "" if line.reason == "melt" else names[line.counterpart or ""],
            line.memo or "",
        ]
        for line in lines
    ]
    moved, balances = [line.amount for line in lines], [line.balance for line in lines]
    due = None if now is None else now.effective - now.posted
    if now is not None and due is not None and due.grains and balances[-1] == now.posted:
        rows.append(["now", "melt", "", "due"])
        moved.append(due)
        balances.append(now.effective)
    money = zip(showing.column(moved, signed=True), showing.column(balances), strict=True)
    showing.table(
        ("Date", "What", "With", "Amount", "Balance", "Note"),
        [(*row[:3], *pair, row[3]) for row, pair in zip(rows, money, strict=True)],
        right=(3, 4),
    )


def _line_json(line: HistoryLine) -> dict[str, Any]:
    return {
        "seq": line.seq,
        "at": line.at_ms,
        "type": line.type,
        "id": line.id,
        "reason": line.reason,
        "amount": line.amount.text,
        "balance": line.balance.text,
        "counterpart": line.counterpart,
        "category": line.category,
        "ref": line.ref,
        "memo": line.memo,
    }


async def handle_of(client: Client, who: str) -> str:
    """What to call somebody in a table: the handle where a did has one; a reserved holder has said it all before."""
    if who in RESERVED_HOLDERS:
        return ""
    if not who.startswith("did:"):
        return who
    try:
        return (await client.member(who)).handle
    except errors.UnknownMember:  # has left, or is a steward who never joined
        return showing.short(who)

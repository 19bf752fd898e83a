"""The commands that show what members make of each other: relationships, standing, flow.

Owns their tables and their JSON. All of it is the ledger's reading of the log, which may lag behind it a little; the
formulas stand in docs/readings.md.
"""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from gesell import showing
from gesell.amount import Amount
from gesell.options import DEFAULTS, Options, run
from gesell.readings import Flow, FlowStep, Gifts, Part, Payments, Relationship, Standing
from gesell.showing import say, show_json


def relationships(
    who: str | None = None,
    *,
    first: int = 20,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Show with whom you have to do, strongest first: what you paid and gave each other.

    Parameters
    ----------
    who
        A handle or a did (default: you); somebody else's are shown where the commons is open.
    first
        How many.
    every
        All of them.
    """
    run(_relationships(who, None if every else max(1, first), options), reads=True)


async def _relationships(who: str | None, first: int | None, options: Options) -> None:
    async with options.reader() as client:
        who = who or (await options.me(client)).peer
        name, code = (await client.member(who)).handle, (await client.currency()).code
        shown: list[Relationship] = []
        async for one in client.relationships(who, page=min(first or 1_000, 1_000)):
            shown.append(one)
            if len(shown) == first:
                break
    if options.json:
        show_json([_relationship_json(one) for one in shown])
        return
    say(f"{name} · amounts in {code}", strong=True)
    if not shown:
        say("  Nothing has passed between them and others yet.")
        return
    rows = [
        [
            one.handle,
            f"{one.strength:.2f}",
            _money(one.paid.amount),
            _money(one.received.amount),
            _sums(one.given),
            _sums(one.was_given),
            _money(one.vouches),
            _money(one.vouched),
            _percent(one.reciprocity),
            showing.when(one.last_ms)[:10],
        ]
        for one in shown
    ]
    titles = ("With", "Strength", "Paid", "Received", "Gave", "Was given", "Vouches", "Vouched", "Mutual", "Last")
    showing.table(titles, rows, right=(1, 2, 3, 4, 5, 6, 7, 8))


def standing(who: str | None = None, *, options: Options = DEFAULTS) -> None:
    """Show the gifts that a member gave and received, and how much of that still counts.

    Parameters
    ----------
    who
        A handle or a did (default: you).
    """
    run(_standing(who, options), reads=True)


async def _standing(who: str | None, options: Options) -> None:
    async with options.reader() as client:
        found = await client.standing(who or (await options.me(client)).peer)
    if options.json:
        show_json(_standing_json(found))
        return
    say(found.handle, strong=True)
    given, received = found.given, found.received
    showing.facts(
        [
            ("gave", f"{_count(given.count, 'gift')}, thanked by {_count(given.members, 'member')}"),
            ("counts now", f"{given.weight:.2f}"),
            ("was given", f"{_count(received.count, 'gift')}, by {_count(received.members, 'member')}"),
            ("counts now", f"{received.weight:.2f}"),
            ("half-life", f"{found.half_life_ms / 86_400_000:g} days"),
        ]
    )


def flow(
    *,
    step: int = 1,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    to: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Show how money and gifts go round, step by step, and how things stand.

    Parameters
    ----------
    step
        The length of a step, in ticks.
    from_
        An ISO date or time in the first step (default: 30 steps in all).
    to
        An ISO date or time in the last step (default: now).
    """
    run(_flow(step, from_, to, options), reads=True)


async def _flow(step: int, from_: str | None, to: str | None, options: Options) -> None:
    since = None if from_ is None else showing.parse_when(from_)
    until = None if to is None else showing.parse_when(to)
    async with options.reader() as client:
        found = await client.flow(since=since, until=until, step=step)
        about = await client.founding()
    if options.json:
        show_json(_flow_json(found))
        return
    say(f"{about.name} · amounts in {about.currency.code}", strong=True)
    if not found.steps:
        say("  Nothing has gone round yet.")
        return
    rows = [
        [
            showing.when(one.begins_ms),
            str(one.paid.count),
            _money(one.paid.amount),
            _sums(one.gifts),
            _money(one.melt),
            "" if one.velocity is None else f"{one.velocity:.2f}",
            "" if one.active is None else str(one.active),
            _percent(one.returned_2),
            _percent(one.returned_3),
        ]
        for one in found.steps
    ]
    titles = ("From", "Payments", "Moved", "Gifts", "Melted", "Velocity", "Active", "Back by 2", "Back by 3")
    showing.table(titles, rows, right=(1, 2, 3, 4, 5, 6, 7, 8))
    last = found.steps[-1]
    showing.facts(
        [
            ("held", "" if last.held is None else str(last.held)),
            ("pool", str(last.pool)),
            ("still", _percent(last.still)),
            ("Gini", "" if last.gini is None else f"{last.gini:.2f}"),
            ("members", str(last.members)),
            ("read up to", f"entry {found.as_of_seq}"),
        ]
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _money(amount: Amount) -> str:
    return amount.text if amount.grains else ""


def _sums(gifts: Gifts) -> str:
    return ", ".join(str(total) for total in gifts.totals())


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{100 * ratio:.0f} %"


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _relationship_json(one: Relationship) -> dict[str, Any]:
    return {
        "peer": one.peer,
        "handle": one.handle,
        "paid": _payments_json(one.paid),
        "received": _payments_json(one.received),
        "given": _gifts_json(one.given),
        "was_given": _gifts_json(one.was_given),
        "vouches": one.vouches.text,
        "vouched": one.vouched.text,
        "first": one.first_ms,
        "last": one.last_ms,
        "reciprocity": one.reciprocity,
        "strength": one.strength,
        "as_of_seq": one.as_of_seq,
    }


def _standing_json(found: Standing) -> dict[str, Any]:
    return {
        "peer": found.peer,
        "handle": found.handle,
        **{
            name: {"count": way.count, "weight": way.weight, "members": way.members}
            for name, way in (("given", found.given), ("received", found.received))
        },
        "half_life": found.half_life_ms,
        "as_of_seq": found.as_of_seq,
    }


def _flow_json(found: Flow) -> dict[str, Any]:
    items = [_step_json(one) for one in found.steps]
    return {"at": found.at_ms, "step": found.step, "as_of_seq": found.as_of_seq, "items": items}


def _step_json(one: FlowStep) -> dict[str, Any]:
    amounts = {name: getattr(one, name).text for name in ("melt", "issued", "retired", "granted", "shared", "pool")}
    counts = ("new", "members", "active", "only_paid", "only_received", "both")
    ratios = ("velocity", "still", "gini", "returned_2", "returned_3")
    return {
        "from": one.begins_ms,
        "to": one.ends_ms,
        "paid": _payments_json(one.paid),
        "gifts": _gifts_json(one.gifts),
        **amounts,
        "held": one.held and one.held.text,
        **{name: getattr(one, name) for name in (*counts, *ratios)},
    }


def _payments_json(payments: Payments) -> dict[str, Any]:
    parts = [_part_json(part) for part in payments.categories]
    return {"count": payments.count, "amount": payments.amount.text, "categories": parts}


def _gifts_json(gifts: Gifts) -> dict[str, Any]:
    return {
        "count": gifts.count,
        "kinds": [{"kind": part.amount.code, **_part_json(part)} for part in gifts.kinds],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {"category": part.category, "count": part.count, "amount": part.amount.text}

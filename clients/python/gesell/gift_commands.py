"""The commands of gifts: give, thank, decline, withdraw, and the looks at them.

Owns their words, and how a gift is named in a command: by its id or the beginning of it, by the other's handle, or not
at all where only one can be meant. A gift is never a debt, and nothing here counts one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, Final

from cyclopts import Parameter

from gesell import errors, showing
from gesell.account_commands import handle_of
from gesell.advice import NOTHING_SENT
from gesell.amount import Amount, grains_of
from gesell.client import Client
from gesell.gifts import Gift, State
from gesell.joint_commands import ALONE, Together, speak
from gesell.options import DEFAULTS, MemoOption, Mistake, Options, run, waiting_told
from gesell.payees import find_payee
from gesell.showing import say, show_json
from gesell_protocol.names import POOL, did_of, id_of, id_text, is_handle

#: The fewest letters of an id that are shown, and how many settled gifts unless all are asked for.
_ID_LETTERS: Final = 8
_SETTLED: Final = 20
#: A beginning of an id is looked for among so many of the newest gifts.
_LOOKED_THROUGH_MAX: Final = 5_000
_SEE: Final = f"{NOTHING_SENT} See what there is: gesell gifts."


def give(
    to: str,
    quantity: str,
    memo: str | None = None,
    *,
    kind: str = "hour",
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    after: Annotated[list[str] | None, Parameter(negative="")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Give a member, or the whole commons, something without a price. It counts once they have said thanks.

    Parameters
    ----------
    to
        A handle or a did, or `pool` for the whole commons.
    quantity
        Like 1.5, in the unit of its kind.
    memo
        A text for those who may read the entry.
    kind
        What you give: hour, or another kind of this commons (gesell kind list).
    for_
        The type of interaction that you value, like gardening or listening.
    after
        A gift that moved you to give: who gave it, its id, or the beginning of that; repeat for several.
    """
    run(_give(to, quantity, memo, kind, for_, after or [], options))


async def _give(
    to: str, quantity: str, memo: str | None, kind: str, category: str | None, after: Sequence[str], options: Options
) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        receiver, name = POOL, "the whole commons"
        if to != POOL:
            receiver = await find_payee(client, to, own=own, not_oneself="Gifts are for others, not for oneself.")
            name = showing.short(to)
        much = await _quantity(client, quantity, kind)
        moved_by = [
            (await _named(client, text, client.gifts(to=own, state="received"), what="that you received")).id
            for text in after
        ]
        with waiting_told():
            receipt = await client.give(receiver, much, kind=kind, after=moved_by, category=category, memo=memo)
    if options.json:
        show_json(showing.receipt_json(receipt, scale=0))  # an offer has no postings, and so no amounts
        return
    say(f"Offered {much} to {name}. It counts once they have said thanks.")
    say(f"  entry {receipt.seq} · {showing.when(receipt.at_ms)} · {id_text(receipt.id)}")


async def _quantity(client: Client, text: str, code: str) -> Amount:
    """So much of a kind of gift; ends the command where there is no such kind."""
    try:
        kind = await client.kind(code)
    except errors.NotFound:
        advice = f"{NOTHING_SENT} See which there are: gesell kind list."
        raise Mistake(f"There is no kind of gift {code} here.", advice, status=1) from None
    return kind.amount(grains_of(text, code=kind.code, scale=kind.scale))


def thank(
    gift: str | None = None, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS
) -> None:
    """Take a gift and say thanks: it counts from now on. One to the whole commons is for stewards to take.

    Parameters
    ----------
    gift
        Who gave it, or its id or the beginning of it; not needed where only one waits for you.
    memo
        What you want to say.
    """
    run(_answer("thank", gift, memo, together, options))


def decline(
    gift: str | None = None, *, memo: MemoOption = None, together: Together = ALONE, options: Options = DEFAULTS
) -> None:
    """Don't take a gift that was offered to you. One to the whole commons is for stewards to decline.

    Parameters
    ----------
    gift
        Who offered it, or its id or the beginning of it; not needed where only one waits for you.
    memo
        What you want to say.
    """
    run(_answer("decline", gift, memo, together, options))


async def _answer(word: str, name: str | None, memo: str | None, together: Together, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        gift = await _named(client, name, _meant_by(client, name, own), what="that waits for you")
        giver = await handle_of(client, gift.giver)
        said = "Thanked {} for {}" if word == "thank" else "Declined what {} offered: {}"
        fields = {"type": word, "gift": gift.id, "memo": memo}
        await speak(client, fields, together=together, sentence=said.format(giver, _what(gift)), options=options)


def withdraw(gift: str | None = None, *, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """Take back what you offered, while nobody has said thanks for it.

    Parameters
    ----------
    gift
        Whom you offered it, or its id or the beginning of it; not needed where you offered only one.
    memo
        What you want to say.
    """
    run(_withdraw(gift, memo, options))


async def _withdraw(name: str | None, memo: str | None, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        gift = await _named(client, name, client.gifts(giver=own, state="offered"), what="that you offer")
        to = "the whole commons" if gift.to == POOL else await handle_of(client, gift.to)
        fields = {"type": "withdraw", "gift": gift.id, "memo": memo}
        await speak(client, fields, together=ALONE, sentence=f"Took back {_what(gift)} for {to}", options=options)


async def _meant_by(client: Client, name: str | None, own: str) -> AsyncIterator[Gift]:
    """The gifts that an answer may mean: one's own, before those to the whole commons; those only if they are named."""
    own_gifts = 0
    if name != POOL:
        async for gift in client.gifts(to=own, state="offered"):
            own_gifts += 1
            yield gift
    if name == POOL or (name is None and not own_gifts) or not (name is None or _is_peer(name)):
        async for gift in _for_stewards(client, own):
            yield gift


async def _for_stewards(client: Client, own: str) -> AsyncIterator[Gift]:
    """The gifts to the whole commons that wait for its stewards, if one is such."""
    with suppress(errors.NotAuthorised):
        if own in (await client.commons()).stewards:
            async for gift in client.gifts(to=POOL, state="offered"):
                yield gift


async def _named(client: Client, name: str | None, among: AsyncIterator[Gift], *, what: str) -> Gift:
    """The gift that a command means, by its whole id or else among these; ends the command where that is not one.

    `what` says which gifts these are.
    """
    if name is not None:
        with suppress(ValueError):
            return await client.gift(id_of(name))
    peer = did_of(await client.key_of(name)) if name and name != POOL and _is_peer(name) else None
    there = []
    looked = 0
    async for gift in among:
        looked += 1
        by_name = name is None or peer in (gift.giver, gift.to) or (name == POOL and gift.to == POOL)
        if by_name or (peer is None and gift.id.startswith(str(name).lower())):
            there.append(gift)
        if looked == _LOOKED_THROUGH_MAX:
            break
    if len(there) == 1:
        return there[0]
    if not there:
        which = "" if name is None else f", {name} being on its other side" if peer else f" and whose id begins {name}"
        raise Mistake(f"There is no gift {what}{which}.", _SEE, status=1)
    letters = _letters(there)
    names = "; ".join([f"{gift.id[:letters]} ({_what(gift)})" for gift in there[:8]])
    raise Mistake(f"Which gift? {names}", f"{NOTHING_SENT} Say the beginning of its id.")


def _is_peer(name: str) -> bool:
    return name.startswith("did:") or is_handle(name)


def _letters(gifts: Sequence[Gift]) -> int:
    """How many letters of their ids tell gifts apart."""
    ids = sorted({gift.id for gift in gifts})
    alike = max((_alike(one, other) for one, other in pairwise(ids)), default=0)
    return max(_ID_LETTERS, alike + 1)


def _alike(one: str, other: str) -> int:
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def _what(gift: Gift) -> str:
    return f"{gift.quantity} for {gift.category}" if gift.category else str(gift.quantity)


def gifts(
    *,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Show the gifts that wait for your thanks, those that you offered, and the last that you were given and gave.

    Parameters
    ----------
    every
        All that were ever given or received, declined and withdrawn ones too.
    """
    run(_gifts(every, options), reads=True)


async def _gifts(every: bool, options: Options) -> None:
    async with options.reader() as client:
        own = (await options.me(client)).peer
        waiting = [gift async for gift in client.gifts(to=own, state="offered")]
        waiting += [gift async for gift in _for_stewards(client, own)]
        offered = [gift async for gift in client.gifts(giver=own, state="offered")]
        kept: State | None = None if every else "received"
        received = await _first(client.gifts(to=own, state=kept), None if every else _SETTLED)
        given = await _first(client.gifts(giver=own, state=kept), None if every else _SETTLED)
        settled = [gift for gift in (*received, *given) if gift.state != "offered"]
        settled.sort(key=lambda gift: -gift.seq)
        names = {did: await handle_of(client, did) for gift in settled for did in (gift.giver, gift.to)}
        names |= {did: await handle_of(client, did) for gift in (*waiting, *offered) for did in (gift.giver, gift.to)}
    if options.json:
        groups = {"waiting": waiting, "offered": offered, "settled": settled}
        show_json({name: [_gift_json(gift) for gift in group] for name, group in groups.items()})
        return
    letters = _letters([*waiting, *offered, *settled])
    for title, group in (
        ("Waiting for your thanks (gesell thank, gesell decline)", waiting),
        ("Offered by you (gesell withdraw)", offered),
        ("Given and received", settled),
    ):
        if group:
            say(title, strong=True)
            _show_gifts(group, own, names, letters)
    if not (waiting or offered or settled):
        say("No gifts yet. Give something: gesell give HANDLE 1.5 --for gardening")


async def _first(gifts: AsyncIterator[Gift], most: int | None) -> list[Gift]:
    found = []
    async for gift in gifts:
        found.append(gift)
        if len(found) == most:
            break
    return found


def _show_gifts(shown: Sequence[Gift], own: str, names: dict[str, str], letters: int) -> None:
    rows = [
        [
            showing.when(gift.at_ms),
            _state(gift, own),
            "everybody" if gift.to == POOL else names[gift.giver if gift.to == own else gift.to],
            str(gift.quantity),
            gift.category or "",
            " / ".join(said for said in (gift.memo, gift.reply) if said),
            gift.id[:letters],
        ]
        for gift in shown
    ]
    showing.table(("Date", "What", "With", "Gift", "For", "Note", "Id"), rows, right=(3,))


def _state(gift: Gift, own: str) -> str:
    """What became of a gift, seen from one side."""
    if gift.state == "received":
        return "gave" if gift.giver == own else "was given"
    if gift.state == "offered":
        return "you offer" if gift.giver == own else "offered"
    if gift.state == "withdrawn":
        return "you took back" if gift.giver == own else "taken back"
    return "declined" if gift.giver == own else "you declined"


def gift(name: str, *, options: Options = DEFAULTS) -> None:
    """Show one gift, what moved its giver to give, and what it moved.

    Parameters
    ----------
    name
        Its id, or the beginning of it.
    """
    run(_gift(name, options), reads=True)


async def _gift(name: str, options: Options) -> None:
    async with options.reader() as client:
        found = await client.gift(await _named(client, name, client.gifts(), what="that you may see"))
        giver = await handle_of(client, found.giver)
        to = "the whole commons" if found.to == POOL else await handle_of(client, found.to)
    moved = found.moved or ()
    if options.json:
        show_json({**_gift_json(found), "moved": [{"id": one.id, "state": one.state} for one in moved]})
        return
    say(f"{found.quantity} ({found.kind}) from {giver} to {to}", strong=True)
    showing.facts(
        [
            ("state", found.state),
            ("for", found.category or ""),
            ("note", found.memo or ""),
            ("reply", found.reply or ""),
            ("offered", showing.when(found.at_ms)),
            ("settled", "" if found.settled_ms is None else showing.when(found.settled_ms)),
            *(("moved by", name) for name in found.after),
            *(("moved", f"{one.id} ({one.state})") for one in moved),
            ("gift", found.id),
        ]
    )


def _gift_json(gift: Gift) -> dict[str, Any]:
    return {
        "id": gift.id,
        "seq": gift.seq,
        "at": gift.at_ms,
        "from": gift.giver,
        "to": gift.to,
        "kind": gift.kind,
        "quantity": gift.quantity.text,
        "unit": gift.quantity.unit,
        "state": gift.state,
        "settled": gift.settled_ms,
        "category": gift.category,
        "after": list(gift.after),
        "memo": gift.memo,
        "reply": gift.reply,
    }

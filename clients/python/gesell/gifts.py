"""Gifts as the client hands them out: who offered what to whom, and what became of it (SPEC §3.3).

Owns `Gift` and the reading of it. What a gift does to the books is the ledger's; how one is given is `client`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from gesell.amount import Amount
from gesell.answers import grains_in, int_in, moment, text_in
from gesell_protocol.names import POOL, id_of, id_text, peer_of

State = Literal["offered", "received", "declined", "withdrawn"]
_STATES: Final[Mapping[str, State]] = {state: state for state in get_args(State)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A gift that another one moved, and what became of it."""

    id: str
    state: State

    def __repr__(self) -> str:
        return f"<moved {self.id} {self.state}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """A gift: offered first, and it counts once its receiver has thanked for it. It is never a debt.

    `giver` is a did, `to` a did or `pool` for the whole commons; `seq` the entry that offered it; `reply` what was said
    with the thanks, or in their place; `after` the gifts that moved its giver to give; `moved` what it moved itself,
    newest first, where one gift was asked for (`Client.gift`), and else None.
    """

    id: str
    seq: int
    at_ms: int
    giver: str
    to: str
    kind: str
    quantity: Amount
    state: State
    settled_ms: int | None
    category: str | None
    memo: str | None
    reply: str | None = None
    after: tuple[str, ...] = ()
    moved: tuple[Moved, ...] | None = None

    @property
    def at(self) -> datetime:
        """When it was offered."""
        return moment(self.at_ms)

    @property
    def settled(self) -> datetime | None:
        """When it was received, declined or withdrawn; None while it is offered."""
        return None if self.settled_ms is None else moment(self.settled_ms)

    def __repr__(self) -> str:
        about = f" for {self.category}" if self.category else ""
        memo = f" {self.memo!r}" if self.memo else ""
        return f"<Gift {self.id} {self.state}: {self.quantity}{about} from {self.giver} to {self.to}{memo}>"


def read_gift(fields: Mapping[str, Any], amount_of: Callable[[str, int], Amount]) -> Gift:
    """Make a `Gift` of one item of `…/gifts`; `amount_of` makes an amount of a kind's code and grains."""
    giver, to, kind = text_in(fields, "from"), text_in(fields, "to"), text_in(fields, "kind")
    for holder in (giver,) if to == POOL else (giver, to):
        peer_of(holder)
    return Gift(
        id=id_text(id_of(text_in(fields, "id"))),
        seq=int_in(fields, "seq"),
        at_ms=int_in(fields, "at"),
        giver=giver,
        to=to,
        kind=kind,
        quantity=amount_of(kind, grains_in(fields["quantity"])),
        state=_STATES[text_in(fields, "state")],
        settled_ms=int_in(fields, "settled") if "settled" in fields else None,
        category=text_in(fields, "category") if "category" in fields else None,
        memo=text_in(fields, "memo") if "memo" in fields else None,
        reply=text_in(fields, "reply") if "reply" in fields else None,
        after=tuple(id_text(id_of(name)) for name in fields.get("after", ())),
        moved=tuple(_moved(item) for item in fields["moved"]) if "moved" in fields else None,
    )


def _moved(fields: Mapping[str, Any]) -> Moved:
    return Moved(id=id_text(id_of(text_in(fields, "id"))), state=_STATES[text_in(fields, "state")])

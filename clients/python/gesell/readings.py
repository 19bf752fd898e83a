"""What a ledger derives from its log, as frozen values: relationships, standing, circulation (SPEC §7.2).

Owns their reading out of JSON. The formulas are the ledger's (docs/readings.md); every reading may lag behind the log,
and says by `as_of_seq` up to which entry it is. Ratios are floats, for showing; amounts are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gesell.amount import Amount
from gesell.answers import Member, grains_in, int_in, moment, read_member, text_in
from gesell_protocol.fields import Currency
from gesell_protocol.names import did_of, is_handle, peer_of

#: Makes an amount of a kind's code and grains.
KindAmount = Callable[[str, int], Amount]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The payments of one category, or the gifts of one kind and category (None for those without one)."""

    category: str | None
    count: int
    amount: Amount

    def __repr__(self) -> str:
        about = f" for {self.category}" if self.category else ""
        return f"<{self.count}: {self.amount}{about}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """Payments in one direction, or of one step: how many, how much, and of that by category."""

    count: int
    amount: Amount
    categories: tuple[Part, ...]

    def __repr__(self) -> str:
        return f"<{self.count} payments of {self.amount}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gifts:
    """Gifts in one direction that were thanked for: how many, and by kind and category."""

    count: int
    kinds: tuple[Part, ...]

    def __repr__(self) -> str:
        return f"<{self.count} gifts: {', '.join(str(total) for total in self.totals()) or 'none'}>"

    def totals(self) -> tuple[Amount, ...]:
        """What was given of each kind, whatever it was for."""
        return totals_of(self.kinds)


def totals_of(parts: tuple[Part, ...]) -> tuple[Amount, ...]:
    """The sums of amounts by currency or kind, in the order in which these first appear."""
    sums: dict[str, Amount] = {}
    for part in parts:
        code = part.amount.code
        sums[code] = sums[code] + part.amount if code in sums else part.amount
    return tuple(sums.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """What a member and another one had to do with each other, seen from the member.

    `paid` and `given` went to the other, `received` and `was_given` came; `vouches` is what the member lends of its
    credit room, `vouched` what it is lent. `reciprocity` is from 0 to 1 (None where nothing was paid or given);
    `strength` halves with time, and both sides see the same.
    """

    peer: str
    handle: str
    paid: Payments
    received: Payments
    given: Gifts
    was_given: Gifts
    vouches: Amount
    vouched: Amount
    first_ms: int
    last_ms: int
    reciprocity: float | None
    strength: float
    as_of_seq: int

    @property
    def first(self) -> datetime:
        """The first contact."""
        return moment(self.first_ms)

    @property
    def last(self) -> datetime:
        """The last contact."""
        return moment(self.last_ms)

    def __repr__(self) -> str:
        out = (self.paid.amount, *self.given.totals())
        back = (self.received.amount, *self.was_given.totals())
        ways = " for ".join(", ".join(str(amount) for amount in way) for way in (out, back))
        return f"<Relationship with {self.handle}, strength {self.strength:.2f}: {ways}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thanked:
    """Gifts in one direction: how many, what they weigh by now (each 1, halving with time), with how many members."""

    count: int
    weight: float
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The gifts that a member gave and received, and that were thanked for. `half_life_ms` is that of the weights."""

    peer: str
    handle: str
    given: Thanked
    received: Thanked
    half_life_ms: int
    as_of_seq: int

    def __repr__(self) -> str:
        return (
            f"<Standing of {self.handle}: {self.given.count} gifts given, weighing {self.given.weight:.2f}, thanked by"
            f" {self.given.members}; {self.received.count} received>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStep:
    """What happened in a step, and how things stood at its end, or now.

    Members: `active` paid, were paid, gave or were given; `only_paid`, `only_received` and `both` as they say; `new`
    became active for the first time; `members` are active at the end. Ratios are from 0 to 1 but for `velocity`, which
    is volume by what was held: `returned_2` and `returned_3` the part of the volume that goes round between two or
    three, `still` the part of what is held that the tick charges, `gini` how unequally it is spread. None for what the
    ledger does not tell: it would cost too much, or there is nothing to divide by.
    """

    begins_ms: int
    ends_ms: int
    paid: Payments
    gifts: Gifts
    melt: Amount
    issued: Amount
    retired: Amount
    granted: Amount
    shared: Amount
    new: int
    members: int
    active: int | None
    only_paid: int | None
    only_received: int | None
    both: int | None
    pool: Amount
    held: Amount | None
    velocity: float | None
    still: float | None
    gini: float | None
    returned_2: float | None
    returned_3: float | None

    @property
    def begins(self) -> datetime:
        """Its first moment."""
        return moment(self.begins_ms)

    @property
    def ends(self) -> datetime:
        """The first moment after it."""
        return moment(self.ends_ms)

    def __repr__(self) -> str:
        return f"<FlowStep from {self.begins:%Y-%m-%d %H:%M}: {self.paid}, {self.gifts}, {self.melt} melted>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Circulation, step by step from first to last; a step has `step` ticks."""

    at_ms: int
    step: int
    as_of_seq: int
    steps: tuple[FlowStep, ...]

    def __repr__(self) -> str:
        return f"<Flow of {len(self.steps)} steps up to entry {self.as_of_seq}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """A step of a chain of vouches: who is vouched for by the one before, and for how much.

    `vouch` is None where the entry that says so is not for the reader.
    """

    peer: str
    handle: str | None
    vouch: Amount | None

    def __repr__(self) -> str:
        return f"<{self.vouch or 'a vouch'} for {self.handle or self.peer}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How much one member trusts another, by all vouches between them, direct ones and those of others.

    `flow` is what could be passed on at most from hand to hand, no vouch used for more than it is; `chain` the
    strongest chain of vouches, beginning after the first, and `strength` its smallest vouch. No vouches among others
    raise it beyond what honest ones lead to them.
    """

    of: str
    to: str
    flow: Amount
    strength: Amount
    chain: tuple[ChainLink, ...]
    as_of_seq: int

    def __repr__(self) -> str:
        return f"<Trust of {self.flow}, the strongest chain {self.strength} in {len(self.chain)} steps>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A member whom trust reaches: by a chain of `hops` vouches, the smallest of `strength`, the last given by `by`."""

    member: Member
    strength: Amount
    hops: int
    by: str

    def __repr__(self) -> str:
        return f"<Trusted {self.member.handle}: {self.strength} over {self.hops} vouches>"


def read_relationship(
    fields: Mapping[str, Any], *, as_of_seq: int, currency: Currency, kinds: KindAmount
) -> Relationship:
    """Make a `Relationship` of one item of `…/relationships`."""
    money = _money(currency)
    peer, handle = _named(fields)
    return Relationship(
        peer=peer,
        handle=handle,
        paid=_payments(fields["paid"], money),
        received=_payments(fields["received"], money),
        given=_gifts(fields["given"], kinds),
        was_given=_gifts(fields["was_given"], kinds),
        vouches=money(fields["vouches"]),
        vouched=money(fields["vouched"]),
        first_ms=int_in(fields, "first"),
        last_ms=int_in(fields, "last"),
        reciprocity=_ratio(fields, "reciprocity_ppm"),
        strength=float_in(fields, "strength"),
        as_of_seq=as_of_seq,
    )


def read_standing(fields: Mapping[str, Any]) -> Standing:
    """Make a `Standing` of what `…/standing` answers."""
    peer, handle = _named(fields)
    return Standing(
        peer=peer,
        handle=handle,
        given=_thanked(fields["given"]),
        received=_thanked(fields["received"]),
        half_life_ms=int_in(fields, "half_life"),
        as_of_seq=int_in(fields, "as_of_seq"),
    )


def read_flow(fields: Mapping[str, Any], *, currency: Currency, kinds: KindAmount) -> Flow:
    """Make a `Flow` of what `…/flow` answers."""
    return Flow(
        at_ms=int_in(fields, "at"),
        step=int_in(fields, "step"),
        as_of_seq=int_in(fields, "as_of_seq"),
        steps=tuple(_flow_step(item, _money(currency), kinds) for item in fields["items"]),
    )


def read_trust(fields: Mapping[str, Any], *, currency: Currency) -> Trust:
    """Make a `Trust` of what `…/trust` answers."""
    money, of, to = _money(currency), text_in(fields, "from"), text_in(fields, "to")
    peer_of(of), peer_of(to)
    return Trust(
        of=of,
        to=to,
        flow=money(fields["flow"]),
        strength=money(fields["strength"]),
        chain=tuple(_chain_link(item, money) for item in fields["chain"]),
        as_of_seq=int_in(fields, "as_of_seq"),
    )


def _chain_link(fields: Mapping[str, Any], money: Callable[[object], Amount]) -> ChainLink:
    handle = text_in(fields, "handle") if "handle" in fields else None
    if handle is not None and not is_handle(handle):
        raise ValueError(f"{handle!r} is no handle")
    vouch = money(fields["vouch"]) if "vouch" in fields else None
    return ChainLink(peer=did_of(peer_of(fields["peer"])), handle=handle, vouch=vouch)


def read_trusted(fields: Mapping[str, Any], *, currency: Currency) -> Trusted:
    """Make a `Trusted` of one item of `…/members?trusted_by=`."""
    trust = fields["trust"]
    return Trusted(
        member=read_member(fields, currency),
        strength=_money(currency)(trust["strength"]),
        hops=int_in(trust, "hops"),
        by=did_of(peer_of(trust["by"])),
    )


def kinds_in(fields: Mapping[str, Any]) -> set[str]:
    """The kinds of gifts that an item of `…/relationships` or `…/flow` counts."""
    gifts = [*fields.get("gifts", ())]
    for way in ("given", "was_given"):
        gifts += fields.get(way, {}).get("kinds", ())
    return {text_in(item, "kind") for item in gifts}


def float_in(fields: Mapping[str, Any], name: str) -> float:
    """The number of a field."""
    value = fields[name]
    if type(value) not in (int, float):
        raise ValueError(f"{name} is no number")
    return float(value)


def _flow_step(fields: Mapping[str, Any], money: Callable[[object], Amount], kinds: KindAmount) -> FlowStep:
    payments = {"count": fields["payments"], "amount": fields["volume"], "categories": fields["categories"]}
    gifts = tuple(_gift_part(item, kinds) for item in fields["gifts"])
    return FlowStep(
        begins_ms=int_in(fields, "from"),
        ends_ms=int_in(fields, "to"),
        paid=_payments(payments, money),
        gifts=Gifts(count=sum(part.count for part in gifts), kinds=gifts),
        melt=money(fields["melt"]),
        issued=money(fields["issued"]),
        retired=money(fields["retired"]),
        granted=money(fields["granted"]),
        shared=money(fields["shared"]),
        new=int_in(fields, "new"),
        members=int_in(fields, "members"),
        active=_count(fields, "active"),
        only_paid=_count(fields, "only_paid"),
        only_received=_count(fields, "only_received"),
        both=_count(fields, "both"),
        pool=money(fields["pool"]),
        held=money(fields["held"]) if "held" in fields else None,
        velocity=_ratio(fields, "velocity_ppm"),
        still=_ratio(fields, "still_ppm"),
        gini=_ratio(fields, "gini_ppm"),
        returned_2=_ratio(fields, "returned_2_ppm"),
        returned_3=_ratio(fields, "returned_3_ppm"),
    )


def _named(fields: Mapping[str, Any]) -> tuple[str, str]:
    """A member's did and handle."""
    peer, handle = text_in(fields, "peer"), text_in(fields, "handle")
    peer_of(peer)
    if not is_handle(handle):
        raise ValueError(f"{handle!r} is no handle")
    return peer, handle


def _money(currency: Currency) -> Callable[[object], Amount]:
    return lambda grains: Amount(grains_in(grains), currency.code, currency.scale)


def _payments(fields: Mapping[str, Any], money: Callable[[object], Amount]) -> Payments:
    parts = tuple(
        Part(category=text_in(item, "category"), count=int_in(item, "count"), amount=money(item["amount"]))
        for item in fields["categories"]
    )
    return Payments(count=int_in(fields, "count"), amount=money(fields["amount"]), categories=parts)


def _gifts(fields: Mapping[str, Any], kinds: KindAmount) -> Gifts:
    return Gifts(count=int_in(fields, "count"), kinds=tuple(_gift_part(item, kinds) for item in fields["kinds"]))


def _gift_part(fields: Mapping[str, Any], kinds: KindAmount) -> Part:
    category = text_in(fields, "category") if "category" in fields else None
    amount = kinds(text_in(fields, "kind"), grains_in(fields["quantity"]))
    return Part(category=category, count=int_in(fields, "count"), amount=amount)


def _thanked(fields: Mapping[str, Any]) -> Thanked:
    return Thanked(count=int_in(fields, "count"), weight=float_in(fields, "weight"), members=int_in(fields, "members"))


def _count(fields: Mapping[str, Any], name: str) -> int | None:
    return int_in(fields, name) if name in fields else None


def _ratio(fields: Mapping[str, Any], name: str) -> float | None:
    return int_in(fields, name) / 1_000_000 if name in fields else None

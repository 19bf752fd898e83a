"""Books: the state of one commons, as far as a batch needs it (SPEC §3.1, §4).

Owns the values that the books hold and how a decision changes them. Every value is frozen, so a decision can be
dropped without a trace; `Books` is the only thing that changes, and only through `apply` and `open_commons`.

1. An account is (holder, asset); a holder is a peer's key or the str of a reserved holder.
2. Entries are numbered 1, 2, 3 … without a gap, and their times never go back.
3. For each asset the postings of an entry sum to zero, and so do all accounts together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from gesell_protocol.canonical import unpack
from gesell_protocol.demurrage import Holding
from gesell_protocol.fields import Currency
from gesell_protocol.log import Posting, Signatures, leaf_data, leaf_hash
from gesell_protocol.names import ESCROW, ISSUER, POOL, Holder
from gesell_protocol.policy import Policy, Timeline
from gesell_protocol.receipts import Receipt

ACTIVE: Final = "active"
PENDING: Final = "pending"
SUSPENDED: Final = "suspended"
LEFT: Final = "left"
#: The standings in which a member can be paid (SPEC §3.1).
RECEIVERS: Final = (ACTIVE, SUSPENDED)

#: The states of a gift (SPEC §3.3).
OFFERED: Final = "offered"
RECEIVED: Final = "received"
DECLINED: Final = "declined"
WITHDRAWN: Final = "withdrawn"

AccountName = tuple[Holder, str]
NOTHING: Final = Holding()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of gift: what is counted is 10^-scale of the unit, a UCUM code."""

    code: str
    name: str
    unit: str
    scale: int


#: The kind that every commons has from its founding on.
HOUR: Final = Kind("hour", "hour", "h", 2)
FIRST_KINDS: Final[Mapping[str, Kind]] = MappingProxyType({HOUR.code: HOUR})


class Commons(msgspec.Struct, frozen=True, kw_only=True):
    """One community: what its head row says. A Struct, since a new one is made for every entry.

    `seq` and `at_ms` are those of its last entry, `active_members` counts who is active, `share` names the
    share-out that is being paid, `kinds` are the kinds of gifts by their codes.
    """

    id: bytes
    name: str
    currency: Currency
    ledger: bytes
    stewards: tuple[bytes, ...]
    threshold: int
    timeline: Timeline
    seq: int = 0
    at_ms: int = 0
    active_members: int = 0
    share: bytes | None = None
    kinds: Mapping[str, Kind] = msgspec.field(default_factory=lambda: FIRST_KINDS)

    def after(self, entry: Entry) -> Commons:
        """The head once `entry` is its last; written out, since `replace` takes three times as long."""
        return Commons(
            id=self.id,
            name=self.name,
            currency=self.currency,
            ledger=self.ledger,
            stewards=self.stewards,
            threshold=self.threshold,
            timeline=self.timeline,
            seq=entry.seq,
            at_ms=entry.at_ms,
            active_members=self.active_members,
            share=self.share,
            kinds=self.kinds,
        )

    def tick_of(self, at_ms: int) -> int:
        """The tick of a moment; `tick_seconds` never changes, so any policy answers."""
        return self.timeline.changes[0][1].tick_of(at_ms)

    def policy_at(self, at_ms: int) -> Policy:
        """The policy in force at a moment."""
        return self.timeline.policy_at(self.tick_of(at_ms))

    @property
    def melt_to(self) -> str:
        """Who gains what melts; it never changes either."""
        return self.timeline.changes[0][1].melt_to


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A peer's standing in a commons.

    `handle` is asked for while pending and the member's for ever once `handle_held`. `barred`: suspended, and not
    admitted since. `spans` are the (from seq, to seq or None) in which it was active, the last one and one that an open
    share-out looks at: they tell who takes part in it. `trusted` is what others vouch for it, `lent` what it vouches
    for others, in grains; `vouchers` and `vouchees` are how many. `awaits` counts the open holds of
    which it is the payee.
    """

    peer: bytes
    handle: str
    status: str
    joined_ms: int
    handle_held: bool = False
    barred: bool = False
    spans: tuple[tuple[int, int | None], ...] = ()
    trusted: int = 0
    lent: int = 0
    vouchers: int = 0
    vouchees: int = 0
    awaits: int = 0

    def credit_limit(self, policy_limit: int) -> int:
        """How far below zero it may go, where the policy in force gives everybody `policy_limit`; may be negative."""
        return policy_limit + self.trusted - self.lent

    def was_active_at(self, seq: int) -> bool:
        """Whether the member was active when entry `seq` was decided."""
        return any(covers(span, seq) for span in self.spans)


def covers(span: tuple[int, int | None], seq: int) -> bool:
    """Whether entry `seq` was decided within a span."""
    start, end = span
    return start < seq and (end is None or end > seq)


class Key(msgspec.Struct, frozen=True):
    """A key that belongs to `peer` once and for all; `order` tells which of two keys was added first."""

    key: bytes
    peer: bytes
    order: int
    live: bool = True


class ShareOut(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the pool while it is being paid: `each` grains to those active at entry `seq`, in order of peer.

    `unpaid` members are still to come, all after peer `paid_through` (empty: nobody is paid yet).
    """

    id: bytes
    seq: int
    each: int
    unpaid: int
    paid_through: bytes = b""


class Gift(msgspec.Struct, frozen=True, kw_only=True):
    """A gift and how far it has come: `quantity` of `kind` from a peer to a peer, or to the pool for the commons."""

    id: bytes
    seq: int
    giver: bytes
    receiver: Holder
    kind: str
    quantity: int
    state: str = OFFERED


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money set aside by a payer for a payee: open until the entry that captures, voids or lapses it."""

    id: bytes
    seq: int
    payer: bytes
    payee: bytes
    amount: int
    until_ms: int
    open: bool = True


class Entry(NamedTuple):
    """An accepted statement, numbered, dated and turned into postings."""

    commons: bytes
    seq: int
    at_ms: int
    id: bytes
    body: bytes
    signatures: Signatures
    postings: tuple[Posting, ...]

    @property
    def leaf(self) -> bytes:
        """The leaf hash (SPEC §6), computed anew each time."""
        return leaf_hash(self.leaf_data)

    @property
    def leaf_data(self) -> bytes:
        """The bytes that the log commits to."""
        return leaf_data(
            seq=self.seq, at_ms=self.at_ms, body=self.body, signatures=self.signatures, postings=self.postings
        )

    def fields(self) -> Mapping[str, Any]:
        """The body, decoded anew each time: it was checked when it was accepted."""
        return _fields_of(self.body)

    def receipt(self, tick: int, *, leaf: bytes | None = None) -> Receipt:
        """What the statement's author gets; `tick` is that of `at_ms` under the commons' policy, `leaf` the entry's
        hash where the caller has it already.
        """
        return Receipt(
            commons=self.commons,
            seq=self.seq,
            at_ms=self.at_ms,
            tick=tick,
            id=self.id,
            leaf=leaf if leaf is not None else self.leaf,
            postings=self.postings,
        )


class Known(NamedTuple):
    """What an accepted statement said, without what it moved: enough to tell that its id is used and whose memo it is.

    No receipt comes of it. A used id costs its sender nothing, and the entry behind it may have a thousand postings.
    """

    body: bytes

    def fields(self) -> Mapping[str, Any]:
        """The body, decoded anew each time, as an entry's is."""
        return _fields_of(self.body)


def _fields_of(body: bytes) -> Mapping[str, Any]:
    fields = unpack(body)
    assert isinstance(fields, dict)
    return fields


class Vouches(Mapping[tuple[bytes, bytes], int]):
    """Who vouches for whom and how much: (voucher, vouchee) → grains, all above 0. Found from both sides."""

    def __init__(self, vouches: Mapping[tuple[bytes, bytes], int] | None = None) -> None:
        self._amounts: dict[tuple[bytes, bytes], int] = {}
        self._sides: dict[bytes, set[tuple[bytes, bytes]]] = {}
        for pair, amount in (vouches or {}).items():
            self.put(pair, amount)

    def put(self, pair: tuple[bytes, bytes], amount: int) -> None:
        """Have a vouch be `amount` from now on; 0 ends it."""
        if amount:
            self._amounts[pair] = amount
            for peer in pair:
                self._sides.setdefault(peer, set()).add(pair)
        elif self._amounts.pop(pair, None) is not None:
            for peer in pair:
                self._sides[peer].discard(pair)

    def __getitem__(self, pair: tuple[bytes, bytes]) -> int:
        return self._amounts[pair]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._amounts)

    def __len__(self) -> int:
        return len(self._amounts)

    def by(self, peer: bytes) -> list[tuple[bytes, int]]:
        """Whom a peer vouches for, and how much: ascending by key."""
        return sorted((pair[1], self._amounts[pair]) for pair in self._sides.get(peer, ()) if pair[0] == peer)

    def of(self, peer: bytes) -> list[tuple[bytes, int]]:
        """Who vouches for a peer, and how much: ascending by key."""
        return sorted((pair[0], self._amounts[pair]) for pair in self._sides.get(peer, ()) if pair[1] == peer)


class Decision(msgspec.Struct):
    """What an accepted statement does: its postings, and the new values of what it changes."""

    postings: tuple[Posting, ...] = ()
    accounts: dict[AccountName, Holding] = {}
    members: dict[bytes, Member] = {}
    keys: dict[bytes, Key] = {}
    commons: Commons | None = None
    share: ShareOut | None = None
    gifts: dict[bytes, Gift] = {}
    holds: dict[bytes, Hold] = {}
    #: (voucher, vouchee) → grains, 0 where the vouch ends
    vouches: dict[tuple[bytes, bytes], int] = {}
    #: the kind of gift that the statement makes
    kind: Kind | None = None
    #: (from_tick, policy), when the statement announces one
    policy: tuple[int, Policy] | None = None
    #: the key with which the ledger speaks from now on, when the statement hands it over
    ledger: bytes | None = None
    #: the id of the statement whose memo's text goes
    erased: bytes | None = None


@dataclass(slots=True)
class Books:
    """The state of one commons, whole or the part that a batch needs; what is not in it does not exist.

    `commons` is None before `found`. `held` maps a handle to the member who holds it, `vouches` (voucher, vouchee) to
    grains. `entries` are whole where the statement may be said again, so that its receipt can be given again.
    """

    commons: Commons | None = None
    accounts: dict[AccountName, Holding] = field(default_factory=dict)
    members: dict[bytes, Member] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    keys: dict[bytes, Key] = field(default_factory=dict)
    entries: dict[bytes, Entry | Known] = field(default_factory=dict)
    shares: dict[bytes, ShareOut] = field(default_factory=dict)
    gifts: dict[bytes, Gift] = field(default_factory=dict)
    holds: dict[bytes, Hold] = field(default_factory=dict)
    vouches: Vouches = field(default_factory=Vouches)

    def account(self, holder: Holder, asset: str) -> Holding:
        """The account as it was last brought up to date; an account that was never touched holds nothing."""
        return self.accounts.get((holder, asset), NOTHING)

    def apply(self, decision: Decision, entry: Entry) -> None:
        """Take an entry into the books. Asserts what must never break: the gapless sequence, and sums of zero."""
        commons = decision.commons or self.commons
        assert commons is not None
        assert entry.seq == commons.seq + 1, "an entry follows the one before without a gap"
        assert entry.at_ms >= commons.at_ms, "the time of entries never goes back"
        check_sums(entry.postings)
        self.accounts.update(decision.accounts)
        self.keys.update(decision.keys)
        if decision.members:
            for member in decision.members.values():
                self.members[member.peer] = member
                if member.handle_held:
                    self.held[member.handle] = member.peer
        if decision.share is not None:
            self.shares[decision.share.id] = decision.share
        if decision.gifts:
            self.gifts.update(decision.gifts)
        if decision.holds:
            self.holds.update(decision.holds)
        if decision.vouches:
            for pair, amount in decision.vouches.items():
                self.vouches.put(pair, amount)
        self.commons = commons.after(entry)
        self.entries[entry.id] = entry


def check_sums(postings: Sequence[Posting]) -> None:
    """Assert that the postings of each asset sum to zero."""
    if len(postings) == 2 and postings[0][2] == postings[1][2]:  # most entries
        assert postings[0][3] + postings[1][3] == 0, f"postings do not sum to zero: {postings}"
        return
    sums: dict[str, int] = {}
    for _, _, asset, amount in postings:
        sums[asset] = sums.get(asset, 0) + amount
    assert not any(sums.values()), f"postings do not sum to zero: {sums}"


__all__ = [
    "ESCROW",
    "ISSUER",
    "POOL",
    "Books",
    "Commons",
    "Decision",
    "Entry",
    "Gift",
    "Hold",
    "Holding",
    "Key",
    "Kind",
    "Known",
    "Member",
    "ShareOut",
    "Vouches",
]

"""What a run of entries comes to: the fold, without a database.

Owns what counts as a contact, a payment, a gift, and how strength fades. It knows the log alone, entry by entry in
their order, and must not know what the books say now.

1. A payment is a leg of `pay`, or what a `capture` gave its payee, under the hold's category. A gift counts at its
   `thank`, under the category of its offer.
2. A contact of two members is a payment or a gift from one to the other, or a `vouch` of more than 0. Each tick in
   which two had a contact counts 1, once; what counted k ticks ago counts 2^(−k · tick / half-life).
3. A gift counts 1 in the standing of both sides, and fades likewise. What is given to the pool counts as given.
4. What is known of a tick is its entries' sums, and how the last of them left things.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Final, TypeVar

import msgspec
from msgspec.structs import astuple

from gesell_ledger.core.books import ACTIVE, ESCROW, LEFT, PENDING, POOL, SUSPENDED
from gesell_ledger.storage.folds import Changes, Cursor, Fold, Membership, Run

#: The event loop breathes after so many postings.
BREATH: Final = 500


class Said(msgspec.Struct, frozen=True):
    """What the fold takes from a body; other fields are passed over."""

    type: str
    by: bytes
    category: str = ""
    peer: bytes = b""
    gift: bytes = b""
    hold: bytes = b""
    limit: int = 0
    whom: bytes = msgspec.field(default=b"", name="for")


_read_body: Final = msgspec.msgpack.Decoder(Said).decode
_pack: Final = msgspec.msgpack.Encoder().encode

T = TypeVar("T", bound=Hashable)
#: (account, amount, reason) of an entry's postings, in their order.
_Lines = Sequence[tuple[int, int, str]]

_MEMBERSHIPS: Final = ("join", "admit", "suspend", "leave", "writeoff")


class _Relation(msgspec.Struct, gc=False):
    """What was added between two, a < b. A Struct, since a payment to many makes many."""

    first_ms: int
    last_ms: int
    strength: float = 1.0
    a_payments: int = 0
    b_payments: int = 0
    a_paid: int = 0
    b_paid: int = 0
    a_gifts: int = 0
    b_gifts: int = 0


@dataclass(slots=True)
class _Standing:
    given: int = 0
    received: int = 0
    thanked_by: int = 0
    thanked: int = 0
    given_ms: int = 0
    received_ms: int = 0
    given_weight: float = 0.0
    received_weight: float = 0.0


@dataclass(slots=True)
class _Tick:
    """What was added in a tick."""

    payments: int = 0
    joined: int = 0
    volume: int = 0
    melted: int = 0
    issued: int = 0
    retired: int = 0
    granted: int = 0
    shared: int = 0


class Tally:
    """Adds up a run, whose entries said `said`.

    What it needs beside: the `memberships` of who comes and goes, the gifts and holds that are `answered`, by id, and
    the `numbers` of their payers' accounts.
    """

    def __init__(
        self,
        run: Run,
        said: Sequence[Said],
        cursor: Cursor,
        *,
        memberships: dict[bytes, Membership],
        answered: Mapping[bytes, Said],
        numbers: Mapping[bytes, int],
    ) -> None:
        self._run = run
        self._said = said
        self._commons = run.commons
        self.tick_ms: Final = run.commons.timeline.changes[0][1].tick_seconds * 1000
        self._code = run.commons.currency.code
        self._half_life_ms = cursor.half_life_ms
        self._memberships = memberships
        self._answered = answered
        self._numbers = numbers
        self._reserved = {number: holder for number, (holder, _) in run.accounts.items() if isinstance(holder, str)}
        self._active, self._suspended = cursor.active, cursor.suspended
        self._pool, self._escrow = cursor.pool, cursor.escrow
        self._moved: set[bytes] = set()
        self._relations: dict[tuple[bytes, bytes], _Relation] = {}
        self._vouches: dict[tuple[bytes, bytes], int] = {}
        self._relation_sums: dict[tuple[bytes, bytes, str, str], list[int]] = {}
        self._standings: dict[bytes, _Standing] = {}
        self._flow_sums: dict[tuple[int, str, str], list[int]] = {}
        self._now_ms = self._tick = 0
        self._sums = _Tick()
        self._paid: dict[tuple[int, int], int] = {}
        self._gave: set[tuple[int, int]] = set()
        self._changes = Changes()

    async def add_all(self) -> None:
        """Add every entry of the run."""
        weight = 0
        tick, seq = -1, 0
        for said, (entry_seq, at_ms, _) in zip(self._said, self._run.entries, strict=True):
            self._now_ms, self._tick = at_ms, at_ms // self.tick_ms
            if self._tick != tick and tick >= 0:
                self._close(tick, seq)
            tick, seq = self._tick, entry_seq
            lines = self._run.postings.get(seq, ())
            self._add(said, seq, lines)
            weight += 1 + len(lines)
            if weight > BREATH:
                weight = 0
                await asyncio.sleep(0)
        self._close(tick, seq)

    def _close(self, tick: int, seq: int) -> None:
        """A tick's entries up to `seq` are added (rule 4)."""
        sums = self._sums
        left = (self._active, self._suspended, self._pool, self._escrow)
        amounts = (sums.volume, sums.melted, sums.issued, sums.retired, sums.granted, sums.shared)
        self._changes.flow_ticks.append((tick, seq, sums.payments, sums.joined, *left, *amounts))
        if self._paid or self._gave:
            paid = [number for pair, amount in self._paid.items() for number in (*pair, amount)]
            gave = [number for pair in sorted(self._gave) for number in pair]
            self._changes.flow_pairs.append((tick, seq, _pack((paid, gave))))
        self._sums, self._paid, self._gave = _Tick(), {}, set()

    def _add(self, said: Said, seq: int, lines: _Lines) -> None:
        if said.type == "pay":
            self._add_payment(said, lines)
            return
        for account, amount, reason in lines:
            if account in self._reserved:
                self._add_reserved(account, amount, reason)
            elif reason == "melt":
                self._sums.melted -= amount
            elif reason == "capture":
                hold = self._answered[said.hold]
                self._pay(hold, self._numbers[hold.by], [(account, amount)])
            else:
                self._move_money(reason, amount)
        if said.type == "thank":
            self._give(said, lines)
        elif said.type == "vouch" and said.limit > 0:
            self._touch(said.by, said.whom)
        elif said.type in _MEMBERSHIPS:
            self._move(said)
        for voucher, vouchee, grains in self._run.vouches.get(seq, ()):
            self._vouches[voucher, vouchee] = grains

    def _add_payment(self, said: Said, lines: _Lines) -> None:
        legs = []
        for account, amount, reason in lines:
            if reason == "pay":
                legs.append((account, amount))
            elif account in self._reserved:
                self._add_reserved(account, amount, reason)
            else:
                self._sums.melted -= amount
        # Who pays stands before who is paid.
        (payer, _), *legs = legs
        self._pay(said, payer, legs)

    def _move_money(self, reason: str, amount: int) -> None:
        """A posting of a member's that is no payment."""
        match reason:
            case "issue":
                self._sums.issued += amount
            case "retire":
                self._sums.retired -= amount
            case "grant":
                self._sums.granted += amount
            case "share":
                self._sums.shared += amount

    def _add_reserved(self, account: int, amount: int, reason: str) -> None:
        if reason == "gift":
            return
        if self._reserved[account] == POOL:
            self._pool += amount
        elif self._reserved[account] == ESCROW:
            self._escrow += amount

    # ── Payments, gifts, contacts ────────────────────────────────────────────────────────────────────────────────

    def _pay(self, said: Said, payer: int, legs: Sequence[tuple[int, int]]) -> None:
        """Payments (rule 1) from one account to others, (account, grains) each, as the payer said them."""
        by, accounts, paid = said.by, self._run.accounts, self._paid
        for account, amount in legs:
            payee = accounts[account][0]
            assert isinstance(payee, bytes)
            relation = self._touch(by, payee)
            if by < payee:
                relation.a_payments += 1
                relation.a_paid += amount
            else:
                relation.b_payments += 1
                relation.b_paid += amount
            way = (payer, account)
            paid[way] = paid.get(way, 0) + amount
            if said.category:
                _count(self._relation_sums, (by, payee, self._code, said.category), amount)
                _count(self._flow_sums, (self._tick, self._code, said.category), amount)
        self._sums.payments += len(legs)
        self._sums.volume += sum([amount for _, amount in legs])

    def _give(self, said: Said, lines: _Lines) -> None:
        """A gift that was thanked for (rules 1 and 3)."""
        (from_account, _, _), (to_account, quantity, _) = (line for line in lines if line[2] == "gift")
        giver, kind = self._run.accounts[from_account]
        receiver, _ = self._run.accounts[to_account]
        assert isinstance(giver, bytes)
        category = self._answered[said.gift].category
        self._gave.add((from_account, to_account))
        _count(self._flow_sums, (self._tick, kind, category), quantity)
        standing = self._standings.setdefault(giver, _Standing())
        standing.given += 1
        standing.given_weight = 1 + standing.given_weight * self._faded(standing.given_ms)
        standing.given_ms = self._now_ms
        if isinstance(receiver, str):
            return
        _count(self._relation_sums, (giver, receiver, kind, category), quantity)
        standing = self._standings.setdefault(receiver, _Standing())
        standing.received += 1
        standing.received_weight = 1 + standing.received_weight * self._faded(standing.received_ms)
        standing.received_ms = self._now_ms
        relation = self._touch(giver, receiver)
        if giver < receiver:
            relation.a_gifts += 1
        else:
            relation.b_gifts += 1

    def _touch(self, one: bytes, other: bytes) -> _Relation:
        """Two had a contact now (rule 2)."""
        pair = (one, other) if one < other else (other, one)
        relation = self._relations.get(pair)
        if relation is None:
            relation = self._relations[pair] = _Relation(self._now_ms, self._now_ms)
            return relation
        if relation.last_ms // self.tick_ms != self._tick:
            relation.strength = 1 + relation.strength * self._faded(relation.last_ms)
        relation.last_ms = self._now_ms
        return relation

    def _faded(self, since_ms: int) -> float:
        """What is left now of 1 that counted in the tick of a moment."""
        return fading(self._tick - since_ms // self.tick_ms, tick_ms=self.tick_ms, half_life_ms=self._half_life_ms)

    # ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _move(self, said: Said) -> None:
        """Who joins, is admitted, is suspended or leaves (SPEC §3.1), by the log alone."""
        peer = said.by if said.type in ("join", "leave") else said.peer
        before = self._memberships.get(peer, Membership(LEFT))
        after = before
        match said.type:
            case "join" if self._commons.timeline.policy_at(self._tick).admission == "open" and not before.barred:
                after = before._replace(status=ACTIVE)
            case "join":
                after = before._replace(status=PENDING)
            case "admit":
                after = before._replace(status=ACTIVE, barred=False)
            case "suspend" | "writeoff" if before.status == ACTIVE:
                after = before._replace(status=SUSPENDED, barred=True)
            case "suspend" | "leave":
                after = before._replace(status=LEFT)
        if after.status == ACTIVE and not before.was_active:
            after = after._replace(was_active=True)
            self._sums.joined += 1
        self._active += (after.status == ACTIVE) - (before.status == ACTIVE)
        self._suspended += (after.status == SUSPENDED) - (before.status == SUSPENDED)
        self._memberships[peer] = after
        self._moved.add(peer)

    # ── Results ──────────────────────────────────────────────────────────────────────────────────────────────────

    def gift_pairs(self) -> list[tuple[bytes, bytes]]:
        """The pairs between which the run has gifts, ascending within each pair."""
        return [pair for pair, relation in self._relations.items() if relation.a_gifts or relation.b_gifts]

    def finish(self, given: Mapping[tuple[bytes, bytes], int]) -> Changes:
        """What the run came to; `given` counts the gifts of (giver, receiver) before it."""
        for a, b in self.gift_pairs():
            relation = self._relations[a, b]
            for giver, receiver, gifts in ((a, b, relation.a_gifts), (b, a, relation.b_gifts)):
                if gifts and not given.get((giver, receiver)):
                    self._standings[giver].thanked_by += 1
                    self._standings[receiver].thanked += 1
        changes = self._changes
        changes.memberships = [(peer, *self._memberships[peer]) for peer in sorted(self._moved)]
        changes.relations = [(*pair, *astuple(self._relations[pair])) for pair in sorted(self._relations)]
        changes.vouches = [(*pair, *grains) for pair, grains in self._vouches_of_pairs().items()]
        changes.relation_sums = [(*key, *sums) for key, sums in sorted(self._relation_sums.items())]
        changes.standings = [(peer, *_standing_values(standing)) for peer, standing in self._standings.items()]
        changes.flow_sums = [(*key, *sums) for key, sums in self._flow_sums.items()]
        return changes

    def cursor(self) -> Cursor:
        """Where the readings are after the run."""
        seq = self._run.entries[-1][0]
        return Cursor(seq, self._half_life_ms, self._active, self._suspended, self._pool, self._escrow)

    def _vouches_of_pairs(self) -> dict[tuple[bytes, bytes], tuple[int | None, int | None]]:
        """What each of a pair vouches for the other now; None where the run changed nothing."""
        changed = {(min(pair), max(pair)) for pair in self._vouches}
        return {(a, b): (self._vouches.get((a, b)), self._vouches.get((b, a))) for a, b in sorted(changed)}


def fading(ticks: int, *, tick_ms: int, half_life_ms: int) -> float:
    """What is left after so many ticks of what counted 1; never so little that arithmetic would give up on it."""
    return float(2.0 ** max(-900.0, -ticks * tick_ms / half_life_ms))


async def tally(fold: Fold, run: Run) -> Tally:
    """Load what a run asks for beside its entries, and add it up."""
    said = [_read_body(body) for _, _, body in run.entries]
    moving = [one for one in said if one.type in _MEMBERSHIPS]
    answers = [one.gift or one.hold for one in said if one.type in ("thank", "capture")]
    memberships = await fold.load_memberships({peer for one in moving for peer in (one.by, one.peer)}) if moving else {}
    bodies = await fold.load_bodies(answers) if answers else {}
    answered = {name: _read_body(body) for name, body in bodies.items()}
    payers = {one.by for one in answered.values() if one.type == "hold"}
    numbers = await fold.load_numbers(payers, asset=run.commons.currency.code) if payers else {}
    made = Tally(run, said, fold.cursor, memberships=memberships, answered=answered, numbers=numbers)
    await made.add_all()
    return made


def _count(sums: dict[T, list[int]], key: T, amount: int) -> None:
    counted = sums.get(key)
    if counted is None:
        sums[key] = [1, amount]
    else:
        counted[0] += 1
        counted[1] += amount


_standing_values: Final = attrgetter(*(field.name for field in fields(_Standing)))

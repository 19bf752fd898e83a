"""Readings made again, slowly, from the entries as any reader gets them: what the service shows must agree.

Owns a second fold of its own, as plain as can be: everything is looked for anew in the list of all entries, whenever
it is asked for. Nothing comes from the ledger but the protocol's law of demurrage, in its version by the letter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from gesell_protocol.demurrage import INFLOW_REASONS, Holding, melt_by_the_letter
from gesell_protocol.names import did_of, id_text, unbase64url
from gesell_protocol.policy import Timeline, read_policy

PPM = 10**6


class SlowReadings:
    """The readings of a commons after these entries, all of them from the first on."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, half_life_ms: int) -> None:
        self.entries = [dict(entry) for entry in entries]
        for entry in self.entries:
            entry["said"] = msgpack.unpackb(unbase64url(entry["body"]))
        founding = self.entries[0]["said"]
        self.code = founding["currency"]["code"]
        self.tick_ms = founding["policy"]["tick_seconds"] * 1000
        self.half_life_ms = half_life_ms
        changes = [(0, founding["policy"])]
        changes += [(e["said"]["from_tick"], e["said"]["policy"]) for e in self.entries if e["type"] == "policy"]
        self.timeline = Timeline.of((tick, read_policy(policy, min_tick_seconds=1)) for tick, policy in changes)

    def tick_of(self, entry: Mapping[str, Any]) -> int:
        return int(entry["at"] // self.tick_ms)

    @property
    def first_tick(self) -> int:
        """The tick of the founding."""
        return self.tick_of(self.entries[0])

    def weight(self, ticks: int) -> float:
        return float(2 ** (-ticks * self.tick_ms / self.half_life_ms))

    # ── What happened ────────────────────────────────────────────────────────────────────────────────────────────

    def payments(self) -> list[tuple[dict[str, Any], str, str, int, str]]:
        """(entry, payer, payee, grains, category) of each leg, and of each capture that gave something."""
        found = []
        for entry in self.entries:
            order = self.hold_of(entry) if entry["type"] == "capture" else entry
            for reason, holder, _, amount in entry["postings"]:
                if reason == entry["type"] and reason in ("pay", "capture") and holder != "escrow" and int(amount) > 0:
                    found.append((entry, order["by"], holder, int(amount), order["said"].get("category", "")))
        return found

    def hold_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of the hold that an entry ends."""
        name = id_text(entry["said"]["of" if entry["type"] == "lapse" else "hold"])
        (hold,) = (one for one in self.entries if one["id"] == name)
        return hold

    def gifts(self) -> list[tuple[dict[str, Any], str, str, str, int, str]]:
        """(entry that thanked, giver, receiver, kind, quantity, category) of each gift that was thanked for."""
        offers = {entry["id"]: entry["said"] for entry in self.entries if entry["type"] == "gift"}
        found = []
        for entry in self.entries:
            if entry["type"] == "thank":
                offer = offers[id_text(entry["said"]["gift"])]
                to = offer["to"] if isinstance(offer["to"], str) else did_of(offer["to"])
                sums = (offer["kind"], offer["quantity"], offer.get("category", ""))
                found.append((entry, did_of(offer["by"]), to, *sums))
        return found

    def contacts(self) -> list[tuple[dict[str, Any], frozenset[str]]]:
        """(entry, the two) of each contact."""
        contacts = [(entry, frozenset((payer, payee))) for entry, payer, payee, *_ in self.payments()]
        contacts += [(entry, frozenset((giver, to))) for entry, giver, to, *_ in self.gifts() if to != "pool"]
        contacts += [
            (entry, frozenset((entry["by"], did_of(entry["said"]["for"]))))
            for entry in self.entries
            if entry["type"] == "vouch" and entry["said"]["limit"] > 0
        ]
        return contacts

    def vouches(self) -> dict[tuple[str, str], int]:
        """What the first vouches for the second, in the end."""
        vouches: dict[tuple[str, str], int] = {}
        for entry in self.entries:
            said, by = entry["said"], entry["by"]
            if entry["type"] == "vouch":
                vouches[by, did_of(said["for"])] = said["limit"]
            if entry["type"] == "leave":
                vouches = {pair: grains for pair, grains in vouches.items() if by not in pair}
            if entry["type"] == "writeoff":
                for reason, holder, _, amount in entry["postings"]:
                    if reason == "writeoff" and holder.startswith("did:") and int(amount) < 0:
                        vouches[holder, did_of(said["peer"])] += int(amount)
        return vouches

    # ── Relationships and standing ───────────────────────────────────────────────────────────────────────────────

    def peers(self, member: str) -> set[str]:
        """With whom a member had to do."""
        return {peer for _, two in self.contacts() if member in two for peer in two - {member}}

    def relationship(self, member: str, peer: str, *, tick: int) -> dict[str, Any]:
        """What a member and a peer had to do with each other, as the service shows it at a tick."""
        entries = [entry for entry, two in self.contacts() if two == {member, peer}]
        paid, received = self._paid(member, peer), self._paid(peer, member)
        given, was_given = self._given(member, peer), self._given(peer, member)
        vouches = self.vouches()
        ways = sorted((paid["count"] + given["count"], received["count"] + was_given["count"]))
        shown = {
            "peer": peer,
            "handle": self.handles()[peer],
            "paid": paid,
            "received": received,
            "given": given,
            "was_given": was_given,
            "vouches": str(vouches.get((member, peer), 0)),
            "vouched": str(vouches.get((peer, member), 0)),
            "first": min(entry["at"] for entry in entries),
            "last": max(entry["at"] for entry in entries),
            "strength": sum(self.weight(tick - k) for k in {self.tick_of(entry) for entry in entries}),
        }
        if ways[1] > 0:
            shown["reciprocity_ppm"] = PPM * ways[0] // ways[1]
        return shown

    def _paid(self, payer: str, payee: str) -> dict[str, Any]:
        legs = [
            (grains, category) for _, one, other, grains, category in self.payments() if (one, other) == (payer, payee)
        ]
        return {"count": len(legs), "amount": str(sum(grains for grains, _ in legs)), "categories": _categories(legs)}

    def _given(self, giver: str, receiver: str) -> dict[str, Any]:
        gifts = [gift for gift in self.gifts() if gift[1:3] == (giver, receiver)]
        return {"count": len(gifts), "kinds": _kinds(gifts)}

    def standing(self, member: str, *, tick: int) -> dict[str, Any]:
        """A member's standing as the service shows it at a tick."""
        given = [gift for gift in self.gifts() if gift[1] == member]
        received = [gift for gift in self.gifts() if gift[2] == member]
        return {
            "given": self._gifts(given, {gift[2] for gift in given} - {"pool"}, tick),
            "received": self._gifts(received, {gift[1] for gift in received}, tick),
        }

    def _gifts(self, gifts: list[Any], members: set[str], tick: int) -> dict[str, Any]:
        weight = sum(self.weight(tick - self.tick_of(gift[0])) for gift in gifts)
        return {"count": len(gifts), "weight": weight, "members": len(members)}

    # ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────

    def handles(self) -> dict[str, str]:
        return {entry["by"]: entry["said"]["handle"] for entry in self.entries if entry["type"] == "join"}

    def memberships(self, before_tick: int) -> tuple[dict[str, str], dict[str, int]]:
        """The status of each peer before a tick, and the tick in which each was active for the first time."""
        status: dict[str, str] = {}
        first: dict[str, int] = {}
        barred: set[str] = set()
        for entry in self.entries:
            tick, said = self.tick_of(entry), entry["said"]
            if tick >= before_tick:
                break
            peer = did_of(said["peer"]) if "peer" in said else entry["by"]
            match entry["type"]:
                case "join":
                    opened = self.timeline.policy_at(tick).admission == "open" and peer not in barred
                    status[peer] = "active" if opened else "pending"
                case "admit":
                    status[peer] = "active"
                    barred.discard(peer)
                case "leave":
                    status[peer] = "left"
                case "suspend" | "writeoff" if status[peer] == "active":
                    status[peer] = "suspended"
                    barred.add(peer)
                case "suspend":
                    status[peer] = "left"
            if status.get(peer) == "active":
                first.setdefault(peer, tick)
        return status, first

    # ── Circulation ──────────────────────────────────────────────────────────────────────────────────────────────

    def flow(self, *, first: int, end: int, now_ms: int) -> dict[str, Any]:
        """The step of the ticks first…end - 1, as the service shows it at a moment."""
        now = now_ms // self.tick_ms
        inside = [entry for entry in self.entries if first <= self.tick_of(entry) < end]
        seqs = {entry["seq"] for entry in inside}
        legs = [leg for leg in self.payments() if leg[0]["seq"] in seqs]
        gifts = [gift for gift in self.gifts() if gift[0]["seq"] in seqs]
        volume = sum(leg[3] for leg in legs)
        payers, payees = {leg[1] for leg in legs}, {leg[2] for leg in legs}
        givers = {who for gift in gifts for who in gift[1:3]} - {"pool"}
        status, joined = self.memberships(end)
        before, after = self._stock(min(first, now)), self._stock(min(end, now), before=end)
        shown = {
            "from": first * self.tick_ms,
            "to": end * self.tick_ms,
            "volume": str(volume),
            "payments": len(legs),
            "categories": _categories([(leg[3], leg[4]) for leg in legs]),
            "gifts": _kinds(gifts),
            "melt": str(-self._sum(inside, "melt", sign=-1)),
            "issued": str(self._sum(inside, "issue", sign=1)),
            "retired": str(-self._sum(inside, "retire", sign=-1)),
            "granted": str(self._sum(inside, "grant", sign=1)),
            "shared": str(self._sum(inside, "share", sign=1)),
            "new": sum(first <= tick < end for tick in joined.values()),
            "active": len(payers | payees | givers),
            "only_paid": len(payers - payees),
            "only_received": len(payees - payers),
            "both": len(payers & payees),
            "members": sum(one == "active" for one in status.values()),
            "pool": str(self._posted("pool", end)),
            "held": str(after["held"]),
        }
        ratios = {**self._returned(legs, volume), **self._ratios(volume, before, after)}
        ratios["gini_ppm"] = self._gini(after["balances"], [one for one, s in status.items() if s in INSIDE])
        return shown | {name: value for name, value in ratios.items() if value is not None}

    def _ratios(self, volume: int, before: dict[str, Any], after: dict[str, Any]) -> dict[str, int | None]:
        mean2 = before["held"] + after["held"]
        return {
            "velocity_ppm": PPM * 2 * volume // mean2 if mean2 else None,
            "still_ppm": PPM * after["still"] // after["held"] if after["held"] else None,
        }

    def _sum(self, entries: list[dict[str, Any]], reason: str, *, sign: int) -> int:
        """The postings of a reason on members' accounts, in the one direction."""
        return sum(
            int(amount)
            for entry in entries
            for why, holder, _, amount in entry["postings"]
            if why == reason and holder.startswith("did:") and int(amount) * sign > 0
        )

    def _posted(self, holder: str, end: int) -> int:
        return sum(
            int(amount)
            for entry in self.entries
            if self.tick_of(entry) < end
            for _, who, asset, amount in entry["postings"]
            if (who, asset) == (holder, self.code)
        )

    def _stock(self, tick: int, *, before: int | None = None) -> dict[str, Any]:
        """What members have at the beginning of a tick, of the entries before it, or before another."""
        end = tick if before is None else before
        holdings: dict[str, Holding] = {}
        aside: dict[str, int] = defaultdict(int)
        for entry in self.entries:
            at = self.tick_of(entry)
            if at >= end:
                break
            if entry["type"] == "hold":
                aside[entry["by"]] += entry["said"]["amount"]
            if entry["type"] in ("capture", "void", "lapse"):
                hold = self.hold_of(entry)
                aside[hold["by"]] -= hold["said"]["amount"]
            for reason, holder, asset, amount in entry["postings"]:
                if asset == self.code and holder.startswith("did:"):
                    old = holdings.get(holder, Holding())
                    fresh = ((at, int(amount)),) if int(amount) > 0 and reason in INFLOW_REASONS else ()
                    holdings[holder] = Holding(old.balance + int(amount), 0, at, old.inflows + fresh)
        melted = {
            who: melt_by_the_letter(holding._replace(escrow=aside[who]), self.timeline, tick)
            for who, holding in holdings.items()
        }
        start = self.timeline.window_start(tick)
        still = {
            who: max(0, one.balance + one.escrow - sum(grains for at, grains in one.inflows if at >= start))
            for who, one in melted.items()
        }
        return {
            "held": sum(max(0, one.balance) for one in melted.values()) + self._posted("escrow", end),
            "still": sum(still.values()),
            "balances": {who: max(0, one.balance) for who, one in melted.items()},
        }

    def _gini(self, balances: dict[str, int], members: list[str]) -> int | None:
        """By its definition: half the mean difference of two members, by the mean."""
        have = [balances.get(member, 0) for member in members]
        total = sum(have)
        if total == 0:
            return None
        return PPM * sum(abs(one - other) for one in have for other in have) // (2 * len(have) * total)

    def _returned(self, legs: list[Any], volume: int) -> dict[str, int | None]:
        paid: dict[tuple[str, str], int] = defaultdict(int)
        for _, payer, payee, grains, _ in legs:
            paid[payer, payee] += grains
        if volume == 0:
            return {"returned_2_ppm": None, "returned_3_ppm": None}
        who = {one for pair in paid for one in pair}
        edges = list(paid.items())
        two = sum(min(grains, paid.get((b, a), 0)) for (a, b), grains in edges)
        three = sum(
            min(grains, sum(min(paid.get((b, c), 0), paid.get((c, a), 0)) for c in who)) for (a, b), grains in edges
        )
        return {"returned_2_ppm": PPM * two // volume, "returned_3_ppm": PPM * three // volume}


INSIDE = ("active", "suspended")


def _categories(legs: list[tuple[int, str]]) -> list[dict[str, Any]]:
    names = sorted({category for _, category in legs} - {""})
    by_name = {name: [grains for grains, category in legs if category == name] for name in names}
    return [{"category": name, "count": len(many), "amount": str(sum(many))} for name, many in by_name.items()]


def _kinds(gifts: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for kind, category in sorted({(gift[3], gift[5]) for gift in gifts}):
        many = [gift[4] for gift in gifts if (gift[3], gift[5]) == (kind, category)]
        named = {"category": category} if category else {}
        rows.append({"kind": kind, **named, "count": len(many), "quantity": str(sum(many))})
    return rows

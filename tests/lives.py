"""Made-up histories: what people of a commons might say next, most of it sensible, some of it not.

Owns `Life`, which draws a history, statement by statement, out of a source of randomness and submits it to a `Twin`.
Must not know what should come of it: that is the twin's to compare.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from gesell_ledger.core.books import ACTIVE, OFFERED, PENDING, RECEIVED, SUSPENDED
from gesell_ledger.core.decide import Outcome
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import POOL
from tests import plain_model
from tests.histories import CODE, HOUR_MS, LEDGER, Twin, fields_of, key, stamp
from tests.speaking import POLICY

STEWARDS: Final = ("sara", "siri", "sven")
PEOPLE: Final = ("anna", "ben", "carl", "dora", "emil", "fay")
DEVICES: Final = ("phone", "tablet", "watch", "laptop", "token", "card")
EVERYBODY: Final = tuple(key(name) for name in (*STEWARDS, *PEOPLE, *DEVICES))
HANDLES: Final = ("ann", "ben", "carl", "queen", "king", "fay_1")

#: What is said, and how often: money often, what ends a membership or narrows who may speak seldom.
_HABITS: Final[Mapping[str, int]] = {
    "pay": 30,
    "issue": 14,
    "join": 14,
    "admit": 10,
    "retire": 8,
    "grant": 7,
    "sweep": 6,
    "share": 5,
    "payout": 8,
    "keys": 6,
    "policy": 5,
    "erase": 5,
    "suspend": 3,
    "leave": 5,
    "stewards": 2,
    "gift": 12,
    "thank": 10,
    "decline": 3,
    "withdraw": 4,
    "kind": 3,
    "vouch": 20,
    "writeoff": 6,
    "hold": 12,
    "capture": 6,
    "void": 6,
    "lapse": 3,
    "again": 5,
    "conflict": 2,
}
#: Kinds of gifts that people speak of; `hour` is there from the beginning.
_KINDS: Final = ("hour", "hour", "bread", "care", "tools")


class Life:
    """Makes up a history, one statement at a time, out of a source of randomness; most are sensible, some are not."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        threshold = source.choice((1, 1, 2))
        self.twin = Twin(
            stewards=STEWARDS, threshold=threshold, **random_policy(source, melt_to=source.choice(("pool", "issuer")))
        )
        self._by = self.twin.stewards[0]
        self._gift = b"no such gift id!"
        self._hold = b"no such hold id!"
        self._settle()
        self._say: Mapping[str, Callable[[], dict[str, Any]]] = {
            "pay": self._pay,
            "issue": lambda: {"to": self._active(), "amount": self._amount(2_000)},
            "join": lambda: {"handle": source.choice(HANDLES)},
            "admit": lambda: {"peer": source.choice(self._waiting() or [self._member()])},
            "suspend": lambda: {"peer": self._member()},
            "leave": dict,
            "keys": self._keys,
            "policy": self._policy,
            "stewards": self._stewards,
            "erase": lambda: {"statement": self._entry_id()},
            "retire": lambda: {"amount": self._amount(500), **self._balancing()},
            "grant": lambda: {"legs": self._legs(self._amount(self._pool() + 2))},
            "share": lambda: {"amount": self._amount(self._pool() + 2)},
            "sweep": lambda: {"accounts": sorted({self._member() for _ in range(source.randint(1, 4))})},
            "payout": self._payout,
            "hold": lambda: {"to": self._active(), "amount": self._held(), "until": self._until()},
            "capture": lambda: {"hold": self._hold, "amount": self._captured()},
            "void": lambda: {"hold": self._hold},
            "lapse": lambda: {"of": self._hold},
            "kind": lambda: {"code": source.choice(_KINDS), "name": "Bread & roses", "unit": "1", "scale": 0},
            "gift": self._offer,
            "thank": lambda: {"gift": self._gift},
            "decline": lambda: {"gift": self._gift},
            "withdraw": lambda: {"gift": self._gift},
            "vouch": self._vouch,
            "writeoff": lambda: {"peer": source.choice(self._owing() or [self._member()])},
        }

    def _settle(self) -> None:
        """Most people are members when the story begins."""
        for name, handle in zip(PEOPLE[:5], HANDLES, strict=False):
            self.twin.done("join", key(name), handle=handle)
            if self.twin.model.status(key(name)) == "pending":
                self.twin.done("admit", self.twin.stewards[0], peer=key(name), signers=self.twin.stewards)

    def step(self) -> Outcome:
        """Let some time go by or none, and submit one more statement to the twin."""
        source, twin = self.random, self.twin
        ticks = source.choices((0, 1, 3, 30), weights=(70, 20, 8, 2))[0]
        twin.now_ms += ticks * HOUR_MS + source.choice((0, 0, 1, 60_000))
        kind = source.choices(list(_HABITS), weights=list(_HABITS.values()))[0]
        if kind == "payout" and not any(share.unpaid for share in twin.model.shares.values()):
            kind = "share" if source.random() < 0.5 else "payout"
        if kind == "again":
            return twin.take(source.choice(twin.submitted))
        if kind == "conflict":
            return self._conflict()
        self._by = by = self._speaker(kind)
        fields = self._say[kind]()
        memo = Memo(b"s" * 16, "for the test") if source.random() < 0.2 else None
        fields = {**fields, **self._odd_time()}
        if memo is not None:
            fields["memo"] = memo.seal()
        made = twin.fields(kind, by, **fields)
        if source.random() < 0.01:
            made["commons"] = b"another commons!"
        _mend(made)
        return twin.submit(made, self._signers(kind, by, made), memo)

    def _conflict(self) -> Outcome:
        """Another statement under an id that is used already."""
        used, by = self.random.choice(self.twin.entries), self._member()
        made = self.twin.fields("pay", by, **self._pay(), id=used.id, expires=fields_of(used)["expires"])
        _mend(made)
        return self.twin.submit(made, [by])

    def _odd_time(self) -> dict[str, Any]:
        """Now and then an id from the future, or a statement that lay about for too long."""
        luck, now_ms = self.random.random(), self.twin.now_ms
        if luck < 0.02:
            return stamp(now_ms + self.random.choice((120_000, 120_001, 500_000)), self.random.randint(10**6, 10**9))
        if luck < 0.04:
            return stamp(now_ms - self.random.choice((300_000, 300_001)), self.random.randint(10**6, 10**9))
        return {}

    def _known(self) -> list[bytes]:
        return list(self.twin.books.members) or [key("anna")]

    def _member(self) -> bytes:
        """Mostly somebody who is or was a member, sometimes anybody."""
        return self.random.choice(self._known() if self.random.random() < 0.9 else EVERYBODY)

    def _active(self) -> bytes:
        """Mostly an active member."""
        active = [peer for peer, one in self.twin.books.members.items() if one.status == ACTIVE]
        return self.random.choice(active) if active and self.random.random() < 0.85 else self._member()

    def _waiting(self) -> list[bytes]:
        """Nine times in ten, those who could be admitted."""
        if self.random.random() < 0.1:
            return []
        return [peer for peer, one in self.twin.books.members.items() if one.status in (PENDING, SUSPENDED)]

    def _pool(self) -> int:
        return self.twin.books.account(POOL, CODE).balance

    def _amount(self, about: int) -> int:
        source, about = self.random, min(max(1, about), 10**15)
        amounts = (1, about, source.randint(1, about), source.randint(1, 5_000), 10**15)
        return source.choices(amounts, weights=(2, 4, 8, 4, 1))[0]

    def _speaker(self, kind: str) -> bytes:
        source, commons = self.random, self.twin.books.commons
        assert commons is not None
        if kind in ("capture", "void", "lapse"):
            speaker = self._speaker_of_a_hold(kind)
            if kind != "lapse":
                return speaker
        if kind in plain_model.LEDGER_TYPES:
            return LEDGER if source.random() < 0.95 else commons.stewards[0]
        if kind in plain_model.STEWARD_TYPES:
            return source.choice(commons.stewards) if source.random() < 0.95 else self._member()
        if kind == "join":
            return source.choice(EVERYBODY)
        if kind in ("thank", "decline", "withdraw"):
            return self._speaker_of_a_gift(kind)
        members = self.twin.books.members
        lenders = [peer for peer, member in members.items() if member.lent]
        if kind == "leave" and lenders and source.random() < 0.5:
            return source.choice(lenders)
        active = [peer for peer, member in members.items() if member.status == ACTIVE]
        if kind in ("pay", "retire", "gift", "vouch", "hold") and active and source.random() < 0.8:
            return source.choice(active)
        if kind == "erase":
            author: bytes = fields_of(source.choice(self.twin.entries))["by"]
            return source.choice((author, self._member(), source.choice(commons.stewards)))
        return self._member()

    def _signers(self, kind: str, by: bytes, made: Mapping[str, Any]) -> set[bytes]:
        """Mostly those who should sign, with one of their live keys; sometimes one too few, or somebody else."""
        source, model, commons = self.random, self.twin.model, self.twin.books.commons
        assert commons is not None
        who = {by, *made.get("stewards", ())}
        gift = model.gifts.get(made.get("gift", b""))
        is_for_all = gift is not None and gift.receiver == POOL
        if kind in plain_model.STEWARD_TYPES or kind == "erase" or is_for_all:
            who |= set(source.sample(commons.stewards, min(commons.threshold, len(commons.stewards))))
        signers = {source.choice(sorted(model.live_keys(peer)) or [peer]) for peer in sorted(who)}
        signers |= set(made.get("add") or ())
        if source.random() < 0.08:
            signers.discard(source.choice(sorted(signers)))
        if source.random() < 0.05 or not signers:
            signers.add(source.choice(EVERYBODY))
        return signers

    def _speaker_of_a_gift(self, kind: str) -> bytes:
        """Choose the gift that is answered, mostly one that is open, and mostly who may answer it."""
        source, commons, gifts = self.random, self.twin.books.commons, self.twin.books.gifts
        assert commons is not None
        still_open = [gift for gift in gifts.values() if gift.state == OFFERED]
        if not gifts or source.random() < 0.05:
            self._gift = b"no such gift id!"
            return self._member()
        gift = source.choice(still_open if still_open and source.random() < 0.85 else list(gifts.values()))
        self._gift = gift.id
        if source.random() < 0.15:
            return self._member()
        if kind == "withdraw":
            return gift.giver
        return gift.receiver if isinstance(gift.receiver, bytes) else source.choice(commons.stewards)

    def _speaker_of_a_hold(self, kind: str) -> bytes:
        """Choose the hold that is ended, mostly an open one, and mostly who may end it."""
        source, holds = self.random, self.twin.books.holds
        still_open = [hold for hold in holds.values() if hold.open]
        self._hold = b"no such hold id!"
        if not holds or source.random() < 0.05:
            return self._member()
        hold = source.choice(still_open if still_open and source.random() < 0.85 else list(holds.values()))
        self._hold = hold.id
        if source.random() < 0.15:
            return self._member()
        return hold.payer if kind == "void" and source.random() < 0.6 else hold.payee

    def _held(self) -> int:
        return self._all_there_is() if self.random.random() < 0.4 else self._amount(300)

    def _until(self) -> int:
        """Mostly some time that comes soon."""
        longest = plain_model.LONGEST_HOLD_MS
        ahead = self.random.choice((1, HOUR_MS, HOUR_MS, 3 * HOUR_MS, 3 * HOUR_MS, longest, longest + 1, 0))
        return self.twin.now_ms + ahead

    def _captured(self) -> int:
        """All of what is held, most often."""
        hold = self.twin.books.holds.get(self._hold)
        held = hold.amount if hold is not None else 1
        return self.random.choice((held, held, self.random.randint(0, held), 0, min(held + 1, 10**15)))

    def _offer(self) -> dict[str, Any]:
        """A gift, often because of gifts received before, sometimes because of ones that were none."""
        source, twin = self.random, self.twin
        assert twin.books.commons is not None
        gifts = list(twin.books.gifts.values())
        moving = [gift.id for gift in gifts if gift.receiver == self._by and gift.state == RECEIVED]
        if source.random() < 0.2:
            moving = [*(gift.id for gift in gifts), b"no such gift id!"]
        after = (
            source.sample(moving, source.randint(1, min(3, len(moving)))) if moving and source.random() < 0.5 else None
        )
        known = sorted(twin.books.commons.kinds)
        kind = source.choice(known if source.random() < 0.85 else _KINDS)
        to = POOL if source.random() < 0.15 else self._active()
        return {"to": to, "kind": kind, "quantity": self._amount(500), "after": after}

    def _vouch(self) -> dict[str, Any]:
        """A new vouch, or one raised, lowered or taken back."""
        source, twin = self.random, self.twin
        assert twin.books.commons is not None
        given = twin.books.vouches.by(self._by)
        whom, before = source.choice(given) if given and source.random() < 0.6 else (self._active(), 0)
        member = twin.books.members.get(self._by)
        most = twin.books.commons.policy_at(twin.now_ms).credit_limit
        room = before + max(0, most if member is None else member.credit_limit(most))
        limits = (source.randint(0, room) + 1, room // 2 + 1, max(1, room), max(1, room - 20), before, 0)
        limit = source.choices(limits, weights=(4, 4, 2, 1, 1, 3 if before else 0))[0]
        return {"for": whom, "limit": limit}

    def _owing(self) -> list[bytes]:
        """Nine times in ten, those who owe."""
        if self.random.random() < 0.1:
            return []
        members = self.twin.books.members
        return [peer for peer in members if self.twin.books.account(peer, CODE).balance < 0]

    def _legs(self, amount: int) -> list[list[Any]]:
        count = self.random.choices((1, 2, 3), weights=(6, 2, 1))[0]
        payees = list(dict.fromkeys(self._active() for _ in range(count)))
        each = max(1, amount // len(payees))
        return [[payee, each] for payee in payees]

    def _balancing(self) -> dict[str, Any]:
        return {"balancing": True} if self.random.random() < 0.2 else {}

    def _pay(self) -> dict[str, Any]:
        legs = self._legs(self._all_there_is() if self.random.random() < 0.2 else self._amount(300))
        return {"legs": legs, **(self._balancing() if len(legs) == 1 else {})}

    def _all_there_is(self) -> int:
        """What the speaker has, its credit included, or some grains less."""
        commons, member = self.twin.books.commons, self.twin.books.members.get(self._by)
        assert commons is not None
        if member is None:
            return 1
        limit = member.credit_limit(commons.policy_at(self.twin.now_ms).credit_limit)
        there = self.twin.balance(self._by) + limit - self.random.choice((0, 0, 1, 30))
        return min(max(1, there), 10**15)

    def _keys(self) -> dict[str, Any]:
        source = self.random
        add = source.sample(EVERYBODY[-len(DEVICES) :], source.choice((0, 1, 1, 2)))
        if source.random() < 0.1:
            add = [source.choice(EVERYBODY)]
        own = sorted(self.twin.model.live_keys(self._by))
        revoke = source.sample(own if own and source.random() < 0.7 else EVERYBODY, source.choice((0, 0, 1)))
        revoke = [name for name in revoke if name not in add]
        return {"add": add or None, "revoke": revoke or (None if add else [source.choice(EVERYBODY)])}

    def _policy(self) -> dict[str, Any]:
        source, commons = self.random, self.twin.books.commons
        assert commons is not None
        changed = random_policy(source, melt_to=commons.melt_to if source.random() < 0.95 else "issuer")
        ahead = commons.policy_at(self.twin.now_ms).notice_ticks + source.choice((0, 1, 1, 2, 5))
        return {"policy": {**POLICY, **changed}, "from_tick": self.twin.tick + ahead}

    def _stewards(self) -> dict[str, Any]:
        source = self.random
        first = EVERYBODY[: len(STEWARDS)]
        new = [source.choice(EVERYBODY)] if source.random() < 0.6 else []
        stewards = sorted({*source.sample(first, source.choice((2, 3))), *new})
        return {"stewards": stewards, "threshold": source.choice((1, 1, 2))}

    def _entry_id(self) -> bytes:
        if self.random.random() < 0.1:
            return b"no such entry id"
        sealed = [entry for entry in self.twin.entries if "memo" in fields_of(entry)]
        return self.random.choice(sealed if sealed and self.random.random() < 0.7 else self.twin.entries).id

    def _payout(self) -> dict[str, Any]:
        """Mostly the next few of a share in their order; sometimes nonsense."""
        source, shares = self.random, self.twin.model.shares
        if not shares or source.random() < 0.05:
            return {"share": b"no such share id", "members": [key("anna")]}
        name = list(shares)[-1]
        due = sorted(shares[name].unpaid)[: source.randint(1, 3)]
        if not due or source.random() < 0.1:
            due = sorted(set(source.choices(EVERYBODY, k=2)))
        return {"share": name, "members": due}


def _mend(made: dict[str, Any]) -> None:
    """Turn away from what the schema refuses: a payee who is the payer is no matter for the core."""
    if "legs" in made:
        legs = [leg for leg in made["legs"] if leg[0] != made["by"]]
        made["legs"] = legs or [[_other_than(made["by"]), made["legs"][0][1]]]
        most = 10**15 // len(made["legs"])
        made["legs"] = [[payee, min(amount, most)] for payee, amount in made["legs"]]
    for name in ("to", "for"):
        if made.get(name) == made["by"]:
            made[name] = _other_than(made["by"])


def _other_than(peer: bytes) -> bytes:
    return next(name for name in EVERYBODY if name != peer)


def random_policy(source: random.Random, *, melt_to: str) -> dict[str, Any]:
    """The fields in which a made-up policy may differ from `POLICY`; always one that the schema takes."""
    admission = source.choice(("open", "steward", "steward"))
    rates = (0, 673_197, 20_000_000, 300_000_000, source.randint(0, 10**9), 10**9)
    starts = sorted({0, *source.sample(range(1, 3_000), source.choice((0, 0, 1, 2)))})
    return {
        "rest_ticks": source.choice((0, 0, 1, 3, 5)),
        "brackets": [[start, source.choices(rates, weights=(2, 4, 6, 2, 2, 1))[0]] for start in starts],
        "melt_to": melt_to,
        "admission": admission,
        "credit_limit": source.choice((0, 50, 1_000)) if admission == "steward" else 0,
        "vouch_min": source.choice((1, 1, 20)),
        "notice_ticks": source.choice((0, 0, 1, 4)),
    }

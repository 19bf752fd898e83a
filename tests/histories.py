"""What tests of several areas share: peers who sign, statements in envelopes, and the core beside the plain model.

Owns the test peers (by name), `Twin`, which submits every statement to `decide` and to `tests.plain_model` and holds
one to the other, and `Life`, which makes up what people might say next. Must not know storage, HTTP or any clock:
time is a number that a test sets.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any, Final

from gesell_ledger.core.books import ACTIVE, LEFT, PENDING, SUSPENDED, Books, Entry
from gesell_ledger.core.decide import Accepted, Outcome, Replay, Submission, decide
from gesell_ledger.core.needs import Needs, needs_of
from gesell_protocol.canonical import unpack
from gesell_protocol.demurrage import Holding, melt
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, Memo
from gesell_protocol.names import ESCROW, ISSUER, POOL, RESERVED_HOLDERS, Holder, commons_of, uuid7
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import read_statement, write_body
from tests import plain_model
from tests.speaking import POLICY

HOUR_MS: Final = 3_600_000
#: Where test clocks start: the beginning of a tick of an hour, some time in 2025.
START_MS: Final = 490_000 * HOUR_MS
CODE: Final = "WRG"

_SIGNERS: dict[bytes, Signer] = {}


@cache
def key(name: str) -> bytes:
    """The public key of the test peer (or device) of this name; `seal` can sign with it from then on."""
    signer = Signer(sha256(b"a test peer called " + name.encode()).digest())
    _SIGNERS[signer.public_key] = signer
    return signer.public_key


def keys_of(*names: str) -> list[bytes]:
    """The keys of several test peers, ascending, as lists in statements want them."""
    return sorted(key(name) for name in names)


LEDGER: Final = key("the ledger")


def seal(body: bytes, signers: Iterable[bytes], memo: Memo | None = None) -> Envelope:
    """An envelope around a body with true signatures by the test keys `signers`, in any order."""
    message = STATEMENT_PREFIX + body
    return Envelope(body, tuple((name, _SIGNERS[name].sign(message)) for name in sorted(set(signers))), memo)


def submission(fields: Mapping[str, Any], signers: Iterable[bytes], memo: Memo | None = None) -> Submission:
    """A statement of these wire fields, checked and sealed; raises `Rejected` where the schema does."""
    envelope = seal(write_body(fields), signers, memo)
    return Submission(envelope, read_statement(envelope, min_tick_seconds=1))


def stamp(now_ms: int, number: int) -> dict[str, Any]:
    """An id with the time `now_ms` inside and `number` in its random part, and an expiry five minutes later."""
    return {"id": uuid7(now_ms, number.to_bytes(10, "big")), "expires": now_ms + 300_000}


def fields_of(entry: Entry) -> dict[str, Any]:
    """The body of an entry, decoded."""
    fields = unpack(entry.body)
    assert isinstance(fields, dict)
    return fields


# ── The core beside the plain model ──────────────────────────────────────────────────────────────────────────────


def snapshot(books: Books) -> tuple[object, ...]:
    """The books as they stand, to be compared later; the values in them are frozen."""
    return (
        books.commons,
        dict(books.accounts),
        dict(books.members),
        dict(books.held),
        dict(books.keys),
        dict(books.entries),
        dict(books.shares),
    )


def cut(books: Books, needs: Needs) -> Books:
    """The part of the books that storage loads for these needs (`storage.postgres.Batch.load`)."""
    if books.commons is None:
        return Books()
    code = books.commons.currency.code
    members = {peer: member for peer, member in books.members.items() if peer in needs.peers}
    asked = {member.handle for member in members.values() if not member.handle_held}
    holders: set[Holder] = {*needs.peers, *RESERVED_HOLDERS}
    return Books(
        commons=books.commons,
        accounts={name: held for name, held in books.accounts.items() if name[0] in holders and name[1] == code},
        members=members,
        held={handle: peer for handle, peer in books.held.items() if handle in needs.handles | asked},
        keys={
            name: one
            for name, one in books.keys.items()
            if name in needs.keys or (one.live and one.peer in needs.key_rings)
        },
        entries={name: entry for name, entry in books.entries.items() if name in needs.ids},
        shares={
            name: share for name, share in books.shares.items() if name in needs.shares or name == books.commons.share
        },
    )


def replayed(entries: Iterable[Entry], *, ledger: bytes = LEDGER) -> Books:
    """Empty books that took in these entries again, statement by statement; asserts that each comes out the same."""
    books = Books()
    for entry in entries:
        envelope = Envelope(entry.body, tuple(entry.signatures))
        again = Submission(envelope, read_statement(envelope, min_tick_seconds=1))
        outcome = decide(books, again, now_ms=entry.at_ms, ledger=ledger)
        assert isinstance(outcome, Accepted), outcome
        assert outcome.entry == entry
        books.apply(outcome.decision, outcome.entry)
    return books


class Twin:
    """One commons kept twice, by the core and by the plain model; every statement must end alike in both.

    `say` and `submit` return the core's outcome after they have compared it. `now_ms` is the clock, set at will.
    """

    def __init__(
        self, *, stewards: Iterable[str] = ("steward",), threshold: int = 1, now_ms: int = START_MS, **policy: Any
    ) -> None:
        self.now_ms = now_ms
        self.books = Books()
        self.plain = plain_model.PlainLedger(LEDGER)
        self.policy: dict[str, Any] = {**POLICY, **policy}
        self.stewards = keys_of(*stewards)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.submitted: list[Submission] = []
        self.times: list[int] = []
        self.entries: list[Entry] = []
        self._ids = 0
        founding = {
            "type": "found",
            "by": self.stewards[0],
            "ledger": LEDGER,
            "name": "Wörgl",
            "currency": {"code": CODE, "scale": 6},
            "policy": self.policy,
            "stewards": self.stewards,
            "threshold": threshold,
            **self.stamp(),
        }
        self.commons = commons_of(write_body(founding))
        assert isinstance(self.submit(founding, self.stewards), Accepted)

    def stamp(self) -> dict[str, Any]:
        """A fresh id and its expiry, by this twin's clock."""
        self._ids += 1
        return stamp(self.now_ms, self._ids)

    @property
    def tick(self) -> int:
        """The tick of the clock."""
        return self.now_ms // (1000 * int(self.policy["tick_seconds"]))

    @property
    def model(self) -> plain_model.PlainCommons:
        """The plain model's side of the commons."""
        return self.plain.commons[self.commons]

    def pass_ticks(self, ticks: int) -> None:
        """Let time go by."""
        self.now_ms += ticks * 1000 * int(self.policy["tick_seconds"])

    def fields(self, kind: str, by: bytes, **fields: Any) -> dict[str, Any]:
        """The wire fields of a statement in this commons, stamped unless `fields` bring an id of their own."""
        return {"type": kind, "commons": self.commons, "by": by, **self.stamp(), **fields}

    def say(
        self, kind: str, by: bytes, *, signers: Iterable[bytes] | None = None, memo: Memo | None = None, **fields: Any
    ) -> Outcome:
        """Submit a statement, signed by `by` unless `signers` are given, sealed with `memo` if there is one."""
        if memo is not None:
            fields["memo"] = memo.seal()
        return self.submit(self.fields(kind, by, **fields), [by] if signers is None else signers, memo)

    def done(self, kind: str, by: bytes, **fields: Any) -> list[tuple[str, Holder, int]]:
        """Say something that must be accepted; its postings as (reason, holder, amount)."""
        outcome = self.say(kind, by, **fields)
        assert isinstance(outcome, Accepted), outcome
        return [(posting.reason, posting.holder, posting.amount) for posting in outcome.entry.postings]

    def refusal(self, kind: str, by: bytes, **fields: Any) -> str:
        """Say something that must be refused; its code."""
        outcome = self.say(kind, by, **fields)
        assert isinstance(outcome, Refusal), outcome
        return outcome.code

    def submit(self, fields: Mapping[str, Any], signers: Iterable[bytes], memo: Memo | None = None) -> Outcome:
        """Submit wire fields as they are, signed by `signers`."""
        return self.take(submission(fields, signers, memo))

    def take(self, offered: Submission) -> Outcome:
        """Submit to both, compare, and take in what was accepted; asserts what must hold after every statement."""
        statement, envelope = offered.statement, offered.envelope
        # Before it is founded a commons has no name to compare; afterwards another name means other, empty books.
        known = self.books.commons is None or statement.commons == self.commons
        books = self.books if known else Books()
        before = snapshot(books)
        outcome = decide(books, offered, now_ms=self.now_ms, ledger=LEDGER)
        few = decide(cut(books, needs_of([offered])), offered, now_ms=self.now_ms, ledger=LEDGER)
        assert few == outcome, "what needs_of names is enough to decide"
        assert snapshot(books) == before, "deciding changes nothing"
        body = unpack(envelope.body)
        assert isinstance(body, dict)
        answer = self.plain.submit(body, set(envelope.signers), self.now_ms, body_bytes=envelope.body)
        assert told(outcome) == told_plainly(answer), (statement, outcome, answer)
        self.outcomes[statement.type, verdict(outcome)] += 1
        self.submitted.append(offered)
        self.times.append(self.now_ms)
        if isinstance(outcome, Accepted):
            books.apply(outcome.decision, outcome.entry)
            self.entries.append(outcome.entry)
            self._check(outcome)
        return outcome

    def endow(self, holder: Holder, amount: int) -> None:
        """Put money into both books past all statements, to get near the limits in one step; issuer pays."""
        for name, grains in ((holder, amount), (ISSUER, -amount)):
            held = self.books.account(name, CODE)
            up = melt(held, self.books.commons.timeline, self.tick) if self.books.commons else held
            self.books.accounts[name, CODE] = Holding(up.balance + grains, up.escrow, up.tick, up.inflows)
            if isinstance(name, str):
                self.model.reserved[name] += grains
            else:
                self.model.accounts.setdefault(name, plain_model.PlainAccount()).posted += grains

    def balance(self, peer: bytes, *, ticks_ahead: int = 0) -> int:
        """The melted balance of a peer by the clock, the same in both."""
        assert self.books.commons is not None
        tick = self.books.commons.tick_of(max(self.now_ms, self.books.commons.at_ms)) + ticks_ahead
        balance = melt(self.books.account(peer, CODE), self.books.commons.timeline, tick).balance
        at_ms = tick * 1000 * int(self.policy["tick_seconds"])
        assert balance == self.model.balance(peer, at_ms)
        return balance

    def _check(self, accepted: Accepted) -> None:
        books, model = self.books, self.model
        commons = books.commons
        assert commons is not None
        assert sum(held.balance for held in books.accounts.values()) == 0, "every asset sums to zero"
        for holder in (ISSUER, POOL, ESCROW):
            assert books.account(holder, CODE).balance == model.posted(holder)
        assert books.account(POOL, CODE).balance >= 0
        for peer, member in books.members.items():
            assert member.status == model.status(peer)
            assert member.status == LEFT or member.handle == model.handle(peer)
            assert books.account(peer, CODE).balance == model.posted(peer)
            self.balance(peer, ticks_ahead=1)
        assert books.held == model.handles
        assert commons.active_members == sum(member.status == ACTIVE for member in books.members.values())
        assert set(commons.stewards) == model.stewards
        self._check_payer(accepted)

    def _check_payer(self, accepted: Accepted) -> None:
        """No accepted statement takes its payer below its limit."""
        statement = self.submitted[-1].statement
        assert self.books.commons is not None
        if statement.type in ("pay", "retire"):
            limit = self.books.commons.policy_at(accepted.entry.at_ms).credit_limit
            assert self.books.account(statement.by, CODE).balance >= -limit


def verdict(outcome: Outcome) -> str:
    """`accepted`, `replayed` or the code of a refusal."""
    if isinstance(outcome, Refusal):
        return outcome.code
    return "replayed" if isinstance(outcome, Replay) else "accepted"


def told(outcome: Outcome) -> tuple[object, ...]:
    """All of an outcome that the plain model also tells."""
    if isinstance(outcome, Refusal):
        return ("refused", outcome.code, dict(outcome.fields))
    return (verdict(outcome), outcome.entry.seq, outcome.entry.at_ms, [list(p) for p in outcome.entry.postings])


def told_plainly(answer: plain_model.Accepted | plain_model.Refused) -> tuple[object, ...]:
    """The plain model's answer in the form of `told`."""
    if isinstance(answer, plain_model.Refused):
        named = {"available": answer.available, "needed": answer.needed, "limit": answer.limit}
        return ("refused", answer.code, {name: value for name, value in named.items() if value is not None})
    return ("replayed" if answer.replayed else "accepted", answer.seq, answer.at, answer.postings)


# ── Made-up lives ────────────────────────────────────────────────────────────────────────────────────────────────

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
    "leave": 3,
    "stewards": 2,
    "again": 5,
    "conflict": 2,
}


class Life:
    """Makes up a history, one statement at a time, out of a source of randomness; most are sensible, some are not."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        threshold = source.choice((1, 1, 2))
        self.twin = Twin(
            stewards=STEWARDS, threshold=threshold, **random_policy(source, melt_to=source.choice(("pool", "issuer")))
        )
        self._by = self.twin.stewards[0]
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
        if kind in plain_model.LEDGER_TYPES:
            return LEDGER if source.random() < 0.95 else commons.stewards[0]
        if kind in plain_model.STEWARD_TYPES:
            return source.choice(commons.stewards) if source.random() < 0.95 else self._member()
        if kind == "join":
            return source.choice(EVERYBODY)
        active = [peer for peer, member in self.twin.books.members.items() if member.status == ACTIVE]
        if kind in ("pay", "retire") and active and source.random() < 0.8:
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
        if kind in plain_model.STEWARD_TYPES or kind == "erase":
            who |= set(source.sample(commons.stewards, min(commons.threshold, len(commons.stewards))))
        signers = {source.choice(sorted(model.live_keys(peer)) or [peer]) for peer in sorted(who)}
        signers |= set(made.get("add") or ())
        if source.random() < 0.08:
            signers.discard(source.choice(sorted(signers)))
        if source.random() < 0.05 or not signers:
            signers.add(source.choice(EVERYBODY))
        return signers

    def _legs(self, amount: int) -> list[list[Any]]:
        count = self.random.choices((1, 2, 3), weights=(6, 2, 1))[0]
        payees = list(dict.fromkeys(self._active() for _ in range(count)))
        each = max(1, amount // len(payees))
        return [[payee, each] for payee in payees]

    def _balancing(self) -> dict[str, Any]:
        return {"balancing": True} if self.random.random() < 0.2 else {}

    def _pay(self) -> dict[str, Any]:
        legs = self._legs(self._amount(300))
        return {"legs": legs, **(self._balancing() if len(legs) == 1 else {})}

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
    if made.get("to") == made["by"]:
        made["to"] = _other_than(made["by"])


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
        "notice_ticks": source.choice((0, 0, 1, 4)),
    }

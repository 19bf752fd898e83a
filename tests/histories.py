"""What tests of several areas share: peers who sign, statements in envelopes, and the core beside the plain model.

Owns the test peers (by name) and `Twin`, which submits every statement to `decide` and to `tests.plain_model` and holds
one to the other. Must not know storage, HTTP or any clock: time is a number that a test sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any, Final

from gesell_ledger.core.books import ACTIVE, LEFT, SUSPENDED, Books, Entry, Known, Vouches
from gesell_ledger.core.decide import Accepted, Outcome, Replay, Submission, decide
from gesell_ledger.core.needs import Needs, needs_of
from gesell_protocol.canonical import unpack
from gesell_protocol.demurrage import Holding, melt
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, Memo
from gesell_protocol.names import ESCROW, ISSUER, POOL, RESERVED_HOLDERS, Holder, commons_of, uuid7
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Vouch, read_statement, write_body
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


def signer_of(public_key: bytes) -> Signer:
    """The pair of a test peer's key."""
    return _SIGNERS[public_key]


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
        dict(books.gifts),
        dict(books.holds),
        dict(books.vouches),
    )


def cut(books: Books, needs: Needs) -> Books:
    """The part of the books that storage loads for these needs (`storage.postgres.Batch.load`)."""
    if books.commons is None:
        return Books()
    code = books.commons.currency.code
    vouches = {
        pair: grains
        for pair, grains in books.vouches.items()
        if pair in needs.vouches or not needs.vouch_rings.isdisjoint(pair)
    }
    rings = {peer for pair in vouches for peer in pair if not needs.vouch_rings.isdisjoint(pair)}
    holds = {name: hold for name, hold in books.holds.items() if name in needs.holds}
    peers = needs.peers | rings | {peer for hold in holds.values() for peer in (hold.payer, hold.payee)}
    members = {peer: member for peer, member in books.members.items() if peer in peers}
    asked = {member.handle for member in members.values() if not member.handle_held}
    gifts = {name: gift for name, gift in books.gifts.items() if name in needs.gifts}
    accounts = {(holder, code) for holder in (*peers, *RESERVED_HOLDERS)} | needs.gift_accounts
    accounts |= {(holder, gift.kind) for gift in gifts.values() for holder in (gift.giver, gift.receiver)}
    return Books(
        commons=books.commons,
        accounts={name: held for name, held in books.accounts.items() if name in accounts},
        members=members,
        held={handle: peer for handle, peer in books.held.items() if handle in needs.handles | asked},
        keys={
            name: one
            for name, one in books.keys.items()
            if name in needs.keys or (one.live and one.peer in needs.key_rings)
        },
        entries={
            name: entry if entry.body in needs.bodies else Known(entry.body)
            for name, entry in books.entries.items()
            if name in needs.ids
        },
        shares={
            name: share for name, share in books.shares.items() if name in needs.shares or name == books.commons.share
        },
        gifts=gifts,
        holds=holds,
        vouches=Vouches(vouches),
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

    def fields(self, kind: str, /, by: bytes, **fields: Any) -> dict[str, Any]:
        """The wire fields of a statement in this commons, stamped unless `fields` bring an id of their own."""
        return {"type": kind, "commons": self.commons, "by": by, **self.stamp(), **fields}

    def say(
        self,
        kind: str,
        /,
        by: bytes,
        *,
        signers: Iterable[bytes] | None = None,
        memo: Memo | None = None,
        **fields: Any,
    ) -> Outcome:
        """Submit a statement, signed by `by` unless `signers` are given, sealed with `memo` if there is one."""
        if memo is not None:
            fields["memo"] = memo.seal()
        return self.submit(self.fields(kind, by, **fields), [by] if signers is None else signers, memo)

    def done(self, kind: str, /, by: bytes, **fields: Any) -> list[tuple[str, Holder, int]]:
        """Say something that must be accepted; its postings as (reason, holder, amount)."""
        outcome = self.say(kind, by, **fields)
        assert isinstance(outcome, Accepted), outcome
        return [(posting.reason, posting.holder, posting.amount) for posting in outcome.entry.postings]

    def refusal(self, kind: str, /, by: bytes, **fields: Any) -> str:
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
            lent_before = dict(books.vouches)
            books.apply(outcome.decision, outcome.entry)
            self.entries.append(outcome.entry)
            self._check(outcome, lent_before)
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

    def _check(self, accepted: Accepted, lent_before: Mapping[tuple[bytes, bytes], int]) -> None:
        books, model = self.books, self.model
        commons = books.commons
        assert commons is not None
        for asset in {name[1] for name in books.accounts}:
            sums = [held.balance for name, held in books.accounts.items() if name[1] == asset]
            assert sum(sums) == 0, "every asset sums to zero"
        for holder in (ISSUER, POOL, ESCROW):
            assert books.account(holder, CODE).balance == model.posted(holder)
        assert books.account(POOL, CODE).balance >= 0
        for peer, member in books.members.items():
            assert member.status == model.status(peer)
            assert member.status == LEFT or member.handle == model.handle(peer)
            assert books.account(peer, CODE).balance == model.posted(peer)
            assert books.account(peer, CODE).escrow == model.accounts.get(peer, plain_model.PlainAccount()).escrowed
            assert member.awaits == sum(hold.open and hold.payee == peer for hold in model.holds.values())
            self.balance(peer, ticks_ahead=1)
        assert books.held == model.handles
        assert commons.active_members == sum(member.status == ACTIVE for member in books.members.values())
        assert set(commons.stewards) == model.stewards
        holds = {name: (h.payer, h.payee, h.amount, h.until_ms, h.open) for name, h in books.holds.items()}
        assert holds == {name: (h.payer, h.payee, h.amount, h.until, h.open) for name, h in model.holds.items()}
        self._check_gifts(accepted)
        self._check_trust(accepted, lent_before)

    def _check_gifts(self, accepted: Accepted) -> None:
        """Gifts never touch a money account, and what moves money never touches a gift account."""
        books, model = self.books, self.model
        assert books.commons is not None
        is_thanks = self.submitted[-1].statement.type == "thank"
        assets = {posting.asset for posting in accepted.entry.postings}
        assets |= {asset for _, asset in accepted.decision.accounts}
        assert CODE not in assets if is_thanks else assets <= {CODE}
        gifts = {name: (g.giver, g.receiver, g.kind, g.quantity, g.state) for name, g in books.gifts.items()}
        plainly = {name: (g.giver, g.receiver, g.kind, g.quantity, g.state) for name, g in model.gifts.items()}
        assert gifts == plainly
        given = {name: held.balance for name, held in books.accounts.items() if name[1] != CODE}
        assert _without_zeros(given) == _without_zeros(model.given)
        for code, kind in books.commons.kinds.items():
            assert (kind.code, kind.unit, kind.scale) == (code, *model.kinds[code][1:])
            assert code == "hour" or kind.name == model.kinds[code][0]
        assert set(books.commons.kinds) == set(model.kinds)

    def _check_trust(self, accepted: Accepted, lent_before: Mapping[tuple[bytes, bytes], int]) -> None:
        """Trust is lent, not minted; and no accepted statement takes who speaks below its own limit."""
        books, model, at_ms = self.books, self.model, accepted.entry.at_ms
        assert books.commons is not None
        assert books.vouches == model.vouches
        limit, tick = books.commons.policy_at(at_ms).credit_limit, books.commons.tick_of(at_ms)
        for peer, member in books.members.items():
            trusted = [grains for (_, whom), grains in books.vouches.items() if whom == peer]
            lent = [grains for (by, _), grains in books.vouches.items() if by == peer]
            assert (member.trusted, member.vouchers) == (sum(trusted), len(trusted))
            assert (member.lent, member.vouchees) == (sum(lent), len(lent))
            assert member.credit_limit(limit) == model.credit_limit(peer, tick)
        within = [member for member in books.members.values() if member.status in (ACTIVE, SUSPENDED)]
        assert sum(member.credit_limit(limit) for member in within) == limit * len(within)
        assert all(grains > 0 for grains in books.vouches.values())
        statement = self.submitted[-1].statement
        raised = isinstance(statement, Vouch) and statement.limit > lent_before.get((statement.by, statement.whom), 0)
        if raised or statement.type in ("pay", "retire", "hold"):
            balance = melt(books.account(statement.by, CODE), books.commons.timeline, tick).balance
            assert balance >= -books.members[statement.by].credit_limit(limit)


def _without_zeros(balances: Mapping[tuple[Holder, str], int]) -> dict[tuple[Holder, str], int]:
    return {name: balance for name, balance in balances.items() if balance}


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

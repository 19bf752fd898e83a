"""The real service, on a real PostgreSQL and over HTTP, beside the plain model: they must never differ by a grain.

Owns: what is said to both, and the comparison. Must not know: how either of them decides.

The ledger's clock runs by itself, 86,400 times as fast as ours, and can't be set. So for what is accepted the model
is given the `at` of the receipt; for what is refused it must refuse alike at some moment between the reading of the
clock before the request and the one after. What the ledger says itself (sweeps and payouts) is read back from the
entries and said to the model too. Nothing that hypothesis draws depends on the clock, so that the choices, if not
their moments, are the same in every run.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.names import did_of, id_text, peer_of, unbase64url
from gesell_protocol.receipts import check_receipt, read_receipt
from gesell_protocol.statements import read_statement, write_body
from tests.hold_readings import hold_readings
from tests.plain_model import Accepted, PlainCommons, PlainLedger, Refused
from tests.running import Service, running
from tests.speaking import HOUR_MS, POLICY, Line, fields_of, name_of, sign_body, signer_of, write_envelope, write_found

EXAMPLES = 10
STEPS = 45
EXPIRES_MS = 6 * 24 * HOUR_MS  # six of our seconds: more than any stall of the test
#: What the service has if nothing is said (docs/readings.md).
HALF_LIFE_MS = 180 * 24 * HOUR_MS
LINES = 3  # connections that say the same at once

PEERS = [signer_of(f"peer {n}") for n in range(6)]
SPARE = [signer_of(f"spare {n}") for n in range(4)]
STRANGER = signer_of("stranger")
#: The first two are members most of the time, the last two never join: stewards need not be members.
STEWARDS = [PEERS[0], PEERS[1], signer_of("steward 2"), signer_of("steward 3")]
KINDS = ["bread", "song"]
HANDLES = ["anna", "ben", "carl", "dora", "emil", "finn", "gita"]
SIGNER_OF_KEY = {signer.public_key: signer for signer in [*PEERS, *SPARE, *STEWARDS, STRANGER]}
PLACE = {peer.public_key: place for place, peer in enumerate(PEERS)}

BRACKETS = [
    [[0, 20_000_000]],
    [[0, 3_000_000], [500, 30_000_000], [4_000, 250_000_000]],
    [[0, 0], [1_000, 70_000_000]],
    [[0, 1_000_000_000]],
]

peers = st.integers(0, len(PEERS) - 1)
#: How much of what the payer has: fractions in percent, so that what is exact, a little less and too much all come.
parts = st.sampled_from([1, 3, 10, 40, 100, 101, 300])
signings = st.sampled_from(["right"] * 9 + ["stranger", "short", "more"])
stretches_ms = st.sampled_from([HOUR_MS // 4, HOUR_MS, 3 * HOUR_MS, 9 * HOUR_MS])
#: Credit in an open commons is malformed by its form alone, which the model leaves to who parses.
admissions = st.sampled_from([("open", 0), ("steward", 0), ("steward", 700), ("steward", 700), ("steward", 5_000)])
policies = st.fixed_dictionaries(
    {
        "rest_ticks": st.sampled_from([0, 0, 1, 4]),
        "brackets": st.sampled_from(BRACKETS),
        "notice_ticks": st.sampled_from([0, 0, 2]),
    }
)


@pytest.fixture(scope="module")
def demo() -> Iterator[Service]:
    """A service whose seconds are days, and which sweeps often."""
    with running("--min-tick-seconds", "1", "--demo", "--clock-speed", "86400", "--sweep-ticks", "6") as started:
        yield started


class LedgerMachine(RuleBasedStateMachine):
    """One commons of the service, and the same in the model."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.lines = [Line(url) for _ in range(LINES)]
        self.line = self.lines[0]
        self.ledger = self.line.ledger()
        self.model = PlainLedger(self.ledger)
        self.name = b""
        self.path = ""
        #: All that was accepted of us, for replays; and the model after each entry, from entry 1 on, pickled.
        self.said: list[Envelope] = []
        self.after: list[bytes] = []
        self.receipts: dict[bytes, Any] = {}

    # ── Saying the same to both ──────────────────────────────────────────────────────────────────────────────────

    @property
    def books(self) -> PlainCommons:
        return self.model.commons[self.name]

    def books_after(self, seq: int) -> PlainCommons:
        """The model as it was after an entry."""
        books = pickle.loads(self.after[seq - 1])
        assert isinstance(books, PlainCommons)
        return books

    def write(self, kind: str, by: bytes, signers: Sequence[Signer], /, **fields: Any) -> Envelope:
        now = self.line.time()
        return write_envelope(kind, by, signers, now_ms=now, expires=now + EXPIRES_MS, commons=self.name, **fields)

    def say(self, kind: str, by: bytes, signers: Sequence[Signer], /, **fields: Any) -> Any:
        return self.submit([self.write(kind, by, signers, **fields)])[0]

    def submit(self, envelopes: Sequence[Envelope]) -> list[Any]:
        """Say some statements in one request to the service, then the same to the model."""
        before = self.line.time()
        results = self.line.post(envelopes)
        after = self.line.time()
        for envelope, result in zip(envelopes, results, strict=True):
            self.compare(envelope, result, before, after)
        return results

    def compare(self, envelope: Envelope, result: Any, before: int, after: int) -> None:
        if result["status"] == "refused":
            self.compare_refusal(envelope, result["problem"], before, after)
            return
        receipt = result["receipt"]
        if result["status"] == "accepted":
            self.catch_up(receipt["seq"] - 1)
            assert before <= receipt["at"] <= after
        answer = self.tell_model(envelope, receipt["at"])
        assert isinstance(answer, Accepted), (answer, result)
        assert answer.replayed == (result["status"] == "replayed")
        assert [answer.seq, answer.at, answer.postings] == [receipt["seq"], receipt["at"], receipt["postings"]]
        statement = read_statement(envelope, min_tick_seconds=1)
        assert receipt == self.receipts.setdefault(statement.id, receipt)
        if result["status"] == "accepted":
            check_receipt(read_receipt(receipt), envelope=envelope, statement=statement, currency="WRG")
            self.said.append(envelope)

    def compare_refusal(self, envelope: Envelope, problem: Any, before: int, after: int) -> None:
        """The model refuses alike at some moment, before or after something that the ledger said meanwhile."""
        seen = _fields_of(problem)
        thought = self.refusals(envelope, before, after)
        if seen in thought:
            return
        for entry in self.line.items(f"{self.path}/entries?after={self.books.seq}") if self.name else []:
            if peer_of(entry["by"]) != self.ledger:
                break
            self.hear(entry)
            thought += self.refusals(envelope, before, after)
        assert seen in thought, (fields_of(envelope), problem, thought)

    def refusals(self, envelope: Envelope, before: int, after: int) -> list[Any]:
        """What the model would say at each moment at which it might say something else."""
        moments = [before, after]
        if self.name:
            first, last = self.books.tick(before), self.books.tick(after)
            moments += [tick * self.books.tick_ms for tick in range(first + 1, last + 1)]
        said = []
        # Several times as quick as a deep copy, of which there are some thousands.
        before_it = pickle.dumps(self.model)
        for moment in moments:
            kept = pickle.loads(before_it)
            answer = self.tell(kept, envelope, moment)
            if isinstance(answer, Refused):
                said.append([answer.code, answer.available, answer.needed, answer.limit])
            else:
                said.append(["accepted"])
        return said

    def catch_up(self, seq: int) -> None:
        """Hear what the ledger itself said, up to an entry."""
        if not self.name or self.books.seq >= seq:
            return
        for entry in self.line.items(f"{self.path}/entries?after={self.books.seq}"):
            if entry["seq"] <= seq:
                self.hear(entry)

    def hear(self, entry: Any) -> None:
        """Say to the model what the ledger said by itself."""
        assert peer_of(entry["by"]) == self.ledger, entry
        signatures = tuple((peer_of(s["key"]), unbase64url(s["signature"])) for s in entry["signatures"])
        answer = self.tell_model(Envelope(unbase64url(entry["body"]), signatures), entry["at"])
        assert isinstance(answer, Accepted), (answer, entry)
        assert not answer.replayed
        assert (answer.seq, _plain(answer.postings)) == (entry["seq"], entry["postings"])

    def tell_model(self, envelope: Envelope, at: int) -> Accepted | Refused:
        answer = self.tell(self.model, envelope, at)
        if isinstance(answer, Accepted) and not answer.replayed:
            name = fields_of(envelope).get("commons") or name_of(envelope)
            self.after.append(pickle.dumps(self.model.commons[name]))
        return answer

    def tell(self, model: PlainLedger, envelope: Envelope, at: int) -> Accepted | Refused:
        body = fields_of(envelope)
        return model.submit(body, set(envelope.signers), at, body_bytes=envelope.body)

    def keys_of(self, peer: bytes, signing: str) -> list[Signer]:
        """Who signs for a peer: one of its live keys, or as `signing` says, nobody who may, or somebody beside."""
        live = sorted(self.books.live_keys(peer))
        key = SIGNER_OF_KEY[live[0]]
        return {"right": [key], "short": [key], "stranger": [STRANGER], "more": [key, STRANGER]}[signing]

    def stewards_sign(self, signing: str) -> tuple[bytes, list[Signer]]:
        """The steward who speaks, and the keys of just enough stewards; `short`: of one too few, or no steward."""
        stewards = sorted(self.books.stewards)
        few = self.books.threshold - (signing == "short")
        keys = [key for steward in stewards[:few] for key in self.keys_of(steward, "right")]
        if signing in ("stranger", "more"):
            keys = [*keys[signing == "stranger" :], STRANGER]
        return (stewards[0] if few else STRANGER.public_key), keys or [STRANGER]

    def amount(self, holder: bytes | str, part: int) -> int:
        """A part (percent) of what a holder has by now, credit included; at least a grain."""
        has = self.books.balance(holder, max(self.books.last_at, self.line.time()))
        if isinstance(holder, bytes):
            has += self.books.credit_limit(holder, self.books.tick(self.books.last_at))
        return max(1, has * part // 100)

    # ── Founding ─────────────────────────────────────────────────────────────────────────────────────────────────

    @initialize(
        policy=policies,
        admission=admissions,
        tick_seconds=st.sampled_from([600, 3600, 3600, 43_200]),
        melt_to=st.sampled_from(["pool", "pool", "issuer"]),
        threshold=st.sampled_from([1, 2]),
    )
    def found(
        self, policy: dict[str, Any], admission: tuple[str, int], tick_seconds: int, melt_to: str, threshold: int
    ) -> None:
        policy = {**POLICY, **policy, "tick_seconds": tick_seconds, "melt_to": melt_to}
        policy["admission"], policy["credit_limit"] = admission
        now = self.line.time()
        found = write_found(
            STEWARDS[: threshold + 1],
            ledger=self.ledger,
            now_ms=now,
            expires=now + EXPIRES_MS,
            policy=policy,
            threshold=threshold,
        )
        self.name = name_of(found)
        # In one request, so in one batch: what a founding begins is counted with it.
        steward = STEWARDS[: threshold + 1][0].public_key
        kind = {"code": "meal", "name": "Meal", "unit": "1", "scale": 0}
        made = self.write("kind", steward, STEWARDS[: threshold + 1], **kind)
        self.name = b""
        results = self.submit([found, made])
        assert [result["status"] for result in results] == ["accepted", "accepted"]
        self.name = name_of(found)
        self.path = f"/v1/commons/{self.name.hex()}"
        joins = [
            self.write("join", peer.public_key, [peer], handle=handle)
            for peer, handle in zip(PEERS[:5], HANDLES[:5], strict=True)
        ]
        self.submit(joins)
        steward, keys = self.stewards_sign("right")
        made = []
        for place, peer in enumerate(PEERS[:5]):
            if self.books.status(peer.public_key) == "pending":
                made.append(self.write("admit", steward, keys, peer=peer.public_key))
            if peer.public_key != steward:
                made.append(self.write("issue", steward, keys, to=peer.public_key, amount=3_000 * (place + 1)))
        results = self.submit(made)
        assert {one["status"] for one in results} == {"accepted"}

    # ── Membership ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=peers, handle=st.sampled_from(HANDLES), signing=signings)
    def join(self, who: int, handle: str, signing: str) -> None:
        peer = PEERS[who].public_key
        self.say("join", peer, self.keys_of(peer, signing), handle=handle)

    @rule(whom=peers, kind=st.sampled_from(["admit", "admit", "suspend"]), signing=signings)
    def judge(self, whom: int, kind: str, signing: str) -> None:
        steward, keys = self.stewards_sign(signing)
        self.say(kind, steward, keys, peer=PEERS[whom].public_key)

    @rule(who=peers, signing=signings)
    def leave(self, who: int, signing: str) -> None:
        peer = PEERS[who].public_key
        self.say("leave", peer, self.keys_of(peer, signing))

    @rule(
        who=peers,
        add=st.sets(st.integers(0, len(SPARE) - 1), max_size=2),
        revoke=st.sets(st.integers(0, len(SPARE)), max_size=2),
        signs=st.integers(0, 3),
        short=st.booleans(),
    )
    def change_keys(self, who: int, add: set[int], revoke: set[int], signs: int, short: bool) -> None:
        peer = PEERS[who]
        adds = [SPARE[n].public_key for n in sorted(add - revoke)]
        revokes = [[*SPARE, peer][n].public_key for n in sorted(revoke)]
        live = sorted(self.books.live_keys(peer.public_key))
        signers = [SIGNER_OF_KEY[live[signs % len(live)]]]
        if not short:
            signers += [SIGNER_OF_KEY[key] for key in adds]
        fields: dict[str, Any] = {name: keys for name, keys in (("add", adds), ("revoke", revokes)) if keys}
        if fields:
            self.say("keys", peer.public_key, signers, **fields)

    @rule(
        change=policies,
        admission=admissions,
        ahead=st.sampled_from([0, 1, 2, 3, 5, 40]),
        signing=signings,
        longer=st.sampled_from([0, 0, 0, 1]),
    )
    def change_policy(
        self, change: dict[str, Any], admission: tuple[str, int], ahead: int, signing: str, longer: int
    ) -> None:
        first = self.books_after(1).policy(0)
        policy = {**first, **change, "tick_seconds": first["tick_seconds"] + longer}
        policy["admission"], policy["credit_limit"] = admission
        steward, keys = self.stewards_sign(signing)
        from_tick = self.books.tick(self.line.time()) + ahead
        self.say("policy", steward, keys, policy=policy, from_tick=from_tick)

    @rule(first=st.integers(0, 3), count=st.integers(1, 3), short=st.booleans())
    def change_stewards(self, first: int, count: int, short: bool) -> None:
        new = [STEWARDS[(first + n) % len(STEWARDS)].public_key for n in range(count)]
        steward, keys = self.stewards_sign("right")
        if not short:
            keys += [key for one in new for key in self.keys_of(one, "right")]
        self.say("stewards", steward, keys, stewards=sorted(new), threshold=min(count, 2))

    # ── Money ────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(to=peers, amount=st.sampled_from([1, 250, 2_000, 9_999, 10**15]), signing=signings)
    def issue(self, to: int, amount: int, signing: str) -> None:
        steward, keys = self.stewards_sign(signing)
        if steward != PEERS[to].public_key:
            self.say("issue", steward, keys, to=PEERS[to].public_key, amount=amount)

    @rule(who=peers, part=parts, balancing=st.booleans(), signing=signings)
    def retire(self, who: int, part: int, balancing: bool, signing: str) -> None:
        peer = PEERS[who].public_key
        fields = {"balancing": True} if balancing else {}
        self.say("retire", peer, self.keys_of(peer, signing), amount=self.amount(peer, part), **fields)

    def write_pay(self, who: int, to: Sequence[int], part: int, signing: str, **fields: Any) -> Envelope:
        payer = PEERS[who].public_key
        payees = [PEERS[one].public_key for one in to if one != who] or [PEERS[(who + 1) % len(PEERS)].public_key]
        amount = self.amount(payer, part)
        legs = [[payee, max(1, amount // (place + 1))] for place, payee in enumerate(payees)]
        return self.write("pay", payer, self.keys_of(payer, signing), legs=legs, **fields)

    @rule(who=peers, to=st.permutations(range(len(PEERS))), legs=st.integers(1, 4), part=parts, signing=signings)
    def pay(self, who: int, to: Sequence[int], legs: int, part: int, signing: str) -> None:
        self.submit([self.write_pay(who, to[:legs], part, signing)])

    @rule(who=peers, to=peers, part=parts)
    def pay_what_there_is(self, who: int, to: int, part: int) -> None:
        self.submit([self.write_pay(who, [to], part, "right", balancing=True)])

    @rule(pays=st.lists(st.tuples(peers, peers, parts), min_size=2, max_size=8))
    def pay_in_one_request(self, pays: list[tuple[int, int, int]]) -> None:
        self.submit([self.write_pay(who, [to], part, "right") for who, to, part in pays])

    @rule(to=st.permutations(range(len(PEERS))), legs=st.integers(1, 3), part=parts, signing=signings)
    def grant(self, to: Sequence[int], legs: int, part: int, signing: str) -> None:
        steward, keys = self.stewards_sign(signing)
        payees = [PEERS[one].public_key for one in to[:legs] if PEERS[one].public_key != steward]
        if payees:
            amount = max(1, self.amount("pool", part) // len(payees))
            self.say("grant", steward, keys, legs=[[payee, amount] for payee in payees])

    @rule(part=parts, signing=signings, again=st.booleans())
    def share(self, part: int, signing: str, again: bool) -> None:
        steward, keys = self.stewards_sign(signing)
        amount = self.amount("pool", part)
        shares = [self.write("share", steward, keys, amount=amount) for _ in range(1 + again)]
        results = self.submit(shares)
        if results[0]["status"] == "accepted":
            self.await_payout(fields_of(shares[0])["id"])

    def await_payout(self, share: bytes) -> None:
        """The ledger pays out by itself; hear it before we go on, else it would wait for a later rule to hear it."""
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            self.catch_up(self.line.get(self.path)["seq"])
            if not self.books.shares[share].unpaid:
                return
        raise AssertionError("the share is not paid out")

    # ── Holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=peers, to=peers, part=parts, ahead_ms=st.sampled_from([HOUR_MS, 8 * HOUR_MS, 31 * 24 * HOUR_MS]))
    def hold(self, who: int, to: int, part: int, ahead_ms: int) -> None:
        payer, payee = PEERS[who], PEERS[to if to != who else to - 1].public_key
        until = self.line.time() + ahead_ms
        amount = self.amount(payer.public_key, part)
        keys = self.keys_of(payer.public_key, "right")
        held = self.say("hold", payer.public_key, keys, to=payee, amount=amount, until=until)
        if held["status"] == "accepted" and part == 40:
            fields = {"hold": held["receipt"]["id"], "amount": amount // 2}
            self.say("capture", payee, self.keys_of(payee, "right"), **fields)

    @rule(which=st.integers(0, 50), by=st.sampled_from(["payer", "payee", "payee", 0]), part=parts, void=st.booleans())
    def end_a_hold(self, which: int, by: str | int, part: int, void: bool) -> None:
        """By whom it concerns or by another; more than is held, or nothing of it; what is over, too."""
        if not self.books.holds:
            return
        name, hold = list(self.books.holds.items())[-1 - which % len(self.books.holds)]
        peer = PEERS[by].public_key if isinstance(by, int) else {"payer": hold.payer, "payee": hold.payee}[by]
        fields = {} if void else {"amount": hold.amount * part // 100}
        self.say("void" if void else "capture", peer, self.keys_of(peer, "right"), hold=name, **fields)

    # ── Gifts and trust ──────────────────────────────────────────────────────────────────────────────────────────

    @rule(code=st.sampled_from(KINDS), signing=signings)
    def make_kind(self, code: str, signing: str) -> None:
        steward, keys = self.stewards_sign(signing)
        self.say("kind", steward, keys, code=code, name=code.title(), unit="1", scale=1)

    @rule(
        who=peers,
        to=st.one_of(peers, st.just("pool")),
        kind=st.sampled_from([*KINDS, "hour", "hour"]),
        quantity=st.sampled_from([1, 150, 10**15]),
        after=st.lists(st.integers(0, 500), max_size=2, unique=True),
        signing=signings,
    )
    def give(self, who: int, to: int | str, kind: str, quantity: int, after: list[int], signing: str) -> None:
        giver = PEERS[who].public_key
        receiver = to if isinstance(to, str) else PEERS[to if to != who else to - 1].public_key
        offered = list(self.books.gifts)
        moved_by = list(dict.fromkeys(offered[place % len(offered)] for place in after)) if offered else []
        fields = {"after": moved_by} if moved_by else {}
        keys = self.keys_of(giver, signing)
        given = self.say("gift", giver, keys, to=receiver, kind=kind, quantity=quantity, **fields)
        if given["status"] == "accepted" and isinstance(receiver, bytes) and quantity == 150:
            self.say("thank", receiver, self.keys_of(receiver, "right"), gift=given["receipt"]["id"])

    @rule(which=st.integers(0, 20), kind=st.sampled_from(["thank"] * 4 + ["decline", "withdraw"]), other=st.booleans())
    def answer_a_gift(self, which: int, kind: str, other: bool) -> None:
        """By who may, the stewards for one to the pool, or by the other side."""
        if not self.books.gifts:
            return
        name, gift = list(self.books.gifts.items())[-1 - which % len(self.books.gifts)]
        speaker = gift.giver if (kind == "withdraw") != other else gift.receiver
        if isinstance(speaker, str):
            steward, keys = self.stewards_sign("right")
            self.say(kind, steward, keys, gift=name)
        else:
            self.say(kind, speaker, self.keys_of(speaker, "right"), gift=name)

    @rule(by=peers, whom=peers, limit=st.sampled_from([0, 1, 50, 300, 300, 701]), signing=signings)
    def vouch(self, by: int, whom: int, limit: int, signing: str) -> None:
        voucher = PEERS[by].public_key
        vouchee = PEERS[whom if whom != by else whom - 1].public_key
        self.say("vouch", voucher, self.keys_of(voucher, signing), **{"for": vouchee}, limit=limit)

    @rule(by=peers, whom=peers, to=peers, lost=st.booleans())
    def stand_up_for(self, by: int, whom: int, to: int, lost: bool) -> None:
        """A vouch that is spent: who gave it can't take it back; and one that is lost."""
        voucher, vouchee = PEERS[by].public_key, PEERS[whom if whom != by else whom - 1].public_key
        keys = self.keys_of(voucher, "right")
        self.say("vouch", voucher, keys, **{"for": vouchee}, limit=200)
        self.submit([self.write_pay(whom if whom != by else whom - 1, [to], 100, "right")])
        self.say("vouch", voucher, keys, **{"for": vouchee}, limit=0)
        if lost:
            steward, signers = self.stewards_sign("right")
            self.say("writeoff", steward, signers, peer=vouchee)

    @rule(whom=peers, signing=signings)
    def write_off(self, whom: int, signing: str) -> None:
        steward, keys = self.stewards_sign(signing)
        self.say("writeoff", steward, keys, peer=PEERS[whom].public_key)

    # ── Once, and in time ────────────────────────────────────────────────────────────────────────────────────────

    @rule(which=st.integers(0, 500), count=st.integers(1, 3))
    def replay(self, which: int, count: int) -> None:
        envelope = self.said[which % len(self.said)]
        self.submit([envelope] * count)

    @rule(which=st.integers(0, 500), shift=st.integers(1, 3))
    def use_an_id_again(self, which: int, shift: int) -> None:
        """The same id and signers, but another body; entry 1 has another commons' name in it then."""
        envelope = self.said[1 + which % (len(self.said) - 1)]
        body = fields_of(envelope)
        other = write_body({**body, "expires": body["expires"] + shift})
        self.submit([sign_body(other, [SIGNER_OF_KEY[key] for key in envelope.signers])])

    @rule(who=peers, to=peers, part=parts)
    def say_the_same_at_once(self, who: int, to: int, part: int) -> None:
        """Over several connections: one entry, one receipt for all; or the same refusal for all."""
        envelope = self.write_pay(who, [to], part, "right")
        before = self.line.time()
        with ThreadPoolExecutor(LINES) as threads:
            results = [each[0] for each in threads.map(lambda line: line.post([envelope] * 2), self.lines)]
        after = self.line.time()
        results.sort(key=lambda result: ["accepted", "replayed", "refused"].index(result["status"]))
        assert [result["status"] for result in results].count("accepted") <= 1
        for result in results:
            self.compare(envelope, result, before, after)

    @rule(who=peers, to=peers, late=st.booleans(), days=st.integers(5, 9))
    def say_at_the_wrong_time(self, who: int, to: int, late: bool, days: int) -> None:
        """Days off, so that no haste or stall of the test makes it right; but what has expired may be a replay."""
        now = self.line.time() + (-days if late else days) * 24 * HOUR_MS
        payer, payee = PEERS[who], PEERS[to if to != who else to - 1].public_key
        envelope = write_envelope(
            "pay", payer.public_key, [payer], now_ms=now, commons=self.name, legs=[[payee, 1]], expires=now + 1
        )
        (result,) = self.submit([envelope])
        assert result["problem"]["code"] == ("expired" if late else "too-early")

    @rule(which=st.integers(0, 500))
    def break_a_signature(self, which: int) -> None:
        """Even what was accepted before is refused, and the model never hears of it."""
        envelope = self.said[which % len(self.said)]
        key, signature = envelope.signatures[-1]
        broken = bytes([signature[0] ^ 1]) + signature[1:]
        (result,) = self.line.post([Envelope(envelope.body, (*envelope.signatures[:-1], (key, broken)))])
        assert result["problem"]["code"] == "bad-signature"

    @rule(ledger=st.booleans())
    def speak_to_nobody(self, ledger: bool) -> None:
        """A founding for another ledger; a statement in a commons that nobody founded."""
        now = self.line.time()
        found = write_found([STRANGER], ledger=STRANGER.public_key, now_ms=now)
        leave = write_envelope(
            "leave", STRANGER.public_key, [STRANGER], now_ms=now, expires=now + EXPIRES_MS, commons=name_of(found)
        )
        self.submit([found if ledger else leave])

    # ── Memos ────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule(who=peers, to=peers, by=peers, signing=signings)
    def erase_a_memo(self, who: int, to: int, by: int, signing: str) -> None:
        memo = Memo(bytes(16), "für die Äpfel")
        envelope = self.write_pay(who, [to], 3, "right", memo=memo)
        (result,) = self.submit([envelope])
        if result["status"] != "accepted":
            return
        receipt = result["receipt"]
        path = f"{self.path}/entries/{receipt['seq']}"
        assert self.line.get(path)["memo"]["text"] == memo.text
        peer = PEERS[by].public_key
        erased = self.say("erase", peer, self.keys_of(peer, signing), statement=receipt["id"])
        assert ("memo" in self.line.get(path)) == (erased["status"] != "accepted")

    # ── Time passes, and somebody reads ──────────────────────────────────────────────────────────────────────────

    @rule(stretch_ms=stretches_ms)
    def wait(self, stretch_ms: int) -> None:
        until = self.line.time() + stretch_ms
        while self.line.time() < until:
            time.sleep(0.01)

    @rule(who=peers, which=st.integers(0, 500), later_ms=st.sampled_from([0, 1, HOUR_MS, 30 * HOUR_MS]))
    def look_back(self, who: int, which: int, later_ms: int) -> None:
        self.look(PEERS[who].public_key, self.books_after(which % len(self.after) + 1).last_at + later_ms)

    @rule(who=peers, ticks=st.sampled_from([0, 1, 7, 200]))
    def look_ahead(self, who: int, ticks: int) -> None:
        self.look(PEERS[who].public_key, self.line.time() + ticks * self.books.tick_ms)

    def look(self, peer: bytes, at: int) -> None:
        """A balance at a moment, past or to come, is what the model had after the same entry, melted so far."""
        status, answer = self.line.ask(f"{self.path}/members/{did_of(peer)}/balances?at={at}")
        self.catch_up(self.line.get(self.path)["seq"])
        if status == 404 and self.books.status(peer) is None:
            assert answer["code"] == "unknown-member"
            return
        assert status == 200, answer
        books = self.books_after(answer["seq"])
        assert books.last_at <= at
        tick = books.tick(at)
        balance = books.balance(peer, at)
        (item,) = answer["items"]
        assert item == {
            "asset_code": "WRG",
            "asset_scale": 2,
            "balance": str(balance),
            "available": str(max(0, balance + self.credit_limit(books, peer, tick))),
            "escrow": str(sum(hold.amount for hold in books.holds.values() if hold.open and hold.payer == peer)),
            "posted": str(books.posted(peer)),
            "next_melt": str(balance - books.balance(peer, (tick + 1) * books.tick_ms)),
        }
        assert answer["tick"] == tick
        assert {(one["asset_code"], int(one["received"]) - int(one["given"])) for one in answer["gifts"]} == {
            (kind, count) for (holder, kind), count in books.given.items() if holder == peer
        }

    def credit_limit(self, books: PlainCommons, peer: bytes, tick: int) -> int:
        """By the vouches of `books`, and the policies known now."""
        policies, books.policies = books.policies, self.books.policies
        try:
            return books.credit_limit(peer, tick)
        finally:
            books.policies = policies

    # ── At the end ───────────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        if self.name:
            self.compare_all()
        for line in self.lines:
            line.close()

    def compare_all(self) -> None:
        """Every entry, every history, every member, and the sums."""
        entries = self.line.items(f"{self.path}/entries?limit=200")
        self.catch_up(entries[-1]["seq"])
        assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
        said = [[seq, at, posting] for seq, at, posting in self.books.lines if seq <= len(entries)]
        seen = [[e["seq"], e["at"], p] for e in entries for p in e["postings"]]
        assert [[seq, at, *_plain([posting])] for seq, at, posting in said] == seen
        assert all(sum(int(posting[3]) for posting in entry["postings"]) == 0 for entry in entries)
        assert sum(self.books.reserved.values()) + sum(a.posted for a in self.books.accounts.values()) == 0
        counts: Counter[str] = Counter()
        for (_, kind), count in self.books.given.items():
            counts[kind] += count
        assert not any(counts.values())
        for envelope in self.said:
            self.compare_receipt(envelope)
        for peer in PEERS:
            self.compare_member(peer.public_key)
        self.compare_head()
        self.compare_gifts()
        self.compare_readings()

    def compare_readings(self) -> None:
        """Relationships, standing and flow are what a slow fold of the entries makes."""
        known = [did_of(peer.public_key) for peer in PEERS if self.books.status(peer.public_key) is not None]
        members = [did for did in known if self.line.ask(f"{self.path}/members/{did}/standing")[0] == 200]
        hold_readings(self.line, self.path, members, half_life_ms=HALF_LIFE_MS)

    def compare_gifts(self) -> None:
        """Every gift, what became of it, and the thread in both directions."""
        listed = self.line.items(f"{self.path}/gifts?limit=7")
        assert [gift["seq"] for gift in listed] == sorted((gift["seq"] for gift in listed), reverse=True)
        seen = {
            gift["id"]: (gift["from"], gift["to"], gift["kind"], gift["quantity"], gift["state"]) for gift in listed
        }
        assert seen == {
            id_text(name): (did_of(g.giver), _holder(g.receiver), g.kind, str(g.quantity), g.state)
            for name, g in self.books.gifts.items()
        }
        moved = {(before, gift["id"]) for gift in listed for before in gift.get("after", ())}
        for gift in listed[:10]:
            found = self.line.get(f"{self.path}/gifts/{gift['id']}")
            assert {one["id"] for one in found.pop("moved")} == {one for before, one in moved if before == gift["id"]}
            assert found == gift

    def compare_receipt(self, envelope: Envelope) -> None:
        name = fields_of(envelope)["id"]
        receipt = self.receipts[name]
        found = self.line.get(f"{self.path}/statements/{id_text(name)}")
        assert [found["seq"], found["at"], found["leaf"]] == [receipt["seq"], receipt["at"], receipt["leaf"].hex()]
        assert found["postings"] == _plain(receipt["postings"])

    def compare_member(self, peer: bytes) -> None:
        status, member = self.line.ask(f"{self.path}/members/{did_of(peer)}")
        if self.books.status(peer) is None:
            assert status == 404
            return
        assert (member["status"], member["handle"]) == (self.books.status(peer), self.books.handle(peer))
        assert {peer_of(key) for key in member["keys"]} == self.books.live_keys(peer)
        limit = self.books.credit_limit(peer, self.books.tick(self.line.time()))
        assert member["credit_limit"] == str(limit)
        lines = self.line.items(f"{self.path}/members/{did_of(peer)}/postings?limit=50")
        self.catch_up(self.line.get(self.path)["seq"])
        seen = [(e["seq"], e["at"], e["reason"], int(e["amount"]), int(e["balance"])) for e in lines]
        said = self.books.history(peer)
        assert seen == said[: len(seen)]
        assert all(line[2] == "melt" for line in said[len(seen) :])

    def compare_head(self) -> None:
        """The commons; read between two equal numbers, since the ledger may sweep at any moment."""
        head = self.line.get(self.path)
        self.catch_up(head["seq"])
        books = self.books_after(head["seq"])
        active = sum(1 for peer in PEERS if books.status(peer.public_key) == "active")
        assert int(head["supply"]) == -books.reserved["issuer"]
        assert (int(head["pool"]), int(head["escrow"])) == (books.reserved["pool"], books.reserved["escrow"])
        assert {kind["code"] for kind in head["kinds"]} == set(books.kinds)
        assert (head["members"], head["threshold"]) == (active, books.threshold)
        assert {peer_of(steward) for steward in head["stewards"]} == books.stewards


def _fields_of(problem: Any) -> list[Any]:
    return [problem["code"], *(problem.get(name) for name in ("available", "needed", "limit"))]


def _holder(holder: bytes | str) -> str:
    return holder if isinstance(holder, str) else did_of(holder)


def _plain(postings: Sequence[Any]) -> list[list[str]]:
    """Postings as JSON has them."""
    return [[reason, _holder(holder), asset, str(amount)] for reason, holder, asset, amount in postings]


def test_service_and_plain_model_agree_whatever_is_said(demo: Service) -> None:
    try:
        run_state_machine_as_test(
            lambda: LedgerMachine(demo.url),  # type: ignore[arg-type]  # any maker will do
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=True,
                database=None,
                deadline=None,
                # Not shrunk: the moments differ from run to run, so a smaller example would often not be one.
                phases=(Phase.explicit, Phase.generate),
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        error.add_note(f"the service's log ends with\n{demo.read_log()[-8000:]}")
        raise
    assert "batch_aborted" not in demo.read_log()

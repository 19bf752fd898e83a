"""Relationships, standing and circulation of a town that lived, over HTTP: all of it agrees with a slow second fold.

Owns the town's life and the comparing. How the second fold reckons is `tests/slow_readings.py`'s; what happens to the
fold when it is cut off, `tests/integration/test_folder.py`'s.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of
from tests.forked import run_gesell
from tests.hold_readings import hold_readings, settle
from tests.running import Service, running
from tests.slow_readings import SlowReadings
from tests.speaking import Line, name_of, new_id, signer_of, write_envelope, write_found

HALF_LIFE_DAYS = 3
HALF_LIFE_MS = HALF_LIFE_DAYS * 86_400_000
#: About as long as a statement may be good: on the fast clock, a day is a second.
WEEK_MS = 6 * 86_400_000
EACH = 25
#: What happens once in a round, beside payments, gifts and vouches in no order.
EVENTS = ("retire", "suspend", "policy", "writeoff", "share", "grant", "leave", "back", "share")

STEWARD = signer_of("steward")
PEOPLE = [signer_of(f"townsman {n}") for n in range(9)]
CATEGORIES = ("answer", "lift", "listening", None)

POLICY: Mapping[str, Any] = {
    "tick_seconds": 86_400,
    "rest_ticks": 2,
    "brackets": [[0, 3_000_000], [40_000, 30_000_000]],
    "melt_to": "pool",
    "admission": "steward",
    "credit_limit": 20_000,
    "vouch_min": 10,
    "visibility": "open",
    "notice_ticks": 0,
}

OPEN_POLICY = {**POLICY, "admission": "open", "credit_limit": 0, "rest_ticks": 0, "melt_to": "issuer"}


class Life:
    """A commons of a fast service, and people in it who do all there is to do."""

    def __init__(self, line: Line, *, seed: int, policy: Mapping[str, Any]) -> None:
        self.line = line
        self._random = random.Random(seed)
        self.policy = policy
        founding = write_found(
            [STEWARD], ledger=line.ledger(), now_ms=line.time(), policy=policy, expires=line.time() + WEEK_MS
        )
        self.commons = name_of(founding)
        self.path = f"/v1/commons/{self.commons.hex()}"
        self._offered: list[tuple[bytes, Signer, Signer | None]] = []
        self._received: dict[bytes, list[bytes]] = {}
        self._held: list[tuple[bytes, Signer]] = []
        [founded] = line.post([founding])
        assert founded["status"] == "accepted", founded
        self.say("join", *PEOPLE)
        if policy["admission"] == "steward":
            self.say("admit", *PEOPLE)
        self.say("issue", *PEOPLE)
        self._send([self._write("kind", STEWARD, code="bread", name="Bread", unit="1", scale=0)])

    def say(self, kind: str, *people: Signer) -> bool:
        """The same about each of some people; whether it was accepted of any."""
        said = {
            "join": lambda one: self._write("join", one, handle=f"m{PEOPLE.index(one)}"),
            "admit": lambda one: self._write("admit", STEWARD, peer=one.public_key),
            "suspend": lambda one: self._write("suspend", STEWARD, peer=one.public_key),
            "leave": lambda one: self._write("leave", one),
            "writeoff": lambda one: self._write("writeoff", STEWARD, peer=one.public_key),
            "issue": lambda one: self._write(
                "issue", STEWARD, to=one.public_key, amount=self._random.randint(1, 10**5)
            ),
            "retire": lambda one: self._write("retire", one, amount=self._random.randint(1, 5_000)),
            "share": lambda one: self._write("share", STEWARD, amount=200),
            "policy": lambda one: self._write("policy", STEWARD, policy=self._changed(), from_tick=self._tick() + 1),
            "grant": lambda one: self._write("grant", STEWARD, legs=[[one.public_key, 30]]),
        }
        return self._send([said[kind](one) for one in people])

    def live(self, event: str) -> None:
        """A round: payments, gifts, vouches in no order, some of them refused, and something that happens to somebody
        for whom it can.
        """
        self._send([self._anything() for _ in range(EACH)])
        for one in self._random.sample(PEOPLE, len(PEOPLE)):
            if event == "back":
                self.say("join", one)
                self.say("admit", one)
                continue
            if event == "writeoff":
                self._spend_all(one)
            if self.say(event, one):
                return

    def _anything(self) -> Envelope:
        draw = self._random
        one, other, third = draw.sample(PEOPLE, 3)
        doing = ("pay", "many", "gift", "answer", "vouch", "end", "hold", "take", "void")
        match draw.choices(doing, (10, 2, 5, 6, 3, 1, 3, 2, 1))[0]:
            case "pay":
                return self._write(
                    "pay", one, legs=[[other.public_key, draw.randint(1, 40_000)]], category=self._category()
                )
            case "many":
                legs = [[other.public_key, draw.randint(1, 5_000)], [third.public_key, draw.randint(1, 5_000)]]
                return self._write("pay", one, legs=legs, category=self._category())
            case "answer" if self._offered:
                return self._answer()
            case "hold":
                return self._hold(one, other)
            case "take" if self._held:
                name, payee = self._held.pop(0)
                return self._write("capture", payee, hold=name, amount=draw.randint(0, 3_000))
            case "void" if self._held:
                name, payee = self._held.pop()
                return self._write("void", payee, hold=name)
            case "vouch":
                return self._write("vouch", one, **{"for": other.public_key, "limit": draw.randint(10, 12_000)})
            case "end":
                return self._write("vouch", one, **{"for": other.public_key, "limit": 0})
        return self._gift(one, None if draw.random() < 0.2 else other)

    def _gift(self, one: Signer, other: Signer | None) -> Envelope:
        draw = self._random
        name = new_id(self.line.time())
        self._offered.append((name, one, other))
        moved = self._received.get(one.public_key)
        return self._write(
            "gift",
            one,
            id=name,
            to="pool" if other is None else other.public_key,
            kind=draw.choice(("hour", "bread")),
            quantity=draw.randint(1, 300),
            category=self._category(),
            after=draw.sample(moved, 1) if moved else None,
        )

    def _spend_all(self, one: Signer) -> None:
        """Pay away what there is, the credit limit too."""
        shown = self.line.get(f"{self.path}/members/{did_of(one.public_key)}/balances")["items"][0]
        other = self._random.choice([each for each in PEOPLE if each is not one])
        if int(shown["available"]) > 0:
            self._send([self._write("pay", one, legs=[[other.public_key, int(shown["available"])]])])

    def _hold(self, one: Signer, other: Signer) -> Envelope:
        now = self.line.time()
        name = new_id(now)
        self._held.append((name, other))
        sums = {"amount": self._random.randint(3_000, 8_000), "until": now + 20 * 86_400_000}
        return self._write("hold", one, id=name, to=other.public_key, category=self._category(), **sums)

    def _answer(self) -> Envelope:
        draw = self._random
        name, giver, receiver = self._offered.pop(draw.randrange(len(self._offered)))
        match draw.choices(("thank", "decline", "withdraw"), (6, 1, 1))[0]:
            case "withdraw":
                return self._write("withdraw", giver, gift=name)
            case "thank" if receiver is not None:
                self._received.setdefault(receiver.public_key, []).append(name)
                return self._write("thank", receiver, gift=name)
            case kind:
                return self._write(kind, receiver or STEWARD, gift=name)

    def _changed(self) -> dict[str, Any]:
        return {**self.policy, "rest_ticks": 1, "brackets": [[0, 20_000_000]]}

    def _tick(self) -> int:
        tick = self.line.get(self.path)["tick"]
        assert isinstance(tick, int)
        return tick

    def _category(self) -> str | None:
        return self._random.choice(CATEGORIES)

    def _write(self, what: str, by: Signer, **fields: Any) -> Envelope:
        now = self.line.time()
        fields = {"expires": now + WEEK_MS, "commons": self.commons, **fields}
        return write_envelope(what, by.public_key, [by], now_ms=now, **fields)

    def _send(self, envelopes: list[Envelope]) -> bool:
        return any(result["status"] == "accepted" for result in self.line.post(envelopes))


def agree(town: Life) -> SlowReadings:
    """Everything that the readings of a town say is what its entries say."""
    members = [did_of(one.public_key) for one in PEOPLE]
    return hold_readings(town.line, town.path, members, half_life_ms=HALF_LIFE_MS)


@pytest.fixture(scope="module")
def fast() -> Iterator[Service]:
    with running(
        *("--min-tick-seconds", "1", "--demo", "--clock-speed", "86400", "--half-life-days", str(HALF_LIFE_DAYS))
    ) as started:
        yield started


def test_readings_of_two_towns_agree_with_their_entries(fast: Service) -> None:
    line = Line(fast.url)
    towns = [Life(line, seed=1, policy=POLICY), Life(line, seed=2, policy=OPEN_POLICY)]
    for place in range(len(EVENTS)):
        for town in towns:
            town.live(EVENTS[place])
        time.sleep(0.5)
        if place == len(EVENTS) // 2:
            agree(towns[0])
    lived = [agree(town) for town in towns]
    kinds = [Counter(entry["type"] for entry in slow.entries) for slow in lived]
    assert {"pay", "gift", "thank", "decline", "withdraw", "retire", "leave", "suspend"} <= set(kinds[0] & kinds[1])
    assert {"vouch", "writeoff", "share", "payout", "grant", "admit", "policy"} <= set(kinds[0])
    assert {"hold", "capture", "void"} <= set(kinds[0] & kinds[1])
    assert all(len({slow.tick_of(entry) for entry in slow.entries}) >= 5 for slow in lived)
    rebuilt = rebuild(fast)
    assert rebuilt.returncode == 0
    for town in towns:
        assert f"{town.commons.hex()}: " in rebuilt.stdout
        agree(town)
    line.close()


def rebuild(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside the service."""
    return run_gesell("db", "rebuild", "--data", service.folder / "data", *arguments, timeout=60)


@pytest.fixture(scope="module")
def town(fast: Service) -> Iterator[Life]:
    """A town of which nothing but its founding and its first money is told."""
    line = Line(fast.url)
    yield Life(line, seed=3, policy=POLICY)
    line.close()


def test_one_commons_is_rebuilt_and_one_that_is_none_is_refused(fast: Service, town: Life) -> None:
    one = rebuild(fast, "--commons", town.commons.hex())
    assert one.stdout.startswith(f"{town.commons.hex()}: ")
    assert one.stdout.count("\n") == 1
    for name, said in (("00" * 16, "no commons"), ("wörgl", "32 hex digits")):
        refused = rebuild(fast, "--commons", name)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("gesell: ")
        assert said in refused.stderr


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("from=2&to=1", "malformed"),
        ("from=yesterday", "malformed"),
        ("from=-1", "malformed"),
        ("step=0", "malformed"),
        ("step=1000001", "malformed"),
        ("steps=1", "malformed"),
        ("limit=5", "malformed"),
    ],
)
def test_a_question_for_circulation_that_is_none_is_refused(town: Life, query: str, code: str) -> None:
    status, answer = town.line.ask(f"{town.path}/flow?{query}")
    assert (status, answer["code"]) == (400, code)


def test_steps_lie_between_the_founding_and_now(town: Life) -> None:
    settle(town.line, town.path)
    now = town.line.time()
    for query, count in (("from=0&to=1", 0), (f"from={2**63 - 1}", 0), (f"from=0&to={2**63 - 1}&step=1000000", 1)):
        assert len(town.line.get(f"{town.path}/flow?{query}")["items"]) == count, query
    (one,) = town.line.get(f"{town.path}/flow?step=7&from={now}")["items"]
    assert one["from"] % (7 * 86_400_000) == 0
    assert one["to"] - one["from"] == 7 * 86_400_000
    assert one["from"] <= now


@pytest.mark.parametrize("after", ["", "x", "A" * 54, "f_AAAAAAAAA" + "A" * 43, "A" * 55])
def test_place_in_a_list_of_relationships_is_one_of_ours(town: Life, after: str) -> None:
    path = f"{town.path}/members/{did_of(PEOPLE[0].public_key)}/relationships"
    status, answer = town.line.ask(f"{path}?after={after}")
    if after == "A" * 54:
        assert (status, answer["items"]) == (200, [])
    else:
        assert (status, answer["code"]) == (400, "malformed")

"""Questions of trust over HTTP on a real PostgreSQL: what is answered, and that fakes gain nothing by each other.

Owns figures worked out by hand. That large graphs are answered exactly is `test_otc.py`'s, who may ask
`test_rights.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import base64url, did_of
from tests.running import Service
from tests.speaking import POLICY, Line, name_of, signer_of, write_envelope, write_found

STEWARD = signer_of("steward")
ADA, BOB, CLEO, DAN, EVE, PIA = map(
    signer_of, ("trust ada", "trust bob", "trust cleo", "trust dan", "trust eve", "pia")
)
PEOPLE: Mapping[str, Signer] = {"ada": ADA, "bob": BOB, "cleo": CLEO, "dan": DAN, "eve": EVE}
CREDIT = 100_000


def did(signer: Signer) -> str:
    return did_of(signer.public_key)


class Town:
    """A commons in which stewards admit, and each who is admitted has credit."""

    def __init__(self, line: Line, people: Mapping[str, Signer]) -> None:
        self.line = line
        policy = {**POLICY, "brackets": [[0, 0]], "admission": "steward", "credit_limit": CREDIT}
        founding = write_found([STEWARD], ledger=line.ledger(), now_ms=line.time(), policy=policy)
        self.name = name_of(founding)
        self.path = f"/v1/commons/{self.name.hex()}"
        self.seq = 0
        self.post([founding])
        self.post([self.write("join", one, handle=handle) for handle, one in people.items()])
        self.post([self.write("admit", STEWARD, peer=one.public_key) for one in people.values()])

    def write(self, kind: str, by: Signer, **fields: Any) -> Envelope:
        return write_envelope(kind, by.public_key, [by], now_ms=self.line.time(), commons=self.name, **fields)

    def post(self, envelopes: list[Envelope]) -> None:
        for start in range(0, len(envelopes), 1000):
            for result in self.line.post(envelopes[start : start + 1000]):
                assert result["status"] == "accepted", result
                self.seq = result["receipt"]["seq"]

    def say(self, kind: str, by: Signer, **fields: Any) -> None:
        self.post([self.write(kind, by, **fields)])

    def vouch(self, by: Signer, whom: Signer, limit: int) -> None:
        self.post([self.vouching(by, whom, limit)])

    def vouching(self, by: Signer, whom: Signer, limit: int) -> Envelope:
        return self.write("vouch", by, limit=limit, **{"for": whom.public_key})

    def trust(self, one: Signer, other: Signer) -> Any:
        return self.line.get(f"{self.path}/members/{did(one)}/trust?to={did(other)}")

    def figures(self, one: Signer, other: Signer) -> tuple[int, int, list[tuple[str, int]]]:
        told = self.trust(one, other)
        return (
            int(told["flow"]),
            int(told["strength"]),
            [(link["handle"], int(link["vouch"])) for link in told["chain"]],
        )

    def trusted(self, one: Signer, *, limit: int = 1000) -> list[Any]:
        return self.line.items(f"{self.path}/members?trusted_by={did(one)}&limit={limit}")


@pytest.fixture(scope="module")
def line(service: Service) -> Iterator[Line]:
    opened = Line(service.url)
    yield opened
    opened.close()


@pytest.fixture
def town(line: Line) -> Town:
    """ada vouches for bob and a little for cleo, bob for cleo, cleo for dan; nobody for eve."""
    made = Town(line, PEOPLE)
    made.vouch(ADA, BOB, 50)
    made.vouch(BOB, CLEO, 30)
    made.vouch(ADA, CLEO, 10)
    made.vouch(CLEO, DAN, 35)
    return made


# ── Between two ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_trust_between_two_is_the_flow_and_the_strongest_chain(town: Town) -> None:
    assert town.trust(ADA, DAN) == {
        "from": did(ADA),
        "to": did(DAN),
        "flow": "35",
        "strength": "30",
        "chain": [
            {"peer": did(BOB), "handle": "bob", "vouch": "50"},
            {"peer": did(CLEO), "handle": "cleo", "vouch": "30"},
            {"peer": did(DAN), "handle": "dan", "vouch": "35"},
        ],
        "as_of_seq": town.seq,
    }
    assert town.figures(ADA, CLEO) == (40, 30, [("bob", 50), ("cleo", 30)])
    assert town.line.get(f"{town.path}/members/ada/trust?to=dan") == town.trust(ADA, DAN)


def test_where_no_vouch_leads_there_is_no_trust(town: Town) -> None:
    for one, other in ((DAN, ADA), (ADA, EVE), (EVE, ADA)):
        told = town.trust(one, other)
        assert (told["flow"], told["strength"], told["chain"], told["as_of_seq"]) == ("0", "0", [], town.seq)


def test_who_only_asked_to_join_is_trusted_by_nobody(town: Town) -> None:
    town.say("join", PIA, handle="pia")
    assert town.figures(ADA, PIA) == (0, 0, [])


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("/members/ada/trust?to=ada", (400, "malformed")),
        ("/members/ada/trust?to={ada}", (400, "malformed")),
        ("/members/ada/trust", (400, "malformed")),
        ("/members/ada/trust?to=", (400, "malformed")),
        ("/members/ada/trust?to=bob&to=dan", (400, "malformed")),
        ("/members/ada/trust?to=bob&at=1", (400, "malformed")),
        ("/members/ada/trust?to=nobody", (404, "unknown-member")),
        ("/members/nobody/trust?to=ada", (404, "unknown-member")),
        ("/members?trusted_by=nobody", (404, "unknown-member")),
        ("/members?trusted_by=9", (404, "unknown-member")),
        ("/members?trusted_by=ada&after={key}", (400, "malformed")),
        ("/members?trusted_by=ada&after=x.y.z", (400, "malformed")),
        ("/members?after=30.1.{key}", (400, "malformed")),
        ("/members?trusted_by=ada&limit=0", (400, "malformed")),
    ],
)
def test_what_can_not_be_answered_is_refused(town: Town, path: str, refusal: tuple[int, str]) -> None:
    status, answer = town.line.ask(town.path + path.format(ada=did(ADA), key=base64url(ADA.public_key)))
    assert (status, answer["code"]) == refusal


# ── From one to all ──────────────────────────────────────────────────────────────────────────────────────────────


def test_members_are_listed_by_the_trust_that_reaches_them(town: Town) -> None:
    town.vouch(ADA, EVE, 30)
    rows = town.trusted(ADA)
    assert [(row["handle"], row["trust"]) for row in rows] == [
        ("bob", {"strength": "50", "hops": 1, "by": did(ADA)}),
        ("eve", {"strength": "30", "hops": 1, "by": did(ADA)}),
        ("cleo", {"strength": "30", "hops": 2, "by": did(BOB)}),
        ("dan", {"strength": "30", "hops": 3, "by": did(CLEO)}),
    ]
    plain = {row["peer"]: row for row in town.line.items(f"{town.path}/members")}
    assert all({**plain[row["peer"]], "trust": row["trust"]} == row for row in rows)
    assert all("trust" not in row for row in plain.values())
    assert town.trusted(ADA, limit=1) == town.trusted(ADA, limit=2) == rows
    assert town.line.items(f"{town.path}/members?trusted_by=ada") == rows
    assert town.trusted(DAN) == []


# ── As vouches change ────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_follow_every_vouch_at_once(town: Town) -> None:
    assert town.figures(ADA, CLEO)[:2] == (40, 30)
    town.vouch(BOB, CLEO, 45)
    assert town.figures(ADA, CLEO) == (55, 45, [("bob", 50), ("cleo", 45)])
    town.vouch(BOB, CLEO, 0)
    assert town.figures(ADA, CLEO) == (10, 10, [("cleo", 10)])
    town.vouch(BOB, EVE, 20)
    town.vouch(EVE, CLEO, 20)
    assert town.figures(ADA, CLEO) == (30, 20, [("bob", 50), ("eve", 20), ("cleo", 20)])
    assert town.trust(ADA, CLEO)["as_of_seq"] == town.seq


def test_who_leaves_takes_trust_along(town: Town) -> None:
    town.trust(ADA, DAN)
    town.say("leave", BOB)
    assert town.figures(ADA, DAN) == (10, 10, [("cleo", 10), ("dan", 35)])
    assert town.figures(ADA, BOB) == town.figures(BOB, CLEO) == (0, 0, [])
    assert [row["handle"] for row in town.trusted(ADA)] == ["cleo", "dan"]


def test_a_write_off_uses_up_the_trust_that_it_cost(town: Town) -> None:
    """cleo owes 20 and is written off: 30 of 40 vouched is bob's, so bob bears 15 of them and ada 5."""
    town.say("pay", CLEO, legs=[[EVE.public_key, 20]])
    town.say("writeoff", STEWARD, peer=CLEO.public_key)
    assert town.figures(ADA, CLEO) == (20, 15, [("bob", 50), ("cleo", 15)])
    assert town.figures(BOB, CLEO) == (15, 15, [("cleo", 15)])
    assert [row["trust"]["strength"] for row in town.trusted(ADA)] == ["50", "15", "15"]
    # Who is suspended keeps its vouches.
    assert town.figures(CLEO, DAN) == (35, 35, [("dan", 35)])


def test_a_commons_is_answered_for_by_its_own_vouches(town: Town, line: Line) -> None:
    other = Town(line, PEOPLE)
    other.vouch(ADA, DAN, 7)
    assert town.figures(ADA, DAN)[:2] == (35, 30)
    assert other.figures(ADA, DAN) == (7, 7, [("dan", 7)])
    assert town.figures(ADA, DAN)[:2] == (35, 30)


# ── A ring of fakes ──────────────────────────────────────────────────────────────────────────────────────────────

FAKES = [signer_of(f"fake {number}") for number in range(1000)]
WAY_IN = {17: 3_000, 500: 2_000}


@pytest.fixture(scope="module")
def ringed(line: Line) -> Town:
    """Five honest members and a thousand fakes, whom a careless steward admitted; two of the honest were taken in by
    one fake each. Each fake hands all its credit room on to the next, with what it was handed itself, and the last one
    all of it to as many as it may.
    """
    made = Town(line, {**PEOPLE, **{f"fake-{number}": one for number, one in enumerate(FAKES)}})
    made.post(
        [
            made.vouching(EVE, ADA, 40_000),
            made.vouching(EVE, BOB, 30_000),
            made.vouching(BOB, CLEO, 1_000),
            made.vouching(CLEO, DAN, 4_000),
            made.vouching(ADA, FAKES[17], WAY_IN[17]),
            made.vouching(BOB, FAKES[500], WAY_IN[500]),
        ]
    )
    room, vouches = 0, []
    for number, (one, other) in enumerate(pairwise(FAKES)):
        room += CREDIT + WAY_IN.get(number, 0)
        vouches.append(made.vouching(one, other, room))
    room += CREDIT
    vouches += [made.vouching(FAKES[-1], one, room // 256) for one in FAKES[:256]]
    made.post(vouches)
    return made


def test_an_honest_member_trusts_a_ring_of_fakes_no_more_than_the_honest_do(ringed: Town) -> None:
    way_in = sum(WAY_IN.values())
    rows = ringed.trusted(EVE)
    fakes = {row["peer"]: int(row["trust"]["strength"]) for row in rows if row["handle"].startswith("fake-")}
    assert fakes.keys() == {did(one) for one in FAKES}
    assert max(fakes.values()) == max(WAY_IN.values())
    # Whom honest members vouched for more than they vouched for any fake stands before all of the fakes.
    assert [row["handle"] for row in rows[:3]] == ["ada", "bob", f"fake-{17}"]
    # bob's vouch for fake 500 adds to no strength: that of a chain is its smallest vouch, not a sum.
    for number in (0, 16, 17, 18, 255, 256, 499, 500, 501, 998, 999):
        flow, strength, chain = ringed.figures(EVE, FAKES[number])
        assert 0 < strength == fakes[did(FAKES[number])] <= max(WAY_IN.values())
        assert strength <= flow <= way_in
        assert chain[0][0] in PEOPLE
    assert ringed.figures(EVE, FAKES[999])[0] == way_in, "the bound is met: more would not have been noticed otherwise"
    assert ringed.figures(EVE, FAKES[17])[0] == way_in


def test_among_themselves_the_fakes_trust_each_other_beyond_measure(ringed: Town) -> None:
    """What the ring would give itself if its own word counted for others."""
    flow, strength, chain = ringed.figures(FAKES[0], FAKES[999])
    assert (flow, strength, len(chain)) == (CREDIT, CREDIT, 999)
    assert ringed.figures(FAKES[998], FAKES[999])[0] > 900 * CREDIT
    assert ringed.trusted(FAKES[998])[0]["trust"] == {
        "strength": str(ringed.figures(FAKES[998], FAKES[999])[1]),
        "hops": 1,
        "by": did(FAKES[998]),
    }


def test_the_fakes_are_not_trusted_back(ringed: Town) -> None:
    """No fake vouched for an honest member, so nobody honest is reached from the ring."""
    assert not {row["handle"] for row in ringed.trusted(FAKES[3])} & PEOPLE.keys()

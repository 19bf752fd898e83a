"""Who trusted whom on Bitcoin OTC, 2010–2016, as vouches: they load through the API, and questions of trust on them
are answered exactly (SPEC §7.2, docs/trust.md).

A rating r > 0 is a vouch of r·1,000 grains, said in the order in which the ratings were given. The first part of them
is loaded here; `make trust` loads them all (WHOLE_OTC=1).
"""

from __future__ import annotations

import csv
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of
from tests import slow_trust
from tests.running import Service
from tests.speaking import POLICY, Line, name_of, signer_of, write_envelope, write_found

OTC = Path(__file__).parents[3] / "shared" / "data" / "otc-trust.csv"
WHOLE = bool(os.environ.get("WHOLE_OTC"))
PART = 1_500
STEWARD = signer_of("otc steward")
A_REQUEST = 2_000
VOUCHES_MAX = 256

pytestmark = pytest.mark.skipif(not OTC.exists(), reason=f"the ratings of Bitcoin OTC are not here: {OTC}")


class Rating(NamedTuple):
    by: Signer
    whom: Signer
    grains: int


def read_ratings() -> list[Rating]:
    """The positive ratings in order of time."""
    signers: dict[str, Signer] = {}

    def who(name: str) -> Signer:
        return signers.setdefault(name, signer_of(f"otc {name}"))

    with OTC.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["at"]))
    found = [Rating(who(row["from"]), who(row["to"]), int(row["rating"]) * 1000) for row in rows]
    return [rating for rating in found if rating.grains > 0][: None if WHOLE else PART]


class Market:
    """The commons of all who rated or were rated, and the vouches that it took."""

    def __init__(self, line: Line, ratings: list[Rating]) -> None:
        self.line = line
        policy = {**POLICY, "admission": "steward", "credit_limit": 3_000_000, "vouch_min": 1_000}
        founding = write_found([STEWARD], ledger=line.ledger(), now_ms=line.time(), policy=policy)
        self.name = name_of(founding)
        self.path = f"/v1/commons/{self.name.hex()}"
        assert line.post([founding])[0]["status"] == "accepted"
        self.people = list(dict.fromkeys(one for rating in ratings for one in (rating.by, rating.whom)))
        joins = [self._write("join", one, handle=f"otc-{place}") for place, one in enumerate(self.people)]
        admits = [self._write("admit", STEWARD, peer=one.public_key) for one in self.people]
        assert {result["status"] for result in self._say(joins + admits)} == {"accepted"}
        said = [self._write("vouch", one.by, limit=one.grains, **{"for": one.whom.public_key}) for one in ratings]
        self.results = self._say(said)
        self.vouches = {
            (one.by.public_key, one.whom.public_key): one.grains
            for one, result in zip(ratings, self.results, strict=True)
            if result["status"] == "accepted"
        }

    def _write(self, kind: str, by: Signer, **fields: Any) -> Envelope:
        return write_envelope(kind, by.public_key, [by], now_ms=self.line.time(), commons=self.name, **fields)

    def _say(self, envelopes: list[Envelope]) -> list[Any]:
        parts = (envelopes[start : start + A_REQUEST] for start in range(0, len(envelopes), A_REQUEST))
        return [result for part in parts for result in self.line.post(part)]

    def trust(self, source: bytes, sink: bytes) -> Any:
        return self.line.get(f"{self.path}/members/{did_of(source)}/trust?to={did_of(sink)}")


@pytest.fixture(scope="module")
def ratings() -> list[Rating]:
    return read_ratings()


@pytest.fixture(scope="module")
def market(service: Service, ratings: list[Rating]) -> Iterator[Market]:
    line = Line(service.url)
    yield Market(line, ratings)
    line.close()


def test_ratings_load_as_vouches_but_for_those_that_meet_the_limit(market: Market, ratings: list[Rating]) -> None:
    """Told beforehand by counting: a vouch is refused when 256 others stand by its author or for its subject."""
    by, of = Counter[bytes](), Counter[bytes]()
    for rating, result in zip(ratings, market.results, strict=True):
        voucher, vouchee = rating.by.public_key, rating.whom.public_key
        if max(by[voucher], of[vouchee]) >= VOUCHES_MAX:
            assert result["status"] == "refused"
            assert (result["problem"]["code"], result["problem"]["limit"]) == ("limit-exceeded", VOUCHES_MAX)
        else:
            assert result["status"] == "accepted", result
            by[voucher] += 1
            of[vouchee] += 1
    refused = sum(result["status"] == "refused" for result in market.results)
    if WHOLE:
        assert (len(ratings), refused) == (32_029, 1_097)


def test_trust_between_two_agrees_with_networkx(market: Market) -> None:
    graph = slow_trust.graph_of(market.vouches)
    draw = random.Random(4)
    busiest = sorted(graph, key=graph.degree, reverse=True)
    unknown = [
        one.public_key for one in market.people if one.public_key not in graph or graph.in_degree(one.public_key) == 0
    ]
    others = [one.public_key for one in market.people]
    pairs = [(busiest[0], busiest[1]), (busiest[2], busiest[0])]
    pairs += [tuple(draw.sample(busiest[:200], 2)) for _ in range(4)]
    pairs += [tuple(draw.sample(others, 2)) for _ in range(4)]
    nobody_reaches = [(busiest[0], sink) for sink in unknown[:3]]
    flows = []
    for source, sink in pairs + nobody_reaches:
        told = market.trust(source, sink)
        assert (told["from"], told["to"]) == (did_of(source), did_of(sink))
        assert told["flow"] == str(slow_trust.flow(graph, source, sink))
        chain = slow_trust.chain(graph, source, sink)
        assert [(link["peer"], link["vouch"]) for link in told["chain"]] == [
            (did_of(peer), str(n)) for peer, n in chain
        ]
        assert told["strength"] == str(min((grains for _, grains in chain), default=0))
        flows.append(int(told["flow"]))
    assert len(nobody_reaches) == 3
    assert flows[-3:] == [0, 0, 0]
    assert max(flows) > 10_000, "some trust flows over more than one chain"


def test_list_of_the_trusted_agrees_with_networkx(market: Market) -> None:
    """Who is reached, how strongly and over how many vouches; the second opinion looks at each strength once."""
    graph = slow_trust.graph_of(market.vouches)
    source = max(sorted(graph), key=graph.out_degree)
    expected: dict[bytes, tuple[int, int]] = {}
    for least in sorted(set(market.vouches.values()), reverse=True):
        strong = slow_trust.strong_part(graph, least)
        if source in strong:
            for peer, hops in slow_trust.distances(strong, source).items():
                expected.setdefault(peer, (least, hops))
    del expected[source]
    rows = market.line.items(f"{market.path}/members?trusted_by={did_of(source)}&limit=1000")
    in_order = sorted(expected, key=lambda peer: (-expected[peer][0], expected[peer][1], peer))
    assert [row["peer"] for row in rows] == [did_of(peer) for peer in in_order]
    for row, peer in zip(rows, in_order, strict=True):
        assert (int(row["trust"]["strength"]), row["trust"]["hops"]) == expected[peer]
    for row, peer in list(zip(rows, in_order, strict=True))[:: len(rows) // 20]:
        last = ([source] + [link for link, _ in slow_trust.chain(graph, source, peer)])[-2]
        assert row["trust"]["by"] == did_of(last)

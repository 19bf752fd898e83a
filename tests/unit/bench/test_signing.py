"""What the press prints is what was ordered, in its order, signed by who speaks, in requests ready to send."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgpack
import pytest

from bench.orders import STEWARD, Order, gifts, many_legged_payments, random_payments, thanks
from bench.signing import Crew, Desk, Press, found, memberships
from gesell_protocol.ed25519 import public_key
from gesell_protocol.envelopes import Envelope, read_envelope, verify_envelope
from gesell_protocol.names import commons_of, time_of_id, uuid7
from gesell_protocol.statements import Found, Gift, Issue, Join, Pay, Retire, Statement, Thank, read_statement

CREW = Crew.drawn(120)
COMMONS = bytes(range(16))
TIME_MS = 1_800_000_000_000
KEYS = [public_key(seed) for seed in CREW.accounts]


@pytest.fixture(scope="module")
def press() -> Iterator[Press]:
    press = Press(CREW, COMMONS, "ledger.example")
    yield press
    press.close()


def envelopes_of(request: bytes) -> list[Envelope]:
    head, body = request.split(b"\r\n\r\n", 1)
    assert b"Content-Length: %d" % len(body) in head
    assert head.startswith(b"POST /v1/statements HTTP/1.1\r\nHost: ledger.example\r\n")
    return [read_envelope(one) for one in msgpack.unpackb(body)["statements"]]


def said(envelope: Envelope) -> Any:
    """The statement, its signatures verified; a class of its own for each type, hence Any."""
    verify_envelope(envelope)
    statement: Statement = read_statement(envelope)
    assert statement.by in {key for key, _ in envelope.signatures}
    return statement


def test_requests_hold_the_orders_in_their_order(press: Press) -> None:
    orders = random_payments(Random(1), 25, accounts=120)
    requests = press.requests(orders, each=10, time_ms=TIME_MS, span_ms=1_000)
    counts = [len(envelopes_of(request)) for request in requests]
    assert counts == [10, 10, 5]
    statements = [said(envelope) for request in requests for envelope in envelopes_of(request)]
    for order, statement in zip(orders, statements, strict=True):
        assert isinstance(statement, Pay)
        assert statement.commons == COMMONS
        assert statement.by == KEYS[order.by]
        assert [(leg.to, leg.amount) for leg in statement.legs] == [(KEYS[to], amount) for to, amount in order.legs]


def test_ids_climb_to_the_ledgers_time_and_never_pass_it(press: Press) -> None:
    orders = random_payments(Random(1), 9_000, accounts=120)
    requests = press.requests(orders, each=1_000, time_ms=TIME_MS, span_ms=5_000)
    ids = [
        msgpack.unpackb(one[0])["id"]
        for request in requests
        for one in msgpack.unpackb(request.split(b"\r\n\r\n", 1)[1])["statements"]
    ]
    times = [time_of_id(one) for one in ids]
    assert len(set(ids)) == 9_000
    assert times == sorted(times)
    assert TIME_MS - 5_000 <= times[0] < TIME_MS - 4_900
    assert TIME_MS - 100 < times[-1] <= TIME_MS


def test_every_kind_of_order_is_said_as_its_type() -> None:
    desk = Desk.of(CREW, COMMONS)
    offered = gifts(Random(1), [uuid7(TIME_MS, bytes(10))], accounts=120)
    (legged,) = many_legged_payments(Random(1), 1, accounts=120, legs=100)
    orders = [
        legged,
        Order("issue", STEWARD, ((3, 500),)),
        Order("retire", 3, amount=40),
        Order("join", 7),
        *offered,
        *thanks(offered),
    ]
    signed = [desk.sign(order, time_ms=TIME_MS) for order in orders]
    pay, issue, retire, join, gift, thank = (said(read_envelope(one.wire())) for one in signed)
    assert isinstance(pay, Pay)
    assert len(pay.legs) == 100
    assert isinstance(issue, Issue)
    assert (issue.by, issue.to, issue.amount) == (public_key(CREW.steward), KEYS[3], 500)
    assert isinstance(retire, Retire)
    assert (retire.by, retire.amount) == (KEYS[3], 40)
    assert isinstance(join, Join)
    assert (join.by, join.handle) == (KEYS[7], "a7")
    assert isinstance(gift, Gift)
    assert (gift.id, gift.kind, gift.to) == (offered[0].id, "hour", KEYS[offered[0].legs[0][0]])
    assert isinstance(thank, Thank)
    assert (thank.by, thank.gift) == (gift.to, gift.id)
    assert thank.id != gift.id


def test_what_nobody_knows_how_to_say_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody knows how to say sing"):
        Desk.of(CREW, COMMONS).sign(Order("sing", 0), time_ms=TIME_MS)


def test_a_founding_names_its_commons_and_everybody_joins_it() -> None:
    commons, founding = found(CREW, ledger=KEYS[0], time_ms=TIME_MS, name="Trace", tick_seconds=31_536_000)
    statement = said(read_envelope(founding.wire()))
    assert isinstance(statement, Found)
    assert commons == commons_of(founding.body)
    assert (statement.name, statement.policy.tick_seconds) == ("Trace", 31_536_000)
    types = [said(read_envelope(one.wire())).type for one in memberships(CREW, commons, time_ms=TIME_MS)]
    assert types == ["join"] * 120 + ["issue"] * 120

"""The check after a run sees what answers and logs should not be: each fault by itself, in answers written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
import pytest

from bench.driver import Run
from bench.orders import random_payments
from bench.signing import Crew, Desk, Signed, request
from bench.verdicts import Claim, Grown, Told, find_missing, read_answers
from gesell_protocol.log import Posting, leaf_of

COMMONS = bytes(range(16))
TIME_MS = 1_800_000_000_000
EACH = 4
Answers = list[tuple[int, Any]]


def payments() -> list[Signed]:
    desk = Desk.of(Crew.drawn(5), COMMONS)
    return [desk.sign(order, time_ms=TIME_MS) for order in random_payments(Random(1), 12, accounts=5)]


SIGNED = payments()
REQUESTS = [request("ledger.example", [one.wire() for one in SIGNED[at : at + EACH]]) for at in range(0, 12, EACH)]


def receipt_for(signed: Signed, seq: int) -> dict[str, Any]:
    """The receipt of a payment as an honest ledger writes it (SPEC §7.1)."""
    body = msgpack.unpackb(signed.body)
    ((payee, amount),) = body["legs"]
    postings = (Posting("pay", body["by"], "WRG", -amount), Posting("pay", payee, "WRG", amount))
    signatures = ((signed.key, signed.signature),)
    leaf = leaf_of(seq=seq, at_ms=TIME_MS, body=signed.body, signatures=signatures, postings=postings)
    return {
        "commons": COMMONS,
        "seq": seq,
        "at": TIME_MS,
        "tick": TIME_MS // 86_400_000,
        "id": body["id"],
        "leaf": leaf,
        "postings": [list(posting) for posting in postings],
    }


def honest() -> Answers:
    """An answer to each request, as plain values: entries 11 to 22."""
    results = [{"status": "accepted", "receipt": receipt_for(one, 11 + n)} for n, one in enumerate(SIGNED)]
    return [(200, {"results": results[at : at + EACH]}) for at in range(0, 12, EACH)]


def claim_of(answers: Answers, *, places: list[int] | None = None, **more: Any) -> Claim:
    packed = [
        (status, msgpack.packb(body) if isinstance(body, dict) and "results" in body else json.dumps(body).encode())
        for status, body in answers
    ]
    places = list(range(len(answers))) if places is None else places
    run = Run(requests=3, seconds=1.0, latencies=[0.1] * len(answers), answers=packed, places=places)
    return Claim(after="a run", commons=COMMONS, requests=REQUESTS, run=run, **more)


def log_of(told: Told) -> Grown:
    return Grown(10, [told.leaves[seq] for seq in sorted(told.leaves)])


def test_honest_answers_are_taken_in_whatever_order_they_came() -> None:
    answers = honest()
    told = read_answers(claim_of([answers[2], answers[0], answers[1]], places=[2, 0, 1]))
    assert told.faults == []
    assert sorted(told.leaves) == list(range(11, 23))
    assert find_missing(told.leaves, log_of(told)) == []


def first(answers: Answers) -> dict[str, Any]:
    result: dict[str, Any] = answers[0][1]["results"][0]
    return result


def refuse(answers: Answers) -> None:
    answers[0][1]["results"][0] = {"status": "refused", "problem": {"code": "insufficient-funds"}}


def acknowledge_again(answers: Answers) -> None:
    first(answers)["receipt"]["seq"] = 12


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (refuse, "a statement was refused: insufficient-funds"),
        (lambda answers: first(answers).update(status="replayed"), "a statement sent once was replayed"),
        (lambda answers: first(answers)["receipt"].update(id=bytes(16)), "is for another statement than it answers"),
        (lambda answers: first(answers)["receipt"].update(commons=bytes(16)), "is for another statement"),
        (acknowledge_again, "acknowledged twice"),
        (lambda answers: answers[0][1]["results"].pop(), "4 statements have 3 results"),
        (lambda answers: answers.pop(), "3 requests have 2 answers"),
        (lambda answers: first(answers)["receipt"].update(leaf=bytes(32)), "the leaf is not the hash"),
        (lambda answers: first(answers)["receipt"]["postings"][1].__setitem__(3, 7_777), "the leaf is not the hash"),
        (lambda answers: answers.__setitem__(0, (503, {"code": "unavailable"})), "4 statements have 1 results"),
    ],
)
def test_an_answer_that_is_not_what_was_sent_is_a_fault(spoil: Callable[[Answers], object], says: str) -> None:
    answers = honest()
    spoil(answers)
    faults = read_answers(claim_of(answers)).faults
    assert any(says in fault for fault in faults), faults


def test_a_refusal_that_may_be_is_counted_and_is_no_fault() -> None:
    answers = honest()
    refuse(answers)
    told = read_answers(claim_of(answers, refusals=frozenset({"insufficient-funds"})))
    assert (told.faults, told.refused, len(told.leaves)) == ([], {"insufficient-funds": 1}, 11)


@pytest.mark.parametrize(("status", "faults"), [(200, 0), (404, 1)])
def test_a_read_must_be_answered_with_what_was_asked_for(status: int, faults: int) -> None:
    run = Run(requests=1, seconds=1.0, latencies=[0.1], answers=[(status, b"{}")], places=[0])
    told = read_answers(Claim(after="reads", commons=COMMONS, requests=[b"GET /v1 HTTP/1.1\r\n\r\n"], run=run))
    assert (told.reads, len(told.faults)) == (1, faults)


def test_a_leaf_that_the_log_has_not_at_its_place_is_a_fault() -> None:
    told = read_answers(claim_of(honest()))
    whole = log_of(told)
    swapped = Grown(10, [whole.leaves[1], whole.leaves[0], *whole.leaves[2:]])
    assert find_missing(told.leaves, swapped) == [
        "entry 11 stands in the log with another leaf than was acknowledged",
        "entry 12 stands in the log with another leaf than was acknowledged",
    ]
    cut = Grown(10, whole.leaves[:-1])
    assert find_missing(told.leaves, cut) == ["entry 22 was acknowledged, the log grew from 10 to 21"]


def test_an_entry_that_was_there_before_the_run_is_none_of_it() -> None:
    told = read_answers(claim_of(honest()))
    later = Grown(11, log_of(told).leaves[1:])
    assert find_missing(told.leaves, later) == ["entry 11 was acknowledged, the log grew from 11 to 22"]

"""What is looked at in the answers of reads, and in the stream of a listener."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from bench.driver import Run
from bench.listeners import Course, Failed, Report, events_of
from bench.reading import answers_by_account, describe_loss, find_faults, run_of


def balance(posted: int, *, seq: int = 9) -> dict[str, Any]:
    return {"items": [{"posted": str(posted)}], "seq": seq}


def history(*lines: tuple[int, int, int]) -> dict[str, Any]:
    """Of (seq, amount, balance after it), newest first."""
    return {"items": [{"seq": seq, "amount": str(amount), "balance": str(balance)} for seq, amount, balance in lines]}


SOUND = history((9, -3, 17), (5, 20, 20))


def test_answers_that_agree_have_no_fault() -> None:
    assert find_faults({1: [balance(17), balance(17)]}, {1: [SOUND, SOUND], 2: [SOUND]}) == []


@pytest.mark.parametrize(
    ("balances", "histories", "told"),
    [
        ({1: [balance(17), balance(18)]}, {}, "account 1 had several balances"),
        ({}, {2: [history((9, -3, 17), (5, 20, 21))]}, "a history of account 2 does not add up"),
        ({2: [balance(18)]}, {2: [SOUND]}, "balance and history of account 2 differ"),
    ],
)
def test_answers_that_contradict_each_other_are_faults(balances: Any, histories: Any, told: str) -> None:
    (fault,) = find_faults(balances, histories)
    assert told in fault


def test_a_line_that_was_posted_after_the_balance_was_read_is_no_fault() -> None:
    assert find_faults({1: [balance(20, seq=8)]}, {1: [SOUND]}) == []


def test_answers_are_told_apart_by_the_requests_they_are_to() -> None:
    run = Run(requests=3, answers=[(200, b'"b"'), (200, b'"a"'), (200, b'"c"')], places=[1, 0, 2])
    assert answers_by_account(run, [7, 8, 7, 9]) == {8: ["b"], 7: ["a", "c"]}


def event(number: int, *, said: int | None = None, kind: str = "entry") -> bytes:
    entry = json.dumps({"seq": number, "at": 1})
    return f"id: {number if said is None else said}\nevent: {kind}\ndata: {entry}\n\n".encode()


def test_entries_of_a_stream_are_named_by_where_they_end() -> None:
    first, second = event(1), event(2)
    stream = first + b": silence\n\n" + second + b"id: 3\nev"
    found = events_of(stream)
    assert {place: entry["seq"] for place, entry in found.items()} == {
        len(first): 1,
        len(first) + 11 + len(second): 2,
    }


@pytest.mark.parametrize("stream", [event(1, said=2), event(1, kind="other")])
def test_an_event_that_is_none_of_an_entry_is_not_taken(stream: bytes) -> None:
    with pytest.raises(Failed):
        events_of(stream)


def report(**other: Any) -> Report:
    """Of a run in which three listeners got all of eight entries, but for what is said."""
    course = Course(listeners=3, rate=10, each=1, seconds=1.0, packed=False)
    known = {"course": course, "accepted": 8, "entries": 8, "whole": 3, "stream_matches_log": True, "delivered": 24.0}
    return Report(**{field.name: 0 for field in fields(Report)} | known | other)


def test_a_run_in_which_every_listener_got_every_entry_holds() -> None:
    assert report().holds
    assert run_of(report()).value == 24.0
    assert run_of(report()).details["accepted"] == 8


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"whole": 2, "short": 1}, "2 of 3 listeners got all 8 entries of 8 payments, 1 less"),
        ({"whole": 2, "differing": 1}, "1 something else"),
        ({"whole": 2, "refused": 1}, "1 nothing"),
        ({"entries": 7}, "all 7 entries of 8 payments"),
        ({"stream_matches_log": False}, "the stream is not the log"),
    ],
)
def test_a_run_in_which_anything_is_missing_does_not_hold(other: dict[str, Any], told: str) -> None:
    assert not report(**other).holds
    assert told in describe_loss(report(**other))


def test_what_is_not_known_of_a_service_that_is_not_ours_is_left_out() -> None:
    details = run_of(report(service_mib=None, service_cores=None, postgres_cores=None)).details
    assert not {"service_mib", "service_cores", "postgres_cores"} & set(details)

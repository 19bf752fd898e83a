"""The workloads take turns, and what is read is mixed with what is written at random places."""

from __future__ import annotations

from random import Random

import pytest

from bench.mixture import interleaved
from bench.payments import BATCHES, SHAPES, SINGLES, turns_of


def test_every_round_has_every_workload_once() -> None:
    names = [workload.name for workload in turns_of(0)]
    assert len(set(names)) == len(names) == 11
    for number in range(4):
        assert sorted(workload.name for workload in turns_of(number)) == sorted(names)


@pytest.mark.parametrize(
    ("number", "order"),
    [(0, "random zipf hot"), (1, "zipf hot random"), (2, "hot random zipf"), (3, "random zipf hot")],
)
def test_who_is_paid_is_measured_side_by_side_in_another_order_each_round(number: int, order: str) -> None:
    assert [workload.name for workload in turns_of(number)[-3:]] == [f"pay.{name}" for name in order.split()]


def test_those_that_compare_differ_in_nothing_but_who_is_paid() -> None:
    assert len({(shape.each, shape.connections, shape.legs, shape.unit) for shape in SHAPES}) == 1
    assert len({shape.draw for shape in SHAPES}) == 3


def test_the_names_of_single_payments_say_how_many_connections() -> None:
    assert {one.name: (one.each, one.connections) for one in SINGLES} == {
        f"pay.one-c{number}": (1, number) for number in (1, 16, 64, 256)
    }
    assert {one.name: one.each for one in BATCHES} == {"pay.each-1000": 1_000, "pay.each-100": 100, "pay.each-10": 10}


def test_two_lists_are_mixed_and_each_keeps_its_order() -> None:
    some, others = [b"s%d" % n for n in range(40)], [b"o%d" % n for n in range(10)]
    mixed = interleaved(Random(1), some, others)
    assert [one for one in mixed if one.startswith(b"s")] == some
    assert [one for one in mixed if one.startswith(b"o")] == others
    assert mixed[-10:] != others
    assert mixed[:10] != others

"""Holds what the service says of relationships, standing and circulation against a slow second fold of its entries.

Owns the comparison, over HTTP. How the second fold reckons is `tests/slow_readings.py`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.slow_readings import SlowReadings
from tests.speaking import Line

STEPS = (1, 2, 5, 1000)
STEPS_MAX = 120


def settle(line: Line, path: str) -> list[Any]:
    """Wait until the readings of a commons are where its log is, and stays; the entries."""
    for _ in range(400):
        entries = line.items(f"{path}/entries?limit=1000")
        if line.get(f"{path}/flow?step=1000")["as_of_seq"] == len(entries):
            return entries
        time.sleep(0.05)
    raise AssertionError("the readings do not come to the end of the log")


def hold_readings(line: Line, path: str, members: Sequence[str], *, half_life_ms: int) -> SlowReadings:
    """Everything that the readings say of these members (dids), and of circulation, is what the entries say up to where
    each answer says that it goes: the ledger itself may say more meanwhile. The second fold as of the last answer.
    """
    settle(line, path)
    comparison = _Comparison(line, path, half_life_ms)
    comparison.hold_members(members)
    return comparison.hold_flow()


class _Comparison:
    def __init__(self, line: Line, path: str, half_life_ms: int) -> None:
        self._line = line
        self._path = path
        self._half_life_ms = half_life_ms
        self._folds: dict[int, SlowReadings] = {}

    def _as_of(self, seq: int) -> SlowReadings:
        """The second fold of the entries up to one."""
        if seq not in self._folds:
            entries = self._line.items(f"{self._path}/entries?limit=1000")[:seq]
            assert len(entries) == seq, "readings are never ahead of the log"
            self._folds[seq] = SlowReadings(entries, half_life_ms=self._half_life_ms)
        return self._folds[seq]

    def hold_flow(self) -> SlowReadings:
        for step in STEPS:
            flow = self._line.get(f"{self._path}/flow?from=0&step={self._fitting(step)}")
            slow = self._as_of(flow["as_of_seq"])
            step, first, now = flow["step"], slow.first_tick, flow["at"] // slow.tick_ms
            assert flow["tick"] == now
            begins = range(first // step * step, now + 1, step)
            assert [item["from"] for item in flow["items"]] == [begin * slow.tick_ms for begin in begins]
            for begin, item in zip(begins, flow["items"], strict=True):
                assert item == slow.flow(first=begin, end=begin + step, now_ms=flow["at"]), (step, begin)
        return slow

    def _fitting(self, step: int) -> int:
        """As many ticks as make some hundred steps at most, where ticks are short."""
        ticks = self._line.get(self._path)["tick"] - min(fold.first_tick for fold in self._folds.values())
        return max(step, -(-ticks // STEPS_MAX))

    def _relationships(self, member: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each relationship of a member, with the page that it stood on."""
        following = f"{self._path}/members/{member}/relationships?limit=3"
        while following:
            page, following = self._line.page(following)
            assert len(page["items"]) <= 3
            for item in page["items"]:
                yield item, page

    def hold_members(self, members: Sequence[str]) -> None:
        strengths: dict[frozenset[str], set[tuple[int, float]]] = {}
        for member in members:
            shown = list(self._relationships(member))
            assert {item["peer"] for item, _ in shown} == self._as_of(self._line.get(self._path)["seq"]).peers(member)
            order: list[float] = []
            for item, page in shown:
                slow, tick = self._as_of(page["as_of_seq"]), page["tick"]
                expected = slow.relationship(member, item["peer"], tick=tick)
                order.append(slow.relationship(member, item["peer"], tick=shown[0][1]["tick"])["strength"])
                strengths.setdefault(frozenset((member, item["peer"])), set()).add((tick, item["strength"]))
                assert item.pop("strength") == pytest.approx(expected.pop("strength"), abs=2e-6)
                assert item == expected
            assert order == pytest.approx(sorted(order, reverse=True))
            self._hold_standing(member)
        for told in strengths.values():
            assert len({strength for _, strength in told}) <= len({tick for tick, _ in told}), "both sides see the same"

    def _hold_standing(self, member: str) -> None:
        standing = self._line.get(f"{self._path}/members/{member}/standing")
        expected = self._as_of(standing["as_of_seq"]).standing(member, tick=standing["tick"])
        for side in ("given", "received"):
            assert standing[side].pop("weight") == pytest.approx(expected[side].pop("weight"), abs=2e-6)
            assert standing[side] == expected[side]

"""A commons' policy and its timeline (SPEC §5).

Owns what a policy says, the ranges of its fields, and which policy is in force at a tick. Knows no account: the law
that melts by it stands in `demurrage`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Self

from gesell_protocol.amounts import AMOUNT_MAX

TICK_SECONDS_MIN: Final = 3_600
TICK_SECONDS_MAX: Final = 31_536_000
REST_TICKS_MAX: Final = 366
BRACKETS_MAX: Final = 16
PPB: Final = 10**9
NOTICE_TICKS_MAX: Final = 1_000
TICK_MAX: Final = 2**53
ADMISSIONS: Final = ("open", "steward")
VISIBILITIES: Final = ("members", "open", "parties")
MELT_TO: Final = ("issuer", "pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one commons from some tick on; every field as in SPEC §5.

    `brackets` holds (from, ppb) pairs in grains and parts per billion a tick, the first from 0, ascending.
    """

    tick_seconds: int
    rest_ticks: int
    brackets: tuple[tuple[int, int], ...]
    melt_to: str
    admission: str
    credit_limit: int
    vouch_min: int
    visibility: str
    notice_ticks: int

    def fields(self) -> dict[str, object]:
        """The map that stands in a statement."""
        return {name: getattr(self, name) for name in FIELDS}

    def tick_of(self, at_ms: int) -> int:
        """The tick in which a moment lies (SPEC §4.1), rounded down."""
        return at_ms // (1000 * self.tick_seconds)


FIELDS: Final = tuple(Policy.__dataclass_fields__)


def read_policy(value: object, *, min_tick_seconds: int) -> Policy:
    """Check a decoded map and make a `Policy` of it; raises `ValueError` with the reason.

    `min_tick_seconds` is what the service allows: 3,600 by the protocol, from 1 in tests and demos.
    """
    if not isinstance(value, dict) or set(value) != set(FIELDS):
        raise ValueError(f"a policy has exactly the fields {', '.join(sorted(FIELDS))}")
    policy = Policy(
        tick_seconds=_within(value, "tick_seconds", min_tick_seconds, TICK_SECONDS_MAX),
        rest_ticks=_within(value, "rest_ticks", 0, REST_TICKS_MAX),
        brackets=_read_brackets(value["brackets"]),
        melt_to=_one_of(value, "melt_to", MELT_TO),
        admission=_one_of(value, "admission", ADMISSIONS),
        credit_limit=_within(value, "credit_limit", 0, AMOUNT_MAX),
        vouch_min=_within(value, "vouch_min", 1, AMOUNT_MAX),
        visibility=_one_of(value, "visibility", VISIBILITIES),
        notice_ticks=_within(value, "notice_ticks", 0, NOTICE_TICKS_MAX),
    )
    if policy.credit_limit > 0 and policy.admission == "open":
        raise ValueError("policy.credit_limit is 0 where anybody can join: credit for all comers would be minting")
    return policy


def _within(fields: dict[str, object], name: str, low: int, high: int) -> int:
    value = fields[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"policy.{name} is an int from {low} to {high}")
    return value


def _one_of(fields: dict[str, object], name: str, allowed: tuple[str, ...]) -> str:
    value = fields[name]
    if type(value) is not str or value not in allowed:
        raise ValueError(f"policy.{name} is one of {', '.join(allowed)}")
    return value


def _read_brackets(value: object) -> tuple[tuple[int, int], ...]:
    if type(value) is not list or not 1 <= len(value) <= BRACKETS_MAX:
        raise ValueError(f"policy.brackets has 1 to {BRACKETS_MAX} brackets")
    brackets = tuple(_read_bracket(item) for item in value)
    if brackets[0][0] != 0:
        raise ValueError("the first bracket starts at 0")
    if any(left[0] >= right[0] for left, right in pairwise(brackets)):
        raise ValueError("brackets start in strictly ascending order")
    return brackets


def _read_bracket(value: object) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("a bracket is [from, ppb]")
    start, ppb = value
    if type(start) is not int or not 0 <= start <= AMOUNT_MAX:
        raise ValueError("a bracket starts between 0 and 10^15 grains")
    if type(ppb) is not int or not 0 <= ppb <= PPB:
        raise ValueError("a bracket takes 0 to 10^9 parts per billion")
    return start, ppb


@dataclass(frozen=True, slots=True)
class Timeline:
    """Which policy is in force at which tick (SPEC §5.1).

    `changes` are (from_tick, policy) in ascending order of from_tick, the first at 0, no two alike: of equals only
    the latest counts, so `with_changes` lets it replace the earlier one. Made by `of`, and from one another.
    """

    changes: tuple[tuple[int, Policy], ...] = ()
    #: For each change, how far the policies before it have moved the window of fresh money.
    _moved: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        assert len(self._moved) == len(self.changes), "a timeline is made by `of`"

    @classmethod
    def of(cls, changes: Iterable[tuple[int, Policy]]) -> Self:
        """A timeline from all changes in the order of their entries, the founding policy (from_tick 0) first."""
        return cls().with_changes(changes)

    def with_change(self, from_tick: int, policy: Policy) -> Self:
        """The timeline after one more `policy` entry."""
        return self.with_changes([(from_tick, policy)])

    def with_changes(self, changes: Iterable[tuple[int, Policy]]) -> Self:
        """The timeline after more changes, in the order of their entries.

        What comes before the first of them is taken over as it is: announcements lie ahead, so one more costs no look
        at all those that were ever in force.
        """
        latest = dict(changes)
        if not latest:
            return self
        at = bisect_left(self.changes, min(latest), key=_from_tick)
        merged = {**dict(self.changes[at:]), **latest}
        following = (*self.changes[:at], *sorted(merged.items(), key=_from_tick))
        moved = list(self._moved[:at])
        for index in range(at, len(following)):
            rest_ticks = following[index - 1][1].rest_ticks
            moved.append(max(moved[-1], following[index][0] - rest_ticks) if index else 0)
        return type(self)(following, tuple(moved))

    def policy_at(self, tick: int) -> Policy:
        """The policy in force at a tick."""
        if len(self.changes) == 1:
            return self.changes[0][1]
        return self.changes[self._index(tick)][1]

    def waiting(self, tick: int) -> tuple[tuple[int, Policy], ...]:
        """The announced changes that are not in force yet at `tick`."""
        return self.changes[self._index(tick) + 1 :]

    def segments(self, first: int, last: int) -> Iterator[tuple[int, int, Policy]]:
        """Cut the ticks first…last (both included) where the policy changes: (from, to, policy), ascending."""
        index = self._index(first)
        while first <= last:
            following = self.changes[index + 1][0] if index + 1 < len(self.changes) else last + 1
            yield first, min(last, following - 1), self.changes[index][1]
            first, index = following, index + 1

    def window_start(self, tick: int) -> int:
        """s(tick) of SPEC §4.2: where the window of fresh money starts. It depends on the policies alone."""
        if len(self.changes) == 1:
            return max(0, tick - self.changes[0][1].rest_ticks + 1)
        index = self._index(tick)
        return max(self._moved[index], tick - self.changes[index][1].rest_ticks + 1)

    def _index(self, tick: int) -> int:
        return bisect_right(self.changes, tick, key=_from_tick) - 1


def _from_tick(change: tuple[int, Policy]) -> int:
    return change[0]

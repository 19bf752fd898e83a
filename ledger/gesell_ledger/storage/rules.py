"""What seldom changes in a commons, kept in memory: its policies and its kinds of gifts.

Owns when they are asked for again. One of these serves all that a part of the service reads; from one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gesell_ledger.core.books import FIRST_KINDS, Commons
from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_protocol.policy import Timeline

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Pool

T = TypeVar("T")

_SEQUENCE = queries("sequence")

#: Commons whose rules are kept at most; beyond, all are asked for anew.
RULES_MAX: Final = 10_000
#: The event loop breathes after so many rows of rules: a commons that is old may have a policy for every tick.
RULES_AT_ONCE: Final = 100


class Rules:
    """What seldom changes: policies and kinds of gifts, kept between batches."""

    def __init__(self) -> None:
        self._timelines = _Added("load_policies", Timeline(), rows.extend_timeline)
        self._kinds = _Added("load_kinds", FIRST_KINDS, rows.extend_kinds)

    async def read_commons(self, connection: Connection | Pool, head: rows.Row) -> Commons:
        """A commons by its head row, with its rules."""
        commons_id = rows.key_of(head["hash"])
        timeline = await self._timelines.read(connection, commons_id, head["policies"])
        kinds = await self._kinds.read(connection, commons_id, head["kinds"])
        return rows.read_commons(head, timeline, kinds)


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    """The first `count` rows of a commons, the last of them of entry `seq`, and what they come to."""

    count: int
    seq: int
    value: T


class _Added(Generic[T]):
    """Rows that are only ever added to, by commons: what they come to is kept, and those alone are loaded that came
    since. A stranger may add as many as there are statements, and all processes look at them.
    """

    def __init__(self, query: str, nothing: T, extend: Callable[[T, Sequence[rows.Row]], T]) -> None:
        self._query = _SEQUENCE[query]
        self._nothing = _Kept(0, 0, nothing)
        self._extend = extend
        self._known: dict[int, _Kept[T]] = {}

    async def read(self, connection: Connection | Pool, commons_id: int, count: int) -> T:
        """What the rows of a commons come to, of which its head counts so many; later ones may be among them."""
        known = self._known.get(commons_id, self._nothing)
        if known.count == count:
            return known.value
        if known.count > count:
            # Another look saw more than this one may, or the database was put back to what it was.
            self._known.pop(commons_id)
            known = self._nothing
        found = await connection.fetch(self._query, commons_id, known.seq)
        if known.count + sum(row["counted"] for row in found) < count:
            # Rows that came since are more than those that can be seen behind what is known, so that was lost.
            known = self._nothing
            found = await connection.fetch(self._query, commons_id, known.seq)
        value = known.value
        for at in range(0, len(found), RULES_AT_ONCE):
            if at:
                await asyncio.sleep(0)
            value = self._extend(value, found[at : at + RULES_AT_ONCE])
        if found:
            if len(self._known) >= RULES_MAX:
                self._known.clear()
            counted = known.count + sum(row["counted"] for row in found)
            self._known[commons_id] = _Kept(counted, max(row["seq"] for row in found), value)
        return value

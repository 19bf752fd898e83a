"""Who waits behind whom: somebody with a few statements never waits for all of somebody's many.

Owns the two queues and their turns. Knows nothing of what waits in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

#: A request of more statements has many.
FEW: Final = 16

T = TypeVar("T")


class Queues(Generic[T]):
    """Two queues that take turns; within each, first come, first served.

    Who serves takes from the first of a `turn` as long as there is room, then from the other. So who has few waits
    for one serving of many at most, whatever others bring, and who has many for one of few.
    """

    __slots__ = ("_turns", "few", "many")

    def __init__(self) -> None:
        self.few: deque[T] = deque()
        self.many: deque[T] = deque()
        self._turns = deque([self.few, self.many])

    def turn(self) -> Iterator[deque[T]]:
        """Both queues, to take from: first the one that was second the last time."""
        self._turns.rotate()
        return iter(self._turns)

    def clear(self) -> None:
        """Forget what waits."""
        self.few.clear()
        self.many.clear()

    def __bool__(self) -> bool:
        return bool(self.few or self.many)

    def __iter__(self) -> Iterator[T]:
        return chain(self.few, self.many)

"""How many bytes may be held at once: of bodies that arrive, of answers whose readers take their time.

Owns the counting. Knows no request and no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from gesell_ledger.sequencer import Unavailable

#: What each holder may hold without asking. Whoever fills the room can then not shut out those who send one payment.
FREE_BYTES: Final = 64 * 1024


class Room:
    """Room for so many bytes, shared by all who hold some. One event loop; not for threads."""

    def __init__(self, size: int) -> None:
        self._left = size

    @contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Hold bytes as long as the context lasts; the function it gives takes so many more.

        That function raises `Unavailable`, and takes nothing, when more than `FREE_BYTES` are held and there is no
        room for them.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            beyond = max(0, held + size - FREE_BYTES) - max(0, held - FREE_BYTES)
            if beyond > self._left:
                raise Unavailable("too many large requests and answers are under way", retry_after=1)
            self._left -= beyond
            held += size

        try:
            yield take
        finally:
            self._left += max(0, held - FREE_BYTES)

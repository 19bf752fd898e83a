"""Long loops that let others have their turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def unhurried(items: Iterable[T], *, at_once: int) -> AsyncIterator[T]:
    """The items in their order; after every so many, others have their turn."""
    for place, item in enumerate(items, start=1):
        yield item
        if place % at_once == 0:
            await asyncio.sleep(0)

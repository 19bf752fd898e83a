"""When a delivery that failed is tried again, and when it is given up.

Owns the waiting times, which are those that the Standard Webhooks specification shows: nine more attempts within
about three days. Pure: chance and clocks are handed in.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3_600

#: Seconds from each failure to the next attempt.
SCHEDULE: Final = (
    5,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
#: Each waiting time is longer by up to this part of it, so that what failed together does not come back together.
JITTER: Final = 0.2
#: An endpoint may ask to be left alone for so long, not longer.
RETRY_AFTER_MAX_SECONDS: Final = 24 * _HOUR


def wait_ms(
    failures: int, *, chance: float, retry_after_s: int | None = None, schedule: tuple[float, ...] = SCHEDULE
) -> int | None:
    """Milliseconds until the next attempt after so many failures in a row (at least 1), None to give it up.

    `chance` is from [0, 1); `retry_after_s` is what the endpoint asked for, which can make it longer, never shorter.
    """
    if failures > len(schedule):
        return None
    asked = min(retry_after_s or 0, RETRY_AFTER_MAX_SECONDS)
    return round(1000 * max(schedule[failures - 1] * (1 + JITTER * chance), asked))


def retry_after(header: str | None, *, now_s: float) -> int | None:
    """Seconds that a `Retry-After` header asks for, given as seconds or as a date; None for what can't be read."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return min(int(header[:9]), RETRY_AFTER_MAX_SECONDS)
    try:
        seconds = parsedate_to_datetime(header).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return max(0, min(int(seconds), RETRY_AFTER_MAX_SECONDS))

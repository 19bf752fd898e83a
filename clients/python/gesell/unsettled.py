"""What was sent, until what became of it is in the hands of who asked.

Owns the list behind `Client.unsettled`, and when something leaves it. Knows neither how envelopes travel nor what they
say.

1. Statements are listed before they are sent. They leave the list only when the call that sent them hands its outcome
   over; so an interrupt may strike anywhere, also after the answer came and before the caller has it.
2. What was refused for good is not listed: nothing was applied, and sending it again could change that.
3. A statement that a later call has settled leaves the list with that call's outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from gesell.delivery import Parcel
from gesell.errors import OutcomeUnknown


class Call:
    """A program's call, which may send several times; `handed_over` once the program has what came of it."""

    __slots__ = ("handed_over",)

    def __init__(self) -> None:
        self.handed_over = False


#: The call on whose behalf something is sent. Without one, each sending is a call of its own, handed over at its end.
CALL: Final[ContextVar[Call | None]] = ContextVar("gesell.unsettled.CALL", default=None)


class _Sending:
    """Parcels that went out together on behalf of a call; `over` when nothing more will be done for them."""

    __slots__ = ("call", "over", "parcels")

    def __init__(self, parcels: Sequence[Parcel], call: Call) -> None:
        self.parcels = list(parcels)
        self.call = call
        self.over = False


class Unsettled:
    """What one connection has sent and not handed over. May be asked from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sendings: list[_Sending] = []

    @contextmanager
    def sending(self, parcels: Sequence[Parcel]) -> Iterator[None]:
        """List these parcels while they are sent within, and afterwards until their call is handed over."""
        outer = CALL.get()
        sending = _Sending(parcels, outer or Call())
        with self._lock:
            self._tidy()
            self._sendings.append(sending)
        try:
            yield
            if outer is None:
                sending.call.handed_over = True
        finally:
            sending.over = True

    def told(self) -> tuple[OutcomeUnknown, ...]:
        """One error for each statement that a call left behind, in the order in which they were sent."""
        why = "the call was interrupted before it could tell"
        with self._lock:
            self._tidy()
            left = {item.id: item for sending in self._sendings if sending.over for item in sending.parcels}
        return tuple(OutcomeUnknown(item.envelope, item.id, why=why) for item in left.values())

    def _tidy(self) -> None:
        handed_over = [sending for sending in self._sendings if sending.call.handed_over]
        settled = {item.id for sending in handed_over for item in sending.parcels if _is_settled(item)}
        self._sendings = [sending for sending in self._sendings if not sending.call.handed_over]
        for sending in self._sendings:
            sending.parcels = [item for item in sending.parcels if item.id not in settled and not _is_refused(item)]
        self._sendings = [sending for sending in self._sendings if sending.parcels or not sending.over]


def _is_settled(item: Parcel) -> bool:
    return item.status != "open" and not isinstance(item.error, OutcomeUnknown)


def _is_refused(item: Parcel) -> bool:
    return item.status == "refused" and _is_settled(item)

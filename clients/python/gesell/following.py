"""Following: entries as they are accepted, by server-sent events, without loss and without repeat (SPEC §7.2).

Owns the stream, its reconnecting, and the order in which entries come out of it. What an entry is, and whether its leaf
is its hash, is `answers`'; who reads is told by the caller.

1. Each entry comes once, in ascending order of `seq`: what was heard before is passed over, and after a lost
   connection the stream goes on after the last entry that was heard.
2. Where everybody sees every entry, the numbers have no gap; one is repaired by listening again, and told if it stays.
3. A connection without a byte for `SILENCE_SECONDS` is dead: the ledger sends a comment line every 15 seconds.
4. What passes by itself is waited for, with jittered back-off. A refusal that does not pass, an answer that is no
   stream and an entry that can't be true end the following with an error.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from yarl import URL

from gesell.answers import Entry, read_entry, understood
from gesell.errors import BadToken, GesellError, Refused, UnexpectedAnswer, Unreachable
from gesell.transport import Answer, NoAnswer, NotSent, Transport, backoff, failure_of, passes

STREAM_TYPE: Final = "text/event-stream"
SILENCE_SECONDS: Final = 45.0
#: An entry of 16 KiB of body, a thousand postings and a memo takes less than half of this in JSON.
EVENT_MAX_BYTES: Final = 1024 * 1024
RETRY_MAX_SECONDS: Final = 60.0
#: How often in a row one gap, or one token, is tried again.
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its name, its data, and the id that was last set before or in it."""

    name: str
    data: str
    id: str


class Events:
    """Cuts a stream of bytes into server-sent events (the WHATWG's HTML standard, §9.2.6), within bounds.

    Lines end in LF or CRLF. What is not ended by an empty line is no event yet.
    """

    def __init__(self) -> None:
        #: The line that has not ended yet.
        self._rest = bytearray()
        self._name, self._data, self._id = "", list[str](), ""
        self._held = 0
        #: How long the ledger wants listeners to wait before they come back; 0 if it does not say.
        self.retry_seconds = 0.0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that these bytes complete; raises `UnexpectedAnswer` for one that is too long or no UTF-8."""
        # Only what is new is searched, so that a long line in many pieces is not searched over and over.
        end, *beginnings = chunk.split(b"\n")
        self._rest += end
        for beginning in beginnings:
            line, self._rest = bytes(self._rest), bytearray(beginning)
            self._check_size(len(line))
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                yield event
        self._check_size(len(self._rest))

    def _check_size(self, unread: int) -> None:
        if self._held + unread > EVENT_MAX_BYTES:
            raise UnexpectedAnswer(f"the ledger sent an event of more than {EVENT_MAX_BYTES} bytes")

    def _take(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name or "message", "\n".join(self._data), self._id) if self._data else None
            self._name, self._data, self._held = "", [], 0
            return event
        if line.startswith(b":"):  # a comment keeps the connection alive, and nothing else
            return None
        self._held += len(line)
        try:
            field, _, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise UnexpectedAnswer("the ledger sent an event that is no UTF-8") from None
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdecimal():
            self.retry_seconds = min(int(value[:9]) / 1000, RETRY_MAX_SECONDS)
        return None


class Follower:
    """Follows the entries at `url`.

    `begin` tells after which one, or None for the last one there is, which the ledger knows.
    `token` makes the token to read with, anew if asked to; `sees_all` tells whether the reader sees every entry.
    `patience` is how many seconds the first connection may take to stand; later ones are tried for as long as it takes.
    """

    def __init__(
        self,
        transport: Transport,
        url: URL,
        *,
        begin: Callable[[], Awaitable[int | None]],
        token: Callable[[bool], Awaitable[str | None]],
        sees_all: Callable[[], Awaitable[bool]],
        patience: float,
    ) -> None:
        self._transport = transport
        self._url = url
        self._begin = begin
        self._begun = False
        self._last: int | None = None
        self._token = token
        self._sees_all = sees_all
        self._deadline: float | None = time.monotonic() + patience
        self._pauses = backoff()
        #: How often in a row there was a gap, and a token was bad.
        self._gaps = 0
        self._bad_tokens = 0
        self._renew = False
        self._events = Events()

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """The entries, for as long as the caller listens."""
        while True:
            try:
                async with aclosing(self._listen()) as heard:
                    async for entry in heard:
                        self._pauses, self._gaps = backoff(), 0
                        self._last = entry.seq
                        yield entry
                wait, why = 0.0, "the ledger ended the stream"
            except (NotSent, NoAnswer) as error:
                wait, why = 0.0, str(error)
            except _Passing as passing:
                wait, why = passing.wait, str(passing)
            pause = max(next(self._pauses), wait, self._events.retry_seconds)
            if self._deadline is not None and time.monotonic() + pause > self._deadline:
                raise Unreachable(f"{self._url.origin()} can't be followed: {why}")
            await asyncio.sleep(pause)

    async def _listen(self) -> AsyncGenerator[Entry, None]:
        """The entries of one connection that were not heard before."""
        with _passing_told():
            if not self._begun:
                self._last, self._begun = await self._begin(), True
            token = await self._token(self._renew)
        # A proxy that compresses would hold events back until there are more of them.
        url, headers = self._url, {"Cache-Control": "no-store", "Accept-Encoding": "identity"}
        if self._last is not None:
            url, headers = url.update_query(after=str(self._last)), {**headers, "Last-Event-ID": str(self._last)}
        async with self._transport.stream(
            url, accept=STREAM_TYPE, headers=headers, token=token, silence=SILENCE_SECONDS
        ) as stream:
            if isinstance(stream, Answer):
                raise self._told(stream)
            # A token is good until the stream stands, which ends with it, also where there was nothing to hear.
            self._deadline, self._renew, self._bad_tokens = None, False, 0
            self._events, gaps_are_fine = Events(), False
            async for chunk in stream:
                for event in self._events.feed(chunk):
                    entry = _entry_of(event)
                    last = self._last
                    if entry is None or (last is not None and entry.seq <= last):
                        continue
                    if last is not None and entry.seq > last + 1 and not gaps_are_fine:
                        await self._check_gap(last, entry.seq)
                        gaps_are_fine = True
                    yield entry
                if self._events.retry_seconds > 0:
                    # The ledger says itself how soon to come back, also where there was nothing to hear.
                    self._pauses = backoff()

    def _told(self, answer: Answer) -> Exception:
        """What to raise for an answer that is no stream."""
        if answer.status == 200:
            return UnexpectedAnswer(f"{answer.url} does not follow live; an older ledger, or a proxy in between?")
        error = failure_of(answer)
        if isinstance(error, BadToken):
            self._bad_tokens += 1
            self._renew = True
            return _Passing(error, wait=0.0) if self._bad_tokens < TRIES else error
        if answer.status >= 500 or passes(error):
            return _Passing(error, wait=min(answer.retry_after, RETRY_MAX_SECONDS))
        return error

    async def _check_gap(self, last: int, seq: int) -> None:
        with _passing_told():
            left_out = await self._sees_all()
        if left_out:
            error = UnexpectedAnswer(f"the ledger leaves out entries {last + 1} to {seq - 1}")
            self._gaps += 1
            raise _Passing(error, wait=0.0) if self._gaps < TRIES else error


class _Passing(Exception):
    """A failure after which listening again may do."""

    def __init__(self, error: GesellError, *, wait: float) -> None:
        super().__init__(str(error))
        self.wait = wait


@contextmanager
def _passing_told() -> Iterator[None]:
    """Tell a failure that passes by itself, of a read beside the stream, from others."""
    try:
        yield
    except (Unreachable, Refused) as error:
        if not passes(error):
            raise
        raise _Passing(error, wait=0.0) from None


def _entry_of(event: Event) -> Entry | None:
    """The entry that an event carries, checked against its leaf; None for an event of another kind."""
    if event.name != "entry":
        return None
    entry = understood(read_entry, _fields(event.data))
    if event.id != str(entry.seq):
        raise UnexpectedAnswer(f"the event of entry {entry.seq} has the id {event.id!r}")
    return entry


def _fields(data: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UnexpectedAnswer("the ledger sent an entry that is no JSON object")
    return fields

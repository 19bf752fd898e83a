"""HTTP to one ledger: single requests, what became of them, and the patience between them.

Owns the session, time limits, back-off, and the difference between "it was never sent", "no answer came" and "this
is the answer". Knows no statement; whether asking again is safe is for its caller to know.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp
import msgpack
from yarl import URL

from gesell.errors import GesellError, Refused, UnexpectedAnswer, Unreachable, refused

READ_ATTEMPTS: Final = 4
BACKOFF_FIRST_SECONDS: Final = 0.1
BACKOFF_MAX_SECONDS: Final = 5.0
#: An answer may have so many bytes after decompression, and so many times as many as the request: a payment to many,
#: with the melt of each, has a receipt several times as long as itself.
ANSWER_MAX_BYTES: Final = 32 * 1024 * 1024
ANSWER_TIMES: Final = 8
CHUNK_BYTES: Final = 64 * 1024
#: What gateways say of themselves when they do not reach the ledger.
GATEWAY: Final = frozenset({502, 503, 504})
PROBLEM_TYPE: Final = "application/problem+json"
MSGPACK_TYPE: Final = "application/msgpack"
#: Codes that pass by themselves. After those in `UNSETTLED` the statement may have been applied all the same.
UNSETTLED: Final = frozenset({"unavailable", "internal"})
PASSING: Final = UNSETTLED | {"rate-limited", "timeout"}


class Form(NamedTuple):
    """What form of answer a read asks for, and how long it may be: `ANSWER_MAX_BYTES` unless it says so."""

    accept: str = "application/json"
    max_bytes: int | None = None


JSON: Final = Form()


class NotSent(Exception):
    """No connection could be made: the ledger has not seen the request."""


class NoAnswer(Exception):
    """The request went out and no whole answer came back: the ledger may have acted on it."""


class TooLong(NoAnswer):
    """The answer is longer than is taken, and was not read to its end."""


class AnswerTooLong(UnexpectedAnswer):
    """What was asked for has a longer answer than is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole HTTP answer. `received_at` is monotonic time, `retry_after` seconds, `next` the next page's URL."""

    url: URL
    status: int
    media_type: str
    body: bytes
    received_at: float
    retry_after: float
    next: URL | None

    def problem(self) -> Mapping[str, Any] | None:
        """The problem (RFC 9457) that this answer carries, if it carries one of a ledger."""
        if self.media_type != PROBLEM_TYPE:
            return None
        try:
            problem = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return problem if isinstance(problem, dict) and isinstance(problem.get("code"), str) else None


class Transport:
    """A session with the ledger at `url`; `timeout` is seconds for one request."""

    def __init__(self, url: str, *, timeout: float) -> None:
        base = URL(url)
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"{url!r} is no address of a ledger; it looks like http://127.0.0.1:8420")
        path = base.path.rstrip("/").removesuffix("/v1")
        self.base = base.with_path(path + "/v1").with_query(None).with_fragment(None)
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers={"User-Agent": "gesell-python/0.1.0"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def url_of(self, path: str, params: Mapping[str, str] | None = None) -> URL:
        """The URL of `path` (below `/v1`, beginning with `/`, or empty) with a query."""
        url = URL(str(self.base) + path, encoded=True)
        return url.update_query(params) if params else url

    async def read(self, url: URL, form: Form = JSON, *, token: str | None = None) -> Answer:
        """GET a URL of this ledger and return the answer with status 200; nothing is sent to another origin.

        `token` says who reads. Asks a few times while the ledger can't be reached or says that it passes. Raises
        `Refused` for the ledger's no, `Unreachable`, and `UnexpectedAnswer`.
        """
        if url.origin() != self.base.origin():
            raise UnexpectedAnswer(f"the ledger points to another origin: {url.origin()}")
        pauses = backoff()
        # All attempts together take no longer than one may: a ledger that hangs is told of in time.
        deadline = time.monotonic() + self._timeout
        for attempt in range(READ_ATTEMPTS):
            try:
                answer = await self.ask("GET", url, accept=form.accept, token=token, max_bytes=form.max_bytes)
            except TooLong as error:
                raise AnswerTooLong(f"{url} has no answer that can be taken: {error}") from None
            except (NotSent, NoAnswer) as error:
                failure: GesellError = Unreachable(f"{self.base.origin()} can't be reached: {error}")
                wait = 0.0
            else:
                if answer.status == 200:
                    return answer
                failure, wait = failure_of(answer), answer.retry_after
                if answer.status in GATEWAY and answer.problem() is None:
                    failure = Unreachable(f"{self.base.origin()} can't be reached: a gateway says {answer.status}")
                if not passes(failure):
                    raise failure
            pause = max(next(pauses), wait)
            late = time.monotonic() + pause > deadline
            if attempt + 1 == READ_ATTEMPTS or pause > BACKOFF_MAX_SECONDS or late:
                break
            await asyncio.sleep(pause)
        raise failure

    async def ask(
        self,
        method: str,
        url: URL,
        *,
        data: bytes | None = None,
        media_type: str = MSGPACK_TYPE,
        accept: str = "application/json",
        token: str | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """Make one request and return its answer, whatever it says; raises `NotSent` or `NoAnswer`."""
        headers = _headers(accept, token)
        if data is not None:
            headers["Content-Type"] = media_type
        limit = aiohttp.ClientTimeout(total=self._timeout)
        with _failures_told():
            # A redirect is not followed: statements and tokens go where the caller said, nowhere else.
            async with self._open().request(
                method, url, data=data, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                longest = ANSWER_MAX_BYTES if max_bytes is None else max_bytes
                return await _whole(response, longest + ANSWER_TIMES * len(data or b""))

    @asynccontextmanager
    async def stream(
        self, url: URL, *, accept: str, headers: Mapping[str, str], token: str | None, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes] | Answer]:
        """GET a URL whose answer goes on: yields its bytes as they come, or the whole answer if it is not `accept`.

        `silence` is how many seconds may pass without a byte. Raises `NotSent` or `NoAnswer`, while it is read too.
        """
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        with _failures_told():
            async with self._open().get(
                url, headers={**_headers(accept, token), **headers}, timeout=limit, allow_redirects=False
            ) as response:
                if response.status == 200 and response.content_type == accept:
                    yield response.content.iter_any()
                else:
                    async with asyncio.timeout(self._timeout):
                        answer = await _whole(response, ANSWER_MAX_BYTES)
                    yield answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use `async with Client(…) as gesell:`")
        return self._session


async def _whole(response: aiohttp.ClientResponse, max_bytes: int) -> Answer:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            response.close()
            raise TooLong(f"it is longer than {max_bytes} bytes")
    link = response.links.get("next")
    following = link.get("url") if link is not None else None
    return Answer(
        url=response.url,
        status=response.status,
        media_type=response.content_type,
        body=bytes(body),
        received_at=time.monotonic(),
        retry_after=_seconds(response.headers.get("Retry-After")),
        next=following if isinstance(following, URL) else None,
    )


def _headers(accept: str, token: str | None) -> dict[str, str]:
    return {"Accept": accept} if token is None else {"Accept": accept, "Authorization": f"Bearer {token}"}


@contextmanager
def _failures_told() -> Iterator[None]:
    """Tell "it was never sent" from "no answer came"."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotSent(_why(error)) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NoAnswer(_why(error)) from error


def json_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer; raises `UnexpectedAnswer` if there is none."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UnexpectedAnswer(f"{answer.url} does not answer as a ledger does; is the address right?")
    return value


def msgpack_of(answer: Answer) -> dict[str, Any] | None:
    """The MessagePack map of an answer, or None if it holds none."""
    try:
        value = msgpack.unpackb(answer.body, strict_map_key=True)
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def backoff() -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling, bounded, and jittered so that clients spread out."""
    pause = BACKOFF_FIRST_SECONDS
    while True:
        yield random.uniform(0.5, 1.0) * pause
        pause = min(2 * pause, BACKOFF_MAX_SECONDS)


def passes(error: GesellError) -> bool:
    """Whether a failure to read passes by itself."""
    return isinstance(error, Unreachable) or (isinstance(error, Refused) and error.code in PASSING)


def failure_of(answer: Answer) -> Refused | UnexpectedAnswer:
    """The error that an answer stands for which is not the one hoped for."""
    problem = answer.problem()
    if problem is None:
        return UnexpectedAnswer(f"{answer.url} answered {answer.status}, not as a ledger does; is the address right?")
    try:
        return refused(problem)
    except ValueError as error:
        return UnexpectedAnswer(f"{answer.url} answered a problem that can't be read: {error}")


def _seconds(header: str | None) -> float:
    # The other form of Retry-After, a date, is of the wall clock and not worth trusting ours for.
    return float(header) if header is not None and header.isdecimal() else 0.0


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = getattr(error, "os_error", None)
    return (getattr(cause, "strerror", None) or str(error) or type(error).__name__).lower()

"""One attempt to deliver one message: an HTTP POST, and what became of it.

Owns the connections and what an endpoint may cost: seconds, bytes of its answer, connections at once. Follows no
redirect, keeps no cookie, asks no proxy. What is told of a failure comes from a short list of words, since whoever
chose the URL reads it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from gesell_ledger import __version__
from gesell_ledger.webhooks.addresses import NoRoom, NotPublic, Resolver, open_socket, read_url
from gesell_ledger.webhooks.schedule import retry_after

ATTEMPT_SECONDS: Final = 15.0
#: Bytes of an answer's body that are taken so that its connection can be used again; nobody reads them.
ANSWER_MAX_BYTES: Final = 4_096
#: Bytes of a whole answer, its head and what stands before it included.
WIRE_MAX_BYTES: Final = 32 * 1024
#: Shorter than what common servers keep an idle connection for, so that they do not close it just as it is used.
KEPT_SECONDS: Final = 2.0
#: What the system says when files, buffers or memory have run out here: nothing that an endpoint could help.
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `gone`: the endpoint wants no more. `postponed`: it was not asked, for want of
    something of our own. `why` tells of a failure; `wait_s` is for how long the endpoint asked to be left alone.
    """

    kind: Literal["delivered", "gone", "failed", "postponed"]
    why: str = ""
    wait_s: int | None = None


class _Line(ResponseHandler):
    """A connection that takes so many bytes of an answer and no more. The parser passes over interim answers (1xx), of
    which an endpoint can send any number without the attempt ever getting to its time limit.
    """

    _taken = 0

    def set_response_params(self, **options: Any) -> None:
        self._taken = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        room = max(0, WIRE_MAX_BYTES - self._taken)
        self._taken += len(data)
        super().data_received(data[:room])
        if len(data) > room and self.transport is not None:
            self.set_exception(aiohttp.ClientPayloadError("the answer is too long"))
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Makes connections that are bounded so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp offers no other way to say of which class its connections are.
        self._factory = cast("functools.partial[ResponseHandler]", functools.partial(_Line, loop=self._loop))


class Sender:
    """Sends to any number of endpoints, within `async with`. For one event loop."""

    def __init__(self, *, to_private: bool, connections: int, attempt_seconds: float = ATTEMPT_SECONDS) -> None:
        self._to_private = to_private
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=attempt_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = _Connector(
            resolver=Resolver(),
            use_dns_cache=False,
            socket_factory=open_socket(to_private=self._to_private),
            limit=self._connections,
            keepalive_timeout=KEPT_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"gesell-ledger/{__version__}", "Content-Type": "application/json"},
            timeout=self._timeout,
            auto_decompress=False,
            read_bufsize=ANSWER_MAX_BYTES,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """POST a message once; whatever the endpoint does is an `Outcome`."""
        assert self._session is not None
        try:
            # What was taken when private endpoints were allowed may not be any more.
            target: URL = read_url(url, to_private=self._to_private)
            async with self._session.post(target, data=body, headers=headers, allow_redirects=False) as response:
                outcome = _judge(response)
                await _drain(response)
                return outcome
        except TimeoutError:
            return Outcome("failed", "no answer in time")
        except ValueError:
            return Outcome("failed", "the URL can't be used")
        except (aiohttp.ClientError, ssl.SSLError, OSError, RuntimeError) as error:
            return Outcome("postponed") if _is_shortage(error) else Outcome("failed", _word_for(error))


def _judge(response: aiohttp.ClientResponse) -> Outcome:
    """The status decides, as the Standard Webhooks specification has it."""
    if 200 <= response.status < 300:
        return Outcome("delivered")
    if response.status == 410:
        return Outcome("gone", "HTTP 410")
    wait = retry_after(response.headers.get("Retry-After"), now_s=time.time())
    return Outcome("failed", f"HTTP {response.status}", wait)


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Take a short answer off the wire; a long or slow one has its connection closed. The outcome stands already."""
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            size = 0
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > ANSWER_MAX_BYTES:
                    break
    if not response.content.at_eof():
        response.close()


def _cause_of(error: Exception) -> Exception:
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _is_shortage(error: Exception) -> bool:
    """Whether an attempt went wrong on our side, before the endpoint had a part in it."""
    cause = _cause_of(error)
    return isinstance(cause, NoRoom) or (isinstance(cause, OSError) and cause.errno in _SHORTAGES)


def _word_for(error: Exception) -> str:
    cause = _cause_of(error)
    if isinstance(cause, NotPublic):
        return str(cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name can't be resolved"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "no TLS that can be trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    return "the connection broke, or the answer was not HTTP"

"""Where a delivery may go: which URLs are taken, and which addresses are connected to.

Owns the protection of the operator's own network against those who choose where the service sends requests. It stands
at two places: a URL is read and its name resolved when it is asked for, so that a mistake is told of at once; and every
socket of every delivery is made by `open_socket`, which sees the very address that is connected to. So a name that
means another address later, or an address in a form that only a resolver understands, gains nothing.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

URL_MAX_CHARS: Final = 1_000
#: Names that are looked up at once. A lookup can't be stopped, so those that hang keep their places until they end,
#: which may be long after the attempts that asked. So there are several times as many places as attempts at once.
LOOKUPS_MAX: Final = 128

#: Printable ASCII without what no URL has, and nothing after `#`.
_URL: Final = re.compile(r"https?://[!$-;=?-Z\[\]_a-z~]+")
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
#: Addresses that stand for an IPv4 address elsewhere: 6to4 and Teredo, both given up for good.
_TUNNELS: Final = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))


class BadUrl(ValueError):
    """Not a URL that a webhook can have; the message says why."""


class NotPublic(OSError):
    """The address belongs to a network that is not public."""

    def __init__(self) -> None:
        super().__init__("the address is not a public one")


class NoRoom(OSError):
    """Too many other names are being looked up: this one may be as good as any."""


def read_url(text: str, *, to_private: bool) -> URL:
    """The URL of an endpoint; raises `BadUrl`.

    https only, on port 443 or 1024 and above, so that nobody is spoken to who expects another protocol; no user and no
    fragment. Where private endpoints are allowed, http too, and any port.
    """
    if len(text) > URL_MAX_CHARS:
        raise BadUrl(f"a URL has at most {URL_MAX_CHARS} characters")
    if not _URL.fullmatch(text):
        raise BadUrl("a URL is written in ASCII, begins with https:// and has no fragment")
    try:
        url = URL(text, encoded=True)
        host, port = (url.raw_host or "").lower(), url.port
    except ValueError as error:
        raise BadUrl(f"not a URL: {error}") from None
    if url.raw_user is not None or url.raw_password is not None or "@" in url.raw_authority:
        raise BadUrl("a URL has no user and no password")
    if "[" in url.raw_authority and ":" not in host:
        raise BadUrl("in brackets stands an IPv6 address")
    _check_host(host)
    if port is None or not 1 <= port <= 65_535:
        raise BadUrl("a port is from 1 to 65535")
    if not to_private:
        if url.scheme != "https":
            raise BadUrl("a URL begins with https://")
        if port != 443 and port < 1024:
            raise BadUrl("a port is 443, or 1024 and above")
    return url


def _check_host(host: str) -> None:
    """An IP address as it is written, or a name; addresses in other forms are refused, whoever would take them."""
    try:
        if ":" in host:
            if "%" in host:
                raise ValueError
            IPv6Address(host)
        elif _ends_in_a_number(host):
            IPv4Address(host)
        elif not _NAME.fullmatch(host.removesuffix(".")):
            raise ValueError
    except ValueError:
        raise BadUrl("the host is a name, or an IP address as it is usually written") from None


def _ends_in_a_number(host: str) -> bool:
    """Whether a host is meant as an IPv4 address, in one of the forms that C libraries take (WHATWG URL §3.5)."""
    return _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]) is not None


def is_public(address: str) -> bool:
    """Whether an IP address is one that the whole world may speak to."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(IPv4Address(int(ip) & 0xFFFF_FFFF)))
        if ip not in _GLOBAL_UNICAST or any(ip in tunnel for tunnel in _TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def open_socket(*, to_private: bool) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Makes the sockets of an aiohttp connector, for the address that it is about to connect to; raises `NotPublic`."""

    def opened(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not to_private and not is_public(address[0]):
            raise NotPublic
        return socket.socket(family, kind, protocol)

    return opened


class Resolver(AbstractResolver):
    """Looks names up in threads of its own: those of the event loop are few, and a name server that never answers
    would hold up everybody who shares them. They end with the process, whatever they wait for.

    A name is looked up once at a time, for whoever asks meanwhile; so one that hangs takes one place.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name; raises `OSError`, at once and as `NoRoom` if too many others are looked up. Waits
        as long as the system does: give it a timeout.
        """
        found = self._running.get((host, family)) or self._look_up(host, family)
        return [
            ResolveResult(
                hostname=host, host=info[4][0], port=port, family=info[0], proto=0, flags=socket.AI_NUMERICHOST
            )
            # Who gives up does so for itself alone.
            for info in await asyncio.shield(found)
        ]

    def _look_up(self, host: str, family: int) -> asyncio.Future[list[Any]]:
        """Begin to look a name up; it keeps its place until the system has answered."""
        if len(self._running) >= LOOKUPS_MAX:
            raise NoRoom("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(answer: list[Any] | OSError) -> None:
            del self._running[host, family]
            if isinstance(answer, OSError):
                found.set_exception(answer)
                found.exception()  # is nobody's fault if nobody waits for it any more
            else:
                found.set_result(answer)

        def look_up() -> None:
            try:
                answer: list[Any] | OSError = list(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM))
            except OSError as error:
                answer = error
            except UnicodeError as error:
                answer = OSError(str(error))
            try:
                loop.call_soon_threadsafe(settle, answer)
            except RuntimeError:
                return  # the service has ended meanwhile

        try:
            threading.Thread(target=look_up, daemon=True, name="webhook name").start()
        except RuntimeError:
            raise NoRoom("the system has no thread left") from None
        self._running[host, family] = found
        return found

    async def close(self) -> None:
        """Nothing to close: the threads end by themselves."""


async def check_public(url: URL, resolver: Resolver) -> None:
    """Raise `NotPublic` if the host of a URL is, or by now means, any address that is not public, `NoRoom` if that
    can't be told now, and `OSError` if its name can't be resolved.
    """
    host = (url.raw_host or "").lower()
    if ":" in host or _ends_in_a_number(host):
        addresses = [host]
    else:
        addresses = [result["host"] for result in await resolver.resolve(host, url.port or 443)]
    if not all(is_public(address) for address in addresses):
        raise NotPublic

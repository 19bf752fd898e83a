"""The sockets that a service listens on: bound before anything else is done, one for each worker.

Owns which sockets share a port. Knows nothing of what is spoken through them.

1. A port belongs to one service. Its first socket is bound and listens before it allows others beside it, so that of
   two services on one port the second is refused, even when both start at the same moment: SO_REUSEPORT set any
   earlier would let both in, for the kernel takes two services of one user for two workers of one service.
2. On Linux each worker has a socket of its own, among which the kernel spreads the connections. Elsewhere
   SO_REUSEPORT does not spread them, and all workers take from one.
3. Whoever bound the sockets keeps them open: what waits in the queue of a worker that died is its successor's.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from gesell_ledger.storage.faults import Fault

#: Connections that wait to be accepted, a socket. The kernel's own bound (somaxconn) is 4,096 or less.
BACKLOG: Final = 1024
SPREADS: Final = sys.platform == "linux"

Sockets = Sequence[socket.socket]


@contextmanager
def reserve(host: str, port: int) -> Iterator[Sockets]:
    """Bind one socket for each address of `host`; nothing listens yet. `port` 0 takes any that is free, for all.

    Raises `Fault` when an address can't be had. Leaving the context closes them.
    """
    with ExitStack() as stack:
        bound: list[socket.socket] = []
        for family, address in _addresses(host, port):
            try:
                one = stack.enter_context(_make(family))
                one.bind((address[0], _port_of(bound) if bound else port, *address[2:]))
            except OSError as error:
                # `localhost` has an address of a family that this machine may not speak.
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(_addresses(host, port)) > 1:
                    continue
                raise _refused(host, port, error) from None
            bound.append(one)
        if not bound:
            raise Fault(f"can't listen on {host}:{port}: no address of this machine. Say another --host.")
        yield tuple(bound)


@contextmanager
def listen(first: Sockets, *, workers: int, spread: bool = SPREADS) -> Iterator[Sequence[Sockets]]:
    """Listen on reserved sockets; gives each worker its own, one for each address (rules 1 and 2).

    Raises `Fault` when another service came first. Leaving the context closes those that it made.
    """
    with ExitStack() as stack:
        for one in first:
            _listen(one)
        if workers == 1 or not spread:
            yield [first] * workers
            return
        for one in first:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield [first, *([stack.enter_context(_beside(one)) for one in first] for _ in range(workers - 1))]


def url_of(sockets: Sockets) -> str:
    """Where clients find the service."""
    host, port = sockets[0].getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int] | tuple[str, int, int, int]]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _refused(host, port, error) from None
    # In the order found, each once.
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _make(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    # What an earlier service's connections left in TIME_WAIT does not keep a new one from its port.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def _beside(first: socket.socket) -> socket.socket:
    made = _make(first.family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(first.getsockname())
    _listen(made)
    return made


def _listen(bound: socket.socket) -> None:
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise _refused(host, port, error) from None


def _port_of(bound: Sockets) -> int:
    return int(bound[0].getsockname()[1])


def _refused(host: str, port: int, error: OSError) -> Fault:
    # A name that nobody knows and an address that is another machine's are no matter of the port.
    elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
    other = "--host" if elsewhere else "--port"
    return Fault(f"can't listen on {host}:{port}: {error.strerror or error}. Say another {other}.")

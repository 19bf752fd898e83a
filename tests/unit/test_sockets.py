"""One port, one service: who may listen where, and whose a connection is."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

import pytest

from gesell_ledger.sockets import Sockets, listen, reserve, url_of
from gesell_ledger.storage.faults import Fault

HOST = "127.0.0.1"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over sockets")


def port_of(sockets: Sockets) -> int:
    return int(sockets[0].getsockname()[1])


def connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection((HOST, port), timeout=10) for _ in range(count)]


def accept_all(one: socket.socket) -> int:
    """How many connections waited at a socket."""
    one.setblocking(False)
    count = 0
    while True:
        try:
            accepted, _ = one.accept()
        except BlockingIOError:
            return count
        accepted.close()
        count += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_second_service_on_a_port_is_refused_before_it_does_anything(workers: int) -> None:
    with reserve(HOST, 0) as mine, listen(mine, workers=workers):
        port = port_of(mine)
        said = f"can't listen on 127.0.0.1:{port}: Address already in use. Say another --port"
        with pytest.raises(Fault, match=said), reserve(HOST, port):
            raise AssertionError("bound")


@pytest.mark.parametrize("host", ["192.0.2.7", "nobody.invalid"])  # kept for documentation: no machine's own
def test_an_address_that_is_not_this_machines_asks_for_another_host(host: str) -> None:
    with pytest.raises(Fault, match=r"Say another --host\.$"), reserve(host, 0):
        raise AssertionError("bound")


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("second", [1, 2])
def test_of_two_services_that_start_at_the_same_moment_one_is_refused(first: int, second: int) -> None:
    with reserve(HOST, 0) as mine, reserve(HOST, port_of(mine)) as theirs, listen(mine, workers=first) as groups:
        with pytest.raises(Fault, match="Address already in use"), listen(theirs, workers=second):
            raise AssertionError("both listen")
        lines = connect(port_of(mine), 20)
        assert sum(accept_all(one) for one in {one for group in groups for one in group}) == 20
        for line in lines:
            line.close()


@linux
def test_each_worker_has_a_queue_of_its_own() -> None:
    with reserve(HOST, 0) as mine, listen(mine, workers=3) as groups:
        assert len({one.fileno() for group in groups for one in group}) == 3
        lines = connect(port_of(mine), 90)
        waiting = [accept_all(group[0]) for group in groups]
        assert sum(waiting) == 90
        assert min(waiting) > 0
        for line in lines:
            line.close()


@linux
def test_what_waits_at_the_socket_of_a_worker_that_died_is_its_successors() -> None:
    with reserve(HOST, 0) as mine, listen(mine, workers=2) as groups:
        dead = [one.dup() for group in groups for one in group]
        lines = connect(port_of(mine), 20)
        for one in dead:
            one.close()
        assert sum(accept_all(group[0]) for group in groups) == 20
        for line in lines:
            line.close()


def test_where_the_kernel_does_not_spread_all_workers_take_from_one_socket() -> None:
    with reserve(HOST, 0) as mine, listen(mine, workers=3, spread=False) as groups:
        assert [list(group) for group in groups] == [list(mine)] * 3
        assert not any(one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in mine)


def test_nobody_is_let_in_before_the_service_listens() -> None:
    with reserve(HOST, 0) as mine, pytest.raises(ConnectionRefusedError):
        connect(port_of(mine), 1)


def test_a_port_is_free_again_as_soon_as_its_service_ended() -> None:
    with reserve(HOST, 0) as mine, listen(mine, workers=2) as groups:
        port = port_of(mine)
        lines = connect(port, 4)
        for group in groups:
            # The service ends these first, so that its side is left in TIME_WAIT.
            accept_all(group[0])
    with reserve(HOST, port) as again, listen(again, workers=2):
        assert port_of(again) == port
    for line in lines:
        line.close()


def test_all_addresses_of_a_host_have_the_same_port() -> None:
    with reserve("", 0) as mine, listen(mine, workers=2) as groups:
        assert {one.getsockname()[1] for group in groups for one in group} == {port_of(mine)}
        families = [[one.family for one in group] for group in groups]
        assert families == [families[0]] * 2


@pytest.mark.parametrize(
    ("host", "said"), [("no.such.host.invalid", "can't listen on"), ("192.0.2.1", "can't listen on")]
)
def test_a_host_that_is_not_ours_is_refused_by_name(host: str, said: str) -> None:
    with pytest.raises(Fault, match=f"{said} {host}:0"), reserve(host, 0):
        raise AssertionError("bound")


def test_where_the_service_listens_is_told_as_an_address() -> None:
    with reserve(HOST, 0) as mine:
        assert url_of(mine) == f"http://127.0.0.1:{port_of(mine)}"
    for text in _ipv6():
        assert text.startswith("http://[::1]:")


def _ipv6() -> Sequence[str]:
    try:
        with reserve("::1", 0) as mine:
            return [url_of(mine)]
    except Fault:
        return []  # a machine without IPv6

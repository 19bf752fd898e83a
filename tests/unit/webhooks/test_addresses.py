"""Where a delivery may go: URLs as they are written, addresses as they are connected to."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gesell_ledger.webhooks.addresses import (
    LOOKUPS_MAX,
    BadUrl,
    NotPublic,
    Resolver,
    check_public,
    is_public,
    open_socket,
    read_url,
)
from gesell_ledger.webhooks.sending import Outcome, Sender

PUBLIC = ["93.184.215.14", "8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "5f00::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "localhost",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_whole_world_may_speak_to_it(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_it_is_nobodys_business_from_outside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "https://shop.example/",
        "https://shop.example:8443/a/b?c=d&e=%20",
        "https://SHOP.example./x",
        "https://xn--bcher-kva.example/",
        "https://a_b.shop.example/",
        "https://93.184.215.14/",
        "https://[2606:4700::1111]:4443/",
        "https://shop.example:1024",
        "https://localhost/",
    ],
)
def test_a_url_is_taken_as_it_is_written(text: str) -> None:
    assert str(read_url(text, to_private=False)) == text


@pytest.mark.parametrize("text", ["http://127.0.0.1:8080/", "http://localhost/", "https://10.0.0.1:22/"])
def test_a_url_is_taken_where_private_endpoints_are_allowed(text: str) -> None:
    assert str(read_url(text, to_private=True)) == text
    if not text.startswith("https"):
        with pytest.raises(BadUrl, match="begins with https"):
            read_url(text, to_private=False)


ODD = [
    "",
    "shop.example",
    "//shop.example/",
    "ftp://shop.example/",
    "HTTPS://shop.example/",
    "javascript:alert(1)",
    "https:///path",
    "https://",
    "https://./",
    "https://.shop.example/",
    "https://a..b/",
    "https://-a.example/",
    "https://shop.example:0/",
    "https://shop.example:65536/",
    "https://shop.example:x/",
    "https://ada@shop.example/",
    "https://ada:secret@shop.example/",
    "https://@shop.example/",
    "https://shop.example#here",
    "https://shop.example/#",
    "https://shop.example/ x",
    "https://shop.example/\\x",
    "https://shop.example\\@10.0.0.1/",
    "https://shop.example/\r\nHost: x",
    "https://shop.example/\x00",
    "https://bücher.example/",
    "https://shop.example/ü",
    "https://[::1",
    "https://[fe80::1%25eth0]/",
    "https://[::1%1]/",
    "https://[v1.fe]/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.0x1/",
    "https://127.0.0.1.:443/x".replace("1.:", "01:"),
    "https://1.2.3.4.5/",
    "https://256.1.1.1/",
    "https://shop.0x/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 130 + "example/",
    "https://shop.example/" + "a" * 1000,
]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("to_private", [False, True])
def test_an_odd_url_is_refused_whoever_would_understand_it(text: str, to_private: bool) -> None:
    with pytest.raises(BadUrl):
        read_url(text, to_private=to_private)


@pytest.mark.parametrize("port", [1, 22, 25, 80, 442, 444, 1023])
def test_a_port_where_something_else_listens_is_refused(port: int) -> None:
    with pytest.raises(BadUrl, match="443, or 1024"):
        read_url(f"https://shop.example:{port}/", to_private=False)


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Have the system's resolver answer a name so, one time after the other; the last answer stays."""
    left = list(answers)

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_every_address_of_a_name_is_looked_at_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    url = read_url("https://shop.example/", to_private=False)
    names(monkeypatch, ["8.8.8.8", "2606:4700::1111"], ["8.8.8.8", "10.0.0.1"], [])
    await check_public(url, Resolver())
    with pytest.raises(NotPublic):
        await check_public(url, Resolver())
    with pytest.raises(socket.gaierror):
        await check_public(url, Resolver())


async def test_a_name_that_means_this_machine_by_now_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"https://shop.example:{server.getsockname()[1]}/"
        names(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
        await check_public(read_url(url, to_private=False), Resolver())
        async with Sender(to_private=False, connections=1) as sender:
            outcome = await sender.send(url, b"{}", {})
        assert (outcome.kind, outcome.why) == ("failed", "the address is not a public one")
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254"])
def test_no_socket_is_made_for_a_private_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, 6, "", (address, 443))
    with pytest.raises(NotPublic):
        open_socket(to_private=False)(info)
    open_socket(to_private=True)(info).close()


class HangingNames:
    """A system whose look-ups of `hangs…` end when they are released; all others mean one public address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hangs"):
            self.released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    names = HangingNames(monkeypatch)
    yield names
    names.released.set()


async def test_names_that_hang_hold_up_no_other(hanging: HangingNames) -> None:
    """More of them than an event loop has threads."""
    resolver = Resolver()
    tasks = [asyncio.create_task(resolver.resolve(f"hangs-{n}.example", 443)) for n in range(LOOKUPS_MAX - 1)]
    await asyncio.sleep(0)
    found = await asyncio.wait_for(resolver.resolve("shop.example", 443), 30)
    assert [(one["host"], one["port"]) for one in found] == [("8.8.8.8", 443)]
    assert not any(task.done() for task in tasks)
    hanging.released.set()
    await asyncio.gather(*tasks)


async def test_a_name_that_hangs_takes_one_place_however_many_ask(hanging: HangingNames) -> None:
    resolver = Resolver()
    tasks = [asyncio.create_task(resolver.resolve("hangs.example", port)) for port in range(1, 2 * LOOKUPS_MAX)]
    await asyncio.sleep(0)
    await asyncio.wait_for(resolver.resolve("shop.example", 443), 30)
    tasks[0].cancel()
    hanging.released.set()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError), "who gives up does so for itself alone"
    assert [one[0]["port"] for one in others if isinstance(one, list)] == list(range(2, 2 * LOOKUPS_MAX))
    assert hanging.asked == ["hangs.example", "shop.example"]


async def test_where_all_places_are_taken_nobody_is_blamed(hanging: HangingNames) -> None:
    """An attempt that times out leaves its look-up behind; who comes then is told at once, and not as a failure."""
    url = "https://hangs-{}.example/"
    async with Sender(to_private=True, connections=2 * LOOKUPS_MAX, attempt_seconds=0.5) as sender:
        late = await asyncio.gather(*[sender.send(url.format(n), b"{}", {}) for n in range(LOOKUPS_MAX)])
        assert late == [Outcome("failed", "no answer in time")] * LOOKUPS_MAX
        assert await sender.send("https://shop.example/", b"{}", {}) == Outcome("postponed")
        assert await sender.send(url.format(0), b"{}", {}) == Outcome("failed", "no answer in time")
    assert "shop.example" not in hanging.asked


async def test_where_files_run_out_nobody_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    async with Sender(to_private=True, connections=1) as sender:
        monkeypatch.setattr(socket, "socket", full)
        outcome = await sender.send("http://127.0.0.1:9/", b"{}", {})
        monkeypatch.undo()
    assert outcome == Outcome("postponed")

"""What one attempt to deliver may cost, whatever the endpoint says: real sockets, and servers that speak amiss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from gesell_ledger.webhooks.sending import Sender

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def endpoint(script: Script) -> AsyncIterator[str]:
    """An endpoint that answers each connection by the script; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


async def sent_to(script: Script) -> tuple[str, str]:
    async with endpoint(script) as url, Sender(to_private=True, connections=4) as sender:
        outcome = await sender.send(url, b"{}", {})
        return outcome.kind, outcome.why


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
async def test_interim_answers_without_end_are_cut_off(interim: bytes) -> None:
    taken = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        while True:
            writer.write(interim * 1_000)
            await writer.drain()
            taken += 1_000 * len(interim)

    kind, why = await sent_to(flood)
    assert (kind, why) == ("failed", "the connection broke, or the answer was not HTTP")
    # What the kernel's buffers hold between two processes of one machine, and not more.
    assert taken < 32 * 1024 * 1024


async def test_an_answer_with_a_long_page_is_still_judged_by_its_status() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
        await writer.drain()

    assert await sent_to(answer) == ("delivered", "")


async def test_each_answer_on_one_connection_has_room_of_its_own() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(30):
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 2_000 + b"\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")

    async with endpoint(answer) as url, Sender(to_private=True, connections=1) as sender:
        kinds = [(await sender.send(url, b"{}", {})).kind for _ in range(30)]
    assert kinds == ["delivered"] * 30

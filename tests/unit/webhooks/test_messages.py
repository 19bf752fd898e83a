"""How a message is signed, when it is tried again, and what becomes of one attempt at a real endpoint."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from base64 import b64decode
from collections.abc import Callable
from email.utils import formatdate
from itertools import accumulate

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from gesell_ledger.webhooks.schedule import JITTER, RETRY_AFTER_MAX_SECONDS, SCHEDULE, retry_after, wait_ms
from gesell_ledger.webhooks.sending import Outcome, Sender
from gesell_ledger.webhooks.signing import secret_text, sign_message
from tests.webhooks import Attempt, endpoint

# ── Signing ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(min_size=32, max_size=32), st.text(max_size=200))
def test_the_library_of_the_specification_takes_what_is_signed(secret: bytes, text: str) -> None:
    body = f'{{"text":{len(text)}}}'.encode() + text.encode("utf-8", "replace")
    headers = sign_message(body, secret=secret, message_id="hook_7", now_s=int(time.time()))
    Webhook(secret_text(secret)).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_text(secret)).verify(body + b" ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_text(secret)).verify(body, {**headers, "webhook-id": "hook_8"}, json_parse=False)


def test_a_signature_is_the_one_that_the_specification_shows() -> None:
    """Its test vector, which all its libraries have."""
    headers = sign_message(
        b'{"test": 2432232314}',
        secret=b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        now_s=1614265330,
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


# ── The schedule ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_attempts_follow_the_table_of_the_specification() -> None:
    minutes, hours = 60, 3600
    total = [5, 5 * minutes + 5, 35 * minutes + 5, 155 * minutes + 5, 455 * minutes + 5]
    assert list(accumulate(SCHEDULE))[:5] == total
    assert sum(SCHEDULE) == 75 * hours + 35 * minutes + 5
    waits = [wait_ms(failures, chance=0.0) for failures in range(1, 11)]
    assert waits == [*[1000 * seconds for seconds in SCHEDULE], None]


@given(st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_chance_makes_a_wait_longer_by_a_fifth_at_most(failures: int, chance: float) -> None:
    wait = wait_ms(failures, chance=chance)
    assert wait is not None
    assert 1000 * SCHEDULE[failures - 1] <= wait <= 1000 * SCHEDULE[failures - 1] * (1 + JITTER) + 1


def test_an_endpoint_can_ask_for_longer_but_not_for_shorter() -> None:
    assert wait_ms(1, chance=0.0, retry_after_s=60) == 60_000
    assert wait_ms(2, chance=0.0, retry_after_s=60) == 300_000
    assert wait_ms(1, chance=0.0, retry_after_s=10**9) == 1000 * RETRY_AFTER_MAX_SECONDS
    assert wait_ms(10, chance=0.0, retry_after_s=1) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        ("9" * 500, RETRY_AFTER_MAX_SECONDS),
        (formatdate(1_000_090, usegmt=True), 90),
        (formatdate(999_000, usegmt=True), 0),
        (formatdate(9_000_000, usegmt=True), RETRY_AFTER_MAX_SECONDS),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Mon, 99 Foo 0000 00:00:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: int | None) -> None:
    assert retry_after(header, now_s=1_000_000.0) == seconds


# ── One attempt ──────────────────────────────────────────────────────────────────────────────────────────────────


async def try_once(answer: Callable[[Attempt], web.StreamResponse], *, seconds: float = 15.0) -> Outcome:
    async def answering(attempt: Attempt) -> web.StreamResponse:
        return answer(attempt)

    async with endpoint(answering) as end, Sender(to_private=True, connections=1, attempt_seconds=seconds) as sender:
        return await sender.send(end.url, b"{}", {})


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome("delivered")),
        (204, Outcome("delivered")),
        (299, Outcome("delivered")),
        (301, Outcome("failed", "HTTP 301")),
        (304, Outcome("failed", "HTTP 304")),
        (400, Outcome("failed", "HTTP 400")),
        (404, Outcome("failed", "HTTP 404")),
        (410, Outcome("gone", "HTTP 410")),
        (500, Outcome("failed", "HTTP 500")),
    ],
)
async def test_the_status_says_what_became_of_it(status: int, outcome: Outcome) -> None:
    assert await try_once(lambda _: web.Response(status=status, headers={"Location": "/elsewhere"})) == outcome


@pytest.mark.parametrize("status", [429, 503])
async def test_an_endpoint_that_asks_for_time_is_heard(status: int) -> None:
    outcome = await try_once(lambda _: web.Response(status=status, headers={"Retry-After": "77"}))
    assert outcome == Outcome("failed", f"HTTP {status}", 77)


async def test_a_cookie_is_not_brought_back_and_a_compressed_answer_not_unpacked() -> None:
    bomb = b"\x1f\x8b" + os.urandom(64)

    async def answer(_: Attempt) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip", "Set-Cookie": "who=you"})

    async with endpoint(answer) as end, Sender(to_private=True, connections=1) as sender:
        assert [await sender.send(end.url, b"{}", {"webhook-id": "x"}) for _ in range(2)] == [Outcome("delivered")] * 2
        assert all("cookie" not in attempt.headers for attempt in end.attempts)
        assert end.attempts[0].headers["webhook-id"] == "x"


async def raw_endpoint(data: bytes, *, forever: bytes = b"") -> tuple[asyncio.Server, str, list[int]]:
    """A server that says `data`, then `forever` for ever; how many bytes it got rid of."""
    written = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        try:
            while forever:
                writer.write(forever)
                await writer.drain()
                written[0] += len(forever)
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", written


async def test_an_answer_without_end_is_a_delivery_of_which_little_is_taken() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    server, url, written = await raw_endpoint(head, forever=b"a" * 65536)
    async with server, Sender(to_private=True, connections=1) as sender:
        assert await sender.send(url, b"{}", {}) == Outcome("delivered")
    # What the sockets of both sides hold, and no more.
    assert written[0] < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("said", "forever"),
    [
        (b"", b""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", b""),
        (b"HTTP/1.1 999999 ?\r\n\r\n", b""),
    ],
)
async def test_what_is_not_http_is_a_failure(said: bytes, forever: bytes) -> None:
    server, url, _ = await raw_endpoint(said, forever=forever)
    async with server, Sender(to_private=True, connections=1, attempt_seconds=5.0) as sender:
        outcome = await sender.send(url, b"{}", {})
    assert outcome.kind == "failed"
    assert outcome.why in ("the connection broke, or the answer was not HTTP", "no answer in time")


async def test_who_does_not_answer_in_time_has_failed() -> None:
    over = asyncio.Event()

    async def hang(_: Attempt) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with endpoint(hang) as end, Sender(to_private=True, connections=1, attempt_seconds=0.3) as sender:
        assert await sender.send(end.url, b"{}", {}) == Outcome("failed", "no answer in time")
        over.set()


async def test_where_nobody_listens_and_what_is_no_tls_is_told_in_few_words(unused_port: int) -> None:
    async with Sender(to_private=True, connections=1) as sender, endpoint() as end:
        assert await sender.send(f"http://127.0.0.1:{unused_port}/", b"{}", {}) == Outcome("failed", "no connection")
        plain = end.url.replace("http://", "https://")
        assert await sender.send(plain, b"{}", {}) == Outcome("failed", "no TLS that can be trusted")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port

"""Following entries as they come: no loss, no repeat, whatever the line does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from wire_ledger import KEY, STEWARD, founding, problem

from gesell import BadToken, Client, Entry, Peer, UnexpectedAnswer, UnknownCommons, Unreachable
from gesell import following as following_module
from gesell.following import EVENT_MAX_BYTES, Event, Events
from gesell_protocol.log import Posting, leaf_of
from gesell_protocol.names import base64url, commons_of, did_of, id_text, uuid7

ADA = Peer(b"\x01" * 32)
FOUND = founding()
ROOT = f"/v1/commons/{commons_of(FOUND.body).hex()}"
Script = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def entry(seq: int) -> dict[str, Any]:
    """An entry of this number; what it says does not matter here, its leaf does."""
    at = 1_000_000 + seq
    posting = Posting("pay", ADA.key, "WRG", seq)
    leaf = leaf_of(seq=seq, at_ms=at, body=FOUND.body, signatures=FOUND.signatures, postings=(posting,))
    return {
        "seq": seq,
        "at": at,
        "type": "pay",
        "by": STEWARD.did,
        "id": id_text(uuid7(at, bytes(10))),
        "body": base64url(FOUND.body),
        "signatures": [{"key": did_of(key), "signature": base64url(made)} for key, made in FOUND.signatures],
        "postings": [["pay", ADA.did, "WRG", str(seq)]],
        "leaf": leaf.hex(),
    }


def event(seq: int, **changes: Any) -> bytes:
    return f"id: {seq}\nevent: entry\ndata: {json.dumps({**entry(seq), **changes})}\n\n".encode()


class Streaming:
    """A ledger of `there` entries; each connection is answered by the next of `scripts`, the last one again."""

    def __init__(self, *scripts: Script | web.Response, there: int = 0, visibility: str = "open") -> None:
        self.scripts = list(scripts)
        self.there = there
        self.visibility = visibility
        self.asked: list[tuple[str | None, str | None]] = []
        self.tokens: list[str | None] = []
        self.ending = asyncio.Event()
        #: What the next reads of the service, of the commons and of its founding are answered instead.
        self.odd: dict[str, list[web.Response]] = {"service": [], "commons": [], "founding": []}

    async def service(self, request: web.Request) -> web.Response:
        if self.odd["service"]:
            return self.odd["service"].pop(0)
        return web.json_response({"ledger": KEY.did, "version": "0", "time": 1, "clock_speed": 1, "limits": {}})

    async def commons(self, request: web.Request) -> web.Response:
        if self.odd["commons"]:
            return self.odd["commons"].pop(0)
        policy = {
            "tick_seconds": 86_400, "rest_ticks": 0, "brackets": [["0", 0]], "melt_to": "pool", "admission": "open",
            "credit_limit": "0", "vouch_min": "1", "visibility": self.visibility, "notice_ticks": 0,
        }  # fmt: skip
        fields = {"commons": ROOT[-32:], "name": "Test", "ledger": KEY.did, "currency": {"code": "WRG", "scale": 6}}
        sums = {"supply": "0", "pool": "0", "escrow": "0", "members": 0, "stewards": [], "threshold": 1}
        head = {"seq": self.there, "at": 1, "tick": 0, "upcoming": [], "kinds": []}
        return web.json_response({**fields, **sums, **head, "policy": policy})

    async def founding(self, request: web.Request) -> web.Response:
        if self.odd["founding"]:
            return self.odd["founding"].pop(0)
        return problem("not-found", 404)

    async def entries(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept"] == "text/event-stream"
        self.asked.append((request.headers.get("Last-Event-ID"), request.query.get("after")))
        self.tokens.append(request.headers.get("Authorization"))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script, web.Response):
            return web.Response(body=script.body, status=script.status, headers=script.headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await script(request, response)
        return response

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        app = web.Application()
        app.router.add_get("/v1", self.service)
        app.router.add_get(ROOT, self.commons)
        app.router.add_get(ROOT + "/entries/1", self.founding)
        app.router.add_get(ROOT + "/entries", self.entries)
        server = TestServer(app)
        await server.start_server()
        url = str(server.make_url("")).rstrip("/")
        try:
            async with Client(url, commons=commons_of(FOUND.body), patience=1, timeout=2, **options) as client:
                yield client
        finally:
            self.ending.set()
            await server.close()

    def saying(self, *parts: bytes, cut: bool = False, stay: bool = False) -> Script:
        """Send these bytes, then end the stream properly, cut the line, or stay silent."""

        async def script(request: web.Request, response: web.StreamResponse) -> None:
            for part in parts:
                await response.write(part)
            if stay:
                await self.ending.wait()
            if cut and request.transport is not None:
                request.transport.abort()

        return script


async def heard(client: Client, count: int, *, after: int | None = 0) -> list[Entry]:
    async with asyncio.timeout(20), aclosing(client.follow(after=after)) as entries:
        return [entry async for entry, _ in _zipped(entries, range(count))]


async def _zipped(entries: AsyncIterator[Entry], numbers: range) -> AsyncIterator[tuple[Entry, int]]:
    for number in numbers:
        yield await anext(entries), number


def seqs(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long between connections."""
    monkeypatch.setattr("gesell.transport.BACKOFF_FIRST_SECONDS", 0.01)


async def test_entries_come_in_order_and_checked() -> None:
    ledger = Streaming(there=3)
    ledger.scripts = [ledger.saying(*(event(seq) for seq in (1, 2, 3)), stay=True)]
    async with ledger.client() as gesell:
        entries = await heard(gesell, 3)
    assert seqs(entries) == [1, 2, 3]
    assert entries[2].postings[0].amount == 3
    assert ledger.asked == [("0", "0")]


async def test_a_cut_line_loses_nothing_and_repeats_nothing() -> None:
    ledger = Streaming()
    half = event(3)[:-40]
    ledger.scripts = [
        ledger.saying(event(1), event(2), half, cut=True),
        ledger.saying(event(2), event(3)),  # a ledger that repeats
        ledger.saying(event(4), stay=True),
    ]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 4)) == [1, 2, 3, 4]
    assert [last for last, _ in ledger.asked] == ["0", "2", "3"]


async def test_what_follows_from_now_on_begins_after_the_last_entry() -> None:
    ledger = Streaming(there=7)
    ledger.scripts = [ledger.saying(event(8), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 1, after=None)) == [8]
    assert ledger.asked == [("7", "7")]


async def test_a_silent_line_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "SILENCE_SECONDS", 0.3)
    ledger = Streaming()
    ledger.scripts = [ledger.saying(event(1), stay=True), ledger.saying(event(2), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 2)) == [1, 2]
    assert len(ledger.asked) == 2


async def test_comments_keep_a_line_alive_and_are_no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "SILENCE_SECONDS", 5.0)
    ledger = Streaming()

    async def slowly(request: web.Request, response: web.StreamResponse) -> None:
        for _ in range(10):
            await response.write(b": still here\n\n")
        await response.write(event(1))
        await ledger.ending.wait()

    ledger.scripts = [slowly]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 1)) == [1]
    assert len(ledger.asked) == 1


@pytest.mark.parametrize("status", [502, 503])
async def test_what_passes_is_waited_for(status: int) -> None:
    ledger = Streaming()
    passing = problem("unavailable", 503) if status == 503 else web.Response(status=502, text="gateway")
    ledger.scripts = [passing, problem("rate-limited", 429), ledger.saying(event(1), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 1)) == [1]
    assert len(ledger.asked) == 3


async def test_a_refusal_that_does_not_pass_ends_it() -> None:
    ledger = Streaming(problem("unknown-commons", 404))
    async with ledger.client() as gesell:
        with pytest.raises(UnknownCommons):
            await heard(gesell, 1)
    assert len(ledger.asked) == 1


async def test_a_ledger_that_is_not_there_is_told_of_but_one_that_was_is_waited_for() -> None:
    ledger = Streaming(problem("unavailable", 503))
    async with ledger.client() as gesell:
        with pytest.raises(Unreachable):
            await heard(gesell, 1)
    ledger = Streaming()
    late = [problem("unavailable", 503, retry_after=1)] * 2  # longer than the patience of one second
    ledger.scripts = [ledger.saying(event(1)), *late, ledger.saying(event(2), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 2)) == [1, 2]


async def test_an_answer_that_is_no_stream_is_told_of() -> None:
    ledger = Streaming(web.json_response({"items": []}))
    async with ledger.client() as gesell:
        with pytest.raises(UnexpectedAnswer, match="does not follow live"):
            await heard(gesell, 1)


@pytest.mark.parametrize(
    "lie",
    [
        event(1, leaf="00" * 32),
        event(1, postings=[["pay", STEWARD.did, "WRG", "1"]]),
        event(1).replace(b"id: 1\n", b"id: 2\n"),
        b"id: 1\nevent: entry\ndata: [1]\n\n",
        b"id: 1\nevent: entry\ndata: \xff\n\n",
        b"data: " + b"x" * EVENT_MAX_BYTES,
        b"data: xxxxxxxxxxxxxxxx\n" * (EVENT_MAX_BYTES // 16),
    ],
    ids=["leaf", "postings", "id", "list", "utf8", "long line", "long event"],
)
async def test_an_event_that_can_not_be_true_ends_it(lie: bytes) -> None:
    ledger = Streaming()
    ledger.scripts = [ledger.saying(lie, stay=True)]
    async with ledger.client() as gesell:
        with pytest.raises(UnexpectedAnswer):
            await heard(gesell, 1)


async def test_a_gap_where_everybody_sees_all_is_repaired_or_told() -> None:
    ledger = Streaming()
    ledger.scripts = [ledger.saying(event(1), event(3)), ledger.saying(event(2), event(3), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 3)) == [1, 2, 3]
    ledger = Streaming()
    ledger.scripts = [ledger.saying(event(1), event(3)), ledger.saying(event(3))]
    async with ledger.client() as gesell:
        with pytest.raises(UnexpectedAnswer, match="leaves out entries 2 to 2"):
            await heard(gesell, 2)


async def test_a_gap_is_nothing_odd_where_a_member_sees_its_own_entries() -> None:
    ledger = Streaming(visibility="parties")
    ledger.scripts = [ledger.saying(event(1), event(3), event(7), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 3)) == [1, 3, 7]


async def test_the_ledger_says_how_long_listeners_wait_before_they_come_back() -> None:
    ledger = Streaming()
    ledger.scripts = [ledger.saying(b"retry: 400\n\n", event(1)), ledger.saying(event(2), stay=True)]
    async with ledger.client() as gesell:
        began = asyncio.get_running_loop().time()
        assert seqs(await heard(gesell, 2)) == [1, 2]
        assert asyncio.get_running_loop().time() - began >= 0.4


async def test_a_token_goes_along_and_a_bad_one_is_made_anew() -> None:
    ledger = Streaming()
    bad = problem("bad-token", 401)
    ledger.scripts = [bad, ledger.saying(event(1), stay=True)]
    async with ledger.client(peer=ADA) as gesell:
        assert seqs(await heard(gesell, 1)) == [1]
    first, second = ledger.tokens
    assert first is None, "what is open is followed without one"
    assert second is not None
    assert second.startswith("Bearer ey")
    ledger = Streaming(bad)
    async with ledger.client(peer=ADA) as gesell:
        with pytest.raises(BadToken):
            await heard(gesell, 1)


async def test_a_stream_that_ends_with_its_token_goes_on_with_another_however_often() -> None:
    ledger, bad = Streaming(), problem("bad-token", 401)
    ended = ledger.saying(b"retry: 1\n\n")
    ledger.scripts = [bad, *(script for _ in range(4) for script in (ended, bad)), ledger.saying(event(1), stay=True)]
    async with ledger.client(peer=ADA) as gesell:
        assert seqs(await heard(gesell, 1)) == [1]


def down(times: int) -> list[web.Response]:
    return [problem("unavailable", 503) for _ in range(times)]


async def test_a_ledger_that_is_down_when_a_token_is_due_is_waited_for() -> None:
    ledger = Streaming()
    ledger.scripts = [ledger.saying(event(1)), problem("bad-token", 401), ledger.saying(event(2), stay=True)]
    ledger.odd["service"] = down(9)  # a read asks four times
    async with ledger.client(peer=ADA) as gesell:
        assert seqs(await heard(gesell, 2)) == [1, 2]
    assert ledger.odd["service"] == []


async def test_a_ledger_that_is_down_when_a_gap_is_looked_into_is_waited_for() -> None:
    ledger = Streaming(visibility="parties")
    ledger.scripts = [ledger.saying(event(1), event(3)), ledger.saying(event(3), stay=True)]
    ledger.odd["commons"] = down(9)
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 2)) == [1, 3]
    assert ledger.odd["commons"] == []


async def test_who_may_not_see_the_commons_page_follows_what_it_sees() -> None:
    ledger = Streaming(problem("internal", 500))
    ledger.odd["commons"] = [problem("not-authorised", 403) for _ in range(2)]
    ledger.scripts = [ledger.saying(event(4)), ledger.saying(event(6), event(9), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 3, after=None)) == [4, 6, 9]
    assert ledger.asked == [(None, None), ("4", "4")], "without a place the ledger begins at its head"


async def test_the_first_read_has_the_same_patience_as_the_first_connection() -> None:
    ledger = Streaming()
    ledger.scripts = [ledger.saying(event(1), stay=True)]
    ledger.odd["founding"] = down(9)
    async with ledger.client() as gesell:
        gesell._link.patience = 60
        assert seqs(await heard(gesell, 1)) == [1]
    ledger.odd["founding"] = down(10_000)
    async with ledger.client() as gesell:
        with pytest.raises(Unreachable, match="can't be followed"):
            await heard(gesell, 1)


async def test_tokens_that_expire_while_nothing_happens_are_renewed_for_ever() -> None:
    ledger = Streaming()
    quiet = [problem("bad-token", 401), ledger.saying()] * 5
    ledger.scripts = [*quiet, ledger.saying(event(1), stay=True)]
    async with ledger.client(peer=ADA) as gesell:
        assert seqs(await heard(gesell, 1)) == [1]


async def test_no_ledger_can_keep_a_listener_away_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "RETRY_MAX_SECONDS", 0.01)
    ledger = Streaming()
    late = problem("rate-limited", 429, retry_after=1_000_000)
    ledger.scripts = [ledger.saying(event(1)), late, ledger.saying(event(2), stay=True)]
    async with ledger.client() as gesell:
        assert seqs(await heard(gesell, 2)) == [1, 2]


# ── The events themselves ────────────────────────────────────────────────────────────────────────────────────────


def parsed(data: bytes, *, size: int) -> list[Event]:
    events, pieces = Events(), iter(data)
    chunks = iter(lambda: bytes(islice(pieces, size)), b"")
    return [event for chunk in chunks for event in events.feed(chunk)]


@given(size=st.integers(1, 200), crlf=st.booleans())
def test_events_are_the_same_however_the_bytes_are_cut(size: int, crlf: bool) -> None:
    data = (
        ":hi\nid: 1\nevent: entry\ndata: Zoë\ndata:two\n\n\nretry: 5\ndata: x\n\nid\nevent: none\n\ndata: lost".encode()
    )
    data = data.replace(b"\n", b"\r\n") if crlf else data
    assert parsed(data, size=size) == [Event("entry", "Zoë\ntwo", "1"), Event("message", "x", "1")]


def test_a_long_line_in_many_pieces_is_not_searched_over_and_over() -> None:
    events, piece = Events(), b"data: " + b"x" * 10
    began = time.process_time()
    for _ in range(EVENT_MAX_BYTES // len(piece) - 1):
        assert list(events.feed(piece)) == []
    # A fraction of a second; with a search of the whole line at each piece it is half a minute and more.
    assert time.process_time() - began < 8

"""Answers to statements: the same bytes as made in one go, but in pieces, with turns for others and within the room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import aiohttp
import msgpack
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gesell_ledger.api import answers, writing
from gesell_ledger.api.problems import ANSWERS, ANSWERS_MAX_BYTES, METRICS, answer_problems
from gesell_ledger.api.room import FREE_BYTES, Room
from gesell_ledger.api.shapes import JSON
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import BREATH_WEIGHT, Answer, Receipted
from gesell_protocol.log import Posting
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Refusal

MIB = 1024 * 1024
REFUSED = Refusal(code="insufficient-funds", detail="too little", fields={"available": 1, "needed": 2})


def receipted(number: int, postings: int, *, replayed: bool = False) -> Receipted:
    """The answer to a statement that moved something in so many postings."""
    name = number.to_bytes(16, "big")
    moved = tuple(Posting("pay", bytes([place % 256]) * 32, "WRG", place - 9) for place in range(postings))
    receipt = Receipt(b"c" * 16, number, 1_800_000_000_000, 7, name, name * 2, moved)
    return Receipted(receipt, replayed=replayed)


SAID: dict[str, list[Answer]] = {
    "one payment": [receipted(1, 2)],
    "one that moves nothing, with one that is refused": [receipted(1, 0), REFUSED],
    "two that are refused": [REFUSED, REFUSED],
    "15": [receipted(n, 2) for n in range(15)],
    "16": [receipted(n, 2) for n in range(16)],
    "a thousand payments": [receipted(n, 2) for n in range(1_000)],
    "as many as may be, all refused": [REFUSED] * writing.STATEMENTS_MAX,
    "one of more postings than a piece": [receipted(1, 3_000)],
    "several of more postings than a piece": [receipted(n, 1_001, replayed=True) for n in range(3)],
    "of every kind": [*(receipted(n, n % 800, replayed=n % 3 == 0) for n in range(60)), REFUSED, receipted(61, 2)],
}


def in_one_go(results: Sequence[Answer], content_type: str) -> bytes:
    """The answer as SPEC §7.1 has it, encoded whole."""
    if content_type == JSON:
        return msgspec.json.encode(answers.Results(results=[answers.result_json(one) for one in results]))
    return bytes(msgpack.packb({"results": [answers.result_wire(one) for one in results]}))


@asynccontextmanager
async def serving(
    results: list[Answer], room: Room, connections: list[object] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A server that answers each request with what is on the list, and notes the connection that it came by."""
    app = web.Application(middlewares=[answer_problems])
    app[ANSWERS] = room
    app[METRICS] = Metrics()

    async def answer(request: web.Request) -> web.StreamResponse:
        if connections is not None:
            connections.append(request.transport)
        return await writing.respond(request, results)

    app.router.add_post("/v1/statements", answer)
    async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as session:
        yield session


@pytest.mark.parametrize("content_type", [JSON, writing.MSGPACK])
@pytest.mark.parametrize("name", SAID)
async def test_answer_in_pieces_has_the_bytes_of_one_made_in_one_go(name: str, content_type: str) -> None:
    expected = in_one_go(SAID[name], content_type)
    async with (
        serving(list(SAID[name]), Room(ANSWERS_MAX_BYTES)) as session,
        session.post("/v1/statements", headers={"Accept": content_type}) as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Content-Length"] == str(len(expected))
        assert await response.read() == expected


@pytest.mark.parametrize("content_type", [JSON, writing.MSGPACK])
async def test_connection_goes_on_after_an_answer_in_pieces(content_type: str) -> None:
    results, connections = list[Answer](), list[object]()
    async with serving(results, Room(ANSWERS_MAX_BYTES), connections) as session:
        for _ in range(3):
            results += [receipted(n, 257) for n in range(20)]
            async with session.post("/v1/statements", headers={"Accept": content_type}) as response:
                assert response.status == 200
                await response.read()
    assert len(connections) == 3
    assert len(set(connections)) == 1


@pytest.mark.parametrize("content_type", [JSON, writing.MSGPACK])
async def test_others_get_their_turn_while_a_large_answer_is_made(
    content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Answer] = [receipted(n, 257) for n in range(200)]
    left: list[int] = []

    async def count() -> None:
        while True:
            left.append(len(results))
            await asyncio.sleep(0)

    async with serving(results, Room(ANSWERS_MAX_BYTES)) as session:
        others = asyncio.create_task(count())
        async with session.post("/v1/statements", headers={"Accept": content_type}) as response:
            assert response.status == 200
        others.cancel()
    made = [before - after for before, after in pairwise(left) if before != after]
    assert sum(made) == 200
    assert max(made) * 258 < BREATH_WEIGHT + 258, "between two turns of the others no more is encoded than this"


async def test_answer_takes_its_room_as_it_grows_and_stops_where_there_is_no_more() -> None:
    results: list[Answer] = [receipted(n, 257) for n in range(1_000)]
    size, room = len(in_one_go(results, JSON)), Room(4 * MIB)
    async with serving(results, room) as session:
        async with session.post("/v1/statements", headers={"Accept": JSON}) as response:
            assert response.status == 503
            assert (await response.json())["code"] == "unavailable"
        made = size * (1_000 - len(results)) / 1_000
        assert 4 * MIB < made < 5 * MIB, "it is given up as soon as it does not fit"
    # All of it is given back.
    with room.hold() as take:
        take(4 * MIB + FREE_BYTES)

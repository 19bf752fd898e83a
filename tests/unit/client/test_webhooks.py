"""Webhooks as the client asks for them: what is tried again, and by which clock and token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wire_ledger import WireLedger, problem

from gesell import Client, Peer, UnexpectedAnswer

ADA = Peer(b"\x01" * 32)
HOOK = "0197c2a0-0000-7000-8000-000000000001"


class Hooked(WireLedger):
    """A ledger whose next answers to requests for webhooks are these."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[web.Response] = []
        self.shown: list[str | None] = []

    def app(self) -> web.Application:
        app = super().app()
        root = f"/v1/commons/{self.commons.hex()}/webhooks"
        app.router.add_post(root, self.answer)
        app.router.add_delete(root + "/{id}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.Response:
        self.shown.append(request.headers.get("Authorization"))
        return self.answers.pop(0)


def hook(**changes: Any) -> web.Response:
    fields = {"id": HOOK, "url": "https://shop.example/gesell", "types": [], "scope": "own", "state": "enabled"}
    return web.json_response({**fields, "after": 1, "failures": 0, **changes}, status=201)


@pytest.fixture
async def hooked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Hooked, Client]]:
    monkeypatch.setattr("gesell.webhooks.PAUSE_SECONDS", 0.01)
    ledger = Hooked()
    server = TestServer(ledger.app())
    await server.start_server()
    try:
        async with Client(str(server.make_url("/v1")), commons=ledger.commons, peer=ADA) as client:
            yield ledger, client
    finally:
        await server.close()


async def test_a_request_that_expired_is_signed_anew_by_a_fresh_clock(hooked: tuple[Hooked, Client]) -> None:
    ledger, client = hooked
    ledger.answers = [problem("expired", 410), hook()]
    assert (await client.add_webhook("https://shop.example/gesell")).id == HOOK
    assert ledger.reads.count("/v1") == 2


async def test_an_answer_that_is_no_webhook_is_told_of(hooked: tuple[Hooked, Client]) -> None:
    ledger, client = hooked
    ledger.answers = [hook(after="never")]
    with pytest.raises(UnexpectedAnswer):
        await client.add_webhook("https://shop.example/gesell")


async def test_a_webhook_is_ended_by_a_fresh_token_if_the_last_is_taken_for_bad(hooked: tuple[Hooked, Client]) -> None:
    ledger, client = hooked
    ledger.answers = [problem("bad-token", 401), web.Response(status=204)]
    await client.delete_webhook(HOOK)
    assert len(ledger.shown) == 2
    assert None not in ledger.shown
    assert ledger.reads.count("/v1") == 2

"""Answers that no ledger should give: too long, too deep, or a gateway's."""

from __future__ import annotations

import gzip
import json

import pytest
from aiohttp import web
from wire_ledger import BOB, WireLedger

from gesell import Client, UnexpectedAnswer, Unreachable
from gesell import transport as transport_module

MIB = 1024 * 1024


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(ledger: WireLedger, gesell: Client) -> None:
    packed = gzip.compress(bytes(64 * MIB))

    async def long(request: web.Request, _: WireLedger) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"}, content_type="application/json")

    ledger.odd_reads = [long]
    with pytest.raises(UnexpectedAnswer):
        await gesell.member("bob")
    assert (await gesell.member("bob")).handle == "bob"


async def test_a_page_that_is_too_long_is_asked_for_in_shorter_ones(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "ANSWER_MAX_BYTES", 4096)
    limits = []

    async def as_long_as_asked(request: web.Request, _: WireLedger) -> web.Response:
        limits.append(int(request.query["limit"]))
        return web.json_response({"items": [{"x": "x" * 100}] * limits[-1]})

    await gesell.currency()
    ledger.odd_reads = [as_long_as_asked] * 3
    items = [item async for item in gesell._pages(gesell._path("/members"), {})]
    assert limits == [1000, 125, 15]
    assert len(items) == 15


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_that_is_nested_too_deep_is_told_of(ledger: WireLedger, gesell: Client, status: int) -> None:
    kind = "application/json" if status == 200 else "application/problem+json"
    deep = b"[" * 200_000
    ledger.odd_reads = [lambda *_: web.Response(body=deep, status=status, content_type=kind)]
    with pytest.raises(UnexpectedAnswer):
        await gesell.member("bob")


async def test_a_gateway_that_does_not_reach_the_ledger_is_asked_again(ledger: WireLedger, gesell: Client) -> None:
    down = [lambda *_: web.Response(status=502, text="<h1>Bad gateway</h1>")]
    ledger.odd_reads = down * 2
    assert (await gesell.member("bob")).handle == "bob"
    ledger.odd_reads = down * 4
    with pytest.raises(Unreachable, match="502"):
        await gesell.member("bob")


async def test_a_receipt_that_never_comes_whole_leaves_the_outcome_unknown(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "ANSWER_MAX_BYTES", 4096)
    gesell._link.patience = 0
    ledger.odd = [lambda *_: web.Response(body=json.dumps("x" * MIB).encode())]
    [result] = await gesell.submit([await gesell.sign({"type": "pay", "legs": [(BOB, 1)]})])
    assert result.status == "unknown"

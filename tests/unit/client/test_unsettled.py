"""What cancelled calls leave behind, in the async client."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from wire_ledger import BOB, WireLedger, problem

from gesell import Client, OutcomeUnknown
from gesell_protocol.names import id_of


async def left_by_cancelling(
    gesell: Client, ledger: WireLedger, *answers: web.Response | None, many: int
) -> tuple[OutcomeUnknown, ...]:
    """Cancel the sending of so many payments, one a request, while the one after these answers is waited for."""
    waiting = asyncio.Event()

    def wait(*_: object) -> web.Response:
        waiting.set()
        return problem("unavailable", 503, retry_after=20)

    gesell._link.patience = 60
    ledger.odd = [*(lambda *_, answer=answer: answer for answer in answers), wait]
    payments = [await gesell.sign({"type": "pay", "legs": [(BOB, "1")]}) for _ in range(many)]
    task = asyncio.create_task(gesell.submit(payments))
    async with asyncio.timeout(20):
        await waiting.wait()
    assert gesell.unsettled == (), "what is under way is not left behind"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return gesell.unsettled


@pytest.fixture(autouse=True)
def one_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesell.delivery.REQUEST_STATEMENTS_MAX", 1)


async def test_what_earlier_requests_of_a_cancelled_call_applied_is_left_too(
    ledger: WireLedger, gesell: Client
) -> None:
    left = await left_by_cancelling(gesell, ledger, None, many=3)
    assert len(left) == 3
    assert id_of(left[0].id) in ledger.receipts
    results = await gesell.submit([error.envelope for error in left])
    assert [result.status for result in results] == ["replayed", "accepted", "accepted"]
    assert gesell.unsettled == ()


async def test_what_was_refused_for_good_is_not_left(ledger: WireLedger, gesell: Client) -> None:
    assert len(await left_by_cancelling(gesell, ledger, problem("insufficient-funds", 422), many=2)) == 1

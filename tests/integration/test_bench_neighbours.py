"""What is sent to other ledgers, against a small one in memory that answers as Formance's API is described.

It was written from the same description as the module: that both agree with the real one, no test here can say.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from bench import neighbours
from bench.measures import Notebook
from bench.neighbours import BULK, FORMANCE, TIGERBEETLE, Payment, balances_after, measure, pay_formance
from bench.plan import Plan
from bench.verdicts import NotHeld

ACCOUNTS = 200
PLAN = replace(Plan.short(), accounts=ACCOUNTS, seconds=0.05)


class Small:
    """Keeps transactions and balances of ledgers; `loses` so many of them after it said that it had them."""

    def __init__(self, *, loses: int = 0, refuses: bool = False) -> None:
        self.transactions: dict[str, int] = {}
        self.balances: dict[str, Counter[str]] = {}
        self.bulks: list[Any] = []
        self._loses = loses
        self._refuses = refuses

    async def create(self, request: web.Request) -> web.Response:
        self.transactions[request.match_info["ledger"]] = 0
        self.balances[request.match_info["ledger"]] = Counter()
        return web.Response(status=204)

    async def bulk(self, request: web.Request) -> web.Response:
        ledger, elements = request.match_info["ledger"], await request.json()
        self.bulks.append(elements)
        results = [self._act(ledger, element) for element in elements]
        whole = all(result["responseType"] != "ERROR" for result in results)
        return web.json_response({"data": results}, status=200 if whole else 400)

    def _act(self, ledger: str, element: Any) -> dict[str, Any]:
        (posting,) = element["data"]["postings"]
        balances, source = self.balances[ledger], posting["source"]
        if self._refuses or (source != "world" and balances[source] < posting["amount"]):
            return {"responseType": "ERROR", "errorCode": "INSUFFICIENT_FUND", "errorDescription": "poor"}
        balances[source] -= posting["amount"]
        balances[posting["destination"]] += posting["amount"]
        self.transactions[ledger] += 1
        return {"responseType": element["action"], "data": {"id": self.transactions[ledger]}}

    async def stats(self, request: web.Request) -> web.Response:
        ledger = request.match_info["ledger"]
        counts = {"accounts": len(self.balances[ledger]), "transactions": self.transactions[ledger] - self._loses}
        return web.json_response({"data": counts})

    async def sums(self, request: web.Request) -> web.Response:
        return web.json_response({"data": {"WRG/6": sum(self.balances[request.match_info["ledger"]].values())}})


@asynccontextmanager
async def serving(small: Small) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(
        [
            web.post("/v2/{ledger}", small.create),
            web.post("/v2/{ledger}/_bulk", small.bulk),
            web.get("/v2/{ledger}/stats", small.stats),
            web.get("/v2/{ledger}/aggregate/balances", small.sums),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_formance_is_funded_paid_and_counted() -> None:
    small, notebook = Small(), Notebook()
    async with serving(small) as address:
        await measure(replace(PLAN, formance=address, rounds=2), notebook, lambda line: None)
    (beetle, formance) = notebook.measures()
    assert beetle.why_not == "no address was given"
    assert len(formance.runs) == len(small.transactions) == 2
    assert [check.held for check in notebook.checks] == [True, True]
    paid = sum(run.details["accepted"] for run in formance.runs)
    assert paid == sum(small.transactions.values()) - 2 * ACCOUNTS == BULK * len(small.bulks) - 2 * ACCOUNTS
    assert {element["action"] for bulk in small.bulks for element in bulk} == {"CREATE_TRANSACTION"}


async def test_formance_that_lost_a_transaction_is_noticed() -> None:
    notebook = Notebook()
    async with serving(Small(loses=1)) as address:
        with pytest.raises(NotHeld, match="transactions are stored"):
            await pay_formance(address, notebook, accounts=ACCOUNTS, seconds=0.05)
    assert [check.held for check in notebook.checks] == [False]


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_formance_that_refuses_or_is_not_there_is_left_out_with_the_reason(refuses: bool) -> None:
    notebook = Notebook()
    async with serving(Small(refuses=True)) as address:
        # Nothing listens at port 9.
        there = address if refuses else "http://127.0.0.1:9"
        await measure(replace(PLAN, formance=there), notebook, lambda line: None)
    formance = notebook.measures()[1]
    assert (formance.name, formance.runs) == (FORMANCE[0], ())
    assert ("INSUFFICIENT_FUND" if refuses else "did not answer") in formance.why_not


@pytest.mark.skipif(importlib.util.find_spec("tigerbeetle") is not None, reason="its client is installed here")
async def test_tigerbeetle_without_its_client_is_left_out_with_what_to_install() -> None:
    notebook, said = Notebook(), list[str]()
    await measure(replace(PLAN, tigerbeetle="127.0.0.1:9"), notebook, said.append)
    beetle = notebook.measures()[0]
    assert (beetle.name, beetle.runs) == (TIGERBEETLE[0], ())
    assert "pip install tigerbeetle" in beetle.why_not
    assert any("left out" in line for line in said)


def test_balances_follow_from_the_payments() -> None:
    batches = [[Payment(payer=0, payee=1, amount=5)], [Payment(payer=1, payee=2, amount=2)]]
    funds = neighbours.FUNDS
    assert balances_after(batches, accounts=4) == [funds - 5, funds + 3, funds + 2, funds]

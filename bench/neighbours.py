"""What other ledgers do, over their own public clients, when somebody gives the address of one that runs.

Owns how TigerBeetle and Formance Ledger are spoken to, their accounts and payments, and the check that none is missing.
Knows nothing of Gesell's. Neither signs payments; both check funds, as the accounts are made here. Each run has
accounts of its own and begins with funding them; what is sent is written before the clock starts. There is no v beside
these figures, since the neighbour may live on another machine.

1. TigerBeetle: the client of PyPI `tigerbeetle` (0.17 or later, no dependency of ours: install it beside Gesell);
   batches of 8,189 transfers, the server's default limit, two in flight so that the client writes one while the other
   is stored. The client is Python and turns each transfer into C by itself: it can well be what limits the figure.
2. Formance Ledger: `POST /v2/{ledger}/_bulk` of its HTTP API, 100 transactions a request, its default limit, over
   `CONNECTIONS` connections.

Written from the clients' public documents. The requests to Formance were run against a server that only records them,
and TigerBeetle's client against nobody; neither against a real ledger.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import aiohttp
import msgspec

from bench.measures import Check, Notebook, Run, percentile
from bench.orders import PAYMENT_MAX
from bench.plan import Plan
from bench.verdicts import NotHeld

TIGERBEETLE: Final = ("tigerbeetle.transfers", "TigerBeetle, 8,189 transfers a batch", "payments/s")
FORMANCE: Final = ("formance.transactions", "Formance Ledger, 100 transactions a request", "payments/s")
FUNDS: Final = 10**12
#: TigerBeetle's largest batch, and how many are under way at once.
TRANSFERS: Final = 8_189
IN_FLIGHT: Final = 2
#: Formance's largest bulk, unless its operator allowed more.
BULK: Final = 100
CONNECTIONS: Final = 16
ASSET: Final = "WRG/6"
#: Bounds the memory of what is written ahead.
PAYMENTS_MAX: Final = 400_000
#: More than we expect of either; what is not sent costs only memory.
PAYMENTS_A_SECOND: Final = 100_000
ANSWER_SECONDS: Final = 30.0


class NeighbourFault(Exception):
    """The neighbour does not answer, or not as its documents say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Accounts by number, from 0 on, and a whole amount."""

    payer: int
    payee: int
    amount: int


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """Each neighbour whose address is known, `plan.rounds` times; one that does not answer is left out, and why.

    Raises `NotHeld` if one lost a payment.
    """
    for known, address, work in (
        (TIGERBEETLE, plan.tigerbeetle, pay_tigerbeetle),
        (FORMANCE, plan.formance, pay_formance),
    ):
        if address is None:
            notebook.skip(*known, "no address was given")
            continue
        try:
            for number in range(1, plan.rounds + 1):
                tell(f"{known[0]} at {address}, round {number} of {plan.rounds}")
                notebook.note(*known, await work(address, notebook, accounts=plan.accounts, seconds=plan.seconds))
        except ModuleNotFoundError as error:
            tell(f"{known[0]} is left out: {error}")
            notebook.skip(*known, f"its client is not installed ({error}); pip install tigerbeetle")
        except NeighbourFault as error:
            tell(f"{known[0]} is left out: {error}")
            notebook.skip(*known, str(error))


def draw_payments(seconds: float, *, accounts: int, each: int) -> list[list[Payment]]:
    """Batches of `each` payments between accounts at random, enough for so long."""
    count = max(1, int(min(PAYMENTS_MAX, seconds * PAYMENTS_A_SECOND)) // each)
    return [[_draw(accounts) for _ in range(each)] for _ in range(count)]


def _draw(accounts: int) -> Payment:
    payer, payee = random.sample(range(accounts), 2)
    return Payment(payer=payer, payee=payee, amount=random.randint(1, PAYMENT_MAX))


def balances_after(batches: Sequence[Sequence[Payment]], *, accounts: int) -> list[int]:
    """What each account must have after these, from `FUNDS`."""
    moved: Counter[int] = Counter()
    for payment in (one for batch in batches for one in batch):
        moved[payment.payer] -= payment.amount
        moved[payment.payee] += payment.amount
    return [FUNDS + moved[account] for account in range(accounts)]


def _conclude(
    notebook: Notebook, name: str, *, paid: int, seconds: float, latencies: Sequence[float], amiss: str
) -> Run:
    notebook.checks.append(Check(after=name, acknowledged=paid, held=not amiss, detail=amiss))
    if amiss:
        raise NotHeld(f"after {name}: {amiss}")
    times = {f"p{percent}_ms": percentile(latencies, percent) * 1000 for percent in (50, 95, 99)}
    return Run(value=paid / seconds, details={"accepted": float(paid), **times})


# ── TigerBeetle ──────────────────────────────────────────────────────────────────────────────────────────────────


async def pay_tigerbeetle(address: str, notebook: Notebook, *, accounts: int, seconds: float) -> Run:
    """One run at `HOST:PORT`, cluster 0; raises `ModuleNotFoundError` without its client."""
    beetle = import_module("tigerbeetle")
    # Drawn anew for each run: TigerBeetle forgets no account.
    names = [beetle.id() for _ in range(accounts + 1)]
    batches = draw_payments(seconds, accounts=accounts, each=TRANSFERS)
    written = [_transfers(beetle, batch, names) for batch in batches]
    sent: list[int] = []
    latencies: list[float] = []
    found: list[int] = []
    queue = iter(enumerate(written))
    async with beetle.ClientAsync(cluster_id=0, replica_addresses=address) as client:
        await _open_accounts(beetle, client, names)
        started = time.perf_counter()

        async def send() -> None:
            while time.perf_counter() < started + seconds and (following := next(queue, None)) is not None:
                place, batch = following
                began = time.perf_counter()
                _demand_created(await _answered(client.create_transfers(batch)))
                latencies.append(time.perf_counter() - began)
                sent.append(place)

        await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
        spent = time.perf_counter() - started
        for some in _portions(names[1:]):
            held = await _answered(client.lookup_accounts(some))
            found += [account.credits_posted - account.debits_posted for account in held]
    due = balances_after([batches[place] for place in sent], accounts=accounts)
    amiss = "" if found == due else "the balances are not what the transfers make them"
    paid = sum(len(batches[place]) for place in sent)
    return _conclude(notebook, TIGERBEETLE[0], paid=paid, seconds=spent, latencies=latencies, amiss=amiss)


async def _open_accounts(beetle: Any, client: Any, names: Sequence[int]) -> None:
    """Make a bank, which may go into debt, and accounts which may not, and give each of these `FUNDS`."""
    bank, *others = names
    flag = beetle.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    made = [beetle.Account(id=bank, ledger=1, code=1)]
    made += [beetle.Account(id=name, ledger=1, code=1, flags=flag) for name in others]
    for some in _portions(made):
        _demand_created(await _answered(client.create_accounts(some)))
    funding = [
        beetle.Transfer(id=beetle.id(), debit_account_id=bank, credit_account_id=name, amount=FUNDS, ledger=1, code=1)
        for name in others
    ]
    for some in _portions(funding):
        _demand_created(await _answered(client.create_transfers(some)))


def _transfers(beetle: Any, batch: Sequence[Payment], names: Sequence[int]) -> list[Any]:
    return [
        beetle.Transfer(
            id=beetle.id(),
            debit_account_id=names[1 + payment.payer],
            credit_account_id=names[1 + payment.payee],
            amount=payment.amount,
            ledger=1,
            code=1,
        )
        for payment in batch
    ]


def _portions(items: Sequence[Any]) -> Iterator[list[Any]]:
    return (list(items[start : start + TRANSFERS]) for start in range(0, len(items), TRANSFERS))


async def _answered(asked: Coroutine[Any, Any, Any]) -> Any:
    """What the client answers; by itself it would try for ever to reach a server that is not there."""
    answer = asyncio.ensure_future(asked)
    done, _ = await asyncio.wait({answer}, timeout=ANSWER_SECONDS)
    if not done:
        # Not cancelled: the client can be closed only once each of its questions has ended, and closing ends this one.
        answer.add_done_callback(asyncio.Future.exception)
        raise NeighbourFault(f"TigerBeetle did not answer within {ANSWER_SECONDS:.0f} seconds")
    return answer.result()


def _demand_created(results: Sequence[Any]) -> None:
    others = Counter(result.status.name for result in results if result.status.name != "CREATED")
    if others:
        raise NeighbourFault(f"TigerBeetle refused: {dict(others)}")


# ── Formance Ledger ──────────────────────────────────────────────────────────────────────────────────────────────


async def pay_formance(address: str, notebook: Notebook, *, accounts: int, seconds: float) -> Run:
    """One run in a new ledger at `http://HOST:PORT`."""
    ledger = f"bench{os.urandom(6).hex()}"
    batches = draw_payments(seconds, accounts=accounts, each=BULK)
    bodies = [write_bulk([(_name(one.payer), _name(one.payee), one.amount) for one in batch]) for batch in batches]
    latencies: list[float] = []
    queue = iter(bodies)
    async with _Formance(address, ledger) as formance:
        await formance.ask("POST", "", b"{}")
        funding = [("world", _name(number), FUNDS) for number in range(accounts)]
        for start in range(0, accounts, BULK):
            await formance.pay(write_bulk(funding[start : start + BULK]))
        started = time.perf_counter()

        async def send() -> None:
            while time.perf_counter() < started + seconds and (body := next(queue, None)) is not None:
                began = time.perf_counter()
                await formance.pay(body)
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
        spent = time.perf_counter() - started
        paid = len(latencies) * BULK
        stored = (await formance.ask("GET", "/stats"))["data"]["transactions"] - accounts
        left = (await formance.ask("GET", "/aggregate/balances"))["data"].get(ASSET, 0)
    amiss = "; ".join(
        said
        for is_so, said in (
            (stored != paid, f"{stored} of {paid} transactions are stored"),
            (left != 0, f"all balances together are {left}, not 0"),
        )
        if is_so
    )
    return _conclude(notebook, FORMANCE[0], paid=paid, seconds=spent, latencies=latencies, amiss=amiss)


def write_bulk(payments: Sequence[tuple[str, str, int]]) -> bytes:
    """The body of a `_bulk` that makes a transaction of each (source, destination, amount)."""
    return msgspec.json.encode(
        [
            {
                "action": "CREATE_TRANSACTION",
                "data": {
                    "postings": [{"amount": amount, "asset": ASSET, "source": source, "destination": destination}],
                    "metadata": {},
                },
            }
            for source, destination, amount in payments
        ]
    )


def _name(number: int) -> str:
    return f"users:{number}"


class _Formance:
    """One ledger of a server."""

    def __init__(self, address: str, ledger: str) -> None:
        self._root = f"{address.rstrip('/')}/v2/{ledger}"

    async def __aenter__(self) -> _Formance:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            headers={"Content-Type": "application/json"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON that is answered, None where there is no content; raises `NeighbourFault` for an error."""
        try:
            async with self._session.request(method, self._root + path, data=body) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NeighbourFault(f"Formance did not answer: {error!r}") from error
        if not response.ok:
            raise NeighbourFault(f"Formance answered {response.status}: {answer[:300]!r}")
        return msgspec.json.decode(answer) if answer else None

    async def pay(self, body: bytes) -> None:
        """Send a bulk; every element of it must have become a transaction."""
        results = (await self.ask("POST", "/_bulk", body))["data"]
        refused = [result for result in results if result["responseType"] != "CREATE_TRANSACTION"]
        if refused:
            raise NeighbourFault(f"Formance refused {len(refused)} of {len(results)}, the first: {refused[0]}")

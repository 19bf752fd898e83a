"""A replay: a trace of real transfers, lived through again as signed statements in a commons of its own.

Owns the order of a replay (found, join, send, prove), its pace, and its counts. What a row means is `trace`'s, what
the books must show `proof`'s; how it is called and shown is `replay_commands`'.

1. Statements take effect in the trace's order: a request waits for the answer to the one before.
2. At pace, no transfer is sent before its time by the ledger's clock. What falls due while a request is under way
   goes out together in the next.
3. Signing runs ahead of sending by one request, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gesell.amount import Amount
from gesell.answers import Service
from gesell.client import Client
from gesell.clock import LedgerClock
from gesell.errors import InsufficientFunds, Refused
from gesell.peer import Peer
from gesell.proof import Advance, Proof, prove
from gesell.results import Result
from gesell.trace import Trace, Transfer, read_transfers
from gesell_protocol.envelopes import Envelope
from gesell_protocol.policy import Policy
from gesell_protocol.receipts import Receipt

#: A trace names no currency; its amounts have six decimals.
CURRENCY: Final = "TRACE"
SCALE: Final = 6
REQUEST_STATEMENTS: Final = 1_000
#: The longest sleep, so that the ledger's clock is looked at again now and then.
NAP_SECONDS: Final = 30.0
NAME_MAX: Final = 64
#: Signing keeps this thread busy; so often it lets a request under way go on.
SIGN_AT_ONCE: Final = 16
_T = TypeVar("_T")

#: Announces a phase by its name and how much there is to do; returns what to tell of progress.
Phase = Callable[[str, int], Advance]


class ReplayStopped(Exception):
    """The replay can't begin or go on; the message says why. What was accepted stays in its commons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A transfer that was refused: its line, its statement's type, the code, and the funds where it was for them."""

    line: int
    type: str
    code: str
    available: Amount | None
    needed: Amount | None


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the transfers so far, by type of statement; `volume` is in grains.

    `after_ms` holds by how much each accepted one was accepted after its time; at pace it is never less than 0.
    """

    sent: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    volume: Counter[str] = field(default_factory=Counter)
    denials: list[Denial] = field(default_factory=list)
    leaves: dict[int, bytes] = field(default_factory=dict)
    after_ms: list[int] = field(default_factory=list)

    def take(self, transfer: Transfer, result: Result) -> None:
        """Count one outcome; raises `ReplayStopped` for one that is neither a receipt nor a refusal."""
        self.sent[transfer.type] += 1
        if isinstance(result.error, Refused):
            self.denials.append(_denial(transfer, result.error))
            return
        receipt = receipt_of(result, what=f"The transfer of line {transfer.line}")
        self.accepted[transfer.type] += 1
        self.volume[transfer.type] += transfer.amount
        self.leaves[receipt.seq] = receipt.leaf
        self.after_ms.append(receipt.at_ms - transfer.at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A whole replay: where, under which rules, what became of the transfers, what it took, and the proof.

    `joins` counts the statements of the phase `join`; `seconds` are of real time by phase (`join`, `send`, `prove`);
    `ledger_ms` is how long sending took by the ledger's clock. Waiting for the first transfer's time is in neither.
    """

    service: Service
    commons: str
    policy: Policy
    pace: bool
    joins: int
    tally: Tally
    seconds: Mapping[str, float]
    ledger_ms: int
    proof: Proof


class Pacer:
    """Follows the ledger's clock and cuts a trace into what is due together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._clock = LedgerClock()

    async def now_ms(self) -> int:
        """The ledger's time in ms, never ahead of its clock."""
        if self._clock.is_stale:
            service = await self._client.service()
            # A little after the answer arrived, which makes the estimate later than it could be, never too early.
            self._clock.sample(service.time_ms, speed=service.clock_speed, received_at=time.monotonic())
        return self._clock.now_ms()

    async def wait_until(self, at_ms: int) -> None:
        """Sleep until the ledger's clock has reached a time."""
        # The clock that is waited for runs elsewhere, so there is no event to wait for, only another look.
        while at_ms > (now_ms := await self.now_ms()):  # noqa: ASYNC110
            await asyncio.sleep(min(NAP_SECONDS, (at_ms - now_ms) / 1000 / self._clock.speed))

    async def due(self, transfers: Iterable[Transfer]) -> AsyncIterator[list[Transfer]]:
        """Yield transfers in their order as they fall due, together what is due already, at most a request's."""
        batch: list[Transfer] = []
        for transfer in transfers:
            if batch and transfer.at_ms > await self.now_ms():
                yield batch
                batch = []
            await self.wait_until(transfer.at_ms)
            batch.append(transfer)
            if len(batch) == REQUEST_STATEMENTS:
                yield batch
                batch = []
        if batch:
            yield batch


async def run_replay(client: Client, trace: Trace, *, policy: Policy, pace: bool, phase: Phase) -> Replay:
    """Live a trace through again, and prove the books.

    `client` speaks for the one who founds the commons and is its only steward; `policy` must be open to read. Raises
    `ReplayStopped`, and what calls of the client raise.
    """
    service = await client.service()
    commons = await client.found(
        name=f"Replay of {trace.path.name}"[:NAME_MAX], currency=CURRENCY, scale=SCALE, policy=policy
    )
    started = time.monotonic()
    peers = {account: Peer.new() for account in trace.accounts}
    joins = await _join_all(client, trace, peers, admit=policy.admission == "steward", phase=phase)
    joined = time.monotonic()
    pacer = Pacer(client) if pace else None
    if pacer is not None:
        await pacer.wait_until(trace.first_ms)
    began, began_ms = time.monotonic(), (await client.service()).time_ms
    tally = await _send_all(client, trace, peers, pacer=pacer, phase=phase)
    sent, sent_ms = time.monotonic(), (await client.service()).time_ms
    work = 1 + joins + sum(tally.accepted.values()) + len(peers)  # entries to add up, balances to compare
    proof = await prove(client, receipts=tally.leaves, advance=phase("Proving the books", work))
    return Replay(
        service=service,
        commons=commons,
        policy=policy,
        pace=pace,
        joins=joins,
        tally=tally,
        seconds={"join": joined - started, "send": sent - began, "prove": time.monotonic() - sent},
        ledger_ms=sent_ms - began_ms,
        proof=proof,
    )


async def _join_all(client: Client, trace: Trace, peers: Mapping[int, Peer], *, admit: bool, phase: Phase) -> int:
    """Make every account a member; returns how many statements that took."""
    rounds = 2 if admit else 1
    advance = phase("Joining", len(peers) * rounds)

    async def sign_join(account: int) -> Envelope:
        return await client.as_peer(peers[account]).sign({"type": "join", "handle": trace.handle(account)})

    async def sign_admit(account: int) -> Envelope:
        return await client.sign({"type": "admit", "peer": peers[account]})

    def take(batch: Sequence[int], results: Sequence[Result]) -> None:
        for account, result in zip(batch, results, strict=True):
            receipt_of(result, what=f"Account {account}'s membership")
        advance(len(batch))

    for sign in (sign_join, sign_admit)[:rounds]:
        await _send(client, _whole(peers), sign=sign, take=take)
    return len(peers) * rounds


async def _send_all(
    client: Client, trace: Trace, peers: Mapping[int, Peer], *, pacer: Pacer | None, phase: Phase
) -> Tally:
    """Send all transfers, at pace if there is a pacer; returns their tally."""
    advance = phase("Sending", trace.transfers)
    speakers = {account: client.as_peer(peer) for account, peer in peers.items()}
    tally = Tally()

    async def sign(transfer: Transfer) -> Envelope:
        amount = Amount(transfer.amount, CURRENCY, SCALE)
        if transfer.payer is None:
            return await client.sign({"type": "issue", "to": _one(peers, transfer.payee), "amount": amount})
        speaker = speakers[transfer.payer]
        if transfer.payee is None:
            return await speaker.sign({"type": "retire", "amount": amount})
        return await speaker.sign({"type": "pay", "legs": [(peers[transfer.payee], amount)]})

    def take(batch: Sequence[Transfer], results: Sequence[Result]) -> None:
        for transfer, result in zip(batch, results, strict=True):
            tally.take(transfer, result)
        advance(len(batch))

    transfers = read_transfers(trace.path)
    await _send(client, pacer.due(transfers) if pacer else _whole(transfers), sign=sign, take=take)
    return tally


def _one(peers: Mapping[int, Peer], account: int | None) -> Peer:
    assert account is not None, "an issue has a payee"
    return peers[account]


async def _whole(items: Iterable[_T]) -> AsyncIterator[list[_T]]:
    """Cut into full requests."""
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, REQUEST_STATEMENTS)):
        yield batch


async def _send(
    client: Client,
    batches: AsyncIterator[list[_T]],
    *,
    sign: Callable[[_T], Awaitable[Envelope]],
    take: Callable[[Sequence[_T], Sequence[Result]], None],
) -> None:
    """Sign and send batch after batch; `take` gets each with what became of it."""
    under_way: tuple[list[_T], asyncio.Task[list[Result]]] | None = None
    async for batch in batches:
        envelopes = []
        for index, item in enumerate(batch):
            if index % SIGN_AT_ONCE == 0:
                await asyncio.sleep(0)
            envelopes.append(await sign(item))
        if under_way is not None:
            take(under_way[0], await under_way[1])
        under_way = batch, asyncio.create_task(client.submit(envelopes))
    if under_way is not None:
        take(under_way[0], await under_way[1])


def receipt_of(result: Result, *, what: str) -> Receipt:
    """The receipt of what was accepted; raises `ReplayStopped` for anything else."""
    if result.receipt is None or result.error is not None:
        raise ReplayStopped(f"{what} has no receipt ({result.status}: {result.error}). The replay stops here.")
    return result.receipt


def _denial(transfer: Transfer, error: Refused) -> Denial:
    funds = error if isinstance(error, InsufficientFunds) else None
    return Denial(
        line=transfer.line,
        type=transfer.type,
        code=error.code,
        available=funds.available if funds else None,
        needed=funds.needed if funds else None,
    )

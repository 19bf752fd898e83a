"""Fills a ledger fast: statements go through the core and the storage as the sequencer runs them, and past HTTP.

Owns the making of very many statements, in processes of its own, and their handing over to a `Sequencer` in this one.
What it leaves in the database is what the service would have left: entries, postings, accounts, members, the tree, all
decided by `core.decide` and stored by the sequencer's own transactions, each durable. Knows no rule of the books.

1. Every signature is real, so that an auditor accepts the log; only nobody verifies it on the way in, because the
   makers have just made it.
2. The sequencer takes the lock on the head like any worker's: a service may run on the database meanwhile. Its warm
   books notice by the head's seq that somebody else added to them.
3. A statement that is not accepted ends the filling with `Refused`: what is measured later rests on known numbers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.orders import PAYMENT_MAX
from bench.signing import Crew
from gesell_ledger.core.decide import Submission
from gesell_ledger.metrics import Metrics
from gesell_ledger.readings.folder import REBUILD_RUN, REBUILD_WAIT_SECONDS, fold_run
from gesell_ledger.sequencer import Answer, Receipted, Sequencer
from gesell_ledger.settings import HALF_LIFE_DAYS
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.postgres import open_pool
from gesell_protocol.amounts import AMOUNT_MAX
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope
from gesell_protocol.fields import LEGS_MAX, Leg
from gesell_protocol.names import uuid7
from gesell_protocol.statements import EXPIRES_MAX_MS, Join, Pay, read_statement, write_body

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from gesell_ledger.clock import LedgerClock

MAKERS: Final = 2
#: Statements that a maker makes in one go: a batch of the sequencer.
PORTION: Final = 1_000
#: Portions asked for ahead, and portions with the sequencer at once: while one batch is stored the next are ready.
AHEAD: Final = 6
IN_FLIGHT: Final = 3
#: The ids of a portion of payments climb through the last so many ms, as those of living clients would.
SPAN_MS: Final = 100
#: Payments of 256 legs that are with the sequencer at once: what a batch of it takes.
FUND_AT_ONCE: Final = 75
#: Said every so many entries.
TELL_EACH: Final = 100_000
#: Between two looks at what the filling has added, for the readings beside it.
KEEP_UP_SECONDS: Final = 0.5
#: How long their process may take to start.
START_SECONDS: Final = 60.0
#: How long one statement of SQL may take: longer than any, so that a checkpoint does not end the filling.
SECONDS: Final = 600

HALF_LIFE_MS: Final = HALF_LIFE_DAYS * 86_400_000

Tell = Callable[[str], None]


class Refused(Exception):
    """The ledger did not accept a statement of the filling; says which refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """How many entries were added, and in what time."""

    entries: int
    seconds: float

    @property
    def rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds


class _Payment(NamedTuple):
    """A payment as a maker hands it over: payer and payee by their places in the crew."""

    payer: int
    payee: int
    amount: int
    id: bytes
    expires_ms: int
    body: bytes
    signature: bytes


class _Joining(NamedTuple):
    """A `join` as a maker hands it over."""

    peer: bytes
    handle: str
    id: bytes
    expires_ms: int
    body: bytes
    signature: bytes


def sleeper(commons: bytes, number: int) -> Signer:
    """The key of a commons' sleeper by its number: the same at every call, so that it can be asked for later."""
    return Signer(sha256(b"gesell bench sleeper %d of %b" % (number, commons)).digest())


@asynccontextmanager
async def open_loader(
    dsn: str, *, ledger: bytes, clock: LedgerClock, crew: Crew, commons: bytes
) -> AsyncIterator[Loader]:
    """A loader of one commons, founded already, in the database at `dsn`; `crew` as founded.

    `ledger` is the public key that speaks for the commons, `clock` tells the time of the entries. The makers'
    processes live as long as the block.
    """
    makers = ProcessPoolExecutor(
        MAKERS,
        # A forked child would share what this process has open; a spawned one starts clean.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(crew.accounts, commons),
    )
    try:
        # Their start takes seconds, which are not the filling's.
        await asyncio.gather(*(asyncio.wrap_future(makers.submit(_make_nothing)) for _ in range(MAKERS)))
        async with open_pool(dsn, connections=2, seconds=SECONDS, writing=True) as pool:
            yield Loader(Sequencer(pool, clock, ledger=ledger, metrics=Metrics()), makers, clock, crew, commons)
    finally:
        makers.shutdown(cancel_futures=True)


async def make_readings(dsn: str, commons: bytes) -> None:
    """Have the readings of a commons take in all its entries, as the service's folder would, only without its rests.

    The service's folder may take part. Its half-life must be the default one, or it would begin anew.
    """
    async with open_pool(dsn, connections=1, seconds=SECONDS) as pool:
        folds = Folds(pool)
        while (folded := await fold_run(folds, commons, half_life_ms=HALF_LIFE_MS, entries=REBUILD_RUN)) != 0:
            if folded is None:
                await asyncio.sleep(REBUILD_WAIT_SECONDS)


@asynccontextmanager
async def readings_beside(dsn: str, commons: bytes) -> AsyncIterator[None]:
    """While the block fills a commons, another process keeps its readings up, so that few are left to be made after.

    Raises `RuntimeError` if it could not.
    """
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_keep_up, args=(dsn, commons, started), daemon=True)
    process.start()
    try:
        # Its start takes seconds, which are not the filling's.
        if not await asyncio.to_thread(started.wait, START_SECONDS):
            raise RuntimeError(f"the process that makes the readings did not start: status {process.exitcode}")
        yield
        if process.exitcode is not None:
            raise RuntimeError(f"the process that makes the readings ended with status {process.exitcode}")
    finally:
        # What it was folding is rolled back, as if it had never begun.
        process.terminate()
        await asyncio.to_thread(process.join)


class Loader:
    """Fills one commons; made by `open_loader`."""

    def __init__(
        self, sequencer: Sequencer, makers: ProcessPoolExecutor, clock: LedgerClock, crew: Crew, commons: bytes
    ) -> None:
        self._sequencer = sequencer
        self._makers = makers
        self._clock = clock
        self._commons = commons
        self._steward = Signer(crew.steward)
        self._payer = Signer(crew.accounts[0])
        self._peers = [Signer(seed).public_key for seed in crew.accounts]

    async def add_payments(self, count: int, tell: Tell | None = None) -> Filled:
        """Add `count` payments with one leg among the crew's accounts at random, who must be members with money.

        Raises `Refused`.
        """
        return await self._add(count, _make_payments, self._read_payments, tell)

    async def add_sleepers(self, count: int, *, amount: int, tell: Tell | None = None) -> Filled:
        """Add `count` members with `amount` grains each, by payments of 256 legs from the crew's first account.

        The commons must be open to all, and that account a member. Raises `Refused`. Each joins by a statement of its
        own, so most entries are joins.
        """
        joined = await self._add(count, _make_joins, self._read_joins, tell)
        began = time.perf_counter()
        funded = await self._fund([sleeper(self._commons, number).public_key for number in range(count)], amount)
        return Filled(entries=joined.entries + funded, seconds=joined.seconds + time.perf_counter() - began)

    async def _add(
        self,
        count: int,
        make: Callable[[int, int, int], list[Any]],
        read: Callable[[list[Any]], list[Submission]],
        tell: Tell | None,
    ) -> Filled:
        """Have portions made and stored, in order, until all are."""
        portions = iter(range(0, count, PORTION))
        began = time.perf_counter()
        done = 0
        making = deque[Future[list[Any]]]()
        storing = deque[asyncio.Task[list[Answer]]]()
        while True:
            while len(making) < AHEAD and (first := next(portions, None)) is not None:
                size = min(PORTION, count - first)
                making.append(self._makers.submit(make, first, size, self._clock.now_ms()))
            if making and len(storing) < IN_FLIGHT:
                made = await asyncio.wrap_future(making.popleft())
                storing.append(asyncio.create_task(self._sequencer.submit(read(made))))
                # So that the sequencer has it before the next portion is waited for.
                await asyncio.sleep(0)
            elif storing:
                done += _count_accepted(await storing.popleft())
                if tell is not None and done % TELL_EACH == 0:
                    tell(f"filling: {done:,} entries, {done / (time.perf_counter() - began):,.0f} a second")
            else:
                return Filled(entries=done, seconds=time.perf_counter() - began)

    async def _fund(self, peers: Sequence[bytes], amount: int) -> int:
        """Money for everybody; returns how many entries it took."""
        rich = self._payer.public_key
        total = amount * len(peers)
        issues = [min(AMOUNT_MAX, total - at) for at in range(0, total, AMOUNT_MAX)]
        said = [self._say(self._steward, {"type": "issue", "to": rich, "amount": each}) for each in issues]
        said += [
            self._say(self._payer, {"type": "pay", "legs": [[peer, amount] for peer in peers[at : at + LEGS_MAX]]})
            for at in range(0, len(peers), LEGS_MAX)
        ]
        for at in range(0, len(said), FUND_AT_ONCE):
            _count_accepted(await self._sequencer.submit(said[at : at + FUND_AT_ONCE]))
        return len(said)

    def _say(self, signer: Signer, fields: Mapping[str, Any]) -> Submission:
        """One statement of the few that this process makes by itself."""
        now_ms = self._clock.now_ms()
        body, signature = _sign(
            signer,
            {**fields, "commons": self._commons},
            name=uuid7(now_ms, os.urandom(10)),
            expires_ms=now_ms + EXPIRES_MAX_MS,
        )
        envelope = Envelope(body, ((signer.public_key, signature),))
        return Submission(envelope, read_statement(envelope))

    def _read_payments(self, made: list[_Payment]) -> list[Submission]:
        # Put together by hand: to read the bodies, which the makers wrote, would take as long as to decide them.
        peers = self._peers
        return [
            Submission(
                Envelope(one.body, ((peers[one.payer], one.signature),)),
                Pay(
                    commons=self._commons,
                    by=peers[one.payer],
                    id=one.id,
                    expires_ms=one.expires_ms,
                    legs=(Leg(peers[one.payee], one.amount),),
                ),
            )
            for one in made
        ]

    def _read_joins(self, made: list[_Joining]) -> list[Submission]:
        return [
            Submission(
                Envelope(one.body, ((one.peer, one.signature),)),
                Join(commons=self._commons, by=one.peer, id=one.id, expires_ms=one.expires_ms, handle=one.handle),
            )
            for one in made
        ]


def _count_accepted(answers: Sequence[Answer]) -> int:
    """How many; raises `Refused` unless all are, and for the first time."""
    for answer in answers:
        if not isinstance(answer, Receipted):
            raise Refused(f"{answer.code}: {answer.detail}")
        if answer.replayed:
            raise Refused("a statement was there before")
    return len(answers)


# ── In processes of their own ────────────────────────────────────────────────────────────────────────────────────

_desk: tuple[list[Signer], bytes] | None = None


def _keep_up(dsn: str, commons: bytes, started: Event) -> None:
    async def go_on() -> None:
        started.set()
        while True:
            await make_readings(dsn, commons)
            await asyncio.sleep(KEEP_UP_SECONDS)

    asyncio.run(go_on())


def _enter(seeds: Sequence[bytes], commons: bytes) -> None:
    global _desk
    _desk = ([Signer(seed) for seed in seeds], commons)


def _make_nothing() -> None:
    """Only a maker that has started can do it."""
    assert _desk is not None


def _make_payments(first: int, count: int, now_ms: int) -> list[_Payment]:
    """`count` payments; which of all they are does not matter, so `first` is not looked at."""
    assert _desk is not None
    peers, commons = _desk
    made = []
    for place in range(count):
        payer, payee = random.sample(range(len(peers)), 2)
        amount = random.randint(1, PAYMENT_MAX)
        time_ms = now_ms - SPAN_MS + SPAN_MS * place // count
        name = uuid7(time_ms, os.urandom(10))
        body, signature = _sign(
            peers[payer],
            {"type": "pay", "commons": commons, "legs": [[peers[payee].public_key, amount]]},
            name=name,
            expires_ms=time_ms + EXPIRES_MAX_MS,
        )
        made.append(_Payment(payer, payee, amount, name, time_ms + EXPIRES_MAX_MS, body, signature))
    return made


def _make_joins(first: int, count: int, now_ms: int) -> list[_Joining]:
    """The joins of the sleepers from number `first` on."""
    assert _desk is not None
    commons = _desk[1]
    made = []
    for number in range(first, first + count):
        signer, handle = sleeper(commons, number), f"s{number}"
        name, expires_ms = uuid7(now_ms, os.urandom(10)), now_ms + EXPIRES_MAX_MS
        body, signature = _sign(
            signer, {"type": "join", "commons": commons, "handle": handle}, name=name, expires_ms=expires_ms
        )
        made.append(_Joining(signer.public_key, handle, name, expires_ms, body, signature))
    return made


def _sign(signer: Signer, fields: Mapping[str, Any], *, name: bytes, expires_ms: int) -> tuple[bytes, bytes]:
    body = write_body({**fields, "by": signer.public_key, "id": name, "expires": expires_ms})
    return body, signer.sign(STATEMENT_PREFIX + body)

"""One commons, one sequence: collects statements, decides them batch by batch, hands out receipts.

Owns the order in which statements act, the batches, and what is answered when the database fails. Knows no rule of
the books (`core.decide` does) and no SQL (`storage.postgres` does).

1. A batch is everything that has arrived for a commons, up to 1,000 statements; it waits for nobody.
2. While the database works on one batch, the next collects.
3. An answer leaves after the commit that makes it durable, never before.
4. If it is unknown whether a commit took effect, the batch runs again from the start: the lock on the head waits for
   whatever the first one still does, and what it stored is then found under its id.
5. A broken invariant aborts the batch; nothing of it is stored.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, Outcome, Replay, Submission, decide
from gesell_ledger.core.needs import needs_of
from gesell_ledger.metrics import Metrics
from gesell_ledger.storage.faults import ClockFault, is_transient
from gesell_ledger.storage.postgres import Batch, Timelines
from gesell_protocol.envelopes import Memo
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Grant, Pay, Payout, Sweep

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

BATCH_MAX: Final = 1_000
#: A batch ends early when its statements touch this many accounts, so that one batch never takes seconds.
BATCH_WEIGHT_MAX: Final = 20_000
#: The event loop breathes after this many touched accounts.
BREATH_WEIGHT: Final = 400
RETRY_SECONDS: Final = 20.0

log = structlog.get_logger("gesell.sequencer")


class Unavailable(Exception):
    """The ledger can't take it now; what was asked was not applied, or will be found under its id."""

    def __init__(self, why: str, *, retry_after: int) -> None:
        super().__init__(why)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Receipted:
    """An accepted statement's receipt; `replayed` if an earlier submission was the one that was accepted."""

    receipt: Receipt
    replayed: bool


Answer = Receipted | Refusal


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    weight: int
    answer: asyncio.Future[Answer]


class Sequencer:
    """The sequences of all commons that this process serves. One per process; all calls from one event loop."""

    def __init__(self, pool: Pool, clock: LedgerClock, *, ledger: bytes, metrics: Metrics) -> None:
        self._pool = pool
        self._clock = clock
        self._ledger = ledger
        self._metrics = metrics
        self._timelines = Timelines()
        self._lines: dict[bytes, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def submit(self, submissions: Sequence[Submission | Refusal]) -> list[Answer]:
        """Answer each submission, in the order given; a `Refusal` among them is its own answer.

        Raises `Unavailable` if the service is stopping. Cancelling the caller leaves what was queued to be decided.
        """
        if self._stopping:
            raise Unavailable("the service is stopping", retry_after=2)
        loop = asyncio.get_running_loop()
        answers: list[Answer | asyncio.Future[Answer]] = []
        for submission in submissions:
            if isinstance(submission, Refusal):
                answers.append(submission)
                continue
            waiting = _Waiting(submission, _weight(submission), loop.create_future())
            answers.append(waiting.answer)
            self._enqueue(waiting)
        return [answer if not isinstance(answer, asyncio.Future) else await answer for answer in answers]

    async def stop(self, *, seconds: float = 20.0) -> None:
        """Take nothing more, finish what is queued; what is left after `seconds` is answered as unavailable."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        for line in self._lines.values():
            _refuse(line, "unavailable", "the service stopped before it was decided; send it again")
        self._lines.clear()

    def _enqueue(self, waiting: _Waiting) -> None:
        commons = waiting.submission.statement.commons
        line = self._lines.get(commons)
        if line is None:
            line = self._lines[commons] = deque()
            task = asyncio.get_running_loop().create_task(self._run(commons, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.append(waiting)

    async def _run(self, commons: bytes, line: deque[_Waiting]) -> None:
        """Decide batch after batch until nobody waits; then the line closes."""
        while line:
            batch = _take(line)
            try:
                await self._answer(commons, batch)
            except asyncio.CancelledError:
                _refuse(batch, "unavailable", "the service stopped; whether it was applied is found under its id")
                raise
        self._lines.pop(commons, None)

    async def _answer(self, commons: bytes, batch: Sequence[_Waiting]) -> None:
        """Give every statement of a batch its answer, whatever happens."""
        try:
            answers = await self._decide_and_store(commons, [waiting.submission for waiting in batch])
        except ClockFault as fault:
            _refuse(batch, "unavailable", str(fault))
        except Exception as error:
            if is_transient(error):
                log.error("batch_given_up", commons=commons.hex(), statements=len(batch), error=repr(error))
                _refuse(
                    batch, "unavailable", "the database does not answer; whether it was applied is found under its id"
                )
                return
            # Rule 5: our own bug, or a database that refuses what must hold. Loud, and nothing stored.
            log.critical("batch_aborted", commons=commons.hex(), statements=len(batch), exc_info=error)
            self._metrics.broken.inc()
            _refuse(batch, "internal", "the ledger has a fault; nothing was applied")
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    async def _decide_and_store(self, commons: bytes, batch: Sequence[Submission]) -> list[Answer]:
        """Run a batch, again and again while the database fails in a way that may pass (rule 4)."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RETRY_SECONDS
        pause = 0.05
        while True:
            try:
                return await self._transact(commons, batch)
            except Exception as error:
                if not is_transient(error) or loop.time() + pause > give_up:
                    raise
                log.warning("batch_again", commons=commons.hex(), statements=len(batch), error=repr(error))
                self._metrics.retries.inc()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(1.0, pause * 2)

    async def _transact(self, commons: bytes, batch: Sequence[Submission]) -> list[Answer]:
        """One transaction: lock, load, decide, store, commit."""
        with self._metrics.batch_seconds.time():
            async with self._pool.acquire() as connection, connection.transaction():
                transaction = Batch(connection, commons, self._timelines)
                books = await transaction.lock()
                await transaction.load(books, needs_of(batch))
                before = dict(books.accounts)
                outcomes = await self._decide_all(books, batch)
                accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
                memos = _memos(batch, outcomes)
                await transaction.store(books, accepted, before, memos)
        self._metrics.batch_statements.observe(len(batch))
        return [self._answer_of(books, outcome) for outcome in outcomes]

    async def _decide_all(self, books: Books, batch: Sequence[Submission]) -> list[Outcome]:
        """Decide in order, each against the books that the one before left."""
        outcomes: list[Outcome] = []
        weight = 0
        for submission in batch:
            outcome = decide(books, submission, now_ms=self._clock.now_ms(), ledger=self._ledger)
            if isinstance(outcome, Accepted):
                books.apply(outcome.decision, outcome.entry)
            outcomes.append(outcome)
            weight += _weight(submission)
            if weight > BREATH_WEIGHT:
                weight = 0
                await asyncio.sleep(0)
        return outcomes

    def _answer_of(self, books: Books, outcome: Outcome) -> Answer:
        if isinstance(outcome, Refusal):
            self._metrics.statements.labels(outcome.code).inc()
            return outcome
        replayed = isinstance(outcome, Replay)
        self._metrics.statements.labels("replayed" if replayed else "accepted").inc()
        assert books.commons is not None
        return Receipted(outcome.entry.receipt(books.commons.tick_of(outcome.entry.at_ms)), replayed)


def _weight(submission: Submission) -> int:
    match submission.statement:
        case Pay(legs=many) | Grant(legs=many):
            return 1 + len(many)
        case Sweep(accounts=many) | Payout(members=many):
            return len(many)
    return 1


def _take(line: deque[_Waiting]) -> list[_Waiting]:
    """The next batch: in order, up to the bounds, at least one."""
    batch = [line.popleft()]
    weight = batch[0].weight
    while line and len(batch) < BATCH_MAX and weight + line[0].weight <= BATCH_WEIGHT_MAX:
        batch.append(line.popleft())
        weight += batch[-1].weight
    return batch


def _memos(batch: Sequence[Submission], outcomes: Sequence[Outcome]) -> dict[bytes, Memo]:
    """The texts that came beside accepted statements; one that came with a replay is ignored (SPEC §3)."""
    return {
        submission.statement.id: submission.envelope.memo
        for submission, outcome in zip(batch, outcomes, strict=True)
        if isinstance(outcome, Accepted) and submission.envelope.memo is not None
    }


def _refuse(waiting: Sequence[_Waiting] | deque[_Waiting], code: str, detail: str) -> None:
    for one in waiting:
        if not one.answer.done():
            one.answer.set_result(Refusal(code=code, detail=detail))

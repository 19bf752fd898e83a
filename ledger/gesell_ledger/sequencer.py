"""One commons, one sequence: collects statements, decides them batch by batch, hands out receipts.

Owns the order in which statements act, the batches, and what is answered when the database fails. Knows no rule of
the books (`core.decide` does) and no SQL (`storage.postgres` does).

1. A batch is everything that has arrived for a commons, up to 1,000 statements; it waits for nobody. Where more has
   arrived, requests of few statements and those of many take turns (`queues`).
2. While the database works on one batch, the next collects.
3. An answer leaves after the commit that makes it durable, never before.
4. If it is unknown whether a commit took effect, the batch runs again from the start: the lock on the head waits for
   whatever the first one still does, and what it stored is then found under its id. What the short way sent may come
   so late that it holds no lock yet; as long as the head stands where it may still fit, nothing is refused for good.
5. Books that a committed batch left are where the next begins, as long as the head has the tree that the batch made.
6. A broken invariant aborts the batch; nothing of it is stored.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gesell_ledger.clock import LedgerClock
from gesell_ledger.core.books import NOTHING, AccountName, Books
from gesell_ledger.core.decide import Accepted, Outcome, Replay, Submission, decide
from gesell_ledger.core.needs import Needs, needs_of
from gesell_ledger.metrics import Metrics
from gesell_ledger.queues import FEW, Queues
from gesell_ledger.storage.appending import append, can_append
from gesell_ledger.storage.faults import ClockFault, is_transient
from gesell_ledger.storage.postgres import Batch, Warm, find_commons
from gesell_ledger.storage.rules import Rules
from gesell_protocol.demurrage import Holding
from gesell_protocol.envelopes import Memo
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import (
    Capture,
    ChangePolicy,
    Found,
    Gift,
    Grant,
    Hold,
    Keys,
    Lapse,
    Leave,
    Pay,
    Payout,
    Sweep,
    Thank,
    Void,
    Vouch,
    Writeoff,
)

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Pool

BATCH_MAX: Final = 1_000
#: A batch ends early when its statements touch this many accounts, so that one batch never takes seconds.
BATCH_WEIGHT_MAX: Final = 20_000
#: A request of few statements has this weight at most: what sixteen payments of three legs have.
FEW_WEIGHT: Final = 64
#: A `keys` statement looks through all keys that the batch has met, a `policy` through all policies that were ever in
#: force, so few of them go together.
KEYS_WEIGHT: Final = 100
_LOOKS_THROUGH: Final = (Keys, ChangePolicy)
#: Who leaves, or whose debt is written off, may have 512 vouches, with as many accounts behind them.
RING_WEIGHT: Final = 512
#: The event loop breathes, and looks at the clock, after this many statements and postings.
BREATH_WEIGHT: Final = 1_000
RETRY_SECONDS: Final = 20.0
#: For so long a statement whose connection broke may still reach the database: longer than it would be let to run.
DOUBT_SECONDS: Final = 90.0
#: Of how many commons one request may hold connections at the same time.
COMMONS_AT_ONCE: Final = 4
#: About how many KB the warm books of all commons together may take: a peer or key each, and what fresh money adds.
WARM_MAX: Final = 40_000
#: Whose books take more of it goes first where room is short.
WARM_PART: Final = WARM_MAX // 4
#: Books that nobody used for so long need no room.
WARM_SECONDS: Final = 60.0

_NOT_OURS: Final = Refusal(
    code="unavailable", detail="another key speaks for this commons now; nothing can be signed in its log here"
)
_IN_DOUBT: Final = Refusal(
    code="unavailable", detail="whether it was applied is not known yet; send the same again in a moment"
)
_SAME_BEGINNING: Final = Refusal(
    code="unknown-commons", detail="this ledger has a commons whose name begins the same; found yours with another id"
)

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
class _Parcel:
    """Statements of one request for one commons, at most a batch full, and the promise of their answers."""

    submissions: list[Submission]
    weight: int
    answers: asyncio.Future[list[Answer]]


class _Resting(NamedTuple):
    """Books that wait for the next batch, and since when."""

    warm: Warm
    since: float


class _Done(NamedTuple):
    """A batch that was decided and stored, and the books that it leaves."""

    outcomes: list[Outcome]
    answers: list[Answer]
    warm: Warm | None


class Sequencer:
    """The sequences of all commons that this process serves. One per process; all calls from one event loop."""

    def __init__(self, pool: Pool, clock: LedgerClock, *, ledger: bytes, metrics: Metrics) -> None:
        self._pool = pool
        self._clock = clock
        self._ledger = ledger
        self._metrics = metrics
        self._rules = Rules()
        self._lines: dict[bytes, Queues[_Parcel]] = {}
        #: in the order in which they go where room is short
        self._warm: OrderedDict[bytes, _Resting] = OrderedDict()
        self._warm_size = 0
        #: commons → where its head stood when a statement of the short way was lost, and until when that matters
        self._doubts: dict[bytes, tuple[int, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        #: Called with the commons' name after a commit that added entries to it; they must be quick and must not raise.
        self.after_commit: list[Callable[[bytes], None]] = []

    async def submit(self, submissions: Sequence[Submission | Refusal]) -> list[Answer]:
        """Answer each submission, in the order given; a `Refusal` among them is its own answer.

        Raises `Unavailable` if the service is stopping. Cancelling the caller leaves what was queued to be decided.
        """
        if self._stopping:
            raise Unavailable("the service is stopping", retry_after=2)
        parcels: dict[bytes, list[_Parcel]] = {}
        places: list[tuple[_Parcel, int] | Refusal] = []
        for submission in submissions:
            if isinstance(submission, Refusal):
                places.append(submission)
                continue
            parcel = _room_for(parcels.setdefault(submission.statement.commons, []), _weight(submission))
            places.append((parcel, len(parcel.submissions)))
            parcel.submissions.append(submission)
        await self._refuse_unknown(parcels)
        if len(parcels) == 1:
            # Most requests speak to one commons only, and need no task of their own to wait for it.
            (one,) = parcels.items()
            await self._queue(*one)
        else:
            # One that speaks to many takes only a part of the connections, so that others get theirs.
            room = asyncio.Semaphore(COMMONS_AT_ONCE)
            await asyncio.gather(*(self._queue_in(room, commons, ready) for commons, ready in parcels.items()))
        return [place if isinstance(place, Refusal) else place[0].answers.result()[place[1]] for place in places]

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

    async def _refuse_unknown(self, parcels: dict[bytes, list[_Parcel]]) -> None:
        """Refuse what speaks to commons that do not exist, with one question for all: a transaction for each would
        let a stranger with random names hold up everybody's payments.
        """
        asked = [
            name
            for name, ready in parcels.items()
            if name not in self._lines and name not in self._warm and not _founds(ready)
        ]
        if not asked:
            return
        found = await self._known(asked)
        for name in set(asked) - found:
            _refuse(parcels.pop(name), "unknown-commons", "no commons of this name was founded here")

    async def _known(self, asked: Sequence[bytes]) -> set[bytes]:
        """Which of these exist; all of them, while the database does not say: then their transactions find out."""
        try:
            return await find_commons(self._pool, asked)
        except Exception as error:
            if not is_transient(error):
                raise
            return set(asked)

    async def _queue_in(self, room: asyncio.Semaphore, commons: bytes, ready: Sequence[_Parcel]) -> None:
        async with room:
            await self._queue(commons, ready)

    async def _queue(self, commons: bytes, ready: Sequence[_Parcel]) -> None:
        self._enqueue(commons, ready)
        for parcel in ready:
            await parcel.answers

    def _enqueue(self, commons: bytes, ready: Sequence[_Parcel]) -> None:
        if self._stopping:
            _refuse(ready, "unavailable", "the service stopped before it was decided; send it again")
            return
        line = self._lines.get(commons)
        if line is None:
            line = self._lines[commons] = Queues()
            task = asyncio.get_running_loop().create_task(self._run(commons, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        few = len(ready) == 1 and len(ready[0].submissions) <= FEW and ready[0].weight <= FEW_WEIGHT
        (line.few if few else line.many).extend(ready)

    async def _run(self, commons: bytes, line: Queues[_Parcel]) -> None:
        """Decide batch after batch until nobody waits; then the line closes."""
        while line:
            batch = _take(line)
            try:
                await self._answer(commons, batch)
            except asyncio.CancelledError:
                _refuse(batch, "unavailable", "the service stopped; whether it was applied is found under its id")
                raise
        self._lines.pop(commons, None)

    async def _answer(self, commons: bytes, batch: Sequence[_Parcel]) -> None:
        """Give every statement of a batch its answer, whatever happens."""
        statements = [submission for parcel in batch for submission in parcel.submissions]
        try:
            answers = await self._decide_and_store(commons, statements)
        except ClockFault as fault:
            _refuse(batch, "unavailable", str(fault))
        except Exception as error:
            if is_transient(error):
                log.error("batch_given_up", commons=commons.hex(), statements=len(statements), error=repr(error))
                _refuse(batch, "unavailable", "the database does not answer; whether it was applied is found by its id")
                return
            # Rule 6: our own bug, or a database that refuses what must hold. Loud, and nothing stored.
            log.critical("batch_aborted", commons=commons.hex(), statements=len(statements), exc_info=error)
            self._metrics.broken.inc()
            _refuse(batch, "internal", "the ledger has a fault; nothing was applied")
        else:
            done = 0
            for parcel in batch:
                size = len(parcel.submissions)
                if not parcel.answers.done():
                    parcel.answers.set_result(answers[done : done + size])
                done += size

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
        """Have a batch decided and stored: by the short way where that is open to it, or else by the long one."""
        needs = needs_of(batch)
        # Taken out, and put back only after the commit: a batch that fails leaves nothing behind.
        warm = self._take_warm(commons)
        with self._metrics.batch_seconds.time():
            async with self._pool.acquire() as connection:
                done: _Done | Refusal | None = None
                if warm is not None and can_append(warm, batch, needs) and self._not_ours(warm.books) is None:
                    done = await self._append(connection, warm, batch)
                if done is None:
                    done = await self._lock_and_store(connection, commons, batch, needs, warm)
        self._metrics.batch_statements.observe(len(batch))
        if isinstance(done, Refusal):
            return [done] * len(batch)
        if done.warm is not None:
            self._keep_warm(commons, done.warm)
        self._count(done.outcomes)
        if any(isinstance(outcome, Accepted) for outcome in done.outcomes):
            for tell in self.after_commit:
                tell(commons)
        return done.answers

    async def _append(self, connection: Connection, warm: Warm, batch: Sequence[Submission]) -> _Done | None:
        """The short way: decide on warm books, store in one statement. None if nothing was stored, and the books are as
        they were: somebody else added to the commons, an id is known, or something was refused. A refusal is given
        only when it is certain that the id is not known: what was accepted once is answered with its receipt, though
        the money is spent by now or the time is over.
        """
        books = warm.books
        head = books.commons
        assert head is not None
        before: dict[AccountName, Holding] = {}
        outcomes = await self._decide_all(books, batch, before)
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        certain = not any(isinstance(outcome, Refusal) for outcome in outcomes)
        try:
            leaves = await append(connection, warm, head, accepted, before) if certain else None
        except Exception as error:
            if is_transient(error):
                self._doubts[head.id] = (head.seq, asyncio.get_running_loop().time() + DOUBT_SECONDS)
            raise
        if leaves is None:
            books.commons, books.entries = head, {}
            books.accounts.update(before)
            return None
        answers = _answers_of(books, outcomes, leaves)
        books.entries = {}
        return _Done(outcomes, answers, warm)

    async def _lock_and_store(
        self, connection: Connection, commons: bytes, batch: Sequence[Submission], needs: Needs, warm: Warm | None
    ) -> _Done | Refusal:
        """The long way, one transaction: lock, load, decide, store, commit."""
        async with connection.transaction():
            transaction = Batch(connection, commons, self._rules, warm)
            books = await transaction.lock()
            refusal = self._not_ours(books)
            if refusal is not None or books is None:
                return refusal or _SAME_BEGINNING
            await transaction.load(books, needs)
            before: dict[AccountName, Holding] = {}
            outcomes = await self._decide_all(books, batch, before)
            accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
            leaves = await transaction.store(books, accepted, before, _memos(batch, outcomes))
        answers = _answers_of(books, outcomes, leaves)
        if commons in self._doubts and self._in_doubt(commons, books):
            answers = [_IN_DOUBT if isinstance(answer, Refusal) else answer for answer in answers]
        return _Done(outcomes, answers, None if books.commons is None else transaction.leave_warm(books))

    def _in_doubt(self, commons: bytes, books: Books) -> bool:
        """Whether what was lost on the short way may still be stored after the books as they stand (rule 4)."""
        seq, until = self._doubts[commons]
        if books.commons is not None and books.commons.seq == seq and asyncio.get_running_loop().time() < until:
            return True
        del self._doubts[commons]
        return False

    def _not_ours(self, books: Books | None) -> Refusal | None:
        """Why nothing can be said in this commons here, whatever it is."""
        if books is not None and books.commons is not None and books.commons.ledger != self._ledger:
            return _NOT_OURS
        return None

    def _take_warm(self, commons: bytes) -> Warm | None:
        resting = self._warm.pop(commons, None)
        if resting is None:
            return None
        self._warm_size -= resting.warm.size
        return resting.warm

    def _keep_warm(self, commons: bytes, warm: Warm) -> None:
        """Remember the books for the next batch, within a bound on all that is remembered: where it is full, those go
        that were not used for longest. One commons has more than its part only where others do not use the room.
        """
        size = warm.size
        if size > WARM_MAX:
            return
        large = size > WARM_PART
        now = asyncio.get_running_loop().time()
        while self._warm_size + size > WARM_MAX:
            if large and now - next(iter(self._warm.values())).since < WARM_SECONDS:
                return
            self._warm_size -= self._warm.popitem(last=False)[1].warm.size
        self._warm[commons] = _Resting(warm, now)
        self._warm_size += size
        if large:
            self._warm.move_to_end(commons, last=False)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        for name, number in Counter(map(_name_of, outcomes)).items():
            self._metrics.statements.labels(name).inc(number)

    async def _decide_all(
        self, books: Books, batch: Sequence[Submission], before: dict[AccountName, Holding]
    ) -> list[Outcome]:
        """Decide in order, each against the books that the one before left; `before` is filled with the accounts as
        they stood before the batch, those only that it changes: a commons may have many more.
        """
        outcomes: list[Outcome] = []
        weight = 0
        now_ms = self._clock.now_ms()
        for submission in batch:
            outcome = decide(books, submission, now_ms=now_ms, ledger=self._ledger)
            if isinstance(outcome, Accepted):
                for name in outcome.decision.accounts:
                    if name not in before:
                        before[name] = books.accounts.get(name, NOTHING)
                books.apply(outcome.decision, outcome.entry)
                weight += len(outcome.entry.postings)
            outcomes.append(outcome)
            weight += KEYS_WEIGHT if isinstance(submission.statement, _LOOKS_THROUGH) else 1
            if weight > BREATH_WEIGHT:
                weight = 0
                await asyncio.sleep(0)
                now_ms = self._clock.now_ms()
        return outcomes


def _name_of(outcome: Outcome) -> str:
    if isinstance(outcome, Refusal):
        return outcome.code
    return "replayed" if isinstance(outcome, Replay) else "accepted"


def _answers_of(books: Books, outcomes: Sequence[Outcome], leaves: Sequence[bytes]) -> list[Answer]:
    answers: list[Answer] = []
    hashed = iter(leaves)
    for outcome in outcomes:
        if isinstance(outcome, Refusal):
            answers.append(outcome)
            continue
        assert books.commons is not None
        leaf = next(hashed) if isinstance(outcome, Accepted) else None
        receipt = outcome.entry.receipt(books.commons.tick_of(outcome.entry.at_ms), leaf=leaf)
        answers.append(Receipted(receipt, replayed=isinstance(outcome, Replay)))
    return answers


def _founds(ready: Iterable[_Parcel]) -> bool:
    return any(isinstance(submission.statement, Found) for parcel in ready for submission in parcel.submissions)


def _room_for(parcels: list[_Parcel], weight: int) -> _Parcel:
    """The parcel that takes the next statement of a request; a new one where the last is full."""
    last = parcels[-1] if parcels else None
    if last is None or len(last.submissions) == BATCH_MAX or last.weight + weight > BATCH_WEIGHT_MAX:
        last = _Parcel([], 0, asyncio.get_running_loop().create_future())
        parcels.append(last)
    last.weight += weight
    return last


def _weight(submission: Submission) -> int:
    match submission.statement:
        case Pay(legs=many) | Grant(legs=many):
            return 1 + len(many)
        case Sweep(accounts=many) | Payout(members=many):
            return len(many)
        case statement if isinstance(statement, _LOOKS_THROUGH):
            return KEYS_WEIGHT
        case Leave() | Writeoff():
            return RING_WEIGHT
        case Gift(after=gifts):
            # The gifts that it follows are loaded with the accounts of both their sides.
            return 2 + 2 * len(gifts)
        case Thank() | Vouch() | Hold() | Capture() | Void() | Lapse():
            return 2
    return 1


def _take(line: Queues[_Parcel]) -> list[_Parcel]:
    """The next batch: in order, up to the bounds, at least one parcel."""
    batch: list[_Parcel] = []
    size = weight = 0
    for waiting in line.turn():
        while waiting:
            size += len(waiting[0].submissions)
            weight += waiting[0].weight
            if batch and (size > BATCH_MAX or weight > BATCH_WEIGHT_MAX):
                return batch
            batch.append(waiting.popleft())
    return batch


def _memos(batch: Sequence[Submission], outcomes: Sequence[Outcome]) -> dict[bytes, Memo]:
    """The texts that came beside accepted statements; one that came with a replay is ignored (SPEC §3)."""
    return {
        submission.statement.id: submission.envelope.memo
        for submission, outcome in zip(batch, outcomes, strict=True)
        if isinstance(outcome, Accepted) and submission.envelope.memo is not None
    }


def _refuse(parcels: Iterable[_Parcel], code: str, detail: str) -> None:
    for parcel in parcels:
        if not parcel.answers.done():
            parcel.answers.set_result([Refusal(code=code, detail=detail)] * len(parcel.submissions))

"""Has the checkpoints of all commons cosigned by the ledger's witnesses, behind the payments and never ahead of them.

Owns when which checkpoint is chosen and which witness is asked about it. What was cosigned is kept by
`storage.cosigned`; one exchange with a witness is `submitting`'s.

1. Each witness has a line of its own, with its own connections and its own back-off: a slow or dead one delays nobody.
2. Of a commons one checkpoint is chosen for all lines, at most once in `SPACE_SECONDS` and as soon as one of them is
   free for it: cosignatures count only together, so witnesses have to be asked about the same size while a log grows.
   A line that is late goes on with the newest that was chosen, which others have been asked about, too.
3. What this process added is told by `wake`, what others added is found by a look now and then, and now and then all
   commons are gone through: one that was not cosigned for an hour is submitted again, so that cosignatures stay fresh.
4. Where a witness saw another size, the proof is made from that one.
5. A witness that saw more of a log than there is, or another log, has the alarm raised: the database is an old copy, or
   was tampered with. The ledger serves on, for it can't know which; no witness will cosign what contradicts it.
6. At the start what is kept is counted again: a witness that is not named any more counts no more.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import aiohttp
import structlog

from gesell_ledger.metrics import Metrics
from gesell_ledger.settings import WitnessPlace
from gesell_ledger.storage.cosigned import FIRST, Cosigned
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.trees import Trees
from gesell_ledger.submitting import Outdated, WitnessDown, WitnessRefused, open_session, submit
from gesell_protocol.ed25519 import Signer
from gesell_protocol.notes import Note, NoteKey, sign_checkpoint
from gesell_protocol.tree import consistency_spans

#: Exchanges with one witness at once.
AT_ONCE: Final = 4
#: Commons of which a checkpoint is chosen at once.
CHOOSERS: Final = 2
#: How far checkpoints of one commons that witnesses are asked about lie apart, at least.
SPACE_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
PAUSE_MAX_SECONDS: Final = 60.0
#: How long a commons that a witness refuses is not submitted to it.
REFUSED_SECONDS: Final = 60.0
#: How often one submission is tried with another old size, as others may submit the same log meanwhile.
TRIES: Final = 4
LOOK_SECONDS: Final = 1.0
#: A look that took long is followed by so many times its length of rest.
REST_FACTOR: Final = 20
PAGE: Final = 1_000
#: How often all commons are gone through, and how old a cosignature may become.
ROUND_SECONDS: Final = 600.0
FRESH_SECONDS: Final = 3_600.0
#: Commons that wait for one witness, or to have a checkpoint chosen; more are found again by a later round.
WAITING_MAX: Final = 10_000
#: Of so many commons it is remembered what a witness saw; beyond, it is asked.
SEEN_MAX: Final = 100_000

log = structlog.get_logger("gesell.witnessing")


class _Seen(NamedTuple):
    """What a witness saw last of a log, and when it cosigned it, by the steady clock; `at` 0: it did not, for us."""

    size: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The checkpoint of a commons that all witnesses are asked about."""

    commons: bytes
    size: int
    note: Note


class Witnessing:
    """Looks after the cosignatures of a database's commons. One is enough; what two submit twice is cosigned twice."""

    def __init__(
        self,
        trees: Trees,
        cosigned: Cosigned,
        signer: Signer,
        metrics: Metrics,
        witnesses: tuple[WitnessPlace, ...],
        *,
        round_seconds: float = ROUND_SECONDS,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._cosigned = cosigned
        self._signer = signer
        self._metrics = metrics
        self._keys = [one.key for one in witnesses]
        self._round_seconds = round_seconds
        self._lines: list[_Line] = []
        self._rounds = _Rounds(trees, signer, metrics, self._lines)
        self._lines += [
            _Line(one, self._keys, trees, cosigned, metrics, self._rounds, fresh_seconds=fresh_seconds)
            for one in witnesses
        ]

    def wake(self, commons: bytes) -> None:
        """Something was added to a commons by this process (rule 3)."""
        self._rounds.wake(commons)

    async def run(self) -> None:
        """Go on for ever; a fault of the world ends a look, not the witnessing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recount())
            group.create_task(self._rounds.run())
            for line in self._lines:
                group.create_task(line.run())
            group.create_task(self._keep_looking())
            group.create_task(self._keep_going_round())

    async def _recount(self) -> None:
        """Let only the witnesses that are named now count (rule 6). Nobody waits for it."""
        try:
            while True:
                try:
                    return await self._cosigned.recount(self._keys)
                except Exception as error:
                    _pass_over(error)
                await asyncio.sleep(LOOK_SECONDS)
        except Exception as error:
            # What is kept can be collected again: no reason not to serve.
            log.critical("not_recounted", exc_info=error)
            self._metrics.broken.inc()

    async def _keep_looking(self) -> None:
        """Find what others added (rule 3)."""
        after = FIRST
        while True:
            began = time.monotonic()
            try:
                found = await self._cosigned.list_uncosigned(self._signer.public_key, after=after, limit=PAGE)
            except Exception as error:
                found = []
                _pass_over(error)
            for _, commons in found:
                self.wake(commons)
            # The next look goes on where this one ended, so that those who wait longest hide nobody.
            after = found[-1][0] if len(found) == PAGE else FIRST
            await asyncio.sleep(max(LOOK_SECONDS, REST_FACTOR * (time.monotonic() - began)))

    async def _keep_going_round(self) -> None:
        """Look at every commons for every witness, at once and then now and then."""
        while True:
            after = FIRST
            try:
                while heads := await self._cosigned.list_heads(self._signer.public_key, after=after, limit=PAGE):
                    for _, commons, size in heads:
                        if any(line.lacks(commons, size) for line in self._lines):
                            self.wake(commons)
                    after = heads[-1][0]
                    await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:
                _pass_over(error)
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await asyncio.sleep(self._round_seconds)


class _Rounds:
    """Chooses the checkpoint that the witnesses are asked about next (rule 2)."""

    def __init__(self, trees: Trees, signer: Signer, metrics: Metrics, lines: list[_Line]) -> None:
        self._trees = trees
        self._signer = signer
        self._metrics = metrics
        self._lines = lines
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        #: Commons to which more was added than was chosen; and those that wait, are chosen from, or rest after that.
        self._grown: set[bytes] = set()
        self._taken: set[bytes] = set()

    def wake(self, commons: bytes) -> None:
        """Something was added to a commons."""
        if len(self._grown) < WAITING_MAX:
            self._grown.add(commons)
            self.take_up(commons)

    def take_up(self, commons: bytes) -> None:
        """Have a checkpoint chosen, if more was added, it is time, and a line is free; each of these calls it."""
        if commons in self._grown and commons not in self._taken and any(line.is_free(commons) for line in self._lines):
            self._taken.add(commons)
            self._waiting.put_nowait(commons)

    async def run(self) -> None:
        """Choose what waits, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CHOOSERS):
                group.create_task(self._keep_choosing())

    async def _keep_choosing(self) -> None:
        while True:
            commons = await self._waiting.get()
            self._let_rest(commons, await self._choose(commons))

    async def _choose(self, commons: bytes) -> float:
        """Give all lines a commons' log as it stands; returns for how many seconds the commons then rests."""
        self._grown.discard(commons)
        try:
            tree = await self._trees.load(commons)
        except Exception as error:
            self._grown.add(commons)
            return _rest_after(error, commons, self._metrics)
        if tree is not None and tree.ledger == self._signer.public_key:
            size = tree.frontier.size
            note = sign_checkpoint(commons=commons, size=size, root=tree.frontier.root, signer=self._signer)
            for line in self._lines:
                line.take(_Chosen(commons=commons, size=size, note=note))
        return SPACE_SECONDS

    def _let_rest(self, commons: bytes, seconds: float) -> None:
        def rested() -> None:
            self._taken.discard(commons)
            self.take_up(commons)

        asyncio.get_running_loop().call_later(seconds, rested)


class _Line:
    """One witness: the commons that wait for it, and what it saw of each."""

    def __init__(
        self,
        witness: WitnessPlace,
        all_keys: Sequence[NoteKey],
        trees: Trees,
        cosigned: Cosigned,
        metrics: Metrics,
        rounds: _Rounds,
        *,
        fresh_seconds: float,
    ) -> None:
        self._witness = witness
        self._all_keys = all_keys
        self._trees = trees
        self._cosigned = cosigned
        self._metrics = metrics
        self._rounds = rounds
        self._fresh_seconds = fresh_seconds
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        #: The newest choice of each commons that waits, is submitted, or rests before it is submitted again.
        self._newest: dict[bytes, _Chosen] = {}
        self._seen: dict[bytes, _Seen] = {}
        self._pause = 0.0
        self._down_until = 0.0

    def is_free(self, commons: bytes) -> bool:
        """Whether a choice would be submitted now, and not wait for an earlier one."""
        return commons not in self._newest

    def lacks(self, commons: bytes, size: int) -> bool:
        """Whether the witness did not cosign a log of this size of late, and nothing is under way."""
        return self.is_free(commons) and self._is_stale(commons, size)

    def take(self, chosen: _Chosen) -> None:
        """Submit a choice now, or after what is under way."""
        if chosen.commons in self._newest:
            self._newest[chosen.commons] = chosen
        elif self._is_stale(chosen.commons, chosen.size) and self._waiting.qsize() < WAITING_MAX:
            self._newest[chosen.commons] = chosen
            self._waiting.put_nowait(chosen.commons)

    def _is_stale(self, commons: bytes, size: int) -> bool:
        seen = self._seen.get(commons)
        return seen is None or seen.size != size or time.monotonic() - seen.at >= self._fresh_seconds

    async def run(self) -> None:
        """Submit what waits, for ever."""
        async with open_session(connections=AT_ONCE) as session, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._keep_submitting(session))

    async def _keep_submitting(self, session: aiohttp.ClientSession) -> None:
        while True:
            commons = await self._waiting.get()
            await self._wait_until_up()
            chosen = self._newest[commons]
            self._go_on(chosen, await self._try(session, chosen))

    def _go_on(self, chosen: _Chosen, rest: float | None) -> None:
        commons, newest = chosen.commons, self._newest[chosen.commons]
        if rest is not None:
            asyncio.get_running_loop().call_later(rest, self._waiting.put_nowait, commons)
        elif newest is not chosen and self._is_stale(commons, newest.size):
            self._waiting.put_nowait(commons)
        else:
            del self._newest[commons]
            self._rounds.take_up(commons)

    async def _wait_until_up(self) -> None:
        # Others may find it down again meanwhile.
        while (rest := self._down_until - time.monotonic()) > 0:  # noqa: ASYNC110 - what it waits for is only time
            await asyncio.sleep(rest)

    async def _try(self, session: aiohttp.ClientSession, chosen: _Chosen) -> float | None:
        """Submit a choice; returns after how many seconds to submit the newest again, None if it is done with."""
        began = time.monotonic()
        try:
            rest = await self._submit(session, chosen)
            self._pause = 0.0
            return rest
        except WitnessDown as error:
            self._count_failure("down")
            self._back_off(began, str(error))
            return SPACE_SECONDS
        except WitnessRefused as error:
            # One word for what somebody has to look into, whatever the witness is.
            self._count_failure("forked" if error.status == 422 else "refused")
            alarm = log.critical if error.status == 422 else log.error
            alarm("not_cosigned", commons=chosen.commons.hex(), witness=self._witness.key.name, why=str(error))
        except _Ahead as ahead:
            self._count_failure("ahead")
            log.critical(
                "log_behind_witness", commons=chosen.commons.hex(), witness=self._witness.key.name, why=str(ahead)
            )
        except Exception as error:
            return _rest_after(error, chosen.commons, self._metrics)
        # Where the witness stands is asked anew: what we believed may be what was wrong.
        self._seen.pop(chosen.commons, None)
        return REFUSED_SECONDS

    def _back_off(self, began: float, why: str) -> None:
        """Leave a witness alone for a while; of several attempts under way at once, only the first one counts."""
        if began < self._down_until:
            return
        self._pause = min(PAUSE_MAX_SECONDS, max(PAUSE_SECONDS, 2 * self._pause))
        rest = self._pause * random.uniform(0.5, 1.0)
        self._down_until = time.monotonic() + rest
        log.warning("witness_down", witness=self._witness.key.name, why=why, again_in_seconds=round(rest, 1))

    async def _submit(self, session: aiohttp.ClientSession, chosen: _Chosen) -> float | None:
        """Have a choice cosigned; returns as `_try` does."""
        commons = chosen.commons
        seen = self._seen.get(commons, _Seen(0, 0.0))
        for _ in range(TRIES):
            if seen.size > chosen.size:
                await self._check_ahead(commons, seen.size)
                # Somebody else submitted more meanwhile: what was chosen is of no use here any more.
                self._rounds.wake(commons)
                return None
            answer = await self._exchange(session, chosen, old=seen.size)
            if not isinstance(answer, Outdated):
                return None
            seen = _Seen(answer.size, 0.0)
            self._remember(commons, seen)
        return SPACE_SECONDS

    async def _check_ahead(self, commons: bytes, seen: int) -> None:
        """Raise `_Ahead` if a witness saw more than there is."""
        tree = await self._trees.load(commons)
        if tree is None or tree.frontier.size < seen:
            size = 0 if tree is None else tree.frontier.size
            raise _Ahead(f"it saw {seen} entries, and here are {size}")

    async def _exchange(self, session: aiohttp.ClientSession, chosen: _Chosen, *, old: int) -> Outdated | None:
        """Submit a choice with the proof from an old size; what is cosigned is stored."""
        commons, size = chosen.commons, chosen.size
        proof = await self._trees.prove(commons, consistency_spans(old, size), size=size) if old else []
        answer = await submit(session, self._witness, old=old, proof=proof, note=chosen.note)
        if isinstance(answer, Outdated):
            return answer
        self._remember(commons, _Seen(size, 0.0))
        self._metrics.cosignatures.labels(self._witness.key.name).inc()
        await self._cosigned.add(commons, chosen.note, answer, witnesses=self._all_keys)
        # Only now: what could not be stored is submitted again.
        self._remember(commons, _Seen(size, time.monotonic()))
        return None

    def _remember(self, commons: bytes, seen: _Seen) -> None:
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[commons] = seen

    def _count_failure(self, reason: str) -> None:
        self._metrics.witness_failures.labels(self._witness.key.name, reason).inc()


class _Ahead(Exception):
    """The witness has seen more of a log than there is."""


def _rest_after(error: Exception, commons: bytes, metrics: Metrics) -> float:
    """For how many seconds a commons rests after a fault: short after one of the world, and alarmed after any other."""
    if is_transient(error):
        log.warning("look_ended", why=repr(error))
        return SPACE_SECONDS
    log.critical("not_witnessed", commons=commons.hex(), exc_info=error)
    metrics.broken.inc()
    return REFUSED_SECONDS


def _pass_over(error: Exception) -> None:
    """Let a fault of the world pass; raise any other."""
    if not is_transient(error):
        raise error
    log.warning("look_ended", why=repr(error))

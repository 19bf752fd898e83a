"""Has the checkpoints of all commons cosigned by the ledger's witnesses, behind the payments and never ahead of them.

Owns when which witness is asked about which commons. What was cosigned is kept by `storage.cosigned`; one exchange with
a witness is `submitting`'s.

1. Each witness has a line of its own, with its own connections and its own back-off: a slow or dead one delays nobody.
2. A commons is told to a witness as it stands, at most once in `SPACE_SECONDS`; what is added meanwhile goes along.
3. What this process added is told by `wake`, what others added is found by a look now and then, and now and then all
   commons are gone through: one that was not cosigned for an hour is submitted again, so that cosignatures stay fresh.
4. Where a witness saw another size, the proof is made from that one.
5. A witness that saw more of a log than there is, or another log, has the alarm raised: the database is an old copy, or
   was tampered with. The ledger serves on, for it can't know which; no witness will cosign what contradicts it.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, NamedTuple

import aiohttp
import structlog

from gesell_ledger.metrics import Metrics
from gesell_ledger.settings import WitnessPlace
from gesell_ledger.storage.cosigned import FIRST, Cosigned
from gesell_ledger.storage.faults import is_transient
from gesell_ledger.storage.trees import Tree, Trees
from gesell_ledger.submitting import Outdated, WitnessDown, WitnessRefused, open_session, submit
from gesell_protocol.ed25519 import Signer
from gesell_protocol.notes import sign_checkpoint
from gesell_protocol.tree import consistency_spans

#: Exchanges with one witness at once.
AT_ONCE: Final = 4
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
#: Commons that wait for one witness; more are found again by a later round.
WAITING_MAX: Final = 10_000
#: Of so many commons it is remembered what a witness saw; beyond, it is asked.
SEEN_MAX: Final = 100_000

log = structlog.get_logger("gesell.witnessing")


class _Seen(NamedTuple):
    """What a witness saw last of a log, and when it cosigned it, by the steady clock; `at` 0: it did not, for us."""

    size: int
    at: float


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
        self._round_seconds = round_seconds
        self._lines = [
            _Line(one, witnesses, trees, cosigned, signer, metrics, fresh_seconds=fresh_seconds) for one in witnesses
        ]

    def wake(self, commons: bytes) -> None:
        """Something was added to a commons by this process (rule 3)."""
        for line in self._lines:
            line.wake(commons)

    async def run(self) -> None:
        """Go on for ever; a fault of the world ends a look, not the witnessing."""
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(line.run())
            group.create_task(self._keep_looking())
            group.create_task(self._keep_going_round())

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
        """Offer every commons to every witness, at once and then now and then."""
        while True:
            after = FIRST
            try:
                while heads := await self._cosigned.list_heads(self._signer.public_key, after=after, limit=PAGE):
                    for _, commons, size in heads:
                        for line in self._lines:
                            line.offer(commons, size)
                    after = heads[-1][0]
                    await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:
                _pass_over(error)
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await asyncio.sleep(self._round_seconds)


class _Line:
    """One witness: the commons that wait for it, and what it saw of each."""

    def __init__(
        self,
        witness: WitnessPlace,
        all_witnesses: tuple[WitnessPlace, ...],
        trees: Trees,
        cosigned: Cosigned,
        signer: Signer,
        metrics: Metrics,
        *,
        fresh_seconds: float,
    ) -> None:
        self._witness = witness
        self._keys = [one.key for one in all_witnesses]
        self._trees = trees
        self._cosigned = cosigned
        self._signer = signer
        self._metrics = metrics
        self._fresh_seconds = fresh_seconds
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        #: Commons that wait, are submitted, or rest after that; and those of them to which more was added meanwhile.
        self._taken: set[bytes] = set()
        self._again: set[bytes] = set()
        self._seen: dict[bytes, _Seen] = {}
        self._pause = 0.0
        self._down_until = 0.0

    def wake(self, commons: bytes) -> None:
        """Something was added to a commons."""
        if commons in self._taken:
            self._again.add(commons)
        elif self._waiting.qsize() < WAITING_MAX:
            self._taken.add(commons)
            self._waiting.put_nowait(commons)

    def offer(self, commons: bytes, size: int) -> None:
        """Take a commons, whose log has this size now, if the witness did not cosign that of late."""
        seen = self._seen.get(commons)
        stale = seen is None or seen.size != size or time.monotonic() - seen.at >= self._fresh_seconds
        if stale and commons not in self._taken:
            self.wake(commons)

    async def run(self) -> None:
        """Submit what waits, for ever."""
        async with open_session(connections=AT_ONCE) as session, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._keep_submitting(session))

    async def _keep_submitting(self, session: aiohttp.ClientSession) -> None:
        while True:
            commons = await self._waiting.get()
            await self._wait_until_up()
            self._again.discard(commons)
            self._let_rest(commons, await self._try(session, commons))

    async def _wait_until_up(self) -> None:
        # Others may find it down again meanwhile.
        while (rest := self._down_until - time.monotonic()) > 0:  # noqa: ASYNC110 - what it waits for is only time
            await asyncio.sleep(rest)

    async def _try(self, session: aiohttp.ClientSession, commons: bytes) -> float:
        """Submit one commons; returns for how many seconds it then rests."""
        began = time.monotonic()
        try:
            await self._submit(session, commons)
            self._pause = 0.0
            return SPACE_SECONDS
        except WitnessDown as error:
            self._count_failure("down")
            self._again.add(commons)
            self._back_off(began, str(error))
        except WitnessRefused as error:
            # One word for what somebody has to look into, whatever the witness is.
            self._count_failure("forked" if error.status == 422 else "refused")
            alarm = log.critical if error.status == 422 else log.error
            alarm("not_cosigned", commons=commons.hex(), witness=self._witness.key.name, why=str(error))
            return self._refused(commons)
        except _Ahead as ahead:
            self._count_failure("ahead")
            log.critical("log_behind_witness", commons=commons.hex(), witness=self._witness.key.name, why=str(ahead))
            return self._refused(commons)
        except Exception as error:
            if not is_transient(error):
                log.critical("not_witnessed", commons=commons.hex(), exc_info=error)
                self._metrics.broken.inc()
                return self._refused(commons)
            log.warning("look_ended", why=repr(error))
            self._again.add(commons)
        return SPACE_SECONDS

    def _refused(self, commons: bytes) -> float:
        # Where the witness stands is asked anew: what we believed may be what was wrong.
        self._seen.pop(commons, None)
        self._again.add(commons)
        return REFUSED_SECONDS

    def _let_rest(self, commons: bytes, seconds: float) -> None:
        def rested() -> None:
            self._taken.discard(commons)
            if commons in self._again:
                self.wake(commons)

        asyncio.get_running_loop().call_later(seconds, rested)

    def _back_off(self, began: float, why: str) -> None:
        """Leave a witness alone for a while; of several attempts under way at once, only the first one counts."""
        if began < self._down_until:
            return
        self._pause = min(PAUSE_MAX_SECONDS, max(PAUSE_SECONDS, 2 * self._pause))
        rest = self._pause * random.uniform(0.5, 1.0)
        self._down_until = time.monotonic() + rest
        log.warning("witness_down", witness=self._witness.key.name, why=why, again_in_seconds=round(rest, 1))

    async def _submit(self, session: aiohttp.ClientSession, commons: bytes) -> None:
        """Have a commons cosigned as it stands."""
        seen = self._seen.get(commons, _Seen(0, 0.0))
        for _ in range(TRIES):
            tree = await self._trees.load(commons)
            if tree is None or tree.ledger != self._signer.public_key:
                return
            if seen.size > tree.frontier.size:
                raise _Ahead(f"it saw {seen.size} entries, and here are {tree.frontier.size}")
            answer = await self._exchange(session, tree, old=seen.size)
            if not isinstance(answer, Outdated):
                return
            seen = _Seen(answer.size, 0.0)
            self._remember(commons, seen)
        self._again.add(commons)

    async def _exchange(self, session: aiohttp.ClientSession, tree: Tree, *, old: int) -> Outdated | None:
        """Submit a tree with the proof from an old size; what is cosigned is stored."""
        commons, size = tree.commons, tree.frontier.size
        note = sign_checkpoint(commons=commons, size=size, root=tree.frontier.root, signer=self._signer)
        proof = await self._trees.prove(commons, consistency_spans(old, size), size=size) if old else []
        answer = await submit(session, self._witness, old=old, proof=proof, note=note)
        if isinstance(answer, Outdated):
            return answer
        self._remember(commons, _Seen(size, time.monotonic()))
        self._metrics.cosignatures.labels(self._witness.key.name).inc()
        await self._cosigned.add(commons, note, answer, witnesses=self._keys)
        return None

    def _remember(self, commons: bytes, seen: _Seen) -> None:
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[commons] = seen

    def _count_failure(self, reason: str) -> None:
        self._metrics.witness_failures.labels(self._witness.key.name, reason).inc()


class _Ahead(Exception):
    """The witness has seen more of a log than there is."""


def _pass_over(error: Exception) -> None:
    """Let a fault of the world pass; raise any other."""
    if not is_transient(error):
        raise error
    log.warning("look_ended", why=repr(error))

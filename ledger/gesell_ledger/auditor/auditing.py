"""An audit from beginning to end: a log, what the reader holds, and one verdict.

Owns how source, walk and memory go together, when the state is saved, and how an audit stops before its end.

1. The state is saved every few seconds, when the audit is told to stop, and when all holds; not where it does not: an
   audit that goes on begins before what is wrong, and finds it again.
2. A log that does not begin with what was audited before is audited anew from its first entry, without the state: only
   a log that holds by itself, under a signed checkpoint, can be said to contradict another one.
3. What can't be read or fetched is a fault and no verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from gesell_ledger.auditor.checks import Checks
from gesell_ledger.auditor.files import LogFile
from gesell_ledger.auditor.findings import Verdict, Wrong
from gesell_ledger.auditor.held import Held
from gesell_ledger.auditor.memory import Memory, StateFault
from gesell_ledger.auditor.walk import Stopped, Walk
from gesell_ledger.auditor.web import WebLog
from gesell_protocol.notes import NoteKey

SAVE_SECONDS: Final = 5.0

#: Told how many entries were taken, and how many there are.
Tell = Callable[[int, int], None]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a reader asks of a log: see `Walk`. `state` is a file to go on from, and to keep where the audit is.

    `now_ms` is the time by the reader's clock, that of this machine if it is not said; None for the log of a demo
    clock, which may be anywhere.
    """

    held: tuple[Held, ...] = ()
    trusted: bytes | None = None
    witnesses: tuple[NoteKey, ...] = ()
    quorum: int = 0
    state: Path | None = None
    now_ms: int | None = field(default_factory=_wall_ms)
    checks: Checks | None = None


def audit_file(
    path: Path, question: Question, *, tell: Tell | None = None, stop: Callable[[], bool] | None = None
) -> Verdict:
    """Audit a log file; where `stop` says so, it saves its state and raises `Stopped`.

    Raises `OSError` for a file that can't be read and `StateFault` for a state that can't be used.
    """
    try:
        return _audit_file(path, question, tell, stop)
    except _Another as another:
        if not path.is_file():
            raise StateFault(
                f"{path} is not what was audited before, and can't be read twice to see why: say a file, or no --state"
            ) from None
        return _audit_file(path, another.question, tell, stop)


def _audit_file(path: Path, question: Question, tell: Tell | None, stop: Callable[[], bool] | None) -> Verdict:
    memory = Memory(question.state)
    walk: Walk | None = None
    try:
        log = LogFile(path)
        try:
            walk = _walk(log.note, memory, question, stop)
            pace = _Pace(walk, tell)
            if not walk.begins_with(log.skip(walk.earlier())):
                raise _Another(walk, question)
            with _in_order(walk):
                for piece in log.entries():
                    walk.take(piece)
                    pace.step()
                return walk.finish()
        finally:
            log.close()
    except Wrong as wrong:
        return _verdict(walk, memory, question, wrong)
    finally:
        if walk is not None:
            walk.close()
        memory.close()


async def audit_url(
    url: str,
    question: Question,
    *,
    commons: str | None = None,
    tell: Tell | None = None,
    stop: Callable[[], bool] | None = None,
) -> Verdict:
    """Audit the log of an open commons where a ledger serves it; as `audit_file`, and raises `FetchFault`."""
    try:
        return await _audit_url(url, question, commons, tell, stop)
    except _Another as another:
        return await _audit_url(url, another.question, commons, tell, stop)


async def _audit_url(
    url: str, question: Question, commons: str | None, tell: Tell | None, stop: Callable[[], bool] | None
) -> Verdict:
    memory = Memory(question.state)
    walk: Walk | None = None
    needed = max([memory.progress.frontier.size, *(one.checkpoint.size for one in question.held)])
    try:
        async with WebLog(
            url, commons=commons, witnesses=question.witnesses, quorum=question.quorum, needed=needed
        ) as log:
            walk = _walk(log.note, memory, question, stop)
            pace = _Pace(walk, tell)
            if not walk.begins_with(await log.roots(walk.earlier())):
                raise _Another(walk, question)
            with _in_order(walk):
                async for piece in log.entries(walk.place):
                    # In a thread, so that the next bundles come in meanwhile.
                    await asyncio.to_thread(walk.take, piece)
                    await asyncio.to_thread(pace.step)
                return await asyncio.to_thread(walk.finish)
    except Wrong as wrong:
        return _verdict(walk, memory, question, wrong)
    finally:
        if walk is not None:
            walk.close()
        memory.close()


class _Another(Exception):
    """The log does not begin with what was audited before; `question` is to be asked of it from its first entry."""

    def __init__(self, walk: Walk, question: Question) -> None:
        super().__init__("another log than was audited before")
        self.question = replace(question, state=None, held=(*question.held, *walk.before))


def _walk(note: str, memory: Memory, question: Question, stop: Callable[[], bool] | None) -> Walk:
    return Walk(
        note,
        memory,
        held=question.held,
        trusted=question.trusted,
        witnesses=question.witnesses,
        quorum=question.quorum,
        now_ms=question.now_ms,
        checks=question.checks,
        stop=stop,
    )


@contextmanager
def _in_order(walk: Walk) -> Iterator[None]:
    """What is wrong with the bytes counts after what is wrong with the entries before them; a stop is saved."""
    try:
        try:
            yield
        except Wrong:
            walk.catch_up()
            raise
    except Stopped:
        walk.save()
        raise


class _Pace:
    """Between two pieces: tell how far it is, and save now and then."""

    def __init__(self, walk: Walk, tell: Tell | None) -> None:
        self._walk = walk
        self._tell = tell
        self._saved = time.monotonic()

    def step(self) -> None:
        """Do what is due."""
        walk = self._walk
        if self._tell is not None:
            self._tell(walk.place, walk.checkpoint.size)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            walk.catch_up()
            walk.save()
            self._saved = time.monotonic()


def _verdict(walk: Walk | None, memory: Memory, question: Question, wrong: Wrong) -> Verdict:
    if walk is None:
        return Verdict(
            commons=b"",
            name="",
            currency="",
            scale=0,
            entries=0,
            postings=0,
            melted=0,
            first_ms=0,
            last_ms=0,
            keys=(),
            trusted=question.trusted is not None,
            cosigned=0,
            size=0,
            root=b"",
            note="",
            finding=wrong.finding,
        )
    return walk.verdict(wrong.finding)

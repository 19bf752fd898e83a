"""Which stage of a statement's way a sampled stack belongs to, and how samples become microseconds.

Owns the table of stages and the reading of py-spy's folded stacks. Starts nothing, measures nothing.

1. What is done for the readings, or for who follows live, is theirs, whatever it calls. Any other stack belongs to the
   innermost of its frames that a row of the table knows; a frame to the first row that does.
2. A thread that only waits for work is in no stage.
3. Each thread's processor time, as the kernel counts it, is shared out by the samples of that thread: how often a
   sampler happens to look at which thread is not what is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.measures import Share

REST: Final = "rest"
POSTGRES: Final = "PostgreSQL"
#: In the order in which a statement meets them, which is that of the plots.
STAGES: Final = (
    "HTTP", "hand over", "decode", "verify", "decide", "store", "readings", "event loop", REST, POSTGRES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Row:
    """Frames of `stage`: those whose file ends in (or lies in) `place` and whose function matches `function`."""

    stage: str
    place: str
    function: str = ""

    def knows(self, function: str, place: str) -> bool:
        return self.place in place and re.match(self.function, function) is not None


_ROWS: Final = (
    _Row("verify", "nacl/"),
    _Row("verify", "gesell_protocol/ed25519.py"),
    _Row("verify", "gesell_protocol/envelopes.py", "verify_"),
    _Row("decode", "gesell_protocol/envelopes.py"),
    _Row("decode", "gesell_protocol/statements.py"),
    _Row("decode", "gesell_ledger/api/writing.py", r"_cut|_pieces|_has_too_many"),
    _Row("decode", "gesell_ledger/api/pieces.py"),
    _Row("hand over", "gesell_ledger/checked.py"),
    _Row("hand over", "gesell_ledger/checkers.py"),
    _Row("hand over", "gesell_ledger/checker.py"),
    _Row("decide", "gesell_ledger/core/"),
    _Row("decide", "gesell_ledger/sequencer.py", r".*_decide_all"),
    # The leaves and the tree of the log are stored with the entries, and made for nothing else.
    _Row("store", "gesell_protocol/log.py"),
    _Row("store", "gesell_protocol/tree.py"),
    _Row("store", "gesell_ledger/storage/"),
    _Row("HTTP", "gesell_ledger/api/"),
    _Row("HTTP", "aiohttp/"),
    _Row("event loop", "gesell_ledger/intake.py"),
    _Row("event loop", "gesell_ledger/sequencer.py"),
    _Row("store", "asyncpg/"),
    _Row("event loop", "asyncio/"),
)
_READINGS: Final = ("gesell_ledger/readings/", "gesell_ledger/api/feeds.py", "gesell_ledger/api/events.py")
#: A frame of every stack of the main thread: the loop itself only where nothing runs on top of it.
_LOOP: Final = re.compile(r"Runner\.run \(asyncio/runners\.py:\d+\)$")
#: Where a thread of an executor, or a process that checks, waits for work; py-spy now and then takes it for busy.
_WAIT: Final = re.compile(r"(_worker \(concurrent/futures/thread\.py|SocketIO\.readinto \(socket\.py):\d+\)$")
_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<place>.*?)(?::\d+)?\)$")
_THREAD: Final = re.compile(r"thread \((\d+)\)")


@dataclass(frozen=True, slots=True)
class Samples:
    """What a sampler saw: by thread id, how many samples fell in each stage; by function, as "name (file)", how many
    had it innermost. What waited is left out.
    """

    by_thread: Mapping[int, Counter[str]]
    by_function: Counter[str]


def read_samples(lines: Iterable[str]) -> Samples:
    """Read py-spy's raw format with thread names, one `thread (ID): NAME;frame;…;frame COUNT` a line, after
    `process ID…;` where there are several processes.

    A line of another form is left out: who samples without stopping the process now and then reads a torn stack.
    """
    by_thread: dict[int, Counter[str]] = {}
    by_function: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rstrip("\n").rpartition(" ")
        thread, *frames = stack[stack.startswith("process ") and stack.find(";thread (") + 1 :].split(";")
        known = _THREAD.match(thread)
        if known is None or not frames or not count.isdigit() or _WAIT.match(frames[-1]):
            continue
        by_thread.setdefault(int(known[1]), Counter())[stage_of(frames)] += int(count)
        by_function[_without_line(frames[-1])] += int(count)
    return Samples(by_thread, by_function)


def stage_of(frames: list[str]) -> str:
    """The stage of one stack, `frames` from the outermost to the innermost."""
    if _LOOP.match(frames[-1]):
        # uvloop's own work, which has no frames: the sockets of both HTTP and PostgreSQL.
        return "event loop"
    if any(place in frame for frame in frames for place in _READINGS):
        return "readings"
    for frame in reversed(frames):
        parts = _FRAME.match(frame)
        if parts is None or _LOOP.match(frame) or _WAIT.match(frame):
            continue
        for row in _ROWS:
            if row.knows(parts["function"], parts["place"]):
                return row.stage
    return REST


def share_out(samples: Samples, spent: Mapping[int, float], *, postgres: float, count: int) -> tuple[Share, ...]:
    """Processor seconds, `spent` by each thread and by PostgreSQL, as microseconds in each stage, shared by `count`
    payments or legs.

    What a thread spent that no sample saw is `REST`: the shares sum to all that was spent.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    for thread, used in spent.items():
        stages = samples.by_thread.get(thread, Counter())
        seen = stages.total()
        if not seen:
            seconds[REST] += used
        for stage, samples_of in stages.items():
            seconds[stage] += used * samples_of / seen
    seconds[POSTGRES] = postgres
    return tuple(Share(stage=stage, microseconds=seconds[stage] / count * 1e6) for stage in STAGES)


def _without_line(frame: str) -> str:
    parts = _FRAME.match(frame)
    return frame if parts is None else f"{parts['function']} ({parts['place']})"

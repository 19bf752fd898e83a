"""Several workers on one port: starts them, puts another in the place of one that died, ends them in order.

Owns the worker processes and the folder of their metrics. It must not know what a worker does, and holds no
connection of a client.

1. A worker is a new program, never a fork: it inherits its sockets and nothing else. Its orders, with the key and the
   DSN in them, go through a pipe, where no other user reads them, unlike a command line.
2. The pipe stays open as long as the worker shall work. It ends with the supervisor, however that ends.
3. A worker that can't start the first time ends the service. Later, another takes its place: at once if it had worked
   for a while, else after a pause that doubles. What connected meanwhile waits in its socket's queue.
4. The first worker, and whoever takes its place, keeps house.
5. A worker that says nothing for a while hangs, and still lets in its share of all who connect: it is killed. The while
   is counted in turns of the supervisor's own loop, so a machine that slept, or stopped both, has not let it pass.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gesell_ledger.ground import Ground
from gesell_ledger.metrics import Shared, forget_worker, name_process, name_worker
from gesell_ledger.settings import Settings
from gesell_ledger.sockets import Sockets
from gesell_ledger.storage.faults import Fault
from gesell_ledger.worker import BEAT_SECONDS, Orders, Word, pack

#: -P: the folder that the service was started in is no place to import from.
COMMAND: Final = (sys.executable, "-P", "-m", "gesell_ledger.worker")
#: Who served for so long is followed at once.
STEADY_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.5
PAUSE_MAX_SECONDS: Final = 8.0
#: A worker answers what is queued within 20 seconds, then waits for slow readers for 5.
DRAIN_SECONDS: Final = 35.0
#: A worker that hangs is one that missed so many beats.
SILENCE_BEATS: Final = 15

log = structlog.get_logger("gesell.supervisor")


async def supervise(
    ground: Ground,
    settings: Settings,
    sockets: Sequence[Sockets],
    *,
    stopping: asyncio.Event,
    ready: Callable[[], None],
) -> None:
    """Have one worker serve on each group of sockets until `stopping`; calls `ready` once, when all of them serve.

    Closes the sockets when it stops. Raises a `Fault` with the sentence of a worker that can't start the first time.
    """
    with _metrics_folder() as folder:
        places = [_Place(ground, settings, folder, number, mine) for number, mine in enumerate(sockets)]
        tasks = [asyncio.create_task(place.run()) for place in places]
        stop = asyncio.create_task(stopping.wait())
        serving = asyncio.gather(*(place.serves for place in places))
        try:
            # A place whose task ends has a fault, which is raised at the end.
            first: list[asyncio.Future[Any]] = [stop, serving, *tasks]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                ready()
                await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            serving.cancel()
            await _end(places, tasks, sockets)


async def _end(places: Sequence[_Place], tasks: Sequence[asyncio.Task[None]], sockets: Sequence[Sockets]) -> None:
    # From here on nobody is let in: who connects is refused as soon as the workers have closed their sockets too.
    for group in sockets:
        for one in group:
            one.close()
    for place in places:
        place.end()
    _, left = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    if left:
        log.error("workers_killed", why=f"they did not end within {DRAIN_SECONDS:.0f} seconds")
        for place in places:
            place.kill()
    await asyncio.gather(*tasks)


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gesell-metrics-"))
    try:
        name_process(folder, "supervisor", os.getpid())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Place:
    """One worker's place: who stands there now, and who follows. `serves` is done once the first one serves."""

    def __init__(self, ground: Ground, settings: Settings, folder: Path, number: int, sockets: Sockets) -> None:
        self._ground = ground
        # The key is open already; nobody needs to hear its passphrase again.
        self._settings = replace(settings, key_passphrase=None)
        self._folder = folder
        self._number = number
        self._descriptors = tuple(one.fileno() for one in sockets)
        self._process: Process | None = None
        self._ending = asyncio.Event()
        self.serves: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Have a worker here until `end`. Raises a `Fault` if the first one can't start."""
        fault = await self._start()
        if fault is not None and not self._ending.is_set():
            raise Fault(fault)
        if not self.serves.done():
            self.serves.set_result(None)
        pause = 0.0
        began = time.monotonic()
        while not await self._ended():
            pause = 0.0 if time.monotonic() - began > STEADY_SECONDS else _next(pause)
            log.error("worker_ended", worker=self._number, status=self._status(), again_in_seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
            began = time.monotonic()
            fault = await self._start()
            if fault is None:
                log.info("worker_again", worker=self._number)
            elif not self._ending.is_set():
                log.error("worker_not_started", worker=self._number, why=fault)

    def end(self) -> None:
        """Let the worker end when it has answered what it has taken; `run` returns then."""
        self._ending.set()
        self._hang_up()

    def kill(self) -> None:
        """End the worker at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _start(self) -> str | None:
        """Start a worker and wait until it serves; returns why it does not, if it does not."""
        self._process = None
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=self._descriptors,
                # Ctrl-C in a terminal is for the supervisor, which ends its workers in order.
                start_new_session=True,
            )
        except OSError as error:
            return f"no process for worker {self._number}: {error.strerror or error}"
        name_worker(self._folder, self._number, process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pack(self._orders()))
        if self._ending.is_set():
            self._hang_up()
        said = await process.stdout.readline()
        if said:
            return msgspec.json.decode(said, type=Word).fault
        await process.wait()
        return f"worker {self._number} ended before it served ({self._status()}); its last lines above say why"

    def _orders(self) -> Orders:
        clock = self._ground.clock
        # A clock that jumped a moment ago is noticed here, before the jump can be forgotten with the old worker.
        clock.look()
        return Orders(
            settings=self._settings,
            dsn=self._ground.dsn,
            key=self._ground.key,
            clock=clock.state(),
            housekeeping=self._number == 0,
            sockets=self._descriptors,
            shared=Shared(folder=str(self._folder), place=self._number),
        )

    async def _ended(self) -> bool:
        """Wait until there is no worker here; returns whether there shall be none."""
        if self._process is not None:
            watching = asyncio.create_task(self._watch(self._process))
            await self._process.wait()
            watching.cancel()
            forget_worker(self._folder, self._number)
        return self._ending.is_set()

    async def _watch(self, process: Process) -> None:
        """Kill the worker once it hangs (rule 5)."""
        assert process.stdout is not None
        silence = 0
        while silence < SILENCE_BEATS:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    said = await process.stdout.readline()
            except TimeoutError:
                silence += 1
                continue
            if not said:
                return
            silence = 0
        log.error("worker_hangs", worker=self._number, why=f"it said nothing for {SILENCE_BEATS} seconds")
        process.kill()

    def _status(self) -> str:
        code = None if self._process is None else self._process.returncode
        return "not started" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"

    def _hang_up(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def _next(pause: float) -> float:
    return min(PAUSE_MAX_SECONDS, max(PAUSE_SECONDS, 2 * pause))

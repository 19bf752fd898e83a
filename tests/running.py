"""A real service as a process of its own: started, stopped, killed and started again by the tests.

Owns the process and its data folder, nothing of what is asked of it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import Empty, Queue
from typing import TextIO

from tests.forked import Forked

START_SECONDS = 60.0

#: Start the private PostgreSQL of a folder and stop it again: it leaves an empty cluster.
_MAKE_CLUSTER = """
import asyncio, pathlib, sys
from gesell_ledger.storage.embedded import PrivatePostgres
async def main():
    async with PrivatePostgres(pathlib.Path(sys.argv[1])):
        pass
asyncio.run(main())
"""


class DidNotStart(Exception):
    """The service ended, or said nothing, before it listened; carries what it wrote to stderr."""


class Service:
    """One `gesell serve`. `start` waits until it listens; `url` is where."""

    #: Started from its file, as an operator does; else as a fork of what has imported everything (`tests.forked`).
    own_program = True

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        port: int = 0,
        environment: dict[str, str] | None = None,
        own_program: bool | None = None,
    ) -> None:
        """`own_program` says otherwise than its class does."""
        self.folder = folder
        if own_program is not None:
            self.own_program = own_program
        self.arguments: Sequence[str] = arguments
        self.port = port
        self.environment = environment or {}
        self.url = ""
        self.process: subprocess.Popen[str] | Forked | None = None
        self.log = folder / "service.log"

    def start(self, *more: str) -> Service:
        """Start it with the arguments of the constructor and some more; raises `DidNotStart`."""
        words = ["serve", "--port", str(self.port), *self.arguments, *more]
        if "--database" not in words:
            words += ["--data", str(self.folder / "data")]
        heard, said = os.pipe()
        try:
            self.process = self._begin(words, stdout=said)
        finally:
            os.close(said)
        # Kept open, so that whatever else it says finds somebody who could hear it.
        self._out = open(heard)  # noqa: SIM115
        line = _first_line(self._out)
        if not line.startswith("listening on "):
            self.process.kill()
            self.process.wait()
            raise DidNotStart(f"said {line!r}; its log:\n{self.read_log()}")
        self.url = line.removeprefix("listening on ").strip()
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def _begin(self, words: list[str], *, stdout: int) -> subprocess.Popen[str] | Forked:
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as log:
            if not self.own_program:
                assert not any(name.startswith("PYTHON") for name in self.environment), "a fork reads these no more"
                return Forked(*words, stdout=stdout, stderr=log.fileno(), env=environment)
            command = [sys.executable, "-m", "gesell", *words]
            return subprocess.Popen(command, stdout=stdout, stderr=log, text=True, env=environment)

    def read_log(self) -> str:
        """What it wrote to stderr so far."""
        return self.log.read_text() if self.log.exists() else ""

    def stop(self, *, seconds: float = 40.0) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Whatever state it is in: gone afterwards."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _first_line(out: TextIO) -> str:
    lines: Queue[str] = Queue()
    threading.Thread(target=lambda: lines.put(out.readline()), daemon=True).start()
    try:
        return lines.get(timeout=START_SECONDS)
    except Empty:
        return ""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder that an unprivileged PostgreSQL can reach (pytest's own are closed to it under root)."""
    folder = Path(tempfile.mkdtemp(prefix="gesell-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lay_cluster(data: Path) -> None:
    """Put a copy of an empty cluster into a new data folder, as a first start would make it there.

    Initdb takes a second each time, and what it makes is the same. Who tests a first start leaves this out.
    """
    data.mkdir(mode=0o700)
    subprocess.run(["cp", "-a", str(_made_cluster() / "postgres"), str(data)], check=True)


@cache
def _made_cluster() -> Path:
    """The data folder that all others of this run are copied from."""
    folder = Path(tempfile.mkdtemp(prefix="gesell-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    subprocess.run([sys.executable, "-c", _MAKE_CLUSTER, str(folder / "data")], check=True)
    return folder / "data"


@contextmanager
def running(*arguments: str) -> Iterator[Service]:
    """A started service in a folder of its own, gone afterwards."""
    with open_folder() as folder:
        lay_cluster(folder / "data")
        service = Service(folder, *arguments)
        try:
            yield service.start()
        finally:
            service.end()

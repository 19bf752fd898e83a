"""A real service as a process of its own: started, stopped, killed and started again by the tests.

Owns the process and its data folder, nothing of what is asked of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

START_SECONDS = 60.0


class DidNotStart(Exception):
    """The service ended, or said nothing, before it listened; carries what it wrote to stderr."""


class Service:
    """One `gesell serve`. `start` waits until it listens; `url` is where."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.arguments: Sequence[str] = arguments
        self.port = port
        self.environment = environment or {}
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "service.log"

    def start(self, *more: str) -> Service:
        """Start it with the arguments of the constructor and some more; raises `DidNotStart`."""
        command = [sys.executable, "-m", "gesell", "serve", "--port", str(self.port), *self.arguments, *more]
        if "--database" not in command:
            command += ["--data", str(self.folder / "data")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **self.environment}
            )
        line = _first_line(self.process)
        if not line.startswith("listening on "):
            self.process.kill()
            self.process.wait()
            raise DidNotStart(f"said {line!r}; its log:\n{self.read_log()}")
        self.url = line.removeprefix("listening on ").strip()
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

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


def _first_line(process: subprocess.Popen[str]) -> str:
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
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


@contextmanager
def running(*arguments: str) -> Iterator[Service]:
    """A started service in a folder of its own, gone afterwards."""
    with open_folder() as folder:
        service = Service(folder, *arguments)
        try:
            yield service.start()
        finally:
            service.end()

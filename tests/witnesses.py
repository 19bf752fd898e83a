"""Real witnesses as processes of their own: started, stopped, killed and started again by the tests.

Owns the processes and their folders, nothing of what is asked of them.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from gesell_protocol.notes import NoteKey
from tests.running import open_folder

COMMAND: Sequence[str] = (sys.executable, "-m", "gesell", "witness")


class WitnessProcess:
    """One `gesell witness`. `start` waits until it listens; `url` is where, and `key` by what it is known."""

    def __init__(self, folder: Path, name: str, *arguments: str, command: Sequence[str] = COMMAND) -> None:
        self.folder = folder / name.replace("/", "-")
        self.folder.mkdir(exist_ok=True)
        self.name = name
        self.arguments = arguments
        self.command = command
        self.port = 0
        self.url = ""
        self.key = NoteKey("none", bytes(32))
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> WitnessProcess:
        """Start it; raises `AssertionError` with what it said if it does not listen."""
        said = ["--name", self.name, "--data", str(self.folder), "--listen", f"127.0.0.1:{self.port}", *self.arguments]
        with (self.folder / "witness.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *said], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
            )
        assert self.process.stdout is not None
        vkey, line = (self.process.stdout.readline().strip() for _ in range(2))
        assert line.startswith("listening on "), (vkey, line, self.read_log())
        self.key = NoteKey.parse(vkey)
        self.url = line.removeprefix("listening on ")
        self.port = int(self.url.rpartition(":")[2])
        return self

    def read_log(self) -> str:
        """What it wrote to stderr so far."""
        return (self.folder / "witness.log").read_text()

    def submit(self, body: bytes) -> tuple[int, str, bytes]:
        """POST a submission: status, content type, body."""
        return self.ask("POST", "/add-checkpoint", body)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """One request on a connection of its own; what the network raises passes through."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()
        finally:
            connection.close()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def witnessing(name: str, *arguments: str) -> Iterator[WitnessProcess]:
    """A started witness in a folder of its own, gone afterwards."""
    with open_folder() as folder:
        witness = WitnessProcess(folder, name, *arguments)
        try:
            yield witness.start()
        finally:
            if witness.process is not None and witness.process.poll() is None:
                witness.kill()

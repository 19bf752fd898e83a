"""Real witnesses as processes of their own: started, stopped, killed and started again by the tests.

Owns the processes and their folders, nothing of what is asked of them.
"""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from gesell_protocol.notes import NoteKey
from tests.forked import Forked
from tests.running import open_folder


class WitnessProcess:
    """One `gesell witness`. `start` waits until it listens; `url` is where, and `key` by what it is known."""

    def __init__(self, folder: Path, name: str, *arguments: str, command: Sequence[str] = ()) -> None:
        """`command`: what to run instead, as a program of its own, and not as a fork."""
        self.folder = folder / name.replace("/", "-")
        self.folder.mkdir(exist_ok=True)
        self.name = name
        self.arguments = arguments
        self.command = command
        self.port = 0
        self.url = ""
        self.key = NoteKey("none", bytes(32))
        self.process: subprocess.Popen[str] | Forked | None = None

    def start(self) -> WitnessProcess:
        """Start it; raises `AssertionError` with what it said if it does not listen."""
        said = ["--name", self.name, "--data", str(self.folder), "--listen", f"127.0.0.1:{self.port}", *self.arguments]
        heard, theirs = os.pipe()
        with (self.folder / "witness.log").open("ab") as log, open(theirs, "wb") as out:
            if self.command:
                self.process = subprocess.Popen([*self.command, *said], stdout=out, stderr=log, text=True)
            else:
                self.process = Forked("witness", *said, stdout=out.fileno(), stderr=log.fileno())
        with open(heard) as lines:
            vkey, line = (lines.readline().strip() for _ in range(2))
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

"""The command `gesell` as a process of its own that begins at once: a fork of one that has imported everything.

Importing takes a second of processor time, more than most of what the tests have a service or a command do. How a
fresh program begins, others test: the README's walk, the tests of secrets, and the command lines in `tests/unit`.

Owns the processes, not what they are told.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_FORKER = Path(__file__).with_name("forker.py")

#: A program `gesell` for shells: hands its words and its standard files over, waits, and ends as the fork did. Without
#: `site` and without what the project imports, since its own beginning is what it is there to save.
_STAND_IN = """#!{python} -IS
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({place!r})
asked = {{"words": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
line.recv(16)
status = int(line.recv(16))
sys.exit(status if status >= 0 else 128 - status)
"""


class Forked:
    """A running `gesell`. Its attributes and methods are those of `subprocess.Popen`, as far as there are any."""

    def __init__(
        self, *words: str, stdout: int, stderr: int, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `gesell` with these words. `stdout` and `stderr` are descriptors, which stay the caller's."""
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(_place())
        asked = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        with open(os.devnull, "rb") as nothing:
            socket.send_fds(self._line, [json.dumps(asked).encode()], [nothing.fileno(), stdout, stderr])
        self._turn = threading.Lock()
        self.returncode: int | None = None
        self.pid = self._hear()

    def poll(self) -> int | None:
        """Its exit status, negative after a signal, if it has ended."""
        with self._turn:
            if self.returncode is None and _readable(self._line, 0):
                self.returncode = self._hear()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""
        give_up = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = 1.0 if give_up is None else give_up - time.monotonic()
            if left <= 0:
                assert timeout is not None
                raise subprocess.TimeoutExpired("gesell", timeout)
            _readable(self._line, min(left, 1.0))
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            # Who forked it waits for it, so it may be gone before that is heard.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self) -> int:
        """The next that is said of it: the number of the process, then its exit status."""
        heard = self._line.recv(16)
        assert heard, "the process that forks has ended"
        return int(heard)


def run_gesell(
    *words: str | Path, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does."""
    (out, theirs_out), (err, theirs_err) = os.pipe(), os.pipe()
    process = Forked(*map(str, words), stdout=theirs_out, stderr=theirs_err, cwd=cwd, env=env)
    os.close(theirs_out)
    os.close(theirs_err)
    written = {out: "", err: ""}

    def read(descriptor: int) -> None:
        with open(descriptor) as stream:
            written[descriptor] = stream.read()

    readers = [threading.Thread(target=read, args=[one], daemon=True) for one in (out, err)]
    for one in readers:
        one.start()
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    for one in readers:
        one.join()
    return subprocess.CompletedProcess(words, status, written[out], written[err])


@functools.cache
def scripts() -> Path:
    """A folder for the front of a shell's PATH, in which `gesell` is a fork as well, of this environment's programs."""
    folder = Path(tempfile.mkdtemp(prefix="gesell-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "gesell"
    program.write_text(_STAND_IN.format(python=sys.executable, place=_place()))
    program.chmod(0o755)
    return folder


def _readable(line: socket.socket, seconds: float) -> bool:
    return bool(select.select([line], [], [], seconds)[0])


@functools.cache
def _place() -> bytes:
    """Where the process that forks listens; it ends with this one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind("")  # a name that the kernel chooses, and no file
        door.listen()
        place: bytes = door.getsockname()
        command = [sys.executable, "-P", str(_FORKER), str(door.fileno())]
        # It ends when nobody holds the other end of its standard input any more.
        forker = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[door.fileno()])
        atexit.register(forker.communicate)
    return place

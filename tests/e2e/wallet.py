"""The command `gesell` as its users run it: a process with a home of its own.

Owns the environment that a command sees, nothing of what it says. Each command is a fork of one process that has
imported everything, since importing takes longer than all else that a command does; how a fresh process begins, the
tests of the command line in `tests/unit/client` say.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

#: Forks for each connection, runs the command there with the descriptors that came along, and answers its exit status;
#: ends when nobody holds the other end of its standard input any more.
_FORKING = """
import json, os, select, signal, socket, sys, traceback
from gesell import commands, wallet_commands

def run(line):
    data, descriptors, _, _ = socket.recv_fds(line, 65536, 3)
    asked = json.loads(data)
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["gesell", *asked["words"]]
    try:
        status = commands.main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    line.sendall(str(status).encode())

door = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while door in select.select([door, 0], [], [])[0]:
    line, _ = door.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        door.close()
        run(line)
        os._exit(0)
    line.close()
"""


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


class Wallet:
    """Commands in one folder, spoken to one ledger and one commons."""

    def __init__(self, folder: Path, url: str, commons: str | None = None) -> None:
        self.folder = folder
        self._base = {"HOME": str(folder), "GESELL_URL": url}
        if commons is not None:
            self._base["GESELL_COMMONS"] = commons

    def of(self, key: str, *, typed: str | None = None, **environment: str) -> Callable[..., Awaitable[Done]]:
        """Commands with this key file: `await wallet.of("ada.key")("pay", "bob", "1")`.

        `typed` is what stands on a terminal that they read from; there is none else.
        """

        async def command(*words: str) -> Done:
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("GESELL_", "XDG_"))}
            env = {**kept, **self._base, "GESELL_KEY": str(self.folder / key), **environment}
            asked = {"words": words, "cwd": str(self.folder), "env": env}
            ends = (os.open(os.devnull, os.O_RDONLY),) if typed is None else _terminal(typed)
            try:
                return await _run(asked, stdin=ends[0])
            finally:
                for end in ends:
                    os.close(end)

        return command


async def _run(asked: object, *, stdin: int) -> Done:
    """Have a command run; what it writes comes over pipes, as to any program that calls it."""
    (out, theirs_out), (err, theirs_err) = os.pipe(), os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(_place())
        socket.send_fds(line, [json.dumps(asked).encode()], [stdin, theirs_out, theirs_err])
        os.close(theirs_out)
        os.close(theirs_err)
        written = await asyncio.gather(*(asyncio.to_thread(_read, one) for one in (out, err)))
        status = await asyncio.to_thread(line.recv, 16)
    assert status, f"the command ended without a status: {written}"
    return Done(int(status), *written)


def _read(descriptor: int) -> str:
    with open(descriptor) as stream:
        return stream.read()


@functools.cache
def _place() -> bytes:
    """Where the process that forks listens; it ends with this one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind("")  # a name that the kernel chooses, and no file
        door.listen()
        place: bytes = door.getsockname()
        command = [sys.executable, "-c", _FORKING, str(door.fileno())]
        _kept.append(subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[door.fileno()]))
    return place


#: Holds the other end of its standard input.
_kept: list[subprocess.Popen[bytes]] = []


def _terminal(typed: str) -> tuple[int, int]:
    """A terminal with something typed: the end that a command reads from, and ours."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    return theirs, ours

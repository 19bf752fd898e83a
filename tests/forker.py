"""Forks a process for each command that `tests.forked` asks for, and tells how it ended.

It has imported all that the commands of wallet and ledger need. It runs nothing itself and has one thread, so that a
fork is a process as it is just before its command begins. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
from typing import Any

import gesell_ledger.audit_commands
import gesell_ledger.importing
import gesell_ledger.main
import gesell_ledger.rekeying
import gesell_ledger.witness_commands  # noqa: F401 - imported for those that are forked from here
from gesell import commands, wallet_commands  # noqa: F401 - the same

#: No name, so that it holds for every descriptor that a test hands over: standard input, output and error.
_STANDARD = 3


def serve(door: socket.socket) -> dict[str, Any] | None:
    """Fork as often as somebody asks. Returns in each fork, with what it was asked for, and None here at the end."""
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    lines: dict[int, socket.socket] = {}
    watched: list[Any] = [door, woken, 0]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_who_ended(lines)
        elif door in ready:
            line, _ = door.accept()
            asked, descriptors = _hear(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, interrupt)
                for one in (door, line, *lines.values()):
                    one.close()
                os.close(woken)
                os.close(wakes)
                _put_in_place(asked, descriptors)
                return asked
            for descriptor in descriptors:
                os.close(descriptor)
            lines[pid] = line
            line.sendall(str(pid).encode())
        else:
            return None


def _hear(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors, _, _ = socket.recv_fds(line, 1 << 20, _STANDARD)
    return json.loads(data), list(descriptors)


def _tell_who_ended(lines: dict[int, socket.socket]) -> None:
    while lines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with lines.pop(pid) as line:
            try:
                line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            except OSError:
                continue  # Nobody waits for it any more.


def _put_in_place(asked: dict[str, Any], descriptors: list[int]) -> None:
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    # It may have been found in another environment.
    tempfile.tempdir = None
    sys.argv = ["gesell", *asked["words"]]


if __name__ == "__main__":
    if serve(socket.socket(fileno=int(sys.argv[1]))) is not None:
        sys.exit(commands.main())

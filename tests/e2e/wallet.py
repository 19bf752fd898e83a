"""The command `gesell` as its users run it: a process with a home of its own.

Owns the environment that a command sees, nothing of what it says.
"""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple


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
            stdin, ours = (asyncio.subprocess.DEVNULL, None) if typed is None else _terminal(typed)
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("GESELL_", "XDG_"))}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gesell", *words,
                cwd=self.folder,
                env={**kept, **self._base, "GESELL_KEY": str(self.folder / key), **environment},
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, err = await process.communicate()
            if ours is not None:
                os.close(stdin)
                os.close(ours)
            return Done(process.returncode or 0, out.decode(), err.decode())

        return command


def _terminal(typed: str) -> tuple[int, int]:
    """A terminal with something typed: the end that a command reads from, and ours."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    return theirs, ours

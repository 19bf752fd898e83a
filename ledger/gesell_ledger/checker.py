"""`python -m gesell_ledger.checker SECONDS`: checks statements for the service that started it.

Owns the loop of a process whose standard input is a socket: a frame of statements as they came, a frame of what became
of each, in the same order. Keeps nothing and knows no database. SECONDS is the shortest tick that the ledger takes.

The end of the socket is the end of the process, so none outlives its service, however that ends; the signals that end a
service are for the service alone, which still wants to hear of what it handed over.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys

from gesell_ledger.api.pieces import check
from gesell_ledger.checked import HEAD_BYTES, read_parcels, write_checked


def main() -> None:
    """Serve until the socket ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Nothing that is made here refers to itself.
    gc.disable()
    min_tick_seconds = int(sys.argv[1])
    with socket.socket(fileno=sys.stdin.fileno()) as channel, channel.makefile("rb") as frames:
        while len(head := frames.read(HEAD_BYTES)) == HEAD_BYTES:
            checked = [
                check(piece, is_json=is_json, min_tick_seconds=min_tick_seconds)
                for is_json, pieces in read_parcels(frames.read(int.from_bytes(head, "big")))
                for piece in pieces
            ]
            try:
                channel.sendall(write_checked(checked))
            except OSError:
                return


if __name__ == "__main__":
    main()

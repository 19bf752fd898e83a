"""`python -m gesell_ledger.readings.solver`: a process that keeps graphs of vouches and answers for `trust`.

Owns the wire between the two, and the process itself. It is a process of its own because a solver keeps the interpreter
to itself for as long as it takes, and would keep everybody's payments waiting; it also can be ended in the middle of a
question that takes too long, whose memory and time are then nobody's. It knows neither the database nor who asks.

On stdin come messages, each as its length in four bytes and then MessagePack; on stdout go the answers to those that
ask. It ends when stdin does, and by itself (SIGALRM) when one question takes longer than `SECONDS_MAX`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec

#: How long it may work on one question.
SECONDS_MAX: Final = 10.0
#: Payments come first.
_NICE: Final = 10


class Vouches(msgspec.Struct, frozen=True, tag=True):
    """Vouches of a commons as they are from now on, packed as `vouch_graph` takes them."""

    commons: bytes
    packed: bytes


class Forget(msgspec.Struct, frozen=True, tag=True):
    """A commons that will not be asked for."""

    commons: bytes


class AskBetween(msgspec.Struct, frozen=True, tag=True):
    """How much trust flows from one to another, and over which strongest chain."""

    commons: bytes
    source: bytes
    sink: bytes


class AskRanking(msgspec.Struct, frozen=True, tag=True):
    """Whom trust from one reaches, after a place (strength, hops, key), at most `limit`."""

    commons: bytes
    source: bytes
    after: tuple[int, int, bytes] | None
    limit: int


class Between(msgspec.Struct, frozen=True, tag=True):
    """The flow in grains; the chain's steps, each who is vouched for and the grains; how many vouches the graph has."""

    flow: int
    chain: tuple[tuple[bytes, int], ...]
    vouches: int


class Ranking(msgspec.Struct, frozen=True, tag=True):
    """(peer, strength, hops, last voucher) in order; how many vouches the graph has."""

    rows: tuple[tuple[bytes, int, int, bytes], ...]
    vouches: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A fault of ours, told in words for the log."""

    why: str


Question = AskBetween | AskRanking
Message = Vouches | Forget | Question
Answer = Between | Ranking | Failed

LENGTH_BYTES: Final = 4


def pack(message: Message | Answer) -> bytes:
    """A message as it goes over the wire."""
    packed = msgspec.msgpack.encode(message)
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def main() -> int:
    """Answer until stdin ends; the exit status."""
    os.nice(_NICE)
    # Ctrl-C reaches every process of a terminal; whoever started this one says when it is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Imported here, so that the service, which speaks the same messages, need not.
    from gesell_ledger.readings.vouch_graph import Place, VouchGraph

    graphs: dict[bytes, VouchGraph] = {}

    def answer(question: Question) -> Answer:
        graph = graphs.setdefault(question.commons, VouchGraph())
        if isinstance(question, AskBetween):
            chain = graph.find_chain(question.source, question.sink)
            # Where no chain leads, nothing flows.
            flow = graph.measure_flow(question.source, question.sink) if chain else 0
            return Between(flow, tuple(chain), graph.count())
        after = None if question.after is None else Place(*question.after)
        rows = graph.rank(question.source, after=after, limit=question.limit)
        return Ranking(tuple(rows), graph.count())

    read, write = sys.stdin.buffer.read, sys.stdout.buffer
    while head := read(LENGTH_BYTES):
        message = msgspec.msgpack.decode(read(int.from_bytes(head, "big")), type=Message)
        match message:
            case Vouches():
                graphs.setdefault(message.commons, VouchGraph()).tell(message.packed)
            case Forget():
                graphs.pop(message.commons, None)
            case _:
                write.write(pack(_in_time(answer, message)))
                write.flush()
    return 0


def _in_time(answer: Callable[[Any], Answer], question: Question) -> Answer:
    """The answer, unless it takes too long: then this process ends, wherever it is."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    try:
        return answer(question)
    except Exception as error:
        return Failed(repr(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())

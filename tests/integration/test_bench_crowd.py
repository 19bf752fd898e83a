"""The crowd of listeners against a server that loses, repeats or refuses for one of them."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
import zlib
from collections.abc import Callable, Sequence

import pytest

from bench.crowd import PATIENCE_SECONDS, Ask, Heard, listen
from gesell_ledger.api.events import GZIP_HEAD

LISTENERS = 3
LAST = 40
OK = b"HTTP/1.1 200 OK\r\n\r\n"


def event(number: int) -> bytes:
    return b'id: %d\nevent: entry\ndata: {"seq": %d}\n\n' % (number, number)


#: All of it, in parts as they are written.
PARTS = tuple(b"".join(map(event, range(start, start + 10))) for start in range(1, LAST + 1, 10))


def hear(parts_of: Callable[[int], Sequence[bytes]], *, packed: bool = False) -> Heard:
    """What a crowd tells whose listener n is sent the head and then the parts for n."""
    server = socket.create_server(("127.0.0.1", 0))
    ours, theirs = multiprocessing.Pipe()
    ask = Ask(host="127.0.0.1", port=server.getsockname()[1], path="/", listeners=LISTENERS, packed=packed)
    crowd = threading.Thread(target=listen, args=(ask, theirs), daemon=True)
    crowd.start()
    ends = [server.accept()[0] for _ in range(LISTENERS)]
    try:
        written = [parts_of(number) for number in range(LISTENERS)]
        for end, parts in zip(ends, written, strict=True):
            end.recv(1_000)
            end.sendall(parts[0])
        assert ours.recv() == "ready"
        for turn in range(1, max(map(len, written))):
            for end, parts in zip(ends, written, strict=True):
                if turn < len(parts):
                    end.sendall(parts[turn])
            time.sleep(0.01)
        ours.send(LAST)
        assert ours.poll(PATIENCE_SECONDS / 2), "the crowd waits for what it has already"
        heard = ours.recv()
        crowd.join()
        assert isinstance(heard, Heard)
        return heard
    finally:
        for end in (*ends, server):
            end.close()


def plain(number: int) -> list[bytes]:
    """The head, a `retry:` that differs from listener to listener, and all parts."""
    return [OK + b"retry: %d\n\n" % (1_000 + number), *PARTS]


def test_a_crowd_that_got_all_of_it_is_whole() -> None:
    heard = hear(plain)
    assert (heard.whole, heard.short, heard.differing, heard.refused) == (LISTENERS, 0, 0, 0)
    assert heard.stream == b"".join(PARTS)
    # The last event is among those whose times are kept, with a time for each listener.
    assert max(heard.times) == len(heard.stream)
    assert all(len(moments) == LISTENERS for moments in heard.times.values())


def test_packed_streams_are_unpacked_and_compared_as_they_came() -> None:
    press = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = [press.compress(part) + press.flush(zlib.Z_SYNC_FLUSH) for part in PARTS]

    def parts_of(number: int) -> list[bytes]:
        own = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        preamble = own.compress(b"retry: %d\n\n" % (1_000 + number)) + own.flush(zlib.Z_FULL_FLUSH)
        return [OK + GZIP_HEAD + preamble, *packed]

    heard = hear(parts_of, packed=True)
    assert heard.whole == LISTENERS
    assert heard.stream == b"".join(PARTS)
    assert heard.wire_bytes == sum(map(len, packed))


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        # Less at the end; an event lost, twice, in another order; a refusal.
        ([*plain(1)[:-1]], "short"),
        ([plain(1)[0], PARTS[0], *PARTS[2:]], "differing"),
        ([plain(1)[0], PARTS[0], *PARTS], "differing"),
        ([plain(1)[0], PARTS[1], PARTS[0], *PARTS[2:]], "differing"),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "refused"),
    ],
)
def test_a_crowd_of_which_one_got_something_else_is_not_whole(
    sent: list[bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.crowd.PATIENCE_SECONDS", 0.3)
    heard = hear(lambda number: sent if number == 1 else plain(number))
    # Whoever has a byte first is the reference: if it is the odd one, all others differ from it.
    assert heard.whole < LISTENERS
    assert getattr(heard, kind) >= 1
    assert heard.whole + heard.short + heard.differing + heard.refused == LISTENERS

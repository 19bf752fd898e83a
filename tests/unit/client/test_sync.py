"""The sync face: the same calls as the async client's, done when they return, from any thread."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from test_following import Streaming, event
from wire_ledger import BOB, WireLedger, drop_applied, problem, serving

import gesell
from gesell import InsufficientFunds, Peer
from gesell.delivery import deliver
from gesell.sync import Client
from gesell_protocol.names import id_of

ADA = Peer(b"\x01" * 32)


@contextmanager
def in_background(context: Any) -> Iterator[Any]:
    """An async context in a thread of its own, so that the test itself may block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def url(ledger: WireLedger) -> Iterator[str]:
    with in_background(serving(ledger)) as address:
        yield address


@pytest.fixture
def client(ledger: WireLedger, url: str) -> Iterator[Client]:
    with Client(url, commons=ledger.commons, peer=ADA, timeout=2, patience=1) as made:
        yield made


def public(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def test_it_has_every_call_of_the_async_client_with_the_same_signature() -> None:
    blocking, awaited = public(Client), public(gesell.Client)
    assert set(blocking) - {"close"} == set(awaited)
    for name, call in awaited.items():
        if isinstance(call, property):
            assert isinstance(blocking[name], property)
            continue
        ours, theirs = inspect.signature(blocking[name]), inspect.signature(call)
        assert ours.parameters == theirs.parameters, name
        returns = re.sub(r"AsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]", str(theirs.return_annotation))
        assert ours.return_annotation == returns, name
        assert not inspect.iscoroutinefunction(blocking[name])
        assert blocking[name].__doc__, name
        assert not re.search(r"\bawait |\basync (for|with)", blocking[name].__doc__), name


def test_it_is_made_as_the_async_client_is() -> None:
    ours, theirs = inspect.signature(Client).parameters, dict(inspect.signature(gesell.Client).parameters)
    theirs.pop("_link")
    assert dict(ours) == theirs


def test_a_payment_is_done_when_the_call_returns(ledger: WireLedger, client: Client) -> None:
    receipt = client.pay("bob", "0.05", category="answer")
    assert list(ledger.receipts) == [receipt.id]
    assert client.as_peer(BOB).pay(ADA, "1").seq == receipt.seq + 1
    assert "as " + ADA.did in repr(client)


def test_errors_are_those_of_the_async_client(ledger: WireLedger, client: Client) -> None:
    ledger.odd = [lambda *_: problem("insufficient-funds", 422, available="10", needed="50000")]
    with pytest.raises(InsufficientFunds):
        client.pay("bob", "0.05")
    with pytest.raises(TypeError):
        client.pay("bob", 0.05)  # type: ignore[arg-type]


def test_lists_are_iterated_over_to_their_end_or_left_before(client: Client) -> None:
    assert [member.handle for member in client.members()] == ["member0", "member1", "member2"]
    for member in client.members():
        assert member.handle == "member0"
        break
    assert client.member("bob").handle == "bob"


def test_calls_come_from_many_threads_at_once(ledger: WireLedger, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: client.pay(BOB, n + 1), range(40)))
    assert len({receipt.id for receipt in receipts}) == 40
    assert [receipt.postings[-1].amount for receipt in receipts] == [(n + 1) * 1_000_000 for n in range(40)]


async def test_it_works_within_a_running_event_loop(ledger: WireLedger, url: str) -> None:
    with Client(url, commons=ledger.commons, peer=ADA) as client:
        assert client.pay(BOB, "1").seq == 2


def test_it_needs_no_with_block_and_ends_when_it_is_closed(ledger: WireLedger, url: str) -> None:
    client = Client(url, commons=ledger.commons, peer=ADA)
    client.pay(BOB, "1")
    client.close()
    client.close()
    assert not threads()
    with pytest.raises(RuntimeError, match="closed"):
        client.pay(BOB, "1")
    Client(url).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_told_so_instead_of_waiting_for_ever(ledger: WireLedger, url: str) -> None:
    program = f"""
import os
from gesell.sync import Client
client = Client({url!r})
client.service()
child = os.fork()
if child == 0:
    try:
        client.service()
    except RuntimeError as error:
        os._exit(7 if "after the fork" in str(error) else 1)
    os._exit(1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 7


def test_it_ends_with_its_last_reference_and_views_keep_it(ledger: WireLedger, url: str) -> None:
    view = Client(url, commons=ledger.commons, peer=ADA).as_peer(BOB)
    gc.collect()
    view.pay(ADA, "1")
    assert threads()
    del view
    gc.collect()
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gesell"]


def test_closing_cancels_what_is_under_way_and_keeps_what_it_left(ledger: WireLedger, url: str) -> None:
    ledger.odd = [drop_applied, lambda *_: problem("unavailable", 503, retry_after=20)]
    client = Client(url, commons=ledger.commons, peer=ADA, patience=60)
    with ThreadPoolExecutor(1) as pool:
        paying = pool.submit(client.pay, BOB, "1")
        wait_until(lambda: len(ledger.posts) == 2)
        client.close()
        with pytest.raises(RuntimeError, match="closed meanwhile"):
            paying.result(10)
    assert len(client.unsettled) == 1


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_interrupted_call_leaves_its_envelope_and_settles_later(ledger: WireLedger, url: str) -> None:
    ledger.odd = [drop_applied, lambda *_: problem("unavailable", 503, retry_after=20)]

    def interrupt() -> None:
        wait_until(lambda: len(ledger.posts) == 2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Client(url, commons=ledger.commons, peer=ADA, patience=60) as client:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            client.pay(BOB, "1")
        other.join()
        (left,) = client.unsettled
        [result] = client.submit([left.envelope])
        assert result.status == "replayed"
        assert client.unsettled == ()
    assert len(ledger.receipts) == 1


def test_an_interrupt_after_the_answer_and_before_the_caller_has_it_loses_no_payment(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deliver_and_interrupt(*args: Any, **kwargs: Any) -> None:
        await deliver(*args, **kwargs)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Client(url, commons=ledger.commons, peer=ADA) as client:
        client.service()
        monkeypatch.setattr("gesell.client.deliver", deliver_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.pay(BOB, "1")
        monkeypatch.undo()
        (left,) = client.unsettled
        assert [id_of(left.id)] == list(ledger.receipts)
        [result] = client.submit([left.envelope])
        assert result.status == "replayed"
        assert client.unsettled == ()


def test_whenever_an_interrupt_strikes_what_was_applied_was_returned_or_is_unsettled(ledger: WireLedger) -> None:
    chance = random.Random(7)
    interrupts = 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with in_background(serving(ledger)) as url, Client(url, commons=ledger.commons, peer=ADA) as client:
            client.pay("bob", "1")
            for _ in range(250):
                returned = set(ledger.receipts)
                try:
                    # A payment takes some milliseconds here; interrupts come before, within and after it.
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.008))
                    receipt = client.pay("bob", "1")
                    returned.add(receipt.id)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupts += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
                left = client.unsettled
                assert set(ledger.receipts) - returned <= {id_of(error.id) for error in left}
                assert all(result.receipt for result in client.submit([error.envelope for error in left]))
                assert client.unsettled == ()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts, "no interrupt struck; this machine is too fast for the times above"


def test_an_interrupt_before_the_work_is_handed_to_the_thread_does_not_wait_for_it(client: Client) -> None:
    client.service()
    loop = client._background._loop
    assert loop is not None
    hand = loop.call_soon_threadsafe

    def interrupted(*args: Any) -> None:
        loop.call_soon_threadsafe = hand  # type: ignore[method-assign]
        raise KeyboardInterrupt

    def pay() -> None:
        loop.call_soon_threadsafe = interrupted  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            client.pay(BOB, "1")

    caller = threading.Thread(target=pay, daemon=True)
    caller.start()
    caller.join(30)
    assert not caller.is_alive()
    assert client.unsettled == ()
    assert client.member("bob").handle == "bob"


def test_a_program_that_forgets_to_close_ends_quietly(ledger: WireLedger, url: str) -> None:
    program = f"""
from gesell import Peer
from gesell.sync import Client
client = Client({url!r}, commons={ledger.commons.hex()!r}, peer=Peer.new())
print(client.pay({BOB.did!r}, "1").seq)
for member in client.members():
    print(member.handle)
    break
"""
    command = [sys.executable, "-X", "dev", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\nmember0\n", "")


def test_entries_are_followed_and_left() -> None:
    async def made() -> Streaming:
        ledger = Streaming()
        ledger.scripts = [ledger.saying(event(1), event(2)), ledger.saying(event(3), stay=True)]
        return ledger

    ledger = asyncio.run(made())
    with in_background(ledger.client()) as other:
        with Client(other._url, commons=other.commons_id) as client:
            seen = []
            for entry in client.follow(after=0):
                seen.append(entry.seq)
                if entry.seq == 3:
                    break
        assert seen == [1, 2, 3]
        assert not threads()

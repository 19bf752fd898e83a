"""The client for programs that do not await: the same calls, each done when it returns.

    from gesell.sync import Client

    with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("ada.key")) as gesell:
        receipt = gesell.pay("bob", "0.05", category="answer")
        print(receipt.seq, gesell.balance())

It has the async client's name, as `from gesell.sync import Client` stands for `from gesell import Client`: what is
learnt of one holds for the other, and a program changes over by its import. Owns the thread in which the async client
runs, and the way there and back. Every call is made out of the async one, so it knows no call itself: there is no
second implementation, and none can be forgotten (a test compares the names and signatures).

1. One thread and one event loop belong to a client and all its views; calls may come from any threads at once.
2. A call that is interrupted (Ctrl-C) is cancelled there and waited for. What it has sent, applied or not, stands in
   `unsettled`, whenever the interrupt struck: it leaves that only as the call returns.
3. The thread begins with the first call and ends with `close`, the `with` block, the last reference, or the program.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from gesell import client
from gesell.errors import OutcomeUnknown
from gesell.peer import Peer, PeerLike
from gesell.unsettled import CALL, Call
from gesell.verifying import MemoryLike, WitnessLike

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Async = client.Client

#: How long an ending program waits for the connections to close.
END_SECONDS: Final = 5.0


class _Background:
    """An async client and the thread whose event loop it lives in."""

    def __init__(self, inner: _Async) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def open(self) -> asyncio.AbstractEventLoop:
        """Start the thread if it does not run yet; raises `RuntimeError` after `close`, and in a forked process."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # The thread holds no reference to this object, so that the last one of the callers' ends it.
                self._thread = threading.Thread(
                    target=_live, args=(self._loop, self._inner), name="gesell", daemon=True
                )
                weakref.finalize(self, _end, self._loop, self._thread)
            if self._thread is not None and self._thread.ident is None:  # also if an interrupt came before its start
                self._thread.start()
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError("threads do not live on in a forked process: make the client after the fork")
            return self._loop

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do the work in the thread and wait for what comes of it; an interrupt cancels it and waits for its end.

        What it has sent stays in `unsettled` until its outcome is handed over here.
        """
        job = _Job(work)
        try:
            if threading.current_thread() is self._thread:
                raise RuntimeError("the sync client can't be called from within its own thread")
            self._send(job)
            job.wait()
        except BaseException:
            self._leave(job)
            raise
        if job.cancelled:
            raise RuntimeError("the client was closed meanwhile; `unsettled` has what got no answer")
        outcome, error = job.outcome, job.error
        try:
            # CPython looks for signals at calls and jumps back: between this and the caller's own next step there is
            # none, so that what is handed over arrives.
            job.call.handed_over = True
            if error is not None:
                raise error
            return outcome  # type: ignore[no-any-return]
        finally:
            del job, error  # the error's traceback holds this frame

    def _send(self, job: _Job) -> None:
        loop = self.open()
        # Under the lock, so that nothing is sent behind the end, where nobody would ever do it.
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            job.sent = True
            loop.call_soon_threadsafe(job.begin, loop)

    def _leave(self, job: _Job) -> None:
        """Who waited was interrupted, not the work: cancel it, and wait until it has left what it leaves."""
        if not job.sent:
            job.drop()
        elif self._loop is not None and not job.over:
            with suppress(RuntimeError):  # the loop is closed, and all its work with it
                self._loop.call_soon_threadsafe(job.cancel)
                job.wait(END_SECONDS)

    def forget(self, items: AsyncIterator[Any]) -> None:
        """Let go of an iterator that is not read to its end, without waiting: the garbage collector may be asking."""
        close = getattr(items, "aclose", None)
        with suppress(RuntimeError):  # the loop is closed, and all its iterators with it
            if close is not None and (loop := self._loop) is not None:
                loop.call_soon_threadsafe(lambda: loop.create_task(close()))

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread; again is no error."""
        with self._lock:
            self._closed = True
        if self._loop is not None and self._thread is not None:
            _end(self._loop, self._thread)


class _Job:
    """One coroutine under way in the thread, and the way back of its outcome.

    A bare lock is waited for, and no `Future` or `Event`: an interrupt in the midst of their Python code can leave
    the lock within them held, and then the thread would stand still.
    """

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._end = threading.Lock()
        self._end.acquire()
        self.call = Call()
        self.sent = False
        self.over = False
        self.cancelled = False
        self.outcome: Any = None
        self.error: BaseException | None = None

    def wait(self, seconds: float = -1) -> None:
        """Wait for the end, once; as long as it takes, or so many seconds."""
        self._end.acquire(timeout=seconds)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the work, in the thread."""
        context = copy_context()
        context.run(CALL.set, self.call)
        self._task = loop.create_task(self._work, context=context)
        self._task.add_done_callback(self._hand_over)

    def cancel(self) -> None:
        """Cancel the work, in the thread, begun or not; what it leaves behind is its own to keep."""
        if self._task is not None:
            self._task.cancel()
        elif not self.over:
            self.drop()
            self.cancelled = True
            self._finish()

    def drop(self) -> None:
        """Let go of work that was not begun."""
        self._work.close()

    def _hand_over(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.cancelled = True
        elif (error := task.exception()) is not None:
            self.error = error
        else:
            self.outcome = task.result()
        self._finish()

    def _finish(self) -> None:
        self.over = True
        self._end.release()


def _live(loop: asyncio.AbstractEventLoop, inner: _Async) -> None:
    """The thread's life: open the client, work until the loop is stopped, leave nothing open."""
    asyncio.set_event_loop(loop)
    loop.run_until_complete(inner.__aenter__())
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(inner._disconnect())
    finally:
        loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):  # it has ended before
        loop.call_soon_threadsafe(loop.stop)
    if thread.ident is not None and threading.current_thread() is not thread:
        thread.join(END_SECONDS)


# ── From awaited calls to calls ──────────────────────────────────────────────────────────────────────────────────


def _blocking(
    call: Callable[Concatenate[_Async, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Client, _P], _T]:
    """The call that returns what the awaited one would."""

    @functools.wraps(call)
    def blocking(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._background.call(call(self._inner, *args, **kwargs))

    return _retold(blocking, call)


def _iterating(
    call: Callable[Concatenate[_Async, _P], AsyncIterator[_T]],
) -> Callable[Concatenate[Client, _P], Generator[_T, None, None]]:
    """The call whose items are iterated over without awaiting."""

    @functools.wraps(call)
    def iterating(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> Generator[_T, None, None]:
        items = call(self._inner, *args, **kwargs)
        try:
            while True:
                try:
                    item = self._background.call(_next(items))
                except _End:
                    return
                yield item
        finally:
            self._background.forget(items)

    return _retold(iterating, call)


class _End(Exception):
    """There is no further item. (StopAsyncIteration itself can't leave a task of an event loop as such.)"""


async def _next(items: AsyncIterator[_T]) -> _T:
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise _End from None


def _retold(told: Callable[_P, _T], call: Callable[..., Any]) -> Callable[_P, _T]:
    """The same docstring and signature, in the words of calls that are not awaited."""
    told.__doc__ = (call.__doc__ or "").replace("await ", "").replace("async for", "for").replace("async with", "with")
    signature = inspect.signature(call)
    returns = re.sub(r"AsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]", str(signature.return_annotation))
    told.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
    return told


class Client:
    """A peer's connection to a ledger, for programs that do not await.

        with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("ada.key")) as gesell:
            receipt = gesell.pay("bob", "0.05", category="answer")
            print(receipt.seq, gesell.balance())

    It takes what `gesell.Client` takes and has its calls. In a notebook, where a `with` block is in the way, make it
    and call `close` at the end. It may be used from several threads at once, and beside a running event loop; within
    one, prefer `gesell.Client`, since every call here holds its thread up.
    """

    def __init__(
        self,
        url: str,
        *,
        commons: str | bytes | None = None,
        peer: Peer | None = None,
        by: PeerLike | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        check: bool = True,
        ledger: str | None = None,
        witnesses: Sequence[WitnessLike] = (),
        quorum: int | None = None,
        memory: MemoryLike | None = None,
    ) -> None:
        self._inner = _Async(
            url,
            commons=commons,
            peer=peer,
            by=by,
            timeout=timeout,
            patience=patience,
            check=check,
            ledger=ledger,
            witnesses=witnesses,
            quorum=quorum,
            memory=memory,
        )
        self._background = _Background(self._inner)

    def _view(self, inner: _Async) -> Client:
        view = object.__new__(Client)
        view._inner, view._background = inner, self._background
        return view

    def __enter__(self) -> Self:
        self._background.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(error)

    def close(self) -> None:
        """End the connection and its thread, for all views; again is no error. What is under way is cancelled.

        Receipts that are not proven yet are proven first; raises `CheckFailed` as the end of a `with` block does.
        """
        self._close(None)

    def _close(self, error: BaseException | None) -> None:
        try:
            if self._inner._link.checks.has_unproven and not self._background.is_closed:
                self._background.call(self._inner._end_checks(error))
        finally:
            self._background.close()

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def commons_id(self) -> str | None:
        """The commons this client speaks to, as 32 hex digits; None until it is founded or named."""
        return self._inner.commons_id

    @property
    def unsettled(self) -> tuple[OutcomeUnknown, ...]:
        """What interrupted calls have sent without telling what became of it: each carries the envelope to send again.

        gesell.submit([error.envelope for error in gesell.unsettled])
        """
        return self._inner.unsettled

    def as_peer(self, peer: Peer, *, by: PeerLike | None = None) -> Client:
        """The same connection spoken for by another peer: `gesell.as_peer(bob).pay("ada", "1")`."""
        return self._view(self._inner.as_peer(peer, by=by))

    def as_commons(self, commons: str | bytes) -> Client:
        """The same connection spoken about another commons: `gesell.as_commons("…hex…").balance()`."""
        return self._view(self._inner.as_commons(commons))

    # Reading
    service = _blocking(_Async.service)
    commons = _blocking(_Async.commons)
    currency = _blocking(_Async.currency)
    founding = _blocking(_Async.founding)
    commons_list = _blocking(_Async.commons_list)
    member = _blocking(_Async.member)
    members = _iterating(_Async.members)
    balance = _blocking(_Async.balance)
    history = _iterating(_Async.history)
    entries = _iterating(_Async.entries)
    follow = _iterating(_Async.follow)
    receipt = _blocking(_Async.receipt)
    key_of = _blocking(_Async.key_of)
    # Checking what is told
    check = _blocking(_Async.check)
    proof = _blocking(_Async.proof)
    # Gifts, trust, relationships, circulation
    kind = _blocking(_Async.kind)
    gift = _blocking(_Async.gift)
    gifts = _iterating(_Async.gifts)
    relationships = _iterating(_Async.relationships)
    standing = _blocking(_Async.standing)
    trust = _blocking(_Async.trust)
    trusted = _iterating(_Async.trusted)
    flow = _blocking(_Async.flow)
    # Requests for payment
    request = _blocking(_Async.request)
    payments_for = _blocking(_Async.payments_for)
    until_paid = _blocking(_Async.until_paid)
    pay_request = _blocking(_Async.pay_request)
    # Founding and membership
    found = _blocking(_Async.found)
    join = _blocking(_Async.join)
    admit = _blocking(_Async.admit)
    suspend = _blocking(_Async.suspend)
    leave = _blocking(_Async.leave)
    keys = _blocking(_Async.keys)
    rotate = _blocking(_Async.rotate)
    change_policy = _blocking(_Async.change_policy)
    change_stewards = _blocking(_Async.change_stewards)
    erase = _blocking(_Async.erase)
    # Money
    pay = _blocking(_Async.pay)
    pay_each = _blocking(_Async.pay_each)
    pay_all = _blocking(_Async.pay_all)
    issue = _blocking(_Async.issue)
    retire = _blocking(_Async.retire)
    retire_all = _blocking(_Async.retire_all)
    grant = _blocking(_Async.grant)
    grant_each = _blocking(_Async.grant_each)
    share = _blocking(_Async.share)
    # Gifts and trust
    make_kind = _blocking(_Async.make_kind)
    give = _blocking(_Async.give)
    thank = _blocking(_Async.thank)
    decline = _blocking(_Async.decline)
    withdraw = _blocking(_Async.withdraw)
    vouch = _blocking(_Async.vouch)
    write_off = _blocking(_Async.write_off)
    # Webhooks
    add_webhook = _blocking(_Async.add_webhook)
    webhooks = _blocking(_Async.webhooks)
    delete_webhook = _blocking(_Async.delete_webhook)
    # Signing ahead, signing together and sending many
    sign = _blocking(_Async.sign)
    cosign = _blocking(_Async.cosign)
    describe = _blocking(_Async.describe)
    submit = _blocking(_Async.submit)

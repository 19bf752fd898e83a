"""Delivery: envelopes go out, and are sent again unchanged until each has an answer that settles it.

Owns the rule that keeps money from moving twice: what has no settling answer is only ever sent again as it is.
Knows nothing of what the statements say; receipts are held against them elsewhere.

1. An answer settles a statement if it is a receipt or a refusal that does not pass by itself.
2. After a lost connection, a time limit, `unavailable` or `internal` the statement may have been applied; after
   `rate-limited`, `timeout` or a connection that was never made it was not.
3. What is unsettled is sent again, with jittered back-off and no sooner than `Retry-After`, while patience lasts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gesell.errors import GesellError, OutcomeUnknown, Refused, UnexpectedAnswer, Unreachable, refused
from gesell.transport import (
    MSGPACK_TYPE,
    PASSING,
    UNSETTLED,
    Answer,
    NoAnswer,
    NotSent,
    Transport,
    backoff,
    msgpack_of,
)
from gesell_protocol.canonical import pack_array
from gesell_protocol.envelopes import Envelope
from gesell_protocol.receipts import Receipt, read_receipt

REQUEST_STATEMENTS_MAX: Final = 10_000
#: Below the protocol's 16 MiB by what the map around the statements may take.
REQUEST_BYTES_MAX: Final = 16 * 1024 * 1024 - 64


@dataclass(slots=True)
class Parcel:
    """One envelope on its way: what is known of it so far."""

    envelope: Envelope
    id: bytes
    wire: bytes
    status: Literal["open", "accepted", "replayed", "refused"] = "open"
    receipt: Receipt | None = None
    error: GesellError | None = None
    may_be_applied: bool = False


def parcel(envelope: Envelope, statement_id: bytes) -> Parcel:
    """Pack an envelope for delivery; the same bytes go out each time."""
    return Parcel(envelope, statement_id, bytes(pack_array(envelope.wire())))


def requests_of(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Cut parcels, in order, into requests of at most 10,000 statements and 16 MiB."""
    request: list[Parcel] = []
    size = 0
    for item in parcels:
        if request and (len(request) == REQUEST_STATEMENTS_MAX or size + len(item.wire) > REQUEST_BYTES_MAX):
            yield request
            request, size = [], 0
        request.append(item)
        size += len(item.wire)
    if request:
        yield request


async def deliver(transport: Transport, parcels: Sequence[Parcel], *, patience: float) -> None:
    """Send one request's parcels until all are settled or `patience` seconds have passed; settles them in place.

    What stays unsettled gets the error that says what is known: `OutcomeUnknown`, `Unreachable`, or the last
    refusal that passes by itself.
    """
    deadline = time.monotonic() + patience
    pauses = backoff()
    while True:
        waiting = [item for item in parcels if item.status == "open"]
        # The last attempt may outlast the patience a little; an attempt cut short would only add doubt.
        wait = await _attempt(transport, waiting)
        waiting = [item for item in waiting if item.status == "open"]
        if not waiting:
            return
        pause = max(next(pauses), wait)
        if time.monotonic() + pause > deadline:
            break
        await asyncio.sleep(pause)
    for item in waiting:
        if item.may_be_applied:
            item.error = OutcomeUnknown(item.envelope, item.id, why=str(item.error))


async def _attempt(transport: Transport, parcels: Sequence[Parcel]) -> float:
    """One request; returns how long the ledger wants us to wait before the next."""
    head = b"\x81\xaastatements" + _array_header(len(parcels))
    data = head + b"".join(item.wire for item in parcels)
    url = transport.base / "statements"
    try:
        answer = await transport.ask("POST", url, data=data, accept=MSGPACK_TYPE)
    except NotSent as error:
        _leave_open(parcels, Unreachable(f"{url.origin()} can't be reached: {error}"), doubt=False)
        return 0.0
    except NoAnswer as error:
        _leave_open(parcels, Unreachable(f"no answer from {url.origin()}: {error}"), doubt=True)
        return 0.0
    if answer.status == 200:
        _take_results(answer, parcels)
    else:
        _take_problem(answer, parcels)
    return answer.retry_after


def _take_results(answer: Answer, parcels: Sequence[Parcel]) -> None:
    message = msgpack_of(answer)
    results = message.get("results") if message is not None else None
    if not isinstance(results, list) or len(results) != len(parcels):
        _leave_open(parcels, UnexpectedAnswer(f"{answer.url} did not answer as a ledger does"), doubt=True)
        return
    for item, result in zip(parcels, results, strict=True):
        _take_result(item, result)


def _take_result(item: Parcel, result: Any) -> None:
    try:
        status = result["status"]
        if status in ("accepted", "replayed"):
            item.receipt, item.status, item.error = read_receipt(result["receipt"]), status, None
            return
        if status != "refused":
            raise ValueError(f"a result with status {status!r}")
        _take_refusal(item, result["problem"])
    except (ValueError, TypeError, KeyError) as error:
        _leave_open([item], UnexpectedAnswer(f"a result that can't be read: {error}"), doubt=True)


def _take_refusal(item: Parcel, problem: Mapping[str, Any]) -> None:
    error = refused(problem, envelope=item.envelope)
    if _passes(error, problem):
        item.error = error
        item.may_be_applied |= error.code not in PASSING - UNSETTLED
    elif item.may_be_applied:
        # Another service of the same ledger may still be busy with an earlier attempt that got no answer.
        why = f"{error}; but an attempt before got no answer"
        item.status, item.error = "refused", OutcomeUnknown(item.envelope, item.id, why=why)
    else:
        item.status, item.error = "refused", error


def _passes(error: Refused, problem: Mapping[str, Any]) -> bool:
    """Whether a refusal passes by itself; of a code that this client does not know, the status says it."""
    status = problem.get("status")
    return error.code in PASSING or (type(error) is Refused and isinstance(status, int) and status >= 500)


def _take_problem(answer: Answer, parcels: Sequence[Parcel]) -> None:
    problem = answer.problem()
    if problem is None:
        # A gateway in between, perhaps: what it did with the request nobody knows.
        detail = f"{answer.url} answered {answer.status}, not as a ledger does"
        _leave_open(parcels, UnexpectedAnswer(detail), doubt=True)
        return
    for item in parcels:
        try:
            _take_refusal(item, problem)
        except (ValueError, TypeError) as error:
            _leave_open([item], UnexpectedAnswer(f"a problem that can't be read: {error}"), doubt=True)


def _leave_open(parcels: Sequence[Parcel], error: GesellError, *, doubt: bool) -> None:
    for item in parcels:
        item.error = error
        item.may_be_applied |= doubt


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes([0x90 | length])
    return b"\xdc" + length.to_bytes(2, "big")

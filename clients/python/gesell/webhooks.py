"""Webhooks: what the ledger tells of them, and the requests that make and end them (SPEC §7.5).

Owns the value, and what becomes of a request. A request for a webhook is signed as a whole, so who signs hands in how.
Receiving is the receiver's: any library of the Standard Webhooks specification verifies what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from gesell.answers import understood
from gesell.errors import Expired, UnexpectedAnswer, Unreachable
from gesell.transport import Answer, NoAnswer, NotSent, Transport, failure_of, json_of

Scope = Literal["own", "all"]
JWT: Final = "application/jwt"
#: Requests are told apart by the second in which they were issued; one that comes too soon after another waits.
ATTEMPTS: Final = 4
PAUSE_SECONDS: Final = 0.7


class Write(Protocol):
    """Signs a request; `again` after one that the ledger took for expired, or for one it had seen."""

    async def __call__(self, *, again: bool) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook of one's own.

    `types` are those of statements, none for all; `scope` says whether all entries come or those that concern oneself.
    Entries up to `after` are delivered, or not for it. `failures` counts the attempts since the last delivery, `why`
    tells of the last one, or why it is disabled; `next_attempt_ms` is real time. `secret` is there only when it is new.
    """

    id: str
    url: str
    types: tuple[str, ...]
    scope: str
    state: str
    after: int
    failures: int
    next_attempt_ms: int | None
    why: str | None
    secret: str | None = field(default=None, repr=False)


def read_webhook(fields: Mapping[str, Any]) -> Webhook:
    """Make a `Webhook` of what the ledger says; raises what a malformed answer raises."""
    return Webhook(
        id=str(fields["id"]),
        url=str(fields["url"]),
        types=tuple(str(kind) for kind in fields["types"]),
        scope=str(fields["scope"]),
        state=str(fields["state"]),
        after=int(fields["after"]),
        failures=int(fields["failures"]),
        next_attempt_ms=fields.get("next_attempt"),
        why=fields.get("why"),
        secret=fields.get("secret"),
    )


async def add(transport: Transport, path: str, write: Write) -> Webhook:
    """Ask for a webhook by a request that `write` signs anew for each attempt (`again` after the first); raises
    `Refused`, `Unreachable`, and `UnexpectedAnswer` with `applied` None where no answer came.
    """
    for attempt in range(ATTEMPTS):
        request = (await write(again=attempt > 0)).encode()
        answer = await _ask(transport, "POST", path, data=request, media_type=JWT)
        if answer.status in (200, 201):
            return understood(read_webhook, json_of(answer))
        failure = failure_of(answer)
        if not isinstance(failure, Expired) or attempt + 1 == ATTEMPTS:
            raise failure
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError


async def delete(transport: Transport, path: str, *, token: str | None) -> None:
    """End a webhook; raises as `add` does."""
    answer = await _ask(transport, "DELETE", path, token=token)
    if answer.status != 204:
        raise failure_of(answer)


async def _ask(transport: Transport, method: str, path: str, **how: Any) -> Answer:
    try:
        return await transport.ask(method, transport.url_of(path), **how)
    except NotSent as error:
        raise Unreachable(f"{transport.base.origin()} can't be reached: {error}") from None
    except NoAnswer as error:
        why = f"no answer came ({error}): look at webhooks() for what became of it"
        raise UnexpectedAnswer(why, applied=None) from None

"""Webhooks over HTTP: a peer asks for one, sees its own, ends one (SPEC §7.5).

Owns the request that asks: a JWT whose signature covers what is asked for, not only who asks, since who could change
the URL would have a member's entries sent to himself. One request acts once: used again while what it asked for
stands, it changes nothing and shows no secret; once something newer was asked for or the webhook was deleted, it is
refused. Delivering is the deliverer's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType
from yarl import URL

from gesell_ledger.api import parameters
from gesell_ledger.api.answers import Answered, EntryRow, Page, TypeName, json_response
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.receiving import BODIES, receive
from gesell_ledger.api.rights import CLOCK, READER, TOKENS, load_commons, nowhere, visit
from gesell_ledger.api.shapes import INT_MAX, CommonsName, Count, Id, Moment
from gesell_ledger.api.subscribing import look_as_subscriber
from gesell_ledger.api.tokens import TOKEN_MAX_CHARS, BadToken, Bearer
from gesell_ledger.core.books import Commons
from gesell_ledger.storage.webhooks import SLOTS, Webhook, Webhooks, Wish
from gesell_ledger.webhooks.addresses import URL_MAX_CHARS, BadUrl, NoRoom, NotPublic, Resolver, check_public, read_url
from gesell_ledger.webhooks.signing import SECRET_BYTES, secret_text
from gesell_protocol.names import id_text, uuid7
from gesell_protocol.statements import TYPES

WEBHOOKS: Final = web.AppKey("webhooks", Webhooks)
RESOLVER: Final = web.AppKey("resolver", Resolver)
TO_PRIVATE: Final = web.AppKey("to_private", bool)

JWT: Final = "application/jwt"
LOOKUP_SECONDS: Final = 5.0


Endpoint = Annotated[str, Meta(max_length=URL_MAX_CHARS, examples=["https://shop.example/gesell"])]
Scope = Annotated[
    Literal["own", "all"],
    Meta(description="The entries that concern the peer, or all of the commons, where it may read them."),
]
Place = Annotated[int, Meta(ge=0, le=INT_MAX, description="Entries up to this seq are delivered, or not for it.")]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The claim `webhook` of a request; no `types` are all, without `after` it begins with the next entry."""

    url: Endpoint
    types: list[TypeName] = []
    scope: Scope = "own"
    after: Place | UnsetType = UNSET


class WebhookRow(Answered, frozen=True, kw_only=True):
    """A webhook as its peer sees it."""

    id: Id
    url: Endpoint
    types: list[TypeName]
    scope: Scope
    state: Literal["live", "disabled"]
    after: Place
    failures: Annotated[Count, Meta(description="Attempts that failed since the last delivery.")]
    next_attempt: Annotated[Moment, Meta(description="By the real clock.")] | UnsetType = UNSET
    why: Annotated[str, Meta(description="How the last attempt failed, or why it is disabled.")] | UnsetType = UNSET
    secret: (
        Annotated[str, Meta(pattern="^whsec_[A-Za-z0-9+/]{43}=$", description="Shown once, when it is new.")]
        | UnsetType
    ) = UNSET


class MessageData(Answered, frozen=True, kw_only=True):
    """An entry, and of which commons it is."""

    commons: CommonsName
    entry: EntryRow


class Message(Answered, frozen=True, kw_only=True):
    """What is delivered: `type` is `entry.` and the type of the statement, `timestamp` when it was accepted."""

    type: Annotated[str, Meta(examples=["entry.pay"])]
    timestamp: Annotated[str, Meta(examples=["2026-01-01T00:00:00.000Z"])]
    data: MessageData


#: What endpoints are sent, by the name under which the description of the service has it.
MESSAGES: Final = {"entry": Message}


async def post_webhook(request: web.Request) -> web.Response:
    """Ask for a webhook: 201 with its secret, which is shown this once; 200 where the peer has one for this URL."""
    bearer, claims = await _signer_of(request)
    if claims.get("commons") != request.match_info["commons"] or "webhook" not in claims:
        raise Refused("bad-token", "a request for a webhook carries the claims commons, that of the path, and webhook")
    commons, _ = await load_commons(request)
    wish = await _read_wish(request, commons, bearer, claims["webhook"])
    webhooks = request.app[WEBHOOKS]
    for _ in range(SLOTS):
        mine = await webhooks.list_of(commons.id, bearer.peer)
        there = next((hook for hook in mine if hook.state != "deleted" and hook.url == wish.url), None)
        if there is None:
            made = await _add(request, commons, bearer.peer, wish, mine)
        elif wish.asked_s > there.asked_s:
            made = (there.id, b"") if await webhooks.change(commons.id, bearer.peer, wish, name=there.id) else None
        elif (there.types, there.every_entry) == (wish.types, wish.every_entry):
            return _answer(webhook_json(there), status=200)
        else:
            raise _too_old()
        if made is not None:
            return await _shown(webhooks, commons, bearer.peer, *made)
    raise Refused("unavailable", "other requests of this peer were faster; try again")


async def _signer_of(request: web.Request) -> tuple[Bearer, dict[str, Any]]:
    """Who signed the request's body, which is a JWT, and what it claims."""
    if request.content_type != JWT:
        raise Refused("unsupported-media-type", f"send {JWT}: what is asked for is signed")
    with request.app[BODIES].hold() as take:
        body = await receive(request, take, max_bytes=TOKEN_MAX_CHARS)
    try:
        return request.app[TOKENS].read(body.decode("ascii"), now_ms=request.app[CLOCK].look())
    except (BadToken, UnicodeDecodeError) as bad:
        raise Refused("bad-token", str(bad)) from None


async def _read_wish(request: web.Request, commons: Commons, bearer: Bearer, claim: object) -> Wish:
    """What is asked for, by who may ask for it, for an endpoint that may be delivered to."""
    now_ms = max(request.app[CLOCK].look(), commons.at_ms)
    sight, may_have = await look_as_subscriber(
        request.app[READER], commons, peer=bearer.peer, key=bearer.key, now_ms=now_ms
    )
    if sight is None:
        raise nowhere()
    if not may_have:
        raise Refused("not-authorised", "only active and suspended members and stewards have webhooks, by a live key")
    try:
        asked = msgspec.convert(claim, Asked)
        url = read_url(asked.url, to_private=request.app[TO_PRIVATE])
    except (msgspec.ValidationError, BadUrl) as error:
        raise Refused("malformed", f"webhook: {error}") from None
    unknown = sorted(set(asked.types) - set(TYPES))
    if unknown:
        raise Refused("malformed", f"webhook: there is no statement of type {unknown[0]!r}")
    after = None if asked.after is UNSET else asked.after
    if after is not None and after > commons.seq:
        raise Refused("malformed", f"webhook: after is the seq of an entry, at most {commons.seq}")
    if asked.scope == "all" and not sight.every_entry:
        raise Refused("not-authorised", "you may have the entries that concern you: scope own")
    await _check_address(request, url)
    return Wish(
        url=asked.url,
        types=tuple(sorted(set(asked.types))),
        every_entry=asked.scope == "all",
        after=after,
        key=bearer.key,
        asked_s=bearer.issued,
    )


async def _check_address(request: web.Request, url: URL) -> None:
    """Refuse what can't be delivered to at once; each delivery is checked again."""
    if request.app[TO_PRIVATE]:
        return
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            await check_public(url, request.app[RESOLVER])
    except NotPublic:
        why = "this ledger delivers to public addresses only; its operator allows others: serve --webhooks-to-private"
        raise Refused("not-authorised", why) from None
    except (TimeoutError, NoRoom):
        raise Refused("unavailable", "the name of the endpoint could not be looked up in time") from None
    except OSError:
        raise Refused("malformed", "webhook: the name of the endpoint can't be resolved") from None


async def _add(
    request: web.Request, commons: Commons, peer: bytes, wish: Wish, mine: Sequence[Webhook]
) -> tuple[bytes, bytes] | None:
    """A new webhook in a free slot; returns its id and its secret, None if somebody was faster."""
    if any(hook.asked_s > wish.asked_s for hook in mine):
        raise _too_old()
    taken = {hook.slot for hook in mine if hook.state != "deleted"}
    if len(taken) == SLOTS:
        raise Refused("limit-exceeded", f"a peer has at most {SLOTS} webhooks in a commons", limit=SLOTS)
    slot = min(set(range(SLOTS)) - taken)
    name, secret = uuid7(request.app[CLOCK].look(), os.urandom(10)), os.urandom(SECRET_BYTES)
    seen = commons.seq if wish.after is None else wish.after
    added = await request.app[WEBHOOKS].add(commons.id, peer, wish, slot=slot, name=name, secret=secret, seen=seen)
    return (name, secret) if added else None


async def _shown(webhooks: Webhooks, commons: Commons, peer: bytes, name: bytes, secret: bytes) -> web.Response:
    """The webhook as it stands now; with its secret if it is new. Refused if the peer has deleted it meanwhile."""
    mine = await webhooks.list_of(commons.id, peer)
    hook = next((hook for hook in mine if hook.id == name and hook.state != "deleted"), None)
    if hook is None:
        raise _too_old()
    if not secret:
        return _answer(webhook_json(hook), status=200)
    return _answer(msgspec.structs.replace(webhook_json(hook), secret=secret_text(secret)), status=201)


def _too_old() -> Refused:
    why = "something newer was asked for since this request was issued, or in the same second: issue another"
    return Refused("expired", why)


async def get_webhooks(request: web.Request) -> web.Response:
    """The reader's own webhooks, without their secrets."""
    commons, peer = await _visit_own(request)
    mine = await request.app[WEBHOOKS].list_of(commons.id, peer)
    return json_response(Page(items=[webhook_json(hook) for hook in mine if hook.state != "deleted"]))


async def delete_webhook(request: web.Request) -> web.Response:
    """End one of the reader's own webhooks; what is on its way may still arrive."""
    commons, peer = await _visit_own(request)
    name = parameters.ID.read(request)
    now_s = request.app[CLOCK].look() // 1000
    if not await request.app[WEBHOOKS].delete(commons.id, peer, name, now_s=now_s):
        raise Refused("not-found", "you have no webhook of this id here")
    return web.Response(status=204)


async def _visit_own(request: web.Request) -> tuple[Commons, bytes]:
    """A visit by somebody who has shown who it is."""
    here = await visit(request)
    if here.sight.peer is None:
        raise Refused("bad-token", "webhooks are shown to their own peer: say who you are, with a token")
    return here.commons, here.sight.peer


def webhook_json(hook: Webhook) -> WebhookRow:
    """A webhook as its peer sees it."""
    return WebhookRow(
        id=id_text(hook.id),
        url=hook.url,
        types=list(hook.types),
        scope="all" if hook.every_entry else "own",
        state=hook.state,  # type: ignore[arg-type]  # the database checks it
        after=hook.seen,
        failures=hook.failures,
        next_attempt=hook.next_ms if hook.failures and hook.state == "live" else UNSET,
        why=hook.why or UNSET,
    )


def _answer(row: WebhookRow, *, status: int) -> web.Response:
    response = json_response(row)
    response.set_status(status)
    # A secret is nothing for a cache.
    response.headers["Cache-Control"] = "no-store"
    return response

"""`POST /v1/prepare`: the fields of a statement in, the bytes to sign and what they would do out (SPEC §7.1).

Owns who may ask, what is filled in, and what the answer tells whom. With it, whoever has `curl` and `openssl` has a
wallet. The forms are `forms`', the decision is `preview`'s. Nothing is changed, and a text is sealed but not kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from msgspec import UNSET

from gesell_ledger.api import answers
from gesell_ledger.api.forms import AnyForm, Found, Join, fields_of, handles_of, read_form, read_name
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import LEDGER, MIN_TICK_SECONDS
from gesell_ledger.api.receiving import BODIES, receive
from gesell_ledger.api.rights import BEARER, CLOCK, READER, look, nowhere
from gesell_ledger.api.shapes import JSON
from gesell_ledger.core.decide import Accepted, Outcome
from gesell_ledger.core.visibility import EVERYTHING, Sight
from gesell_ledger.preview import preview
from gesell_ledger.storage.faults import ClockFault
from gesell_protocol.envelopes import SALT_BYTES, STATEMENT_PREFIX, Envelope, Memo, has_control_characters
from gesell_protocol.log import Posting
from gesell_protocol.names import base64url, did_of, id_text, time_of_id, uuid7
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import (
    EXPIRES_MAX_MS,
    Capture,
    Leave,
    Statement,
    Vouch,
    read_statement,
    write_body,
)

PREPARE_MAX_BYTES: Final = 64 * 1024
#: For how long a statement is good if its author does not say, in milliseconds of real time.
LIFETIME_MS: Final = 5 * 60 * 1000
#: With what it may refuse; what the statement itself would be refused with stands in the preview.
REFUSALS: Final = ("bad-token", "not-authorised", "unknown-commons", "unknown-member")


@dataclass(frozen=True, slots=True)
class _Asker:
    """What the one who asks sees of the commons, and the only key that it is taken to have signed with; None where it
    sees the members, so that nothing is told by taking all to have signed.
    """

    sight: Sight
    alone: bytes | None


async def post_prepare(request: web.Request) -> web.Response:
    """Write a statement for its author to sign.

    Answers the body, the bytes to sign (`to_sign`), the memo with the salt of its seal, and a preview: the postings
    that the statement would make now if everybody had signed who must, or the problem with which it would be refused.
    Changes nothing. Needs a token of `by`, unless the commons is open or still to be founded.
    """
    if request.content_type != JSON:
        raise Refused("unsupported-media-type", f"send {JSON}")
    with request.app[BODIES].hold() as take:
        data = await receive(request, take, max_bytes=PREPARE_MAX_BYTES)
    with _reading():
        form = read_form(data)
        handles = handles_of(form)
    asker = await _ask(request, form)
    holders = await _find_holders(request, form, handles, asker.sight)
    with _reading():
        fields = fields_of(form, holders)
    try:
        return await _prepare(request, form, fields, asker)
    except ClockFault as fault:
        raise Refused("unavailable", str(fault)) from None
    except Rejected as rejected:
        raise Refused(rejected.refusal.code, rejected.refusal.detail) from None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not a statement in JSON: {error}") from None


async def _prepare(request: web.Request, form: AnyForm, fields: dict[str, Any], asker: _Asker) -> web.Response:
    clock, ledger = request.app[CLOCK], request.app[LEDGER]
    now = clock.now_ms()
    fields.setdefault("id", uuid7(now, secrets.token_bytes(10)))
    # A demo's clock runs ahead of whoever has to type: the five minutes are theirs.
    lifetime = min(LIFETIME_MS * clock.speed, EXPIRES_MAX_MS)
    fields.setdefault("expires", max(now, time_of_id(fields["id"])) + lifetime)
    if isinstance(form, Found):
        fields.setdefault("ledger", ledger)
    memo = None if form.memo is UNSET else _seal(form.memo)
    fields["memo"] = None if memo is None else memo.seal()
    body = write_body(fields)
    statement = read_statement(Envelope(body, (), memo), min_tick_seconds=request.app[MIN_TICK_SECONDS])
    outcome = await preview(request.app[READER], statement, body, now_ms=now, ledger=ledger, alone=asker.alone)
    answer = answers.Prepared(
        commons=statement.commons.hex(),
        by=did_of(statement.by),
        id=id_text(statement.id),
        expires=statement.expires_ms,
        body=base64url(body),
        to_sign=base64url(STATEMENT_PREFIX + body),
        memo=UNSET if memo is None else answers.memo_json(memo),
        preview=_preview_json(_kept_back(statement, outcome, asker.sight), asker.sight),
    )
    return answers.json_response(answer)


def _seal(text: str) -> Memo:
    if has_control_characters(text, but="\n\t"):
        raise Refused("malformed", "memo: no control characters but newline and tab")
    return Memo(secrets.token_bytes(SALT_BYTES), text)


# ── Who asks ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _ask(request: web.Request, form: AnyForm) -> _Asker:
    """Whether who asks may; raises `Refused`: `bad-token`, `not-authorised` for another's statement, and for who may
    see nothing of the commons `unknown-commons`, unless it asks to join.
    """
    bearer = request[BEARER]
    if isinstance(form, Found):
        return _Asker(EVERYTHING, None)
    reader = request.app[READER]
    found = await reader.load_commons(bytes.fromhex(form.commons))
    if found is None:
        raise nowhere()
    commons, _ = found
    now = max(request.app[CLOCK].look(), commons.at_ms)
    if commons.policy_at(now).visibility == "open":
        return _Asker(EVERYTHING, None)
    sight = await look(reader, commons, bearer, now_ms=now)
    if bearer is None:
        raise nowhere()
    own = await _names(request, form.by, commons.id, bearer.peer)
    if sight is None:
        if not (isinstance(form, Join) and own and bearer.key == bearer.peer):
            raise nowhere()
        sight = Sight(peer=bearer.peer, whole=False, every_entry=False, belonged=False)
    if not own:
        raise Refused("not-authorised", "a statement is prepared for who speaks, and the token is another's")
    return _Asker(sight, None if sight.whole else bearer.key)


async def _names(request: web.Request, text: str, commons: bytes, peer: bytes) -> bool:
    """Whether a text names this peer, by its key or by the handle that it holds."""
    name = read_name(text)
    if isinstance(name, str):
        name = (await request.app[READER].find_holders(commons, [name])).get(name, b"")
    return name == peer


async def _find_holders(request: web.Request, form: AnyForm, handles: set[str], sight: Sight) -> dict[str, bytes]:
    """The keys behind the handles that a form names; who may not see the members finds none but itself."""
    if not handles:
        return {}
    if isinstance(form, Found):
        raise Refused("malformed", "a founding names peers by did or key: nobody has a handle yet")
    found = await request.app[READER].find_holders(bytes.fromhex(form.commons), handles)
    holders = {handle: peer for handle, peer in found.items() if sight.member(peer)}
    for handle in sorted(handles - set(holders)):
        raise Refused("unknown-member", f"there is no member {handle} in this commons")
    return holders


# ── What it tells ────────────────────────────────────────────────────────────────────────────────────────────────


def _preview_json(outcome: Outcome, sight: Sight) -> answers.Preview:
    if isinstance(outcome, Refusal):
        return answers.Preview(problem=answers.problem_json(outcome))
    return answers.Preview(postings=[answers.posting_json(one) for one in _seen(outcome.entry.postings, sight)])


def _kept_back(statement: Statement, outcome: Outcome, sight: Sight) -> Outcome:
    """What becomes of some statements tells what another's account holds: who may not see it sends them to learn."""
    if sight.every_entry or not isinstance(statement, (Vouch, Capture, Leave)):
        return outcome
    if isinstance(outcome, Accepted) or (isinstance(outcome, Refusal) and outcome.code == "vouch-in-use"):
        return Refusal(code="not-authorised", detail="it depends on an account that is not for you: send it to see")
    return outcome


def _seen(postings: Sequence[Posting], sight: Sight) -> Iterator[Posting]:
    """The postings without the melt of accounts that the asker may not see: it tells what they hold, and a preview
    that nobody hears of is no price for that. The melt of an account is two postings, one after the other.
    """
    hidden = False
    for posting in postings:
        if hidden:
            hidden = False
        elif posting.reason == "melt" and isinstance(posting.holder, bytes) and not sight.account_of(posting.holder):
            hidden = True
        else:
            yield posting

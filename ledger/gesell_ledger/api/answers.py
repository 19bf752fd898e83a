"""The shapes of the answers (SPEC §7), and how the core's values become them.

Owns the JSON of every read, of receipts and of problems: the Structs are what is encoded and what the OpenAPI document
describes. In JSON grains are strings of digits, bytes are hex, UUID text, did or base64url as SPEC §7.1 says. Knows no
request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gesell_ledger.api import shapes
from gesell_ledger.api.shapes import (
    Base64url,
    CommonsName,
    Count,
    Did,
    GiftScale,
    Hash,
    Id,
    KindCode,
    Moment,
    Seq,
    SignedGrains,
    Tick,
)
from gesell_ledger.core.books import Commons, Entry, Key, Member
from gesell_ledger.core.present import Shown
from gesell_ledger.sequencer import Answer, Receipted
from gesell_ledger.storage.reading import GiftCounts, Line
from gesell_protocol import envelopes
from gesell_protocol.fields import STEWARDS_MAX
from gesell_protocol.log import Posting, Signatures
from gesell_protocol.names import Holder, base64url, did_of, id_text
from gesell_protocol.policy import Policy
from gesell_protocol.receipts import Receipt as ReceiptValue
from gesell_protocol.refusals import CODES, Refusal
from gesell_protocol.statements import TYPES

#: What was refused may be quoted in `detail`; an answer must not grow with the nonsense it answers.
DETAIL_MAX_CHARS: Final = 500

Code = Annotated[str, Meta(extra_json_schema={"enum": list(CODES)}, description="Why it was refused (SPEC §7.4).")]
TypeName = Annotated[str, Meta(extra_json_schema={"enum": list(TYPES)}, description="The type of a statement.")]
T = TypeVar("T")


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an answer: encoded as it stands, fields that are UNSET left out."""


def json_response(answer: Answered) -> web.Response:
    """An answer as JSON."""
    return web.Response(body=msgspec.json.encode(answer), content_type=shapes.JSON)


# ── Problems and receipts ────────────────────────────────────────────────────────────────────────────────────────


class Problem(Answered, frozen=True, kw_only=True):
    """What was refused and why (RFC 9457); nothing was changed."""

    type: Annotated[str, Meta(pattern="^urn:gesell:problem:[a-z-]+$")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(max_length=DETAIL_MAX_CHARS, description="A sentence for people.")]
    code: Code
    available: Annotated[SignedGrains, Meta(description="With insufficient-funds: what is there.")] | UnsetType = UNSET
    needed: Annotated[SignedGrains, Meta(description="With insufficient-funds: what it takes.")] | UnsetType = UNSET
    limit: Annotated[SignedGrains, Meta(description="With limit-exceeded: the limit.")] | UnsetType = UNSET


class Receipt(Answered, frozen=True, kw_only=True):
    """What the author of an accepted statement gets."""

    commons: CommonsName
    seq: Seq
    at: Moment
    tick: Tick
    id: Id
    leaf: Hash
    postings: list[shapes.Posting]


class Accepted(Answered, frozen=True, kw_only=True, tag_field="status", tag="accepted"):
    """The statement took effect, and that is durable."""

    receipt: Receipt


class Replayed(Answered, frozen=True, kw_only=True, tag_field="status", tag="replayed"):
    """The statement had taken effect before."""

    receipt: Receipt


class Refused(Answered, frozen=True, kw_only=True, tag_field="status", tag="refused"):
    """The statement did nothing."""

    problem: Problem


class Results(Answered, frozen=True, kw_only=True):
    """One result a statement, in the order sent."""

    results: list[Accepted | Replayed | Refused]


class Preview(Answered, frozen=True, kw_only=True):
    """What a statement would do now if everybody had signed who must: its postings, or the problem."""

    postings: list[shapes.Posting] | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class Prepared(Answered, frozen=True, kw_only=True):
    """A statement, written and not signed yet. What is signed are the bytes of `to_sign`."""

    commons: CommonsName
    by: Did
    id: Id
    expires: Moment
    body: Base64url
    to_sign: Base64url
    memo: Annotated[shapes.Memo, Meta(description="To be sent beside the body.")] | UnsetType = UNSET
    preview: Annotated[
        Preview, Meta(extra_json_schema={"oneOf": [{"required": ["postings"]}, {"required": ["problem"]}]})
    ]


def holder_json(holder: Holder) -> str:
    """A did for a peer, the plain word for a reserved holder."""
    return holder if isinstance(holder, str) else did_of(holder)


def posting_json(posting: Posting) -> tuple[str, str, str, str]:
    """`[reason, holder, asset, amount]`."""
    return posting.reason, holder_json(posting.holder), posting.asset, str(posting.amount)


def memo_json(memo: envelopes.Memo) -> shapes.Memo:
    """A memo's text with the salt of its seal."""
    return shapes.Memo(salt=base64url(memo.salt), text=memo.text)


def receipt_json(receipt: ReceiptValue) -> Receipt:
    """A receipt as SPEC §7.1 has it in JSON."""
    return Receipt(
        commons=receipt.commons.hex(),
        seq=receipt.seq,
        at=receipt.at_ms,
        tick=receipt.tick,
        id=id_text(receipt.id),
        leaf=receipt.leaf.hex(),
        postings=[posting_json(posting) for posting in receipt.postings],
    )


def problem_wire(refusal: Refusal) -> dict[str, Any]:
    """RFC 9457 problem details with ints, as MessagePack answers carry them."""
    status, title = CODES[refusal.code]
    return {
        "type": f"urn:gesell:problem:{refusal.code}",
        "title": title,
        "status": status,
        "detail": _quotable(refusal.detail),
        "code": refusal.code,
        **refusal.fields,
    }


def _quotable(detail: str) -> str:
    """A sentence that may quote what a stranger sent: short, and nothing in it that a terminal would obey."""
    short = detail[:DETAIL_MAX_CHARS]
    return short if short.isprintable() else "".join(char if char.isprintable() else "?" for char in short)


def problem_json(refusal: Refusal) -> Problem:
    """The same with amounts and limits as strings of digits."""
    return Problem(**{**problem_wire(refusal), **{name: str(value) for name, value in refusal.fields.items()}})


def result_wire(answer: Answer) -> dict[str, Any]:
    """One statement's result for MessagePack, as one of a list."""
    if isinstance(answer, Receipted):
        return {"status": "replayed" if answer.replayed else "accepted", "receipt": answer.receipt.wire()}
    return {"status": "refused", "problem": problem_wire(answer)}


def result_json(answer: Answer) -> Accepted | Replayed | Refused:
    """The same for JSON."""
    if not isinstance(answer, Receipted):
        return Refused(problem=problem_json(answer))
    receipt = receipt_json(answer.receipt)
    return Replayed(receipt=receipt) if answer.replayed else Accepted(receipt=receipt)


# ── The service and its commons ──────────────────────────────────────────────────────────────────────────────────


class Page(Answered, Generic[T], frozen=True, kw_only=True):
    """A page of a list; while there is more, the header `Link` with rel="next" tells where."""

    items: list[T]


class Limits(Answered, frozen=True, kw_only=True):
    """What the service takes: the shortest tick of a policy, and how much at once."""

    min_tick_seconds: Annotated[int, Meta(ge=1)]
    statements: Count
    request_bytes: Count
    body_bytes: Count
    envelope_bytes: Count


class Service(Answered, frozen=True, kw_only=True):
    """A ledger: whose it is, its clock, its limits."""

    ledger: Did
    version: str
    time: Moment
    clock_speed: Annotated[int, Meta(ge=1, description="1 on a real clock.")]
    limits: Limits


class Health(Answered, frozen=True, kw_only=True):
    """That all is well; a problem says otherwise."""

    status: Literal["ok", "ready"]


class Announced(Answered, frozen=True, kw_only=True):
    """A policy that is not in force yet."""

    from_tick: Tick
    policy: shapes.Policy


class Kind(Answered, frozen=True, kw_only=True):
    """A kind of gift: its code, and the unit of which it counts 10^-scale."""

    code: KindCode
    name: shapes.Title
    unit: shapes.Unit
    scale: GiftScale


class CommonsPage(Answered, frozen=True, kw_only=True):
    """A commons: its rules, its stewards, its money."""

    commons: CommonsName
    name: shapes.Title
    ledger: Did
    currency: shapes.Currency
    policy: Annotated[shapes.Policy, Meta(description="The policy in force.")]
    upcoming: list[Announced]
    stewards: Annotated[list[Did], Meta(min_length=1, max_length=STEWARDS_MAX)]
    threshold: Annotated[int, Meta(ge=1, le=STEWARDS_MAX)]
    kinds: list[Kind]
    seq: Annotated[Seq, Meta(description="The number of the last entry.")]
    at: Annotated[Moment, Meta(description="The time of the last entry.")]
    tick: Annotated[Tick, Meta(description="The tick now.")]
    supply: Annotated[SignedGrains, Meta(description="Issued less retired.")]
    pool: SignedGrains
    escrow: SignedGrains
    members: Annotated[Count, Meta(description="How many are active.")]
    melt_due: (
        Annotated[
            SignedGrains,
            Meta(description="Melted by now and not posted yet; absent in the list, and where it costs much."),
        ]
        | UnsetType
    ) = UNSET


def policy_json(policy: Policy) -> shapes.Policy:
    """A policy with its grains as strings of digits."""
    fields: dict[str, Any] = {
        **policy.fields(),
        "brackets": [(str(start), ppb) for start, ppb in policy.brackets],
        "credit_limit": str(policy.credit_limit),
        "vouch_min": str(policy.vouch_min),
    }
    return shapes.Policy(**fields)


def commons_json(
    commons: Commons, *, tick: int, supply: int, pool: int, escrow: int, melt_due: int | None
) -> CommonsPage:
    """A commons as its readers see it. `tick` is now's; `melt_due` is left out where it would cost too much to tell."""
    return CommonsPage(
        commons=commons.id.hex(),
        name=commons.name,
        ledger=did_of(commons.ledger),
        currency=shapes.Currency(code=commons.currency.code, scale=commons.currency.scale),
        policy=policy_json(commons.timeline.policy_at(tick)),
        upcoming=[
            Announced(from_tick=from_tick, policy=policy_json(policy))
            for from_tick, policy in commons.timeline.waiting(tick)
        ],
        stewards=[did_of(steward) for steward in commons.stewards],
        threshold=commons.threshold,
        kinds=[Kind(code=one.code, name=one.name, unit=one.unit, scale=one.scale) for one in commons.kinds.values()],
        seq=commons.seq,
        at=commons.at_ms,
        tick=tick,
        supply=str(supply),
        pool=str(pool),
        escrow=str(escrow),
        members=commons.active_members,
        melt_due=UNSET if melt_due is None else str(melt_due),
    )


# ── Members and their accounts ───────────────────────────────────────────────────────────────────────────────────


class MemberRow(Answered, frozen=True, kw_only=True):
    """A member of a commons."""

    peer: Did
    handle: shapes.Handle
    status: Literal["pending", "active", "suspended", "left"]
    joined: Moment
    credit_limit: Annotated[
        SignedGrains, Meta(description="How far below zero it may go: the policy's limit and what others vouch for it.")
    ]
    keys: Annotated[list[Did], Meta(description="The keys that may sign for it.")]


class Balance(Answered, frozen=True, kw_only=True):
    """One asset of a member's, at a moment."""

    asset_code: shapes.AssetCode
    asset_scale: shapes.Scale
    balance: Annotated[SignedGrains, Meta(description="What there is, after melt.")]
    available: Annotated[SignedGrains, Meta(description="Balance and credit limit, at least 0.")]
    escrow: Annotated[SignedGrains, Meta(description="What is set aside as payer.")]
    posted: Annotated[SignedGrains, Meta(description="The sum of the postings.")]
    next_melt: Annotated[SignedGrains, Meta(description="What the end of this tick takes if nothing moves.")]


class GiftCount(Answered, frozen=True, kw_only=True):
    """Gifts of one kind: what a member gave and what it received. Neither is a debt."""

    asset_code: KindCode
    asset_scale: GiftScale
    given: Annotated[shapes.Total, Meta(description="Given, and thanked for.")]
    received: Annotated[shapes.Total, Meta(description="Received, and thanked for.")]


class Balances(Answered, frozen=True, kw_only=True):
    """A member's money at a moment, beside it what it gave and received by then, and the last entry by then."""

    items: list[Balance]
    gifts: list[GiftCount]
    at: Moment
    tick: Count
    seq: Seq


class HistoryLine(Answered, frozen=True, kw_only=True):
    """One posting of an account, and the balance after it."""

    seq: Seq
    at: Moment
    type: TypeName
    id: Id
    reason: str
    amount: SignedGrains
    balance: SignedGrains
    counterpart: Annotated[shapes.HolderName | None, Meta(description="null where there are several.")]
    category: shapes.Category | UnsetType = UNSET
    ref: Id | UnsetType = UNSET
    memo: shapes.Text | UnsetType = UNSET


def member_json(member: Member, ring: Sequence[Key], *, policy_limit: int) -> MemberRow:
    """A member; `ring` are its keys that its own name does not tell of, `policy_limit` is what each member has."""
    keys = {member.peer: True} | {key.key: key.live for key in ring}
    return MemberRow(
        peer=did_of(member.peer),
        handle=member.handle,
        status=member.status,  # type: ignore[arg-type]  # the core has it as str, and the database checks it
        joined=member.joined_ms,
        credit_limit=str(member.credit_limit(policy_limit)),
        keys=[did_of(key) for key, live in keys.items() if live],
    )


def balance_json(commons: Commons, shown: Shown) -> Balance:
    """One asset of a member's balances."""
    return Balance(
        asset_code=commons.currency.code,
        asset_scale=commons.currency.scale,
        balance=str(shown.balance),
        available=str(shown.available),
        escrow=str(shown.escrow),
        posted=str(shown.posted),
        next_melt=str(shown.next_melt),
    )


def gift_count_json(commons: Commons, count: GiftCounts) -> GiftCount:
    """One kind of gifts among a member's balances."""
    return GiftCount(
        asset_code=count.kind,
        asset_scale=commons.kinds[count.kind].scale,
        given=str(count.given),
        received=str(count.received),
    )


def line_json(line: Line, fields: Mapping[str, Any], counterpart: Holder | None) -> HistoryLine:
    """One line of an account's history; `fields` are the body's."""
    return HistoryLine(
        seq=line.seq,
        at=line.at_ms,
        type=fields["type"],
        id=id_text(line.id),
        reason=line.reason,
        amount=str(line.amount),
        balance=str(line.balance),
        counterpart=None if counterpart is None else holder_json(counterpart),
        category=fields.get("category", UNSET),
        ref=id_text(fields["ref"]) if "ref" in fields else UNSET,
        memo=UNSET if line.memo is None else line.memo,
    )


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────────────────────


class SignatureRow(Answered, frozen=True, kw_only=True):
    """A signature and the key that made it."""

    key: Did
    signature: shapes.Signature


class EntryRow(Answered, frozen=True, kw_only=True):
    """An entry with all that is needed to hash and verify it again."""

    seq: Seq
    at: Moment
    type: TypeName
    by: Did
    id: Id
    body: Base64url
    signatures: Annotated[list[SignatureRow], Meta(min_length=1, max_length=envelopes.SIGNATURES_MAX)]
    postings: list[shapes.Posting]
    leaf: Hash
    memo: shapes.Memo | UnsetType = UNSET


def signature_rows(signatures: Signatures) -> list[SignatureRow]:
    """Signatures as they are shown, in their order."""
    return [SignatureRow(key=did_of(key), signature=base64url(signature)) for key, signature in signatures]


def entry_json(entry: Entry, memo: envelopes.Memo | None) -> EntryRow:
    """An entry and, if its text is there and may be shown, its memo."""
    fields = entry.fields()
    return EntryRow(
        seq=entry.seq,
        at=entry.at_ms,
        type=fields["type"],
        by=did_of(fields["by"]),
        id=id_text(entry.id),
        body=base64url(entry.body),
        signatures=signature_rows(entry.signatures),
        postings=[posting_json(posting) for posting in entry.postings],
        leaf=entry.leaf.hex(),
        memo=UNSET if memo is None else memo_json(memo),
    )

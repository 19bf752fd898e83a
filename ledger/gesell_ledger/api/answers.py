"""The shapes of the answers (SPEC §7), and how the core's values become them.

Owns the JSON of every read and of receipts and problems, in both formats. In JSON grains are strings of digits, bytes
are hex, UUID text, did or base64url as SPEC §7.1 says. Knows no request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gesell_ledger.core.books import Commons, Entry, Key, Member
from gesell_ledger.core.present import Shown
from gesell_ledger.sequencer import Answer, Receipted
from gesell_ledger.storage.reading import Line
from gesell_protocol.envelopes import Memo
from gesell_protocol.log import Posting
from gesell_protocol.names import Holder, base64url, did_of, id_text
from gesell_protocol.policy import Policy
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import CODES, Refusal

Json = dict[str, Any]

#: What was refused may be quoted in `detail`; an answer must not grow with the nonsense it answers.
DETAIL_MAX_CHARS: Final = 500

#: The gift kind that every commons has from its founding on (SPEC §3.3).
HOUR = {"code": "hour", "name": "hour", "unit": "h", "scale": 2}


def holder_json(holder: Holder) -> str:
    """A did for a peer, the plain word for a reserved holder."""
    return holder if isinstance(holder, str) else did_of(holder)


def posting_json(posting: Posting) -> list[str]:
    """`[reason, holder, asset, amount]`."""
    return [posting.reason, holder_json(posting.holder), posting.asset, str(posting.amount)]


def receipt_json(receipt: Receipt) -> Json:
    """A receipt as SPEC §7.1 has it in JSON."""
    return {
        "commons": receipt.commons.hex(),
        "seq": receipt.seq,
        "at": receipt.at_ms,
        "tick": receipt.tick,
        "id": id_text(receipt.id),
        "leaf": receipt.leaf.hex(),
        "postings": [posting_json(posting) for posting in receipt.postings],
    }


def problem(refusal: Refusal) -> Json:
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


def problem_json(refusal: Refusal) -> Json:
    """The same with amounts and limits as strings of digits."""
    return {**problem(refusal), **{name: str(value) for name, value in refusal.fields.items()}}


def result(answer: Answer, *, as_json: bool) -> Json:
    """One statement's result, as one of a list."""
    if isinstance(answer, Receipted):
        status = "replayed" if answer.replayed else "accepted"
        return {"status": status, "receipt": receipt_json(answer.receipt) if as_json else answer.receipt.wire()}
    return {"status": "refused", "problem": problem_json(answer) if as_json else problem(answer)}


def policy_json(policy: Policy) -> Json:
    """A policy with its grains as strings of digits."""
    return {
        **policy.fields(),
        "brackets": [[str(start), ppb] for start, ppb in policy.brackets],
        "credit_limit": str(policy.credit_limit),
        "vouch_min": str(policy.vouch_min),
    }


def commons_json(commons: Commons, *, tick: int, supply: int, pool: int, escrow: int, melt_due: int | None) -> Json:
    """A commons as its readers see it. `tick` is now's; `melt_due` is left out where it would cost too much to tell."""
    answer = {
        "commons": commons.id.hex(),
        "name": commons.name,
        "ledger": did_of(commons.ledger),
        "currency": {"code": commons.currency.code, "scale": commons.currency.scale},
        "policy": policy_json(commons.timeline.policy_at(tick)),
        "upcoming": [
            {"from_tick": from_tick, "policy": policy_json(policy)}
            for from_tick, policy in commons.timeline.waiting(tick)
        ],
        "stewards": [did_of(steward) for steward in commons.stewards],
        "threshold": commons.threshold,
        "kinds": [HOUR],
        "seq": commons.seq,
        "at": commons.at_ms,
        "tick": tick,
        "supply": str(supply),
        "pool": str(pool),
        "escrow": str(escrow),
        "members": commons.active_members,
    }
    if melt_due is not None:
        answer["melt_due"] = str(melt_due)
    return answer


def member_json(member: Member, ring: Sequence[Key], *, credit_limit: int) -> Json:
    """A member; `ring` are its keys that its own name does not tell of, `keys` those that are live."""
    keys = {member.peer: True} | {key.key: key.live for key in ring}
    return {
        "peer": did_of(member.peer),
        "handle": member.handle,
        "status": member.status,
        "joined": member.joined_ms,
        "credit_limit": str(credit_limit),
        "keys": [did_of(key) for key, live in keys.items() if live],
    }


def balance_json(commons: Commons, shown: Shown) -> Json:
    """One asset of a member's balances."""
    return {
        "asset_code": commons.currency.code,
        "asset_scale": commons.currency.scale,
        "balance": str(shown.balance),
        "available": str(shown.available),
        "escrow": str(shown.escrow),
        "posted": str(shown.posted),
        "next_melt": str(shown.next_melt),
    }


def line_json(line: Line, fields: Mapping[str, Any], counterpart: Holder | None) -> Json:
    """One line of an account's history; `fields` are the body's."""
    answer: Json = {
        "seq": line.seq,
        "at": line.at_ms,
        "type": fields["type"],
        "id": id_text(line.id),
        "reason": line.reason,
        "amount": str(line.amount),
        "balance": str(line.balance),
        "counterpart": None if counterpart is None else holder_json(counterpart),
    }
    if "category" in fields:
        answer["category"] = fields["category"]
    if line.memo is not None:
        answer["memo"] = line.memo
    return answer


def entry_json(entry: Entry, memo: Memo | None) -> Json:
    """An entry with all that is needed to hash and verify it again."""
    fields = entry.fields()
    answer: Json = {
        "seq": entry.seq,
        "at": entry.at_ms,
        "type": fields["type"],
        "by": did_of(fields["by"]),
        "id": id_text(entry.id),
        "body": base64url(entry.body),
        "signatures": [{"key": did_of(key), "signature": base64url(signature)} for key, signature in entry.signatures],
        "postings": [posting_json(posting) for posting in entry.postings],
        "leaf": entry.leaf.hex(),
    }
    if memo is not None:
        answer["memo"] = {"salt": base64url(memo.salt), "text": memo.text}
    return answer

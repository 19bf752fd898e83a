"""The one way in: a statement and the Books in, a Decision, a replay or a Refusal out (SPEC §3).

Owns the order of checks. What each type of statement asks and does stands in `membership`, `money`, `holds`,
`gifts` and `trust`.

1. The commons exists (a `found` makes it, if it is meant for this ledger).
2. A known id: the same body is a replay, if its author signs it again, another a conflict.
3. Time: the id not ahead of the clock, the statement not expired.
4. Authority: a key of `by` has signed, and stewards enough where stewards speak.
5. The standing of `by`.
6. The object spoken of, the other peers, limits, funds: the area's own business, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gesell_ledger.core import gifts, holds, membership, money, trust
from gesell_ledger.core.books import ACTIVE, LEFT, PENDING, SUSPENDED, Books, Decision, Entry, Known, Member
from gesell_ledger.core.visibility import mentions_of, sides_of
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import time_of_id
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import LEDGER_TYPES, Found, Statement, answered_by

EARLY_MS: Final = 120_000


class Submission(NamedTuple):
    """A statement with the envelope that carries it; every signature has been verified."""

    envelope: Envelope
    statement: Statement


class Replay(NamedTuple):
    """The statement was accepted before, as this entry."""

    entry: Entry


class Accepted(NamedTuple):
    """The statement's entry, what it changes, and the parties that its postings do not tell of; nothing has been
    applied yet.
    """

    entry: Entry
    decision: Decision
    mentions: tuple[bytes, ...] = ()


Outcome = Accepted | Replay | Refusal

_Decider = Callable[[Books, Submission, int], Decision | Refusal]

#: Who may speak a type: a member in one of these standings …
_ANY_STANDING: Final = frozenset({ACTIVE, SUSPENDED, PENDING})
_INSIDE: Final = frozenset({ACTIVE, SUSPENDED})
_STANDINGS: Final[Mapping[str, frozenset[str]]] = {
    "keys": _ANY_STANDING,
    "leave": _ANY_STANDING,
    "erase": _ANY_STANDING,
    "retire": frozenset({ACTIVE}),
    "pay": frozenset({ACTIVE}),
    "gift": frozenset({ACTIVE}),
    "thank": _INSIDE,
    "decline": _INSIDE,
    "withdraw": _INSIDE,
    "vouch": frozenset({ACTIVE}),
    "hold": frozenset({ACTIVE}),
    "capture": _INSIDE,
    "void": _INSIDE,
}
#: … or stewards, who need not be members.
_STEWARD_TYPES: Final = frozenset(
    {"admit", "suspend", "policy", "stewards", "issue", "grant", "share", "kind", "writeoff"}
)
#: What a steward may speak without being a member, and a member without being a steward: a memo to erase, a gift to
#: the commons to take. Whose it is, is looked at with the object.
_EITHER: Final = frozenset({"erase", "thank", "decline"})

_DECIDERS: Final[Mapping[str, _Decider]] = {
    "join": membership.decide_join,
    "admit": membership.decide_admit,
    "suspend": membership.decide_suspend,
    "leave": membership.decide_leave,
    "keys": membership.decide_keys,
    "policy": membership.decide_policy,
    "stewards": membership.decide_stewards,
    "erase": membership.decide_erase,
    "issue": money.decide_issue,
    "retire": money.decide_retire,
    "pay": money.decide_pay,
    "grant": money.decide_grant,
    "share": money.decide_share,
    "kind": gifts.decide_kind,
    "gift": gifts.decide_gift,
    "thank": gifts.decide_thank,
    "decline": gifts.decide_decline,
    "withdraw": gifts.decide_withdraw,
    "vouch": trust.decide_vouch,
    "writeoff": trust.decide_writeoff,
    "hold": holds.decide_hold,
    "capture": holds.decide_capture,
    "void": holds.decide_void,
    "lapse": holds.decide_lapse,
    "sweep": money.decide_sweep,
    "rekey": membership.decide_rekey,
    "payout": money.decide_payout,
}


def decide(books: Books, submission: Submission, *, now_ms: int, ledger: bytes) -> Outcome:
    """Decide one statement against the books, and change nothing.

    `now_ms` is the ledger's clock; the entry's time is never less than that of the entry before. `ledger` is the
    public key of this ledger, for `found`. The outcome is the same whenever books and clock are the same.
    """
    statement = submission.statement
    commons = books.commons
    if commons is None and not isinstance(statement, Found):
        return Refusal(code="unknown-commons", detail="no commons of this name was founded here")
    if commons is None and isinstance(statement, Found) and statement.ledger != ledger:
        return Refusal(code="wrong-ledger", detail="the statement names another ledger's key")
    known = books.entries.get(statement.id)
    if known is not None:
        return _replay_or_conflict(books, known, submission)
    at_ms = max(now_ms, commons.at_ms) if commons is not None else now_ms
    refusal = _check_time(statement, at_ms)
    if refusal is not None:
        return refusal
    if isinstance(statement, Found):
        assert commons is None, "the same name is the same body, hence a known id"
        decision = membership.decide_found(submission)
    else:
        decision = _check_who(books, submission) or _DECIDERS[statement.type](books, submission, at_ms)
    if isinstance(decision, Refusal):
        return decision
    entry = Entry(
        commons=statement.commons,
        seq=(commons.seq if commons is not None else 0) + 1,
        at_ms=at_ms,
        id=statement.id,
        body=submission.envelope.body,
        signatures=submission.envelope.signatures,
        postings=decision.postings,
    )
    return Accepted(entry, decision, mentions_of(statement, decision.postings, _sides(books, statement)))


def _sides(books: Books, statement: Statement) -> frozenset[bytes]:
    """Whom the gift or the hold concerns that a statement answers."""
    name = answered_by(statement)
    if name is None:
        return frozenset()
    return sides_of(books.gifts.get(name) or books.holds[name])


def _replay_or_conflict(books: Books, known: Entry | Known, submission: Submission) -> Replay | Refusal:
    """The first receipt again, for who signed then or may speak for the author now: to anybody else, who may not read
    the entry, its postings would tell what others had.
    """
    if known.body != submission.envelope.body:
        return Refusal(code="id-conflict", detail="the id was used for a different statement")
    assert isinstance(known, Entry), "the entry of a statement that is said again is loaded whole"
    signers = submission.envelope.signers
    if any(key in signers for key, _ in known.signatures):
        return Replay(known)
    if membership.speaks_for(books, submission.statement.by, signers):
        return Replay(known)
    return Refusal(code="not-authorised", detail="no key of the peer who speaks has signed")


def _check_time(statement: Statement, at_ms: int) -> Refusal | None:
    ahead = time_of_id(statement.id) - at_ms
    if ahead > EARLY_MS:
        return Refusal(code="too-early", detail=f"the time inside the id is {ahead} ms ahead of the ledger's clock")
    if at_ms > statement.expires_ms:
        return Refusal(code="expired", detail=f"it expired {at_ms - statement.expires_ms} ms ago by the ledger's clock")
    return None


def _check_who(books: Books, submission: Submission) -> Refusal | None:
    """Rules 4 and 5: authority, then standing."""
    statement, signers = submission.statement, submission.envelope.signers
    kind = statement.type
    commons = books.commons
    assert commons is not None
    if kind in LEDGER_TYPES:
        if statement.by != commons.ledger or commons.ledger not in signers:
            return Refusal(code="not-authorised", detail=f"only the ledger itself speaks {kind}")
        return None
    if kind == "join":
        return membership.check_joining(books, statement, signers)
    if not membership.speaks_for(books, statement.by, signers):
        return Refusal(code="not-authorised", detail="no key of the peer who speaks has signed")
    if kind in _STEWARD_TYPES and not membership.stewards_speak(books, statement.by, signers):
        return Refusal(
            code="not-authorised",
            detail=f"{kind} takes {_stewards(commons.threshold)}",
        )
    refusal = membership.check_new_signers(books, statement, signers)
    # Stewards need not be members, so what they say asks for no standing.
    if refusal is not None or kind in _STEWARD_TYPES or (kind in _EITHER and statement.by in commons.stewards):
        return refusal
    return _check_standing(books.members.get(statement.by), kind)


def _stewards(threshold: int) -> str:
    return "the signature of a steward" if threshold == 1 else f"a steward and the signatures of {threshold} stewards"


def _check_standing(member: Member | None, kind: str) -> Refusal | None:
    if member is None or member.status == LEFT:
        return Refusal(code="unknown-member", detail="who speaks is not a member of this commons")
    if member.status not in _STANDINGS[kind]:
        return Refusal(code="not-active", detail=f"a {member.status} member may not {kind}")
    return None

"""Founding, membership, keys, stewards, policy, the ledger's own key (SPEC §3.1, §3.6, §5.1).

Owns who belongs, who may speak for whom, and how the rules of a commons change. Knows no money beyond what a
leaving member takes to the pool.

1. A key belongs to one peer, once and for all. The books keep a `Key` only for what a member's own name does not
   say: keys of stewards, added keys, revoked keys.
2. Stewards speak when `by` is a steward and at least `threshold` of them have signed, each counted once.
3. Joining is at once where admission is open and the peer was not suspended, and a request elsewhere.
4. A handle is taken from the moment its bearer is active and never passes to another peer.
5. A policy change is announced ahead, never reaches back, and never touches `tick_seconds` or `melt_to`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from gesell_ledger.core import money, vouches
from gesell_ledger.core.books import (
    ACTIVE,
    LEFT,
    PENDING,
    POOL,
    SUSPENDED,
    Books,
    Commons,
    Decision,
    Key,
    Member,
    covers,
)
from gesell_protocol.policy import Policy, Timeline
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import (
    Admit,
    ChangePolicy,
    ChangeStewards,
    Erase,
    Found,
    Join,
    Keys,
    Leave,
    Rekey,
    Statement,
    Suspend,
)

LIVE_KEYS_MAX: Final = 8
WAITING_POLICIES_MAX: Final = 16


# ── Authority ────────────────────────────────────────────────────────────────────────────────────────────────────


def peer_of_key(books: Books, key: bytes) -> bytes | None:
    """Whom a signature by `key` speaks for: its peer, itself where it is not in use yet, nobody once revoked."""
    known = books.keys.get(key)
    if known is None:
        return key
    return known.peer if known.live else None


def speaks_for(books: Books, peer: bytes, signers: Sequence[bytes]) -> bool:
    """Whether a live key of `peer` is among the signers (rule 1)."""
    # A plain loop: this runs for every statement, and nearly always ends at the first key.
    for key in signers:  # noqa: SIM110
        if peer_of_key(books, key) == peer:
            return True
    return False


def stewards_speak(books: Books, by: bytes, signers: Sequence[bytes]) -> bool:
    """Whether this is a joint word of the stewards (rule 2)."""
    commons = books.commons
    assert commons is not None
    if by not in commons.stewards:
        return False
    signed = {peer_of_key(books, key) for key in signers} & set(commons.stewards)
    return len(signed) >= commons.threshold


def check_new_signers(books: Books, statement: Statement, signers: Sequence[bytes]) -> Refusal | None:
    """Whether those who come into use have signed: each added key itself, each new steward with one of its keys."""
    assert books.commons is not None
    match statement:
        case Keys(add=added):
            if not all(key in signers for key in added):
                return Refusal(code="not-authorised", detail="each added key must sign with itself")
        case ChangeStewards(stewards=stewards):
            entering = set(stewards) - set(books.commons.stewards)
            if not all(_has_signed(books, steward, signers) for steward in entering):
                return Refusal(code="not-authorised", detail="each new steward must sign too")
    return None


def _has_signed(books: Books, entering: bytes, signers: Sequence[bytes]) -> bool:
    """Whether who comes into use has signed: with one of its keys, or itself where it is another peer's key (which
    is then refused as taken).
    """
    own = books.keys.get(entering)
    return entering in signers if own is not None and own.peer != entering else speaks_for(books, entering, signers)


def check_joining(books: Books, statement: Statement, signers: Sequence[bytes]) -> Refusal | None:
    """Authority and standing of who asks to join: its own key if it is new, one of its live keys otherwise."""
    if not _has_signed(books, statement.by, signers):
        return Refusal(code="not-authorised", detail="no key of the peer who speaks has signed")
    member = books.members.get(statement.by)
    if member is not None and member.status != LEFT:
        return Refusal(code="already-member", detail=f"the peer is {member.status} here already, as {member.handle}")
    return None


# ── Founding ─────────────────────────────────────────────────────────────────────────────────────────────────────


def decide_found(submission: money.Signed) -> Decision | Refusal:
    """`found`: the commons exists, with its stewards' keys in use and nobody a member yet."""
    found, signers = submission.statement, submission.envelope.signers
    assert isinstance(found, Found)
    if found.by not in found.stewards or found.by not in signers:
        return Refusal(code="not-authorised", detail="a commons is founded by one of its stewards, who signs")
    if len(set(signers) & set(found.stewards)) < found.threshold:
        return Refusal(code="not-authorised", detail=f"{found.threshold} of the stewards must sign")
    timeline = Timeline.of([(0, found.policy)])
    commons = Commons(
        id=found.commons,
        name=found.name,
        currency=found.currency,
        ledger=found.ledger,
        stewards=found.stewards,
        threshold=found.threshold,
        timeline=timeline,
    )
    keys = {steward: Key(steward, steward, 0) for steward in found.stewards}
    return Decision(commons=commons, keys=keys, policy=(0, found.policy))


def _check_credit(timeline: Timeline) -> Refusal | None:
    """Credit only where stewards have decided on every member from the founding on, or anybody could mint."""
    opened = False
    for _, policy in timeline.changes:
        opened = opened or policy.admission == "open"
        if opened and policy.credit_limit > 0:
            return Refusal(
                code="malformed",
                detail="credit_limit: 0 unless admission is by stewards from the founding on",
            )
    return None


# ── Membership ───────────────────────────────────────────────────────────────────────────────────────────────────


def decide_join(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`join`: active at once where admission is open, else pending (rules 3 and 4)."""
    join = submission.statement
    commons = books.commons
    assert isinstance(join, Join)
    assert commons is not None
    own = books.keys.get(join.by)
    if own is not None and own.peer != join.by:
        return Refusal(code="key-taken", detail="the key was added by another peer of this commons")
    before = books.members.get(join.by)
    if before is not None and before.handle_held and before.handle != join.handle:
        return Refusal(code="handle-taken", detail=f"who comes back comes under its old handle, {before.handle}")
    if books.held.get(join.handle, join.by) != join.by:
        return Refusal(code="handle-taken", detail=f"the handle {join.handle} is another member's")
    member = Member(
        peer=join.by,
        handle=join.handle,
        status=PENDING,
        joined_ms=at_ms,
        handle_held=before is not None and before.handle_held,
        barred=before is not None and before.barred,
        spans=before.spans if before is not None else (),
    )
    decision = Decision()
    if commons.policy_at(at_ms).admission == "open" and not member.barred:
        return _activate(books, decision, commons, member)
    decision.members[member.peer] = member
    return decision


def decide_admit(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`admit`: a pending or suspended member becomes active."""
    admit = submission.statement
    commons = books.commons
    assert isinstance(admit, Admit)
    assert commons is not None
    member = books.members.get(admit.peer)
    if member is None or member.status == LEFT:
        return Refusal(code="unknown-member", detail="the peer has not asked to join")
    if member.status == ACTIVE:
        return Refusal(code="wrong-state", detail="the member is active already")
    if books.held.get(member.handle, member.peer) != member.peer:
        return Refusal(code="handle-taken", detail=f"another member took the handle {member.handle} meanwhile")
    return _activate(books, Decision(), commons, structs.replace(member, barred=False))


def _activate(books: Books, decision: Decision, commons: Commons, member: Member) -> Decision:
    # Only an open share-out asks who was active before, so only the span that it looks at is kept: who comes and goes
    # a thousand times leaves no more behind than who did it once.
    share = books.shares[commons.share] if commons.share is not None else None
    asked = tuple(span for span in member.spans if share is not None and covers(span, share.seq))
    decision.members[member.peer] = structs.replace(
        member, status=ACTIVE, handle_held=True, spans=(*asked, (commons.seq + 1, None))
    )
    decision.commons = structs.replace(commons, active_members=commons.active_members + 1)
    return decision


def decide_suspend(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`suspend`: an active member is suspended; a pending request ends."""
    suspend = submission.statement
    commons = books.commons
    assert isinstance(suspend, Suspend)
    assert commons is not None
    member = books.members.get(suspend.peer)
    if member is None or member.status == LEFT:
        return Refusal(code="unknown-member", detail="the peer is not a member of this commons")
    if member.status == SUSPENDED:
        return Refusal(code="wrong-state", detail="the member is suspended already")
    if member.status == PENDING:
        return Decision(members={member.peer: structs.replace(member, status=LEFT)})
    decision = Decision()
    bar(books, decision, member)
    return decision


def bar(books: Books, decision: Decision, member: Member) -> None:
    """Suspend a member; one who is suspended stays so. `member` is its row as the decision has it so far."""
    assert books.commons is not None
    if member.status == ACTIVE:
        _deactivate(decision, books.commons, structs.replace(member, status=SUSPENDED, barred=True))


def _deactivate(decision: Decision, commons: Commons, member: Member) -> Decision:
    """Close the span of a member who was active; `member` carries its new status."""
    start, _ = member.spans[-1]
    decision.members[member.peer] = structs.replace(member, spans=(*member.spans[:-1], (start, commons.seq + 1)))
    decision.commons = structs.replace(commons, active_members=commons.active_members - 1)
    return decision


def decide_leave(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`leave`: with nothing owed; what is left goes to the pool."""
    leave = submission.statement
    commons = books.commons
    assert isinstance(leave, Leave)
    assert commons is not None
    member = books.members[leave.by]
    draft = money.Draft(books, at_ms)
    draft.bring_up([leave.by])
    balance = draft.balance(leave.by)
    if balance < 0:
        return Refusal(code="wrong-state", detail="who leaves owes nothing: the balance is below zero")
    if draft.escrow_of(leave.by) or member.awaits:
        return Refusal(code="wrong-state", detail="who leaves has no open hold, as payer or as payee")
    if balance > 0:
        draft.post("leave", [(leave.by, -balance), (POOL, balance)])
    else:
        draft = money.Draft(books, at_ms)
    decision = draft.decision()
    refusal = vouches.end_vouches(books, decision, leave.by, at_ms=at_ms) or draft.check_limits()
    if refusal is not None:
        return refusal
    gone = structs.replace(decision.members.get(leave.by, member), status=LEFT)
    if member.status == ACTIVE:
        return _deactivate(decision, commons, gone)
    decision.members[member.peer] = gone
    return decision


# ── Keys, stewards, policy ───────────────────────────────────────────────────────────────────────────────────────


def decide_keys(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`keys`: add and revoke keys of `by`; authority to add was checked before."""
    statement, signers = submission.statement, submission.envelope.signers
    commons = books.commons
    assert isinstance(statement, Keys)
    assert commons is not None
    own = {key.key: key for key in books.keys.values() if key.peer == statement.by}
    own.setdefault(statement.by, Key(statement.by, statement.by, 0))
    senior = min(own[key].order for key in signers if key in own and own[key].live)
    refusal = _check_revoked(own, statement.revoke, signers, senior)
    if refusal is not None:
        return refusal
    if any(key in books.keys or key in books.members for key in statement.add):
        return Refusal(code="key-taken", detail="a key that is added belongs to a peer of this commons already")
    live = sum(key.live for key in own.values()) - len(statement.revoke) + len(statement.add)
    if live < 1:
        return Refusal(code="limit-exceeded", detail="the last key can't be revoked", fields={"limit": 1})
    if live > LIVE_KEYS_MAX:
        return Refusal(
            code="limit-exceeded",
            detail=f"at most {LIVE_KEYS_MAX} keys are live at a time",
            fields={"limit": LIVE_KEYS_MAX},
        )
    changed = {key: structs.replace(own[key], live=False) for key in statement.revoke}
    # Keys of one statement rank alike: none of them was added after another.
    changed |= {key: Key(key, statement.by, commons.seq + 1) for key in statement.add}
    return Decision(keys=changed)


def _check_revoked(
    own: dict[bytes, Key], revoked: Sequence[bytes], signers: Sequence[bytes], senior: int
) -> Refusal | None:
    """A key may revoke itself and keys added after it; `senior` is the rank of the first-added key that signed."""
    for name in revoked:
        key = own.get(name)
        if key is None or not key.live:
            return Refusal(code="not-found", detail="a key that is revoked is none of the peer's live keys")
        if name not in signers and key.order <= senior:
            return Refusal(code="not-authorised", detail="a key revokes itself and keys that were added after it")
    return None


def decide_stewards(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`stewards`: from now on these, and as many of them must sign."""
    statement = submission.statement
    commons = books.commons
    assert isinstance(statement, ChangeStewards)
    assert commons is not None
    entering: dict[bytes, Key] = {}
    for steward in statement.stewards:
        key = books.keys.get(steward)
        if key is None:
            entering[steward] = Key(steward, steward, 0)
        elif key.peer != steward:
            return Refusal(code="key-taken", detail="a steward's key was added by another peer of this commons")
    changed = structs.replace(commons, stewards=statement.stewards, threshold=statement.threshold)
    return Decision(commons=changed, keys=entering)


def decide_rekey(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`rekey`: the ledger speaks with another key from the next entry on, and both keys say so (SPEC §6.3).

    The key that goes is kept as one that is revoked, so that it never comes back, to anybody.
    """
    statement = submission.statement
    assert isinstance(statement, Rekey)
    assert books.commons is not None
    if statement.ledger not in submission.envelope.signers:
        return Refusal(code="not-authorised", detail="the new key of the ledger has not signed")
    if statement.ledger in books.keys:
        return Refusal(
            code="key-taken", detail="the key belongs to a peer, or was the ledger's before: it can't be again"
        )
    gone = Key(statement.by, statement.by, books.commons.seq + 1, live=False)
    changed = structs.replace(books.commons, ledger=statement.ledger)
    return Decision(commons=changed, ledger=statement.ledger, keys={gone.key: gone})


def decide_policy(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`policy`: announce what is in force from a later tick on (rule 5)."""
    statement = submission.statement
    commons = books.commons
    assert isinstance(statement, ChangePolicy)
    assert commons is not None
    tick = commons.tick_of(at_ms)
    now = commons.timeline.policy_at(tick)
    timeline = commons.timeline.with_change(statement.from_tick, statement.policy)
    refusal = _check_unchanged(now, statement.policy) or _check_credit(timeline)
    if refusal is not None:
        return refusal
    earliest = tick + max(1, now.notice_ticks)
    if statement.from_tick < earliest:
        return Refusal(
            code="limit-exceeded",
            detail=f"the earliest tick it can start at is {earliest}",
            fields={"limit": earliest},
        )
    if len(timeline.waiting(tick)) > WAITING_POLICIES_MAX:
        return Refusal(
            code="limit-exceeded",
            detail=f"at most {WAITING_POLICIES_MAX} policies may be waiting",
            fields={"limit": WAITING_POLICIES_MAX},
        )
    change = (statement.from_tick, statement.policy)
    return Decision(commons=structs.replace(commons, timeline=timeline), policy=change)


def _check_unchanged(now: Policy, then: Policy) -> Refusal | None:
    for name in ("tick_seconds", "melt_to"):
        if getattr(now, name) != getattr(then, name):
            return Refusal(code="malformed", detail=f"policy.{name} can't be changed after the founding")
    return None


def decide_erase(books: Books, submission: money.Signed, at_ms: int) -> Decision | Refusal:
    """`erase`: the text and salt of a memo go; its author or the stewards may ask."""
    erase, signers = submission.statement, submission.envelope.signers
    assert isinstance(erase, Erase)
    entry = books.entries.get(erase.statement)
    if entry is None:
        return Refusal(code="not-found", detail="no statement of that id was accepted")
    fields = entry.fields()
    if fields["by"] != erase.by and not stewards_speak(books, erase.by, signers):
        return Refusal(code="not-authorised", detail="only its author or the stewards erase a memo")
    if "memo" not in fields:
        return Refusal(code="wrong-state", detail="the statement carries no memo")
    return Decision(erased=erase.statement)

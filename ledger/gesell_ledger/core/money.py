"""Money: issue, retire, pay, grant, share, sweep, payout (SPEC §3.2, §3.6, §4).

Owns how money statements become postings. A `Draft` collects them in the order of SPEC §4.3.

1. First the melt of each peer account that the statement will touch, in the order of first appearance.
2. Then the statement's own postings, payer first, legs in order; postings of zero are left out.
3. Limits come before funds; funds are checked after the melt.
4. After the statement a payer's balance is at least minus its credit limit, and the pool's is at least zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from msgspec import structs

from gesell_ledger.core.books import (
    ESCROW,
    ISSUER,
    NOTHING,
    POOL,
    RECEIVERS,
    AccountName,
    Books,
    Decision,
    Holding,
    ShareOut,
)
from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.demurrage import INFLOW_REASONS, holding_of, melt, receive
from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import Leg
from gesell_protocol.log import Posting, posting_of
from gesell_protocol.names import Holder, did_of
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import Grant, Issue, Pay, Payout, Retire, Share, Statement, Sweep


class Signed(Protocol):
    """A statement and its envelope, as `decide.Submission` holds them."""

    @property
    def envelope(self) -> Envelope: ...
    @property
    def statement(self) -> Statement: ...


class Draft:
    """The postings of one entry in the making, and the accounts as they stand after them."""

    def __init__(self, books: Books, at_ms: int) -> None:
        commons = books.commons
        assert commons is not None
        self._stored = books.accounts
        self._members = books.members
        self._timeline = commons.timeline
        self._melt_to = commons.melt_to
        self.code: Final = commons.currency.code
        self.tick: Final = commons.tick_of(at_ms)
        policy = commons.timeline.policy_at(self.tick)
        self._policy_limit = policy.credit_limit
        self._money_rests = policy.rest_ticks > 0
        self._postings: list[Posting] = []
        self._accounts: dict[AccountName, Holding] = {}

    def balance(self, holder: Holder) -> int:
        """The balance as the draft stands."""
        return self._account((holder, self.code))[0]

    def credit_limit(self, peer: bytes) -> int:
        """How far below zero a member may go, by the policy in force and by what is vouched."""
        member = self._members.get(peer)
        return self._policy_limit if member is None else member.credit_limit(self._policy_limit)

    def bring_up(self, peers: Iterable[bytes]) -> None:
        """Post the melt due on peer accounts, in the order given (rule 1)."""
        tick, code, timeline, melt_to = self.tick, self.code, self._timeline, self._melt_to
        gained = 0
        for peer in peers:
            name = (peer, code)
            before = self._account(name)
            if before[2] == tick:
                continue
            after = self._accounts[name] = melt(before, timeline, tick)
            fee = before[0] - after[0]
            if fee:
                self._postings.append(Posting("melt", peer, code, -fee))
                self._postings.append(Posting("melt", melt_to, code, fee))
                gained += fee
        if gained:
            # Once for all, since a sweep brings up 400 accounts.
            gainer = (melt_to, code)
            balance, escrow, moment, inflows = self._account(gainer)
            self._accounts[gainer] = Holding(balance + gained, escrow, moment, inflows)

    def post(self, reason: str, lines: Iterable[tuple[Holder, int]]) -> None:
        """Add own postings in order (rule 2); money that reaches a peer is inflow where the law says so."""
        # A statement may have hundreds of lines, so what is the same for all of them is looked up once.
        code, accounts, postings = self.code, self._accounts, self._postings
        comes_in = self._money_rests and reason in INFLOW_REASONS
        for holder, amount in lines:
            if not amount:
                continue
            name = (holder, code)
            account = self._account(name)
            if comes_in and amount > 0 and not isinstance(holder, str):
                accounts[name] = receive(account, amount, self._timeline)
            else:
                balance, escrow, tick, inflows = account
                accounts[name] = holding_of((balance + amount, escrow, tick, inflows))
            postings.append(posting_of((reason, holder, code, amount)))

    def _account(self, name: AccountName) -> Holding:
        return self._accounts.get(name) or self._stored.get(name, NOTHING)

    def set_aside(self, peer: bytes, amount: int) -> None:
        """Count so much more (less where negative) as the peer's own money in escrow, which melts as its balance."""
        name = (peer, self.code)
        account = self._account(name)
        self._accounts[name] = Holding(account.balance, account.escrow + amount, account.tick, account.inflows)

    def escrow_of(self, peer: bytes) -> int:
        """What the peer has in escrow as the draft stands."""
        return self._account((peer, self.code)).escrow

    def check_limits(self) -> Refusal | None:
        """No balance leaves ±10^18."""
        for account in self._accounts.values():
            if not -BALANCE_MAX <= account[0] <= BALANCE_MAX:
                return Refusal(
                    code="limit-exceeded", detail="a balance would leave ±10^18 grains", fields={"limit": BALANCE_MAX}
                )
        return None

    def decision(self) -> Decision:
        """The draft as a decision; nothing is added to it afterwards."""
        return Decision(postings=tuple(self._postings), accounts=self._accounts)


def decide_issue(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`issue`: new money for a member, out of the issuer."""
    issue = submission.statement
    assert isinstance(issue, Issue)
    return _move(books, at_ms, "issue", ISSUER, (Leg(issue.to, issue.amount),))


def decide_retire(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`retire`: money goes back to the issuer."""
    retire = submission.statement
    assert isinstance(retire, Retire)
    draft = Draft(books, at_ms)
    amount = retire.amount
    draft.bring_up([retire.by])
    balance = draft.balance(retire.by)
    if retire.balancing:
        amount = min(amount, balance)
    draft.post("retire", [(retire.by, -amount), (ISSUER, amount)])
    refusal = draft.check_limits() or check_payer(draft, retire.by, before=balance, moves=amount, asked=retire.amount)
    return refusal or draft.decision()


def decide_pay(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`pay`: from one member to up to 256 others."""
    pay = submission.statement
    assert isinstance(pay, Pay)
    return _move(books, at_ms, "pay", pay.by, pay.legs, balancing=pay.balancing)


def decide_grant(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`grant`: out of the pool to members."""
    grant = submission.statement
    assert isinstance(grant, Grant)
    return _move(books, at_ms, "grant", POOL, grant.legs)


def _move(
    books: Books, at_ms: int, reason: str, payer: Holder, legs: Sequence[Leg], *, balancing: bool = False
) -> Decision | Refusal:
    """Move money from one payer along its legs: payees, limits, funds, in this order."""
    for leg in legs:
        payee = books.members.get(leg.to)
        if payee is None or payee.status not in RECEIVERS:
            return Refusal(code="unknown-member", detail=f"the payee {did_of(leg.to)} is not a member of this commons")
    draft = Draft(books, at_ms)
    if not isinstance(payer, str):
        draft.bring_up([payer])
    draft.bring_up([leg[0] for leg in legs])
    before = draft.balance(payer)
    asked = sum([leg[1] for leg in legs])
    if balancing:
        total = min(asked, before)
        draft.post(reason, [(payer, -total), (legs[0].to, total)])
    else:
        total = asked
        draft.post(reason, [(payer, -total), *legs])
    refusal = draft.check_limits()
    if refusal is None and not isinstance(payer, str):
        refusal = check_payer(draft, payer, before=before, moves=total, asked=asked)
    if refusal is None and payer == POOL and before < total:
        refusal = insufficient(available=before, needed=total)
    return refusal or draft.decision()


def balance_at(books: Books, peer: bytes, at_ms: int) -> int:
    """What a member has at a moment, after the melt that is due then and not posted."""
    commons = books.commons
    assert commons is not None
    return melt(books.account(peer, commons.currency.code), commons.timeline, commons.tick_of(at_ms)).balance


def check_payer(draft: Draft, payer: bytes, *, before: int, moves: int, asked: int) -> Refusal | None:
    """Rule 4 for a member; `moves` is not positive only where `balancing` found nothing to send."""
    available = before + draft.credit_limit(payer)
    if moves <= 0 or moves > available:
        return insufficient(available=available, needed=asked)
    return None


def insufficient(*, available: int, needed: int) -> Refusal:
    """The refusal that says what there is, after melt, and what it takes."""
    return Refusal(
        code="insufficient-funds",
        detail=f"{needed} grains are needed and {available} are there after melt",
        fields={"available": available, "needed": needed},
    )


# ── The pool shared out ──────────────────────────────────────────────────────────────────────────────────────────


def decide_share(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`share`: part of the pool for all who are active, the same to each; the remainder of the division stays."""
    share = submission.statement
    commons = books.commons
    assert isinstance(share, Share)
    assert commons is not None
    if commons.policy_at(at_ms).admission != "steward":
        return Refusal(code="wrong-state", detail="only a commons whose stewards admit members shares its pool")
    if commons.share is not None:
        return Refusal(code="wrong-state", detail="the share before is still being paid out")
    members = commons.active_members
    # Rounds down; what does not divide stays in the pool.
    each = share.amount // members if members else 0
    if each == 0:
        return Refusal(
            code="limit-exceeded",
            detail=f"{share.amount} grains among {members} active members leave nothing for each",
            fields={"limit": max(1, members)},
        )
    draft = Draft(books, at_ms)
    pool = draft.balance(POOL)
    draft.post("share", [(POOL, -each * members), (ESCROW, each * members)])
    refusal = draft.check_limits()
    if refusal is not None:
        return refusal
    if share.amount > pool:
        return insufficient(available=pool, needed=share.amount)
    decision = draft.decision()
    decision.share = ShareOut(id=share.id, seq=commons.seq + 1, each=each, unpaid=members)
    decision.commons = structs.replace(commons, share=share.id)
    return decision


def decide_payout(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`payout`: the next members of a share get their part; the part of one who has left goes to the pool."""
    payout = submission.statement
    commons = books.commons
    assert isinstance(payout, Payout)
    assert commons is not None
    share = books.shares.get(payout.share)
    if share is None:
        return Refusal(code="not-found", detail="no share of that id was made")
    if commons.share != share.id or share.unpaid < len(payout.members):
        return Refusal(code="wrong-state", detail="the share is paid out")
    receivers: list[Holder] = []
    for peer in payout.members:
        member = books.members.get(peer)
        if member is None or peer <= share.paid_through or not member.was_active_at(share.seq):
            return Refusal(code="wrong-state", detail=f"no part of the share is owed to {did_of(peer)}")
        receivers.append(peer if member.status in RECEIVERS else POOL)
    draft = Draft(books, at_ms)
    draft.bring_up(peer for peer in receivers if not isinstance(peer, str))
    draft.post("share", [(ESCROW, -share.each * len(receivers)), *((holder, share.each) for holder in receivers)])
    refusal = draft.check_limits()
    if refusal is not None:
        return refusal
    decision = draft.decision()
    unpaid = share.unpaid - len(receivers)
    decision.share = structs.replace(share, unpaid=unpaid, paid_through=payout.members[-1])
    if unpaid == 0:
        decision.commons = structs.replace(commons, share=None)
    return decision


def decide_sweep(books: Books, submission: Signed, at_ms: int) -> Decision | Refusal:
    """`sweep`: the melt due on idle accounts, and nothing else."""
    sweep = submission.statement
    assert isinstance(sweep, Sweep)
    for peer in sweep.accounts:
        if peer not in books.members:
            return Refusal(code="unknown-member", detail=f"{did_of(peer)} never was a member")
    draft = Draft(books, at_ms)
    draft.bring_up(sweep.accounts)
    return draft.check_limits() or draft.decision()

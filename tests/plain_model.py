"""The slow, plain, independent model of the Gesell ledger: a second opinion, written from protocol.md alone.

Owns: the rules of protocol §3 (from "commons" on), §4 and §5, said again in the most obvious way, and
`melt_lots`, a third account of demurrage that shares no line with the law. Must not know: the project's
protocol and ledger packages, bytes, schemas, signatures, storage. The input is parsed already and its
signatures are verified. It is longer than 600 lines because it must be one file that imports nothing of ours.

 1. The law of §4.2 is applied eagerly: when an entry is accepted, every tick that has ended since the entry
    before is ended for every account there is. An account only remembers how much of its melt is not posted
    yet (§4.3).
 2. A refused statement changes nothing: the checks look at copies, and only acceptance ends ticks for good.
 3. Checks stand in the order of §3: commons, known id, time, authority, standing, object, other peers,
    limits, funds.

The statement types modelled are those of `MODELLED`. Streams find their places marked: `_plan_leave` and
`_plan_writeoff`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

Holder = bytes | str
Posting = list[Any]  # [reason, holder, asset, amount]
Body = dict[str, Any]
Brackets = Sequence[Sequence[int]]

HIGHEST_BALANCE = 10**18
HIGHEST_AHEAD_MS = 120_000
HIGHEST_KEYS = 8
HIGHEST_WAITING_POLICIES = 16
HIGHEST_KINDS = 256
DAY_MS = 24 * 3600 * 1000
LONGEST_HOLD_MS = 30 * DAY_MS
HIGHEST_VOUCHES = 256

LEDGER_TYPES = frozenset({"sweep", "payout", "lapse", "rekey"})
STEWARD_TYPES = frozenset({"admit", "suspend", "policy", "stewards", "issue", "grant", "share", "kind", "writeoff"})
MEMBER_TYPES = frozenset({"join", "leave", "keys", "retire", "pay", "erase"})
GIVING_TYPES = frozenset({"gift", "thank", "decline", "withdraw", "vouch"})
HOLDING_TYPES = frozenset({"hold", "capture", "void"})
MODELLED = LEDGER_TYPES | STEWARD_TYPES | MEMBER_TYPES | GIVING_TYPES | HOLDING_TYPES | {"found"}

SUSPENDED_MAY = frozenset(
    {"keys", "leave", "erase", "thank", "decline", "withdraw", "capture", "void", "settle", "close"}
)
PENDING_MAY = frozenset({"keys", "leave", "erase"})
INFLOW_REASONS = frozenset({"issue", "pay", "grant", "capture", "settle", "share"})


@dataclass
class Accepted:
    """An entry: its number, its date (ms), its postings `[reason, holder, asset, amount]` in order."""

    seq: int
    at: int
    postings: list[Posting]
    replayed: bool = False


@dataclass
class Refused:
    """A refusal of §7.4 with the fields named beside its code: grains, or for `limit` what is limited."""

    code: str
    available: int | None = None
    needed: int | None = None
    limit: int | None = None


class _No(Exception):
    """Carries a refusal from the rule that found it up to `submit`."""

    def __init__(self, code: str, **fields: int) -> None:
        super().__init__(code)
        self.refused = Refused(code, **fields)


# --- The law of demurrage, §4.2 ---


@dataclass
class PlainAccount:
    """One peer's currency account: `posted` grains, and the melt that is `due`: charged, but not posted."""

    posted: int = 0
    due: int = 0
    escrowed: int = 0  # e of §4.2: what it has in open holds, as their payer
    inflows: dict[int, int] = field(default_factory=dict)  # tick -> what came in during it

    @property
    def balance(self) -> int:
        """Give b of §4.2."""
        return self.posted - self.due

    def copy(self) -> PlainAccount:
        """Give an account that can be played with."""
        return replace(self, inflows=dict(self.inflows))

    def end_tick(self, tick: int, *, window_start: int, brackets: Brackets) -> int:
        """Charge the fee of one tick end and return it; `window_start` is s(tick)."""
        fresh = sum(self.inflows.get(k, 0) for k in range(window_start, tick + 1))
        still = max(0, self.balance + self.escrowed - fresh)
        fee = fee_on(still, brackets)
        self.due += fee
        return fee


def next_window_start(previous: int, tick: int, rest_ticks: int) -> int:
    """Give s(tick) from s(tick - 1): the start of the window never moves back (§4.2)."""
    return max(previous, tick - rest_ticks + 1)


def fee_on(still: int, brackets: Brackets) -> int:
    """Give one tick's fee in grains on `still` grains, bracket by bracket, each floored."""
    fee = 0
    for i, (start, ppb) in enumerate(brackets):
        top = still if i + 1 == len(brackets) else min(still, brackets[i + 1][0])
        fee += max(0, top - start) * ppb // 10**9
    return fee


# --- The third opinion: first in, first out ---


@dataclass
class _Lot:
    arrival: int
    amount: int
    rested: bool = False


class _Purse:
    """Money as lots, the oldest first; the last spent lies on top of `spent`; `debt` only with no lots."""

    def __init__(self) -> None:
        self.lots: list[_Lot] = []
        self.spent: list[_Lot] = []
        self.debt = 0

    def balance(self) -> int:
        return sum(lot.amount for lot in self.lots) - self.debt

    def receive(self, tick: int, amount: int) -> None:
        repaid = min(self.debt, amount)
        self.debt -= repaid
        if repaid > 0:
            self.spent.append(_Lot(tick, repaid))
        if amount > repaid:
            self.lots.append(_Lot(tick, amount - repaid))

    def spend(self, amount: int) -> None:
        while amount > 0 and self.lots:
            oldest = self.lots[0]
            part = min(amount, oldest.amount)
            self.spent.append(replace(oldest, amount=part))
            oldest.amount -= part
            amount -= part
            if oldest.amount == 0:
                self.lots.pop(0)
        self.debt += amount

    def take_back(self, amount: int) -> None:
        relieved = min(self.debt, amount)
        self.debt -= relieved
        amount -= relieved
        while amount > 0:
            last = self.spent[-1] if self.spent else _Lot(-1, amount, rested=True)
            part = min(amount, last.amount)
            self.lots.insert(0, replace(last, amount=part))
            last.amount -= part
            amount -= part
            if self.spent and last.amount == 0:
                self.spent.pop()

    def end_tick(self, tick: int, rest_ticks: int, brackets: Brackets) -> None:
        for lot in self.lots + self.spent:
            if lot.arrival <= tick - rest_ticks:
                lot.rested = True
        still = sum(lot.amount for lot in self.lots if lot.rested)
        fee, above = 0, still
        for start, ppb in reversed(brackets):  # from the top bracket down, unlike `fee_on`
            if above > start:
                fee += (above - start) * ppb // 10**9
                above = start
        self.spend(fee)


def melt_lots(
    events: Iterable[tuple[int, int, bool]],
    policies: Sequence[tuple[int, int, Brackets]],
    through_tick: int,
) -> int:
    """Give one account's balance after the end of `through_tick`, its money kept in first-in-first-out lots.

    `events`: (tick, signed grains, is_inflow) in order of ticks, none later than `through_tick` + 1; positive
    without is_inflow is money coming back. `policies`: (from_tick, rest_ticks, brackets); the greatest
    from_tick wins, of equals the last. Raises ValueError for events out of order or too late.

    Why it must agree with §4.2. Lay all inflow that ever came on a line in order of arrival, A grains long.
    What went out (payments and fees alike) less what came back, S, has eaten the line from its old end, so
    that the balance is b = A - S and the lots are the stretch from S to A. The inflow of the window is the
    stretch from P = A - fresh to A, because arrival orders the line. The still lots are the stretch from S
    to P: max(0, P - S) = max(0, b - fresh), the law's `still`. From that:
    - After a fee: a fee is at most `still` (each ppb <= 10^9), so S moves at most to P; none eats fresh lots.
    - Debt: S > A. An inflow then lengthens the line under S: what repays the debt is spent when it arrives.
    - The window: a lot is still at the end of k if its arrival <= k - rest_ticks, or once it has been still.
      The law says arrival < s(k), the greatest of j - rest_ticks(j) + 1 over j <= k; a j before the arrival
      gives at most the arrival, and so decides nothing. Hence marks on lots, spent ones included, equal the
      window that never moves back.
    - The order of events within a tick changes neither A nor S.
    - Money coming back moves S back: it un-spends, the last spent first, each grain with the arrival it had.
      The nearby rule "money back is one old lot" is NOT the law: 100 in at tick 5, 60 out, 60 back, all in
      one tick, rest_ticks 3: the law has b = 100, fresh = 100, still = 0, the old-lot rule has still = 60.
      Only where more comes back than ever went out does old money appear from nowhere (S < 0).

    Escrow: the lots are those of the total b + e. A hold is no event, nor is money that a hold gives back;
    what a capture or settle gives away is an outflow. The account's balance is the result less e.
    """
    waiting = list(events)
    if any(a[0] > b[0] for a, b in pairwise(waiting)):
        raise ValueError("events must be in order of ticks")
    if not waiting:
        return 0
    if waiting[-1][0] > through_tick + 1:
        raise ValueError("an event after the tick that follows through_tick has no meaning")
    purse = _Purse()
    for tick in range(waiting[0][0], through_tick + 2):
        while waiting and waiting[0][0] == tick:
            _, amount, is_inflow = waiting.pop(0)
            if amount < 0:
                purse.spend(-amount)
            elif is_inflow:
                purse.receive(tick, amount)
            else:
                purse.take_back(amount)
        if tick <= through_tick:
            _, rest_ticks, brackets = max(
                enumerate(p for p in policies if p[0] <= tick), key=lambda item: (item[1][0], item[0])
            )[1]
            purse.end_tick(tick, rest_ticks, brackets)
    return purse.balance()


# --- The books of one commons ---


@dataclass
class _Member:
    status: str  # 'active', 'pending', 'suspended' or 'left'
    handle: str
    was_suspended: bool = False  # ever suspended and not admitted since


@dataclass
class _Key:
    key: bytes
    since_seq: int
    live: bool = True


@dataclass
class _Entry:
    type: str
    by: bytes
    has_memo: bool
    body_bytes: bytes
    accepted: Accepted


@dataclass
class _Share:
    each: int
    unpaid: set[bytes]
    paid_through: bytes = b""  # parts are paid in ascending order of peer, over all payouts of the share


@dataclass
class _Gift:
    giver: bytes
    receiver: Holder  # a peer, or 'pool'
    kind: str
    quantity: int
    state: str = "offered"  # then 'received', 'declined' or 'withdrawn'


@dataclass
class _Hold:
    payer: bytes
    payee: bytes
    amount: int
    until: int
    open: bool = True


def _nothing_more(seq: int) -> None:
    """Stand for an effect of a statement that moves money only."""


@dataclass
class _Plan:
    """What a statement would do: its postings, whose funds must suffice for `needed`, its other effect."""

    own: list[Posting] = field(default_factory=list)
    payer: Holder | None = None
    needed: int = 0
    asked: int = 0  # what a refusal names as needed, where a balancing payment moves less than it asks for
    melts: list[bytes] | None = (
        None  # the accounts to melt where they are not those of `own` (sweep, the end of a hold)
    )
    effect: Callable[[int], None] = _nothing_more  # called with the entry's seq


class PlainCommons:
    """One commons: its sequence, members, keys, policies and books."""

    def __init__(self, body: Body, ledger_key: bytes, at: int) -> None:
        self.ledger_key = ledger_key
        self.code: str = body["currency"]["code"]
        self.policies: list[tuple[int, int, Body]] = [(0, 1, body["policy"])]  # (from_tick, seq, policy)
        self.tick_ms: int = 1000 * body["policy"]["tick_seconds"]
        self.melt_to: str = body["policy"]["melt_to"]
        self.stewards: set[bytes] = set(body["stewards"])
        self.threshold: int = body["threshold"]
        self.members: dict[bytes, _Member] = {}
        self.handles: dict[str, bytes] = {}  # taken for good, from the moment the bearer was active
        self.keys: dict[bytes, list[_Key]] = {}
        self.key_owner: dict[bytes, bytes] = {}
        self.accounts: dict[bytes, PlainAccount] = {}
        self.reserved: dict[str, int] = {"issuer": 0, "pool": 0, "escrow": 0}
        self.entries: dict[bytes, _Entry] = {}
        #: Who signed each accepted statement, by its id.
        self.signed: dict[bytes, set[bytes]] = {}
        self.shares: dict[bytes, _Share] = {}
        self.kinds: dict[str, tuple[str, str, int]] = {"hour": ("hour", "h", 2)}  # code -> (name, unit, scale)
        self.holds: dict[bytes, _Hold] = {}
        self.gifts: dict[bytes, _Gift] = {}
        self.given: dict[tuple[Holder, str], int] = {}  # gift accounts: (holder, kind) -> received less given
        self.vouches: dict[tuple[bytes, bytes], int] = {}  # (who vouches, for whom) -> grains, more than 0
        self.lines: list[tuple[int, int, Posting]] = []  # every posting ever made: (seq, at, posting)
        self.seq = 0
        self.last_at = at
        self.ended_tick = self.tick(at) - 1
        # No account can have had an inflow before the founding, so the window may start anywhere up to there.
        self.window_start = max(0, self.tick(at) - body["policy"]["rest_ticks"])
        for steward in body["stewards"]:
            self._claim_root_key(steward, seq=1)

    # Reading

    def tick(self, at_ms: int) -> int:
        """Give the tick in which a time lies."""
        return at_ms // self.tick_ms

    def policy(self, tick: int) -> Body:
        """Give the policy in force at a tick (§5.1)."""
        return max((p for p in self.policies if p[0] <= tick), key=lambda p: (p[0], p[1]))[2]

    def posted(self, holder: Holder, asset: str | None = None) -> int:
        """Give the sum of the postings of a peer or a reserved holder, in money or in a gift kind."""
        if asset is not None and asset != self.code:
            return self.given.get((holder, asset), 0)
        if isinstance(holder, str):
            return self.reserved[holder]
        return self.accounts[holder].posted if holder in self.accounts else 0

    def balance(self, holder: Holder, at_ms: int) -> int:
        """Give what a peer has at `at_ms`, melted through the tick ends before tick(at_ms).

        `at_ms` is the last entry's time or later, else ValueError. The issuer's, the pool's and escrow's
        balances are what was posted to them: melt reaches the pool when it is posted (see `pool_due`).
        """
        if isinstance(holder, str):
            return self.reserved[holder]
        return self._melted(holder, self.tick(at_ms)).balance

    def pool_due(self, at_ms: int) -> int:
        """Give the melt of all accounts that is charged by `at_ms` and not posted to pool or issuer yet."""
        return sum(self._melted(peer, self.tick(at_ms)).due for peer in self.accounts)

    def status(self, peer: bytes) -> str | None:
        """Give 'active', 'pending', 'suspended' or 'left'; None for who never asked to be a member."""
        return self.members[peer].status if peer in self.members else None

    def handle(self, peer: bytes) -> str | None:
        """Give the handle that a peer bears, asks for, or bore when it left."""
        return self.members[peer].handle if peer in self.members else None

    def credit_limit(self, peer: bytes, tick: int) -> int:
        """Give how far below zero a member may go: what the policy says, and room that is lent and borrowed."""
        limit: int = self.policy(tick)["credit_limit"]
        trusted = sum(grains for (_, whom), grains in self.vouches.items() if whom == peer)
        lent = sum(grains for (by, _), grains in self.vouches.items() if by == peer)
        return limit + trusted - lent

    def history(self, holder: Holder, asset: str | None = None) -> list[tuple[int, int, str, int, int]]:
        """Give (seq, at, reason, amount, running posted balance) for each posting of a holder in one asset."""
        running, rows = 0, []
        for seq, at, (reason, whose, what, amount) in self.lines:
            if whose == holder and what == (asset or self.code):
                running += amount
                rows.append((seq, at, reason, amount, running))
        return rows

    def live_keys(self, peer: bytes) -> set[bytes]:
        """Give the keys that may sign for a peer; a peer not yet known here has its own."""
        if peer not in self.keys:
            return {peer}
        return {k.key for k in self.keys[peer] if k.live}

    # Taking a statement in, in the order of §3

    def submit(self, body: Body, signers: set[bytes], now_ms: int, body_bytes: bytes) -> Accepted:
        """Accept or replay a statement of this commons, or raise the refusal."""
        known = self.entries.get(body["id"])
        if known is not None:
            if known.body_bytes != body_bytes:
                raise _No("id-conflict")
            return self.replay(known, body, signers)
        at = max(now_ms, self.last_at)
        check_time(body, at)
        self._check_authority(body, signers)
        self._check_standing(body)
        plan = self._plan(body, signers, at)
        postings = self._melt_postings(plan, at) + [p for p in plan.own if p[3] != 0]
        self._check_limits(postings)
        self._check_funds(plan, postings, at)
        self.signed[body["id"]] = set(signers)
        return self._accept(body, body_bytes, at, plan, postings)

    def replay(self, known: _Entry, body: Body, signers: set[bytes]) -> Accepted:
        """Give the first answer again, to who signed then or may sign for the author now (§3)."""
        if not signers & (self.signed[body["id"]] | self.live_keys(body["by"])):
            raise _No("not-authorised")
        return replace(known.accepted, replayed=True)

    def found(self, body: Body, body_bytes: bytes, at: int) -> Accepted:
        """Make `found` the first entry."""
        return self._accept(body, body_bytes, at, _Plan(), [])

    def _check_authority(self, body: Body, signers: set[bytes]) -> None:
        kind, by = body["type"], body["by"]
        if kind in LEDGER_TYPES:
            if by != self.ledger_key or by not in signers:
                raise _No("not-authorised")
            return
        if not self._has_signed(by, signers):
            raise _No("not-authorised")
        # A key that one peer added is no peer of its own: it has no keys, and can only be told so when it joins.
        if kind != "join" and self.key_owner.get(by, by) != by:
            raise _No("not-authorised")
        if kind in STEWARD_TYPES and not self._is_for_the_stewards(by, signers):
            raise _No("not-authorised")
        if kind == "stewards":
            new = [s for s in body["stewards"] if s not in self.stewards]
            if not all(self._has_signed(s, signers) for s in new):
                raise _No("not-authorised")
        if kind == "keys" and not set(body.get("add", ())) <= signers:
            raise _No("not-authorised")

    def _has_signed(self, peer: bytes, signers: set[bytes]) -> bool:
        return not self.live_keys(peer).isdisjoint(signers)

    def _is_for_the_stewards(self, by: bytes, signers: set[bytes]) -> bool:
        signed = [s for s in self.stewards if self._has_signed(s, signers)]
        return by in self.stewards and len(signed) >= self.threshold

    def _check_standing(self, body: Body) -> None:
        """Say who may speak. Stewards need not be members: what they do as stewards asks for no standing."""
        kind, by = body["type"], body["by"]
        status = self.status(by)
        if kind in LEDGER_TYPES or kind in STEWARD_TYPES:
            return
        if kind == "join":
            if status in ("active", "pending", "suspended"):
                raise _No("already-member")
            return
        if kind in ("erase", "thank", "decline") and by in self.stewards:
            return  # for a gift to a steward itself, `_plan_answer` asks
        self._check_speaks(kind, status)

    def _check_speaks(self, kind: str, status: str | None) -> None:
        if status is None or status == "left":
            raise _No("unknown-member")
        if status == "suspended" and kind not in SUSPENDED_MAY:
            raise _No("not-active")
        if status == "pending" and kind not in PENDING_MAY:
            raise _No("not-active")

    def _plan(self, body: Body, signers: set[bytes], at: int) -> _Plan:
        """Check the object and the other peers, and say what the statement would do. Changes nothing."""
        plans: dict[str, Callable[[], _Plan]] = {
            "join": lambda: self._plan_join(body, at),
            "admit": lambda: self._plan_admit(body),
            "suspend": lambda: self._plan_suspend(body),
            "leave": lambda: self._plan_leave(body, at),
            "keys": lambda: self._plan_keys(body, signers),
            "policy": lambda: self._plan_policy(body, at),
            "stewards": lambda: self._plan_stewards(body),
            "erase": lambda: self._plan_erase(body, signers),
            "issue": lambda: self._plan_issue(body),
            "retire": lambda: self._plan_retire(body, at),
            "pay": lambda: self._plan_pay(body, at),
            "grant": lambda: self._plan_grant(body),
            "share": lambda: self._plan_share(body, at),
            "sweep": lambda: self._plan_sweep(body),
            "payout": lambda: self._plan_payout(body),
            "hold": lambda: self._plan_hold(body, at),
            "capture": lambda: self._plan_capture(body, at),
            "void": lambda: self._plan_void(body, at),
            "lapse": lambda: self._plan_lapse(body, at),
            "rekey": lambda: self._plan_rekey(body, signers),
            "kind": lambda: self._plan_kind(body),
            "gift": lambda: self._plan_gift(body),
            "thank": lambda: self._plan_answer(body, signers),
            "decline": lambda: self._plan_answer(body, signers),
            "withdraw": lambda: self._plan_withdraw(body),
            "vouch": lambda: self._plan_vouch(body, at),
            "writeoff": lambda: self._plan_writeoff(body, at),
        }
        return plans[body["type"]]()

    # Membership, §3.1

    def _plan_join(self, body: Body, at: int) -> _Plan:
        by, handle = body["by"], body["handle"]
        if self.key_owner.get(by, by) != by:
            raise _No("key-taken")
        if self.handles.get(handle, by) != by:
            raise _No("handle-taken")
        if any(bearer == by and bound != handle for bound, bearer in self.handles.items()):
            raise _No("handle-taken")
        was_suspended = by in self.members and self.members[by].was_suspended
        is_open = self.policy(self.tick(at))["admission"] == "open" and not was_suspended

        def effect(seq: int) -> None:
            self.members[by] = _Member("active" if is_open else "pending", handle, was_suspended)
            self._claim_root_key(by, seq)
            if is_open:
                self.handles[handle] = by

        return _Plan(effect=effect)

    def _plan_admit(self, body: Body) -> _Plan:
        peer = body["peer"]
        member = self._member_spoken_of(peer)
        if member.status == "active":
            raise _No("wrong-state")
        if self.handles.get(member.handle, peer) != peer:
            raise _No("handle-taken")

        def effect(seq: int) -> None:
            self.members[peer] = _Member("active", member.handle)
            self.handles[member.handle] = peer

        return _Plan(effect=effect)

    def _plan_suspend(self, body: Body) -> _Plan:
        member = self._member_spoken_of(body["peer"])
        if member.status == "suspended":
            raise _No("wrong-state")

        def effect(seq: int) -> None:
            if member.status == "active":
                member.status, member.was_suspended = "suspended", True
            else:
                member.status = "left"

        return _Plan(effect=effect)

    def _plan_leave(self, body: Body, at: int) -> _Plan:
        by = body["by"]
        rest = self.balance(by, at)
        if rest < 0 or any(hold.open and by in (hold.payer, hold.payee) for hold in self.holds.values()):
            raise _No("wrong-state")  # open streams, once modelled, refuse here too
        for (voucher, whom), grains in self.vouches.items():
            if voucher == by and self._room(whom, at) < grains:
                raise _No("vouch-in-use")

        def effect(seq: int) -> None:
            self.members[by].status = "left"
            self.vouches = {pair: grains for pair, grains in self.vouches.items() if by not in pair}

        own = [["leave", by, self.code, -rest], ["leave", "pool", self.code, rest]]
        return _Plan(own, effect=effect)

    def _plan_keys(self, body: Body, signers: set[bytes]) -> _Plan:
        by = body["by"]
        add, revoke = list(body.get("add", ())), list(body.get("revoke", ()))
        live = {k.key: k for k in self.keys[by] if k.live}
        signing = [k for k in live.values() if k.key in signers]
        for key in revoke:
            if key not in live:
                raise _No("not-found")
            if not any(s.key == key or live[key].since_seq > s.since_seq for s in signing):
                raise _No("not-authorised")
        for key in add:
            if key in self.key_owner:
                raise _No("key-taken")
        after = (set(live) - set(revoke)) | set(add)
        if len(after) > HIGHEST_KEYS:
            raise _No("limit-exceeded", limit=HIGHEST_KEYS)
        if not after:
            raise _No("limit-exceeded", limit=1)

        def effect(seq: int) -> None:
            for key in revoke:
                live[key].live = False
            for key in add:
                self.keys[by].append(_Key(key, seq))
                self.key_owner[key] = by

        return _Plan(effect=effect)

    def _plan_policy(self, body: Body, at: int) -> _Plan:
        policy, from_tick, tick = body["policy"], body["from_tick"], self.tick(at)
        if 1000 * policy["tick_seconds"] != self.tick_ms or policy["melt_to"] != self.melt_to:
            raise _No("malformed")
        timeline = [*self.policies, (from_tick, self.seq + 1, policy)]
        if mints_for_anybody(timeline):
            raise _No("malformed")
        earliest = max(tick + self.policy(tick)["notice_ticks"], tick + 1)
        if from_tick < earliest:
            raise _No("limit-exceeded", limit=earliest)
        # Of equal from_ticks only the latest will ever be in force, so only that one waits.
        if len({p[0] for p in timeline if p[0] > tick}) > HIGHEST_WAITING_POLICIES:
            raise _No("limit-exceeded", limit=HIGHEST_WAITING_POLICIES)

        def effect(seq: int) -> None:
            self.policies = timeline

        return _Plan(effect=effect)

    def _plan_stewards(self, body: Body) -> _Plan:
        for steward in body["stewards"]:
            if self.key_owner.get(steward, steward) != steward:
                raise _No("key-taken")

        def effect(seq: int) -> None:
            self.stewards, self.threshold = set(body["stewards"]), body["threshold"]
            for steward in body["stewards"]:
                self._claim_root_key(steward, seq)

        return _Plan(effect=effect)

    def _plan_erase(self, body: Body, signers: set[bytes]) -> _Plan:
        entry = self.entries.get(body["statement"])
        if entry is None:
            raise _No("not-found")
        if entry.by != body["by"] and not self._is_for_the_stewards(body["by"], signers):
            raise _No("not-authorised")
        if not entry.has_memo:
            raise _No("wrong-state")
        return _Plan()

    def _member_spoken_of(self, peer: bytes) -> _Member:
        if self.status(peer) in (None, "left"):
            raise _No("unknown-member")
        return self.members[peer]

    def _claim_root_key(self, peer: bytes, seq: int) -> None:
        if peer not in self.keys:
            self.keys[peer] = [_Key(peer, seq)]
            self.key_owner[peer] = peer

    # Money, §3.2

    def _plan_issue(self, body: Body) -> _Plan:
        to, amount = body["to"], body["amount"]
        self._check_receivers([to])
        return _Plan([["issue", "issuer", self.code, -amount], ["issue", to, self.code, amount]])

    def _plan_retire(self, body: Body, at: int) -> _Plan:
        by = body["by"]
        amount = self._what_moves(body, body["amount"], at)
        own = [["retire", by, self.code, -amount], ["retire", "issuer", self.code, amount]]
        return _Plan(own, payer=by, needed=amount, asked=body["amount"])

    def _plan_pay(self, body: Body, at: int) -> _Plan:
        by, legs = body["by"], body["legs"]
        asked = sum(amount for _, amount in legs)
        self._check_receivers([to for to, _ in legs])
        if "balancing" in body:
            legs = [[legs[0][0], self._what_moves(body, legs[0][1], at)]]
        total = sum(amount for _, amount in legs)
        own = [["pay", by, self.code, -total]] + [["pay", to, self.code, amount] for to, amount in legs]
        return _Plan(own, payer=by, needed=total, asked=asked)

    def _plan_grant(self, body: Body) -> _Plan:
        legs = body["legs"]
        self._check_receivers([to for to, _ in legs])
        total = sum(amount for _, amount in legs)
        own = [["grant", "pool", self.code, -total]] + [["grant", to, self.code, amount] for to, amount in legs]
        return _Plan(own, payer="pool", needed=total)

    def _plan_share(self, body: Body, at: int) -> _Plan:
        if self.policy(self.tick(at))["admission"] != "steward":
            raise _No("wrong-state")
        if any(share.unpaid for share in self.shares.values()):
            raise _No("wrong-state")
        active = {peer for peer, member in self.members.items() if member.status == "active"}
        each = body["amount"] // len(active) if active else 0
        if each == 0:
            raise _No("limit-exceeded", limit=max(1, len(active)))
        moved = each * len(active)

        def effect(seq: int) -> None:
            self.shares[body["id"]] = _Share(each, active)

        own = [["share", "pool", self.code, -moved], ["share", "escrow", self.code, moved]]
        return _Plan(own, payer="pool", needed=body["amount"], effect=effect)

    def _check_receivers(self, peers: list[bytes]) -> None:
        for peer in peers:
            if self.status(peer) not in ("active", "suspended"):
                raise _No("unknown-member")

    def _what_moves(self, body: Body, amount: int, at: int) -> int:
        """Give the amount of a payment; with `balancing`, no more than there is after melt."""
        if "balancing" not in body:
            return amount
        there = self.balance(body["by"], at)
        if min(amount, there) <= 0:
            credit = self.credit_limit(body["by"], self.tick(at))
            raise _No("insufficient-funds", available=there + credit, needed=amount)
        return min(amount, there)

    # Money set aside, §3.2 and §4.2

    def _plan_hold(self, body: Body, at: int) -> _Plan:
        by, to, amount = body["by"], body["to"], body["amount"]
        self._check_receivers([to])
        if body["until"] <= at or body["until"] > at + LONGEST_HOLD_MS:
            raise _No("limit-exceeded", limit=LONGEST_HOLD_MS)

        def effect(seq: int) -> None:
            self.accounts[by].escrowed += amount
            self.holds[body["id"]] = _Hold(by, to, amount, body["until"])

        own = [["hold", by, self.code, -amount], ["hold", "escrow", self.code, amount]]
        return _Plan(own, payer=by, needed=amount, effect=effect)

    def _plan_capture(self, body: Body, at: int) -> _Plan:
        hold = self._hold_spoken_of(body["hold"])
        if hold.payee != body["by"]:
            raise _No("not-authorised")
        if not hold.open:
            raise _No("wrong-state")
        if body["amount"] > hold.amount:
            raise _No("limit-exceeded", limit=hold.amount)
        there = self._room(hold.payer, at) + self.accounts[hold.payer].escrowed
        gets = max(0, min(body["amount"], there))
        own: list[Posting] = [
            ["capture", "escrow", self.code, -hold.amount],
            ["capture", hold.payee, self.code, gets],
            ["void", hold.payer, self.code, hold.amount - gets],
        ]
        return self._end_hold(hold, own, melts=[hold.payer] + ([hold.payee] if gets > 0 else []))

    def _plan_void(self, body: Body, at: int) -> _Plan:
        hold = self._hold_spoken_of(body["hold"])
        if body["by"] != hold.payee and body["by"] != hold.payer:
            raise _No("not-authorised")
        if not hold.open or (body["by"] == hold.payer and at < hold.until):
            raise _No("wrong-state")
        return self._give_back(hold)

    def _plan_lapse(self, body: Body, at: int) -> _Plan:
        hold = self._hold_spoken_of(body["of"])
        if not hold.open or at < hold.until + DAY_MS:
            raise _No("wrong-state")
        return self._give_back(hold)

    def _hold_spoken_of(self, name: bytes) -> _Hold:
        if name not in self.holds:
            raise _No("not-found")
        return self.holds[name]

    def _give_back(self, hold: _Hold) -> _Plan:
        own = [["void", "escrow", self.code, -hold.amount], ["void", hold.payer, self.code, hold.amount]]
        return self._end_hold(hold, own, melts=[hold.payer])

    def _end_hold(self, hold: _Hold, own: list[Posting], melts: list[bytes]) -> _Plan:
        def effect(seq: int) -> None:
            self.accounts[hold.payer].escrowed -= hold.amount
            hold.open = False

        return _Plan(own, melts=melts, effect=effect)

    # Gifts, §3.3

    def _plan_kind(self, body: Body) -> _Plan:
        if body["code"] in self.kinds:
            raise _No("wrong-state")
        if len(self.kinds) >= HIGHEST_KINDS:
            raise _No("limit-exceeded", limit=HIGHEST_KINDS)

        def effect(seq: int) -> None:
            self.kinds[body["code"]] = (body["name"], body["unit"], body["scale"])

        return _Plan(effect=effect)

    def _plan_gift(self, body: Body) -> _Plan:
        by, to = body["by"], body["to"]
        if body["kind"] not in self.kinds:
            raise _No("not-found")
        for name in body.get("after", ()):
            moved_by = self._gift_spoken_of(name)
            if moved_by.receiver != by:
                raise _No("not-authorised")
            if moved_by.state != "received":
                raise _No("wrong-state")
        if to != "pool":
            self._check_receivers([to])

        def effect(seq: int) -> None:
            self.gifts[body["id"]] = _Gift(by, to, body["kind"], body["quantity"])

        return _Plan(effect=effect)

    def _plan_answer(self, body: Body, signers: set[bytes]) -> _Plan:
        """Plan `thank` and `decline`: the receiver's word, or the stewards' for the whole commons."""
        by, gift = body["by"], self._gift_spoken_of(body["gift"])
        for_stewards = gift.receiver == "pool" and self._is_for_the_stewards(by, signers)
        if gift.receiver != by and not for_stewards:
            raise _No("not-authorised")
        if gift.receiver == by:
            self._check_speaks(body["type"], self.status(by))
        if body["type"] == "decline":
            return self._settle(gift, "declined")
        plan = self._settle(gift, "received")
        if gift.giver == by:
            raise _No("not-authorised")
        plan.own = [
            ["gift", gift.giver, gift.kind, -gift.quantity],
            ["gift", gift.receiver, gift.kind, gift.quantity],
        ]
        return plan

    def _plan_withdraw(self, body: Body) -> _Plan:
        gift = self._gift_spoken_of(body["gift"])
        if gift.giver != body["by"]:
            raise _No("not-authorised")
        return self._settle(gift, "withdrawn")

    def _gift_spoken_of(self, name: bytes) -> _Gift:
        if name not in self.gifts:
            raise _No("not-found")
        return self.gifts[name]

    def _settle(self, gift: _Gift, state: str) -> _Plan:
        if gift.state != "offered":
            raise _No("wrong-state")

        def effect(seq: int) -> None:
            gift.state = state

        return _Plan(effect=effect)

    # Trust, §3.4

    def _plan_vouch(self, body: Body, at: int) -> _Plan:
        by, whom, limit = body["by"], body["for"], body["limit"]
        tick, pair = self.tick(at), (by, whom)
        before = self.vouches.get(pair, 0)
        if limit == before == 0:
            raise _No("wrong-state")
        self._check_receivers([whom])
        if limit != 0 and limit < self.policy(tick)["vouch_min"]:
            raise _No("limit-exceeded", limit=self.policy(tick)["vouch_min"])
        given = sum(one == by for one, _ in self.vouches)
        received = sum(other == whom for _, other in self.vouches)
        if before == 0 and max(given, received) >= HIGHEST_VOUCHES:
            raise _No("limit-exceeded", limit=HIGHEST_VOUCHES)
        if limit > before:
            credit = self.credit_limit(by, tick)
            if credit - (limit - before) < 0:
                raise _No("limit-exceeded", limit=max(0, before + credit))
            if self._room(by, at) < limit - before:
                raise _No("insufficient-funds", available=self._room(by, at), needed=limit - before)
        if limit < before and self._room(whom, at) < before - limit:
            raise _No("vouch-in-use")

        def effect(seq: int) -> None:
            self._set_vouch(pair, limit)

        return _Plan(effect=effect)

    def _room(self, peer: bytes, at: int) -> int:
        """Give how far a member is from its credit limit, after melt."""
        return self.balance(peer, at) + self.credit_limit(peer, self.tick(at))

    def _set_vouch(self, pair: tuple[bytes, bytes], grains: int) -> None:
        if grains > 0:
            self.vouches[pair] = grains
        else:
            self.vouches.pop(pair, None)

    def _plan_writeoff(self, body: Body, at: int) -> _Plan:
        peer = body["peer"]
        self._check_receivers([peer])
        debt = -self.balance(peer, at)
        if debt <= 0 or any(hold.open and hold.payer == peer for hold in self.holds.values()):
            raise _No("wrong-state")  # open streams, once modelled, refuse here too
        parts = shares_of_loss(debt, {by: grains for (by, whom), grains in self.vouches.items() if whom == peer})
        own: list[Posting] = [["writeoff", peer, self.code, debt]]
        own += [["writeoff", by, self.code, -part] for by, part in sorted(parts.items()) if part > 0]
        pool = self.reserved["pool"] + sum(p[3] for p in self._melt_postings(_Plan(own), at) if p[1] == "pool")
        rest = debt - sum(parts.values())
        own.append(["writeoff", "pool", self.code, -min(rest, pool)])
        own.append(["writeoff", "issuer", self.code, -max(0, rest - pool)])

        def effect(seq: int) -> None:
            for by, part in parts.items():
                self._set_vouch((by, peer), self.vouches[by, peer] - part)
            if self.members[peer].status == "active":
                self.members[peer].status, self.members[peer].was_suspended = "suspended", True

        return _Plan(own, effect=effect)

    # The ledger's own, §3.6

    def _plan_rekey(self, body: Body, signers: set[bytes]) -> _Plan:
        if body["ledger"] not in signers:
            raise _No("not-authorised")
        if body["ledger"] in self.key_owner:
            raise _No("key-taken")

        def effect(seq: int) -> None:
            self.key_owner[self.ledger_key] = self.ledger_key
            self.ledger_key = body["ledger"]

        return _Plan(effect=effect)

    def _plan_sweep(self, body: Body) -> _Plan:
        for peer in body["accounts"]:
            if peer not in self.members:
                raise _No("unknown-member")
        return _Plan(melts=list(body["accounts"]))

    def _plan_payout(self, body: Body) -> _Plan:
        share, members = self.shares.get(body["share"]), body["members"]
        if share is None:
            raise _No("not-found")
        if not set(members) <= share.unpaid or members[0] <= share.paid_through:
            raise _No("wrong-state")
        own: list[Posting] = [["share", "escrow", self.code, -share.each * len(members)]]
        for peer in members:
            to = peer if self.status(peer) in ("active", "suspended") else "pool"
            own.append(["share", to, self.code, share.each])

        def effect(seq: int) -> None:
            share.unpaid -= set(members)
            share.paid_through = members[-1]

        return _Plan(own, effect=effect)

    # Melt, limits, funds, and the books, §4

    def _melted(self, peer: bytes, tick: int) -> PlainAccount:
        """Give a copy of an account for which every tick before `tick` has ended."""
        if tick - 1 < self.ended_tick:
            raise ValueError("the plain model does not read the past")
        account = self.accounts.get(peer, PlainAccount()).copy()
        start = self.window_start
        for k in range(self.ended_tick + 1, tick):
            policy = self.policy(k)
            start = next_window_start(start, k, policy["rest_ticks"])
            account.end_tick(k, window_start=start, brackets=policy["brackets"])
        return account

    def _melt_postings(self, plan: _Plan, at: int) -> list[Posting]:
        touched = plan.melts
        if touched is None:
            moved = [holder for _, holder, asset, amount in plan.own if amount != 0 and asset == self.code]
            touched = list(dict.fromkeys(h for h in moved if isinstance(h, bytes)))
        postings: list[Posting] = []
        for peer in touched:
            due = self._melted(peer, self.tick(at)).due
            if due != 0:
                postings.append(["melt", peer, self.code, -due])
                postings.append(["melt", self.melt_to, self.code, due])
        return postings

    def _check_limits(self, postings: list[Posting]) -> None:
        after: dict[tuple[Holder, str], int] = {}
        for _, holder, asset, amount in postings:
            after[holder, asset] = after.get((holder, asset), self.posted(holder, asset)) + amount
        if any(abs(balance) > HIGHEST_BALANCE for balance in after.values()):
            raise _No("limit-exceeded", limit=HIGHEST_BALANCE)

    def _check_funds(self, plan: _Plan, postings: list[Posting], at: int) -> None:
        if plan.payer is None:
            return
        if isinstance(plan.payer, str):
            melt = sum(p[3] for p in postings if p[0] == "melt" and p[1] == plan.payer)
            available = self.reserved[plan.payer] + melt
        else:
            available = self.balance(plan.payer, at) + self.credit_limit(plan.payer, self.tick(at))
        if available < plan.needed:
            raise _No("insufficient-funds", available=available, needed=plan.asked or plan.needed)

    def _accept(self, body: Body, body_bytes: bytes, at: int, plan: _Plan, postings: list[Posting]) -> Accepted:
        for asset in {p[2] for p in postings}:
            if sum(p[3] for p in postings if p[2] == asset) != 0:
                raise AssertionError("an entry's postings must sum to zero in each asset")
        self._end_ticks_before(self.tick(at))
        self.seq, self.last_at = self.seq + 1, at
        for posting in postings:
            self._book(posting, at)
        plan.effect(self.seq)
        accepted = Accepted(self.seq, at, postings)
        self.entries[body["id"]] = _Entry(body["type"], body["by"], "memo" in body, body_bytes, accepted)
        return accepted

    def _end_ticks_before(self, tick: int) -> None:
        """End every tick before `tick` for every account: the law as it is written, eagerly."""
        for k in range(self.ended_tick + 1, tick):
            policy = self.policy(k)
            self.window_start = next_window_start(self.window_start, k, policy["rest_ticks"])
            for account in self.accounts.values():
                account.end_tick(k, window_start=self.window_start, brackets=policy["brackets"])
            self.ended_tick = k

    def _book(self, posting: Posting, at: int) -> None:
        reason, holder, asset, amount = posting
        self.lines.append((self.seq, at, posting))
        if asset != self.code:
            self.given[holder, asset] = self.given.get((holder, asset), 0) + amount
            return
        if isinstance(holder, str):
            self.reserved[holder] += amount
            return
        account = self.accounts.setdefault(holder, PlainAccount())
        account.posted += amount
        if reason == "melt":
            account.due += amount
            if account.due != 0:
                raise AssertionError("melt is posted in full or not at all")
        if reason in INFLOW_REASONS and amount > 0:
            tick = self.tick(at)
            account.inflows[tick] = account.inflows.get(tick, 0) + amount


def check_time(body: Body, clock_ms: int) -> None:
    """Refuse an `id` from the future, then a statement that has expired (§3)."""
    if int.from_bytes(body["id"][:6], "big") > clock_ms + HIGHEST_AHEAD_MS:
        raise _No("too-early")
    if clock_ms > body["expires"]:
        raise _No("expired")


def shares_of_loss(debt: int, vouches: dict[bytes, int]) -> dict[bytes, int]:
    """Give what each who vouched pays of a debt: in proportion, by largest remainder, at most its vouch (§3.4)."""
    total = sum(vouches.values())
    quotas = {by: Fraction(min(debt, total) * grains, total) for by, grains in vouches.items()}
    parts = {by: quota.numerator // quota.denominator for by, quota in quotas.items()}
    over = min(debt, total) - sum(parts.values())
    for by in sorted(vouches, key=lambda by: (parts[by] - quotas[by], by))[:over]:
        parts[by] += 1
    return parts


def mints_for_anybody(policies: list[tuple[int, int, Body]]) -> bool:
    """Say whether credit would ever be in force after admission was open (§5, `credit_limit`)."""
    latest = {from_tick: policy for from_tick, _, policy in sorted(policies, key=lambda p: p[1])}
    was_open = False
    for from_tick in sorted(latest):
        was_open = was_open or latest[from_tick]["admission"] == "open"
        if was_open and latest[from_tick]["credit_limit"] > 0:
            return True
    return False


# --- The ledger ---


class PlainLedger:
    """All commons of one ledger; statements are submitted one at a time."""

    def __init__(self, ledger_key: bytes) -> None:
        self.ledger_key = ledger_key
        self.commons: dict[bytes, PlainCommons] = {}

    def submit(self, body: Body, signers: set[bytes], now_ms: int, *, body_bytes: bytes) -> Accepted | Refused:
        """Take one statement in.

        `body` is the decoded map of §3 (peers and ids bytes, amounts int), `signers` the keys whose
        signatures verify, `now_ms` the ledger's clock; `body_bytes` tells a replay from a conflict and names
        a new commons.
        Raises ValueError for a type that is not modelled.
        """
        if body["type"] not in MODELLED:
            raise ValueError(f"the plain model does not know {body['type']!r}")
        try:
            if body["type"] == "found":
                return self._found(body, signers, now_ms, body_bytes)
            if body["commons"] not in self.commons:
                raise _No("unknown-commons")
            return self.commons[body["commons"]].submit(body, signers, now_ms, body_bytes)
        except _No as no:
            return no.refused

    def _found(self, body: Body, signers: set[bytes], now_ms: int, body_bytes: bytes) -> Accepted:
        if mints_for_anybody([(0, 1, body["policy"])]):
            raise _No("malformed")
        if body["ledger"] != self.ledger_key:
            raise _No("wrong-ledger")
        name = hashlib.sha256(b"gesell/commons/1\n" + body_bytes).digest()[:16]
        if name in self.commons:  # the same body, hence the same id: a replay
            return self.commons[name].replay(self.commons[name].entries[body["id"]], body, signers)
        check_time(body, now_ms)
        stewards = set(body["stewards"])
        if body["by"] not in signers or body["by"] not in stewards:
            raise _No("not-authorised")
        if len(stewards & signers) < body["threshold"]:
            raise _No("not-authorised")
        commons = PlainCommons(body, self.ledger_key, now_ms)
        self.commons[name] = commons
        commons.signed[body["id"]] = set(signers)
        return commons.found(body, body_bytes, now_ms)

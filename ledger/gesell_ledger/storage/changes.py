"""What a batch of entries changes, gathered for storing it in one go each.

Owns how decisions add up. Speaks no SQL; the auditor gathers in the same way what the tables must hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from gesell_ledger.core.books import OFFERED, AccountName, Books, Gift, Hold, Kind
from gesell_ledger.core.decide import Accepted
from gesell_ledger.storage import rows
from gesell_protocol.demurrage import Holding
from gesell_protocol.log import LEAF_MAX_BYTES, leaf_hash

#: How much `account_values` tells of an account.
ACCOUNT_COLUMNS: Final = 7


class Changes:
    """The last value of everything that some entries changed, and each change where the history of it is kept."""

    def __init__(self) -> None:
        self.accounts: dict[AccountName, Holding] = {}
        self.members: dict[bytes, Any] = {}
        self.keys: dict[bytes, Any] = {}
        self.shares: dict[bytes, Any] = {}
        self.policies: list[tuple[int, int, Any]] = []
        self.erased: list[bytes] = []
        self.kinds: list[tuple[int, Kind]] = []
        self.gifts: dict[bytes, Gift] = {}
        #: gift or hold → the entry that received, declined or withdrew, captured, voided or lapsed it
        self.settled: dict[bytes, int] = {}
        self.holds: dict[bytes, Hold] = {}
        self.thread: list[tuple[int, UUID]] = []
        self.vouches: dict[tuple[bytes, bytes], int] = {}
        self.vouch_changes: list[tuple[int, int, bytes, bytes]] = []
        self.credits: list[tuple[int, int, bytes]] = []
        #: (seq, the ledger's key from the next entry on)
        self.handovers: list[tuple[int, bytes]] = []

    def add(self, accepted: Accepted) -> None:
        """Note what one more entry changed; entries are added in their order."""
        decision, seq = accepted.decision, accepted.entry.seq
        self.accounts.update(decision.accounts)
        self.members.update(decision.members)
        self.keys.update(decision.keys)
        if decision.share is not None:
            self.shares[decision.share.id] = decision.share
        if decision.policy is not None:
            self.policies.append((seq, *decision.policy))
        if decision.erased is not None:
            self.erased.append(decision.erased)
        if decision.ledger is not None:
            self.handovers.append((seq, decision.ledger))
        if decision.kind is not None:
            self.kinds.append((seq, decision.kind))
        if decision.gifts:
            self._add_gifts(accepted)
        for hold in decision.holds.values():
            self.holds[hold.id] = hold
            if not hold.open:
                self.settled[hold.id] = seq
        if decision.vouches:
            self.vouches.update(decision.vouches)
            self.vouch_changes += [(seq, amount, *pair) for pair, amount in decision.vouches.items()]
            changed = {peer for pair in decision.vouches for peer in pair}
            self.credits += [
                (seq, member.trusted - member.lent, peer)
                for peer, member in decision.members.items()
                if peer in changed
            ]

    def _add_gifts(self, accepted: Accepted) -> None:
        seq = accepted.entry.seq
        self.gifts.update(accepted.decision.gifts)
        for gift in accepted.decision.gifts.values():
            if gift.state != OFFERED:
                self.settled[gift.id] = seq
            else:
                moved_by = accepted.entry.fields().get("after", ())
                self.thread += [(seq, rows.uuid_of(name)) for name in moved_by]

    def gift_values(self) -> list[tuple[object, ...]]:
        """The gifts, each as (seq, settled, quantity, id, giver, receiver, kind, state)."""
        return [
            (
                gift.seq,
                self.settled.get(gift.id),
                gift.quantity,
                rows.uuid_of(gift.id),
                gift.giver,
                rows.holder_bytes(gift.receiver),
                gift.kind,
                gift.state,
            )
            for gift in self.gifts.values()
        ]

    def hold_values(self) -> list[tuple[object, ...]]:
        """The holds, each as (seq, ended, amount, until_ms, id, payer, payee)."""
        return [
            (
                hold.seq,
                self.settled.get(hold.id),
                hold.amount,
                hold.until_ms,
                rows.uuid_of(hold.id),
                hold.payer,
                hold.payee,
            )
            for hold in self.holds.values()
        ]


def merge(accepted: Iterable[Accepted]) -> Changes:
    """What some entries, in their order, changed together."""
    changes = Changes()
    for one in accepted:
        changes.add(one)
    return changes


def posting_values(
    books: Books,
    accepted: Iterable[Accepted],
    before: Mapping[AccountName, Holding],
    numbers: Mapping[AccountName, int],
) -> list[tuple[int, int, int, int, int, str]]:
    """Postings, each as (account, seq, amount, balance, n, reason), with the running balance of each account, which
    starts at what it was `before` and must end where the books do.
    """
    running: dict[AccountName, int] = {}
    values: list[tuple[int, int, int, int, int, str]] = []
    for one in accepted:
        seq = one.entry.seq
        for n, (reason, holder, asset, amount) in enumerate(one.entry.postings):
            name = (holder, asset)
            balance = running.get(name)
            if balance is None:
                balance = before[name].balance if name in before else 0
            running[name] = balance = balance + amount
            values.append((numbers[name], seq, amount, balance, n, reason))
    for name, balance in running.items():
        assert books.account(*name).balance == balance, "an account's balance is the sum of its postings"
    return values


def account_values(
    accounts: Mapping[AccountName, Holding], numbers: Mapping[AccountName, int]
) -> list[tuple[int, int, int, int, str, str, str]]:
    """Accounts as they stand now, each as (number, balance, escrow, tick, inflows, holder, asset), the last three as
    text, by number: not for locks, of which the head's is enough, but for the pages' sake.
    """
    return sorted(
        [
            (
                numbers[name],
                holding.balance,
                holding.escrow,
                holding.tick,
                rows.inflow_text(holding),
                rows.bytes_text(rows.holder_bytes(name[0])),
                rows.word_text(name[1]),
            )
            for name, holding in accounts.items()
        ]
    )


def leaves_of(accepted: Iterable[Accepted]) -> list[bytes]:
    """The leaf hashes of entries."""
    leaves = list[bytes]()
    for one in accepted:
        data = one.entry.leaf_data
        assert len(data) <= LEAF_MAX_BYTES, "the bounds on statements keep an entry within a length of two bytes"
        leaves.append(leaf_hash(data))
    return leaves

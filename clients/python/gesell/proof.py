"""The proof a reader can make: do the entries of a commons sum to the balances that its ledger shows?

Owns the adding up and the comparison. It takes the entries' word for nothing: each is hashed again, each must sum to
zero, and what was answered when a statement was accepted must be what stands in the log. That each melt follows the
law is not looked into here: `gesell db check` does that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from gesell.amount import Amount
from gesell.answers import Balance, Commons, Entry, Member
from gesell.client import Client
from gesell_protocol.names import ESCROW, ISSUER, POOL, Holder, did_of, peer_of

#: Balances asked for at a time.
AT_ONCE: Final = 16
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came out, as of entry `seq`, accepted at `at_ms`.

    `melt_posted` is what the entries charged, `melt_due` what the ledger shows as charged by then and not posted
    yet; `faults` says in a sentence each what does not agree, and is empty if the books hold.
    """

    seq: int
    at_ms: int
    types: Mapping[str, int]
    members: int
    supply: Amount
    pool: Amount
    escrow: Amount
    melt_posted: Amount
    melt_due: Amount
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything agreed."""
        return not self.faults


@dataclass(slots=True)
class _Sums:
    """The entries added up so far."""

    balances: Counter[Holder] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    leaves: dict[int, bytes] = field(default_factory=dict)
    melt: int = 0
    seq: int = 0
    at_ms: int = 0
    faults: list[str] = field(default_factory=list)


async def prove(client: Client, *, receipts: Mapping[int, bytes], advance: Advance = lambda _: None) -> Proof:
    """Fetch all entries and all balances of the client's commons, and compare.

    `receipts` are leaf hashes by seq, as they were answered; `advance` is told how many entries and members were
    looked at. Everything is compared as of the last entry at the start, so later ones don't disturb. Raises what
    reads raise; an entry that is not what its leaf says is `UnexpectedAnswer`.
    """
    shown = await client.commons()
    sums = await _add_up(client, through=shown.seq, advance=advance)
    sums.faults += [
        f"entry {seq} is not what was answered to its author"
        for seq, leaf in receipts.items()
        if sums.leaves.get(seq) != leaf
    ]
    members = [member async for member in client.members()]
    due = await _compare_members(client, members, sums, shown, advance=advance)
    _compare_reserved(shown, sums)

    def amount(grains: int) -> Amount:
        return Amount(grains, shown.currency.code, shown.currency.scale)

    return Proof(
        seq=sums.seq,
        at_ms=sums.at_ms,
        types=sums.types,
        members=len(members),
        supply=shown.supply,
        pool=shown.pool,
        escrow=shown.escrow,
        melt_posted=amount(sums.melt),
        melt_due=amount(due),
        faults=tuple(sums.faults),
    )


async def _add_up(client: Client, *, through: int, advance: Advance) -> _Sums:
    sums = _Sums()
    async for entry in client.entries():
        _add(sums, entry)
        advance(1)
        if entry.seq >= through:
            break
    if sums.seq != through:
        sums.faults.append(f"the ledger speaks of {through} entries and shows {sums.seq}")
    return sums


def _add(sums: _Sums, entry: Entry) -> None:
    if entry.seq != sums.seq + 1:
        sums.faults.append(f"entry {entry.seq} follows entry {sums.seq}")
    if entry.at_ms < sums.at_ms:
        sums.faults.append(f"entry {entry.seq} is dated before the one it follows")
    total = 0
    for reason, holder, _, amount in entry.postings:
        sums.balances[holder] += amount
        total += amount
        if reason == "melt" and amount > 0:
            sums.melt += amount
    if total:
        sums.faults.append(f"the postings of entry {entry.seq} sum to {total} grains, not to zero")
    sums.types[entry.type] += 1
    sums.leaves[entry.seq] = entry.leaf
    sums.seq, sums.at_ms = entry.seq, entry.at_ms


async def _compare_members(
    client: Client, members: Sequence[Member], sums: _Sums, shown: Commons, *, advance: Advance
) -> int:
    """Compare each member's posted balance with its postings; returns the melt that is due on all of them."""
    due = 0
    unseen = {holder for holder in sums.balances if isinstance(holder, bytes)}
    waiting = iter(members)
    while batch := list(islice(waiting, AT_ONCE)):
        # At the time of the last entry that was added up: what is accepted meanwhile does not count.
        balances = await asyncio.gather(*(client.balance(member.peer, at=shown.at_ms) for member in batch))
        for member, balance in zip(batch, balances, strict=True):
            sums.faults += _compare_member(member, balance, sums)
            due += balance.posted.grains - balance.effective.grains
            unseen.discard(peer_of(member.peer))
        advance(len(batch))
    sums.faults += [f"{did_of(peer)} has postings and is no member" for peer in unseen if sums.balances[peer]]
    return due


def _compare_member(member: Member, balance: Balance, sums: _Sums) -> list[str]:
    added = sums.balances[peer_of(member.peer)]
    if balance.posted.grains == added:
        return []
    return [f"{member.handle} has {balance.posted.grains} grains by the ledger and {added} by the entries"]


def _compare_reserved(shown: Commons, sums: _Sums) -> None:
    stated = {ISSUER: -shown.supply.grains, POOL: shown.pool.grains, ESCROW: shown.escrow.grains}
    sums.faults += [
        f"{holder} has {grains} grains by the ledger and {sums.balances[holder]} by the entries"
        for holder, grains in stated.items()
        if sums.balances[holder] != grains
    ]
    if total := sum(sums.balances.values()):
        sums.faults.append(f"all accounts together hold {total} grains, not zero")

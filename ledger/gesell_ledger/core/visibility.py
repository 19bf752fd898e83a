"""Who sees what of a commons (SPEC §7.3), and whom an entry concerns.

Owns the rule of reading, as `decide` owns that of writing. Knows no token and no path: who asks was found out before.

1. open: everybody sees everything.
2. members: an active or suspended member sees everything, and so does a steward.
3. parties: such a member sees the commons, its members and what it is a party to; a steward sees everything.
4. Who has left sees its own past: what it is a party to, its account, and the founding.
5. Who waits to be admitted, or never was, sees its own request. Anybody else sees nothing, not even that there is such
   a commons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gesell_ledger.core.books import POOL, RECEIVERS, Commons, Gift, Hold, Member
from gesell_protocol import statements
from gesell_protocol.log import Posting
from gesell_protocol.policy import Policy
from gesell_protocol.statements import (
    LEDGER_TYPES,
    ChangePolicy,
    ChangeStewards,
    Found,
    MakeKind,
    Pay,
    Rekey,
    Share,
    Statement,
    others_in,
)

#: Stands among the parties of what concerns all who see the commons.
EVERYBODY: Final = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one reader sees of one commons.

    `peer` is who it is, None for a stranger. `whole`: the commons' page, its members, its flow. `every_entry`: all
    entries, balances and histories; otherwise only those that `peer` is a party to. `belonged`: its own account, and
    the founding.
    """

    peer: bytes | None
    whole: bool
    every_entry: bool
    belonged: bool

    def account_of(self, peer: bytes) -> bool:
        """Whether it sees the balances and the history of `peer`."""
        return self.every_entry or (self.belonged and peer == self.peer)

    def member(self, peer: bytes) -> bool:
        """Whether it sees the row of member `peer`."""
        return self.whole or peer == self.peer

    def entry(self, seq: int, parties: frozenset[bytes]) -> bool:
        """Whether it sees entry `seq`, which concerns `parties`."""
        return (
            self.every_entry
            or self.peer in parties
            or (self.whole and EVERYBODY in parties)
            or (self.belonged and seq == 1)
        )


EVERYTHING: Final = Sight(peer=None, whole=True, every_entry=True, belonged=True)


def sight_of(commons: Commons, policy: Policy, peer: bytes | None, member: Member | None) -> Sight | None:
    """What `peer`, whose membership is `member`, sees under the policy in force; None for nothing at all.

    `peer` is None for who has not shown who it is, and for who showed a key that is not a live one of its peer's.
    """
    steward = peer in commons.stewards
    if policy.visibility == "open" or steward:
        return Sight(peer=peer, whole=True, every_entry=True, belonged=True)
    if peer is None or member is None:
        return None
    inside = member.status in RECEIVERS
    return Sight(
        peer=peer,
        whole=inside,
        every_entry=inside and policy.visibility == "members",
        # A handle is held from the moment its bearer was first active.
        belonged=member.handle_held,
    )


def sides_of(answered: Gift | Hold) -> frozenset[bytes]:
    """Whom a gift or a hold concerns, and with it all that answers it."""
    if isinstance(answered, Hold):
        return frozenset((answered.payer, answered.payee))
    receiver = answered.receiver
    return frozenset((answered.giver, receiver if isinstance(receiver, bytes) else EVERYBODY))


def parties_of(
    statement: Statement, postings: Sequence[Posting], sides: frozenset[bytes] = frozenset()
) -> frozenset[bytes]:
    """Whom an entry concerns: who speaks, whom it names, whose account it touches; `EVERYBODY` where that is all.

    `sides` are those of the gift or hold that the statement answers (`sides_of`), if it answers one. What the ledger
    itself says concerns those, and whose accounts it touches.
    """
    touched = {posting.holder for posting in postings if isinstance(posting.holder, bytes)}
    return frozenset(touched | _named(statement) | sides)


def mentions_of(
    statement: Statement, postings: Sequence[Posting], sides: frozenset[bytes] = frozenset()
) -> tuple[bytes, ...]:
    """The parties whom no posting tells of, ascending: they are noted apart, so that a party finds its entries."""
    if isinstance(statement, Pay):
        return ()  # who pays and who is paid all have postings, and most entries are payments
    touched = {posting.holder for posting in postings}
    return tuple(sorted((_named(statement) | sides) - touched))


def _named(statement: Statement) -> set[bytes]:
    if isinstance(statement, Rekey):
        return {EVERYBODY}
    if statement.type in LEDGER_TYPES:
        return set()
    named = {statement.by, *others_in(statement)}
    if isinstance(statement, (Found, ChangePolicy, ChangeStewards, Share, MakeKind)):
        named.add(EVERYBODY)
    if isinstance(statement, statements.Gift) and statement.to == POOL:
        named.add(EVERYBODY)
    return named

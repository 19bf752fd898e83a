"""What a batch must find in the Books before it is decided.

Owns the one list of what each type of statement looks at. Pure: storage loads what this says, in one go for the
whole batch; what is not named here is taken not to exist, so a type that looks further must say so here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gesell_ledger.core.decide import Submission
from gesell_protocol.statements import (
    Admit,
    ChangeStewards,
    Erase,
    Grant,
    Issue,
    Join,
    Keys,
    Pay,
    Payout,
    Suspend,
    Sweep,
)


@dataclass(slots=True)
class Needs:
    """Names of rows: `peers` with their membership and currency account, and whoever holds the handle they ask
    for; `keys` by their own name, `key_rings` the live keys of these peers; entries by statement `ids`; `shares`.
    """

    peers: set[bytes] = field(default_factory=set)
    handles: set[str] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)
    key_rings: set[bytes] = field(default_factory=set)
    ids: set[bytes] = field(default_factory=set)
    shares: set[bytes] = field(default_factory=set)


def needs_of(batch: Iterable[Submission]) -> Needs:
    """What all statements of a batch need together."""
    needs = Needs()
    for submission in batch:
        _add(needs, submission)
    return needs


def _add(needs: Needs, submission: Submission) -> None:
    statement = submission.statement
    needs.ids.add(statement.id)
    needs.peers.add(statement.by)
    needs.keys.update(submission.envelope.signers)
    match statement:
        case Pay(legs=legs) | Grant(legs=legs):
            needs.peers.update(leg.to for leg in legs)
        case Issue(to=peer) | Admit(peer=peer) | Suspend(peer=peer):
            needs.peers.add(peer)
        case Join(handle=handle, by=by):
            needs.handles.add(handle)
            needs.keys.add(by)
        case Keys(add=added, revoke=revoked, by=by):
            needs.keys.update(added)
            needs.keys.update(revoked)
            needs.keys.add(by)
            needs.peers.update(added)
            needs.key_rings.add(by)
        case ChangeStewards(stewards=stewards):
            needs.keys.update(stewards)
        case Erase(statement=target):
            needs.ids.add(target)
        case Sweep(accounts=peers):
            needs.peers.update(peers)
        case Payout(share=share, members=peers):
            needs.shares.add(share)
            needs.peers.update(peers)
        case _:
            pass

"""What a batch must find in the Books before it is decided.

Owns the one list of what each type of statement looks at. Pure: storage loads what this says, in one go for the
whole batch; what is not named here is taken not to exist, so a type that looks further must say so here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gesell_ledger.core.books import AccountName
from gesell_ledger.core.decide import Submission
from gesell_protocol.statements import (
    Admit,
    Capture,
    ChangeStewards,
    Decline,
    Erase,
    Gift,
    Grant,
    Hold,
    Issue,
    Join,
    Keys,
    Lapse,
    Leave,
    Pay,
    Payout,
    Rekey,
    Suspend,
    Sweep,
    Thank,
    Void,
    Vouch,
    Withdraw,
    Writeoff,
)


@dataclass(slots=True)
class Needs:
    """Names of rows: `peers` with their membership and currency account, and whoever holds the handle they ask
    for; `keys` by their own name, `key_rings` the live keys of these peers; entries by statement `ids`, with their
    postings only where what they say is among the `bodies` of the batch (`books.Known`); `shares`;
    `gifts` with the accounts that they are counted on, and `gift_accounts` by (holder, kind); `holds`, `vouches` by
    (voucher, vouchee), and `vouch_rings`, all vouches by and for these peers: each with both sides as if they were
    among `peers`.
    """

    peers: set[bytes] = field(default_factory=set)
    handles: set[str] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)
    key_rings: set[bytes] = field(default_factory=set)
    ids: set[bytes] = field(default_factory=set)
    bodies: set[bytes] = field(default_factory=set)
    shares: set[bytes] = field(default_factory=set)
    gifts: set[bytes] = field(default_factory=set)
    holds: set[bytes] = field(default_factory=set)
    gift_accounts: set[AccountName] = field(default_factory=set)
    vouches: set[tuple[bytes, bytes]] = field(default_factory=set)
    vouch_rings: set[bytes] = field(default_factory=set)


def needs_of(batch: Iterable[Submission]) -> Needs:
    """What all statements of a batch need together."""
    needs = Needs()
    for submission in batch:
        _add(needs, submission)
    return needs


def _add(needs: Needs, submission: Submission) -> None:
    statement = submission.statement
    needs.ids.add(statement.id)
    needs.bodies.add(submission.envelope.body)
    needs.peers.add(statement.by)
    for key, _ in submission.envelope.signatures:
        needs.keys.add(key)
    match statement:
        case Pay(legs=legs) | Grant(legs=legs):
            for to, _ in legs:
                needs.peers.add(to)
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
        case Rekey(ledger=key, by=by):
            needs.keys.update((key, by))
        case Erase(statement=target):
            needs.ids.add(target)
        case Gift(by=giver, to=receiver, kind=kind, after=gifts):
            needs.gifts.update(gifts)
            # Who thanks in the same batch finds no gift stored yet, and must find the accounts all the same.
            needs.gift_accounts.update({(giver, kind), (receiver, kind)})
            if isinstance(receiver, bytes):
                needs.peers.add(receiver)
        case Thank(gift=gift) | Decline(gift=gift) | Withdraw(gift=gift):
            needs.gifts.add(gift)
        case Hold(to=peer):
            needs.peers.add(peer)
        case Capture(hold=hold) | Void(hold=hold) | Lapse(hold=hold):
            needs.holds.add(hold)
        case Vouch(by=voucher, whom=vouchee):
            needs.vouches.add((voucher, vouchee))
            needs.peers.add(vouchee)
        case Writeoff(peer=peer):
            needs.peers.add(peer)
            needs.vouch_rings.add(peer)
        case Leave(by=by):
            needs.vouch_rings.add(by)
        case Sweep(accounts=peers):
            needs.peers.update(peers)
        case Payout(share=share, members=peers):
            needs.shares.add(share)
            needs.peers.update(peers)
        case _:
            pass

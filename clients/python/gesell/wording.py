"""What statements and policies say, in plain words.

Owns the sentences by which people decide whether to sign. Knows no ledger and no terminal: names, the currency and
the time are told by the caller.

1. Nothing that is signed is left out: every field of every type stands in its description, amounts exact.
2. A peer is always shown by its whole did, which is what is signed; a handle beside it is the ledger's word.
3. Each line is one of ours: nothing that others wrote ends one, or shows as anything but text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from gesell.amount import Amount
from gesell.answers import Kind
from gesell.gifts import Gift
from gesell_protocol import statements
from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import Currency, Leg
from gesell_protocol.foreign import one_line
from gesell_protocol.names import POOL, Holder, did_of, id_text, peer_of
from gesell_protocol.policy import Policy
from gesell_protocol.statements import (
    Admit,
    Capture,
    ChangePolicy,
    ChangeStewards,
    Decline,
    Erase,
    Found,
    Grant,
    Hold,
    Issue,
    Join,
    Keys,
    Leave,
    MakeKind,
    Pay,
    Retire,
    Share,
    Statement,
    Suspend,
    Thank,
    Void,
    Vouch,
    Withdraw,
    Writeoff,
    others_in,
)

Pairs = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """With what words to speak: the currency and the kinds of gifts as far as they are known, the handles of peers that
    have one, and the gift that a statement answers, by the ledger's word.
    """

    currency: Currency | None
    handles: Mapping[bytes, str]
    kinds: Mapping[str, Kind]
    gift: Gift | None

    def amount(self, grains: int) -> str:
        """An amount in the currency, or in grains where the currency is not known."""
        if self.currency is None:
            return f"{grains} grains"
        return str(Amount(grains, self.currency.code, self.currency.scale))

    def quantity(self, kind: str, grains: int) -> str:
        """So much of a kind of gift, or its grains where the kind is not known; the kind's code stands in it."""
        if kind not in self.kinds:
            return f"{grains} grains of {kind}"
        return f"{self.kinds[kind].amount(grains)} ({kind})"

    def receiver(self, to: Holder) -> str:
        """Whom a gift is for."""
        return self.peer(to) if isinstance(to, bytes) else "the pool, for the whole commons"

    def peer(self, key: bytes) -> str:
        """A peer's did, after its handle if it has one."""
        return f"{self.handles[key]} ({did_of(key)})" if key in self.handles else did_of(key)


def describe(
    envelope: Envelope,
    statement: Statement,
    *,
    founding: Found | None,
    handles: Mapping[bytes, str],
    now_ms: int,
    kinds: Mapping[str, Kind] = MappingProxyType({}),
    gift: Gift | None = None,
    accepted: bool = False,
) -> str:
    """What an envelope says, in lines: what it does, then who says it in which commons, until when, and who signed.

    One that was `accepted` is good for ever, so it does not say until when.

    `statement` is what its body was read as; `founding` the commons' first statement where it is known; `now_ms` the
    ledger's time; `kinds` the kinds of gifts by their codes, and `gift` the one that is answered, where they are known.
    """
    currency = None if founding is None else founding.currency
    words = Words(currency=currency, handles=handles, kinds=kinds, gift=gift)
    title, *details = _sentences(statement, words)
    commons = statement.commons.hex()
    late = " (it has expired)" if now_ms > statement.expires_ms else ""
    pairs = [
        *details,
        ("memo", _memo(envelope, statement)),
        ("by", words.peer(statement.by)),
        ("commons", commons if founding is None else f"{founding.name} ({commons})"),
        ("statement", id_text(statement.id)),
        ("good until", "" if accepted else moment_text(statement.expires_ms) + late),
        *(("signed by", words.peer(key)) for key in envelope.signers),
    ]
    width = max(len(name) for name, _ in pairs)
    lines = [f"  {name.ljust(width)}  {value}" for name, value in pairs if value]
    return "\n".join(one_line(line) for line in [f"{title[0]} {title[1]}".rstrip(), *lines])


def peers_in(statement: Statement) -> tuple[bytes, ...]:
    """The peers whom a statement names, its author first; added keys are no peers."""
    stewards = statement.stewards if isinstance(statement, (Found, ChangeStewards)) else ()
    return tuple(dict.fromkeys((statement.by, *others_in(statement), *stewards)))


def _sentences(statement: Statement, words: Words) -> Pairs:
    """What it does as a first pair that is a sentence, then the details."""
    match statement:
        case Found():
            yield from _founding(statement, words)
        case Join(handle=handle):
            yield "Join", f"the commons as {handle}"
        case Admit(peer=peer):
            yield "Admit", words.peer(peer)
        case Suspend(peer=peer):
            yield "Suspend", words.peer(peer)
        case Leave():
            yield "Leave", "the commons; what is left goes to the pool"
        case Keys():
            yield from _keys(statement, words)
        case ChangePolicy(policy=policy, from_tick=tick):
            yield "Change", f"the policy from tick {tick} on"
            yield from _policy(policy, words)
        case ChangeStewards(stewards=stewards, threshold=threshold):
            yield "Change", f"the stewards: from now on {threshold} of these {len(stewards)} sign"
            yield from (("steward", words.peer(steward)) for steward in stewards)
        case Erase(statement=name):
            yield "Erase", f"the memo of statement {id_text(name)}"
        case MakeKind() | statements.Gift() | Thank() | Decline() | Withdraw():
            yield from _gifts(statement, words)
        case _:
            yield from _money(statement, words)


def _gifts(statement: Statement, words: Words) -> Pairs:
    match statement:
        case MakeKind(code=code, name=name, unit=unit, scale=scale):
            counted = "in pieces (unit 1)" if unit == "1" else f"in the unit {unit}"
            yield "Make", f'the kind of gift {code}, "{name}", counted {counted} with {scale} decimals'
        case statements.Gift(to=to, kind=kind, quantity=quantity, after=after):
            yield "Give", f"{words.quantity(kind, quantity)} to {words.receiver(to)}"
            yield "for", statement.category or ""
            yield from (("moved by", f"gift {id_text(gift)}") for gift in after)
        case Thank(gift=name):
            yield "Thank", f"for {_gift(name, words)}"
        case Decline(gift=name):
            yield "Decline", _gift(name, words)
        case Withdraw(gift=name):
            yield "Withdraw", f"the offer of {_gift(name, words)}"


def _gift(name: bytes, words: Words) -> str:
    """A gift by its id, and by what it is where that is known."""
    gift = words.gift
    if gift is None:
        return f"gift {id_text(name)}"
    to = words.receiver(gift.to if gift.to == POOL else peer_of(gift.to))
    about = f" for {gift.category}" if gift.category else ""
    return f"{gift.quantity} ({gift.kind}){about} from {words.peer(peer_of(gift.giver))} to {to}, gift {id_text(name)}"


def _money(statement: Statement, words: Words) -> Pairs:
    match statement:
        case Issue(to=to, amount=amount):
            yield "Issue", f"{words.amount(amount)} of new money to {words.peer(to)}"
        case Retire(amount=amount, balancing=balancing):
            yield "Retire", f"{_all_up_to(balancing)}{words.amount(amount)} of one's own money for good"
        case Pay(legs=legs, balancing=balancing):
            yield from _legs(f"Pay {_all_up_to(balancing)}".rstrip(), legs, words)
            yield "for", statement.category or ""
            yield "answers", "" if statement.ref is None else id_text(statement.ref)
        case Grant(legs=legs):
            yield from _legs("Grant from the pool", legs, words)
        case Share(amount=amount):
            yield "Share", f"{words.amount(amount)} of the pool among all active members alike"
        case Hold(to=to, amount=amount, until=until):
            yield "Hold", f"{words.amount(amount)} for {words.peer(to)} until {moment_text(until)}"
            yield "for", statement.category or ""
        case Capture(hold=name, amount=amount):
            yield "Capture", f"{words.amount(amount)} of hold {id_text(name)}; the rest goes back to its payer"
        case Void(hold=name):
            yield "Void", f"hold {id_text(name)}; all of it goes back to its payer"
        case Vouch(whom=peer, limit=0):
            yield "Take back", f"all that one vouches for {words.peer(peer)}"
        case Vouch(whom=peer, limit=limit):
            yield "Vouch", f"for {words.peer(peer)} with {words.amount(limit)} of one's own credit room, in all"
        case Writeoff(peer=peer):
            yield "Write off", f"what {words.peer(peer)} owes"
            yield "borne by", "those who vouched for it, in proportion; then by the pool, then by all"
            yield "and then", "the member is suspended"
        case _:  # what the ledger itself says; nobody signs it by hand
            yield "Say", f"a statement of the type {statement.type}, which only a ledger makes"


def _all_up_to(balancing: bool) -> str:
    return "all there is, but at most " if balancing else ""


def _legs(verb: str, legs: tuple[Leg, ...], words: Words) -> Pairs:
    if len(legs) == 1:
        yield verb, f"{words.amount(legs[0].amount)} to {words.peer(legs[0].to)}"
        return
    yield verb, f"{words.amount(sum(leg.amount for leg in legs))} to {len(legs)} members"
    yield from (("to", f"{words.peer(leg.to)}: {words.amount(leg.amount)}") for leg in legs)


def _keys(statement: Keys, words: Words) -> Pairs:
    yield "Change", f"the keys that sign for {words.peer(statement.by)}"
    yield from (("add", did_of(key)) for key in statement.add)
    yield from (("revoke", did_of(key)) for key in statement.revoke)


def _founding(statement: Found, words: Words) -> Pairs:
    currency = statement.currency
    yield "Found", f'the commons "{statement.name}" with the currency {currency.code}, {currency.scale} decimals'
    yield "ledger", did_of(statement.ledger)
    yield from _policy(statement.policy, words)
    yield "stewards", f"{statement.threshold} of {len(statement.stewards)} sign"
    yield from (("", words.peer(steward)) for steward in statement.stewards)


def _policy(policy: Policy, words: Words) -> Pairs:
    yield "melt", melt_rate(policy)
    yield from (("bracket", f"from {words.amount(start)} on: {ppb} ppb a tick") for start, ppb in policy.brackets)
    yield "tick", f"{policy.tick_seconds} seconds"
    yield "rest", f"{policy.rest_ticks} ticks"
    yield "melt goes to", policy.melt_to
    yield "admission", policy.admission
    yield "credit limit", words.amount(policy.credit_limit)
    yield "smallest vouch", words.amount(policy.vouch_min)
    yield "visibility", policy.visibility
    yield "notice", f"{policy.notice_ticks} ticks"


def _memo(envelope: Envelope, statement: Statement) -> str:
    if statement.memo is None:
        return ""
    if envelope.memo is None:
        return f"a sealed text that is not in this file (seal {statement.memo.hex()})"
    # Quoted, so that no line of it can pass for a line of ours.
    return repr(envelope.memo.text)


def moment_text(ms: int) -> str:
    """A moment in UTC, to the second; in ms where no calendar of ours reaches."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms after 1970"


def melt_rate(policy: Policy) -> str:
    """A policy's melt in words: per tick, and what it makes in 30 days for the first bracket that melts."""
    rates = [ppb for _, ppb in policy.brackets if ppb]
    if not rates:
        return "nothing melts"
    tick = duration(policy.tick_seconds)
    left = (1 - rates[0] / 1e9) ** (30 * 86_400 / policy.tick_seconds)
    rate = f"{rates[0] / 1e7:.6g} % every {tick}"
    rate += f" (about {100 * (1 - left):.2g} % in 30 days)"
    if len(policy.brackets) > 1:
        rate += f", in {len(policy.brackets)} brackets"
    rest = f", after {policy.rest_ticks} × {tick} of rest" if policy.rest_ticks else ""
    return f"{rate}{rest}, to the {policy.melt_to}"


_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def duration(seconds: int) -> str:
    """A length of time in its largest whole unit: `day`, `6 hours`."""
    for unit, size in _UNITS:
        if seconds % size == 0:
            count = seconds // size
            return unit if count == 1 else f"{count} {unit}s"
    return f"{seconds} seconds" if seconds > 1 else "second"

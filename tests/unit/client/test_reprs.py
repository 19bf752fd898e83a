"""What a developer sees at a prompt: short, in names and amounts rather than in bytes, and without secrets."""

from __future__ import annotations

from inspect import ismodule

import pytest
from test_following import entry
from wire_ledger import BOB, WireLedger, problem

import gesell as gesell_package
from gesell import (
    Amount,
    Balance,
    ChainLink,
    Client,
    Flow,
    FlowStep,
    Gift,
    GiftCount,
    Gifts,
    HistoryLine,
    Member,
    Moved,
    Part,
    Payments,
    Peer,
    Relationship,
    Standing,
    Thanked,
    Trust,
    Trusted,
)
from gesell.answers import HOUR, moment, read_entry
from gesell.errors import refused as refused_by
from gesell.errors import with_currency
from gesell.sync import Client as SyncClient

ADA = Peer(b"\x01" * 32)


def wrg(grains: int) -> Amount:
    return Amount(grains, "WRG", 6)


BALANCE = Balance(
    effective=wrg(50_000), available=wrg(60_000), escrow=wrg(0), posted=wrg(50_000), next_melt=wrg(7),
    at_ms=0, tick=0, seq=1,
)  # fmt: skip
LINE = HistoryLine(
    seq=7, at_ms=0, type="pay", id="01", reason="pay", amount=wrg(-50_000), balance=wrg(0), counterpart=BOB.did,
    category="lift", ref=None, memo="thanks",
)  # fmt: skip
GIFT = Gift(
    id="01", seq=7, at_ms=0, giver=ADA.did, to=BOB.did, kind="hour", quantity=HOUR.amount(150), state="offered",
    settled_ms=None, category="lift", memo="thanks",
)  # fmt: skip
PAID = Payments(count=2, amount=wrg(50_000), categories=(Part(category="lift", count=1, amount=wrg(7)),))
GIVEN = Gifts(count=2, kinds=(Part(category=None, count=2, amount=HOUR.amount(150)),))
RELATIONSHIP = Relationship(
    peer=BOB.did, handle="bob", paid=PAID, received=PAID, given=GIVEN, was_given=GIVEN, vouches=wrg(0), vouched=wrg(0),
    first_ms=0, last_ms=0, reciprocity=1.0, strength=2.5, as_of_seq=7,
)  # fmt: skip
THANKED = Thanked(count=3, weight=1.5, members=2)
STANDING = Standing(peer=BOB.did, handle="bob", given=THANKED, received=THANKED, half_life_ms=1, as_of_seq=7)
TRUST = Trust(
    of=ADA.did, to=BOB.did, flow=wrg(50_000), strength=wrg(7), as_of_seq=7,
    chain=(ChainLink(peer=BOB.did, handle="bob", vouch=wrg(7)),),
)  # fmt: skip
STEP = FlowStep(
    begins_ms=0, ends_ms=1, paid=PAID, gifts=GIVEN, melt=wrg(7), issued=wrg(0), retired=wrg(0), granted=wrg(0),
    shared=wrg(0), new=0, members=1, active=None, only_paid=None, only_received=None, both=None, pool=wrg(0), held=None,
    velocity=None, still=None, gini=None, returned_2=None, returned_3=None,
)  # fmt: skip
MEMBER = Member(peer=BOB.did, handle="bob", status="active", joined_ms=0, credit_limit=wrg(0), keys=(BOB.did,))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (wrg(50_000), ["0.05 WRG"]),
        (BALANCE, ["0.05 WRG", "0.06 WRG to spend", "0.000007 WRG"]),
        (LINE, ["7 pay -0.05 WRG for lift", BOB.did, "'thanks'"]),
        (MEMBER, ["bob active", BOB.did]),
        (HOUR.amount(150), ["1.5 h"]),
        (GIFT, ["Gift 01 offered: 1.5 h for lift", ADA.did, BOB.did, "'thanks'"]),
        (Moved(id="01", state="offered"), ["moved 01 offered"]),
        (GiftCount(kind="hour", given=HOUR.amount(150), received=HOUR.amount(0)), ["hour: 1.5 h given, 0 h received"]),
        (PAID, ["2 payments of 0.05 WRG"]),
        (PAID.categories[0], ["1: 0.000007 WRG for lift"]),
        (GIVEN, ["2 gifts: 1.5 h"]),
        (RELATIONSHIP, ["with bob, strength 2.50: 0.05 WRG, 1.5 h for 0.05 WRG, 1.5 h"]),
        (STANDING, ["of bob: 3 gifts given, weighing 1.50, thanked by 2; 3 received"]),
        (TRUST, ["0.05 WRG, the strongest chain 0.000007 WRG in 1 steps"]),
        (TRUST.chain[0], ["0.000007 WRG for bob"]),
        (Trusted(member=MEMBER, strength=wrg(7), hops=2, by=ADA.did), ["bob: 0.000007 WRG over 2 vouches"]),
        (STEP, ["from 1970-01-01 00:00", "2 payments of 0.05 WRG", "2 gifts", "0.000007 WRG melted"]),
        (Flow(at_ms=0, step=1, as_of_seq=7, steps=(STEP,)), ["1 steps up to entry 7"]),
        (read_entry(entry(3)), ["Entry 3 found by did:key:"]),
        (read_entry(entry(3)).envelope, ["bytes, signed by did:key:"]),
        (read_entry(entry(3)).postings[0], [f"pay +3 grains of WRG {ADA.did}"]),
        (Client("http://127.0.0.1:8420", peer=ADA), ["http://127.0.0.1:8420", ADA.did]),
        (Client("http://127.0.0.1:8420", peer=BOB, by=ADA.did), [f"as {ADA.did}"]),
        (Client("http://127.0.0.1:8420"), ["as nobody"]),
        (SyncClient("http://127.0.0.1:8420", peer=ADA), [ADA.did]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repr_names_what_it_is(value: object, says: list[str]) -> None:
    shown = repr(value)
    assert all(part in shown for part in says), shown
    assert "\\x" not in shown
    assert "\n" not in shown


async def test_results_and_receipts_name_entry_statement_and_postings(ledger: WireLedger, gesell: Client) -> None:
    envelopes = [await gesell.sign({"type": "pay", "legs": [(BOB, "1")]}) for _ in range(2)]
    [accepted] = await gesell.submit(envelopes[:1])
    assert accepted.receipt is not None
    assert f"<pay +1000000 grains of WRG {BOB.did}>" in repr(accepted.receipt)
    assert f"at {moment(accepted.receipt.at_ms):%Y-%m-%d %H:%M:%S}: " in repr(accepted.receipt)
    assert repr(accepted) == "<Result accepted, entry 2>"
    ledger.odd = [lambda *_: problem("wrong-state", 409)]
    [refused] = await gesell.submit(envelopes[1:])
    assert repr(refused) == "<Result refused, wrong-state: wrong-state>"


def test_a_refusal_speaks_of_money_at_a_prompt_too() -> None:
    problem_ = {"code": "insufficient-funds", "detail": "…", "available": "5", "needed": "50000"}
    shown = repr(with_currency(refused_by(problem_), code="WRG", scale=6))
    says = "There is not enough: 0.000005 WRG to spend after melt, and this takes 0.05 WRG."
    assert shown == f"InsufficientFunds({says!r})"


def test_what_is_public_is_named() -> None:
    assert sorted(gesell_package.__all__) == gesell_package.__all__
    public = {name for name, value in vars(gesell_package).items() if name[0] != "_" and not ismodule(value)}
    assert set(gesell_package.__all__) == public

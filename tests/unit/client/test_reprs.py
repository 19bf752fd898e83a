"""What a developer sees at a prompt: short, in names and amounts rather than in bytes, and without secrets."""

from __future__ import annotations

from inspect import ismodule

import pytest
from test_following import entry
from wire_ledger import BOB, WireLedger, problem

import gesell as gesell_package
from gesell import Amount, Balance, Client, HistoryLine, Member, Peer
from gesell.answers import moment, read_entry
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
MEMBER = Member(peer=BOB.did, handle="bob", status="active", joined_ms=0, credit_limit=wrg(0), keys=(BOB.did,))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (wrg(50_000), ["0.05 WRG"]),
        (BALANCE, ["0.05 WRG", "0.06 WRG to spend", "0.000007 WRG"]),
        (LINE, ["7 pay -0.05 WRG for lift", BOB.did, "'thanks'"]),
        (MEMBER, ["bob active", BOB.did]),
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

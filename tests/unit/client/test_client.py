"""The client over real HTTP: what it sends, when it sends it again, and what it believes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from wire_ledger import BOB, STEWARD, WireLedger, drop_applied, drop_unread, packed, problem

from gesell import (
    Client,
    Expired,
    InsufficientFunds,
    Malformed,
    OutcomeUnknown,
    Peer,
    RateLimited,
    ReceiptMismatch,
    UnexpectedAnswer,
    UnknownMember,
    Unreachable,
)
from gesell.sync import Client as SyncClient
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import read_envelope
from gesell_protocol.log import Posting
from gesell_protocol.names import time_of_id
from gesell_protocol.statements import Pay, read_statement


def sent(ledger: WireLedger, post: int = -1) -> Pay:
    message: Any = unpack(ledger.posts[post])
    statement = read_statement(read_envelope(message["statements"][0]))
    assert isinstance(statement, Pay)
    return statement


async def test_a_payment_is_signed_sent_and_its_receipt_checked(ledger: WireLedger, gesell: Client) -> None:
    receipt = await gesell.pay("bob", "0.05", category="answer", memo="thanks")
    statement = sent(ledger)
    assert receipt.postings[-1] == Posting("pay", BOB.key, "WRG", 50_000)
    assert statement.category == "answer"
    assert statement.memo is not None
    assert 0 <= statement.expires_ms - time_of_id(statement.id) <= 300_000


async def test_an_empty_memo_is_none(ledger: WireLedger, gesell: Client) -> None:
    await gesell.pay("bob", "0.05", memo="")
    assert sent(ledger).memo is None


@pytest.mark.parametrize("nobody", [None, 7, ["bob"]])
async def test_what_names_no_peer_is_told_what_does(ledger: WireLedger, gesell: Client, nobody: Any) -> None:
    says = rf"a peer is named by its handle, its did, a Peer or the 32 bytes of its key, not {type(nobody).__name__}"
    with pytest.raises(TypeError, match=says):
        await gesell.pay(nobody, "1")
    if nobody is not None:  # where a peer may be left out, it is oneself
        with pytest.raises(TypeError, match=says):
            await gesell.balance(nobody)
    assert ledger.posts == []


@pytest.mark.parametrize("make", [Client, SyncClient])
def test_a_path_is_no_peer(make: Callable[..., Any]) -> None:
    for path in ("a.key", Path("a.key")):
        with pytest.raises(TypeError, match=r'^peer is a Peer: Peer\.load\("a\.key"\)$'):
            make("http://127.0.0.1:8420", peer=path)
    with pytest.raises(TypeError, match="peer is a Peer"):
        make("http://127.0.0.1:8420").as_peer(bytes(32))


@pytest.mark.parametrize("amount", ["1.5", Decimal("1.50"), " 1.5 "])
async def test_amounts_are_exact(ledger: WireLedger, gesell: Client, amount: str | Decimal) -> None:
    await gesell.pay(BOB, amount)
    assert sent(ledger).legs[0].amount == 1_500_000


@pytest.mark.parametrize("amount", [0.05, 1.0, True, None])
async def test_floats_are_refused_and_nothing_is_sent(ledger: WireLedger, gesell: Client, amount: Any) -> None:
    with pytest.raises(TypeError):
        await gesell.pay("bob", amount)
    assert ledger.posts == []


@pytest.mark.parametrize("amount", ["0.0000001", "0,05", "", "-1", "0", "1e3", "10000000000"])
async def test_bad_amounts_are_refused_and_nothing_is_sent(ledger: WireLedger, gesell: Client, amount: str) -> None:
    with pytest.raises((ValueError, Malformed)):
        await gesell.pay("bob", amount)
    assert ledger.posts == []


async def test_several_legs_and_every_way_to_name_a_peer(ledger: WireLedger, gesell: Client) -> None:
    cleo, dora = Peer.new(), Peer.new()
    await gesell.pay_each([(cleo, "1"), (dora.did, 2), (BOB.key, Decimal(3))])
    assert [(leg.to, leg.amount) for leg in sent(ledger).legs] == [
        (cleo.key, 1_000_000),
        (dora.key, 2_000_000),
        (BOB.key, 3_000_000),
    ]


async def test_a_handle_is_looked_up_once(ledger: WireLedger, gesell: Client) -> None:
    await gesell.pay("bob", "1")
    await gesell.pay("bob", "1")
    assert sum("members/bob" in path for path in ledger.reads) == 1
    with pytest.raises(UnknownMember):
        await gesell.pay("nobody", "1")


@pytest.mark.parametrize("drop", [drop_unread, drop_applied])
async def test_the_same_bytes_are_sent_again_after_a_lost_connection(
    ledger: WireLedger, gesell: Client, drop: Any
) -> None:
    ledger.odd = [drop, drop]
    receipt = await gesell.pay("bob", "0.05")
    assert len(ledger.posts) == 3
    assert len(set(ledger.posts)) == 1
    assert list(ledger.receipts) == [receipt.id]


async def test_an_outcome_that_stays_unknown_is_said_to_be_so_and_can_be_settled_later(
    ledger: WireLedger, gesell: Client
) -> None:
    ledger.odd = [drop_applied] + [drop_unread] * 50
    with pytest.raises(OutcomeUnknown) as caught:
        await gesell.pay("bob", "0.05")
    assert caught.value.applied is None
    assert len(set(ledger.posts)) == 1
    ledger.odd = []
    [result] = await gesell.submit([caught.value.envelope_bytes])
    assert result.status == "replayed"
    assert ledger.posts[-1] == ledger.posts[0]
    assert len(ledger.receipts) == 1


@pytest.mark.parametrize(
    ("code", "status"), [("unavailable", 503), ("internal", 500), ("rate-limited", 429), ("timeout", 408)]
)
async def test_what_passes_by_itself_is_tried_again(ledger: WireLedger, gesell: Client, code: str, status: int) -> None:
    ledger.odd = [lambda *_: problem(code, status), lambda *_: web.Response(status=502, text="gateway")]
    await gesell.pay("bob", "0.05")
    assert len(ledger.posts) == 3
    assert len(set(ledger.posts)) == 1


async def test_retry_after_is_honoured_and_too_long_a_wait_is_not_begun(ledger: WireLedger, gesell: Client) -> None:
    ledger.odd = [lambda *_: problem("rate-limited", 429, retry_after=60)]
    with pytest.raises(RateLimited) as caught:
        await gesell.pay("bob", "0.05")
    assert caught.value.applied is False
    assert len(ledger.posts) == 1
    ledger.odd = [lambda *_: problem("unavailable", 503, retry_after=60)]
    with pytest.raises(OutcomeUnknown):
        await gesell.pay("bob", "0.05")


async def test_doubt_is_not_taken_back_by_a_later_rate_limit(ledger: WireLedger, gesell: Client) -> None:
    ledger.odd = [drop_applied, lambda *_: problem("rate-limited", 429, retry_after=60)]
    with pytest.raises(OutcomeUnknown):
        await gesell.pay("bob", "0.05")


async def test_a_ledger_that_was_never_reached_leaves_no_doubt() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with Client(url, commons=bytes(16), peer=Peer.new(), patience=0.1) as gesell:
            with pytest.raises(Unreachable) as caught:
                await gesell.pay(BOB, "0.05")
    assert caught.value.applied is False


async def test_a_refusal_is_typed_and_known(ledger: WireLedger, gesell: Client) -> None:
    ledger.odd = [lambda *_: problem("insufficient-funds", 422, available="10", needed="50000")]
    with pytest.raises(InsufficientFunds) as caught:
        await gesell.pay("bob", "0.05")
    assert str(caught.value.available) == "0.00001 WRG"
    assert caught.value.applied is False
    assert len(ledger.posts) == 1


async def test_an_expired_statement_is_signed_anew_once_by_a_fresh_clock(ledger: WireLedger, gesell: Client) -> None:
    ledger.odd = [lambda *_: problem("expired", 410)]
    await gesell.pay("bob", "0.05")
    assert len(set(ledger.posts)) == 2
    assert ledger.reads.count("/v1") == 2
    ledger.odd = [lambda *_: problem("expired", 410)] * 2
    with pytest.raises(Expired):
        await gesell.pay("bob", "0.05")


def _relabel(ledger: WireLedger, receipt: dict[str, Any], postings: list[Posting]) -> None:
    """Give the receipt other postings and the leaf that honestly commits to them."""
    message: Any = unpack(ledger.posts[-1])
    envelope = read_envelope(message["statements"][0])
    receipt.update(ledger.receipt(envelope, receipt["commons"], receipt["id"], receipt["at"], postings))


def _other_amount(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    payer, payee = receipt["postings"]
    _relabel(ledger, receipt, [payer._replace(amount=-60_000), payee._replace(amount=60_000)])


def _other_payee(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    payer, payee = receipt["postings"]
    _relabel(ledger, receipt, [payer, payee._replace(holder=STEWARD.key)])


def _melt_to_a_member(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    payer = receipt["postings"][0].holder
    melt = [Posting("melt", payer, "WRG", -5), Posting("melt", STEWARD.key, "WRG", 5)]
    _relabel(ledger, receipt, melt + receipt["postings"])


def _melt_to_the_wrong_place(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    payer = receipt["postings"][0].holder
    melt = [Posting("melt", payer, "WRG", -5), Posting("melt", "issuer", "WRG", 5)]
    _relabel(ledger, receipt, melt + receipt["postings"])


def _other_leaf(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    receipt["leaf"] = bytes(32)


def _other_seq(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    receipt["seq"] += 1


def _other_tick(ledger: WireLedger, receipt: dict[str, Any]) -> None:
    receipt["tick"] += 1


@pytest.mark.parametrize(
    "cheat",
    [
        _other_amount,
        _other_payee,
        _melt_to_a_member,
        _melt_to_the_wrong_place,
        _other_leaf,
        _other_seq,
        _other_tick,
    ],
)
async def test_a_receipt_that_is_not_for_what_was_signed_is_found_out(
    ledger: WireLedger, gesell: Client, cheat: Any
) -> None:
    ledger.change_receipt = lambda receipt: cheat(ledger, receipt)
    with pytest.raises(ReceiptMismatch) as caught:
        await gesell.pay("bob", "0.05")
    assert caught.value.applied is True
    assert caught.value.receipt.id == sent(ledger).id


async def test_an_operator_cannot_change_what_an_amount_means(ledger: WireLedger, gesell: Client) -> None:
    from wire_ledger import founding

    ledger.found = founding(scale=9)
    with pytest.raises(UnexpectedAnswer, match="not the founding"):
        await gesell.pay("bob", "0.05")
    assert ledger.posts == []


async def test_many_come_back_in_order_with_refusals_and_doubts_as_values(ledger: WireLedger, gesell: Client) -> None:
    envelopes = [await gesell.sign({"type": "pay", "legs": [(BOB, amount)]}) for amount in ("1", "2", "3", "4")]

    def mixed(request: web.Request, ledger: WireLedger) -> web.Response:
        no = {"status": "refused", "problem": {"code": "insufficient-funds", "detail": "no", "available": 1}}
        late = {"status": "refused", "problem": {"code": "unavailable", "detail": "later"}}
        return packed([ledger.accept(envelopes[0]), no, late, ledger.accept(envelopes[3])])

    ledger.odd = [mixed]
    results = await gesell.submit(envelopes)
    assert [result.status for result in results] == ["accepted", "refused", "accepted", "accepted"]
    assert [result.envelope for result in results] == envelopes
    assert isinstance(results[1].error, InsufficientFunds)
    assert results[2].receipt is not None
    assert results[2].receipt.postings[-1].amount == 3_000_000
    resent: Any = unpack(ledger.posts[-1])
    assert len(resent["statements"]) == 1


async def test_more_than_one_request_can_hold_is_cut_into_several(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gesell.delivery.REQUEST_STATEMENTS_MAX", 20)
    envelopes = [await gesell.sign({"type": "pay", "legs": [(BOB, n + 1)]}) for n in range(45)]
    results = await gesell.submit(envelopes)
    assert [result.receipt_or_raise().postings[-1].amount for result in results] == [
        (n + 1) * 1_000_000 for n in range(45)
    ]
    assert len(ledger.posts) == 3


async def test_a_client_follows_a_fast_clock(ledger: WireLedger, gesell: Client) -> None:
    ledger.speed, ledger.time_ms = 10_000, lambda: 4_000_000_000_000
    envelope = await gesell.sign({"type": "pay", "legs": [(BOB, "1")]})
    statement = read_statement(envelope)
    assert time_of_id(statement.id) >= 4_000_000_000_000
    assert statement.expires_ms - time_of_id(statement.id) == 7 * 24 * 3600 * 1000


async def test_founding_names_the_commons_and_another_steward_signs_along(ledger: WireLedger, gesell: Client) -> None:
    commons = await gesell.found(name="Wörgl", currency="WRG", stewards=[STEWARD, BOB], signers=[BOB, STEWARD])
    assert gesell.commons_id == commons
    message: Any = unpack(ledger.posts[-1])
    assert len(message["statements"][0][1]) == 3


async def test_lists_are_followed_to_their_end(ledger: WireLedger, gesell: Client) -> None:
    assert [member.handle async for member in gesell.members()] == ["member0", "member1", "member2"]


async def test_a_next_page_on_another_origin_is_not_followed(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lead_away(self: WireLedger, request: web.Request) -> web.Response:
        headers = {"Link": '<http://127.0.0.1:1/v1/x>; rel="next"'}
        return web.json_response({"items": []}, headers=headers)

    monkeypatch.setattr(WireLedger, "members", lead_away)
    other = WireLedger()
    from wire_ledger import serving

    async with serving(other) as url, Client(url, commons=other.commons) as reader:
        with pytest.raises(UnexpectedAnswer, match="another origin"):
            assert [member async for member in reader.members()] == []


async def test_another_server_is_told_from_a_ledger(ledger: WireLedger) -> None:
    from wire_ledger import serving

    async with serving(ledger) as url, Client(url + "/elsewhere") as gesell:
        with pytest.raises(UnexpectedAnswer, match="is the address right"):
            await gesell.service()


async def test_a_ledger_that_hangs_is_told_of_in_the_time_of_one_attempt() -> None:
    attempts = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client(f"http://127.0.0.1:{port}", timeout=0.4) as client:
        with pytest.raises(Unreachable):
            await client.service()
    assert len(attempts) == 1
    server.close()

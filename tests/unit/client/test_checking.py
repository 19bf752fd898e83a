"""A client that checks what it is told, against ledgers that lie: real trees, real signatures, real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiohttp import web
from wire_ledger import BOB, KEY, WireLedger, drop_unread, packed, problem, serving
from wire_log import WireLog, WireWitness, rekey

from gesell import (
    CheckFailed,
    Client,
    Equivocation,
    FolderMemory,
    InsufficientFunds,
    MemoryFileError,
    NotFound,
    NotInLog,
    OutcomeUnknown,
    Peer,
    Receipt,
    Unchecked,
    UnexpectedAnswer,
    Unwitnessed,
    WrongKey,
    verifying,
)
from gesell.log_reader import KEPT_TILES, LogReader
from gesell.memory import LifeMemory
from gesell.sync import Client as SyncClient
from gesell_protocol.envelopes import read_envelope
from gesell_protocol.log import Posting, leaf_data, read_leaf
from gesell_protocol.notes import Signature, origin_of, read_note, verify_checkpoint
from gesell_protocol.proofs import verify_receipt
from gesell_protocol.tree import BadProof, Tile, check_consistency

ADA = Peer(b"\x01" * 32)
NEW_SEED = b"\x17" * 32
NEW = Peer(NEW_SEED)
THIEF_SEED = b"\x18" * 32
THIEF = Peer(THIEF_SEED)
WITNESSES = [WireWitness(f"witness{n}.example/w", bytes([0x30 + n]) * 32) for n in range(3)]


@pytest.fixture
async def url(ledger: WireLedger) -> AsyncIterator[str]:
    async with serving(ledger) as url:
        yield url


@asynccontextmanager
async def checking(url: str, wire: WireLedger, /, **more: Any) -> AsyncIterator[Client]:
    """A client that checks by itself."""
    given = {"timeout": 5, "patience": 0.5, "check": True, **more}
    async with Client(url, commons=wire.commons, peer=ADA, **given) as client:
        yield client


@pytest.fixture
async def gesell(ledger: WireLedger, url: str) -> AsyncIterator[Client]:
    """A client that checks when it is told to."""
    async with checking(url, ledger, check=False) as client:
        yield client


async def paid(client: Client, count: int) -> list[Receipt]:
    """Receipts of payments, sent together."""
    envelopes = [await client.sign({"type": "pay", "legs": [(BOB, n + 1)]}) for n in range(count)]
    return [result.receipt_or_raise() for result in await client.submit(envelopes)]


def changed(data: bytes) -> bytes:
    """The leaf of the same entry with one grain more in each posting: what a rewriter puts in its place."""
    leaf = read_leaf(data)
    postings = [Posting(reason, holder, asset, amount * 2) for reason, holder, asset, amount in leaf.postings]
    return leaf_data(seq=leaf.seq, at_ms=leaf.at_ms, body=leaf.body, signatures=leaf.signatures, postings=postings)


def forked(log: WireLog, seq: int) -> WireLog:
    """A log with the same entries but for one, all hashes made anew, and signed as the other is."""
    fork = log.copy()
    fork.rewrite(seq, changed(fork.entries[seq - 1]))
    return fork


def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every statement be followed by a check."""
    monkeypatch.setattr(verifying, "CHECK_EVERY_SECONDS", 0.0)


def assert_evidence(error: Equivocation, ledger: WireLedger) -> None:
    """See what the evidence says with nothing but the ledger's key, as somebody would who was not there."""
    first, second = (read_note(text) for text in (error.first, error.second))
    one = verify_checkpoint(first, commons=ledger.commons, ledger=KEY.key)
    other = verify_checkpoint(second, commons=ledger.commons, ledger=KEY.key)
    short, long = sorted((one, other), key=lambda checkpoint: checkpoint.size)
    if short.size == long.size:
        assert error.proves
        assert short.root != long.root
        return
    if not error.proves:
        return
    honest = {"old": short.size, "old_root": short.root, "new": long.size, "new_root": long.root}
    with pytest.raises(BadProof, match="does not begin"):
        check_consistency(**honest, proof=error.hashes)  # type: ignore[arg-type]


# ── A ledger that tells the truth ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [(1, 1), (5, 250, 1, 300), (255, 1), (256, 256, 3), (600, 70)])
async def test_a_log_that_only_grows_is_followed_and_holds_all_receipts(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]
) -> None:
    gesell._link.checks.by_itself = True
    size = 1
    assert (await gesell.check()).size == 1
    for count in steps:
        receipts = await paid(gesell, count)
        size += count
        checked = await gesell.check()
        assert (checked.size, checked.proven, checked.since_size) == (size, len(receipts), 1)
        assert (checked.root, checked.ledger) == (ledger.log.frontier().root, KEY.did)
    assert not gesell._link.checks.has_unproven


async def test_a_check_without_news_costs_one_request(ledger: WireLedger, gesell: Client) -> None:
    await gesell.check()
    ledger.asked.clear()
    await gesell.check()
    assert ledger.asked == ["/log/checkpoint"]


async def test_receipts_that_stand_together_share_tiles(ledger: WireLedger, gesell: Client) -> None:
    gesell._link.checks.by_itself = True
    await paid(gesell, 1_000)
    ledger.asked.clear()
    assert (await gesell.check()).proven == 1_000
    assert len([path for path in ledger.asked if "/tile/0/" in path]) == 4
    assert len(ledger.asked) == 6  # and the checkpoint, and the tile above


async def test_a_client_checks_before_its_first_statement_then_by_the_time_and_at_its_end(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with checking(url, ledger) as client:
        await client.currency()
        assert ledger.asked == []
        await paid(client, 1)
        assert ledger.asked == ["/log/checkpoint"]
        assert len(ledger.posts) == 1
        await paid(client, 1)
        assert ledger.asked == ["/log/checkpoint"]
        due(monkeypatch)
        await paid(client, 1)
        assert len(ledger.asked) > 1
        assert not client._link.checks.has_unproven
        monkeypatch.undo()
        await paid(client, 1)
        ledger.asked.clear()
    assert ledger.asked[0] == "/log/checkpoint"
    assert len(ledger.asked) == 2  # and one tile


async def test_a_client_that_is_told_not_to_does_not_check(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger, check=False) as client:
        await paid(client, 3)
    assert ledger.asked == []


async def test_many_receipts_are_not_left_for_later(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "UNPROVEN_MAX", 40)
    async with checking(url, ledger) as client:
        await paid(client, 39)
        assert client._link.checks.has_unproven
        await paid(client, 1)
        assert not client._link.checks.has_unproven


async def test_many_tasks_share_one_client_and_its_checks(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger) as client:
        await asyncio.gather(*(client.pay(BOB, n + 1) for n in range(40)), *(client.check() for _ in range(5)))
        await client.check()
        assert not client._link.checks.has_unproven
    assert len(ledger.receipts) == 40


async def test_tasks_that_begin_together_make_one_first_check(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger) as client:
        await asyncio.gather(*(client.pay(BOB, n + 1) for n in range(20)))
        assert ledger.asked == ["/log/checkpoint"]


async def test_a_receipt_for_no_entry_at_all_is_told_of(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger) as client:
        await client.check()
        ledger.seq = -1
        await client.pay(BOB, "1")
        with pytest.raises(NotInLog):
            await client.check()


async def test_a_found_commons_is_looked_after_from_its_founding(ledger: WireLedger, url: str) -> None:
    async with Client(url, commons=ledger.commons, peer=ADA, ledger=KEY.did, check=True) as client:
        checked = await client.check()
    assert (checked.size, checked.ledger, checked.commons) == (1, KEY.did, ledger.commons.hex())


# ── Forks and rewritten logs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("more", [0, 1, 300])
async def test_a_fork_is_evidence_with_two_signed_checkpoints(
    ledger: WireLedger, gesell: Client, tmp_path: Path, more: int
) -> None:
    await paid(gesell, 300)
    await gesell.check()
    before = ledger.log.checkpoint()
    ledger.log = forked(ledger.log, 290)
    await paid(gesell, more) if more else None
    with pytest.raises(Equivocation) as caught:
        await gesell.check()
    error = caught.value
    assert (error.first, error.second) == (str(before), str(ledger.log.checkpoint()))
    assert error.proves
    assert_evidence(error, ledger)
    saved = json.loads(error.save(tmp_path / "fork.json").read_text())
    assert (saved["first"], saved["second"], saved["ledger"]) == (error.first, error.second, [KEY.did])
    assert [base64.b64decode(one) for one in saved["hashes"]] == list(error.hashes)
    with pytest.raises(Equivocation):  # it does not get used to it
        await gesell.check()


async def test_a_payment_after_which_a_fork_is_found_stays_paid(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger) as client:
        await paid(client, 5)
        ledger.log = forked(ledger.log, 3)
        with pytest.raises(Equivocation) as caught:
            await client.pay(BOB, "1")
        assert caught.value.applied is True
        [receipt] = caught.value.receipts
        assert receipt.id in ledger.receipts
        assert client.unsettled == ()


async def test_a_batch_with_refusals_keeps_its_results_when_a_fork_is_found(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger) as client:
        await paid(client, 5)
        ledger.log = forked(ledger.log, 3)
        ledger.odd = [lambda *_: problem("insufficient-funds", 422, available="0", needed="1")]
        with pytest.raises(InsufficientFunds):  # nothing was given, so nothing is there to be proven
            await client.pay(BOB, "1")
        with pytest.raises(Equivocation) as caught:
            await paid(client, 2)
        assert [result.status for result in caught.value.results] == ["accepted", "accepted"]


async def test_an_unknown_outcome_is_told_before_any_fork(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger, patience=0.2) as client:
        await paid(client, 5)
        ledger.log = forked(ledger.log, 3)
        ledger.odd = [drop_unread] * 20
        with pytest.raises(OutcomeUnknown):
            await client.pay(BOB, "1")
        ledger.odd = [half] * 20
        envelopes = [await client.sign({"type": "pay", "legs": [(BOB, "1")]}) for _ in range(2)]
        given, unknown = await client.submit(envelopes)
        assert (given.status, unknown.status) == ("accepted", "unknown")
        ledger.odd.clear()
        with pytest.raises(Equivocation):
            await client.pay(BOB, "1")


def half(request: web.Request, ledger: WireLedger) -> web.Response:
    """Accept one of two, and answer nothing that settles the other."""
    first, *others = [read_envelope(value) for value in msgpack.unpackb(ledger.posts[-1])["statements"]]
    busy = {"status": "refused", "problem": {"code": "unavailable", "status": 503}}
    return packed([ledger.accept(first), busy] if others else [busy])


async def test_a_fork_shown_to_two_clients_is_found_when_they_compare(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger, check=False) as ada, checking(url, ledger, check=False) as bob:
        await paid(ada, 20)
        honest, lie = ledger.log, forked(ledger.log, 12)
        hers = await ada.check()
        ledger.log = lie
        his = await bob.check()
        assert hers.size == his.size
        with pytest.raises(Equivocation) as caught:
            await bob.check(seen=hers.note)
        assert caught.value.proves
        assert_evidence(caught.value, ledger)
        await paid(bob, 5)  # his log goes on
        with pytest.raises(Equivocation) as caught:
            await bob.check(seen=hers.note)
        assert caught.value.proves
        assert_evidence(caught.value, ledger)
        his = await bob.check()
        ledger.log = honest  # hers is shorter than what he saw
        with pytest.raises(Equivocation) as caught:
            await ada.check(seen=his.note)
        assert not caught.value.proves


async def test_two_who_were_shown_one_log_find_nothing(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger, check=False) as ada, checking(url, ledger, check=False) as bob:
        early = await ada.check()
        await paid(ada, 300)
        late = await bob.check()
        await bob.check(seen=early.note)
        await ada.check(seen=late.note)
        with pytest.raises(ValueError, match="no checkpoint"):
            await ada.check(seen="hello")
        with pytest.raises(WrongKey):
            await ada.check(seen=str(ledger.log.checkpoint(signer=THIEF_SEED)))


async def test_a_log_that_was_cut_short_is_told_of(ledger: WireLedger, gesell: Client) -> None:
    await paid(gesell, 300)
    await gesell.check()
    ledger.log = ledger.log.copy(size=200)
    with pytest.raises(Equivocation, match="301 entries, and shows one of 200") as caught:
        await gesell.check()
    assert not caught.value.proves
    ledger.seq = 200
    await paid(gesell, 150)  # and grows again past where it was
    with pytest.raises(Equivocation) as caught:
        await gesell.check()
    assert caught.value.proves
    assert_evidence(caught.value, ledger)


async def test_an_entry_that_is_written_over_is_told_of(ledger: WireLedger, gesell: Client) -> None:
    await paid(gesell, 10)
    await gesell.check()
    ledger.log.rewrite(1, changed(ledger.log.entries[0])[:-1] + b"\x00")
    with pytest.raises(Equivocation):
        await gesell.check()


async def test_an_older_answer_is_no_error(ledger: WireLedger, gesell: Client) -> None:
    await paid(gesell, 300)
    await gesell.check()
    old = ledger.log.checkpoint(200)
    ledger.odd_log = [lambda *_: web.Response(text=str(old))]
    assert (await gesell.check()).size == 301


async def test_an_older_answer_of_another_log_is_evidence(ledger: WireLedger, gesell: Client) -> None:
    await paid(gesell, 300)
    await gesell.check()
    old = forked(ledger.log, 150).checkpoint(200)
    ledger.odd_log = [lambda *_: web.Response(text=str(old))]
    with pytest.raises(Equivocation) as caught:
        await gesell.check()
    assert caught.value.proves
    assert_evidence(caught.value, ledger)


# ── Receipts ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_receipt_for_an_entry_that_the_log_has_not_is_told_of(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger) as client:
        receipts = await paid(client, 5)
        ledger.log = forked(ledger.log, 4)
        with pytest.raises(NotInLog) as caught:
            await client.check()
        error = caught.value
        assert error.receipt == receipts[2]
        assert read_leaf(ledger.log.entries[3]).body == error.envelope.body
        assert error.checkpoint == str(ledger.log.checkpoint())
        assert error.evidence["receipt"]["leaf"] == receipts[2].leaf.hex()


async def test_a_checkpoint_that_does_not_cover_a_receipt_is_waited_for_and_then_told_of(
    ledger: WireLedger, url: str
) -> None:
    async with checking(url, ledger) as client:
        await paid(client, 5)
        late = [str(ledger.log.checkpoint(3))]

        def lag(request: web.Request, ledger: WireLedger) -> web.Response | None:
            return web.Response(text=late.pop()) if late and request.path.endswith("/checkpoint") else None

        ledger.odd_log = [lag] * 10
        assert (await client.check()).proven == 5
        await paid(client, 1)
        ledger.log = ledger.log.copy(size=6)  # consistent with what was checked, and without the last receipt
        with pytest.raises(NotInLog, match="entry 7 and shows a log of 6"):
            await client.check()


async def test_a_payment_is_not_held_up_by_a_checkpoint_from_a_cache(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger, patience=30) as client:
        await paid(client, 3)
        cached = str(ledger.log.checkpoint())
        ledger.odd_log = [lambda *_: web.Response(text=cached)]
        await paid(client, 1)
        assert client._link.checks.has_unproven
        await paid(client, 1)
        assert not client._link.checks.has_unproven


async def test_a_client_that_ends_with_receipts_that_are_not_in_the_log_says_so(ledger: WireLedger, url: str) -> None:
    with pytest.raises(NotInLog) as caught:  # noqa: PT012
        async with checking(url, ledger) as client:
            receipts = await paid(client, 5)
            ledger.log = forked(ledger.log, 4)
    assert list(caught.value.receipts) == receipts
    assert caught.value.applied is True


async def test_the_error_by_which_a_block_ends_is_not_replaced(ledger: WireLedger, url: str) -> None:
    with pytest.raises(RuntimeError, match="mine") as caught:  # noqa: PT012
        async with checking(url, ledger) as client:
            await paid(client, 5)
            ledger.log = forked(ledger.log, 4)
            raise RuntimeError("mine")
    assert "NotInLog" in caught.value.__notes__[0]


async def test_the_sync_client_checks_at_its_end_too(ledger: WireLedger, url: str) -> None:
    def work() -> None:
        with SyncClient(url, commons=ledger.commons, peer=ADA, check=True, patience=0.5) as client:
            client.pay(BOB, "1")
            assert client.check().proven == 1
            client.pay(BOB, "1")
            ledger.log = forked(ledger.log, 3)

    with pytest.raises(NotInLog) as caught:
        await asyncio.to_thread(work)
    assert len(caught.value.receipts) == 1


# ── Ledgers that do not answer ───────────────────────────────────────────────────────────────────────────────────


def down(request: web.Request, ledger: WireLedger) -> web.Response:
    return problem("unavailable", 503)


def hostile(body: bytes) -> Callable[..., web.Response]:
    return lambda *_: web.Response(body=body)


async def test_a_log_that_can_not_be_asked_for_a_while_disturbs_no_payment(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger, patience=30) as client:
        await paid(client, 1)
        ledger.odd_log = [down] * 4
        receipt = await client.pay(BOB, "1")
        assert receipt.id in ledger.receipts
        assert client._link.checks.has_unproven
        await client.pay(BOB, "1")
        assert not client._link.checks.has_unproven


async def test_a_log_that_can_not_be_asked_for_long_is_told_of(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    async with checking(url, ledger, patience=0) as client:
        ledger.odd_log = [lambda *_: None, *[down] * 4]
        with pytest.raises(Unchecked) as caught:
            await client.pay(BOB, "1")
        assert caught.value.applied is True
        assert len(caught.value.receipts) == 1


async def test_a_log_that_hangs_holds_a_payment_up_for_a_moment_only(
    ledger: WireLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    monkeypatch.setattr(verifying, "HELD_UP_SECONDS", 0.1)

    async def hang(*_: object) -> None:
        await asyncio.sleep(1)

    async with checking(url, ledger, patience=30) as client:
        ledger.odd_log = [lambda *_: None, hang]
        receipt = await client.pay(BOB, "1")
        assert receipt.id in ledger.receipts
        assert client._link.checks.has_unproven


async def test_a_client_that_ends_without_an_answer_says_so(ledger: WireLedger, url: str) -> None:
    with pytest.raises(Unchecked, match="could not be checked") as caught:  # noqa: PT012
        async with checking(url, ledger) as client:
            await paid(client, 2)
            ledger.odd_log = [down] * 4
    assert len(caught.value.receipts) == 2


async def test_nothing_is_sent_to_a_ledger_that_shows_no_log(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger) as client:
        ledger.odd_log = [lambda *_: web.Response(status=404)]
        with pytest.raises(UnexpectedAnswer) as caught:
            await client.pay(BOB, "1")
    assert caught.value.applied is False
    assert ledger.posts == []


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"x" * 70_000, b"a\nb\nc\n\n", "gesell\n1\n-\n\n\u2014 a b\n".encode(), b"\xff\n\n", bytes(100)],
)
async def test_what_is_no_checkpoint_is_refused(ledger: WireLedger, gesell: Client, body: bytes) -> None:
    ledger.odd_log = [hostile(body)]
    with pytest.raises(UnexpectedAnswer):
        await gesell.check()


async def test_a_checkpoint_of_another_log_is_refused(ledger: WireLedger, gesell: Client) -> None:
    other = WireLog(bytes(16), ledger.log.signer, ledger.log.entries)
    ledger.odd_log = [hostile(str(other.checkpoint()).encode())]
    with pytest.raises(WrongKey):
        await gesell.check()


async def test_a_checkpoint_whose_signature_does_not_hold_is_refused(ledger: WireLedger, gesell: Client) -> None:
    note = str(ledger.log.checkpoint()).replace("\n1\n", "\n2\n")
    ledger.odd_log = [hostile(note.encode())]
    with pytest.raises(UnexpectedAnswer, match="does not hold"):
        await gesell.check()


@pytest.mark.parametrize("body", [b"", bytes(31), bytes(33), bytes(300 * 32), b"x" * 20_000_000])
async def test_a_tile_of_another_length_is_refused(ledger: WireLedger, gesell: Client, body: bytes) -> None:
    await gesell.check()
    await paid(gesell, 5)
    ledger.odd_log = [lambda *_: None, hostile(body)]
    with pytest.raises(UnexpectedAnswer):
        await gesell.check()


async def test_tiles_that_do_not_fit_are_asked_for_again_and_accuse_nobody(ledger: WireLedger, gesell: Client) -> None:
    await gesell.check()
    await paid(gesell, 5)
    spoilt = [lambda *_: None, hostile(bytes(6 * 32))]
    ledger.odd_log = spoilt * 2
    assert (await gesell.check()).size == 6
    await paid(gesell, 1)
    ledger.odd_log = [lambda *_: None, hostile(bytes(7 * 32))] * 3
    with pytest.raises(UnexpectedAnswer, match="3 times in a row") as caught:
        await gesell.check()
    assert not isinstance(caught.value, CheckFailed)
    assert (await gesell.check()).size == 7


@pytest.mark.parametrize("tile", ["0/000", "0/001"], ids=["of the past", "of receipts"])
async def test_a_spoilt_full_tile_is_not_kept(ledger: WireLedger, gesell: Client, tile: str) -> None:
    gesell._link.checks.by_itself = True
    await gesell.check()
    await paid(gesell, 600)
    spoilt = []

    def spoil(request: web.Request, ledger: WireLedger) -> web.Response | None:
        if spoilt or not request.path.endswith(f"/tile/{tile}"):
            return None
        spoilt.append(request.path)
        return web.Response(body=bytes(256 * 32))

    ledger.odd_log = [spoil] * 20
    assert (await gesell.check()).proven == 600
    assert spoilt


async def test_a_partial_tile_that_is_gone_stands_in_the_full_one(ledger: WireLedger, gesell: Client) -> None:
    await gesell.check()
    await paid(gesell, 300)
    early = ledger.log.checkpoint(200)

    def gone(request: web.Request, ledger: WireLedger) -> web.Response | None:
        if request.path.endswith("/checkpoint"):
            return web.Response(text=str(early))
        return problem("not-found", 404) if ".p/" in request.path else None

    ledger.odd_log = [gone] * 20
    assert (await gesell.check()).size == 200


async def test_the_reader_asks_for_no_tile_that_the_tree_has_not(gesell: Client) -> None:
    log = gesell._log()
    for tile in (Tile(0, 0, 2), Tile(1, 0, 1), Tile(0, 1, 1), Tile(0, 0, 0)):
        with pytest.raises(ValueError, match="has no tile"):
            await log.tiles([tile], size=1)


async def test_the_reader_keeps_a_bounded_number_of_tiles(ledger: WireLedger, gesell: Client) -> None:
    log = gesell._log()
    ledger.odd_log = [hostile(bytes(256 * 32))] * (KEPT_TILES + 10)
    await log.tiles([Tile(0, place) for place in range(KEPT_TILES + 10)], size=(KEPT_TILES + 10) * 256)
    assert len(log._tiles) == KEPT_TILES


async def test_the_reader_reads_bundles_and_refuses_other_bytes(ledger: WireLedger, gesell: Client) -> None:
    await paid(gesell, 4)
    log: LogReader = gesell._log()
    assert await log.bundle(0, 5) == ledger.log.entries
    for body in (b"", b"\x00", b"\x00\x05abc", b"\x00\x01a" * 4, b"\x00\x01a" * 6):
        ledger.odd_log = [hostile(body)]
        with pytest.raises(UnexpectedAnswer):
            await log.bundle(0, 5)
    with pytest.raises(NotFound):
        await log.bundle(1)


async def test_bundles_are_read_with_a_token_where_the_commons_asks_who_reads(
    ledger: WireLedger, gesell: Client
) -> None:
    ledger.closed = True
    assert await gesell._log().bundle(0, 1) == ledger.log.entries
    path, token = ledger.tokens[-1]
    assert "/tile/entries/" in path
    assert token is not None
    await gesell._log().checkpoint()
    assert ledger.tokens[-1][1] is None  # checkpoints are public, and nobody need know who looks


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"items": 1}', b'{"items": [1]}', b'{"items": [{"body": 1}]}', b"x", b"x" * 5_000_000]
)
async def test_what_are_no_handovers_is_refused(ledger: WireLedger, gesell: Client, body: bytes) -> None:
    ledger.odd_log = [hostile(body)]
    with pytest.raises(UnexpectedAnswer):
        await gesell._log().handovers()


# ── Whose key ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_checkpoint_by_a_key_that_nobody_handed_over_to_is_refused(ledger: WireLedger, gesell: Client) -> None:
    ledger.log.signer = THIEF_SEED
    with pytest.raises(WrongKey) as caught:
        await gesell.check()
    assert caught.value.checkpoint == str(ledger.log.checkpoint())


async def test_the_first_key_is_that_of_the_founding_not_the_one_that_answers(ledger: WireLedger, url: str) -> None:
    ledger.log.signer = THIEF_SEED

    async def service(request: web.Request) -> web.Response:
        fields = {"ledger": THIEF.did, "version": "0", "time": 1, "clock_speed": 1, "limits": {}}
        return web.json_response(fields)

    ledger.service = service  # type: ignore[method-assign]
    async with serving(ledger) as there, checking(there, ledger) as client:
        with pytest.raises(WrongKey):
            await client.check()


async def test_where_the_founding_is_not_shown_the_first_key_seen_is_kept(ledger: WireLedger, url: str) -> None:
    ledger.closed = True
    async with Client(url, commons=ledger.commons, patience=0.5) as client:
        assert (await client.check()).ledger == KEY.did
        ledger.log.signer = THIEF_SEED
        with pytest.raises(WrongKey):
            await client.check()


async def test_a_named_ledger_is_demanded(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger, ledger=THIEF.did) as client:
        with pytest.raises(WrongKey):
            await client.pay(BOB, "1")
    assert ledger.posts == []
    async with checking(url, ledger, ledger=KEY.did) as client:
        await client.pay(BOB, "1")
    with pytest.raises(ValueError, match="did:key"):
        Client(url, ledger="ledger.example")


async def test_a_log_does_not_pass_to_a_ledger_that_is_named_later(
    ledger: WireLedger, url: str, tmp_path: Path
) -> None:
    async with checking(url, ledger, memory=tmp_path) as client:
        await paid(client, 3)
    ledger.log.signer = THIEF_SEED
    async with checking(url, ledger, memory=tmp_path, ledger=THIEF.did) as client:
        with pytest.raises(WrongKey, match="did not hand over"):
            await client.check()


async def test_a_handed_over_key_is_followed(ledger: WireLedger, url: str, tmp_path: Path) -> None:
    async with checking(url, ledger, memory=tmp_path) as client:
        await paid(client, 3)
    ledger.log.handovers = [rekey(ledger.commons, KEY, NEW)]
    async with checking(url, ledger, memory=tmp_path, ledger=NEW.did) as client:
        await paid(client, 1)
        assert (await client.check()).ledger == KEY.did  # as long as it is the old key that signs
    ledger.log.signer = NEW_SEED
    async with checking(url, ledger, memory=tmp_path) as client:
        await paid(client, 3)
        checked = await client.check()
        assert (checked.ledger, checked.since_size) == (NEW.did, 1)
        early = str(ledger.log.checkpoint(2, signer=ledger_seed()))
        ledger.odd_log = [hostile(early.encode())]
        await client.check()  # an old answer, by the key of its time
        late = str(ledger.log.checkpoint(signer=ledger_seed()))
        ledger.odd_log = [hostile(late.encode())]
        with pytest.raises(WrongKey, match="handed over"):
            await client.check()
    for trusted in (KEY, NEW):
        async with checking(url, ledger, ledger=trusted.did) as client:
            assert (await client.check()).ledger == NEW.did
    ledger.asked.clear()
    async with checking(url, ledger, memory=tmp_path) as client:
        await client.check()
    assert "/log/handovers" not in ledger.asked  # it is remembered


def ledger_seed() -> bytes:
    return b"\x07" * 32


@pytest.mark.parametrize(
    "signers", [(KEY,), (THIEF,)], ids=["the new key has not signed", "the old key has not signed"]
)
async def test_a_forged_handover_is_not_followed(ledger: WireLedger, gesell: Client, signers: tuple[Peer, ...]) -> None:
    await gesell.check()
    ledger.log.handovers = [rekey(ledger.commons, KEY, THIEF, signers=signers)]
    ledger.log.signer = THIEF_SEED
    with pytest.raises(WrongKey, match="not signed by both"):
        await gesell.check()


async def test_a_handover_of_another_commons_is_not_followed(ledger: WireLedger, gesell: Client) -> None:
    await gesell.check()
    ledger.log.handovers = [rekey(bytes(16), KEY, THIEF)]
    ledger.log.signer = THIEF_SEED
    with pytest.raises(WrongKey):
        await gesell.check()


# ── Witnesses ────────────────────────────────────────────────────────────────────────────────────────────────────


def named(*witnesses: WireWitness) -> list[str]:
    return [str(witness.key) for witness in witnesses]


async def test_k_of_n_witnesses_are_demanded(ledger: WireLedger, url: str) -> None:
    ledger.witnesses = WITNESSES[:2]
    async with checking(url, ledger, witnesses=named(*WITNESSES), quorum=2) as client:
        await paid(client, 3)
        checked = await client.check()
        assert (checked.size, checked.witnesses) == (4, tuple(one.name for one in WITNESSES[:2]))
    async with checking(url, ledger, witnesses=named(*WITNESSES)) as client:  # all, unless said
        with pytest.raises(Unwitnessed, match="3 must have"):
            await client.pay(BOB, "1")
    assert len(ledger.receipts) == 3


async def test_a_client_asks_for_more_witnesses_until_enough_are_its_own(ledger: WireLedger, url: str) -> None:
    ledger.witnesses = WITNESSES
    async with checking(url, ledger, witnesses=named(WITNESSES[2])) as client:
        assert (await client.check()).witnesses == (WITNESSES[2].name,)
    assert ledger.asked == ["/log/checkpoint"] * 3


async def test_a_cosigned_checkpoint_that_covers_the_receipts_is_waited_for(ledger: WireLedger, url: str) -> None:
    ledger.witnesses = WITNESSES[:1]
    async with checking(url, ledger, witnesses=named(WITNESSES[0]), patience=5) as client:
        await paid(client, 3)
        early = str(WITNESSES[0].cosign(ledger.log.checkpoint(2)))
        ledger.odd_log = [hostile(early.encode())]
        assert (await client.check()).proven == 3


async def test_a_checkpoint_that_no_witness_has_seen_proves_nothing_to_who_demands_them(
    ledger: WireLedger, url: str, tmp_path: Path
) -> None:
    async with checking(url, ledger, memory=tmp_path, check=False) as client:
        await paid(client, 10)
        assert (await client.check()).size == 11  # remembered without any witness
    ledger.witnesses = WITNESSES[:1]

    def early(request: web.Request, ledger: WireLedger) -> web.Response | None:
        is_note = request.path.endswith("/checkpoint") and "witnesses" in request.query
        return web.Response(text=str(WITNESSES[0].cosign(ledger.log.checkpoint(8)))) if is_note else None

    async with checking(url, ledger, memory=tmp_path, witnesses=named(WITNESSES[0])) as client:
        ledger.odd_log = [early] * 1_000
        await paid(client, 1)
        async with checking(url, ledger, memory=tmp_path, check=False) as other:
            assert (await other.check()).size == 12  # remembered so too, beside it
        with pytest.raises(Unwitnessed, match="covers entry 12"):
            await client.check()


async def test_a_forged_cosignature_is_none(ledger: WireLedger, url: str) -> None:
    note = ledger.log.checkpoint()
    forger = WireWitness(WITNESSES[0].name, b"\x66" * 32)
    [line] = forger.cosign(note).signatures[1:]
    forged = note.with_signatures([Signature(line.name, WITNESSES[0].key.id, line.signature)])
    async with checking(url, ledger, witnesses=named(WITNESSES[0])) as client:
        ledger.odd_log = [hostile(str(forged).encode())]
        with pytest.raises(UnexpectedAnswer, match="does not hold"):
            await client.check()
        ledger.odd_log = [hostile(str(forger.cosign(note)).encode())] * 100  # of his name, by another key
        with pytest.raises(Unwitnessed):
            await client.check()


@pytest.mark.parametrize(
    ("witnesses", "quorum"),
    [([], 1), (named(WITNESSES[0]), 2), (named(WITNESSES[0], WITNESSES[0]), 2), (named(WITNESSES[0]), -1)],
)
def test_a_quorum_that_can_not_be_is_refused(witnesses: list[str], quorum: int) -> None:
    with pytest.raises(ValueError, match="can't be demanded"):
        Client("http://127.0.0.1:1", witnesses=witnesses, quorum=quorum)


def test_a_logs_key_is_no_witness(ledger: WireLedger) -> None:
    from gesell_protocol.notes import NoteKey

    with pytest.raises(ValueError, match="witness"):
        Client("http://127.0.0.1:1", witnesses=[str(NoteKey(origin_of(ledger.commons), KEY.key))])
    with pytest.raises(TypeError, match="list"):
        Client("http://127.0.0.1:1", witnesses=str(WITNESSES[0].key))


# ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_seen_outlasts_the_client(ledger: WireLedger, url: str, tmp_path: Path) -> None:
    async with checking(url, ledger, memory=tmp_path / "seen") as client:
        await paid(client, 10)
        first = await client.check()
    ledger.log = forked(ledger.log, 5)
    async with checking(url, ledger, memory=str(tmp_path / "seen")) as client:
        with pytest.raises(Equivocation) as caught:
            await client.pay(BOB, "1")
    assert caught.value.applied is False
    assert caught.value.first == first.note
    assert len(ledger.receipts) == 10
    [file] = (tmp_path / "seen").glob("*.json")
    assert file == FolderMemory(tmp_path / "seen").path_of(ledger.commons.hex())
    assert json.loads(file.read_text())["checkpoint"] == first.note


async def test_without_a_memory_it_lasts_as_long_as_the_client(ledger: WireLedger, url: str) -> None:
    async with checking(url, ledger, check=False) as client:
        await paid(client, 10)
        await client.check()
    ledger.log = forked(ledger.log, 5)
    async with checking(url, ledger) as client:
        await client.check()


async def test_programs_that_share_a_memory_forget_nothing_of_each_other(
    ledger: WireLedger, url: str, tmp_path: Path
) -> None:
    async with (
        checking(url, ledger, memory=tmp_path) as one,
        checking(url, ledger, memory=tmp_path) as other,
    ):
        await one.check()
        await other.check()
        await paid(one, 20)
        await one.check()
        ledger.log = forked(ledger.log, 5)
        with pytest.raises(Equivocation):  # by what the other saw
            await other.check()


async def test_a_client_remembers_also_when_its_memory_is_lost(ledger: WireLedger, url: str, tmp_path: Path) -> None:
    async with checking(url, ledger, memory=tmp_path) as client:
        await paid(client, 20)
        await client.check()
        FolderMemory(tmp_path).path_of(ledger.commons.hex()).unlink()
        ledger.log = forked(ledger.log, 5)
        with pytest.raises(Equivocation):
            await client.check()


@pytest.mark.parametrize("kind", ["folder", "life"])
def test_a_text_is_only_replaced_for_the_one_that_was_read(tmp_path: Path, kind: str) -> None:
    memory = FolderMemory(tmp_path / "a" / "b") if kind == "folder" else LifeMemory()
    assert memory.load("00") is None
    assert memory.replace("00", old=None, new="one")
    assert not memory.replace("00", old=None, new="two")
    assert memory.load("00") == "one"
    assert memory.replace("00", old="one", new="two")
    assert memory.load("00") == "two"
    if kind == "folder":
        assert [path.name for path in (tmp_path / "a" / "b").glob("*.json*")] == ["00.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"checkpoint": 1}', "\x00", '{"checkpoint": "x"}'])
async def test_a_memory_that_can_not_be_read_is_not_passed_over(
    ledger: WireLedger, url: str, tmp_path: Path, text: str
) -> None:
    FolderMemory(tmp_path).path_of(ledger.commons.hex()).write_text(text)
    async with checking(url, ledger, memory=tmp_path) as client:
        with pytest.raises(MemoryFileError):
            await client.pay(BOB, "1")
    assert ledger.posts == []


async def test_a_memory_whose_checkpoint_was_forged_is_not_believed(
    ledger: WireLedger, url: str, tmp_path: Path
) -> None:
    async with checking(url, ledger, memory=tmp_path) as client:
        await client.check()
    path = FolderMemory(tmp_path).path_of(ledger.commons.hex())
    path.write_text(path.read_text().replace("\\n1\\n", "\\n2\\n"))
    async with checking(url, ledger, memory=tmp_path) as client:
        with pytest.raises(MemoryFileError, match="does not hold"):
            await client.check()


# ── Receipts that outlive the ledger ─────────────────────────────────────────────────────────────────────────────


async def test_a_proof_holds_without_the_ledger(ledger: WireLedger, gesell: Client) -> None:
    receipts = await paid(gesell, 300)
    text = await gesell.proof(receipts[7])
    proven = verify_receipt(text, ledger=KEY.key)
    assert proven.statement.id == receipts[7].id
    assert proven.leaf.seq == receipts[7].seq
    assert await gesell.proof(receipts[7].id) == text
    with pytest.raises(NotFound):
        await gesell.proof(bytes(6) + b"\x70\x00\x80" + bytes(7))


async def test_a_proof_is_witnessed_as_demanded(ledger: WireLedger, url: str) -> None:
    ledger.witnesses = WITNESSES
    async with checking(url, ledger, witnesses=named(*WITNESSES[1:])) as client:
        [receipt] = await paid(client, 1)
        text = await client.proof(receipt)
    keys = [one.key for one in WITNESSES[1:]]
    assert verify_receipt(text, ledger=KEY.key, witnesses=keys, quorum=2).cosigned == 2


async def test_a_proof_after_a_rekey_carries_the_handover(ledger: WireLedger, gesell: Client) -> None:
    [receipt] = await paid(gesell, 1)
    ledger.log.handovers = [rekey(ledger.commons, KEY, NEW)]
    ledger.log.signer = NEW_SEED
    text = await gesell.proof(receipt)
    for trusted in (KEY, NEW):
        assert verify_receipt(text, ledger=trusted.key).ledger == NEW.key


async def test_a_proof_that_does_not_hold_is_not_handed_on(ledger: WireLedger, gesell: Client) -> None:
    receipts = await paid(gesell, 5)
    good = await gesell.proof(receipts[0])
    lines = good.split("\n")
    spoilt = [
        b"",
        b"\xff",
        good.replace("index 1", "index 2").encode(),
        "\n".join([*lines[:3], lines[4], lines[3], *lines[5:]]).encode(),
        good[:-20].encode(),
        good.encode() + b"x" * 600_000,
    ]
    for body in spoilt:
        ledger.odd_log = [lambda *_: None, hostile(body)]
        with pytest.raises(UnexpectedAnswer):
            await gesell.proof(receipts[0])
    ledger.odd_log = [lambda *_: None, hostile(good.encode())]
    with pytest.raises(UnexpectedAnswer, match="another statement"):
        await gesell.proof(receipts[1])


async def test_a_proof_of_another_entry_than_the_receipt_told_is_evidence(ledger: WireLedger, gesell: Client) -> None:
    [receipt] = await paid(gesell, 1)
    leaf = read_leaf(ledger.log.entries[1])
    # Another time: the postings stay what was signed.
    later = leaf_data(**{**leaf._asdict(), "at_ms": leaf.at_ms + 1})
    ledger.log = ledger.log.copy()
    ledger.log.rewrite(2, later)
    with pytest.raises(NotInLog):
        await gesell.proof(receipt)


async def test_a_proof_of_what_was_not_signed_proves_nothing(ledger: WireLedger, gesell: Client) -> None:
    [receipt] = await paid(gesell, 1)
    ledger.log = forked(ledger.log, 2)
    with pytest.raises(UnexpectedAnswer, match="not what was signed"):
        await gesell.proof(receipt)


async def test_a_proof_by_a_fork_is_found_out(ledger: WireLedger, gesell: Client) -> None:
    receipts = await paid(gesell, 5)
    await gesell.check()
    fork = forked(ledger.log, 6)
    text = fork.receipt(1, fork.checkpoint(), 6)
    ledger.odd_log = [lambda *_: None, hostile(text.encode())]
    with pytest.raises(Equivocation):
        await gesell.proof(receipts[0])

"""Requests for payment on a real ledger: from the payee's command to the payer's yes, and through the client."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gesell import BadLink, Client, GesellError, HistoryLine, PaymentRequest, Peer, Unreachable, default_policy, qr
from gesell.errors import refused
from gesell.transport import PASSING
from gesell_protocol.names import id_text, uuid7
from tests.e2e.wallet import Wallet
from tests.forked import scripts
from tests.qr_reader import png_squares, read_text, svg_squares, terminal_squares
from tests.running import Service

MEMBER_PAGE = Path(__file__).resolve().parents[2] / "docs" / "member.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """A commons with ada, and bob who has 100, their key files in a folder."""

    url: str
    commons: str
    ada: Peer
    bob: Peer
    folder: Path

    def environment(self, who: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GESELL_")}
        key = str(self.folder / f"{who}.key")
        return {**kept, "GESELL_URL": self.url, "GESELL_COMMONS": self.commons, "GESELL_KEY": key, "COLUMNS": "120"}

    async def run(self, who: str, *words: str) -> tuple[int, str, str]:
        """Run `gesell` for somebody, with no terminal; returns exit status, stdout, stderr."""
        wallet = Wallet(self.folder, self.url, self.commons)
        return await wallet.of(f"{who}.key", COLUMNS="120")(*words)

    async def start(self, who: str, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gesell", *words),
            env=self.environment(who),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run_on_terminal(self, who: str, *words: str, answer: str = "") -> tuple[int, str]:
        """Run `gesell` on a terminal of its own and type an answer; returns exit status and what was to be seen."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gesell", *words),
            env=self.environment(who),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        seen = await asyncio.to_thread(_all_of, ours)
        return await process.wait(), seen.replace("\r\n", "\n")


def _all_of(terminal: int) -> str:
    seen = b""
    with suppress(OSError):  # a terminal whose other end is closed ends so
        while data := os.read(terminal, 65_536):
            seen += data
    os.close(terminal)
    return seen.decode()


@pytest.fixture
async def town(service: Service, folder: Path, request: pytest.FixtureRequest) -> Town:
    visibility = getattr(request, "param", "open")
    ada, bob = Peer.new(), Peer.new()
    ada.save(folder / "ada.key", passphrase=None)
    bob.save(folder / "bob.key", passphrase=None)
    async with Client(service.url, peer=ada) as gesell:
        policy = replace(default_policy(), admission="open", visibility=visibility)
        commons = await gesell.found(name="Town", currency="LIND", policy=policy)
        await gesell.join("ada")
        await gesell.as_peer(bob).join("bob")
        await gesell.issue(bob, "100")
    return Town(url=service.url, commons=commons, ada=ada, bob=bob, folder=folder)


@pytest.fixture
async def gesell(town: Town) -> AsyncIterator[Client]:
    async with Client(town.url, commons=town.commons, peer=town.ada) as client:
        yield client


# ── The client ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_is_paid_and_its_payment_found_by_its_ref(town: Town, gesell: Client) -> None:
    request = await gesell.request("0.05", category="answer", message="Two loaves & a smile")
    assert (request.to, request.commons, request.currency) == (town.ada.did, town.commons, "LIND")
    waiting = asyncio.create_task(gesell.until_paid(request, every=0.05))
    await gesell.as_peer(town.bob).pay("ada", "0.05")  # another payment, which answers nothing
    receipt = await gesell.as_peer(town.bob).pay_request(str(request))
    async with asyncio.timeout(30):
        [line] = await waiting
    assert (line.seq, line.ref, line.category, line.memo) == (receipt.seq, request.ref, "answer", request.message)
    assert line.amount.decimal == Decimal("0.05")
    assert [line.seq for line in await gesell.payments_for(request, of="bob")] == [receipt.seq]


async def test_a_request_is_paid_in_parts_and_waits_for_the_whole(town: Town, gesell: Client) -> None:
    request = await gesell.request("1")
    bob = gesell.as_peer(town.bob)
    await bob.pay_request(request, amount="0.4", memo="the first part")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await gesell.until_paid(request, every=0.05)
    await bob.pay_request(request, amount="0.6")
    async with asyncio.timeout(30):
        assert [str(line.amount) for line in await gesell.until_paid(request)] == ["0.6 LIND", "0.4 LIND"]


async def test_who_waits_to_be_paid_waits_on_while_the_ledger_can_not_answer(
    town: Town, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, look = await gesell.request("1"), gesell.payments_for
    await gesell.as_peer(town.bob).pay_request(request)
    passing: list[GesellError] = [Unreachable("down"), *(refused({"code": code}) for code in PASSING)]

    async def look_later(*args: Any, **how: Any) -> list[HistoryLine]:
        if passing:
            raise passing.pop()
        return await look(*args, **how)

    monkeypatch.setattr(gesell, "payments_for", look_later)
    async with asyncio.timeout(30):
        assert [str(line.amount) for line in await gesell.until_paid(request, every=0.01)] == ["1 LIND"]
    assert passing == []


async def test_a_request_without_an_amount_leaves_it_to_the_payer(town: Town, gesell: Client) -> None:
    request, bob = await gesell.request(), gesell.as_peer(town.bob)
    with pytest.raises(BadLink, match="say how much"):
        await bob.pay_request(request)
    await bob.pay_request(request, amount="0.3")
    assert str(await gesell.balance()) == "0.3 LIND"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"commons": "0" * 32}, "for commons 0000"),
        ({"currency": "EUR"}, "asks for EUR"),
        ({"amount": Decimal("0.0000001")}, "6 decimals"),
    ],
)
async def test_a_link_that_does_not_fit_is_refused_before_anything_is_sent(
    changed: dict[str, str], says: str, town: Town, gesell: Client
) -> None:
    request = replace(await gesell.request("0.05"), **changed)
    with pytest.raises(BadLink, match=says):
        await gesell.as_peer(town.bob).pay_request(str(request))
    assert (await gesell.commons()).seq == 4


# ── The commands ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_link_stands_alone_on_stdout_and_in_the_picture(town: Town) -> None:
    words = ("request", "0.05", "--for", "answer", "--memo", "It's bread")
    for name in ("code.png", "code.svg"):
        status, out, err = await town.run("ada", *words, "--qr", str(town.folder / name))
        assert (status, err) == (0, f"The QR code is in {town.folder / name}.\n")
        data = (town.folder / name).read_bytes()
        squares = png_squares if name.endswith("png") else lambda data, scale: svg_squares(data.decode(), scale=scale)
        assert read_text(squares(data, scale=qr.SCALE)) == out.removesuffix("\n")
        assert "'" not in out
        request = PaymentRequest.parse(out.removesuffix("\n"))
        assert (request.to, request.message, request.amount_text) == (town.ada.did, "It's bread", "0.05")


async def test_a_terminal_shows_the_code_and_the_link(town: Town) -> None:
    status, seen = await town.run_on_terminal("ada", "request", "0.05", "--handle")
    assert status == 0
    *drawn, link = seen.splitlines()
    assert read_text(terminal_squares(drawn)) == link
    assert PaymentRequest.parse(link).to == "ada"


async def test_a_code_that_does_not_fit_leaves_the_link(town: Town) -> None:
    for message, says in (("é" * 150, "The QR code needs"), ("é" * 900, "No QR code")):
        status, seen = await town.run_on_terminal("ada", "request", "--memo", message)
        assert status == 0
        assert seen.startswith(says)
        assert PaymentRequest.parse(seen.splitlines()[-1]).message == message


async def test_the_payer_sees_all_and_pays_after_a_yes(town: Town, gesell: Client) -> None:
    link = str(await gesell.request("0.05", category="answer", message="Two loaves"))
    status, seen = await town.run_on_terminal("bob", "pay", link, answer="n\n")
    assert status == 1
    for shown in ("0.05 LIND", f"ada, {town.ada.did}", "answer", "Two loaves", "Town", "100 LIND"):
        assert shown in seen
    assert "Nothing was sent" in seen
    assert str(await gesell.balance()) == "0 LIND"
    status, seen = await town.run_on_terminal("bob", "pay", link, answer="yes\n")
    assert (status, "Paid 0.05 LIND to ada" in seen) == (0, True)
    assert str(await gesell.balance()) == "0.05 LIND"


async def test_a_script_pays_once_and_says_why_not_twice(town: Town, gesell: Client) -> None:
    link = str(await gesell.request("0.05"))
    status, _, err = await town.run("bob", "pay", link)
    assert (status, "--yes" in err) == (2, True)
    status, out, _ = await town.run("bob", "pay", link, "--yes", "--json")
    assert (status, json.loads(out)["postings"][-1][3]) == (0, "0.05")
    status, out, err = await town.run("bob", "pay", link, "--yes")
    assert (status, out) == (1, "")
    assert "Paid already: 0.05 LIND" in err
    status, seen = await town.run_on_terminal("bob", "pay", link, "0.01", answer="y\n")
    assert "0.01 LIND, where 0.05 LIND is asked for" in seen
    assert "you paid this already" in seen
    assert (status, str(await gesell.balance())) == (0, "0.06 LIND")


async def test_a_request_by_handle_is_paid_to_who_bears_it(town: Town, gesell: Client) -> None:
    _, link, _ = await town.run("ada", "request", "0.05", "--handle")
    assert "/ada?" in link
    status, seen = await town.run_on_terminal("bob", "pay", link.strip(), "--memo", "my own words", answer="y\n")
    assert status == 0
    assert f"ada, {town.ada.did}" in seen
    [line] = await gesell.payments_for(link.strip())
    assert (str(line.amount), line.memo) == ("0.05 LIND", "my own words")


async def test_what_can_not_be_paid_says_why_and_moves_nothing(town: Town, gesell: Client) -> None:
    request = await gesell.request("0.05")
    for link, status, says in (
        (replace(request, commons="0" * 32), 2, "you chose"),
        (replace(request, currency="EUR"), 2, "asks for EUR"),
        (replace(request, amount=Decimal("0.0000001")), 2, "6 decimals"),
        (replace(request, amount=None, currency=None), 2, "say how much"),
        (replace(request, amount=Decimal(1000)), 1, "There is not enough: 100 LIND"),
        (replace(request, to=Peer.new().did), 1, "unknown-member"),
        (replace(request, to=town.bob.did), 2, "your own request"),
        (f"{request}&instruction=x", 2, "instruction"),
        ("payto://iban/DE75512108001245126199", 2, "not for gesell"),
    ):
        got, out, err = await town.run("bob", "pay", str(link), "--yes")
        assert (got, out) == (status, ""), err
        assert says in err
        assert "Traceback" not in err
    assert (await gesell.commons()).seq == 4


async def test_waiting_ends_when_it_was_paid(town: Town, gesell: Client) -> None:
    process = await town.start("ada", "request", "0.05", "--memo", "bread", "--wait")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        link = (await process.stdout.readline()).decode().strip()
        await gesell.as_peer(town.bob).pay_request(link)
        assert (await process.stdout.read()).decode() == "Received 0.05 LIND from bob: bread\n"
        assert await process.wait() == 0


@pytest.mark.parametrize("town", ["members", "parties"], indirect=True)
async def test_requests_work_where_not_everybody_may_read(town: Town, gesell: Client) -> None:
    status, link, _ = await town.run("ada", "request", "0.05")
    assert status == 0
    status, out, err = await town.run("bob", "pay", link, "--yes")
    assert (status, err) == (0, "")
    assert out.startswith("Paid 0.05 LIND to ada.")
    async with asyncio.timeout(30):
        [line] = await gesell.until_paid(link.strip())
    assert line.counterpart == town.bob.did


async def test_the_walk_of_the_member_page_runs_as_it_is_written(town: Town) -> None:
    found: list[str] = re.findall(r"```sh\n(.*?)```", MEMBER_PAGE.read_text(), re.DOTALL)
    (walk,) = [text for text in found if "gesell request" in text]
    environment = town.environment("bob")
    environment["PATH"] = f"{scripts()}:{environment['PATH']}"
    del environment["GESELL_KEY"]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euxc", walk), cwd=town.folder, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert "Paid 0.05 LIND to ada" in out.decode()
    assert "received for bread" in out.decode()
    jar = PaymentRequest.parse(read_text(png_squares((town.folder / "jar.png").read_bytes(), scale=qr.SCALE)))
    assert (jar.amount, jar.message) == (None, "Thank you!")


async def test_who_is_no_member_can_not_ask(town: Town) -> None:
    Peer.new().save(town.folder / "eve.key", passphrase=None)
    status, out, err = await town.run("eve", "request", "1")
    assert (status, out) == (1, "")
    assert "gesell join" in err


# ── Who writes a link, and who else writes ───────────────────────────────────────────────────────────────────────


async def test_a_script_is_not_led_to_pay_twice_by_the_time_in_a_ref(town: Town, gesell: Client) -> None:
    """A ref that names a time to come would put every payment made by now before its request."""
    now_ms = (await gesell.service()).time_ms
    for ahead_ms in (0, 3_600_000, 100 * 365 * 86_400_000):
        link = str(replace(await gesell.request("1"), ref=id_text(uuid7(now_ms + ahead_ms, os.urandom(10)))))
        assert (await town.run("bob", "pay", link, "--yes"))[0] == 0
        status, out, err = await town.run("bob", "pay", link, "--yes")
        assert (status, out) == (1, "")
        assert "Paid already" in err
    assert str(await gesell.balance()) == "3 LIND"


async def test_a_script_pays_no_link_that_names_no_request(town: Town, gesell: Client) -> None:
    link = str(replace(await gesell.request("1"), ref=None))
    status, out, err = await town.run("bob", "pay", link, "--yes")
    assert (status, out) == (2, "")
    assert "has no ref" in err
    assert "gesell pay PAYEE AMOUNT" in err
    status, seen = await town.run_on_terminal("bob", "pay", link, answer="y\n")
    assert "it can't be told whether you paid this before" in seen
    assert (status, str(await gesell.balance())) == (0, "1 LIND")


async def test_a_bill_is_not_paid_by_what_others_pay_the_payer(town: Town, gesell: Client) -> None:
    request = await gesell.request("1")
    await gesell.as_peer(town.bob).pay("ada", "1")
    await gesell.pay("bob", "0.000001", ref=request.ref)  # anybody may name any request
    status, out, err = await town.run("bob", "pay", str(request), "--yes")
    assert status == 0, err
    assert out.startswith("Paid 1 LIND to ada.")


async def test_a_memo_forges_no_line_of_the_history_or_of_the_waiting(town: Town, gesell: Client) -> None:
    process = await town.start("ada", "request", "0.05", "--wait")
    assert process.stdout is not None
    evil = "x\n2026-01-01 00:00  received  bob  999  1,099\u202e"
    async with asyncio.timeout(60):
        link = (await process.stdout.readline()).decode().strip()
        await gesell.as_peer(town.bob).pay_request(link, memo=evil)
        seen = (await process.stdout.read()).decode()
    assert seen == "Received 0.05 LIND from bob: x⏎2026-01-01 00:00  received  bob  999  1,099�\n"
    _, out, _ = await town.run("ada", "history")
    assert sum("received" in line for line in out.splitlines()) == 1
    _, seen = await town.run_on_terminal("ada", "history")
    assert "x⏎2026" in seen
    assert "\u202e" not in out + seen

"""`gesell export` against real ledgers: whole logs, rights, interruptions, and what is told when it can't be.

What stands in each format, `tests/unit/client/test_export.py` says; here the log comes over HTTP.
"""

from __future__ import annotations

import csv
import fcntl
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import pytest

from gesell import Client, Peer, default_policy
from gesell.export_commands import Export
from gesell.export_draft import draft_of
from gesell.export_source import ledger_source
from gesell_protocol.log import read_file_entries, read_file_head, write_file_head
from gesell_protocol.names import did_of
from gesell_protocol.notes import read_checkpoint, read_note
from gesell_protocol.tree import TILE_WIDTH, place_path
from tests.e2e.wallet import Wallet
from tests.running import Service
from tests.speaking import Line, name_of, signer_of, write_envelope, write_found

ENTRIES = 600


@dataclass(frozen=True)
class Town:
    """An open commons with more entries than two bundles hold."""

    url: str
    commons: str


@pytest.fixture(scope="module")
def town(service: Service) -> Town:
    line, steward = Line(service.url), signer_of("the export's steward")
    peers = [signer_of(f"export {number}") for number in range(4)]
    now_ms = line.time()
    found = write_found([steward], ledger=line.ledger(), now_ms=now_ms)
    commons = name_of(found)
    said = [found]
    for number, peer in enumerate(peers):
        said.append(
            write_envelope("join", peer.public_key, [peer], now_ms=now_ms, commons=commons, handle=f"peer_{number}")
        )
        said.append(
            write_envelope(
                "issue", steward.public_key, [steward], now_ms=now_ms, commons=commons, to=peer.public_key, amount=10**9
            )
        )
    for number in range(ENTRIES - len(said)):
        payer, payee = peers[number % 4], peers[(number + 1) % 4]
        legs = [[payee.public_key, number + 1]]
        said.append(
            write_envelope("pay", payer.public_key, [payer], now_ms=now_ms, commons=commons, legs=legs, category="lift")
        )
    assert [one["status"] for one in line.post(said)] == ["accepted"] * ENTRIES
    return Town(service.url, commons.hex())


@pytest.fixture
def wallet(town: Town, folder: Path) -> Wallet:
    return Wallet(folder, town.url, town.commons)


async def _balances(town: Town) -> Counter[str]:
    """What the ledger says of its members and reserved holders, in grains, as posted."""
    async with Client(town.url, commons=town.commons) as client:
        about = await client.commons()
        sums = Counter({"pool": about.pool.grains, "escrow": about.escrow.grains, "issuer": -about.supply.grains})
        async for member in client.members():
            history = [line async for line in client.history(member.peer)]
            sums[member.peer] = sum(line.amount.grains for line in history)
    return sums


async def test_a_log_over_http_is_the_bundles_that_are_served_under_their_checkpoint(
    town: Town, wallet: Wallet, folder: Path
) -> None:
    done = await wallet.of("none")("export", "--format", "log", "--to", "town.log")
    assert done.status == 0, done.err
    assert done.out == ""
    assert f"{ENTRIES} entries" in done.err
    data = (folder / "town.log").read_bytes()
    file = io.BytesIO(data)
    told = read_checkpoint(read_note(read_file_head(file)))
    assert (told.size, told.origin) == (ENTRIES, f"gesell/{town.commons}")
    assert len(list(read_file_entries(file))) == ENTRIES
    served = [_served(town, "checkpoint")]
    for place in range(-(-ENTRIES // TILE_WIDTH)):
        width = min(TILE_WIDTH, ENTRIES - place * TILE_WIDTH)
        served.append(_served(town, f"tile/entries/{place_path(place, width)}"))
    assert data == write_file_head(served[0].decode()) + b"".join(served[1:])


def _served(town: Town, path: str) -> bytes:
    with urllib.request.urlopen(f"{town.url}/v1/commons/{town.commons}/log/{path}", timeout=60) as answer:
        body: bytes = answer.read()
    return body


async def test_every_format_has_the_balances_of_the_ledger(town: Town, wallet: Wallet, folder: Path) -> None:
    expected = await _balances(town)
    gesell = wallet.of("none")
    commons_url = f"{town.url}/v1/commons/{town.commons}"
    for name, source in (("over HTTP", [town.url]), ("of a commons", [commons_url]), ("of a file", ["town.log.gz"])):
        for format in ("log", "csv", "jsonl", "hledger", "beancount"):
            done = await gesell("export", *source, "--format", format, "--to", f"town.{format}.gz")
            assert done.status == 0, (name, format, done.err)
    rows = list(csv.DictReader(io.StringIO(gzip.decompress((folder / "town.csv.gz").read_bytes()).decode())))
    sums = Counter[str]()
    for row in rows:
        sums[row["holder"]] += int(Decimal(row["amount"]).scaleb(2))
    assert {who: grains for who, grains in sums.items() if grains} == {w: g for w, g in expected.items() if g}
    lines = gzip.decompress((folder / "town.jsonl.gz").read_bytes()).splitlines()
    assert [int(json.loads(line)["amount"]) for line in lines] == [
        int(Decimal(row["amount"]).scaleb(2)) for row in rows
    ]


@pytest.mark.skipif(shutil.which("hledger") is None, reason="hledger is not installed here")
async def test_hledger_takes_what_comes_over_a_pipe(wallet: Wallet) -> None:
    done = await wallet.of("none")("export", "--format", "hledger", "--to", "-")
    assert done.status == 0, done.err
    _checked("hledger", "-f", "-", "check", "--strict", told=done.out)


def _checked(*command: str | Path, told: str = "") -> None:
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("bean-check") is None, reason="bean-check is not installed here")
async def test_beancount_takes_what_comes_over_http(wallet: Wallet, folder: Path) -> None:
    assert (await wallet.of("none")("export", "--format", "beancount", "--to", "town.beancount")).status == 0
    _checked("bean-check", folder / "town.beancount")


async def test_parquet_comes_over_http_or_says_what_is_missing(wallet: Wallet, folder: Path) -> None:
    done = await wallet.of("none")("export", "--format", "parquet", "--to", "town.parquet")
    try:
        import pyarrow.parquet
    except ImportError:
        assert (done.status, (folder / "town.parquet").exists()) == (1, False)
        assert "pip install 'gesell[parquet]'" in done.err
        return
    assert done.status == 0, done.err
    assert sum(pyarrow.parquet.read_table(folder / "town.parquet").column("grains").to_pylist()) == 0


async def test_what_is_appended_meanwhile_waits_for_the_next_export(service: Service, folder: Path) -> None:
    async with Client(service.url, peer=Peer.new()) as client:
        await client.found(name="Growing", currency="WRG", policy=replace(default_policy(), admission="open"))
        source = ledger_source(client._log(), read_note((await client.check()).note))
        await client.join("ada")
        with draft_of(str(folder / "log")) as file:
            export = Export(source, file, format="log")
            async for piece in source.pieces:
                export.take(piece)
            export.finish()
        assert source.checkpoint.size == 1
        with (folder / "log").open("rb") as read:
            read_file_head(read)
            assert len(list(read_file_entries(read))) == 1


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Closed:
    """A commons that is not open, with a steward ada and a member bob, whose keys are in the wallet's folder."""

    wallet: Wallet
    visibility: str


@pytest.fixture(params=["members", "parties"])
async def closed(request: pytest.FixtureRequest, service: Service, folder: Path) -> AsyncIterator[Closed]:
    ada, bob = Peer.new(), Peer.new()
    for name, peer in (("ada", ada), ("bob", bob)):
        peer.save(folder / name, passphrase=None)
    policy = replace(default_policy(), visibility=request.param)
    async with Client(service.url, peer=ada) as client:
        commons = await client.found(name="Closed", currency="WRG", policy=policy)
        async with Client(service.url, commons=commons, peer=bob) as other:
            await other.join("bob")
        await client.admit(bob)
        await client.issue("bob", "3")
        yield Closed(Wallet(folder, service.url, commons), request.param)


async def test_who_may_see_all_entries_exports_them_with_its_key(closed: Closed, folder: Path) -> None:
    done = await closed.wallet.of("ada")("export", "--format", "csv", "--to", "out.csv")
    assert done.status == 0, done.err
    assert "issuer,WRG,-3" in (folder / "out.csv").read_text()


async def test_who_may_not_is_told_so_and_leaves_no_file(closed: Closed, folder: Path) -> None:
    done = await closed.wallet.of("nobody")("export", "--format", "csv", "--to", "out.csv")
    assert done.status == 1
    assert "commons" in done.err
    done = await closed.wallet.of("bob")("export", "--format", "csv", "--to", "out.csv")
    if closed.visibility == "members":
        assert done.status == 0, done.err
        return
    assert done.status == 1
    assert "sees every entry" in done.err
    assert not [name for name in os.listdir(folder) if "out.csv" in name]


# ── Trust ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_the_wallet_demands_of_the_ledger_is_demanded_of_what_is_exported(
    wallet: Wallet, town: Town, folder: Path
) -> None:
    gesell = wallet.of("none")
    ledger = did_of(Line(town.url).ledger())
    assert (await gesell("export", "--format", "csv", "--to", "out.csv", "--ledger", ledger)).status == 0
    (folder / "out.csv").unlink()
    stranger = did_of(signer_of("another ledger").public_key)
    done = await gesell("export", "--format", "csv", "--to", "out.csv", "--ledger", stranger)
    assert done.status == 1
    assert stranger[:16] in done.err
    assert not (folder / "out.csv").exists()


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupted_export_leaves_nothing_and_what_was_there_stays(town: Town, folder: Path) -> None:
    export_log = [sys.executable, "-m", "gesell", "export", town.url, "--commons", town.commons, "--format", "log"]
    _checked(*export_log, "--to", folder / "town.log")
    (folder / "books.csv").write_text("yesterday's")
    os.mkfifo(folder / "pipe")
    command = [sys.executable, "-m", "gesell", "export", "pipe", "--format", "csv", "--to", "books.csv"]
    export = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with (folder / "pipe").open("wb") as pipe:
        pipe.write((folder / "town.log").read_bytes()[:100_000])
        pipe.flush()
        _wait_until_it_waits(export, pipe)
        assert any(name.endswith(".draft") for name in os.listdir(folder))
        export.send_signal(signal.SIGINT)
        _, said = export.communicate(timeout=60)
    assert export.returncode == 130, said
    assert sorted(os.listdir(folder)) == ["books.csv", "pipe", "town.log"]
    assert (folder / "books.csv").read_text() == "yesterday's"


def _wait_until_it_waits(export: subprocess.Popen[str], pipe: BinaryIO) -> None:
    """Until the export has read all that is in the pipe and sleeps: a signal that comes while it reads, Python would
    look at only after the next bytes.
    """
    while True:
        assert export.poll() is None, "it waits for the rest of the log"
        left = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
        state = Path(f"/proc/{export.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if left == 0 and state == "S":
            return


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.log", "--format", "csv", "--to", "x"), "nowhere.log can't be read"),
        (("--format", "csv", "--to", "no/such/folder"), "no/such/folder"),
        (("--format", "csv", "--to", "."), "no file that could be written anew"),
        (("http://127.0.0.1:1", "--format", "csv", "--to", "x"), "can't be reached|Unreachable|connect"),
    ],
)
async def test_what_can_not_be_is_said_in_a_line(
    wallet: Wallet, folder: Path, words: tuple[str, ...], said: str
) -> None:
    done = await wallet.of("none")("export", *words)
    assert done.status in (1, 2)
    assert any(part in done.err for part in said.split("|")), done.err
    assert "Traceback" not in done.err
    assert [name for name in os.listdir(folder) if name != ".local"] == [], "but for what the wallet remembers"


def test_a_reader_that_has_enough_ends_it(town: Town, folder: Path) -> None:
    command = [sys.executable, "-m", "gesell", "export", "--url", town.url, "--commons", town.commons]
    export = subprocess.Popen(
        [*command, "--format", "jsonl", "--to", "-"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert export.stdout is not None
    export.stdout.readline()
    export.stdout.close()
    assert export.stderr is not None
    assert b"Traceback" not in export.stderr.read()
    export.stderr.close()
    assert export.wait(60) == 1

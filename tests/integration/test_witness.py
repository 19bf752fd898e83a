"""A witness as a process: what it answers over HTTP, races of submissions, crashes at the worst moments."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from gesell.commands import main
from gesell_ledger.api.connections import make_runner
from gesell_ledger.witness.cosigning import FILE, Witness, open_witness
from gesell_ledger.witness.records import hash_of_origin
from gesell_ledger.witness.serving import make_app
from gesell_ledger.witness.trusted import Trusted
from gesell_protocol.names import did_of
from gesell_protocol.notes import NoteKey, origin_of, read_checkpoint, read_note, read_signatures
from tests.growing import GrowingLog, write_submission
from tests.speaking import signer_of
from tests.witnesses import WitnessProcess, witnessing

LEDGER = signer_of("ledger")
NAME = "witness.example/w1"
KNOWN = ("--ledger", did_of(LEDGER.public_key))
_numbers = itertools.count()


@pytest.fixture(scope="module")
def witness() -> Iterator[WitnessProcess]:
    with witnessing(NAME, *KNOWN) as started:
        yield started


@pytest.fixture
def log() -> GrowingLog:
    """A log that nobody witnessed yet."""
    return GrowingLog(origin_of(next(_numbers).to_bytes(16, "big")), LEDGER)


def page_of(log: GrowingLog, what: str = "checkpoint") -> str:
    return f"/{hash_of_origin(log.origin).hex()}/{what}"


def size_at(witness: WitnessProcess, log: GrowingLog) -> int:
    """The size that it cosigned last."""
    status, _, note = witness.ask("GET", page_of(log))
    return read_checkpoint(read_note(note)).size if status == 200 else 0


def folder_in(folder: Path) -> Path:
    """Where `WitnessProcess` has a witness of this name keep what it remembers."""
    return folder / NAME.replace("/", "-")


def open_in(folder: Path) -> Witness:
    """The same witness within this process."""
    inner = folder_in(folder)
    inner.mkdir(exist_ok=True)
    trusted = Trusted.parse(ledgers=[did_of(LEDGER.public_key)], logs=[])
    return open_witness(inner, name=NAME, key_file=inner / "witness.key", passphrase=None, trusted=trusted)


@asynccontextmanager
async def served_here(folder: Path) -> AsyncIterator[str]:
    """Where a witness is served within this process, so that a test can shorten its time limits."""
    with closing(open_in(folder)) as witness, ThreadPoolExecutor(1) as thread:
        runner = make_runner(make_app(witness, thread), shutdown_seconds=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


# ── What it answers ──────────────────────────────────────────────────────────────────────────────────────────────


def test_each_status_with_its_headers_and_its_body(witness: WitnessProcess, log: GrowingLog) -> None:
    assert witness.ask("GET", page_of(log))[0] == 404
    status, kind, body = witness.submit(log.grow(9).submission(0))
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    note = log.checkpoint().with_signatures(read_signatures(body.decode()))
    assert abs((note.cosigned(witness.key) or 0) - time.time()) < 60
    assert witness.ask("GET", page_of(log)) == (200, "text/plain; charset=utf-8", str(note).encode())
    log.grow(4)
    assert witness.submit(log.submission(0)) == (409, "text/x.tlog.size", b"9\n")
    assert witness.submit(log.submission(10)) == (409, "text/x.tlog.size", b"9\n")
    assert witness.submit(b"old 9\n")[0] == 400
    assert witness.submit(log.submission(9).replace(b"gesell/", b"nobody/"))[0] == 404
    assert witness.submit(log.submission(9).replace(b"\n13\n", b"\n14\n"))[0] == 403
    assert witness.submit(write_submission(14, [], log.checkpoint()))[0] == 400
    assert witness.submit(write_submission(9, [], log.checkpoint()))[0] == 422
    assert witness.submit(log.submission(9))[0] == 200


def test_it_tells_who_it_is(witness: WitnessProcess) -> None:
    status, kind, body = witness.ask("GET", "/")
    told = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert (told["name"], told["vkey"]) == (NAME, str(witness.key))
    assert set(told) == {"name", "vkey", "logs", "forked"}


def test_a_fork_is_told_with_both_signed_checkpoints(witness: WitnessProcess, log: GrowingLog) -> None:
    log.grow(9)
    fork = log.forked(5).grow(9, salt="fork")
    assert witness.submit(log.submission(0))[0] == 200
    assert witness.submit(fork.submission(9))[0] == 422
    (kept,) = json.loads(witness.ask("GET", page_of(log, "conflicts"))[2])["items"]
    assert (kept["kind"], kept["refused"], kept["old"]) == ("fork", str(fork.checkpoint()), 9)
    key = NoteKey(log.origin, LEDGER.public_key)
    for name in ("cosigned", "refused"):
        read_note(kept[name]).verify(key)
    assert f"log_forked origin={log.origin} cosigned=9 refused=14" in witness.read_log()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/add-checkpoint", 405),
        ("PUT", "/add-checkpoint", 405),
        ("POST", "/sign-subtree", 404),
        ("GET", "/" + "AB" * 32 + "/checkpoint", 404),
        ("GET", "/" + "ab" * 32 + "/checkpoint", 404),
        ("GET", "/" + "ab" * 31 + "/checkpoint", 404),
        ("POST", "/" + "ab" * 32 + "/checkpoint", 405),
    ],
)
def test_what_is_not_there_is_said_so(witness: WitnessProcess, method: str, path: str, status: int) -> None:
    assert witness.ask(method, path, b"x" if method != "GET" else None)[0] == status


def test_a_log_without_conflicts_has_an_empty_list_of_them(witness: WitnessProcess, log: GrowingLog) -> None:
    assert json.loads(witness.ask("GET", page_of(log, "conflicts"))[2]) == {"items": []}


def test_a_body_past_every_bound_is_refused_and_the_witness_goes_on(witness: WitnessProcess, log: GrowingLog) -> None:
    assert witness.submit(b"old 0\n" + b"A" * 1_000_000)[0] == 413
    assert witness.submit(log.grow(1).submission(0))[0] == 200


async def test_a_body_that_never_ends_is_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesell_ledger.witness.serving.BODY_SECONDS", 0.3)
    async with served_here(folder) as url, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 500\r\n\r\nold 0\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()


def test_what_is_no_http_leaves_no_traceback(witness: WitnessProcess) -> None:
    parts = urlsplit(witness.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as connection:
        connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert b" 400 " in connection.recv(1_000).partition(b"\r\n")[0]
    assert "Traceback" not in witness.read_log()


# ── Races ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def race(urls: list[str], bodies: list[bytes]) -> list[tuple[int, str]]:
    """Submit all at once, over as many connections, to one witness or several processes of it."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def submit(url: str, body: bytes) -> tuple[int, str]:
            async with session.post(f"{url}/add-checkpoint", data=body) as response:
                return response.status, await response.text()

        return await asyncio.gather(*map(submit, itertools.cycle(urls), bodies))


async def test_of_many_at_once_none_rolls_back_what_another_was_given(witness: WitnessProcess, log: GrowingLog) -> None:
    log.grow(120)
    old = 0
    for _ in range(6):
        sizes = [old + 1 + n % 20 for n in range(60)]
        answers = await race([witness.url], [log.submission(old, size) for size in sizes])
        # All named the same old size, which was true for the first one only.
        (winner,) = [size for size, (status, _) in zip(sizes, answers, strict=True) if status == 200]
        assert {text for status, text in answers if status == 409} == {f"{winner}\n"}
        assert size_at(witness, log) == winner
        old = winner


async def test_two_processes_on_one_memory_cosign_one_history(tmp_path: Path, log: GrowingLog) -> None:
    log.grow(200)
    fork = log.forked(0).grow(200, salt="fork")
    with witnessing(NAME, *KNOWN) as first:
        second = WitnessProcess(first.folder.parent, NAME, *KNOWN).start()
        try:
            old, sides = 0, set[str]()
            for _ in range(5):
                pairs = [(side, old + 1 + n) for n in range(15) for side in (log, fork)]
                urls = [first.url, first.url, second.url, second.url]
                answers = await race(urls, [side.submission(old, size) for side, size in pairs])
                won = [pair for pair, (status, _) in zip(pairs, answers, strict=True) if status == 200]
                assert len(won) == 1
                sides.add("log" if won[0][0] is log else "fork")
                old = won[0][1]
            assert len(sides) == 1
        finally:
            second.kill()


# ── Crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────

#: The witness's own program, killed as by kill -9 just before or just after it has stored a checkpoint.
DIES = """
import os, signal, sys
from gesell_ledger.witness.records import Records
at = sys.argv.pop(1)
transaction = Records.transaction
class Deadly:
    def __init__(self, records): self.records, self.inner = records, transaction(records)
    def __enter__(self): return self.inner.__enter__()
    def __exit__(self, *error):
        stores = self.records._connection.total_changes > 0
        if stores and at == "before": os.kill(os.getpid(), signal.SIGKILL)
        done = self.inner.__exit__(*error)
        if stores and at == "after": os.kill(os.getpid(), signal.SIGKILL)
        return done
Records.transaction = lambda records: Deadly(records)
from gesell.commands import main
sys.exit(main(["witness", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_around_the_commit_it_cosigns_no_fork_afterwards(folder: Path, log: GrowingLog, at: str) -> None:
    log.grow(9)
    fork = log.forked(4).grow(5, salt="fork")
    open_in(folder).close()
    deadly = WitnessProcess(folder, NAME, *KNOWN, command=[sys.executable, "-c", DIES, at]).start()
    with pytest.raises((OSError, http.client.HTTPException)):
        deadly.submit(log.submission(0))
    assert deadly.process is not None
    assert deadly.process.wait(30) == -9
    again = WitnessProcess(folder, NAME, *KNOWN).start()
    try:
        # What was not answered may have been stored or not; what was stored stays, and its answer is had by asking.
        assert size_at(again, log) == (9 if at == "after" else 0)
        if at == "after":
            assert again.submit(fork.submission(0))[0] == 409
            assert again.submit(fork.submission(9))[0] == 422
            assert again.submit(log.submission(9))[0] == 200
        else:
            assert again.submit(fork.submission(0))[0] == 200
            assert again.submit(log.submission(9))[0] == 422
    finally:
        again.kill()


def test_killed_at_any_moment_it_never_takes_back_what_it_answered(folder: Path, log: GrowingLog) -> None:
    log.grow(400)
    witness, answered, size = WitnessProcess(folder, NAME, *KNOWN), 0, 0
    for _ in range(2):
        witness.start()
        assert size_at(witness, log) >= answered
        size = size_at(witness, log)
        killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -9 {witness.process.pid}"])  # type: ignore[union-attr]
        try:
            while size < 400:
                status, _, _ = witness.submit(log.submission(size, size + 1))
                assert status == 200
                size += 1
                answered = size
        except (OSError, http.client.HTTPException):
            pass
        killer.wait()
        witness.kill()
    assert answered > 0
    witness.start()
    assert size_at(witness, log) in (answered, answered + 1)
    witness.kill()


async def test_what_the_disk_does_not_take_is_not_cosigned(
    folder: Path, log: GrowingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gesell_ledger.witness.records.BUSY_SECONDS", 0.3)
    async with served_here(folder) as url:
        with closing(sqlite3.connect(folder_in(folder) / FILE, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            (answer,) = await race([url], [log.grow(3).submission(0)])
            assert answer == (503, "the witness can't store anything now; nothing was cosigned\n")
            other.execute("ROLLBACK")
        ((status, _),) = await race([url], [log.forked(1).grow(4, salt="fork").submission(0)])
        assert status == 200


def test_it_ends_in_order_when_it_is_told_to(folder: Path) -> None:
    assert WitnessProcess(folder, NAME, *KNOWN).start().stop() == 0


# ── What its operator says ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], "say what the witness is called"),
        (["--name", "w 1"], "a key's name has no spaces"),
        (["--name", "w1"], "say whose logs are witnessed"),
        (["--name", "w1", "--ledger", "did:key:z6Mk"], "not the did:key of an Ed25519 key"),
        (["--name", "w1", "--log", "log.example"], "a verifier key looks like"),
        (["--name", "w1", *KNOWN, "--listen", "8421"], "--listen is an address and a port"),
        (["--name", "w1", *KNOWN, "--listen", "127.0.0.1:99999"], "--listen is an address and a port"),
        (["--name", "w1", *KNOWN, "--key-passphrase-file", "nowhere-at-all"], "nowhere-at-all can't be read"),
    ],
)
def test_it_says_one_line_about_what_it_can_not_take(
    folder: Path, capsys: pytest.CaptureFixture[str], said: list[str], why: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["witness", "--data", str(folder / "w"), *said])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert err.startswith("gesell: ")
    assert err.count("\n") == 1
    assert why in err
    assert not (folder / "w" / FILE).exists()

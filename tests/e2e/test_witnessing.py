"""A ledger and its witnesses: what they cosign is given out, whoever of them is dead or slow, and nothing else ever."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger.keyfile import load_or_make_key
from gesell_ledger.witness.records import hash_of_origin
from gesell_protocol.names import did_of
from gesell_protocol.notes import (
    WITNESS_KEY,
    Note,
    NoteKey,
    count_cosigned,
    origin_of,
    read_checkpoint,
    read_note,
    verify_checkpoint,
)
from tests.forked import run_gesell
from tests.running import Service, lay_cluster, open_folder
from tests.speaking import Line, name_of, signer_of, write_envelope, write_found
from tests.witnesses import WitnessProcess

STEWARD = signer_of("steward")
DEAD = NoteKey("dead.example/w", bytes(range(32)), WITNESS_KEY)
SLOW = NoteKey("slow.example/w", bytes(range(1, 33)), WITNESS_KEY)
PATIENCE_SECONDS = 60.0


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and return it."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        found = true()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"it never came to {what}")


class Town:
    """A ledger in a folder, its witnesses, and one commons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key_file = folder / "ledger.key"
        self.ledger = load_or_make_key(self.key_file, passphrase=None).public_key
        self.witnesses = [
            WitnessProcess(folder, f"witness.example/w{n}", "--ledger", did_of(self.ledger)) for n in range(3)
        ]
        #: Checkpoints up to this size are signed by the ledger's first key.
        self.until_size, self.first_ledger = 0, self.ledger
        lay_cluster(folder / "data")
        self.service = Service(folder)
        self.commons = b""
        self._running: tuple[str, ...] | None = None
        self._log_before = 0

    @property
    def keys(self) -> list[NoteKey]:
        return [one.key for one in self.witnesses]

    def said(self) -> list[str]:
        """What the ledger is told of its witnesses."""
        return [text for one in self.witnesses for text in ("--witness", f"{one.key} {one.url}")]

    def serve(self, *more: str) -> None:
        """Have the ledger run with its witnesses; one that runs so already is left running."""
        self._run(*self.said(), *more)

    def serve_unwitnessed(self) -> None:
        """Have the ledger run without witnesses."""
        self._run()

    def stop(self) -> None:
        """End the ledger, if it runs."""
        if self._running is not None:
            self._running = None
            assert self.service.stop() == 0

    def _run(self, *said: str) -> None:
        if self._running != said:
            self.stop()
            self._log_before = len(self.service.read_log())
            self.service.start("--min-tick-seconds", "1", "--key", str(self.key_file), *said)
            self._running = said

    def read_log(self) -> str:
        """What the ledger wrote since it was started last."""
        return self.service.read_log()[self._log_before :]

    def found(self) -> None:
        with self.line() as line:
            found = write_found([STEWARD], ledger=self.ledger, now_ms=line.time())
            line.post([found])
        self.commons, self.until_size = name_of(found), 0

    def tell(self, witness: WitnessProcess) -> None:
        """Have a witness run that knows the ledger's key of today."""
        keys = dict.fromkeys((did_of(self.first_ledger), did_of(self.ledger)))
        runs = witness.process is not None and witness.process.poll() is None
        if runs and witness.arguments == ("--ledger", ",".join(keys)):
            return
        if runs:
            witness.stop()
        witness.arguments = ("--ledger", ",".join(keys))
        witness.start()

    @contextmanager
    def line(self) -> Iterator[Line]:
        line = Line(self.service.url)
        try:
            yield line
        finally:
            line.close()

    def grow(self, count: int = 1) -> int:
        """Let some peers join; returns the size of the log."""
        with self.line() as line:
            for _ in range(count):
                name = f"peer {time.monotonic_ns()}"
                peer = signer_of(name)
                envelope = write_envelope(
                    "join",
                    peer.public_key,
                    [peer],
                    now_ms=line.time(),
                    commons=self.commons,
                    handle=f"p{time.monotonic_ns()}"[:24],
                )
                (answer,) = line.post([envelope])
                assert answer["status"] == "accepted", answer
            return int(answer["receipt"]["seq"])

    def ask(self, query: str = "") -> Note | None:
        """A checkpoint as the ledger gives it out, verified; None while it has none."""
        status, text = get(self.service, f"/v1/commons/{self.commons.hex()}/log/checkpoint{query}")
        if status != 200:
            assert (status, json.loads(text)["code"]) == (404, "not-found")
            return None
        note = read_note(text)
        size = read_checkpoint(note).size
        verify_checkpoint(
            note, commons=self.commons, ledger=self.ledger if size > self.until_size else self.first_ledger
        )
        return note

    def cosigned(self, *, at_least: int, size: int, keys: list[NoteKey] | None = None) -> Note:
        """Wait for a checkpoint of this size or a larger one with so many cosignatures; they are verified."""

        def look() -> Note | None:
            note = self.ask(f"?witnesses={at_least}")
            return note if note is not None and read_checkpoint(note).size >= size else None

        note: Note = until(look, f"{at_least} cosignatures of {size} entries")
        assert count_cosigned(note, self.keys if keys is None else keys) >= at_least
        return note

    def seen_by(self, witness: WitnessProcess) -> int:
        status, _, text = witness.ask("GET", f"/{hash_of_origin(origin_of(self.commons)).hex()}/checkpoint")
        return read_checkpoint(read_note(text)).size if status == 200 else 0

    def metric(self, name: str) -> float:
        _, text = get(self.service, "/metrics")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def get(service: Service, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def a_town() -> Iterator[Town]:
    with open_folder() as folder:
        town = Town(folder)
        try:
            for witness in town.witnesses:
                witness.start()
            yield town
        finally:
            town.service.end()
            for witness in town.witnesses:
                if witness.process is not None and witness.process.poll() is None:
                    witness.kill()


@pytest.fixture(scope="module")
def shared_town() -> Iterator[Town]:
    with a_town() as made:
        yield made


@pytest.fixture
def town(shared_town: Town) -> Town:
    """Three witnesses that run, and a ledger that a test has run as it needs it, with a commons of its own."""
    for witness in shared_town.witnesses:
        shared_town.tell(witness)
    return shared_town


@contextmanager
def silent_server() -> Iterator[str]:
    """Somebody who takes every connection and never answers; where."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        held: list[socket.socket] = []

        def hold() -> None:
            try:
                while True:
                    held.append(stack.enter_context(server.accept()[0]))
            except OSError:
                pass

        threading.Thread(target=hold, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_witnesses_that_are_named_later_are_told_of_what_was_there_before(town: Town) -> None:
    town.serve_unwitnessed()
    town.found()
    size = town.grow(4)
    time.sleep(1)
    assert town.ask("?witnesses=1") is None
    town.serve()
    assert read_checkpoint(town.cosigned(at_least=3, size=size)).size == size


def test_every_growth_is_cosigned_by_all_and_given_out(town: Town) -> None:
    town.serve()
    town.found()
    town.cosigned(at_least=3, size=1)
    before, failed = town.metric("gesell_cosignatures_total"), town.metric("gesell_witness_failures_total")
    for _ in range(3):
        size = town.grow(2)
        note = town.cosigned(at_least=3, size=size)
        assert [town.seen_by(one) for one in town.witnesses] == [size] * 3
        # Without a wish the checkpoint of the log as it stands is told, with what was collected for it.
        assert town.ask() == note
    assert town.ask("?witnesses=4") is None
    assert town.metric("gesell_cosignatures_total") >= before + 9
    assert town.metric("gesell_witness_failures_total") == failed


@pytest.mark.skipif(not all(map(shutil.which, ("curl", "sha256sum"))), reason="a tool of the page is not here")
def test_the_shell_of_the_page_answers_as_it_is_written(town: Town) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "witness.md").read_text()
    town.serve()
    town.found()
    town.cosigned(at_least=3, size=town.grow(8))
    witness = town.witnesses[1]
    names = {"GESELL_URL": town.service.url, "GESELL_COMMONS": town.commons.hex(), "WITNESS": witness.url}
    said = [
        subprocess.run(
            ["bash", "-euc", block], env={**os.environ, **names}, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    ]
    shown = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert [shape_of(one) for one in said] == [shape_of(one) for one in shown]
    assert f'"vkey":"{witness.key}"' in said[0]
    assert count_cosigned(read_note(said[1]), town.keys) == 3


def shape_of(text: str) -> str:
    """An answer without what differs from run to run, and from witness to witness."""
    lines = [
        re.sub(r'[0-9a-f]{32}|\+[0-9a-f]{8}\+|[A-Za-z0-9+/]{43}[A-Za-z0-9+/]*=*|(?<="logs":)\d+', "*", line)
        for line in text.splitlines()
    ]
    # Who cosigned first stands first.
    return "\n".join(sorted(lines) if text.startswith("gesell/") else lines)


def test_a_witness_that_was_away_is_told_what_it_missed(town: Town) -> None:
    town.serve()
    town.found()
    town.cosigned(at_least=3, size=town.grow())
    town.witnesses[2].kill()
    size = town.grow(5)
    note = town.cosigned(at_least=2, size=size)
    assert count_cosigned(note, town.keys) == 2
    # With three there is the older one, which all cosigned, still.
    older = town.ask("?witnesses=3")
    assert older is not None
    assert read_checkpoint(older).size < size
    town.witnesses[2].start()
    assert read_checkpoint(town.cosigned(at_least=3, size=size)).size == size


def test_after_a_rekey_witnesses_go_on_once_they_are_told(town: Town) -> None:
    town.serve()
    town.found()
    size = town.grow(3)
    town.cosigned(at_least=3, size=size)
    town.stop()
    new_file = town.folder / "new.key"
    words = ("--data", town.folder / "data", "--key", town.key_file, "--new-key", new_file)
    run_gesell("rekey", *words, timeout=120).check_returncode()
    town.until_size, town.ledger = size, load_or_make_key(new_file, passphrase=None).public_key
    town.key_file = new_file
    told, untold = town.witnesses[:2], town.witnesses[2]
    for witness in told:
        town.tell(witness)
    town.serve()
    town.cosigned(at_least=2, size=size + 1, keys=[one.key for one in told])
    until(lambda: 'why="HTTP 403' in town.read_log(), "the refusal of the one that was not told")
    assert town.seen_by(untold) == size


def test_a_ledger_restored_from_an_older_copy_is_refused_and_says_so(town: Town) -> None:
    town.serve()
    town.found()
    old = town.grow(5)
    town.cosigned(at_least=3, size=old)
    town.stop()
    # With its owner: under root a private PostgreSQL belongs to another user.
    subprocess.run(["cp", "-a", str(town.folder / "data"), str(town.folder / "copy")], check=True)
    town.serve()
    size = town.grow(3)
    town.cosigned(at_least=3, size=size)
    town.stop()
    shutil.rmtree(town.folder / "data")
    (town.folder / "copy").rename(town.folder / "data")

    town.serve()
    until(lambda: town.read_log().count("log_behind_witness") >= 3, "three alarms")
    assert town.metric('gesell_witness_failures_total{reason="ahead"') >= 1
    # While the witnesses are left alone, it grows past what they saw.
    grown = town.grow(7)
    assert grown > size
    town.stop()
    town.serve()
    until(lambda: town.read_log().count("not_cosigned") >= 3, "three refusals of the fork")
    assert [town.seen_by(one) for one in town.witnesses] == [size] * 3
    newest = town.ask("?witnesses=1")
    assert newest is None or read_checkpoint(newest).size == old
    for witness in town.witnesses:
        path = f"/{hash_of_origin(origin_of(town.commons)).hex()}/conflicts"
        kept = json.loads(witness.ask("GET", path)[2])["items"]
        assert [one["kind"] for one in kept] == ["fork"] * len(kept) != []
        assert all(read_checkpoint(read_note(one["refused"])).size > size for one in kept)


def test_after_a_restart_of_all_it_goes_on(town: Town) -> None:
    town.serve()
    town.found()
    size = town.grow(3)
    note = town.cosigned(at_least=3, size=size)
    town.stop()
    for witness in town.witnesses:
        witness.kill()
        witness.start()
    town.serve("--workers", "2")
    # What was collected is kept, and at the start all commons are looked at.
    assert town.ask("?witnesses=3") is not None
    collected = town.cosigned(at_least=3, size=size)
    assert collected.text == note.text
    until(lambda: town.metric("gesell_cosignatures_total") >= 3, "three new cosignatures")
    town.cosigned(at_least=3, size=town.grow())


def test_what_any_worker_adds_is_cosigned(town: Town) -> None:
    town.serve("--workers", "2")
    town.found()
    for _ in range(4):
        # Each time another connection, and so now one worker, now the other.
        size = town.grow()
    assert read_checkpoint(town.cosigned(at_least=3, size=size)).size == size


def test_a_dead_and_a_slow_witness_delay_neither_the_others_nor_any_payment(town: Town) -> None:
    with silent_server() as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        town.serve("--witness", f"{DEAD} {dead}", "--witness", f"{SLOW} {silent}")
        town.found()
        for _ in range(3):
            began = time.monotonic()
            size = town.grow(3)
            # Neither waits for the ten seconds that the silent one is given.
            assert time.monotonic() - began < 8
            town.cosigned(at_least=3, size=size)
        assert town.ask("?witnesses=4") is None
        until(lambda: "witness_down witness=slow.example/w" in town.read_log(), "the slow one's time limit")
        assert town.metric('gesell_witness_failures_total{reason="down",witness="dead.example/w"}') >= 1
        town.stop()

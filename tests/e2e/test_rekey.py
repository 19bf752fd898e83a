"""The ledger's key changes hands: what the old key signed stays proved, what comes is the new key's, and a hand-over
that is cut short is taken to its end.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gesell_ledger.storage.migrate import migrate
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import id_text, peer_of, unbase64url
from gesell_protocol.notes import BadNote, read_note, verify_checkpoint
from gesell_protocol.proofs import BadReceipt, follow, verify_receipt
from tests.forked import run_gesell
from tests.own_postgres import OwnPostgres, own_postgres
from tests.running import DidNotStart, Service, open_folder
from tests.speaking import Line, write_found
from tests.towns import MEMBERS, STEWARD, Town, line_to

#: Enough that a hand-over can be killed in the middle of them.
TOWNS = 120


def gesell(*words: str) -> subprocess.CompletedProcess[str]:
    return run_gesell(*words, timeout=120)


def handovers_of(line: Line, town: Town) -> list[Envelope]:
    return [
        Envelope(
            unbase64url(item["body"]),
            tuple((peer_of(one["key"]), unbase64url(one["signature"])) for one in item["signatures"]),
        )
        for item in line.items(f"{town.path}/log/handovers")
    ]


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as started:
        yield started


@pytest.fixture
def place(postgres: OwnPostgres) -> Iterator[tuple[Path, str, OwnPostgres, str]]:
    """A folder, the DSN of an empty database for the service, its server and its name."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    with open_folder() as folder:
        yield folder, postgres.service_dsn(name), postgres, name


def serve(folder: Path, dsn: str, key: str) -> Service:
    return Service(
        folder, "--min-tick-seconds", "1", "--unsafe-durability", "--database", dsn, "--key", str(folder / key)
    ).start()


def receipt_of_a_payment(line: Line, town: Town) -> tuple[str, str]:
    payer, payee = MEMBERS[:2]
    paid = town.write("pay", payer, now_ms=line.time(), legs=[[payee.public_key, 5]])
    town.say(line, [paid])
    fields = unpack(paid.body)
    assert isinstance(fields, dict)
    name = id_text(fields["id"])
    return name, line.text(f"{town.path}/statements/{name}/proof")


def test_a_ledger_goes_over_to_a_new_key_and_readers_follow(place: tuple[Path, str, OwnPostgres, str]) -> None:
    folder, dsn, _, _ = place
    service = serve(folder, dsn, "old.key")
    try:
        with line_to(service) as line:
            old, town = line.ledger(), Town(line)
            town.settle(line, MEMBERS[:2])
            paid, before = receipt_of_a_payment(line, town)
            size = verify_checkpoint(
                read_note(line.text(f"{town.path}/log/checkpoint")), commons=town.name, ledger=old
            ).size
        words = ("rekey", "--database", dsn, "--key", str(folder / "old.key"), "--new-key", str(folder / "new.key"))
        busy = gesell(*words)
        assert (busy.returncode, "a service runs" in busy.stderr) == (1, True), busy
    finally:
        service.end()

    done = gesell(*words)
    assert done.returncode == 0, done
    assert "in: 1 commons" in done.stdout
    again = gesell(*words)
    assert (again.returncode, "done already" in again.stderr) == (1, True), again
    back = gesell(*words[:3], "--key", str(folder / "new.key"), "--new-key", str(folder / "old.key"))
    assert (back.returncode, "key-taken" in back.stderr) == (1, True), back
    with pytest.raises(DidNotStart, match="belongs to the ledger"):
        serve(folder, dsn, "old.key")

    service = serve(folder, dsn, "new.key")
    try:
        with line_to(service) as line:
            new = line.ledger()
            assert new != old
            handed = handovers_of(line, town)
            assert follow(old, handed, commons=town.name) == (old, new)
            note = read_note(line.text(f"{town.path}/log/checkpoint"))
            assert verify_checkpoint(note, commons=town.name, ledger=new).size == size + 1
            with pytest.raises(BadNote):
                verify_checkpoint(note, commons=town.name, ledger=old)
            _, after = receipt_of_a_payment(line, town)
            anew = line.text(f"{town.path}/statements/{paid}/proof")
    finally:
        service.end()

    # The old receipt holds with the old key; one of today holds with either, and nobody else's key opens any.
    assert verify_receipt(before, ledger=old).ledger == old
    for text in (after, anew):
        assert verify_receipt(text, ledger=old).ledger == verify_receipt(text, ledger=new).ledger == new
    for text, key in ((before, new), (after, STEWARD.public_key)):
        with pytest.raises(BadReceipt):
            verify_receipt(text, ledger=key)
    checked = gesell("db", "check", "--database", dsn)
    assert (checked.returncode, "the books hold" in checked.stdout) == (0, True), checked


def test_a_hand_over_that_is_killed_goes_on_when_it_is_run_again(place: tuple[Path, str, OwnPostgres, str]) -> None:
    folder, dsn, postgres, name = place
    service = serve(folder, dsn, "old.key")
    try:
        with line_to(service) as line:
            town = Town(line)
            now, ledger = line.time(), line.ledger()
            more = [write_found([STEWARD], ledger=ledger, now_ms=now) for _ in range(TOWNS - 1)]
            assert {result["status"] for result in line.post(more)} == {"accepted"}
    finally:
        service.end()
    words = ["rekey", "--database", dsn, "--key", str(folder / "old.key"), "--new-key", str(folder / "new.key")]
    count = "SELECT count(*)::int FROM gesell.handover"
    process = subprocess.Popen([sys.executable, "-m", "gesell", *words])
    while process.poll() is None and postgres.fetch(name, count) < [(3,)]:
        time.sleep(0.005)
    process.kill()
    process.wait()
    ((handed,),) = postgres.fetch(name, count)
    assert 3 <= handed < TOWNS, "it was killed before it began, or after it ended: nothing was tried"

    with pytest.raises(DidNotStart, match="a hand-over was begun"):
        serve(folder, dsn, "old.key")
    done = gesell(*words)
    assert done.returncode == 0, done
    assert f"in: {TOWNS - handed} commons" in done.stdout
    assert postgres.fetch(name, "SELECT count(*)::int, count(DISTINCT ledger)::int FROM gesell.handover") == [
        (TOWNS, 1)
    ]
    service = serve(folder, dsn, "new.key")
    try:
        with line_to(service) as line:
            town.settle(line, MEMBERS[:2])
    finally:
        service.end()


def test_a_commons_that_was_left_with_the_old_key_is_handed_over_by_the_next_run(
    place: tuple[Path, str, OwnPostgres, str],
) -> None:
    """As a service leaves one that slept through the hand-over, woke up, and had somebody found a commons."""
    folder, dsn, postgres, name = place
    service = serve(folder, dsn, "old.key")
    try:
        with line_to(service) as line:
            old = line.ledger()
            Town(line)
    finally:
        service.end()
    words = ("rekey", "--database", dsn, "--key", str(folder / "old.key"), "--new-key", str(folder / "new.key"))
    assert gesell(*words).returncode == 0
    postgres.execute(name, f"UPDATE gesell.commons SET ledger = decode('{old.hex()}', 'hex')")
    again = gesell(*words)
    assert (again.returncode, "in: 1 commons" in again.stdout) == (0, True), again
    assert "done already" in gesell(*words).stderr

"""`gesell import`: a log file becomes a commons of a ledger, entry for entry, or nothing is done and it says why."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gesell_ledger import ground, importing
from gesell_ledger.auditor.auditing import Question
from gesell_ledger.importing import ImportFault, check_log, import_log
from gesell_ledger.keyfile import LedgerKey
from gesell_ledger.storage.audit import audit
from gesell_ledger.storage.faults import DatabaseUnfit
from gesell_ledger.storage.imports import UNFINISHED
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.trees import Trees
from gesell_protocol.log import Posting, write_bundle
from gesell_protocol.names import POOL, did_of
from tests.forgeries import VKEYS, honest
from tests.forgery import NEW_LEDGER, Log, Scribe, log_of, tell_story
from tests.forked import Forked, run_gesell
from tests.histories import LEDGER, key
from tests.own_postgres import OwnPostgres
from tests.running import DidNotStart, Service, open_folder


def ledger_key(name: str) -> LedgerKey:
    """The pair of a test peer as a ledger's key."""
    made = LedgerKey(sha256(b"a test peer called " + name.encode()).digest())
    assert made.public_key == key(name)
    return made


OLD_KEY = ledger_key("the ledger")
NEW_KEY = ledger_key("the ledger's next key")


def write_key(path: Path, made: LedgerKey) -> Path:
    secret = Ed25519PrivateKey.from_private_bytes(made.seed)
    path.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


@pytest.fixture
def database(postgres: OwnPostgres) -> str:
    """A database with the tables in it."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    return name


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    # No service notes that it runs in these databases, but in the one test that waits for it.
    monkeypatch.setattr(ground, "SILENCE_SECONDS", 0.0)


def take_in(postgres: OwnPostgres, database: str, path: Path, made: LedgerKey = NEW_KEY, *, demo: bool = False) -> int:
    """Import a file; how many entries were stored."""
    verdict = check_log(path, ledger=made.public_key, question=Question(now_ms=None) if demo else None)
    return asyncio.run(import_log(postgres.service_dsn(database), path, verdict, key=made, demo=demo)).stored


def stored(postgres: OwnPostgres, database: str, log: Log) -> tuple[bytes, list[bytes]]:
    """Root and entries as the database has them."""

    async def read() -> tuple[bytes, list[bytes]]:
        async with open_pool(postgres.service_dsn(database)) as pool:
            tree = await Trees(pool).load(log.commons)
            assert tree is not None
            listed = await Reader(pool).list_entries(log.commons, after=0, limit=100_000)
            return tree.frontier.root, [entry.leaf_data for entry, _ in listed]

    return asyncio.run(read())


def check_books(postgres: OwnPostgres, database: str) -> list[str]:
    (report,) = asyncio.run(audit(postgres.owner_dsn(database)))
    return report.findings


def nothing_is_stored(postgres: OwnPostgres, database: str) -> bool:
    return postgres.fetch(database, "SELECT count(*) FROM gesell.entry") == [(0,)]


def test_a_log_comes_back_entry_for_entry(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    log = honest()
    assert take_in(postgres, database, log.write(tmp_path / "log")) == log.size
    assert stored(postgres, database, log) == (log.root, list(log.entries))
    assert check_books(postgres, database) == []
    assert postgres.fetch(database, "SELECT key, demo FROM gesell.ledger") == [(NEW_LEDGER, False)]


def test_importing_again_changes_nothing(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    path = honest().write(tmp_path / "log")
    assert take_in(postgres, database, path) == honest().size
    assert take_in(postgres, database, path) == 0
    assert stored(postgres, database, honest()) == (honest().root, list(honest().entries))


def test_in_small_batches_it_is_the_same(
    postgres: OwnPostgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 3)
    assert take_in(postgres, database, honest().write(tmp_path / "log")) == honest().size
    assert stored(postgres, database, honest()) == (honest().root, list(honest().entries))
    assert check_books(postgres, database) == []


def test_a_longer_log_of_the_same_commons_goes_on_where_the_ledger_ends(
    postgres: OwnPostgres, database: str, tmp_path: Path
) -> None:
    # A backup that is older than the log that members hold.
    cut = honest().cut(25)
    assert take_in(postgres, database, cut.write(tmp_path / "cut")) == 25
    assert take_in(postgres, database, honest().write(tmp_path / "log")) == 2
    assert stored(postgres, database, honest())[0] == honest().root
    assert check_books(postgres, database) == []


def test_a_wrong_key_is_told_which_one_is_needed(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFault, match=did_of(NEW_LEDGER)):
        take_in(postgres, database, honest().write(tmp_path / "log"), OLD_KEY)
    assert nothing_is_stored(postgres, database)


def test_of_a_log_that_does_not_hold_nothing_is_stored(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    forged = honest().reposted("very last", lambda postings: postings[::-1])
    with pytest.raises(ImportFault, match="posting at entry 27"):
        take_in(postgres, database, forged.write(tmp_path / "log"))
    assert nothing_is_stored(postgres, database)


def test_a_commons_that_went_another_way_is_left_alone(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    log = honest()
    assert take_in(postgres, database, log.write(tmp_path / "log")) == log.size
    for other in (log.swapped("pay ben", "pay carl", renumbered=True), log.cut(26)):
        with pytest.raises(ImportFault, match="nothing is imported: the commons is here with 27 entries"):
            take_in(postgres, database, other.write(tmp_path / "other"))
    assert stored(postgres, database, log) == (log.root, list(log.entries))


def test_the_database_of_another_ledger_is_left_alone(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    postgres.execute(database, f"INSERT INTO gesell.ledger VALUES (true, '\\x{LEDGER.hex()}', false, 0)")
    with pytest.raises(DatabaseUnfit, match=did_of(LEDGER)):
        take_in(postgres, database, honest().write(tmp_path / "log"))
    assert nothing_is_stored(postgres, database)


# ── A file that is not the one that was audited ──────────────────────────────────────────────────────────────────


def other_end() -> Log:
    """As true as the first, and as long; its last entry is another."""
    return log_of(*tell_story(said_twice=True))


@pytest.mark.parametrize(
    ("later", "said", "left"),
    [
        (other_end, "do not hash to the root that was audited", 20),
        (lambda: honest().cut(26), "ends after 26 entries", 26),
        (lambda: log_of(*tell_story(longer=1)), "do not hash to the root", 20),
        (lambda: honest().reposted("very last", lambda lines: lines[::-1]), "entry 27 comes out otherwise", 20),
        (
            lambda: honest().changed("very last", lambda leaf: leaf._replace(at_ms=2**41)),
            "entry 27 is not accepted",
            20,
        ),
        (lambda: honest().with_bytes("very last", b"x"), "malformed", 20),
        (lambda: honest().cut(26).with_bytes(5, b""), "not-canonical", 0),
    ],
)
def test_a_file_that_changed_since_it_was_audited_is_told_and_nothing_of_its_batch_is_stored(
    postgres: OwnPostgres,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    later: Callable[[], Log],
    said: str,
    left: int,
) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)
    path = honest().write(tmp_path / "log")
    verdict = check_log(path, ledger=NEW_LEDGER)
    later().write(path)
    with pytest.raises(ImportFault, match=f"changed since it was audited, and nothing more.*{said}"):
        asyncio.run(import_log(postgres.service_dsn(database), path, verdict, key=NEW_KEY, demo=False))
    assert postgres.fetch(database, "SELECT count(*) FROM gesell.entry") == [(left,)]
    # What is there is the beginning of the file as it was: with that one it goes on.
    assert take_in(postgres, database, honest().write(path)) == honest().size - left
    assert stored(postgres, database, honest()) == (honest().root, list(honest().entries))


def test_a_file_that_ends_where_an_import_was_cut_short_does_not_end_it(
    postgres: OwnPostgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)
    scribe = Scribe()
    while len(scribe.entries) < 24:
        scribe.admit(f"peer{len(scribe.entries)}")
    log = log_of(scribe, {})
    path = log.write(tmp_path / "log")
    verdict = check_log(path, ledger=LEDGER)
    log.cut(20).write(path)
    with pytest.raises(ImportFault, match="ends after 20 entries"):
        asyncio.run(import_log(postgres.service_dsn(database), path, verdict, key=OLD_KEY, demo=False))
    with pytest.raises(ImportFault, match="a longer log of this commons is here by half, its first 20 entries"):
        take_in(postgres, database, path, OLD_KEY)
    assert take_in(postgres, database, log.write(path), OLD_KEY) == 4
    assert stored(postgres, database, log)[0] == log.root


def test_an_export_that_is_older_than_what_a_member_holds_is_not_imported(
    postgres: OwnPostgres, database: str, tmp_path: Path
) -> None:
    path, secret = honest().cut(26).write(tmp_path / "log"), write_key(tmp_path / "key", NEW_KEY)
    receipt, note = tmp_path / "receipt", tmp_path / "note"
    receipt.write_text(honest().receipt(27))
    note.write_text(str(honest().note()))
    dsn = postgres.service_dsn(database)
    for words, said in (
        (["--receipt", receipt], "behind"),
        (["--checkpoint", note], "behind"),
        (["--witness", str(VKEYS[0])], "witness"),
        (["--quorum", "1"], "--quorum is at most"),
        (["--receipt", secret], "neither a checkpoint nor a receipt"),
    ):
        called = command(path, "--key", secret, "--database", dsn, *words)
        ended = run_gesell(*called, timeout=120)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    assert nothing_is_stored(postgres, database)


def test_no_word_in_a_log_moves_the_operators_terminal(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    secret = write_key(tmp_path / "key", OLD_KEY)
    named = log_of(Scribe(name="gone\u202e"), {})
    evil = named.reposted(1, lambda _: [Posting("gone\x1b[2J\u009b\n", POOL, "gone\u202e", 0)])
    for log, status in ((evil, 1), (named, 0)):
        path = log.write(tmp_path / "log")
        words = command(path, "--key", secret, "--database", postgres.service_dsn(database))
        ended = run_gesell(*words, timeout=120)
        assert ended.returncode == status, ended.stderr
        assert "gone" in ended.stdout + ended.stderr
        assert not set("\x1b\u009b\u202e") & set(ended.stdout + ended.stderr)


def test_a_log_from_the_future_asks_for_a_demo(postgres: OwnPostgres, database: str, tmp_path: Path) -> None:
    scribe = Scribe(now_ms=4_000_000_000_000)
    path = log_of(scribe, {}).write(tmp_path / "log")
    with pytest.raises(ImportFault, match="--demo"):
        take_in(postgres, database, path, OLD_KEY)
    assert take_in(postgres, database, path, OLD_KEY, demo=True) == 1
    assert postgres.fetch(database, "SELECT demo, heartbeat_ms FROM gesell.ledger") == [(True, 4_000_000_000_000)]
    with pytest.raises(DatabaseUnfit, match="a demo clock"):
        take_in(postgres, database, log_of(Scribe(), {}).write(tmp_path / "other"), OLD_KEY)


# ── As a command ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def long_log() -> Log:
    """A log of several batches, its last ones small."""
    scribe = Scribe()
    for name in ("anna", "ben"):
        scribe.admit(name)
    scribe.say("issue", key("sara"), to=key("anna"), amount=10**9)
    while len(scribe.entries) < 4_000:
        scribe.now_ms += 60_000
        scribe.say("pay", key("anna"), legs=[[key("ben"), 5]])
        scribe.say("pay", key("ben"), legs=[[key("anna"), 2]])
    return log_of(scribe, {})


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


def command(*words: str | Path) -> list[str]:
    return ["import", *map(str, words)]


def test_killed_in_the_middle_it_goes_on_and_no_service_starts_meanwhile(
    postgres: OwnPostgres, database: str, place: Path, long_log: Log
) -> None:
    path, secret = long_log.write(place / "log"), write_key(place / "key", OLD_KEY)
    words = command(path, "--key", secret, "--database", postgres.service_dsn(database))
    with (place / "said").open("wb") as said:
        process = Forked(*words, stdout=said.fileno(), stderr=said.fileno())
    while process.poll() is None and postgres.fetch(database, "SELECT seq FROM gesell.commons") == []:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ((size, speaks),) = postgres.fetch(database, "SELECT seq, ledger FROM gesell.commons")
    assert 0 < size < long_log.size
    assert size % importing.BATCH == 0
    assert speaks == UNFINISHED
    service = Service(place, "--database", postgres.service_dsn(database), "--key", str(secret), "--unsafe-durability")
    with pytest.raises(DidNotStart, match="imported by half"):
        service.start()
    ended = run_gesell(*words, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert f"{long_log.size - size:,} of {long_log.size:,} entries stored now" in ended.stdout
    root, entries = stored(postgres, database, long_log)
    assert root == long_log.root
    assert write_bundle(entries) == write_bundle(long_log.entries)
    assert check_books(postgres, database) == []


def test_a_running_service_is_not_disturbed(postgres: OwnPostgres, database: str, place: Path) -> None:
    path, secret = honest().write(place / "log"), write_key(place / "key", NEW_KEY)
    dsn = postgres.service_dsn(database)
    service = Service(place, "--database", dsn, "--key", str(secret), "--unsafe-durability")
    service.start()
    try:
        words = command(path, "--key", secret, "--database", dsn)
        ended = run_gesell(*words, timeout=120)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "a service runs on this database" in ended.stderr
    finally:
        service.end()
    assert nothing_is_stored(postgres, database)


def test_into_a_new_folder_and_served_from_there(place: Path) -> None:
    path = honest().write(place / "log")
    data = place / "data"
    ended = run_gesell(*command(path, "--data", data), timeout=300)
    assert ended.returncode == 1
    assert "there is no key" in ended.stderr
    assert not data.exists()
    secret = write_key(place / "key", NEW_KEY)
    words = command(path, "--data", data, "--key", secret)
    ended = run_gesell(*words, timeout=300)
    assert ended.returncode == 0, ended.stderr
    service = Service(place, "--key", str(secret), "--accept-clock")
    service.start()
    try:
        checkpoint = place / "checkpoint"
        checkpoint.write_text(str(honest().note()))
        asked = ["audit", service.url, "--checkpoint", str(checkpoint)]
        asked += ["--ledger", did_of(LEDGER)]
        ended = run_gesell(*asked, timeout=300)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        ended = run_gesell(*words, timeout=120)
        assert ended.returncode == 1, "its folder is the running service's"
        assert ended.stderr.startswith("gesell: ")
    finally:
        service.end()

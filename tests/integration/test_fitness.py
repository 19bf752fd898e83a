"""`gesell serve` on an operator's own PostgreSQL: what it refuses, what it says then, and what it keeps.

A service that starts where it must not costs somebody their money later; so each refusal is one line that says what to
do, on stderr, with exit status 1, and nothing on stdout.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gesell import Client, Peer, default_policy
from gesell_ledger import main as service
from gesell_ledger.keyfile import KeyFault, load_or_make_key
from gesell_ledger.settings import Settings
from gesell_ledger.storage.embedded import _take_lock
from gesell_ledger.storage.faults import Fault
from gesell_ledger.storage.migrate import migrate
from gesell_protocol.names import did_of
from tests.forked import run_gesell
from tests.own_postgres import SERVICE, OwnPostgres, own_postgres
from tests.running import DidNotStart, Service

SLOW_SECONDS = 60


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres(fsync="on") as started:
        yield started


@pytest.fixture(scope="module")
def used(postgres: OwnPostgres) -> str:
    """The one database of this module; what a test leaves in it, `database` sweeps away."""
    return postgres.make_database()


@pytest.fixture
def database(postgres: OwnPostgres, used: str) -> str:
    """A database that is ready to be served and that nobody has served yet."""
    postgres.execute(used, "DROP SCHEMA IF EXISTS gesell CASCADE")
    asyncio.run(migrate(postgres.owner_dsn(used)))
    return used


def gesell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run_gesell(*arguments, timeout=SLOW_SECONDS, env={**os.environ, **environment})


def refused(*arguments: str, **environment: str) -> str:
    """The one line with which `gesell serve` ends."""
    port = () if "--port" in arguments else ("--port", "0")
    ended = gesell("serve", *port, *arguments, **environment)
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    assert ended.stderr.startswith("gesell: "), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


class Started(Exception):
    """The service found nothing amiss, and would listen now."""


def why_not(dsn: str, folder: Path) -> str | None:
    """Why a service does not start, in this process and without its port; None if it does."""
    settings = Settings(port=0, data=folder, database=dsn, key_file=folder / "ledger.key")
    try:
        with mock.patch.object(service, "_run", side_effect=Started):
            asyncio.run(service.serve(settings))
    except Fault as fault:
        return str(fault)
    except Started:
        return None
    raise AssertionError("the service ended by itself")


# ── Who could rewrite history ────────────────────────────────────────────────────────────────────────────────────


def test_serve_refuses_to_work_as_the_owner(postgres: OwnPostgres, database: str, folder: Path) -> None:
    line = refused("--database", postgres.owner_dsn(database), "--data", str(folder))
    assert "the database role gesell_owner could rewrite history" in line
    assert "`gesell db migrate` makes gesell_service" in line
    assert postgres.fetch(database, "SELECT count(*) FROM gesell.ledger") == [(0,)]
    assert list(folder.iterdir()) == []  # nor is a key made for a database that is not served


@pytest.mark.parametrize(
    "grants",
    [
        ["GRANT UPDATE ON gesell.posting TO gesell_service"],
        ["GRANT DELETE ON gesell.entry TO gesell_service"],
        ["GRANT TRUNCATE ON gesell.policy TO gesell_service"],
        ["GRANT UPDATE (amount) ON gesell.posting TO gesell_service"],
        ["GRANT UPDATE (body) ON gesell.entry TO PUBLIC"],
        ["GRANT ALL ON ALL TABLES IN SCHEMA gesell TO PUBLIC"],
        ["ALTER TABLE gesell.posting OWNER TO gesell_service"],
        ["ALTER SCHEMA gesell OWNER TO gesell_service"],
        ["GRANT UPDATE ON gesell.policy TO clerk", "GRANT clerk TO gesell_service WITH INHERIT TRUE"],
        ["GRANT UPDATE ON gesell.policy TO clerk", "GRANT clerk TO gesell_service WITH INHERIT FALSE, SET TRUE"],
        ["ALTER ROLE gesell_service SUPERUSER"],
    ],
)
def test_serve_refuses_a_role_that_got_such_a_right_on_any_way(
    postgres: OwnPostgres, database: str, folder: Path, grants: list[str]
) -> None:
    with suppress(asyncpg.DuplicateObjectError):
        postgres.execute("postgres", "CREATE ROLE clerk NOLOGIN")
    try:
        postgres.execute(database, *grants)
        why = why_not(postgres.service_dsn(database), folder)
    finally:
        postgres.execute("postgres", "REVOKE clerk FROM gesell_service", "ALTER ROLE gesell_service NOSUPERUSER")
    assert why is not None
    assert "role gesell_service could rewrite history" in why


# ── What could lose an acknowledged payment ──────────────────────────────────────────────────────────────────────


def test_serve_refuses_a_server_that_does_not_flush_unless_told(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    arguments = ["--database", postgres.service_dsn(database), "--data", str(folder / "data")]
    with postgres.spoiled("fsync", "off"):
        line = refused(*arguments)
        assert "fsync is off" in line
        assert "--unsafe-durability" in line
        reckless = Service(folder, *arguments, "--unsafe-durability")
        try:
            assert reckless.start().url
        finally:
            reckless.end()


@pytest.mark.parametrize(
    ("name", "value"), [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")]
)
def test_serve_refuses_durability_that_is_off_for_the_server(
    postgres: OwnPostgres, database: str, folder: Path, name: str, value: str
) -> None:
    with postgres.spoiled(name, value):
        why = why_not(postgres.service_dsn(database), folder)
    assert why is not None
    assert f"{name} is off" in why


@pytest.mark.parametrize(
    "whom", ["ROLE {role}", "DATABASE {database}", "ROLE {role} IN DATABASE {database}", "ROLE ALL"]
)
@pytest.mark.parametrize("value", ["off", "local"])  # "local" does not wait for a standby that it should wait for
def test_serve_refuses_durability_that_is_off_for_its_role_or_its_database(
    postgres: OwnPostgres, database: str, folder: Path, whom: str, value: str
) -> None:
    target = whom.format(role=SERVICE, database=database)
    postgres.execute(database, f"ALTER {target} SET synchronous_commit = {value}")
    try:
        why = why_not(postgres.service_dsn(database), folder)
    finally:
        postgres.execute(database, f"ALTER {target} RESET synchronous_commit")
    assert why is not None
    assert f"synchronous_commit is {value}" in why


def test_serve_refuses_a_table_that_a_crash_would_empty(postgres: OwnPostgres, database: str, folder: Path) -> None:
    postgres.execute(database, "ALTER TABLE gesell.posting SET UNLOGGED")
    try:
        why = why_not(postgres.service_dsn(database), folder)
    finally:
        postgres.execute(database, "ALTER TABLE gesell.posting SET LOGGED")
    assert why is not None
    assert "table posting is unlogged" in why


def test_serve_refuses_durability_that_is_off_in_its_own_address(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    why = why_not(postgres.service_dsn(database) + "&synchronous_commit=off", folder)
    assert why is not None
    assert "synchronous_commit is off" in why


def test_what_is_merely_unusual_is_served(postgres: OwnPostgres, database: str, folder: Path) -> None:
    # The rows above prove something only if this one starts.
    postgres.execute(database, f"ALTER DATABASE {database} SET work_mem = '8MB'")
    assert why_not(postgres.service_dsn(database), folder) is None


# ── Which schema ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_serve_refuses_a_database_without_tables(postgres: OwnPostgres, folder: Path) -> None:
    line = refused("--database", postgres.service_dsn("template1"), "--data", str(folder))
    assert "Run `gesell db migrate --database DSN` as the owner" in line


@pytest.mark.parametrize("change", ["DELETE FROM gesell.migration", "INSERT INTO gesell.migration VALUES (9999, 'x')"])
def test_serve_refuses_another_version_of_the_schema(
    postgres: OwnPostgres, database: str, folder: Path, change: str
) -> None:
    postgres.execute(database, change)
    why = why_not(postgres.service_dsn(database), folder)
    assert why is not None
    assert "schema is at version" in why


# ── Which key ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_serve_refuses_the_key_of_another_ledger(postgres: OwnPostgres, database: str, folder: Path) -> None:
    dsn = postgres.service_dsn(database)
    right = folder / "right.key"
    signer = load_or_make_key(right, passphrase=None)
    owner = "INSERT INTO gesell.ledger SELECT true, $1::bytea, false, extract(epoch FROM now()) * 1000 RETURNING one"
    postgres.fetch(database, owner, signer.public_key)
    other = load_or_make_key(folder / "other.key", passphrase=None)
    line = refused("--database", dsn, "--data", str(folder), "--key", str(folder / "other.key"))
    assert f"belongs to the ledger {did_of(signer.public_key)}" in line
    assert did_of(other.public_key) in line
    assert "--key FILE" in line


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o610])
def test_a_key_file_that_others_can_read_is_refused(folder: Path, mode: int) -> None:
    file = folder / "ledger.key"
    load_or_make_key(file, passphrase=None)
    file.chmod(mode)
    with pytest.raises(KeyFault, match=f"can be read by others.*chmod 600 {file}"):
        load_or_make_key(file, passphrase=None)


def test_serve_refuses_a_key_file_that_others_can_read(postgres: OwnPostgres, database: str, folder: Path) -> None:
    file = folder / "ledger.key"
    load_or_make_key(file, passphrase=None)
    file.chmod(0o644)
    line = refused("--database", postgres.service_dsn(database), "--data", str(folder))
    assert f"chmod 600 {file}" in line


def test_serve_refuses_a_wrong_passphrase(postgres: OwnPostgres, database: str, folder: Path) -> None:
    load_or_make_key(folder / "ledger.key", passphrase=b"open sesame")
    line = refused(
        *("--database", postgres.service_dsn(database), "--data", str(folder)), GESELL_KEY_PASSPHRASE="open barley"
    )
    assert "can't be opened" in line
    assert "--key-passphrase-file FILE or GESELL_KEY_PASSPHRASE" in line
    assert "barley" not in line


def write_rsa(file: Path) -> None:
    file.write_bytes(
        generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )


def write_public(file: Path) -> None:
    key = Ed25519PrivateKey.generate().public_key()
    file.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


def write_half(file: Path) -> None:
    load_or_make_key(file, passphrase=None)
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_rsa, "holds no Ed25519 key"),
        (write_public, "can't be opened"),
        (write_half, "can't be opened"),
        (lambda file: file.write_bytes(b""), "can't be opened"),
        (lambda file: file.mkdir(mode=0o700), "can't be read or made"),
        (lambda file: file.symlink_to(file), "can't be read or made"),
    ],
)
def test_what_is_no_key_file_is_refused_and_left_as_it_is(
    folder: Path, write: Callable[[Path], object], said: str
) -> None:
    file = folder / "ledger.key"
    write(file)
    if file.is_file():
        file.chmod(0o600)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(KeyFault, match=said) as fault:
        load_or_make_key(file, passphrase=None)
    assert "\n" not in str(fault.value)
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_key_is_refused_where_no_file_can_be_made(folder: Path) -> None:
    (folder / "occupied").write_text("")
    with pytest.raises(KeyFault, match="Say another place: --key FILE"):
        load_or_make_key(folder / "occupied" / "ledger.key", passphrase=None)


# ── What is in the way ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://gesell_service@127.0.0.1:1/gesell",
        "postgresql://gesell_service@nowhere.invalid/gesell",
        "postgresql://gesell_service@/gesell?host={folder}",
        "mysql://somebody@somewhere/something",
        "postgresql://gesell_service@127.0.0.1:port/gesell",
        "{no_such_database}",
        "{no_such_role}",
    ],
)
def test_serve_refuses_a_database_that_can_not_be_reached(
    postgres: OwnPostgres, used: str, folder: Path, dsn: str
) -> None:
    address = dsn.format(
        folder=folder,
        no_such_database=postgres.service_dsn("nowhere"),
        no_such_role=postgres.service_dsn(used).replace(SERVICE, "stranger"),
    )
    why = why_not(address, folder)
    assert why is not None
    if dsn.startswith("mysql") or ":port/" in dsn:
        assert why.startswith("--database is no address of a PostgreSQL")
    else:
        assert why.startswith("the database can't be reached: ")
        assert why.endswith("Check --database and that the server runs.")
    assert "\n" not in why


def test_serve_says_one_line_about_a_database_that_can_not_be_reached(folder: Path) -> None:
    line = refused("--database", "postgresql://gesell_service@127.0.0.1:1/gesell", "--data", str(folder))
    assert "the database can't be reached" in line
    assert "--database" in line


def test_serve_refuses_a_port_that_is_taken(postgres: OwnPostgres, database: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("--database", postgres.service_dsn(database), "--data", str(folder), "--port", str(port))
    assert f"can't listen on 127.0.0.1:{port}" in line
    assert "Say another --port" in line


def test_serve_refuses_a_data_folder_that_a_service_holds(folder: Path) -> None:
    holder = _take_lock(folder)  # the first thing that a service does there
    try:
        line = refused("--data", str(folder))
    finally:
        os.close(holder)
    assert "is in use by process" in line
    assert "--data DIR" in line


# ── From nothing to a payment ────────────────────────────────────────────────────────────────────────────────────


def ledger_of(url: str) -> str:
    async def ask() -> str:
        async with Client(url) as client:
            return (await client.service()).ledger

    return asyncio.run(ask())


async def pay_once(url: str) -> str:
    """Found a commons and move a coin; returns what its receiver then holds."""
    ada, bob = Peer.new(), Peer.new()
    policy = replace(default_policy(), admission="open")
    async with Client(url, peer=ada) as client:
        await client.found(name="Woergl", currency="WRG", policy=policy)
        await client.join("ada")
        await client.as_commons(client.commons_id or "").as_peer(bob).join("bob")
        spender = client.as_peer(bob)
        await client.issue("bob", "5")
        await spender.pay("ada", "1.25")
        return str(await client.balance())


def test_migrate_then_serve_then_pay_then_prove(postgres: OwnPostgres, database: str, folder: Path) -> None:
    postgres.execute(database, "DROP SCHEMA gesell CASCADE")
    first = gesell("db", "migrate", "--database", postgres.owner_dsn(database))
    assert (first.returncode, first.stderr) == (0, "")
    assert "applied create_ledger" in first.stdout
    assert "serve with --database postgresql://gesell_service@" in first.stdout
    dsn = postgres.service_dsn(database)
    with ExitStack() as stack:
        started = Service(folder, "--database", dsn, "--data", str(folder / "data"))
        stack.callback(started.end)
        started.start()
        assert asyncio.run(pay_once(started.url)) == "1.25 WRG"
        assert started.stop() == 0
    proven = gesell("db", "check", "--database", dsn)
    assert (proven.returncode, proven.stderr) == (0, "")
    assert "Woergl" in proven.stdout
    assert "the books hold" in proven.stdout


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://gesell_owner@127.0.0.1:1/gesell", "can't be reached"),
        ("{service}", "lacks a right"),
    ],
)
def test_migrate_says_one_line_about_what_it_can_not_do(postgres: OwnPostgres, dsn: str, said: str) -> None:
    ended = gesell("db", "migrate", "--database", dsn.format(service=postgres.service_dsn("template1")))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr


# ── The ledger's key ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_the_key_file_is_made_once_in_openssh_format_for_its_owner_only(folder: Path, passphrase: bytes | None) -> None:
    file = folder / "new" / "folder" / "ledger.key"
    made = load_or_make_key(file, passphrase=passphrase)
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert content.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert [entry.name for entry in file.parent.iterdir()] == ["ledger.key"]
    again = load_or_make_key(file, passphrase=passphrase)
    assert again.public_key == made.public_key
    assert file.read_bytes() == content
    with pytest.raises(KeyFault):
        load_or_make_key(file, passphrase=b"wrong" if passphrase else b"one too many")


def test_the_key_file_is_private_whatever_the_umask_says(folder: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make_key(folder / "ledger.key", passphrase=None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "ledger.key").stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_reads_the_key_file_with_its_passphrase_only(folder: Path) -> None:
    made = load_or_make_key(folder / "ledger.key", passphrase=b"open sesame")

    def read(passphrase: str) -> subprocess.CompletedProcess[str]:
        command = ["ssh-keygen", "-y", "-P", passphrase, "-f", str(folder / "ledger.key")]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    shown = read("open sesame")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("ssh-ed25519 ")
    # The line is "ssh-ed25519 BASE64", and the key stands at the end of what BASE64 says.
    assert base64.b64decode(shown.stdout.split()[1])[-32:] == made.public_key
    assert read("wrong").returncode != 0


def test_the_ledger_stays_the_same_over_restarts_with_its_passphrase_from_anywhere(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    (folder / "passphrase").write_text("open sesame\n")
    arguments = ["--database", postgres.service_dsn(database), "--data", str(folder / "data")]
    from_file = Service(folder, *arguments, "--key-passphrase-file", str(folder / "passphrase"))
    from_environment = Service(folder, *arguments, environment={"GESELL_KEY_PASSPHRASE": "open sesame"})
    seen = []
    for one in (from_file, from_environment):
        try:
            seen.append(ledger_of(one.start().url))
            assert one.stop() == 0
        finally:
            one.end()
    key = load_or_make_key(folder / "data" / "ledger.key", passphrase=b"open sesame")
    assert seen == [did_of(key.public_key)] * 2
    with pytest.raises(KeyFault):
        load_or_make_key(folder / "data" / "ledger.key", passphrase=None)


def test_services_that_make_one_key_file_at_once_end_with_one_key(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gesell_ledger.keyfile import load_or_make_key;"
        "sys.stdin.readline(); print(load_or_make_key(Path(sys.argv[1]), passphrase=None).public_key.hex())"
    )
    command = [sys.executable, "-c", program, str(folder / "ledger.key")]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    said = {maker.communicate()[0] for maker in makers}
    assert len(said) == 1
    assert said.pop().strip() == load_or_make_key(folder / "ledger.key", passphrase=None).public_key.hex()
    assert [entry.name for entry in folder.iterdir()] == ["ledger.key"]


def start_together(*services: Service) -> list[str | None]:
    """Start services at the same moment; their addresses, None for one that did not start."""

    async def start(one: Service) -> str | None:
        try:
            return (await asyncio.to_thread(one.start)).url
        except DidNotStart:
            return None

    async def all_of_them() -> list[str | None]:
        return await asyncio.gather(*(start(one) for one in services))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("keys", [("one.key", "one.key"), ("one.key", "another.key")])
def test_two_services_that_start_at_once_end_with_one_owner(
    postgres: OwnPostgres, database: str, folder: Path, keys: tuple[str, str]
) -> None:
    services = []
    for number, key in enumerate(keys):
        place = folder / str(number)
        place.mkdir()
        arguments = ["--database", postgres.service_dsn(database), "--data", str(place), "--key", str(folder / key)]
        services.append(Service(place, *arguments))
    try:
        urls = start_together(*services)
        started = [url for url in urls if url is not None]
        ledgers = {ledger_of(url) for url in started}
    finally:
        for one in services:
            one.end()
    assert len(started) == (2 if len(set(keys)) == 1 else 1)
    (key,) = postgres.fetch(database, "SELECT key FROM gesell.ledger")[0]
    assert ledgers == {did_of(key)}
    for one, url in zip(services, urls, strict=True):
        if url is None:
            assert "this database belongs to the ledger" in one.read_log()

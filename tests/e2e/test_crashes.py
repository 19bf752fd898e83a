"""The service under load is killed, stopped, and loses its database or its clock: what it acknowledged stays.

Owns: the load, the blows, and the reckoning afterwards. Must not know: how the service keeps its promises.

The reckoning is the same after each blow. Every acknowledged statement is found under its id with the receipt that
was given; no id stands twice; numbers have no gap; what was sent and not answered can be sent again, and then stands
once; and `gesell db check` finds the books in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest

from gesell_ledger.storage.migrate import migrate
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of, id_text
from tests.forked import run_gesell
from tests.own_postgres import OwnPostgres, own_postgres
from tests.running import DidNotStart, Service, open_folder, running
from tests.speaking import (
    HOUR_MS,
    MSGPACK,
    Line,
    fields_of,
    pack_request,
    signer_of,
)
from tests.towns import MEMBERS, STEWARD, Town, hold_receipts, line_to, read_entries

WORKERS = 6
GROUP = 10
PATIENCE_SECONDS = 60.0
DAY_MS = 24 * HOUR_MS


# ── Load ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Load:
    """Payments without end in some towns, and what became of each."""

    def __init__(self, service: Service, towns: list[Town]) -> None:
        self._service = service
        self._towns = towns
        self.over = False
        self.sent: dict[bytes, Envelope] = {}
        self.acknowledged: dict[bytes, Any] = {}
        self.refused: list[str] = []
        #: Requests that broke, so that nobody knows what became of them.
        self.broken = 0
        #: Requests for which there was nobody to connect to.
        self.unheard = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """The workers work while the block runs, and end what they are at when it ends."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            workers = [asyncio.create_task(self._work(session, number)) for number in range(WORKERS)]
            try:
                await self.until(lambda: len(self.acknowledged) >= 200)
                yield self
            finally:
                self.over = True
                await asyncio.gather(*workers)

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait until the load has come so far."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up:
            if there():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("the load does not go on")

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        enough = len(self.acknowledged) + count
        await self.until(lambda: len(self.acknowledged) >= enough)

    async def _work(self, session: aiohttp.ClientSession, number: int) -> None:
        town = self._towns[number % len(self._towns)]
        payer, payee = MEMBERS[number], MEMBERS[(number + 1) % len(MEMBERS)].public_key
        headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
        while not self.over:
            now = time.time_ns() // 1_000_000
            envelopes = [town.write("pay", payer, now_ms=now, legs=[[payee, 1]]) for _ in range(GROUP)]
            self.sent |= {fields_of(envelope)["id"]: envelope for envelope in envelopes}
            url = self._service.url + "/v1/statements"
            try:
                async with session.post(url, data=pack_request(envelopes), headers=headers) as response:
                    status, answer = response.status, await response.read()
            except aiohttp.ClientConnectorError:
                self.unheard += 1
                await asyncio.sleep(0.05)
            except (aiohttp.ClientError, OSError):
                self.broken += 1
                await asyncio.sleep(0.05)
            else:
                self._note(envelopes, status, answer)

    def _note(self, envelopes: list[Envelope], status: int, answer: bytes) -> None:
        if status != 200:
            self.refused.append(f"{status}")
            return
        results = msgpack.unpackb(answer)["results"]
        for envelope, result in zip(envelopes, results, strict=True):
            if result["status"] == "refused":
                self.refused.append(result["problem"]["code"])
            else:
                self.acknowledged[fields_of(envelope)["id"]] = result["receipt"]


# ── Reckoning ────────────────────────────────────────────────────────────────────────────────────────────────────


def reckon(service: Service, towns: list[Town], load: Load) -> None:
    """Nothing acknowledged is lost or altered, nothing stands twice, and what is sent again stands once."""
    with line_to(service) as line:
        before = {town.name: read_entries(line, town) for town in towns}
        stored = {entry["id"]: entry for entries in before.values() for entry in entries}
        hold_receipts(line, towns, load.acknowledged, stored)
        known = set().union(*(town.begun for town in towns)) | set(load.sent)
        assert set(stored) <= {id_text(name) for name in known}
        send_again(line, load, stored)
        for town in towns:
            read_entries(line, town)
    check_books(service.folder)


def send_again(line: Line, load: Load, stored: dict[str, Any]) -> None:
    """Say once more all that was sent: stored before is a replay, and the rest counts for the first time now."""
    sent = list(load.sent.items())
    for at in range(0, len(sent), 5_000):
        part = sent[at : at + 5_000]
        results = line.post([envelope for _, envelope in part])
        for (name, _), result in zip(part, results, strict=True):
            assert result["status"] == ("replayed" if id_text(name) in stored else "accepted"), result
            if name in load.acknowledged:
                assert result["receipt"] == load.acknowledged[name]


def check_books(folder: Path) -> None:
    ended = run_gesell("db", "check", "--data", folder / "data", timeout=PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def towns_of(service: Service) -> Iterator[list[Town]]:
    with line_to(service) as line:
        towns = [Town(line), Town(line)]
        for town in towns:
            town.settle(line, MEMBERS)
    yield towns
    assert not aborted(service)


def aborted(service: Service) -> list[str]:
    """What the service's log says of batches that it thought broken."""
    return [text for text in service.read_log().splitlines() if "batch_aborted" in text]


# ── Blows ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_killed_service_has_kept_all_that_it_acknowledged() -> None:
    with running() as service, towns_of(service) as towns:
        load = Load(service, towns)
        async with load.running():
            for _ in range(2):
                service.kill()
                await asyncio.to_thread(service.start)
                await load.more(200)
        assert load.broken + load.unheard > 0
        assert load.refused == []
        await asyncio.to_thread(reckon, service, towns, load)


async def test_service_goes_on_when_its_postgres_is_killed() -> None:
    with running() as service, towns_of(service) as towns:
        load = Load(service, towns)
        async with load.running():
            for _ in range(2):
                postmaster = int((service.folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0])
                os.kill(postmaster, signal.SIGKILL)
                await load.more(200)
        assert service.process is not None
        assert service.process.poll() is None
        assert (load.refused, load.broken, load.unheard) == ([], 0, 0), aborted(service)
        assert set(load.acknowledged) == set(load.sent)
        await asyncio.to_thread(reckon, service, towns, load)


async def test_service_that_is_told_to_stop_answers_what_it_has_taken_and_ends_well() -> None:
    with running() as service, towns_of(service) as towns:
        load = Load(service, towns)
        async with load.running():
            status = await asyncio.to_thread(service.stop)
            await load.until(lambda: load.unheard > 0)
        assert status == 0
        assert set(load.refused) <= {"unavailable", "503"}
        await asyncio.to_thread(service.start)
        with line_to(service) as line:
            stored = {entry["id"] for town in towns for entry in line.items(f"{town.path}/entries?limit=1000")}
        answered = {id_text(name) for name in load.acknowledged} | {
            id_text(name) for town in towns for name in town.begun
        }
        assert stored == answered, "whatever it applied, it has answered"
        await asyncio.to_thread(reckon, service, towns, load)


@pytest.mark.parametrize("payouts_before", [0, 1])
async def test_payouts_that_a_kill_interrupts_are_finished_once_each(payouts_before: int) -> None:
    crowd = [signer_of(f"one of many {n}") for n in range(950)]
    with running() as service:
        with line_to(service) as line:
            town = fill_pool(line, crowd)
            share = town.write("share", STEWARD, now_ms=line.time(), amount=7 * len(crowd) + 3)
            town.say(line, [share])
            seq = line.get(town.path)["seq"]
            while payouts_before and line.get(town.path)["seq"] < seq + payouts_before:
                pass
        service.kill()
        service.start()
        with line_to(service) as line:
            await_payout(line, town)
            entries = read_entries(line, town)
            await asyncio.sleep(1.5)  # another round or two, in which nothing may be paid
            assert line.get(town.path)["seq"] == len(entries)
        parts = [posting for entry in entries for posting in entry["postings"] if posting[0] == "share"]
        paid = sorted((holder, int(amount)) for _, holder, _, amount in parts if holder.startswith("did:"))
        assert paid == sorted((did_of(one.public_key), 7) for one in crowd)
        check_books(service.folder)


def fill_pool(line: Line, crowd: list[Signer]) -> Town:
    """A commons with stewards' admission, these as members, and a pool: somebody left and had much."""
    town = Town(line, admission="steward")
    now = line.time()
    rich = MEMBERS[0]
    members = [*crowd, rich]
    town.say(line, [town.write("join", one, now_ms=now, handle=f"one-{n}") for n, one in enumerate(members)])
    town.say(line, [town.write("admit", STEWARD, now_ms=now, peer=one.public_key) for one in members])
    town.say(
        line,
        [
            town.write("issue", STEWARD, now_ms=now, to=rich.public_key, amount=10**6),
            town.write("leave", rich, now_ms=now),
        ],
    )
    return town


def await_payout(line: Line, town: Town) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while int(line.get(town.path)["escrow"]) > 0:
        assert time.monotonic() < give_up
        time.sleep(0.05)


# ── The clock ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A server that goes on when the service ends; durable, since it is refused otherwise."""
    with own_postgres(fsync="on") as started:
        yield started


@pytest.fixture
def database(postgres: OwnPostgres) -> str:
    """A new database with the ledger's tables; its name."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    return name


@contextmanager
def serving(postgres: OwnPostgres, database: str, *arguments: str) -> Iterator[Service]:
    with open_folder() as folder:
        shared = ("--database", postgres.service_dsn(database), "--data", str(folder / "data"))
        service = Service(folder, *shared, *arguments)
        try:
            yield service.start()
        finally:
            service.end()


def hold_writing_stopped(service: Service, town: Town, why: str) -> None:
    """Reads are answered; statements are not taken, and both they and /readyz say why, and what to do."""
    with line_to(service) as line:
        seq = line.get(town.path)["seq"]
        (result,) = line.post([town.write("pay", MEMBERS[0], now_ms=line.time(), legs=[[MEMBERS[1].public_key, 1]])])
        for status, problem in ((503, result["problem"]), line.ask("/readyz")):
            assert (status, problem["status"], problem["code"]) == (503, 503, "unavailable")
            assert why in problem["detail"]
            assert "--accept-clock" in problem["detail"]
        assert line.ask("/healthz")[0] == 200
        assert line.get(f"{town.path}/members/member-0/balances")["items"][0]["balance"].isdigit()
        assert line.get(town.path)["seq"] == seq


def hold_writing_works(service: Service, town: Town) -> None:
    with line_to(service) as line:
        assert line.ask("/readyz")[0] == 200
        town.say(line, [town.write("pay", MEMBERS[0], now_ms=line.time(), legs=[[MEMBERS[1].public_key, 1]])])


def test_clock_far_off_stops_the_writing_until_it_is_accepted(postgres: OwnPostgres, database: str) -> None:
    def move_heartbeat(by_ms: int) -> None:
        # Pretends that the service, which has stopped, last ran at another time.
        postgres.execute(database, f"UPDATE gesell.ledger SET heartbeat_ms = heartbeat_ms + {by_ms}")

    with serving(postgres, database) as service:
        with line_to(service) as line:
            town = Town(line)
            town.settle(line, MEMBERS)
        assert service.stop() == 0
        move_heartbeat(-31 * DAY_MS)
        # Twice, since a service that is not trusted with the time must not note that it ran.
        for _ in range(2):
            service.start()
            hold_writing_stopped(service, town, "31 days after")
            assert service.stop() == 0
        service.start("--accept-clock")
        hold_writing_works(service, town)
        assert service.stop() == 0
        move_heartbeat(DAY_MS)
        service.start()
        hold_writing_stopped(service, town, "seconds before")
        assert service.stop() == 0
        service.start("--accept-clock")
        hold_writing_works(service, town)
        assert service.stop() == 0
        # Accepted once is enough, and an absence of less than 30 days needs no word.
        move_heartbeat(-29 * DAY_MS)
        service.start()
        hold_writing_works(service, town)


def test_real_clock_and_demo_clock_do_not_mix(postgres: OwnPostgres, database: str) -> None:
    start = ("--demo", "--clock-start", "2020-01-25T19:00:00Z", "--clock-speed", "3600")
    with serving(postgres, database) as real:
        real.kill()
        with pytest.raises(DidNotStart, match="ran on a real clock and can't go on with a demo clock"):
            real.start("--demo")
        with pytest.raises(DidNotStart, match="say --demo too"):
            real.start("--clock-speed", "60")
    with running(*start) as demo:
        with line_to(demo) as line:
            before = line.time()
            assert 0 <= before - 1_579_978_800_000 < 60 * 3_600_000
        assert demo.stop() == 0
        demo.arguments = ()
        with pytest.raises(DidNotStart, match="ran on a demo clock and can't go on with a real clock"):
            demo.start()
        demo.start(*start)
        with line_to(demo) as line:
            assert line.time() >= before, "a demo goes on where it was"

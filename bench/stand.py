"""The service that is measured: one of its own with its PostgreSQL, or one that runs already; and what it spends.

Owns the service's life, its processes told apart from PostgreSQL's, v, and the check that follows every run. Knows no
workload: what is sent, and to which commons, is the groups' affair.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bench import machine
from bench.driver import get_json
from bench.machine import Memory
from bench.measures import Notebook
from bench.signing import Crew, Signed, pay
from bench.verdicts import Claim, Verifier
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_protocol.ed25519 import Signer
from gesell_protocol.names import peer_of
from tests.running import Service, lay_cluster, open_folder

#: Signatures over which v is measured, by as many keys.
SAMPLES: Final = 500
LOG_TAIL_CHARS: Final = 2_000
#: Below so many cores the service and its PostgreSQL count as quiet; looked at over so many seconds.
QUIET_CORES: Final = 0.1
QUIET_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Processor seconds so far: of this process, and of the service and its PostgreSQL where they are ours."""

    load: float
    service: float | None
    postgres: float | None

    def cores_since(self, before: Cpu, *, seconds: float) -> dict[str, float]:
        """What was spent since, in cores, under the names that a `Run` has for it; what is not known is left out."""
        spent = {"load_cores": self.load - before.load}
        if self.service is not None and before.service is not None:
            spent["service_cores"] = self.service - before.service
        if self.postgres is not None and before.postgres is not None:
            spent["postgres_cores"] = self.postgres - before.postgres
        return {name: used / seconds for name, used in spent.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory of the service (all its workers) and of its PostgreSQL."""

    service: Memory
    postgres: Memory


class Stand:
    """A service under measurement. Made by `Stand.open`; serves one group at a time."""

    def __init__(self, url: str, *, pid: int | None, database_dsn: str | None, ledger: bytes, v_seconds: float) -> None:
        """`url` of the service and its key; `pid` and `database_dsn` where it is ours, else None.

        The DSN is that of the database's owner, who may do everything, in the same PostgreSQL as the service.
        """
        self.url = url
        self.pid = pid
        self.database_dsn = database_dsn
        self.ledger = ledger
        self._v_seconds = v_seconds
        self._samples: list[Signed] = []
        self._verifier = Verifier(url, ledger=ledger, dsn=database_dsn)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, url: str | None = None, arguments: Sequence[str] = (), v_seconds: float = 0.5
    ) -> AsyncIterator[Stand]:
        """Start a service with these arguments (`--workers 2`), gone afterwards; or take the one at `url`.

        Ours keeps its data in a new folder, with a PostgreSQL of its own unless `--database` is among the arguments.
        If what is done with it fails, the end of its log goes to stderr. Raises `DidNotStart`, and `LoadFault` or
        `OSError` where nothing answers at `url`.
        """
        if url is not None:
            yield cls(url, pid=None, database_dsn=None, ledger=await _ledger_at(url), v_seconds=v_seconds)
            return
        with open_folder() as folder:
            await asyncio.to_thread(lay_cluster, folder / "data")
            service = Service(folder, *arguments)
            try:
                # Starting it takes seconds, in which others of this process may go on.
                await asyncio.to_thread(service.start)
                assert service.process is not None
                dsn = _dsn_among(arguments) or _owners_dsn(service)
                ledger = await _ledger_at(service.url)
                yield cls(service.url, pid=service.process.pid, database_dsn=dsn, ledger=ledger, v_seconds=v_seconds)
            except BaseException:
                # Before the folder goes, and the reason with it.
                print(service.read_log()[-LOG_TAIL_CHARS:], file=sys.stderr)
                raise
            finally:
                await asyncio.to_thread(service.end)

    def v(self) -> float:
        """v: signatures of statements that libsodium verifies a second on one core, measured now, in this process.

        Takes `v_seconds` and lets nothing else of this process run meanwhile. `quiet` comes before it.
        """
        if not self._samples:
            peers = [Signer(seed) for seed in Crew.drawn(SAMPLES).accounts]
            self._samples = [pay(peers, bytes(16), time_ms=0) for _ in range(SAMPLES)]
        return machine.measure_v(self._samples, seconds=self._v_seconds)

    async def quiet(self, *, seconds: float = 5.0) -> float:
        """Wait until the service does nothing, but at most so many seconds; returns how many cores it last took.

        After a run the service folds what happened into its readings for a while. A service that is not ours is
        not waited for, and 0 is returned.
        """
        if self.pid is None:
            return 0.0
        until = time.monotonic() + seconds
        while True:
            before, looked = self.cpu(), time.monotonic()
            await asyncio.sleep(QUIET_LOOK_SECONDS)
            cores = self.cpu().cores_since(before, seconds=time.monotonic() - looked)
            busy = cores.get("service_cores", 0.0) + cores.get("postgres_cores", 0.0)
            if busy < QUIET_CORES or time.monotonic() > until:
                return busy

    async def time_ms(self) -> int:
        """The service's clock."""
        return int((await get_json(self.url, "/v1"))["time"])

    def cpu(self) -> Cpu:
        """Processor seconds so far, to a hundredth of a second; ended backends and workers count as PostgreSQL's."""
        if self.pid is None:
            return Cpu(load=time.process_time(), service=None, postgres=None)
        ours, postgres = self._processes()
        return Cpu(
            load=time.process_time(),
            service=machine.cpu_seconds(ours),
            postgres=machine.cpu_seconds(postgres, with_ended_children=True),
        )

    def memory(self) -> Footprint | None:
        """What the service and its PostgreSQL hold resident, and held at most; None where it is not ours."""
        if self.pid is None:
            return None
        ours, postgres = self._processes()
        return Footprint(service=machine.memory_of(ours), postgres=machine.memory_of(postgres))

    def pids(self) -> list[int]:
        """The processes of a service of our own: itself, its workers, and those that check statements for it."""
        return self._processes()[0]

    def _processes(self) -> tuple[list[int], list[int]]:
        """The service's processes (its own and all below it but PostgreSQL's), and those of the PostgreSQL below it."""
        assert self.pid is not None
        below = machine.descendants(self.pid)
        postgres = [pid for pid in below if machine.name_of(pid) == "postgres"]
        return [self.pid, *(pid for pid in below if pid not in set(postgres))], postgres

    async def check(self, notebook: Notebook, claim: Claim) -> int:
        """Hold what a run was answered against the books, note the `Check`, and return how many were accepted.

        What is looked at: see `bench.verdicts`. Call it after every run in a commons, the set-up included and in
        order, since each looks only at the entries since the one before. Raises `NotHeld` where anything is amiss,
        after it was noted: the harness then ends, exit status not 0.
        """
        return await self._verifier.check(notebook, claim)

    async def pass_over(self, commons: bytes) -> int:
        """Take what the log of a commons holds by now as given and check from there on: for a ledger that was filled
        by other means than requests. Returns how many entries it holds; raises `NotHeld` if its tree is not signed.
        """
        return await self._verifier.pass_over(commons)

    async def prove(self, notebook: Notebook, *, after: str) -> None:
        """The project's own proof of all books, once at the end of a group: minutes for millions of entries.

        `gesell db check` on the database of a service of our own, `gesell audit` of each commons that was checked at
        one that is not. Notes a `Check`; raises `NotHeld`.
        """
        await self._verifier.prove(notebook, after=after)


async def _ledger_at(url: str) -> bytes:
    """The key of the service at a URL."""
    return peer_of((await get_json(url, "/v1"))["ledger"])


def _owners_dsn(service: Service) -> str:
    private = PrivatePostgres(service.folder / "data")
    return private.dsn(role=private.owner, database="postgres")


def _dsn_among(arguments: Sequence[str]) -> str | None:
    """The database that the service's arguments name, if they do."""
    return dict(pairwise(arguments)).get("--database")

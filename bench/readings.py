"""`python -m bench.readings`: how fast the log is folded into the readings, from nothing and behind the payments.

Fills a commons through core and storage, without HTTP and signatures, since only the fold is measured. Phases, in this
order: 1. Entries are stored. 2. All readings are made from nothing, as `gesell db rebuild` does. 3. The circulation of
30 steps is asked for until all its figures are there. 4. Statements are accepted at a steady pace while the folder
works beside them: how far it lagged, and what both took of a processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import uvloop

from bench import machine
from gesell_ledger.clock import Clock
from gesell_ledger.core.decide import Submission
from gesell_ledger.metrics import Metrics
from gesell_ledger.readings.circulation import Circulation
from gesell_ledger.readings.folder import Folder, rebuild
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.readings import Readings
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import commons_of, uuid7
from gesell_protocol.statements import read_statement, write_body
from tests.running import open_folder

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

EACH: Final = 1_000
HALF_LIFE_MS: Final = 180 * 86_400_000
CATEGORIES: Final = ("answer", "lift", "listening", "bread", "repair")
TABLES: Final = (
    "relation",
    "relation_sum",
    "standing",
    "membership",
    "flow_tick",
    "flow_sum",
    "flow_pairs",
)


class Town:
    """A commons whose members pay each other, half of them with a category, and give hours now and then."""

    def __init__(self, sequencer: Sequencer, *, members: int, ledger: bytes) -> None:
        self._sequencer = sequencer
        self._random = random.Random(1)
        self._ledger = ledger
        self.members = [Signer(sha256(b"bench readings %d" % n).digest()).public_key for n in range(members)]
        self.name = b""
        self._offered: list[tuple[bytes, bytes]] = []

    def write(self, what: str, by: bytes, **fields: Any) -> Submission:
        now = int(time.time() * 1000)
        said = {"type": what, "by": by, "id": uuid7(now, os.urandom(10)), "expires": now + 3_600_000, **fields}
        if what != "found":
            said["commons"] = self.name
        envelope = Envelope(write_body(said), ((by, bytes(64)),))
        return Submission(envelope, read_statement(envelope, min_tick_seconds=1))

    async def say(self, many: list[Submission]) -> None:
        for answer in await self._sequencer.submit(many):
            if not isinstance(answer, Receipted):
                raise SystemExit(f"refused: {answer}")

    async def settle(self, *, tick_seconds: int) -> None:
        """Found the commons, and have everybody in it."""
        steward = self.members[0]
        policy = {
            "tick_seconds": tick_seconds,
            "rest_ticks": 0,
            "brackets": [[0, 0]],
            "melt_to": "pool",
            "admission": "open",
            "credit_limit": 0,
            "vouch_min": 1,
            "visibility": "open",
            "notice_ticks": 0,
        }
        fields = {"ledger": self._ledger, "name": "Bench", "currency": {"code": "WRG", "scale": 2}, "policy": policy}
        founding = self.write("found", steward, **fields, stewards=[steward], threshold=1)
        self.name = commons_of(founding.envelope.body)
        await self.say([founding])
        await self._all(self.write("join", one, handle=f"m{n}") for n, one in enumerate(self.members))
        await self._all(self.write("issue", steward, to=one, amount=10**12) for one in self.members[1:])

    async def _all(self, many: Any) -> None:
        ready = list(many)
        for start in range(0, len(ready), EACH):
            await self.say(ready[start : start + EACH])

    def chatter(self, count: int) -> list[Submission]:
        """Statements that are accepted in this order, in a commons whose earlier ones were."""
        said: list[Submission] = []
        draw, members = self._random, self.members
        offered, self._offered = self._offered, []
        while len(said) < count:
            one, other = draw.sample(members[1:], 2)
            chance = draw.random()
            if chance < 0.05 and offered:
                given, receiver = offered.pop()
                said.append(self.write("thank", receiver, gift=given))
            elif chance < 0.1:
                gift = self.write("gift", one, to=other, kind="hour", quantity=100)
                self._offered.append((gift.statement.id, other))
                said.append(gift)
            else:
                category = {"category": draw.choice(CATEGORIES)} if chance < 0.55 else {}
                said.append(self.write("pay", one, legs=[[other, draw.randint(1, 1000)]], **category))
        return said


async def measure(*, entries: int, members: int, rate: int, seconds: float, tick_seconds: int) -> dict[str, Any]:
    """All phases on a PostgreSQL of their own."""
    with open_folder() as folder:
        async with PrivatePostgres(folder) as server:
            await migrate(server.dsn(role=server.owner, database="postgres"))
            dsn = server.dsn(role=SERVICE_ROLE, database="postgres")
            async with open_pool(dsn) as pool, open_pool(dsn, connections=1, seconds=600) as folding:
                return await _measure(pool, folding, entries, members, rate, seconds, tick_seconds)


async def _measure(
    pool: Pool, folding: Pool, entries: int, members: int, rate: int, seconds: float, tick_seconds: int
) -> dict[str, Any]:
    ledger = sha256(b"ledger").digest()
    sequencer = Sequencer(pool, Clock(), ledger=ledger, metrics=Metrics())
    town = Town(sequencer, members=members, ledger=ledger)
    await town.settle(tick_seconds=tick_seconds)
    began = time.perf_counter()
    for _ in range(entries // EACH):
        await town.say(town.chatter(EACH))
    stored = time.perf_counter() - began
    folds = Folds(folding)
    began, spent = time.perf_counter(), time.process_time()
    head = await rebuild(folds, town.name, half_life_ms=HALF_LIFE_MS)
    took = time.perf_counter() - began
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "members": members,
        "entries": head,
        "tick_seconds": tick_seconds,
        "stored_seconds": round(stored, 1),
        "rebuild_seconds": round(took, 1),
        "rebuild_us_an_entry": round(took / head * 1e6, 1),
        "of_it_python": round((time.process_time() - spent) / took, 2),
        "bytes_an_entry": {name: round(size / head, 1) for name, size in (await _sizes(pool)).items()},
    }
    report["flow"] = await _flow(pool, town.name)
    report["live"] = await _live(town, sequencer, folds, rate=rate, seconds=seconds)
    await sequencer.stop()
    return report


async def _live(town: Town, sequencer: Sequencer, folds: Folds, *, rate: int, seconds: float) -> dict[str, Any]:
    """Accept statements at a pace, a tenth of a second's at a time, with the folder beside."""
    keeper = Folder(folds, Metrics(), half_life_ms=HALF_LIFE_MS)
    sequencer.after_commit.append(keeper.wake)
    each = rate // 10
    batches = [town.chatter(each) for _ in range(int(seconds * 10))]
    task = asyncio.create_task(keeper.run())
    lags: list[int] = []
    late = 0.0
    began, spent = time.perf_counter(), time.process_time()
    for n, batch in enumerate(batches):
        wait = began + n / 10 - time.perf_counter()
        late = max(late, -wait)
        await asyncio.sleep(max(0.0, wait))
        await town.say(batch)
        lags.append(await folds.load_head(town.name) - await folds.load_seq(town.name))
    took, cpu = time.perf_counter() - began, time.process_time() - spent
    ended = time.perf_counter()
    while await folds.load_seq(town.name) < await folds.load_head(town.name):  # noqa: ASYNC110 (the database tells)
        await asyncio.sleep(0.05)
    caught_up = time.perf_counter() - ended
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return {
        "accepted_a_second": round(len(batches) * each / took),
        "lag_entries_median": sorted(lags)[len(lags) // 2],
        "lag_entries_most": max(lags),
        "caught_up_seconds": round(caught_up, 2),
        "late_seconds_most": round(late, 2),
        "python_cores": round(cpu / took, 2),
    }


async def _flow(pool: Pool, name: bytes) -> dict[str, Any]:
    """Ask for circulation in at most 30 steps, again and again while figures are missing."""
    found = await Reader(pool).load_commons(name)
    assert found is not None
    circulation = Circulation(Readings(pool))
    asked: list[dict[str, Any]] = []
    while not asked or (asked[-1]["missing"] and len(asked) < 50):
        began = time.perf_counter()
        flow = await circulation.load(found[0], now_ms=int(time.time() * 1000), from_ms=None, to_ms=None, step=1)
        missing = sum(step.stock is None or step.rounds is None for step in flow.steps)
        asked.append({"seconds": round(time.perf_counter() - began, 3), "steps": len(flow.steps), "missing": missing})
    began = time.perf_counter()
    await circulation.load(found[0], now_ms=int(time.time() * 1000), from_ms=None, to_ms=None, step=1)
    return {"cold": asked, "warm_seconds": round(time.perf_counter() - began, 3)}


async def _sizes(pool: Pool) -> dict[str, int]:
    sizes = {}
    for name in (*TABLES, "entry", "posting"):
        sizes[name] = await pool.fetchval("SELECT pg_total_relation_size($1::regclass)", f"gesell.{name}")
    return sizes


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=2_000, help="statements a second in the last phase")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the last phase lasts")
    parser.add_argument("--tick-seconds", type=int, default=3_600)
    said = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        work = measure(
            entries=said.entries,
            members=said.members,
            rate=said.rate,
            seconds=said.seconds,
            tick_seconds=said.tick_seconds,
        )
        print(json.dumps(runner.run(work), indent=2))


if __name__ == "__main__":
    main()

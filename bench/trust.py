"""`python -m bench.trust`: how long questions of trust take, and what the process that answers them weighs.

Asks the process that the service asks (`readings.solver`) over the same pipe, without database and HTTP: a random graph
of 100,000 vouches, and the positive ratings of Bitcoin OTC where they are there. Times are those of the wall clock; of
the process itself also processor time, which says what they would be on an idle machine. `stall` is the longest time
for which one flow kept another thread of its process from running: why it is no thread of the service.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import machine
from gesell_ledger.readings.solver import (
    LENGTH_BYTES,
    Answer,
    AskBetween,
    AskRanking,
    Between,
    Message,
    Ranking,
    Vouches,
    pack,
)

OTC: Final = Path(__file__).parents[2] / "shared" / "data" / "otc-trust.csv"
COMMONS: Final = bytes(16)
AMOUNT_MAX: Final = 10**15

Graph = dict[tuple[bytes, bytes], int]


def random_graph(draw: random.Random, *, members: int, vouches: int) -> Graph:
    """Vouches between members drawn at random, amounts too."""
    keys = [draw.randbytes(32) for _ in range(members)]
    found: Graph = {}
    while len(found) < vouches:
        by, whom = draw.sample(keys, 2)
        found[by, whom] = draw.randrange(1, AMOUNT_MAX)
    return found


def otc_graph(draw: random.Random) -> Graph:
    """Every positive rating as a vouch, without the limit of 256."""
    with OTC.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["rating"]) > 0]
    names = sorted({name for row in rows for name in (row["from"], row["to"])})
    keys = {name: draw.randbytes(32) for name in names}
    return {(keys[row["from"]], keys[row["to"]]): int(row["rating"]) * 1000 for row in rows}


def packed(graph: Graph) -> bytes:
    return b"".join(by + whom + grains.to_bytes(8, "big") for (by, whom), grains in graph.items())


class Solver:
    """The process, as `readings.trust` starts it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gesell_ledger.readings.solver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def tell(self, message: Message) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(pack(message))
        self._process.stdin.flush()

    def ask(self, question: AskBetween | AskRanking) -> Any:
        self.tell(question)
        assert self._process.stdout is not None
        length = int.from_bytes(self._process.stdout.read(LENGTH_BYTES), "big")
        return msgspec.msgpack.decode(self._process.stdout.read(length), type=Answer)

    def spent(self) -> float:
        return machine.cpu_seconds([self._process.pid])

    def resident(self) -> float:
        return round(machine.memory_of([self._process.pid]).resident, 1)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(graph: Graph, *, questions: int, draw: random.Random) -> dict[str, Any]:
    """One graph: the first question with all that it takes, then warm ones."""
    members = sorted({key for pair in graph for key in pair})
    solver = Solver()
    try:
        began = time.perf_counter()
        solver.ask(AskBetween(COMMONS, members[0], members[1]))
        started = time.perf_counter() - began
        empty = solver.resident()
        began = time.perf_counter()
        solver.tell(Vouches(COMMONS, packed(graph)))
        solver.ask(AskBetween(COMMONS, members[0], members[1]))
        first = time.perf_counter() - began
        pairs = [draw.sample(members, 2) for _ in range(questions)]
        vouched = list(graph)

        def between(place: int) -> Any:
            return solver.ask(AskBetween(COMMONS, *pairs[place]))

        def changed(place: int) -> Any:
            by, whom = draw.choice(vouched)
            solver.tell(Vouches(COMMONS, by + whom + draw.randrange(1, AMOUNT_MAX).to_bytes(8, "big")))
            return between(place)

        def ranked(place: int) -> Any:
            return solver.ask(AskRanking(COMMONS, pairs[place][0], None, 100))

        return {
            "members": len(members),
            "vouches": len(graph),
            "start_ms": _ms(started),
            "load_ms": _ms(first),
            "between": _measure(solver, questions, between),
            "between_after_a_change": _measure(solver, questions, changed),
            "ranking": _measure(solver, max(1, questions // 4), ranked),
            "resident_mib": {"empty": empty, "with_graph": solver.resident()},
        }
    finally:
        solver.end()


def _measure(solver: Solver, count: int, ask: Callable[[int], Between | Ranking]) -> dict[str, float]:
    took, spent = [], solver.spent()
    for place in range(count):
        began = time.perf_counter()
        ask(place)
        took.append(time.perf_counter() - began)
    took.sort()
    return {
        "median_ms": _ms(took[count // 2]),
        "p90_ms": _ms(took[count * 9 // 10]),
        "most_ms": _ms(took[-1]),
        "processor_ms": _ms((solver.spent() - spent) / count),
    }


def measure_stall(graph: Graph) -> dict[str, float]:
    """One flow in a thread of this process, beside a thread that looks at the clock."""
    from gesell_ledger.readings.vouch_graph import VouchGraph

    ours = VouchGraph()
    ours.tell(packed(graph))
    source, sink = next(iter(graph))
    ours.measure_flow(source, sink)
    most, going = 0.0, True

    def watch() -> None:
        nonlocal most
        before = time.perf_counter()
        while going:
            time.sleep(0.0005)
            now = time.perf_counter()
            most, before = max(most, now - before), now

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.05)
    most, began = 0.0, time.perf_counter()
    ours.measure_flow(source, sink)
    took = time.perf_counter() - began
    time.sleep(0.05)
    going = False
    watcher.join()
    return {"flow_ms": _ms(took), "longest_ms": _ms(most)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--vouches", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40, help="how many of each kind")
    said = parser.parse_args()
    draw = random.Random(1)
    graphs = {"random": random_graph(draw, members=said.members, vouches=said.vouches)}
    if OTC.exists():
        graphs["otc"] = otc_graph(draw)
    report: dict[str, Any] = {"machine": machine.describe()}
    for name, graph in graphs.items():
        report[name] = measure(graph, questions=said.questions, draw=draw)
    report["stall"] = measure_stall(graphs["random"])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

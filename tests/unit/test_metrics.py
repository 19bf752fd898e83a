"""What workers count together: sums over all of them, dead ones too, and a gauge only of those that live.

Each worker is a process of its own here as well, since the library keeps one set of numbers a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gesell_ledger.metrics import Metrics, forget_worker, name_process, name_worker

PROGRAM = """
import sys
from gesell_ledger.metrics import Metrics, Shared
metrics = Metrics(Shared(folder=sys.argv[1], place=int(sys.argv[2])))
exec(sys.argv[3])
sys.stdout.buffer.write(metrics.exposition())
"""


def run(folder: Path, place: int, doing: str) -> str:
    """What a worker of this place tells after it did something; it is dead when this returns."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(place), doing]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def value(text: str, name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_counters_are_summed_over_workers_and_go_on_after_a_death(tmp_path: Path) -> None:
    accepted = "metrics.statements.labels('accepted').inc({}); metrics.batch_statements.observe({})"
    run(tmp_path, 0, accepted.format(3, 3))
    run(tmp_path, 1, accepted.format(4, 4))
    forget_worker(tmp_path, 0)
    text = run(tmp_path, 0, accepted.format(5, 5))
    assert value(text, "gesell_statements_total", outcome="accepted") == 12
    assert value(text, "gesell_batch_statements_sum") == 12
    assert value(text, "gesell_batch_statements_bucket", le="3.0") == 1
    assert value(text, "gesell_broken_invariants_total") == 0


def test_no_file_is_left_for_each_worker_that_ever_lived(tmp_path: Path) -> None:
    for _ in range(3):
        run(tmp_path, 0, "metrics.workers.set(1)")
        forget_worker(tmp_path, 0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_0.db", "histogram_0.db"]


def test_gauge_leaves_out_who_died(tmp_path: Path) -> None:
    run(tmp_path, 0, "metrics.workers.set(1); metrics.clock_fault.set(1)")
    text = run(tmp_path, 1, "metrics.workers.set(1)")
    assert (value(text, "gesell_workers"), value(text, "gesell_clock_fault")) == (2, 1)
    forget_worker(tmp_path, 0)
    text = run(tmp_path, 1, "metrics.workers.set(1)")
    assert (value(text, "gesell_workers"), value(text, "gesell_clock_fault")) == (1, 0)


def test_each_process_is_told_by_its_name_and_a_dead_one_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    name_process(tmp_path, "supervisor", os.getpid())
    name_worker(tmp_path, 0, os.getppid())
    name_worker(tmp_path, 1, gone.pid)
    text = run(tmp_path, 2, "")
    assert (value(text, "process_resident_memory_bytes", process="supervisor") or 0) > 0
    assert value(text, "process_cpu_seconds_total", process="worker-0") is not None
    assert value(text, "process_resident_memory_bytes", process="worker-1") is None
    forget_worker(tmp_path, 0)
    assert value(run(tmp_path, 2, ""), "process_cpu_seconds_total", process="worker-0") is None


def gauges(metrics: Metrics) -> Sequence[Gauge]:
    return [one for one in vars(metrics).values() if isinstance(one, Gauge)]


def test_every_gauge_says_how_the_workers_values_become_one() -> None:
    modes = {one._name: one._multiprocess_mode for one in gauges(Metrics())}
    assert modes
    assert {name for name, mode in modes.items() if mode not in ("livesum", "livemax")} == set()


def test_one_process_tells_its_own_costs_without_a_name() -> None:
    text = Metrics().exposition().decode()
    assert (value(text, "process_resident_memory_bytes") or 0) > 0
    assert value(text, "gesell_statements_total", outcome="accepted") is None


@pytest.mark.parametrize("place", [0, 1])
def test_process_that_ends_while_it_is_read_is_left_out(tmp_path: Path, place: int) -> None:
    (tmp_path / f"worker-{place}.pid").symlink_to(tmp_path / "nowhere")
    assert value(run(tmp_path, place, ""), "process_cpu_seconds_total") is None

"""What the service counts (OpenMetrics names and units). Owns the numbers, not where they are shown.

1. Any worker tells the sums over all workers of its service. Each counts in a file of its own in a folder that all
   read; who takes the place of a dead worker counts on in the same file, so that no counter ever goes back.
2. A gauge says how the workers' values become one: `livesum`, `livemax`…; a dead worker's are left out.
3. What the processes cost is told of each process by itself: `process="supervisor"`, `process="worker-0"`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

#: In the shared folder, beside the library's files: what a process is called, and in it its number.
_PROCESS_SUFFIX: Final = ".pid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Where the workers of one service keep their numbers, and the place of this one among them."""

    folder: str
    place: int


class Metrics:
    """The counters of one process; together with those of the others if they are shared. One per process."""

    def __init__(self, shared: Shared | None = None) -> None:
        if shared is not None:
            _count_in(shared)
        self.registry = CollectorRegistry()
        self.statements = Counter(
            "gesell_statements", "Statements answered, by outcome or refusal code.", ["outcome"], registry=self.registry
        )
        self.batch_statements = Histogram(
            "gesell_batch_statements",
            "Statements in a batch.",
            buckets=(1, 3, 10, 30, 100, 300, 1000),
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "gesell_batch_seconds",
            "Seconds from a batch's lock to its commit.",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=self.registry,
        )
        self.retries = Counter(
            "gesell_batch_retries", "Batches run again after a database fault.", registry=self.registry
        )
        self.broken = Counter("gesell_broken_invariants", "Batches aborted by a fault of ours.", registry=self.registry)
        self.requests = Counter(
            "gesell_http_requests", "HTTP requests, by route and status.", ["route", "status"], registry=self.registry
        )
        self.clock_fault = Gauge(
            "gesell_clock_fault",
            "1 while the clock stops the writing.",
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self.listeners = Gauge(
            "gesell_listeners", "Readers whom entries follow live.", multiprocess_mode="livesum", registry=self.registry
        )
        self.listeners_dropped = Counter(
            "gesell_listeners_dropped", "Listeners cut off because they were too slow.", registry=self.registry
        )
        self.webhook_deliveries = Counter(
            "gesell_webhook_deliveries", "Deliveries tried, by outcome.", ["outcome"], registry=self.registry
        )
        self.webhooks_disabled = Counter(
            "gesell_webhooks_disabled", "Webhooks that were disabled, by reason.", ["reason"], registry=self.registry
        )
        self.cosignatures = Counter(
            "gesell_cosignatures", "Cosignatures collected, by witness.", ["witness"], registry=self.registry
        )
        self.witness_failures = Counter(
            "gesell_witness_failures",
            "Checkpoints that a witness did not cosign, by witness and reason.",
            ["witness", "reason"],
            registry=self.registry,
        )
        self.workers = Gauge(
            "gesell_workers", "Workers that serve.", multiprocess_mode="livesum", registry=self.registry
        )
        self.worker_starts = Counter(
            "gesell_worker_starts", "Workers that began to serve, restarted ones too.", registry=self.registry
        )
        self._shown = self.registry
        if shared is None:
            ProcessCollector(registry=self.registry)
        else:
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown, path=shared.folder)  # type: ignore[no-untyped-call]
            self._shown.register(_Processes(Path(shared.folder)))

    def exposition(self) -> bytes:
        """Everything, of all workers, in the OpenMetrics text format."""
        return bytes(generate_latest(self._shown))  # type: ignore[no-untyped-call]


def name_process(folder: Path, name: str, pid: int) -> None:
    """Say which process bears this name now, for those who tell what it costs."""
    draft = folder / f"{name}.new"
    draft.write_text(str(pid))
    draft.rename(folder / f"{name}{_PROCESS_SUFFIX}")


def name_worker(folder: Path, place: int, pid: int) -> None:
    """Say which process is the worker of this place now."""
    name_process(folder, f"worker-{place}", pid)


def forget_worker(folder: Path, place: int) -> None:
    """Leave a dead worker's gauges and costs out; what it counted stays."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]
    (folder / f"worker-{place}{_PROCESS_SUFFIX}").unlink(missing_ok=True)


def _count_in(shared: Shared) -> None:
    """Have all metrics that this process makes from now on kept in the shared folder, under the place's number.

    The library keeps them under the process id by itself: then every restart would leave a file for ever.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared.folder
    values.ValueClass = values.MultiProcessValue(lambda: shared.place)  # type: ignore[no-untyped-call]


class _Processes(Collector):
    """What each process of a service costs, by its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for file in sorted(self._folder.glob(f"*{_PROCESS_SUFFIX}")):
            for found in _costs(file):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {"process": file.stem}, sample.value)
        yield from families.values()


def _costs(file: Path) -> Iterable[Metric]:
    """What one process costs; nothing if it is gone."""
    try:
        pid = file.read_text()
    except FileNotFoundError:
        return ()
    return ProcessCollector(pid=lambda: pid, registry=None).collect()

"""What the service counts (OpenMetrics names and units). Owns the numbers, not where they are shown."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
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
        self.clock_fault = Gauge("gesell_clock_fault", "1 while the clock stops the writing.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """Everything, in the OpenMetrics text format."""
        return bytes(generate_latest(self.registry))  # type: ignore[no-untyped-call]

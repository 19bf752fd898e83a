"""Fixtures: real services on real databases, shared where a test does not need its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Service, open_folder, running

#: The files that take longest, longest first. One file is one worker's: begun last, it would keep the others waiting.
LONGEST = (
    "e2e/test_workers.py",
    "e2e/test_openapi.py",
    "e2e/test_docs.py",
    "unit/readings/test_vouch_graph.py",
    "e2e/test_live.py",
    "e2e/test_round_trip.py",
    "e2e/test_bad_input.py",
    "e2e/test_webhooks.py",
    "integration/test_embedded.py",
    "e2e/test_bench_payments.py",
    "e2e/test_secrets.py",
    "e2e/test_replay.py",
    "e2e/test_crashes.py",
    "integration/test_vectors.py",
    "integration/test_fitness.py",
    "simulation/test_ledger_machine.py",
    "e2e/test_bench_command.py",
    "e2e/test_client_checks.py",
    "integration/test_checkers.py",
    "e2e/test_rekey.py",
    "e2e/test_witnessing.py",
    "integration/test_cosigned.py",
    "e2e/test_bench_groups.py",
    "integration/test_import.py",
    "e2e/test_rights.py",
    "integration/test_appending.py",
    "e2e/test_go_reader.py",
)


def pytest_configure() -> None:
    """Let all that is started from here hear SIGINT: in a shell's background job it is ignored, below it too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; within a file, and beyond them, the order stays."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


#: There are a hundred of them here; benchmarks start programs.
Service.own_program = False


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service on the real clock that any test may found commons on; its shortest tick is a second."""
    with running("--min-tick-seconds", "1") as started:
        yield started


@pytest.fixture(scope="session")
def fast_service() -> Iterator[Service]:
    """A service on a demo clock, 86,400 times as fast as real time: a second is a day."""
    with running("--min-tick-seconds", "1", "--demo", "--clock-speed", "86400") as started:
        yield started


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder that an unprivileged PostgreSQL can reach."""
    with open_folder() as made:
        yield made

"""Fixtures: real services on real databases, shared where a test does not need its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Service, open_folder, running

#: The files that take longest, longest first. One file is one worker's: begun last, it would keep the others waiting.
LONGEST = (
    "e2e/test_workers.py",
    "simulation/test_ledger_machine.py",
    "e2e/test_replay.py",
    "e2e/test_bad_input.py",
    "e2e/test_openapi.py",
    "e2e/test_docs.py",
    "e2e/test_round_trip.py",
    "integration/test_embedded.py",
    "e2e/test_live.py",
    "e2e/test_client_checks.py",
    "e2e/test_webhooks.py",
    "e2e/test_crashes.py",
    "integration/test_import.py",
    "e2e/test_export.py",
    "e2e/test_requests.py",
    "e2e/test_witnessing.py",
    "e2e/test_examples.py",
    "e2e/test_trust.py",
    "e2e/test_rekey.py",
    "e2e/test_client_rights.py",
)


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

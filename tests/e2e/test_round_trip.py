"""The real trace lived through again, exported, audited, imported elsewhere and audited there: the same root, the same
balances.

Of the real trace, those are replayed who ever pay or are paid (`tests.e2e.test_replay`); `make trace` takes all of it.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gesell_protocol.log import leaf_hash, read_file_entries, read_file_head
from gesell_protocol.names import base64_text
from gesell_protocol.notes import read_checkpoint, read_note
from gesell_protocol.tree import Frontier
from tests.e2e.test_replay import SARAFU, WHOLE, replay, report_of, write_those_who_pay
from tests.forked import run_gesell
from tests.running import Service, open_folder, running
from tests.speaking import Line


def gesell(*words: str | Path) -> str:
    """Run a command that must end well; what it printed."""
    ended = run_gesell(*words, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def audited(*words: str | Path) -> dict[str, Any]:
    verdict = json.loads(gesell("audit", *words, "--json"))
    assert isinstance(verdict, dict)
    assert verdict["holds"]
    return verdict


def balances(service: Service, commons: str, *, at_ms: int) -> dict[str, Any]:
    """What every member had at a moment, melted up to it."""
    line = Line(service.url)
    try:
        members = [item["peer"] for item in line.items(f"/v1/commons/{commons}/members?limit=1000")]
        return {
            peer: line.get(f"/v1/commons/{commons}/members/{peer}/balances?at={at_ms}")["items"] for peer in members
        }
    finally:
        line.close()


@dataclass(frozen=True)
class Exported:
    """The log file of a ledger that was replayed on, and what that ledger said."""

    log: Path
    key: Path
    report: dict[str, Any]
    verdict: dict[str, Any]
    at_ms: int
    balances: dict[str, Any]


@pytest.fixture(scope="module")
def exported() -> Iterator[Exported]:
    """The trace, replayed at pace on a demo clock, and exported; its ledger is gone."""
    if not SARAFU.exists():
        pytest.skip("the real trace is not here: ../shared/data/sarafu-2020.csv, beside this repository")
    start, speed = ("2020-01-22T01:00:00Z", "20000") if WHOLE else ("2020-01-21T19:00:00Z", "40000")
    with open_folder() as kept:
        with running("--demo", "--clock-start", start, "--clock-speed", speed) as service:
            trace = SARAFU if WHOLE else write_those_who_pay(service.folder)
            report = report_of(replay(trace, service.url, "--pace", "--json", "--rest-ticks", "3"))
            log = kept / "log.gz"
            gesell("export", service.url, "--format", "log", "--to", log)
            verdict = audited(log, "--ledger", report["ledger"])
            # The clock runs on and sweeps are added; what counts is the moment of the last exported entry.
            line = Line(service.url)
            last = line.get(f"/v1/commons/{report['commons']}/entries/{verdict['entries']}")
            line.close()
            told = balances(service, report["commons"], at_ms=last["at"])
            key = kept / "ledger.key"
            key.write_bytes((service.folder / "data" / "ledger.key").read_bytes())
            key.chmod(0o600)
        yield Exported(log, key, report, verdict, last["at"], told)


def read_log(path: Path) -> tuple[str, list[bytes]]:
    """Checkpoint and entries of a packed log file."""
    with gzip.open(path) as packed:
        file = io.BytesIO(packed.read())
    return read_file_head(file), list(read_file_entries(file))


def root_of(entries: Sequence[bytes]) -> str:
    """The root over these entries, folded from their bytes."""
    return base64_text(Frontier().grown(map(leaf_hash, entries))[0].root)


def test_the_trace_comes_back_with_the_same_root_and_the_same_balances(exported: Exported, folder: Path) -> None:
    commons, verdict = exported.report["commons"], exported.verdict
    assert verdict["commons"] == commons
    assert verdict["entries"] >= exported.report["entries"]["count"]
    assert len(exported.balances) == exported.report["members"]
    data = folder / "data"
    said = gesell("import", exported.log, "--data", data, "--key", exported.key, "--demo")
    assert f"{verdict['entries']:,} of {verdict['entries']:,} entries stored now" in said
    assert verdict["root"] in said
    service = Service(folder, "--demo", "--clock-speed", "1", "--key", str(exported.key))
    service.start()
    try:
        assert balances(service, commons, at_ms=exported.at_ms) == exported.balances
        held = folder / "checkpoint"
        note, entries = read_log(exported.log)
        held.write_text(note)
        again = audited(service.url, "--ledger", exported.report["ledger"], "--checkpoint", held)
        assert again["entries"] >= verdict["entries"]
        # Both roots from the bytes: what was exported, and the same with what the new ledger added since.
        assert root_of(entries) == verdict["root"]
        later = folder / "later.gz"
        gesell("export", service.url, "--format", "log", "--to", later)
        note, grown = read_log(later)
        assert root_of(grown[: len(entries)]) == verdict["root"]
        assert root_of(grown[: again["entries"]]) == again["root"]
        assert root_of(grown) == base64_text(read_checkpoint(read_note(note)).root)
        (checked,) = json.loads(gesell("db", "check", "--data", data, "--json"))
        assert checked["holds"], checked
    finally:
        service.end()

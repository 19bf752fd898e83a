"""`gesell bench` as a whole, at a tiny size: what it writes, what it shows, its exit status, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bench.measures import read_report

ROOT: Final = Path(__file__).parents[2]
#: Two workloads of a third of a second each; what is measured is of no interest here.
TINY: Final = (
    "--quick", "--seconds", "0.3", "--rounds", "1", "--only", "payments", "--workloads", "pay.each-1000,pay.one-c64",
)  # fmt: skip


def start(*words: str) -> subprocess.Popen[str]:
    """`python -m bench` in a group of its own, so that a Ctrl-C reaches all of it, as a terminal's does."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_tiny_run_leaves_a_report_and_can_be_compared_with_itself(tmp_path: Path) -> None:
    measuring = start(*TINY, "--out", str(tmp_path))
    out, err = measuring.communicate(timeout=120)
    assert measuring.returncode == 0, err
    report = read_report((tmp_path / "report.json").read_bytes())
    for name in ("pay.each-1000", "pay.one-c64"):
        measure = report.find(name)
        assert measure is not None, name
        assert measure.ratio is not None
        assert f"{name} " in out
    assert report.checks
    assert all(check.held for check in report.checks)
    assert report.about["arguments"]["quick"] is True
    assert [profile.workload for profile in report.profiles] == ["pay.each-1000", "pay.one-c64"]
    # Where one process may not read another's memory, the report says so.
    assert all(profile.shares or profile.why_not for profile in report.profiles)
    assert "not measured" in out
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") >= 5
    assert "pay.one-c64" in page

    saved = str(tmp_path / "report.json")
    again = start("--show", saved, "--compare", saved, "--out", str(tmp_path / "again"))
    out, err = again.communicate(timeout=60)
    assert (again.returncode, "Against the saved report" in out) == (0, True), err


def test_ctrl_c_ends_it_with_what_was_measured(tmp_path: Path) -> None:
    measuring = start(*TINY, "--out", str(tmp_path))
    assert measuring.stderr is not None
    for line in measuring.stderr:
        if "pay.each-1000" in line:
            break
    os.killpg(measuring.pid, signal.SIGINT)
    _, err = measuring.communicate(timeout=60)
    assert measuring.returncode == 130, err
    report = read_report((tmp_path / "report.json").read_bytes())
    assert report.about["interrupted"] is True
    assert (tmp_path / "report.html").exists()
    assert all(check.held for check in report.checks)


@pytest.mark.parametrize(
    "words",
    # The others are with the tests of the call itself: each of these is a program of its own.
    [("--rounds", "many"), ("--nonsense",), ("--only", "nonsense")],
)
def test_a_wrong_call_ends_with_status_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    calling = start(*words, "--out", str(tmp_path / "out"))
    calling.communicate(timeout=60)
    assert calling.returncode == 2
    assert not (tmp_path / "out").exists()


def test_a_service_that_is_not_there_fails_and_is_told(tmp_path: Path) -> None:
    calling = start("--quick", "--only", "payments", "--url", "http://127.0.0.1:1", "--out", str(tmp_path))
    out, _ = calling.communicate(timeout=60)
    assert calling.returncode == 1
    assert "FAILED" in out
    assert not read_report((tmp_path / "report.json").read_bytes()).checks[0].held

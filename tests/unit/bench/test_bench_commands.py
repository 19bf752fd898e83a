"""The call of `gesell bench`: what is wrong about it, and what its exit status says."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import commands
from bench.commands import Arguments, bench
from bench.measures import Check, Report, read_report, write_report
from tests.bench_reports import GOOD, Runs, good_report, noting, rate


def brief(runs: Runs = GOOD["pay.each-1000"][1], **about: object) -> Report:
    """A report of little, so that little is drawn."""
    return noting({"pay.each-1000": runs}, without=[name for name in GOOD if name != "pay.each-1000"], **about)


def saved(folder: Path, report: Report, name: str = "saved.json") -> Path:
    path = folder / name
    path.write_bytes(write_report(report))
    return path


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"only": "payments,nonsense"}, "nonsense"),
        ({"rounds": 0}, "at least one round"),
        ({"entries": -1}, "grows"),
        ({"compare": Path("/nowhere/saved.json")}, "/nowhere/saved.json"),
        ({"quick": True, "results": True}, "--results"),
        ({"only": "payments", "results": True}, "--results"),
        ({"entries": 100_000, "results": True}, "--results"),
        ({"soak": 59.0, "results": True}, "--results"),
        ({"url": "http://127.0.0.1:1", "workers": 2}, "takes no arguments"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_measured(
    call: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_measure", lambda *_: pytest.fail("something was measured"))
    assert bench(arguments=Arguments(**call)) == 2
    assert says in capsys.readouterr().err


def test_what_is_no_report_is_not_compared_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (b"{}", b"no JSON", write_report(good_report()).replace(b"gesell-bench/1", b"gesell-bench/9")):
        (tmp_path / "odd.json").write_bytes(text)
        assert bench(arguments=Arguments(compare=tmp_path / "odd.json", show=tmp_path / "odd.json")) == 2
        assert "odd.json is no saved report" in capsys.readouterr().err


def test_goals_that_are_not_met_do_not_fail(tmp_path: Path) -> None:
    report = brief((rate(10),))
    assert bench(arguments=Arguments(show=saved(tmp_path, report), out=tmp_path / "out")) == 0
    assert "not met" in (tmp_path / "out" / "report.html").read_text()


def test_a_check_that_failed_fails_and_writes_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_HERE", tmp_path)
    failed = Check(after="pay.hot", acknowledged=1, held=False, detail="gone")
    report = msgspec.structs.replace(brief(), checks=(failed,))
    assert bench(arguments=Arguments(show=saved(tmp_path, report), out=tmp_path, results=True)) == 1
    assert not (tmp_path / "RESULTS.md").exists()


def test_a_regress_beyond_noise_fails_and_a_gain_does_not(tmp_path: Path) -> None:
    before = saved(tmp_path, brief())
    slow = saved(tmp_path, brief((rate(5_000),) * 3), "slow.json")
    assert bench(arguments=Arguments(show=slow, compare=before, out=tmp_path)) == 1
    assert bench(arguments=Arguments(show=before, compare=slow, out=tmp_path)) == 0
    assert bench(arguments=Arguments(show=before, compare=before, out=tmp_path)) == 0


def test_an_interrupted_run_says_so_and_writes_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_HERE", tmp_path)
    report = saved(tmp_path, brief(interrupted=True))
    assert bench(arguments=Arguments(show=report, out=tmp_path, results=True)) == 130
    assert not (tmp_path / "RESULTS.md").exists()
    assert "interrupted" in capsys.readouterr().out


def test_results_are_written_when_all_checks_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_HERE", tmp_path)
    assert bench(arguments=Arguments(show=saved(tmp_path, brief()), out=tmp_path, results=True)) == 0
    assert (tmp_path / "RESULTS.md").read_text().startswith("# Results of the harness")


def test_no_results_are_written_from_a_quick_run_that_was_saved(tmp_path: Path) -> None:
    quick = saved(tmp_path, brief(arguments={"quick": True}))
    assert bench(arguments=Arguments(show=quick, out=tmp_path, results=True)) == 2


def test_a_saved_report_is_read_as_it_was_written() -> None:
    assert read_report(write_report(good_report())) == good_report()


def test_the_documentation_has_every_flag() -> None:
    page = (Path(__file__).parents[3] / "docs" / "performance.md").read_text()
    rows = {flag for row in re.findall(r"^\| (`--.*?) \|", page, re.MULTILINE) for flag in re.findall(r"--[a-z]+", row)}
    assert rows == {f"--{field.name}" for field in dataclasses.fields(Arguments)}


def test_the_command_costs_a_service_nothing_but_its_arguments() -> None:
    code = "import sys, bench.commands; print({'matplotlib', 'uvloop', 'asyncpg', 'bench.course'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "set()"

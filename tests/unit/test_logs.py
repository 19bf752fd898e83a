"""Logs: one line an event, in the form asked for, and no row of the database in them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
import asyncpg, structlog
from gesell_ledger.logs import configure_logs
configure_logs(sys.argv[1], worker=int(sys.argv[2]) if sys.argv[2] else None)
log = structlog.get_logger("gesell")
{}
"""
FAILED = """
fault = asyncpg.CheckViolationError("new row violates check constraint")
fault.detail = "Failing row contains (hush)."
try:
    try:
        raise fault
    except Exception:
        raise RuntimeError("the batch failed")
except Exception as error:
    {}
"""


def write(form: str, doing: str, *, worker: str = "") -> list[str]:
    command = [sys.executable, "-c", PROGRAM.format(doing), form, worker]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def test_logfmt_is_a_line_of_keys_and_values() -> None:
    (line,) = write("logfmt", "log.warning('batch_again', statements=3)")
    assert line.startswith("timestamp=")
    assert line.endswith("level=warning event=batch_again statements=3")


def test_json_is_one_object_a_line_with_the_workers_number() -> None:
    (line,) = write("json", "log.warning('batch_again', statements=3)", worker="1")
    fields = json.loads(line)
    assert fields.pop("timestamp").endswith("Z")
    assert fields == {"level": "warning", "event": "batch_again", "statements": 3, "worker": 1}


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_what_libraries_log_looks_the_same(form: str) -> None:
    (line,) = write(form, "logging.getLogger('asyncio').error('it %s', 'failed')", worker="0")
    assert "it failed" in line
    assert "asyncio" in line
    if form == "json":
        assert json.loads(line)["logger"] == "asyncio"


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize(
    "said", ["log.critical('batch_aborted', exc_info=error)", "logging.getLogger('x').exception('failed')"]
)
def test_a_traceback_is_one_line_without_the_row_at_fault(form: str, said: str) -> None:
    (line,) = write(form, FAILED.format(said))
    assert "the batch failed" in line
    assert "violates check constraint" in line
    assert "hush" not in line


SAID = "log.warning('lost'); logging.getLogger('x').error('lost')"


@pytest.mark.parametrize(
    "broken",
    [
        "sys.stderr.close()",
        "sys.stderr = None",
        "sys.stderr = open('/dev/full', 'w', buffering=1)",
        "r, w = os.pipe(); os.close(r); os.dup2(w, 2)",
    ],
    ids=["closed", "none", "disk full", "reader gone"],
)
def test_work_goes_on_when_a_line_can_not_be_written_and_the_next_that_can_is(broken: str) -> None:
    doing = f"""
import os, signal
kept = os.dup(2)
log.warning("before")  # structlog keeps what it wrote to first
{broken}
{SAID}
os.dup2(kept, 2)
sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
log.warning("after")
logging.getLogger("x").error("after")
"""
    lines = write("logfmt", doing)
    assert [line.partition("event=")[2].split()[0] for line in lines] == ["before", "after", "after"]

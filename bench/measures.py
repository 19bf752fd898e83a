"""What a run of the harness measured: the values, their spread, and the report they make.

Owns the form of a report, in memory and as JSON, and how several runs become one figure. Measures nothing itself.

1. A figure is the median of its runs; the lowest and the highest stand beside it.
2. A ratio to v is taken within each run, from the v measured around that run, and the median of these is shown: a
   machine that slows down for a while slows both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec

FORMAT: Final = "gesell-bench/1"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run: `value` in the unit of its measure, `v` as measured around it (verifications a second on one core, None
    where nothing is compared with it), and by name what else was seen: latencies `p50_ms`, `p95_ms`, `p99_ms` of whole
    requests; processor time in cores, `service_cores`, `postgres_cores`, `load_cores`, and `stolen_cores`, what
    the host of a virtual machine gave to others meanwhile; `accepted`, a number of statements; `service_mib`.
    """

    value: float
    v: float | None = None
    details: dict[str, float] = {}


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured under one name, which stays the same between versions: saved reports are compared by it.

    `unit`: "payments/s", "legs/s", "commits/s", "accounts/s", "requests/s", "ms", "bytes", "MiB". `why_not` says why
    there are no runs.
    """

    name: str
    title: str
    unit: str
    runs: tuple[Run, ...]
    why_not: str = ""

    @property
    def median(self) -> float:
        """The figure; raises `statistics.StatisticsError` where nothing was measured."""
        return median(run.value for run in self.runs)

    @property
    def low(self) -> float:
        """The lowest run."""
        return min(run.value for run in self.runs)

    @property
    def high(self) -> float:
        """The highest run."""
        return max(run.value for run in self.runs)

    @property
    def ratio(self) -> float | None:
        """The median of value / v; None where the runs have no v."""
        ratios = [run.value / run.v for run in self.runs if run.v]
        return median(ratios) if ratios else None

    def detail(self, name: str) -> float | None:
        """The median of one of the details over the runs that have it."""
        seen = [run.details[name] for run in self.runs if name in run.details]
        return median(seen) if seen else None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at after a run: that all that was acknowledged is in the books, and that the books hold."""

    after: str
    acknowledged: int
    held: bool
    detail: str = ""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Where processor time went during a workload: microseconds in one stage, for each of what its `Profile` counts."""

    stage: str
    microseconds: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The stages of one workload, or why they could not be taken. `per`: what is counted, "payment" or "leg"."""

    workload: str
    shares: tuple[Share, ...]
    per: str = "payment"
    why_not: str = ""

    @property
    def decimals(self) -> int:
        """How many its microseconds are shown with: a stage of a leg costs few."""
        return 0 if self.per == "payment" else 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run of the harness. `about`: machine, versions, commit, arguments, when; all plain values."""

    about: dict[str, Any]
    measures: tuple[Measure, ...]
    checks: tuple[Check, ...]
    profiles: tuple[Profile, ...] = ()
    format: str = FORMAT

    def find(self, name: str) -> Measure | None:
        """The measure of that name, if it has runs."""
        return next((one for one in self.measures if one.name == name and one.runs), None)


def write_report(report: Report) -> bytes:
    """The report as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def read_report(data: bytes) -> Report:
    """A saved report; raises `ValueError` for anything else."""
    report = msgspec.json.decode(data, type=Report)
    if report.format != FORMAT:
        raise ValueError(f"a report of the form {report.format!r}, this program reads {FORMAT!r}")
    return report


class Notebook:
    """Collects runs while the harness works, in the order in which their names first come."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[str, str]] = {}
        self._runs: dict[str, list[Run]] = {}
        self._why_not: dict[str, str] = {}
        self.checks: list[Check] = []
        self.profiles: list[Profile] = []

    def note(self, name: str, title: str, unit: str, run: Run) -> None:
        """One more run of a measure."""
        self._named.setdefault(name, (title, unit))
        self._runs.setdefault(name, []).append(run)

    def skip(self, name: str, title: str, unit: str, why: str) -> None:
        """Say why a measure has no runs."""
        self._named.setdefault(name, (title, unit))
        self._why_not[name] = why

    def measures(self) -> tuple[Measure, ...]:
        """All that was noted."""
        return tuple(
            Measure(
                name=name,
                title=title,
                unit=unit,
                runs=tuple(self._runs.get(name, ())),
                why_not=self._why_not.get(name, ""),
            )
            for name, (title, unit) in self._named.items()
        )

    def report(self, about: Mapping[str, Any]) -> Report:
        """The report so far."""
        return Report(
            about=dict(about),
            measures=self.measures(),
            checks=tuple(self.checks),
            profiles=tuple(self.profiles),
        )


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not pass (nearest rank)."""
    ordered: Sequence[float] = sorted(values)
    # Ceiling, so that a share of a value counts as a whole one.
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]

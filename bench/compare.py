"""Two reports side by side: what became faster or slower, and what is only noise.

Owns when a difference counts. Reads no files, shows nothing.

1. What has a ratio to v is compared by it, so that a faster machine is no gain; the rest is compared as it is.
2. Each side stands for a range: from its lowest to its highest run, and at least `NOISE` of its median to either side,
   `NOISE_ALONE` where it ran fewer than three times and its own spread says little.
3. Only where the two ranges do not meet is there a gain or a regress; which of them, the unit says.
4. What is no work of the ledger (durable commits, plain SQL, neighbours) is shown and never judged.
5. Nothing is judged between a quick run and a full one, which differ in size; and what has no ratio to v is not judged
   between different machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

from bench.measures import Measure, Report

NOISE: Final = 0.05
NOISE_ALONE: Final = 0.15
RUNS_ENOUGH: Final = 3
#: What differs by less is noise whatever its part of the whole: a growth of nothing has no useful tenth.
LEAST: Final = {"MiB": 3.0, "ms": 0.1}

#: How the names of measures begin that say something of the machine and of others.
NOT_OURS: Final = ("commit.", "plain.", "tigerbeetle.", "formance.")

Judgement = Literal["gain", "regress", "noise", "not judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How one measure changed: `before` and `after` in v where `in_v`, else in its unit."""

    name: str
    title: str
    unit: str
    in_v: bool
    before: float
    after: float
    judgement: Judgement

    @property
    def factor(self) -> float | None:
        """After as a multiple of before; None where there was nothing before."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class _Side:
    figure: float
    low: float
    high: float


def compare(report: Report, saved: Report) -> tuple[Change, ...]:
    """Every measure that has runs in both, in the order of `report`."""
    alike = _is_quick(report) == _is_quick(saved)
    same_machine = _machine_of(report) == _machine_of(saved)
    changes = []
    for measure in report.measures:
        old = saved.find(measure.name)
        if not measure.runs or old is None:
            continue
        in_v = measure.ratio is not None and old.ratio is not None
        before, after = _side(old, in_v=in_v), _side(measure, in_v=in_v)
        judged = alike and (in_v or same_machine) and not measure.name.startswith(NOT_OURS)
        changes.append(
            Change(
                name=measure.name,
                title=measure.title,
                unit=measure.unit,
                in_v=in_v,
                before=before.figure,
                after=after.figure,
                judgement=_judge(measure.unit, before, after) if judged else "not judged",
            )
        )
    return tuple(changes)


def differences(report: Report, saved: Report) -> tuple[str, ...]:
    """What a reader of the comparison has to know: in what the two runs were not alike."""
    told = []
    if _is_quick(report) != _is_quick(saved):
        told.append("one of the two is a quick run: their sizes differ, and nothing is judged")
    if _machine_of(report) != _machine_of(saved):
        told.append("they ran on different machines: only what has a ratio to v is judged")
    return tuple(told)


def _side(measure: Measure, *, in_v: bool) -> _Side:
    values = [run.value / run.v for run in measure.runs if run.v] if in_v else [run.value for run in measure.runs]
    middle = median(values)
    part = NOISE if len(values) >= RUNS_ENOUGH else NOISE_ALONE
    least = max(abs(middle) * part, 0.0 if in_v else LEAST.get(measure.unit, 0.0) / 2)
    return _Side(middle, min(*values, middle - least), max(*values, middle + least))


def _judge(unit: str, before: _Side, after: _Side) -> Judgement:
    if after.low <= before.high and before.low <= after.high:
        return "noise"
    more_is_better = unit.endswith("/s")
    return "gain" if (after.figure > before.figure) == more_is_better else "regress"


def _is_quick(report: Report) -> bool:
    return bool(report.about.get("arguments", {}).get("quick"))


def _machine_of(report: Report) -> tuple[Any, Any]:
    machine = report.about.get("machine", {})
    return machine.get("cpu"), machine.get("cores")

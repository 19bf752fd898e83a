"""The words that a report has in common wherever it is shown: on a terminal, as a page, as Markdown.

Owns how figures, the surroundings of a run, and the cells of its tables are worded, as plain text. Lays nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.measures import Check, Measure, Report

#: The heads of the table of measures; all but the first are numbers.
MEASURE_HEADS: Final = ("measure", "median", "low", "high", "of v", "p50 ms", "p95 ms", "p99 ms")


def figure_of(value: float) -> str:
    """A number with about three figures that matter, thousands apart."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def say_surroundings(report: Report) -> tuple[tuple[str, str], ...]:
    """Machine, versions, commit, arguments and time of a run, each with its name."""
    about = report.about
    machine = about.get("machine", {})
    said = {
        "machine": f"{machine.get('cores')} cores, {machine.get('cpu')}, {machine.get('system')}",
        "load average": f"{machine.get('load_average')} at the start",
        "versions": _say_pairs(about.get("versions", {})),
        "commit": str(about.get("commit")),
        "when": f"{about.get('when')}, {about.get('seconds', 0) / 60:.0f} minutes",
        "arguments": _say_pairs(about.get("arguments", {})),
    }
    if about.get("interrupted"):
        said["interrupted"] = "yes: what had been measured by then is all there is"
    return tuple(said.items())


def say_measure(measure: Measure) -> tuple[str, ...]:
    """The cells of one measure under `MEASURE_HEADS`, its title left to who shows it; "" for what it has not."""
    figures = [f"{figure_of(measure.median)} {measure.unit}", figure_of(measure.low), figure_of(measure.high)]
    ratio = "" if measure.ratio is None else f"{measure.ratio:.2f}"
    details = (measure.detail(f"{percent}_ms") for percent in ("p50", "p95", "p99"))
    return (measure.name, *figures, ratio, *("" if one is None else figure_of(one) for one in details))


def say_checks(checks: tuple[Check, ...]) -> str:
    """All checks in one sentence."""
    failed = sum(not check.held for check in checks)
    acknowledged = sum(check.acknowledged for check in checks)
    if not checks:
        return "Nothing was checked."
    if failed:
        return f"{failed} of {len(checks)} checks FAILED."
    return (
        f"All {len(checks)} checks held: the {acknowledged:,} statements that were acknowledged are in the books, "
        "and the books hold."
    )


def _say_pairs(pairs: Mapping[str, Any]) -> str:
    """`name value, name value`, without what was left at nothing."""
    return ", ".join(f"{name} {_say(value)}" for name, value in pairs.items() if value not in (None, False, "", [], ()))


def _say(value: object) -> str:
    if value is True:
        return "yes"
    if isinstance(value, int):
        return f"{value:,}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

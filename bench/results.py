"""`bench/RESULTS.md`: the last full run, for whoever reads the repository.

Owns the layout of that page. Words come from `wording`, verdicts from `goals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.goals import Verdict
from bench.measures import Profile, Report
from bench.wording import MEASURE_HEADS, say_checks, say_measure, say_surroundings

_OPENING = """# Results of the harness

Written by `make bench BENCH=--results`, which measures all of this anew; nothing here is written by hand. v is how many
signatures libsodium verifies a second on one core, measured around each run. A figure is the median of its runs.
"""


def write_results(report: Report, verdicts: Sequence[Verdict]) -> str:
    """The page in Markdown."""
    return "\n".join(
        (
            _OPENING,
            *_table(("", ""), [(name, said) for name, said in say_surroundings(report)]),
            "## Goals\n",
            *_table(("goal", "asked", "measured", ""), map(_goal, verdicts)),
            "## Measures\n",
            *_table(MEASURE_HEADS, [say_measure(one) for one in report.measures if one.runs], numbers=True),
            *[f"- `{one.name}`: {one.title}" for one in report.measures if one.runs],
            "",
            *[f"Not measured: `{one.name}`: {one.why_not}\n" for one in report.measures if not one.runs],
            *_profiles(report.profiles),
            "## Checks\n",
            say_checks(report.checks),
            *[f"- after {check.after}: {check.detail}" for check in report.checks if not check.held],
            "",
        )
    )


def _goal(verdict: Verdict) -> tuple[str, str, str, str]:
    measured = "; ".join(filter(None, (verdict.figure, verdict.why_not)))
    return verdict.title, verdict.asked, measured, f"**{verdict.state}**"


def _profiles(profiles: Sequence[Profile]) -> list[str]:
    if not profiles:
        return []
    lines = ["## Where the microseconds go\n", "Processor time in microseconds, a payment or a leg.\n"]
    taken = [profile for profile in profiles if profile.shares]
    if taken:
        stages = [share.stage for share in taken[0].shares]
        rows = [
            (f"{one.workload}, a {one.per}", *(f"{share.microseconds:.{one.decimals}f}" for share in one.shares))
            for one in taken
        ]
        lines += _table(("", *stages), rows, numbers=True)
    lines += [f"{one.workload}: {one.why_not}\n" for one in profiles if not one.shares]
    return lines


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """A table of Markdown and an empty line; with `numbers`, all columns but the first are set to the right."""
    marks = ["---", *("---:" if numbers else "---" for _ in heads[1:])]
    return [_line(heads), _line(marks), *map(_line, rows), ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

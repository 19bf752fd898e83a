"""A report on the terminal.

Owns the layout of its tables, with rich. Words come from `wording`, verdicts from `goals`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.compare import Change, Judgement
from bench.goals import State, Verdict
from bench.measures import Report
from bench.wording import MEASURE_HEADS, figure_of, say_checks, say_measure, say_surroundings

_STATES: Final[dict[State, str]] = {"met": "green", "not met": "bold red", "not measured": "dim"}
_JUDGEMENTS: Final[dict[Judgement, str]] = {"gain": "green", "regress": "bold red", "noise": "dim", "not judged": "dim"}


def show(report: Report, verdicts: Sequence[Verdict], console: Console) -> None:
    """Print surroundings, measures, profiles, checks and goals; the goals last, where they stay in sight."""
    for part in (_surroundings(report), _measures(report), _profiles(report), _checks(report), _goals(verdicts)):
        console.print(part)
        console.print()


def show_changes(changes: Sequence[Change], differences: Sequence[str], console: Console) -> None:
    """Print how a report differs from a saved one."""
    table = Table("measure", "before", "after", "times", "", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for change in changes:
        unit = "v" if change.in_v else change.unit
        factor = "" if change.factor is None else f"{change.factor:.2f}"
        table.add_row(
            change.name,
            f"{figure_of(change.before)} {unit}",
            f"{figure_of(change.after)} {unit}",
            factor,
            Text(change.judgement, style=_JUDGEMENTS[change.judgement]),
        )
    console.print("Against the saved report:")
    console.print(table)
    for difference in differences:
        console.print(Text(difference))


def _surroundings(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, said in say_surroundings(report):
        table.add_row(Text(name, style="bold"), Text(said))
    return table


def _measures(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(MEASURE_HEADS[0], no_wrap=True)
    for head in MEASURE_HEADS[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for measure in report.measures:
        if measure.runs:
            name, middle, *rest = say_measure(measure)
            # What is counted, the name says; a terminal of 80 columns has no room for it.
            number, _, unit = middle.partition(" ")
            table.add_row(*map(Text, (name, f"{number} {'/s' if unit.endswith('/s') else unit}", *rest)))
        else:
            table.add_row(Text(measure.name), Text("—"), style="dim")
    return table


def _profiles(report: Report) -> RenderableType:
    shown: list[RenderableType] = []
    for profile in report.profiles:
        if not profile.shares:
            shown.append(Text(f"{profile.workload}: no profile: {profile.why_not}"))
            continue
        total = sum(share.microseconds for share in profile.shares)
        stages = ", ".join(f"{share.stage} {share.microseconds:.{profile.decimals}f}" for share in profile.shares)
        shown.append(Text(f"{profile.workload}: {total:.0f} µs of processor time a {profile.per}: {stages}"))
    return Group(*shown)


def _checks(report: Report) -> RenderableType:
    failed = [check for check in report.checks if not check.held]
    said = Text(say_checks(report.checks), style="bold red" if failed else "green" if report.checks else "")
    return Group(said, *(Text(f"  after {check.after}: {check.detail}", style="red") for check in failed))


def _goals(verdicts: Sequence[Verdict]) -> Table:
    table = Table.grid(padding=(0, 2))
    for verdict in verdicts:
        measured = "; ".join(filter(None, (verdict.figure, verdict.why_not)))
        said = Text.assemble(verdict.title, ": ", (verdict.asked, "bold"), "\n", (measured, "dim"))
        table.add_row(Text(verdict.state, _STATES[verdict.state]), said)
    return table

"""A report as one HTML page that fetches nothing: plots, tables and style stand in the one file.

Owns the layout of the page. Words come from `wording`, verdicts from `goals`, drawings from `plots`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from bench.compare import Change
from bench.goals import Verdict
from bench.measures import Report
from bench.plots import Plot, draw_all
from bench.wording import MEASURE_HEADS, figure_of, say_checks, say_measure, say_surroundings

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1d2126; --grid: #dcdcd6; --quiet: #666b72;
  --good: #1a7f4b; --bad: #b3261e;
  --c1: #2b6cc4; --c2: #c96a10; --c3: #0f8a6b; --c4: #b1418c; --c5: #8a6fd1; --c6: #a08400; --c7: #3fa0c4;
  --c8: #8b9098; --c9: #bf4a3c; --c10: #5d7a33; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e5e7; --grid: #3a3d42; --quiet: #9aa0a8; --good: #58c48d; --bad: #f2857b;
    --c1: #6aa5f0; --c2: #eb9a4b; --c3: #3fc4a0; --c4: #dd7fbd; --c5: #ab95ea; --c6: #cdb43b; --c7: #79c7e4;
    --c8: #8d939c; --c9: #ea8577; --c10: #a3c46d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; }
h3 { font-size: 1rem; margin: 0 0 0.4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.7rem 0.35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th { font-weight: 600; color: var(--quiet); }
.number { text-align: right; white-space: nowrap; }
.name { white-space: nowrap; font-family: ui-monospace, monospace; }
small, .quiet { color: var(--quiet); }
td small { display: block; font-family: system-ui, sans-serif; white-space: normal; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.state { white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
.goal { display: grid; grid-template-columns: 1fr auto; gap: 0 1rem; padding: 0.5rem 0;
  border-bottom: 1px solid var(--grid); }
.goal p { margin: 0; } .goal .measured { grid-column: 1 / -1; font-size: 0.9rem; }
"""
_TONES: Final = {"met": "good", "not met": "bad", "gain": "good", "regress": "bad"}


def write_page(
    report: Report, verdicts: Sequence[Verdict], *, changes: Sequence[Change] = (), differences: Sequence[str] = ()
) -> str:
    """The whole page; `changes` against a saved report, and in what the two were not alike, where there is one."""
    states = Counter(verdict.state for verdict in verdicts)
    standing = (
        f"{states['met']} of {len(verdicts)} goals met, {states['not met']} not, {states['not measured']} not measured."
    )
    sections = (
        f"<h1>Gesell, measured</h1><p>{standing} {escape(say_checks(report.checks))}</p>",
        f"<h2>What was measured where</h2>{_surroundings(report)}",
        f"<h2>Goals</h2>{''.join(map(_goal, verdicts))}",
        _plots(draw_all(report)),
        _shares(report),
        _changes(changes, differences),
        f"<h2>All measures</h2>{_measures(report)}",
        f"<h2>Checks</h2>{_checks(report)}",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Gesell, measured</title><style>{_STYLE}</style></head>\n<body>{''.join(sections)}</body></html>\n"
    )


def _surroundings(report: Report) -> str:
    return _table((), [[_cell(name, "quiet"), _cell(said)] for name, said in say_surroundings(report)])


def _goal(verdict: Verdict) -> str:
    why_not = f" <small>{escape(verdict.why_not)}</small>" if verdict.why_not else ""
    return (
        f'<div class="goal"><p>{escape(verdict.title)}: <b>{escape(verdict.asked)}</b></p>'
        f'<p class="state {_TONES.get(verdict.state, "quiet")}">{verdict.state}</p>'
        f'<p class="measured">{escape(verdict.figure)}{why_not}</p></div>'
    )


def _plots(plots: Sequence[Plot]) -> str:
    if not plots:
        return ""
    figures = "".join(f"<figure><h3>{escape(plot.title)}</h3>{plot.svg}</figure>" for plot in plots)
    return f'<h2>Plots</h2><div class="plots">{figures}</div>'


def _shares(report: Report) -> str:
    """The stages in numbers, which a drawing leaves to the eye."""
    if not report.profiles:
        return ""
    taken = [profile for profile in report.profiles if profile.shares]
    told = "".join(
        f"<p>{escape(one.workload)}: no profile: {escape(one.why_not)}</p>" for one in report.profiles if not one.shares
    )
    if taken:
        rows = [
            [_cell(first.stage), *(_cell(f"{one.shares[place].microseconds:.1f}", "number") for one in taken)]
            for place, first in enumerate(taken[0].shares)
        ]
        told = _table(("stage", *(f"{one.workload}, µs a {one.per}" for one in taken)), rows) + told
    return f"<h2>Where the microseconds go</h2>{told}"


def _changes(changes: Sequence[Change], differences: Sequence[str]) -> str:
    if not changes and not differences:
        return ""
    rows = []
    for change in changes:
        unit = "v" if change.in_v else change.unit
        factor = "" if change.factor is None else f"{change.factor:.2f}"
        figures = (f"{figure_of(change.before)} {unit}", f"{figure_of(change.after)} {unit}", factor)
        judgement = _cell(change.judgement, _TONES.get(change.judgement, "quiet"))
        rows.append([_named(change.name, change.title), *(_cell(one, "number") for one in figures), judgement])
    told = "".join(f"<p>{escape(one)}</p>" for one in differences)
    return f"<h2>Against the saved report</h2>{told}{_table(('measure', 'before', 'after', 'times', ''), rows)}"


def _measures(report: Report) -> str:
    rows = []
    for measure in report.measures:
        named = _named(measure.name, measure.title)
        if measure.runs:
            rows.append([named, *(_cell(one, "number") for one in say_measure(measure)[1:])])
        else:
            rows.append([named, f'<td colspan="{len(MEASURE_HEADS) - 1}" class="quiet">{escape(measure.why_not)}</td>'])
    return _table(MEASURE_HEADS, rows)


def _checks(report: Report) -> str:
    rows = [
        [
            _cell(check.after),
            _cell(f"{check.acknowledged:,}", "number"),
            _cell("held" if check.held else "FAILED", "good" if check.held else "bad"),
            _cell(check.detail),
        ]
        for check in report.checks
    ]
    return f"<p>{escape(say_checks(report.checks))}</p>{_table(('after', 'acknowledged', '', ''), rows)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself where the page is narrow; each row is cells already."""
    head = "".join(f"<th{' class=number' if number else ''}>{escape(one)}</th>" for number, one in enumerate(heads))
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    opening = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="wide"><table>{opening}<tbody>{body}</tbody></table></div>'


def _named(name: str, title: str) -> str:
    return f'<td><span class="name">{escape(name)}</span><small>{escape(title)}</small></td>'


def _cell(text: str, tone: str = "") -> str:
    return f"<td{f' class={tone}' if tone else ''}>{escape(text)}</td>"

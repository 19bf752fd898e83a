"""The plots of a report, as SVG that stands inside a page and takes its colours from it.

Owns what is drawn from which measures. Knows no page: a colour is the name of a CSS variable of whoever embeds it
(`--ink`, `--grid`, `--paper`, `--c1` to `--c10`), text is text in the page's own font, and nothing is fetched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.measures import Measure, Profile, Report
from bench.stages import STAGES
from bench.wording import figure_of

# matplotlib knows no CSS variables: it draws in these colours, which occur nowhere else, and they are replaced.
INK: Final = "#010101"
GRID: Final = "#020202"
PAPER: Final = "#030303"
SERIES: Final = tuple(f"#0404{number:02x}" for number in range(1, 11))
_VARIABLES: Final = {
    INK: "var(--ink)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(SERIES, 1)},
}
#: Narrow, so that the text of a plot can still be read where a telephone shows it in its full width.
WIDTH_INCHES: Final = 5.0
HEIGHT_INCHES: Final = 3.0
#: Into so many parts of its time a soak's memory is noted.
SOAK_PARTS: Final = 60
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gesell",
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.0,
}
_PERCENTILES: Final = ("p50", "p95", "p99")
_CONNECTIONS: Final = ((1, "pay.one-c1"), (16, "pay.one-c16"), (64, "pay.one-c64"), (256, "pay.one-c256"))
#: One a request is sent over 64 connections, the others over a few.
_EACH: Final = ((1, "pay.one-c64"), (10, "pay.each-10"), (100, "pay.each-100"), (1_000, "pay.each-1000"))
_SIZES: Final = ((10_000, "size.10k"), (100_000, "size.100k"), (1_000_000, "size.1m"), (10_000_000, "size.10m"))
_BESIDE: Final = (
    ("Gesell, 1,000 a request", "pay.each-1000"),
    ("Gesell, 1 a request, 64 connections", "pay.one-c64"),
    ("SQL, a transaction a payment", "plain.single"),
    ("SQL, batches of 1,000", "plain.batch"),
    ("TigerBeetle", "tigerbeetle.transfers"),
    ("Formance Ledger", "formance.transactions"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One drawing: `title` above it, `words` that say what it shows to whoever does not see it, and the SVG."""

    name: str
    title: str
    words: str
    svg: str


def draw_all(report: Report) -> tuple[Plot, ...]:
    """Every plot for which something was measured."""
    with mpl.rc_context(_STYLE):
        drawn = (
            _draw_rate(report, "connections", "Throughput, one payment a request", "connections", _CONNECTIONS),
            _draw_latency(report, "connections-latency", "Latency, one payment a request", "connections", _CONNECTIONS),
            _draw_rate(report, "each", "Throughput against the size of a request", "payments a request", _EACH),
            _draw_latency(report, "each-latency", "Latency of a whole request", "payments a request", _EACH),
            _draw_rate(report, "size", "Throughput against the size of the ledger", "entries in the ledger", _SIZES),
            _draw_baselines(report),
            _draw_stages(report.profiles),
            _draw_soak(report),
        )
        return tuple(plot for plot in drawn if plot is not None)


# ── What is drawn ────────────────────────────────────────────────────────────────────────────────────────────────

_Points = Sequence[tuple[int, str]]


def _draw_rate(report: Report, name: str, title: str, along: str, points: _Points) -> Plot | None:
    """Payments a second against something that grows tenfold; the bars span the lowest to the highest run."""
    found = _found(report, points)
    if not found:
        return None
    middles = [measure.median for _, measure in found]
    spread = [
        [measure.median - measure.low for _, measure in found],
        [measure.high - measure.median for _, measure in found],
    ]

    def draw(axes: Axes) -> None:
        axes.errorbar([at for at, _ in found], middles, yerr=spread, marker="o", capsize=3, color=SERIES[0])
        axes.set_ylim(0, max(measure.high for _, measure in found) * 1.15)
        axes.set_ylabel("payments a second")
        axes.yaxis.set_major_formatter(_THOUSANDS)
        _set_steps(axes, along, [at for at, _ in found])

    words = f"{along}: " + "; ".join(f"{at:,}: {figure_of(measure.median)} payments/s" for at, measure in found)
    return _plot(name, title, words, draw)


def _draw_latency(report: Report, name: str, title: str, along: str, points: _Points) -> Plot | None:
    found = [pair for pair in _found(report, points) if pair[1].detail("p50_ms") is not None]
    if not found:
        return None
    lines = {
        percent: [(at, value) for at, measure in found if (value := measure.detail(f"{percent}_ms")) is not None]
        for percent in _PERCENTILES
    }

    def draw(axes: Axes) -> None:
        for colour, (percent, pairs) in zip(SERIES, lines.items(), strict=False):
            axes.plot([at for at, _ in pairs], [ms for _, ms in pairs], marker="o", label=percent, color=colour)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("ms (log)")
        axes.legend(ncols=len(lines))
        _set_steps(axes, along, [at for at, _ in found])

    words = "; ".join(
        f"{percent}: " + ", ".join(f"{at:,}: {figure_of(ms)} ms" for at, ms in pairs)
        for percent, pairs in lines.items()
    )
    return _plot(name, title, words, draw)


def _draw_baselines(report: Report) -> Plot | None:
    found = [(label, measure) for label, name in _BESIDE if (measure := report.find(name)) is not None]
    if not found:
        return None
    bars = [(label, measure.median, SERIES[0] if label.startswith("Gesell") else SERIES[7]) for label, measure in found]
    checked = [run.v for _, measure in found for run in measure.runs if run.v]
    if checked:
        bars.append(("v: verifications on one core", median(checked), SERIES[1]))

    def draw(axes: Axes) -> None:
        drawn = axes.barh([label for label, _, _ in bars], [rate for _, rate, _ in bars], color=[c for *_, c in bars])
        axes.bar_label(drawn, labels=[figure_of(rate) for _, rate, _ in bars], padding=3)
        axes.invert_yaxis()
        axes.set_xlim(0, max(rate for _, rate, _ in bars) * 1.2)
        axes.xaxis.set_major_formatter(_THOUSANDS)
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("payments a second")

    words = "; ".join(f"{label}: {figure_of(rate)} a second" for label, rate, _ in bars)
    return _plot("baselines", "Beside plain SQL on the same PostgreSQL", words, draw)


def _draw_stages(profiles: Sequence[Profile]) -> Plot | None:
    """Stacked bars: microseconds of processor time a payment or a leg, stage upon stage."""
    taken = [profile for profile in profiles if profile.shares]
    if not taken:
        return None
    named = [{share.stage: share.microseconds for share in profile.shares} for profile in taken]
    rows = [f"{profile.workload}, a {profile.per}" for profile in taken]

    def draw(axes: Axes) -> None:
        reached = [0.0] * len(taken)
        for stage, colour in zip(STAGES, SERIES, strict=True):
            widths = [shares.get(stage, 0.0) for shares in named]
            axes.barh(rows, widths, left=reached, color=colour, edgecolor=PAPER, label=stage, height=0.6)
            reached = [before + width for before, width in zip(reached, widths, strict=True)]
        for row, total in enumerate(reached):
            axes.text(total, row, f" {total:.0f}", va="center")
        axes.set_xlim(0, max(reached) * 1.12)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("microseconds of processor time")
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.3), columnspacing=1.2, handlelength=1.2)

    words = "; ".join(
        f"{row}: " + ", ".join(f"{stage} {shares.get(stage, 0.0):.{one.decimals}f} µs" for stage in STAGES)
        for row, shares, one in zip(rows, named, taken, strict=True)
    )
    return _plot("stages", "Where the microseconds go", words, draw)


def _draw_soak(report: Report) -> Plot | None:
    """Resident memory over a soak, from the sixtieths of the time that `soak` notes for each process."""
    soak = report.find("soak.growth")
    if soak is None:
        return None
    run = soak.runs[-1]
    held = {
        label: sorted(
            (int(name.removeprefix(mark)), mib)
            for name, mib in run.details.items()
            if re.fullmatch(rf"{mark}\d+", name)
        )
        for label, mark in (("service", "mib_"), ("PostgreSQL", "postgres_mib_"))
    }
    minutes = run.details.get("minutes", 0.0)
    if not held["service"]:
        return None

    def draw(axes: Axes) -> None:
        for colour, (label, parts) in zip(SERIES, held.items(), strict=False):
            at = [(part + 0.5) * minutes / SOAK_PARTS for part, _ in parts]
            axes.plot(at, [mib for _, mib in parts], label=label, color=colour)
        axes.set_ylim(0, max(mib for parts in held.values() for _, mib in parts) * 1.25)
        axes.set_xlabel("minutes")
        axes.set_ylabel("resident memory, MiB")
        axes.legend(ncols=2)

    words = "; ".join(
        f"{label} from {parts[0][1]:.0f} to {parts[-1][1]:.0f} MiB" for label, parts in held.items() if parts
    )
    return _plot("soak", "Memory over the soak", f"{words} in {minutes:.0f} minutes", draw)


def _found(report: Report, points: _Points) -> list[tuple[int, Measure]]:
    return [(at, measure) for at, name in points if (measure := report.find(name)) is not None]


# ── How it is drawn ──────────────────────────────────────────────────────────────────────────────────────────────

_THOUSANDS: Final = FuncFormatter(lambda value, _: f"{value:,.0f}")
_PLAIN: Final = FuncFormatter(lambda value, _: f"{value:g}")


def _set_steps(axes: Axes, along: str, steps: Sequence[int]) -> None:
    """A logarithmic axis of `along` that is marked where something was measured, and only there."""
    axes.set_xlabel(along)
    axes.set_xscale("log")
    axes.set_xticks(steps, [f"{step:,}" for step in steps])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)


def _plot(name: str, title: str, words: str, draw: Callable[[Axes], None]) -> Plot:
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES))
    draw(figure.add_subplot())
    written = io.StringIO()
    # No date and no author: the same figures give the same bytes.
    figure.savefig(
        written,
        format="svg",
        transparent=True,
        bbox_inches="tight",
        metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
    )
    return Plot(name=name, title=title, words=words, svg=_embeddable(written.getvalue(), name, f"{title}. {words}"))


def _embeddable(svg: str, name: str, words: str) -> str:
    """The `<svg>` element alone: colours by name, ids that no other plot has, and words for who listens."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    # The style of a text would fix a font, where the page has its own; one for all elements would leak into the page.
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    shown = re.search(r'viewBox="([^"]*)"', body)
    assert shown is not None
    inner = body[body.index(">") + 1 :].strip()
    return f'<svg viewBox="{shown[1]}" role="img" aria-label="{escape(words)}" stroke-linejoin="round">{inner}'

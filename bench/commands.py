"""The command `gesell bench`, also `python -m bench`: measure, report, compare.

Owns the arguments, where the report goes, and the exit status. It joins the command `gesell` of a source tree through
the entry-point group `gesell.commands`, and is imported whenever that starts a service: so everything but the arguments
is imported where it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from bench.measures import Report
    from bench.plan import Plan

app = cyclopts.App(name="gesell-bench", help="The benchmark harness.")

_HERE: Final = Path(__file__).parent
_FLAG: Final = Parameter(negative="", show_default=False)
HELD, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What `gesell bench` was told; None stands for what a quick or a full run does by itself."""

    quick: Annotated[bool, _FLAG] = False
    "Everything once and briefly, in less than two minutes, without what takes long: millions of entries, the soak."
    only: str = ""
    "Groups to run, with commas between: floor, payments, neighbours, reading, growth, sleep, soak."
    workloads: str = ""
    "Of the group of payments only these measures, with commas between, as in pay.hot,mixed."
    url: str | None = None
    """A service that runs already. Default: one of its own for each group, gone afterwards. What is read from the
    service's processes and files is then left out."""
    rounds: int | None = None
    "How often each workload is run (3)."
    seconds: float | None = None
    "How long each run is (4)."
    entries: int | None = None
    "Up to how many entries the ledger grows (10,000,000); 0 leaves growth out."
    sleepers: int | None = None
    "How many idle accounts are swept (1,000,000)."
    soak: float | None = None
    "Minutes under full load, to see whether memory grows (60); 0 leaves it out."
    workers: int = 1
    "Worker processes of the service."
    tigerbeetle: str | None = None
    "The address of a TigerBeetle replica to measure beside."
    formance: str | None = None
    "The URL of a Formance Ledger to measure beside."
    out: Path = _HERE / "out"
    "The folder for report.html and report.json."
    compare: Path | None = None
    """A saved report.json to compare with. Noise: each side spans its lowest to highest run, and at least 5 % of its
    median to either side (15 % where it was run fewer than three times); a regress is where the two do not meet."""
    show: Path | None = None
    "A saved report.json to show instead of measuring."
    results: Annotated[bool, _FLAG] = False
    "Also write bench/RESULTS.md; only from a full run in which all checks held."


@app.command
def bench(*, arguments: Arguments | None = None) -> int:
    """Measure the ledger beside libsodium, durable commits and plain SQL on the same machine in the same run.

    Shows a table, and writes report.html and report.json. Ctrl-C ends it with what was measured so far. Exit status: 0
    if all that was acknowledged was in the books and the books held, whether or not the goals were met; 1 if a check
    failed, or with --compare if something is slower than before by more than noise; 2 for a wrong call; 130 after
    Ctrl-C.
    """
    told = arguments or Arguments()
    try:
        saved = None if told.compare is None else _read(told.compare)
        shown = None if told.show is None else _read(told.show)
        plan = _plan(told)
        if told.results and _is_partial(asdict(plan) if shown is None else shown.about["arguments"]):
            raise ValueError("--results wants a full run: nothing left out by a flag, nothing shorter or smaller")
    except (OSError, ValueError) as error:
        print(f"gesell bench: {error}", file=sys.stderr)
        return WRONG_CALL
    report = _measure(plan, told.out) if shown is None else shown
    return _hand_out(report, saved, out=told.out, results=told.results)


def _plan(told: Arguments) -> Plan:
    """What the arguments ask for; raises `ValueError` for what is out of range."""
    from bench.plan import Plan

    make = Plan.short if told.quick else Plan.full
    plan = make(
        only=_names(told.only),
        workloads=_names(told.workloads),
        url=told.url,
        service_arguments=("--workers", str(told.workers)) if told.workers > 1 else (),
        tigerbeetle=told.tigerbeetle,
        formance=told.formance,
    )
    asked: dict[str, Any] = {
        "rounds": told.rounds,
        "seconds": told.seconds,
        "entries_max": told.entries,
        "sleepers": told.sleepers,
        "soak_minutes": told.soak,
    }
    return replace(plan, **{name: value for name, value in asked.items() if value is not None})


def _names(listed: str) -> frozenset[str]:
    return frozenset(filter(None, listed.split(",")))


def _is_partial(arguments: Mapping[str, Any]) -> bool:
    """Whether a run with these arguments of a plan leaves out what a full one measures, or has less of it."""
    from bench.plan import Plan

    sizes = ("rounds", "seconds", "entries_max", "sleepers", "soak_minutes")
    full = asdict(Plan.full())
    return any(arguments.get(name) for name in ("quick", "only", "workloads")) or any(
        arguments.get(name, full[name]) < full[name] for name in sizes
    )


def _read(path: Path) -> Report:
    """A saved report; raises `OSError` and `ValueError`, which names the file."""
    import msgspec

    from bench.measures import read_report

    try:
        return read_report(path.read_bytes())
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"{path} is no saved report: {error}") from None


def _measure(plan: Plan, out: Path) -> Report:
    """Run the plan; what there is after each group is saved at once."""
    import asyncio
    import time

    import uvloop

    from bench import course, surroundings
    from bench.measures import Notebook
    from bench.verdicts import NotHeld

    notebook = Notebook()
    started = time.monotonic()
    about: dict[str, Any] = surroundings.describe(plan)

    def tell(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", file=sys.stderr, flush=True)

    def save() -> None:
        about["seconds"] = round(time.monotonic() - started, 1)
        _save(notebook.report(about), out)

    about["interrupted"] = False
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(course.run(plan, notebook, tell, after_each=save))
        except KeyboardInterrupt:
            about["interrupted"] = True
        except NotHeld as error:
            print(f"gesell bench: {error}", file=sys.stderr)
    save()
    return notebook.report(about)


def _save(report: Report, out: Path) -> None:
    from bench.measures import write_report

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_bytes(write_report(report))


def _hand_out(report: Report, saved: Report | None, *, out: Path, results: bool) -> int:
    """Show the report, write the page, and say how it went as an exit status."""
    from rich.console import Console

    from bench import pages, tables
    from bench import results as results_page
    from bench.compare import compare, differences
    from bench.goals import judge_all

    verdicts = judge_all(report)
    changes = () if saved is None else compare(report, saved)
    unlike = () if saved is None else differences(report, saved)
    # Where it is no terminal, as in a file, there is room.
    console = Console(width=None if sys.stdout.isatty() else 100)
    tables.show(report, verdicts, console)
    if saved is not None:
        tables.show_changes(changes, unlike, console)
    out.mkdir(parents=True, exist_ok=True)
    page = out / "report.html"
    page.write_text(pages.write_page(report, verdicts, changes=changes, differences=unlike))
    print(f"report: {page}, {out / 'report.json'}", file=sys.stderr)
    interrupted = bool(report.about.get("interrupted"))
    failed = not all(check.held for check in report.checks)
    if results and not interrupted and not failed:
        (_HERE / "RESULTS.md").write_text(results_page.write_results(report, verdicts))
    if interrupted:
        return INTERRUPTED
    return FAILED if failed or any(change.judgement == "regress" for change in changes) else HELD

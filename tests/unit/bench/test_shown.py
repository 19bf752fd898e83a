"""A report as a page, as drawings, as Markdown and on a terminal: all of it is there, and nothing is fetched."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser

import msgspec
import pytest
from rich.console import Console

from bench import tables
from bench.compare import compare, differences
from bench.goals import judge_all
from bench.measures import Check, Notebook, Report
from bench.pages import write_page
from bench.plots import Plot, draw_all
from bench.results import write_results
from bench.wording import figure_of, say_checks
from tests.bench_reports import GOOD as GOOD_RUNS
from tests.bench_reports import good_report, noting

GOOD = good_report()
BROKEN = msgspec.structs.replace(
    noting(without=list(GOOD_RUNS)),
    checks=(*GOOD.checks, Check(after="pay.one-c64", acknowledged=5, held=False, detail="entry 7 is <gone>")),
)


@dataclass
class _Read(HTMLParser):
    """What a page refers to, and whether its elements are closed in their order."""

    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.rpartition(":")[2] in ("href", "src"):
                self.asked.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> _Read:
    reader = _Read()
    reader.feed(page)
    assert reader.open == []
    return reader


@cache
def page_of_good() -> str:
    """The good report's page, drawn once."""
    return write_page(GOOD, judge_all(GOOD), changes=compare(GOOD, GOOD), differences=("unlike",))


@cache
def drawn() -> tuple[Plot, ...]:
    """The good report's drawings, drawn once."""
    return draw_all(GOOD)


def shown(report: Report, *, width: int = 100) -> str:
    out = io.StringIO()
    tables.show(report, judge_all(report), Console(file=out, width=width))
    return out.getvalue()


def test_the_page_is_well_formed_and_fetches_nothing() -> None:
    page = page_of_good()
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.asked) <= {f"#{name}" for name in reader.ids}
    assert not re.search(r"@import|url\((?!#)|https?:|<script|<link|<img", page)


def test_the_page_has_every_measure_goal_check_and_drawing() -> None:
    page = page_of_good()
    text = "".join(read(page).text)
    for measure in GOOD.measures:
        assert measure.name in text
        assert measure.title in text
    for verdict in judge_all(GOOD):
        assert verdict.title in text
        assert verdict.figure in text
    assert "11 of 11 goals met" in text
    assert "no address was given" in text
    assert "may not look" in text
    assert page.count("<svg") == len(drawn()) == 8


def test_a_profile_says_what_its_microseconds_are_shared_by() -> None:
    page = "".join(read(page_of_good()).text)
    assert "pay.each-1000, µs a payment" in page
    assert "pay.legs-100, µs a leg" in page
    results = write_results(GOOD, judge_all(GOOD))
    assert "| pay.each-1000, a payment | 10 |" in results
    assert "| pay.legs-100, a leg | 10.0 |" in results
    terminal = " ".join(shown(GOOD).split())
    assert "pay.each-1000: 145 µs of processor time a payment: HTTP 10," in terminal
    assert "pay.legs-100: 145 µs of processor time a leg: HTTP 10.0," in terminal


def test_a_failed_check_stands_out_everywhere() -> None:
    page = "".join(read(write_page(BROKEN, judge_all(BROKEN))).text)
    for text in (page, shown(BROKEN), write_results(BROKEN, judge_all(BROKEN))):
        assert "1 of 2 checks FAILED" in text
        assert "entry 7 is <gone>" in text
    assert "FAILED" not in shown(GOOD)


def test_drawings_take_the_colours_of_the_page_and_leave_none_of_their_own() -> None:
    for plot in drawn():
        assert "var(--ink)" in plot.svg
        assert not re.search(r"(?:fill|stroke): #", plot.svg), plot.name
        assert 'role="img" aria-label="' in plot.svg


def test_drawings_say_their_figures_in_words() -> None:
    words = {plot.name: plot.words for plot in drawn()}
    assert "64: 3,700 payments/s" in words["connections"]
    assert "10,000,000: 8,400 payments/s" in words["size"]
    assert "SQL, a transaction a payment: 1,500 a second" in words["baselines"]
    assert "pay.each-1000, a payment: HTTP 10 µs" in words["stages"]
    assert "pay.legs-100, a leg: HTTP 10.0 µs" in words["stages"]
    assert "service from 110 to 111 MiB" in words["soak"]


def test_the_same_figures_give_the_same_drawings() -> None:
    assert draw_all(GOOD) == drawn()


def test_a_report_of_nothing_is_a_page_too() -> None:
    empty = Notebook().report({})
    assert "0 of 11 goals met" in "".join(read(write_page(empty, judge_all(empty))).text)
    assert "not measured" in shown(empty)
    assert "**not measured**" in write_results(empty, judge_all(empty))


def test_the_results_hold_surroundings_goals_and_measures() -> None:
    page = write_results(GOOD, judge_all(GOOD))
    assert "| commit | 0123456789ab |" in page
    assert page.count("| **met** |") == 11
    assert "| pay.each-1000 | 9,200 payments/s | 9,100 | 9,300 | 0.92 | 5.00 | 9.00 | 12.0 |" in page
    assert "Not measured: `tigerbeetle.transfers`: no address was given" in page


def test_each_table_of_the_results_has_as_many_cells_in_every_row() -> None:
    report = noting({}, commit="a|b")
    for table in re.findall(r"(?:^\|.*\|\n)+", write_results(report, judge_all(report)), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_terminal_shows_all_of_it_in_eighty_columns() -> None:
    text = shown(GOOD, width=80)
    assert all(measure.name in text for measure in GOOD.measures)
    assert "…" not in text
    assert "9,200 /s" in text


def test_the_comparison_tells_what_was_slower() -> None:
    out = io.StringIO()
    slower = noting({"disk.payment": (900.0,)}, arguments={"quick": False})
    tables.show_changes(compare(slower, GOOD), ("they are unlike",), Console(file=out, width=100))
    line = next(line for line in out.getvalue().splitlines() if "disk.payment" in line)
    assert line.split() == ["disk.payment", "590", "bytes", "900", "bytes", "1.53", "regress"]
    assert "they are unlike" in out.getvalue()
    assert differences(slower, GOOD) == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12_345.6, "12,346"),
        (99.96, "100.0"),
        (12.34, "12.3"),
        (3.456, "3.46"),
        (0.0123, "0.012"),
        (0, "0"),
        (-1.5, "-1.50"),
    ],
)
def test_figures_have_about_three_digits_that_matter(value: float, said: str) -> None:
    assert figure_of(value) == said


def test_no_checks_are_not_taken_for_checks_that_held() -> None:
    assert say_checks(()) == "Nothing was checked."

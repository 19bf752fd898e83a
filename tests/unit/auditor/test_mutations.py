"""The auditor's checks, each taken away in turn: some forgery must then pass, or be found under another name only.

So no check is there for nothing, and none can be added without a forgery that needs it. It is done twice: a whole check
left out of the tables, and every single reason for which a check says no (each `return` of a sentence) turned into
`return None`.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger.auditor import checks
from gesell_ledger.auditor.checks import Checks
from tests.forgeries import CASES

CODES = Checks().codes
SOURCE = inspect.getsource(checks)


def caught(code: str, folder: Path, mutated: Checks) -> list[str]:
    """The forgeries of a code that are still found under their name, and at their entry."""
    found = []
    for name, case in CASES.items():
        if case.code == code:
            try:
                finding = case.make().audit(folder, mutated).finding
            except Exception:  # What a check left to pass may break what comes after it: it is not caught.
                continue
            if finding is not None and (finding.code, finding.seq) == (code, case.place()):
                found.append(name)
    return found


def cases_of(code: str) -> list[str]:
    return [name for name, case in CASES.items() if case.code == code]


def test_every_check_has_a_forgery_that_needs_it() -> None:
    assert {case.code for case in CASES.values()} == set(CODES)
    assert len(CODES) == len(set(CODES))


def test_the_numbered_list_is_the_tables() -> None:
    assert checks.__doc__ is not None
    listed = re.findall(r"^ ?(\d+)\. `([a-z-]+)`", checks.__doc__, re.MULTILINE)
    assert listed == [(str(number), code) for number, code in enumerate(CODES, 1)]


@pytest.mark.parametrize("code", CODES)
def test_without_a_check_a_forgery_is_no_longer_caught(code: str, tmp_path: Path) -> None:
    assert caught(code, tmp_path, Checks()) == cases_of(code)
    assert caught(code, tmp_path, Checks().without(code)) == []


# ── One reason at a time ─────────────────────────────────────────────────────────────────────────────────────────


def functions() -> dict[str, str]:
    """The functions in the tables, each with its code."""
    made = Checks()
    return {
        check.wrong.__name__: check.code
        for check in (*made.start, *made.entries, *made.receipts, *made.held, *made.log)
    }


def reasons() -> Iterator[tuple[str, int]]:
    """Every `return` of something else than None in a check: its function and its line."""
    for function in ast.parse(SOURCE).body:
        if isinstance(function, ast.FunctionDef) and function.name in functions():
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and not _is_none(node.value):
                    yield function.name, node.lineno


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


class _Silenced(ast.NodeTransformer):
    def __init__(self, line: int) -> None:
        self._line = line

    def visit_Return(self, node: ast.Return) -> ast.Return:
        return ast.copy_location(ast.Return(ast.Constant(None)), node) if node.lineno == self._line else node


def silenced(line: int) -> Checks:
    """The checks as they would be if the `return` of this line said that nothing is wrong."""
    name = f"{checks.__name__}_without_line_{line}"
    module: Any = module_from_spec(ModuleSpec(name, None))
    sys.modules[name] = module
    try:
        tree = ast.fix_missing_locations(_Silenced(line).visit(ast.parse(SOURCE)))
        exec(compile(tree, name, "exec"), module.__dict__)  # noqa: S102 - the auditor's own source, one line changed
    finally:
        del sys.modules[name]
    return module.Checks()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("function", "line"), list(reasons()))
def test_without_one_reason_a_forgery_is_no_longer_caught(function: str, line: int, tmp_path: Path) -> None:
    code = functions()[function]
    assert set(caught(code, tmp_path, silenced(line))) < set(cases_of(code))

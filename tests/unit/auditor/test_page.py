"""docs/audit.md says what is checked, and in which order."""

from __future__ import annotations

import re
from pathlib import Path

from gesell_ledger.auditor.checks import FORM, Checks
from tests.forgeries import CASES, Shown, honest

PAGE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()


def test_the_page_lists_every_code_in_order() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert listed == [FORM, *Checks().codes]


def test_the_page_shows_what_the_program_says(tmp_path: Path) -> None:
    shown = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert str(Shown(honest()).audit(tmp_path)) == shown[0].strip()
    told = str(CASES["a_melt_of_one_grain_too_much"].make().audit(tmp_path))
    parts = [re.escape(part) for part in re.split("…", shown[1].strip())]
    # The page cuts dids; what stands between its dots stands there in this order.
    assert re.search("[^\n]*".join(parts), told), told

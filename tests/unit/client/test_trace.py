"""Traces are read row by row, and a row that is none is named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gesell.trace import Trace, TraceFault, Transfer, read_transfers, survey

HEADER = "at_ms,kind,from,to,amount"


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_each_kind_becomes_its_statement_and_the_system_becomes_the_issuer(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "5,disbursement,1,2,70",
        "5,standard,2,30,60",
        "6,reclamation,30,1,50",
        "",
        "7,agent_out,30,2,1",
    )
    assert list(read_transfers(path)) == [
        Transfer(line=2, at_ms=5, type="issue", payer=None, payee=2, amount=70),
        Transfer(line=3, at_ms=5, type="pay", payer=2, payee=30, amount=60),
        Transfer(line=4, at_ms=6, type="retire", payer=30, payee=None, amount=50),
        Transfer(line=6, at_ms=7, type="retire", payer=30, payee=None, amount=1),
    ]
    trace = survey(path)
    assert trace == Trace(path=path, transfers=4, first_ms=5, last_ms=7, accounts=(2, 30))
    assert [trace.handle(account) for account in trace.accounts] == ["a0002", "a0030"]


def test_handles_are_of_one_length_when_account_numbers_are_long(tmp_path: Path) -> None:
    trace = survey(write(tmp_path, "5,standard,7,123456,60"))
    assert [trace.handle(account) for account in trace.accounts] == ["a000007", "a123456"]


def test_columns_may_stand_in_another_order_with_others_beside_them(tmp_path: Path) -> None:
    path = write(tmp_path, "x,60,30,2,standard,5", header="note,amount,to,from,kind,at_ms")
    assert list(read_transfers(path)) == [Transfer(line=2, at_ms=5, type="pay", payer=2, payee=30, amount=60)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("5,standard,2,30", "line 3: 4 fields where the first line names 5"),
        ("5,standard,2,30,60,1", "line 3: 6 fields"),
        ("5,gift,2,30,60", "line 3: kind 'gift' is none of"),
        ("4,standard,2,30,60", "line 3: at_ms 4 is before the line above (5)"),
        ("x,standard,2,30,60", "line 3: at_ms 'x'"),
        ("-5,standard,2,30,60", "line 3: at_ms '-5'"),
        ("281474976710656,standard,2,30,60", "line 3: at_ms '281474976710656'"),
        ("5,standard,2,thirty,60", "line 3: to 'thirty'"),
        ("5,standard,,30,60", "line 3: from ''"),
        ("5,standard,2,2,60", "line 3: account 2 pays itself"),
        ("5,standard,2,30,0", "line 3: amount '0'"),
        ("5,standard,2,30,1.5", "line 3: amount '1.5'"),
        ("5,standard,2,30,1_0", "line 3: amount '1_0'"),
        ("5,standard,2,30,٣", "line 3: amount"),
        ("5,standard,2,30,1000000000000001", "line 3: amount '1000000000000001'"),
        ("5,standard,2,30," + "9" * 5_000, "line 3: amount"),
        ('5,standard,2,30,"6', "line 3: no CSV"),
    ],
)
def test_a_row_that_is_none_is_named_by_its_line(tmp_path: Path, row: str, says: str) -> None:
    path = write(tmp_path, "5,disbursement,1,2,70", row)
    with pytest.raises(TraceFault) as caught:
        survey(path)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceFault, match="holds no transfers"):
        survey(write(tmp_path))
    with pytest.raises(TraceFault, match=r"line 1: .* see to kind"):
        survey(write(tmp_path, header="at_ms,type,from,to,amount"))
    with pytest.raises(TraceFault, match="see to amount"):
        survey(write(tmp_path, header="at_ms,kind,from,to,amount,amount"))
    with pytest.raises(TraceFault, match="can't be read"):
        survey(tmp_path / "nowhere.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(TraceFault, match="the first line names the columns"):
        survey(tmp_path / "empty.csv")
    (tmp_path / "bytes.csv").write_bytes(HEADER.encode() + b"\n5,standard,2,30,\xff\n")
    with pytest.raises(TraceFault, match="no text in UTF-8"):
        survey(tmp_path / "bytes.csv")

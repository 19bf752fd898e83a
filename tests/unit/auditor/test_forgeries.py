"""Each forgery is caught under its own name and at its entry; what is honest holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gesell_ledger.auditor.auditing import Question, audit_file
from gesell_ledger.auditor.held import read_held
from gesell_protocol.names import did_of
from tests.forgeries import ANNA, CASES, VKEYS, Shown, cosigned, forked, honest
from tests.forgery import NEW_LEDGER, log_of_entries
from tests.histories import LEDGER
from tests.lives import Life


@pytest.mark.parametrize("name", CASES)
def test_the_forgery_is_caught_under_its_name(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    verdict = case.make().audit(tmp_path)
    finding = verdict.finding
    assert finding is not None
    assert (finding.code, finding.seq) == (case.code, case.place()), finding
    assert "THE LOG DOES NOT HOLD" in str(verdict)
    assert verdict.fields()["finding"] == {"code": case.code, "entry": case.place(), "text": finding.text}


def test_an_honest_log_holds_with_all_that_a_reader_may_hold_of_it(tmp_path: Path) -> None:
    log = honest()
    checkpoints = [read_held(f"at {size}", str(log.note(size=size))) for size in (1, 10, 23, 24, 25, 27)]
    receipts = [
        read_held(f"receipt of {place} at {size}", log.receipt(place, size=size))
        for place, size in ((1, 1), (1, 27), (10, 10), (10, 24), (24, 24), (27, 27))
    ]
    shown = Shown(
        log,
        note=cosigned(log.note(), 0, 1),
        held=(*checkpoints, *receipts),
        trusted=LEDGER,
        witnesses=VKEYS,
        quorum=2,
    )
    verdict = shown.audit(tmp_path)
    assert verdict.finding is None
    assert (verdict.entries, verdict.cosigned, verdict.ledger) == (27, 2, NEW_LEDGER)
    assert verdict.melted == 5_880 + 3_212 + 38_959 + 5_146 + 4_731 + 2_997 + 158 + 37_457 + 46
    assert "the log holds" in str(verdict)
    assert f"signed by {did_of(NEW_LEDGER)}" in str(verdict)


def test_any_key_of_the_ledgers_chain_may_be_the_one_that_the_reader_trusts(tmp_path: Path) -> None:
    assert Shown(honest(), trusted=LEDGER).audit(tmp_path).holds
    assert Shown(honest(), trusted=NEW_LEDGER).audit(tmp_path).holds


def test_who_names_no_key_is_told_that_the_log_speaks_for_itself(tmp_path: Path) -> None:
    assert "--ledger DID" in str(Shown(honest()).audit(tmp_path))
    assert "--ledger DID" not in str(Shown(honest(), trusted=LEDGER).audit(tmp_path))


def test_a_fork_by_itself_holds_and_only_what_a_reader_holds_tells(tmp_path: Path) -> None:
    # Why members keep checkpoints, and why there are witnesses.
    assert Shown(forked()).audit(tmp_path).holds
    assert Shown(forked(), held=(read_held("mine", str(forked().note())),)).audit(tmp_path).holds


def test_an_equivocation_names_both_checkpoints(tmp_path: Path) -> None:
    finding = Shown(forked(), held=(read_held("mine.note", str(honest().note())),)).audit(tmp_path).finding
    assert finding is not None
    for note in (honest().note(), forked().note()):
        assert all(line in finding.text for line in str(note).splitlines())
    assert "mine.note" in finding.text


def test_a_log_that_was_cut_below_the_state_is_told_where_it_ends(tmp_path: Path) -> None:
    finding = CASES["a_log_cut_before_a_receipt_and_since_it_was_audited"].make().audit(tmp_path).finding
    assert finding is not None
    assert finding.text.endswith("the log ends after 3")


def test_a_melt_of_one_grain_too_much_is_told_to_the_grain(tmp_path: Path) -> None:
    finding = CASES["a_melt_of_one_grain_too_much"].make().audit(tmp_path).finding
    assert finding is not None
    account = f"of WRG on the account of {did_of(ANNA)}"
    assert finding.text == f"a melt of -3213 grains {account}, where the law takes -3212 grains {account}"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_commons_lives_through_its_log_holds_in_one_go_and_in_many(seed: int, tmp_path: Path) -> None:
    life = Life(random.Random(seed))
    for _ in range(120):
        life.step()
    log = log_of_entries(life.twin.commons, life.twin.entries)
    whole = audit_file(log.write(tmp_path / "log"), Question(trusted=LEDGER))
    assert whole.finding is None
    state = tmp_path / "state"
    for size in sorted({*random.Random(seed).sample(range(1, log.size), 5), log.size}):
        path = log.cut(size).write(tmp_path / "part")
        verdict = audit_file(path, Question(trusted=LEDGER, state=state))
        assert verdict.finding is None
    assert verdict == whole


def test_of_a_spoiled_file_only_findings_are_told(tmp_path: Path) -> None:
    draw = random.Random(5)
    path = honest().write(tmp_path / "log")
    data = path.read_bytes()
    for _ in range(300):
        spoiled = bytearray(data)
        for _ in range(draw.choice((1, 1, 3))):
            spoiled[draw.randrange(len(spoiled))] ^= 1 << draw.randrange(8)
        path.write_bytes(spoiled[: draw.choice((len(spoiled), draw.randrange(len(spoiled))))])
        assert spoiled == data or audit_file(path, Question()).finding is not None

"""What is no log file is told as such, in whatever way it is none; and an audit that stops goes on."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread

import pytest

from gesell_ledger.auditor.auditing import Question, audit_file
from gesell_ledger.auditor.files import PIECE
from gesell_ledger.auditor.held import read_held
from gesell_ledger.auditor.memory import StateFault
from gesell_ledger.auditor.walk import Stopped
from gesell_protocol.log import FILE_FIRST_LINE, write_bundle
from gesell_protocol.names import base64_text, uuid7
from gesell_protocol.notes import origin_of, sign_note
from gesell_protocol.proofs import BadReceipt
from tests.forgeries import forked, honest
from tests.forgery import NEW_LEDGER, Log, Scribe, log_of
from tests.forked import run_gesell
from tests.histories import key, signer_of

HEAD = FILE_FIRST_LINE + str(honest().note()).encode() + b"\n"
BODY = write_bundle(honest().entries)


def code_of(path: Path) -> str:
    finding = audit_file(path, Question()).finding
    assert finding is not None
    return finding.code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "form"),
        (b"\n", "form"),
        (b"gesell/log/2\n" + HEAD[13:] + BODY, "form"),
        (b"\x00" * 100_000, "form"),
        (FILE_FIRST_LINE, "form"),
        (HEAD[:60], "form"),
        (FILE_FIRST_LINE + b"\xff" * 40 + b"\n\n\n", "form"),
        (FILE_FIRST_LINE + b"x\n\nx\n\n" + BODY, "form"),
        (FILE_FIRST_LINE + b"a\n" * 70_000, "form"),
        (HEAD.replace(b"\n27\n", b"\n027\n") + BODY, "form"),
        (HEAD + BODY[:-1], "form"),
        (HEAD + BODY + b"\x00", "form"),
        (HEAD + BODY + b"\x00\x00", "more"),
        (HEAD + b"\x00\x00", "leaf"),
        (HEAD, "truncated"),
        (gzip.compress(HEAD + BODY)[:-9], "form"),
        (gzip.compress(HEAD + BODY) + b"x", "form"),
        (gzip.compress(b"\x00" * 50_000_000), "form"),
        (gzip.compress(HEAD + b"\x00" * 50_000_000), "leaf"),
        (b"\x1f\x8b" + b"\x00" * 100, "form"),
    ],
)
def test_what_is_no_log_file_is_told_so(data: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    assert code_of(path) == code


def test_what_is_wrong_with_an_entry_counts_before_what_is_wrong_with_the_bytes_after_it(tmp_path: Path) -> None:
    forged = honest().without("pay ben", renumbered=False)
    path = tmp_path / "log"
    path.write_bytes(HEAD + write_bundle(forged.entries)[:-1])
    assert code_of(path) == "order"


def test_a_receipt_of_an_entry_that_its_checkpoint_does_not_cover_is_none(tmp_path: Path) -> None:
    text = honest().receipt(9).replace("index 8\n", "index 27\n")
    with pytest.raises(BadReceipt, match="does not cover entry 28"):
        read_held("mine", text)


def test_a_log_of_no_entries_is_none(tmp_path: Path) -> None:
    empty = honest().cut(0)
    path = empty.write(tmp_path / "log", note=honest().note(size=0, by=key("sara")))
    assert code_of(path) == "form"


def test_a_log_may_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(HEAD + BODY))
    assert audit_file(path, Question()).holds


# ── Stopping and going on ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def long_log() -> Log:
    """A log of several pieces."""
    scribe = Scribe()
    for name in ("anna", "ben"):
        scribe.admit(name)
    scribe.say("issue", key("sara"), to=key("anna"), amount=10**9)
    while len(scribe.entries) < 4 * PIECE + 7:
        scribe.now_ms += 600_000
        scribe.say("pay", key("anna"), legs=[[key("ben"), 5]])
        scribe.say("pay", key("ben"), legs=[[key("anna"), 2]])
    return log_of(scribe, {})


def test_an_audit_that_is_stopped_goes_on_where_it_was(long_log: Log, tmp_path: Path) -> None:
    path, state = long_log.write(tmp_path / "log"), tmp_path / "state"
    whole = audit_file(path, Question())
    assert whole.holds
    reached = list[int]()
    while True:
        asked = count()
        try:
            verdict = audit_file(path, Question(state=state), stop=lambda asked=asked: next(asked) == 300)  # type: ignore[misc]
            break
        except Stopped as stopped:
            reached.append(stopped.seq)
    assert verdict == whole
    assert reached == [300, 600, 900]


def test_a_forgery_after_the_stop_is_caught_and_found_again(long_log: Log, tmp_path: Path) -> None:
    state, place = tmp_path / "state", 3 * PIECE
    forged = long_log.changed(place, lambda leaf: leaf._replace(at_ms=leaf.at_ms - 600_001)).write(tmp_path / "log")
    asked = count()
    with pytest.raises(Stopped):
        audit_file(forged, Question(state=state), stop=lambda: next(asked) == 500)
    for _ in range(2):
        finding = audit_file(forged, Question(state=state)).finding
        assert finding is not None
        assert (finding.code, finding.seq) == ("time", place)


def test_an_id_that_was_used_before_the_stop_is_known_after_it(long_log: Log, tmp_path: Path) -> None:
    state, size = tmp_path / "state", long_log.size
    assert audit_file(long_log.write(tmp_path / "log"), Question(state=state)).holds
    last = long_log.leaf(size)
    again = long_log.with_entry(size, last._replace(postings=tuple(last.postings[-2:])))
    finding = audit_file(again.write(tmp_path / "log"), Question(state=state)).finding
    assert finding is not None
    assert (finding.code, finding.seq) == ("id", size + 1)


def test_an_id_is_remembered_for_as_long_as_it_could_come_again(tmp_path: Path) -> None:
    # Seven days to the millisecond, with everything older forgotten by then.
    scribe, week = Scribe(brackets=[[0, 0]]), 7 * 24 * 3_600_000
    for name in ("anna", "ben"):
        scribe.admit(name)
    scribe.say("issue", key("sara"), to=key("anna"), amount=100)
    scribe.now_ms += 1
    stamped = {"id": uuid7(scribe.now_ms, b"a long one"), "expires": scribe.now_ms + week}
    first = scribe.say("pay", key("anna"), legs=[[key("ben"), 1]], **stamped).seq
    scribe.now_ms += week
    scribe.say("pay", key("anna"), legs=[[key("ben"), 2]])
    log, state = log_of(scribe, {}), tmp_path / "state"
    assert audit_file(log.write(tmp_path / "log"), Question(state=state)).holds
    with sqlite3.connect(state) as disk:
        assert disk.execute("SELECT count(*) FROM used").fetchone()[0] < log.size, "what can't come again is forgotten"
    again = log.leaf(first)._replace(at_ms=scribe.now_ms)
    finding = audit_file(log.with_entry(log.size, again).write(tmp_path / "log"), Question(state=state)).finding
    assert finding is not None
    assert (finding.code, finding.seq) == ("id", log.size + 1)


def test_what_is_no_state_is_told_so(tmp_path: Path) -> None:
    path, state = honest().write(tmp_path / "log"), tmp_path / "state"
    state.write_bytes(b"no state\n" * 1_000)
    with pytest.raises(StateFault, match="say another file"):
        audit_file(path, Question(state=state))
    state.unlink()
    assert audit_file(path, Question(state=state)).holds
    with sqlite3.connect(state) as disk:
        disk.execute("UPDATE head SET value = x'81a776657273696f6e02'")
    with pytest.raises(StateFault, match="another version"):
        audit_file(path, Question(state=state))


def test_two_audits_do_not_share_a_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with sqlite3.connect(state) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateFault, match="in use"):
            audit_file(honest().write(tmp_path / "log"), Question(state=state))


def test_ctrl_c_keeps_the_state_and_the_next_run_goes_on(long_log: Log, tmp_path: Path) -> None:
    # A pipe that nobody writes to holds the audit at the end of what it was given.
    pipe, state = tmp_path / "pipe", tmp_path / "state"
    os.mkfifo(pipe)
    path = long_log.write(tmp_path / "log")
    data = path.read_bytes()
    asked = count()
    with pytest.raises(Stopped):
        audit_file(path, Question(state=state), stop=lambda: next(asked) == 300)
    command = [sys.executable, "-m", "gesell", "audit", str(pipe), "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with pipe.open("wb") as end:
            end.write(data[: len(data) * 3 // 4])
            end.flush()
            process.send_signal(signal.SIGINT)
            with suppress(BrokenPipeError):
                end.write(data[len(data) * 3 // 4 :])
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert f"`--state {state}` goes on from there" in said
    done = int(said.split("stopped after entry ")[1].split(";")[0])
    assert 300 <= done < long_log.size
    assert audit_file(path, Question(state=state)).holds


def test_a_state_that_was_stopped_beyond_a_signed_checkpoint_accuses_by_that_one_alone(tmp_path: Path) -> None:
    # Audited to the end at 20, then stopped at 24; nothing signed speaks for what lies between.
    for size, code in ((20, "equivocation"), (9, "another")):
        state = tmp_path / f"state{size}"
        assert audit_file(honest().cut(size).write(tmp_path / "log"), Question(state=state)).holds
        path, left = honest().write(tmp_path / "log"), iter(range(24 - size))
        with pytest.raises(Stopped):
            audit_file(path, Question(state=state), stop=lambda left=left: next(left, None) is None)  # type: ignore[misc]
        finding = audit_file(forked().write(tmp_path / "log"), Question(state=state)).finding
        assert finding is not None
        assert finding.code == code
        assert ("Keep both checkpoints" in finding.text) == (code == "equivocation")
        assert "nothing signed speaks for those" in finding.text or code == "equivocation"


def test_a_pipe_with_another_log_than_was_audited_can_not_be_read_twice(tmp_path: Path) -> None:
    pipe, state = tmp_path / "pipe", tmp_path / "state"
    assert audit_file(honest().cut(20).write(tmp_path / "log"), Question(state=state)).holds
    os.mkfifo(pipe)
    data = forked().write(tmp_path / "log").read_bytes()
    writer = Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    with pytest.raises(StateFault, match="can't be read twice"):
        audit_file(pipe, Question(state=state))
    writer.join()


def test_the_clock_may_be_two_minutes_behind_the_log_and_no_more(tmp_path: Path) -> None:
    path, last_ms = honest().write(tmp_path / "log"), honest().leaf("very last").at_ms
    assert audit_file(path, Question(now_ms=last_ms - 120_000)).holds
    finding = audit_file(path, Question(now_ms=last_ms - 120_001)).finding
    assert finding is not None
    assert finding.code == "clock"


# ── What others wrote ────────────────────────────────────────────────────────────────────────────────────────────

EVIL = "gone\x1b[2J\u009b31m\u202e\u2028\n\r" + "x" * 5_000
BAD = set("\x1b\u009b\u202e\u2028\r")


def evil_logs() -> dict[str, tuple[Log, str | None]]:
    """Logs in which somebody's words would move a terminal, each with its checkpoint if it is another."""
    log, word = honest(), EVIL.replace("\x1b", "\u009b").replace("\n", "").replace("\r", "")
    named = log_of(Scribe(name="gone\u202e"), {})
    texts = {
        "origin": f"{word}\n27\n{base64_text(log.root)}\n",
        "extension": f"{log.note().text}{word}\n",
    }
    signed = {
        name: str(sign_note(text, name=origin_of(log.commons), signer=signer_of(NEW_LEDGER)))
        for name, text in texts.items()
    }

    def said(name: str, **fields: str) -> Log:
        return log.reposted(name, lambda lines: [lines[0]._replace(**fields), *lines[1:]])

    return {
        "reason": (said("pay ben", reason=EVIL), None),
        "asset": (said("pay ben", asset=EVIL), None),
        "melted asset": (said("hold", asset=EVIL), None),
        "origin": (log, signed["origin"]),
        "extension": (log, signed["extension"]),
        "signature": (log, str(log.note()).replace("— gesell/", "— gesell\u202e/")),
        "name": (named, None),
    }


@pytest.mark.parametrize("which", ["reason", "asset", "melted asset", "origin", "extension", "signature", "name"])
def test_no_word_in_a_log_moves_a_terminal(which: str, tmp_path: Path) -> None:
    log, note = evil_logs()[which]
    path = tmp_path / "log"
    path.write_bytes(FILE_FIRST_LINE + (note or str(log.note())).encode() + b"\n" + write_bundle(log.entries))
    for words in ((), ("--json",)):
        ended = gesell(path, *words)
        assert ended.stderr == ""
        assert not BAD & set(ended.stdout), ended.stdout
        assert len(ended.stdout) < 4_000 or words
        assert "\n" not in ended.stdout[:-1] or not words


def test_the_notes_of_an_equivocation_are_clean_and_bounded(tmp_path: Path) -> None:
    log, other = honest(), forked()
    evil = "gone\u009b\u202e" + "x" * 5_000
    text = f"{log.note().text}{evil}\n"
    note = sign_note(text, name=origin_of(log.commons), signer=signer_of(NEW_LEDGER))
    held = read_held("mine\x1b[2J", str(note))
    verdict = audit_file(other.write(tmp_path / "log"), Question(held=(held,)))
    assert verdict.finding is not None
    assert verdict.finding.code == "equivocation"
    assert "gone" in str(verdict)
    assert not BAD & set(str(verdict))
    assert len(str(verdict)) < 3_000


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────────────


def gesell(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run_gesell("audit", *words, timeout=120)


def test_the_command_says_and_exits_as_the_verdict_is(tmp_path: Path) -> None:
    path = honest().write(tmp_path / "log")
    receipt = tmp_path / "mine.tlog-proof"
    receipt.write_text(honest().receipt(9))
    ended = gesell(path, "--receipt", receipt, "--checkpoint", receipt)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "the log holds" in ended.stdout
    honest().reposted("pay ben", lambda postings: postings[::-1]).write(path)
    ended = gesell(path, "--json")
    assert ended.returncode == 1
    assert '"code": "posting", "entry": 10' in ended.stdout


def test_the_log_of_a_demo_clock_may_be_ahead(tmp_path: Path) -> None:
    path = log_of(Scribe(now_ms=4_000_000_000_000), {}).write(tmp_path / "log")
    ended = gesell(path)
    assert ended.returncode == 1
    assert "clock at entry 1" in ended.stdout
    assert "say --demo" in ended.stdout
    assert gesell(path, "--demo").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-file"], "No such file"),
        (["LOG", "--ledger", "did:web:example.org"], "did:key"),
        (["LOG", "--checkpoint", "LOG"], "neither a checkpoint nor a receipt"),
        (["LOG", "--witness", "w+1+2"], "verifier key"),
        (["LOG", "--quorum", "1"], "--quorum"),
        (["LOG", "--commons", "00" * 16], "--commons"),
        (["http://127.0.0.1:1/v2?x", "--commons", "00" * 16], "no address of a ledger"),
        (["LOG", "--state", "LOG"], "no state of an audit"),
    ],
)
def test_a_mistake_in_the_call_is_told_in_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    path = honest().write(tmp_path / "log")
    ended = gesell(*(path if word == "LOG" else word for word in words))
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr

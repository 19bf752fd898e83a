"""The process that reckons trust, by itself: it answers in time or ends, and says what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys

import msgspec

from gesell_ledger.readings import solver
from gesell_ledger.readings.solver import LENGTH_BYTES, Answer, AskBetween, Between, Forget, Vouches, pack

COMMONS, ME, YOU = bytes(16), b"a" * 32, b"b" * 32


def say(*messages: solver.Message) -> tuple[list[Answer], int]:
    """What a process answers to messages, and how it ends when nothing more comes."""
    command = [sys.executable, "-m", "gesell_ledger.readings.solver"]
    done = subprocess.run(command, input=b"".join(map(pack, messages)), capture_output=True, timeout=60, check=False)
    answers, rest = [], done.stdout
    while rest:
        end = LENGTH_BYTES + int.from_bytes(rest[:LENGTH_BYTES], "big")
        answers.append(msgspec.msgpack.decode(rest[LENGTH_BYTES:end], type=Answer))
        rest = rest[end:]
    return answers, done.returncode


def test_it_answers_by_what_it_was_told_and_ends_with_its_input() -> None:
    vouch = Vouches(COMMONS, ME + YOU + (5).to_bytes(8, "big"))
    ask = AskBetween(COMMONS, ME, YOU)
    answers, status = say(ask, vouch, ask, Forget(COMMONS), ask)
    assert answers == [Between(0, (), 0), Between(5, ((YOU, 5),), 1), Between(0, (), 0)]
    assert status == 0


def test_a_question_that_takes_too_long_ends_it_wherever_it_is() -> None:
    """In a loop that never looks at what Python would do about a signal, as a solver's is."""
    program = (
        "from gesell_ledger.readings import solver; solver.SECONDS_MAX = 0.2;"
        "solver._in_time(lambda question: sum(range(10**12)), None)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


def test_time_is_counted_for_each_question_alone() -> None:
    ask = AskBetween(COMMONS, ME, YOU)
    assert solver._in_time(lambda _: Between(1, (), 0), ask) == Between(1, (), 0)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    failed = solver._in_time(lambda _: 1 // 0, ask)
    assert isinstance(failed, solver.Failed)
    assert "ZeroDivisionError" in failed.why
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

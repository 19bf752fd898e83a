"""The command `gesell audit`. Wiring only: words in, one verdict out."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gesell_ledger.auditor.auditing import Question, Tell, audit_file, audit_url
from gesell_ledger.auditor.findings import Verdict
from gesell_ledger.auditor.held import Held, read_held
from gesell_ledger.auditor.memory import StateFault
from gesell_ledger.auditor.sentences import clean
from gesell_ledger.auditor.walk import Stopped
from gesell_ledger.auditor.web import FetchFault
from gesell_protocol.names import peer_of
from gesell_protocol.notes import BadNote, NoteKey
from gesell_protocol.proofs import FILE_MAX_BYTES, BadReceipt
from gesell_protocol.refusals import Rejected

#: A file of the reader's own that is not what it should be, or can't be used.
_OWN_FAULTS = (OSError, ValueError, StateFault, FetchFault)

app = cyclopts.App(name="audit")


@app.default
def audit(
    log: str,
    /,
    *,
    commons: str | None = None,
    ledger: str | None = None,
    checkpoint: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    receipt: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    witness: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    quorum: int | None = None,
    state: Path | None = None,
    demo: Annotated[bool, Parameter(negative="")] = False,
    json_: Annotated[bool, Parameter("--json", negative="")] = False,
) -> None:
    """Check a commons' log with no trust: every signature, posting, melt and hash, from the statements alone.

    Prints one verdict, with the first thing that is wrong. Exit status 0 if the log holds, 1 if not.

    Parameters
    ----------
    log
        A log file (gesell export), or the address of an open commons' ledger: https://HOST[/v1/commons/HEX].
    commons
        Which commons of the ledger: 32 hex digits. Not needed where one is open.
    ledger
        The did of the ledger's key that you trust, of today or earlier: it must be on the log's chain of keys.
    checkpoint
        A checkpoint or a receipt that you hold: the log must lead through it. May come more than once.
    receipt
        The same; the entry in it must stand in the log.
    witness
        The verifier key of a witness that you trust. May come more than once.
    quorum
        How many of these witnesses must have cosigned; all of them, if it is not said.
    state
        A file that keeps how far the audit is: it goes on from there, also when the log has grown.
    demo
        The log is of a demo clock, which may be ahead of yours.
    json_
        Print JSON.
    """
    try:
        question = question_of((*checkpoint, *receipt), witness, quorum=quorum, demo=demo)
        question = replace(question, trusted=None if ledger is None else peer_of(ledger), state=state)
        verdict = _ask(log, question, commons)
    except Stopped as stopped:
        kept = f"; `--state {state}` goes on from there" if state is not None else ""
        print(f"gesell: {stopped}{kept}", file=sys.stderr)
        sys.exit(130)
    except _OWN_FAULTS as fault:
        print(clean(f"gesell: {fault}"), file=sys.stderr)
        sys.exit(1)
    print(json.dumps(verdict.fields()) if json_ else verdict)
    if not verdict.holds:
        sys.exit(1)


def question_of(held: Iterable[Path], witnesses: Sequence[str], *, quorum: int | None, demo: bool) -> Question:
    """What the options ask; raises `OSError` and `ValueError`, whose sentence says which file or word is none."""
    question = Question(
        held=tuple(map(_read_held, held)),
        witnesses=tuple(map(_read_witness, witnesses)),
        quorum=len(witnesses) if quorum is None else _within(quorum, len(witnesses)),
    )
    return replace(question, now_ms=None) if demo else question


def _ask(log: str, question: Question, commons: str | None) -> Verdict:
    with told("auditing") as tell, _stopping() as stop:
        if log.startswith(("http://", "https://")):
            return asyncio.run(audit_url(log, question, commons=commons, tell=tell, stop=stop))
        if commons is not None:
            raise ValueError("--commons goes with a ledger's address: a log file is of one commons")
        return audit_file(Path(log), question, tell=tell, stop=stop)


def _read_held(path: Path) -> Held:
    with path.open("rb") as file:
        data = file.read(FILE_MAX_BYTES + 1)
    try:
        return read_held(str(path), data.decode())
    except (BadNote, BadReceipt, Rejected, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither a checkpoint nor a receipt: {error}") from None


def _read_witness(text: str) -> NoteKey:
    try:
        return NoteKey.parse(text)
    except ValueError as error:
        raise ValueError(f"--witness: {text} is no verifier key: {error}") from None


def _within(quorum: int, witnesses: int) -> int:
    if not 0 <= quorum <= witnesses:
        raise ValueError(f"--quorum is at most the number of witnesses, {witnesses}")
    return quorum


@contextmanager
def told(what: str) -> Iterator[Tell | None]:
    """A progress bar of entries where somebody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("entries", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C stops between two pieces, where the state can be kept; a second one at once."""
    asked = list[int]()

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`python -m bench.audit`: how fast the auditor goes on one core, and what memory it takes, at two sizes of log.

Makes logs of payments among members (a commons with an hourly melt; a fifth of the entries have two or three legs), by
the core and in memory, and audits each in a process of its own that is held to one core. Beside the rate as a whole
stands the rate beyond signature time: the same signatures verified on that core, one after the other, are taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench import machine
from gesell_ledger.auditor.auditing import Question, audit_file
from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, Submission, decide
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, verify_envelope
from gesell_protocol.log import read_file_entries, read_file_head, read_leaf, write_bundle, write_file_head
from gesell_protocol.names import commons_of, uuid7
from gesell_protocol.notes import sign_checkpoint
from gesell_protocol.statements import read_statement, write_body
from gesell_protocol.tree import Frontier

MEMBERS: Final = 2_000
SIZES: Final = (20_000, 100_000)
START_MS: Final = 1_764_000_000_000
#: Between two entries: 20,000 of them take two weeks, so that there is always something to melt.
STEP_MS: Final = 60_000
POLICY: Final = {
    "tick_seconds": 3600,
    "rest_ticks": 24,
    "brackets": [[0, 100_000], [10**9, 300_000]],
    "melt_to": "pool",
    "admission": "open",
    "credit_limit": 0,
    "vouch_min": 1,
    "visibility": "open",
    "notice_ticks": 24,
}


def write_log(path: Path, *, entries: int, members: int) -> None:
    """Write the log of a commons with so many entries: its founding, everybody joins and gets money, then payments."""
    draw = random.Random(entries)
    ledger, steward, *peers = (Signer(draw.randbytes(32)) for _ in range(members + 2))
    books, frontier, bundle, now_ms = Books(), Frontier(), bytearray(), START_MS
    commons = b""
    for signer, fields in _said(draw, steward, peers, ledger.public_key, entries):
        now_ms += STEP_MS
        stamp = {"id": uuid7(now_ms, draw.randbytes(10)), "expires": now_ms + 300_000, "by": signer.public_key}
        if fields["type"] != "found":
            stamp["commons"] = commons
        body = write_body({**fields, **stamp})
        commons = commons or commons_of(body)
        envelope = Envelope(body, ((signer.public_key, signer.sign(STATEMENT_PREFIX + body)),))
        submission = Submission(envelope, read_statement(envelope))
        outcome = decide(books, submission, now_ms=now_ms, ledger=ledger.public_key)
        assert isinstance(outcome, Accepted), outcome
        books.apply(outcome.decision, outcome.entry)
        books.entries.clear()
        bundle += write_bundle([outcome.entry.leaf_data])
        frontier, _ = frontier.grown([outcome.entry.leaf])
    note = sign_checkpoint(commons=commons, size=frontier.size, root=frontier.root, signer=ledger)
    path.write_bytes(write_file_head(str(note)) + bundle)


def _said(
    draw: random.Random, steward: Signer, peers: list[Signer], ledger: bytes, entries: int
) -> Iterator[tuple[Signer, dict[str, Any]]]:
    stewards = [steward.public_key]
    founding = {"type": "found", "ledger": ledger, "name": "Bench", "currency": {"code": "WRG", "scale": 6}}
    yield steward, {**founding, "policy": POLICY, "stewards": stewards, "threshold": 1}
    for number, peer in enumerate(peers):
        yield peer, {"type": "join", "handle": f"p{number}"}
    for peer in peers:
        yield steward, {"type": "issue", "to": peer.public_key, "amount": 10**12}
    for _ in range(entries - 1 - 2 * len(peers)):
        payer, *payees = draw.sample(peers, draw.choice((2, 2, 2, 2, 2, 2, 2, 2, 3, 4)))
        legs = [[payee.public_key, draw.randint(1, 1_000)] for payee in payees]
        yield payer, {"type": "pay", "legs": legs}


def measure(path: Path) -> dict[str, object]:
    """Audit a log in this process, which is held to one core; run it in a process of its own for its memory."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began, worked = time.perf_counter(), time.process_time()
    verdict = audit_file(path, Question(now_ms=None))
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    peak = _peak_mib()
    assert verdict.holds, verdict
    signing = _signature_seconds(path, verdict.entries)
    return {
        "entries": verdict.entries,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "seconds": round(seconds, 2),
        "processor_seconds": round(cpu, 2),
        "signature_seconds": round(signing, 2),
        "entries_a_second": round(verdict.entries / cpu),
        "entries_a_second_beyond_signatures": round(verdict.entries / (cpu - signing)),
        "peak_mib": round(peak, 1),
    }


def _peak_mib() -> float:
    """The most memory that this program had resident: `getrusage` would count what its parent had before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _signature_seconds(path: Path, entries: int) -> float:
    """What the signatures of a log cost on this core: of 5,000 of them, times as many as there are."""
    with path.open("rb") as file:
        read_file_head(file)
        leaves = [read_leaf(data) for data, _ in zip(read_file_entries(file), range(5_000), strict=False)]
    envelopes = [Envelope(leaf.body, leaf.signatures) for leaf in leaves]
    began = time.process_time()
    for envelope in envelopes:
        verify_envelope(envelope)
    return (time.process_time() - began) / len(envelopes) * entries


def main() -> None:
    """Make the logs, audit them, print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="entries of the logs")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--measure", type=Path, help="audit this log in this process")
    words = parser.parse_args()
    if words.measure is not None:
        print(json.dumps(measure(words.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for size in words.sizes:
            path = Path(folder) / f"{size}.log"
            write_log(path, entries=size, members=words.members)
            command = [sys.executable, "-m", "bench.audit", "--measure", str(path)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            path.unlink()
    print(json.dumps({"machine": machine.describe(), "members": words.members, "logs": results}, indent=2))


if __name__ == "__main__":
    main()

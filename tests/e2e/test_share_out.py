"""A share of the pool reaches every member once, though the service is killed while it is being paid out.

To as many members as `GESELL_SHARE_MEMBERS` says (docs/contributor.md), and to some thousands if it says nothing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of
from gesell_protocol.statements import PAYOUT_MAX
from tests.running import running
from tests.speaking import POLICY, Line, name_of, signer_of, write_envelope, write_found
from tests.towns import line_to

MEMBERS = int(os.environ.get("GESELL_SHARE_MEMBERS", "1500"))
AT_ONCE = 1_000
PATIENCE_SECONDS = 300.0
STEWARD = signer_of("steward of the share")


def say(line: Line, envelopes: Sequence[Envelope]) -> list[dict[str, Any]]:
    """Send statements, all of which must be accepted; their receipts."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(envelopes), AT_ONCE):
        results += line.post(envelopes[start : start + AT_ONCE])
    assert Counter(result["status"] for result in results) == {"accepted": len(envelopes)}
    return [result["receipt"] for result in results]


def until(there: Callable[[], bool]) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        if there():
            return
        time.sleep(0.02)
    raise AssertionError("it takes too long")


def test_a_share_reaches_every_member_once_through_a_crash() -> None:
    with running() as service:
        with line_to(service) as line:
            now = line.time()
            policy = {**POLICY, "tick_seconds": 31_536_000, "admission": "steward"}
            founding = write_found([STEWARD], ledger=line.ledger(), now_ms=now, policy=policy)
            commons = name_of(founding)
            path = f"/v1/commons/{commons.hex()}"
            say(line, [founding])

            def write(kind: str, by: Signer, **fields: Any) -> Envelope:
                return write_envelope(kind, by.public_key, [by], now_ms=now, commons=commons, **fields)

            people = [signer_of(f"shareholder {number}") for number in range(MEMBERS)]
            donor = signer_of("donor")
            joins = [write("join", one, handle=f"m{number}") for number, one in enumerate([donor, *people])]
            say(line, joins)
            say(line, [write("admit", STEWARD, peer=one.public_key) for one in [donor, *people]])
            amount = MEMBERS * 7 + MEMBERS // 2
            say(line, [write("issue", STEWARD, to=donor.public_key, amount=amount), write("leave", donor)])
            (receipt,) = say(line, [write("share", STEWARD, amount=amount)])
            # One payout is there and many are to come: the blow falls in between.
            until(lambda: line.get(path)["seq"] > receipt["seq"])
            service.kill()
        service.start()
        with line_to(service) as line:
            paid = line.get(path)["seq"] - receipt["seq"]
            assert paid < -(-MEMBERS // PAYOUT_MAX), "the service was killed too late to prove anything"
            until(lambda: line.get(path)["escrow"] == "0")
            parts: Counter[str] = Counter()
            payouts = line.items(f"{path}/entries?after={receipt['seq']}&limit=1000")
            assert {entry["type"] for entry in payouts} == {"payout"}
            for entry in payouts:
                parts.update(holder for reason, holder, _, value in entry["postings"] if value == "7")
                assert sum(int(value) for *_, value in entry["postings"]) == 0
            assert parts == Counter(did_of(one.public_key) for one in people)
            assert line.get(path)["pool"] == str(amount - 7 * MEMBERS)

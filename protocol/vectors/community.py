"""A commons that lives in memory and writes down all that happens to it, for `history_cases`.

Owns the path of a statement through protocol and core without a service: read, verify, decide, apply; and the form
of a history in the vectors. Must not know which histories are told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, Outcome, Replay, Submission, decide
from gesell_protocol.canonical import unpack
from gesell_protocol.demurrage import melt
from gesell_protocol.envelopes import Memo, read_envelope, verify_envelope
from gesell_protocol.names import ESCROW, ISSUER, POOL, Holder, commons_of
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import read_statement, write_body
from vectors.notation import Case, id_at, peer, written
from vectors.statement_cases import sealed

EXPIRES_MS = 300_000


@dataclass
class Community:
    """One history in the making. `now_ms` is the ledger's clock, which the storyteller sets."""

    name: str
    now_ms: int
    tick_ms: int
    commons: bytes = b""
    books: dict[bytes, Books] = field(default_factory=dict)
    steps: list[Case] = field(default_factory=list)

    def stamp(self, **ahead: int) -> dict[str, Any]:
        """Give a fresh id and its expiry; `ahead_ms` moves the time inside the id off the clock."""
        time_ms = self.now_ms + ahead.get("ahead_ms", 0)
        return {"id": id_at(time_ms, f"{self.name} {len(self.steps)}"), "expires": time_ms + EXPIRES_MS}

    def wait(self, *, ticks: int = 0, ms: int = 0) -> None:
        """Let the ledger's clock run to the beginning of a later tick, then by some ms; negative: backwards."""
        if ticks:
            self.now_ms = (self.now_ms // self.tick_ms + ticks) * self.tick_ms
        self.now_ms += ms

    def tick(self) -> int:
        """Give the tick in which the clock stands."""
        return self.now_ms // self.tick_ms

    def say(
        self,
        says: str,
        kind: str,
        by: str,
        /,
        *,
        signers: Sequence[str] = (),
        memo: Memo | None = None,
        fails: str | None = None,
        **fields: Any,
    ) -> bytes:
        """Submit a statement and write down what came of it; returns its body.

        `says` tells the reader what is shown. `signers` are `by` alone unless named. `fails` is the code with which
        it must be refused; AssertionError where the books say something else.
        """
        body_fields = {"type": kind, "commons": self.commons, "by": peer(by), **self.stamp(), **fields}
        if memo is not None:
            body_fields["memo"] = memo.seal()
        if kind == "found":
            del body_fields["commons"]
        body = write_body(body_fields)
        self.send(says, body, signers or (by,), memo=memo, fails=fails)
        return body

    def send(
        self, says: str, body: bytes, signers: Sequence[str], *, memo: Memo | None = None, fails: str | None = None
    ) -> None:
        """Submit a body as it is, signed by the named, and write down what came of it."""
        envelope = sealed(body, signers, memo)
        outcome = self._decide(envelope)
        code = outcome.code if isinstance(outcome, Refusal) else None
        assert code == fails, f"{self.name}, {says}: {outcome}"
        shown = {"says": says, "clock_ms": self.now_ms, "envelope": envelope.hex()}
        self.steps.append({**shown, "outcome": self._outcome(outcome)})

    def _decide(self, envelope: bytes) -> Outcome:
        try:
            read = read_envelope(unpack(envelope))
            statement = read_statement(read)
            verify_envelope(read)
        except Rejected as rejected:
            return rejected.refusal
        books = self.books.get(statement.commons, Books())
        outcome = decide(books, Submission(read, statement), now_ms=self.now_ms, ledger=peer("ledger"))
        if isinstance(outcome, Accepted):
            books.apply(outcome.decision, outcome.entry)
            self.books[statement.commons] = books
            if statement.type == "found":
                self.commons = commons_of(read.body)
        return outcome

    def _outcome(self, outcome: Outcome) -> Case:
        if isinstance(outcome, Refusal):
            fields = {name: written(amount) for name, amount in outcome.fields.items()}
            return {"status": "refused", "code": outcome.code, **fields}
        entry = outcome.entry
        if isinstance(outcome, Replay):
            return {"status": "replayed", "seq": entry.seq, "leaf": entry.leaf.hex()}
        return {
            "status": "accepted",
            "seq": entry.seq,
            "at": entry.at_ms,
            "tick": entry.at_ms // self.tick_ms,
            "postings": written(entry.postings),
            "leaf_data": entry.leaf_data.hex(),
            "leaf": entry.leaf.hex(),
        }

    def case(self) -> Case:
        """Give the whole history, with the state in which it ends at the clock's time."""
        books = self.books[self.commons]
        assert books.commons is not None
        code, timeline = books.commons.currency.code, books.commons.timeline
        self._check_books(books)
        members = []
        for name, member in sorted(books.members.items()):
            account = books.account(name, code)
            members.append(
                {
                    "peer": name.hex(),
                    "handle": member.handle,
                    "status": member.status,
                    "balance": written(melt(account, timeline, self.tick()).balance),
                    "posted": written(account.balance),
                }
            )
        reserved = {holder: written(books.account(holder, code).balance) for holder in (POOL, ISSUER, ESCROW)}
        gifts = [
            {"holder": written(holder), "kind": kind, "balance": written(held.balance)}
            for (holder, kind), held in books.accounts.items()
            if kind != code
        ]
        vouches = [
            {"by": by.hex(), "for": whom.hex(), "limit": written(limit)}
            for (by, whom), limit in sorted(books.vouches.items())
        ]
        return {
            "name": self.name,
            "ledger": peer("ledger").hex(),
            "commons": self.commons.hex(),
            "steps": self.steps,
            "end": {
                "clock_ms": self.now_ms,
                "tick": self.tick(),
                "members": members,
                **reserved,
                "gifts": gifts,
                "vouches": vouches,
            },
        }

    def _check_books(self, books: Books) -> None:
        """Assert that every account holds what was posted to it (SPEC §4): no vector is made of broken books."""
        posted: Counter[tuple[Holder, str]] = Counter()
        for entry in books.entries.values():
            for posting in entry.postings:
                posted[posting.holder, posting.asset] += posting.amount
        for name, account in books.accounts.items():
            assert account.balance == posted[name], f"{self.name}: an account is not the sum of its postings"
        for asset in {asset for _, asset in posted}:
            assert sum(amount for (_, of), amount in posted.items() if of == asset) == 0

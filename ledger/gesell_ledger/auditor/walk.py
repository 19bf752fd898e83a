"""The way along a log: entries in, in order; the first finding, or the verdict, out.

Owns the order in which the checks see entries, checkpoints and the end, and the books between them. Fetches nothing:
who has entries hands them in, some at a time.

1. Entries are taken apart and their signatures verified in threads while those before them are decided.
2. An entry is judged by all checks of `checks.ENTRY_CHECKS` before it changes anything.
3. The tree grows by the bytes as they came. Its root at the size of each checkpoint that the reader holds is noted, and
   so is the leaf of each receipt. They are compared at the end, once the log's own checkpoint is known to hold.
4. Between two entries it stops if it is told to. `save` writes down where it is; entries that were handed in and not
   judged by then must come again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from gesell_ledger.auditor.checks import FORM, Checks
from gesell_ledger.auditor.findings import Finding, Verdict, Wrong, key_at
from gesell_ledger.auditor.held import Held, audited_before
from gesell_ledger.auditor.kinds import LogCheck
from gesell_ledger.auditor.memory import Memory, sealed_statement
from gesell_ledger.auditor.sentences import reason_of
from gesell_ledger.core.books import Commons
from gesell_ledger.core.decide import Accepted, Outcome, Submission, decide
from gesell_protocol.envelopes import Envelope, verify_envelope
from gesell_protocol.log import Leaf, leaf_hash, read_leaf
from gesell_protocol.notes import BadNote, NoteKey, read_checkpoint, read_note
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Erase, Found, Keys, Rekey, Statement, answered_by, read_statement
from gesell_protocol.tree import EMPTY_ROOT, Frontier

#: Signatures that a thread verifies at a time: libsodium works without the GIL.
CHUNK: Final = 32
THREADS: Final = 2


class Stopped(Exception):
    """The audit was told to stop, after entry `seq`; with a state file it goes on from there."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"stopped after entry {seq}")
        self.seq = seq


class Item:
    """An entry on its way: taken apart as far as it goes, not judged."""

    __slots__ = ("data", "envelope", "leaf", "outcome", "place", "statement", "turn", "unread", "unsaid", "unsigned")

    leaf: Leaf
    #: What was signed, and by whom.
    envelope: Envelope
    statement: Statement
    #: Which of its chunk's signatures are its own.
    turn: int
    unsigned: Future[list[str | None]]

    def __init__(self, place: int, data: bytes) -> None:
        self.place = place
        self.data = data
        self.unread: str | None = None
        self.unsaid: str | None = None
        self.outcome: Outcome | None = None
        try:
            self.leaf = read_leaf(data)
        except Rejected as rejected:
            self.unread = str(rejected)
            return
        self.envelope = Envelope(self.leaf.body, self.leaf.signatures)
        try:
            self.statement = read_statement(self.envelope, min_tick_seconds=1)
        except Rejected as rejected:
            self.unsaid = str(rejected)


class Walk:
    """One audit. `take` entries in order, then `finish`; both raise `Wrong` with the first finding.

    For one thread at a time. `trusted` is a key that must be on the ledger's chain; of `witnesses` at least `quorum`
    must have cosigned. `now_ms` is the reader's clock, None for a log of a demo clock. `stop` is asked before each
    entry whether to stop; then `Stopped` is raised.
    """

    def __init__(
        self,
        note: str,
        memory: Memory,
        *,
        held: Iterable[Held] = (),
        trusted: bytes | None = None,
        witnesses: Sequence[NoteKey] = (),
        quorum: int = 0,
        now_ms: int | None = None,
        checks: Checks | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Begin at the entry after those that `memory` has; raises `Wrong` for what is no checkpoint."""
        try:
            self.note = read_note(note)
            self.checkpoint = read_checkpoint(self.note)
        except BadNote as error:
            raise Wrong(FORM, f"the log's checkpoint can't be read: {reason_of(error)}") from None
        if self.checkpoint.size == 0:
            raise Wrong(FORM, "a log without entries is none: a commons begins with its founding")
        self.memory = memory
        self.trusted = trusted
        self.witnesses = witnesses
        self.quorum = quorum
        self.now_ms = now_ms
        self.cosigned = 0
        self._checks = checks or Checks()
        self._stop = stop or (lambda: False)
        progress = memory.progress
        #: The last checkpoint that an earlier audit came to.
        self.before = audited_before(progress)
        # What a receipt proves is noted in it, for this walk alone.
        self._held = [replace(one, proven=None) for one in (*held, *self.before)]
        self.frontier: Frontier = progress.frontier
        #: The ledger's keys, each with the size from which on it is in force.
        self.keys = list(progress.keys)
        self._first_ms, self._postings, self._melted = progress.first_ms, progress.postings, progress.melted
        #: Entries that were judged; the frontier follows at the end of each hand-in.
        self.place = progress.frontier.size
        self._handed = self.place
        self._hashes: list[bytes] = []
        self._items: list[Item] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")
        self._roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._leaves: dict[int, bytes] = {}
        self._sizes = {one.checkpoint.size for one in self._held}
        self._places = {one.place for one in self._held}

    # ── What checks look at ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def commons(self) -> Commons | None:
        """The commons as it stands, None before its founding."""
        return self.memory.books.commons

    @property
    def at_ms(self) -> int:
        """The time of the entry before."""
        return self.commons.at_ms if self.commons is not None else 0

    def key_at(self, size: int) -> bytes:
        """The ledger's key in force at so many entries."""
        return key_at(self.keys, size)

    def root_at(self, size: int) -> bytes | None:
        """The root over the first `size` entries, where a checkpoint that the reader holds asks for it."""
        return self._roots.get(size)

    def leaf_at(self, place: int) -> bytes | None:
        """The leaf hash of an entry of which the reader holds a receipt; None for one that was audited before."""
        return self._leaves.get(place)

    def beyond(self) -> list[Held]:
        """Checkpoints that the reader holds of more entries than the log has."""
        return [one for one in self._held if one.checkpoint.size > self.place]

    def decided(self, item: Item) -> Outcome:
        """What deciding the entry again comes to."""
        if item.outcome is None:
            statement, memory = item.statement, self.memory
            self._look_up(statement)
            ledger = statement.ledger if isinstance(statement, Found) else b""
            books, keys = memory.books, memory.books.keys
            if isinstance(statement, Keys):
                named = (*statement.add, *statement.revoke, *item.envelope.signers, statement.by)
                shown = {name: keys[name] for name in named if name in keys}
                books.keys = {**shown, **memory.keys_of(statement.by)}
            try:
                submission = Submission(item.envelope, statement)
                item.outcome = decide(books, submission, now_ms=item.leaf.at_ms, ledger=ledger)
            finally:
                books.keys = keys
        return item.outcome

    def _look_up(self, statement: Statement) -> None:
        """Put into the books what the entry speaks of and only the disk remembers."""
        memory = self.memory
        books = memory.books
        answered = answered_by(statement)
        for name in (*((answered,) if answered is not None else ()), *getattr(statement, "after", ())):
            gift = memory.gift(name)
            if gift is not None:
                books.gifts[name] = gift
        if answered is not None:
            hold = memory.hold(answered)
            if hold is not None:
                books.holds[answered] = hold
        if isinstance(statement, Erase):
            by = memory.sealed_by(statement.statement)
            if by is not None:
                books.entries[statement.statement] = sealed_statement(by)

    # ── Walking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def earlier(self) -> set[int]:
        """The sizes, up to where the log was audited before, whose roots `begins_with` wants to know."""
        size = self.place
        return {size, *(one.checkpoint.size for one in self._held if one.checkpoint.size <= size)} - {0}

    def begins_with(self, roots: Mapping[int, bytes]) -> bool:
        """Hear which roots the log has at the sizes of `earlier`, and, where it ends before, there; raises `Wrong`.

        Whether it goes on from what was audited before. If not, it is to be audited anew, from its first entry, with
        `before` among what is held: the books as they are would accuse where nothing is wrong.
        """
        size = self.place
        self._roots.update(roots)
        self._check(self._checks.start)
        if size and size not in roots:
            # The log ends before: nothing can be added to what was audited.
            self.place = max(roots, default=0)
            return True
        return self._roots[size] == self.memory.progress.frontier.root

    def take(self, entries: Sequence[bytes]) -> None:
        """Take the next entries; judges those handed in before. Raises `Wrong`."""
        items = [Item(self._handed + 1 + turn, data) for turn, data in enumerate(entries)]
        self._handed += len(items)
        whole = [item for item in items if item.unread is None]
        for start in range(0, len(whole), CHUNK):
            chunk = whole[start : start + CHUNK]
            unsigned = self._threads.submit(_verify, [item.envelope for item in chunk])
            for turn, item in enumerate(chunk):
                item.unsigned, item.turn = unsigned, turn
        waiting, self._items = self._items, items
        self._judge(waiting)

    def finish(self) -> Verdict:
        """Judge what is left and the log as a whole; the verdict if all holds. Raises `Wrong`."""
        self.catch_up()
        self._check(self._checks.log)
        self._compare()
        self._check(self._checks.asked)
        self._note(str(self.note))
        self.memory.commit()
        return self.verdict()

    def catch_up(self) -> None:
        """Judge all that was handed in."""
        waiting, self._items = self._items, []
        self._judge(waiting)

    def save(self) -> None:
        """Write down where the walk is."""
        self._note(self.memory.progress.note)
        self.memory.commit()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _note(self, note: str) -> None:
        self.memory.progress = replace(
            self.memory.progress,
            frontier=self.frontier,
            keys=tuple(self.keys),
            first_ms=self._first_ms,
            postings=self._postings,
            melted=self._melted,
            note=note,
        )

    def _judge(self, items: Sequence[Item]) -> None:
        self.memory.look_for([item.statement.id for item in items if item.unread is None and item.unsaid is None])
        try:
            for item in items:
                if self._stop():
                    raise Stopped(self.place)
                for check in self._checks.entries:
                    wrong = check.wrong(self, item)
                    if wrong is not None:
                        raise Wrong(check.code, wrong, seq=item.place)
                self._apply(item)
        except (Wrong, Stopped):
            # Nothing after it is judged.
            self._items = []
            raise
        finally:
            self._grow()

    def _apply(self, item: Item) -> None:
        accepted, statement = self.decided(item), item.statement
        assert isinstance(accepted, Accepted)
        self.memory.take(accepted, sealed=statement.memo is not None, by=statement.by)
        self.place = item.place
        leaf = leaf_hash(item.data)
        self._hashes.append(leaf)
        if item.place in self._places:
            self._leaves[item.place] = leaf
        postings = accepted.entry.postings
        self._postings += len(postings)
        self._melted -= sum([one.amount for one in postings if one.reason == "melt" and isinstance(one.holder, bytes)])
        if isinstance(statement, Found):
            self._first_ms = item.leaf.at_ms
            self.keys = [(1, statement.ledger)]
        elif isinstance(statement, Rekey):
            self.keys.append((item.place, statement.ledger))
        if item.place in self._sizes:
            self._grow()
            self._roots[item.place] = self.frontier.root

    def _grow(self) -> None:
        """Let the tree take the entries that were judged."""
        self.frontier, _ = self.frontier.grown(self._hashes)
        self._hashes.clear()

    def _check(self, checks: Sequence[LogCheck]) -> None:
        for check in checks:
            wrong = check.wrong(self)
            if wrong is not None:
                raise Wrong(check.code, wrong)

    def _compare(self) -> None:
        """Hold the log to what the reader holds of it, in the order of the log."""
        receipts = [one for one in self._held if one.receipt is not None and one.place <= self.place]
        there = [one for one in self._held if one.checkpoint.size <= self.place]
        stops = [(one.place, 0, one, self._checks.receipts) for one in receipts]
        stops += [(one.checkpoint.size, 1, one, self._checks.held) for one in there]
        for place, _, one, checks in sorted(stops, key=lambda stop: stop[:2]):
            for check in checks:
                wrong = check.wrong(self, one)
                if wrong is not None:
                    raise Wrong(check.code, wrong, seq=place)

    def verdict(self, finding: Finding | None = None) -> Verdict:
        """What can be said so far."""
        commons = self.commons
        return Verdict(
            commons=commons.id if commons is not None else b"",
            name=commons.name if commons is not None else "",
            currency=commons.currency.code if commons is not None else "",
            scale=commons.currency.scale if commons is not None else 0,
            entries=self.place,
            postings=self._postings,
            melted=self._melted,
            first_ms=self._first_ms,
            last_ms=self.at_ms,
            keys=tuple(self.keys),
            trusted=self.trusted is not None,
            cosigned=self.cosigned,
            size=self.checkpoint.size,
            root=self.checkpoint.root,
            note=str(self.note),
            finding=finding,
        )


def _verify(envelopes: Sequence[Envelope]) -> list[str | None]:
    """Of each envelope, what is wrong with its signatures."""
    return [_fault_of(envelope) for envelope in envelopes]


def _fault_of(envelope: Envelope) -> str | None:
    try:
        verify_envelope(envelope)
    except Rejected as rejected:
        return rejected.refusal.detail
    return None

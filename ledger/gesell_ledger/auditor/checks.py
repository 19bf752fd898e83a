"""What an audit checks, in tables; the first check that does not hold is the verdict (SPEC §3–§6).

Owns every reason for which a log does not hold, but for `form` and `fetch`: bytes that are no log at all. A check
returns a sentence about what is wrong, or None; nothing else judges. A test takes each of them away in turn and sees a
forgery pass.

Where an audit goes on from an earlier one:
 1. `older`       the log's checkpoint covers what was audited before
 2. `another`     the log begins with what was audited before, as far as no signed checkpoint speaks for that
For every entry, in the order of the log:
 3. `more`        the checkpoint covers it
 4. `leaf`        it is canonical leaf data
 5. `order`       its number follows the one before
 6. `time`        its time is not before that of the entry before
 7. `clock`       its time is not ahead of the reader's clock
 8. `statement`   its body is a statement as SPEC §3 has it
 9. `commons`     the statement is meant for this commons
10. `signature`   every signature on it verifies
11. `id`          its id was not used before
12. `sum`         its postings sum to zero for each asset
13. `ledger-word` what the ledger itself says, its hand-over too, is signed by the key in force
14. `refused`     decided again on the books before it, it is accepted
15. `melt`        what melted is what the law takes, to the grain
16. `posting`     it posts what deciding it again posts, in that order
At the end:
17. `truncated`  the log has as many entries as its checkpoint says
18. `origin`     the checkpoint is of this commons' log
19. `checkpoint` it is signed by the key in force at its size
20. `root`       the tree over the entries has the checkpoint's root
Then of every receipt and checkpoint that the reader holds. Only now: before 19 and 20 hold, whatever does not fit may
be the work of somebody who altered the file, and nothing may be said of the ledger.
21. `receipt`      the receipt holds, and proves the entry under its number
22. `held`         the key in force there signed that checkpoint
23. `equivocation` the log up to there has its root; what was audited before counts as such a checkpoint
And what else the reader asks:
24. `ledger`     the key that the reader trusts is the ledger's, or was
25. `witness`    as many of the reader's witnesses have cosigned as it asks for
26. `behind`     the log reaches as far as every checkpoint that the reader holds
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gesell_ledger.auditor.kinds import EntryCheck, HeldCheck, LogCheck
from gesell_ledger.auditor.sentences import file_of, name_of, note_of, posting_of, postings_of, reason_of
from gesell_ledger.core.decide import Accepted
from gesell_protocol.log import Posting, leaf_hash
from gesell_protocol.names import base64_text, did_of, id_text
from gesell_protocol.notes import BadNote, NoteKey, count_cosigned, origin_of, verify_checkpoint
from gesell_protocol.proofs import BadReceipt, verify_receipt
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import LEDGER_TYPES, Rekey

if TYPE_CHECKING:
    from gesell_ledger.auditor.held import Held
    from gesell_ledger.auditor.walk import Item, Walk

#: The bytes are no log file, no bundle, no checkpoint; the log can't be fetched as a log.
FORM: Final = "form"
#: How far ahead of the reader's clock an entry may be: clocks differ.
AHEAD_MS: Final = 120_000
#: How many assets that do not sum to zero a sentence names.
_LISTED_MAX: Final = 6


def check_goes_on(walk: Walk) -> str | None:
    """The log has not become shorter since it was audited."""
    before, size = walk.memory.progress.frontier.size, walk.checkpoint.size
    if size >= before:
        return None
    return (
        f"its checkpoint says {size} entries, and {before} were audited before: it is an older copy, or was cut."
        " Audit it without --state to see whether it holds by itself"
    )


def check_same(walk: Walk) -> str | None:
    """The log begins with what was audited before; where a signed checkpoint denies it, that is judged at the end."""
    before = walk.memory.progress.frontier
    if walk.root_at(before.size) in (None, before.root) or any(
        walk.root_at(one.checkpoint.size) not in (None, one.checkpoint.root) for one in walk.before
    ):
        return None
    return (
        f"its first {before.size} entries are not those that you audited before, and nothing signed speaks for those:"
        " that audit did not come to the end of its log. Say the right log, or delete the state to begin anew"
    )


START_CHECKS: Final = (LogCheck("older", check_goes_on), LogCheck("another", check_same))


# ── Entries ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_covered(walk: Walk, item: Item) -> str | None:
    """The checkpoint covers the entry."""
    size = walk.checkpoint.size
    return f"the checkpoint covers {size} entries, and here comes another" if item.place > size else None


def check_leaf(walk: Walk, item: Item) -> str | None:
    """The entry is canonical leaf data."""
    return f"its bytes are no entry: {reason_of(item.unread)}" if item.unread is not None else None


def check_order(walk: Walk, item: Item) -> str | None:
    """Entries are numbered without a gap."""
    return f"it calls itself entry {item.leaf.seq}" if item.leaf.seq != item.place else None


def check_time(walk: Walk, item: Item) -> str | None:
    """The time never runs back."""
    back = walk.at_ms - item.leaf.at_ms
    return f"its time is {back} ms before that of the entry before" if back > 0 else None


def check_clock(walk: Walk, item: Item) -> str | None:
    """No ledger with a right clock writes what is yet to come."""
    if walk.now_ms is None or item.leaf.at_ms <= walk.now_ms + AHEAD_MS:
        return None
    ahead = (item.leaf.at_ms - walk.now_ms) // 1000
    return f"its time is {ahead} seconds ahead of your clock. If the log is of a demo clock, say --demo"


def check_statement(walk: Walk, item: Item) -> str | None:
    """The body is a statement."""
    return f"its body is no statement: {reason_of(item.unsaid)}" if item.unsaid is not None else None


def check_commons(walk: Walk, item: Item) -> str | None:
    """The statement is meant for this commons."""
    commons = item.statement.commons
    if walk.commons is not None and commons != walk.commons.id:
        return f"its statement is meant for the commons {commons.hex()}"
    return None


def check_signature(walk: Walk, item: Item) -> str | None:
    """All signatures hold."""
    fault = item.unsigned.result()[item.turn]
    return None if fault is None else reason_of(fault)


def check_id(walk: Walk, item: Item) -> str | None:
    """An id takes effect once."""
    used = walk.memory.is_used(item.statement.id)
    return f"its id {id_text(item.statement.id)} was used by an entry before" if used else None


def check_sum(walk: Walk, item: Item) -> str | None:
    """Each asset sums to zero."""
    sums: dict[str, int] = {}
    for _, _, asset, amount in item.leaf.postings:
        sums[asset] = sums.get(asset, 0) + amount
    astray = [f"{amount:+d} grains of {name_of(asset)}" for asset, amount in sums.items() if amount][:_LISTED_MAX]
    return f"its postings do not sum to zero: {', '.join(astray)}" if astray else None


def check_ledger_word(walk: Walk, item: Item) -> str | None:
    """Only the key in force speaks for the ledger, and it goes together with the one that comes."""
    statement = item.statement
    if walk.commons is None or statement.type not in LEDGER_TYPES:
        return None
    keys = [key for key, _ in item.leaf.signatures]
    needed = [walk.commons.ledger, *([statement.ledger] if isinstance(statement, Rekey) else [])]
    if statement.by == walk.commons.ledger and all(key in keys for key in needed):
        return None
    return f"a {statement.type} is the ledger's word, and {' and '.join(map(did_of, needed))} did not sign it"


def check_accepted(walk: Walk, item: Item) -> str | None:
    """Decided again, the entry is accepted."""
    outcome = walk.decided(item)
    if isinstance(outcome, Refusal):
        return f"decided again, it is refused: {outcome.code}: {reason_of(outcome.detail)}"
    return None


def check_melt(walk: Walk, item: Item) -> str | None:
    """What melted is what the law takes."""
    says, takes = (_melts(postings) for postings in (item.leaf.postings, _decided(walk, item)))
    if says == takes:
        return None
    for said, taken in zip(says, takes, strict=False):
        if said != taken:
            return f"a melt of {posting_of(said)}, where the law takes {posting_of(taken)}"
    if len(says) > len(takes):
        return f"a melt of {posting_of(says[len(takes)])}, where the law takes nothing"
    return f"no melt of {posting_of(takes[len(says)])}, which the law takes"


def check_postings(walk: Walk, item: Item) -> str | None:
    """The entry posts exactly what deciding it again posts."""
    decided = _decided(walk, item)
    if item.leaf.postings == decided:
        return None
    return f"it posts {postings_of(item.leaf.postings)}, decided again it posts {postings_of(decided)}"


def _decided(walk: Walk, item: Item) -> tuple[Posting, ...]:
    outcome = walk.decided(item)
    assert isinstance(outcome, Accepted)
    return outcome.entry.postings


def _melts(postings: Iterable[Posting]) -> list[Posting]:
    return [posting for posting in postings if posting.reason == "melt"]


ENTRY_CHECKS: Final = (
    EntryCheck("more", check_covered),
    EntryCheck("leaf", check_leaf),
    EntryCheck("order", check_order),
    EntryCheck("time", check_time),
    EntryCheck("clock", check_clock),
    EntryCheck("statement", check_statement),
    EntryCheck("commons", check_commons),
    EntryCheck("signature", check_signature),
    EntryCheck("id", check_id),
    EntryCheck("sum", check_sum),
    EntryCheck("ledger-word", check_ledger_word),
    EntryCheck("refused", check_accepted),
    EntryCheck("melt", check_melt),
    EntryCheck("posting", check_postings),
)


# ── The whole log ────────────────────────────────────────────────────────────────────────────────────────────────


def check_whole(walk: Walk) -> str | None:
    """As many entries as the checkpoint says."""
    size, there = walk.checkpoint.size, walk.place
    return f"the checkpoint says {size} entries, the log ends after {there}" if there < size else None


def check_origin(walk: Walk) -> str | None:
    """The checkpoint is of this log."""
    assert walk.commons is not None
    origin = walk.checkpoint.origin
    if origin == origin_of(walk.commons.id):
        return None
    return f"the checkpoint is of {name_of(origin)}, the entries are of {origin_of(walk.commons.id)}"


def check_signed(walk: Walk) -> str | None:
    """The checkpoint is signed by the key in force."""
    try:
        walk.note.verify(NoteKey(walk.checkpoint.origin, walk.key_at(walk.checkpoint.size)))
    except (BadNote, ValueError) as error:
        return f"the log's checkpoint does not hold: {reason_of(error)}"
    return None


def check_root(walk: Walk) -> str | None:
    """The tree has the checkpoint's root."""
    root, said = walk.frontier.root, walk.checkpoint.root
    if root == said:
        return None
    return f"the entries have the root {base64_text(root)}, the checkpoint says {base64_text(said)}"


LOG_CHECKS: Final = (
    LogCheck("truncated", check_whole),
    LogCheck("origin", check_origin),
    LogCheck("checkpoint", check_signed),
    LogCheck("root", check_root),
)


# ── What the reader holds ────────────────────────────────────────────────────────────────────────────────────────


def check_receipt(walk: Walk, held: Held) -> str | None:
    """The receipt holds by a key of this ledger, and the entry in it is the log's."""
    assert held.receipt is not None
    assert walk.commons is not None
    try:
        held.proven = verify_receipt(held.receipt, ledger=walk.keys[0][1])
    except BadReceipt as error:
        return f"the receipt {file_of(held.name)} does not hold: {reason_of(error)}"
    leaf = walk.leaf_at(held.place)
    if held.proven.commons != walk.commons.id:
        return f"the receipt {file_of(held.name)} is of the commons {held.proven.commons.hex()}"
    # Without a leaf the entry was audited before: then it is the checkpoint's matter, whose tree has the entry.
    if leaf is not None and leaf_hash(held.leaf) != leaf:
        return f"the receipt {file_of(held.name)} proves another entry under this number"
    return None


def check_held(walk: Walk, held: Held) -> str | None:
    """The ledger signed what the reader holds; for a receipt its own hand-overs say with which key."""
    if held.proven is not None:
        return None
    assert walk.commons is not None
    size = held.checkpoint.size
    try:
        verify_checkpoint(held.note, commons=walk.commons.id, ledger=walk.key_at(size))
    except BadNote as error:
        return f"{file_of(held.name)} is no checkpoint by the ledger's key at {size} entries: {reason_of(error)}"
    return None


def check_lead_through(walk: Walk, held: Held) -> str | None:
    """The log leads through the checkpoint."""
    size, said = held.checkpoint.size, held.checkpoint.root
    root = walk.root_at(size)
    assert root is not None
    if root == said:
        return None
    return (
        f"{file_of(held.name)} has the root {base64_text(said)} over {size} entries, in this log they have"
        f" {base64_text(root)}: the ledger told two histories that do not lead up to each other. Keep both checkpoints,"
        f" they prove it:\n{note_of(str(held.note))}\n{note_of(str(walk.note))}"
    )


RECEIPT_CHECKS: Final = (HeldCheck("receipt", check_receipt),)
HELD_CHECKS: Final = (
    HeldCheck("held", check_held),
    HeldCheck("equivocation", check_lead_through),
)


# ── What else the reader asks ────────────────────────────────────────────────────────────────────────────────────


def check_trusted(walk: Walk) -> str | None:
    """The reader's key is on the ledger's chain of keys."""
    keys = [key for _, key in walk.keys]
    if walk.trusted is None or walk.trusted in keys:
        return None
    return f"{did_of(walk.trusted)} never was this ledger's key: it has {', then '.join(map(did_of, keys))}"


def check_witnesses(walk: Walk) -> str | None:
    """Enough witnesses have cosigned."""
    try:
        walk.cosigned = count_cosigned(walk.note, walk.witnesses)
    except BadNote as error:
        return reason_of(error)
    if walk.cosigned < walk.quorum:
        return f"{walk.cosigned} of your witnesses have cosigned the checkpoint, {walk.quorum} must have"
    return None


def check_reaches(walk: Walk) -> str | None:
    """Nothing that the ledger signed and the reader holds goes beyond the log."""
    for held in walk.beyond():
        wrong = check_held(walk, held)
        return wrong or (
            f"{file_of(held.name)} is a checkpoint of {held.checkpoint.size} entries, and this log ends after"
            f" {walk.place}: it is an older copy, or was cut"
        )
    return None


ASKED_CHECKS: Final = (
    LogCheck("ledger", check_trusted),
    LogCheck("witness", check_witnesses),
    LogCheck("behind", check_reaches),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """All checks, in their order."""

    start: tuple[LogCheck, ...] = START_CHECKS
    entries: tuple[EntryCheck, ...] = ENTRY_CHECKS
    log: tuple[LogCheck, ...] = LOG_CHECKS
    receipts: tuple[HeldCheck, ...] = RECEIPT_CHECKS
    held: tuple[HeldCheck, ...] = HELD_CHECKS
    asked: tuple[LogCheck, ...] = ASKED_CHECKS

    @property
    def codes(self) -> list[str]:
        """Their codes, in order."""
        tables = (self.start, self.entries, self.log, self.receipts, self.held, self.asked)
        return [code for table in tables for code in _codes(table)]

    def without(self, code: str) -> Checks:
        """All but one: how a test sees that it is needed."""
        return Checks(
            start=tuple(check for check in self.start if check.code != code),
            entries=tuple(check for check in self.entries if check.code != code),
            log=tuple(check for check in self.log if check.code != code),
            receipts=tuple(check for check in self.receipts if check.code != code),
            held=tuple(check for check in self.held if check.code != code),
            asked=tuple(check for check in self.asked if check.code != code),
        )


def _codes(table: tuple[EntryCheck | HeldCheck | LogCheck, ...]) -> list[str]:
    return [check.code for check in table]

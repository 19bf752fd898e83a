"""Forgeries, each made so that one check of the auditor alone can tell: what is forged, and the code that names it.

The forger is the ledger's operator: hashes are computed anew and the checkpoint is signed with the ledger's real key
(`tests.forgery`). Where a statement is forged, its author lent a hand, unless the case says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from gesell_ledger.auditor.auditing import Question, audit_file
from gesell_ledger.auditor.checks import AHEAD_MS, Checks
from gesell_ledger.auditor.findings import Verdict
from gesell_ledger.auditor.held import Held, read_held
from gesell_ledger.auditor.walk import Stopped
from gesell_protocol.canonical import unpack
from gesell_protocol.log import Leaf, Posting
from gesell_protocol.names import POOL
from gesell_protocol.notes import WITNESS_KEY, Checkpoint, Note, NoteKey, Signature, cosign, origin_of, sign_note
from gesell_protocol.statements import write_body
from tests.forgery import NEW_LEDGER, Log, Scribe, log_of, moved, signed_anew, tell_story
from tests.histories import CODE, HOUR_MS, LEDGER, key, seal, signer_of, stamp

ANNA, BEN, CARL, SARA = (key(name) for name in ("anna", "ben", "carl", "sara"))


@cache
def honest() -> Log:
    """The story's log as it is."""
    return log_of(*tell_story())


@dataclass(frozen=True)
class Shown:
    """What an auditor is shown: a log, under its own checkpoint unless `note` is another, and what it is asked.

    `before`: a log that was audited first, with the same state; `stopped`: an audit that was stopped after so many
    entries of it. `now_ms`: the reader's clock.
    """

    log: Log
    note: Note | None = None
    held: tuple[Held, ...] = ()
    trusted: bytes | None = None
    witnesses: tuple[NoteKey, ...] = ()
    quorum: int = 0
    before: Log | None = None
    stopped: int | None = None
    now_ms: int | None = None

    def audit(self, folder: Path, checks: Checks | None = None) -> Verdict:
        """The verdict on it."""
        state = folder / "state" if self.before is not None else None
        question = Question(
            held=self.held,
            trusted=self.trusted,
            witnesses=self.witnesses,
            quorum=self.quorum,
            state=state,
            now_ms=self.now_ms,
            checks=checks,
        )
        if state is not None and self.before is not None:
            state.unlink(missing_ok=True)
            self._audit_before(self.before.write(folder / "before"), Question(state=state))
        return audit_file(self.log.write(folder / "log", note=self.note), question)

    def _audit_before(self, path: Path, question: Question) -> None:
        asked = count()
        try:
            first = audit_file(path, question, stop=lambda: next(asked) == self.stopped)
        except Stopped:
            return
        assert self.stopped is None
        assert first.holds, first


@dataclass(frozen=True)
class Case:
    """A forgery: the code that must name it, the entry at which it shows (a number or a name), and how it is made."""

    code: str
    at: int | str | None
    make: Callable[[], Shown]

    def place(self) -> int | None:
        return self.at if self.at is None else honest().place(self.at)


CASES: dict[str, Case] = {}


def case(code: str, at: int | str | None = None) -> Callable[[Callable[[], Shown | Log]], Callable[[], Shown | Log]]:
    """Register a forgery under its function's name."""

    def register(make: Callable[[], Shown | Log]) -> Callable[[], Shown | Log]:
        def shown() -> Shown:
            made = make()
            return Shown(made) if isinstance(made, Log) else made

        CASES[make.__name__] = Case(code, at, shown)
        return make

    return register


def paid(leaf: Leaf, by: bytes, postings: tuple[Posting, ...], **fields: Any) -> Leaf:
    """Another statement by `by` in the manner of a leaf, with these postings and a true signature."""
    body = unpack(leaf.body)
    assert isinstance(body, dict)
    envelope = seal(write_body({**body, "by": by, **fields}), [by])
    return Leaf(leaf.seq, leaf.at_ms, envelope.body, envelope.signatures, postings)


def a_payment(*, amount: int = 3, **fields: Any) -> Leaf:
    """One more payment by Carl after entry 11, when nothing melts."""
    log = honest()
    like = log.leaf("pay carl")
    lines = (Posting("pay", CARL, CODE, -amount), Posting("pay", BEN, CODE, amount))
    fields = {"legs": [[BEN, amount]], **stamp(like.at_ms, 999), **fields}
    return paid(like, CARL, lines, **fields)


# ── Entries that are forged ──────────────────────────────────────────────────────────────────────────────────────


@case("more", 27)
def an_entry_beyond_the_checkpoint() -> Shown:
    return Shown(honest(), note=honest().note(size=26))


@case("leaf", "pay")
def a_number_in_a_longer_form() -> Log:
    data = honest().entries[honest().place("pay") - 1]
    assert data[1] == 9
    return honest().with_bytes("pay", data[:1] + b"\xcc\x09" + data[2:])


@case("order", "pay ben")
def an_entry_dropped() -> Log:
    return honest().without("pay ben", renumbered=False)


@case("order", "pay ben")
def two_entries_swapped() -> Log:
    return honest().swapped("pay ben", "pay carl", renumbered=False)


@case("time", "pay ben")
def a_time_that_runs_back() -> Log:
    return honest().changed("pay ben", lambda leaf: leaf._replace(at_ms=leaf.at_ms - 1))


@case("clock", "sweep anew")
def a_time_that_is_yet_to_come() -> Shown:
    return Shown(honest(), now_ms=honest().leaf("sweep anew").at_ms - AHEAD_MS - 1)


@case("statement", "pay ben")
def a_field_that_no_payment_has() -> Log:
    return honest().changed("pay ben", lambda leaf: signed_anew(leaf, signers=[BEN], colour="green"))


@case("commons", 12)
def a_payment_of_another_commons() -> Log:
    return honest().with_entry("pay carl", a_payment(commons=b"another commons!"))


@case("signature", "pay ben")
def an_amount_changed_in_the_statement() -> Log:
    def change(leaf: Leaf) -> Leaf:
        body = unpack(leaf.body)
        assert isinstance(body, dict)
        postings = tuple(moved(leaf.postings, {0: -1, 1: 1}))
        return leaf._replace(body=write_body({**body, "legs": [[CARL, 101]]}), postings=postings)

    return honest().changed("pay ben", change)


@case("id", 11)
def a_payment_taken_twice() -> Log:
    return honest().with_entry("pay ben", honest().leaf("pay ben"))


@case("id", 27)
def an_old_payment_taken_again() -> Log:
    leaf = honest().leaf("last")
    return honest().with_entry("last", leaf._replace(postings=tuple(leaf.postings[-2:])))


@case("sum", "pay ben")
def a_grain_out_of_nothing() -> Log:
    return honest().reposted("pay ben", lambda postings: moved(postings, {1: 1}))


@case("ledger-word", "sweep")
def a_sweep_that_somebody_else_says() -> Log:
    return honest().changed("sweep", lambda leaf: signed_anew(leaf, signers=[SARA], by=SARA))


@case("ledger-word", "sweep")
def a_sweep_that_somebody_else_signs() -> Log:
    return honest().changed("sweep", lambda leaf: signed_anew(leaf, signers=[SARA]))


@case("ledger-word", "sweep anew")
def a_sweep_by_the_key_that_went() -> Log:
    return honest().changed("sweep anew", lambda leaf: signed_anew(leaf, signers=[LEDGER], by=LEDGER))


@case("ledger-word", "rekey")
def a_hand_over_that_the_new_key_did_not_sign() -> Log:
    return honest().changed("rekey", lambda leaf: signed_anew(leaf, signers=[LEDGER]))


@case("ledger-word", "rekey")
def a_hand_over_that_the_old_key_did_not_sign() -> Log:
    return honest().changed("rekey", lambda leaf: signed_anew(leaf, signers=[NEW_LEDGER]))


@case("refused", "pay ben")
def a_valid_signature_of_the_wrong_key() -> Log:
    return honest().changed("pay ben", lambda leaf: signed_anew(leaf, signers=[CARL]))


@case("refused", 8)
def an_entry_dropped_and_the_rest_renumbered() -> Shown:
    # It shows where the money is missing: in the payment that is entry 8 now.
    return Shown(honest().without("issue", renumbered=True))


@case("refused", 8)
def two_entries_swapped_and_renumbered() -> Log:
    return honest().swapped("issue", "pay", renumbered=True)


@case("refused", "policy")
def a_policy_announced_a_tick_late() -> Log:
    from_tick = honest().leaf("policy").at_ms // HOUR_MS
    return honest().changed("policy", lambda leaf: signed_anew(leaf, signers=[SARA], from_tick=from_tick))


@case("refused", "pay ben")
def a_payment_that_had_expired() -> Log:
    late = stamp(honest().leaf("pay ben").at_ms - 300_001, 998)
    return honest().changed("pay ben", lambda leaf: signed_anew(leaf, signers=[BEN], **late))


@case("refused", "very last")
def a_payment_beyond_the_credit() -> Log:
    lines = (Posting("pay", ANNA, CODE, -(10**9)), Posting("pay", BEN, CODE, 10**9))
    return honest().changed(
        "very last",
        lambda leaf: signed_anew(leaf, signers=[ANNA], legs=[[BEN, 10**9]])._replace(postings=lines),
    )


@case("refused", "thank")
def a_gift_thanked_for_by_its_giver() -> Log:
    return honest().changed("thank", lambda leaf: signed_anew(leaf, signers=[ANNA], by=ANNA))


@case("refused", "moved")
def a_gift_moved_by_one_that_never_was() -> Log:
    return honest().changed("moved", lambda leaf: signed_anew(leaf, signers=[BEN], after=[b"no such gift id!"]))


@case("refused", "capture")
def a_capture_of_no_hold() -> Log:
    return honest().changed("capture", lambda leaf: signed_anew(leaf, signers=[BEN], hold=b"no such hold id!"))


@case("refused", "erase")
def a_memo_erased_by_a_stranger() -> Log:
    return honest().changed("erase", lambda leaf: signed_anew(leaf, signers=[CARL], by=CARL))


@case("refused", "last")
def a_payment_by_a_key_of_somebody_else() -> Log:
    return honest().changed("last", lambda leaf: signed_anew(leaf, signers=[key("phone")], by=ANNA))


@case("refused", 1)
def a_log_that_begins_later() -> Shown:
    log = honest()
    return Shown(replace(log, entries=log.entries[1:]).renumbered())


@case("melt", "hold")
def a_melt_of_one_grain_too_much() -> Log:
    return honest().reposted("hold", lambda postings: moved(postings, {0: -1, 1: 1}))


@case("melt", "hold")
def a_melt_left_out() -> Log:
    return honest().reposted("hold", lambda postings: postings[2:])


@case("melt", "pay ben")
def a_melt_where_nothing_melts() -> Log:
    made = [Posting("melt", BEN, CODE, -1), Posting("melt", POOL, CODE, 1)]
    return honest().reposted("pay ben", lambda postings: [*made, *postings])


@case("melt", "hold")
def a_policy_applied_a_tick_early() -> Log:
    return log_of(*tell_story(early=1))


@case("posting", "pay ben")
def an_amount_changed_in_the_postings() -> Log:
    return honest().reposted("pay ben", lambda postings: moved(postings, {0: -1, 1: 1}))


@case("posting", "pay")
def two_payees_in_each_others_place() -> Log:
    return honest().reposted("pay", lambda postings: [*postings[:3], postings[4], postings[3]])


@case("posting", "policy")
def a_posting_that_no_statement_asks_for() -> Log:
    made = [Posting("grant", POOL, CODE, -5), Posting("grant", ANNA, CODE, 5)]
    return honest().reposted("policy", lambda postings: made)


# ── What the reader holds ────────────────────────────────────────────────────────────────────────────────────────


def forked() -> Log:
    """Another history, as true as the first by itself: two payments stand the other way round."""
    return honest().swapped("pay ben", "pay carl", renumbered=True)


@case("receipt", "pay ben")
def a_tree_that_does_not_hold_the_receipt() -> Shown:
    return Shown(forked(), held=(read_held("mine", honest().receipt(honest().place("pay ben"))),))


@case("receipt", "pay ben")
def a_receipt_with_a_forged_amount() -> Shown:
    place = honest().place("pay ben")
    other = a_receipt_by(honest().reposted("pay ben", lambda lines: moved(lines, {0: -1, 1: 1})), place, NEW_LEDGER)
    return Shown(honest(), held=(read_held("mine", other),))


@case("receipt", "pay ben")
def a_receipt_of_another_commons() -> Shown:
    other = another_commons()
    return Shown(honest(), held=(read_held("mine", other.receipt(honest().place("pay ben"))),))


def a_receipt_by(log: Log, place: int, by: bytes) -> str:
    """A receipt whose checkpoint is signed by a key that was not in force."""
    return replace(log, keys=((1, by),), handovers=()).receipt(place)


@cache
def another_commons() -> Log:
    """A commons of the same ledger, of the same people."""
    scribe = Scribe(admission="steward", steward="sara", credit_limit=7)
    for name in ("anna", "ben", "carl", "dora", "emil"):
        scribe.admit(name)
    return log_of(scribe, {})


@case("held", 10)
def a_checkpoint_that_somebody_else_signed() -> Shown:
    return Shown(honest(), held=(read_held("theirs", str(honest().note(size=10, by=SARA))),))


@case("held", 26)
def a_checkpoint_by_the_key_that_went() -> Shown:
    return Shown(honest(), held=(read_held("theirs", str(honest().note(size=26, by=LEDGER))),))


@case("equivocation", 27)
def a_log_forked_for_two_readers() -> Shown:
    return Shown(forked(), held=(read_held("mine", str(honest().note())),))


@case("equivocation", 27)
def a_last_entry_dropped_for_another() -> Shown:
    return Shown(log_of(*tell_story(said_twice=True)), held=(read_held("mine", str(honest().note())),))


@case("equivocation", 12)
def a_time_moved_within_its_bounds() -> Shown:
    return Shown(dated_otherwise(), held=(read_held("mine", str(honest().note(size=12))),))


@case("equivocation", 27)
def a_receipt_whose_checkpoint_is_of_another_history() -> Shown:
    # The entry itself stands in both.
    return Shown(forked(), held=(read_held("mine", honest().receipt(honest().place("issue"))),))


@case("equivocation", 20)
def a_log_rewritten_since_it_was_audited() -> Shown:
    return Shown(forked(), before=honest().cut(20))


@case("equivocation", 20)
def a_log_forked_beyond_where_an_audit_was_stopped() -> Shown:
    return Shown(forked(), held=(read_held("mine", str(honest().note(size=20))),), before=honest(), stopped=6)


@case("another", None)
def another_log_than_an_audit_that_was_stopped() -> Shown:
    # Nothing that the ledger signed speaks for the log of the first audit: that one may be the altered one.
    return Shown(forked(), before=honest(), stopped=20)


@case("older", None)
def a_log_that_became_shorter() -> Shown:
    return Shown(honest().cut(20), before=honest())


# ── The whole log ────────────────────────────────────────────────────────────────────────────────────────────────


@case("truncated", None)
def a_log_cut_under_its_checkpoint() -> Shown:
    return Shown(honest().cut(20), note=honest().note())


@case("truncated", None)
def a_log_cut_since_it_was_audited() -> Shown:
    return Shown(honest().cut(19), note=honest().note(), before=honest().cut(20))


@case("truncated", None)
def a_log_cut_before_a_receipt_and_since_it_was_audited() -> Shown:
    receipt = read_held("mine", honest().receipt(5, size=5))
    return Shown(honest().cut(3), note=honest().note(), held=(receipt,), before=honest().cut(10))


@case("origin", None)
def a_checkpoint_of_another_log() -> Shown:
    name = origin_of(b"another commons!")
    text = Checkpoint(name, honest().size, honest().root).text()
    return Shown(honest(), note=sign_note(text, name=name, signer=signer_of(NEW_LEDGER)))


@case("checkpoint", None)
def a_checkpoint_that_nobody_known_signed() -> Shown:
    return Shown(honest(), note=honest().note(by=SARA))


@case("checkpoint", None)
def a_checkpoint_signed_by_the_key_that_went() -> Shown:
    return Shown(honest(), note=honest().note(by=LEDGER))


@case("checkpoint", None)
def a_checkpoint_with_a_spoiled_signature() -> Shown:
    note = honest().note()
    (line,) = note.signatures
    return Shown(honest(), note=Note(note.text, (Signature(line.name, line.key_id, bytes(64)),)))


@case("root", None)
def a_checkpoint_of_another_tree() -> Shown:
    return Shown(honest(), note=honest().note(root=forked().root))


def dated_otherwise() -> Log:
    """Two entries of the same moment a millisecond later: every rule holds, and other hashes come out."""
    log = honest().changed("pay carl", lambda leaf: leaf._replace(at_ms=leaf.at_ms + 1))
    return log.changed("policy", lambda leaf: leaf._replace(at_ms=leaf.at_ms + 1))


@case("root", None)
def a_file_altered_by_a_stranger_under_the_true_checkpoint() -> Shown:
    # The reader's checkpoint is true, and so is the file's: nobody may say that the ledger told two histories.
    return Shown(dated_otherwise(), note=honest().note(), held=(read_held("mine", str(honest().note(size=12))),))


@case("root", None)
def a_file_altered_by_a_stranger_where_the_reader_has_a_receipt() -> Shown:
    place = honest().place("pay carl")
    return Shown(dated_otherwise(), note=honest().note(), held=(read_held("mine", honest().receipt(place)),))


@case("root", None)
def a_file_altered_by_a_stranger_since_it_was_audited() -> Shown:
    return Shown(dated_otherwise(), note=honest().note(), before=honest().cut(20))


@case("checkpoint", None)
def a_history_that_a_stranger_made_up() -> Shown:
    return Shown(forked(), note=forked().note(by=SARA), held=(read_held("mine", str(honest().note(size=20))),))


@case("ledger", None)
def a_log_of_a_ledger_that_the_reader_does_not_know() -> Shown:
    return Shown(honest(), trusted=key("the ledger that I know"))


WITNESSES: Final = tuple(key(name) for name in ("witness one", "witness two"))
VKEYS: Final = tuple(NoteKey(f"w{number}", one, WITNESS_KEY) for number, one in enumerate(WITNESSES))


def cosigned(note: Note, *places: int) -> Note:
    """A checkpoint with the cosignatures of some witnesses."""
    lines = [cosign(note, name=f"w{at}", signer=signer_of(WITNESSES[at]), time_s=1_800_000_000) for at in places]
    return note.with_signatures(lines)


@case("witness", None)
def a_checkpoint_that_too_few_have_cosigned() -> Shown:
    return Shown(honest(), note=cosigned(honest().note(), 1), witnesses=VKEYS, quorum=2)


@case("witness", None)
def a_cosignature_that_does_not_hold() -> Shown:
    other = cosigned(honest().note(size=20), 0).signatures[-1]
    return Shown(honest(), note=honest().note().with_signatures([other]), witnesses=VKEYS, quorum=0)


@case("behind", None)
def a_log_shorter_than_what_its_ledger_signed() -> Shown:
    return Shown(honest().cut(26), held=(read_held("mine", str(honest().note())),))


@case("behind", None)
def a_checkpoint_beyond_the_log_that_somebody_else_signed() -> Shown:
    return Shown(honest().cut(26), held=(read_held("theirs", str(honest().note(by=SARA))),))

"""A commons' log made by the core, and the means to forge it as its operator could.

Owns one story in which most kinds of statements come up, and `Log`: entries that can be changed at will, with all
hashes computed anew and a checkpoint signed by the ledger's real key, so that only the auditor's own checks can tell.
Must not know the auditor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from gesell_ledger.core.books import Books, Entry
from gesell_ledger.core.decide import Accepted, Submission, decide
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import Leaf, Posting, leaf_data, leaf_hash, read_leaf, write_bundle, write_file_head
from gesell_protocol.names import commons_of
from gesell_protocol.notes import Note, sign_checkpoint
from gesell_protocol.policy import Timeline
from gesell_protocol.proofs import write_receipt
from gesell_protocol.statements import read_statement, write_body
from gesell_protocol.tree import Frontier, inclusion_spans
from tests.histories import CODE, HOUR_MS, LEDGER, START_MS, key, keys_of, seal, signer_of, stamp
from tests.speaking import POLICY

NEW_LEDGER: Final = key("the ledger's next key")


class Scribe:
    """A commons kept by the core alone: what is said must be accepted. `now_ms` is its clock, set at will."""

    def __init__(
        self,
        *,
        now_ms: int = START_MS,
        steward: str = "sara",
        ledger: bytes = LEDGER,
        name: str = "Wörgl",
        **policy: Any,
    ) -> None:
        self.now_ms = now_ms
        self.books = Books()
        self.entries: list[Entry] = []
        self.ledger = ledger
        self._ids = 0
        founding = {
            "type": "found",
            "by": key(steward),
            "ledger": ledger,
            "name": name,
            "currency": {"code": CODE, "scale": 6},
            "policy": {**POLICY, **policy},
            "stewards": keys_of(steward),
            "threshold": 1,
            **self._stamp(),
        }
        self.commons = commons_of(write_body(founding))
        self._take(founding, [key(steward)])

    def say(self, kind: str, by: bytes, /, *, signers: Iterable[bytes] | None = None, **fields: Any) -> Entry:
        """Say something that must be accepted."""
        made = {"type": kind, "commons": self.commons, "by": by, **self._stamp(), **fields}
        return self._take(made, [by] if signers is None else signers)

    def admit(self, name: str) -> None:
        """Have somebody join; where stewards decide, they admit."""
        self.say("join", key(name), handle=name)
        if self.books.members[key(name)].status != "active":
            self.say("admit", key("sara"), peer=key(name))

    def pass_hours(self, hours: int) -> None:
        """Let time go by."""
        self.now_ms += hours * HOUR_MS

    def _stamp(self) -> dict[str, Any]:
        self._ids += 1
        return stamp(self.now_ms, self._ids)

    def _take(self, fields: Mapping[str, Any], signers: Iterable[bytes]) -> Entry:
        envelope = seal(write_body(fields), signers)
        statement = read_statement(envelope, min_tick_seconds=1)
        outcome = decide(self.books, Submission(envelope, statement), now_ms=self.now_ms, ledger=self.ledger)
        assert isinstance(outcome, Accepted), outcome
        self.books.apply(outcome.decision, outcome.entry)
        self.entries.append(outcome.entry)
        return outcome.entry


def tell_story(*, early: int = 0, said_twice: bool = False, longer: int = 0) -> tuple[Scribe, dict[str, int]]:
    """A small commons from its founding on; some entries by name: their numbers.

    `early`: its ledger applies the new policy so many ticks before its time. `said_twice`: the last word is another.
    `longer`: so many payments come after it.
    """
    scribe = Scribe(admission="steward", credit_limit=1_000, notice_ticks=1)
    anna, ben, carl, sara = (key(name) for name in ("anna", "ben", "carl", "sara"))
    named: dict[str, int] = {}

    def say(name: str, kind: str, by: bytes, /, **fields: Any) -> Entry:
        entry = scribe.say(kind, by, **fields)
        named[name] = entry.seq
        return entry

    for name in ("anna", "ben", "carl"):
        scribe.admit(name)
    say("issue", "issue", sara, to=anna, amount=100_000)
    scribe.pass_hours(3)
    say("pay", "pay", anna, legs=[[ben, 10_000], [carl, 3_000]])
    say("pay ben", "pay", ben, legs=[[carl, 100]])
    say("pay carl", "pay", carl, legs=[[anna, 10]])
    steep = {**POLICY, "admission": "steward", "credit_limit": 1_000, "notice_ticks": 1, "brackets": [[0, 500_000_000]]}
    say("policy", "policy", sara, policy=steep, from_tick=scribe.now_ms // HOUR_MS + 2)
    if early:
        _apply_early(scribe, early)
    scribe.pass_hours(2)
    held = say("hold", "hold", anna, to=ben, amount=500, until=scribe.now_ms + 10 * HOUR_MS)
    scribe.pass_hours(1)
    say("capture", "capture", ben, hold=held.id, amount=300)
    gift = say("gift", "gift", anna, to=ben, kind="hour", quantity=150)
    say("thank", "thank", ben, gift=gift.id)
    moved = say("moved", "gift", ben, to=carl, kind="hour", quantity=50, after=[gift.id])
    say("decline", "decline", carl, gift=moved.id)
    say("vouch", "vouch", anna, **{"for": carl, "limit": 400})
    sealed = say("sealed", "pay", ben, legs=[[anna, 7]], memo=b"m" * 32)
    say("erase", "erase", ben, statement=sealed.id)
    say("keys", "keys", carl, add=[key("phone")], signers=[carl, key("phone")])
    scribe.pass_hours(4)
    say("sweep", "sweep", LEDGER, accounts=keys_of("ben", "carl"))
    say("rekey", "rekey", LEDGER, ledger=NEW_LEDGER, signers=[LEDGER, NEW_LEDGER])
    scribe.pass_hours(1)
    say("sweep anew", "sweep", NEW_LEDGER, accounts=keys_of("anna", "ben"))
    say("last", "pay", key("carl"), legs=[[ben, 5]], signers=[key("phone")])
    say("very last", "pay", anna, legs=[[ben, 9 if said_twice else 6]])
    for _ in range(longer):
        scribe.say("pay", anna, legs=[[ben, 1]])
    return scribe, named


def _apply_early(scribe: Scribe, ticks: int) -> None:
    """What a cheating ledger does: its books have the announced policy in force before its time."""
    commons = scribe.books.commons
    assert commons is not None
    first, (from_tick, policy) = commons.timeline.changes
    scribe.books.commons = structs.replace(commons, timeline=Timeline.of([first, (from_tick - ticks, policy)]))


@dataclass(frozen=True)
class Log:
    """A log as its operator may make it. `keys` are the ledger's, each with the size from which on it is in force.

    Every change gives another `Log`; hashes, root and checkpoint always are of the entries as they are then.
    """

    commons: bytes
    entries: tuple[bytes, ...]
    keys: tuple[tuple[int, bytes], ...] = ((1, LEDGER),)
    handovers: tuple[Envelope, ...] = ()
    named: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.entries)

    @property
    def root(self) -> bytes:
        return Frontier().grown(map(leaf_hash, self.entries))[0].root

    def note(self, *, size: int | None = None, root: bytes | None = None, by: bytes | None = None) -> Note:
        """A checkpoint, true and signed by the key in force unless told otherwise."""
        size = self.size if size is None else size
        by = [name for since, name in self.keys if since <= size][-1] if by is None else by
        root = self.cut(min(size, self.size)).root if root is None else root
        return sign_checkpoint(commons=self.commons, size=size, root=root, signer=signer_of(by))

    def write(self, path: Path, *, note: Note | None = None) -> Path:
        """The log as a file, under its own checkpoint unless another is given."""
        path.write_bytes(write_file_head(str(note or self.note())) + write_bundle(self.entries))
        return path

    def receipt(self, place: int, *, size: int | None = None) -> str:
        """The offline receipt of an entry, by the checkpoint of some size."""
        shown = self.cut(size or self.size)
        hashes = [
            Frontier().grown(map(leaf_hash, shown.entries[start:end]))[0].root
            for start, end in inclusion_spans(place - 1, shown.size)
        ]
        note = self.note(size=shown.size)
        data = self.entries[place - 1]
        return write_receipt(data, index=place - 1, hashes=hashes, note=note, handovers=self.handovers)

    # ── Forging ──────────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self, size: int) -> Log:
        """The first entries only."""
        return replace(self, entries=self.entries[:size])

    def leaf(self, name: str | int) -> Leaf:
        """An entry by its number or its name in the story, taken apart."""
        return read_leaf(self.entries[self.place(name) - 1])

    def place(self, name: str | int) -> int:
        return name if isinstance(name, int) else self.named[name]

    def with_bytes(self, name: str | int, data: bytes) -> Log:
        """Other bytes in an entry's place."""
        entries = list(self.entries)
        entries[self.place(name) - 1] = data
        return replace(self, entries=tuple(entries))

    def changed(self, name: str | int, change: Callable[[Leaf], Leaf]) -> Log:
        """An entry changed."""
        return self.with_bytes(name, pack_leaf(change(self.leaf(name))))

    def reposted(self, name: str | int, change: Callable[[list[Posting]], Sequence[Posting]]) -> Log:
        """An entry's postings changed."""
        return self.changed(name, lambda leaf: leaf._replace(postings=tuple(change(list(leaf.postings)))))

    def without(self, name: str | int, *, renumbered: bool) -> Log:
        """An entry dropped; those after it move up."""
        place = self.place(name)
        left = replace(self, entries=self.entries[: place - 1] + self.entries[place:])
        return left.renumbered() if renumbered else left

    def with_entry(self, after: str | int, leaf: Leaf) -> Log:
        """An entry more; those after it move down."""
        place = self.place(after)
        return replace(self, entries=(*self.entries[:place], pack_leaf(leaf), *self.entries[place:])).renumbered()

    def swapped(self, first: str, second: str, *, renumbered: bool) -> Log:
        """Two entries in each other's place; renumbered, each takes the other's time too."""
        one, other = self.place(first), self.place(second)
        leaves = [read_leaf(data) for data in self.entries]
        times = [leaf.at_ms for leaf in leaves]
        leaves[one - 1], leaves[other - 1] = leaves[other - 1], leaves[one - 1]
        if renumbered:
            leaves = [leaf._replace(at_ms=at_ms) for leaf, at_ms in zip(leaves, times, strict=True)]
        log = replace(self, entries=tuple(map(pack_leaf, leaves)))
        return log.renumbered() if renumbered else log

    def renumbered(self) -> Log:
        """Entries numbered without a gap, as their operator would."""
        leaves = [read_leaf(data)._replace(seq=seq) for seq, data in enumerate(self.entries, 1)]
        return replace(self, entries=tuple(map(pack_leaf, leaves)))


def pack_leaf(leaf: Leaf) -> bytes:
    """Leaf data from its parts."""
    return leaf_data(seq=leaf.seq, at_ms=leaf.at_ms, body=leaf.body, signatures=leaf.signatures, postings=leaf.postings)


def log_of(scribe: Scribe, named: Mapping[str, int]) -> Log:
    """The log that an honest ledger has, with the names of some entries."""
    return replace(log_of_entries(scribe.commons, scribe.entries), named=named)


def log_of_entries(commons: bytes, entries: Sequence[Entry]) -> Log:
    """The log of these entries."""
    keys, handovers = list[tuple[int, bytes]](), list[Envelope]()
    for entry in entries:
        fields = entry.fields()
        if fields["type"] in ("found", "rekey"):
            keys.append((entry.seq, fields["ledger"]))
        if fields["type"] == "rekey":
            handovers.append(Envelope(entry.body, tuple(entry.signatures)))
    leaves = tuple(entry.leaf_data for entry in entries)
    return Log(commons=commons, entries=leaves, keys=tuple(keys), handovers=tuple(handovers))


def signed_anew(leaf: Leaf, *, signers: Iterable[bytes], **fields: Any) -> Leaf:
    """An entry whose statement says something else, with true signatures of some keys."""
    body = unpack(leaf.body)
    assert isinstance(body, dict)
    envelope = seal(write_body({**body, **fields}), signers)
    return leaf._replace(body=envelope.body, signatures=envelope.signatures)


def moved(postings: Sequence[Posting], changes: Mapping[int, int]) -> list[Posting]:
    """Postings with some amounts changed: place → how many grains more."""
    return [one._replace(amount=one.amount + changes.get(place, 0)) for place, one in enumerate(postings)]

"""The books as a log tells them: its entries with their postings, and the names of currencies, kinds and members.

Owns what every table and journal of an export is made from. Reads leaf data alone, one entry after the other, and
refuses what could not stand in books: an asset or a reason that nobody knows, postings that do not sum to zero. Knows
no format, and computes no posting anew.

1. A member is called by a handle from the moment it is active: who only asked to join may have asked for anybody's.
2. What answers a gift or a hold bears the category of that, so that a category's sum is what was really valued by it.
3. What is kept grows with the members, the kinds, and the gifts and holds that are open; not with the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gesell.answers import moment
from gesell.export_source import BadLog
from gesell_protocol.amounts import BALANCE_MAX
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import Leaf, Posting, read_leaf
from gesell_protocol.names import did_of
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import (
    TYPES,
    Admit,
    ChangePolicy,
    Found,
    Join,
    MakeKind,
    Statement,
    Suspend,
    answered_by,
    read_statement,
)

#: Why something is posted: melt, and the types that post.
REASONS: Final = frozenset({"melt", *TYPES})
#: The kind of gift that every commons has from its founding on (SPEC §3.3): code, unit, scale.
HOUR: Final = ("hour", "h", 2)
#: The last moment whose next day still has a year of four digits.
_LAST_MS: Final = 253_402_214_399_999


@dataclass(frozen=True, slots=True)
class Asset:
    """What is counted: a currency, or a kind of gift, with its number of decimals."""

    code: str
    name: str
    unit: str
    scale: int
    is_gift: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry as books have it; `category` also where it answers a gift or a hold that has one."""

    seq: int
    at_ms: int
    type: str
    id: bytes
    by: bytes
    category: str | None
    postings: tuple[Posting, ...]

    def category_of(self, reason: str) -> str | None:
        """The category of a posting: melt is charged for keeping still, whatever the entry is for."""
        return None if reason == "melt" else self.category


@dataclass(slots=True)
class Books:
    """Takes entries in, in their order, and knows what they named so far."""

    found: Found | None = None
    seq: int = 0
    at_ms: int = 0
    assets: dict[str, Asset] = field(default_factory=dict)
    handles: dict[bytes, str] = field(default_factory=dict)
    _asked: dict[bytes, str] = field(default_factory=dict)
    _suspended: set[bytes] = field(default_factory=set)
    _categories: dict[bytes, str] = field(default_factory=dict)
    _is_open: bool = False

    def take(self, data: bytes) -> Entry:
        """The next entry; raises `BadLog` for what can't be read, or could not be in any books."""
        try:
            leaf = read_leaf(data)
            statement = read_statement(Envelope(leaf.body, leaf.signatures), min_tick_seconds=1)
        except Rejected as rejected:
            raise BadLog(f"entry {self.seq + 1} can't be read: {rejected.refusal.detail}") from None
        self._check_order(leaf, statement)
        self._name(statement)
        self._check_postings(leaf)
        self.seq, self.at_ms = leaf.seq, leaf.at_ms
        for posting in leaf.postings:
            self._is_active(posting.holder)
        return Entry(
            seq=leaf.seq,
            at_ms=leaf.at_ms,
            type=statement.type,
            id=statement.id,
            by=statement.by,
            category=self._category_of(statement),
            postings=leaf.postings,
        )

    def who(self, peer: bytes) -> str:
        """How people call a peer: its handle, or its did where the log tells of none."""
        return self.handles.get(peer) or did_of(peer)

    def _check_order(self, leaf: Leaf, statement: Statement) -> None:
        if leaf.seq != self.seq + 1:
            raise BadLog(f"entry {leaf.seq} stands where entry {self.seq + 1} should")
        if not self.at_ms <= leaf.at_ms <= _LAST_MS:
            raise BadLog(f"the time of entry {leaf.seq} is before that of the last one, or beyond all calendars")
        if isinstance(statement, Found) != (leaf.seq == 1):
            raise BadLog("a log begins with what founds its commons, and has no other such entry")
        if self.found is not None and statement.commons != self.found.commons:
            raise BadLog(f"entry {leaf.seq} is of another commons")

    def _check_postings(self, leaf: Leaf) -> None:
        sums = Counter[str]()
        for posting in leaf.postings:
            if posting.reason not in REASONS or posting.asset not in self.assets:
                raise BadLog(f"entry {leaf.seq} posts {posting.asset!r} for {posting.reason!r}, which nobody knows")
            if abs(posting.amount) > BALANCE_MAX:
                raise BadLog(f"entry {leaf.seq} posts more than any balance can be")
            sums[posting.asset] += posting.amount
        if any(sums.values()):
            raise BadLog(f"the postings of entry {leaf.seq} do not sum to zero")

    def _name(self, statement: Statement) -> None:
        """Learn the names that a statement brings."""
        match statement:
            case Found(currency=currency, name=name):
                self.found = statement
                self._is_open = statement.policy.admission == "open"
                self.assets[currency.code] = Asset(currency.code, name, currency.code, currency.scale, is_gift=False)
                code, unit, scale = HOUR
                self.assets[code] = Asset(code, "hour", unit, scale, is_gift=True)
            case MakeKind(code=code, name=name, unit=unit, scale=scale):
                self.assets.setdefault(code, Asset(code, name, unit, scale, is_gift=True))
            case ChangePolicy():
                # When it is in force takes the law of ticks; the first posting tells who is active all the same.
                self._is_open = False
            case Join(by=peer, handle=handle):
                self._asked[peer] = handle
                if self._is_open and peer not in self._suspended:
                    self._is_active(peer)
            case Suspend(peer=peer):
                self._suspended.add(peer)
            case Admit(peer=peer):
                self._suspended.discard(peer)
                self._is_active(peer)

    def _is_active(self, holder: bytes | str) -> None:
        """Nothing is posted to who has not been active, and an active member has the handle it asked for last."""
        if isinstance(holder, bytes) and holder in self._asked:
            self.handles.setdefault(holder, self._asked.pop(holder))

    def _category_of(self, statement: Statement) -> str | None:
        answered = answered_by(statement)
        if answered is not None:
            return self._categories.pop(answered, None)
        category: str | None = getattr(statement, "category", None)
        if category is not None and statement.type in ("gift", "hold"):
            self._categories[statement.id] = category
        return category


def padded(grains: int, *, scale: int) -> str:
    """An amount as decimal text with all of its decimals: 50 grains at scale 3 are `0.050`; exact."""
    digits = str(abs(grains)).rjust(scale + 1, "0")
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return ("-" if grains < 0 else "") + whole + ("." + fraction if fraction else "")


def utc_text(at_ms: int) -> str:
    """A moment as ISO 8601 in UTC, to the millisecond: `2026-01-01T12:00:00.000Z`."""
    return moment(at_ms).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"


def day_text(at_ms: int, *, later: int = 0) -> str:
    """The day of a moment in UTC, or so many days later."""
    return moment(at_ms + later * 86_400_000).strftime("%Y-%m-%d")


def sums_of(sums: Counter[tuple[bytes | str, str]], postings: Sequence[Posting]) -> None:
    """Add an entry's postings to balances by (holder, asset)."""
    for posting in postings:
        sums[posting.holder, posting.asset] += posting.amount

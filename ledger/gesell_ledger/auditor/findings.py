"""What an audit ends with: one verdict, and where it does not hold, the first thing that is wrong.

Owns the words of it. The codes are stable: scripts and tests go by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gesell_ledger.auditor.sentences import clean, name_of
from gesell_protocol.amounts import format_amount
from gesell_protocol.names import base64_text, did_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What does not hold: a code of `checks`, a sentence, and the entry (from 1) where it shows, if it is one's."""

    code: str
    text: str
    seq: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.seq is None else f"{self.code} at entry {self.seq}: {self.text}"


def key_at(keys: Sequence[tuple[int, bytes]], size: int) -> bytes:
    """Of a ledger's keys, each with the size from which on it is in force, the one at so many entries."""
    return [key for since, key in keys if since <= max(1, size)][-1]


class Wrong(Exception):
    """The audit ends here, with a finding."""

    def __init__(self, code: str, text: str, *, seq: int | None = None) -> None:
        super().__init__(text)
        self.finding = Finding(code=code, text=text, seq=seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an audit found; amounts in grains, times in ms since the Unix epoch.

    `entries` were checked and hold; `finding` is None if the whole log does. `keys` are the ledger's, each with the
    size from which on it is in force; `trusted` says whether the reader named a key that must be among them. `note` is
    the log's checkpoint, of `size` and `root`.
    """

    commons: bytes
    name: str
    currency: str
    scale: int
    entries: int
    postings: int
    melted: int
    first_ms: int
    last_ms: int
    keys: tuple[tuple[int, bytes], ...]
    trusted: bool
    cosigned: int
    size: int
    root: bytes
    note: str
    finding: Finding | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return self.finding is None

    @property
    def ledger(self) -> bytes:
        """The ledger's key in force at the end; empty while none is known."""
        return self.keys[-1][1] if self.keys else b""

    def key_at(self, size: int) -> bytes:
        """The ledger's key in force at so many entries."""
        return key_at(self.keys, size)

    def fields(self) -> dict[str, Any]:
        """The verdict for programs."""
        finding = self.finding
        return {
            "holds": self.holds,
            "commons": self.commons.hex(),
            "name": self.name,
            "ledger": did_of(self.ledger) if self.ledger else None,
            "entries": self.entries,
            "postings": self.postings,
            "melted": str(self.melted),
            "size": self.size,
            "root": base64_text(self.root),
            "cosigned": self.cosigned,
            "checkpoint": self.note,
            "finding": None if finding is None else {"code": finding.code, "entry": finding.seq, "text": finding.text},
        }

    def __str__(self) -> str:
        head = f"{name_of(self.name) or 'A log'} ({self.commons.hex()[:8] or '?'}…)"
        if self.finding is not None:
            found = clean(str(self.finding))
            return f"{head}: THE LOG DOES NOT HOLD\n  {found}\n  {_entries(self.entries)} before it hold."
        melted = format_amount(self.melted, scale=self.scale)
        lines = [
            f"{head}: the log holds.",
            f"  {_entries(self.entries)}, {_day(self.first_ms)} to {_day(self.last_ms)}, {self.postings:,} postings:",
            "  every signature verifies, and decided again every entry comes out the same, to the grain;",
            f"  {melted} {name_of(self.currency)} melted, tick by tick as the law takes it.",
            f"  Checkpoint {self.size} {base64_text(self.root)}",
            f"  signed by {did_of(self.ledger)}",
        ]
        if self.cosigned:
            lines.append(f"  and cosigned by {self.cosigned} of your witnesses")
        if not self.trusted:
            lines.append("  This key is the log's own word: compare it with what you know, or say --ledger DID.")
        return "\n".join(lines)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def _day(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"

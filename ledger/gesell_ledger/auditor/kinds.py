"""The three kinds of checks: of an entry, of what the reader holds, of the log. Their tables are in `checks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gesell_ledger.auditor.held import Held
    from gesell_ledger.auditor.walk import Item, Walk


@dataclass(frozen=True, slots=True)
class EntryCheck:
    """A check of one entry, on the books as they were before it."""

    code: str
    wrong: Callable[[Walk, Item], str | None]


@dataclass(frozen=True, slots=True)
class HeldCheck:
    """A check of a receipt, or of a checkpoint, that the reader holds, against the log as a whole."""

    code: str
    wrong: Callable[[Walk, Held], str | None]


@dataclass(frozen=True, slots=True)
class LogCheck:
    """A check of the whole log."""

    code: str
    wrong: Callable[[Walk], str | None]

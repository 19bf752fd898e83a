"""How a text that others wrote is shown to a person: as one line that is nothing but text.

Owns what may not reach a terminal as it is: by control characters a memo, a name or a ledger's word could move the
cursor, recolour or erase what stands there, or pass for a line of ours; by others it could show in another order than
it says.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LINE_ENDS: Final = re.compile("\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_UNFIT: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
#: Joiners within a letter or an emoji: they change shapes, never the order.
_JOINERS: Final = frozenset("\u200c\u200d")


def one_line(text: str, *, most: int | None = None) -> str:
    """The text with a mark in place of what is no text: ⏎ for an end of a line, � for the rest; a tab is a space.

    Of a text longer than `most` characters the beginning and an ellipsis.
    """
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    line = _LINE_ENDS.sub("⏎", text).replace("\t", " ")
    return "".join("�" if is_unfit(char) else char for char in line)


def is_unfit(char: str) -> bool:
    """Whether a character is a control, turns the direction, can't be seen, or ends a line."""
    return unicodedata.category(char) in _UNFIT and char not in _JOINERS

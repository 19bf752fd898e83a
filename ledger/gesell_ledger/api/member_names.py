"""Members' names in JSON that was decoded: one that stands there twice is seen.

Owns the count; what a decoder makes of the second one is not asked.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

#: In JSON that was taken: all up to the next colon that stands in no string, which follows a member's name, or up to
#: the end. It never steps back, so all matches together take one look at each byte.
_UP_TO_NAME: Final = re.compile(rb'[^":]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^":]*+)*+(:)?', re.DOTALL)


def count_names(raw: msgspec.Raw | bytes) -> int:
    """How many members' names stand in JSON that was decoded without fault, those that stand there twice twice."""
    return sum(1 for found in _UP_TO_NAME.finditer(raw) if found[1])

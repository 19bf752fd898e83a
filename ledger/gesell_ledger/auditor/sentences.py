"""How the auditor shows what others wrote: names, reasons, assets, notes; each as one bounded line of text.

Owns the cut: a log, a checkpoint or a server's answer may be hostile, and a finding is read on a terminal. Judges
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gesell_protocol.foreign import one_line
from gesell_protocol.log import Posting
from gesell_protocol.names import holder_text

#: Characters of a name, of a sentence with foreign words in it, and of a note's line (an origin and a root, or a line
#: of signature) that are shown; lines of a note.
_NAME_MAX: Final = 64
_REASON_MAX: Final = 400
_LINE_MAX: Final = 400
_LINES_MAX: Final = 80
#: How many postings of an entry a sentence lists.
_LISTED_MAX: Final = 6


def name_of(text: str) -> str:
    """A name, a code or a word that somebody else chose."""
    return one_line(text, most=_NAME_MAX)


def reason_of(fault: object) -> str:
    """What a reader of bytes says of them: it may quote them."""
    return one_line(str(fault), most=_REASON_MAX)


def file_of(name: str) -> str:
    """The name of a file that the reader holds; files are named by who sends them, too."""
    return one_line(name, most=_REASON_MAX)


def note_of(text: str) -> str:
    """A note, indented, its lines as they are but for what is no text: true ones have nothing else."""
    lines = text.rstrip("\n").split("\n")
    return "\n".join(f"    {one_line(line, most=_LINE_MAX)}" for line in lines[:_LINES_MAX])


def clean(text: str) -> str:
    """Lines of ours as they reach a terminal; the last fence, behind which no foreign word can do anything."""
    return "\n".join(map(one_line, text.split("\n")))


def posting_of(posting: Posting) -> str:
    """One posting without its reason."""
    return f"{posting.amount:+d} grains of {name_of(posting.asset)} on the account of {holder_text(posting.holder)}"


def postings_of(postings: Sequence[Posting]) -> str:
    """Postings, the first few of them."""
    lines = [f"{name_of(one.reason)} {one.amount:+d} {holder_text(one.holder)}" for one in postings[:_LISTED_MAX]]
    more = len(postings) - len(lines)
    return "[" + ", ".join(lines) + (f", … {more} more]" if more > 0 else "]")

"""QR codes of links, drawn by segno: as PNG, as SVG, and in a terminal.

Owns how large, how sturdy and in which colours they are drawn. Knows nothing of what the text says.

Error correction M mends 15 % of a smudged or badly lit code; higher levels would make the code of a usual link (about
180 characters, 57 × 57 squares) finer than a phone reads from an arm's length away. The border of four light squares
is what ISO/IEC 18004 asks for; scanners fail without it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import segno

BORDER: Final = 4
#: Pixels a square in a PNG: about 500 pixels for a usual link, which screens and printers show without blur.
SCALE: Final = 8
#: White on black whatever the terminal's colours are: many scanners can't read a code whose light and dark are swapped.
_COLOURS: Final = "\x1b[97;40m"
_RESET: Final = "\x1b[0m"


class TooLong(ValueError):
    """The text does not fit into a QR code; the message says what to do."""


def code_of(text: str) -> segno.QRCode:
    """The QR code of exactly this ASCII text; raises `TooLong` beyond 2,331 bytes."""
    try:
        return segno.make_qr(text, error="m", mode="byte", encoding="ascii", boost_error=False)
    except segno.DataOverflowError:
        raise TooLong("the link is too long for a QR code; shorten its message") from None


def save(text: str, path: Path) -> None:
    """Draw the QR code of a text into a file, PNG or SVG by the name's ending.

    Raises `ValueError` for another ending, `TooLong`, and `OSError` where the file can't be written. A file that
    exists is replaced.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ValueError(f"{path} is neither .png nor .svg")
    drawn = io.BytesIO()
    if kind == "png":
        code_of(text).save(drawn, kind="png", scale=SCALE, border=BORDER)
    else:
        # The light squares are drawn too: on a dark page a code without them can't be read.
        code_of(text).save(drawn, kind="svg", scale=SCALE, border=BORDER, light="#fff", omitsize=True)
    path.write_bytes(drawn.getvalue())


def terminal_lines(text: str) -> list[str]:
    """The QR code of a text as lines for a terminal, two rows of squares a line; raises `TooLong`."""
    drawn = io.StringIO()
    code_of(text).terminal(drawn, border=BORDER, compact=True)
    return [f"{_COLOURS}{line}{_RESET}" for line in drawn.getvalue().splitlines()]


def terminal_width(text: str) -> int:
    """How many columns of a terminal `terminal_lines` take; raises `TooLong`."""
    return int(code_of(text).symbol_size(border=BORDER)[0])

"""What the wallet draws is a QR code of exactly the link, read back by a reader of our own (ISO/IEC 18004)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gesell import qr
from tests.qr_reader import png_squares, read_text, svg_squares, terminal_squares

LINK = "payto://gesell/" + "0f" * 16 + "/ada"
LONG = LINK + "?amount=WRG:0.05&message=" + "%F0%9F%8C%BB" * 20 + "&ref=0190a1b2-c3d4-7e5f-8a6b-0123456789ab"


@pytest.mark.parametrize("link", [LINK, LINK + "?amount=WRG:0.05&category=answer", LONG])
def test_all_three_drawings_carry_exactly_the_link(link: str, tmp_path: Path) -> None:
    qr.save(link, tmp_path / "code.png")
    qr.save(link, tmp_path / "code.SVG")
    assert read_text(png_squares((tmp_path / "code.png").read_bytes(), scale=qr.SCALE)) == link
    assert read_text(svg_squares((tmp_path / "code.SVG").read_text(), scale=qr.SCALE)) == link
    assert read_text(terminal_squares(qr.terminal_lines(link))) == link


def test_a_terminal_line_is_as_wide_as_it_says() -> None:
    (squares, *_) = terminal_squares(qr.terminal_lines(LINK))
    assert len(squares) == qr.terminal_width(LINK)


def test_a_link_that_fits_no_code_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(qr.TooLong, match="shorten"):
        qr.save("a" * 2_332, tmp_path / "code.png")
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        qr.save(LINK, tmp_path / "code.jpg")

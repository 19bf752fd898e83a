"""Cursors come back as the place they were written for, and tell nobody else which."""

from __future__ import annotations

import pytest

from gesell_ledger.api.cursors import Cursors
from gesell_protocol.names import unbase64url

COMMONS = bytes(range(16))


def test_cursor_comes_back_as_its_place() -> None:
    written = Cursors(b"k" * 32).write(COMMONS)
    assert Cursors(b"k" * 32).read(unbase64url(written)) == COMMONS[:8]


def test_cursor_shows_no_part_of_the_name() -> None:
    bits = unbase64url(Cursors(b"k" * 32).write(COMMONS))
    assert all(COMMONS[at : at + 2] not in bits for at in range(15))


@pytest.mark.parametrize("guess", [COMMONS, bytes(16), COMMONS[:8] + bytes(8), b"\xff" * 16])
def test_cursor_that_was_not_written_here_is_refused(guess: bytes) -> None:
    with pytest.raises(ValueError, match="Link"):
        Cursors(b"k" * 32).read(guess)
    with pytest.raises(ValueError, match="Link"):
        Cursors(b"k" * 32).read(unbase64url(Cursors(b"other" * 7).write(COMMONS)))

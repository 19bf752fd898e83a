"""Reads the QR codes that the wallet draws, by ISO/IEC 18004 and without the library that drew them.

Owns the way from a picture (PNG, SVG, lines of a terminal) to squares and from squares to text. It corrects no
errors: what is drawn on a screen has none, and a decoder that mends would hide a wrong square. Level M, byte mode.
"""

from __future__ import annotations

import re
import struct
import zlib
from itertools import product

#: Rows of squares, True where dark, the quiet zone included.
Squares = list[list[bool]]
#: By version, 1 to 20, level M: check codewords a block, and blocks (ISO/IEC 18004 table 9).
_CHECKS = (10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26)
_BLOCKS = (1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16)
_MASKS = (
    lambda x, y: (x + y) % 2,
    lambda x, y: y % 2,
    lambda x, y: x % 3,
    lambda x, y: (x + y) % 3,
    lambda x, y: (x // 3 + y // 2) % 2,
    lambda x, y: x * y % 2 + x * y % 3,
    lambda x, y: (x * y % 2 + x * y % 3) % 2,
    lambda x, y: ((x + y) % 2 + x * y % 3) % 2,
)


def png_squares(data: bytes, *, scale: int) -> Squares:
    """The squares of a black-and-white PNG of one bit a pixel; checks that each square is of one colour."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, at + 8 + length)[0]
        chunks[kind] = chunks.get(kind, b"") + body
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, colour) == (1, 0)
    raw, stride, above = zlib.decompress(chunks[b"IDAT"]), (width + 7) // 8 + 1, bytes((width + 7) // 8)
    pixels = []
    for y in range(height):
        line = raw[y * stride + 1 : (y + 1) * stride]
        if raw[y * stride] == 2:
            line = bytes((byte + up) % 256 for byte, up in zip(line, above, strict=True))
        else:
            assert raw[y * stride] == 0
        above = line
        pixels.append([not line[x // 8] >> (7 - x % 8) & 1 for x in range(width)])
    squares = [row[::scale] for row in pixels[::scale]]
    assert pixels == [[dark for dark in row for _ in range(scale)] for row in squares for _ in range(scale)]
    return squares


def svg_squares(text: str, *, scale: int) -> Squares:
    """The squares of an SVG that draws dark runs as a stroked path of `m` and `h` on a white ground."""
    box = re.search(r'viewBox="0 0 (\d+) (\d+)"', text)
    assert box is not None
    size = int(box[1]) // scale
    assert f'fill="#fff" d="M0 0h{size}v{size}h-{size}z"' in text
    dark = re.search(r'stroke="#000" d="([^"]*)"', text)
    assert dark is not None
    squares = [[False] * size for _ in range(size)]
    x, y = 0, 0.0
    for word, across, down in re.findall(r"([Mmh])(-?\d+)(?: (-?[\d.]+))?", dark[1]):
        if word == "h":
            squares[int(y)][x : x + int(across)] = [True] * int(across)
            x += int(across)
        else:
            x, y = (int(across), float(down)) if word == "M" else (x + int(across), y + float(down))
    return squares


def terminal_squares(lines: list[str]) -> Squares:
    """The squares of half-block lines drawn white on black."""
    squares = []
    for line in lines:
        blocks = line.removeprefix("\x1b[97;40m").removesuffix("\x1b[0m")
        assert line == f"\x1b[97;40m{blocks}\x1b[0m"
        assert set(blocks) <= set(" ▀▄█")
        squares += [[block not in "▀█" for block in blocks], [block not in "▄█" for block in blocks]]
    return squares[: len(squares[0])]


def read_text(squares: Squares) -> str:
    """The text of a code with its quiet zone of four squares; asserts where it breaks the standard."""
    size = len(squares) - 8
    edge = (*squares[:4], *squares[-4:], *(row[:4] + row[-4:] for row in squares))
    assert not any(any(row) for row in edge), "the quiet zone is not empty"
    code = [row[4:-4] for row in squares[4:-4]]
    version = (size - 17) // 4
    form = _number(code[8][x] for x in (0, 1, 2, 3, 4, 5, 7, 8)) << 7
    form |= _number(code[y][8] for y in (7, 5, 4, 3, 2, 1, 0))
    form ^= 0b101010000010010
    assert form >> 13 == 0, "the level of error correction is not M"
    bits = "".join(str(int(bit)) for bit in _data_bits(code, version, _MASKS[form >> 10 & 7]))
    data = _in_order([int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8)], version)
    stream = "".join(f"{byte:08b}" for byte in data)
    assert stream[:4] == "0100", "not byte mode"
    start = 12 if version < 10 else 20
    length = int(stream[4:start], 2)
    return bytes(int(stream[start + 8 * n : start + 8 * n + 8], 2) for n in range(length)).decode("ascii")


def _number(bits: object) -> int:
    return int("".join(str(int(bit)) for bit in bits), 2)  # type: ignore[attr-defined]


def _data_bits(code: Squares, version: int, mask: object) -> list[bool]:
    """All squares that carry data, unmasked, in the zigzag order of the standard."""
    size, fixed = len(code), _fixed(version)
    bits: list[bool] = []
    for right in range(size - 1, 0, -2):
        if right <= 6:
            right -= 1
        upward = (right + 1) & 2 == 0
        rows = range(size - 1, -1, -1) if upward else range(size)
        places = ((x, y) for y in rows for x in (right, right - 1) if (x, y) not in fixed)
        bits += [code[y][x] != (mask(x, y) == 0) for x, y in places]  # type: ignore[operator]
    return bits


def _fixed(version: int) -> set[tuple[int, int]]:
    """The squares that carry no data: finders, timing, alignment, format and version."""
    size = 17 + 4 * version
    near, far = range(9), range(size - 8, size)
    fixed = {*product(near, near), *product(far, near), *product(near, far)}
    fixed |= {(n, 6) for n in range(size)} | {(6, n) for n in range(size)}
    count = version // 7 + 2
    step = (version * 4 + count * 2 + 1) // (count * 2 - 2) * 2
    centres = [6, *(size - 7 - n * step for n in range(count - 1))] if version > 1 else []
    for x, y in product(centres, centres):
        if (x, y) not in ((6, 6), (6, size - 7), (size - 7, 6)):
            fixed |= set(product(range(x - 2, x + 3), range(y - 2, y + 3)))
    if version >= 7:
        fixed |= set(product(range(6), range(size - 11, size - 8))) | set(product(range(size - 11, size - 8), range(6)))
    return fixed


def _in_order(words: list[int], version: int) -> list[int]:
    """The data codewords of all blocks, which are sent interleaved, one after the other."""
    blocks, checks = _BLOCKS[version - 1], _CHECKS[version - 1]
    total = len(words) - blocks * checks
    lengths = [total // blocks + (n >= blocks - total % blocks) for n in range(blocks)]
    data: list[list[int]] = [[] for _ in lengths]
    sent = iter(words)
    for n in range(max(lengths)):
        for block, length in zip(data, lengths, strict=True):
            if n < length:
                block.append(next(sent))
    return [word for block in data for word in block]

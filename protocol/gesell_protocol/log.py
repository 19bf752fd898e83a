"""The log (SPEC §6, RFC 6962 §2.1): entries as bytes that anybody can hash again, in bundles and in files.

Owns leaf data and leaf hash, entry bundles (C2SP tlog-tiles) and the log file. The tree over the leaves is `tree`'s,
checkpoints are `notes`'.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from io import BufferedReader
from typing import BinaryIO, Final, NamedTuple, cast

from gesell_protocol.canonical import pack_array, unpack
from gesell_protocol.envelopes import Envelope, read_envelope
from gesell_protocol.names import RESERVED_HOLDERS, Holder, holder_text
from gesell_protocol.refusals import Rejected

#: Begun once and copied: to look the algorithm up takes as long as to hash a payment.
_LEAF: Final = sha256(b"\x00")
#: A length in a bundle has two bytes, so no entry is longer.
LEAF_MAX_BYTES: Final = 65_535
FILE_FIRST_LINE: Final = b"gesell/log/1\n"
_HEAD_MAX_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 256 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"


class Posting(NamedTuple):
    """One line of an entry: why, whose account, which asset, how many grains (SPEC §4)."""

    reason: str
    holder: Holder
    asset: str
    amount: int

    def __repr__(self) -> str:
        return f"<{self.reason} {self.amount:+d} grains of {self.asset} {holder_text(self.holder)}>"


#: A posting of the tuple of its parts: `Posting` takes longer, and an entry may have hundreds.
posting_of: Final[Callable[[tuple[str, Holder, str, int]], Posting]] = partial(tuple.__new__, Posting)

#: Signatures as they stand in an envelope: (key, signature) pairs in ascending order of key.
Signatures = Sequence[tuple[bytes, bytes]]


class Leaf(NamedTuple):
    """Leaf data taken apart: entry `seq`, accepted at `at_ms`, with what was signed and what it posted."""

    seq: int
    at_ms: int
    body: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    postings: tuple[Posting, ...]


def leaf_data(*, seq: int, at_ms: int, body: bytes, signatures: Signatures, postings: Sequence[Posting]) -> bytes:
    """The canonical bytes of entry `seq`, accepted at `at_ms`: what the log commits to."""
    return bytes(pack_array((seq, at_ms, (body, signatures), postings)))


def leaf_hash(data: bytes) -> bytes:
    """The 32-byte RFC 6962 hash of one leaf."""
    hashed = _LEAF.copy()
    hashed.update(data)
    return hashed.digest()


def leaf_of(*, seq: int, at_ms: int, body: bytes, signatures: Signatures, postings: Sequence[Posting]) -> bytes:
    """The leaf hash of an entry from its parts: what whoever holds an entry or a receipt computes again."""
    return leaf_hash(leaf_data(seq=seq, at_ms=at_ms, body=body, signatures=signatures, postings=postings))


def read_leaf(data: bytes) -> Leaf:
    """Take leaf data apart; raises `Rejected` for anything that is not the canonical form of an entry.

    Checks forms only: neither is the body looked into, nor a signature verified, nor a posting judged.
    """
    if len(data) > LEAF_MAX_BYTES:
        raise Rejected("too-large", f"an entry has at most {LEAF_MAX_BYTES} bytes")
    value = unpack(data)
    if not isinstance(value, list) or len(value) != 4:
        raise Rejected("malformed", "an entry is [number, time, [body, signatures], postings]")
    seq, at_ms, signed, lines = value
    if type(seq) is not int or type(at_ms) is not int or seq < 1 or at_ms < 0:
        raise Rejected("malformed", "an entry's number and time are ints")
    if type(signed) is not list or len(signed) != 2 or type(lines) is not list:
        raise Rejected("malformed", "an entry is [number, time, [body, signatures], postings]")
    envelope: Envelope = read_envelope(signed)
    return Leaf(seq, at_ms, envelope.body, envelope.signatures, tuple([_read_line(line) for line in lines]))


def _read_line(line: object) -> Posting:
    if type(line) is list and len(line) == 4:
        reason, holder, asset, amount = line
        named = (type(holder) is bytes and len(holder) == 32) or holder in RESERVED_HOLDERS
        if type(reason) is str and named and type(asset) is str and type(amount) is int:
            return Posting(reason, holder, asset, amount)
    raise Rejected("malformed", "a posting is [reason, holder, asset, amount]")


# ── Bundles and files ────────────────────────────────────────────────────────────────────────────────────────────


def write_bundle(entries: Iterable[bytes]) -> bytes:
    """The leaf data of neighbouring entries, each after its length in two bytes."""
    return b"".join([part for data in entries for part in (len(data).to_bytes(2, "big"), data)])


def read_bundle(bundle: bytes) -> list[bytes]:
    """The leaf data in a bundle; raises `Rejected` for one that is cut."""
    entries, at = list[bytes](), 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            raise Rejected("malformed", "a bundle of entries is cut off")
        entries.append(bundle[at + 2 : end])
        at = end
    return entries


def write_file_head(note: str) -> bytes:
    """How a log file begins: its first line, the checkpoint of the entries that follow, an empty line."""
    return FILE_FIRST_LINE + note.encode() + b"\n"


def unpacked(file: BufferedReader) -> BinaryIO:
    """A log file as it is read, compressed by gzip or not; only looked at, never sought: it may be a pipe."""
    if not file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
        return file
    # A BufferedReader reads a gzip file in pieces too, and its lines many times as fast.
    return cast(BinaryIO, BufferedReader(gzip.GzipFile(fileobj=file)))


def read_file_head(file: BinaryIO) -> str:
    """Read the head of a log file and return its checkpoint, unverified; raises `Rejected` for any other file."""
    if file.readline(len(FILE_FIRST_LINE) + 1) != FILE_FIRST_LINE:
        raise Rejected("malformed", "this is no log file of Gesell")
    lines, size, gaps = list[bytes](), 0, 0
    while gaps < 2:
        line = file.readline(_HEAD_MAX_BYTES)
        size += len(line)
        if not line.endswith(b"\n") or size > _HEAD_MAX_BYTES:
            raise Rejected("malformed", "the log file is cut off within its checkpoint")
        gaps += line == b"\n"
        lines.append(line)
    try:
        return b"".join(lines[:-1]).decode()
    except UnicodeDecodeError:
        raise Rejected("malformed", "the checkpoint of the log file is not UTF-8") from None


def read_file_entries(file: BinaryIO) -> Iterator[bytes]:
    """The leaf data of the entries that follow the head, one after the other, reading ahead by a bounded piece.

    Raises `Rejected` where the file ends within an entry.
    """
    rest = b""
    while piece := file.read(_READ_BYTES):
        rest += piece
        at = 0
        while len(rest) >= at + 2 and len(rest) >= (end := at + 2 + int.from_bytes(rest[at : at + 2], "big")):
            yield rest[at + 2 : end]
            at = end
        rest = rest[at:]
    if rest:
        raise Rejected("malformed", "the log file is cut off within an entry")

"""Leaf data, bundles and log files: what goes in comes out, and whatever was cut or written otherwise is refused."""

from __future__ import annotations

import io
from hashlib import sha256
from typing import Any, Final

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell_protocol.canonical import pack
from gesell_protocol.envelopes import BODY_MAX_BYTES
from gesell_protocol.log import (
    FILE_FIRST_LINE,
    LEAF_MAX_BYTES,
    Leaf,
    Posting,
    leaf_data,
    leaf_hash,
    leaf_of,
    read_bundle,
    read_file_entries,
    read_file_head,
    read_leaf,
    write_bundle,
    write_file_head,
)
from gesell_protocol.notes import Signature, sign_checkpoint
from gesell_protocol.refusals import Rejected
from tests.speaking import signer_of

PEER: Final = bytes(range(32))
SIGNATURES: Final = ((bytes(32), bytes(64)), (PEER, b"\x01" * 64))
POSTINGS: Final = (
    Posting("melt", PEER, "WRG", -5),
    Posting("melt", "pool", "WRG", 5),
    Posting("pay", PEER, "WRG", -(2**62)),
    Posting("pay", b"\xff" * 32, "WRG", 2**62),
)
PARTS: Final[dict[str, Any]] = {
    "seq": 300,
    "at_ms": 1_767_225_600_000,
    "body": b"what was signed",
    "signatures": SIGNATURES,
    "postings": POSTINGS,
}
NOTE: Final = sign_checkpoint(commons=bytes(16), size=3, root=bytes(32), signer=signer_of("a ledger"))


# ── Leaves ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_leaf_data_is_the_array_of_the_specification_as_any_messagepack_library_reads_it() -> None:
    told = msgpack.unpackb(leaf_data(**PARTS))
    signed = [b"what was signed", [list(pair) for pair in SIGNATURES]]
    assert told == [300, 1_767_225_600_000, signed, [list(posting) for posting in POSTINGS]]


def test_a_leaf_comes_back_from_its_data() -> None:
    assert read_leaf(leaf_data(**PARTS)) == Leaf(300, PARTS["at_ms"], PARTS["body"], SIGNATURES, POSTINGS)


def test_a_leaf_without_postings_is_one_too() -> None:
    assert read_leaf(leaf_data(**{**PARTS, "postings": ()})).postings == ()


def test_the_hash_of_a_leaf_has_the_prefix_of_rfc_6962() -> None:
    data = leaf_data(**PARTS)
    assert leaf_hash(data) == leaf_of(**PARTS) == sha256(b"\x00" + data).digest()


def _array(**changed: Any) -> bytes:
    parts = {
        "seq": 1,
        "at": 5,
        "signed": [b"body", [[PEER, bytes(64)]]],
        "postings": [["pay", PEER, "WRG", 1]],
        **changed,
    }
    return bytes(pack(list(parts.values())))


MALFORMED: Final = {
    "no array": pack({"seq": 1}),
    "an int": pack(7),
    "an empty array": pack([]),
    "three parts": pack([1, 5, [b"body", [[PEER, bytes(64)]]]]),
    "five parts": _array(more=1),
    "number 0": _array(seq=0),
    "a number below 0": _array(seq=-1),
    "a number that is a bool": _array(seq=True),
    "a number that is text": _array(seq="1"),
    "a time before 1970": _array(at=-1),
    "a time that is nil": _array(at=None),
    "no envelope": _array(signed=b"body"),
    "an envelope of one": _array(signed=[b"body"]),
    "a memo in the log": _array(signed=[b"body", [[PEER, bytes(64)]], [bytes(16), "hello"]]),
    "a body that is text": _array(signed=["body", [[PEER, bytes(64)]]]),
    "no signature": _array(signed=[b"body", []]),
    "a short key": _array(signed=[b"body", [[PEER[1:], bytes(64)]]]),
    "a short signature": _array(signed=[b"body", [[PEER, bytes(63)]]]),
    "a signature twice": _array(signed=[b"body", [[PEER, bytes(64)], [PEER, bytes(64)]]]),
    "signatures out of order": _array(signed=[b"body", [[b"\x09" * 32, bytes(64)], [b"\x08" * 32, bytes(64)]]]),
    "17 signatures": _array(signed=[b"body", [[bytes([n]) * 32, bytes(64)] for n in range(1, 18)]]),
    "postings that are a map": _array(postings={"pay": 1}),
    "postings that are nil": _array(postings=None),
    "a posting of three": _array(postings=[["pay", PEER, "WRG"]]),
    "a posting of five": _array(postings=[["pay", PEER, "WRG", 1, 1]]),
    "a posting that is text": _array(postings=["pay"]),
    "a posting that is an int": _array(postings=[5]),
    "a reason that is bin": _array(postings=[[b"pay", PEER, "WRG", 1]]),
    "a holder of 31 bytes": _array(postings=[["pay", PEER[1:], "WRG", 1]]),
    "a holder of no name": _array(postings=[["pay", "bank", "WRG", 1]]),
    "a holder that is nil": _array(postings=[["pay", None, "WRG", 1]]),
    "a holder that is an array": _array(postings=[["pay", ["pool"], "WRG", 1]]),
    "an asset that is bin": _array(postings=[["pay", PEER, b"WRG", 1]]),
    "an amount that is a bool": _array(postings=[["pay", PEER, "WRG", True]]),
    "an amount that is text": _array(postings=[["pay", PEER, "WRG", "1"]]),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_entry_is_malformed(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        read_leaf(data)
    assert caught.value.refusal.code == "malformed"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-canonical"),
        (_array() + b"\x00", "not-canonical"),
        (_array()[:-1], "not-canonical"),
        (b"\x94\xd0\x01" + _array()[2:], "not-canonical"),
        (bytes(LEAF_MAX_BYTES + 1), "too-large"),
        (_array(signed=[bytes(BODY_MAX_BYTES + 1), [[PEER, bytes(64)]]]), "too-large"),
    ],
    ids=["nothing", "something after it", "cut", "an int too long", "too long", "a body too long"],
)
def test_what_is_no_canonical_entry_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_leaf(data)
    assert caught.value.refusal.code == code


def test_every_cut_of_an_entry_is_refused() -> None:
    data = leaf_data(**PARTS)
    for end in range(len(data)):
        with pytest.raises(Rejected):
            read_leaf(data[:end])


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_an_entry_in_one_form_or_refused(data: bytes) -> None:
    try:
        leaf = read_leaf(data)
    except Rejected:
        return
    assert leaf_data(**leaf._asdict()) == data


@pytest.mark.parametrize(
    ("reason", "melting", "lines", "named"),
    [("pay", 257, 257, 256 * 45), ("grant", 256, 257, 256 * 45), ("share", 300, 301, 300 * 34),
     ("melt", 400, 0, 400 * 34), ("writeoff", 257, 259, 34)],
)  # fmt: skip
def test_no_statement_is_so_large_that_its_entry_outgrows_the_two_bytes_of_a_length(
    reason: str, melting: int, lines: int, named: int
) -> None:
    # The most peers that a statement may name, all of whose accounts melt, 1 KiB for its other fields, 16 signatures.
    postings = [Posting("melt", holder, "ABCDEFGHIJ", -(10**18)) for _ in range(melting) for holder in (PEER, "issuer")]
    postings += [Posting(reason, PEER, "ABCDEFGHIJ", -(10**18))] * lines
    signatures = [(bytes([n]) * 32, bytes(64)) for n in range(16)]
    data = leaf_data(seq=2**63 - 1, at_ms=2**63 - 1, body=bytes(named + 1024), signatures=signatures, postings=postings)
    assert len(data) <= LEAF_MAX_BYTES


# ── Bundles ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([bytes(65_535), bytes(256)])), max_size=20))
def test_a_bundle_gives_back_its_entries(entries: list[bytes]) -> None:
    assert read_bundle(write_bundle(entries)) == entries
    assert write_bundle(entries) == b"".join(len(one).to_bytes(2, "big") + one for one in entries)


def test_an_entry_too_long_for_a_bundle_is_never_written() -> None:
    with pytest.raises(OverflowError):
        write_bundle([bytes(LEAF_MAX_BYTES + 1)])


def test_every_cut_within_an_entry_of_a_bundle_is_refused() -> None:
    entries = [b"one", b"", b"three"]
    whole, ends = write_bundle(entries), {0, 5, 7}
    for end in range(len(whole)):
        if end in ends:
            assert read_bundle(whole[:end]) == entries[: sorted(ends).index(end)]
            continue
        with pytest.raises(Rejected, match="cut off"):
            read_bundle(whole[:end])


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Drip(io.BytesIO):
    """A file that gives a few bytes at a time, whatever it is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 7, 7))


def test_a_log_file_gives_back_its_checkpoint_and_its_entries() -> None:
    entries = [b"one", b"", bytes(65_535), b"four" * 100_000][:3]
    data = write_file_head(str(NOTE)) + write_bundle(entries)
    assert data.startswith(b"gesell/log/1\n" + str(NOTE).encode() + b"\n")
    for file in (io.BytesIO(data), Drip(data)):
        assert read_file_head(file) == str(NOTE)
        assert list(read_file_entries(file)) == entries


def test_entries_that_lie_across_the_pieces_read_come_whole() -> None:
    entries = [bytes([number % 251]) * (number * 37 % 4_000) for number in range(1_000)]
    file = io.BytesIO(write_bundle(entries))
    assert list(read_file_entries(file)) == entries


def test_a_checkpoint_with_empty_lines_in_its_text_is_no_head() -> None:
    # A checkpoint has none; a note that has some would end the head too early, and what follows is no entry.
    text = "a\n\nb\n\n" + NOTE.signatures[0].line()
    assert read_file_head(io.BytesIO(write_file_head(text))) != text


def test_a_file_of_no_entries_has_none() -> None:
    file = io.BytesIO(write_file_head(str(NOTE)))
    read_file_head(file)
    assert list(read_file_entries(file)) == []


_HEAD: Final = write_file_head(str(NOTE))
HEADS: Final = {
    "nothing": (b"", "no log file"),
    "another first line": (b"gesell/log/2\n" + _HEAD[len(FILE_FIRST_LINE) :], "no log file"),
    "something before it": (b"\n" + _HEAD, "no log file"),
    "no end of the first line": (b"gesell/log/1", "no log file"),
    "a carriage return": (b"gesell/log/1\r\n" + _HEAD[len(FILE_FIRST_LINE) :], "no log file"),
    "compressed": (b"\x1f\x8b\x08\x00" + bytes(60), "no log file"),
    "one long line": (b"x" * 200_000, "no log file"),
    "the first line alone": (FILE_FIRST_LINE, "within its checkpoint"),
    "cut in the checkpoint": (_HEAD[:40], "within its checkpoint"),
    "cut before the signatures": (FILE_FIRST_LINE + NOTE.text.encode() + b"\n", "within its checkpoint"),
    "cut before the empty line": (_HEAD[:-1], "within its checkpoint"),
    "a checkpoint without end": (FILE_FIRST_LINE + b"x\n" * 200_000, "within its checkpoint"),
    "a line without end": (FILE_FIRST_LINE + b"x" * 200_000, "within its checkpoint"),
    "no UTF-8": (FILE_FIRST_LINE + b"\xff\n\n\xfe\n\n", "not UTF-8"),
}


@pytest.mark.parametrize(("data", "why"), HEADS.values(), ids=HEADS)
def test_a_file_that_does_not_begin_as_a_log_is_refused_and_told_why(data: bytes, why: str) -> None:
    file = io.BytesIO(data)
    with pytest.raises(Rejected, match=why):
        read_file_head(file)
    assert file.tell() <= 64 * 1024 + 65_536 + len(FILE_FIRST_LINE), "no more is read than a head can have"


def test_a_file_that_ends_within_an_entry_gives_those_before_and_says_so() -> None:
    entries = [b"one", b"two", b"three"]
    whole = write_bundle(entries)
    for cut in (1, 4, len(b"three") + 1):
        coming = read_file_entries(io.BytesIO(whole[:-cut]))
        assert [next(coming), next(coming)] == entries[:2]
        with pytest.raises(Rejected, match="within an entry"):
            next(coming)


def test_a_head_with_many_cosignatures_is_read() -> None:
    many = NOTE.with_signatures(Signature(f"witness-{n}.example/w", b"1234", bytes(72)) for n in range(60))
    assert read_file_head(io.BytesIO(write_file_head(str(many)))) == str(many)

"""Envelopes: the outer form, sizes, signatures and sealed memos (SPEC §3)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell_protocol.canonical import pack, unpack
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import (
    BODY_MAX_BYTES,
    ENVELOPE_MAX_BYTES,
    Envelope,
    Memo,
    has_control_characters,
    read_envelope,
    verify_envelope,
)
from gesell_protocol.refusals import Rejected
from tests.histories import key, keys_of, seal

SALT = b"salt" * 4
SIGNED = seal(b"a body", [key("anna"), key("ben")])
PAIRS = [[name, signature] for name, signature in SIGNED.signatures]
SIXTEEN = seal(b"", keys_of(*(f"steward {number}" for number in range(16))))


def refusal(value: Any) -> str:
    with pytest.raises(Rejected) as error:
        read_envelope(value)
    return error.value.refusal.code


def size_of(envelope: Envelope) -> int:
    return len(pack(envelope.wire()))


@given(
    st.binary(max_size=200),
    st.sets(st.sampled_from([f"peer {number}" for number in range(20)]), min_size=1, max_size=16),
    st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
)
def test_envelope_comes_back_from_its_array(body: bytes, names: set[str], text: str | None) -> None:
    memo = None if text is None else Memo(SALT, text)
    envelope = seal(body, [key(name) for name in names], memo)
    assert read_envelope(unpack(pack(envelope.wire()))) == envelope
    assert list(envelope.signers) == keys_of(*names)
    verify_envelope(envelope)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "envelope",
        b"envelope",
        {},
        [],
        [b"body"],
        [b"body", PAIRS, [SALT, ""], 1],
        [None, PAIRS],
        ["body", PAIRS],
        [1, PAIRS],
        [[b"body"], PAIRS],
        [b"body", None],
        [b"body", []],
        [b"body", {}],
        [b"body", PAIRS[0]],
        [b"body", [PAIRS[0], None]],
        [b"body", [PAIRS[0][:1]]],
        [b"body", [[*PAIRS[0], b""]]],
        [b"body", [[PAIRS[0][0][:31], PAIRS[0][1]]]],
        [b"body", [[PAIRS[0][0], PAIRS[0][1][:63]]]],
        [b"body", [[PAIRS[0][0], PAIRS[0][1] + b"x"]]],
        [b"body", [["k" * 32, PAIRS[0][1]]]],
        [b"body", [[PAIRS[0][0], "s" * 64]]],
        [b"body", PAIRS[::-1]],
        [b"body", [PAIRS[0], PAIRS[0]]],
        [b"body", [*SIXTEEN.wire()[1], *PAIRS]],  # type: ignore[misc]
        [b"body", PAIRS, None],
        [b"body", PAIRS, []],
        [b"body", PAIRS, [SALT]],
        [b"body", PAIRS, [SALT, "text", 1]],
        [b"body", PAIRS, [SALT[:15], "text"]],
        [b"body", PAIRS, ["s" * 16, "text"]],
        [b"body", PAIRS, [SALT, b"text"]],
        [b"body", PAIRS, [SALT, "x" * 1_001]],
        [b"body", PAIRS, [SALT, "a\x00b"]],
        [b"body", PAIRS, [SALT, "a\rb"]],
        [b"body", PAIRS, [SALT, "\x1b[2J"]],
        [b"body", PAIRS, [SALT, "\x85"]],
        [b"body", PAIRS, [SALT, "\ud800"]],
    ],
)
def test_array_of_another_form_is_malformed(value: Any) -> None:
    assert refusal(value) == "malformed"


@pytest.mark.parametrize(
    "text", ["", "two\nlines\tand a tab", "x" * 1_000, "🌱" * 1_000, "\u200dé\u202e\ufeff", " \u00a0"]
)
def test_memo_of_a_thousand_characters_newlines_and_tabs_is_taken(text: str) -> None:
    envelope = read_envelope([b"body", PAIRS, [SALT, text]])
    assert envelope.memo == Memo(SALT, text)


def test_body_of_16_kib_is_taken_and_one_byte_more_is_too_large() -> None:
    assert read_envelope([b"x" * BODY_MAX_BYTES, PAIRS]).body == b"x" * BODY_MAX_BYTES
    assert refusal([b"x" * (BODY_MAX_BYTES + 1), PAIRS]) == "too-large"


def test_envelope_of_20_kib_is_taken_and_one_byte_more_is_too_large() -> None:
    bare = Envelope(b"x" * BODY_MAX_BYTES, SIXTEEN.signatures, Memo(SALT, "y" * 600))
    length = 600 + ENVELOPE_MAX_BYTES - size_of(bare)
    # As many bytes as there is room for, in at most 1,000 characters: some of one byte, some of four.
    wide = -(-(length - 1_000) // 3)
    exact = Envelope(bare.body, bare.signatures, Memo(SALT, "🌱" * wide + "y" * (length - 4 * wide)))
    assert size_of(exact) == ENVELOPE_MAX_BYTES
    assert read_envelope(exact.wire()) == exact
    assert exact.memo is not None
    larger = Envelope(bare.body, bare.signatures, Memo(SALT, exact.memo.text[:-1] + "é"))
    assert refusal(larger.wire()) == "too-large"


# ── Signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 1), st.integers(0, 63), st.integers(0, 7))
def test_every_signature_must_verify_to_the_last_bit(which: int, byte: int, bit: int) -> None:
    name, signature = SIGNED.signatures[which]
    forged = bytearray(signature)
    forged[byte] ^= 1 << bit
    pairs = [(name, bytes(forged)) if place == which else pair for place, pair in enumerate(SIGNED.signatures)]
    with pytest.raises(Rejected) as error:
        verify_envelope(Envelope(SIGNED.body, tuple(pairs)))
    assert error.value.refusal.code == "bad-signature"


@pytest.mark.parametrize("body", [b"a bodY", b"", b"a body\x00", b"gesell/statement/1\na body"])
def test_signature_of_another_body_does_not_verify(body: bytes) -> None:
    with pytest.raises(Rejected) as error:
        verify_envelope(Envelope(body, SIGNED.signatures))
    assert error.value.refusal.code == "bad-signature"


def test_signature_of_the_body_without_its_prefix_does_not_verify() -> None:
    signer = Signer(bytes(32))
    with pytest.raises(Rejected):
        verify_envelope(Envelope(b"a body", ((signer.public_key, signer.sign(b"a body")),)))
    verify_envelope(Envelope(b"a body", ((signer.public_key, signer.sign(b"gesell/statement/1\na body")),)))


# ── Memos ────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(min_size=16, max_size=16), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_seal_is_the_hash_that_the_specification_spells(salt: bytes, text: str) -> None:
    assert Memo(salt, text).seal() == hashlib.sha256(b"gesell/memo/1\n" + salt + text.encode()).digest()


@pytest.mark.parametrize("char", [chr(code) for code in [*range(32), *range(127, 160), 0xD800, 0xDFFF]])
def test_control_characters_are_found_unless_they_are_allowed(char: str) -> None:
    assert has_control_characters("a" + char)
    assert not has_control_characters("a" + char, but=char)


@pytest.mark.parametrize("text", ["", "plain", "ümläut", "🌱", "\u200d", "\u2028", "\u00ad"])
def test_other_characters_are_no_control_characters(text: str) -> None:
    assert not has_control_characters(text)

"""Signed notes, checkpoints and cosignatures: the examples of C2SP hold, and what is written otherwise is refused."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gesell_protocol.notes import (
    NOTE_KEY,
    NOTE_MAX_BYTES,
    SIGNATURES_MAX,
    TIME_MAX,
    WITNESS_KEY,
    BadNote,
    Checkpoint,
    Note,
    NoteKey,
    Signature,
    cosign,
    count_cosigned,
    origin_of,
    read_checkpoint,
    read_note,
    read_signatures,
    sign_checkpoint,
    sign_note,
    verify_checkpoint,
)
from tests.speaking import signer_of

#: The verifier key and the note that C2SP signed-note gives as its example.
EXAMPLE_VKEY: Final = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE: Final = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
COMMONS: Final = bytes(range(16))
ROOT: Final = sha256(b"a root").digest()
LEDGER: Final = signer_of("a ledger")
OTHER: Final = signer_of("another ledger")
CHECKPOINT: Final = sign_checkpoint(commons=COMMONS, size=7, root=ROOT, signer=LEDGER)
WITNESSES: Final = tuple(
    NoteKey(f"witness-{number}.example/w", signer_of(f"witness {number}").public_key, WITNESS_KEY)
    for number in range(3)
)
LINE: Final = CHECKPOINT.signatures[0].line()


def cosigned(note: Note, *numbers: int, time_s: int = 1_700_000_000) -> Note:
    """The note with cosignatures of the witnesses of these numbers."""
    return note.with_signatures(
        cosign(note, name=WITNESSES[number].name, signer=signer_of(f"witness {number}"), time_s=time_s)
        for number in numbers
    )


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_of_signed_note_verifies() -> None:
    key = NoteKey.parse(EXAMPLE_VKEY)
    assert (key.name, key.kind, key.id.hex()) == ("example.com/foo", NOTE_KEY, "530d903a")
    assert str(key) == EXAMPLE_VKEY
    note = read_note(EXAMPLE_NOTE)
    note.verify(key)
    assert str(note) == EXAMPLE_NOTE
    assert note.text == "This is an example message.\n"


def test_a_keys_id_is_the_hash_of_its_name_kind_and_key() -> None:
    for kind in (NOTE_KEY, WITNESS_KEY):
        key = NoteKey("a.example/b", LEDGER.public_key, kind)
        assert key.id == sha256(b"a.example/b\n" + bytes([kind]) + LEDGER.public_key).digest()[:4]
        packed = base64.b64encode(bytes([kind]) + LEDGER.public_key).decode()
        assert str(key) == f"a.example/b+{key.id.hex()}+{packed}"
        assert NoteKey.parse(str(key)) == key
    assert NoteKey("n", LEDGER.public_key).id != NoteKey("n", LEDGER.public_key, WITNESS_KEY).id


_VKEY: Final = str(WITNESSES[0])
_NAME, _ID, _PACKED = _VKEY.split("+", 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        _NAME,
        f"{_NAME}+{_ID}",
        f"{_NAME}+{_ID}+",
        f"+{_ID}+{_PACKED}",
        f"{_NAME} x+{_ID}+{_PACKED}",
        f"{_NAME}\u2003x+{_ID}+{_PACKED}",
        f"{_NAME}+{_ID.upper() if _ID.upper() != _ID else 'ABCDEF12'}+{_PACKED}",
        f"{_NAME}+0{_ID}+{_PACKED}",
        f"{_NAME}+{_ID[1:]}+{_PACKED}",
        f"{_NAME}+00000000+{_PACKED}",
        f"{_NAME}x+{_ID}+{_PACKED}",
        f"{_NAME}+{_ID}+{_PACKED[:-4]}",
        f"{_NAME}+{_ID}+{_PACKED}AAAA",
        f"{_NAME}+{_ID}+{_PACKED}\n",
        f" {_VKEY}",
        f"{_VKEY}+",
        f"{_NAME}+{_ID}+{_PACKED.replace('B', 'A', 1)}",
        f"{_NAME}+{_ID}+!{_PACKED[1:]}",
        f"{_NAME}+{_ID}+{base64.b64encode(bytes([2]) + WITNESSES[0].key).decode()}",
        f"{_NAME}+{_ID}+{base64.b64encode(bytes([6]) + WITNESSES[0].key).decode()}",
    ],
)
def test_a_text_that_is_no_vkey_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        NoteKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\tb", "a\u00a0b", "a\u2028b", "a\x00b", "a\u0085b", " a"])
def test_a_name_with_spaces_or_a_plus_is_none(name: str) -> None:
    with pytest.raises(ValueError):
        NoteKey(name, bytes(32))


@pytest.mark.parametrize(("key", "kind"), [(bytes(31), 1), (bytes(33), 1), (b"", 4), (bytes(32), 2), (bytes(32), 0)])
def test_a_key_of_another_length_or_kind_is_none(key: bytes, kind: int) -> None:
    with pytest.raises(ValueError):
        NoteKey("a", key, kind)


# ── Notes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_text_may_have_empty_lines_and_the_last_one_parts_it_from_the_signatures() -> None:
    text = "one\n\ntwo\n\n\nthree\n"
    note = sign_note(text, name="a.example", signer=LEDGER)
    again = read_note(str(note))
    assert again == note
    assert again.text == text
    again.verify(NoteKey("a.example", LEDGER.public_key))


def test_a_note_is_read_from_bytes_as_from_text() -> None:
    assert read_note(str(CHECKPOINT).encode()) == read_note(str(CHECKPOINT)) == CHECKPOINT


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "text, an empty line"),
        ("\n", "text, an empty line"),
        ("\n\n", "text, an empty line"),
        ("\n\n" + LINE, "text, an empty line"),
        ("text\n", "text, an empty line"),
        ("text\n\n", "newline"),
        ("text\n" + LINE, "text, an empty line"),
        ("text\n\n" + LINE[:-1], "newline"),
        ("text\n\n" + LINE + "\n", "newline"),
        ("text\n\n" + LINE + "more\n", "signature line"),
        ("text\n\n" + LINE.replace("—", "-"), "signature line"),
        ("text\n\n" + LINE.replace("—", "–"), "signature line"),
        ("text\n\n" + LINE.replace("— ", "—  "), "signature line"),
        ("text\n\n" + LINE.replace("— ", "—"), "signature line"),
        ("text\n\n " + LINE, "signature line"),
        ("text\n\n" + LINE.replace("\n", " \n"), "signature line"),
        ("text\n\n— gesell AAAA\n", "signature line"),
        ("text\n\n— gesell AAAAAA==\n", "signature line"),
        ("text\n\n— gesell AAAAAAB=\n", "signature line"),
        ("text\n\n— gesell AAAAAAA\n", "signature line"),
        ("text\n\n— gesell AAAA AAAA\n", "signature line"),
        ("text\n\n— gesell -_-_-_-_\n", "signature line"),
        ("text\n\n— ge+sell AAAAAAA=\n", "signature line"),
        ("text\n\n—  AAAAAAA=\n", "signature line"),
        ("text\n\n— gesell\u00a0x AAAAAAA=\n", "signature line"),
        ("te\txt\n\n" + LINE, "control"),
        ("te\rxt\n\n" + LINE, "control"),
        ("text\r\n\r\n" + LINE, "control"),
        ("te\x00xt\n\n" + LINE, "control"),
        ("te\x1fxt\n\n" + LINE, "control"),
        ("te\ud800xt\n\n" + LINE, "UTF-8"),
        (b"te\xffxt\n\n" + LINE.encode(), "UTF-8"),
        (b"te\xc0\x80xt\n\n" + LINE.encode(), "UTF-8"),
        (b"te\xed\xa0\x80xt\n\n" + LINE.encode(), "UTF-8"),
        ("text\n\n" + LINE * (SIGNATURES_MAX + 1), "at most 64"),
        ("x" * NOTE_MAX_BYTES + "\n\n" + LINE, "at most 65536"),
    ],
)
def test_a_text_that_is_no_note_is_refused_and_told_why(text: str | bytes, why: str) -> None:
    with pytest.raises(BadNote, match=why):
        read_note(text)


@given(st.text("ab\n— +A=\x00\r", max_size=40))
def test_whatever_is_read_as_a_note_is_written_as_it_was(tail: str) -> None:
    text = "text\n\n" + LINE + tail
    try:
        note = read_note(text)
    except BadNote:
        return
    assert str(note) == text


def test_up_to_64_signatures_are_read_and_each_is_kept_once() -> None:
    many = CHECKPOINT.with_signatures(Signature(f"w{number}", b"1234", b"x") for number in range(SIGNATURES_MAX - 1))
    assert read_note(str(many)) == many
    assert many.with_signatures(many.signatures) == many
    verify_checkpoint(many, commons=COMMONS, ledger=LEDGER.public_key)


def test_signature_lines_alone_are_what_a_witness_answers() -> None:
    lines = "".join(one.line() for one in cosigned(CHECKPOINT, 0, 1).signatures)
    assert read_signatures(lines) == cosigned(CHECKPOINT, 0, 1).signatures
    for text in ("", "\n", lines[:-1], lines + "\n", "\n" + lines):
        with pytest.raises(BadNote):
            read_signatures(text)


def test_a_note_holds_only_if_the_key_that_was_named_signed_it() -> None:
    key = NoteKey("a.example", LEDGER.public_key)
    note = sign_note("text\n", name="a.example", signer=LEDGER)
    note.verify(key)
    for stranger in (NoteKey("b.example", LEDGER.public_key), NoteKey("a.example", OTHER.public_key)):
        with pytest.raises(BadNote, match="not signed by"):
            note.verify(stranger)
    with pytest.raises(BadNote, match="not signed by"):
        note.verify(NoteKey("a.example", LEDGER.public_key, WITNESS_KEY))
    with pytest.raises(BadNote, match="not signed by"):
        Note(note.text, ()).verify(key)


def test_a_signature_of_a_strangers_is_passed_over_though_it_shares_a_name_or_an_id() -> None:
    note = sign_note("text\n", name="a.example", signer=LEDGER)
    key = NoteKey("a.example", LEDGER.public_key)
    strangers = (Signature("a.example", b"\x00\x00\x00\x00", b"?"), Signature("b.example", key.id, b"?"))
    Note(note.text, (*strangers, *note.signatures)).verify(key)


def test_a_signature_of_the_key_that_does_not_hold_spoils_the_note_though_another_of_its_own_does() -> None:
    note = sign_note("text\n", name="a.example", signer=LEDGER)
    key = NoteKey("a.example", LEDGER.public_key)
    good = note.signatures[0]
    for bad in (good.signature[:-1], good.signature + b"\x00", bytes(64), OTHER.sign(b"text\n"), b"\x00"):
        spoilt = Signature(good.name, good.key_id, bad)
        for signatures in ((spoilt,), (good, spoilt), (spoilt, good)):
            with pytest.raises(BadNote, match="does not hold"):
                Note(note.text, signatures).verify(key)


def test_every_changed_byte_of_the_text_is_caught() -> None:
    note = sign_note("some text\n", name="a.example", signer=LEDGER)
    for place in range(len(note.text) - 1):
        changed = note.text[:place] + chr(ord(note.text[place]) ^ 1) + note.text[place + 1 :]
        with pytest.raises(BadNote):
            Note(changed, note.signatures).verify(NoteKey("a.example", LEDGER.public_key))


# ── Checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_three_lines_and_signed_as_any_ed25519_library_verifies() -> None:
    assert CHECKPOINT.text == f"gesell/{COMMONS.hex()}\n7\n{base64.b64encode(ROOT).decode()}\n"
    Ed25519PublicKey.from_public_bytes(LEDGER.public_key).verify(
        CHECKPOINT.signatures[0].signature, CHECKPOINT.text.encode()
    )
    told = verify_checkpoint(read_note(str(CHECKPOINT)), commons=COMMONS, ledger=LEDGER.public_key)
    assert told == Checkpoint(origin_of(COMMONS), 7, ROOT)
    assert sign_checkpoint(commons=COMMONS, size=7, root=ROOT, signer=LEDGER) == CHECKPOINT


def test_the_example_of_tlog_checkpoint_is_read() -> None:
    lines = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    told = read_checkpoint(Note(lines, ()))
    assert (told.origin, told.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert told.text() == lines


def test_extension_lines_are_kept_and_signed() -> None:
    text = CHECKPOINT.text + "one more\nand another\n"
    note = sign_note(text, name=origin_of(COMMONS), signer=LEDGER)
    told = verify_checkpoint(note, commons=COMMONS, ledger=LEDGER.public_key)
    assert told.extensions == ("one more", "and another")
    assert told.text() == text
    with pytest.raises(BadNote):
        verify_checkpoint(Note(CHECKPOINT.text, note.signatures), commons=COMMONS, ledger=LEDGER.public_key)


_ROOT: Final = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("origin",), "origin, size and root"),
        (("origin", "7"), "origin, size and root"),
        (("", "7", _ROOT), "origin, size and root"),
        (("origin", "", _ROOT), "origin, size and root"),
        (("origin", "7", ""), "origin, size and root"),
        (("origin", "7", _ROOT, ""), "origin, size and root"),
        (("origin", "7", _ROOT, "", "more"), "origin, size and root"),
        (("origin", "07", _ROOT), "size"),
        (("origin", "00", _ROOT), "size"),
        (("origin", "+7", _ROOT), "size"),
        (("origin", "-7", _ROOT), "size"),
        (("origin", "7 ", _ROOT), "size"),
        (("origin", " 7", _ROOT), "size"),
        (("origin", "7.0", _ROOT), "size"),
        (("origin", "0x7", _ROOT), "size"),
        (("origin", "1e3", _ROOT), "size"),
        (("origin", "7_0", _ROOT), "size"),
        (("origin", "٧", _ROOT), "size"),
        (("origin", "²", _ROOT), "size"),
        (("origin", str(2**63), _ROOT), "size"),
        (("origin", "9" * 4_400, _ROOT), "size"),
        (("origin", "7", _ROOT[:-1]), "root"),
        (("origin", "7", _ROOT.rstrip("=")), "root"),
        (("origin", "7", ROOT.hex()), "root"),
        (("origin", "7", base64.b64encode(ROOT[:-1]).decode()), "root"),
        (("origin", "7", base64.b64encode(ROOT + b"x").decode()), "root"),
        (("origin", "7", " " + _ROOT), "root"),
        (("origin", "7", base64.urlsafe_b64encode(b"\xff" * 32).decode()), "root"),
    ],
)
def test_a_note_that_is_no_checkpoint_is_refused_and_told_why(lines: tuple[str, ...], why: str) -> None:
    note = sign_note("".join(f"{line}\n" for line in lines), name="origin", signer=LEDGER)
    with pytest.raises(BadNote, match=why):
        read_checkpoint(note)


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_sizes_at_the_ends_are_read(size: int) -> None:
    note = sign_checkpoint(commons=COMMONS, size=size, root=ROOT, signer=LEDGER)
    assert verify_checkpoint(note, commons=COMMONS, ledger=LEDGER.public_key).size == size


def test_a_checkpoint_of_another_log_or_ledger_is_refused() -> None:
    with pytest.raises(BadNote, match="another log"):
        verify_checkpoint(CHECKPOINT, commons=bytes(16), ledger=LEDGER.public_key)
    with pytest.raises(BadNote, match="not signed"):
        verify_checkpoint(CHECKPOINT, commons=COMMONS, ledger=OTHER.public_key)
    # The origin is this log's, but the key signs under another name.
    renamed = sign_note(CHECKPOINT.text, name="gesell", signer=LEDGER)
    with pytest.raises(BadNote, match="not signed"):
        verify_checkpoint(renamed, commons=COMMONS, ledger=LEDGER.public_key)


def test_every_changed_character_of_a_checkpoint_is_caught() -> None:
    text = str(CHECKPOINT)
    for place, char in enumerate(text):
        for other in {chr(ord(char) ^ 1), "A", "\n", ""} - {char}:
            changed = text[:place] + other + text[place + 1 :]
            with pytest.raises(BadNote):
                verify_checkpoint(read_note(changed), commons=COMMONS, ledger=LEDGER.public_key)


# ── Cosignatures ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cosignature_is_over_its_time_and_the_checkpoint_as_any_library_verifies() -> None:
    line = cosigned(CHECKPOINT, 0).signatures[1]
    assert (line.name, line.key_id) == (WITNESSES[0].name, WITNESSES[0].id)
    assert int.from_bytes(line.signature[:8], "big") == 1_700_000_000
    message = b"cosignature/v1\ntime 1700000000\n" + CHECKPOINT.text.encode()
    Ed25519PublicKey.from_public_bytes(WITNESSES[0].key).verify(line.signature[8:], message)
    assert cosigned(CHECKPOINT, 0).cosigned(WITNESSES[0]) == 1_700_000_000
    assert CHECKPOINT.cosigned(WITNESSES[0]) is None


def test_a_cosigned_checkpoint_is_still_the_ledgers_and_comes_back_from_its_text() -> None:
    note = read_note(str(cosigned(CHECKPOINT, 0, 2)))
    assert verify_checkpoint(note, commons=COMMONS, ledger=LEDGER.public_key).size == 7
    assert count_cosigned(note, WITNESSES) == 2
    assert count_cosigned(note, WITNESSES[1:]) == 1
    assert count_cosigned(note, ()) == 0


def test_of_several_cosignatures_by_one_witness_the_latest_counts_and_counts_once() -> None:
    note = cosigned(cosigned(CHECKPOINT, 0, time_s=10), 0, time_s=20)
    assert note.cosigned(WITNESSES[0]) == 20
    assert count_cosigned(note, WITNESSES) == 1


def test_one_witness_under_two_names_or_two_keys_under_one_counts_once() -> None:
    alias = NoteKey("alias.example", WITNESSES[0].key, WITNESS_KEY)
    note = cosigned(CHECKPOINT, 0)
    note = note.with_signatures([cosign(CHECKPOINT, name=alias.name, signer=signer_of("witness 0"), time_s=5)])
    assert count_cosigned(note, (WITNESSES[0], alias)) == 1
    twin = NoteKey(WITNESSES[0].name, signer_of("witness 1").public_key, WITNESS_KEY)
    note = cosigned(CHECKPOINT, 0)
    note = note.with_signatures([cosign(CHECKPOINT, name=twin.name, signer=signer_of("witness 1"), time_s=5)])
    assert count_cosigned(note, (WITNESSES[0], twin)) == 1
    assert count_cosigned(note, (WITNESSES[0], WITNESSES[0])) == 1


@pytest.mark.parametrize("time_s", [0, 1, TIME_MAX])
def test_times_at_the_ends_are_read(time_s: int) -> None:
    assert cosigned(CHECKPOINT, 0, time_s=time_s).cosigned(WITNESSES[0]) == time_s


def _spoilt() -> dict[str, bytes]:
    good = cosigned(CHECKPOINT, 0).signatures[1].signature
    other = sign_checkpoint(commons=COMMONS, size=8, root=ROOT, signer=LEDGER)
    return {
        "another time": (1_700_000_001).to_bytes(8, "big") + good[8:],
        "cut": good[:-1],
        "no time": good[8:],
        "lengthened": good + b"\x00",
        "changed": good[:-1] + bytes([good[-1] ^ 1]),
        "of another checkpoint": cosigned(other, 0).signatures[1].signature,
        "of another witness": cosigned(CHECKPOINT, 1).signatures[1].signature,
        "as a log signs": bytes(8) + signer_of("witness 0").sign(CHECKPOINT.text.encode()),
        "a time beyond 2^63 - 1": _late(),
    }


def _late() -> bytes:
    message = f"cosignature/v1\ntime {2**63}\n{CHECKPOINT.text}".encode()
    return (2**63).to_bytes(8, "big") + signer_of("witness 0").sign(message)


@pytest.mark.parametrize("spoilt", _spoilt().values(), ids=_spoilt())
def test_a_cosignature_that_does_not_hold_spoils_the_count(spoilt: bytes) -> None:
    line = Signature(WITNESSES[0].name, WITNESSES[0].id, spoilt)
    note = cosigned(CHECKPOINT, 1).with_signatures([line])
    with pytest.raises(BadNote, match="does not hold"):
        count_cosigned(note, WITNESSES)
    assert count_cosigned(note, WITNESSES[1:]) == 1, "nobody asked for that witness"


def test_a_key_that_is_a_logs_makes_no_cosignature_though_it_signs_like_one() -> None:
    key = NoteKey("log.example", LEDGER.public_key)
    signature = LEDGER.sign(b"cosignature/v1\ntime 7\n" + CHECKPOINT.text.encode())
    note = CHECKPOINT.with_signatures([Signature(key.name, key.id, (7).to_bytes(8, "big") + signature)])
    with pytest.raises(BadNote):
        count_cosigned(note, [key])


def test_a_logs_own_key_is_no_witness() -> None:
    key = NoteKey(origin_of(COMMONS), LEDGER.public_key)
    with pytest.raises(BadNote):
        count_cosigned(CHECKPOINT, [key])
    witness = NoteKey(origin_of(COMMONS), LEDGER.public_key, WITNESS_KEY)
    assert count_cosigned(CHECKPOINT, [witness]) == 0


def test_a_cosignature_under_another_name_is_passed_over_though_it_has_the_witnesss_id() -> None:
    note = cosigned(CHECKPOINT, 0).with_signatures([Signature("else.example/w", WITNESSES[0].id, bytes(72))])
    assert count_cosigned(note, WITNESSES) == 1
    assert count_cosigned(note.with_signatures([Signature(WITNESSES[0].name, b"else", bytes(72))]), WITNESSES) == 1

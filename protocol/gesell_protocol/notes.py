"""Signed notes, checkpoints and cosignatures (SPEC §6; C2SP signed-note, tlog-checkpoint, tlog-cosignature).

Owns their text, in both directions, and which bytes are signed. Knows neither trees nor HTTP.

1. A note is text that ends in a newline, an empty line, and signature lines. Only signatures by keys that the reader
   named are looked at; one of those that does not hold spoils the note, and so does none at all.
2. A checkpoint is a note whose text is origin, size and root, a line each, and maybe more lines.
3. A cosignature is a witness's signature line under a checkpoint, with the second at which it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from gesell_protocol import ed25519
from gesell_protocol.names import base64_text, unbase64
from gesell_protocol.tree import HASH_BYTES, SIZE_MAX

NOTE_MAX_BYTES: Final = 64 * 1024
SIGNATURES_MAX: Final = 64
#: For how many cosignatures a ledger can be asked, and hence how many witnesses it may have (SPEC §6.1).
WITNESSES_MAX: Final = 16
#: The kinds of keys (signature types) that are known here.
NOTE_KEY: Final = 0x01
WITNESS_KEY: Final = 0x04
TIME_MAX: Final = 2**63 - 1
ORIGIN_PREFIX: Final = "gesell/"


class BadNote(ValueError):
    """The text is no such note, or is not signed by whom it must be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key with the name under which it signs notes; `kind` is `NOTE_KEY` or `WITNESS_KEY`."""

    name: str
    key: bytes
    kind: int = NOTE_KEY

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key) != ed25519.KEY_BYTES or self.kind not in (NOTE_KEY, WITNESS_KEY):
            raise ValueError("a key that signs notes is an Ed25519 key of 32 bytes, of a log or of a witness")

    @property
    def id(self) -> bytes:
        """The 4 bytes that stand before its signatures."""
        return sha256(b"%s\n%c%s" % (self.name.encode(), self.kind, self.key)).digest()[:4]

    def __str__(self) -> str:
        """As a verifier key (vkey): name, id and key, joined by `+`."""
        return f"{self.name}+{self.id.hex()}+{base64_text(bytes([self.kind]) + self.key)}"

    @staticmethod
    def parse(text: str) -> NoteKey:
        """The key that a vkey names; raises `ValueError` for any other text."""
        name, _, rest = text.partition("+")
        key_id, _, packed = rest.partition("+")
        data = unbase64(packed)
        if not data or data[0] not in (NOTE_KEY, WITNESS_KEY):
            raise ValueError("a verifier key looks like name+1a2b3c4d+AQ… (a log's) or …+BA… (a witness's)")
        key = NoteKey(name, data[1:], data[0])
        if key_id != key.id.hex():
            raise ValueError("the verifier key's id is not that of its name and key")
        return key


class Signature(NamedTuple):
    """A signature line: whose, and the bytes after the key's id."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line as it stands under a note, its newline included."""
        return f"— {self.name} {base64_text(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with the signatures that came with it, none of them verified."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        """The note as it is served and kept."""
        return self.text + "\n" + "".join(signature.line() for signature in self.signatures)

    def with_signatures(self, more: Iterable[Signature]) -> Note:
        """The same note with more signature lines, each once."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *more))))

    def verify(self, key: NoteKey) -> None:
        """Check that a log's key has signed; raises `BadNote` (rule 1)."""
        found = [one for one in self.signatures if one.name == key.name and one.key_id == key.id]
        if not found:
            raise BadNote(f"it is not signed by {key.name} with the key {key.key.hex()}")
        for one in found:
            try:
                ed25519.verify(key.key, self.text.encode(), one.signature)
            except ed25519.BadSignature:
                raise BadNote(f"the signature by {key.name} does not hold") from None

    def cosigned(self, witness: NoteKey) -> int | None:
        """When a witness cosigned it, in seconds since the Unix epoch, the latest time; None if it did not.

        Raises `BadNote` if a line of this witness does not hold.
        """
        times = [
            _cosigned_at(self.text, one, witness)
            for one in self.signatures
            if one.name == witness.name and one.key_id == witness.id
        ]
        return max(times, default=None)


def read_note(text: str | bytes) -> Note:
    """Take a note apart; raises `BadNote` for what is none."""
    if len(text) > NOTE_MAX_BYTES:
        raise BadNote(f"a note has at most {NOTE_MAX_BYTES} bytes")
    try:
        text = text if isinstance(text, str) else text.decode()
        text.encode()
    except UnicodeError:
        raise BadNote("a note is UTF-8") from None
    if any(char < " " and char != "\n" for char in text):
        raise BadNote("a note has no control characters")
    head, gap, tail = text.rpartition("\n\n")
    if not gap or not head:
        raise BadNote("a note is text, an empty line and signatures")
    return Note(head + "\n", read_signatures(tail))


def read_signatures(lines: str) -> tuple[Signature, ...]:
    """The signature lines under a note, as a witness answers them alone; raises `BadNote` for other lines, or none."""
    if not lines.endswith("\n"):
        raise BadNote("a signature line ends in a newline")
    signatures = tuple(_read_signature(line) for line in lines[:-1].split("\n"))
    if len(signatures) > SIGNATURES_MAX:
        raise BadNote(f"a note has at most {SIGNATURES_MAX} signatures")
    return signatures


def _read_signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, packed = rest.partition(" ")
    try:
        _check_name(name)
        data = unbase64(packed)
    except ValueError:
        data = b""
    if dash != "—" or len(data) < 5:
        raise BadNote("a signature line is a dash, a name, and base64 of key id and signature")
    return Signature(name, data[:4], data[4:])


def sign_note(text: str, *, name: str, signer: ed25519.Signer) -> Note:
    """A text, which ends in a newline, signed by a log's key under a name."""
    key = NoteKey(name, signer.public_key)
    return Note(text, (Signature(name, key.id, signer.sign(text.encode())),))


# ── Checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its origin, how many entries it has, and the root over them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, base64_text(self.root), *self.extensions))


def read_checkpoint(note: Note) -> Checkpoint:
    """What a note says as a checkpoint; raises `BadNote` if it is none."""
    lines = note.text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise BadNote("a checkpoint is origin, size and root, a line each")
    size, root = lines[1], b""
    with suppress(ValueError):
        root = unbase64(lines[2])
    if len(size) > 19 or not (size.isascii() and size.isdigit()) or str(int(size)) != size or int(size) > SIZE_MAX:
        raise BadNote("a checkpoint's size is a decimal number")
    if len(root) != HASH_BYTES:
        raise BadNote("a checkpoint's root is base64 of 32 bytes")
    return Checkpoint(lines[0], int(size), root, tuple(lines[3:]))


def origin_of(commons: bytes) -> str:
    """The origin, and the key's name, of a commons' log."""
    return ORIGIN_PREFIX + commons.hex()


def sign_checkpoint(*, commons: bytes, size: int, root: bytes, signer: ed25519.Signer) -> Note:
    """The checkpoint of a commons' log, signed with the ledger's key: always the same bytes for the same tree."""
    origin = origin_of(commons)
    return sign_note(Checkpoint(origin, size, root).text(), name=origin, signer=signer)


def verify_checkpoint(note: Note, *, commons: bytes, ledger: bytes) -> Checkpoint:
    """What a note says as the checkpoint of a commons' log by this ledger; raises `BadNote` if it is none."""
    checkpoint = read_checkpoint(note)
    if checkpoint.origin != origin_of(commons):
        raise BadNote("it is the checkpoint of another log")
    note.verify(NoteKey(checkpoint.origin, ledger))
    return checkpoint


# ── Cosignatures ─────────────────────────────────────────────────────────────────────────────────────────────────


def cosign(note: Note, *, name: str, signer: ed25519.Signer, time_s: int) -> Signature:
    """A witness's cosignature of a checkpoint, made at `time_s` seconds since the Unix epoch."""
    key = NoteKey(name, signer.public_key, WITNESS_KEY)
    signature = signer.sign(_cosigned_bytes(note.text, time_s))
    return Signature(name, key.id, time_s.to_bytes(8, "big") + signature)


def count_cosigned(note: Note, witnesses: Iterable[NoteKey]) -> int:
    """How many of these witnesses, each name and each key once, have cosigned; raises `BadNote` for a line that is
    one of theirs and does not hold.
    """
    cosigners = {(key.name, key.key) for key in witnesses if note.cosigned(key) is not None}
    return min(len({name for name, _ in cosigners}), len({key for _, key in cosigners}))


def _cosigned_at(text: str, line: Signature, witness: NoteKey) -> int:
    time_s = int.from_bytes(line.signature[:8], "big")
    try:
        if len(line.signature) != 8 + ed25519.SIGNATURE_BYTES or time_s > TIME_MAX or witness.kind != WITNESS_KEY:
            raise ed25519.BadSignature("not a cosignature")
        ed25519.verify(witness.key, _cosigned_bytes(text, time_s), line.signature[8:])
    except ed25519.BadSignature:
        raise BadNote(f"the cosignature by {witness.name} does not hold") from None
    return time_s


def _cosigned_bytes(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() for char in name) or not name.isprintable():
        raise ValueError("a key's name has no spaces and no +")

"""One exchange with a witness: a checkpoint and a proof go out, a cosignature comes back (C2SP tlog-witness).

Owns the connections to witnesses, what an answer may cost, and what it means. Follows no redirect, keeps no cookie,
asks no proxy.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from gesell_ledger import __version__
from gesell_ledger.settings import WitnessPlace
from gesell_protocol.names import base64_text
from gesell_protocol.notes import BadNote, Note, Signature, read_signatures
from gesell_protocol.tree import SIZE_MAX

SUBMIT_SECONDS: Final = 10.0
ANSWER_MAX_BYTES: Final = 16 * 1024
WHY_MAX_CHARS: Final = 200
#: What will pass, or is no answer of a witness: time limits, too much at once.
_PASSING: Final = (408, 425, 429)


class WitnessDown(Exception):
    """No answer, or none that tells of the checkpoint: worth trying again; the message says why."""


class WitnessRefused(Exception):
    """The witness does not cosign this checkpoint, with this HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"HTTP {status}: {why}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Outdated:
    """The witness has cosigned a checkpoint of this size last, and not of the one that the proof begins with."""

    size: int


def open_session(*, connections: int) -> aiohttp.ClientSession:
    """Connections to one witness, so many at once."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"gesell-ledger/{__version__}", "Content-Type": "application/octet-stream"},
        timeout=aiohttp.ClientTimeout(total=SUBMIT_SECONDS),
        auto_decompress=False,
        read_bufsize=ANSWER_MAX_BYTES,
        trust_env=False,
    )


async def submit(
    session: aiohttp.ClientSession, witness: WitnessPlace, *, old: int, proof: Sequence[bytes], note: Note
) -> Signature | Outdated:
    """Submit a checkpoint, with the proof that it leads up from the one of `old` entries; returns the witness's
    cosignature, verified, or what it has seen instead. Raises `WitnessDown` and `WitnessRefused`.
    """
    lines = [f"old {old}\n", *(f"{base64_text(one)}\n" for one in proof), "\n", str(note)]
    try:
        async with session.post(
            f"{witness.url}/add-checkpoint", data="".join(lines).encode(), allow_redirects=False
        ) as response:
            status, answer = response.status, await _read(response)
    except TimeoutError:
        raise WitnessDown("no answer in time") from None
    except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
        raise WitnessDown(str(error) or type(error).__name__) from None
    if status == 200:
        return _cosignature(answer, witness, note)
    if status == 409:
        return Outdated(_size(answer))
    why = _show(answer)
    if 400 <= status < 500 and status not in _PASSING:
        raise WitnessRefused(status, why)
    raise WitnessDown(f"HTTP {status}: {why}")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > ANSWER_MAX_BYTES:
            response.close()
            raise WitnessDown(f"an answer of more than {ANSWER_MAX_BYTES} bytes")
    return b"".join(parts)


def _cosignature(answer: bytes, witness: WitnessPlace, note: Note) -> Signature:
    """The witness's line among those that it answered; lines of other keys are passed over."""
    key = witness.key
    try:
        lines = [line for line in read_signatures(answer.decode()) if line.name == key.name and line.key_id == key.id]
        if not lines:
            raise BadNote(f"no cosignature by {key}")
        for line in lines:
            Note(note.text, (line,)).cosigned(key)
    except (BadNote, UnicodeError) as error:
        raise WitnessRefused(200, f"not the cosignature of this witness: {error}") from None
    return lines[-1]


def _size(answer: bytes) -> int:
    text = answer.removesuffix(b"\n")
    if not (0 < len(text) < 20 and text.isdigit()) or int(text) > SIZE_MAX:
        raise WitnessDown("HTTP 409 without a size")
    return int(text)


def _show(answer: bytes) -> str:
    """What a witness says for people, as far as it can stand in a line of a log."""
    text = answer[:WHY_MAX_CHARS].decode(errors="replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())

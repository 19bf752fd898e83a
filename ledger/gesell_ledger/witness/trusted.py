"""Whose checkpoints a witness takes: the logs and ledgers that its operator named.

Pure. Owns which keys may speak for an origin.

1. A log is known by its key's name, which is its origin; more keys of one name are keys of one log.
2. A ledger speaks for any origin `gesell/<commons>`, with the keys that it has had one after the other.
3. An origin is the ledger's whose checkpoint of it was cosigned first. Another ledger of the same witness could
   otherwise add entries of its own to it, and its own ledger would be shut out.
4. Nor does a key speak for an origin again once a later one did: it may have been stolen.
5. What is remembered of an origin is one sequence, whoever signs: a cosignature does not say whose checkpoint it was
   made for, and so it must be true of all that bear this text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gesell_ledger.witness.submissions import Latest, Rejected
from gesell_protocol.names import peer_of
from gesell_protocol.notes import NOTE_KEY, BadNote, Note, NoteKey, Signature

_COMMONS: Final = re.compile(r"gesell/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Trusted:
    """The keys of each ledger, and the logs' keys."""

    ledgers: tuple[tuple[bytes, ...], ...] = ()
    logs: tuple[NoteKey, ...] = ()

    @staticmethod
    def parse(*, ledgers: Iterable[str], logs: Iterable[str]) -> Trusted:
        """From texts: each ledger as did:keys joined by commas, each log as a verifier key. Raises `ValueError`."""
        keys = tuple(NoteKey.parse(text) for text in logs)
        if any(key.kind != NOTE_KEY for key in keys):
            raise ValueError("a log's verifier key looks like name+1a2b3c4d+AQ…; this one is a witness's")
        return Trusted(tuple(tuple(map(peer_of, text.split(","))) for text in ledgers), keys)

    def verify(self, note: Note, origin: str) -> tuple[NoteKey, ...]:
        """The keys that may speak for this origin and signed; raises `Rejected`, 404 or 403."""
        trusted = [key for family in self._families(origin) for key in family]
        if not trusted:
            raise Rejected(404, "this witness does not know the log")
        signed = tuple(key for key in trusted if _lines_of(note, key))
        try:
            for key in signed:
                note.verify(key)
        except BadNote as error:
            raise Rejected(403, str(error)) from None
        if not signed:
            raise Rejected(403, "no key that this witness trusts for the log has signed the checkpoint")
        return signed

    def speaker(self, signed: tuple[NoteKey, ...], origin: str, latest: Latest) -> NoteKey:
        """The key, of those that signed, by which the checkpoint is taken; raises `Rejected` (rules 3 and 4)."""
        for family in self._families(origin):
            for key in reversed(self._followers(family, latest)):
                if key in signed:
                    return key
        raise Rejected(403, "the log is another ledger's, or its key changed hands and the witness has not been told")

    def _followers(self, family: tuple[NoteKey, ...], latest: Latest) -> tuple[NoteKey, ...]:
        """Those of a family who may speak after whoever signed the latest checkpoint."""
        if latest.key is None:
            return family
        places = [place for place, key in enumerate(family) if key.key == latest.key]
        if not places:
            return ()
        return family if family[0] in self.logs else family[places[0] :]

    def _families(self, origin: str) -> list[tuple[NoteKey, ...]]:
        """The keys that may speak for an origin, apart by who holds them."""
        own = tuple(key for key in self.logs if key.name == origin)
        if own:
            return [own]
        if _COMMONS.fullmatch(origin):
            return [tuple(NoteKey(origin, key) for key in ledger) for ledger in self.ledgers]
        return []


def lines_of(note: Note, keys: Iterable[NoteKey]) -> tuple[Signature, ...]:
    """The signature lines of these keys, each once."""
    return tuple(dict.fromkeys(line for key in keys for line in _lines_of(note, key)))


def _lines_of(note: Note, key: NoteKey) -> list[Signature]:
    key_id = key.id
    return [one for one in note.signatures if one.name == key.name and one.key_id == key_id]

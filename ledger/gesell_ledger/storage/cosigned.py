"""Keeps the checkpoints that witnesses cosigned, and finds commons that they were not asked about.

Owns how the cosignatures of one checkpoint come together, whoever collects them. Verifies none: what is handed in was
verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_protocol.notes import Note, NoteKey, Signature, read_checkpoint, read_note

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

_COSIGNED = queries("cosigned")

#: Before the first commons, in the order of their commons_id.
FIRST: Final = -(2**63)
#: Of so many sizes, the newest ones, the checkpoints stay although newer ones have as many cosignatures: a witness may
#: take ten seconds to answer, and one checkpoint a second is submitted.
RECENT: Final = 16
#: Checkpoints that are read at once to be counted again.
PAGE: Final = 200


class Cosigned:
    """The cosigned checkpoints of one database. Safe for any number of tasks and services at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, commons: bytes, *, at_least: int) -> str | None:
        """The newest checkpoint of a commons that at least so many of the ledger's witnesses have cosigned."""
        note: str | None = await self._pool.fetchval(_COSIGNED["load_cosigned"], rows.key_of(commons), at_least)
        return note

    async def load_for(self, commons: bytes, size: int) -> str | None:
        """The checkpoint of this size with all its cosignatures; None if there is none."""
        note: str | None = await self._pool.fetchval(_COSIGNED["load_cosigned_for"], rows.key_of(commons), size)
        return note

    async def add(self, commons: bytes, note: Note, cosignature: Signature, *, witnesses: Sequence[NoteKey]) -> None:
        """Keep one more cosignature of a checkpoint, beside those of others of the ledger's `witnesses`, and in the
        place of an earlier one of the same witness.
        """
        commons_id, size = rows.key_of(commons), read_checkpoint(note).size
        while True:
            before = await self._pool.fetchval(_COSIGNED["load_cosigned_for"], commons_id, size)
            lines = _merge(before, note, cosignature, witnesses)
            after = str(note.with_signatures(lines))
            # Somebody else may add another one meanwhile; then theirs is read, and both are kept.
            if await self._pool.fetchval(
                _COSIGNED["store_cosigned"], commons_id, size, len(lines), after, before or ""
            ):
                break
        await self._pool.execute(_COSIGNED["prune_cosigned"], commons_id, len(witnesses), RECENT)

    async def recount(self, witnesses: Sequence[NoteKey]) -> None:
        """Drop the cosignatures of all but these witnesses, and the checkpoints that none is left of.

        May run beside `add` with the same witnesses, and again after it was cut short.
        """
        commons_id, size = FIRST, 0
        while found := await self._pool.fetch(_COSIGNED["list_cosigned"], commons_id, size, PAGE):
            for row in found:
                await self._recount_one(row["commons_id"], row["size"], row["note"], witnesses)
            commons_id, size = found[-1]["commons_id"], found[-1]["size"]

    async def _recount_one(self, commons_id: int, size: int, before: str, witnesses: Sequence[NoteKey]) -> None:
        note = read_note(before)
        named = {(key.name, key.id) for key in witnesses}
        origin = note.text.partition("\n")[0]
        own = [one for one in note.signatures if (one.name, one.key_id) in named]
        after = str(Note(note.text, (*(one for one in note.signatures if one.name == origin), *own)))
        if not own:
            await self._pool.execute(_COSIGNED["forget_cosigned"], commons_id, size, before)
        elif after != before:
            # One that was added to meanwhile was counted by whoever added.
            await self._pool.fetchval(_COSIGNED["store_cosigned"], commons_id, size, len(own), after, before)

    async def list_uncosigned(self, ledger: bytes, *, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Commons, (commons_id, name) in this order, for which a key speaks and whose last entry nobody cosigned."""
        found = await self._pool.fetch(_COSIGNED["list_uncosigned"], ledger, after, limit)
        return [(row["commons_id"], row["hash"]) for row in found]

    async def list_heads(self, ledger: bytes, *, after: int, limit: int) -> list[tuple[int, bytes, int]]:
        """Commons, (commons_id, name, size of the log) in this order, for which a key speaks."""
        found = await self._pool.fetch(_COSIGNED["list_heads"], ledger, after, limit)
        return [(row["commons_id"], row["hash"], row["seq"]) for row in found]


def _merge(before: str | None, note: Note, cosignature: Signature, witnesses: Sequence[NoteKey]) -> list[Signature]:
    """The cosignatures of a checkpoint, one of each of these witnesses at most."""
    stored = read_note(before) if before is not None else note
    own = {(key.name, key.id) for key in witnesses} - {(cosignature.name, cosignature.key_id)}
    kept = {(one.name, one.key_id): one for one in stored.signatures if stored.text == note.text}
    return [*(line for who, line in kept.items() if who in own), cosignature]

"""Payments stored in one statement, where the books are warm: the short way of small batches.

Owns that statement. A batch that goes the long way (`postgres.Batch`) asks the database nine times, and waits nine
times; where few payments come at once, that takes longer than all else. Here nothing is locked and nothing is loaded:
the books that the last batch left say what there is, and the statement stores its rows only if the head still stands
where these books end, and if no id among them is known. Otherwise it stores nothing, and the batch goes the long way.

1. Payments alone: they add entries and postings, and change accounts and the head's place, time and tree.
2. Arrays go as text, since the driver looks at each item of a list several times. An account is either changed or new,
   never both: a new one whose number is taken is a fault of ours that must not pass.
3. The head's row decides: whoever adds to the commons moves it on, and of two who would move it from the same place one
   finds it moved. Its lock is taken by the same statement, and held until the commit. Where it stands is told by its
   tree too, since a database that lost its last entries may have got to the same number by others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg

from gesell_ledger.core.books import AccountName, Commons
from gesell_ledger.core.decide import Accepted, Submission
from gesell_ledger.core.needs import Needs
from gesell_ledger.storage import rows
from gesell_ledger.storage.changes import ACCOUNT_COLUMNS, account_values, leaves_of, merge, posting_values
from gesell_ledger.storage.queries import queries
from gesell_protocol.demurrage import Holding
from gesell_protocol.statements import Pay

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Warm

_SEQUENCE = queries("sequence")
#: More payments, or legs of them all, than this cost less by COPY.
APPEND_MAX: Final = 200
LEGS_MAX: Final = 400


def can_append(warm: Warm, batch: Sequence[Submission], needs: Needs) -> bool:
    """Whether a batch is of payments alone, without texts, of which these books know all peers and keys."""
    return (
        len(batch) <= APPEND_MAX
        and all(type(one.statement) is Pay and one.envelope.memo is None for one in batch)
        and sum(len(one.statement.legs) for one in batch if type(one.statement) is Pay) <= LEGS_MAX
        and needs.peers <= warm.peers
        and needs.keys <= warm.keys
    )


async def append(
    connection: Connection,
    warm: Warm,
    head: Commons,
    accepted: Sequence[Accepted],
    before: Mapping[AccountName, Holding],
) -> list[bytes] | None:
    """Store what was accepted on the way from `head` to the books as they stand in `warm`; returns the leaf hashes.

    Outside of a transaction: it is durable when this returns. None if the head stands elsewhere by now or an id is
    known: then nothing was stored and `warm` is as it was but for its books, which the caller takes back.
    """
    books = warm.books
    assert books.commons is not None
    accounts = merge(accepted).accounts
    new = [name for name in accounts if name not in warm.numbers]
    numbers = warm.numbers | {name: warm.accounts + place for place, name in enumerate(new)} if new else warm.numbers
    leaves = leaves_of(accepted)
    tree, subtrees = warm.tree.grown(leaves)
    assert tree.size == books.commons.seq, "the tree has a leaf for every entry"
    entries = [one.entry for one in accepted]
    created = {name: accounts.pop(name) for name in new}
    try:
        stored = await connection.fetchval(
            _SEQUENCE["append"],
            rows.key_of(head.id),
            head.seq,
            head.ledger,
            books.commons.seq,
            books.commons.at_ms,
            warm.accounts + len(new),
            tree.pack(),
            rows.array_text([str(entry.at_ms) for entry in entries]),
            rows.array_text([entry.id.hex() for entry in entries]),
            rows.array_text([rows.bytes_text(entry.body) for entry in entries]),
            rows.array_text([rows.bytes_text(rows.signature_bytes(entry.signatures)) for entry in entries]),
            rows.array_text([rows.bytes_text(leaf) for leaf in leaves]),
            *rows.column_texts(posting_values(books, accepted, before, numbers), 6),
            *rows.column_texts(account_values(accounts, numbers), ACCOUNT_COLUMNS),
            *rows.column_texts(account_values(created, numbers), ACCOUNT_COLUMNS),
            *rows.column_texts([(level, place, rows.bytes_text(node)) for level, place, node in subtrees], 3),
            warm.tree.pack(),
        )
    except asyncpg.UniqueViolationError as error:
        # On several nodes the name ends in the number of the shard. Any other constraint is an invariant of ours.
        if not (error.constraint_name or "").startswith("entry_id_once"):
            raise
        return None
    if not stored:
        return None
    warm.numbers, warm.accounts, warm.tree = numbers, warm.accounts + len(new), tree
    return leaves

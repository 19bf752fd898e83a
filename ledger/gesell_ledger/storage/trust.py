"""Loads vouches for the graph of a commons, as they stand and as they change, packed by the database.

Owns what a moment of a graph is: vouches as they stand after one entry, or the changes between two. They leave the
database as bytes, since a graph of a hundred thousand vouches as rows would hold up everybody else for as long as it
takes to read them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gesell_ledger.core.books import Member
from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Connection, Pool

_TRUST = queries("trust")

#: A packed vouch: who vouches, whom for (32 bytes each), and the grains (8, big-endian).
VOUCH_BYTES: Final = 72
_PAGE: Final = 20_000


class VouchReader:
    """Reads the vouches of one database. Safe for any number of requests at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def open_vouches(self, commons: bytes) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """All vouches of a commons at one moment: the seq of its last entry then, and the vouches, packed, in pages.

        The pages are of one snapshot, which nothing that is stored rests on: it is read-only, and the rows of one
        commons lie on one node.
        """
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            seq = await connection.fetchval(_TRUST["load_seq"], rows.key_of(commons))
            yield seq or 0, _list_pages(connection, commons)

    async def load_changes(self, commons: bytes, *, after: int, until: int, limit: int) -> bytes | None:
        """What changed in the entries after one, up to another that is accepted, packed, in order; None if more than
        `limit` vouches did.
        """
        row = await self._pool.fetchrow(_TRUST["pack_changes"], rows.key_of(commons), after, until, limit + 1)
        assert row is not None
        count, packed = tuple(row)
        return None if count > limit else packed or b""

    async def load_members(self, commons: bytes, peers: Iterable[bytes]) -> dict[bytes, Member]:
        """Members by their keys, those who have left included."""
        found = await self._pool.fetch(_TRUST["load_members"], rows.key_of(commons), list(peers))
        return {member.peer: member for member in (rows.read_member(tuple(row)) for row in found)}


async def _list_pages(connection: Connection, commons: bytes) -> AsyncIterator[bytes]:
    voucher = vouchee = b""
    while True:
        row = await connection.fetchrow(_TRUST["pack_vouches"], rows.key_of(commons), voucher, vouchee, _PAGE)
        assert row is not None
        count, packed = tuple(row)
        if count:
            yield packed
            voucher, vouchee = packed[-VOUCH_BYTES:-40], packed[-40:-8]
        if count < _PAGE:
            return

"""Notes, for entries that were stored before mentions were, whom they concern. Runs once, within its migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gesell_ledger.core.visibility import mentions_of
from gesell_ledger.storage import rows
from gesell_ledger.storage.queries import queries
from gesell_protocol.envelopes import Envelope
from gesell_protocol.statements import read_statement

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_READING = queries("reading")
_SEQUENCE = queries("sequence")
PAGE: Final = 1_000


async def fill_mentions(connection: Connection) -> None:
    """Go through all entries of all commons, a page at a time; nothing is mentioned twice, or this raises."""
    for row in await connection.fetch(_READING["list_all_commons"]):
        commons_id = row["commons_id"]
        after = 0
        while page := await connection.fetch(_READING["list_entries"], commons_id, after, PAGE):
            await _fill_page(connection, commons_id, page)
            after = page[-1]["seq"]


async def _fill_page(connection: Connection, commons_id: int, page: list[asyncpg.Record]) -> None:
    seqs = [row["seq"] for row in page]
    postings = rows.read_postings(await connection.fetch(_SEQUENCE["load_postings"], commons_id, seqs))
    mentions = [
        (commons_id, row["seq"], peer)
        for row in page
        for peer in mentions_of(
            read_statement(Envelope(row["body"], rows.read_signatures(row["signatures"])), min_tick_seconds=1),
            postings[row["seq"]],
        )
    ]
    await connection.copy_records_to_table(
        "mention", schema_name="gesell", columns=["commons_id", "seq", "peer"], records=mentions
    )

"""The postings of a log as tables: CSV, JSON lines and Parquet.

Owns the columns and how each format writes an amount: exactly, in every one. A row is a posting; an entry without
postings has none. What may stand in a cell has passed `export_books`, so no cell can be taken for a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from gesell.export_books import Books, Entry, utc_text
from gesell_protocol.amounts import format_amount
from gesell_protocol.names import did_of, holder_text, id_text
from gesell_protocol.notes import Note

if TYPE_CHECKING:
    import pyarrow

COLUMNS: Final = ("seq", "at", "type", "id", "by", "reason", "holder", "asset", "amount", "category")
#: Rows that are kept until they are written as one group.
GROUP_ROWS: Final = 65_536


class NotInstalled(Exception):
    """A format needs a package that is not here; the message says which, and how to have it."""


class Writer(Protocol):
    """Writes the entries of one log in some format, in their order."""

    def write(self, entry: Entry) -> None:
        """Write one entry."""

    def finish(self) -> None:
        """Write what stands at the end. The file is the caller's to close."""


class CsvTable:
    """CSV (RFC 4180) with a line of titles; times in ISO 8601, amounts as decimal text."""

    def __init__(self, file: BinaryIO, *, books: Books, note: Note) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.writer(self._text, lineterminator="\n")
        self._books = books
        self._lines.writerow(COLUMNS)

    def write(self, entry: Entry) -> None:
        """Write a line for each posting."""
        about = (entry.seq, utc_text(entry.at_ms), entry.type, id_text(entry.id), did_of(entry.by))
        for reason, holder, asset, grains in entry.postings:
            amount = format_amount(grains, scale=self._books.assets[asset].scale)
            self._lines.writerow((*about, reason, holder_text(holder), asset, amount, entry.category_of(reason) or ""))

    def finish(self) -> None:
        """All is written."""
        self._text.detach()


class JsonLines:
    """JSON lines: times in ms since the Unix epoch, amounts in grains as strings of digits, beside their `scale`."""

    def __init__(self, file: BinaryIO, *, books: Books, note: Note) -> None:
        self._file = file
        self._books = books

    def write(self, entry: Entry) -> None:
        """Write an object for each posting."""
        about = {
            "seq": entry.seq, "at": entry.at_ms, "type": entry.type, "id": id_text(entry.id), "by": did_of(entry.by)
        }  # fmt: skip
        for reason, holder, asset, grains in entry.postings:
            row = {
                **about,
                "reason": reason,
                "holder": holder_text(holder),
                "asset": asset,
                "amount": str(grains),
                "scale": self._books.assets[asset].scale,
                "category": entry.category_of(reason),
            }
            self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")

    def finish(self) -> None:
        """All is written."""


class ParquetTable:
    """Parquet: times as timestamps in UTC, amounts both in `grains` (int64) and as exact decimals.

    The file says in its metadata which commons and which checkpoint it is of.
    """

    def __init__(self, file: BinaryIO, *, books: Books, note: Note) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise NotInstalled("Parquet needs pyarrow: pip install 'gesell[parquet]'") from None
        self._pyarrow = pyarrow
        self._books = books
        self._schema = _schema(pyarrow).with_metadata({"gesell.checkpoint": str(note)})
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    def write(self, entry: Entry) -> None:
        """Take a row for each posting; whole groups are written."""
        about = (entry.seq, entry.at_ms, entry.type, id_text(entry.id), did_of(entry.by))
        for reason, holder, asset, grains in entry.postings:
            amount = Decimal(grains).scaleb(-self._books.assets[asset].scale)
            self._rows.append((*about, reason, holder_text(holder), asset, grains, amount, entry.category_of(reason)))
        if len(self._rows) >= GROUP_ROWS:
            self._write_group()

    def finish(self) -> None:
        """Write the last rows and the file's end."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        arrays = [
            self._pyarrow.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()


def _schema(pyarrow: Any) -> pyarrow.Schema:
    word = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return pyarrow.schema(
        [
            pyarrow.field("seq", pyarrow.int64(), nullable=False),
            pyarrow.field("at", pyarrow.timestamp("ms", tz="UTC"), nullable=False),
            pyarrow.field("type", word, nullable=False),
            pyarrow.field("id", pyarrow.string(), nullable=False),
            pyarrow.field("by", word, nullable=False),
            pyarrow.field("reason", word, nullable=False),
            pyarrow.field("holder", word, nullable=False),
            pyarrow.field("asset", word, nullable=False),
            pyarrow.field("grains", pyarrow.int64(), nullable=False),
            # 10^18 grains without decimals, and 9 decimals.
            pyarrow.field("amount", pyarrow.decimal128(28, 9), nullable=False),
            pyarrow.field("category", word),
        ]
    )


#: How a table is made, by its format's name.
TABLES: Final[dict[str, Callable[..., Writer]]] = {"csv": CsvTable, "jsonl": JsonLines, "parquet": ParquetTable}

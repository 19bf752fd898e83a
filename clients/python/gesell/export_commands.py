"""`gesell export`: the log of a commons as one file, its books as journals and tables.

Owns the command's words, the choice of the source and the progress bar. What is read is `export_source`'s and
`export_books`', what is written `journals`' and `export_tables`'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gesell.export_books import Books
from gesell.export_draft import STDOUT, draft_of
from gesell.export_source import BadLog, Proving, Source, file_source, ledger_source
from gesell.export_tables import TABLES, NotInstalled, Writer
from gesell.journals import JOURNALS
from gesell.options import DEFAULTS, Mistake, Options, failures_told, run
from gesell.showing import tell
from gesell_protocol.log import write_bundle, write_file_head
from gesell_protocol.notes import Note, read_note

Format = Literal["log", "hledger", "beancount", "csv", "jsonl", "parquet"]
_COMMONS_URL: Final = re.compile(r"(https?://.+?)/v1/commons/([0-9a-f]{1,32})(?:/log)?/?")
FORMATS: Final[dict[str, Callable[..., Writer]]] = {**JOURNALS, **TABLES}


def export(
    source: str | None = None,
    *,
    format: Format,
    to: Annotated[str, Parameter(allow_leading_hyphen=True)],
    options: Options = DEFAULTS,
) -> None:
    """Write the log of a commons to a file, or its books as a journal or a table.

    The file takes its name only when it is whole, and only if the entries are those of a checkpoint that the ledger
    has signed. To check what the ledger did with them, audit the log: gesell audit FILE.

    Parameters
    ----------
    source
        A ledger's address, or that of a commons there, or a log file (default: the ledger of --url).
    format
        `log` is the log as one file; `hledger` and `beancount` are journals; `csv`, `jsonl` (JSON lines) and `parquet`
        have a row for each posting.
    to
        The file; - is the standard output. If its name ends in .gz it is compressed.
    """
    if source is not None and not source.startswith(("http://", "https://")):
        with failures_told(reads=True), _refusals_told(to):
            _export_file(Path(source), format, to)
        return
    run(_export_ledger(options if source is None else _at(source, options), format, to), reads=True)


def _at(url: str, options: Options) -> Options:
    """Options for a ledger's address, or for that of a commons there: `https://town.example/v1/commons/5114…`."""
    below = _COMMONS_URL.fullmatch(url)
    return replace(options, url=url) if below is None else replace(options, url=below[1], commons=below[2])


def _export_file(path: Path, format: Format, to: str) -> None:
    # Not in an event loop, which would put an interrupt off for as long as a file keeps it waiting.
    with file_source(path) as log:
        with draft_of(to) as file, _progress(log.checkpoint.size) as advance:
            export = Export(log, file, format=format)
            for piece in log.pieces:
                export.take(piece)
                advance(len(piece))
            export.finish()
        _tell_done(log, to)


async def _export_ledger(options: Options, format: Format, to: str) -> None:
    with _refusals_told(to):
        async with options.reader() as client:
            # What is exported leads up from all that this wallet was shown before, and is witnessed as it demands.
            checked = await client.check()
            log = ledger_source(client._log(), read_note(checked.note))
            with draft_of(to) as file, _progress(log.checkpoint.size) as advance:
                export = Export(log, file, format=format)
                async for piece in log.pieces:
                    export.take(piece)
                    advance(len(piece))
                export.finish()
        _tell_done(log, to)


def _tell_done(log: Source[Any], to: str) -> None:
    if to != STDOUT:
        tell(f"gesell: {log.checkpoint.size:,} entries of {log.checkpoint.origin} are in {to}.")


@contextmanager
def _refusals_told(to: str) -> Iterator[None]:
    """Have what went wrong with the log or the file said in a line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (BadLog, NotInstalled) as error:
        raise Mistake(f"Nothing was exported: {error}", status=1) from None
    except OSError as error:
        raise Mistake(f"Nothing was exported: {to}: {error.strerror or error}", status=1) from None


class Export:
    """A log on its way into a file: held against its checkpoint, and written in a format, piece by piece."""

    def __init__(self, log: Source[Any], file: BinaryIO, *, format: str) -> None:
        self._proving = Proving(log)
        make = LogFile if format == "log" else BooksFile
        self._file = make(file, format=format, note=log.note)

    def take(self, piece: Sequence[bytes]) -> None:
        """Write the next entries; raises `BadLog` for what can't be."""
        self._proving.take(piece)
        self._file.write(piece)

    def finish(self) -> None:
        """Write the end; raises `BadLog` if what came is not what the checkpoint says."""
        self._proving.finish()
        self._file.finish()


class LogFile:
    """A log file (SPEC §6.5), as it comes."""

    def __init__(self, file: BinaryIO, *, format: str, note: Note) -> None:
        self._file = file
        file.write(write_file_head(str(note)))

    def write(self, piece: Sequence[bytes]) -> None:
        """Write the leaf data of some entries."""
        self._file.write(write_bundle(piece))

    def finish(self) -> None:
        """All is written."""


class BooksFile:
    """A journal or a table: entries are taken into the books, and written as these have them."""

    def __init__(self, file: BinaryIO, *, format: str, note: Note) -> None:
        self._books = Books()
        self._writer = FORMATS[format](file, books=self._books, note=note)

    def write(self, piece: Sequence[bytes]) -> None:
        """Write some entries."""
        for data in piece:
            self._writer.write(self._books.take(data))

    def finish(self) -> None:
        """Write what stands at the end."""
        self._writer.finish()


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("export", total=total)
        yield lambda count: bars.update(task, advance=count)

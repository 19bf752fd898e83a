"""The command `gesell import`. Wiring only."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import asyncpg
import cyclopts
import uvloop
from cyclopts import Parameter

from gesell_ledger.audit_commands import question_of, told
from gesell_ledger.auditor.auditing import Question
from gesell_ledger.auditor.sentences import clean, name_of
from gesell_ledger.importing import Imported, ImportFault, check_log, import_log
from gesell_ledger.keyfile import PASSPHRASE, LedgerKey, load_or_make_key, read_passphrase
from gesell_ledger.settings import default_data
from gesell_ledger.storage.embedded import PostgresFault, PrivatePostgres
from gesell_ledger.storage.faults import Fault, fault_of
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_protocol.names import base64_text

app = cyclopts.App(name="import")


@app.default
def import_(
    log: Path,
    /,
    *,
    key: Path | None = None,
    database: str | None = None,
    data: Path | None = None,
    key_passphrase_file: Path | None = None,
    checkpoint: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    receipt: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    witness: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    quorum: int | None = None,
    demo: bool = False,
) -> None:
    """Take a log file (gesell export) into a ledger that does not have this commons: the same entries, the same root.

    The file is audited first; of one that does not hold nothing is stored, and nothing of one that ends before what
    members or witnesses hold of it, where you say what that is. The service must not be running. Interrupted, run it
    again.

    Parameters
    ----------
    log
        The log file.
    key
        The file of the log's ledger's key. Default: ledger.key in the data folder.
    database
        A DSN of the service's role, of a database that `gesell db migrate` made ready.
    data
        The folder of a private PostgreSQL, when no DSN is given; made if it is not there.
    key_passphrase_file
        A file whose first line opens the key; or put the passphrase in GESELL_KEY_PASSPHRASE.
    checkpoint
        A checkpoint or a receipt that somebody holds: the log must lead through it. May come more than once.
    receipt
        The same; the entry in it must stand in the log.
    witness
        The verifier key of a witness that must have cosigned the file's checkpoint. May come more than once.
    quorum
        How many of these witnesses must have cosigned; all of them, if it is not said.
    demo
        The log is of a demo clock: serve with --demo, which goes on at the time of its last entry.
    """
    folder = (data or default_data()).absolute()
    key_file = key or folder / "ledger.key"
    try:
        question = _question((*checkpoint, *receipt), witness, quorum=quorum, demo=demo)
        if not key_file.exists():
            raise ImportFault(f"there is no key {key_file}; say the file of the log's ledger's key: --key FILE")
        ledger = load_or_make_key(
            key_file, passphrase=read_passphrase(key_passphrase_file, environment=os.environ.pop(PASSPHRASE, ""))
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            imported = runner.run(_import(log, ledger, question, database=database, folder=folder, demo=demo))
    except KeyboardInterrupt:
        print("gesell: stopped; run it again to go on", file=sys.stderr)
        sys.exit(130)
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    _show(imported)


def _question(held: tuple[Path, ...], witnesses: tuple[str, ...], *, quorum: int | None, demo: bool) -> Question:
    try:
        return question_of(held, witnesses, quorum=quorum, demo=demo)
    except (OSError, ValueError) as error:
        raise ImportFault(str(error)) from None


async def _import(
    log: Path, key: LedgerKey, question: Question, *, database: str | None, folder: Path, demo: bool
) -> Imported:
    with told("auditing") as tell:
        verdict = check_log(log, ledger=key.public_key, question=question, tell=tell)
    with told("importing") as tell:
        if database is not None:
            return await import_log(database, log, verdict, key=key, demo=demo, tell=tell)
        async with PrivatePostgres(folder) as private:
            await migrate(private.dsn(role=private.owner, database="postgres"))
            dsn = private.dsn(role=SERVICE_ROLE, database="postgres")
            return await import_log(dsn, log, verdict, key=key, demo=demo, tell=tell)


def _show(imported: Imported) -> None:
    verdict = imported.verdict
    stored = (
        f"{imported.stored:,} of {verdict.size:,} entries stored now" if imported.stored else "all was there already"
    )
    print(
        f"{name_of(verdict.name)} ({verdict.commons.hex()}): {stored}.\n"
        f"  The same root as in the file: {base64_text(verdict.root)}\n"
        "  Texts of memos are not in a log, so they are not here; their seals are."
    )


def _fail(fault: Exception) -> NoReturn:
    print(clean(f"gesell: {fault}"), file=sys.stderr)
    sys.exit(1)

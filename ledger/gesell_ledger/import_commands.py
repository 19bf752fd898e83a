"""The command `gesell import`. Wiring only."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

import asyncpg
import cyclopts
import uvloop

from gesell_ledger.audit_commands import told
from gesell_ledger.configuration import PASSPHRASE
from gesell_ledger.importing import Imported, ImportFault, check_log, import_log
from gesell_ledger.keyfile import LedgerKey, load_or_make_key, read_passphrase
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
    demo: bool = False,
) -> None:
    """Take a log file (gesell export) into a ledger that does not have this commons: the same entries, the same root.

    The file is audited first; of one that does not hold nothing is stored. The service must not be running.
    Interrupted, run it again.

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
    demo
        The log is of a demo clock: serve with --demo, which goes on at the time of its last entry.
    """
    folder = (data or default_data()).absolute()
    key_file = key or folder / "ledger.key"
    try:
        if not key_file.exists():
            raise ImportFault(f"there is no key {key_file}; say the file of the log's ledger's key: --key FILE")
        ledger = load_or_make_key(
            key_file, passphrase=read_passphrase(key_passphrase_file, environment=os.environ.pop(PASSPHRASE, ""))
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            imported = runner.run(_import(log, ledger, database=database, folder=folder, demo=demo))
    except KeyboardInterrupt:
        print("gesell: stopped; run it again to go on", file=sys.stderr)
        sys.exit(130)
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    _show(imported)


async def _import(log: Path, key: LedgerKey, *, database: str | None, folder: Path, demo: bool) -> Imported:
    with told("auditing") as tell:
        verdict = check_log(log, ledger=key.public_key, tell=tell)
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
        f"{verdict.name} ({verdict.commons.hex()}): {stored}.\n"
        f"  The same root as in the file: {base64_text(verdict.root)}\n"
        "  Texts of memos are not in a log, so they are not here; their seals are."
    )


def _fail(fault: Exception) -> NoReturn:
    print(f"gesell: {fault}", file=sys.stderr)
    sys.exit(1)

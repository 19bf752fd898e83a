"""The service's commands: `gesell serve` and `gesell db`. Wiring only; they join the wallet's `gesell` as a plugin."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import asyncpg
import cyclopts
import uvloop
from cyclopts import Parameter

from gesell_ledger import main as service
from gesell_ledger.audit_commands import app as auditing
from gesell_ledger.configuration import SERVE, Options
from gesell_ledger.ground import connect
from gesell_ledger.import_commands import app as importing
from gesell_ledger.keyfile import PASSPHRASE, LedgerKey, load_or_make_key, read_passphrase
from gesell_ledger.logs import configure_logs
from gesell_ledger.readings.folder import rebuild
from gesell_ledger.rekeying import rekey as hand_over
from gesell_ledger.settings import HALF_LIFE_DAYS, default_data
from gesell_ledger.storage.audit import Report, audit
from gesell_ledger.storage.embedded import PostgresFault, PrivatePostgres
from gesell_ledger.storage.faults import DatabaseLost, Fault, fault_of
from gesell_ledger.storage.folds import Folds
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_ledger.witness_commands import app as witnessing
from gesell_protocol.names import did_of

T = TypeVar("T")

#: How long one statement of a rebuild may take: the first clears all of a commons' readings away.
REBUILD_SECONDS: Final = 3_600

app = cyclopts.App(name="gesell-ledger", help="The ledger service.")
db = cyclopts.App(name="db", help="The ledger's database.")
serving = cyclopts.App(name="serve", config=SERVE.chain, error_formatter=SERVE.show_refusal)
app.command(db)
app.command(serving)
app.command(witnessing)
app.command(auditing)
app.command(importing)


@serving.default
def serve(*, options: Options | None = None) -> None:
    """Run the ledger; prints `listening on http://HOST:PORT` when it is ready.

    Each setting is a flag like --sweep-ticks 30, a variable like GESELL_SERVE_SWEEP_TICKS=30, or a line like
    sweep-ticks = 30 in a file; the first of these that says it counts.
    """
    try:
        settings = (options or Options()).settings()
        configure_logs(settings.log_format)
        _run(service.serve(settings))
    except (Fault, PostgresFault) as fault:
        _fail(fault)


@db.command(name="migrate")
def db_migrate(*, database: str | None = None, data: Path | None = None) -> None:
    """Make the tables, or bring them up to date, and the role gesell_service that can't rewrite history.

    Parameters
    ----------
    database
        The DSN of the database's owner.
    data
        The folder of the private PostgreSQL, when no DSN is given (the service must not be running).
    """
    try:
        applied = _run(_migrate(database, data))
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
    if database is not None:
        print(
            f"serve with --database postgresql://{SERVICE_ROLE}@…; give the role a password or let pg_hba.conf admit it"
        )


@db.command(name="check")
def db_check(
    *,
    database: str | None = None,
    data: Path | None = None,
    json_: Annotated[bool, Parameter("--json", negative="")] = False,
) -> None:
    """Prove the books: every entry sums to zero, every balance equals its postings, every melt follows the law.

    Exit status 1 if anything does not hold.

    Parameters
    ----------
    database
        A DSN that may read the tables; the service may be running.
    data
        The folder of the private PostgreSQL, when no DSN is given.
    json_
        Print JSON.
    """
    try:
        reports = _run(_check(database, data))
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    if json_:
        print(json.dumps([report.fields() for report in reports]))
    else:
        for report in reports:
            print(report)
        if not reports:
            print("no commons yet: nothing to prove")
    if not all(report.holds for report in reports):
        sys.exit(1)


@db.command(name="rebuild")
def db_rebuild(*, database: str | None = None, data: Path | None = None, commons: str | None = None) -> None:
    """Make the readings (relationships, standing, circulation) from nothing, by the entries alone.

    Prints a line for each commons. Services may run meanwhile; what they show grows until it is done.

    Parameters
    ----------
    database
        A DSN of the service's role.
    data
        The folder of the private PostgreSQL, when no DSN is given.
    commons
        The 32 hex digits of one commons; all of them if it is not said.
    """
    try:
        if commons is not None and not re.fullmatch("[0-9a-f]{32}", commons):
            raise Fault("--commons is the name of a commons: 32 hex digits")
        done = _run(_rebuild(database, data, None if commons is None else bytes.fromhex(commons)))
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    if not done:
        print("no commons yet: nothing to read")


@app.command
def rekey(
    *,
    new_key: Path,
    key: Path | None = None,
    database: str | None = None,
    data: Path | None = None,
    key_passphrase_file: Path | None = None,
    new_key_passphrase_file: Path | None = None,
) -> None:
    """Hand the ledger over to a new key: in the log of every commons, signed by both keys.

    The service must not be running. Interrupted, run it again.

    Parameters
    ----------
    new_key
        The file of the new key; made if it is not there.
    key
        The file of the key until now. Default: ledger.key in the data folder.
    database
        A DSN of the service's role.
    data
        The folder of the private PostgreSQL and the key, when no DSN is given.
    key_passphrase_file
        A file whose first line opens the old key; or put the passphrase in GESELL_KEY_PASSPHRASE.
    new_key_passphrase_file
        A file whose first line protects the new key.
    """
    folder = (data or default_data()).absolute()
    old_file = key or folder / "ledger.key"
    try:
        if not old_file.exists():
            raise Fault(f"there is no key {old_file}; say its file: --key FILE")
        old = load_or_make_key(
            old_file,
            passphrase=read_passphrase(key_passphrase_file, environment=os.environ.pop(PASSPHRASE, "")),
        )
        new = load_or_make_key(new_key, passphrase=read_passphrase(new_key_passphrase_file, environment=""))
        done = _run(_rekey(database, folder, old, new))
    except (Fault, PostgresFault) as fault:
        _fail(fault)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _fail(fault_of(error))
    print(
        f"handed over: {did_of(old.public_key)}\n         to: {did_of(new.public_key)}\n"
        f"         in: {done} commons\n"
        f"Back {new_key} up, and serve with --key {new_key} from now on. Tell your witnesses, who start again with\n"
        f"  --ledger {did_of(old.public_key)},{did_of(new.public_key)}\n"
        "and your members the new did. What the old key signed stays signed; nothing needs its file any more, and who\n"
        "stole it could still sign what looks like the past."
    )


async def _rekey(database: str | None, folder: Path, old: LedgerKey, new: LedgerKey) -> int:
    if database is not None:
        return await hand_over(database, old=old, new=new)
    if not (folder / "postgres").is_dir():
        raise Fault(f"no ledger was ever served from {folder}: say its folder with --data DIR, or --database DSN")
    async with PrivatePostgres(folder) as private:
        return await hand_over(private.dsn(role=SERVICE_ROLE, database="postgres"), old=old, new=new)


async def _migrate(database: str | None, data: Path | None) -> list[str]:
    if database is not None:
        return await migrate(database)
    async with PrivatePostgres((data or default_data()).absolute()) as private:
        return await migrate(private.dsn(role=private.owner, database="postgres"))


async def _rebuild(database: str | None, data: Path | None, commons: bytes | None) -> int:
    """How many commons' readings were made anew."""
    if database is not None:
        return await _rebuild_in(database, commons)
    return await _in_private(data, lambda dsn: _rebuild_in(dsn, commons))


async def _rebuild_in(dsn: str, commons: bytes | None) -> int:
    async with connect(dsn, connections=2, seconds=REBUILD_SECONDS) as pool:
        folds = Folds(pool)
        names = [name async for name in folds.list_commons()] if commons is None else [commons]
        for name in names:
            seq = await rebuild(folds, name, half_life_ms=HALF_LIFE_DAYS * 86_400_000)
            if seq == 0:
                raise Fault(f"no commons {name.hex()} was founded here")
            print(f"{name.hex()}: {seq} entries")
        return len(names)


async def _check(database: str | None, data: Path | None) -> list[Report]:
    """Ask the database that is named; a private one is asked where it runs, or started for the time being."""
    tell = _tell if sys.stderr.isatty() else None
    if database is not None:
        return await audit(database, progress=tell)
    return await _in_private(data, lambda dsn: audit(dsn, progress=tell))


async def _in_private(data: Path | None, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Work on a private PostgreSQL where it runs, or started for the time being."""
    folder = (data or default_data()).absolute()
    if not (folder / "postgres").is_dir():
        raise Fault(f"no ledger was ever served from {folder}: say its folder with --data DIR, or --database DSN")
    private = PrivatePostgres(folder)
    dsn = private.dsn(role=SERVICE_ROLE, database="postgres")
    try:
        return await work(dsn)
    except (OSError, PostgresFault, DatabaseLost):
        async with private:
            return await work(dsn)


def _tell(name: str, done: int, of: int) -> None:
    print(f"\r{name}: {done} of {of} entries", end="" if done < of else "\n", file=sys.stderr, flush=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, which halves what a request costs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _fail(fault: Exception) -> NoReturn:
    print(f"gesell: {fault}", file=sys.stderr)
    sys.exit(1)

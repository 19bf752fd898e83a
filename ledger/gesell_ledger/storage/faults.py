"""What can go wrong with the world: a tree of two levels, told apart by SQLSTATE, never by message.

A `Fault` is no refusal: the statement may be fine, the ledger can't say. Its text tells an operator what to do.
"""

from __future__ import annotations

import asyncpg


class Fault(Exception):
    """The world failed; the sentence says what the operator can do."""


class DatabaseUnfit(Fault):
    """The database can't be used as it is: rights, durability, schema or owner are not what they must be."""


class DatabaseLost(Fault):
    """The connection failed; whether a commit under way took effect is not known until the ids are looked up."""


class ClockFault(Fault):
    """The clock can't be trusted, so nothing is written until an operator has looked."""


#: Classes of SQLSTATE on which the ids are looked up and the batch is tried again: connection failures, shutdowns,
#: statements cut off for their length, I/O errors, serialization and deadlock, internal errors.
_TRANSIENT = ("08", "57014", "57P0", "58", "40", "53", "XX")


def fault_of(error: BaseException) -> Fault:
    """What an operator is told when a command's database fails: one line that says what to do.

    `error` is what asyncpg or the operating system raised on connecting or on the first queries.
    """
    # The server's hints come on lines of their own; a timeout says nothing at all.
    text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    state = error.sqlstate or "" if isinstance(error, asyncpg.PostgresError) else ""
    if state in ("3F000", "42P01"):
        return DatabaseUnfit(f"the ledger's tables are not in this database ({text}). Run `gesell db migrate` first.")
    if state == "42501":
        return DatabaseUnfit(f"this database role lacks a right ({text}). Say --database with a DSN of the owner.")
    return DatabaseLost(f"the database can't be reached: {text}. Check --database and that the server runs.")


def not_an_address() -> DatabaseUnfit:
    """What an operator is told of a DSN that asyncpg can't read; it raises all sorts of `ValueError` then.

    None of its words are told: they quote what it could not read, and that is where an unescaped password begins.
    """
    return DatabaseUnfit(
        "--database is no address of a PostgreSQL: say postgresql://ROLE:PASSWORD@HOST:PORT/NAME, and in the password"
        " %2F for /, %23 for #, %3F for ?, %40 for @, %25 for %"
    )


def is_transient(error: BaseException) -> bool:
    """Whether trying again can help. The outcome of a commit that failed so is unknown."""
    if isinstance(error, asyncpg.UniqueViolationError):
        # Two services found the same commons at once: the second try finds what the other stored. No other row is
        # inserted without its commons' lock. A distributed table's names end in the number of the shard.
        return (error.constraint_name or "").startswith("commons_pkey")
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(_TRANSIENT)
    # InternalClientError is also what asyncpg says of a connection that the server has given up and that isn't closed
    # yet: it comes instead of the reason, or with no reason at all, so it can't be told from faults of asyncpg's own.
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError))

"""What a witness remembers, in SQLite: the latest checkpoint it cosigned of each log, and what contradicted one.

Owns the file and its durability. Judges nothing.

1. A commit is on the disk before it returns: WAL with synchronous=FULL.
2. Who changes something looks at it within the same transaction, which no other may enter meanwhile, not even one of a
   second process on the same file.
3. A memory belongs to one name and one key. A key whose memory is gone is not taken up again: a witness that forgot
   would cosign a fork of what it had cosigned.
4. For each log as many contradictions of each kind are kept as `CONFLICTS_MAX`: the first forks, and the last unproven
   ones, which strangers can make up.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from gesell_ledger.storage.faults import Fault
from gesell_ledger.witness.submissions import Contradiction, Latest, Submission

CONFLICTS_MAX: Final = 16
BUSY_SECONDS: Final = 5.0
_VERSION: Final = 1

_TABLES: Final = (
    "CREATE TABLE witness (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, key BLOB NOT NULL) STRICT",
    """CREATE TABLE log (
        origin_hash BLOB PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL CHECK (size >= 0),
        root BLOB NOT NULL CHECK (length(root) = 32), key BLOB NOT NULL CHECK (length(key) = 32), note TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE conflict (
        id INTEGER PRIMARY KEY, origin_hash BLOB NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('fork', 'unproven')),
        received_s INTEGER NOT NULL, old INTEGER NOT NULL, proof BLOB NOT NULL, note TEXT NOT NULL,
        cosigned TEXT NOT NULL, UNIQUE (origin_hash, kind, note)
    ) STRICT""",
    f"PRAGMA user_version = {_VERSION}",
)


class RecordsFault(Fault):
    """What the witness remembers can't be used; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A checkpoint that was refused, with the proof that came with it, and the one that had been cosigned by then."""

    kind: Contradiction
    received_s: int
    old: int
    proof: bytes
    note: str
    cosigned: str


class Records:
    """The memory of one witness. For one thread at a time; sqlite3's own errors pass through."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @staticmethod
    def open(file: Path) -> Records:
        """Open the file, or make it; raises `RecordsFault`."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            records = Records(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            records._make_tables()
            _sync(file.parent)
        except (sqlite3.Error, OSError) as error:
            raise RecordsFault(f"the witness's memory {file} can't be opened: {error}. Say --data DIR") from None
        return records

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within is done as a whole, durably, when the block ends; else not at all (rules 1 and 2)."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def owner(self) -> tuple[str, bytes] | None:
        """The name and the key whose memory this is; None while it is nobody's."""
        row = self._connection.execute("SELECT name, key FROM witness").fetchone()
        return None if row is None else (row[0], row[1])

    def claim(self, name: str, key: bytes) -> None:
        """Make it the memory of this witness, if it is nobody's."""
        with self.transaction():
            self._connection.execute("INSERT OR IGNORE INTO witness VALUES (1, ?, ?)", (name, key))

    def load(self, origin: str) -> Latest:
        """What was cosigned last of a log."""
        found = self._connection.execute(
            "SELECT size, root, key, note FROM log WHERE origin_hash = ?", (hash_of_origin(origin),)
        ).fetchone()
        return Latest() if found is None else Latest(*found)

    def store(self, origin: str, latest: Latest) -> None:
        """Remember a checkpoint as the latest of its log; within a transaction in which it was loaded and judged."""
        assert self._connection.in_transaction
        self._connection.execute(
            """INSERT INTO log (origin_hash, origin, size, root, key, note) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE
            SET size = excluded.size, root = excluded.root, key = excluded.key, note = excluded.note""",
            (hash_of_origin(origin), origin, latest.size, latest.root, latest.key, latest.note),
        )

    def store_conflict(
        self, kind: Contradiction, submission: Submission, *, note: str, cosigned: str, received_s: int
    ) -> bool:
        """Keep what contradicted a checkpoint (rule 4), within a transaction; False if it was known, or is one too
        many.
        """
        assert self._connection.in_transaction
        of = (hash_of_origin(submission.checkpoint.origin), kind)
        (count,) = self._connection.execute(
            "SELECT count(*) FROM conflict WHERE origin_hash = ? AND kind = ?", of
        ).fetchone()
        if kind == "fork" and count >= CONFLICTS_MAX:
            return False
        added = self._connection.execute(
            """INSERT OR IGNORE INTO conflict (origin_hash, kind, received_s, old, proof, note, cosigned)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (*of, received_s, submission.old, b"".join(submission.proof), note, cosigned),
        )
        self._connection.execute(
            """DELETE FROM conflict WHERE id IN (
                SELECT id FROM conflict WHERE origin_hash = ? AND kind = ? ORDER BY id DESC LIMIT -1 OFFSET ?
            )""",
            (*of, CONFLICTS_MAX),
        )
        return added.rowcount == 1

    def load_note(self, origin_hash: bytes) -> str | None:
        """The latest cosigned checkpoint of a log as it is given out; None if there is none."""
        found = self._connection.execute("SELECT note FROM log WHERE origin_hash = ?", (origin_hash,)).fetchone()
        return None if found is None else str(found[0])

    def list_conflicts(self, origin_hash: bytes) -> list[Conflict]:
        """What contradicted checkpoints of a log, in the order received."""
        found = self._connection.execute(
            """SELECT kind, received_s, old, proof, note, cosigned FROM conflict WHERE origin_hash = ? ORDER BY id""",
            (origin_hash,),
        )
        return [Conflict(*row) for row in found]

    def count(self) -> tuple[int, int]:
        """How many logs it remembers, and of how many of them it knows a fork."""
        logs, forked = self._connection.execute(
            """SELECT (SELECT count(*) FROM log),
                (SELECT count(DISTINCT origin_hash) FROM conflict WHERE kind = 'fork')"""
        ).fetchone()
        return logs, forked

    def _make_tables(self) -> None:
        with self.transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES:
                    self._connection.execute(statement)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, and this Gesell knows {_VERSION}")


def hash_of_origin(origin: str) -> bytes:
    """By what a log is asked for."""
    return sha256(origin.encode()).digest()


def _sync(folder: Path) -> None:
    """A new file must be found after a power failure, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

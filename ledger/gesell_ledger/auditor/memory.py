"""What an audit remembers: the books in memory, and on disk what would grow with the log.

Owns one SQLite file, which is also the state that an interrupted audit goes on from. Judges nothing.

1. In memory: members, accounts, keys and vouches, as `Books`. On disk: ids in use, who sealed which memo, gifts, holds.
2. An id is remembered for as long as it could come again: a statement is accepted at most 7 days after the time in its
   id (SPEC §3).
3. With a state file, `commit` writes all that changed in one transaction, so that whatever ends the audit, the file
   says where it was at some entry, all of it. Without one, the file is a temporary one and nothing is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgpack
import msgspec

from gesell_ledger.core.books import Books, Commons, Gift, Hold, Key, Kind, Known, Member, ShareOut
from gesell_ledger.core.decide import Accepted
from gesell_protocol.canonical import pack
from gesell_protocol.demurrage import Holding
from gesell_protocol.fields import Currency
from gesell_protocol.policy import Policy, Timeline
from gesell_protocol.statements import EXPIRES_MAX_MS
from gesell_protocol.tree import Frontier

T = TypeVar("T")

#: Written into a state file; a file of another version is not gone on from.
VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS used (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (id BLOB PRIMARY KEY, seq INTEGER NOT NULL, by BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gift (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS account (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS peer_key (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vouch (id BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (id INTEGER PRIMARY KEY CHECK (id = 1), value BLOB NOT NULL);
"""


class StateFault(Exception):
    """The state file can't be used; the sentence says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an audit has come: the tree so far, which keys the ledger had from which size on, and what was counted.

    `note` is the last checkpoint up to which everything held, empty while there is none.
    """

    frontier: Frontier = field(default_factory=Frontier)
    keys: tuple[tuple[int, bytes], ...] = ()
    first_ms: int = 0
    postings: int = 0
    melted: int = 0
    note: str = ""


class Memory:
    """The books of an audit and what stands on disk beside them. For one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        """Open a state file, or make it; without a path everything is forgotten in the end.

        Raises `StateFault` for a file that is none of this auditor's.
        """
        self.books = Books()
        self.progress = Progress()
        self._path = path
        #: What came since the last commit, and is not on disk yet.
        self._used: set[bytes] = set()
        self._found: set[bytes] = set()
        self._sealed: dict[bytes, tuple[int, bytes]] = {}
        self._gifts: dict[bytes, Gift] = {}
        self._holds: dict[bytes, Hold] = {}
        self._rings: dict[bytes, set[bytes]] = {}
        self._changed: dict[str, set[Any]] = {name: set() for name in ("account", "member", "peer_key", "vouch")}
        try:
            self._disk = sqlite3.connect("" if path is None else path, check_same_thread=False, isolation_level=None)
            if path is None:
                self._disk.execute("PRAGMA journal_mode = OFF")
                self._disk.execute("PRAGMA synchronous = OFF")
            self._disk.executescript(_TABLES)
            self._disk.execute("BEGIN EXCLUSIVE")
            if path is not None:
                self._restore()
        except (sqlite3.Error, ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            raise StateFault(
                f"{path} is no state of an audit, or of another version, or in use ({error}):"
                " say another file with --state, or delete it to begin anew"
            ) from None

    def close(self) -> None:
        """Let go of the file as it was at the last commit."""
        self._disk.close()

    # ── What stands on disk ──────────────────────────────────────────────────────────────────────────────────────

    def look_for(self, names: Sequence[bytes]) -> None:
        """Find out which of some ids stand on disk, in one go: each by itself would cost as much as a payment."""
        marks = ", ".join("?" * len(names))
        self._found = {row[0] for row in self._disk.execute(f"SELECT id FROM used WHERE id IN ({marks})", names)}

    def is_used(self, name: bytes) -> bool:
        """Whether an id, of those last looked for, stands in the log already, as far back as it could come again."""
        return name in self._used or name in self._found

    def sealed_by(self, name: bytes) -> bytes | None:
        """Whose the entry with a sealed memo is that has this id."""
        found = (
            self._sealed.get(name) or self._disk.execute("SELECT seq, by FROM sealed WHERE id = ?", (name,)).fetchone()
        )
        return found[1] if found else None

    def gift(self, name: bytes) -> Gift | None:
        """A gift in whatever state."""
        return self._gifts.get(name) or self._made(Gift, "gift", name)

    def hold(self, name: bytes) -> Hold | None:
        """A hold, open or not."""
        return self._holds.get(name) or self._made(Hold, "hold", name)

    def keys_of(self, peer: bytes) -> Mapping[bytes, Key]:
        """The keys that belong to a peer: the core looks through all that it is shown."""
        return {name: self.books.keys[name] for name in self._rings.get(peer, ())}

    def _made(self, make: type[T], table: str, name: bytes) -> T | None:
        row = self._disk.execute(f"SELECT value FROM {table} WHERE id = ?", (name,)).fetchone()
        return None if row is None else make(**_unpack(row[0]))

    # ── Going on ─────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, accepted: Accepted, *, sealed: bool, by: bytes) -> None:
        """Take an entry into the books and remember what a later one may ask for."""
        entry, decision, books = accepted.entry, accepted.decision, self.books
        books.apply(decision, entry)
        # What stands on disk was put into the books for this entry only.
        books.entries.clear()
        books.gifts.clear()
        books.holds.clear()
        self._used.add(entry.id)
        if sealed:
            self._sealed[entry.id] = (entry.seq, by)
        self._gifts.update(decision.gifts)
        self._holds.update(decision.holds)
        if decision.share is not None:
            # A share that is paid out is asked for no more.
            books.shares = {name: share for name, share in books.shares.items() if share.unpaid}
        for key in decision.keys.values():
            self._rings.setdefault(key.peer, set()).add(key.key)
        if self._path is not None:
            changed = self._changed
            changed["account"].update(decision.accounts)
            changed["member"].update(decision.members)
            changed["peer_key"].update(decision.keys)
            changed["vouch"].update(decision.vouches)

    def commit(self) -> None:
        """Write down what came since the last time; with a state file, also where the audit is, durably."""
        disk = self._disk
        disk.executemany("INSERT INTO used VALUES (?)", [(name,) for name in sorted(self._used)])
        disk.executemany("INSERT INTO sealed VALUES (?, ?, ?)", [(name, *made) for name, made in self._sealed.items()])
        for table, values in (("gift", self._gifts), ("hold", self._holds)):
            self._put(table, [(name, _fields_of(value)) for name, value in values.items()])
        for one in (self._used, self._sealed, self._gifts, self._holds):
            one.clear()
        commons = self.books.commons
        if commons is not None and commons.at_ms > EXPIRES_MAX_MS:
            forgotten = min(commons.at_ms - EXPIRES_MAX_MS, 2**48 - 1).to_bytes(6, "big")
            disk.execute("DELETE FROM used WHERE id < ?", (forgotten,))
        if self._path is not None:
            self._store()
            disk.execute("COMMIT")
            disk.execute("BEGIN EXCLUSIVE")

    def _store(self) -> None:
        books, changed, progress = self.books, self._changed, self.progress
        self._put("account", [(_pack(name), books.accounts[name]) for name in changed["account"]])
        self._put("member", [(name, _fields_of(books.members[name])) for name in changed["member"]])
        self._put("peer_key", [(name, _fields_of(books.keys[name])) for name in changed["peer_key"]])
        self._put("vouch", [(_pack(pair), books.vouches.get(pair, 0)) for pair in changed["vouch"]])
        for names in changed.values():
            names.clear()
        head = {
            "version": VERSION,
            "size": progress.frontier.size,
            "peaks": progress.frontier.pack(),
            "keys": progress.keys,
            "first_ms": progress.first_ms,
            "postings": progress.postings,
            # May pass 64 bits: what melts goes round for ever.
            "melted": str(progress.melted),
            "note": progress.note,
            "commons": None if books.commons is None else _commons_fields(books.commons),
            "shares": [_fields_of(share) for share in books.shares.values()],
        }
        self._disk.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (_pack(head),))

    def _put(self, table: str, values: list[tuple[bytes, object]]) -> None:
        self._disk.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", [(name, _pack(value)) for name, value in values]
        )

    def _restore(self) -> None:
        row = self._disk.execute("SELECT value FROM head").fetchone()
        if row is None:
            return
        head, books = _unpack(row[0]), self.books
        if head["version"] != VERSION:
            raise ValueError(f"version {head['version']}")
        self.progress = Progress(
            frontier=Frontier.unpack(head["size"], head["peaks"]),
            keys=head["keys"],
            first_ms=head["first_ms"],
            postings=head["postings"],
            melted=int(head["melted"]),
            note=head["note"],
        )
        books.commons = None if head["commons"] is None else _read_commons(head["commons"])
        shares = [ShareOut(**fields) for fields in head["shares"]]
        books.shares = {share.id: share for share in shares}
        for name, value in self._rows("account"):
            books.accounts[_unpack(name)] = Holding(*_unpack(value))
        for name, value in self._rows("member"):
            books.members[name] = member = Member(**_unpack(value))
            if member.handle_held:
                books.held[member.handle] = name
        for name, value in self._rows("peer_key"):
            books.keys[name] = key = Key(**_unpack(value))
            self._rings.setdefault(key.peer, set()).add(name)
        for name, value in self._rows("vouch"):
            books.vouches.put(_unpack(name), _unpack(value))

    def _rows(self, table: str) -> sqlite3.Cursor:
        return self._disk.execute(f"SELECT id, value FROM {table}")


def sealed_statement(by: bytes) -> Known:
    """As much of a statement with a sealed memo as `erase` asks for: whose it is, and that there is a seal."""
    return Known(pack({"by": by, "memo": bytes(32)}))


def _pack(value: object) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, use_list=False, max_array_len=2**24, max_map_len=2**24)


def _fields_of(value: Any) -> dict[str, Any]:
    names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else value.__dataclass_fields__
    return {name: getattr(value, name) for name in names}


def _commons_fields(commons: Commons) -> dict[str, Any]:
    return {
        **_fields_of(commons),
        "currency": astuple(commons.currency),
        "timeline": [(tick, _fields_of(policy)) for tick, policy in commons.timeline.changes],
        "kinds": [astuple(kind) for kind in commons.kinds.values()],
    }


def _read_commons(fields: dict[str, Any]) -> Commons:
    return Commons(
        **{
            **fields,
            "currency": Currency(*fields["currency"]),
            "timeline": Timeline.of((tick, Policy(**policy)) for tick, policy in fields["timeline"]),
            "kinds": MappingProxyType({kind[0]: Kind(*kind) for kind in fields["kinds"]}),
        }
    )

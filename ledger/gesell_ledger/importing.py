"""A log file becomes a commons of this ledger: audited as a whole, then decided and stored again, entry for entry.

Owns the order that makes it safe: nothing is stored of a log that does not hold, and nothing but what stands in it.

1. The whole file is audited first; the ledger's key that is in force at its end must be ours.
2. No service runs on the database meanwhile; the database is this key's, or nobody's yet.
3. What is stored already of this commons is the beginning of the file, or nothing is done.
4. Entries are decided by the core with their own time as the clock, stored in batches, a transaction each, and every
   leaf is compared with the file's; before the last batch is committed, the root with the audit's. Interrupted, it goes
   on after the last batch. A file that is no longer the one that was audited is a fault, and its batch is not stored.
5. Until the last batch is stored no key speaks for the commons, so that no service starts on it by half.
6. Texts of memos are not in a log, so they are not imported; their seals are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import structs

from gesell_ledger.auditor.auditing import Question, audit_file
from gesell_ledger.auditor.files import LogFile
from gesell_ledger.auditor.findings import Verdict, Wrong
from gesell_ledger.clock import Clock
from gesell_ledger.core.decide import Accepted, Submission, decide
from gesell_ledger.core.needs import needs_of
from gesell_ledger.ground import check_unserved, connect
from gesell_ledger.keyfile import LedgerKey
from gesell_ledger.storage.faults import DatabaseUnfit, Fault
from gesell_ledger.storage.imports import UNFINISHED, mark_unfinished
from gesell_ledger.storage.postgres import (
    Batch,
    Warm,
    check_fit,
    claim_ledger,
    store_heartbeat,
)
from gesell_ledger.storage.rules import Rules
from gesell_ledger.storage.trees import Trees
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import leaf_hash, read_leaf
from gesell_protocol.names import base64_text, did_of
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import read_statement
from gesell_protocol.tree import Frontier

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

CONNECTIONS: Final = 2
SECONDS: Final = 600
BATCH: Final = 1_000

Tell = Callable[[int, int], None]


class ImportFault(Fault):
    """The log can't be imported; the sentence says why, and what to do."""


class _Changed(Exception):
    """The file is not the one that was audited; the sentence says where it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import came to: the audit of the file, and how many of its entries were stored now."""

    verdict: Verdict
    stored: int


def check_log(path: Path, *, ledger: bytes, question: Question | None = None, tell: Tell | None = None) -> Verdict:
    """Rule 1: the verdict on a log file that may be imported by the ledger of this key. Raises `ImportFault`.

    `question` is what is asked of the log besides: what others hold of it, and on which clock it is.
    """
    try:
        verdict = audit_file(path, question or Question(), tell=tell)
    except OSError as error:
        raise ImportFault(f"{path} can't be read: {error.strerror or error}") from None
    if verdict.finding is not None:
        raise ImportFault(f"nothing is imported: {path} does not hold: {verdict.finding}")
    if verdict.ledger != ledger:
        raise ImportFault(
            f"nothing is imported: the log is of the ledger {did_of(verdict.ledger)}, and this key is"
            f" {did_of(ledger)}. Say the file of that ledger's key: --key FILE"
        )
    return verdict


async def import_log(
    dsn: str, path: Path, verdict: Verdict, *, key: LedgerKey, demo: bool, tell: Tell | None = None
) -> Imported:
    """Store the commons of a log file that `check_log` found good in a database, as the service's role.

    `demo`: the database runs, or will run, on a demo clock; it goes on at the log's last entry. Run again after an
    interruption it goes on where it was; where all is stored it changes nothing. Raises a `Fault` that says what to do.
    """
    async with connect(dsn, connections=CONNECTIONS, seconds=SECONDS, writing=True) as pool:
        await check_fit(pool, unsafe_durability=True)
        await _claim(pool, verdict, key=key.public_key, demo=demo)
        log = LogFile(path)
        try:
            begun = await _find_begun(pool, verdict, log)
            await _Import(pool, verdict, begun).run(log, tell)
        except (Wrong, Rejected, _Changed) as fault:
            said = fault.finding if isinstance(fault, Wrong) else fault
            raise ImportFault(
                f"{path} changed since it was audited, and nothing more of it is stored: {said}. Run it again with a"
                " file that nobody writes to"
            ) from None
        finally:
            log.close()
        tree = await Trees(pool).load(verdict.commons)
        # What the last batch was held to before it was committed (rule 4): only a fault of ours could differ here.
        assert tree is not None
        assert (tree.frontier.size, tree.frontier.root) == (verdict.size, verdict.root), "the same root as the file's"
        assert tree.ledger == key.public_key, "the same key speaks for it"
        return Imported(verdict=verdict, stored=verdict.size - begun.size)


async def _claim(pool: Pool, verdict: Verdict, *, key: bytes, demo: bool) -> None:
    """Rule 2."""
    now_ms = verdict.last_ms if demo else Clock().look()
    await check_unserved(pool)
    row = await claim_ledger(pool, key=key, demo=demo, now_ms=now_ms)
    if row["key"] != key:
        raise DatabaseUnfit(f"this database belongs to the ledger {did_of(row['key'])}; say another one")
    if row["demo"] != demo:
        kinds = ("a real clock", "a demo clock")
        raise DatabaseUnfit(f"this database runs on {kinds[row['demo']]}, not on {kinds[demo]}; say another one")
    if demo and row["heartbeat_ms"] < verdict.last_ms:
        await store_heartbeat(pool, verdict.last_ms)


async def _find_begun(pool: Pool, verdict: Verdict, log: LogFile) -> Frontier:
    """Rule 3: the tree of the entries that are stored, which are passed over in the file."""
    tree = await Trees(pool).load(verdict.commons)
    if tree is None:
        return Frontier()
    size = tree.frontier.size
    if size > verdict.size:
        raise ImportFault(f"nothing is imported: the commons is here with {size} entries, the file has {verdict.size}")
    if log.skip({size}).get(size) != tree.frontier.root:
        raise ImportFault(
            f"nothing is imported: the commons is here with {size} entries of the root"
            f" {base64_text(tree.frontier.root)}, which the file does not begin with"
        )
    if tree.ledger not in (verdict.key_at(size), UNFINISHED):
        raise ImportFault(f"nothing is imported: the key {did_of(tree.ledger)} speaks for the commons here")
    if size == verdict.size and tree.ledger == UNFINISHED:
        raise ImportFault(
            f"nothing is imported: a longer log of this commons is here by half, its first {size} entries, and this"
            " file has no more. Import that log, or a longer one, to its end"
        )
    return tree.frontier


class _Import:
    """Rules 4 and 5, batch by batch."""

    def __init__(self, pool: Pool, verdict: Verdict, begun: Frontier) -> None:
        self._pool = pool
        self._verdict = verdict
        self._tree = begun
        self._rules = Rules()
        self._warm: Warm | None = None

    async def run(self, log: LogFile, tell: Tell | None) -> None:
        """Store what is left of the file."""
        for batch in _batches(log):
            await self._store(batch)
            if tell is not None:
                tell(self._tree.size, self._verdict.size)
        if self._tree.size < self._verdict.size:
            raise _Changed(f"it ends after {self._tree.size} entries")

    async def _store(self, batch: list[bytes]) -> None:
        verdict = self._verdict
        commons = verdict.commons
        leaves = [read_leaf(data) for data in batch]
        envelopes = [Envelope(leaf.body, leaf.signatures) for leaf in leaves]
        submissions = [Submission(one, read_statement(one, min_tick_seconds=1)) for one in envelopes]
        async with self._pool.acquire() as connection, connection.transaction():
            transaction = Batch(connection, commons, self._rules, self._warm)
            books = await transaction.lock()
            if books is None:
                raise ImportFault(
                    "the ledger has a commons whose name begins the same: import into a ledger of its own"
                )
            if (books.commons.seq if books.commons is not None else 0) != self._tree.size:
                raise ImportFault("somebody else wrote to the commons meanwhile: nothing more is imported")
            if books.commons is not None:
                books.commons = structs.replace(books.commons, ledger=verdict.key_at(self._tree.size))
            await transaction.load(books, needs_of(submissions))
            before = dict(books.accounts)
            accepted = list[Accepted]()
            for data, leaf, submission in zip(batch, leaves, submissions, strict=True):
                outcome = decide(books, submission, now_ms=leaf.at_ms, ledger=verdict.keys[0][1])
                if not isinstance(outcome, Accepted):
                    raise _Changed(f"its entry {leaf.seq} is not accepted")
                if outcome.entry.leaf_data != data:
                    raise _Changed(f"its entry {leaf.seq} comes out otherwise")
                books.apply(outcome.decision, outcome.entry)
                accepted.append(outcome)
            await transaction.store(books, accepted, before, {})
            tree, _ = self._tree.grown(map(leaf_hash, batch))
            if tree.size < verdict.size:
                await mark_unfinished(connection, commons)
            elif (tree.size, tree.root) != (verdict.size, verdict.root):
                raise _Changed("its entries do not hash to the root that was audited")
        self._tree = tree
        self._warm = transaction.leave_warm(books)


def _batches(log: LogFile) -> Iterator[list[bytes]]:
    batch = list[bytes]()
    for piece in log.entries():
        for data in piece:
            batch.append(data)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch

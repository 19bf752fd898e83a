"""The check after every run: what was acknowledged is in the books, once, and the books hold.

Owns the comparison, after the clock has stopped. Believes neither the load nor the service: answers are held against
what was sent, against the commons' log as anybody reads it over HTTP, and against the database. In this order:

1. Every request has one answer, and every statement in it a receipt under its own id, or a refusal that may be; no id
   and no entry was acknowledged twice. Of some receipts (`SAMPLE` a run, evenly spread) everything is checked: the
   leaf is the hash of this envelope with these postings, and the postings are what was signed.
2. Every acknowledged leaf stands in the log at its place, among the entries that were not there at the check before.
   All leaves of the log, those of earlier checks included, hash to the root of the checkpoint that the ledger signed.
3. In the database, of the entries since the check before: none is missing; the postings of each sum to zero for each
   asset; the balance beside each posting is the one before it on that account plus its amount; each account that they
   touch has the balance of its last posting. Over all accounts of the commons, each asset sums to zero.

By 3 a balance is the sum of its account's postings if it was so at the check before, and before the first there was
nothing: thus each check is as long as its run, not as the ledger. `Verifier.prove` has the project's own proof done on
all of it, once. A service that is not ours has no database that we may read: of it 1 and 2 are checked, and the
auditor proves the rest from its log.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgpack

from bench.driver import Run
from bench.measures import Check, Notebook
from gesell.errors import GesellError
from gesell.log_reader import LogReader
from gesell.transport import Answer, Form, Transport
from gesell_protocol.envelopes import read_envelope
from gesell_protocol.notes import BadNote, verify_checkpoint
from gesell_protocol.receipts import check_receipt, read_receipt
from gesell_protocol.statements import read_statement
from gesell_protocol.tree import TILE_WIDTH, BadProof, Frontier, Tile, hash_of, split_hashes, tile_width, tiles_for

if TYPE_CHECKING:
    from yarl import URL

#: Of the receipts of a run, so many are checked as their authors would check them.
SAMPLE: Final = 300
#: Faults that are told; the others would say nothing new.
FAULTS_MAX: Final = 5
HTTP_SECONDS: Final = 60.0
SQL_SECONDS: Final = 600.0
#: Tiles asked for and held at a time, of 256 leaves each.
TILES_AT_ONCE: Final = 256


class NotHeld(Exception):
    """What was acknowledged is not in the books, or the books do not hold, or something was refused that may not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a run says it did in a commons: the requests as sent (bytes, in the order in which they were handed to
    `drive`) and what `drive` brought back. `refusals`: codes that some statements may be refused with; with none,
    all must be accepted. Requests that begin with `GET` are reads and must have been answered 200.
    """

    after: str
    commons: bytes
    requests: Sequence[bytes]
    run: Run
    refusals: frozenset[str] = frozenset()


@dataclass(slots=True)
class Told:
    """What the answers of a run say: seq → leaf of each receipt, refusals by code, reads, and what is amiss."""

    leaves: dict[int, bytes] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Grown:
    """The leaves that a log has grown by since the check before: those of entries `start` + 1 to `end`."""

    start: int
    leaves: Sequence[bytes]

    @property
    def end(self) -> int:
        """How many entries the log has."""
        return self.start + len(self.leaves)


class Verifier:
    """Checks the runs at one service, in their order; keeps of each commons how far its log was seen, and its tree."""

    def __init__(self, url: str, *, ledger: bytes, dsn: str | None) -> None:
        """`ledger` is the service's key; `dsn` reads its database where it is ours, else None."""
        self._url = url
        self._ledger = ledger
        self._dsn = dsn
        self._seen: dict[bytes, Frontier] = {}

    async def check(self, notebook: Notebook, claim: Claim) -> int:
        """Check one run, note it, and return how many statements were accepted; raises `NotHeld`."""
        told = read_answers(claim)
        faults = told.faults
        grown = await self._follow(claim.commons, faults)
        if grown is not None:
            faults += find_missing(told.leaves, grown)
            if self._dsn is not None:
                faults += await find_unsound(self._dsn, claim.commons, start=grown.start, end=grown.end)
        accepted = len(told.leaves)
        beside = "" if grown is None or len(grown.leaves) == accepted else f", {len(grown.leaves)} entries in the log"
        refused = "".join(f", {count} refused: {code}" for code, count in sorted(told.refused.items()))
        reads = f", {told.reads} reads" if told.reads else ""
        _note(notebook, claim.after, accepted, faults, f"{accepted} accepted{refused}{reads}{beside}")
        return accepted

    async def pass_over(self, commons: bytes) -> int:
        """Take what the log of a commons holds by now as given, and check from there on; returns how many entries.

        For a ledger that was filled by other means than requests. The tree it goes on from is the one whose root the
        ledger signed.
        """
        async with self._log(commons) as log:
            checkpoint = verify_checkpoint(await log.checkpoint(), commons=commons, ledger=self._ledger)
            size = checkpoint.size
            spans = list(_peaks(size))
            tiles = await log.tiles(tiles_for(spans, size), size=size)
            frontier = Frontier(size, tuple(hash_of(start, end, size, tiles) for start, end in spans))
        if frontier.root != checkpoint.root:
            raise NotHeld(f"the tiles of {commons.hex()} do not hash to the checkpoint of its {size} entries")
        self._seen[commons] = frontier
        return size

    async def prove(self, notebook: Notebook, *, after: str) -> None:
        """Have the project prove all books from the statements alone; notes it and raises `NotHeld`."""
        if self._dsn is not None:
            commands = [["db", "check", "--database", self._dsn, "--json"]]
        else:
            commands = [["audit", self._url, "--commons", commons.hex(), "--json"] for commons in self._seen]
        faults: list[str] = []
        entries = 0
        for command in commands:
            counted, found = await _said_by_gesell(command)
            entries += counted
            faults += found
        seen = sum(one.size for one in self._seen.values())
        if entries < seen:
            faults.append(f"{entries} entries were proven, the logs have {seen}")
        how = "gesell audit" if self._dsn is None else "gesell db check"
        _note(notebook, after, seen, faults, f"{how}: {entries} entries")

    async def _follow(self, commons: bytes, faults: list[str]) -> Grown | None:
        """Fetch what the log has grown by and hold it against the signed root; None, with a fault, where it can't be
        read or does not lead there.
        """
        seen = self._seen.get(commons, Frontier())
        try:
            async with self._log(commons) as log:
                checkpoint = verify_checkpoint(await log.checkpoint(), commons=commons, ledger=self._ledger)
                if checkpoint.size < seen.size:
                    faults.append(f"the log has {checkpoint.size} entries, and had {seen.size} before")
                    return None
                leaves = await _leaves(log, start=seen.size, end=checkpoint.size)
        except (GesellError, BadNote, BadProof) as error:
            faults.append(f"the log can't be read: {error}")
            return None
        grown, _ = seen.grown(leaves)
        if grown.root != checkpoint.root:
            faults.append(f"the leaves of the log do not hash to the checkpoint of its {checkpoint.size} entries")
            return None
        self._seen[commons] = grown
        return Grown(seen.size, leaves)

    @asynccontextmanager
    async def _log(self, commons: bytes) -> AsyncIterator[LogReader]:
        async with Transport(self._url, timeout=HTTP_SECONDS) as transport:

            async def read(url: URL, form: Form) -> Answer:
                return await transport.read(url, form)

            yield LogReader(transport, commons=commons, read=read)


async def _leaves(log: LogReader, *, start: int, end: int) -> list[bytes]:
    """The leaves of entries `start` + 1 to `end`, from the tiles of the tree of `end` leaves."""
    leaves: list[bytes] = []
    places = range(start // TILE_WIDTH, -(-end // TILE_WIDTH))
    for at in range(0, len(places), TILES_AT_ONCE):
        wanted = [Tile(0, place, tile_width(0, place, end)) for place in places[at : at + TILES_AT_ONCE]]
        tiles = await log.tiles(wanted, size=end)
        for tile in wanted:
            leaves += split_hashes(tiles[tile])
    return leaves[start % TILE_WIDTH :]


def _peaks(size: int) -> Iterator[tuple[int, int]]:
    """The spans of leaves below the peaks of a tree, the largest first."""
    start = 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            yield start, start + (1 << height)
            start += 1 << height


def _note(notebook: Notebook, after: str, acknowledged: int, faults: Sequence[str], detail: str) -> None:
    held = not faults
    said = "; ".join([*faults[:FAULTS_MAX], *(["…"] if len(faults) > FAULTS_MAX else []), detail])
    notebook.checks.append(Check(after=after, acknowledged=acknowledged, held=held, detail=said))
    if not held:
        raise NotHeld(f"after {after}: {said}")


# ── 1. The answers ───────────────────────────────────────────────────────────────────────────────────────────────


def read_answers(claim: Claim) -> Told:
    """Hold every answer of a run against the request it is to."""
    told = Told()
    run = claim.run
    if not run.requests == len(run.answers) == len(set(run.places)) == len(run.places):
        told.faults.append(f"{run.requests} requests have {len(run.answers)} answers")
    ids: set[bytes] = set()
    every = max(1, _statements_in(claim) // SAMPLE)
    taken = 0
    for place, (status, body) in zip(run.places, run.answers, strict=True):
        sent = claim.requests[place]
        if sent.startswith(b"GET "):
            told.reads += 1
            if status != 200:
                told.faults.append(f"a read was answered {status}")
            continue
        envelopes = msgpack.unpackb(_body_of(sent))["statements"]
        results = _results(status, body)
        if len(results) != len(envelopes):
            told.faults.append(f"{len(envelopes)} statements have {len(results)} results")
            continue
        for envelope, result in zip(envelopes, results, strict=True):
            fault = _take(claim, told, ids, envelope, result, whole=taken % every == 0)
            taken += 1
            if fault:
                told.faults.append(fault)
    return told


def _statements_in(claim: Claim) -> int:
    """About how many statements were sent: as many in every request as in the first that holds any."""
    first = next((one for one in claim.requests if not one.startswith(b"GET ")), None)
    return 0 if first is None else len(msgpack.unpackb(_body_of(first))["statements"]) * claim.run.requests


def _body_of(request: bytes) -> bytes:
    return request[request.index(b"\r\n\r\n") + 4 :]


def _results(status: int, body: bytes) -> list[dict[str, Any]]:
    """The results that an answer holds; a lone refused statement is answered with its problem (SPEC §7.1)."""
    if status == 200:
        results: list[dict[str, Any]] = msgpack.unpackb(body)["results"]
        return results
    try:
        return [{"status": "refused", "problem": {"code": str(json.loads(body)["code"])}}]
    except (ValueError, KeyError, TypeError):
        return [{"status": "refused", "problem": {"code": f"http-{status}"}}]


def _take(
    claim: Claim, told: Told, ids: set[bytes], envelope: list[Any], result: dict[str, Any], *, whole: bool
) -> str:
    """Take one result; returns what is amiss, or nothing. With `whole`, all that the receipt says is checked."""
    if result["status"] == "refused":
        code = result["problem"]["code"]
        told.refused[code] += 1
        return "" if code in claim.refusals else f"a statement was refused: {code}"
    if result["status"] != "accepted":
        return f"a statement sent once was {result['status']}"
    receipt = result["receipt"]
    seq, own = receipt["seq"], receipt["id"]
    if own != msgpack.unpackb(envelope[0])["id"] or receipt["commons"] != claim.commons:
        return f"the receipt of entry {seq} is for another statement than it answers"
    if own in ids or seq in told.leaves:
        return f"entry {seq} or its statement was acknowledged twice"
    ids.add(own)
    told.leaves[seq] = receipt["leaf"]
    return _whole(envelope, receipt) if whole else ""


def _whole(wire: list[Any], fields: dict[str, Any]) -> str:
    envelope = read_envelope(wire)
    statement = read_statement(envelope)
    try:
        check_receipt(read_receipt(fields), envelope=envelope, statement=statement, currency=None)
    except ValueError as error:
        return f"entry {fields['seq']}: {error}"
    return ""


# ── 2. The log ───────────────────────────────────────────────────────────────────────────────────────────────────


def find_missing(acknowledged: dict[int, bytes], grown: Grown) -> list[str]:
    """What of the acknowledged leaves does not stand at its place among those that the log has grown by."""
    faults = []
    for seq, leaf in acknowledged.items():
        if not grown.start < seq <= grown.end:
            faults.append(f"entry {seq} was acknowledged, the log grew from {grown.start} to {grown.end}")
        elif grown.leaves[seq - 1 - grown.start] != leaf:
            faults.append(f"entry {seq} stands in the log with another leaf than was acknowledged")
    return faults


# ── 3. The database ──────────────────────────────────────────────────────────────────────────────────────────────

#: Each counts what is amiss: $1 the commons, and where it takes them, entries after $2 up to $3.
_UNSOUND: Final = (
    (
        "of {span} entries {count} are missing",
        True,
        "SELECT $3::bigint - $2::bigint - count(*) FROM gesell.entry WHERE commons_id = $1 AND seq > $2 AND seq <= $3",
    ),
    (
        "{count} entries' postings do not sum to zero for each asset",
        True,
        """
        SELECT count(*) FROM (
            SELECT 1
            FROM gesell.posting AS p
            JOIN gesell.account AS a ON a.commons_id = p.commons_id AND a.number = p.account
            WHERE p.commons_id = $1 AND p.seq > $2 AND p.seq <= $3
            GROUP BY p.seq, a.asset HAVING sum(p.amount) <> 0
        ) AS odd
        """,
    ),
    (
        "the balance beside {count} postings is not the one before plus the amount",
        True,
        """
        WITH moved AS (
            SELECT account, amount, balance, lag(balance) OVER (PARTITION BY account ORDER BY seq, n) AS before
            FROM gesell.posting WHERE commons_id = $1 AND seq > $2 AND seq <= $3
        )
        SELECT count(*)
        FROM moved AS m
        LEFT JOIN LATERAL (
            SELECT balance FROM gesell.posting
            WHERE commons_id = $1 AND account = m.account AND seq <= $2 AND m.before IS NULL
            ORDER BY seq DESC, n DESC LIMIT 1
        ) AS earlier ON true
        WHERE m.balance - m.amount <> coalesce(m.before, earlier.balance, 0)
        """,
    ),
    (
        "{count} accounts have another balance than their last posting says",
        True,
        """
        SELECT count(*)
        FROM gesell.account AS a
        CROSS JOIN LATERAL (
            SELECT balance FROM gesell.posting
            WHERE commons_id = $1 AND account = a.number
            ORDER BY seq DESC, n DESC LIMIT 1
        ) AS newest
        WHERE a.commons_id = $1 AND a.balance <> newest.balance
            AND a.number IN (SELECT account FROM gesell.posting WHERE commons_id = $1 AND seq > $2 AND seq <= $3)
        """,
    ),
    (
        "all accounts of {count} assets do not sum to zero",
        False,
        """
        SELECT count(*) FROM (
            SELECT 1 FROM gesell.account WHERE commons_id = $1 GROUP BY asset HAVING sum(balance) <> 0
        ) AS odd
        """,
    ),
)


async def find_unsound(dsn: str, commons: bytes, *, start: int, end: int) -> list[str]:
    """What does not hold in the database of the entries of a commons after `start` up to `end`; one snapshot."""
    connection = await asyncpg.connect(dsn, timeout=HTTP_SECONDS, command_timeout=SQL_SECONDS)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            commons_id = await connection.fetchval("SELECT commons_id FROM gesell.commons WHERE hash = $1", commons)
            if commons_id is None:
                return ["the database has no such commons"]
            faults = []
            for sentence, spans, query in _UNSOUND:
                arguments = (commons_id, start, end) if spans else (commons_id,)
                count = await connection.fetchval(query, *arguments)
                if count:
                    faults.append(sentence.format(count=count, span=end - start))
            return faults
    finally:
        await connection.close()


# ── The project's own proof ──────────────────────────────────────────────────────────────────────────────────────


async def _said_by_gesell(command: Sequence[str]) -> tuple[int, list[str]]:
    """Run `gesell db check` or `gesell audit` with --json; how many entries it went through, and what it found."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gesell", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        said = json.loads(out)
    except ValueError:
        return 0, [
            f"gesell {command[0]} ended with {process.returncode}: {err.decode(errors='replace').strip()[-500:]}"
        ]
    reports = said if isinstance(said, list) else [said]
    findings = [str(found) for report in reports for found in report.get("findings", ())]
    findings += [str(report["finding"]["text"]) for report in reports if report.get("finding")]
    if process.returncode and not findings:
        findings.append(f"gesell {command[0]} ended with {process.returncode}")
    return sum(int(report["entries"]) for report in reports), findings

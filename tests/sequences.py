"""Commons on a real PostgreSQL and the sequencers that serve them, without a service around: what tests share that look
at what happens around a transaction.

Owns the towns, the clock that they live by, the database with its rows, and `Wire`, which stands between asyncpg and
the server as a network would, and breaks when it is told to. Judges no answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from gesell_ledger.core.decide import Submission
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Answer, Receipted, Sequencer
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.faults import ClockFault
from gesell_ledger.storage.migrate import SERVICE_ROLE
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.rows import key_of
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.receipts import Receipt
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import write_body
from tests.speaking import POLICY, fields_of, name_of, sign_body, signer_of, submission_of, write_envelope, write_found

START_MS = 1_800_000_000_000
LEDGER = signer_of("ledger")
STEWARD = signer_of("steward")
MEMBERS = [signer_of(f"member {n}") for n in range(6)]
STRANGER = signer_of("stranger")
TABLES = ("commons", "entry", "posting", "account", "member", "peer_key", "policy", "memo", "share_out", "subtree")
PATIENCE_SECONDS = 30.0


class SetClock:
    """A clock that stands where the test puts it."""

    speed = 1
    demo = False

    def __init__(self) -> None:
        self.ms = START_MS
        self.fault: str | None = None

    def now_ms(self) -> int:
        if self.fault is not None:
            raise ClockFault(self.fault)
        return self.ms

    def look(self) -> int:
        return self.ms

    def check_start(self, heartbeat_ms: int) -> None:
        raise AssertionError("nobody starts here")


class Database:
    """One database of the server, with the tables in it."""

    def __init__(self, server: PrivatePostgres, name: str) -> None:
        self.dsn = server.dsn(role=SERVICE_ROLE, database=name)
        self.owner_dsn = server.dsn(role=server.owner, database=name)

    async def dump(self, commons: bytes) -> dict[str, list[str]]:
        """Every row that a commons has, as text."""
        connection = await asyncpg.connect(self.owner_dsn)
        try:
            return {
                table: [
                    row[0]
                    for row in await connection.fetch(
                        f"SELECT t::text FROM gesell.{table} t WHERE commons_id = $1 ORDER BY t", key_of(commons)
                    )
                ]
                for table in TABLES
            }
        finally:
            await connection.close()

    async def ids(self, commons: bytes) -> list[bytes]:
        """The ids of a commons' entries in their order; asserts that there is no gap."""
        connection = await asyncpg.connect(self.owner_dsn)
        try:
            rows = await connection.fetch(
                "SELECT seq, id FROM gesell.entry WHERE commons_id = $1 ORDER BY seq", key_of(commons)
            )
        finally:
            await connection.close()
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["id"].bytes for row in rows]

    @asynccontextmanager
    async def held(self, commons: bytes) -> AsyncIterator[None]:
        """Somebody else holds the lock of a commons' head."""
        connection = await asyncpg.connect(self.owner_dsn)
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetch("SELECT 1 FROM gesell.commons WHERE commons_id = $1 FOR UPDATE", key_of(commons))
        try:
            yield
        finally:
            await transaction.rollback()
            await connection.close()


@asynccontextmanager
async def open_sequencer(dsn: str, clock: SetClock) -> AsyncIterator[Sequencer]:
    async with open_pool(dsn, connections=4) as pool:
        sequencer = Sequencer(pool, clock, ledger=LEDGER.public_key, metrics=Metrics())
        try:
            yield sequencer
        finally:
            await sequencer.stop(seconds=5)


class Town:
    """A commons whose members have 10,000 grains each."""

    def __init__(self, clock: SetClock, *, code: str = "WRG", **policy: Any) -> None:
        """`policy` are the fields in which its law differs from `POLICY`."""
        self.clock = clock
        self.founding = write_found(
            [STEWARD], ledger=LEDGER.public_key, now_ms=clock.ms, policy={**POLICY, **policy}, code=code
        )
        self.name = name_of(self.founding)

    async def found(self, sequencer: Sequencer) -> Town:
        answers = await sequencer.submit([submission_of(one) for one in self.beginning()])
        assert all(isinstance(answer, Receipted) for answer in answers), answers
        return self

    def beginning(self) -> list[Envelope]:
        joins = [self.write("join", member, handle=f"member-{n}") for n, member in enumerate(MEMBERS)]
        issues = [self.write("issue", STEWARD, to=member.public_key, amount=10_000) for member in MEMBERS]
        return [self.founding, *joins, *issues]

    def write(self, kind: str, by: Signer, /, *others: Signer, memo: Memo | None = None, **fields: Any) -> Envelope:
        return write_envelope(
            kind, by.public_key, [by, *others], now_ms=self.clock.ms, memo=memo, commons=self.name, **fields
        )

    def write_pay(self, payer: int = 0, payee: int = 1, amount: int = 1, **fields: Any) -> Envelope:
        legs = [[MEMBERS[payee].public_key, amount]]
        return self.write("pay", MEMBERS[payer], legs=legs, **fields)

    def pay(self, payer: int = 0, payee: int = 1, amount: int = 1, **fields: Any) -> Submission:
        return submission_of(self.write_pay(payer, payee, amount, **fields))


def in_short(answer: Answer) -> str:
    if isinstance(answer, Refusal):
        return answer.code
    return "replayed" if answer.replayed else "accepted"


def receipt_in(answer: Answer) -> Receipt:
    assert isinstance(answer, Receipted), answer
    return answer.receipt


def with_other_body(envelope: Envelope, signer: Signer) -> Envelope:
    """The same id, but a body that expires a little later."""
    fields = fields_of(envelope)
    return sign_body(write_body({**fields, "expires": fields["expires"] + 1}), [signer])


#: What a server that breaks down says last: an ErrorResponse with SQLSTATE 57P02, crash_shutdown.
_BREAKDOWN_FIELDS = b"SFATAL\0VFATAL\0C57P02\0Mthe postmaster is gone\0\0"
_BREAKDOWN = b"E" + (4 + len(_BREAKDOWN_FIELDS)).to_bytes(4, "big") + _BREAKDOWN_FIELDS


#: The reasons of postings, as the statement that stores payments by the short way carries them.
_APPENDED = b"{pay,pay"


class Wire:
    """What stands between asyncpg and PostgreSQL, and breaks when it is told to.

    `cut` says what happens to the next connection that sends COMMIT, or the one statement of the short way, which is
    its own commit. "before": it breaks, and the server never gets the COMMIT. "after": it breaks once the server has
    answered, and the client never gets the answer. "late": the client's side breaks, and the server gets the COMMIT
    half a second later: the transaction lives on meanwhile.
    "fatal": the server gets nothing more, the client is told that the server breaks down, and then it breaks.
    With `countdown` it is not the COMMIT, but what the client sends as the so-manieth from now on.
    """

    def __init__(self, dsn: str) -> None:
        (host,) = parse_qs(urlsplit(dsn).query)["host"]
        (port,) = parse_qs(urlsplit(dsn).query)["port"]
        self._socket = f"{host}/.s.PGSQL.{port}"
        self._database = urlsplit(dsn).path
        self.cut = ""
        self.cuts = 0
        self.countdown: int | None = None
        self.away = False
        self.dsn = ""
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Wire]:
        listener = await asyncio.start_server(self._join, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        self.dsn = f"postgresql://{SERVICE_ROLE}@127.0.0.1:{port}{self._database}?sslmode=disable"
        try:
            yield self
        finally:
            listener.close()
            self.go_away()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_away(self) -> None:
        """Break every connection, and every new one."""
        self.away = True
        for stream in self._streams:
            stream.transport.abort()

    async def break_down(self) -> None:
        """Tell every client that the server breaks down, and close only a moment later, as a dying server does."""
        for stream in self._streams:
            if stream.get_extra_info("socket").family != socket.AF_UNIX:
                stream.write(_BREAKDOWN)
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.3, self.go_away)

    async def _join(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.away:
            to_client.transport.abort()
            return
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        streams = {to_client, to_server}
        self._streams |= streams
        back = asyncio.create_task(self._hand_on(from_server, to_client))
        try:
            await self._watch(from_client, to_client, from_server, to_server, back)
        except OSError:
            pass
        finally:
            back.cancel()
            self._streams -= streams
            for stream in streams:
                stream.close()
            self._tasks.discard(task)

    def _is_time(self, data: bytes) -> bool:
        if not self.cut or self.countdown is None:
            return bool(self.cut) and (b"COMMIT" in data or _APPENDED in data)
        self.countdown -= 1
        return self.countdown == 0

    async def _hand_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def _watch(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        back: asyncio.Task[None],
    ) -> None:
        while data := await from_client.read(65_536):
            if not self._is_time(data):
                to_server.write(data)
                await to_server.drain()
                continue
            how, self.cut = self.cut, ""
            self.cuts += 1
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            if how == "late":
                to_client.transport.abort()
                await asyncio.sleep(0.5)
            if how == "fatal":
                to_client.write(_BREAKDOWN)
                await asyncio.sleep(0.05)
            if how in ("after", "late"):
                to_server.write(data)
                await to_server.drain()
                await from_server.read(65_536)
            to_client.transport.abort()
            return

"""Small batches of payments on warm books, stored by one statement (`storage.appending`), on a real PostgreSQL.

Owns: when the short way is taken, that it stores what the long way stores, and that nobody can tell which it was from
what is answered. Must not know: how statements are decided, or the SQL.

At the end the whole database is checked as `gesell db check` does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from msgspec import structs

from gesell_ledger import sequencer as sequencing
from gesell_ledger.core import decide
from gesell_ledger.core.books import Books, Decision
from gesell_ledger.core.decide import Submission
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Answer, Sequencer
from gesell_ledger.storage.appending import APPEND_MAX
from gesell_ledger.storage.audit import audit
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.rows import key_of
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import POOL
from gesell_protocol.refusals import Refusal
from tests.sequences import (
    LEDGER,
    MEMBERS,
    PATIENCE_SECONDS,
    STEWARD,
    STRANGER,
    Database,
    SetClock,
    Town,
    Wire,
    in_short,
    open_sequencer,
    receipt_in,
    with_other_body,
)
from tests.speaking import HOUR_MS, POLICY, signer_of, submission_of

MONEY = 10_000


@pytest.fixture(scope="module", autouse=True)
def checked(database: Database) -> Iterator[None]:
    """Every signature, sum, balance, melt, number and tree of every commons, after all the tests."""
    yield
    reports = asyncio.run(audit(database.owner_dsn))
    assert reports
    for report in reports:
        assert report.holds, str(report)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way batches went, one word each; `tried` is the short way that stored nothing, and a `long` follows."""
    gone: list[str] = []

    def told(name: str, tell: Callable[[object], str]) -> None:
        way: Callable[..., Awaitable[object]] = getattr(Sequencer, name)

        async def go(self: Sequencer, *arguments: Any) -> object:
            done = await way(self, *arguments)
            gone.append(tell(done))
            return done

        monkeypatch.setattr(Sequencer, name, go)

    told("_append", lambda done: "tried" if done is None else "short")
    told("_lock_and_store", lambda _: "long")
    return gone


async def warm_up(sequencer: Sequencer, town: Town) -> None:
    """Have the books hold all members: each pays the next one grain."""
    answers = await sequencer.submit([town.pay(n, (n + 1) % 6) for n in range(6)])
    assert list(map(in_short, answers)) == ["accepted"] * 6


@pytest.fixture
async def warm(sequencer: Sequencer, town: Town, ways: list[str]) -> Town:
    """A town whose books the sequencer has."""
    await warm_up(sequencer, town)
    ways.clear()
    return town


async def balances(database: Database, town: Town) -> dict[bytes, int]:
    """What stands in the accounts, by their holders."""
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        rows = await connection.fetch(
            "SELECT a.holder, a.balance FROM gesell.account a JOIN gesell.commons c USING (commons_id)"
            " WHERE c.hash = $1 AND a.asset = c.currency_code",
            town.name,
        )
    finally:
        await connection.close()
    return {bytes(row["holder"]): row["balance"] for row in rows}


# ── Which way ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_payments_on_warm_books_go_the_short_way(
    sequencer: Sequencer, town: Town, database: Database, ways: list[str]
) -> None:
    await warm_up(sequencer, town)
    assert ways == ["long"]
    before = await database.ids(town.name)
    first, second = town.pay(0, 1, 5), town.pay(1, 2, 7)
    answers = await sequencer.submit([first, second, first])
    assert list(map(in_short, answers)) == ["accepted", "accepted", "replayed"]
    assert receipt_in(answers[2]) == receipt_in(answers[0])
    assert [receipt_in(answer).seq for answer in answers[:2]] == [len(before) + 1, len(before) + 2]
    assert in_short((await sequencer.submit([town.pay(2, 0, 9)]))[0]) == "accepted"
    assert ways == ["long", "short", "short"]
    held = await balances(database, town)
    assert [held[member.public_key] - MONEY for member in MEMBERS[:3]] == [4, -2, -2]


@pytest.mark.parametrize("what", ["a memo", "a join", "a new payee", "many"])
async def test_all_else_goes_the_long_way(sequencer: Sequencer, warm: Town, ways: list[str], what: str) -> None:
    batch = [warm.pay()]
    if what == "a memo":
        batch.append(warm.pay(memo=Memo(bytes(16), "für die Äpfel")))
    elif what == "a join":
        batch.append(submission_of(warm.write("join", STRANGER, handle="stranger")))
    elif what == "a new payee":
        batch.append(submission_of(warm.write("pay", MEMBERS[0], legs=[[STRANGER.public_key, 1]])))
    else:
        batch += [warm.pay(n % 6, (n + 1) % 6) for n in range(APPEND_MAX)]
    answers = await sequencer.submit(batch)
    assert ways == ["long"]
    assert set(map(in_short, answers)) == {"accepted"} | ({"unknown-member"} if what == "a new payee" else set())
    answers = await sequencer.submit([warm.pay(1, 2)])
    assert (in_short(answers[0]), ways) == ("accepted", ["long", "short"])


# ── What is kept warm ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 64: 14 are the books of a town of six who all have paid, 4 those where only one has."""
    monkeypatch.setattr(sequencing, "WARM_MAX", 64)
    monkeypatch.setattr(sequencing, "WARM_PART", 16)


async def way_of(sequencer: Sequencer, town: Town, ways: list[str], *legs: tuple[int, int]) -> str:
    """Which way a payment goes; it is accepted."""
    ways.clear()
    answers = await sequencer.submit([town.pay(*leg) for leg in legs or [(0, 1)]])
    assert set(map(in_short, answers)) == {"accepted"}
    return " ".join(ways)


async def test_names_that_strangers_make_up_take_no_room(
    sequencer: Sequencer, town: Town, clock: SetClock, ways: list[str], small: None
) -> None:
    other = await Town(clock).found(sequencer)
    for one in (other, town):
        await warm_up(sequencer, one)
    strangers = [signer_of(f"stranger {n}") for n in range(200)]
    payee = MEMBERS[1].public_key
    made_up = [submission_of(town.write("pay", who, legs=[[payee, 1]])) for who in strangers[:100]]
    made_up += [submission_of(town.write("pay", MEMBERS[0], legs=[[who.public_key, 1]])) for who in strangers[100:]]
    assert set(map(in_short, await sequencer.submit(made_up))) == {"unknown-member"}
    assert [await way_of(sequencer, one, ways) for one in (town, other)] == ["short", "short"]


async def test_who_joined_is_known_from_then_on(sequencer: Sequencer, warm: Town, ways: list[str]) -> None:
    join = submission_of(warm.write("join", STRANGER, handle="stranger"))
    assert in_short((await sequencer.submit([join]))[0]) == "accepted"
    ways.clear()
    pays = [warm.write("pay", MEMBERS[0], legs=[[STRANGER.public_key, 5]])]
    pays.append(warm.write("pay", STRANGER, legs=[[MEMBERS[0].public_key, 5]]))
    answers = await sequencer.submit([submission_of(pay) for pay in pays])
    assert (list(map(in_short, answers)), ways) == (["accepted"] * 2, ["short"])


async def test_where_room_is_short_the_commons_that_was_not_used_for_longest_goes(
    sequencer: Sequencer, clock: SetClock, ways: list[str], small: None
) -> None:
    towns = [await Town(clock).found(sequencer) for _ in range(4)]
    for town in towns:
        await warm_up(sequencer, town)
    assert [await way_of(sequencer, town, ways) for town in (*towns, towns[0])] == ["short"] * 5
    await warm_up(sequencer, await Town(clock).found(sequencer))
    assert [await way_of(sequencer, towns[n], ways) for n in (2, 3, 0, 1)] == ["short"] * 3 + ["long"]


async def test_commons_with_more_than_its_part_goes_before_all_others(
    database: Database,
    sequencer: Sequencer,
    clock: SetClock,
    ways: list[str],
    small: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However lately it was used; and it comes back only where there is room, or the others rest."""
    monkeypatch.setattr(sequencing, "WARM_PART", 8)
    large, *others = [await Town(clock).found(sequencer) for _ in range(14)]
    async with open_sequencer(database.dsn, clock) as fresh:
        for town in others[:12]:
            await way_of(fresh, town, ways)
        await warm_up(fresh, large)
        assert await way_of(fresh, large, ways) == "short"
        await way_of(fresh, others[12], ways)
        all_six = [(n, (n + 1) % 6) for n in range(6)]
        assert [await way_of(fresh, large, ways, *all_six) for _ in range(2)] == ["long", "long"]
        assert [await way_of(fresh, town, ways) for town in others] == ["short"] * 13
        monkeypatch.setattr(sequencing, "WARM_SECONDS", 0.0)
        assert [await way_of(fresh, large, ways, *all_six) for _ in range(2)] == ["long", "short"]


# ── The same answers, whichever way ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("since", ["nothing", "the money is spent", "it has expired", "the payer has left"])
async def test_payment_said_again_is_answered_with_its_receipt(
    sequencer: Sequencer, warm: Town, database: Database, ways: list[str], clock: SetClock, since: str
) -> None:
    # Where nothing happened since, the payer could well pay once more.
    pay = warm.pay(0, 1, 100 if since == "nothing" else 9_000)
    (first,) = await sequencer.submit([pay])
    if since == "the money is spent":
        assert in_short((await sequencer.submit([warm.pay(0, 2, 1_000)]))[0]) == "accepted"
    elif since == "it has expired":
        clock.ms += 2 * HOUR_MS
    elif since == "the payer has left":
        answers = await sequencer.submit([submission_of(warm.write("leave", MEMBERS[0]))])
        assert in_short(answers[0]) == "accepted"
        await sequencer.submit([warm.pay(0, 2, 1)])  # refused, and the books are warm
    ids, ways[:] = await database.ids(warm.name), []
    held = await balances(database, warm)
    (again,) = await sequencer.submit([pay])
    assert (in_short(first), in_short(again)) == ("accepted", "replayed")
    assert receipt_in(again) == receipt_in(first)
    # Beside others too, and those count.
    answers = await sequencer.submit([warm.pay(1, 2), pay, warm.pay(2, 3)])
    assert list(map(in_short, answers)) == ["accepted", "replayed", "accepted"]
    assert receipt_in(answers[1]) == receipt_in(first)
    assert ways == ["tried", "long"] * 2
    assert len(await database.ids(warm.name)) == len(ids) + 2
    assert (await balances(database, warm))[MEMBERS[0].public_key] == held[MEMBERS[0].public_key]


async def test_known_id_with_another_body_conflicts(
    sequencer: Sequencer, warm: Town, database: Database, ways: list[str]
) -> None:
    pay = warm.write_pay(0, 1, 5)
    other = submission_of(with_other_body(pay, MEMBERS[0]))
    assert in_short((await sequencer.submit([submission_of(pay)]))[0]) == "accepted"
    ids = await database.ids(warm.name)
    answers = await sequencer.submit([other, warm.pay(3, 4)])
    assert list(map(in_short, answers)) == ["id-conflict", "accepted"]
    # And within one batch, of which nothing is stored yet.
    third = warm.write_pay(0, 1, 6)
    pair = [submission_of(third), submission_of(with_other_body(third, MEMBERS[0]))]
    assert list(map(in_short, await sequencer.submit(pair))) == ["accepted", "id-conflict"]
    assert ways == ["short", "tried", "long", "tried", "long"]
    assert len(await database.ids(warm.name)) == len(ids) + 2


async def test_refused_payment_leaves_the_good_ones_beside_it(
    sequencer: Sequencer, warm: Town, database: Database, ways: list[str]
) -> None:
    batch = [warm.pay(0, 1, 4_000), warm.pay(0, 2, 6_001), warm.pay(2, 0, 500), warm.pay(0, 2, 6_500)]
    answers = await sequencer.submit(batch)
    assert list(map(in_short, answers)) == ["accepted", "insufficient-funds", "accepted", "accepted"]
    assert isinstance(answers[1], Refusal)
    assert answers[1].fields == {"available": 6_000, "needed": 6_001}
    # Nothing counted twice: all that is left goes, and not a grain more.
    answers = await sequencer.submit([warm.pay(2, 0, MONEY + 6_000)])
    assert in_short(answers[0]) == "accepted"
    assert ways == ["tried", "long", "short"]
    held = await balances(database, warm)
    assert [held[member.public_key] for member in MEMBERS[:3]] == [MONEY + 6_000, MONEY + 4_000, 0]


# ── The same rows, whichever way ─────────────────────────────────────────────────────────────────────────────────


class LongWay(Sequencer):
    """A sequencer that goes the long way always."""

    async def _append(self, *_: Any) -> None:
        return None


Batches = list[Callable[[Town], list[Submission]]]


def _pays(*legs: tuple[int, int, int]) -> Callable[[Town], list[Submission]]:
    return lambda town: [town.pay(*leg) for leg in legs]


def _many(count: int) -> Callable[[Town], list[Submission]]:
    return lambda town: [town.pay(n % 6, (n + 1 + n // 6 % 5) % 6, 1 + n % 3) for n in range(count)]


def _later(town: Town) -> list[Submission]:
    town.clock.ms += HOUR_MS
    return [town.pay(n, (n + 2) % 6, 100 + n) for n in range(6)]


def _at_once_later(town: Town) -> list[Submission]:
    """After hours in which nobody paid: some of the accounts, and one that is paid twice."""
    town.clock.ms += 5 * HOUR_MS
    return [town.pay(0, 1, 20), town.pay(2, 1, 30), town.pay(1, 3, 40)]


def _join(town: Town) -> list[Submission]:
    """The new member is known then, and has no account: what it wants to pay is refused."""
    return [
        submission_of(town.write("join", STRANGER, handle="stranger")),
        submission_of(town.write("pay", STRANGER, legs=[[MEMBERS[0].public_key, 1]])),
    ]


def _pay_stranger(town: Town) -> list[Submission]:
    legs = [[STRANGER.public_key, 70], [MEMBERS[1].public_key, 1]]
    return [submission_of(town.write("pay", MEMBERS[0], legs=legs)), town.pay(1, 2, 3)]


def _stranger_pays(town: Town) -> list[Submission]:
    return [submission_of(town.write("pay", STRANGER, legs=[[MEMBERS[0].public_key, 30]]))]


def _stranger_is_paid_later(town: Town) -> list[Submission]:
    """A new account for the payee and one for the pool, by one statement."""
    town.clock.ms += HOUR_MS
    return _pay_stranger(town)


def _grant(town: Town) -> list[Submission]:
    return [submission_of(town.write("grant", STEWARD, legs=[[MEMBERS[4].public_key, 3]]))]


_LIVES: dict[str, Batches] = {
    "payments": [_pays((0, 1, 5), (1, 0, 7), (0, 2, 1)), _pays((3, 4, 9)), _many(APPEND_MAX)],
    "a payee without an account": [_join, _pay_stranger, _stranger_pays, _pays((0, 1, 1))],
    "a first melt": [_later, _pays((0, 1, 5)), _later, _grant, _at_once_later],
    "a payee and a pool without accounts": [_join, _stranger_is_paid_later, _stranger_pays, _later, _grant],
    "hours": [_later, _later, _at_once_later, _pays((1, 0, 7)), _later, _later, _later, _at_once_later],
    # 13 entries are the beginning, 6 warm up.
    "a tile's end, one by one": [_many(236), _pays((0, 1, 1)), _pays((1, 2, 1)), _pays((2, 3, 1))],
    "a tile's end, in the middle": [_many(235), _pays((0, 1, 1), (1, 2, 1), (2, 3, 1)), _pays((2, 3, 1))],
    "two tiles' ends": [_many(APPEND_MAX)] * 3,
}


@pytest.fixture(scope="module")
def apart(server: PrivatePostgres) -> Database:
    """Another database of the same server."""
    made = Database(server, "apart")

    async def make() -> None:
        owner = await asyncpg.connect(server.dsn(role=server.owner, database="postgres"))
        await owner.execute('CREATE DATABASE "apart"')
        await owner.close()
        await migrate(made.owner_dsn)

    asyncio.run(make())
    return made


@pytest.mark.parametrize(
    ("code", "policy"),
    [("WRG", {}), ("NULL", {"rest_ticks": 3}), ("WRG", {"rest_ticks": 1, "melt_to": "issuer"})],
    ids=["plain", "a currency called NULL, and fresh money", "what melts goes to the issuer"],
)
@pytest.mark.parametrize("life", _LIVES)
async def test_short_way_stores_what_the_long_way_stores(
    database: Database,
    apart: Database,
    clock: SetClock,
    ways: list[str],
    life: str,
    code: str,
    policy: dict[str, Any],
) -> None:
    town = Town(clock, code=code, **policy)
    async with open_sequencer(database.dsn, clock) as one, open_pool(apart.dsn, connections=2) as pool:
        two = LongWay(pool, clock, ledger=LEDGER.public_key, metrics=Metrics())
        beginning = [submission_of(envelope) for envelope in town.beginning()]
        batches: Batches = [lambda _: beginning, _many(6), *_LIVES[life]]
        for batch in batches:
            said = batch(town)
            assert await one.submit(said) == await two.submit(said)
            assert await database.dump(town.name) == await apart.dump(town.name)
        await two.stop(seconds=5)
    assert "short" in ways
    assert ("tile" in life) == bool((await database.dump(town.name))["subtree"])


async def test_first_melt_opens_the_pools_account(
    sequencer: Sequencer, warm: Town, database: Database, ways: list[str], clock: SetClock
) -> None:
    assert POOL.encode() not in await balances(database, warm)
    clock.ms += HOUR_MS
    answers = await sequencer.submit([warm.pay(0, 1, 9_800)])
    held = await balances(database, warm)
    assert (in_short(answers[0]), ways) == ("accepted", ["short"])
    # A fiftieth of each has melted.
    assert held[MEMBERS[0].public_key] == 0
    assert held[MEMBERS[1].public_key] == 2 * 9_800
    assert held[POOL.encode()] == 400
    # The pool has the same account in books that are read anew.
    async with open_sequencer(database.dsn, clock) as fresh:
        grant = submission_of(warm.write("grant", STEWARD, legs=[[MEMBERS[0].public_key, 400]]))
        assert in_short((await fresh.submit([grant]))[0]) == "accepted"
    assert (await balances(database, warm))[POOL.encode()] == 0


# ── Several at once ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_sequencers_in_turns_go_on_from_each_others_entries(
    database: Database, clock: SetClock, ways: list[str]
) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        await warm_up(one, town)
        await warm_up(two, town)
        ways.clear()
        # From 0 to 1 alone, so that old books would soon show; each twice in turn, and the second time on warm books.
        for turn in range(16):
            (answer,) = await (one, one, two, two)[turn % 4].submit([town.pay(0, 1, 625)])
            assert in_short(answer) == "accepted", turn
        assert ways == ["tried", "long", "short"] * 8
        for sequencer in (one, two):
            (answer,) = await sequencer.submit([town.pay(0, 1, 1)])
            assert isinstance(answer, Refusal)
            assert answer.fields == {"available": 0, "needed": 1}
    assert (await balances(database, town))[MEMBERS[1].public_key] == 2 * MONEY
    assert len(await database.ids(town.name)) == len(town.beginning()) + 12 + 16


async def test_two_sequencers_at_once_make_one_sequence(database: Database, clock: SetClock, ways: list[str]) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        await warm_up(one, town)
        pays = [town.pay(n % 6, (n + 1) % 6, 1 + n % 7) for n in range(120)]

        async def say(sequencer: Sequencer, part: Sequence[Submission]) -> list[Answer]:
            return [answer for pay in part for answer in await sequencer.submit([pay])]

        # Half of them to both.
        ones, twos = await asyncio.gather(say(one, pays[:90]), say(two, pays[30:]))
    answers = [*ones, *twos]
    assert sorted(map(in_short, answers)) == ["accepted"] * 120 + ["replayed"] * 60
    assert [receipt_in(answer) for answer in ones[30:]] == [receipt_in(answer) for answer in twos[:60]]
    ids = await database.ids(town.name)
    assert sorted(ids[-120:]) == sorted(pay.statement.id for pay in pays)
    assert all(ids[receipt.seq - 1] == receipt.id for receipt in map(receipt_in, answers))
    assert {"short", "long"} <= set(ways)
    held = await balances(database, town)
    moved = [1 + n % 7 for n in range(120)]
    for n, member in enumerate(MEMBERS):
        assert held[member.public_key] == MONEY - sum(moved[n::6]) + sum(moved[(n - 1) % 6 :: 6])


async def test_the_same_payment_at_two_sequencers_at_once_counts_once(database: Database, clock: SetClock) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        for _ in range(20):
            # Both have books that end where the head stands: who began it does not matter to the other.
            await warm_up(one, town)
            await warm_up(two, town)
            pay = town.pay(0, 1, 1)
            answers = await asyncio.gather(one.submit([pay]), two.submit([pay]))
            assert sorted(in_short(answer) for (answer,) in answers) == ["accepted", "replayed"]
            assert receipt_in(answers[0][0]) == receipt_in(answers[1][0])
    assert (await balances(database, town))[MEMBERS[0].public_key] == MONEY - 20


async def test_what_another_service_did_to_a_payer_counts(database: Database, clock: SetClock, ways: list[str]) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        await warm_up(one, town)
        suspend = submission_of(town.write("suspend", STEWARD, peer=MEMBERS[0].public_key))
        assert in_short((await two.submit([suspend]))[0]) == "accepted"
        ways.clear()
        answers = await one.submit([town.pay(0, 1), town.pay(1, 0)])
    assert list(map(in_short, answers)) == ["not-active", "accepted"]
    assert ways == ["tried", "long"]


#: What a payment between two who have accounts writes to.
_WRITTEN = ("commons", "account", "entry", "posting")


class Backup:
    """The rows of a commons in which payments are stored, as they stood: the database as a restore would leave it."""

    def __init__(self, database: Database, town: Town) -> None:
        self._dsn = database.owner_dsn
        self._id = key_of(town.name)
        self._rows: dict[str, list[asyncpg.Record]] = {}

    async def take(self) -> Backup:
        async with _connected(self._dsn) as owner:
            for table in _WRITTEN:
                self._rows[table] = await owner.fetch(f"SELECT * FROM gesell.{table} WHERE commons_id = $1", self._id)
        return self

    async def restore(self) -> None:
        """What came after is lost. The head is changed where it stands: others point to it."""
        (head,) = self._rows["commons"]
        async with _connected(self._dsn) as owner, owner.transaction():
            await owner.execute(
                "UPDATE gesell.commons SET seq = $2, at_ms = $3, accounts = $4, tree = $5 WHERE commons_id = $1",
                self._id,
                *(head[name] for name in ("seq", "at_ms", "accounts", "tree")),
            )
            for table in _WRITTEN[1:]:
                rows = self._rows[table]
                await owner.execute(f"DELETE FROM gesell.{table} WHERE commons_id = $1", self._id)
                await owner.copy_records_to_table(
                    table, schema_name="gesell", columns=list(rows[0].keys()), records=[tuple(row) for row in rows]
                )


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("way", ["short", "long"])
async def test_books_of_entries_that_the_database_lost_are_not_gone_on_with(
    database: Database, clock: SetClock, ways: list[str], way: str
) -> None:
    """As many other entries came since, so that the number of the head is that of the books."""
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        await warm_up(one, town)
        backup = await Backup(database, town).take()
        answers = await one.submit([town.pay(0, 1, MONEY), town.pay(2, 1, 5)])
        await backup.restore()
        others = await two.submit([town.pay(3, 4, 7), town.pay(4, 5, 8)])
        assert [receipt_in(answer).seq for answer in answers] == [receipt_in(answer).seq for answer in others]
        ways.clear()
        # A memo's text never goes the short way.
        memo = Memo(bytes(16), "für die Birnen") if way == "long" else None
        assert list(map(in_short, await one.submit([town.pay(1, 2, 1, memo=memo)]))) == ["accepted"]
        assert ways == (["tried", "long"] if way == "short" else ["long"])
        # And from there on it knows what there is: what was lost can be paid again.
        assert list(map(in_short, await one.submit([town.pay(0, 1, MONEY)]))) == ["accepted"]
    held = await balances(database, town)
    assert [held[member.public_key] - MONEY for member in MEMBERS] == [-MONEY, MONEY - 1, 1, -7, -1, 8]


async def test_statement_waits_for_whoever_holds_the_head(
    sequencer: Sequencer, warm: Town, database: Database, ways: list[str]
) -> None:
    async with database.held(warm.name):
        under_way = asyncio.create_task(sequencer.submit([warm.pay()]))
        await asyncio.sleep(0.3)
        assert not under_way.done()
    async with asyncio.timeout(PATIENCE_SECONDS):
        (answer,) = await under_way
    assert (in_short(answer), ways) == ("accepted", ["short"])


# ── When it breaks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", ["before", "after", "late", "fatal"])
async def test_connection_that_breaks_around_the_statement_costs_nothing_but_a_second_try(
    wire: Wire, town: Town, database: Database, clock: SetClock, ways: list[str], cut: str
) -> None:
    async with open_sequencer(wire.dsn, clock) as sequencer:
        await warm_up(sequencer, town)
        before = await database.ids(town.name)
        pays = [town.pay(n, (n + 1) % 6, 5) for n in range(5)]
        ways.clear()
        wire.cut = cut
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = await sequencer.submit(pays)
        assert wire.cuts == 1
        # The short way raised, so it is not in the list; the second try has no warm books.
        assert ways == ["long"]
        again = await sequencer.submit(pays)
        assert in_short((await sequencer.submit([town.pay(5, 0, 4)]))[0]) == "accepted"
    outcomes = {"after": {"replayed"}, "late": {"accepted", "replayed"}}.get(cut, {"accepted"})
    assert len(set(map(in_short, answers))) == 1
    assert in_short(answers[0]) in outcomes
    assert list(map(in_short, again)) == ["replayed"] * 5
    assert list(map(receipt_in, again)) == list(map(receipt_in, answers))
    assert (await database.ids(town.name))[len(before) : -1] == [pay.statement.id for pay in pays]
    held = await balances(database, town)
    assert [held[member.public_key] - MONEY for member in MEMBERS] == [-1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("cut", ["before", "after", "fatal"])
async def test_connection_that_breaks_at_any_message_costs_nothing_but_a_second_try(
    wire: Wire, town: Town, database: Database, clock: SetClock, cut: str
) -> None:
    pays, payments = [], 0
    async with open_sequencer(wire.dsn, clock) as sequencer:
        for countdown in range(1, 20):
            await warm_up(sequencer, town)
            pays.append(town.pay(0, 1))
            wire.cut, wire.countdown, cuts = cut, countdown, wire.cuts
            async with asyncio.timeout(PATIENCE_SECONDS):
                (answer,) = await sequencer.submit(pays[-1:])
            assert in_short(answer) in ("accepted", "replayed"), countdown
            if wire.cuts == cuts:
                break
            payments = countdown
        wire.cut = ""
    assert 0 < payments < 19
    ids = await database.ids(town.name)
    assert [name for name in ids if name in {pay.statement.id for pay in pays}] == [pay.statement.id for pay in pays]
    held = await balances(database, town)
    assert held[MEMBERS[0].public_key] == MONEY - len(pays)


async def test_books_of_a_statement_that_was_never_stored_are_not_gone_on_with(
    wire: Wire, town: Town, database: Database, clock: SetClock, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencing, "RETRY_SECONDS", 0.3)
    async with open_sequencer(wire.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        await warm_up(one, town)
        before = await database.dump(town.name)
        wire.cut, wire.away = "before", True
        assert in_short((await one.submit([town.pay(0, 1, MONEY), town.pay(1, 0, 3)]))[0]) == "unavailable"
        assert wire.cuts == 1
        wire.away = False
        assert await database.dump(town.name) == before
        # As many entries as were lost, so that the number of the head is the one of the lost books.
        answers = await two.submit([town.pay(2, 3, 1), town.pay(3, 2, 1)])
        assert list(map(in_short, answers)) == ["accepted"] * 2
        (answer,) = await one.submit([town.pay(0, 2, MONEY)])
        assert in_short(answer) == "accepted"
        (answer,) = await one.submit([town.pay(0, 2, 1)])
        assert isinstance(answer, Refusal)
        assert answer.fields == {"available": 0, "needed": 1}


def _with_a_wrong_account(decision: Decision) -> Decision:
    name, holding = next(iter(decision.accounts.items()))
    wrong = type(holding)(holding.balance + 1, holding.escrow, holding.tick, holding.inflows)
    return structs.replace(decision, accounts={**decision.accounts, name: wrong})


def _unbalanced(decision: Decision) -> Decision:
    return structs.replace(decision, postings=decision.postings[:-1])


@pytest.mark.parametrize("breaking", [_unbalanced, _with_a_wrong_account])
async def test_broken_invariant_stores_nothing_and_the_next_batch_starts_from_what_is_stored(
    sequencer: Sequencer,
    warm: Town,
    database: Database,
    ways: list[str],
    monkeypatch: pytest.MonkeyPatch,
    breaking: Callable[[Decision], Decision],
) -> None:
    decide_pay = decide._DECIDERS["pay"]
    pays = [warm.pay(0, 1, 13), warm.pay(0, 1, 14), warm.pay(0, 1, MONEY - 27)]

    def decide_badly(books: Books, submission: Any, at_ms: int) -> Decision | Refusal:
        decision = decide_pay(books, submission, at_ms)
        return breaking(decision) if submission is pays[1] and isinstance(decision, Decision) else decision

    before = await database.dump(warm.name)
    with monkeypatch.context() as broken:
        broken.setitem(decide._DECIDERS, "pay", decide_badly)
        assert list(map(in_short, await sequencer.submit(pays))) == ["internal"] * 3
        assert await database.dump(warm.name) == before
    assert list(map(in_short, await sequencer.submit(pays))) == ["accepted"] * 3
    assert ways == ["long"]
    assert (await balances(database, warm))[MEMBERS[0].public_key] == 0


async def test_policy_that_another_service_announced_counts(database: Database, clock: SetClock) -> None:
    """What is due melts by the new one, though the books knew the old one alone."""
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        await warm_up(one, town)
        from_tick = clock.ms // HOUR_MS + 1
        policy = {**POLICY, "brackets": [[0, 500_000_000]]}
        announced = submission_of(town.write("policy", STEWARD, policy=policy, from_tick=from_tick))
        assert in_short((await two.submit([announced]))[0]) == "accepted"
        clock.ms += 2 * HOUR_MS
        (answer,) = await one.submit([town.pay(0, 1, 4_900)])
    assert in_short(answer) == "accepted"
    assert (await balances(database, town))[MEMBERS[0].public_key] == 0


class _OnItsWay:
    """A connection that breaks while its one statement is on its way, and an hour too long passes meanwhile."""

    def __init__(self, clock: SetClock, sent: list[tuple[Any, ...]]) -> None:
        self._clock = clock
        self._sent = sent

    async def fetchval(self, *statement: Any) -> Any:
        self._sent.append(statement)
        self._clock.ms += 2 * HOUR_MS
        raise ConnectionResetError("lost")


async def test_payment_that_may_still_arrive_is_not_refused(
    sequencer: Sequencer, warm: Town, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over when it is decided a second time; the statement that was sent first knows nothing of that."""
    sent: list[tuple[Any, ...]] = []
    append = sequencing.append

    async def append_over_a_breaking_wire(_: Any, *what: Any) -> Any:
        return await append(_OnItsWay(clock, sent), *what)  # type: ignore[arg-type]

    monkeypatch.setattr(sequencing, "append", append_over_a_breaking_wire)
    pay = warm.pay(0, 1, 5)
    assert in_short((await sequencer.submit([pay]))[0]) == "unavailable"
    monkeypatch.setattr(sequencing, "append", append)
    assert in_short((await sequencer.submit([pay]))[0]) == "unavailable"
    async with open_pool(database.dsn, connections=1) as pool:
        assert await pool.fetchval(*sent[0]) == 1
    assert pay.statement.id in await database.ids(warm.name)
    assert in_short((await sequencer.submit([pay]))[0]) == "replayed"
    # What is refused now is refused for good again.
    assert in_short((await sequencer.submit([warm.pay(0, 1, 10**12)]))[0]) == "insufficient-funds"

"""The sequencer on a real PostgreSQL: one sequence, once each, all or nothing, whatever breaks and whenever.

Owns: what happens around a transaction. Must not know: how statements are decided; `core` has its own tests.

What cuts connections at their COMMIT is `tests.sequences.Wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import asyncpg
import pytest
from msgspec import structs

from gesell_ledger import sequencer as sequencing
from gesell_ledger.api.pieces import check
from gesell_ledger.checkers import Checkers
from gesell_ledger.core import decide
from gesell_ledger.core.books import Books, Decision
from gesell_ledger.core.decide import Submission
from gesell_ledger.core.needs import Needs
from gesell_ledger.intake import Intake
from gesell_ledger.metrics import Metrics
from gesell_ledger.queues import FEW
from gesell_ledger.sequencer import Answer, Receipted, Sequencer, Unavailable
from gesell_ledger.storage import rows
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import Batch, open_pool
from gesell_protocol.canonical import pack_array
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.log import Posting
from gesell_protocol.names import uuid7
from gesell_protocol.refusals import Refusal
from tests.sequences import (
    LEDGER,
    MEMBERS,
    PATIENCE_SECONDS,
    STEWARD,
    STRANGER,
    TABLES,
    Database,
    SetClock,
    Town,
    Wire,
    in_short,
    open_sequencer,
    receipt_in,
    with_other_body,
)
from tests.speaking import (
    HOUR_MS,
    POLICY,
    fields_of,
    submission_of,
    write_envelope,
)

# ── Once ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_statement_said_often_at_once_takes_effect_once_and_all_get_the_one_receipt(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    pay = town.pay(amount=70)
    before = await database.ids(town.name)
    answers = [answer for (answer,) in await asyncio.gather(*(sequencer.submit([pay]) for _ in range(40)))]
    answers += await sequencer.submit([pay] * 10)
    assert sorted(map(in_short, answers)) == ["accepted"] + ["replayed"] * 49
    assert {receipt_in(answer) for answer in answers} == {receipt_in(answers[0])}
    assert await database.ids(town.name) == [*before, pay.statement.id]


async def test_of_several_bodies_with_one_id_the_first_is_accepted_and_the_others_conflict(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    one = town.write_pay()
    other = with_other_body(one, MEMBERS[0])
    pair = [submission_of(one), submission_of(other)]
    answers = [answer for (answer,) in await asyncio.gather(*(sequencer.submit([pair[n % 2]]) for n in range(20)))]
    assert in_short(answers[0]) == "accepted"
    assert [in_short(answer) for answer in answers[2::2]] == ["replayed"] * 9
    assert [in_short(answer) for answer in answers[1::2]] == ["id-conflict"] * 10
    assert (await database.ids(town.name)).count(pair[0].statement.id) == 1


async def test_two_sequencers_on_one_database_make_one_sequence_in_which_each_id_stands_once(
    database: Database, clock: SetClock
) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        pays = [town.pay(n % 6, (n + 1) % 6) for n in range(90)]

        async def say(sequencer: Sequencer, part: Sequence[Submission]) -> list[Answer]:
            groups = [part[at : at + 3] for at in range(0, len(part), 3)]
            return [answer for answers in [await sequencer.submit(group) for group in groups] for answer in answers]

        # The middle third is said to both.
        ones, twos = await asyncio.gather(say(one, pays[:60]), say(two, pays[30:]))
    found = {receipt.id: receipt for receipt in map(receipt_in, [*ones, *twos])}
    assert sorted(map(in_short, [*ones, *twos])) == ["accepted"] * 90 + ["replayed"] * 30
    assert [receipt_in(answer) for answer in ones[30:]] == [receipt_in(answer) for answer in twos[:30]]
    ids = await database.ids(town.name)
    assert sorted(ids[-90:]) == sorted(pay.statement.id for pay in pays)
    assert all(ids[receipt.seq - 1] == name for name, receipt in found.items())


async def test_two_bodies_with_one_id_said_to_two_sequencers_leave_one(database: Database, clock: SetClock) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        for _ in range(10):
            pay = town.write_pay()
            other = with_other_body(pay, MEMBERS[0])
            answers = await asyncio.gather(one.submit([submission_of(pay)]), two.submit([submission_of(other)]))
            assert sorted(in_short(answer) for (answer,) in answers) == ["accepted", "id-conflict"]
        assert len(await database.ids(town.name)) == len(town.beginning()) + 10


async def test_founding_said_to_two_sequencers_at_once_is_accepted_once(database: Database, clock: SetClock) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        for _ in range(5):
            founding = submission_of(Town(clock).founding)
            answers = await asyncio.gather(one.submit([founding]), two.submit([founding]))
            assert sorted(in_short(answer) for (answer,) in answers) == ["accepted", "replayed"]
            assert await database.ids(founding.statement.commons) == [founding.statement.id]


async def test_connection_that_has_done_nothing_yet_can_take_any_batch(
    town: Town, database: Database, clock: SetClock
) -> None:
    """The first statement on a fresh connection loads members, accounts, keys and a known id at once."""
    async with open_sequencer(database.dsn, clock) as fresh:
        answers = await fresh.submit([town.pay(), submission_of(town.founding)])
    assert [in_short(answer) for answer in answers] == ["accepted", "replayed"]


# ── What a batch may cost ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def postings_read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The rows of postings that are read from now on."""
    read: list[object] = []
    read_posting = rows.read_posting

    def tell(row: rows.Row) -> Posting:
        read.append(row)
        return read_posting(row)

    monkeypatch.setattr(rows, "read_posting", tell)
    return read


async def test_used_id_costs_the_postings_of_its_entry_only_where_the_same_is_said_again(
    sequencer: Sequencer, town: Town, postings_read: list[object]
) -> None:
    legs = [[member.public_key, 1] for member in MEMBERS[1:]]
    firsts = [town.write("pay", MEMBERS[0], legs=legs, memo=Memo(bytes(16), "für alle")) for _ in range(8)]
    given = await sequencer.submit([submission_of(one) for one in firsts])
    assert {len(receipt_in(answer).postings) for answer in given} == {6}
    others = [
        *(with_other_body(one, MEMBERS[0]) for one in firsts),
        *(town.write("erase", MEMBERS[0], statement=fields_of(one)["id"]) for one in firsts),
    ]
    answers = await sequencer.submit([submission_of(one) for one in others])
    assert list(map(in_short, answers)) == ["id-conflict"] * 8 + ["accepted"] * 8
    assert postings_read == []
    # And beside another body under the same id, and another who erases it.
    again = [with_other_body(firsts[3], MEMBERS[0]), firsts[3], firsts[5], firsts[3], others[11]]
    answers = await sequencer.submit([submission_of(one) for one in again])
    assert list(map(in_short, answers)) == ["id-conflict"] + ["replayed"] * 4
    assert [receipt_in(answers[place]) for place in (1, 2, 3)] == [receipt_in(given[place]) for place in (3, 5, 3)]
    assert len(postings_read) == 2 * 6


async def test_batch_of_gifts_that_follow_others_ends_before_it_loads_too_many(
    sequencer: Sequencer, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    load = Batch.load

    async def tell(self: Batch, books: Books, needs: Needs) -> None:
        # Each gift may lead to the accounts of two that nothing else names.
        loaded.append(len(needs.gift_accounts) + 2 * len(needs.gifts))
        await load(self, books, needs)

    monkeypatch.setattr(Batch, "load", tell)
    monkeypatch.setattr(sequencing, "BATCH_WEIGHT_MAX", 100)
    ids = [uuid7(town.clock.ms, n.to_bytes(10, "big")) for n in range(160)]
    gifts = [
        town.write("gift", MEMBERS[0], to=MEMBERS[1].public_key, kind="hour", quantity=1, after=ids[at : at + 16])
        for at in range(0, 160, 16)
    ]
    answers = await sequencer.submit([submission_of(one) for one in gifts])
    assert set(map(in_short, answers)) == {"not-found"}
    assert sum(loaded) >= 320
    assert max(loaded) <= 100


# ── All or nothing ───────────────────────────────────────────────────────────────────────────────────────────────


def first_day(town: Town) -> list[Envelope]:
    """A beginning, money that moves, a memo stored and erased at once, and refused and repeated statements."""
    begin = town.beginning()
    noted = town.write_pay(0, 1, 100, memo=Memo(bytes(16), "für die Äpfel"))
    kept = town.write_pay(1, 2, 50, memo=Memo(b"1" * 16, "bleibt"))
    pays = [town.write_pay(n % 6, (n + 1 + n // 6) % 6, 30 + n) for n in range(24)]
    return [
        *begin,
        noted,
        town.write("erase", MEMBERS[0], statement=fields_of(noted)["id"]),
        kept,
        *pays,
        pays[3],
        with_other_body(pays[4], MEMBERS[4]),
        town.write_pay(0, 1, 10**9),
        town.write("keys", MEMBERS[1], STRANGER, add=[STRANGER.public_key]),
        town.write("keys", MEMBERS[1], revoke=[STRANGER.public_key]),
        begin[0],
    ]


def second_day(town: Town) -> list[Envelope]:
    """Melt is due on all; somebody is suspended, somebody leaves, a policy is announced."""
    pays = [town.write_pay(n % 5, (n + 2) % 5, 777) for n in range(20)]
    policy = {**POLICY, "rest_ticks": 2}
    return [
        town.write("suspend", STEWARD, peer=MEMBERS[5].public_key),
        town.write_pay(5, 1, 1),
        *pays,
        town.write("policy", STEWARD, policy=policy, from_tick=town.clock.ms // HOUR_MS + 9),
        town.write("leave", MEMBERS[4]),
        town.write("retire", MEMBERS[3], amount=10**6, balancing=True),
        pays[0],
    ]


def third_day(town: Town) -> list[Envelope]:
    """The ledger sweeps, the pool grants, money rests, and the stewards change."""
    return [
        town.write("sweep", LEDGER, accounts=sorted(member.public_key for member in MEMBERS)),
        town.write("grant", STEWARD, legs=[[MEMBERS[0].public_key, 5], [MEMBERS[1].public_key, 7]]),
        *(town.write_pay(n % 3, 3, 11) for n in range(9)),
        town.write("stewards", STEWARD, MEMBERS[0], stewards=[MEMBERS[0].public_key], threshold=1),
        town.write("issue", STEWARD, to=MEMBERS[2].public_key, amount=5),
        town.write("issue", MEMBERS[0], to=MEMBERS[2].public_key, amount=5),
    ]


async def test_batch_equals_its_statements_one_by_one(
    server: PrivatePostgres, database: Database, clock: SetClock
) -> None:
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute('CREATE DATABASE "apart"')
    await owner.close()
    apart = Database(server, "apart")
    await migrate(apart.owner_dsn)
    town = Town(clock)
    outcomes: set[str] = set()
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(apart.dsn, clock) as two:
        for day in (first_day, second_day, third_day):
            said = [submission_of(envelope) for envelope in day(town)]
            together = await one.submit(said)
            by_one = [(await two.submit([submission]))[0] for submission in said]
            assert together == by_one
            assert await database.dump(town.name) == await apart.dump(town.name)
            outcomes |= set(map(in_short, together))
            clock.ms += 20 * HOUR_MS
    dump = await database.dump(town.name)
    assert all(dump[table] for table in TABLES if table not in ("share_out", "subtree"))
    assert any("melt" in row for row in dump["posting"])
    refused = {"id-conflict", "insufficient-funds", "not-active", "not-authorised"}
    assert outcomes == {"accepted", "replayed"} | refused


async def test_refused_statements_leave_no_trace(
    sequencer: Sequencer, town: Town, database: Database, clock: SetClock
) -> None:
    first = town.write_pay(memo=Memo(bytes(16), "eins"))
    await sequencer.submit([submission_of(first)])
    clock.ms += 30 * HOUR_MS  # so that melt is due on all that is touched
    before = await database.dump(town.name)
    refused = {
        "insufficient-funds": town.write_pay(0, 1, 10**9, memo=Memo(b"2" * 16, "zwei")),
        "unknown-member": town.write("pay", MEMBERS[0], legs=[[STRANGER.public_key, 1]]),
        "id-conflict": with_other_body(first, MEMBERS[0]),
        "not-authorised": town.write("issue", MEMBERS[0], to=MEMBERS[1].public_key, amount=1),
        "already-member": town.write("join", MEMBERS[0], handle="anders"),
        "handle-taken": town.write("join", STRANGER, handle="member-1"),
        "expired": write_envelope(
            "leave", MEMBERS[0].public_key, [MEMBERS[0]], now_ms=clock.ms - 9 * HOUR_MS, commons=town.name
        ),
        "too-early": write_envelope(
            "leave", MEMBERS[0].public_key, [MEMBERS[0]], now_ms=clock.ms + HOUR_MS, commons=town.name
        ),
        "key-taken": town.write("keys", MEMBERS[0], MEMBERS[1], add=[MEMBERS[1].public_key]),
        "not-found": town.write("erase", STEWARD, statement=bytes(16)),
        "limit-exceeded": town.write("policy", STEWARD, policy=dict(POLICY), from_tick=0),
        "wrong-state": town.write("admit", STEWARD, peer=MEMBERS[0].public_key),
    }
    for code, envelope in refused.items():
        (answer,) = await sequencer.submit([submission_of(envelope)])
        assert in_short(answer) == code
        assert await database.dump(town.name) == before, code
    answers = await sequencer.submit([submission_of(envelope) for envelope in refused.values()])
    assert list(map(in_short, answers)) == list(refused)
    assert await database.dump(town.name) == before


def _unbalanced(decision: Decision) -> Decision:
    return structs.replace(decision, postings=decision.postings[:-1])


def _with_a_wrong_account(decision: Decision) -> Decision:
    name, holding = next(iter(decision.accounts.items()))
    wrong = type(holding)(holding.balance + 1, holding.escrow, holding.tick, holding.inflows)
    return structs.replace(decision, accounts={**decision.accounts, name: wrong})


@pytest.mark.parametrize("breaking", [_unbalanced, _with_a_wrong_account])
async def test_broken_invariant_aborts_the_batch_and_nothing_of_it_is_stored(
    sequencer: Sequencer,
    town: Town,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    breaking: Callable[[Decision], Decision],
) -> None:
    decide_pay = decide._DECIDERS["pay"]
    poisoned = town.pay(amount=13)

    def decide_badly(books: Books, submission: Any, at_ms: int) -> Decision | Refusal:
        decision = decide_pay(books, submission, at_ms)
        if submission is poisoned and isinstance(decision, Decision):
            return breaking(decision)
        return decision

    before = await database.dump(town.name)
    pays = [town.pay(), poisoned, town.pay(2, 3)]
    with monkeypatch.context() as broken:
        broken.setitem(decide._DECIDERS, "pay", decide_badly)
        answers = await sequencer.submit(pays)
        assert list(map(in_short, answers)) == ["internal"] * 3
        assert await database.dump(town.name) == before
    assert list(map(in_short, await sequencer.submit(pays))) == ["accepted"] * 3


async def test_clock_that_is_not_trusted_stops_the_writing_and_nothing_is_stored(
    sequencer: Sequencer, town: Town, database: Database, clock: SetClock
) -> None:
    before = await database.dump(town.name)
    pay = town.pay()
    clock.fault = "the wall clock jumped"
    (answer,) = await sequencer.submit([pay])
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.detail) == ("unavailable", "the wall clock jumped")
    assert await database.dump(town.name) == before
    clock.fault = None
    assert list(map(in_short, await sequencer.submit([pay]))) == ["accepted"]


# ── When the outcome of a commit is not known ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", ["before", "after", "late"])
async def test_commit_of_unknown_outcome_is_looked_up_and_the_answer_is_the_one_receipt(
    wire: Wire, town: Town, database: Database, clock: SetClock, cut: str
) -> None:
    before = await database.ids(town.name)
    pays = [town.pay(n, (n + 1) % 6, 5) for n in range(6)]
    async with open_sequencer(wire.dsn, clock) as sequencer:
        assert in_short((await sequencer.submit([town.pay()]))[0]) == "accepted"
        wire.cut = cut
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = await sequencer.submit(pays)
        assert wire.cuts == 1
        again = await sequencer.submit(pays)
    # What had been stored when it was looked up counts as said before.
    assert set(map(in_short, answers)) == {"accepted" if cut == "before" else "replayed"}
    assert list(map(in_short, again)) == ["replayed"] * 6
    assert list(map(receipt_in, again)) == list(map(receipt_in, answers))
    ids = await database.ids(town.name)
    assert ids[len(before) + 1 :] == [pay.statement.id for pay in pays]


@pytest.mark.parametrize("cut", ["before", "after", "late"])
async def test_founding_whose_commit_has_an_unknown_outcome_founds_once(
    wire: Wire, database: Database, clock: SetClock, cut: str
) -> None:
    town = Town(clock)
    steps = [submission_of(one) for one in town.beginning()]
    async with open_sequencer(wire.dsn, clock) as sequencer:
        wire.cut = cut
        async with asyncio.timeout(PATIENCE_SECONDS):
            answers = await sequencer.submit(steps)
    assert wire.cuts == 1
    assert set(map(in_short, answers)) == {"accepted" if cut == "before" else "replayed"}
    assert await database.ids(town.name) == [step.statement.id for step in steps]


@pytest.mark.parametrize("cut", ["before", "after", "fatal"])
async def test_connection_that_breaks_anywhere_costs_nothing_but_a_second_try(
    wire: Wire, town: Town, database: Database, clock: SetClock, cut: str
) -> None:
    """At every message of a transaction in turn: its beginning, the lock, the copies, the updates, the end."""
    before = await database.ids(town.name)
    pays = []
    async with open_sequencer(wire.dsn, clock) as sequencer:
        for countdown in range(1, 40):  # until a transaction is over before the wire breaks
            pays.append(town.pay(countdown % 6, (countdown + 1) % 6))
            wire.cut, wire.countdown, cuts = cut, countdown, wire.cuts
            async with asyncio.timeout(PATIENCE_SECONDS):
                (answer,) = await sequencer.submit(pays[-1:])
            assert in_short(answer) in ("accepted", "replayed"), countdown
            if wire.cuts == cuts:
                break
    assert wire.cuts > 8, "a transaction sends more than that"
    assert await database.ids(town.name) == [*before, *(pay.statement.id for pay in pays)]


async def test_server_that_has_given_up_and_not_hung_up_yet_is_tried_again(
    wire: Wire, town: Town, clock: SetClock
) -> None:
    async with open_sequencer(wire.dsn, clock) as sequencer:
        assert in_short((await sequencer.submit([town.pay()]))[0]) == "accepted"
        await wire.break_down()
        under_way = asyncio.create_task(sequencer.submit([town.pay()]))
        await asyncio.sleep(1)
        wire.away = False
        async with asyncio.timeout(PATIENCE_SECONDS):
            (answer,) = await under_way
    assert in_short(answer) == "accepted"


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_database_away_for_too_long_is_unavailable_and_the_same_envelope_counts_once_later(
    wire: Wire, town: Town, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    monkeypatch.setattr(sequencing, "RETRY_SECONDS", 0.7)
    pay = town.pay()
    before = await database.ids(town.name)
    async with open_sequencer(wire.dsn, clock) as sequencer:
        assert in_short((await sequencer.submit([town.pay(1, 2)]))[0]) == "accepted"
        wire.cut, wire.away = cut, True
        async with asyncio.timeout(PATIENCE_SECONDS):
            (answer,) = await sequencer.submit([pay])
        assert wire.cuts == 1
        assert in_short(answer) == "unavailable"
        wire.away = False
        (answer,) = await sequencer.submit([pay])
    assert in_short(answer) == ("accepted" if cut == "before" else "replayed")
    assert (await database.ids(town.name))[len(before) + 1 :] == [pay.statement.id]


async def test_books_of_a_batch_that_was_never_stored_are_not_gone_on_with(
    wire: Wire, town: Town, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worst of all where the head has the number that they ended with, since another service added as many."""
    monkeypatch.setattr(sequencing, "RETRY_SECONDS", 0.3)
    async with open_sequencer(wire.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        assert in_short((await one.submit([town.pay(0, 1, 1)]))[0]) == "accepted"
        wire.cut, wire.away = "before", True
        assert in_short((await one.submit([town.pay(0, 1, 9_000)]))[0]) == "unavailable"
        wire.away = False
        assert in_short((await two.submit([town.pay(1, 0, 500)]))[0]) == "accepted"
        (answer,) = await one.submit([town.pay(0, 2, 10_499)])
        assert in_short(answer) == "accepted"
        (answer,) = await two.submit([town.pay(0, 2, 1)])
    assert isinstance(answer, Refusal)
    assert answer.fields == {"available": 0, "needed": 1}
    assert len(await database.ids(town.name)) == len(town.beginning()) + 3


async def test_sequencers_that_take_turns_go_on_from_each_others_entries(database: Database, clock: SetClock) -> None:
    async with open_sequencer(database.dsn, clock) as one, open_sequencer(database.dsn, clock) as two:
        town = await Town(clock).found(one)
        for turn in range(12):
            clock.ms += HOUR_MS
            pays = [town.pay(n % 6, (n + turn) % 6, 90) for n in range(6) if (n + turn) % 6 != n]
            for answer in await (one, two)[turn % 2].submit(pays):
                assert in_short(answer) == "accepted"
        answers = await one.submit([town.pay(0, 1, 10**9)]) + await two.submit([town.pay(0, 1, 10**9)])
    assert answers[0] == answers[1]
    dump = await database.dump(town.name)
    assert sum(int(row.split(",")[2]) for row in dump["account"]) == 0


async def test_database_that_comes_back_in_time_is_waited_for(
    wire: Wire, town: Town, database: Database, clock: SetClock
) -> None:
    async with open_sequencer(wire.dsn, clock) as sequencer:
        await sequencer.submit([town.pay()])
        wire.go_away()
        under_way = asyncio.create_task(sequencer.submit([town.pay(1, 2)]))
        await asyncio.sleep(0.5)
        assert not under_way.done()
        wire.away = False
        async with asyncio.timeout(PATIENCE_SECONDS):
            (answer,) = await under_way
    assert in_short(answer) == "accepted"


# ── Too much, and the end ────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def intake_of(sequencer: Sequencer, *, processes: int = 1, **bounds: int) -> AsyncIterator[Intake]:
    """The way in to a sequencer, with processes that check, gone afterwards."""
    checkers = Checkers(check, processes=processes, min_tick_seconds=1)
    await checkers.start()
    try:
        yield Intake(sequencer, checkers, **bounds)
    finally:
        await checkers.close()


async def answers_of(asked: Sequence[asyncio.Task[list[Answer]]]) -> list[Answer]:
    """All that several requests are answered, in their order."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [answer for answers in await asyncio.gather(*asked) for answer in answers]


async def test_too_much_under_way_is_unavailable_at_once_and_nothing_piles_up(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    packed = [pack_array(town.write_pay(n % 6, (n + 1) % 6).wire()) for n in range(40)]
    before = await database.ids(town.name)
    async with intake_of(sequencer, in_flight=20, kept=0) as intake:
        async with database.held(town.name):
            under_way = [
                asyncio.create_task(intake.submit(packed[at : at + 5], is_json=False)) for at in range(0, 20, 5)
            ]
            await asyncio.sleep(0.3)
            tasks = len(asyncio.all_tasks())
            for _ in range(200):
                with pytest.raises(Unavailable) as refused:
                    await asyncio.wait_for(intake.submit(packed[20:21], is_json=False), 5)
                assert refused.value.retry_after >= 1
            assert len(asyncio.all_tasks()) == tasks
            assert not any(task.done() for task in under_way)
        assert list(map(in_short, await answers_of(under_way))) == ["accepted"] * 20
        # Whoever was sent away finds room afterwards, and all of it.
        assert list(map(in_short, await intake.submit(packed[20:], is_json=False))) == ["accepted"] * 20
        with pytest.raises(Unavailable):
            await intake.submit(packed[:21], is_json=False)
    assert len(await database.ids(town.name)) == len(before) + 40


async def test_requests_of_many_leave_room_for_those_of_few(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    packed = [pack_array(town.write_pay(n % 6, (n + 1) % 6).wire()) for n in range(60)]
    many = FEW + 4
    async with intake_of(sequencer, in_flight=60, kept=20) as intake:
        async with database.held(town.name):
            asked = [
                asyncio.create_task(intake.submit(packed[at : at + many], is_json=False)) for at in range(0, 40, many)
            ]
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable):
                await intake.submit(packed[40 : 40 + many], is_json=False)
            asked += [asyncio.create_task(intake.submit([one], is_json=False)) for one in packed[40:]]
            await asyncio.sleep(0.1)
            with pytest.raises(Unavailable):
                await intake.submit(packed[:1], is_json=False)
        assert list(map(in_short, await answers_of(asked))) == ["accepted"] * 60


async def test_payment_waits_for_one_batch_of_others_and_these_for_one_of_payments(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    """Both ways round: a payment behind ten full requests, and a full request behind many payments."""

    async def place_behind(before: int, size: int, *, own_size: int) -> int:
        """How many of so many waiting requests of a size are answered before one that comes after them."""
        waiting = [[town.pay(n % 6, (n + 1) % 6) for n in range(size)] for _ in range(before)]
        ended: list[int] = []

        async def ask(place: int, said: Sequence[Submission]) -> None:
            assert set(map(in_short, await sequencer.submit(said))) == {"accepted"}
            ended.append(place)

        async with database.held(town.name), asyncio.timeout(PATIENCE_SECONDS):
            asked = [asyncio.create_task(ask(place, said)) for place, said in enumerate(waiting)]
            await asyncio.sleep(0.1)
            asked.append(asyncio.create_task(ask(before, [town.pay() for _ in range(own_size)])))
            await asyncio.sleep(0.1)
        await asyncio.gather(*asked)
        return ended.index(before)

    with mock.patch.object(sequencing, "BATCH_MAX", FEW + 1):
        assert await place_behind(10, FEW + 1, own_size=1) < 3
        assert await place_behind(10 * FEW, 1, own_size=FEW + 1) < 3 * (FEW + 1)
        # Few statements that touch many accounts are as good as many.
        with mock.patch.object(sequencing, "FEW_WEIGHT", 4):
            assert await place_behind(10, FEW, own_size=1) < 3


async def test_answers_of_one_request_come_in_the_order_sent_with_bad_ones_among_them(
    sequencer: Sequencer, town: Town
) -> None:
    forged = town.write_pay()
    ((key, signature),) = forged.signatures
    said = [town.write_pay() for _ in range(170)]
    said[10] = Envelope(forged.body, ((key, bytes(64)),))
    said[166] = Envelope(b"\xc1", ((key, signature),))
    packed = [pack_array(one.wire()) for one in said]
    packed[40] = b"\xc0"
    async with intake_of(sequencer, processes=2) as intake:
        answers = await intake.submit(packed, is_json=False)
    refused = {place: in_short(answer) for place, answer in enumerate(answers) if isinstance(answer, Refusal)}
    assert refused == {10: "bad-signature", 40: "malformed", 166: "not-canonical"}
    seqs = [answer.receipt.seq for answer in answers if isinstance(answer, Receipted)]
    assert seqs == list(range(seqs[0], seqs[0] + 167))


async def test_stop_decides_everything_that_is_queued_and_takes_nothing_more(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    before = await database.ids(town.name)
    pays = [town.pay(n % 6, (n + 1) % 6) for n in range(1_500)]
    under_way = [asyncio.create_task(sequencer.submit(pays[at : at + 100])) for at in range(0, 1_500, 100)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await sequencer.stop()
        answers = [answer for answers in await asyncio.gather(*under_way) for answer in answers]
    assert list(map(in_short, answers)) == ["accepted"] * 1_500
    assert (await database.ids(town.name))[len(before) :] == [pay.statement.id for pay in pays]
    with pytest.raises(Unavailable):
        await sequencer.submit([town.pay()])


async def test_stop_answers_what_it_can_not_wait_for_and_nothing_of_it_is_stored(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    before = await database.dump(town.name)
    async with database.held(town.name):
        first = asyncio.create_task(sequencer.submit([town.pay()]))
        await asyncio.sleep(0.2)
        rest = [asyncio.create_task(sequencer.submit([town.pay(1, 2), town.pay(2, 3)])) for _ in range(10)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await sequencer.stop(seconds=0.2)
            answers = [answer for answers in await asyncio.gather(first, *rest) for answer in answers]
    assert list(map(in_short, answers)) == ["unavailable"] * 21
    assert await database.dump(town.name) == before


async def test_who_asked_and_went_away_leaves_a_statement_that_is_decided(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    pay = town.pay()
    async with database.held(town.name):
        asking = asyncio.create_task(sequencer.submit([pay]))
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    (answer,) = await sequencer.submit([pay])
    assert in_short(answer) == "replayed"


async def test_who_has_not_the_key_that_speaks_for_a_commons_takes_nothing_in_it(
    database: Database, clock: SetClock
) -> None:
    async with open_sequencer(database.dsn, clock) as sequencer:
        town = await Town(clock).found(sequencer)
    async with open_pool(database.dsn, connections=2) as pool:
        other = Sequencer(pool, clock, ledger=STRANGER.public_key, metrics=Metrics())
        before = await database.dump(town.name)
        (answer,) = await other.submit([town.pay()])
        await other.stop(seconds=5)
    assert isinstance(answer, Refusal)
    assert answer.code == "unavailable"
    assert await database.dump(town.name) == before

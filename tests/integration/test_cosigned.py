"""What is kept of cosigned checkpoints, and how the ledger takes the answers of witnesses, honest or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.settings import WitnessPlace
from gesell_ledger.storage.cosigned import FIRST, RECENT, Cosigned
from gesell_ledger.storage.trees import Trees
from gesell_ledger.submitting import ANSWER_MAX_BYTES, Outdated, WitnessDown, WitnessRefused, open_session, submit
from gesell_ledger.witnessing import TRIES, Witnessing
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import commons_of, did_of
from gesell_protocol.notes import (
    WITNESS_KEY,
    Note,
    NoteKey,
    Signature,
    cosign,
    count_cosigned,
    read_checkpoint,
    read_note,
    sign_checkpoint,
)
from gesell_protocol.tree import Frontier
from tests.speaking import name_of, signer_of, submission_of, write_envelope, write_found
from tests.witnesses import witnessing

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

LEDGER = signer_of("ledger")
SIGNERS = [signer_of(f"witness {n}") for n in range(4)]
KEYS = [NoteKey(f"witness.example/w{n}", signer.public_key, WITNESS_KEY) for n, signer in enumerate(SIGNERS)]
COMMONS = commons_of(b"cosigned")
TREE, _ = Frontier().grown([bytes([n]) * 32 for n in range(40)])


def checkpoint(size: int) -> Note:
    tree, _ = Frontier().grown([bytes([n]) * 32 for n in range(size)])
    return sign_checkpoint(commons=COMMONS, size=size, root=tree.root, signer=LEDGER)


def line_of(number: int, note: Note, *, time_s: int = 1_800_000_000) -> Signature:
    return cosign(note, name=KEYS[number].name, signer=SIGNERS[number], time_s=time_s)


async def add(cosigned: Cosigned, size: int, *numbers: int) -> None:
    note = checkpoint(size)
    for number in numbers:
        await cosigned.add(COMMONS, note, line_of(number, note), witnesses=KEYS)


async def kept(pool: Pool) -> list[tuple[int, int]]:
    return [tuple(row) for row in await pool.fetch("SELECT size, witnesses FROM gesell.cosigned ORDER BY size")]


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_cosignatures_of_one_checkpoint_come_together(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    assert await cosigned.load(COMMONS, at_least=1) is None
    await add(cosigned, 5, 2, 0, 1)
    note = await cosigned.load(COMMONS, at_least=3)
    assert note is not None
    assert note == await cosigned.load_for(COMMONS, 5)
    assert count_cosigned(read_note(note), KEYS) == 3
    read_note(note).verify(NoteKey(read_checkpoint(read_note(note)).origin, LEDGER.public_key))
    assert await cosigned.load(COMMONS, at_least=4) is None
    assert await cosigned.load_for(COMMONS, 6) is None
    assert await cosigned.load(commons_of(b"another"), at_least=1) is None


async def test_past_the_newest_sizes_only_one_that_more_have_cosigned_stays(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    await add(cosigned, 1, 0, 1, 2)
    await add(cosigned, 2, 0, 1)
    await add(cosigned, 3, 0, 1)
    for size in range(4, 4 + RECENT):
        await add(cosigned, size, 3)
    assert await kept(pool) == [(1, 3), (3, 2), *((size, 1) for size in range(4, 4 + RECENT))]
    # One that comes too late is forgotten at once.
    await add(cosigned, 2, 0, 1)
    assert await kept(pool) == [(1, 3), (3, 2), *((size, 1) for size in range(4, 4 + RECENT))]


async def test_past_one_that_all_have_cosigned_nothing_stays(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    await add(cosigned, 3, 0, 1, 2, 3)
    await add(cosigned, 5, 0, 1)
    await add(cosigned, 7, 3)
    assert await kept(pool) == [(3, 4), (5, 2), (7, 1)]
    await add(cosigned, 7, 0, 1, 2)
    assert await kept(pool) == [(7, 4)]


async def test_cosignatures_that_come_late_meet_the_others(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    for size in range(1, 30):
        await add(cosigned, size, 0)
        if size > 10:
            await add(cosigned, size - 10, 1)
    note = await cosigned.load(COMMONS, at_least=2)
    assert note is not None
    assert read_checkpoint(read_note(note)).size == 19


async def test_witnesses_that_are_not_named_any_more_are_counted_out(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    await add(cosigned, 3, 0, 1, 2, 3)
    await add(cosigned, 5, 1, 2)
    await add(cosigned, 7, 3)
    await add(cosigned, 9, 0)
    await cosigned.recount(KEYS)
    assert await kept(pool) == [(3, 4), (5, 2), (7, 1), (9, 1)]
    await cosigned.recount(KEYS[:2])
    assert await kept(pool) == [(3, 2), (5, 1), (9, 1)]
    assert await cosigned.load(COMMONS, at_least=3) is None
    found = read_note(await cosigned.load_for(COMMONS, 3) or "")
    assert [found.cosigned(key) is not None for key in KEYS] == [True, True, False, False]
    found.verify(NoteKey(read_checkpoint(found).origin, LEDGER.public_key))
    await cosigned.recount([])
    assert await kept(pool) == []


async def test_all_pages_are_counted_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesell_ledger.storage.cosigned.PAGE", 3)
    cosigned = Cosigned(pool)
    for size in range(1, 11):
        await add(cosigned, size, size % 2)
    await cosigned.recount(KEYS[:1])
    assert await kept(pool) == [(size, 1) for size in range(2, 11, 2)]


async def test_any_order_leaves_the_newest_for_each_count(pool: Pool) -> None:
    cosigned, chance = Cosigned(pool), random.Random(5)
    pairs = [(size, number) for size in range(1, 9) for number in range(4) if chance.random() < 0.6]
    chance.shuffle(pairs)
    counts = {size: sum(one == size for one, _ in pairs) for size, _ in pairs}
    for size, number in pairs:
        await add(cosigned, size, number)
    for at_least in range(1, 5):
        expected = max((size for size, count in counts.items() if count >= at_least), default=None)
        note = await cosigned.load(COMMONS, at_least=at_least)
        found = None if note is None else read_checkpoint(read_note(note)).size
        # One that was dropped before it had all of its cosignatures begins anew, so an older one may be told.
        assert found is None or (expected is not None and found <= expected)
        assert note is None or count_cosigned(read_note(note), KEYS) >= at_least


async def test_a_newer_cosignature_takes_the_place_of_the_same_witness(pool: Pool) -> None:
    cosigned, note = Cosigned(pool), checkpoint(5)
    for time_s in (1_800_000_000, 1_800_003_600):
        await cosigned.add(COMMONS, note, line_of(0, note, time_s=time_s), witnesses=KEYS)
    found = read_note(await cosigned.load_for(COMMONS, 5) or "")
    assert len(found.signatures) == 2
    assert found.cosigned(KEYS[0]) == 1_800_003_600
    assert await kept(pool) == [(5, 1)]


async def test_a_witness_that_is_not_named_any_more_does_not_count(pool: Pool) -> None:
    cosigned, note = Cosigned(pool), checkpoint(5)
    await add(cosigned, 5, 0, 1)
    await cosigned.add(COMMONS, note, line_of(2, note), witnesses=KEYS[1:])
    assert await kept(pool) == [(5, 2)]
    found = read_note(await cosigned.load_for(COMMONS, 5) or "")
    assert [found.cosigned(key) is not None for key in KEYS] == [False, True, True, False]


async def test_of_many_that_come_at_once_none_is_lost(pool: Pool) -> None:
    cosigned, note = Cosigned(pool), checkpoint(5)
    for _ in range(10):
        await pool.execute("DELETE FROM gesell.cosigned")
        await asyncio.gather(
            *(cosigned.add(COMMONS, note, line_of(number, note), witnesses=KEYS) for number in range(4))
        )
        assert await kept(pool) == [(5, 4)]


async def test_a_database_without_commons_has_none_to_cosign(pool: Pool) -> None:
    cosigned = Cosigned(pool)
    assert await cosigned.list_uncosigned(LEDGER.public_key, after=FIRST, limit=10) == []
    assert await cosigned.list_heads(LEDGER.public_key, after=FIRST, limit=10) == []


# ── What witnesses answer ────────────────────────────────────────────────────────────────────────────────────────

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[WitnessPlace]:
    """Somebody who answers at a witness's place, by the name and the key of witness 0."""
    app = web.Application()
    app.router.add_post("/w/add-checkpoint", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield WitnessPlace(KEYS[0], f"http://127.0.0.1:{runner.addresses[0][1]}/w")
    finally:
        await runner.cleanup()


def says(status: int, body: bytes, **headers: str) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handle


NOTE = checkpoint(40)
OWN = line_of(0, NOTE).line().encode()
OTHERS = line_of(1, NOTE).line().encode()
SPOILED = Signature(KEYS[0].name, KEYS[0].id, bytes(72)).line().encode()
OLDER = line_of(0, checkpoint(39)).line().encode()
BY_LOG_KEY = Signature(KEYS[0].name, KEYS[0].id, SIGNERS[0].sign(NOTE.text.encode())).line().encode()


@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        (says(200, OWN), line_of(0, NOTE)),
        (says(200, OTHERS + OWN), line_of(0, NOTE)),
        (says(409, b"7\n"), Outdated(7)),
        (says(409, b"0\n"), Outdated(0)),
        (says(409, b"seven\n"), WitnessDown),
        (says(409, b"9" * 30), WitnessDown),
        (says(409, b"-1\n"), WitnessDown),
        (says(200, OTHERS), WitnessRefused),
        (says(200, SPOILED), WitnessRefused),
        (says(200, OWN + SPOILED), WitnessRefused),
        (says(200, OLDER), WitnessRefused),
        (says(200, BY_LOG_KEY), WitnessRefused),
        (says(200, b""), WitnessRefused),
        (says(200, b"thank you\n"), WitnessRefused),
        (says(200, b"\xff\xfe"), WitnessRefused),
        (says(200, OWN * 1_000), WitnessDown),
        (says(400, b"no\n"), WitnessRefused),
        (says(403, b"no\n"), WitnessRefused),
        (says(404, b"no\n"), WitnessRefused),
        (says(422, b"no\n"), WitnessRefused),
        (says(429, b"later\n"), WitnessDown),
        (says(500, b"oh\n"), WitnessDown),
        (says(503, b"later\n"), WitnessDown),
        (says(302, b"", Location="/w/elsewhere"), WitnessDown),
    ],
)
async def test_each_answer_is_taken_for_what_it_is(handler: Handler, outcome: Any) -> None:
    async with answering(handler) as place, open_session(connections=1) as session:
        if isinstance(outcome, type):
            with pytest.raises(outcome):
                await submit(session, place, old=0, proof=[], note=NOTE)
        else:
            assert await submit(session, place, old=0, proof=[], note=NOTE) == outcome


async def test_an_answer_without_end_is_cut_off() -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1_000 * ANSWER_MAX_BYTES:
            await response.write(bytes(ANSWER_MAX_BYTES))
            sent += ANSWER_MAX_BYTES
        return response

    async with answering(pour) as place, open_session(connections=1) as session:
        with pytest.raises(WitnessDown, match="more than"):
            await submit(session, place, old=0, proof=[], note=NOTE)
    # Only what the system's own buffers held was sent on top.
    assert sent < 1_000 * ANSWER_MAX_BYTES


async def test_what_a_witness_says_can_not_break_a_line_of_the_log() -> None:
    async with answering(says(404, b"a\nb\x1b[31m " + b"x" * 5_000)) as place, open_session(connections=1) as session:
        with pytest.raises(WitnessRefused) as refused:
            await submit(session, place, old=0, proof=[], note=NOTE)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 250


async def test_what_is_submitted_is_as_the_standard_says() -> None:
    got: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.read())
        return web.Response(body=OWN)

    async with answering(take) as place, open_session(connections=1) as session:
        await submit(session, place, old=7, proof=[b"\x01" * 32, b"\x02" * 32], note=NOTE)
    assert got == [
        b"old 7\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\nAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n\n"
        + str(NOTE).encode()
    ]


async def test_who_does_not_answer_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await left.wait()
        return web.Response()

    async with answering(wait) as place, open_session(connections=1) as session:
        session._timeout = aiohttp.ClientTimeout(total=0.3)
        with pytest.raises(WitnessDown, match="no answer in time"):
            await submit(session, place, old=0, proof=[], note=NOTE)
        left.set()


# ── All of it together ───────────────────────────────────────────────────────────────────────────────────────────


class SetClock:
    """A clock that stands still."""

    speed, demo, fault = 1, False, None

    def now_ms(self) -> int:
        return 1_800_000_000_000

    look = now_ms


class Grown:
    """A commons in the database, that grows."""

    def __init__(self, pool: Pool) -> None:
        self.clock = SetClock()
        self.sequencer = Sequencer(pool, self.clock, ledger=LEDGER.public_key, metrics=Metrics())
        self.name = b""
        self.size = 0

    async def found(self) -> None:
        founding = write_found([LEDGER], ledger=LEDGER.public_key, now_ms=self.clock.now_ms())
        self.name = name_of(founding)
        await self._submit(founding)

    async def grow(self) -> None:
        peer = signer_of(f"peer {self.size}")
        await self._submit(
            write_envelope(
                "join",
                peer.public_key,
                [peer],
                now_ms=self.clock.now_ms(),
                commons=self.name,
                handle=f"peer{self.size}",
            )
        )

    async def _submit(self, envelope: Envelope) -> None:
        (answer,) = await self.sequencer.submit([submission_of(envelope)])
        assert isinstance(answer, Receipted), answer
        self.size = answer.receipt.seq


@asynccontextmanager
async def looked_after(
    pool: Pool,
    *places: WitnessPlace,
    round_seconds: float = 0.2,
    fresh_seconds: float = 3_600,
    wakes: Grown | None = None,
) -> AsyncIterator[Metrics]:
    """The commons of a database with these witnesses; `wakes` tells of what it adds, as the service itself does."""
    metrics = Metrics()
    witnessing = Witnessing(
        Trees(pool), Cosigned(pool), LEDGER, metrics, places, round_seconds=round_seconds, fresh_seconds=fresh_seconds
    )
    if wakes is not None:
        wakes.sequencer.after_commit.append(witnessing.wake)
    task = asyncio.create_task(witnessing.run())
    try:
        yield metrics
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():  # noqa: ASYNC110 - what it waits for happens in a database
            await asyncio.sleep(0.05)


def counted(metrics: Metrics, place: WitnessPlace, reason: str = "") -> float:
    labels = {"witness": place.key.name, **({"reason": reason} if reason else {})}
    name = "gesell_witness_failures_total" if reason else "gesell_cosignatures_total"
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(scope="module")
def witness() -> Iterator[WitnessPlace]:
    with witnessing("witness.example/real", "--ledger", did_of(LEDGER.public_key)) as started:
        yield WitnessPlace(started.key, started.url)


@pytest.fixture(scope="module")
def second_witness() -> Iterator[WitnessPlace]:
    with witnessing("witness.example/second", "--ledger", did_of(LEDGER.public_key)) as started:
        yield WitnessPlace(started.key, started.url)


@pytest.fixture
async def grown(pool: Pool) -> Grown:
    made = Grown(pool)
    await made.found()
    return made


async def test_what_others_add_is_found_by_a_look(pool: Pool, grown: Grown, witness: WitnessPlace) -> None:
    cosigned = Cosigned(pool)

    async def all_cosigned() -> bool:
        return await cosigned.load_for(grown.name, grown.size) is not None

    # Nobody wakes it: as if another service of the same database had taken the statements.
    async with looked_after(pool, witness, round_seconds=3_600):
        for _ in range(3):
            await until(all_cosigned)
            assert await cosigned.list_uncosigned(LEDGER.public_key, after=FIRST, limit=10) == []
            await grown.grow()
            assert [name for _, name in await cosigned.list_uncosigned(LEDGER.public_key, after=FIRST, limit=10)] == [
                grown.name
            ]


async def test_cosignatures_stay_fresh_while_nothing_is_added(pool: Pool, grown: Grown, witness: WitnessPlace) -> None:
    async with looked_after(pool, witness, fresh_seconds=0.5) as metrics:

        async def thrice() -> bool:
            return counted(metrics, witness) >= 3

        await until(thrice)
        assert await kept(pool) == [(grown.size, 1)]


async def test_what_is_fresh_is_not_submitted_again(pool: Pool, grown: Grown, witness: WitnessPlace) -> None:
    async with looked_after(pool, witness) as metrics:

        async def once() -> bool:
            return counted(metrics, witness) >= 1

        await until(once)
        # More than enough rounds and looks for a second one.
        await asyncio.sleep(2.5)
        assert counted(metrics, witness) == 1


@asynccontextmanager
async def hesitating(place: WitnessPlace, *, seconds: float) -> AsyncIterator[WitnessPlace]:
    """A real witness that is far away: what it answers takes so long."""
    async with aiohttp.ClientSession() as session:

        async def pass_on(request: web.Request) -> web.Response:
            body = await request.read()
            await asyncio.sleep(seconds)
            async with session.post(f"{place.url}/add-checkpoint", data=body) as response:
                return web.Response(status=response.status, body=await response.read())

        async with answering(pass_on) as there:
            yield WitnessPlace(place.key, there.url)


@asynccontextmanager
async def growing(grown: Grown) -> AsyncIterator[None]:
    """A commons that grows all the time."""

    async def go_on() -> None:
        while True:
            await grown.grow()
            await asyncio.sleep(0.004)

    task = asyncio.create_task(go_on())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# The second takes longer than a round.
@pytest.mark.parametrize("seconds", [0.2, 1.3])
async def test_while_a_commons_grows_what_two_cosigned_follows(
    pool: Pool, grown: Grown, witness: WitnessPlace, second_witness: WitnessPlace, seconds: float
) -> None:
    cosigned = Cosigned(pool)
    async with (
        hesitating(second_witness, seconds=seconds) as slow,
        looked_after(pool, witness, slow, wakes=grown),
        growing(grown),
    ):
        for _ in range(3):
            size = grown.size

            async def followed(size: int = size) -> bool:
                note = await cosigned.load(grown.name, at_least=2)
                return note is not None and read_checkpoint(read_note(note)).size >= size

            await until(followed)


async def test_what_is_added_behind_a_choice_is_chosen_next(
    pool: Pool, grown: Grown, witness: WitnessPlace, second_witness: WitnessPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def by_both() -> bool:
        return await kept(pool) == [(grown.size, 2)]

    # No look and no round comes to help.
    monkeypatch.setattr("gesell_ledger.witnessing.LOOK_SECONDS", 3_600.0)
    async with (
        hesitating(witness, seconds=1.2) as first,
        hesitating(second_witness, seconds=1.5) as second,
        looked_after(pool, first, second, round_seconds=3_600, wakes=grown),
    ):
        await until(by_both)
        # The second of these while submissions are under way, and a while longer.
        for _ in range(2):
            await grown.grow()
            await asyncio.sleep(0.3)
        await until(by_both)


async def test_at_the_start_witnesses_of_before_are_counted_out(
    pool: Pool, grown: Grown, witness: WitnessPlace, second_witness: WitnessPlace
) -> None:
    cosigned = Cosigned(pool)

    async def by_both() -> bool:
        return await cosigned.load(grown.name, at_least=2) is not None

    async with looked_after(pool, witness, second_witness):
        await until(by_both)
    # What is cosigned from now on is another checkpoint.
    await grown.grow()

    async def by_one() -> bool:
        return not await by_both() and await cosigned.load_for(grown.name, grown.size) is not None

    async with looked_after(pool, witness):
        await until(by_one)
        for size, _ in await kept(pool):
            note = read_note(await cosigned.load_for(grown.name, size) or "")
            assert note.cosigned(witness.key) is not None
            assert note.cosigned(second_witness.key) is None


async def test_a_lying_witness_gets_nothing_into_the_books_and_takes_nothing_from_others(
    pool: Pool, grown: Grown, witness: WitnessPlace
) -> None:
    asked = 0

    async def lie(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        note = read_note((await request.read()).partition(b"\n\n")[2])
        forged = cosign(note, name=KEYS[0].name, signer=SIGNERS[1], time_s=1)
        return web.Response(text=forged._replace(key_id=KEYS[0].id).line())

    async with answering(lie) as liar, looked_after(pool, liar, witness) as metrics:

        async def both() -> bool:
            # It is counted first and stored a moment later.
            stored = await Cosigned(pool).load_for(grown.name, grown.size) is not None
            return counted(metrics, liar, "refused") >= 1 and counted(metrics, witness) >= 1 and stored

        await until(both)
        note = read_note(await Cosigned(pool).load_for(grown.name, grown.size) or "")
        assert [line.name for line in note.signatures[1:]] == [witness.key.name]
        assert await Cosigned(pool).load(grown.name, at_least=2) is None
    assert asked == 1


async def test_a_witness_that_always_names_another_size_is_not_asked_without_end(pool: Pool, grown: Grown) -> None:
    asked = 0

    async def change_mind(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=409, text="1\n" if asked % 2 else "0\n")

    await grown.grow()
    async with answering(change_mind) as place, looked_after(pool, place):
        await asyncio.sleep(2.5)
    assert TRIES <= asked <= 4 * TRIES


async def test_a_witness_that_saw_more_than_there_is_raises_the_alarm(pool: Pool, grown: Grown) -> None:
    async with answering(says(409, b"1000\n")) as place, looked_after(pool, place) as metrics:

        async def alarmed() -> bool:
            return counted(metrics, place, "ahead") >= 1

        await until(alarmed)
        assert await kept(pool) == []


async def test_a_witness_that_is_down_is_left_alone_for_a_while(pool: Pool, grown: Grown) -> None:
    asked = 0

    async def break_down(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503)

    for _ in range(19):
        await grown.found()
    async with answering(break_down) as place, looked_after(pool, place) as metrics:
        await asyncio.sleep(3)
        assert counted(metrics, place, "down") >= 1
    # Twenty commons, each of which would be submitted again after a second.
    assert 1 <= asked <= 24


async def test_a_log_that_is_another_keys_is_not_signed_for(pool: Pool, grown: Grown) -> None:
    asked = 0

    async def count(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=404)

    async with answering(count) as place:
        witnessing = Witnessing(Trees(pool), Cosigned(pool), signer_of("before"), Metrics(), (place,))
        task = asyncio.create_task(witnessing.run())
        witnessing.wake(grown.name)
        await asyncio.sleep(1)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asked == 0

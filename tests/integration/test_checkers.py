"""The processes that check statements: real ones, frozen, killed and started again while they have work.

Owns: what becomes of requests whatever happens to these processes, and of the processes whatever happens to their
service. Must not know: what makes a statement good; `tests.unit` and the vectors tell that.

A process that is stopped by SIGSTOP takes what it is given and answers nothing: so tests know where a statement is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger import checkers as checking
from gesell_ledger.api import pieces
from gesell_ledger.checkers import AHEAD_WHOLE, CHUNK, HERE_MAX, HERE_MAX_BYTES, CheckerLost, Checkers
from gesell_ledger.core.decide import Submission
from gesell_ledger.intake import Intake
from gesell_ledger.queues import FEW
from gesell_ledger.sequencer import Answer, Sequencer, Unavailable
from gesell_protocol.canonical import pack_array
from gesell_protocol.envelopes import Envelope, Memo, verify_envelope
from gesell_protocol.names import base64url, did_of
from gesell_protocol.refusals import Refusal
from tests import towns
from tests.running import Service, lay_cluster, open_folder, running
from tests.sequences import MEMBERS, PATIENCE_SECONDS, Database, SetClock, Town, in_short
from tests.speaking import Line
from tests.towns import line_to, read_entries

#: Long enough for an answer that would come, were the rule broken, to come.
A_WHILE = 0.4


# ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def checkers_of(parent: int) -> list[int]:
    """The processes that check for a process, ascending."""
    found = []
    for folder in Path("/proc").iterdir():
        # A process may end while it is looked at.
        with suppress(OSError):
            if folder.name.isdecimal() and b"gesell_ledger.checker" in (folder / "cmdline").read_bytes():
                # The name in brackets may hold anything; the state and the parent follow it.
                state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(ppid) == parent and state != "Z":
                    found.append(int(folder.name))
    return sorted(found)


def lives(process: int) -> bool:
    """Whether a process is there and is not only waiting for its exit status to be read."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_there(process: int) -> bool:
    """Whether there is a process of this number, be it one that has ended and was not waited for."""
    return Path(f"/proc/{process}").exists()


def until(there: Callable[[], bool]) -> None:
    """Wait for something, for a thread that has nothing else to do."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.02)


@contextmanager
def frozen(*processes: int) -> Iterator[None]:
    """Let these do nothing for a while."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@asynccontextmanager
async def opened(count: int) -> AsyncIterator[Checkers]:
    """So many processes that have checked something already, gone afterwards."""
    checkers = Checkers(pieces.check, processes=count, min_tick_seconds=1)
    await checkers.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await checkers.check([b""] * (CHUNK * count), is_json=False)
        yield checkers
    finally:
        await checkers.close()


async def soon(work: Awaitable[Any]) -> Any:
    """What must come, on a machine that may be slow."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await work


# ── Statements ───────────────────────────────────────────────────────────────────────────────────────────────────


def packed(envelope: Envelope) -> bytes:
    return bytes(pack_array(envelope.wire()))


def in_json(envelope: Envelope) -> bytes:
    """An envelope as SPEC §7.1 has it in JSON."""
    shown: dict[str, Any] = {
        "body": base64url(envelope.body),
        "signatures": [{"key": did_of(key), "signature": base64url(made)} for key, made in envelope.signatures],
    }
    if envelope.memo is not None:
        shown["memo"] = {"salt": base64url(envelope.memo.salt), "text": envelope.memo.text}
    return json.dumps(shown).encode()


def write_pays(town: Town, count: int) -> list[bytes]:
    return [packed(town.write_pay(n % 6, (n + 1) % 6)) for n in range(count)]


def write_large(town: Town) -> bytes:
    """A payment of more bytes than are checked without a process."""
    payees = sorted(os.urandom(32) for _ in range(150))
    large = packed(town.write("pay", MEMBERS[0], legs=[[payee, 1] for payee in payees]))
    assert len(large) > HERE_MAX_BYTES
    return large


@pytest.fixture
def unfounded() -> Town:
    """A town that no ledger knows: enough for who looks at signatures alone."""
    return Town(SetClock())


# ── In order ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_many_requests_of_both_formats_get_their_own_results_in_the_order_sent(unfounded: Town) -> None:
    source = random.Random(3)
    forged = unfounded.write_pay()
    forged = Envelope(forged.body, tuple((key, bytes(64)) for key, _ in forged.signatures))
    memo = Memo(bytes(16), "für die Äpfel")
    stock = [unfounded.write_pay(n % 6, (n + 1) % 6, memo=memo if n % 7 == 0 else None) for n in range(300)]
    sizes = [1, 2, 3, 4, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1, *source.choices(range(1, 200), k=40)]

    async def ask(checkers: Checkers, place: int, size: int) -> None:
        is_json = place % 2 == 1
        write = in_json if is_json else packed
        said = [source.choice([*stock[:290], forged, None]) for _ in range(size)]
        given = [b"nonsense" if one is None else write(one) for one in said]
        checked = await checkers.check(given, is_json=is_json)
        assert len(checked) == size
        for one, sent in zip(checked, said, strict=True):
            if sent is None or sent is forged:
                assert isinstance(one, Refusal)
                assert one.code == ("malformed" if sent is None else "bad-signature")
            else:
                assert isinstance(one, Submission)
                assert one.envelope == sent

    async with opened(2) as checkers:
        await soon(asyncio.gather(*(ask(checkers, *one) for one in enumerate(sizes))))
        # And little by little, so that requests meet in all sorts of ways.
        rest = []
        for place, size in enumerate(sizes):
            rest.append(asyncio.create_task(ask(checkers, place, size)))
            await asyncio.sleep(0.002)
        await soon(asyncio.gather(*rest))


@pytest.mark.parametrize("sizes", [[5 * CHUNK + 7], [CHUNK // 2] * 9, [CHUNK - 1, CHUNK + 1, 1, 3 * CHUNK, 2]], ids=str)
@pytest.mark.parametrize("processes", [1, 3])
async def test_more_than_a_chunk_of_one_request_or_of_several_is_all_checked(
    unfounded: Town, sizes: list[int], processes: int
) -> None:
    pays = [unfounded.write_pay() for _ in range(sum(sizes))]
    sent = list(map(packed, pays))
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    async with opened(processes) as checkers:
        parts = [checkers.check(sent[at : at + size], is_json=False) for at, size in zip(starts, sizes, strict=True)]
        answers: list[list[Any]] = await soon(asyncio.gather(*parts))
    assert list(map(len, answers)) == sizes
    assert [one.envelope for part in answers for one in part] == pays


async def test_processes_share_the_work(unfounded: Town) -> None:
    """With one of two frozen, a request of two chunks is not answered: half of it is there."""
    pays = write_pays(unfounded, 2 * CHUNK)
    async with opened(2) as checkers:
        for process in checkers_of(os.getpid()):
            with frozen(process):
                asking = asyncio.create_task(checkers.check(pays, is_json=False))
                await asyncio.sleep(A_WHILE)
                assert not asking.done()
                # The other one is free for others meanwhile.
                assert len(await soon(checkers.check(pays[:CHUNK], is_json=False))) == CHUNK
            assert len(await soon(asking)) == 2 * CHUNK


# ── Rule 2: a few small ones ─────────────────────────────────────────────────────────────────────────────────────


async def test_few_small_statements_need_no_process(unfounded: Town) -> None:
    pays = write_pays(unfounded, HERE_MAX + 1)
    async with opened(2) as checkers:
        processes = checkers_of(os.getpid())
        assert len(processes) == 2
        with frozen(*processes):
            for count in (1, HERE_MAX):
                assert len(await soon(checkers.check(pays[:count], is_json=False))) == count
            alone = [checkers.check([pay], is_json=False) for pay in pays[:HERE_MAX]]
            for (checked,) in await soon(asyncio.gather(*alone)):
                assert isinstance(checked, Submission)
            (refused,) = await soon(checkers.check([b"nonsense"], is_json=True))
            assert isinstance(refused, Refusal)
            assert refused.code == "malformed"


@pytest.mark.parametrize("what", ["one too many", "a large one", "small ones, large together", "one beside others"])
async def test_all_else_is_the_processes(unfounded: Town, what: str) -> None:
    pays = write_pays(unfounded, CHUNK)
    async with opened(2) as checkers:
        with frozen(*checkers_of(os.getpid())):
            asked = {
                "one too many": [pays[: HERE_MAX + 1]],
                "a large one": [[write_large(unfounded)]],
                "small ones, large together": [[b"x" * (HERE_MAX_BYTES // 2)] * HERE_MAX],
                "one beside others": [pays, pays[:1]],
            }[what]
            under_way = []
            for part in asked:
                under_way.append(asyncio.create_task(checkers.check(part, is_json=False)))
                await asyncio.sleep(A_WHILE)
            assert not any(task.done() for task in under_way)
        answers: list[list[Any]] = await soon(asyncio.gather(*under_way))
    assert [len(answer) for answer in answers] == [len(part) for part in asked]


async def test_small_ones_are_answered_while_there_is_no_process_and_large_ones_once_there_is(
    unfounded: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PAUSE_SECONDS", 1.5)
    (pay,) = write_pays(unfounded, 1)
    async with opened(2) as checkers:
        killed = checkers_of(os.getpid())
        for process in killed:
            os.kill(process, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: not checkers_of(os.getpid()))
        await asyncio.sleep(0.1)  # so that it was noticed
        large = asyncio.create_task(checkers.check([write_large(unfounded)], is_json=False))
        await asyncio.sleep(0.1)
        assert not large.done()
        (checked,) = await soon(large)
        assert isinstance(checked, Submission)
        assert not set(checkers_of(os.getpid())) & set(killed)
        (checked,) = await soon(checkers.check([pay], is_json=False))
        assert isinstance(checked, Submission)


async def test_lone_one_is_answered_with_every_process_killed(unfounded: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PAUSE_SECONDS", 60.0)
    (pay,) = write_pays(unfounded, 1)
    async with opened(2) as checkers:
        for process in checkers_of(os.getpid()):
            os.kill(process, signal.SIGKILL)
        await asyncio.sleep(A_WHILE)
        assert not checkers_of(os.getpid())
        for _ in range(3):
            (checked,) = await soon(checkers.check([pay], is_json=False))
            assert isinstance(checked, Submission)


# ── Rule 3: small requests and large ones ────────────────────────────────────────────────────────────────────────


async def test_payment_does_not_wait_for_a_long_request_that_came_before(unfounded: Town) -> None:
    long, (pay,) = write_pays(unfounded, 4 * AHEAD_WHOLE * CHUNK), write_pays(unfounded, 1)
    async with opened(1) as checkers:
        with frozen(*checkers_of(os.getpid())):
            waited = asyncio.create_task(checkers.check(long, is_json=False))
            await asyncio.sleep(0)
            paid = asyncio.create_task(checkers.check([pay], is_json=False))
            await asyncio.sleep(A_WHILE)
        await soon(paid)
        assert not waited.done()
        assert len(await soon(waited)) == len(long)


async def test_long_request_does_not_wait_for_all_short_ones_that_come(unfounded: Town) -> None:
    few, long = write_pays(unfounded, FEW // 2), write_pays(unfounded, CHUNK + 1)
    async with opened(1) as checkers:
        with frozen(*checkers_of(os.getpid())):
            count = 4 * AHEAD_WHOLE * CHUNK // len(few)
            short = [asyncio.create_task(checkers.check(few, is_json=False)) for _ in range(count)]
            await asyncio.sleep(0)
            waited = asyncio.create_task(checkers.check(long, is_json=False))
            await asyncio.sleep(A_WHILE)
        await soon(waited)
        assert not all(one.done() for one in short)
        await soon(asyncio.gather(*short))


# ── A process that ends with its work ────────────────────────────────────────────────────────────────────────────


async def test_killed_process_takes_what_it_has_and_nothing_of_it_is_applied(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    """One process is given so many whole chunks; what waits behind them is the next one's."""
    before = await database.ids(town.name)
    requests = [write_pays(town, CHUNK) for _ in range(AHEAD_WHOLE + 4)]
    async with opened(1) as checkers:
        intake = Intake(sequencer, checkers)
        (process,) = checkers_of(os.getpid())
        with frozen(process):
            under_way = [asyncio.create_task(intake.submit(part, is_json=False)) for part in requests]
            await asyncio.sleep(A_WHILE)
            assert not any(task.done() for task in under_way)
            os.kill(process, signal.SIGKILL)
        answers: list[Any] = await soon(asyncio.gather(*under_way, return_exceptions=True))
        lost, rest = answers[:AHEAD_WHOLE], answers[AHEAD_WHOLE:]
        assert all(isinstance(answer, Unavailable) and answer.retry_after >= 1 for answer in lost), answers
        assert all(set(map(in_short, answer)) == {"accepted"} for answer in rest)
        assert len(await database.ids(town.name)) == len(before) + 4 * CHUNK
        (successor,) = checkers_of(os.getpid())
        assert successor != process
        # What was lost is taken when it comes again, and is new.
        for part in requests[:AHEAD_WHOLE]:
            again: list[Answer] = await soon(intake.submit(part, is_json=False))
            assert list(map(in_short, again)) == ["accepted"] * CHUNK
    assert len(await database.ids(town.name)) == len(before) + len(requests) * CHUNK


async def test_request_of_which_one_of_two_processes_had_a_half_is_not_applied_by_halves(
    sequencer: Sequencer, town: Town, database: Database
) -> None:
    before = await database.ids(town.name)
    pays = write_pays(town, 2 * CHUNK)
    async with opened(2) as checkers:
        intake = Intake(sequencer, checkers)
        one, other = checkers_of(os.getpid())
        for killed in (one, other):
            with frozen(*checkers_of(os.getpid())):
                asking = asyncio.create_task(intake.submit(pays, is_json=False))
                await asyncio.sleep(A_WHILE)
                os.kill(killed, signal.SIGKILL)
                with pytest.raises(Unavailable):
                    await soon(asking)
            # The half that comes back belongs to nobody any more, and does not get into the way of others.
            answers: list[Answer] = await soon(intake.submit([b"nonsense"] * CHUNK, is_json=False))
            assert list(map(in_short, answers)) == ["malformed"] * CHUNK
            assert await database.ids(town.name) == before
            await asyncio.to_thread(until, lambda: len(checkers_of(os.getpid())) == 2)
        assert not {one, other} & set(checkers_of(os.getpid()))
        assert set(map(in_short, await soon(intake.submit(pays, is_json=False)))) == {"accepted"}


async def test_processes_that_are_killed_again_and_again_are_replaced(
    unfounded: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PAUSE_MAX_SECONDS", 0.2)
    pays = write_pays(unfounded, CHUNK)
    met: set[int] = set()
    async with opened(1) as checkers:
        for _ in range(5):
            await asyncio.to_thread(until, lambda: bool(set(checkers_of(os.getpid())) - met))
            (process,) = checkers_of(os.getpid())
            met.add(process)
            asking = asyncio.create_task(checkers.check(pays, is_json=False))
            await asyncio.sleep(0)
            os.kill(process, signal.SIGKILL)
            with suppress(CheckerLost):
                await soon(asking)
        checked: list[Any] = await soon(checkers.check(pays, is_json=False))
    assert len(met) == 5
    assert all(isinstance(one, Submission) for one in checked)


async def test_process_that_is_about_to_be_missed_is_given_nothing(unfounded: Town) -> None:
    pays = write_pays(unfounded, CHUNK)
    async with opened(2) as checkers:
        transport = checkers._lines[0]._transport
        assert transport is not None
        transport.abort()  # as when its end was seen, some turns of the loop before it is off the list
        checked: list[Any] = await soon(checkers.check(pays, is_json=False))
    assert all(isinstance(one, Submission) for one in checked)


async def test_requests_that_find_no_process_for_long_are_sent_away_whatever_comes_together(
    unfounded: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(checking, "ALONE_SECONDS", 0.2)
    monkeypatch.setattr(checking, "LOOK_SECONDS", 0.1)
    pays = write_pays(unfounded, HERE_MAX)
    async with opened(1) as checkers:
        for process in checkers_of(os.getpid()):
            os.kill(process, signal.SIGKILL)
        await asyncio.sleep(A_WHILE)
        both = await soon(
            asyncio.gather(*(checkers.check(pays, is_json=False) for _ in range(2)), return_exceptions=True)
        )
        assert [type(one) for one in both] == [CheckerLost, CheckerLost]
        assert len(await soon(checkers.check(pays, is_json=False))) == HERE_MAX


# ── A fault of ours ──────────────────────────────────────────────────────────────────────────────────────────────


#: Stands in for the interpreter: a process that checks, with a fault that one statement finds.
_FAULTY = """#!{python}
import sys
from gesell_ledger import checker
from gesell_ledger.api import pieces
verify = pieces.verify_envelope
def verify_or_fail(envelope):
    if envelope.body == bytes.fromhex("{body}"):
        raise ZeroDivisionError("a fault of ours")
    verify(envelope)
pieces.verify_envelope = verify_or_fail
sys.argv = ["checker", sys.argv[-1]]
checker.main()
"""


async def test_fault_in_the_check_is_internal_for_that_statement_alone(
    unfounded: Town, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pays = [unfounded.write_pay() for _ in range(2 * CHUNK)]
    sent = list(map(packed, pays))
    place = 70

    def verify_or_fail(envelope: Envelope) -> None:
        if envelope.body == pays[place].body:
            raise ZeroDivisionError("a fault of ours")
        verify_envelope(envelope)

    faulty = folder / "python"
    faulty.write_text(_FAULTY.format(python=sys.executable, body=pays[place].body.hex()))
    faulty.chmod(0o755)
    monkeypatch.setattr(pieces, "verify_envelope", verify_or_fail)
    monkeypatch.setattr(sys, "executable", str(faulty))

    def hold_alone(checked: Sequence[Submission | Refusal], broken: int) -> None:
        for n, one in enumerate(checked):
            assert isinstance(one, Refusal) == (n == broken), n
        refusal = checked[broken]
        assert isinstance(refusal, Refusal)
        assert refusal.code == "internal"
        assert "fault of ours" not in refusal.detail

    checkers = Checkers(pieces.check, processes=1, min_tick_seconds=1)
    await checkers.start()
    try:
        for _ in range(2):  # the process goes on
            hold_alone(await soon(checkers.check(sent, is_json=False)), place)
            # Without a process, too.
            hold_alone(await soon(checkers.check(sent[place - 1 : place + 2], is_json=False)), 1)
    finally:
        await checkers.close()


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["idle", "busy", "frozen", "killed a moment ago"])
async def test_close_leaves_no_process(unfounded: Town, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(checking, "END_SECONDS", 0.5)
    async with opened(2) as checkers:
        processes = checkers_of(os.getpid())
        assert len(processes) == 2
        with frozen(*(processes if state == "frozen" else [])):
            if state in ("busy", "frozen"):
                asking = asyncio.create_task(checkers.check(write_pays(unfounded, 8 * CHUNK), is_json=False))
                await asyncio.sleep(0.01)
            elif state != "idle":
                os.kill(processes[0], signal.SIGKILL)
                await asyncio.sleep(0.15)
            await soon(checkers.close())
        assert not any(map(is_there, processes))
        # Nothing is started behind its back either.
        await asyncio.sleep(A_WHILE)
        assert not checkers_of(os.getpid())
        if state in ("busy", "frozen"):
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


# ── In a service ─────────────────────────────────────────────────────────────────────────────────────────────────


class Grouped(Service):
    """A service in a process group of its own, as a shell or a supervisor starts one."""

    def _begin(self, words: list[str], *, stdout: int) -> subprocess.Popen[str]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "gesell", *words]
            return subprocess.Popen(command, stdout=stdout, stderr=log, text=True, start_new_session=True)


def pay_often(service: Service, town: towns.Town, requests: int, size: int) -> tuple[list[threading.Thread], list[Any]]:
    """Have many payments sent, each request on a connection of its own: who sends, and the results as they come."""
    results: list[Any] = []

    def send(number: int) -> None:
        payer, payee = towns.MEMBERS[number % 2], towns.MEMBERS[1 - number % 2]
        with line_to(service) as line:
            now = line.time()
            pays = [town.write("pay", payer, now_ms=now, legs=[[payee.public_key, 1]]) for _ in range(size)]
            sending.release()
            try:
                results.append(line.post(pays))
            except OSError as error:
                results.append(error)

    sending = threading.Semaphore(0)
    senders = [threading.Thread(target=send, args=[number]) for number in range(requests)]
    for sender in senders:
        sender.start()
    for _ in senders:
        assert sending.acquire(timeout=PATIENCE_SECONDS)
    return senders, results


def settled(line: Line) -> towns.Town:
    town = towns.Town(line)
    town.settle(line, towns.MEMBERS[:2])
    return town


def test_killed_checker_of_a_service_costs_a_second_try_and_no_payment() -> None:
    with running("--min-tick-seconds", "1") as service, line_to(service) as line:
        assert service.process is not None
        pid = service.process.pid
        town = settled(line)
        processes = checkers_of(pid)
        assert processes
        with frozen(*processes):
            senders, results = pay_often(service, town, 4, CHUNK)
            time.sleep(1.0)
            assert not results
            for process in processes:
                os.kill(process, signal.SIGKILL)
        for sender in senders:
            sender.join(PATIENCE_SECONDS)
        assert len(results) == 4
        assert {result["problem"]["code"] for answer in results for result in answer} == {"unavailable"}
        assert len(read_entries(line, town)) == len(town.begun)
        until(lambda: len(checkers_of(pid)) == len(processes))
        assert not set(checkers_of(pid)) & set(processes)
        senders, results = pay_often(service, town, 2, 2 * CHUNK)
        for sender in senders:
            sender.join(PATIENCE_SECONDS)
        assert [{result["status"] for result in answer} for answer in results] == [{"accepted"}] * 2
        assert "checker_ended" in service.read_log()
        # It ends in order, and they with it.
        processes = checkers_of(pid)
        assert service.stop() == 0
        assert not any(map(lives, processes))


@pytest.mark.parametrize("state", ["idle", "with work"])
def test_checkers_end_with_a_service_that_is_killed(state: str) -> None:
    with running("--min-tick-seconds", "1") as service, line_to(service) as line:
        assert service.process is not None
        town = settled(line)
        processes = checkers_of(service.process.pid)
        assert processes
        if state == "with work":
            with frozen(*processes):
                senders, _ = pay_often(service, town, 3, 10 * CHUNK)
                time.sleep(0.5)
                service.kill()
            for sender in senders:
                sender.join(PATIENCE_SECONDS)
        else:
            service.kill()
        until(lambda: not any(map(lives, processes)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_signals_that_end_a_service_leave_its_checkers_at_work(unfounded: Town, number: signal.Signals) -> None:
    """The whole group of a service gets them, and the service wants to hear of what it handed over."""
    pays = write_pays(unfounded, 4 * CHUNK)
    async with opened(2) as checkers:
        processes = checkers_of(os.getpid())
        with frozen(*processes):
            asking = asyncio.create_task(checkers.check(pays, is_json=False))
            await asyncio.sleep(0.1)
            for process in processes:
                os.kill(process, number)
        checked: list[Any] = await soon(asking)
        assert all(isinstance(one, Submission) for one in checked)
        assert checkers_of(os.getpid()) == processes


def test_end_of_the_whole_process_group_leaves_no_request_without_a_true_answer() -> None:
    with open_folder() as folder:
        lay_cluster(folder / "data")
        service = Grouped(folder, "--min-tick-seconds", "1", own_program=True)
        try:
            service.start()
            assert service.process is not None
            with line_to(service) as line:
                town = settled(line)
                processes = checkers_of(service.process.pid)
                assert processes
                with frozen(*processes):
                    senders, results = pay_often(service, town, 6, 2 * CHUNK)
                    time.sleep(1.5)
                    assert not results
                    os.killpg(service.process.pid, signal.SIGTERM)
                    time.sleep(0.5)
                for sender in senders:
                    sender.join(PATIENCE_SECONDS)
            assert service.process.wait(PATIENCE_SECONDS) == 0
            assert not any(map(lives, processes))
            assert len(results) == 6
            assert all(isinstance(answer, list) for answer in results), results
            told = [result for answer in results for result in answer]
            assert {result["problem"]["code"] for result in told if result["status"] == "refused"} <= {"unavailable"}
            accepted = sum(result["status"] == "accepted" for result in told)
            service.start()
            with line_to(service) as line:
                assert len(read_entries(line, town)) == len(town.begun) + accepted
        finally:
            service.end()


async def test_stuck_process_is_ended_and_followed(unfounded: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(checking, "LOOK_SECONDS", 0.1)
    pays = write_pays(unfounded, CHUNK)
    async with opened(1) as checkers:
        (stuck,) = checkers_of(os.getpid())
        with frozen(stuck):
            with pytest.raises(CheckerLost):
                await soon(checkers.check(pays, is_json=False))
            checked: list[Any] = await soon(checkers.check(pays, is_json=False))
        assert all(isinstance(one, Submission) for one in checked)
        assert checkers_of(os.getpid()) != [stuck]


async def test_nothing_is_imported_from_the_folder_it_is_started_in(
    unfounded: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('not the one that was meant')\n")
    monkeypatch.chdir(tmp_path)
    async with opened(1) as checkers:
        (checked,) = await soon(checkers.check([write_large(unfounded)], is_json=False))
    assert isinstance(checked, Submission)

"""`gesell replay` lives a trace through again over HTTP, and the plain model agrees with every answer it got.

Owns: running the command as an operator does, figures worked out by hand, and the real trace beside the plain model.
The model is fed with the entries as they stand in the log; a refused transfer left no trace there, so its moment is
only known to lie between its neighbours. Melt differs by tick alone, and the funds that the refusal named say in which
of those ticks it was decided.

Of the real trace, those are replayed here who ever pay or are paid; the others only receive once, and nobody's funds
depend on them. `make trace` replays the whole of it (WHOLE_TRACE=1).
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gesell import Amount, Balance, Client, Peer
from gesell.commands import main
from gesell.proof import prove
from gesell_protocol.canonical import unpack
from gesell_protocol.names import RESERVED_HOLDERS, commons_of, id_of, peer_of, unbase64url
from tests.forked import run_gesell
from tests.plain_model import Accepted, PlainCommons, PlainLedger, Refused
from tests.running import Service, running
from tests.speaking import Line, new_id

ROOT = Path(__file__).parents[2]
SARAFU = ROOT.parent / "shared" / "data" / "sarafu-2020.csv"
COLUMNS = ("at_ms", "kind", "from", "to", "amount")
SCALE = 6
DAY_MS = 86_400_000
TYPES = {"disbursement": "issue", "standard": "pay", "reclamation": "retire", "agent_out": "retire"}
FUNDS = ("available", "needed")
Row = Mapping[str, str]


def grains(text: str) -> int:
    """The grains of a decimal string, without the code under test."""
    whole, _, fraction = text.removeprefix("-").partition(".")
    amount = int(whole + fraction.ljust(SCALE, "0"))
    return -amount if text.startswith("-") else amount


def replay(trace: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return run_gesell("replay", trace, "--url", url, *words, timeout=400)


def report_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert isinstance(report, dict)
    return report


def write_trace(folder: Path, rows: Sequence[Sequence[object]]) -> Path:
    path = folder / "trace.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


# ── Beside the plain model ───────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Beside:
    """The plain model walking beside one replayed commons."""

    ledger: PlainLedger
    commons: bytes
    peers: dict[str, bytes]
    entries: list[dict[str, Any]]
    done: int = 0

    @property
    def model(self) -> PlainCommons:
        return self.ledger.commons[self.commons]

    def take_entry(self) -> dict[str, Any]:
        """Feed the next entry to the model, at its own time; the postings must be the same. Returns its body."""
        entry = self.entries[self.done]
        self.done += 1
        body_bytes = unbase64url(entry["body"])
        body = unpack(body_bytes)
        assert isinstance(body, dict)
        signers = {peer_of(item["key"]) for item in entry["signatures"]}
        answer = self.ledger.submit(body, signers, entry["at"], body_bytes=body_bytes)
        postings = [
            [reason, holder if holder in RESERVED_HOLDERS else peer_of(holder), asset, int(amount)]
            for reason, holder, asset, amount in entry["postings"]
        ]
        assert answer == Accepted(entry["seq"], entry["at"], postings), entry
        if body["type"] == "join":
            self.peers[body["handle"]] = body["by"]
        return body

    def skip_to_transfers(self) -> None:
        """Feed what is no transfer: the founding and the joins before them, and the ledger's own sweeps."""
        while self.done < len(self.entries) and self.entries[self.done]["type"] not in TYPES.values():
            self.take_entry()

    def peer(self, account: str) -> bytes:
        return self.peers[f"a{int(account):04}"]

    def take_transfer(self, row: Row) -> None:
        """Take the entry of a row that was accepted."""
        self.skip_to_transfers()
        body = self.take_entry()
        expected = self.fields(row)
        assert {name: body[name] for name in expected} == expected, row
        assert self.entries[self.done - 1]["at"] >= int(row["at_ms"])

    def fields(self, row: Row) -> dict[str, Any]:
        kind, amount = TYPES[row["kind"]], int(row["amount"])
        if kind == "issue":
            return {"type": kind, "to": self.peer(row["to"]), "amount": amount}
        by = self.peer(row["from"])
        if kind == "retire":
            return {"type": kind, "by": by, "amount": amount}
        return {"type": kind, "by": by, "legs": [[self.peer(row["to"]), amount]]}

    def refuse_transfer(self, row: Row, refusal: Mapping[str, Any]) -> None:
        """The model refuses it too, with the same funds, in one of the ticks in which it can have been decided.

        The latest is tried first: melt only takes, so what was refused in one tick is refused in each later one, and
        the model, which has no way back from accepting, is asked about no tick before the one that fits.
        """
        self.skip_to_transfers()
        answers = []
        for at in self.moments(row):
            answers.append(self.try_at(row, at))
            if answers[-1] == Refused("insufficient-funds", **{name: grains(refusal[name]) for name in FUNDS}):
                return
        pytest.fail(f"{row}: the ledger said {refusal}, the plain model {answers}")

    def moments(self, row: Row) -> list[int]:
        """A moment in each tick between the neighbours and not before the row's time, the latest first."""
        first = max(self.model.last_at, int(row["at_ms"]))
        waiting = self.entries[self.done :]
        last = waiting[0]["at"] if waiting else first + 3 * DAY_MS
        starts = range(self.model.tick(first) + 1, self.model.tick(last) + 1)
        return [*(tick * self.model.tick_ms for tick in reversed(starts)), first]

    def try_at(self, row: Row, at: int) -> Accepted | Refused:
        body = {**self.fields(row), "commons": self.commons, "id": new_id(at), "expires": at + 1000}
        answer = self.ledger.submit(body, {body["by"]}, at, body_bytes=repr(body).encode())
        assert isinstance(answer, Refused), (row, at, "the model accepts what the ledger refused")
        return answer


def walk_beside(trace: Path, url: str, report: Mapping[str, Any]) -> PlainCommons:
    """Hold every answer of a replay against the plain model; returns the model as of the last entry."""
    line = Line(url)
    entries = line.items(f"/v1/commons/{report['commons']}/entries?limit=1000")
    line.close()
    founding = unbase64url(entries[0]["body"])
    assert commons_of(founding).hex() == report["commons"]
    ledger = PlainLedger(peer_of(report["ledger"]))
    beside = Beside(ledger, bytes.fromhex(report["commons"]), {}, entries[: report["entries"]["count"]])
    refusals = {refusal["line"]: refusal for refusal in report["refusals"]}
    with trace.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if number in refusals:
                beside.refuse_transfer(row, refusals.pop(number))
            else:
                beside.take_transfer(row)
    beside.skip_to_transfers()
    assert not refusals
    assert beside.done == report["entries"]["count"]
    return beside.model


def assert_same_books(report: Mapping[str, Any], model: PlainCommons) -> None:
    """The report's figures are the model's."""
    assert grains(report["pool"]) == model.reserved["pool"] == grains(report["melt"]["posted"])
    assert grains(report["supply"]) == -model.reserved["issuer"]
    assert grains(report["escrow"]) == model.reserved["escrow"] == 0
    assert grains(report["melt"]["due"]) == model.pool_due(report["entries"]["last_at"])
    assert report["members"] == len(model.members)


# ── A trace made here ────────────────────────────────────────────────────────────────────────────────────────────

DAY_0 = int(datetime.fromisoformat("2020-03-01T00:00:00Z").timestamp()) * 1000
HOUR_MS = 3_600_000
COIN = 10**SCALE


def at(day: int, hour: int) -> int:
    return DAY_0 + day * DAY_MS + hour * HOUR_MS


#: Accounts 1, 6 and 7 are the system's. One per cent melts each midnight; transfers stand early in their days, so
#: that a slow machine has most of a day to send them in.
SMALL = [
    (at(0, 1), "disbursement", 1, 2, 1000 * COIN),
    (at(0, 2), "standard", 2, 3, 400 * COIN),  # 600 and 400 stay over midnight: 6 and 4 melt
    (at(1, 1), "standard", 3, 2, 396_500_000),  # refused: 396 are left
    (at(1, 1), "standard", 3, 2, 396 * COIN),  # 594 + 396 = 990
    (at(1, 2), "reclamation", 2, 1, 90 * COIN),  # 900 stay: 9 melt
    (at(2, 1), "agent_out", 2, 7, 900 * COIN),  # refused: 891 are left
    (at(2, 1), "disbursement", 6, 3, 50 * COIN),
    (at(2, 1), "disbursement", 1, 4, 100 * COIN),  # stays: 1 melts, and is due at the end
    (at(2, 2), "standard", 2, 3, 91 * COIN),  # 800 and 141 stay: 8 and 1.41 melt
    (at(3, 1), "standard", 3, 2, 41 * COIN),
]


@pytest.fixture(scope="module")
def small() -> Iterator[tuple[Path, Service, dict[str, Any]]]:
    """The small trace, replayed at pace: its file, the service, the report."""
    # A real second is more than five hours: it takes some to start on a busy machine.
    clock = ("--demo", "--clock-start", "2020-02-28T12:00:00Z", "--clock-speed", "20000")
    with running(*clock) as service:
        trace = write_trace(service.folder, SMALL)
        policy = service.folder / "policy.json"
        policy.write_text(json.dumps({"brackets": [["0", 10_000_000]]}))
        yield trace, service, report_of(replay(trace, service.url, "--pace", "--json", "--policy", str(policy)))


def test_a_small_trace_at_pace_gives_the_figures_worked_out_by_hand(
    small: tuple[Path, Service, dict[str, Any]],
) -> None:
    _, _, report = small
    assert report["by_type"] == {
        "issue": {"sent": 3, "accepted": 3, "refused": {}, "volume": "1150"},
        "pay": {"sent": 5, "accepted": 4, "refused": {"insufficient-funds": 1}, "volume": "928"},
        "retire": {"sent": 2, "accepted": 1, "refused": {"insufficient-funds": 1}, "volume": "90"},
    }
    assert [(r["line"], r["type"], r["available"], r["needed"]) for r in report["refusals"]] == [
        (4, "pay", "396", "396.5"),
        (7, "retire", "891", "900"),
    ]
    assert report["melt"] == {"posted": "28.41", "due": "1"}
    assert (report["supply"], report["pool"], report["escrow"]) == ("1060", "28.41", "0")
    assert (report["members"], report["transfers"]) == (3, 10)
    assert report["entries"]["count"] == 12
    assert report["entries"]["by_type"] == {"found": 1, "issue": 3, "join": 3, "pay": 4, "retire": 1}
    assert (report["holds"], report["faults"]) == (True, [])
    assert report["after_its_time_ms"]["least"] >= 0, "a transfer was sent before its time"
    # On a busy machine the first one was late itself.
    assert report["ledger_ms"] + report["after_its_time_ms"]["most"] >= 3 * DAY_MS


def test_the_plain_model_agrees_with_the_small_replay(small: tuple[Path, Service, dict[str, Any]]) -> None:
    trace, service, report = small
    assert_same_books(report, walk_beside(trace, service.url, report))


def test_without_pace_the_same_trace_goes_through_at_once(small: tuple[Path, Service, dict[str, Any]]) -> None:
    trace, service, _ = small
    ended = replay(trace, service.url, "--rest-ticks", "3")
    assert ended.returncode == 0, ended.stderr
    assert "trace.csv · 10 transfers of 3 accounts, as fast as it went" in ended.stdout
    assert "The books hold: " in ended.stdout
    assert "2 % in 30 days), after 3 × day of rest, to the pool" in ended.stdout
    assert ended.stderr == ""


def test_stewards_can_admit_and_members_have_credit(small: tuple[Path, Service, dict[str, Any]]) -> None:
    trace, service, _ = small
    policy = service.folder / "credit.json"
    policy.write_text(json.dumps({"admission": "steward", "credit_limit": "1000000000", "brackets": [[0, 0]]}))
    report = report_of(replay(trace, service.url, "--json", "--policy", str(policy)))
    assert report["entries"]["by_type"]["admit"] == 3
    assert report["refusals"] == []


def test_a_ledger_past_the_traces_start_is_told_how_to_start(small: tuple[Path, Service, dict[str, Any]]) -> None:
    trace, service, _ = small
    ended = replay(trace, service.url, "--pace")
    assert ended.returncode == 1
    assert "past the first transfer (2020-03-01 01:00 UTC)" in ended.stderr
    assert "gesell serve --demo --clock-start 2020-02-2" in ended.stderr
    assert ended.stdout == ""


def test_on_a_real_clock_one_is_told_how_long_pace_takes(service: Service, folder: Path) -> None:
    line = Line(service.url)
    soon = line.time() + HOUR_MS
    line.close()
    trace = write_trace(folder, [(soon, "disbursement", 1, 2, 1), (soon + 3 * DAY_MS, "standard", 2, 3, 1)])
    command = [sys.executable, "-m", "gesell", "replay", str(trace), "--url", service.url, "--pace"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert waiting.poll() is None, "it goes on, for whoever has the time"
        waiting.kill()
    assert "At pace this takes 3.0 days: the ledger's clock is not a demo clock." in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ('{"rest_ticks": 367}', "policy.rest_ticks is an int from 0 to 366"),
        ('{"visibility": "members"}', "visibility must be open"),
        ('{"melt": 1}', "a policy has exactly the fields"),
        ('{"brackets": 5}', "policy.brackets has 1 to 16 brackets"),
        ('{"brackets": [[]]}', "a bracket is [from, ppb]"),
        ('{"credit_limit": "-1"}', "policy.credit_limit is an int from 0"),
        ("[]", "no JSON object"),
        ("{", "no JSON"),
    ],
)
def test_a_policy_that_is_none_is_refused_before_anything_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str], fields: str, says: str
) -> None:
    (folder / "policy.json").write_text(fields)
    trace = str(write_trace(folder, SMALL))
    # In this process: there are many of them, and a new one takes a second to begin.
    with pytest.raises(SystemExit) as ended:
        main(["replay", trace, "--url", "http://127.0.0.1:1", "--policy", str(folder / "policy.json")])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_file_that_is_no_trace_is_refused_with_its_line(folder: Path) -> None:
    trace = write_trace(folder, [*SMALL, (at(3, 2), "standard", 3, 3, 5)])
    ended = replay(trace, "http://127.0.0.1:1")
    assert ended.returncode == 2
    assert "trace.csv, line 12: account 3 pays itself" in ended.stderr


# ── A proof that can fail ────────────────────────────────────────────────────────────────────────────────────────


class LiedTo(Client):
    """A client of a ledger that shows one member a grain too much."""

    liked = ""

    async def balance(self, of: Any = None, *, at: Any = None) -> Balance:
        shown = await super().balance(of, at=at)
        if of != self.liked:
            return shown
        return replace(shown, posted=Amount(shown.posted.grains + 1, shown.posted.code, shown.posted.scale))


async def test_the_proof_finds_a_balance_that_no_entries_sum_to(small: tuple[Path, Service, dict[str, Any]]) -> None:
    _, service, report = small
    async with LiedTo(service.url, commons=report["commons"]) as client:
        assert (await prove(client, receipts={})).holds
        client.liked = (await client.member("a0004")).peer
        proof = await prove(client, receipts={})
    assert proof.faults == ("a0004 has 100000001 grains by the ledger and 100000000 by the entries",)


async def test_the_proof_finds_an_entry_that_is_not_what_was_answered(
    small: tuple[Path, Service, dict[str, Any]],
) -> None:
    _, service, report = small
    async with Client(service.url, commons=report["commons"], peer=Peer.new()) as client:
        entries = [entry async for entry in client.entries()]
        answered = {entry.seq: entry.leaf for entry in entries}
        assert (await prove(client, receipts=answered)).holds
        proof = await prove(client, receipts={**answered, 5: bytes(32), 99: bytes(32)})
    assert id_of(entries[4].id)
    assert proof.faults == (
        "entry 5 is not what was answered to its author",
        "entry 99 is not what was answered to its author",
    )


# ── The real trace ───────────────────────────────────────────────────────────────────────────────────────────────

RESTS = (0, 3)
WHOLE = bool(os.environ.get("WHOLE_TRACE"))
#: How many transfers of how many accounts.
SIZE = (9_999, 8_506) if WHOLE else (2_431, 944)


def write_those_who_pay(folder: Path) -> Path:
    """The rows of the real trace whose accounts ever pay, are paid or hand back: every payment, each as it stands."""
    with SARAFU.open(newline="") as file:
        rows = list(csv.DictReader(file))
    moving = [row for row in rows if TYPES[row["kind"]] != "issue"]
    active = {row["from"] for row in moving} | {row["to"] for row in moving if TYPES[row["kind"]] == "pay"}
    kept = [row for row in rows if TYPES[row["kind"]] != "issue" or row["to"] in active]
    return write_trace(folder, [[row[name] for name in COLUMNS] for row in kept])


@pytest.fixture(scope="module")
def sarafu() -> Iterator[tuple[Path, Service, dict[int, dict[str, Any]]]]:
    """The real trace, at pace and over HTTP, in two commons of one ledger at the same time: the reports by rest."""
    if not SARAFU.exists():
        pytest.skip("the real trace is not here: ../shared/data/sarafu-2020.csv, beside this repository")
    # 5.6 days take 12 seconds, of the whole 24, and the days before them are for all to join.
    start, speed = ("2020-01-22T01:00:00Z", "20000") if WHOLE else ("2020-01-21T19:00:00Z", "40000")
    clock = ("--demo", "--clock-start", start, "--clock-speed", speed)
    with running(*clock) as service, ThreadPoolExecutor() as threads:
        trace = SARAFU if WHOLE else write_those_who_pay(service.folder)
        runs = {
            rest: threads.submit(replay, trace, service.url, "--pace", "--json", "--rest-ticks", str(rest))
            for rest in RESTS
        }
        yield trace, service, {rest: report_of(run.result()) for rest, run in runs.items()}


@pytest.mark.parametrize("rest", RESTS)
def test_the_real_trace_is_refused_only_where_the_plain_model_refuses(
    sarafu: tuple[Path, Service, dict[int, dict[str, Any]]], rest: int
) -> None:
    trace, service, reports = sarafu
    report = reports[rest]
    assert (report["transfers"], report["members"], report["policy"]["rest_ticks"]) == (*SIZE, rest)
    assert report["policy"]["brackets"] == [[0, 673_197]]
    assert {refusal["code"] for refusal in report["refusals"]} == {"insufficient-funds"}
    assert (report["holds"], report["faults"]) == (True, [])
    assert report["after_its_time_ms"]["least"] >= 0
    assert report["ledger_ms"] > 5 * DAY_MS
    assert_same_books(report, walk_beside(trace, service.url, report))


def test_rest_spares_money_that_moves(sarafu: tuple[Path, Service, dict[int, dict[str, Any]]]) -> None:
    _, _, reports = sarafu
    melt = {rest: grains(reports[rest]["melt"]["posted"]) + grains(reports[rest]["melt"]["due"]) for rest in RESTS}
    assert 0 < melt[3] < melt[0]
    assert len(reports[3]["refusals"]) < len(reports[0]["refusals"])

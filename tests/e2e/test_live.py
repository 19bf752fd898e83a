"""Live entries: what listeners hear is the log, once each and in order, whatever happens to connections and services.

Every test listens over real HTTP with a parser of its own; what was heard is compared with what `GET …/entries` tells.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from gesell_ledger.storage.migrate import migrate
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, Memo
from tests.own_postgres import SERVICE, OwnPostgres, own_postgres
from tests.running import Service, lay_cluster, open_folder
from tests.speaking import POLICY, Line, name_of, new_id, signer_of, write_envelope, write_found, write_token

STEWARD, ADA, BOB, EVE, PHONE = map(signer_of, ("live steward", "live ada", "live bob", "live eve", "live ada's phone"))
PEOPLE = {"ada": ADA, "bob": BOB, "eve": EVE}
NOWHERE = "0123456789abcdef0123456789abcdef"


class Ear:
    """One event stream. `take` waits for so many entries; a connection that ends before raises `Hangup`."""

    def __init__(
        self,
        url: str,
        commons: str,
        *,
        query: str = "",
        last: object = None,
        token: str | None = None,
        packed: bool = False,
        seconds: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if packed:
            headers["Accept-Encoding"] = "gzip"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
        self._connection.request("GET", f"/v1/commons/{commons}/entries{query}", headers=headers)
        self.response = self._connection.getresponse()
        self._inflate = zlib.decompressobj(31) if packed else None
        self._rest = b""
        self.heard = b""
        if self.response.status != 200:
            self.problem = json.loads(self.response.read())

    def take(self, count: int) -> list[Any]:
        """The next entries; each event must have its entry's number as `id`. Silence does not last for ever."""
        entries: list[Any] = []
        comments = 0
        while len(entries) < count:
            block = self._block()
            if block.startswith(":"):
                comments += 1
                assert comments < 3, f"nothing to hear but comments after {entries[-1:]}"
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            if "data" in fields:
                entry = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (str(entry["seq"]), "entry")
                entries.append(entry)
        return entries

    def end(self) -> list[Any]:
        """All that still comes, until the service ends the stream; it has a minute for that."""
        entries: list[Any] = []
        until = time.monotonic() + 60.0
        while True:
            assert time.monotonic() < until, "the stream goes on"
            try:
                entries += self.take(1)
            except Hangup:
                return entries

    def wait_for_comment(self) -> None:
        """Wait for a line that says nothing."""
        while not self._block().startswith(":"):
            pass

    def close(self) -> None:
        """Hang up."""
        self.response.close()
        self._connection.close()

    def _block(self) -> str:
        while b"\n\n" not in self._rest:
            try:
                data = self.response.read1(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise Hangup
            data = self._inflate.decompress(data) if self._inflate is not None else data
            self.heard += data
            self._rest += data
        block, self._rest = self._rest.split(b"\n\n", 1)
        return block.decode()


class Hangup(Exception):
    """The service ended the stream."""


class Town:
    """A commons with three people in it; all of its statements are made here."""

    def __init__(self, url: str, **policy: Any) -> None:
        self.url = url
        self.line = Line(url)
        self.ledger = self.line.ledger()
        self.policy = {**POLICY, **policy}
        found = write_found([STEWARD], ledger=self.ledger, now_ms=self.line.time(), policy=self.policy)
        self.commons = name_of(found)
        self.name = self.commons.hex()
        self.head = 0
        self.send([found])
        self.send([self.write("join", who, handle=handle) for handle, who in PEOPLE.items()])
        if self.policy["admission"] == "steward":
            self.send([self.write("admit", STEWARD, peer=who.public_key) for who in PEOPLE.values()])
        self.send([self.write("issue", STEWARD, to=who.public_key, amount=10**9) for who in PEOPLE.values()])

    def write(self, kind: str, by: Signer, *more: Signer, **fields: Any) -> Envelope:
        return write_envelope(kind, by.public_key, [by, *more], now_ms=self.line.time(), commons=self.commons, **fields)

    def send(self, envelopes: Sequence[Envelope]) -> None:
        results = self.line.post(envelopes)
        assert all(one["status"] == "accepted" for one in results), results
        self.head = results[-1]["receipt"]["seq"]

    def say(self, kind: str, by: Signer, *more: Signer, **fields: Any) -> int:
        """Say one thing; the number of its entry."""
        self.send([self.write(kind, by, *more, **fields)])
        return self.head

    def pay(self, payer: Signer = ADA, payee: Signer = BOB, *, count: int = 1) -> None:
        """So many payments in one request."""
        now = self.line.time()
        legs = [[payee.public_key, 1]]
        self.send(
            [
                write_envelope("pay", payer.public_key, [payer], now_ms=now, commons=self.commons, legs=legs)
                for _ in range(count)
            ]
        )

    def token(self, who: Signer, *, peer: Signer | None = None) -> str:
        of = peer.public_key if peer is not None else None
        return write_token(who, ledger=self.ledger, now_ms=self.line.time(), peer=of)

    def listen(self, query: str = "", **options: Any) -> Ear:
        return Ear(self.url, self.name, query=query, **options)

    def log(self, *, token: str | None = None) -> list[Any]:
        """The entries as `GET …/entries` tells them."""
        line = Line(self.url, token=token)
        try:
            return line.items(f"/v1/commons/{self.name}/entries?limit=1000")
        finally:
            line.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A server for services that share a database, or lose it."""
    with own_postgres(fsync="on") as started:
        yield started


@contextmanager
def hasty(*arguments: str, **thresholds: float) -> Iterator[Service]:
    """A service of which some thresholds (`module__NAME`) are set lower, or higher, than it has them.

    Nobody else may want to, so they are no settings: its interpreter sets them when it starts.
    """
    lines = [
        f"import gesell_ledger.api.{module}\ngesell_ledger.api.{module}.{threshold} = {value}\n"
        for (module, threshold), value in ((name.split("__"), value) for name, value in thresholds.items())
    ]
    with open_folder() as folder:
        (folder / "sitecustomize.py").write_text("".join(lines))
        # A fork would not read what stands on its path.
        found = {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
        service = Service(folder, *arguments, environment=found, own_program=True)
        try:
            yield service.start()
        finally:
            service.end()


@pytest.fixture(scope="module")
def quiet() -> Iterator[Service]:
    """A service that breaks the silence each second, and never looks around by itself."""
    with hasty("--min-tick-seconds", "1", live__SILENCE_SECONDS=1.0, feeds__LOOK_SECONDS=3600.0) as started:
        yield started


@pytest.fixture
def town(service: Service) -> Iterator[Town]:
    made = Town(service.url)
    yield made
    made.line.close()


@pytest.fixture
def parties(service: Service) -> Iterator[Town]:
    made = Town(service.url, visibility="parties")
    yield made
    made.line.close()


# ── What is heard ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("packed", [False, True])
def test_listener_hears_all_of_a_long_log_and_then_what_is_new(town: Town, packed: bool) -> None:
    town.pay(count=700)
    ear = town.listen("?after=0", packed=packed)
    heard = ear.take(town.head)
    town.pay(count=3)
    heard += ear.take(3)
    ear.close()
    assert heard == town.log()


def test_listener_that_names_no_place_hears_only_what_is_new(town: Town) -> None:
    ear = town.listen()
    town.pay()
    assert [entry["seq"] for entry in ear.take(1)] == [town.head]


def test_an_entry_heard_live_has_its_memo(town: Town) -> None:
    ear = town.listen()
    memo = Memo(b"s" * 16, "zwei\nZeilen: data: und ein Gruß")
    town.say("pay", ADA, legs=[[BOB.public_key, 1]], memo=memo)
    assert ear.take(1)[0]["memo"]["text"] == memo.text


def test_an_erased_memo_is_heard_by_nobody_who_comes_later(town: Town) -> None:
    ear = town.listen()
    name = new_id(town.line.time())
    town.say("pay", ADA, legs=[[BOB.public_key, 1]], memo=Memo(b"s" * 16, "too much said"), id=name)
    place = town.head
    [told] = ear.take(1)
    assert told["memo"]["text"] == "too much said"
    town.say("erase", ADA, statement=name)
    ear.take(1)
    later = town.listen(f"?after={place - 1}")
    assert [entry.get("memo") for entry in later.take(2)] == [None, None]


def test_answers_of_a_stream_say_what_they_are(town: Town) -> None:
    ear = town.listen(packed=True)
    headers = {name.lower(): value for name, value in ear.response.getheaders()}
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["content-encoding"] == "gzip"
    assert "transfer-encoding" not in headers
    ear.close()


def test_head_of_a_stream_is_answered_and_over(town: Town) -> None:
    parts = urlsplit(town.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("HEAD", f"/v1/commons/{town.name}/entries", headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type")) == (200, "text/event-stream")
    assert response.read() == b""


def test_stream_is_plain_for_http_1_0_and_for_who_takes_no_gzip(town: Town) -> None:
    parts = urlsplit(town.url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as raw:
        asked = f"GET /v1/commons/{town.name}/entries?after=0 HTTP/1.0\r\nAccept: text/event-stream\r\n"
        raw.sendall(f"{asked}Accept-Encoding: gzip;q=0, br\r\n\r\n".encode())
        got = b""
        while f"id: {town.head}\n".encode() not in got:
            more = raw.recv(65536)
            assert more
            got += more
    assert b"chunked" not in got
    assert b"\r\n\r\nretry: " in got


def test_silence_is_broken_by_a_comment(quiet: Service) -> None:
    town = Town(quiet.url)
    # The socket's own timeout is what fails if none comes.
    ear = town.listen(seconds=12.0)
    ear.wait_for_comment()
    town.pay()
    assert [entry["seq"] for entry in ear.take(1)] == [town.head]


def test_fifty_listeners_hear_the_same_under_load(town: Town) -> None:
    after = town.head
    ears = [town.listen(f"?after={after}", packed=number % 2 == 1) for number in range(50)]
    count = 1_500
    sender = threading.Thread(target=lambda: [town.pay(count=25) for _ in range(count // 25)])
    sender.start()
    heard: dict[int, list[Any]] = {}

    def hear(number: int) -> None:
        heard[number] = ears[number].take(count)

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(len(ears))]
    for thread in threads:
        thread.start()
    for thread in [sender, *threads]:
        thread.join()
    log = town.log()[after:]
    assert len(log) == count
    assert [number for number in range(len(ears)) if heard.get(number) != log] == []
    streams = {ear.heard[ear.heard.index(b"\n\n") :] for ear in ears}
    assert len(streams) == 1


# ── Where it goes on ─────────────────────────────────────────────────────────────────────────────────────────────


def test_listener_that_is_cut_off_again_and_again_loses_and_repeats_nothing(town: Town) -> None:
    after, count = town.head, 600
    sender = threading.Thread(target=lambda: [town.pay(count=5) for _ in range(count // 5)])
    sender.start()
    heard: list[Any] = []
    while len(heard) < count:
        # Last-Event-ID counts, and not what the address said when it was first asked for.
        ear = town.listen("?after=0", last=after + len(heard))
        heard += ear.take(min(37, count - len(heard)))
        ear.close()
    sender.join()
    assert heard == town.log()[after:]


def test_following_goes_on_where_it_was_after_a_restart(folder: Path) -> None:
    lay_cluster(folder / "data")
    service = Service(folder)
    try:
        town = Town(service.start().url)
        ear = town.listen("?after=0")
        town.pay(count=10)
        heard = ear.take(town.head)
        assert service.stop() == 0
        heard += ear.end()
        town.line.close()
        service.start()
        town.line = Line(service.url)
        town.pay(count=10)
        again = town.listen(last=heard[-1]["seq"])
        heard += again.take(10)
        assert heard == town.log()
    finally:
        service.end()


def test_what_one_service_accepts_is_heard_at_the_other(folder: Path, postgres: OwnPostgres) -> None:
    database = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(database)))
    key = str(folder / "ledger.key")
    services = []
    for number in range(2):
        place = folder / str(number)
        place.mkdir()
        services.append(Service(place, "--database", postgres.service_dsn(database), "--key", key))
    try:
        town = Town(services[0].start().url)
        there = Ear(services[1].start().url, town.name, query="?after=0")
        here = town.listen("?after=0")
        other = Line(services[1].url)
        heard_there, heard_here = there.take(town.head), here.take(town.head)
        for _ in range(20):
            town.pay(count=3)
            [result] = other.post([town.write("pay", BOB, legs=[[ADA.public_key, 1]])])
            town.head = result["receipt"]["seq"]
        heard_there += there.take(80)
        heard_here += here.take(80)
        assert heard_there == heard_here == town.log()
    finally:
        for service in services:
            service.end()


def test_following_goes_on_over_an_outage_of_the_database(folder: Path, postgres: OwnPostgres) -> None:
    database = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(database)))
    arguments = ("--database", postgres.service_dsn(database), "--key", str(folder / "ledger.key"))
    # It reads so long after it was woken that, most times, entries are accepted and then nothing is there to read.
    with hasty(*arguments, feeds__PAUSE_SECONDS=0.4, feeds__PAUSE_SECONDS_MAX=0.4) as service:
        town = Town(service.url)
        town.pay(count=200)
        live, late = town.listen(), town.listen("?after=0")
        heard_late = late.take(1)
        after = town.head
        sender = threading.Thread(target=lambda: [pay_until_taken(town) for _ in range(100)])
        sender.start()
        for outage in (1, 2):
            time.sleep(0.2)
            cut_off(postgres, service, times=outage)
        sender.join()
        assert town.head == after + 100
        heard_live = heard_until(town, live, town.head, after=after)
        heard_late += heard_until(town, late, town.head, after=1)
        log = town.log()
        assert len(log) == town.head
        assert heard_late == log
        assert heard_live == log[after:]
        assert service.read_log().count("heads_not_seen") >= 2


def cut_off(postgres: OwnPostgres, service: Service, *, times: int) -> None:
    """Take the database from the service for as long as it takes to notice, which it then did so many times."""
    postgres.execute("postgres", f"ALTER ROLE {SERVICE} CONNECTION LIMIT 0")
    try:
        for _ in range(100):
            postgres.execute(
                "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{SERVICE}'"
            )
            if service.read_log().count("heads_not_seen") >= times:
                return
            time.sleep(0.1)
        raise AssertionError(f"nobody missed the database:\n{service.read_log()}")
    finally:
        postgres.execute("postgres", f"ALTER ROLE {SERVICE} CONNECTION LIMIT -1")


def pay_until_taken(town: Town) -> None:
    """Pay once, as often as it takes; a refusal that passes is the only other answer."""
    payment = town.write("pay", ADA, legs=[[BOB.public_key, 1]])
    for _ in range(100):
        [result] = town.line.post([payment])
        if result["status"] != "refused":
            town.head = result["receipt"]["seq"]
            return
        assert result["problem"]["code"] == "unavailable", result
        time.sleep(0.2)
    raise AssertionError("the service did not come back")


def heard_until(town: Town, ear: Ear, last: int, *, after: int) -> list[Any]:
    """What is heard from entry `after` to entry `last`, by coming back as often as the stream ends."""
    heard: list[Any] = []
    for _ in range(20):
        try:
            while after < last:
                heard += ear.take(1)
                after = heard[-1]["seq"]
            return heard
        except Hangup:
            time.sleep(0.5)
            ear = town.listen(last=after)
    raise AssertionError(f"the stream never got further than {after}")


@pytest.mark.parametrize("place", ["-1", "x", "1.5", "%D9%A1", "9" * 19, "1000000"])
def test_place_that_is_none_is_malformed(town: Town, place: str) -> None:
    for ear in (town.listen(last=unquote_to_bytes(place).decode("latin-1")), town.listen(f"?after={place}")):
        assert (ear.response.status, ear.problem["code"]) == (400, "malformed")


# ── Who hears what ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("visibility", ["members", "parties"])
def test_stranger_is_told_what_is_told_where_there_is_no_commons(service: Service, visibility: str) -> None:
    town = Town(service.url, visibility=visibility)
    for token in (None, town.token(signer_of("a stranger"))):
        there, nowhere = town.listen(token=token), Ear(town.url, NOWHERE, token=token)
        assert there.response.status == 404
        assert (there.response.status, there.problem) == (nowhere.response.status, nowhere.problem)
        headers = [sorted(one.response.headers.keys()) for one in (there, nowhere)]
        assert headers[0] == headers[1]


def test_token_that_does_not_hold_is_refused(parties: Town) -> None:
    ear = parties.listen(token="no.such.token")
    assert (ear.response.status, ear.problem["code"]) == (401, "bad-token")


@pytest.mark.parametrize("packed", [False, True])
def test_party_hears_its_own_entries_of_the_past_and_live(parties: Town, packed: bool) -> None:
    parties.pay(count=150)
    parties.pay(BOB, EVE, count=30)
    ears = {who: parties.listen("?after=0", token=parties.token(who), packed=packed) for who in (ADA, BOB, EVE)}
    steward = parties.listen("?after=0", token=parties.token(STEWARD), packed=packed)
    for _ in range(10):
        parties.pay(ADA, BOB, count=3)
        parties.pay(BOB, EVE, count=2)
        parties.pay(EVE, ADA)
    parties.say("policy", STEWARD, policy=parties.policy, from_tick=10**9)
    everything = steward.take(parties.head)
    assert everything == parties.log(token=parties.token(STEWARD))
    for who, ear in ears.items():
        own = parties.log(token=parties.token(who))
        assert 0 < len(own) < len(everything)
        assert own[-1]["type"] == "policy"
        assert ear.take(len(own)) == own


def test_what_a_party_may_not_see_does_not_keep_it_from_what_follows(parties: Town) -> None:
    ear = parties.listen(token=parties.token(EVE))
    parties.pay(count=300)
    parties.pay(ADA, EVE)
    assert [entry["seq"] for entry in ear.take(1)] == [parties.head]


def test_key_that_is_revoked_hears_nothing_more(parties: Town) -> None:
    parties.say("keys", ADA, PHONE, add=[PHONE.public_key])
    ear = parties.listen(token=parties.token(PHONE, peer=ADA))
    parties.pay()
    assert len(ear.take(1)) == 1
    parties.say("keys", ADA, revoke=[PHONE.public_key])
    parties.pay(count=5)
    assert ear.end() == []
    again = parties.listen(token=parties.token(PHONE, peer=ADA))
    assert (again.response.status, again.problem["code"]) == (404, "unknown-commons")


def test_who_leaves_hears_its_own_leaving_and_no_more(service: Service) -> None:
    town = Town(service.url, visibility="members")
    ear = town.listen(token=town.token(EVE))
    town.pay()
    # Had it left before it was told of the payment, it would not be any more.
    assert [entry["seq"] for entry in ear.take(1)] == [town.head]
    left = town.say("leave", EVE)
    town.pay(count=5)
    last = town.say("pay", ADA, legs=[[BOB.public_key, 7]])
    bob = town.listen(f"?after={left}", token=town.token(BOB))
    assert bob.take(last - left)[-1]["seq"] == last
    assert [entry["seq"] for entry in ear.take(1)] == [left]
    town.say("suspend", STEWARD, peer=BOB.public_key)
    assert [entry["seq"] for entry in bob.take(1)] == [town.head], "a suspended member still sees"


def test_steward_who_is_one_no_more_is_cut_off(parties: Town) -> None:
    ear = parties.listen(token=parties.token(STEWARD))
    parties.pay()
    assert len(ear.take(1)) == 1
    parties.say("stewards", STEWARD, ADA, stewards=[ADA.public_key], threshold=1)
    parties.pay(count=5)
    assert ear.end() == []


def test_who_waits_to_be_admitted_hears_its_admission_and_what_is_then_its_own(service: Service) -> None:
    town = Town(service.url, visibility="parties", admission="steward")
    sue = signer_of("live sue")
    asked = town.say("join", sue, handle="sue")
    ear = town.listen("?after=0", token=town.token(sue))
    assert [entry["seq"] for entry in ear.take(1)] == [asked]
    town.pay(count=3)
    admitted = town.say("admit", STEWARD, peer=sue.public_key)
    town.pay(count=3)
    issued = town.say("issue", STEWARD, to=sue.public_key, amount=1)
    assert [entry["seq"] for entry in ear.take(2)] == [admitted, issued]


def test_nobody_learns_how_many_entries_there_are_by_asking_for_a_later_one(service: Service) -> None:
    town = Town(service.url, visibility="parties", admission="steward")
    sue = signer_of("live sue")
    town.say("join", sue, handle="sue")
    town.say("leave", EVE)
    places = (town.head, town.head + 1, 10**6)
    waiting = [town.listen(last=place, token=town.token(sue)) for place in places]
    gone = [town.listen(f"?after={place}", token=town.token(EVE)) for place in places]
    assert {ear.response.status for ear in (*waiting, *gone)} == {200}
    town.pay()
    # Whoever asked for what is not there yet misses nothing of what then comes.
    town.say("admit", STEWARD, peer=sue.public_key)
    for ear in waiting:
        assert [entry["seq"] for entry in ear.take(1)] == [town.head]
    member = town.listen(last=10**6, token=town.token(BOB))
    assert (member.response.status, member.problem["code"]) == (400, "malformed")
    for ear in (*waiting, *gone):
        ear.close()


def test_stream_ends_with_its_token(service: Service) -> None:
    town, closed = Town(service.url), Town(service.url, visibility="members")
    expires = town.line.time() // 1_000 + 3
    ears = []
    for place in (town, closed):
        token = write_token(ADA, ledger=town.ledger, now_ms=town.line.time(), exp=expires)
        ears.append(place.listen(token=token))
    silent = closed.listen(token=write_token(BOB, ledger=town.ledger, now_ms=town.line.time(), exp=expires))
    town.pay()
    while town.line.time() // 1_000 <= expires:
        town.pay()
    heard, _, _ = (ear.end() for ear in (*ears, silent))
    assert 0 < len(heard) < len(town.log())
    assert all(entry["at"] < expires * 1_000 for entry in heard)
    assert closed.listen(token=closed.token(ADA)).response.status == 200


def test_stranger_hears_nothing_from_the_tick_that_closes_a_commons_on(quiet: Service) -> None:
    town = Town(quiet.url, tick_seconds=1)
    ear = town.listen()
    soon = town.line.time() // 1_000 + 3
    announced = town.say("policy", STEWARD, policy={**town.policy, "visibility": "members"}, from_tick=soon)
    # As nobody looks around here, it is the first payment of the new time that tells the service.
    while town.line.time() // 1_000 <= soon:
        town.pay()
    heard = ear.end()
    assert len(heard) > 1
    assert heard[0]["seq"] == announced
    assert all(entry["at"] < soon * 1_000 for entry in heard)
    log = town.log(token=town.token(ADA))
    assert heard == [entry for entry in log if entry["seq"] in range(announced, heard[-1]["seq"] + 1)]
    assert log[-1]["at"] >= soon * 1_000


def test_stranger_is_cut_off_when_the_policy_that_closes_a_commons_comes_into_force(service: Service) -> None:
    town = Town(service.url, tick_seconds=1)
    ear = town.listen()
    soon = town.line.time() // 1_000 + 3
    announced = town.say("policy", STEWARD, policy={**town.policy, "visibility": "members"}, from_tick=soon)
    # Nobody says anything when it comes; the ledger may sweep.
    assert [entry["seq"] for entry in ear.end() if entry["type"] != "sweep"] == [announced]
    assert town.line.time() // 1_000 >= soon
    assert town.listen().response.status == 404


# ── Who is too slow ──────────────────────────────────────────────────────────────────────────────────────────────


def test_readers_that_never_read_are_dropped_and_cost_little() -> None:
    with hasty(live__STALL_SECONDS=3.0) as service:
        town = Town(service.url)
        crowd = sorted(signer_of(f"live crowd {number}").public_key for number in range(256))
        town.send([town.write("join", signer_of(f"live crowd {n}"), handle=f"c{n}") for n in range(256)])
        legs = [[peer, 1] for peer in crowd]
        for _ in range(5):
            town.send([town.write("pay", ADA, legs=legs) for _ in range(10)])
        size = sum(len(json.dumps(entry)) for entry in town.log())
        before = resident_mib(service)
        deaf = [deaf_reader(town) for _ in range(60)]
        good = town.listen("?after=0")
        assert good.take(town.head) == town.log()
        wait_for_dropped(service, len(deaf))
        grown = resident_mib(service) - before
        assert size * len(deaf) > 100 * 2**20, "the test must have enough to say"
        assert grown < 48, f"{grown:.0f} MiB more"
        town.pay()
        assert [entry["seq"] for entry in good.take(1)] == [town.head]
        for one in deaf:
            one.close()
        assert service.stop() == 0


def deaf_reader(town: Town) -> socket.socket:
    """Asks for everything, and never reads; its system takes as little for it as it can."""
    parts = urlsplit(town.url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((parts.hostname, parts.port))
    asked = f"GET /v1/commons/{town.name}/entries?after=0 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
    raw.sendall(asked.encode())
    return raw


def metric(service: Service, name: str) -> float:
    parts = urlsplit(service.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", "/metrics")
    found = re.search(rf"^{name} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
    connection.close()
    assert found is not None
    return float(found[1])


def wait_for_dropped(service: Service, count: int) -> None:
    for _ in range(240):
        if metric(service, "gesell_listeners_dropped_total") == count:
            return
        threading.Event().wait(0.5)
    raise AssertionError(f"dropped: {metric(service, 'gesell_listeners_dropped_total')}")


def resident_mib(service: Service) -> float:
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024

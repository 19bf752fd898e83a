"""Webhooks of a real service to real endpoints: who may ask, what arrives, how often, and where nothing ever goes.

Owns the table of requests that are refused, and the blows: endpoints that fail, hang and go; services that are killed.
What an attempt and an address are, one by one, is in `tests/unit/webhooks`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from gesell import Client, Malformed, NotFound, Peer
from gesell_ledger.deliverer import LEASE_MS, TURNS_OF_PEER
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.webhooks import SLOTS
from gesell_protocol.envelopes import SALT_BYTES, Envelope, Memo
from gesell_protocol.names import did_of
from tests.forked import scripts
from tests.own_postgres import OwnPostgres, own_postgres
from tests.running import Service, open_folder
from tests.speaking import POLICY, Line, name_of, signer_of, write_envelope, write_found
from tests.webhooks import Answering, Asker, Attempt, Endpoint, endpoint, until, write_jwt

SECRET = "whsec_"
QUIET_SECONDS = 2.0


class Village:
    """A commons of ada, its steward, and of bob and cyd, all three members with money."""

    def __init__(self, service: Service, **policy: Any) -> None:
        self.service = service
        self.line = Line(service.url)
        founding = write_found(
            [signer_of("ada")], ledger=self.line.ledger(), now_ms=self.line.time(), policy={**POLICY, **policy}
        )
        self.name = name_of(founding)
        self.path = f"/v1/commons/{self.name.hex()}"
        self.seq = 0
        self._post([founding])
        self._stewarded = policy.get("admission") == "steward"
        self._post([statement for one in ("ada", "bob", "cyd") for statement in self.member(one)])
        self._post([self.issue("bob"), self.issue("cyd"), self.pay("bob", "ada", grains=10**8)])

    def write(self, kind: str, by: str, *, more: Sequence[str] = (), **fields: Any) -> Envelope:
        """A statement by the key of a name, signed by some more."""
        signers = [signer_of(name) for name in (by, *more)]
        commons = {} if kind == "found" else {"commons": self.name}
        return write_envelope(kind, signers[0].public_key, signers, now_ms=self.line.time(), **commons, **fields)

    def member(self, name: str) -> list[Envelope]:
        """How somebody becomes a member here."""
        join = self.write("join", name, handle=name)
        return [join, self.write("admit", "ada", peer=signer_of(name).public_key)] if self._stewarded else [join]

    def issue(self, to: str) -> Envelope:
        return self.write("issue", "ada", to=signer_of(to).public_key, amount=10**9)

    def pay(self, by: str, to: str, *, grains: int = 1, **fields: Any) -> Envelope:
        return self.write("pay", by, legs=[[signer_of(to).public_key, grains]], **fields)

    def _post(self, envelopes: Sequence[Envelope]) -> int:
        for result in self.line.post(envelopes):
            assert result["status"] == "accepted", result
            self.seq = result["receipt"]["seq"]
        return self.seq

    async def say(self, *envelopes: Envelope) -> int:
        """Have statements accepted; the seq of the last."""
        return await asyncio.to_thread(self._post, envelopes)

    def asker(self, name: str, **more: Any) -> Asker:
        return Asker(self.service, self.name, name, **more)


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """One server for all services of these tests, each with a database of its own."""
    with own_postgres(fsync="on") as started:
        yield started


def on_database(postgres: OwnPostgres) -> tuple[str, ...]:
    """The arguments of a service that serves from a new database."""
    database = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(database)))
    return ("--database", postgres.service_dsn(database), "--min-tick-seconds", "1")


@pytest.fixture(scope="module")
def trusting(postgres: OwnPostgres) -> Iterator[Service]:
    """A service that delivers to this machine."""
    with running_on(on_database(postgres), "--webhooks-to-private") as started:
        yield started


@contextmanager
def running_on(database: tuple[str, ...], *arguments: str) -> Iterator[Service]:
    """A service on a new database, gone afterwards."""
    with open_folder() as folder:
        service = Service(folder, *database, "--data", str(folder / "data"), *arguments)
        try:
            yield service.start()
        finally:
            service.end()


@pytest.fixture
def village(trusting: Service) -> Iterator[Village]:
    made = Village(trusting)
    yield made
    made.line.close()


@pytest.fixture
async def shop() -> AsyncIterator[Endpoint]:
    async with endpoint() as opened:
        yield opened


def failing(times: int, *, status: int = 503) -> Answering:
    """Answer so many times that it went wrong."""
    left = [times]

    async def answer(_: Attempt) -> web.StreamResponse:
        left[0] -= 1
        return web.Response(status=status if left[0] >= 0 else 204)

    return answer


# ── What arrives ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_payment_arrives_signed_as_the_specification_has_it(village: Village, shop: Endpoint) -> None:
    hook = await village.asker("bob").ask(url=shop.url)
    assert hook == {
        "id": hook["id"],
        "url": shop.url,
        "types": [],
        "scope": "own",
        "state": "live",
        "after": village.seq,
        "failures": 0,
        "secret": hook["secret"],
    }
    memo = Memo(bytes(SALT_BYTES), "for bread")
    seq = await village.say(village.pay("ada", "bob", memo=memo, category="answer"))
    await until(lambda: len(shop.attempts) == 1)
    (attempt,) = shop.attempts
    message = attempt.verified(hook["secret"])
    assert attempt.headers["webhook-id"] == f"{hook['id']}_{seq}"
    assert attempt.headers["content-type"] == "application/json"
    assert (message["type"], message["data"]["commons"]) == ("entry.pay", village.name.hex())
    assert message["data"]["entry"] == village.line.get(f"{village.path}/entries/{seq}")
    assert message["data"]["entry"]["memo"]["text"] == "for bread"
    assert message["timestamp"].endswith("Z")
    with pytest.raises(Exception, match="No matching signature"):
        attempt.verified("whsec_" + "A" * 43 + "=")


async def test_a_member_is_delivered_what_concerns_it_and_a_steward_everything(
    village: Village, shop: Endpoint
) -> None:
    async with endpoint() as office, endpoint() as desk:
        await village.asker("bob").ask(url=shop.url)
        await village.asker("ada").ask(url=office.url, scope="all")
        await village.asker("bob").ask(url=desk.url, types=["grant", "issue"])
        begin = village.seq
        await village.say(
            village.pay("ada", "bob"), village.pay("ada", "cyd"), village.issue("bob"), village.pay("bob", "cyd")
        )
        await until(lambda: len(office.attempts) == 4 and len(shop.attempts) == 3 and len(desk.attempts) == 1)
        assert office.seqs == [begin + 1, begin + 2, begin + 3, begin + 4]
        assert shop.seqs == [begin + 1, begin + 3, begin + 4]
        assert desk.seqs == [begin + 3]


async def test_everything_arrives_once_and_in_order_under_load(village: Village, shop: Endpoint) -> None:
    async with endpoint() as office:
        await village.asker("bob").ask(url=shop.url)
        await village.asker("ada").ask(url=office.url, scope="all")
        begin = village.seq
        for _ in range(10):
            await village.say(*[village.pay("ada", ("bob", "cyd")[n % 2]) for n in range(50)])
        await until(lambda: len(office.attempts) >= 500 and len(shop.attempts) >= 250)
        await asyncio.sleep(QUIET_SECONDS)
        assert office.seqs == list(range(begin + 1, begin + 501))
        assert shop.seqs == list(range(begin + 1, begin + 501, 2))


async def test_what_was_there_before_is_delivered_to_who_asks_for_it(village: Village, shop: Endpoint) -> None:
    asker = village.asker("ada")
    await asker.ask(url=shop.url, scope="all", after=0)
    await until(lambda: len(shop.attempts) == village.seq)
    assert shop.seqs == list(range(1, village.seq + 1))
    assert [attempt.message["type"] for attempt in shop.attempts] == [
        "entry.found",
        *["entry.join"] * 3,
        *["entry.issue"] * 2,
        "entry.pay",
    ]
    status, again = await asker.send(await asker.request(url=shop.url, scope="all", after=5))
    assert (status, "secret" in again) == (200, False)
    await until(lambda: shop.seqs[village.seq :] == [6, 7])
    assert shop.attempts[-1].headers["webhook-id"] == shop.attempts[6].headers["webhook-id"]


# ── Endpoints that fail ──────────────────────────────────────────────────────────────────────────────────────────


async def test_what_failed_is_tried_again_in_order_with_its_id(village: Village, shop: Endpoint) -> None:
    shop.answer = failing(1)
    asker = village.asker("bob")
    hook = await asker.ask(url=shop.url)
    first = await village.say(village.pay("ada", "bob"))
    await until(lambda: len(shop.attempts) == 1)
    second = await village.say(village.pay("ada", "bob"))
    (shown,) = await asker.list()
    assert (shown["state"], shown["failures"], shown["why"], shown["after"]) == ("live", 1, "HTTP 503", first - 1)
    assert 0 < shown["next_attempt"] - 1000 * shop.attempts[0].at < 10_000
    await until(lambda: len(shop.attempts) == 3)
    assert shop.seqs == [first, first, second]
    assert [attempt.verified(hook["secret"])["type"] for attempt in shop.attempts] == ["entry.pay"] * 3
    failed, again, _ = shop.attempts
    assert failed.headers["webhook-id"] == again.headers["webhook-id"]
    assert failed.body == again.body
    # Five seconds by the schedule; no sooner, however loaded the machine.
    assert again.at - failed.at >= 5.0
    assert int(again.headers["webhook-timestamp"]) - int(failed.headers["webhook-timestamp"]) >= 4
    (shown,) = await asker.list()
    assert "why" not in shown
    assert "next_attempt" not in shown


async def test_an_endpoint_that_is_gone_is_disabled_until_a_newer_request(village: Village, shop: Endpoint) -> None:
    shop.answer = failing(1, status=410)
    asker = village.asker("bob")
    hook = await asker.ask(url=shop.url)
    first = await village.say(village.pay("ada", "bob"))
    await until(lambda: len(shop.attempts) == 1)
    await village.say(village.pay("ada", "bob"))
    await asyncio.sleep(QUIET_SECONDS)
    (shown,) = await asker.list()
    assert (shown["state"], shown["why"]) == ("disabled", "gone: the endpoint answered HTTP 410: it wants no more")
    assert len(shop.attempts) == 1
    status, shown = await asker.send(await asker.request(url=shop.url))
    assert (status, shown["id"], shown["state"], "secret" in shown) == (200, hook["id"], "live", False)
    await until(lambda: len(shop.attempts) == 3)
    assert shop.seqs == [first, first, first + 1]
    assert shop.attempts[-1].verified(hook["secret"])


async def test_a_redirect_is_a_failure_and_nobody_goes_there(village: Village, shop: Endpoint) -> None:
    async with endpoint() as elsewhere:

        async def answer(_: Attempt) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(elsewhere.url)

        shop.answer = answer
        asker = village.asker("bob")
        await asker.ask(url=shop.url)
        await village.say(village.pay("ada", "bob"))
        await until(lambda: len(shop.attempts) == 1)
        await asyncio.sleep(QUIET_SECONDS)
        assert (await asker.list())[0]["why"] == "HTTP 307"
        assert elsewhere.attempts == []


async def test_an_endpoint_that_hangs_holds_up_nobody_else(village: Village, shop: Endpoint) -> None:
    over = asyncio.Event()

    async def hang(_: Attempt) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    async with endpoint(hang) as hanging:
        for n in range(SLOTS):
            await village.asker("cyd").ask(url=f"{hanging.url}/{n}")
        await village.asker("bob").ask(url=shop.url)
        await village.say(village.pay("cyd", "bob"))
        await until(lambda: len(hanging.attempts) == TURNS_OF_PEER)
        for _ in range(5):
            await village.say(village.pay("cyd", "bob"))
        await until(lambda: len(shop.attempts) == 6)
        assert len(hanging.attempts) == TURNS_OF_PEER
        over.set()


# ── Who may ask, and who still may ───────────────────────────────────────────────────────────────────────────────


Claims = dict[str, Any]
Change = Callable[[Claims], None]


def without(name: str) -> Change:
    return lambda claims: claims.pop(name)


def hook_of(**fields: Any) -> Change:
    return lambda claims: claims["webhook"].update(fields)


REFUSED: dict[str, tuple[Change, int, str]] = {
    "for another ledger": (lambda claims: claims.update(aud=did_of(bytes(31) + b"\x07")), 401, "bad-token"),
    "expired": (lambda claims: claims.update(iat=claims["iat"] - 90, exp=claims["iat"] - 60), 401, "bad-token"),
    "from the future": (
        lambda claims: claims.update(iat=claims["iat"] + 999, exp=claims["exp"] + 999),
        401,
        "bad-token",
    ),
    "for ever": (lambda claims: claims.update(exp=claims["exp"] + 1), 401, "bad-token"),
    "of somebody else": (lambda claims: claims.update(iss=did_of(signer_of("ada").public_key)), 401, "bad-token"),
    "for another commons": (lambda claims: claims.update(commons="00" * 16), 401, "bad-token"),
    "for no commons": (without("commons"), 401, "bad-token"),
    "a token to read with": (without("webhook"), 401, "bad-token"),
    "no object": (lambda claims: claims.update(webhook="https://shop.example/"), 400, "malformed"),
    "no url": (lambda claims: claims["webhook"].pop("url"), 400, "malformed"),
    "an unknown field": (hook_of(secret="mine"), 400, "malformed"),
    "an unknown type": (hook_of(types=["pay", "bribe"]), 400, "malformed"),
    "types that are none": (hook_of(types="pay"), 400, "malformed"),
    "an unknown scope": (hook_of(scope="whole"), 400, "malformed"),
    "an entry to come": (hook_of(after=10**6), 400, "malformed"),
    "before the beginning": (hook_of(after=-1), 400, "malformed"),
    "a url with a user": (hook_of(url="http://ada:secret@127.0.0.1/"), 400, "malformed"),
    "a url with a fragment": (hook_of(url="http://127.0.0.1/#here"), 400, "malformed"),
    "no web address": (hook_of(url="file:///etc/passwd"), 400, "malformed"),
    "a url too long": (hook_of(url="http://127.0.0.1/" + "a" * 1000), 400, "malformed"),
    "a body too large": (hook_of(url="http://127.0.0.1/" + "a" * 4000), 413, "too-large"),
}


@pytest.fixture(scope="module")
def untouched(trusting: Service) -> Iterator[Village]:
    """A village in which no webhook ever is."""
    made = Village(trusting)
    yield made
    made.line.close()


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_is_refused_and_nothing_is_stored(untouched: Village, name: str) -> None:
    change, status, code = REFUSED[name]
    asker = untouched.asker("bob")
    claims = await asker.claims(commons=asker.commons, webhook={"url": "http://127.0.0.1:9/"})
    change(claims)
    answered, problem = await asker.send(write_jwt("bob", claims))
    assert (answered, problem["code"]) == (status, code), problem
    assert await asker.list() == []


async def test_what_is_not_signed_is_refused(village: Village) -> None:
    asker = village.asker("bob")
    claims = await asker.claims(commons=asker.commons, webhook={"url": "http://127.0.0.1:9/"})
    forged = write_jwt("cyd", claims)
    honest = write_jwt("bob", claims)
    header, _, signature = honest.split(".")
    other = write_jwt("bob", {**claims, "webhook": {"url": "http://127.0.0.1:6/"}}).split(".")[1]
    for text in (forged, f"{header}.{other}.{signature}", "", "a.b.c", "ä", honest + "x"):
        status, problem = await asker.send(text)
        assert (status, problem["code"]) == (401, "bad-token"), text
    status, problem = await asker.send(honest, kind="application/json")
    assert (status, problem["code"]) == (415, "unsupported-media-type")
    assert await asker.list() == []


async def test_only_who_belongs_to_the_commons_has_webhooks(village: Village, trusting: Service) -> None:
    async def answer_of(commons: Village, name: str, **webhook: Any) -> tuple[int, str]:
        asker = commons.asker(name)
        status, answer = await asker.send(await asker.request(url="http://127.0.0.1:9/", **webhook))
        return status, answer.get("code", "taken")

    closed, quiet = (Village(trusting, visibility=visibility) for visibility in ("parties", "members"))
    for commons in (closed, quiet):
        assert await answer_of(commons, "stranger") == (404, "unknown-commons")
        assert await answer_of(commons, "bob") == (201, "taken")
        assert await answer_of(commons, "ada", scope="all") == (201, "taken")
    assert await answer_of(village, "stranger") == (403, "not-authorised")
    assert await answer_of(closed, "cyd", scope="all") == (403, "not-authorised")
    assert await answer_of(quiet, "cyd", scope="all") == (201, "taken")
    assert await answer_of(village, "cyd", scope="all") == (201, "taken")
    asker = Asker(trusting, bytes(16), "bob")
    status, problem = await asker.send(await asker.request(url="http://127.0.0.1:9/"))
    assert (status, problem["code"]) == (404, "unknown-commons")


#: Who asks; then what asking for a webhook and listing one's own is answered where everybody reads, and where not.
READERS: dict[str, tuple[tuple[int, str], tuple[int, str], tuple[int, str], tuple[int, str]]] = {
    "ada": ((201, "live"), (200, "items"), (201, "live"), (200, "items")),
    "bob": ((201, "live"), (200, "items"), (201, "live"), (200, "items")),
    "suspended": ((201, "live"), (200, "items"), (201, "live"), (200, "items")),
    "added key": ((201, "live"), (200, "items"), (201, "live"), (200, "items")),
    "revoked key": ((403, "not-authorised"), (401, "bad-token"), (404, "unknown-commons"), (404, "unknown-commons")),
    "pending": ((403, "not-authorised"), (200, "items"), (403, "not-authorised"), (200, "items")),
    "gone": ((403, "not-authorised"), (200, "items"), (403, "not-authorised"), (200, "items")),
    "stranger": ((403, "not-authorised"), (200, "items"), (404, "unknown-commons"), (404, "unknown-commons")),
}


@pytest.mark.parametrize("visibility", ["open", "members", "parties"])
async def test_table_of_who_may_ask_and_list(trusting: Service, visibility: str) -> None:
    village = Village(trusting, visibility=visibility, admission="steward")
    keys = {name: signer_of(name).public_key for name in ("added", "revoked", "suspended")}
    await village.say(
        *village.member("suspended"), *village.member("gone"), village.write("join", "pending", handle="pen")
    )
    await village.say(
        village.write("suspend", "ada", peer=keys["suspended"]),
        village.write("leave", "gone"),
        village.write("keys", "bob", more=["added", "revoked"], add=sorted([keys["added"], keys["revoked"]])),
        village.write("keys", "bob", revoke=[keys["revoked"]]),
    )
    seen = {}
    for reader in READERS:
        name, _, added = reader.partition(" ")
        asker = village.asker("bob", by_key=name) if added else village.asker(name)
        status, asked = await asker.send(await asker.request(url=f"http://127.0.0.1:9/{name}"))
        path = f"{trusting.url}{village.path}/webhooks"
        async with aiohttp.ClientSession() as session, session.get(path, headers=await asker.bearer()) as response:
            listed = await response.json(content_type=None)
            shown = "items" if "items" in listed else listed["code"]
            seen[reader] = ((status, asked.get("code", asked.get("state"))), (response.status, shown))
    place = 0 if visibility == "open" else 2
    assert seen == {reader: expected[place : place + 2] for reader, expected in READERS.items()}


async def test_where_parties_alone_read_nobody_is_delivered_anything_else(trusting: Service, shop: Endpoint) -> None:
    village = Village(trusting, visibility="parties")
    await village.asker("bob").ask(url=shop.url, after=0)
    await village.say(village.pay("ada", "cyd"), village.pay("cyd", "bob"))
    await until(lambda: bool(shop.attempts) and shop.seqs[-1] == village.seq)
    bob = did_of(signer_of("bob").public_key)
    entries = {attempt.seq: attempt.message["data"]["entry"] for attempt in shop.attempts}
    assert entries.pop(1)["type"] == "found"
    assert entries
    assert all(bob == entry["by"] or bob in str(entry["postings"]) for entry in entries.values())


@pytest.mark.parametrize("what", ["left", "revoked"])
async def test_who_may_see_no_more_is_delivered_no_more(village: Village, shop: Endpoint, what: str) -> None:
    """By the webhook of an added key of bob's, who leaves, or revokes it."""
    await village.say(village.write("keys", "bob", more=["phone of bob"], add=[signer_of("phone of bob").public_key]))
    asker = village.asker("bob", by_key="phone of bob")
    await asker.ask(url=shop.url)
    seq = await village.say(village.pay("ada", "bob"))
    await until(lambda: shop.seqs == [seq])
    if what == "left":
        await village.say(village.write("leave", "bob"))
    else:
        await village.say(village.write("keys", "bob", revoke=[signer_of("phone of bob").public_key]))
        await village.say(village.pay("ada", "bob"))
    owner = village.asker("bob")
    async with asyncio.timeout(60):
        while (shown := await owner.list())[0]["state"] == "live":  # noqa: ASYNC110 (another process disables it)
            await asyncio.sleep(0.1)
    assert shown[0]["why"].startswith("not-authorised: ")
    assert shop.seqs == [seq]


async def test_who_is_suspended_is_still_delivered_its_own(village: Village, shop: Endpoint) -> None:
    await village.asker("bob").ask(url=shop.url)
    begin = village.seq
    await village.say(village.write("suspend", "ada", peer=signer_of("bob").public_key), village.pay("cyd", "bob"))
    await until(lambda: len(shop.attempts) == 2)
    assert shop.seqs == [begin + 1, begin + 2]


# ── By the client and in a shell ─────────────────────────────────────────────────────────────────────────────────


async def test_client_asks_lists_and_deletes(village: Village, shop: Endpoint, folder: Path) -> None:
    bob = Peer.load(_key_file(folder, "bob"))
    async with Client(village.service.url, commons=village.name, peer=bob) as client:
        hook = await client.add_webhook(shop.url, types=["pay"], after=0)
        assert hook.secret is not None
        assert hook.secret not in repr(hook)
        await until(lambda: len(shop.attempts) == 1)
        assert shop.attempts[0].verified(hook.secret)["type"] == "entry.pay"
        again = await client.add_webhook(shop.url, scope="all")
        assert (again.id, again.types, again.scope, again.secret) == (hook.id, (), "all", None)
        assert [one.id for one in await client.webhooks()] == [hook.id]
        await client.delete_webhook(hook)
        with pytest.raises(NotFound):
            await client.delete_webhook(hook.id)
        # Within the same second: the client waits until its request is newer than the end of the last one.
        assert (await client.add_webhook(shop.url)).id != hook.id
        with pytest.raises(Malformed):
            await client.add_webhook("ftp://127.0.0.1/")


def test_shell_of_the_page_runs_as_it_is_written(strict: Service, folder: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
    (text,) = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    _key_file(folder, "bob")
    names = {"GESELL_URL": strict.url, "GESELL_COMMONS": Village(strict).name.hex(), "GESELL_KEY": "bob.key"}
    command = ["bash", "-euxc", text.replace("shop.example", "93.184.215.14")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **names, "PATH": f"{scripts()}:{os.environ['PATH']}", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, secret, listed, deleted = done.stdout.splitlines()
    assert secret.startswith(SECRET)
    assert first == listed
    assert "93.184.215.14/gesell  (pay, your own entries, delivered up to 7)  live" in listed
    assert deleted == "Deleted."


def _key_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.key"
    Peer(sha256(f"test key {name}".encode()).digest()).save(path, passphrase=None)
    return path


# ── Requests used again ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_acts_once(village: Village, shop: Endpoint) -> None:
    asker = village.asker("bob")
    request = await asker.request(url=shop.url, types=["pay"])
    status, hook = await asker.send(request)
    assert (status, hook["secret"][:6]) == (201, SECRET)
    status, again = await asker.send(request)
    assert (status, again) == (200, {name: value for name, value in hook.items() if name != "secret"})
    status, changed = await asker.send(await asker.request(url=shop.url, types=["issue"]))
    assert (status, changed["id"], changed["types"]) == (200, hook["id"], ["issue"])
    status, problem = await asker.send(request)
    assert (status, problem["code"]) == (410, "expired")
    assert (await asker.list())[0]["types"] == ["issue"]


async def test_a_request_does_not_bring_back_what_was_deleted(village: Village, shop: Endpoint) -> None:
    asker = village.asker("bob")
    request = await asker.request(url=shop.url)
    status, hook = await asker.send(request)
    assert await asker.delete(hook["id"]) == 204
    assert await asker.delete(hook["id"]) == 404
    status, problem = await asker.send(request)
    assert (status, problem["code"]) == (410, "expired")
    assert await asker.list() == []
    await village.say(village.pay("ada", "bob"))
    await asyncio.sleep(QUIET_SECONDS)
    assert shop.attempts == []
    asker.issued_s += 2
    new = await asker.ask(url=shop.url)
    assert new["id"] != hook["id"]
    assert new["secret"] != hook["secret"]
    # What it asked for stands again, by the newer request: there is nothing for it to do.
    status, shown = await asker.send(request)
    assert (status, shown["id"], "secret" in shown) == (200, new["id"], False)


async def test_webhooks_are_shown_to_their_own_peer_alone(village: Village, shop: Endpoint) -> None:
    hook = await village.asker("bob").ask(url=shop.url)
    for other in ("ada", "cyd", "stranger"):
        assert await village.asker(other).list() == []
        assert await village.asker(other).delete(hook["id"]) == 404
    path = f"{village.service.url}{village.path}/webhooks"
    async with aiohttp.ClientSession() as session:
        async with session.get(path) as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (401, "bad-token")
        async with session.delete(f"{path}/{hook['id']}") as response:
            assert response.status == 401
    (shown,) = await village.asker("bob").list()
    assert "secret" not in shown


async def test_a_peer_has_eight_in_a_commons_however_fast_it_asks(village: Village) -> None:
    asker = village.asker("bob")
    requests = [await asker.request(url=f"http://127.0.0.1:9/{n}") for n in range(12)]
    # All at once: none may find the same free place as another. Later ones make earlier ones too old.
    answers = await asyncio.gather(*[asker.send(request) for request in requests])
    assert {status for status, _ in answers} <= {201, 410, 422, 503}
    for n in range(12, 24):
        await asker.send(await asker.request(url=f"http://127.0.0.1:9/{n}"))
    status, problem = await asker.send(await asker.request(url="http://127.0.0.1:9/more"))
    assert (status, problem["code"], problem["limit"]) == (422, "limit-exceeded", "8")
    shown = await asker.list()
    assert len(shown) == 8
    assert len({hook["url"] for hook in shown}) == 8
    assert await asker.delete(shown[3]["id"]) == 204
    asker.issued_s += 2
    assert (await asker.ask(url="http://127.0.0.1:9/more"))["state"] == "live"


async def test_one_request_sent_many_times_at_once_makes_one_webhook(village: Village, shop: Endpoint) -> None:
    asker = village.asker("bob")
    request = await asker.request(url=shop.url)
    answers = await asyncio.gather(*[asker.send(request) for _ in range(8)])
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert sum("secret" in answer for _, answer in answers) == 1
    assert len(await asker.list()) == 1


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def strict(postgres: OwnPostgres) -> Iterator[Service]:
    """A service as operators run it."""
    with running_on(on_database(postgres)) as started:
        yield started


@pytest.fixture(scope="module")
def strict_village(strict: Service) -> Iterator[Village]:
    """A village in which no webhook ever is."""
    made = Village(strict)
    yield made
    made.line.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.0.0.1:8443/",
        "https://[::1]/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://224.0.0.1/",
    ],
)
async def test_no_private_address_is_taken(strict_village: Village, url: str) -> None:
    asker = strict_village.asker("bob")
    status, problem = await asker.send(await asker.request(url=url))
    assert (status, problem["code"]) == (403, "not-authorised"), problem
    assert await asker.list() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.216.34/",
        "https://93.184.216.34:22/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
    ],
)
async def test_no_odd_address_is_taken(strict_village: Village, url: str) -> None:
    asker = strict_village.asker("bob")
    status, problem = await asker.send(await asker.request(url=url))
    assert (status, problem["code"]) == (400, "malformed"), problem
    assert await asker.list() == []


async def test_no_name_is_taken_that_means_nothing(strict_village: Village) -> None:
    asker = strict_village.asker("bob")
    status, problem = await asker.send(await asker.request(url="https://nowhere.invalid/"))
    # Where no name server answers, the service can't tell in time.
    assert (status, problem["code"]) in ((400, "malformed"), (503, "unavailable")), problem
    assert await asker.list() == []


@contextmanager
def listening() -> Iterator[tuple[int, Callable[[], int]]]:
    """A port that counts who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def connected() -> int:
            count = 0
            while True:
                try:
                    server.accept()[0].close()
                except BlockingIOError:
                    return count
                count += 1

        yield server.getsockname()[1], connected


async def test_nothing_goes_to_a_private_address_that_was_taken_before(postgres: OwnPostgres, folder: Path) -> None:
    """The operator allowed private endpoints once and does no more: the webhooks are still there."""
    service = Service(folder, *await asyncio.to_thread(on_database, postgres), "--data", str(folder / "data"))
    try:
        with listening() as (port, connected):
            village = Village(service.start("--webhooks-to-private"))
            asker = village.asker("bob")
            for host in ("127.0.0.1", "localhost"):
                await asker.ask(url=f"https://{host}:{port}/")
            await asker.ask(url=f"http://127.0.0.1:{port}/plain")
            village.line.close()
            service.stop()
            service.start()
            village.line = Line(service.url)
            await village.say(village.pay("ada", "bob"))
            async with asyncio.timeout(60):
                while not all(hook["failures"] for hook in await asker.list()):  # noqa: ASYNC110 (likewise)
                    await asyncio.sleep(0.1)
            whys = [hook["why"] for hook in await asker.list()]
            assert whys == ["the address is not a public one"] * 2 + ["the URL can't be used"]
            assert connected() == 0
            village.line.close()
    finally:
        service.end()


# ── Services that come and go ────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_is_lost_when_the_service_is_killed(postgres: OwnPostgres, folder: Path, shop: Endpoint) -> None:
    killed = asyncio.Event()

    async def answer(_: Attempt) -> web.StreamResponse:
        if len(shop.attempts) == 21:
            await killed.wait()
        return web.Response()

    shop.answer = answer
    arguments = await asyncio.to_thread(on_database, postgres)
    service = Service(folder, *arguments, "--data", str(folder / "data"), "--webhooks-to-private")
    try:
        village = Village(service.start())
        hook = await village.asker("ada").ask(url=shop.url, scope="all")
        begin = village.seq
        await village.say(*[village.pay("ada", "bob") for _ in range(300)])
        await until(lambda: len(shop.attempts) == 21)
        service.kill()
        killed.set()
        village.line.close()
        service.start()
        village.line = Line(service.url)
        await village.say(*[village.pay("ada", "bob") for _ in range(50)])
        # What the dead one had claimed is taken over when its lease is over, not before. Nobody waits half a minute
        # here: that a lease ends by itself is `tests/integration/test_deliverer.py`'s.
        await asyncio.sleep(QUIET_SECONDS)
        assert len(shop.attempts) == 21
        assert 0 < await end_lease(arguments[1]) <= LEASE_MS
        await until(lambda: bool(shop.seqs[21:]) and shop.seqs[-1] == begin + 350)
        # The delivery that was under way comes again, with its id, and no other.
        assert shop.seqs == [*range(begin + 1, begin + 22), *range(begin + 21, begin + 351)]
        assert shop.attempts[20].headers["webhook-id"] == shop.attempts[21].headers["webhook-id"]
        assert all(attempt.verified(hook["secret"]) for attempt in shop.attempts[-50:])
        village.line.close()
    finally:
        service.end()


async def end_lease(dsn: str) -> int:
    """Let the only lease of a database be over; how many ms it had left."""
    connection = await asyncpg.connect(dsn)
    try:
        left: int = await connection.fetchval(
            "UPDATE gesell.webhook w SET lease_ms = 0 FROM gesell.webhook old WHERE w.id = old.id AND w.lease_ms > 0"
            " RETURNING old.lease_ms - (date_part('epoch', statement_timestamp()) * 1000)::bigint"
        )
        return left
    finally:
        await connection.close()


async def test_two_services_of_two_workers_deliver_once(postgres: OwnPostgres, folder: Path) -> None:
    shared = await asyncio.to_thread(on_database, postgres)
    with ExitStack() as stack:
        services = []
        for n in range(2):
            (folder / str(n)).mkdir()
            arguments = (*shared, "--data", str(folder / "data"), "--workers", "2", "--webhooks-to-private")
            services.append(Service(folder / str(n), *arguments))
            stack.callback(services[n].end)
        services[0].start()
        services[1].start()
        village = Village(services[0])
        async with endpoint() as shop, endpoint() as office, endpoint() as desk:
            ends = {"ada": office, "bob": shop, "cyd": desk}
            for name, end in ends.items():
                await Asker(services[1], village.name, name).ask(url=end.url, scope="all")
            begin = village.seq
            for _ in range(8):
                await village.say(*[village.pay("ada", "bob") for _ in range(25)])
            await until(lambda: all(len(end.attempts) >= 200 for end in ends.values()))
            # One of them goes in order: what it had claimed, the other goes on with at once.
            assert await asyncio.to_thread(services[0].stop) == 0
            village.line.close()
            village.line = Line(services[1].url)
            await village.say(*[village.pay("ada", "bob") for _ in range(25)])
            await until(lambda: all(len(end.attempts) >= 225 for end in ends.values()))
            await asyncio.sleep(QUIET_SECONDS)
            for end in ends.values():
                assert end.seqs == list(range(begin + 1, begin + 226))
        village.line.close()


async def test_a_fast_clock_does_not_hurry_the_attempts(postgres: OwnPostgres, shop: Endpoint) -> None:
    clock = ("--demo", "--clock-speed", "3600")
    with running_on(await asyncio.to_thread(on_database, postgres), *clock, "--webhooks-to-private") as service:
        village = Village(service)
        shop.answer = failing(1)
        async with endpoint() as office:
            await village.asker("ada").ask(url=office.url)
            hook = await village.asker("bob").ask(url=shop.url)
            await village.say(village.pay("ada", "bob"))
            await until(lambda: len(office.attempts) == len(shop.attempts) == 1)
            # Two hours of the ledger's.
            await asyncio.sleep(QUIET_SECONDS)
        (attempt,) = shop.attempts
        assert attempt.verified(hook["secret"]), "its timestamp is the real time, whatever the ledger's is"
        (shown,) = await village.asker("bob").list()
        assert 4_900 < shown["next_attempt"] - 1000 * attempt.at < 60_000
        log = service.read_log()
        assert hook["secret"] not in log
        assert shop.url not in log
        metrics = await _metrics(service)
        assert 'gesell_webhook_deliveries_total{outcome="failed"} 1.0' in metrics
        assert 'gesell_webhook_deliveries_total{outcome="delivered"} 1.0' in metrics
        village.line.close()


async def _metrics(service: Service) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as response:
        return await response.text()

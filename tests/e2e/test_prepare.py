"""`POST /v1/prepare`: every form gives a body that can be signed, the preview tells what would happen, and nobody
learns more than by sending the statement.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import base64url, did_of, id_of, id_text, unbase64url
from gesell_protocol.statements import LEDGER_TYPES, TYPES
from tests.forked import scripts
from tests.running import Service
from tests.speaking import POLICY, Line, name_of, new_id, signer_of, write_envelope, write_found, write_token

ROOT = Path(__file__).resolve().parents[2]
ADA, BOB, CY, EVE, MAY = (signer_of(name) for name in ("ada", "bob", "cy", "eve", "may"))
STRANGER = signer_of("stranger")
PHONE, OLD_PHONE = signer_of("bob's phone"), signer_of("bob's old phone")
#: As long as a statement may be good: on a fast clock, an hour is over before it arrives.
WEEK_MS = 7 * 86_400_000
#: What stands in the docs for a commons and a statement that the reader has.
DOCS_COMMONS = "8e5b0c3f6d2a4b7190c1d2e3f4a5b6c7"
DOCS_STATEMENT = "0195d0c5-0a00-7000-8000-000000000000"


class World:
    """A commons of one visibility, with steward admission: ada is its steward, bob, eve and may are members, may left,
    cy waits to be admitted. Bob has a second key and has paid eve with a memo; the pool holds what may left.
    """

    def __init__(self, url: str, visibility: str, **more: Any) -> None:
        self.url = url
        self.line = Line(url)
        self.ledger = self.line.ledger()
        policy = {**POLICY, "admission": "steward", "visibility": visibility, "tick_seconds": 86_400, **more}
        now = self.line.time()
        found = write_found([ADA], ledger=self.ledger, now_ms=now, policy=policy, expires=now + WEEK_MS)
        self.commons = name_of(found)
        self._send(found)
        for name, member in (("ada", ADA), ("bob", BOB), ("eve", EVE), ("may", MAY), ("cy", CY)):
            self.say("join", member, handle=name)
            if name != "cy":
                self.say("admit", ADA, peer=member.public_key)
        for member in (BOB, EVE, MAY):
            self.say("issue", ADA, to=member.public_key, amount=10_000)
        self.say("leave", MAY)
        self.say("keys", BOB, OLD_PHONE, add=[OLD_PHONE.public_key])
        self.paid = self.say("pay", BOB, legs=[[EVE.public_key, 5]], memo=Memo(bytes(16), "for the bread"))

    def say(self, kind: str, /, *signers: Signer, **fields: Any) -> str:
        """The first of the signers says something, which is accepted; returns its id."""
        now = self.line.time()
        name, by = new_id(now), signers[0].public_key
        fields = {"commons": self.commons, "id": name, "expires": now + WEEK_MS, **fields}
        self._send(write_envelope(kind, by, signers, now_ms=now, **fields))
        return id_text(name)

    def _send(self, envelope: Any) -> None:
        (result,) = self.line.post([envelope])
        assert result["status"] == "accepted", result

    def wait_days(self, days: int) -> None:
        """Wait until so many days have passed on the ledger's clock: seconds, on a fast one."""
        until = self.line.time() + days * 86_400_000
        while self.line.time() < until:
            time.sleep(0.05)

    def seq(self) -> int:
        """The number of the last entry."""
        token = write_token(ADA, ledger=self.ledger, now_ms=self.line.time())
        seq = Line(self.url, token=token).get(f"/v1/commons/{self.commons.hex()}")["seq"]
        assert isinstance(seq, int)
        return seq

    def prepare(self, form: Mapping[str, Any], *, token_of: Signer | None = None, peer: Signer | None = None) -> Answer:
        """Prepare what `form` says in this commons, with the token of somebody (for `peer`, or itself)."""
        headers = {}
        if token_of is not None:
            name = peer.public_key if peer is not None else None
            token = write_token(token_of, ledger=self.ledger, now_ms=self.line.time(), peer=name)
            headers = {"Authorization": f"Bearer {token}"}
        return post(self.url, {"commons": self.commons.hex(), **form}, **headers)


Answer = tuple[int, Any]


def post(url: str, body: object, *, path: str = "/v1/prepare", **headers: str) -> Answer:
    """POST some JSON, or bytes as they are: the status and the decoded answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def code_of(answer: Answer) -> str:
    """What became of it in a word: the code of the problem, that of the preview, or `accepted`."""
    status, said = answer
    if status != 200:
        return f"{status} {said['code']}"
    preview = said["preview"]
    assert len(preview) == 1
    return str(preview["problem"]["code"]) if "problem" in preview else "accepted"


@pytest.fixture(scope="module")
def worlds(service: Service) -> dict[str, World]:
    return {visibility: World(service.url, visibility) for visibility in ("open", "members", "parties")}


# ── The forms ────────────────────────────────────────────────────────────────────────────────────────────────────


def doc_examples() -> list[dict[str, Any]]:
    """The statements of docs/statements.md, one of each type."""
    page = (ROOT / "docs" / "statements.md").read_text()
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]


@pytest.fixture(scope="module")
def docs_world(service: Service) -> tuple[World, dict[str, str]]:
    """A commons with all that the examples speak of, and by which ids they name it."""
    world = World(service.url, "open", credit_limit=1_000)
    dora = signer_of("dora")
    world.say("join", dora, handle="dora")
    world.say("admit", ADA, peer=dora.public_key)
    world.say("pay", dora, legs=[[BOB.public_key, 500]])  # and has nothing, so this is on credit
    hour = {"kind": "hour", "quantity": 100}
    received = world.say("gift", EVE, to=BOB.public_key, **hour)
    world.say("thank", BOB, gift=id_of(received))
    until = world.line.time() + 86_400_000
    names = {
        "000": world.paid,
        "010": world.say("gift", EVE, to=BOB.public_key, **hour),
        "011": world.say("gift", BOB, to=EVE.public_key, **hour),
        "012": received,
        "020": world.say("hold", EVE, to=BOB.public_key, amount=100, until=until),
    }
    return world, {DOCS_STATEMENT[:-3] + end: name for end, name in names.items()}


def test_docs_have_one_example_of_every_statement_that_a_peer_may_speak() -> None:
    assert sorted(example["type"] for example in doc_examples()) == sorted(set(TYPES) - LEDGER_TYPES)


@pytest.mark.parametrize("example", doc_examples(), ids=lambda example: example["type"])
def test_example_of_the_docs_would_be_accepted(
    docs_world: tuple[World, dict[str, str]], example: dict[str, Any]
) -> None:
    world, names = docs_world
    text = json.dumps(example).replace(DOCS_COMMONS, world.commons.hex())
    for shown, name in names.items():
        text = text.replace(f'"{shown}"', f'"{name}"')
    form = json.loads(text)
    if form["type"] == "leave":
        form |= {"by": "ada"}  # between eve and bob a hold is open
    if form["type"] == "join":
        form |= {"by": did_of(STRANGER.public_key)}  # cy waits already
    if "until" in form:
        form |= {"until": world.line.time() + 60_000}
    if "id" in form:
        now = world.line.time()
        form |= {"id": id_text(new_id(now)), "expires": now + 60_000}
    before = world.seq()
    status, said = post(world.url, form)
    assert status == 200, said
    assert "postings" in said["preview"], said
    assert world.seq() == before
    if "memo" in form:
        seal = Memo(unbase64url(said["memo"]["salt"]), form["memo"]).seal()
        assert said["memo"]["text"] == form["memo"]
        assert seal in unbase64url(said["body"])
    else:
        assert "memo" not in said


def test_what_was_prepared_and_signed_does_what_the_preview_said(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    _, said = world.prepare({"type": "pay", "by": "bob", "legs": [["eve", "7"]], "memo": "again", "category": "food"})
    signature = base64url(BOB.sign(unbase64url(said["to_sign"])))
    # The key may stand there as it comes out of openssl.
    signed = {"body": said["body"], "memo": said["memo"]}
    signed["signatures"] = [{"key": BOB.public_key.hex(), "signature": signature}]
    status, answer = post(world.url, {"statements": [signed]}, path="/v1/statements")
    assert status == 200, answer
    receipt = answer["results"][0]["receipt"]
    assert receipt["postings"] == said["preview"]["postings"]
    assert (receipt["id"], receipt["commons"]) == (said["id"], said["commons"])
    entry = world.line.get(f"/v1/commons/{world.commons.hex()}/entries/{receipt['seq']}")
    assert entry["memo"] == said["memo"]
    assert entry["by"] == said["by"] == did_of(BOB.public_key)


def test_preview_of_what_was_sent_already_is_what_it_did(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    now = world.line.time()
    form = {"type": "pay", "by": "bob", "legs": [["eve", "3"]], "id": id_text(new_id(now)), "expires": now + 60_000}
    _, said = world.prepare(form)
    signed = {"body": said["body"], "signatures": []}
    key, signature = did_of(BOB.public_key), base64url(BOB.sign(unbase64url(said["to_sign"])))
    signed["signatures"] = [{"key": key, "signature": signature}]
    post(world.url, {"statements": [signed]}, path="/v1/statements")
    _, again = world.prepare(form)
    assert again == said
    other = world.prepare({**form, "legs": [["eve", "4"]]})
    assert code_of(other) == "id-conflict"


def test_peers_are_named_by_did_by_key_or_by_handle_alike(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    now = world.line.time()
    times = {"id": id_text(new_id(now)), "expires": now + 60_000}
    bodies = set()
    for bob in ("bob", did_of(BOB.public_key), BOB.public_key.hex()):
        _, said = world.prepare({"type": "pay", "by": bob, "legs": [["eve", "1"]], "balancing": False, **times})
        bodies.add(said["body"])
    assert len(bodies) == 1


def test_what_is_left_out_is_filled_in(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    before = world.line.time()
    _, said = world.prepare({"type": "leave", "by": "eve"})
    made_ms = int.from_bytes(id_of(said["id"])[:6], "big")
    assert before <= made_ms <= world.line.time()
    assert said["expires"] == made_ms + 5 * 60 * 1000
    _, again = world.prepare({"type": "leave", "by": "eve"})
    assert again["id"] != said["id"]


def test_melt_stands_in_the_preview(fast_service: Service) -> None:
    world = World(fast_service.url, "open")
    world.wait_days(2)
    status, said = world.prepare({"type": "pay", "by": "bob", "legs": [["eve", "7"]]})
    assert status == 200, said
    postings = said["preview"]["postings"]
    assert [posting[0] for posting in postings[-2:]] == ["pay", "pay"]
    assert postings[0][:3] == ["melt", did_of(BOB.public_key), "WRG"]
    assert sum(int(amount) for *_, amount in postings) == 0


# ── As if everybody had signed ───────────────────────────────────────────────────────────────────────────────────


def test_preview_takes_all_to_have_signed_who_must(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    new = did_of(PHONE.public_key)
    assert code_of(world.prepare({"type": "keys", "by": "bob", "add": [new]})) == "accepted"
    assert code_of(world.prepare({"type": "keys", "by": "bob", "revoke": [did_of(BOB.public_key)]})) == "accepted"
    stewards = {"type": "stewards", "by": "ada", "stewards": ["ada", did_of(STRANGER.public_key)], "threshold": 2}
    assert code_of(world.prepare(stewards)) == "accepted"
    # … and nobody else: who is no steward does not become one by asking.
    assert code_of(world.prepare({"type": "issue", "by": "bob", "to": "eve", "amount": "1"})) == "not-authorised"


def test_a_peer_that_revoked_its_first_key_is_taken_to_sign_with_another(worlds: dict[str, World]) -> None:
    world = World(worlds["open"].url, "open")
    world.say("keys", BOB, OLD_PHONE, revoke=[BOB.public_key])
    assert code_of(world.prepare({"type": "pay", "by": "bob", "legs": [["eve", "1"]]})) == "accepted"
    world.say("keys", ADA, PHONE, add=[PHONE.public_key], revoke=[ADA.public_key])
    assert code_of(world.prepare({"type": "issue", "by": "ada", "to": "eve", "amount": "1"})) == "accepted"


def test_refusal_stands_in_the_preview_with_its_fields(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    status, said = world.prepare({"type": "pay", "by": "bob", "legs": [["eve", "1000000"]]})
    problem = said["preview"]["problem"]
    assert status == 200
    assert (problem["code"], problem["needed"], problem["status"]) == ("insufficient-funds", "1000000", 422)
    assert 0 < int(problem["available"]) < 10_000


def test_founding_is_previewed_for_this_ledger(service: Service) -> None:
    form = next(example for example in doc_examples() if example["type"] == "found")
    _, said = post(service.url, form)
    assert Line(service.url).ledger() in unbase64url(said["body"])
    assert code_of(post(service.url, {**form, "ledger": did_of(STRANGER.public_key)})) == "wrong-ledger"
    # The policy is as the protocol wants it, and so are the sums.
    over = {**form["policy"], "credit_limit": "5", "admission": "open"}
    assert code_of(post(service.url, {**form, "policy": over})) == "400 malformed"


# ── Who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────

PAY = {"type": "pay", "by": BOB.public_key.hex(), "legs": [[EVE.public_key.hex(), "1"]]}
JOIN = {"type": "join", "by": STRANGER.public_key.hex(), "handle": "newcomer"}


def test_open_commons_asks_for_no_token(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    for token_of in (None, STRANGER, BOB):
        assert code_of(world.prepare(PAY, token_of=token_of)) == "accepted"
    assert code_of(world.prepare(JOIN)) == "accepted"


@pytest.mark.parametrize("visibility", ["members", "parties"])
def test_elsewhere_who_speaks_must_ask(worlds: dict[str, World], visibility: str) -> None:
    world = worlds[visibility]
    assert code_of(world.prepare(PAY)) == "404 unknown-commons"
    assert code_of(world.prepare(PAY, token_of=STRANGER)) == "404 unknown-commons"
    assert code_of(world.prepare(PAY, token_of=PHONE, peer=BOB)) == "404 unknown-commons"
    assert code_of(world.prepare(PAY, token_of=EVE)) == "403 not-authorised"
    assert code_of(world.prepare(PAY, token_of=ADA)) == "403 not-authorised"
    assert code_of(world.prepare(PAY, token_of=BOB)) == "accepted"
    assert code_of(world.prepare(PAY, token_of=OLD_PHONE, peer=BOB)) == "accepted"
    assert code_of(world.prepare({**PAY, "by": "bob", "legs": [["eve", "1"]]}, token_of=BOB)) == "accepted"


@pytest.mark.parametrize("visibility", ["members", "parties"])
def test_stranger_may_ask_to_join_and_nothing_else(worlds: dict[str, World], visibility: str) -> None:
    world = worlds[visibility]
    assert code_of(world.prepare(JOIN, token_of=STRANGER)) == "accepted"
    assert code_of(world.prepare(JOIN)) == "404 unknown-commons"
    assert code_of(world.prepare(JOIN, token_of=EVE)) == "403 not-authorised"
    assert code_of(world.prepare({**JOIN, "by": "eve"}, token_of=STRANGER)) == "404 unknown-commons"
    assert code_of(world.prepare({**JOIN, "by": "nobody"}, token_of=STRANGER)) == "404 unknown-commons"
    assert code_of(world.prepare({**JOIN, "type": "leave"} | {}, token_of=STRANGER)) == "400 malformed"
    leave = {"type": "leave", "by": STRANGER.public_key.hex()}
    nowhere = world.prepare(leave, token_of=STRANGER)
    elsewhere = world.prepare({**leave, "commons": "0" * 32}, token_of=STRANGER)
    assert nowhere == elsewhere


@pytest.mark.parametrize("visibility", ["members", "parties"])
def test_who_does_not_see_the_members_learns_of_none(worlds: dict[str, World], visibility: str) -> None:
    world = worlds[visibility]
    cy, may = CY.public_key.hex(), MAY.public_key.hex()
    # Cy waits, may has left. A handle that is held and one that is not are answered alike …
    for peer, by in ((CY, cy), (MAY, may)):
        for handle in ("eve", "nobody"):
            form = {"type": "pay", "by": by, "legs": [[handle, "1"]]}
            assert code_of(world.prepare(form, token_of=peer)) == "404 unknown-member"
    # … and whether a key belongs to somebody is not told by a signature that is only assumed.
    for key in (EVE, PHONE):
        form = {"type": "keys", "by": cy, "add": [did_of(key.public_key)]}
        assert code_of(world.prepare(form, token_of=CY)) == "not-authorised"
    form = {"type": "keys", "by": "bob", "add": [did_of(EVE.public_key)]}
    assert code_of(world.prepare(form, token_of=BOB)) == "key-taken"
    # One's own handle is no news.
    assert code_of(world.prepare({"type": "join", "by": "may", "handle": "may"}, token_of=MAY)) == "accepted"


def test_bad_token_is_refused_even_where_none_is_needed(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    form = {"commons": world.commons.hex(), **PAY}
    assert code_of(post(world.url, form, Authorization="Bearer nonsense")) == "401 bad-token"


def test_melt_of_others_is_not_told_to_who_may_not_see_their_accounts(fast_service: Service) -> None:
    melted: dict[str, set[str]] = {}
    for visibility in ("members", "parties"):
        world = World(fast_service.url, visibility)
        world.wait_days(2)
        _, said = world.prepare({"type": "pay", "by": "bob", "legs": [["eve", "1"]]}, token_of=BOB)
        postings = said["preview"]["postings"]
        assert sum(int(amount) for *_, amount in postings) == 0
        melted[visibility] = {holder for reason, holder, *_ in postings if reason == "melt"}
    bob, eve = did_of(BOB.public_key), did_of(EVE.public_key)
    assert melted == {"members": {bob, eve, "pool"}, "parties": {bob, "pool"}}


@pytest.mark.parametrize("memo", [":)", " : x", ":", '":', '\\":', '","by":"', " :", "\n:", "{}:[]"])
def test_memo_may_look_like_a_members_name(worlds: dict[str, World], memo: str) -> None:
    world = worlds["open"]
    status, said = world.prepare({**PAY, "memo": memo})
    assert (status, said["memo"]["text"]) == (200, memo), said


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────

_BOB = did_of(BOB.public_key)
_FOUND = next(example for example in doc_examples() if example["type"] == "found")
BAD: dict[str, Any] = {
    "no JSON": b"{",
    "no object": b"[]",
    "no type": {"by": _BOB},
    "a type of the ledger's": {"type": "sweep", "by": _BOB, "accounts": [_BOB]},
    "a type that is none": {"type": ["pay"], "by": _BOB},
    "a field of another type": {**PAY, "to": _BOB},
    "a member twice": b'{"type":"leave","commons":"%s","by":"bob","by":"bob"}',
    "a member twice, one escaped": rb'{"type":"leave","commons":"%s","by":"bob","b\u0079":"bob"}',
    "a member twice beside a memo like one": b'{"type":"leave","commons":"%s","by":"bob","by":"bob","memo":":)"}',
    "a member twice, deep inside": json.dumps(_FOUND).replace('"scale": 2', '"scale": 2, "scale": 2').encode(),
    "an amount as a number": {**PAY, "legs": [[_BOB, 1]]},
    "an amount with a line's end": {**PAY, "legs": [[_BOB, "1\n"]]},
    "an amount of other digits": {**PAY, "legs": [[_BOB, "١"]]},
    "an amount below zero": {**PAY, "legs": [[_BOB, "-1"]]},
    "an amount of nothing": {**PAY, "legs": [["eve", "0"]]},
    "an amount too large": {**PAY, "legs": [["eve", "1000000000000001"]]},
    "no legs": {**PAY, "legs": []},
    "nobody pays themselves": {**PAY, "legs": [["bob", "1"]]},
    "a did of no key": {**PAY, "by": "did:key:z6Mk" + "1" * 44},
    "a key with a line's end": {**PAY, "by": BOB.public_key.hex() + "\n"},
    "a reserved holder": {**PAY, "by": "pool"},
    "an id that is no UUIDv7": {**PAY, "id": "00000000-0000-0000-0000-000000000000"},
    "an id before its end": {**PAY, "id": "0195d0c5-0a00-7000-8000-000000000000"},
    "expires as text": {**PAY, "expires": "1"},
    "expires beyond any clock": {**PAY, "expires": 2**63},
    "a memo too long": {**PAY, "memo": "x" * 1001},
    "a memo with a bell": {**PAY, "memo": "\a"},
    "half a character": b'{"type":"leave","commons":"%s","by":"bob","memo":"\\ud800"}',
    "a handle where a key stands": {"type": "keys", "by": "bob", "add": ["eve"]},
    "null for absent": {**PAY, "memo": None},
}


@pytest.mark.parametrize("what", BAD)
def test_malformed_statement_is_refused(worlds: dict[str, World], what: str) -> None:
    world = worlds["open"]
    name = world.commons.hex()
    body = BAD[what]
    if isinstance(body, bytes):
        answer = post(world.url, body.replace(b"%s", name.encode()))
    else:
        answer = post(world.url, {"commons": name, **body})
    assert code_of(answer) == "400 malformed"
    assert len(answer[1]["detail"]) > 20


def test_founding_names_nobody_by_handle(service: Service) -> None:
    form = _FOUND
    assert code_of(post(service.url, {**form, "stewards": ["ada"], "threshold": 1})) == "400 malformed"
    assert code_of(post(service.url, {**form, "commons": "0" * 32})) == "400 malformed"


def test_unknown_names_are_told_apart(worlds: dict[str, World]) -> None:
    world = worlds["open"]
    assert code_of(world.prepare({**PAY, "commons": "0" * 32})) == "404 unknown-commons"
    assert code_of(world.prepare({**PAY, "legs": [["nobody", "1"]]})) == "404 unknown-member"
    assert code_of(world.prepare({**PAY, "legs": [[did_of(STRANGER.public_key), "1"]]})) == "unknown-member"
    # A commons whose name begins the same is another one.
    begins = world.commons.hex()[:16] + "0" * 16
    assert code_of(world.prepare({**PAY, "commons": begins})) == "404 unknown-commons"


def test_body_of_another_kind_or_size_is_refused(service: Service) -> None:
    assert code_of(post(service.url, PAY, **{"Content-Type": "text/plain"})) == "415 unsupported-media-type"
    assert code_of(post(service.url, b" " * (64 * 1024) + b"{}")) == "413 too-large"
    many = [[did_of(signer_of(f"payee {n}").public_key), "1"] for n in range(257)]
    assert code_of(post(service.url, {"commons": "0" * 32, **PAY, "legs": many})) == "400 malformed"
    assert code_of(post(service.url, b"[" * 60_000)) == "400 malformed"


# ── The page for the shell ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "openssl", "jq", "awk", "bash"))), reason="a tool of the page is not here"
)
def test_wallet_of_the_shell_page_works_as_it_is_written(service: Service, folder: Path) -> None:
    page = (ROOT / "docs" / "shell.md").read_text()
    walk = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    # The page's token, where one is needed: the same founding, closed to strangers.
    closed = walk[walk.index('say ada.pem \'{type: "found"') : walk.index("commons=$(jq")].replace(
        '"open"', '"members"'
    )
    assert '"members"' in closed
    more = f"""
    commons=
    {closed}
    commons=$(jq -r .commons prepared.json)
    say bob.pem '{{type: "join", handle: "bob"}}'
    token=
    if say ada.pem '{{type: "join", handle: "ada"}}' > refused.json; then exit 9; fi
    jq -r .code refused.json
    """
    done = subprocess.run(
        ["bash", "-euc", walk + more],
        cwd=folder,
        env={**os.environ, "GESELL_URL": service.url, "PATH": f"{scripts()}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = done.stdout.splitlines()
    assert lines[lines.index("250") + 1] == "9750"
    assert any("It holds: this is entry" in line for line in lines)
    assert lines[-1] == "unknown-commons"

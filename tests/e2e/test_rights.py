"""Who may read what: every path of a commons × every kind of reader × every visibility (SPEC §7.3).

Three commons with the same people in them, one for each visibility. What a reader gets follows from the class it is in;
who sees nothing must get, word for word, what it would get where there is no such commons at all.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest

from gesell_ledger.api.routes import ROUTES
from gesell_ledger.api.routing import Route
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Memo
from gesell_protocol.names import base64url, did_of, id_of, id_text, time_of_id, unbase64url
from tests.running import Service
from tests.speaking import HOUR_MS, POLICY, Line, name_of, new_id, signer_of, write_envelope, write_found, write_token

NOWHERE = "0123456789abcdef0123456789abcdef"
VISIBILITIES = ("open", "members", "parties")

STEWARD, ADA, BOB, SUE, PIA, LEO, RITA = map(signer_of, ("steward", "ada", "bob", "sue", "pia", "leo", "rita"))
CAT = signer_of("cat")
GONE, STRANGER, PHONE, LOST, SPARE = map(signer_of, ("gone", "stranger", "ada phone", "ada lost", "rita spare"))


@dataclass(frozen=True)
class Reader:
    """Who asks: the key that signs the token (None: no token), and the peer it speaks for if that is another."""

    signer: Signer | None
    of: Signer | None = None

    @property
    def peer(self) -> Signer:
        """Whose own things it asks for; a stranger asks for what would be its own."""
        return self.of or self.signer or STRANGER


READERS: Mapping[str, Reader] = {
    "no token": Reader(None),
    "a stranger": Reader(STRANGER),
    "a steward who is no member": Reader(STEWARD),
    "an active member": Reader(ADA),
    "an active member by an added key": Reader(PHONE, ADA),
    "an active member by a revoked key": Reader(LOST, ADA),
    "an active member by somebody else's key": Reader(STRANGER, ADA),
    "an active member by another member's key": Reader(BOB, ADA),
    "an active member by its revoked root key": Reader(RITA),
    "an active member by the key that replaced the root": Reader(SPARE, RITA),
    "an added key for itself": Reader(PHONE),
    "a suspended member": Reader(SUE),
    "one who has left": Reader(LEO),
    "one who waits to be admitted": Reader(PIA),
    "one who took the request back": Reader(GONE),
}

#: How much each reader sees where the commons is not open: "member" is everything under `members`, and under `parties`
#: the commons and its own; "past" its own past; "request" its own request; "nothing" not even that there is a commons.
CLASSES = {
    "a steward who is no member": "everything",
    "an active member": "member",
    "an active member by an added key": "member",
    "an active member by the key that replaced the root": "member",
    "a suspended member": "member",
    "one who has left": "past",
    "one who waits to be admitted": "request",
    "one who took the request back": "request",
}

OK, NOT_YOURS, HIDDEN_MEMBER, HIDDEN = (200, None), (403, "not-authorised"), (404, "unknown-member"), (404, "not-found")

#: path → what the classes get, in this order: everything, own (a member under `parties`), past, request.
#: {me} is the reader's did, {bob} another member's, {own} and {other} ids of statements, {n:…} numbers of entries.
TABLE: Mapping[str, tuple[tuple[int, str | None], ...]] = {
    "/commons/{c}": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/{me}": (OK, OK, OK, OK),
    "/commons/{c}/members/{bob}": (OK, OK, HIDDEN_MEMBER, HIDDEN_MEMBER),
    "/commons/{c}/members/bob": (OK, OK, HIDDEN_MEMBER, HIDDEN_MEMBER),
    "/commons/{c}/members/nobody": (HIDDEN_MEMBER,) * 4,
    "/commons/{c}/members?trusted_by={me}": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members?trusted_by=bob": (OK, NOT_YOURS, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members?trusted_by=nobody": (HIDDEN_MEMBER, HIDDEN_MEMBER, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/{me}/trust?to=bob": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/bob/trust?to={me}": (OK, NOT_YOURS, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/bob/trust?to=sue": (OK, NOT_YOURS, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/bob/trust?to=nobody": (HIDDEN_MEMBER, HIDDEN_MEMBER, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/{me}/balances": (OK, OK, OK, NOT_YOURS),
    "/commons/{c}/members/{bob}/balances": (OK, NOT_YOURS, HIDDEN_MEMBER, HIDDEN_MEMBER),
    "/commons/{c}/members/{me}/postings": (OK, OK, OK, NOT_YOURS),
    "/commons/{c}/members/{bob}/postings": (OK, NOT_YOURS, HIDDEN_MEMBER, HIDDEN_MEMBER),
    "/commons/{c}/members/{me}/relationships": (OK, OK, OK, NOT_YOURS),
    "/commons/{c}/members/{bob}/relationships": (OK, NOT_YOURS, HIDDEN_MEMBER, HIDDEN_MEMBER),
    "/commons/{c}/members/{me}/standing": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/members/{bob}/standing": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/flow": (OK, OK, NOT_YOURS, NOT_YOURS),
    "/commons/{c}/entries": (OK, OK, OK, OK),
    "/commons/{c}/entries/1": (OK, OK, OK, HIDDEN),
    "/commons/{c}/entries/{n_join}": (OK, OK, OK, OK),
    "/commons/{c}/entries/{n_other}": (OK, HIDDEN, HIDDEN, HIDDEN),
    "/commons/{c}/entries/{n_policy}": (OK, OK, HIDDEN, HIDDEN),
    "/commons/{c}/entries/999999": (HIDDEN,) * 4,
    "/commons/{c}/gifts": (OK, OK, OK, OK),
    "/commons/{c}/gifts/{gift}": (OK, HIDDEN, HIDDEN, HIDDEN),
    "/commons/{c}/statements/{own}": (OK, OK, OK, OK),
    "/commons/{c}/statements/{other}": (OK, HIDDEN, HIDDEN, HIDDEN),
}

#: What who sees everything gets only where the commons is open: stewards neither, elsewhere.
OPEN_ONLY = frozenset({"/commons/{c}/members/{bob}/relationships"})


@dataclass(frozen=True)
class Place:
    """One commons: its name, and the numbers and ids of entries by what they are."""

    name: str
    joined: Mapping[bytes, tuple[int, str]]
    other: tuple[int, str]
    policy: int
    parties: Mapping[int, frozenset[bytes]]
    gift: str


Say = Callable[..., tuple[int, str]]


class World:
    """The service with its three commons."""

    def __init__(self, service: Service) -> None:
        self.url = service.url
        self.line = Line(service.url)
        self.ledger = self.line.ledger()
        self.places = {visibility: self._found(visibility) for visibility in VISIBILITIES}

    def token(self, reader: Reader) -> str | None:
        if reader.signer is None:
            return None
        peer = reader.of.public_key if reader.of is not None else None
        return write_token(reader.signer, ledger=self.ledger, now_ms=self.line.time(), peer=peer)

    def ask(self, reader: Reader, path: str) -> tuple[int, dict[str, object]]:
        line = Line(self.url, token=self.token(reader))
        try:
            return line.ask(path)
        finally:
            line.close()

    def _found(self, visibility: str) -> Place:
        now = self.line.time()
        policy = {**POLICY, "visibility": visibility, "admission": "steward"}
        found = write_found([STEWARD], ledger=self.ledger, now_ms=now, policy=policy, memo=Memo(b"s" * 16, visibility))
        [first] = self.line.post([found])
        commons = name_of(found)
        seqs: dict[int, frozenset[bytes]] = {}
        everybody = frozenset({b""})

        def say(
            kind: str, by: Signer, /, *more: Signer, concerns: frozenset[bytes], **fields: object
        ) -> tuple[int, str]:
            name = new_id(now)
            envelope = write_envelope(kind, by.public_key, [by, *more], now_ms=now, commons=commons, id=name, **fields)
            [result] = self.line.post([envelope])
            assert result["status"] == "accepted", (kind, result)
            seqs[result["receipt"]["seq"]] = concerns
            return result["receipt"]["seq"], id_text(name)

        assert first["status"] == "accepted", first
        seqs[1] = everybody | {STEWARD.public_key}
        joined = {}
        people = {"ada": ADA, "bob": BOB, "sue": SUE, "pia": PIA, "leo": LEO, "rita": RITA, "gone": GONE, "cat": CAT}
        for handle, who in people.items():
            joined[who.public_key] = say("join", who, concerns=_of(who), handle=handle)
        for who in (ADA, BOB, SUE, LEO, RITA, CAT):
            say("admit", STEWARD, concerns=_of(STEWARD, who), peer=who.public_key)
        say("leave", GONE, concerns=_of(GONE))
        for who in (ADA, BOB, SUE, LEO, RITA):
            say("issue", STEWARD, concerns=_of(STEWARD, who), to=who.public_key, amount=1000)
        say("keys", ADA, PHONE, LOST, concerns=_of(ADA), add=[PHONE.public_key, LOST.public_key])
        say("keys", ADA, concerns=_of(ADA), revoke=[LOST.public_key])
        say("keys", RITA, SPARE, concerns=_of(RITA), add=[SPARE.public_key], revoke=[RITA.public_key])
        say("pay", ADA, concerns=_of(ADA, SUE), legs=[[SUE.public_key, 10]])
        other = say("retire", BOB, concerns=_of(BOB), amount=5)
        gift = self._give(say, everybody)
        changed, _ = say("policy", STEWARD, concerns=everybody | _of(STEWARD), policy=policy, from_tick=10**9)
        say("suspend", STEWARD, concerns=_of(STEWARD, SUE), peer=SUE.public_key)
        say("leave", LEO, concerns=_of(LEO))
        return Place(commons.hex(), joined, other, changed, seqs, gift)

    @staticmethod
    def _give(say: Say, everybody: frozenset[bytes]) -> str:
        """Gifts and a hold, whose answers concern both sides though they name neither; the id of one between others."""
        say("kind", STEWARD, concerns=everybody | _of(STEWARD), code="bread", name="Bread", unit="1", scale=0)
        _, gift = say("gift", BOB, concerns=_of(BOB, CAT), to=CAT.public_key, kind="hour", quantity=150)
        say("thank", CAT, concerns=_of(BOB, CAT), gift=id_of(gift))
        for giver, receiver, answer in ((ADA, SUE, "decline"), (SUE, ADA, "withdraw"), (LEO, ADA, "decline")):
            both = _of(giver, receiver)
            _, given = say("gift", giver, concerns=both, to=receiver.public_key, kind="hour", quantity=1)
            say(answer, giver if answer == "withdraw" else receiver, concerns=both, gift=id_of(given))
        _, given = say("gift", ADA, concerns=everybody | _of(ADA), to="pool", kind="hour", quantity=1)
        say("decline", STEWARD, concerns=everybody | _of(STEWARD, ADA), gift=id_of(given))
        until = time_of_id(id_of(given)) + 24 * HOUR_MS
        for ended in ("capture", "void"):
            _, held = say("hold", ADA, concerns=_of(ADA, RITA), to=RITA.public_key, amount=1, until=until)
            amount = {"amount": 1} if ended == "capture" else {}
            say(ended, RITA, SPARE, concerns=_of(ADA, RITA), hold=id_of(held), **amount)
        return gift


def _of(*signers: Signer) -> frozenset[bytes]:
    return frozenset(signer.public_key for signer in signers)


@pytest.fixture(scope="module")
def world(service: Service) -> Iterator[World]:
    made = World(service)
    yield made
    made.line.close()


def filled(path: str, place: Place, reader: Reader, *, commons: str | None = None) -> str:
    me = reader.peer.public_key
    n_join, own = place.joined.get(me, (1, id_text(bytes(16))))
    return "/v1" + path.format(
        c=commons or place.name,
        me=did_of(me),
        bob=did_of(BOB.public_key),
        n_join=n_join,
        n_other=place.other[0],
        n_policy=place.policy,
        own=own,
        other=place.other[1],
        gift=place.gift,
    )


def class_of(name: str, visibility: str) -> str:
    if visibility == "open":
        return "everything"
    found = CLASSES.get(name, "nothing")
    if found == "member":
        return "everything" if visibility == "members" else "own"
    return found


CASES = [(visibility, reader, path) for visibility in VISIBILITIES for reader in READERS for path in TABLE]


@pytest.mark.parametrize(("visibility", "name", "path"), CASES, ids=["·".join(case) for case in CASES])
def test_reader_gets_what_its_class_may_see(world: World, visibility: str, name: str, path: str) -> None:
    reader, place = READERS[name], world.places[visibility]
    status, answer = world.ask(reader, filled(path, place, reader))
    kind = class_of(name, visibility)
    if kind == "nothing":
        assert (status, answer["code"]) == (404, "unknown-commons"), answer
        return
    expected = TABLE[path][("everything", "own", "past", "request").index(kind)]
    if kind == "everything" and reader.peer.public_key not in place.joined and ("{me}" in path or "{own}" in path):
        expected = HIDDEN_MEMBER if "{me}" in path else HIDDEN  # sees everything, and has nothing of its own
    if path in OPEN_ONLY and visibility != "open" and expected == OK:
        expected = NOT_YOURS
    assert (status, answer.get("code")) == expected, answer


@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize("name", READERS)
def test_list_of_entries_holds_what_concerns_the_reader_and_nothing_else(
    world: World, visibility: str, name: str
) -> None:
    reader, place = READERS[name], world.places[visibility]
    kind = class_of(name, visibility)
    if kind == "nothing":
        return
    line = Line(world.url, token=world.token(reader))
    seqs = [item["seq"] for item in line.items(filled("/commons/{c}/entries?limit=2", place, reader))]
    line.close()
    me = reader.peer.public_key
    mine = {seq for seq, parties in place.parties.items() if me in parties}
    of_all = {seq for seq, parties in place.parties.items() if b"" in parties}
    expected = {
        "everything": set(place.parties),
        "own": mine | of_all,
        "past": mine | {1},
        "request": mine,
    }[kind]
    assert seqs == sorted(expected)


@pytest.mark.parametrize("name", [name for name in READERS if class_of(name, "members") == "nothing"])
@pytest.mark.parametrize("path", TABLE)
@pytest.mark.parametrize("visibility", ["members", "parties"])
def test_who_sees_nothing_can_not_tell_a_hidden_commons_from_none(
    world: World, visibility: str, path: str, name: str
) -> None:
    reader, place = READERS[name], world.places[visibility]
    there = world.ask(reader, filled(path, place, reader))
    nowhere = world.ask(reader, filled(path, place, reader, commons=NOWHERE))
    assert there == nowhere


@pytest.mark.parametrize("visibility", ["members", "parties"])
@pytest.mark.parametrize("name", READERS)
def test_hidden_commons_is_in_no_list(world: World, visibility: str, name: str) -> None:
    line = Line(world.url, token=world.token(READERS[name]))
    listed = {item["commons"] for item in line.items("/v1/commons?limit=50")}
    line.close()
    assert world.places["open"].name in listed
    assert world.places[visibility].name not in listed


def test_no_cursor_names_a_hidden_commons(world: World) -> None:
    """Many hidden ones in a row, few open ones between them, and a stranger who goes from page to page."""
    now = world.line.time()
    drafts = [
        write_found(
            [STEWARD],
            ledger=world.ledger,
            now_ms=now,
            policy={**POLICY, "visibility": "open" if number % 20 == 0 else "members"},
        )
        for number in range(80)
    ]
    assert {result["status"] for result in world.line.post(drafts)} == {"accepted"}
    opened = {name_of(draft).hex() for draft in drafts[::20]}
    hidden = {name_of(draft) for draft in drafts} - {bytes.fromhex(name) for name in opened}
    hidden |= {bytes.fromhex(world.places[visibility].name) for visibility in ("members", "parties")}
    told, path = b"", "/v1/commons?limit=1"
    listed: list[str] = []
    while path:
        link, items = _page(world, path)
        listed += [item["commons"] for item in items]
        told += link.encode()
        path = link[1 : link.index(">")] if link else ""
        if link:
            told += unbase64url(parse_qs(urlsplit(path).query)["after"][0])
    assert opened <= set(listed)
    assert len(listed) == len(set(listed))
    for name in hidden:
        assert name.hex() not in listed
        parts = [name[:size] for size in (4, 8, 16)]
        assert not any(part in told or part.hex().encode() in told for part in parts)
        assert not any(base64url(part).rstrip("=").encode()[:-1] in told for part in parts[1:])


def _page(world: World, path: str) -> tuple[str, list[dict[str, str]]]:
    """The header Link of a page, and its items."""
    world.line._connection.request("GET", path)
    response = world.line._connection.getresponse()
    return response.getheader("Link", ""), json.loads(response.read())["items"]


def test_place_of_a_hidden_commons_is_no_cursor(world: World) -> None:
    for place in world.places.values():
        status, answer = world.line.ask(f"/v1/commons?after={base64url(bytes.fromhex(place.name))}")
        assert (status, answer["code"]) == (400, "malformed")


def test_table_has_every_path_of_a_commons_that_is_read() -> None:
    """Live entries, webhooks, the log and what else answers otherwise than with JSON have tables of their own."""
    plain = {path.partition("?")[0] for path in TABLE}
    named = {path.replace("/{me}", "/{m}").replace("/{bob}", "/{m}") for path in plain}
    named = {path.replace("{c}", "{commons}").replace("{m}", "{member}") for path in named}
    named = {re.sub(r"{own}|{gift}", "{id}", path.replace("{n_join}", "{seq}")) for path in named}
    served = {
        route.path.removeprefix("/v1")
        for route in ROUTES
        if route.method == "GET"
        and route.path.startswith("/v1/commons/")
        and not re.search("/webhooks|/log/|/proof$", route.path)
    }
    assert served <= named, served - named


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


_HS256 = b'{"alg":"HS256","typ":"JWT"}'


def _resigned(token: str, *, part: int, text: bytes) -> str:
    parts = token.split(".")
    parts[part] = base64url(text)
    return ".".join(parts)


def bad_tokens(world: World) -> dict[str, str]:
    """Tokens of an active member that do not hold, by what is wrong with each."""
    now, ledger = world.line.time(), world.ledger
    seconds = now // 1000
    good = write_token(ADA, ledger=ledger, now_ms=now)
    ada = did_of(ADA.public_key)

    def made(signer: Signer = ADA, **changes: object) -> str:
        return write_token(signer, ledger=ledger, now_ms=now, **changes)  # type: ignore[arg-type]

    claims = good.split(".")[1]
    # A verifier that lets the token choose would take the public key for a shared secret.
    shared = f"{base64url(_HS256)}.{claims}"
    hashed = hmac.new(ADA.public_key, shared.encode(), sha256).digest()
    return {
        "nothing": "",
        "no token": "hello",
        "two parts": good.rsplit(".", 1)[0],
        "four parts": good + ".e30",
        "a broken signature": good[:-4] + "AAAA",
        "another's signature": good.rsplit(".", 1)[0] + "." + made(BOB).rsplit(".", 1)[1],
        "other claims under the signature": _resigned(good, part=1, text=b'{"iss":"x"}'),
        "claims that are no object": _resigned(good, part=1, text=b"[]"),
        "claims that are no JSON": _resigned(good, part=1, text=b"{"),
        "another ledger": made(aud=did_of(BOB.public_key)),
        "no audience": made(aud=None),
        "a list of audiences": made(aud=[did_of(ledger)]),
        "expired": made(iat=seconds - 100, exp=seconds - 1),
        "expired this second": made(iat=seconds - 100, exp=seconds - 30),
        "issued tomorrow": made(iat=seconds + 86_400, exp=seconds + 86_500),
        "lives too long": made(exp=seconds + 86_401),
        "no end": made(exp=None),
        "no beginning": made(iat=None),
        "times as text": made(iat=str(seconds), exp=str(seconds + 60)),
        "times as fractions": made(exp=seconds + 60.5),
        "huge times": made(iat=seconds, exp=10**30),
        "not yet": made(nbf=seconds + 3600),
        "no issuer": made(iss=None),
        "no subject": made(sub=None),
        "subject is another": made(sub=did_of(BOB.public_key)),
        "issuer is no did": made(iss="ada", sub="ada"),
        "issuer is a number": made(iss=7, sub=7),
        "kid is a number": made(header={"kid": 7}),
        "kid is no did": made(header={"kid": "key-1"}),
        "no algorithm": _resigned(good, part=0, text=json.dumps({"alg": "none", "typ": "JWT"}).encode()),
        "alg none": made(header={"alg": "none"}),
        "alg HS256 with the public key": f"{shared}.{base64url(hashed)}",
        "critical extension": made(header={"crit": ["exp2"], "exp2": 1}),
        "too long": made(junk="x" * 5000),
        "a statement's did twice": made(iss=[ada], sub=[ada]),
    }


def test_bad_token_is_refused_everywhere_alike(world: World) -> None:
    places = [*(place.name for place in world.places.values()), NOWHERE]
    for what, token in bad_tokens(world).items():
        line = Line(world.url, token=token)
        for place in places:
            for path in (f"/v1/commons/{place}", f"/v1/commons/{place}/entries", "/v1", "/v1/", "/v1/commons"):
                status, answer = line.ask(path)
                assert (status, answer["code"]) == (401, "bad-token"), (what, place, answer)
        line.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_token_is_looked_at_first_on_every_path_of_the_protocol(world: World, route: Route) -> None:
    """Before the path, the query and the body are: whatever is wrong with those."""
    connection = world.line._connection
    path = re.sub(r"\{.*?\}", "nothing", route.path)
    connection.request(route.method, path + "?limit=nonsense", b"", {"Authorization": "Bearer rubbish"})
    response = connection.getresponse()
    answer = response.read()
    if route.path.startswith("/v1"):
        assert (response.status, json.loads(answer)["code"]) == (401, "bad-token")
        assert response.getheader("WWW-Authenticate") == 'Bearer error="invalid_token"'
    else:
        assert response.status in (200, 404)


@pytest.mark.parametrize("header", ["Basic YWRhOng=", "Bearer", "token", "", "Bearer a b"])
def test_header_that_bears_no_token_is_a_bad_token(world: World, header: str) -> None:
    line = Line(world.url)
    line._headers = {"Authorization": header}
    status, answer = line.ask(f"/v1/commons/{NOWHERE}")
    line.close()
    assert (status, answer["code"]) == (401, "bad-token")


def test_token_at_the_edges_of_its_time_holds(world: World) -> None:
    seconds = world.line.time() // 1000
    for iat, exp in ((seconds + 100, seconds + 200), (seconds, seconds + 86_400), (seconds - 86_000, seconds + 300)):
        token = write_token(ADA, ledger=world.ledger, now_ms=0, iat=iat, exp=exp)
        line = Line(world.url, token=token)
        assert line.ask(f"/v1/commons/{world.places['members'].name}")[0] == 200
        line.close()


def test_rights_follow_the_books_at_once(world: World) -> None:
    """One token, and what it opens as its bearer is admitted, adds and loses keys, is suspended and leaves."""
    newcomer, spare = signer_of("newcomer"), signer_of("newcomer's spare")
    place = world.places["parties"]
    commons = bytes.fromhex(place.name)
    line = Line(world.url, token=world.token(Reader(newcomer)))
    by_spare = Line(world.url, token=world.token(Reader(spare, newcomer)))

    def say(kind: str, by: Signer, *more: Signer, **fields: object) -> None:
        envelope = write_envelope(kind, by.public_key, [by, *more], now_ms=world.line.time(), commons=commons, **fields)
        assert world.line.post([envelope])[0]["status"] == "accepted"

    def seen(through: Line = line) -> tuple[int, int, int]:
        me = did_of(newcomer.public_key)
        paths = ("", f"/members/{me}", f"/members/{me}/balances")
        return tuple(through.ask(f"/v1/commons/{place.name}{path}")[0] for path in paths)  # type: ignore[return-value]

    assert seen() == (404, 404, 404)
    say("join", newcomer, handle="newcomer")
    assert seen() == (403, 200, 403)
    say("admit", STEWARD, peer=newcomer.public_key)
    assert seen() == (200, 200, 200)
    assert seen(by_spare) == (404, 404, 404)
    say("keys", newcomer, spare, add=[spare.public_key])
    assert seen(by_spare) == (200, 200, 200)
    say("suspend", STEWARD, peer=newcomer.public_key)
    assert seen() == (200, 200, 200)
    say("keys", newcomer, revoke=[newcomer.public_key])
    assert seen() == (404, 404, 404)
    envelope = write_envelope("leave", newcomer.public_key, [spare], now_ms=world.line.time(), commons=commons)
    assert world.line.post([envelope])[0]["status"] == "accepted"
    assert seen(by_spare) == (403, 200, 200)
    line.close()
    by_spare.close()

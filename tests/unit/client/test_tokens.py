"""Tokens: what they say, held against PyJWT; when they are used again; where they go."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from wire_ledger import BOB, KEY, WireLedger, problem, serving

from gesell import BadToken, Client, Peer, TooEarly, UnexpectedAnswer
from gesell.clock import LedgerClock
from gesell.tokens import Tokens, write_token

ADA = Peer(b"\x01" * 32)
PHONE = Peer(b"\x02" * 32)
NOW_MS = 1_800_000_000_123


def read(token: str, key: bytes) -> dict[str, Any]:
    public = Ed25519PublicKey.from_public_bytes(key)
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["iss", "sub", "aud", "iat", "exp"]}
    claims: dict[str, Any] = jwt.decode(token, public, algorithms=["EdDSA"], audience=KEY.did, options=options)
    return claims


def clock_at(now_ms: int, *, speed: int = 1) -> tuple[LedgerClock, list[float]]:
    """A clock whose monotonic seconds stand in the list."""
    seconds = [0.0]
    clock = LedgerClock(lambda: seconds[0])
    clock.sample(now_ms, speed=speed, received_at=0.0)
    return clock, seconds


def test_a_token_is_a_jwt_that_another_library_verifies() -> None:
    token = write_token(ADA, by=ADA.key, ledger=KEY.did, issued_s=10, expires_s=20)
    assert read(token, ADA.key) == {"iss": ADA.did, "sub": ADA.did, "aud": KEY.did, "iat": 10, "exp": 20}
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "JWT"}
    with pytest.raises(jwt.InvalidSignatureError):
        read(token, BOB.key)


def test_an_added_key_names_itself_and_speaks_for_its_peer() -> None:
    token = write_token(PHONE, by=ADA.key, ledger=KEY.did, issued_s=10, expires_s=20)
    assert jwt.get_unverified_header(token)["kid"] == PHONE.did
    assert read(token, PHONE.key)["iss"] == ADA.did


@pytest.mark.parametrize(("speed", "life_s"), [(1, 300), (60, 18_000), (288, 86_400), (86_400, 86_400)])
def test_a_token_lives_five_real_minutes_and_never_more_than_a_day_of_the_ledger(speed: int, life_s: int) -> None:
    clock, _ = clock_at(NOW_MS, speed=speed)
    claims = read(Tokens(ADA, by=ADA.key).new(ledger=KEY.did, clock=clock), ADA.key)
    assert claims["iat"] == NOW_MS // 1000
    assert claims["exp"] - claims["iat"] == life_s


def test_a_token_is_used_for_half_of_its_life() -> None:
    clock, seconds = clock_at(NOW_MS)
    tokens = Tokens(ADA, by=ADA.key)
    made = tokens.new(ledger=KEY.did, clock=clock)
    seconds[0] = 149.0
    assert tokens.kept(ledger=KEY.did, clock=clock) == made
    assert tokens.kept(ledger=BOB.did, clock=clock) is None
    seconds[0] = 151.0
    assert tokens.kept(ledger=KEY.did, clock=clock) is None


def test_where_a_day_passes_in_a_second_no_token_is_kept() -> None:
    clock, _ = clock_at(NOW_MS, speed=86_400)
    tokens = Tokens(ADA, by=ADA.key)
    tokens.new(ledger=KEY.did, clock=clock)
    assert tokens.kept(ledger=KEY.did, clock=clock) is None


def test_a_token_is_not_used_again_while_the_clock_is_in_doubt() -> None:
    clock, _ = clock_at(NOW_MS)
    tokens = Tokens(ADA, by=ADA.key)
    made = tokens.new(ledger=KEY.did, clock=clock)
    clock.forget()
    assert tokens.kept(ledger=KEY.did, clock=clock) is None
    clock.sample(NOW_MS, speed=1, received_at=0.0)
    assert tokens.kept(ledger=KEY.did, clock=clock) == made


# ── On the wire ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_open_is_read_without_a_token(ledger: WireLedger, gesell: Client) -> None:
    await gesell.pay("bob", "1")
    assert {token for _, token in ledger.tokens} == {None}


async def test_reads_of_a_closed_commons_carry_a_token_and_the_service_and_statements_do_not(
    ledger: WireLedger, gesell: Client
) -> None:
    ledger.closed = True
    await gesell.pay("bob", "1")
    asked = [path for path, token in ledger.tokens if "/commons/" in path and token is None]
    assert len(asked) == 1, "one read is enough to learn that the commons asks who reads"
    by_path = dict(ledger.tokens)
    assert by_path.pop("/v1") is None
    assert by_path.pop("/v1/statements") is None
    assert by_path
    for token in by_path.values():
        assert token is not None
        claims = read(token.removeprefix("Bearer "), ADA.key)
        assert claims["iss"] == ADA.did
        assert abs(claims["iat"] - time.time()) < 60


async def test_one_token_serves_many_reads(ledger: WireLedger, gesell: Client) -> None:
    ledger.closed = True
    for _ in range(4):
        await gesell.member("bob")
    assert len({token for path, token in ledger.tokens if token is not None}) == 1
    assert ledger.reads.count("/v1") == 1


async def test_a_client_without_a_peer_shows_no_token(ledger: WireLedger) -> None:
    async with serving(ledger) as url, Client(url, commons=ledger.commons, by=ADA.did) as reader:
        await reader.member("bob")
    assert {token for _, token in ledger.tokens} == {None}


async def test_an_added_key_reads_for_its_peer(ledger: WireLedger) -> None:
    ledger.closed = True
    async with serving(ledger) as url, Client(url, commons=ledger.commons, peer=PHONE, by=ADA.did) as gesell:
        await gesell.member("bob")
    token = ledger.tokens[-1][1]
    assert token is not None
    assert read(token.removeprefix("Bearer "), PHONE.key)["sub"] == ADA.did


async def test_a_token_taken_for_bad_is_made_anew_once_by_a_fresh_clock(ledger: WireLedger, gesell: Client) -> None:
    ledger.closed = True
    await gesell.member("bob")
    ledger.odd_reads = [lambda *_: problem("bad-token", 401)]
    await gesell.member("bob")
    assert ledger.reads.count("/v1") == 2
    ledger.odd_reads = [lambda *_: problem("bad-token", 401)] * 2
    with pytest.raises(BadToken):
        await gesell.member("bob")
    assert ledger.odd_reads == []


async def test_a_token_is_never_sent_to_another_origin(ledger: WireLedger, gesell: Client) -> None:
    other = WireLedger()
    await gesell.currency()
    async with serving(other) as elsewhere:

        async def lead_away(request: web.Request, _: WireLedger) -> web.Response:
            return web.json_response({"items": []}, headers={"Link": f'<{elsewhere}/v1/x>; rel="next"'})

        async def redirect(request: web.Request, _: WireLedger) -> web.Response:
            raise web.HTTPTemporaryRedirect(f"{elsewhere}{request.path}")

        ledger.odd_reads = [lead_away]
        with pytest.raises(UnexpectedAnswer, match="another origin"):
            assert [member async for member in gesell.members()] == []
        ledger.odd_reads = [redirect]
        with pytest.raises(UnexpectedAnswer):
            await gesell.member("bob")
    assert other.tokens == []


async def test_a_closed_commons_is_read_on_after_a_statement_that_came_too_early(
    ledger: WireLedger, gesell: Client
) -> None:
    ledger.closed = True
    await gesell.member("bob")
    ledger.odd = [lambda *_: problem("too-early", 422)]
    with pytest.raises(TooEarly):
        await gesell.pay("bob", "1")
    assert (await gesell.member("bob")).handle == "bob"


async def test_an_envelope_of_a_closed_commons_does_not_close_the_client_s_own(ledger: WireLedger) -> None:
    ledger.closed = True
    own = bytes(16)
    async with serving(ledger) as url, Client(url, commons=ledger.commons, peer=ADA) as member:
        envelope = await member.sign({"type": "pay", "legs": [(BOB, 1)]})
        async with Client(url, commons=own, peer=ADA, check=False) as carrier:
            [result] = await carrier.submit([envelope])
            assert result.status == "accepted"
            assert carrier._link.closed == {ledger.commons}
            ledger.tokens.clear()
            with pytest.raises(UnexpectedAnswer):
                await carrier.as_commons(ledger.commons).commons_list()
    assert ledger.tokens == [("/v1/commons", None)], "what commons there are is told to everybody"


async def test_no_token_is_made_out_to_another_ledger_than_the_one_that_keeps_the_commons(
    ledger: WireLedger, gesell: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gesell.currency()
    ledger.closed = True

    async def as_another(self: WireLedger, request: web.Request) -> web.Response:
        fields = {"ledger": BOB.did, "version": "0", "time": self.time_ms(), "clock_speed": 1}
        return web.json_response({**fields, "limits": {"statements": 10_000}})

    monkeypatch.setattr(WireLedger, "service", as_another)
    async with serving(ledger) as url, Client(url, commons=ledger.commons, peer=ADA) as relayed:
        relayed._link.founded.update(gesell._link.founded)
        with pytest.raises(UnexpectedAnswer, match="is kept by"):
            await relayed.member("bob")
        with pytest.raises(UnexpectedAnswer, match="is kept by"):
            await relayed.add_webhook("https://shop.example/gesell")
    assert {token for _, token in ledger.tokens} == {None}

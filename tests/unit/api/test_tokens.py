"""Tokens are verified once and judged each time, and what is remembered of them does not grow with them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gesell_ledger.api import tokens as module
from gesell_ledger.api.tokens import AHEAD_MAX_SECONDS, TOKEN_MAX_CHARS, BadToken, Tokens
from gesell_protocol.names import did_of
from tests.speaking import signer_of, write_token

ADA, LEDGER = signer_of("ada"), signer_of("ledger").public_key
NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000


def token(**claims: Any) -> str:
    return write_token(ADA, ledger=LEDGER, now_ms=NOW_MS, **claims)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(ledger=LEDGER)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signature was looked at, one for each look."""
    looked: list[str] = []
    decode = module.jwt.decode

    def count(text: str, *more: Any, **options: Any) -> Any:
        looked.append(text)
        return decode(text, *more, **options)

    monkeypatch.setattr(module.jwt, "decode", count)
    return looked


def test_token_is_verified_once(tokens: Tokens, verified: list[str]) -> None:
    mine = token()
    first = tokens.verify(mine, now_ms=NOW_MS)
    assert tokens.verify(mine, now_ms=NOW_MS + 1) is first
    assert (first.peer, first.key, first.issued, first.expires) == (ADA.public_key,) * 2 + (NOW_S, NOW_S + 3600)
    assert verified == [mine]


def test_known_token_is_held_against_the_clock_each_time(tokens: Tokens, verified: list[str]) -> None:
    mine = token(exp=NOW_S + 60)
    tokens.verify(mine, now_ms=NOW_MS)
    tokens.verify(mine, now_ms=NOW_MS + 59_999)
    with pytest.raises(BadToken, match="expired"):
        tokens.verify(mine, now_ms=NOW_MS + 60_000)
    with pytest.raises(BadToken, match="ahead"):  # a demo's clock may be set back
        tokens.verify(mine, now_ms=NOW_MS - (AHEAD_MAX_SECONDS + 1) * 1000)
    assert verified == [mine]


def test_token_that_does_not_hold_is_not_remembered(tokens: Tokens) -> None:
    for bad in (token(exp=NOW_S - 1), token(sub="x"), "rubbish"):
        with pytest.raises(BadToken):
            tokens.verify(bad, now_ms=NOW_MS)
    assert tokens._known == {}


def test_what_is_remembered_is_as_small_for_the_largest_token(tokens: Tokens) -> None:
    deep = [[[]]] * 200
    tokens.verify(token(), now_ms=NOW_MS)
    tokens.verify(token(junk=deep, more={str(n): [] for n in range(100)}), now_ms=NOW_MS)
    small, large = (sum(map(size_of, item)) for item in tokens._known.items())
    assert small == large < 1_000


def size_of(value: Any) -> int:
    """The bytes that a value and all that hangs on it take."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list):
        return size + sum(map(size_of, value))
    return size + sum(size_of(getattr(value, name)) for name in getattr(type(value), "__slots__", ()))


def test_only_so_many_are_remembered(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 3)
    for seconds in range(10):
        tokens.verify(token(exp=NOW_S + 60 + seconds), now_ms=NOW_MS)
        assert len(tokens._known) <= 3


def test_claims_are_read_and_not_remembered(tokens: Tokens) -> None:
    mine = token(webhook={"url": "https://x.example"})
    bearer, claims = tokens.read(mine, now_ms=NOW_MS)
    assert (bearer.peer, claims["webhook"]) == (ADA.public_key, {"url": "https://x.example"})
    assert tokens._known == {}
    with pytest.raises(BadToken, match="expired"):
        tokens.read(mine, now_ms=NOW_MS + 86_400_000)


@pytest.mark.parametrize(
    "audience", [[did_of(LEDGER)], [did_of(LEDGER), "x"], [], {"a": 1}, 7, "x", did_of(LEDGER) + " "]
)
def test_audience_is_the_did_of_the_ledger_and_nothing_else(tokens: Tokens, audience: object) -> None:
    with pytest.raises(BadToken):
        tokens.verify(token(aud=audience), now_ms=NOW_MS)


@pytest.mark.parametrize(
    "text", ["", "x" * TOKEN_MAX_CHARS, "x" * (TOKEN_MAX_CHARS + 1), "ü.ö.ä", "\udce4.a.b", "." * 99]
)
def test_what_is_no_token_is_a_bad_one(tokens: Tokens, text: str) -> None:
    with pytest.raises(BadToken):
        tokens.verify(text, now_ms=NOW_MS)

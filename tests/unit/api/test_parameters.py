"""What may stand in a path or a query, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from gesell_ledger.api import parameters
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_protocol.names import base64url, did_of

KEY = bytes(range(32))
DID = did_of(KEY)

GOOD: list[tuple[Parameter[Any], str, Any]] = [
    (parameters.LIMIT, "1", 1),
    (parameters.LIMIT, "1000", 1000),
    (parameters.AFTER_SEQ, "0", 0),
    (parameters.AFTER_SEQ, str(2**63 - 1), 2**63 - 1),
    (parameters.AT, "0", 0),
    (parameters.ORDER, "desc", "desc"),
    (parameters.ASSET, "hour", "hour"),
    (parameters.AFTER_COMMONS, base64url(KEY[:16]), KEY[:16]),
    (parameters.AFTER_MEMBER, base64url(KEY), KEY),
    (parameters.AFTER_LINE, "12.3", (12, 3)),
    (parameters.COMMONS, KEY[:16].hex(), KEY[:16]),
    (parameters.MEMBER, DID, KEY),
    (parameters.MEMBER, "ada", "ada"),
    (parameters.SEQ, "7", 7),
    (parameters.ID, "0195d0c5-0a00-7000-8000-000000000000", bytes.fromhex("0195d0c50a0070008000000000000000")),
]

BAD: list[tuple[Parameter[Any], str, str]] = [
    *((parameters.LIMIT, text, "malformed") for text in ("", "0", "1001", "-1", "+1", "1.0", "1e2", " 1", "1\n", "١")),
    *((parameters.LIMIT, text, "malformed") for text in ("9" * 40, "true", "1_0", "0x1")),
    *((parameters.AFTER_SEQ, text, "malformed") for text in ("-1", str(2**63), "a")),
    (parameters.ORDER, "ASC", "malformed"),
    (parameters.ASSET, "W R G", "not-found"),
    (parameters.AFTER_COMMONS, base64url(KEY), "malformed"),
    (parameters.AFTER_MEMBER, "=" * 43, "malformed"),
    *((parameters.AFTER_LINE, text, "malformed") for text in ("1", "1.", ".1", "1.2.3", "1.2\n", "9" * 19 + ".1")),
    *((parameters.COMMONS, text, "unknown-commons") for text in ("", "xx", "00" * 15, "00" * 17, "0" * 32 + "\n")),
    *((parameters.MEMBER, text, "unknown-member") for text in ("", "Ada", "pool\n", DID[:-1], DID + "\n", "did:web:x")),
    *((parameters.SEQ, text, "not-found") for text in ("0", "-1", "x", str(2**63))),
    *((parameters.ID, text, "not-found") for text in ("", "x", "0195d0c5-0a00-7000-8000-00000000000", "0" * 32)),
]


def _request(parameter: Parameter[Any], text: str) -> Any:
    if parameter.place == "path":
        return make_mocked_request("GET", "/", match_info={parameter.name: text})
    request = make_mocked_request("GET", "/")
    return request.clone(rel_url=request.rel_url.with_query({parameter.name: text}))


@pytest.mark.parametrize(("parameter", "text", "value"), GOOD, ids=[f"{one.name}={text}" for one, text, _ in GOOD])
def test_value_is_read(parameter: Parameter[Any], text: str, value: Any) -> None:
    assert parameter.read(_request(parameter, text)) == value


@pytest.mark.parametrize(("parameter", "text", "code"), BAD, ids=[f"{one.name}={text!r:.30}" for one, text, _ in BAD])
def test_what_does_not_fit_is_refused_with_its_code(parameter: Parameter[Any], text: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parameter.read(_request(parameter, text))
    assert refused.value.refusal.code == code


def test_default_stands_in_for_what_is_not_said() -> None:
    request = make_mocked_request("GET", "/")
    assert parameters.LIMIT.read(request) == parameters.LIMIT_DEFAULT
    assert parameters.AT.find(request) is None


def test_default_is_within_what_may_be_said() -> None:
    for parameter in vars(parameters).values():
        if isinstance(parameter, Parameter) and parameter.default is not None:
            msgspec.convert(parameter.default, parameter.type)


@pytest.mark.parametrize("query", ["limt=1", "limit=1&limt=1", "limit=1&limit=1", "Limit=1", "=1", "_=1", "x" * 5000])
def test_a_query_says_nothing_that_is_not_known_and_nothing_twice(query: str) -> None:
    with pytest.raises(Refused) as caught:
        parameters.check_query(make_mocked_request("GET", f"/?{query}"), {"limit", "after"})
    assert caught.value.refusal.code == "malformed"
    assert len(caught.value.refusal.detail) < 200


@pytest.mark.parametrize("query", ["", "limit=1", "limit=1&after=2", "limit="])
def test_a_query_says_what_is_known(query: str) -> None:
    parameters.check_query(make_mocked_request("GET", f"/?{query}"), {"limit", "after"})

"""Statements as peers write them, and the plainest way to hand them in: what several tests need to speak to a ledger.

Owns keys made from names, envelopes made from fields, and one blocking HTTP connection. Judges no answer.
"""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import msgpack

from gesell_ledger.core.decide import Submission
from gesell_protocol.canonical import unpack
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope, Memo
from gesell_protocol.names import base64url, commons_of, did_of, peer_of, uuid7
from gesell_protocol.statements import read_statement, write_body

HOUR_MS = 3_600_000
MSGPACK = "application/msgpack"

#: Hourly ticks and a melt that is easily seen; open to all, no credit.
POLICY: Final[Mapping[str, Any]] = {
    "tick_seconds": 3600,
    "rest_ticks": 0,
    "brackets": [[0, 20_000_000]],
    "melt_to": "pool",
    "admission": "open",
    "credit_limit": 0,
    "vouch_min": 1,
    "visibility": "open",
    "notice_ticks": 0,
}

_numbers = itertools.count()


def signer_of(name: str) -> Signer:
    """The key pair that a name stands for, the same in every run."""
    return Signer(sha256(f"test key {name}".encode()).digest())


def new_id(time_ms: int) -> bytes:
    """A UUIDv7 with this time inside, never the same twice in one process."""
    return uuid7(time_ms, sha256(str(next(_numbers)).encode()).digest()[:10])


def write_envelope(
    kind: str, by: bytes, signers: Iterable[Signer], /, *, now_ms: int, memo: Memo | None = None, **fields: Any
) -> Envelope:
    """Sign a statement; `id` (time `now_ms`) and `expires` (an hour later) are made up unless given."""
    fields = {"id": new_id(now_ms), "expires": now_ms + HOUR_MS, **fields}
    if memo is not None:
        fields["memo"] = memo.seal()
    return sign_body(write_body({"type": kind, "by": by, **fields}), signers, memo=memo)


def sign_body(body: bytes, signers: Iterable[Signer], *, memo: Memo | None = None) -> Envelope:
    """The envelope of a body with the signatures of these keys, in ascending order."""
    by_key = {signer.public_key: signer for signer in signers}
    signatures = tuple((key, by_key[key].sign(STATEMENT_PREFIX + body)) for key in sorted(by_key))
    return Envelope(body, signatures, memo)


def write_found(
    stewards: Sequence[Signer],
    *,
    ledger: bytes,
    now_ms: int,
    policy: Mapping[str, Any] = POLICY,
    threshold: int = 1,
    code: str = "WRG",
    **fields: Any,
) -> Envelope:
    """A founding by the first of the stewards, signed by all of them."""
    return write_envelope(
        "found",
        stewards[0].public_key,
        stewards,
        now_ms=now_ms,
        ledger=ledger,
        name="Wörgl",
        currency={"code": code, "scale": 2},
        policy=dict(policy),
        stewards=sorted(steward.public_key for steward in stewards),
        threshold=threshold,
        **fields,
    )


def name_of(found: Envelope) -> bytes:
    """The commons that a founding makes."""
    return commons_of(found.body)


def fields_of(envelope: Envelope) -> dict[str, Any]:
    """What a statement's body says."""
    fields = unpack(envelope.body)
    assert isinstance(fields, dict)
    return fields


def submission_of(envelope: Envelope) -> Submission:
    """What the intake makes of an envelope; its signatures are taken on trust."""
    return Submission(envelope, read_statement(envelope, min_tick_seconds=1))


def pack_request(envelopes: Sequence[Envelope]) -> bytes:
    """The MessagePack request that carries these envelopes."""
    return bytes(msgpack.packb({"statements": [envelope.wire() for envelope in envelopes]}))


def write_token(
    signer: Signer,
    *,
    ledger: bytes,
    now_ms: int,
    peer: bytes | None = None,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A read token that `signer` issues for `peer` (itself unless given, else named in `kid`), for an hour.

    `header` and `claims` replace what would stand there; a claim that is None is left out.
    """
    who = did_of(peer if peer is not None else signer.public_key)
    kid = {"kid": did_of(signer.public_key)} if peer is not None else {}
    now = now_ms // 1000
    said = {"iss": who, "sub": who, "aud": did_of(ledger), "iat": now, "exp": now + 3600, **claims}
    parts = [
        {"alg": "EdDSA", "typ": "JWT", **kid, **(header or {})},
        {name: claim for name, claim in said.items() if claim is not None},
    ]
    text = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    return f"{text}.{base64url(signer.sign(text.encode()))}"


class Line:
    """One HTTP connection to a service. Not for several threads at once; what the network raises passes through.

    With a `token` it reads as the peer who issued it.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, path: str) -> tuple[int, Any]:
        """GET a path: the status and the decoded JSON."""
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def get(self, path: str) -> Any:
        """GET a path that must answer 200."""
        status, answer = self.ask(path)
        assert status == 200, (path, status, answer)
        return answer

    def read(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """GET a path: the status, the headers by their names in lower case, and the bytes."""
        self._connection.request("GET", path, headers={**self._headers, **headers})
        response = self._connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()

    def text(self, path: str) -> str:
        """GET a path that must answer 200 with text."""
        status, _, answer = self.read(path)
        assert status == 200, (path, status, answer)
        return answer.decode()

    def page(self, path: str) -> tuple[Any, str]:
        """A page of a list, and the path of the next one, empty for none."""
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        link = response.getheader("Link", "")
        answer = json.loads(response.read())
        assert response.status == 200, (path, answer)
        return answer, link[1 : link.index(">")] if 'rel="next"' in link else ""

    def items(self, path: str) -> list[Any]:
        """All items of a list, page after page."""
        items: list[Any] = []
        while path:
            answer, path = self.page(path)
            items += answer["items"]
        return items

    def time(self) -> int:
        """The ledger's clock, in milliseconds."""
        now = self.get("/v1")["time"]
        assert isinstance(now, int)
        return now

    def ledger(self) -> bytes:
        """The ledger's key."""
        return peer_of(self.get("/v1")["ledger"])

    def post(self, envelopes: Sequence[Envelope]) -> list[Any]:
        """POST statements in MessagePack: their results, in the order sent; a lone refusal looks like the others."""
        self._connection.request(
            "POST", "/v1/statements", pack_request(envelopes), {"Content-Type": MSGPACK, "Accept": MSGPACK}
        )
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            problem = json.loads(answer)
            grains = {name: int(problem[name]) for name in ("available", "needed", "limit") if name in problem}
            return [{"status": "refused", "problem": {**problem, **grains}}]
        results = msgpack.unpackb(answer)["results"]
        assert isinstance(results, list)
        assert len(results) == len(envelopes)
        return results

"""Bad input gets its own refusal, changes nothing, and costs bounded memory and time: a table, and a siege.

Owns the table of everything that a hostile or broken client may send to one service of its own, over real HTTP. Must
not know how the service refuses, only what SPEC §7.4 promises: a status, a code, a problem document.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
import yarl

from gesell_protocol.canonical import pack
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.names import base64url, did_of, id_text
from gesell_protocol.refusals import CODES
from gesell_protocol.statements import write_body
from tests.running import Service, running
from tests.speaking import (
    HOUR_MS,
    MSGPACK,
    POLICY,
    Line,
    name_of,
    new_id,
    pack_request,
    sign_body,
    signer_of,
    submission_of,
    write_envelope,
    write_found,
)

JSON = "application/json"
PROBLEM = "application/problem+json"
MIB = 1024 * 1024

#: Codes that nothing in this stage of the ledger can answer, or that only a failing world brings about.
NOT_YET = {"bad-token", "vouch-in-use", "bad-word", "rate-limited"}
FAULTS = {"internal"}

#: The order of the prime group (RFC 8032 §5.1), and an encoding of the identity, a point of small order.
L = 2**252 + 27742317777372353535851937790883648493
IDENTITY = b"\x01" + bytes(31)

ALICE, BOB, CAROL, PHONE, OLD = (signer_of(name) for name in ("alice", "bob", "carol", "phone", "old phone"))
STEWARD, SECOND, STRANGER, LATE = (signer_of(name) for name in ("steward", "second", "stranger", "late"))


@dataclass(frozen=True)
class Request:
    """One HTTP request as it goes over the wire; `path` is not encoded any further."""

    body: bytes = b""
    type: str | None = MSGPACK
    method: str = "POST"
    path: str = "/v1/statements"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Scene:
    """A commons with everybody in it whom the table needs, and what was said there so far.

    Alice (alice) has 1,000 grains and two added keys, one of them revoked; Bob is active, Carol suspended, Late
    pending. Two stewards, one of whom may act alone. `closed` asks for both.
    """

    service: Service
    ledger: bytes
    commons: bytes
    closed: bytes
    paid: Envelope
    sealed: Envelope
    now_ms: int

    def say(self, kind: str, by: Signer, *signers: Signer, memo: Memo | None = None, **fields: Any) -> Envelope:
        """A statement in the commons, signed by its speaker unless others are named."""
        fields = {"commons": self.commons, **fields}
        return write_envelope(kind, by.public_key, signers or (by,), now_ms=self.now_ms, memo=memo, **fields)

    def pay(self, amount: Any = 1, **fields: Any) -> dict[str, Any]:
        """The fields of a payment from Alice to Bob, to be spoilt."""
        return {
            "type": "pay",
            "commons": self.commons,
            "by": ALICE.public_key,
            "id": new_id(self.now_ms),
            "expires": self.now_ms + HOUR_MS,
            "legs": [[BOB.public_key, amount]],
            **fields,
        }

    def say_fields(self, kind: str, by: bytes) -> dict[str, Any]:
        """The fields that every statement has, for a speaker whose key nobody here holds."""
        stamp = {"id": new_id(self.now_ms), "expires": self.now_ms + HOUR_MS}
        return {"type": kind, "commons": self.commons, "by": by, **stamp}

    def paid_id(self) -> bytes:
        """The id of a payment without a memo."""
        return id_in(self.paid)

    def sealed_id(self) -> bytes:
        """The id of a payment with a memo."""
        return id_in(self.sealed)

    def state(self) -> list[object]:
        """Everything that a refused request must leave alone."""
        line = Line(self.service.url)
        listed = line.items("/v1/commons")
        whole: list[object] = [_without_time(commons) for commons in listed]
        for commons in listed:
            path = f"/v1/commons/{commons['commons']}"
            members = line.items(path + "/members")
            whole += [members, line.items(path + "/entries")]
            whole += [line.get(f"{path}/members/{member['peer']}/balances")["items"] for member in members]
        line.close()
        return whole


def id_in(envelope: Envelope) -> bytes:
    """The id of the statement in an envelope."""
    return submission_of(envelope).statement.id


def _without_time(commons: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in commons.items() if name not in ("tick", "melt_due")}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A service of this file's own, so that its memory and its books are nobody else's."""
    with running("--min-tick-seconds", "1") as service:
        line = Line(service.url)
        now_ms, ledger = line.time(), line.ledger()
        # A tick of a year: nothing melts while the table runs.
        policy = {**POLICY, "tick_seconds": 31_536_000}
        found = write_found([STEWARD, SECOND], ledger=ledger, now_ms=now_ms, policy=policy)
        shut = {**policy, "admission": "steward", "notice_ticks": 3}
        closed = write_found([STEWARD, SECOND], ledger=ledger, now_ms=now_ms, policy=shut, threshold=2)
        scene = Scene(service, ledger, name_of(found), name_of(closed), found, found, now_ms)
        memo = Memo(b"s" * 16, "for bread")
        scene.paid = scene.say("pay", ALICE, legs=[[BOB.public_key, 10]])
        scene.sealed = scene.say("pay", ALICE, memo=memo, legs=[[BOB.public_key, 10]])
        history = [
            found,
            closed,
            scene.say("join", ALICE, handle="alice"),
            scene.say("join", BOB, handle="bob"),
            scene.say("join", CAROL, handle="carol"),
            scene.say("suspend", STEWARD, peer=CAROL.public_key),
            scene.say("issue", STEWARD, to=ALICE.public_key, amount=1_020),
            scene.say("keys", ALICE, ALICE, PHONE, OLD, add=[PHONE.public_key, OLD.public_key]),
            scene.say("keys", ALICE, revoke=[OLD.public_key]),
            scene.paid,
            scene.sealed,
            scene.say("join", LATE, handle="late", commons=scene.closed),
        ]
        answers = line.post(history)
        assert [answer["status"] for answer in answers] == ["accepted"] * len(history), answers
        line.close()
        yield scene


# ── Spoiling ─────────────────────────────────────────────────────────────────────────────────────────────────────


def raw_statement(envelope: object) -> bytes:
    """A MessagePack request around whatever stands for an envelope."""
    return bytes(msgpack.packb({"statements": [envelope]}))


def one(envelope: Envelope) -> Request:
    """A statement in MessagePack."""
    return Request(pack_request([envelope]))


def body(fields: Mapping[str, Any], *signers: Signer) -> Request:
    """A statement of these wire fields, canonical and truly signed, whatever the fields say."""
    return one(sign_body(write_body(fields), signers or (ALICE,)))


def bytes_of_body(data: bytes) -> Request:
    """A statement whose body is these bytes, truly signed."""
    return one(sign_body(data, [ALICE]))


def envelope_json(envelope: Envelope) -> dict[str, Any]:
    """An envelope as SPEC §7.1 has it in JSON."""
    answer: dict[str, Any] = {
        "body": base64url(envelope.body),
        "signatures": [{"key": did_of(key), "signature": base64url(mark)} for key, mark in envelope.signatures],
    }
    if envelope.memo is not None:
        answer["memo"] = {"salt": base64url(envelope.memo.salt), "text": envelope.memo.text}
    return answer


def in_json(text: str | bytes) -> Request:
    """A JSON text as a request."""
    return Request(text if isinstance(text, bytes) else text.encode(), type=JSON)


def json_with(scene: Scene, **members: Any) -> Request:
    """A good statement in JSON with some members put over it."""
    return in_json(json.dumps({"statements": [{**envelope_json(scene.say("leave", BOB)), **members}]}))


def read(path: str, method: str = "GET", **headers: str) -> Request:
    """A request without a body."""
    return Request(type=None, method=method, path=path, headers=headers)


def packed(encoding: str, data: bytes) -> Request:
    """A body under a Content-Encoding."""
    return Request(data, headers={"Content-Encoding": encoding})


def bomb(size: int, *, wbits: int = 31) -> bytes:
    """Zeros, deflated a thousandfold."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    block = bytes(MIB)
    return b"".join(squeezer.compress(block) for _ in range(size // MIB)) + squeezer.flush()


def tampered(envelope: Envelope, *, key: bytes | None = None, mark: bytes | None = None) -> Envelope:
    """An envelope whose first signature was exchanged."""
    old_key, old_mark = envelope.signatures[0]
    return Envelope(envelope.body, ((key or old_key, mark or old_mark), *envelope.signatures[1:]), envelope.memo)


def malleable(envelope: Envelope) -> Envelope:
    """The same signature with S + L, which a careless verifier takes too."""
    mark = envelope.signatures[0][1]
    s = int.from_bytes(mark[32:], "little") + L
    return tampered(envelope, mark=mark[:32] + s.to_bytes(32, "little"))


def respelt(scene: Scene, amount: bytes) -> Request:
    """A payment whose amount is spelt with these bytes."""
    spelt = write_body(scene.pay(5)).replace(BOB.public_key + b"\x05", BOB.public_key + amount)
    return bytes_of_body(spelt)


def nested(depth: int) -> bytes:
    """Arrays within arrays, in MessagePack."""
    return b"\x91" * depth + b"\xc0"


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────────

Row = tuple[str, Callable[[Scene], Request], str]

FORM: list[Row] = [
    ("nothing at all", lambda s: Request(b""), "malformed"),
    ("no MessagePack", lambda s: Request(b"\xc1"), "malformed"),
    ("text", lambda s: Request(b"pay bob 5"), "malformed"),
    ("a request cut short", lambda s: Request(pack_request([s.paid])[:-1]), "malformed"),
    ("something after it", lambda s: Request(pack_request([s.paid]) + b"\x00"), "malformed"),
    ("no statements", lambda s: Request(pack_request([])), "malformed"),
    ("a list", lambda s: Request(msgpack.packb([s.paid.wire()])), "malformed"),
    ("another member", lambda s: Request(msgpack.packb({"statement": [s.paid.wire()]})), "malformed"),
    ("one member more", lambda s: Request(msgpack.packb({"statements": [], "x": 1})), "malformed"),
    ("members that are no text", lambda s: Request(b"\x81\x01\x90"), "malformed"),
    ("a name that is a list", lambda s: Request(b"\x81\xdc\xff\xff" + b"\x90" * 65_535 + b"\x90"), "malformed"),
    ("statements that are a map", lambda s: Request(b"\x81\xaastatements\x80"), "malformed"),
    ("a header that promises 4 billion items", lambda s: Request(b"\x81\xaastatements\xdd" + b"\xff" * 4), "too-large"),
    ("a header that promises 4 GB", lambda s: Request(b"\x81\xaastatements\x91\xc6" + b"\xff" * 4), "malformed"),
    ("a map of 4 billion", lambda s: Request(b"\xdf" + b"\xff" * 4), "malformed"),
    ("a list of 4 billion inside", lambda s: Request(b"\x81\xaastatements\x91\xdd" + b"\xff" * 4), "malformed"),
    ("a million deep", lambda s: Request(b"\x81\xaastatements" + nested(MIB)), "malformed"),
    ("a statement that is nil", lambda s: Request(raw_statement(None)), "malformed"),
    ("a statement that is a float", lambda s: Request(raw_statement(1.5)), "malformed"),
    ("a statement that is an ext", lambda s: Request(raw_statement(msgpack.ExtType(5, b"x"))), "malformed"),
    ("a statement that is a time", lambda s: Request(raw_statement(msgpack.Timestamp(1))), "malformed"),
    ("a statement that is a map", lambda s: Request(raw_statement({"body": s.paid.body})), "malformed"),
    ("a body alone", lambda s: Request(raw_statement([s.paid.body])), "malformed"),
    ("four parts", lambda s: Request(raw_statement([*s.sealed.wire(), b""])), "malformed"),
    ("a body that is text", lambda s: Request(raw_statement(["text", s.paid.wire()[1]])), "malformed"),
    ("a text that is no UTF-8", lambda s: Request(b"\x81\xaastatements\x91\x92\xa1\xff\x90"), "malformed"),
    ("no signature", lambda s: Request(raw_statement([s.paid.body, []])), "malformed"),
    ("signatures in a map", lambda s: Request(raw_statement([s.paid.body, {}])), "malformed"),
    ("17 signatures", lambda s: one(sign_body(s.paid.body, [signer_of(f"k{n}") for n in range(17)])), "malformed"),
    (
        "one signature sixteen times",
        lambda s: one(Envelope(s.paid.body, s.paid.signatures * 16)),
        "malformed",
    ),
    (
        "signatures out of order",
        lambda s: one(Envelope(s.paid.body, sign_body(s.paid.body, [ALICE, BOB]).signatures[::-1])),
        "malformed",
    ),
    ("a key of 31 bytes", lambda s: one(tampered(s.paid, key=bytes(31))), "malformed"),
    ("a signature of 65 bytes", lambda s: one(tampered(s.paid, mark=bytes(65))), "malformed"),
    (
        "a memo nobody sealed",
        lambda s: one(Envelope(s.paid.body, s.paid.signatures, Memo(b"s" * 16, "x"))),
        "malformed",
    ),
    (
        "a memo that fits no seal",
        lambda s: one(Envelope(s.sealed.body, s.sealed.signatures, Memo(b"s" * 16, "for wine"))),
        "malformed",
    ),
    ("a salt of 15 bytes", lambda s: Request(raw_statement([*s.paid.wire(), [b"s" * 15, "x"]])), "malformed"),
    ("a memo that is bin", lambda s: Request(raw_statement([*s.paid.wire(), [b"s" * 16, b"x"]])), "malformed"),
    ("a memo of 1,001", lambda s: one(s.say("leave", BOB, memo=Memo(b"s" * 16, "x" * 1001))), "malformed"),
    ("NUL in a memo", lambda s: one(s.say("leave", BOB, memo=Memo(b"s" * 16, "a\0b"))), "malformed"),
    ("an escape in a memo", lambda s: one(s.say("leave", BOB, memo=Memo(b"s" * 16, "\x1b[2J"))), "malformed"),
]

JSON_FORM: list[Row] = [
    ("no JSON", lambda s: in_json("{"), "malformed"),
    ("JSON with something after it", lambda s: in_json('{"statements":[]} x'), "malformed"),
    ("JSON without statements", lambda s: in_json("{}"), "malformed"),
    ("no statements in JSON", lambda s: in_json('{"statements":[]}'), "malformed"),
    ("a JSON list", lambda s: in_json("[]"), "malformed"),
    ("a member that is unknown", lambda s: in_json('{"statements":[],"more":1}'), "malformed"),
    ("NaN", lambda s: in_json('{"statements":[NaN]}'), "malformed"),
    ("Infinity", lambda s: in_json('{"statements":[{"body":Infinity,"signatures":[]}]}'), "malformed"),
    ("4,000 digits", lambda s: in_json('{"statements":[' + "9" * 4000 + "]}"), "malformed"),
    ("a huge exponent", lambda s: in_json('{"statements":[{"body":1e999999999,"signatures":[]}]}'), "malformed"),
    ("JSON 100,000 deep", lambda s: in_json('{"statements":[' + "[" * 100_000 + "]" * 100_000 + "]}"), "malformed"),
    ("maps 100,000 deep", lambda s: in_json('{"statements":[' + '{"a":' * 100_000), "malformed"),
    ("a NUL byte", lambda s: in_json(b'{"statements":[\x00]}'), "malformed"),
    ("no UTF-8", lambda s: in_json(b'{"statements":[{"body":"\xff","signatures":[]}]}'), "malformed"),
    ("no UTF-8 in a name", lambda s: in_json(b'{"\xff":[]}'), "malformed"),
    ("UTF-16", lambda s: in_json('{"statements":[]}'.encode("utf-16")), "malformed"),
    ("the statements twice", lambda s: in_json('{"statements":[1],"statements":[2]}'), "malformed"),
    (
        "a body twice",
        lambda s: in_json('{"statements":[{"body":"AAAA",' + json.dumps(envelope_json(s.paid))[1:] + "]}"),
        "malformed",
    ),
    (
        "a body twice, once in disguise",
        lambda s: in_json('{"statements":[{"\\u0062ody" : "AAAA",' + json.dumps(envelope_json(s.paid))[1:] + "]}"),
        "malformed",
    ),
    ("an unknown member", lambda s: json_with(s, note="x"), "malformed"),
    ("an endless name", lambda s: json_with(s, **{"x" * 200_000: 1}), "malformed"),
    ("a body that is a number", lambda s: json_with(s, body=5), "malformed"),
    ("a body in padded base64", lambda s: json_with(s, body="YQ=="), "malformed"),
    ("a body in plain base64", lambda s: json_with(s, body="+/+/"), "malformed"),
    ("a body that is cut", lambda s: json_with(s, body="a"), "malformed"),
    ("an empty body", lambda s: json_with(s, body=""), "not-canonical"),
    ("signatures that are nil", lambda s: json_with(s, signatures=None), "malformed"),
    ("a signature that is text", lambda s: json_with(s, signatures=["x"]), "malformed"),
    ("a key that is no did", lambda s: json_with(s, signatures=[{"key": "x", "signature": ""}]), "malformed"),
    (
        "a did of another curve",
        lambda s: json_with(s, signatures=[{"key": "did:key:zQ3s" + "h" * 44, "signature": ""}]),
        "malformed",
    ),
    ("a memo that is nil", lambda s: json_with(s, memo=None), "malformed"),
    ("a memo that is unsealed", lambda s: json_with(s, memo={"salt": "A" * 22, "text": "x"}), "malformed"),
    (
        "half a surrogate",
        lambda s: in_json(
            json.dumps({"statements": [{**envelope_json(s.sealed), "memo": {"salt": "", "text": "\ud800"}}]})
        ),
        "malformed",
    ),
]

BYTES: list[Row] = [
    ("no body", lambda s: bytes_of_body(b""), "not-canonical"),
    ("a float amount", lambda s: bytes_of_body(msgpack.packb(dict(sorted(s.pay(1.0).items())))), "not-canonical"),
    (
        "NaN as amount",
        lambda s: bytes_of_body(msgpack.packb(dict(sorted(s.pay(float("nan")).items())))),
        "not-canonical",
    ),
    ("an amount beyond 64 bits", lambda s: respelt(s, b"\xcf" + b"\xff" * 8), "not-canonical"),
    ("an amount in too many bytes", lambda s: respelt(s, b"\xcc\x05"), "not-canonical"),
    (
        "keys out of order",
        lambda s: bytes_of_body(msgpack.packb(dict(sorted(s.pay().items(), reverse=True)))),
        "not-canonical",
    ),
    ("a key twice", lambda s: bytes_of_body(b"\x82\xa1a\x01\xa1a\x02"), "not-canonical"),
    ("a key that is a number", lambda s: bytes_of_body(b"\x81\x01\x02"), "not-canonical"),
    ("an ext", lambda s: bytes_of_body(msgpack.packb(msgpack.ExtType(1, b"x"))), "not-canonical"),
    ("a time", lambda s: bytes_of_body(msgpack.packb(msgpack.Timestamp(5, 5))), "not-canonical"),
    ("text that is no UTF-8", lambda s: bytes_of_body(b"\xa2\xc3\x28"), "not-canonical"),
    ("a surrogate in text", lambda s: bytes_of_body(b"\xa3\xed\xa0\x80"), "not-canonical"),
    ("17 deep", lambda s: bytes_of_body(nested(17)), "not-canonical"),
    ("15,000 deep", lambda s: bytes_of_body(nested(15_000)), "not-canonical"),
    ("a promise of 4 GB", lambda s: bytes_of_body(b"\xc6" + b"\xff" * 4), "not-canonical"),
    ("a promise of 4 billion", lambda s: bytes_of_body(b"\xdd" + b"\xff" * 4), "not-canonical"),
    ("two values", lambda s: bytes_of_body(write_body(s.pay()) + b"\xc0"), "not-canonical"),
    ("half a value", lambda s: bytes_of_body(write_body(s.pay())[:-1]), "not-canonical"),
    ("a body of 16 KiB and a byte", lambda s: bytes_of_body(pack(b"x" * (16 * 1024 - 2))), "too-large"),
    (
        "a great body with many signatures and a memo",
        lambda s: one(
            Envelope(
                b"x" * 16_000,
                sign_body(b"", [signer_of(f"k{n}") for n in range(16)]).signatures,
                Memo(b"s" * 16, "😀" * 1000),
            )
        ),
        "too-large",
    ),
    ("an envelope of 50 kB", lambda s: Request(raw_statement([b"x" * 50_000, s.paid.wire()[1]])), "too-large"),
]

SCHEMA: list[Row] = [
    ("a body that is a list", lambda s: bytes_of_body(pack([1, 2])), "malformed"),
    ("an empty map", lambda s: bytes_of_body(pack({})), "malformed"),
    ("a type that nobody knows", lambda s: body(s.pay(type="mint")), "malformed"),
    ("a type that is a list", lambda s: body(s.pay(type=["pay"])), "malformed"),
    ("an unknown field", lambda s: body(s.pay(note="x")), "malformed"),
    ("a missing field", lambda s: body(s.pay(legs=None)), "malformed"),
    ("a field that is nil", lambda s: bytes_of_body(pack(s.pay(ref=None))), "malformed"),
    ("no amount", lambda s: body(s.pay(0)), "malformed"),
    ("a negative amount", lambda s: body(s.pay(-5)), "malformed"),
    ("the smallest int", lambda s: body(s.pay(-(2**63))), "malformed"),
    ("more than 10^15", lambda s: body(s.pay(10**15 + 1)), "malformed"),
    ("the greatest int", lambda s: body(s.pay(2**63 - 1)), "malformed"),
    ("an amount that is text", lambda s: body(s.pay("5")), "malformed"),
    ("an amount that is true", lambda s: body(s.pay(True)), "malformed"),
    ("no legs", lambda s: body(s.pay(legs=[])), "malformed"),
    (
        "257 legs",
        lambda s: body(s.pay(legs=[[sha256(bytes([n % 256, n // 256])).digest(), 1] for n in range(257)])),
        "malformed",
    ),
    (
        "legs that add up to more",
        lambda s: body(s.pay(legs=[[BOB.public_key, 10**15], [CAROL.public_key, 1]])),
        "malformed",
    ),
    ("a payee twice", lambda s: body(s.pay(legs=[[BOB.public_key, 1], [BOB.public_key, 1]])), "malformed"),
    ("a payment to oneself", lambda s: body(s.pay(legs=[[ALICE.public_key, 1]])), "malformed"),
    ("a payee of 31 bytes", lambda s: body(s.pay(legs=[[bytes(31), 1]])), "malformed"),
    ("a payee that is text", lambda s: body(s.pay(legs=[["pool", 1]])), "malformed"),
    (
        "balancing with two legs",
        lambda s: body(s.pay(balancing=True, legs=[[BOB.public_key, 1], [CAROL.public_key, 1]])),
        "malformed",
    ),
    ("balancing that is false", lambda s: body(s.pay(balancing=False)), "malformed"),
    ("a category with spaces", lambda s: body(s.pay(category="a lift")), "malformed"),
    ("a category that ends a line", lambda s: body(s.pay(category="lift\n")), "malformed"),
    ("an endless category", lambda s: body(s.pay(category="a" * 10_000)), "malformed"),
    ("an id that is no UUIDv7", lambda s: body(s.pay(id=bytes(16))), "malformed"),
    ("an id of 17 bytes", lambda s: body(s.pay(id=new_id(s.now_ms) + b"x")), "malformed"),
    ("an expiry before the id", lambda s: body(s.pay(expires=s.now_ms - 1)), "malformed"),
    ("an expiry in 8 days", lambda s: body(s.pay(expires=s.now_ms + 8 * 24 * HOUR_MS)), "malformed"),
    ("a negative expiry", lambda s: body(s.pay(expires=-1)), "malformed"),
    ("a commons of 15 bytes", lambda s: body(s.pay(commons=bytes(15))), "malformed"),
    ("a handle with a slash", lambda s: one(s.say("join", STRANGER, handle="../x")), "malformed"),
    ("a handle that is reserved", lambda s: one(s.say("join", STRANGER, handle="pool")), "malformed"),
    ("a handle with NUL", lambda s: one(s.say("join", STRANGER, handle="a\0b")), "malformed"),
    ("a handle in Cyrillic", lambda s: one(s.say("join", STRANGER, handle="аlice")), "malformed"),
    ("a handle that ends a line", lambda s: one(s.say("join", STRANGER, handle="alice2\n")), "malformed"),
    (
        "joining as the identity",
        lambda s: body(
            {
                "type": "join",
                "commons": s.commons,
                "by": IDENTITY,
                "id": new_id(s.now_ms),
                "expires": s.now_ms,
                "handle": "zero",
            }
        ),
        "malformed",
    ),
    ("adding a key of small order", lambda s: one(s.say("keys", ALICE, add=[IDENTITY])), "malformed"),
    ("keys without any", lambda s: one(s.say("keys", ALICE)), "malformed"),
    (
        "a steward more than there are",
        lambda s: one(write_found([STRANGER], ledger=s.ledger, now_ms=s.now_ms, threshold=2)),
        "malformed",
    ),
    (
        "credit for all comers",
        lambda s: one(write_found([STRANGER], ledger=s.ledger, now_ms=s.now_ms, policy={**POLICY, "credit_limit": 5})),
        "malformed",
    ),
    (
        "ticks of no time",
        lambda s: one(write_found([STRANGER], ledger=s.ledger, now_ms=s.now_ms, policy={**POLICY, "tick_seconds": 0})),
        "malformed",
    ),
    (
        "more than all melts",
        lambda s: one(
            write_found([STRANGER], ledger=s.ledger, now_ms=s.now_ms, policy={**POLICY, "brackets": [[0, 10**9 + 1]]})
        ),
        "malformed",
    ),
    (
        "a name that rings",
        lambda s: one(
            s.say(
                "found",
                STRANGER,
                ledger=s.ledger,
                name="\x07",
                currency={"code": "X1", "scale": 1},
                policy=dict(POLICY),
                stewards=[STRANGER.public_key],
                threshold=1,
                commons=None,
            )
        ),
        "malformed",
    ),
]

SIGNATURES: list[Row] = [
    ("a signature of zeros", lambda s: one(tampered(s.say("leave", BOB), mark=bytes(64))), "bad-signature"),
    ("another's signature", lambda s: one(tampered(s.say("leave", BOB), mark=ALICE.sign(b"x"))), "bad-signature"),
    (
        "a signature under another key",
        lambda s: one(tampered(s.say("leave", BOB), key=ALICE.public_key)),
        "bad-signature",
    ),
    ("S + L", lambda s: one(malleable(s.say("leave", BOB))), "bad-signature"),
    (
        "another statement's signature",
        lambda s: one(Envelope(s.say("leave", BOB).body, s.say("leave", BOB).signatures)),
        "bad-signature",
    ),
    ("a replay with a spoilt signature", lambda s: one(tampered(s.paid, mark=bytes(64))), "bad-signature"),
    (
        "a signature without the prefix",
        lambda s: one(Envelope(s.paid.body, ((BOB.public_key, BOB.sign(s.paid.body)),))),
        "bad-signature",
    ),
    (
        "the identity as key and R",
        lambda s: one(Envelope(s.say("leave", BOB).body, ((IDENTITY, IDENTITY + bytes(32)),))),
        "bad-signature",
    ),
    (
        "one of sixteen signatures spoilt",
        lambda s: one(spoil_last(s.say("leave", BOB, *(signer_of(f"k{n}") for n in range(15)), BOB))),
        "bad-signature",
    ),
]


def spoil_last(envelope: Envelope) -> Envelope:
    """The last signature, with one bit turned."""
    key, mark = envelope.signatures[-1]
    return Envelope(envelope.body, (*envelope.signatures[:-1], (key, mark[:-1] + bytes([mark[-1] ^ 1]))))


RULES: list[Row] = [
    ("a commons that is unknown", lambda s: one(s.say("leave", BOB, commons=bytes(16))), "unknown-commons"),
    ("a commons half known", lambda s: one(s.say("leave", BOB, commons=s.commons[:8] + bytes(8))), "unknown-commons"),
    (
        "a founding for another ledger",
        lambda s: one(write_found([STRANGER], ledger=BOB.public_key, now_ms=s.now_ms)),
        "wrong-ledger",
    ),
    ("a used id", lambda s: one(s.say("pay", ALICE, id=s.paid_id(), legs=[[BOB.public_key, 11]])), "id-conflict"),
    ("a used id by another", lambda s: one(s.say("leave", BOB, id=s.paid_id())), "id-conflict"),
    ("an id from in three minutes", lambda s: one(s.say("leave", BOB, id=new_id(s.now_ms + 240_000))), "too-early"),
    ("an id from the year 10000", lambda s: one(s.say("leave", BOB, id=new_id(2**48 - 1), expires=2**48)), "too-early"),
    (
        "an id of yesterday",
        lambda s: one(s.say("leave", BOB, id=new_id(s.now_ms - 24 * HOUR_MS), expires=s.now_ms - 1)),
        "expired",
    ),
    ("an id of 1970", lambda s: one(s.say("leave", BOB, id=new_id(0), expires=0)), "expired"),
    ("a stolen name", lambda s: one(s.say("pay", ALICE, BOB, legs=[[BOB.public_key, 5]])), "not-authorised"),
    ("a revoked key", lambda s: one(s.say("pay", ALICE, OLD, legs=[[BOB.public_key, 5]])), "not-authorised"),
    ("a key that joins as itself", lambda s: one(s.say("join", PHONE, handle="phone")), "key-taken"),
    ("a key taken from another", lambda s: one(s.say("keys", BOB, BOB, PHONE, add=[PHONE.public_key])), "key-taken"),
    ("a key that did not sign", lambda s: one(s.say("keys", BOB, add=[STRANGER.public_key])), "not-authorised"),
    ("revoking one's senior", lambda s: one(s.say("keys", ALICE, PHONE, revoke=[ALICE.public_key])), "not-authorised"),
    ("revoking what is not there", lambda s: one(s.say("keys", ALICE, revoke=[BOB.public_key])), "not-found"),
    ("revoking the last key", lambda s: one(s.say("keys", BOB, revoke=[BOB.public_key])), "limit-exceeded"),
    ("money from nobody", lambda s: one(s.say("issue", ALICE, to=BOB.public_key, amount=5)), "not-authorised"),
    (
        "one of two stewards",
        lambda s: one(s.say("issue", STEWARD, to=BOB.public_key, amount=5, commons=s.closed)),
        "not-authorised",
    ),
    ("a grant by an outsider", lambda s: one(s.say("grant", STRANGER, legs=[[BOB.public_key, 5]])), "not-authorised"),
    (
        "stewards by an outsider",
        lambda s: one(s.say("stewards", STRANGER, stewards=[STRANGER.public_key], threshold=1)),
        "not-authorised",
    ),
    ("a sweep by an outsider", lambda s: one(s.say("sweep", STRANGER, accounts=[ALICE.public_key])), "not-authorised"),
    ("a sweep by a steward", lambda s: one(s.say("sweep", STEWARD, accounts=[ALICE.public_key])), "not-authorised"),
    (
        "a sweep in the ledger's name",
        lambda s: body({**s.say_fields("sweep", s.ledger), "accounts": [ALICE.public_key]}, STRANGER),
        "not-authorised",
    ),
    (
        "a payout by an outsider",
        lambda s: one(s.say("payout", STRANGER, share=bytes(16), members=[ALICE.public_key])),
        "not-authorised",
    ),
    ("erasing another's memo", lambda s: one(s.say("erase", BOB, statement=s.sealed_id())), "not-authorised"),
    ("erasing nothing", lambda s: one(s.say("erase", BOB, statement=bytes(16))), "not-found"),
    ("erasing where no memo is", lambda s: one(s.say("erase", ALICE, statement=s.paid_id())), "wrong-state"),
    ("a stranger who pays", lambda s: one(s.say("pay", STRANGER, legs=[[BOB.public_key, 5]])), "unknown-member"),
    ("a stranger who is paid", lambda s: one(s.say("pay", ALICE, legs=[[STRANGER.public_key, 5]])), "unknown-member"),
    ("a suspended payer", lambda s: one(s.say("pay", CAROL, legs=[[BOB.public_key, 5]])), "not-active"),
    ("a pending payer", lambda s: one(s.say("pay", LATE, legs=[[BOB.public_key, 5]], commons=s.closed)), "not-active"),
    ("joining twice", lambda s: one(s.say("join", ALICE, handle="alice2")), "already-member"),
    ("another's handle", lambda s: one(s.say("join", STRANGER, handle="alice")), "handle-taken"),
    ("admitting who is active", lambda s: one(s.say("admit", STEWARD, peer=BOB.public_key)), "wrong-state"),
    ("admitting nobody", lambda s: one(s.say("admit", STEWARD, peer=STRANGER.public_key)), "unknown-member"),
    ("sharing where all may join", lambda s: one(s.say("share", STEWARD, amount=5)), "wrong-state"),
    (
        "sharing an empty pool",
        lambda s: one(s.say("share", STEWARD, STEWARD, SECOND, amount=5, commons=s.closed)),
        "limit-exceeded",
    ),
    (
        "a policy without notice",
        lambda s: one(
            s.say(
                "policy",
                STEWARD,
                STEWARD,
                SECOND,
                commons=s.closed,
                from_tick=s.now_ms // 31_536_000_000 + 1,
                policy={**POLICY, "tick_seconds": 31_536_000},
            )
        ),
        "limit-exceeded",
    ),
    ("more than there is", lambda s: one(s.say("pay", ALICE, legs=[[BOB.public_key, 10**15]])), "insufficient-funds"),
    ("a grain too much", lambda s: one(s.say("pay", ALICE, legs=[[BOB.public_key, 1_001]])), "insufficient-funds"),
    ("the pool's money", lambda s: one(s.say("grant", STEWARD, legs=[[BOB.public_key, 5]])), "insufficient-funds"),
    ("retiring too much", lambda s: one(s.say("retire", ALICE, amount=10**15)), "insufficient-funds"),
]

COMMONS = "/v1/commons/{commons}"

HTTP: list[Row] = [
    ("no content type", lambda s: Request(pack_request([s.paid]), type=None), "unsupported-media-type"),
    ("a form", lambda s: Request(b"a=b", type="application/x-www-form-urlencoded"), "unsupported-media-type"),
    ("text/plain", lambda s: Request(b"{}", type="text/plain"), "unsupported-media-type"),
    ("a type that is garbage", lambda s: Request(b"{}", type=";;,/"), "unsupported-media-type"),
    ("MessagePack called JSON", lambda s: Request(pack_request([s.paid]), type=JSON), "malformed"),
    ("JSON called MessagePack", lambda s: Request(b'{"statements":[]}'), "malformed"),
    ("GET of what is written", lambda s: read("/v1/statements"), "method-not-allowed"),
    ("PUT", lambda s: read("/v1", "PUT"), "method-not-allowed"),
    ("DELETE of an entry", lambda s: read(COMMONS + "/entries/1", "DELETE"), "method-not-allowed"),
    ("PATCH of a balance", lambda s: read(COMMONS + "/members/alice/balances", "PATCH"), "method-not-allowed"),
    ("TRACE", lambda s: read("/v1", "TRACE"), "method-not-allowed"),
    ("a path that is nowhere", lambda s: read("/v2"), "not-found"),
    ("up and out", lambda s: read("/v1/commons/../../etc/passwd"), "not-found"),
    ("up and out, encoded", lambda s: read("/v1/commons/..%2f..%2fetc%2fpasswd"), "unknown-commons"),
    ("encoded twice", lambda s: read("/v1/commons/%252e%252e"), "unknown-commons"),
    ("NUL in a path", lambda s: read("/v1/commons/%00"), "unknown-commons"),
    ("NUL at the end of a good path", lambda s: read(COMMONS + "%00"), "unknown-commons"),
    ("a header in a path", lambda s: read("/v1/%0d%0aX-Evil:%201"), "not-found"),
    ("half a surrogate in a path", lambda s: read("/v1/%ed%a0%80"), "not-found"),
    ("no UTF-8 in a path", lambda s: read("/v1/%ff%fe"), "not-found"),
    ("half an escape", lambda s: read("/v1/%f"), "not-found"),
    ("a commons with spaces", lambda s: read("/v1/commons/" + "%20" * 32), "unknown-commons"),
    ("a commons in other digits", lambda s: read("/v1/commons/" + "%D9%A1" * 32), "unknown-commons"),
    ("a commons nobody founded", lambda s: read("/v1/commons/" + "0" * 32), "unknown-commons"),
    ("a member nobody knows", lambda s: read(COMMONS + "/members/nobody"), "unknown-member"),
    ("a member that is the pool", lambda s: read(COMMONS + "/members/pool"), "unknown-member"),
    ("a member with NUL", lambda s: read(COMMONS + "/members/a%00b/balances"), "unknown-member"),
    ("a member's quote", lambda s: read(COMMONS + "/members/'%20OR%201=1--/postings"), "unknown-member"),
    ("a did that is none", lambda s: read(COMMONS + "/members/did:key:z6Mk"), "unknown-member"),
    ("entry 0", lambda s: read(COMMONS + "/entries/0"), "not-found"),
    ("entry -1", lambda s: read(COMMONS + "/entries/-1"), "not-found"),
    ("an entry of 4,000 digits", lambda s: read(COMMONS + "/entries/" + "9" * 4000), "not-found"),
    ("an entry beyond 64 bits", lambda s: read(COMMONS + f"/entries/{2**63}"), "not-found"),
    ("an entry in other digits", lambda s: read(COMMONS + "/entries/%D9%A1"), "not-found"),
    ("a statement that is no UUID", lambda s: read(COMMONS + "/statements/x"), "not-found"),
    ("a UUID in braces", lambda s: read(COMMONS + f"/statements/%7B{id_text(s.paid_id())}%7D"), "not-found"),
    ("a misspelt parameter", lambda s: read(COMMONS + "/entries?limt=1"), "malformed"),
    ("a parameter of another path", lambda s: read(COMMONS + "/members/ada?order=desc"), "malformed"),
    ("a parameter where there is none", lambda s: read("/v1?_=1"), "malformed"),
    ("a parameter of statements", lambda s: Request(path="/v1/statements?x=1"), "malformed"),
    ("a header's name in the query", lambda s: read(COMMONS + "/entries?Last-Event-ID=1"), "malformed"),
    ("a parameter twice", lambda s: read(COMMONS + "/entries?limit=1&limit=2"), "malformed"),
    ("limit 0", lambda s: read("/v1/commons?limit=0"), "malformed"),
    ("limit 1,001", lambda s: read(COMMONS + "/entries?limit=1001"), "malformed"),
    ("limit -1", lambda s: read(COMMONS + "/members?limit=-1"), "malformed"),
    ("limit 1e3", lambda s: read(COMMONS + "/members?limit=1e3"), "malformed"),
    ("limit of 4,000 digits", lambda s: read("/v1/commons?limit=" + "9" * 4000), "malformed"),
    ("limit in other digits", lambda s: read("/v1/commons?limit=%D9%A1"), "malformed"),
    ("limit that is not UTF-8", lambda s: read("/v1/commons?limit=%ff"), "malformed"),
    ("an empty limit", lambda s: read("/v1/commons?limit="), "malformed"),
    ("after nonsense", lambda s: read("/v1/commons?after=%00"), "malformed"),
    ("after half a surrogate", lambda s: read(COMMONS + "/members?after=%ed%a0%80"), "malformed"),
    ("after a negative entry", lambda s: read(COMMONS + "/entries?after=-1"), "malformed"),
    ("after beyond 64 bits", lambda s: read(COMMONS + f"/entries?after={2**63}"), "malformed"),
    ("after no place", lambda s: read(COMMONS + "/members/alice/postings?after=1.x"), "malformed"),
    ("after a huge place", lambda s: read(COMMONS + "/members/alice/postings?after=1." + "9" * 4000), "malformed"),
    ("an order that is none", lambda s: read(COMMONS + "/members/alice/postings?order=up"), "malformed"),
    ("an asset that is none", lambda s: read(COMMONS + "/members/alice/postings?asset=%00"), "not-found"),
    ("a moment that is none", lambda s: read(COMMONS + "/members/alice/balances?at=now"), "malformed"),
    ("a moment before all", lambda s: read(COMMONS + "/members/alice/balances?at=0"), "not-found"),
    ("the end of days", lambda s: read(COMMONS + f"/members/alice/balances?at={2**63 - 1}"), "limit-exceeded"),
    ("a moment beyond 64 bits", lambda s: read(COMMONS + f"/members/alice/balances?at={2**63}"), "malformed"),
    ("17 MiB", lambda s: Request(bytes(17 * MIB)), "too-large"),
    (
        "10,001 statements",
        lambda s: Request(b"\x81\xaastatements\xdc" + struct.pack(">H", 10_001) + b"\xc0" * 10_001),
        "too-large",
    ),
    ("10,001 statements in JSON", lambda s: in_json('{"statements":[' + "1," * 10_000 + "1]}"), "too-large"),
    ("a million statements in JSON", lambda s: in_json('{"statements":[' + "1," * MIB + "1]}"), "too-large"),
    ("gzip of nothing", lambda s: packed("gzip", b""), "malformed"),
    ("a gzip bomb of 64 MiB", lambda s: packed("gzip", bomb(64 * MIB)), "too-large"),
    ("a deflate bomb of 64 MiB", lambda s: packed("deflate", bomb(64 * MIB, wbits=15)), "too-large"),
]

#: Of these the framework alone would answer in text, with a traceback in the log or for ten seconds too long.
WIRE: list[Row] = [
    ("gzip that is none", lambda s: packed("gzip", b"\x80" * 100), "malformed"),
    ("gzip cut short", lambda s: packed("gzip", gzip.compress(pack_request([s.paid]))[:-8]), "malformed"),
    ("deflate cut short", lambda s: packed("deflate", zlib.compress(pack_request([s.paid]))[:-4]), "malformed"),
    ("gzip and more", lambda s: packed("gzip", gzip.compress(pack_request([s.paid])) + b"more"), "malformed"),
    ("gzip in gzip", lambda s: packed("gzip, gzip", gzip.compress(gzip.compress(b"\x80"))), "unsupported-media-type"),
    ("brotli", lambda s: packed("br", b"\x80"), "unsupported-media-type"),
    ("zstd", lambda s: packed("zstd", b"\x28\xb5\x2f\xfd"), "unsupported-media-type"),
    ("an encoding that is none", lambda s: packed("rot13", pack_request([s.paid])), "unsupported-media-type"),
    ("an expectation", lambda s: Request(pack_request([s.paid]), headers={"Expect": "200-maybe"}), "malformed"),
]

GROUPS = {
    "form": FORM,
    "json": JSON_FORM,
    "bytes": BYTES,
    "schema": SCHEMA,
    "signatures": SIGNATURES,
    "rules": RULES,
    "http": HTTP,
    "wire": WIRE,
}

#: Whether the service runs on connections of ours (`api.connections`): what the parser refuses is a problem too.


# ── The tests of the table ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    type: str
    headers: Mapping[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """The problem document; asserts that it is one, and that all of it fits together."""
        assert self.type == PROBLEM, (self.status, self.type, self.body[:300])
        problem = json.loads(self.body)
        assert {"type", "title", "status", "detail", "code"} <= set(problem)
        assert problem["type"] == "urn:gesell:problem:" + problem["code"]
        assert (problem["status"], problem["title"]) == CODES[problem["code"]]
        assert problem["status"] == self.status
        assert 0 < len(problem["detail"]) <= 500
        assert len(self.body) < 4_000, "an answer does not grow with the nonsense that it answers"
        return problem  # type: ignore[no-any-return]


async def send(session: aiohttp.ClientSession, scene: Scene, request: Request) -> Reply:
    """Send a request as it is."""
    headers = dict(request.headers)
    if request.type is not None:
        headers["Content-Type"] = request.type
    url = yarl.URL(scene.service.url + request.path.replace("{commons}", scene.commons.hex()), encoded=True)
    async with session.request(
        request.method, url, data=request.body or None, headers=headers, skip_auto_headers=["Content-Type"]
    ) as response:
        return Reply(response.status, response.content_type, response.headers, await response.read())


@pytest.mark.parametrize("group", sorted(GROUPS))
async def test_every_bad_request_gets_its_own_refusal_and_changes_nothing(scene: Scene, group: str) -> None:
    before, faults = scene.state(), []
    async with aiohttp.ClientSession() as session:
        for name, make, code in GROUPS[group]:
            seen = await _seq_and_balances(session, scene)
            request = make(scene)
            began = time.monotonic()
            reply = await send(session, scene, request)
            took = time.monotonic() - began
            told = reply.problem()["code"] if reply.type == PROBLEM else "no problem"
            if (reply.status, told) != (CODES[code][0], code):
                faults.append(f"{name}: {code} expected, not {reply.status} {told} {reply.body[:300]!r}")
            if took > 10:
                faults.append(f"{name}: took {took:.1f} s")
            if await _seq_and_balances(session, scene) != seen:
                faults.append(f"{name}: changed the books")
    assert not faults, "\n".join(faults)
    assert scene.state() == before


async def _seq_and_balances(session: aiohttp.ClientSession, scene: Scene) -> list[object]:
    seen: list[object] = []
    for path in (COMMONS, COMMONS + "/members/alice/balances", COMMONS + "/members/bob/balances"):
        answer = json.loads((await send(session, scene, read(path))).body)
        seen += [answer["seq"], answer.get("items")]
    return seen


def test_every_code_that_can_occur_stands_in_the_table() -> None:
    # `timeout` and `unavailable` are brought about below, by those who send too slowly and too much.
    told = {code for rows in GROUPS.values() for _, _, code in rows} | {"timeout", "unavailable"}
    assert told == set(CODES) - NOT_YET - FAULTS


def test_every_row_has_a_name_of_its_own() -> None:
    names = [name for rows in GROUPS.values() for name, _, _ in rows]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("format_", [MSGPACK, JSON])
async def test_in_a_mixed_request_each_statement_is_answered_for_itself(scene: Scene, format_: str) -> None:
    spoilt = tampered(scene.say("leave", BOB), mark=bytes(64))
    poor = scene.say("pay", ALICE, legs=[[BOB.public_key, 10**15]])
    early = scene.say("leave", BOB, id=new_id(scene.now_ms + 10 * 60_000), expires=scene.now_ms + HOUR_MS)
    envelopes = [scene.paid, spoilt, poor, scene.sealed, early, scene.say("leave", BOB, commons=bytes(16)), scene.paid]
    if format_ == MSGPACK:
        wire = [envelope.wire() for envelope in envelopes]
        request = Request(msgpack.packb({"statements": [*wire[:3], [[["nonsense"]]], {}, *wire[3:]]}))
    else:
        texts = [json.dumps(envelope_json(envelope)) for envelope in envelopes]
        request = in_json('{"statements":[' + ",".join([*texts[:3], '{"x":[1]}', "null", *texts[3:]]) + "]}")
    before = scene.state()
    async with aiohttp.ClientSession() as session:
        reply = await send(session, scene, request)
    assert (reply.status, reply.type) == (200, format_)
    results = (msgpack.unpackb if format_ == MSGPACK else json.loads)(reply.body)["results"]
    assert [result.get("problem", {}).get("code", result["status"]) for result in results] == [
        "replayed",
        "bad-signature",
        "insufficient-funds",
        "malformed",
        "malformed",
        "replayed",
        "too-early",
        "unknown-commons",
        "replayed",
    ]
    needed = results[2]["problem"]["needed"]
    assert needed == (10**15 if format_ == MSGPACK else str(10**15))
    assert scene.state() == before


async def test_a_link_to_the_next_page_smuggles_no_header(scene: Scene) -> None:
    evil = "%0d%0aX-Evil:%201%3E;%20rel=%22x"
    async with aiohttp.ClientSession() as session:
        for query in (f"limit=1&x={evil}", f"limit=1&after={evil}", f"limit=1&{evil}=1"):
            reply = await send(session, scene, read(f"{COMMONS}/entries?{query}"))
            assert reply.status == 400
            assert not {"X-Evil", "Link"} & reply.headers.keys()
        reply = await send(session, scene, read(COMMONS + "/entries?limit=1"))
    assert reply.status == 200
    link = reply.headers["Link"]
    assert link.endswith('>; rel="next"')
    assert not set('<>" \r\n') & set(link[1 : -len('>; rel="next"')])


# ── Wires ────────────────────────────────────────────────────────────────────────────────────────────────────────

GARBAGE: Mapping[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a method nobody knows": b"BREW /v1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP 9.9": b"GET / HTTP/9.9\r\n\r\n",
    "a header without a colon": b"GET /v1 HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    "a header with NUL": b"GET /v1 HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "a folded header": b"GET /v1 HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "no host": b"GET /v1 HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "an endless header": b"GET /v1 HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    "10,000 headers": b"GET /v1 HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * 10_000 + b"\r\n",
    "an endless path": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in a path": b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": (
        b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a negative length": b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
    "a length of 23 digits": b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 23 + b"\r\n\r\n",
    "a chunk of no size": (
        b"POST /v1/statements HTTP/1.1\r\nHost: x\r\nContent-Type: application/msgpack\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n"
    ),
    "garbage after a good request": b"GET /v1 HTTP/1.1\r\nHost: x\r\n\r\nGARBAGE\r\n\r\n",
}


def connect(scene: Scene, *, seconds: float = 10) -> socket.socket:
    """A bare connection to the service."""
    return socket.create_connection(("127.0.0.1", scene.service.port), timeout=seconds)


def hear(wire: socket.socket) -> bytes:
    """All that comes until the service hangs up."""
    heard = b""
    while True:
        try:
            chunk = wire.recv(MIB)
        except ConnectionResetError:
            return heard
        if not chunk:
            return heard
        heard += chunk


def last_reply(heard: bytes) -> Reply:
    """The last answer on a wire that the service closed."""
    *_, start = re.finditer(rb"HTTP/1\.[01] \d{3} ", heard)
    head, _, content = heard[start.start() :].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split()[1]), headers["content-type"], headers, content)


def head_of(size: int, *lines: str) -> bytes:
    """The head of a POST of so many bytes."""
    every = ["POST /v1/statements HTTP/1.1", "Host: x", f"Content-Type: {MSGPACK}", f"Content-Length: {size}", *lines]
    return "\r\n".join([*every, "", ""]).encode()


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_what_is_no_http_is_refused_and_hung_up_on(scene: Scene, name: str) -> None:
    before, logged = scene.state(), len(scene.service.read_log())
    with connect(scene) as wire:
        wire.sendall(GARBAGE[name])
        reply = last_reply(hear(wire))
    assert (reply.status, reply.problem()["code"]) == (400, "malformed")
    assert scene.state() == before
    assert len(scene.service.read_log()) == logged, "whoever sends garbage does not fill the log"


def test_who_hangs_up_in_the_middle_leaves_no_trace(scene: Scene) -> None:
    before, logged = scene.state(), len(scene.service.read_log())
    whole = pack_request([scene.say("pay", ALICE, legs=[[BOB.public_key, 5]])])
    for cut in (1, 20, 200, len(head_of(len(whole)) + whole) - 1):
        with connect(scene) as wire:
            wire.sendall((head_of(len(whole)) + whole)[:cut])
    time.sleep(0.3)
    assert scene.state() == before
    assert len(scene.service.read_log()) == logged


# ── The siege ────────────────────────────────────────────────────────────────────────────────────────────────────


class Memory:
    """The most memory that the service took since `start`, in MiB above what it had then."""

    def __init__(self, scene: Scene) -> None:
        assert scene.service.process is not None
        self._process = Path("/proc") / str(scene.service.process.pid)

    def start(self) -> None:
        """Forget what was; 5 makes the kernel forget the peak (proc(5))."""
        (self._process / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def peak(self) -> int:
        """The most since `start`."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name + ":"))


@pytest.fixture
def memory(scene: Scene) -> Iterator[Memory]:
    """The service's memory; afterwards it must still be quick."""
    watch = Memory(scene)
    watch.start()
    yield watch
    line = Line(scene.service.url)
    began = time.monotonic()
    line.get("/v1")
    assert [answer["status"] for answer in line.post([scene.paid])] == ["replayed"]
    assert time.monotonic() - began < 3, "it still answers quickly"
    line.close()


def empties() -> bytes:
    """16 MiB of MessagePack in which each byte would be an object of 64."""
    inner = b"\xdc\x27\x10" + b"\x90" * 10_000
    count = (16 * MIB - 100) // len(inner)
    return b"\x81\xaastatements\xdc" + struct.pack(">H", count) + inner * count


COSTLY: Mapping[str, tuple[Callable[[Scene], Request], int]] = {
    "16 MiB of empty lists": (lambda s: Request(empties()), 200),
    "16 MiB of empty lists, zipped": (lambda s: packed("gzip", gzip.compress(empties(), 1)), 200),
    "8 million numbers": (lambda s: in_json('{"statements":[' + "1," * (8 * MIB - 20) + "1]}"), 413),
    "8 million empty texts": (lambda s: in_json('{"statements":[' + '"",' * (5 * MIB) + "1]}"), 413),
    "a text without an end": (lambda s: in_json('{"statements":["' + '\\"' * (7 * MIB) + "," * MIB), 400),
    "a statement of 8 million numbers": (
        lambda s: in_json('{"statements":[{"body":"","signatures":[' + "1," * (8 * MIB - 50) + "1]}]}"),
        413,
    ),
    "1,000 bodies of 16,000 nils": (
        lambda s: Request(pack_request([Envelope(flat(16_000), s.paid.signatures)] * 1_000)),
        200,
    ),
    "10,000 spoilt signatures": (lambda s: Request(pack_request([tampered(s.paid, mark=bytes(64))] * 10_000)), 200),
    "10,000 statements that are none": (lambda s: in_json('{"statements":[' + "1," * 9_999 + "1]}"), 200),
    "10,000 long unknown names": (
        lambda s: in_json('{"statements":[' + ",".join(['{"' + "\\u0001" * 200 + '":1}'] * 10_000) + "]}"),
        200,
    ),
}


def flat(items: int) -> bytes:
    """A body of many nils."""
    return b"\x9f" + (b"\xdc\x03\xe8" + b"\xc0" * 1000) * 15


@pytest.mark.parametrize("name", sorted(COSTLY))
async def test_what_is_cheap_to_send_is_not_dear_to_refuse(scene: Scene, memory: Memory, name: str) -> None:
    make, status = COSTLY[name]
    request, before = make(scene), scene.state()
    used = cpu_seconds(scene)
    async with aiohttp.ClientSession() as session:
        reply = await send(session, scene, request)
    spent = cpu_seconds(scene) - used
    assert reply.status == status, reply.body[:300]
    if status == 200:
        unpack = json.loads if reply.type == JSON else msgpack.unpackb
        assert {result["status"] for result in unpack(reply.body)["results"]} == {"refused"}
        assert len(reply.body) < 12 * MIB
    assert spent < 10, f"spent {spent:.1f} s"
    assert memory.peak() < 160, f"took {memory.peak()} MiB"
    assert scene.state() == before


@pytest.mark.parametrize("path", ["/v1/statements", "/v1/nowhere"])
def test_a_bomb_that_is_refused_is_not_unpacked_any_further(scene: Scene, memory: Memory, path: str) -> None:
    data = bomb(64 * MIB) * 32
    used = cpu_seconds(scene)
    with connect(scene, seconds=20) as wire:
        head = head_of(len(data), "Content-Encoding: gzip").replace(b"/v1/statements", path.encode())
        wire.sendall(head + data)
        wire.shutdown(socket.SHUT_WR)
        assert last_reply(hear(wire)).status in (404, 413)
    assert cpu_seconds(scene) - used < 1
    assert memory.peak() < 80


def cpu_seconds(scene: Scene) -> float:
    """The processor time that the service used so far."""
    assert scene.service.process is not None
    fields = Path(f"/proc/{scene.service.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_answers_that_nobody_fetches_do_not_pile_up(scene: Scene, memory: Memory) -> None:
    # About 7 MB of answer for a few kB; the kernel takes two or three of them, the rest is the service's to hold.
    text = '{"statements":[' + ",".join(['{"' + "x" * 600 + '":1}'] * 10_000) + "]}"
    data = gzip.compress(text.encode())
    head = head_of(len(data), "Content-Encoding: gzip").replace(MSGPACK.encode(), JSON.encode())
    wires = []
    try:
        for _ in range(21):
            wire = socket.socket()
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.settimeout(20)
            wire.connect(("127.0.0.1", scene.service.port))
            wires.append(wire)
            wire.sendall(head + data)
        starts = [wire.recv(12) for wire in wires]
        # How many are served depends on how many bodies arrive before the first answers are ready.
        assert set(starts) == {b"HTTP/1.1 200", b"HTTP/1.1 503"}, "some are served, and beyond its room it says so"
        assert memory.peak() < 320, f"took {memory.peak()} MiB"
    finally:
        for wire in wires:
            wire.close()


async def test_slow_senders_are_cut_off_and_meanwhile_shut_nobody_out(scene: Scene, memory: Memory) -> None:
    # Four requests that lack their last byte take all the room that large bodies have; others dribble, or say nothing.
    before = scene.state()
    size = 16 * MIB
    full = [await asyncio.to_thread(start_slowly, scene, head_of(size) + bytes(size - 1)) for _ in range(4)]
    slow = [start_slowly(scene, head_of(100) + b"\x81") for _ in range(50)]
    idle = [start_slowly(scene, random.choice([b"", b"GET /v1 HT", b"GET /v1 HTTP/1.1\r\nHost"])) for _ in range(50)]
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        reply = await send(session, scene, Request(bytes(MIB)))
        assert (reply.status, reply.problem()["code"]) == (503, "unavailable")
        assert int(reply.headers["Retry-After"]) > 0
        while time.monotonic() - began < 29:
            asked = time.monotonic()
            reply = await send(session, scene, one(scene.paid))
            assert reply.status == 200, reply.body
            assert time.monotonic() - asked < 3, "who sends one payment is not shut out"
            await asyncio.sleep(2)
        assert memory.peak() < 64 + 64
        for wire in [*full, *slow]:
            reply = last_reply(await asyncio.to_thread(hear, wire))
            assert (reply.status, reply.problem()["code"]) == (408, "timeout")
            wire.close()
        assert time.monotonic() - began < 45
        assert (await send(session, scene, Request(bytes(MIB)))).status == 400, "there is room again"
    for wire in idle:
        wire.close()
    assert scene.state() == before


def start_slowly(scene: Scene, data: bytes) -> socket.socket:
    """A connection on which something was said, and then nothing more."""
    wire = connect(scene, seconds=60)
    wire.sendall(data)
    return wire


def test_the_books_hold_after_all_this_and_no_fault_was_ours(scene: Scene) -> None:
    line = Line(scene.service.url)
    assert len(line.items(f"/v1/commons/{scene.commons.hex()}/entries")) == 10
    line.close()
    log = scene.service.read_log()
    assert "Traceback" not in log
    assert "level=critical" not in log
    assert "level=error" not in log

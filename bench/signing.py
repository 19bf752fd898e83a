"""Statements written and signed ahead of a measurement, packed as HTTP requests ready to send.

Owns what is said and who says it: one steward, many accounts, payments among them at random. Knows no socket and no
clock: the ledger's time is handed in.

Ids carry times that climb to the ledger's time and never pass it, as those of living clients would; all ids of one
millisecond would hit the database's index in an order that no real load has.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from gesell_protocol.canonical import pack_array
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX
from gesell_protocol.fields import Currency
from gesell_protocol.names import commons_of, uuid7
from gesell_protocol.policy import Policy
from gesell_protocol.statements import EXPIRES_MAX_MS, write_body

PROCESSES: Final = 2
#: Each account starts with this many grains and a payment moves at most `PAYMENT_MAX`, so that none runs dry.
FUNDS: Final = 10**12
PAYMENT_MAX: Final = 1_000
CURRENCY: Final = Currency("WRG", 6)
#: What one worker signs in one go: large enough to be worth handing over, small enough to share the work evenly.
_PORTION: Final = 4_000

Wire = list[object]


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed statement: the array that is sent, and the three parts that a verification takes."""

    key: bytes
    body: bytes
    signature: bytes

    def wire(self) -> Wire:
        """The envelope of SPEC §3."""
        return [self.body, [[self.key, self.signature]]]


@dataclass(frozen=True, slots=True)
class Crew:
    """Who takes part: a steward who founds and issues, and accounts that pay. Seeds are secret keys, 32 bytes each."""

    steward: bytes
    accounts: tuple[bytes, ...]

    @classmethod
    def drawn(cls, accounts: int) -> Crew:
        """New random keys, so that every run founds a commons of its own."""
        return cls(os.urandom(32), tuple(os.urandom(32) for _ in range(accounts)))


def sign(signer: Signer, fields: Mapping[str, Any], *, time_ms: int) -> Signed:
    """Sign one statement by `signer`: `by`, `id` (of `time_ms`) and `expires` (a week later) are filled in."""
    body = write_body(
        {
            **fields,
            "by": signer.public_key,
            "id": uuid7(time_ms, os.urandom(10)),
            "expires": time_ms + EXPIRES_MAX_MS,
        }
    )
    return Signed(signer.public_key, body, signer.sign(STATEMENT_PREFIX + body))


def found(crew: Crew, *, ledger: bytes, time_ms: int) -> tuple[bytes, Signed]:
    """The commons' name and its `found`: open, 2 % a month in daily ticks, one steward."""
    steward = Signer(crew.steward)
    policy = Policy(
        tick_seconds=86_400,
        rest_ticks=0,
        brackets=((0, 673_197),),
        melt_to="pool",
        admission="open",
        credit_limit=0,
        vouch_min=1,
        visibility="open",
        notice_ticks=0,
    )
    fields = {
        "type": "found",
        "ledger": ledger,
        "name": "Load",
        "currency": {"code": CURRENCY.code, "scale": CURRENCY.scale},
        "policy": policy.fields(),
        "stewards": [steward.public_key],
        "threshold": 1,
    }
    signed = sign(steward, fields, time_ms=time_ms)
    return commons_of(signed.body), signed


def memberships(crew: Crew, commons: bytes, *, time_ms: int) -> list[Signed]:
    """A `join` of every account, then an `issue` of `FUNDS` to each, in the order in which they must act."""
    steward = Signer(crew.steward)
    peers = [Signer(seed) for seed in crew.accounts]
    joins = [
        sign(peer, {"type": "join", "commons": commons, "handle": f"a{number}"}, time_ms=time_ms)
        for number, peer in enumerate(peers)
    ]
    issues = [
        sign(steward, {"type": "issue", "commons": commons, "to": peer.public_key, "amount": FUNDS}, time_ms=time_ms)
        for peer in peers
    ]
    return [*joins, *issues]


def request(host: str, envelopes: Sequence[Wire]) -> bytes:
    """A whole `POST /v1/statements` in MessagePack, head and body."""
    body = pack_statements(envelopes)
    head = (
        f"POST /v1/statements HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/msgpack\r\n"
        f"Accept: application/msgpack\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def pack_statements(envelopes: Sequence[Wire]) -> bytes:
    """`{"statements": [envelope…]}`; 0x81 opens a map of one pair."""
    return b"\x81" + bytes(pack_array("statements")) + bytes(pack_array(envelopes))


class Press:
    """Signs payments ahead in processes of its own; `close` ends them before the clock runs."""

    def __init__(self, crew: Crew, commons: bytes, host: str) -> None:
        self._pool = ProcessPoolExecutor(
            PROCESSES,
            # A forked child would share what this process has open; a spawned one starts clean.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_enter,
            initargs=(crew.accounts, commons, host),
        )

    def payments(self, requests: int, *, each: int, time_ms: int, span_ms: int) -> list[bytes]:
        """Requests of `each` payments, their ids' times climbing from `time_ms` − `span_ms` to `time_ms`."""
        portion = max(1, _PORTION // each)
        starts = range(0, requests, portion)
        jobs = [
            self._pool.submit(
                _payments,
                min(portion, requests - start),
                each,
                time_ms - span_ms + span_ms * start // requests,
                span_ms * portion // requests,
            )
            for start in starts
        ]
        return [one for job in jobs for one in job.result()]

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


# ── In the signing processes ─────────────────────────────────────────────────────────────────────────────────────

_desk: tuple[list[Signer], bytes, str] | None = None


def _enter(seeds: Sequence[bytes], commons: bytes, host: str) -> None:
    global _desk
    _desk = ([Signer(seed) for seed in seeds], commons, host)


def _payments(requests: int, each: int, from_ms: int, span_ms: int) -> list[bytes]:
    assert _desk is not None
    peers, commons, host = _desk
    count = requests * each
    return [
        request(
            host,
            [
                pay(peers, commons, time_ms=from_ms + span_ms * (number * each + place) // count).wire()
                for place in range(each)
            ],
        )
        for number in range(requests)
    ]


def pay(peers: Sequence[Signer], commons: bytes, *, time_ms: int) -> Signed:
    """One payment of 1 to `PAYMENT_MAX` grains from one of `peers` to another, both at random."""
    payer, payee = random.sample(peers, 2)
    legs = [[payee.public_key, random.randint(1, PAYMENT_MAX)]]
    return sign(payer, {"type": "pay", "commons": commons, "legs": legs}, time_ms=time_ms)

"""Statements written and signed ahead of a measurement, packed as HTTP requests ready to send.

Owns the keys, the statements' bytes and the requests; what is said by whom is handed in as `orders`. Knows no socket
and no clock: the ledger's time is handed in.

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

from bench.orders import PAYMENT_MAX, STEWARD, Order, joins, random_payments
from bench.orders import issues as issue_orders
from gesell_protocol.canonical import pack_array
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import STATEMENT_PREFIX
from gesell_protocol.fields import Currency
from gesell_protocol.names import commons_of, time_of_id, uuid7
from gesell_protocol.policy import Policy
from gesell_protocol.statements import EXPIRES_MAX_MS, write_body

PROCESSES: Final = 2
#: Each account starts with this many grains: enough for a hundred million payments.
FUNDS: Final = 10**12
CURRENCY: Final = Currency("WRG", 6)
DAY_SECONDS: Final = 86_400
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
    """Sign one statement by `signer`: `by`, `id` (of `time_ms`, unless there is one) and `expires` are filled in."""
    own = fields.get("id") or uuid7(time_ms, os.urandom(10))
    # As late as may be, reckoned from the time inside the id (SPEC §3).
    expires = time_of_id(own) + EXPIRES_MAX_MS
    body = write_body({**fields, "by": signer.public_key, "id": own, "expires": expires})
    return Signed(signer.public_key, body, signer.sign(STATEMENT_PREFIX + body))


def found(
    crew: Crew, *, ledger: bytes, time_ms: int, name: str = "Load", tick_seconds: int = DAY_SECONDS
) -> tuple[bytes, Signed]:
    """The commons' name and its `found`: open, 673,197 ppb a tick (2 % a month of daily ticks), one steward."""
    steward = Signer(crew.steward)
    policy = Policy(
        tick_seconds=tick_seconds,
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
        "name": name,
        "currency": {"code": CURRENCY.code, "scale": CURRENCY.scale},
        "policy": policy.fields(),
        "stewards": [steward.public_key],
        "threshold": 1,
    }
    signed = sign(steward, fields, time_ms=time_ms)
    return commons_of(signed.body), signed


def memberships(crew: Crew, commons: bytes, *, time_ms: int) -> list[Signed]:
    """A `join` of every account, then an `issue` of `FUNDS` to each, in the order in which they must act."""
    desk = Desk.of(crew, commons)
    accounts = len(crew.accounts)
    return [desk.sign(order, time_ms=time_ms) for order in (*joins(accounts), *issue_orders(accounts, amount=FUNDS))]


class Desk:
    """Where the orders of one commons become signed statements."""

    def __init__(self, steward: Signer, accounts: Sequence[Signer], commons: bytes) -> None:
        self._steward = steward
        self._accounts = accounts
        self._commons = commons

    @classmethod
    def of(cls, crew: Crew, commons: bytes) -> Desk:
        """With the keys of a crew."""
        return cls(Signer(crew.steward), [Signer(seed) for seed in crew.accounts], commons)

    def sign(self, order: Order, *, time_ms: int) -> Signed:
        """Sign one order, its id of `time_ms`."""
        signer = self._steward if order.by == STEWARD else self._accounts[order.by]
        return sign(signer, {"type": order.type, "commons": self._commons, **self._said(order)}, time_ms=time_ms)

    def _said(self, order: Order) -> dict[str, Any]:
        """The fields of its type (SPEC §3)."""
        match order.type:
            case "pay":
                return {"legs": [[self._accounts[payee].public_key, amount] for payee, amount in order.legs]}
            case "issue":
                ((payee, amount),) = order.legs
                return {"to": self._accounts[payee].public_key, "amount": amount}
            case "retire":
                return {"amount": order.amount}
            case "gift":
                ((receiver, quantity),) = order.legs
                to = self._accounts[receiver].public_key
                return {"id": order.id, "to": to, "kind": "hour", "quantity": quantity}
            case "thank":
                return {"gift": order.id}
            case "join":
                return {"handle": f"a{order.by}"}
        raise ValueError(f"nobody knows how to say {order.type}")


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
    """Signs ahead in processes of its own, which do nothing while a clock runs; `close` ends them."""

    def __init__(self, crew: Crew, commons: bytes, host: str) -> None:
        self._accounts = len(crew.accounts)
        self._pool = ProcessPoolExecutor(
            PROCESSES,
            # A forked child would share what this process has open; a spawned one starts clean.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_enter,
            initargs=(crew, commons, host),
        )

    def requests(self, orders: Sequence[Order], *, each: int, time_ms: int, span_ms: int) -> list[bytes]:
        """Requests of `each` statements (the last may have fewer) of these orders, in their order.

        Their ids' times climb from `time_ms` − `span_ms` to `time_ms`.
        """
        portion = max(1, _PORTION // each) * each
        jobs = [
            self._pool.submit(
                _requests,
                orders[start : start + portion],
                each,
                time_ms - span_ms + span_ms * start // len(orders),
                span_ms * min(portion, len(orders) - start) // len(orders),
            )
            for start in range(0, len(orders), portion)
        ]
        return [one for job in jobs for one in job.result()]

    def payments(self, requests: int, *, each: int, time_ms: int, span_ms: int) -> list[bytes]:
        """Requests of `each` payments between accounts at random."""
        orders = random_payments(random.Random(os.urandom(16)), requests * each, accounts=self._accounts)
        return self.requests(orders, each=each, time_ms=time_ms, span_ms=span_ms)

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


# ── In the signing processes ─────────────────────────────────────────────────────────────────────────────────────

_place: tuple[Desk, str] | None = None


def _enter(crew: Crew, commons: bytes, host: str) -> None:
    global _place
    _place = (Desk.of(crew, commons), host)


def _requests(orders: Sequence[Order], each: int, from_ms: int, span_ms: int) -> list[bytes]:
    assert _place is not None
    desk, host = _place
    wires = [
        desk.sign(order, time_ms=from_ms + span_ms * number // len(orders)).wire()
        for number, order in enumerate(orders)
    ]
    return [request(host, wires[start : start + each]) for start in range(0, len(wires), each)]


def pay(peers: Sequence[Signer], commons: bytes, *, time_ms: int) -> Signed:
    """One payment of 1 to `PAYMENT_MAX` grains from one of `peers` to another, both at random."""
    payer, payee = random.sample(peers, 2)
    legs = [[payee.public_key, random.randint(1, PAYMENT_MAX)]]
    return sign(payer, {"type": "pay", "commons": commons, "legs": legs}, time_ms=time_ms)

"""The mixed workload: single requests of payments, gifts and reads on many connections, as people and machines do it.

Owns the mix. Of the gifts one half are offers, the other thanks for gifts that were offered before the clock started:
a thank that overtook its offer on another connection would rightly be refused.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

from bench.orders import gifts, random_payments, thanks
from bench.plan import Plan
from bench.town import SIGNED_MAX, Load, Town
from gesell_protocol.ed25519 import public_key
from gesell_protocol.names import did_of, uuid7

NAME: Final = "mixed"
CONNECTIONS: Final = 64
#: Percent of the operations.
PAYMENTS: Final = 70
GIFTS: Final = 10
READS: Final = 20
TITLE: Final = (
    f"{PAYMENTS} % payments, {GIFTS} % gifts (half offers, half thanks), {READS} % reads of a balance;"
    f" one a request, {CONNECTIONS} connections"
)
#: Operations a second that are prepared, in v.
GUESS: Final = 0.8
WARM_UP: Final = 0.05


async def measure(plan: Plan, town: Town) -> None:
    """Run it once and note it."""
    wanted = min(town.v * GUESS * plan.seconds, SIGNED_MAX)
    # In twenties, of which each part is a whole number.
    count = 20 * math.ceil(wanted / 20)
    requests = await _mixed(plan, town, count)
    load = Load(
        after=NAME,
        requests=requests,
        warm_up=math.ceil(count * WARM_UP),
        connections=CONNECTIONS,
        seconds=plan.seconds,
    )
    timed = await town.time(load)
    town.notebook.note(NAME, TITLE, "operations/s", timed.operations())


async def _mixed(plan: Plan, town: Town, count: int) -> list[bytes]:
    """So many requests in a random order, signed; the gifts to be thanked for are offered by then."""
    accounts, half = plan.accounts, count * GIFTS // 200
    time_ms = await town.stand.time_ms()
    ids = [uuid7(time_ms - number, town.draw.randbytes(10)) for number in reversed(range(2 * half))]
    offered, offers = (gifts(town.draw, some, accounts=accounts) for some in (ids[:half], ids[half:]))
    await town.say(offered, after="gifts to be thanked for")
    orders = [*random_payments(town.draw, count * PAYMENTS // 100, accounts=accounts), *offers, *thanks(offered)]
    town.draw.shuffle(orders)
    said = await town.sign(orders, each=1, span_seconds=plan.seconds)
    return interleaved(town.draw, said, _reads(town, count * READS // 100))


def interleaved(draw: Random, some: list[bytes], others: list[bytes]) -> list[bytes]:
    """Both in one list at random, each in its own order."""
    places = set(draw.sample(range(len(some) + len(others)), len(others)))
    one, other = iter(some), iter(others)
    return [next(other if place in places else one) for place in range(len(some) + len(others))]


def _reads(town: Town, count: int) -> list[bytes]:
    """Requests for the balances of accounts at random."""
    dids = [did_of(public_key(seed)) for seed in town.crew.accounts]
    path = f"/v1/commons/{town.commons.hex()}/members"
    return [
        f"GET {path}/{town.draw.choice(dids)}/balances HTTP/1.1\r\nHost: {town.host}\r\n\r\n".encode()
        for _ in range(count)
    ]

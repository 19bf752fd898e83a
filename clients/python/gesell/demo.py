"""`gesell demo`: half a year of a small commons in about a minute, on a real ledger of its own.

Owns the play: who lives there, what their temper makes them do each day, and what is shown of it: payments, gifts and
thanks, a credit that neighbours vouch for, what melts and is shared out. The service, its
database, the signatures and the books are the real ones; only the clock runs faster. Nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gesell import errors
from gesell.amount import Amount
from gesell.answers import HOUR, Commons
from gesell.bodies import default_policy
from gesell.client import Client
from gesell.peer import Peer
from gesell.readings import Relationship
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of

DAY_MS: Final = 24 * 3600 * 1000
DAYS: Final = 182
START: Final = "2027-01-01T00:00:00Z"
#: Shared out a third of the way and at the end, so that the first share is seen to flow again.
SHARE_DAYS: Final = (60, 120)
REPORT_DAYS: Final = 14
HISTORY_LINES: Final = 16
CURRENCY: Final = "LIND"
SCALE: Final = 6
#: On this day the smithy buys an anvil for more than it has; neighbours lend it credit room until it is out of the red.
CREDIT_DAY: Final = 30
CREDIT_LIMIT: Final = 50 * 10**SCALE
DEBTOR: Final = "smithy"
SELLER: Final = "grocer"
VOUCHES: Final = {"ada": "40", "ben": "30"}
ANVIL_BEYOND: Final = Decimal(110)
#: How likely somebody gives an hour or two today, in parts per hundred, by temper; and what such hours are for.
GIVES: Final = {"spender": 12, "saver": 8, "shopkeeper": 4, "hoarder": 0}
FAVOURS: Final = ("gardening", "listening", "childcare", "repairs")
PAIRS_SHOWN: Final = 5

#: Who lives here: handle and temper.
PEOPLE: Final = (
    ("ada", "spender"),
    ("ben", "spender"),
    ("cleo", "spender"),
    ("dario", "spender"),
    ("eva", "spender"),
    ("finn", "spender"),
    ("bakery", "shopkeeper"),
    ("grocer", "shopkeeper"),
    ("smithy", "shopkeeper"),
    ("ines", "saver"),
    ("jonas", "saver"),
    ("gustav", "hoarder"),
    ("hedwig", "hoarder"),
)


@dataclass(slots=True)
class Person:
    """One inhabitant, and what the entries say of its money so far (grains)."""

    handle: str
    temper: str
    peer: Peer
    balance: Amount | None = None
    paid: int = 0
    received: int = 0
    melted: int = 0
    gave: int = 0
    #: The last gift that it received and did not answer by one of its own yet: the thread by which gifts move on.
    moved_by: bytes | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A gift that waits for its receiver's thanks."""

    gift: bytes
    to: Person


@dataclass(slots=True)
class Town:
    """The commons as it lives: its people, what has moved, and how far the entries were read."""

    client: Client
    people: list[Person]
    chance: random.Random
    seq: int = 0
    day: int = 0
    volume: int = 0
    melted: int = 0
    payments: int = 0
    shared: int = 0
    thanked: int = 0
    moved_on: int = 0
    owing: bool = False
    offers: list[Offer] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


async def run_demo(*, seconds: int, seed: int) -> int:
    """Play the half year in about `seconds`; returns the exit status: 0 only if the books hold."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="gesell-demo-") as folder, _service(folder, seconds) as url:
        console.print(f"A ledger of its own runs at {url}; half a year passes in {seconds} seconds.", soft_wrap=True)
        async with _town(url, seed) as town:
            await _live(town, console)
            await _share_out(town)
            await _read_entries(town)
            about = await town.client.commons()
            console.print(_picture(town, about))
            _tell(console, town)
            _tell_pairs(console, await _strongest_pairs(town))
            commons = ("--url", url, "--commons", about.id)
            console.print("\nWhat a hoarder sees (gesell history gustav):\n")
            shown = _gesell("history", "gustav", "--last", str(HISTORY_LINES), *commons)
            console.print("\nWith whom ada has to do (gesell relationships ada):\n")
            shown = _gesell("relationships", "ada", "--first", str(PAIRS_SHOWN), *commons) or shown
            console.print(f"\nThe proof (gesell db check, {about.seq} entries):\n")
            proven = _gesell("db", "check", "--data", folder)
            console.print("\nThe same by a stranger, who has the address and trusts nobody (gesell audit):\n")
            audited = _gesell("audit", url, "--commons", about.id, "--demo")
    return shown or proven or audited


@contextlib.contextmanager
def _service(folder: str, seconds: int) -> Iterator[str]:
    """A `gesell serve` on a demo clock, ended afterwards; gives its URL."""
    speed = DAYS * 86_400 // seconds
    words = ["serve", "--port", "0", "--data", folder, "--demo", "--clock-start", START, "--clock-speed", str(speed)]
    command = [sys.executable, "-m", "gesell", *words]
    # What an operator set for a real service (its database, its file of settings) is not for the demo's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GESELL_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise errors.GesellError("the demo's own ledger did not start; what it said stands above")
            yield line.split()[-1]
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.asynccontextmanager
async def _town(url: str, seed: int) -> AsyncIterator[Town]:
    """Found the commons, let everybody join, and give each the same to begin with."""
    mayor = Peer.new()
    people = [Person(handle, temper, Peer.new()) for handle, temper in PEOPLE]
    async with Client(url, peer=mayor) as client:
        policy = replace(default_policy(scale=SCALE), rest_ticks=3, brackets=((0, 673_197),), credit_limit=CREDIT_LIMIT)
        await client.found(name="Lindental", currency=CURRENCY, scale=SCALE, policy=policy)
        for person in people:
            await client.as_peer(person.peer).join(person.handle)
            await client.admit(person.peer)
            await client.issue(person.peer, "300")
        town = Town(client, people, random.Random(seed))
        await _read_entries(town)
        yield town


async def _live(town: Town, console: Console) -> None:
    """Let the days pass, as fast as the ledger's clock does, and show them."""
    start = (await town.client.service()).time_ms // DAY_MS
    view = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
    with view or contextlib.nullcontext():
        while town.day < DAYS:
            today = (await town.client.service()).time_ms // DAY_MS - start
            if today <= town.day:
                await asyncio.sleep(0.02)
                continue
            due = [day for day in SHARE_DAYS if town.day < day <= today]
            buys = town.day < CREDIT_DAY <= today
            town.day = min(today, DAYS)
            await _pass_day(town)
            shared = await _share_out(town) if due else 0
            await _read_entries(town)
            if shared:
                console.print(f"day {town.day:3}: {_money(shared)} of the pool shared out, the same to each")
            if buys:
                console.print(f"day {town.day:3}: {await _buy_on_credit(town)}", soft_wrap=True)
            elif town.owing and _is_out_of_the_red(town):
                console.print(f"day {town.day:3}: {await _end_credit(town)}", soft_wrap=True)
            if view is not None:
                about = await town.client.commons()
                view.update(_picture(town, about))
            elif town.day % REPORT_DAYS == 0:
                about = await town.client.commons()
                console.print(f"day {town.day:3}: {_flow(town, about)}", soft_wrap=True)


async def _pass_day(town: Town) -> None:
    """Everybody does what their temper says; the day's statements go to the ledger in one request."""
    answers, offers = await _answers(town), await _offers(town)
    envelopes = [*await _payments(town), *answers, *(envelope for envelope, _, _ in offers)]
    results = await town.client.submit(envelopes)
    for result in results:
        if result.status != "accepted":
            town.refused[getattr(result.error, "code", result.status)] += 1
    for (_, giver, to), result in zip(offers, results[len(envelopes) - len(offers) :], strict=True):
        if result.receipt is not None:
            town.offers.append(Offer(result.receipt.id, to))
            town.moved_on += giver.moved_by is not None
            giver.moved_by = None


async def _payments(town: Town) -> list[Envelope]:
    envelopes: list[Envelope] = []
    for person in town.people:
        left = person.balance.decimal if person.balance is not None else Decimal(0)
        for to, amount, category in _wishes(town, person):
            if amount > left:
                continue
            left -= amount
            speaker = town.client.as_peer(person.peer)
            envelopes.append(await speaker.sign({"type": "pay", "legs": [(to, amount)], "category": category}))
    return envelopes


async def _answers(town: Town) -> list[Envelope]:
    """Thanks for what was offered; now and then somebody would rather not."""
    envelopes: list[Envelope] = []
    waiting: list[Offer] = []
    for offer in town.offers:
        luck = town.chance.random()
        if luck < 0.2:  # not today
            waiting.append(offer)
            continue
        word = "thank" if luck < 0.98 else "decline"
        if word == "thank":
            offer.to.moved_by = offer.gift
            town.thanked += 1
        envelopes.append(await town.client.as_peer(offer.to.peer).sign({"type": word, "gift": offer.gift}))
    town.offers = waiting
    return envelopes


async def _offers(town: Town) -> list[tuple[Envelope, Person, Person]]:
    """Hours that people give: who was given some lately gives more often, and says by what gift it was moved."""
    chance, offers = town.chance, []
    for person in town.people:
        if chance.randrange(100) >= GIVES[person.temper] * (3 if person.moved_by else 1):
            continue
        to = chance.choice([other for other in town.people if other is not person])
        gift = {"type": "gift", "to": to.peer, "kind": "hour", "quantity": Decimal(chance.randint(2, 12)) / 4}
        # What moved it was thanked for in this very request, or before.
        after = {"after": [person.moved_by]} if person.moved_by else {}
        speaker = town.client.as_peer(person.peer)
        envelope = await speaker.sign({**gift, "category": chance.choice(FAVOURS), **after})
        offers.append((envelope, person, to))
    return offers


async def _buy_on_credit(town: Town) -> str:
    """Neighbours vouch for the smithy, which buys an anvil for more than its own credit limit allows."""
    people = {person.handle: person for person in town.people}
    debtor = people[DEBTOR]
    for handle, limit in VOUCHES.items():
        await town.client.as_peer(people[handle].peer).vouch(debtor.peer, limit)
    price = (await town.client.balance(debtor.peer)).effective.decimal + ANVIL_BEYOND
    await town.client.as_peer(debtor.peer).pay(people[SELLER].peer, price, category="anvil")
    await _read_entries(town)
    town.owing = True
    vouched = " and ".join(f"{handle} with {limit}" for handle, limit in VOUCHES.items())
    room = (await town.client.member(debtor.peer)).credit_limit
    return f"{vouched} vouch for the {DEBTOR}; with a credit limit of {room} it buys an anvil, and has {debtor.balance}"


def _is_out_of_the_red(town: Town) -> bool:
    return any(p.handle == DEBTOR and p.balance is not None and p.balance.grains >= 0 for p in town.people)


async def _end_credit(town: Town) -> str:
    people = {person.handle: person for person in town.people}
    for handle in VOUCHES:
        await town.client.as_peer(people[handle].peer).vouch(people[DEBTOR].peer, 0)
    town.owing = False
    return f"the {DEBTOR} is out of the red; {' and '.join(VOUCHES)} take their vouches back"


def _wishes(town: Town, person: Person) -> Iterator[tuple[Peer, Decimal, str]]:
    """What somebody wants to pay today: to whom, how much, for what."""
    chance = town.chance
    shops = [other.peer for other in town.people if other.temper == "shopkeeper" and other is not person]
    folk = [other.peer for other in town.people if other.temper != "shopkeeper" and other is not person]
    workers = [other.peer for other in town.people if other.temper in ("spender", "saver")]
    match person.temper:
        case "spender":
            for _ in range(chance.randint(1, 3)):
                yield chance.choice(shops), _cents(chance, 100, 900), chance.choice(("bread", "food", "tools"))
            if chance.random() < 0.3:
                yield chance.choice(folk), _cents(chance, 50, 300), chance.choice(("lift", "lesson", "thanks"))
        case "shopkeeper":
            for _ in range(2):
                yield chance.choice(workers), _cents(chance, 800, 2_400), "wages"
            if chance.random() < 0.5:
                yield chance.choice(shops), _cents(chance, 300, 1_500), "supplies"
        case "saver":
            if chance.random() < 0.7:
                yield chance.choice(shops), _cents(chance, 300, 1_200), "food"
        case "hoarder":
            if chance.random() < 0.03:
                yield chance.choice(shops), _cents(chance, 100, 300), "bread"


def _cents(chance: random.Random, low: int, high: int) -> Decimal:
    return Decimal(chance.randint(low, high)).scaleb(-2)


async def _share_out(town: Town) -> int:
    """Share what is in the pool among all, and wait until the ledger has paid everybody; returns the grains shared."""
    pool = (await town.client.commons()).pool
    if pool.grains < len(town.people):
        return 0
    await town.client.share(pool)
    town.shared += pool.grains
    for _ in range(500):
        if (await town.client.commons()).escrow.grains == 0:
            return pool.grains
        await asyncio.sleep(0.02)
    raise errors.GesellError("the ledger did not pay the share out within ten seconds")


async def _read_entries(town: Town) -> None:
    """Follow the entries: what moved, what melted, and of whom."""
    by_did = {person.peer.did: person for person in town.people}
    async for entry in town.client.entries(after=town.seq):
        town.seq = entry.seq
        for posting in entry.postings:
            person = by_did.get(did_of(posting.holder)) if isinstance(posting.holder, bytes) else None
            if person is None:
                continue
            if posting.reason == "gift":
                person.gave -= min(posting.amount, 0)
            elif posting.reason == "melt":
                person.melted -= posting.amount
                town.melted -= posting.amount
            elif posting.amount > 0:
                person.received += posting.amount
            else:
                person.paid -= posting.amount
        if entry.type == "pay":
            town.payments += 1
            town.volume += sum(p.amount for p in entry.postings if p.reason == "pay" and p.amount > 0)
    for person in town.people:
        person.balance = (await town.client.balance(person.peer)).effective


def _picture(town: Town, about: Commons) -> Group:
    """The town as it stands."""
    drawn = Table(title=f"Lindental, day {town.day} of {DAYS}", title_justify="left", box=None, pad_edge=False)
    for title in ("", "temper", "balance", "received", "paid", "melted", "gave"):
        drawn.add_column(title, justify="left" if title in ("", "temper") else "right", min_width=9, no_wrap=True)
    for person in town.people:
        balance = person.balance.grains if person.balance is not None else 0
        money = [_money(grains) for grains in (balance, person.received, person.paid, person.melted)]
        drawn.add_row(person.handle, person.temper, *money, str(HOUR.amount(person.gave)))
    return Group(drawn, Text(_flow(town, about)))


def _flow(town: Town, about: Commons) -> str:
    due = about.melt_due.grains if about.melt_due is not None else 0
    hours = HOUR.amount(sum(person.gave for person in town.people))
    return (
        f"{town.payments} payments, {_money(town.volume)} moved, {hours} given;"
        f" pool {_money(about.pool.grains)}, still to post {_money(due)}"
    )


def _money(grains: int) -> str:
    """An amount for the eye, cut to two decimals; the exact ones stand in the history."""
    whole, cents = divmod(abs(grains) // 10 ** (SCALE - 2), 100)
    return f"{'-' if grains < 0 else ''}{whole}.{cents:02}"


def _tell(console: Console, town: Town) -> None:
    """What the half year shows, in numbers from the entries."""
    kinds: dict[str, list[Person]] = defaultdict(list)
    for person in town.people:
        kinds[person.temper].append(person)
    console.print(
        f"\n{_money(town.melted)} {CURRENCY} melted; {_money(town.shared)} of it was shared out, the same to each.",
        soft_wrap=True,
    )
    for temper, people in kinds.items():
        paid, melted = sum(person.paid for person in people), sum(person.melted for person in people)
        # Parts per thousand of what went through their hands, rounded down; shown, never booked.
        rate = melted * 1000 // max(1, sum(person.received for person in people))
        each = f"{_money(paid // len(people)):>8} {CURRENCY} each"
        console.print(f"  {temper + 's':11} paid {each}; of what they received {rate // 10}.{rate % 10} % melted")
    console.print(
        f"{town.thanked} gifts of time were thanked for; {town.moved_on} were given by somebody whom a gift had moved.",
        soft_wrap=True,
    )
    for code, count in town.refused.items():
        console.print(f"  {count} statements were refused: {code}")


async def _strongest_pairs(town: Town) -> list[tuple[str, Relationship]]:
    """The relationships of most strength, each seen from one of its two sides, once the ledger has read all entries."""
    for _ in range(500):
        if (await town.client.standing(town.people[0].peer)).as_of_seq >= town.seq:
            break
        await asyncio.sleep(0.02)
    found: dict[frozenset[str], tuple[str, Relationship]] = {}
    for person in town.people:
        first = 0
        async for one in town.client.relationships(person.peer, page=PAIRS_SHOWN):
            found.setdefault(frozenset((person.handle, one.handle)), (person.handle, one))
            first += 1
            if first == PAIRS_SHOWN:
                break
    return sorted(found.values(), key=lambda pair: -pair[1].strength)[:PAIRS_SHOWN]


def _tell_pairs(console: Console, pairs: list[tuple[str, Relationship]]) -> None:
    console.print("\nThe strongest relationships (what is long ago counts less):")
    for handle, one in pairs:
        money = [f"paid {_money(one.paid.amount.grains)}", f"was paid {_money(one.received.amount.grains)}"]
        hours = [f"gave {total}" for total in one.given.totals()]
        hours += [f"was given {total}" for total in one.was_given.totals()]
        console.print(
            f"  {handle + ' with ' + one.handle:20} {one.strength:6.1f}  {', '.join((*money, *hours))}", soft_wrap=True
        )


def _gesell(*words: str) -> int:
    """Run a command of ours as a member or operator would; returns its exit status."""
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", "gesell", *words], check=False).returncode

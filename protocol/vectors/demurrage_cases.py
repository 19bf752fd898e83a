"""Vectors of the law of demurrage (SPEC §4.2): one account, its touches, and what has melted at each of them.

Owns which policies and lives of accounts are shown. The numbers come from `melt_by_the_letter`, the law as it is
written; that the fast `melt` gives the same is asserted here and tested elsewhere. Must not know statements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gesell_protocol.demurrage import Holding, melt, melt_by_the_letter, receive
from gesell_protocol.policy import Policy, Timeline
from vectors.notation import Case, drawn, file_text, written

Brackets = tuple[tuple[int, int], ...]

MONTHLY_2_PERCENT: Final[Brackets] = ((0, 673_197),)
TEN_PERCENT: Final[Brackets] = ((0, 100_000_000),)
MARGINAL: Final[Brackets] = ((0, 0), (1_000, 5_000_000), (50_000, 10_000_000), (1_000_000, 50_000_000))
START: Final = 20_000


@dataclass(frozen=True)
class Step:
    """A touch in the course of `tick`: what it adds to the balance, to the escrow, and to the tick's inflow."""

    tick: int
    balance: int = 0
    escrow: int = 0
    inflow: int = 0


Rules = Sequence[tuple[int, int, Brackets]]
"""(from_tick, rest_ticks, brackets) in the order of announcement, the founding one first."""


def came(tick: int, amount: int) -> Step:
    """Money that counts as inflow: paid, issued, granted or shared out to the account's holder."""
    return Step(tick, balance=amount, inflow=amount)


def went(tick: int, amount: int) -> Step:
    """Money paid away."""
    return Step(tick, balance=-amount)


def held(tick: int, amount: int) -> Step:
    """Money put into escrow, for a hold or a stream; a negative amount comes back and is no inflow."""
    return Step(tick, balance=-amount, escrow=amount)


def captured(tick: int, amount: int) -> Step:
    """Money that leaves the escrow for its payee."""
    return Step(tick, escrow=-amount)


def look(tick: int) -> Step:
    """Nothing but a reading."""
    return Step(tick)


def demurrage_json() -> str:
    """Give the text of `demurrage.json`. Asserts that the law's fast path gives the same numbers."""
    lives = [*_plain(), *_resting(), *_bracketed(), *_changing(), *_escrowed(), *_in_debt(), *_extreme(), *_drawn()]
    return file_text(
        about="Lives of single accounts: what melted since the touch before, the balance after, the next tick's fee.",
        spec="§4.2, §5.1",
        cases=[_case(name, rules, steps) for name, rules, steps in lives],
    )


def _case(name: str, rules: Rules, steps: Sequence[Step]) -> Case:
    timeline = Timeline.of((from_tick, _policy(rest, brackets)) for from_tick, rest, brackets in rules)
    holding = Holding(tick=steps[0].tick)
    shown = []
    for step in steps:
        before = melt_by_the_letter(holding, timeline, step.tick)
        assert melt(holding, timeline, step.tick) == before, f"{name}: the fast path differs at {step.tick}"
        after = receive(before, step.inflow, timeline) if step.inflow else before
        after = Holding(
            balance=before.balance + step.balance,
            escrow=before.escrow + step.escrow,
            tick=step.tick,
            inflows=after.inflows,
        )
        fee = after.balance - melt_by_the_letter(after, timeline, step.tick + 1).balance
        shown.append(_shown(step, melted=holding.balance - before.balance, after=after, fee=fee))
        holding = after
    policies = [
        {"from_tick": from_tick, "rest_ticks": rest, "brackets": written(brackets)}
        for from_tick, rest, brackets in rules
    ]
    return {"name": name, "policies": policies, "steps": shown}


def _shown(step: Step, *, melted: int, after: Holding, fee: int) -> Case:
    adds = {"balance": step.balance, "escrow": step.escrow, "inflow": step.inflow}
    numbers = {"melted": melted, "balance": after.balance, "next_fee": fee}
    return {
        "tick": step.tick,
        "adds": {name: written(amount) for name, amount in adds.items() if amount},
        **{name: written(amount) for name, amount in numbers.items()},
    }


def _policy(rest_ticks: int, brackets: Brackets) -> Policy:
    return Policy(
        tick_seconds=86_400,
        rest_ticks=rest_ticks,
        brackets=brackets,
        melt_to="pool",
        admission="open",
        credit_limit=0,
        vouch_min=1,
        visibility="open",
        notice_ticks=0,
    )


Life = tuple[str, Rules, Sequence[Step]]


def _always(rest_ticks: int, brackets: Brackets) -> Rules:
    return [(0, rest_ticks, brackets)]


def _plain() -> Iterator[Life]:
    ten = _always(0, TEN_PERCENT)
    days = [look(START + n) for n in (0, 1, 2, 3, 10, 50)]
    yield "10 % a tick, nothing rests: 1,000, 900, 810, 729 …", ten, [came(START, 1_000), *days]
    yield "10 % a tick stops when the floor of the fee is zero", ten, [came(START, 25), *days]
    yield "a fee of less than a grain is none", ten, [came(START, 9), look(START + 1_000)]
    yield "one grain too many is one grain of fee", ten, [came(START, 10), look(START + 1), look(START + 1_000)]
    yield (
        "looking often or seldom gives the same: often",
        _always(0, MONTHLY_2_PERCENT),
        [came(START, 1_250_000), *(look(START + n) for n in range(1, 31))],
    )
    yield (
        "looking often or seldom gives the same: seldom",
        _always(0, MONTHLY_2_PERCENT),
        [came(START, 1_250_000), look(START + 30)],
    )
    yield (
        "money that comes and goes within a tick melts not",
        ten,
        [came(START, 500), went(START, 500), look(START + 9)],
    )
    yield "what is left at the tick's end melts", ten, [came(START, 500), went(START, 300), look(START + 1)]
    yield "a policy that takes nothing", _always(0, ((0, 0),)), [came(START, 10**15), look(START + 5_000)]
    yield "a policy that takes all", _always(0, ((0, 10**9),)), [came(START, 10**15), look(START + 1), look(START + 2)]
    yield "in the first tick of all", ten, [came(0, 1_000), look(1), look(2)]


def _resting() -> Iterator[Life]:
    for rest in (1, 3, 366):
        edges = [look(START + n) for n in sorted({1, rest - 1, rest, rest + 1, rest + 2})]
        yield f"received money rests for {rest} tick ends", _always(rest, TEN_PERCENT), [came(START, 1_000), *edges]
        yield (
            f"in the first ticks of all, rest {rest}",
            _always(rest, TEN_PERCENT),
            [came(0, 1_000), look(1), look(rest), look(rest + 1), look(rest + 2)],
        )
    three = _always(3, TEN_PERCENT)
    inflows = [came(START, 1_000), came(START + 1, 500), came(START + 1, 20), came(START + 3, 200)]
    yield "several inflows age one after the other", three, [*inflows, *(look(START + n) for n in range(4, 9))]
    spent = [came(START, 1_000), came(START + 5, 400), went(START + 5, 700), look(START + 6), look(START + 9)]
    yield "the oldest money is spent first", three, spent
    more = [came(START, 1_000), came(START + 5, 400), went(START + 5, 1_200), look(START + 8), look(START + 9)]
    yield "more is spent than was old, and none is still", three, more
    same = [came(START, 100), went(START, 60), Step(START, balance=60), look(START + 3), look(START + 4)]
    yield "money that comes back is no inflow and changes nothing", three, same
    yield (
        "money passed on every tick stays fresh",
        _always(1, TEN_PERCENT),
        [step for n in range(6) for step in (came(START + n, 100), went(START + n + 1, 100))],
    )
    yield (
        "an old balance under a stream of income",
        three,
        [came(START, 9_999), *(came(START + n, 7) for n in range(12))],
    )


def _bracketed() -> Iterator[Life]:
    none = _always(0, MARGINAL)
    for amount in (999, 1_000, 1_001, 1_199, 1_200, 49_999, 50_000, 50_001, 1_000_000, 1_000_020, 123_456_789):
        yield f"four brackets, {amount} grains", none, [came(START, amount), look(START + 1), look(START + 2)]
    yield (
        "each bracket is rounded down by itself",
        _always(0, ((0, 5_000_000), (199, 10_000_000))),
        [came(START, 500), look(START + 1), look(START + 2)],
    )
    yield (
        "down through all brackets",
        none,
        [came(START, 5_000_000), *(look(START + n) for n in (1, 10, 30, 100, 5_000))],
    )
    high_first = ((0, 100_000_000), (100, 0))
    yield "more below than above", _always(0, high_first), [came(START, 1_000), look(START + 1), look(START + 200)]
    sixteen = tuple((10**n if n else 0, 1_000_000 * (n + 1)) for n in range(16))
    yield "sixteen brackets up to 10^15", _always(2, sixteen), [came(START, 10**15), look(START + 3), look(START + 60)]
    yield (
        "brackets over money that rests",
        _always(1, MARGINAL),
        [
            came(START, 60_000),
            came(START + 1, 70_000),
            look(START + 2),
            look(START + 3),
            look(START + 4),
        ],
    )


def _changing() -> Iterator[Life]:
    for name, rules, steps in _changes():
        yield name, rules, steps
        # Nobody looks while the policy changes: the window of fresh money must find its way alone.
        yield f"{name}, looked at once", rules, [came(START + 1, 1_000), came(START + 2, 500), look(START + 7)]


def _changes() -> Iterator[Life]:
    def change(name: str, rules: Rules, *, received: Sequence[int] = (0,), through: int = 12) -> Life:
        inflows = [came(START + n, 1_000) for n in received]
        return name, rules, [*inflows, *(look(START + n) for n in range(received[-1] + 1, through))]

    later = START + 4
    yield change("a higher fee from a tick on", [(0, 0, TEN_PERCENT), (later, 0, ((0, 200_000_000),))])
    yield change("melting ends", [(0, 0, TEN_PERCENT), (later, 0, ((0, 0),))])
    yield change("melting begins", [(0, 0, ((0, 0),)), (later, 0, TEN_PERCENT)])
    received = (0, 2, 3, 4, 5)
    longer = [(0, 1, TEN_PERCENT), (later, 4, TEN_PERCENT)]
    yield change("rest grows: what has been still does not become fresh", longer, received=received)
    yield change("rest shrinks", [(0, 4, TEN_PERCENT), (later, 1, TEN_PERCENT)], received=received)
    none_to_three = [(0, 0, TEN_PERCENT), (later, 3, TEN_PERCENT)]
    yield change("rest from nothing to 3", none_to_three, received=received)
    yield change("rest from 3 to nothing", [(0, 3, TEN_PERCENT), (later, 0, TEN_PERCENT)], received=received)
    to_and_fro = [(0, 3, TEN_PERCENT), (START + 2, 0, TEN_PERCENT), (START + 3, 6, TEN_PERCENT)]
    yield change("one tick without rest ages all that came before", to_and_fro, received=received, through=14)
    replaced = [(0, 0, TEN_PERCENT), (later, 0, ((0, 0),)), (later, 0, ((0, 500_000_000),))]
    yield change("of two policies for one tick the latest counts", replaced)
    crossed = [(0, 0, TEN_PERCENT), (later + 3, 0, ((0, 0),)), (later, 0, ((0, 500_000_000),))]
    yield change("a later announcement for an earlier tick ends no other", crossed)
    many = [(0, 0, TEN_PERCENT), *((START + n, n, ((0, 10_000_000 * n),)) for n in range(1, 17))]
    yield change("a change at every tick", many, received=(0, 3, 6, 9), through=20)
    yield (
        "a change in the middle of a long sleep",
        [(0, 3, MONTHLY_2_PERCENT), (START + 400, 0, MARGINAL)],
        [
            came(START, 987_654_321),
            look(START + 1_000),
        ],
    )


def _escrowed() -> Iterator[Life]:
    for rest in (0, 3):
        rules = _always(rest, TEN_PERCENT)
        yield (
            f"escrow melts as its payer's, out of the balance, rest {rest}",
            rules,
            [
                came(START, 1_000),
                held(START, 600),
                *(look(START + n) for n in (1, 2, 3, 4, 5, 6)),
            ],
        )
        yield (
            f"all in escrow: the balance goes below zero, rest {rest}",
            rules,
            [
                came(START, 1_000),
                held(START + 1, 900),
                look(START + 8),
                held(START + 8, -900),
                look(START + 9),
            ],
        )
        yield (
            f"a release is no inflow, rest {rest}",
            rules,
            [
                came(START, 1_000),
                held(START + 5, 300),
                held(START + 6, -300),
                look(START + 7),
            ],
        )
        yield (
            f"a capture ends the payer's melt on it, rest {rest}",
            rules,
            [
                came(START, 1_000),
                held(START + 1, 500),
                captured(START + 3, 500),
                look(START + 4),
                look(START + 5),
            ],
        )
        yield (
            f"escrow beside fresh money, rest {rest}",
            rules,
            [
                came(START, 1_000),
                held(START + 4, 700),
                came(START + 4, 250),
                *(look(START + n) for n in (5, 6, 7, 8)),
            ],
        )


def _in_debt() -> Iterator[Life]:
    for rest in (0, 3):
        rules = _always(rest, TEN_PERCENT)
        yield f"debt does not melt, rest {rest}", rules, [went(START, 500), look(START + 100)]
        yield f"zero does not melt, rest {rest}", rules, [came(START, 5), went(START, 5), look(START + 100)]
        paid_back = [went(START, 500), came(START + 2, 600), *(look(START + n) for n in (3, 5, 6, 7))]
        yield f"debt paid back, what is over melts, rest {rest}", rules, paid_back
    debt_and_escrow = [went(START, 100), held(START, 500), look(START + 1), look(START + 2)]
    yield "what is held on credit is not still until it exceeds the debt", _always(0, TEN_PERCENT), debt_and_escrow
    yield "never touched", _always(0, TEN_PERCENT), [look(START), look(START + 10_000)]


def _extreme() -> Iterator[Life]:
    most, century = 10**18, 36_525
    yield "10^18 grains, one tick", _always(0, MONTHLY_2_PERCENT), [came(START, most), look(START + 1), look(START + 2)]
    yield "10^18 grains for a hundred years", _always(3, MONTHLY_2_PERCENT), [came(START, most), look(START + century)]
    yield "10^18 grains, 1 part per billion, ten years", _always(0, ((0, 1),)), [came(START, most), look(START + 3_652)]
    yield (
        "10^18 grains at 999,999,999 ppb",
        _always(0, ((0, 10**9 - 1),)),
        [
            came(START, most),
            look(START + 1),
            look(START + 2),
            look(START + 3),
        ],
    )
    yield "10^18 grains below zero", _always(0, MONTHLY_2_PERCENT), [went(START, most), look(START + century)]
    yield "where a double would be wrong", _always(0, ((0, 333_333_333),)), [came(START, 2**53 + 1), look(START + 1)]
    yield "a long sleep in small fees", _always(0, MONTHLY_2_PERCENT), [came(START, 3_000_000), look(START + century)]
    yield "a long sleep in brackets", _always(366, MARGINAL), [came(START, 12_345_678), look(START + century)]
    edge = -(-(10**9) // 673_197)
    yield (
        "a grain above and below the smallest fee",
        _always(0, MONTHLY_2_PERCENT),
        [
            came(START, edge),
            look(START + 1),
            look(START + century),
        ],
    )


def _drawn() -> Iterator[Life]:
    """Lives drawn from hashes, so that what nobody thought of is there too."""
    makers = (came, came, came, went, held, went, came, lambda tick, amount: look(tick))
    for number in range(12):
        bits = iter(drawn(f"life {number}", 64))
        brackets = (
            (0, next(bits) * 400_000),
            (next(bits) * 10 + 1, next(bits) * 1_000_000),
            (10**6, next(bits) * 10**6),
        )
        rules: Rules = [
            (0, next(bits) % 5, brackets[: 1 + number % 3]),
            (START + next(bits) % 30, next(bits) % 9, brackets),
        ]
        tick, steps = START, []
        for _ in range(12):
            tick += next(bits) % 7
            kind, amount = next(bits) % 8, (next(bits) + 1) ** (1 + number % 4)
            steps.append(makers[kind](tick, amount))
        yield f"drawn life {number}", rules, [*steps, look(tick + 40)]

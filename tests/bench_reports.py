"""Invented reports of the harness, for the tests of what judges and shows them. None of these figures was measured.

Every goal is met in `good_report`; `without` leaves measures out, and `noting` puts runs in the place of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.measures import Check, Notebook, Profile, Report, Run, Share
from bench.stages import STAGES

V: Final = 10_000.0
ABOUT: Final[dict[str, Any]] = {
    "machine": {"cores": 2, "cpu": "Invented", "system": "Nowhere 1", "load_average": 0.1},
    "versions": {"gesell": "0.1.0"},
    "commit": "0123456789ab",
    "when": "1932-07-31 12:00 UTC",
    "seconds": 60.0,
    "arguments": {"quick": False, "rounds": 3},
}
Runs = Sequence[float | Run]


def rate(value: float, *, v: float = V, **details: float) -> Run:
    """A run of a rate, with latencies unless others are given."""
    return Run(value=value, v=v, details={"p50_ms": 5.0, "p95_ms": 9.0, "p99_ms": 12.0, **details})


#: Name → unit and runs; a plain number is a run without v.
GOOD: Final[Mapping[str, tuple[str, Runs]]] = {
    "commit.p50": ("ms", (1.0, 1.1, 1.2)),
    "commit.p99": ("ms", (4.0, 4.1, 4.2)),
    "plain.single": ("payments/s", (rate(1_400), rate(1_500), rate(1_600))),
    "plain.batch": ("payments/s", (rate(20_000),)),
    "pay.each-1000": ("payments/s", (rate(9_100), rate(9_200), rate(9_300))),
    "pay.each-100": ("payments/s", (rate(6_000),)),
    "pay.each-10": ("payments/s", (rate(4_000),)),
    "pay.one-c1": ("payments/s", (rate(250),)),
    "pay.one-c16": ("payments/s", (rate(1_500),)),
    "pay.one-c64": ("payments/s", (rate(3_600), rate(3_700), rate(3_800))),
    "pay.one-c256": ("payments/s", (rate(3_900),)),
    "pay.legs-100": ("legs/s", (rate(41_000), rate(42_000), rate(43_000))),
    "pay.random": ("payments/s", (rate(9_000), rate(6_000), rate(9_200))),
    "pay.hot": ("payments/s", (rate(9_000), rate(5_900), rate(9_100))),
    "size.10k": ("payments/s", (rate(9_000), rate(9_000), rate(9_000))),
    "size.10m": ("payments/s", (rate(8_300), rate(8_400), rate(8_500))),
    "sweep.million": ("accounts/s", (rate(30_000, accounts=1e6),)),
    "asleep.ten-years": ("ms", (0.2,)),
    "idle.p50": ("ms", (3.0, 3.1, 3.2)),
    "idle.p99": ("ms", (9.0, 9.1, 9.2)),
    "disk.payment": ("bytes", (590.0,)),
    "memory.service": ("MiB", (120.0,)),
    "soak.growth": (
        "MiB",
        (Run(value=1.0, details={"minutes": 60.2, "mib_00": 110.0, "mib_59": 111.0, "postgres_mib_00": 99.0}),),
    ),
}


def noting(replaced: Mapping[str, Runs] | None = None, *, without: Sequence[str] = (), **about: Any) -> Report:
    """The good report with the runs of some measures replaced, some left out, and something else said about it."""
    notebook = Notebook()
    for name, (unit, runs) in GOOD.items():
        for run in (replaced or {}).get(name, runs) if name not in without else ():
            notebook.note(name, f"what {name} <measures>", unit, run if isinstance(run, Run) else Run(value=run))
    notebook.skip("tigerbeetle.transfers", "TigerBeetle", "payments/s", "no address was given")
    notebook.checks.append(Check(after="pay.hot", acknowledged=1_234, held=True))
    shares = tuple(Share(stage=stage, microseconds=10.0 + place) for place, stage in enumerate(STAGES))
    notebook.profiles.append(Profile(workload="pay.each-1000", shares=shares))
    notebook.profiles.append(Profile(workload="pay.legs-100", shares=shares, per="leg"))
    notebook.profiles.append(Profile(workload="pay.one-c64", shares=(), why_not="may not look"))
    return notebook.report({**ABOUT, **about})


def good_report() -> Report:
    """All goals met."""
    return noting()

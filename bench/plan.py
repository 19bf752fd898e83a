"""What a run of the harness shall do: how long, how large, which groups, and where the neighbours are.

Owns the figures and their bounds, no measurement. Every group of workloads is handed one `Plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The groups of workloads, in the order in which they run.
GROUPS: Final = ("floor", "payments", "neighbours", "reading", "growth", "sleep", "soak")
ACCOUNTS_MIN: Final = 200
ENTRIES_MAX: Final = 10_000_000


#: Of the payments, what a quick run takes unless it is told: one of each kind of cost.
QUICK_WORKLOADS: Final = frozenset(
    {"pay.each-1000", "pay.one-c1", "pay.one-c64", "pay.legs-100", "pay.random", "pay.hot", "idle", "disk.payment"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of the harness.

    `rounds`: how often each workload runs, in turns; `seconds`: how long each run is; `v_seconds`: how long v is
    measured before and after each. `accounts`: how many pay each other. `only`: names of `GROUPS`, empty for all.
    `workloads`: to these measures the group of payments is narrowed (`pay.hot`, `mixed`, …), empty for all.
    `entries_max`: up to how many entries the ledger grows (0: growth is not measured). `sleepers`: idle accounts of
    the sweep. `listeners`: how many follow live. `soak_minutes`: 0 for no soak. `disk_payments`: over how many
    payments the growth on disk is measured. `idle_samples`: lone payments in a run. `url`: a service that runs
    already, else one is started for each group with `service_arguments` (as in `--workers 2`). `tigerbeetle` and
    `formance`: addresses of neighbours, None to leave them out.

    Raises `ValueError` for what is out of range; the message says which.
    """

    rounds: int = 3
    seconds: float = 10.0
    v_seconds: float = 0.5
    accounts: int = 1_000
    only: frozenset[str] = frozenset()
    workloads: frozenset[str] = frozenset()
    entries_max: int = ENTRIES_MAX
    sleepers: int = 1_000_000
    listeners: int = 1_000
    soak_minutes: float = 0.0
    disk_payments: int = 100_000
    idle_samples: int = 500
    quick: bool = False
    url: str | None = None
    service_arguments: tuple[str, ...] = ()
    tigerbeetle: str | None = None
    formance: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(self.only - set(GROUPS))
        if unknown:
            raise ValueError(f"no group of workloads is called {unknown[0]}; there are {', '.join(GROUPS)}")
        if self.rounds < 1 or self.seconds <= 0 or self.v_seconds <= 0:
            raise ValueError("there is at least one round, and its runs and the measurement of v take time")
        if self.accounts < ACCOUNTS_MIN:
            # A payment with 100 legs names 100 different payees.
            raise ValueError(f"at least {ACCOUNTS_MIN} accounts pay each other")
        if not 0 <= self.entries_max <= ENTRIES_MAX:
            raise ValueError(f"the ledger grows to at most {ENTRIES_MAX:,} entries")
        if min(self.sleepers, self.listeners, self.disk_payments, self.idle_samples) < 1 or self.soak_minutes < 0:
            raise ValueError("sleepers, listeners, payments and samples are at least 1, a soak has no negative length")
        if self.url is not None and self.service_arguments:
            raise ValueError("a service that runs already takes no arguments")

    @classmethod
    def full(
        cls,
        *,
        rounds: int = 3,
        seconds: float = 4.0,
        accounts: int = 1_000,
        only: frozenset[str] = frozenset(),
        workloads: frozenset[str] = frozenset(),
        entries_max: int = ENTRIES_MAX,
        soak_minutes: float = 60.0,
        url: str | None = None,
        service_arguments: tuple[str, ...] = (),
        tigerbeetle: str | None = None,
        formance: str | None = None,
    ) -> Plan:
        """Everything at its full size: the run that `bench/RESULTS.md` holds. An hour of it is the soak."""
        return cls(
            rounds=rounds,
            seconds=seconds,
            accounts=accounts,
            only=only,
            workloads=workloads,
            entries_max=entries_max,
            soak_minutes=soak_minutes,
            url=url,
            service_arguments=service_arguments,
            tigerbeetle=tigerbeetle,
            formance=formance,
        )

    @classmethod
    def short(
        cls,
        *,
        only: frozenset[str] = frozenset(),
        workloads: frozenset[str] = frozenset(),
        url: str | None = None,
        service_arguments: tuple[str, ...] = (),
        tigerbeetle: str | None = None,
        formance: str | None = None,
    ) -> Plan:
        """Each workload once and briefly, under two minutes in all: to see whether a change made a difference."""
        return cls(
            rounds=1,
            seconds=1.0,
            v_seconds=0.25,
            accounts=1_000,
            only=only,
            workloads=workloads or QUICK_WORKLOADS,
            entries_max=0,
            sleepers=4_000,
            listeners=100,
            disk_payments=10_000,
            idle_samples=300,
            quick=True,
            url=url,
            service_arguments=service_arguments,
            tigerbeetle=tigerbeetle,
            formance=formance,
        )

    def asks_for(self, group: str) -> bool:
        """Whether a group of workloads is to run."""
        return not self.only or group in self.only

    def wants(self, measure: str) -> bool:
        """Whether a measure of the group of payments is to be taken."""
        return not self.workloads or measure in self.workloads

"""Where the microseconds go: a sampling profile of the running service, folded into the stages of a statement's way.

Owns the runs that are sampled, the sampler (py-spy) as a process, and the processor time that its samples are scaled
to. Which stack belongs to which stage is `stages`' business. `python -m bench.profiles` prints the stages and the
functions that cost most.

The sampler reads the service's memory while it runs and does not stop it: what is measured is not slowed by being
looked at, and now and then a stack is torn and left out. Idle threads are not sampled, so what is told is processor
time, the kernel's by thread; time spent waiting for a commit is in the latencies, not here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench import machine
from bench.driver import drive
from bench.measures import Notebook, Profile
from bench.orders import Order, random_payments
from bench.payments import LEGGED
from bench.plan import QUICK_WORKLOADS, Plan
from bench.stages import Samples, read_samples, share_out
from bench.stand import Stand
from bench.town import Town
from bench.verdicts import Claim

SAMPLES_A_SECOND: Final = 250
#: How long one workload is sampled: some hundreds of samples a thread at least, and no more than is worth waiting for.
SECONDS_MIN: Final = 1.5
SECONDS_MAX: Final = 10.0
#: py-spy takes about so long to find its way around before it samples.
FINDING_SECONDS: Final = 1.0
ENDING_SECONDS: Final = 20.0
TOP: Final = 25
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sampled, under the name of its measure. `most`: payments a second that are signed for, times v; each has
    so many `legs`, and where these are many, it is they that are counted.
    """

    name: str
    each: int
    connections: int
    warm_up: int
    most: float
    draw: Callable[..., list[Order]] = random_payments
    legs: int = 1

    @property
    def per(self) -> str:
        """What its microseconds are shared by."""
        return "payment" if self.legs == 1 else "leg"


WORKLOADS: Final = (
    Workload("pay.each-1000", each=1_000, connections=4, warm_up=4, most=1.3),
    Workload("pay.one-c64", each=1, connections=64, warm_up=256, most=0.8),
    Workload(
        LEGGED.name,
        each=LEGGED.each,
        connections=LEGGED.connections,
        warm_up=16,
        most=0.1,
        draw=LEGGED.draw,
        legs=LEGGED.legs,
    ),
)


class NoProfile(Exception):
    """The service can't be sampled here; the message says why."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One workload: its stages, and how many samples had which function innermost."""

    profile: Profile
    by_function: Counter[str]


async def measure(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> None:
    """Sample each workload once, on a service of our own; note a profile for each, or why there is none."""
    try:
        await _sample_all(plan, notebook, tell)
    except NoProfile as error:
        notebook.profiles += [
            Profile(workload=one.name, shares=(), per=one.per, why_not=str(error)) for one in _wanted(plan)
        ]


async def _sample_all(plan: Plan, notebook: Notebook, tell: Callable[[str], None]) -> list[Sampled]:
    if plan.url is not None:
        raise NoProfile("the service is not ours")
    if plan.service_arguments:
        raise NoProfile("with arguments of its own the service may be several processes, and one is sampled")
    # A quick run has no time for it, unless it was told what to look at.
    if (plan.quick and plan.workloads == QUICK_WORKLOADS) or not _wanted(plan):
        return []
    sampler = _find_sampler()
    seconds = min(max(plan.seconds, SECONDS_MIN), SECONDS_MAX)
    done = []
    async with Stand.open(arguments=plan.service_arguments, v_seconds=plan.v_seconds) as stand:
        town = await Town.settled(stand, notebook, accounts=plan.accounts, name="Profile")
        try:
            for workload in _wanted(plan):
                tell(f"profile of {workload.name}, {seconds:.0f} s")
                sampled = await _sample(workload, town, sampler=sampler, seconds=seconds)
                notebook.profiles.append(sampled.profile)
                done.append(sampled)
        finally:
            town.close()
    return done


def _wanted(plan: Plan) -> list[Workload]:
    return [workload for workload in WORKLOADS if plan.wants(workload.name)]


async def _sample(workload: Workload, town: Town, *, sampler: Path, seconds: float) -> Sampled:
    """Drive one workload while the sampler looks on; what was acknowledged is checked like any other run."""
    stand = town.stand
    assert stand.pid is not None
    clock = seconds + FINDING_SECONDS
    signed = workload.warm_up * workload.each + int(workload.most * stand.v() * clock)
    orders = workload.draw(town.draw, signed, accounts=len(town.crew.accounts))
    requests = await town.sign(orders, each=workload.each)
    warm, timed = requests[: workload.warm_up], requests[workload.warm_up :]
    await town.demand(warm, after=f"{workload.name}, warm-up of its profile", connections=workload.connections)
    await stand.quiet()
    threads, cpu = _spent_by_thread(stand.pids()), stand.cpu()
    with tempfile.TemporaryDirectory(prefix="gesell-profile-") as folder:
        stacks = Path(folder) / "stacks"
        sampling = await _start(sampler, stand.pid, stacks, seconds=seconds)
        try:
            run = await drive(stand.url, timed, connections=workload.connections, seconds=clock)
            after, spent = stand.cpu(), _spent_by_thread(stand.pids())
            await _finish(sampling)
        finally:
            if sampling.returncode is None:
                sampling.kill()
                await sampling.wait()
        samples = read_samples(stacks.read_text(errors="replace").splitlines())
    claim = Claim(after=f"{workload.name}, its profile", commons=town.commons, requests=timed, run=run)
    accepted = await stand.check(town.notebook, claim)
    by_thread = {thread: used - threads.get(thread, 0.0) for thread, used in spent.items()}
    postgres = (after.postgres or 0.0) - (cpu.postgres or 0.0)
    count = accepted * workload.legs
    return Sampled(_profile(workload, samples, by_thread, postgres=postgres, count=count), samples.by_function)


def _profile(
    workload: Workload, samples: Samples, spent: Mapping[int, float], *, postgres: float, count: int
) -> Profile:
    if not samples.by_thread:
        return Profile(workload=workload.name, shares=(), per=workload.per, why_not="the sampler saw no work")
    shares = share_out(samples, spent, postgres=postgres, count=count)
    return Profile(workload=workload.name, shares=shares, per=workload.per)


# ── The sampler, and the kernel's count ──────────────────────────────────────────────────────────────────────────


def _find_sampler() -> Path:
    """py-spy of this environment, or the one on the PATH; raises `NoProfile`."""
    found = shutil.which("py-spy", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", ""))))
    if found is None:
        raise NoProfile("py-spy is not installed")
    return Path(found)


async def _start(sampler: Path, pid: int, stacks: Path, *, seconds: float) -> asyncio.subprocess.Process:
    """Start sampling; raises `NoProfile` if it ends at once, as it does where one process may not read another's."""
    sampling = await asyncio.create_subprocess_exec(
        sampler, "record", "--nonblocking", "--subprocesses", "--threads", "--format", "raw",
        "--rate", str(SAMPLES_A_SECOND), "--duration", str(max(1, round(seconds))),
        "--pid", str(pid), "--output", stacks,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(FINDING_SECONDS / 2):
            await sampling.wait()
    except TimeoutError:
        return sampling
    raise NoProfile(await _complaint(sampling))


async def _finish(sampling: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(ENDING_SECONDS):
        await sampling.wait()
    if sampling.returncode != 0:
        raise NoProfile(await _complaint(sampling))


async def _complaint(sampling: asyncio.subprocess.Process) -> str:
    assert sampling.stderr is not None
    said = (await sampling.stderr.read()).decode(errors="replace").strip().splitlines()
    return f"py-spy: {said[0] if said else f'ended with status {sampling.returncode}'}"


def _spent_by_thread(pids: Sequence[int]) -> dict[int, float]:
    """Processor seconds so far of each thread of some processes, by its id."""
    spent = {}
    for folder in (folder for pid in pids for folder in Path(f"/proc/{pid}/task").iterdir()):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
    return spent


# ── By itself ────────────────────────────────────────────────────────────────────────────────────────────────────


def show(sampled: Sequence[Sampled]) -> str:
    """The stages of each workload, and the functions that cost most by themselves."""
    lines = []
    for one in sampled:
        if not one.profile.shares:
            lines += [f"{one.profile.workload}: {one.profile.why_not}", ""]
            continue
        total = sum(share.microseconds for share in one.profile.shares)
        lines.append(f"{one.profile.workload}: {total:.0f} µs of processor time a {one.profile.per}")
        lines += [
            f"  {share.microseconds:7.1f} µs  {share.microseconds / total:6.1%}  {share.stage}"
            for share in one.profile.shares
        ]
        seen = one.by_function.total()
        lines += ["", f"  functions by their own time, of {seen} samples of the service:"]
        lines += [f"  {count / seen:6.1%}  {name}" for name, count in one.by_function.most_common(TOP)]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """`python -m bench.profiles [SECONDS [WORKLOAD…]]`; the exit status."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS_MAX
    if unknown := set(sys.argv[2:]) - {one.name for one in WORKLOADS}:
        print(
            f"bench.profiles: {min(unknown)} is not sampled; {', '.join(one.name for one in WORKLOADS)}",
            file=sys.stderr,
        )
        return 2
    plan = Plan(seconds=seconds, workloads=frozenset(sys.argv[2:]))
    print(f"{machine.describe()['cpu']}, each workload for {seconds:.0f} s", file=sys.stderr)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            print(show(runner.run(_sample_all(plan, Notebook(), _tell))))
        except NoProfile as error:
            print(f"bench.profiles: {error}", file=sys.stderr)
            return 1
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

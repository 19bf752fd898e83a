"""What is read from the samples of a soak, and what its listeners notice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest

from bench.soak import Ear, Sample, Soaked, find_losses, growth_of, run_of, show

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def samples(service: Sequence[float]) -> tuple[Sample, ...]:
    """Evenly spread over 100 seconds."""
    step = 100 / len(service)
    return tuple(
        Sample(at=number * step, service=mib, postgres=2 * mib, load=50.0, accepted=number)
        for number, mib in enumerate(service)
    )


def soaked(service: Sequence[float]) -> Soaked:
    return Soaked(seconds=100.0, resting=20.0, accepted=1_000, samples=samples(service))


def test_growth_is_between_the_second_tenth_and_the_last() -> None:
    # The warm-up, and what came in between, tell nothing.
    assert growth_of(samples([*[10.0] * 10, *[80.0] * 10, *[500.0] * 70, *[95.0] * 10])) == 15.0


def test_one_sample_far_off_is_no_growth() -> None:
    assert growth_of(samples([*[80.0] * 95, 300.0, *[80.0] * 4])) == 0.0


def test_a_handful_of_samples_tells_no_growth() -> None:
    with pytest.raises(ValueError, match="9 samples tell no growth"):
        growth_of(samples([80.0] * 9))


def test_memory_over_time_is_told_in_sixty_parts() -> None:
    run = run_of(soaked([float(number) for number in range(240)]))
    assert run.value == 227.5 - 35.5
    parts = [run.details[f"mib_{part:02}"] for part in range(60)]
    assert parts == [4 * part + 1.5 for part in range(60)]
    assert run.details["postgres_mib_59"] == 475.0
    assert run.details["load_mib_00"] == 50.0
    assert run.details["service_mib"] == 239.0
    assert run.details["load_share"] == 0.8
    assert run.details["rate"] == 10.0


def test_a_part_without_a_sample_is_left_out_and_none_is_moved() -> None:
    details = run_of(soaked([80.0] * 20)).details
    assert {name for name in details if name.startswith("mib_")} == {f"mib_{part:02}" for part in range(0, 60, 3)}


def test_the_table_has_a_line_for_each_part_and_the_growth() -> None:
    table = show(soaked([*[80.0] * 90, *[92.25] * 30])).splitlines()
    assert len([line for line in table if line.strip().startswith(("0.", "1."))]) == 60
    assert "+12.2 MiB" in table[-1]


def test_losses_name_what_the_log_and_who_among_the_listeners_did_not_get() -> None:
    assert find_losses(["", ""], accepted=5, entries=5) == ""
    assert find_losses(["", ""], accepted=5, entries=4) == "5 payments were accepted, the log grew by 4"
    assert (
        find_losses(["", "heard of entry 3 after 1"], accepted=5, entries=5) == "listener 1: heard of entry 3 after 1"
    )


# ── Listeners ────────────────────────────────────────────────────────────────────────────────────────────────────


def stream(*numbers: int) -> bytes:
    return b"retry: 1000\n\n" + b"".join(b'id: %d\nevent: entry\ndata: {"id: 9"}\n\n' % one for one in numbers)


def told(data: bytes, *, packed: bool, piece: int, after: int = 4) -> Ear:
    """An ear that got an answer in pieces of so many bytes."""
    ear = Ear(b"", after=after, packed=packed)
    for start in range(0, len(data), piece):
        ear.data_received(data[start : start + piece])
    return ear


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ((5, 6, 7, 8), ""),
        ((5, 6, 8), "heard of entry 8 after 6"),
        ((5, 6, 6, 7, 8), "heard of entry 6 after 6"),
        ((6, 7, 8), "heard of entry 6 after 4"),
        ((5, 7, 6, 8), "heard of entry 7 after 5"),
    ],
)
async def test_a_listener_notices_what_is_missing_or_twice(
    packed: bool, piece: int, numbers: tuple[int, ...], fault: str
) -> None:
    body = stream(*numbers)
    if packed:
        press = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        body = press.compress(body) + press.flush(zlib.Z_SYNC_FLUSH)
    ear = told(HEAD + body, packed=packed, piece=piece)
    await ear.hear_up_to(8)
    assert ear.fault == fault


async def test_a_listener_that_is_cut_off_refused_or_left_waiting_has_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.soak.PATIENCE_SECONDS", 0.01)
    cut = told(HEAD + stream(5), packed=False, piece=100)
    cut.connection_lost(None)
    assert cut.fault == "was cut off after entry 5: end of stream"
    assert "was answered" in told(b"HTTP/1.1 503 Busy\r\n\r\n", packed=False, piece=100).fault
    waiting = told(HEAD + stream(5), packed=False, piece=100)
    await waiting.hear_up_to(6)
    assert waiting.fault == "heard of entries up to 5 of 6"


async def test_hanging_up_is_no_fault() -> None:
    ear = told(HEAD + stream(5), packed=False, piece=100)
    ear.close()
    ear.connection_lost(None)
    assert ear.fault == ""

"""What is written ahead for the baselines, and what is read from pgbench's report."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from bench.floor import BATCH, BODY_BYTES, FloorFault, read_pgbench, write_batches
from bench.signing import pay
from gesell_protocol.ed25519 import Signer

ACCOUNTS = 50
REPORT = """\
pgbench (18.0)
transaction type: -
number of clients: 32
number of transactions actually processed: 2457
number of failed transactions: {failed} (0.000%)
latency average = 12.695 ms
initial connection time = 68.031 ms
tps = 2520.599773 (without initial connection time)
"""


def copied(data: bytes) -> list[list[bytes]]:
    """The rows of a binary COPY, by PostgreSQL's description of it."""
    assert data.startswith(b"PGCOPY\n\xff\r\n\x00" + bytes(8))
    place, rows = 19, []
    while (fields := struct.unpack_from(">h", data, place)[0]) != -1:
        place += 2
        row = []
        for _ in range(fields):
            (size,) = struct.unpack_from(">i", data, place)
            row.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        rows.append(row)
    assert place + 2 == len(data)
    return rows


def test_rate_and_count_are_read_from_the_report() -> None:
    assert read_pgbench(REPORT.format(failed=0)) == (2457, 2520.599773)


@pytest.mark.parametrize(
    "report",
    [
        REPORT.format(failed=3),
        REPORT.format(failed=0).replace("tps", "rate"),
        REPORT.format(failed=0).replace("2457", "0"),
        "",
    ],
)
def test_a_report_of_failures_or_without_figures_is_a_fault(report: str) -> None:
    with pytest.raises(FloorFault):
        read_pgbench(report)


def test_a_batch_has_two_postings_a_payment_and_moves_the_accounts_by_their_sum() -> None:
    for batch in write_batches(2, accounts=ACCOUNTS):
        payments, postings = copied(batch.payments), copied(batch.postings)
        assert (len(payments), len(postings)) == (BATCH, 2 * BATCH)
        moved: Counter[int] = Counter()
        for (name, _), paid, got in zip(payments, postings[::2], postings[1::2], strict=True):
            assert name == paid[1] == got[1]
            payer, payee = (int.from_bytes(posting[0], "big") for posting in (paid, got))
            amounts = [int.from_bytes(posting[2], "big", signed=True) for posting in (paid, got)]
            assert payer != payee
            assert amounts[0] == -amounts[1] < 0
            moved[payer] += amounts[0]
            moved[payee] += amounts[1]
        told = dict(zip(batch.numbers, batch.grains, strict=True))
        assert told == {account: grains for account, grains in moved.items() if grains}


def test_ids_of_batches_ascend_and_none_comes_twice() -> None:
    names = [row[0] for batch in write_batches(3, accounts=ACCOUNTS) for row in copied(batch.payments)]
    assert len(set(names)) == 3 * BATCH
    times = [name[:6] for name in names]
    assert times == sorted(times)


def test_the_plain_payment_is_as_long_as_a_signed_ones_body() -> None:
    peers = [Signer(bytes([number]) * 32) for number in range(3)]
    # A small amount takes a byte or two less.
    assert max(len(pay(peers, bytes(16), time_ms=1_763_800_000_000).body) for _ in range(100)) == BODY_BYTES

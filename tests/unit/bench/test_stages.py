"""Sampled stacks and the stages of a statement's way."""

from __future__ import annotations

import pytest

from bench.stages import POSTGRES, REST, STAGES, read_samples, share_out, stage_of

LOOP = "Runner.run (asyncio/runners.py:118)"
SEQUENCER = "Sequencer._decide_in (gesell_ledger/sequencer.py:283)"
WORKER = "_worker (concurrent/futures/thread.py:81)"


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        (["Intake._check_one (gesell_ledger/intake.py:1)", "verify (gesell_protocol/ed25519.py:60)",
          "crypto_sign_open (nacl/bindings/crypto_sign.py:103)"], "verify"),
        ([WORKER, "Intake._check_one (gesell_ledger/intake.py:1)",
          "read_statement (gesell_protocol/statements.py:9)", "_check (gesell_protocol/canonical.py:3)"], "decode"),
        ([LOOP, "post_statements (gesell_ledger/api/writing.py:96)",
          "_pieces_of (gesell_ledger/api/writing.py:130)", "unpackb (msgpack/__init__.py:1)"], "decode"),
        ([LOOP, "Application._handle (aiohttp/web_app.py:5)", "_respond (gesell_ledger/api/writing.py:99)",
          "packb (msgpack/__init__.py:1)"], "HTTP"),
        ([LOOP, SEQUENCER, "Sequencer._decide_all (gesell_ledger/sequencer.py:310)",
          "decide (gesell_ledger/core/decide.py:5)", "_move (gesell_ledger/core/money.py:1)"], "decide"),
        ([LOOP, SEQUENCER, "Batch.load (gesell_ledger/storage/postgres.py:2)",
          "Connection.fetchrow (asyncpg/connection.py:775)"], "store"),
        ([LOOP, SEQUENCER, "leaf_hash (gesell_protocol/log.py:4)"], "store"),
        ([LOOP, "Folder.run (gesell_ledger/readings/folder.py:4)", "Fold.load (gesell_ledger/storage/folds.py:1)",
          "Connection.fetch (asyncpg/connection.py:7)"], "readings"),
        ([LOOP, SEQUENCER, "Counter.update (collections/__init__.py:690)"], "event loop"),
        ([LOOP], "event loop"),
        ([LOOP, "PoolConnectionHolder.release (asyncpg/pool.py:274)"], "store"),
        ([LOOP, "something (elsewhere.py:1)"], REST),
        (["no frame at all"], REST),
    ],
)  # fmt: skip
def test_a_stack_belongs_to_the_innermost_frame_that_is_known(frames: list[str], stage: str) -> None:
    assert stage_of(frames) == stage


def test_samples_are_counted_by_thread_and_who_waits_is_left_out() -> None:
    samples = read_samples(
        [
            f"thread (7): MainThread;{LOOP};decide (gesell_ledger/core/decide.py:5) 3",
            f"thread (7): MainThread;{LOOP};decide (gesell_ledger/core/decide.py:9) 1",
            "thread (8): verify_0;verify (gesell_protocol/ed25519.py:60) 5",
            f"thread (8): verify_0;{WORKER} 90",
            'process 9:"python";thread (9): MainThread;verify (gesell_protocol/ed25519.py:60) 2',
            'process 9:"python";thread (9): MainThread;main (checker.py:1);SocketIO.readinto (socket.py:706) 80',
            "thread (8): verify_0 4",
            "a torn line",
            "",
        ]
    )
    assert samples.by_thread == {7: {"decide": 4}, 8: {"verify": 5}, 9: {"verify": 2}}
    assert samples.by_function == {"decide (gesell_ledger/core/decide.py)": 4, "verify (gesell_protocol/ed25519.py)": 7}


def test_the_kernels_time_is_shared_out_by_samples_and_none_of_it_is_lost() -> None:
    samples = read_samples(
        [
            f"thread (7): MainThread;{LOOP};decide (gesell_ledger/core/decide.py:5) 1",
            f"thread (7): MainThread;{LOOP};fetch (asyncpg/connection.py:5) 3",
            "thread (8): verify_0;verify (gesell_protocol/ed25519.py:60) 400",
        ]
    )
    shares = share_out(samples, {7: 2.0, 8: 1.0, 9: 0.25}, postgres=0.75, count=1_000_000)
    told = {share.stage: share.microseconds for share in shares}
    assert tuple(told) == STAGES
    assert told == pytest.approx(
        {**dict.fromkeys(STAGES, 0.0), "decide": 0.5, "store": 1.5, "verify": 1.0, REST: 0.25, POSTGRES: 0.75}
    )

"""The ledger's key changes hands: a `rekey` in the log of every commons, then in the note of whose database it is.

Owns the order that makes it safe to be interrupted anywhere and run again. Nothing is lost in between: a commons that
was handed over waits for a service with the new key, and a service that finds one that is not its own does not start.

1. No service runs on the database meanwhile.
2. Each commons whose key is the old one gets its `rekey`, signed by both keys.
3. When none is left, the database is the new key's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gesell_ledger.clock import Clock, DemoClock, LedgerClock
from gesell_ledger.core.decide import Submission
from gesell_ledger.ground import check_unserved, connect
from gesell_ledger.keyfile import LedgerKey
from gesell_ledger.metrics import Metrics
from gesell_ledger.own_statements import own_statement
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.faults import DatabaseUnfit
from gesell_ledger.storage.postgres import check_fit, store_ledger_key
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.trees import Trees
from gesell_protocol.names import did_of

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

CONNECTIONS: Final = 3
SECONDS: Final = 60
PAGE: Final = 100


async def rekey(dsn: str, *, old: LedgerKey, new: LedgerKey) -> int:
    """Hand the ledger over from one key to another and return in how many commons that was done now.

    Interrupted, it goes on where it was when it is run again with the same keys. Raises a `Fault` that says what to do.
    """
    async with connect(dsn, connections=CONNECTIONS, seconds=SECONDS) as pool:
        await check_fit(pool, unsafe_durability=True)
        if old.public_key == new.public_key:
            raise DatabaseUnfit("the new key is the old one; say another file: --new-key FILE")
        clock = await _check_quiet(pool, old, new)
        sequencer = Sequencer(pool, clock, ledger=old.public_key, metrics=Metrics())
        trees, reader, done = Trees(pool), Reader(pool), 0
        while listed := await trees.list_of_ledger(old.public_key, limit=PAGE):
            for commons in listed:
                await _hand_over(sequencer, reader, clock, commons, old=old, new=new)
                done += 1
        await store_ledger_key(pool, old=old.public_key, new=new.public_key)
        return done


async def _hand_over(
    sequencer: Sequencer, reader: Reader, clock: LedgerClock, commons: bytes, *, old: LedgerKey, new: LedgerKey
) -> None:
    found = await reader.load_commons(commons)
    assert found is not None
    # The log's own time, where that runs ahead: a demo clock's may by years.
    now_ms = max(clock.now_ms(), found[0].at_ms)
    submission: Submission = own_statement(
        "rekey",
        {"ledger": new.public_key},
        commons=commons,
        now_ms=now_ms,
        signer=old.signer(),
        beside=new.signer(),
    )
    (answer,) = await sequencer.submit([submission])
    if not isinstance(answer, Receipted):
        raise DatabaseUnfit(f"the commons {commons.hex()} could not be handed over: {answer.code}, {answer.detail}")


async def _check_quiet(pool: Pool, old: LedgerKey, new: LedgerKey) -> LedgerClock:
    """Check whose database it is and that nobody serves it, and return its clock."""
    row = await check_unserved(pool)
    # A service that slept through a hand-over may have founded another commons with the old key: that one is left.
    left = await Trees(pool).list_of_ledger(old.public_key, limit=1)
    done = row is not None and row["key"] == new.public_key
    if row is None or (row["key"] != old.public_key and not (done and left)):
        owner = "nobody yet" if row is None else did_of(row["key"])
        raise DatabaseUnfit(
            "it is done already: this database belongs to the new key"
            if done
            else f"this database belongs to {owner}, not to {did_of(old.public_key)}; say its key's file: --key FILE"
        )
    other = await Trees(pool).find_foreign(old.public_key, new.public_key)
    if other is not None:
        raise DatabaseUnfit(
            f"neither key speaks for the log of {other[0].hex()}: an import is unfinished; run it to its end first"
        )
    if row["demo"]:
        return DemoClock(start_ms=row["heartbeat_ms"], speed=1)
    clock = Clock()
    clock.check_start(row["heartbeat_ms"])
    return clock

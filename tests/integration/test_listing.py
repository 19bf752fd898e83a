"""The list of open commons looks at a bounded number of them for each page, and misses none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gesell_ledger.api import reads
from gesell_ledger.api.reads import list_open
from gesell_ledger.clock import Clock
from gesell_ledger.metrics import Metrics
from gesell_ledger.sequencer import Receipted, Sequencer
from gesell_ledger.storage.reading import Reader
from gesell_ledger.storage.rows import key_of
from tests.speaking import POLICY, name_of, signer_of, submission_of, write_found

if TYPE_CHECKING:
    from gesell_ledger.storage.postgres import Pool

LEDGER, STEWARD = signer_of("ledger"), signer_of("steward")
COMMONS = 40


async def found(pool: Pool, *, every: int) -> list[bytes]:
    """Found some commons, one in `every` of them open; the names of these, in the order in which they are stored."""
    clock = Clock()
    sequencer = Sequencer(pool, clock, ledger=LEDGER.public_key, metrics=Metrics())
    opened, drafts = [], []
    for number in range(COMMONS):
        visibility = "open" if number % every == 0 else ("members", "parties")[number % 2]
        policy = {**POLICY, "visibility": visibility}
        drafts.append(write_found([STEWARD], ledger=LEDGER.public_key, now_ms=clock.look(), policy=policy))
        if visibility == "open":
            opened.append(name_of(drafts[-1]))
    answers = await sequencer.submit([submission_of(draft) for draft in drafts])
    assert all(isinstance(answer, Receipted) for answer in answers)
    await sequencer.stop()
    return sorted(opened, key=key_of)


class Counting(Reader):
    """A reader that counts the commons that it was asked for."""

    looked = 0

    async def list_commons(self, *, after: bytes | None, limit: int) -> list[reads.Commons]:
        listed = await super().list_commons(after=after, limit=limit)
        self.looked += len(listed)
        return listed


@pytest.mark.parametrize("limit", [1, 2, 3, 7, COMMONS])
@pytest.mark.parametrize("every", [1, 9, COMMONS])
async def test_pages_hold_each_open_commons_once_within_the_bound(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, limit: int, every: int
) -> None:
    monkeypatch.setattr(reads, "SCANS", (2, 2, 2))
    opened = await found(pool, every=every)
    reader, now = Counting(pool), Clock().look()
    seen: list[bytes] = []
    after: bytes | None = None
    for _ in range(COMMONS + 2):
        reader.looked = 0
        listed, after = await list_open(reader, after=after, limit=limit, now_ms=now)
        assert reader.looked <= limit + 1 + 6
        assert len(listed) <= limit
        seen += [commons.id for commons in listed]
        if after is None:
            break
    assert after is None
    assert seen == opened

"""What the client's tests share: a ledger on the wire and a client that speaks to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from wire_ledger import WireLedger, serving

from gesell import Client, Peer

ADA = Peer(b"\x01" * 32)


@pytest.fixture
def ledger() -> WireLedger:
    return WireLedger()


@pytest.fixture
async def gesell(ledger: WireLedger) -> AsyncIterator[Client]:
    async with (
        serving(ledger) as url,
        Client(url, commons=ledger.commons, peer=ADA, timeout=2, patience=1, check=False) as client,
    ):
        yield client

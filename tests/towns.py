"""Commons with members and money in a real service, and the reckoning with what was acknowledged there.

Owns the settling and the comparing. Sends no payments: each test has a load of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of, id_text
from tests.running import Service
from tests.speaking import POLICY, Line, fields_of, name_of, signer_of, write_envelope, write_found

STEWARD = signer_of("steward")
MEMBERS = [signer_of(f"member {n}") for n in range(8)]


@contextmanager
def line_to(service: Service) -> Iterator[Line]:
    line = Line(service.url)
    try:
        yield line
    finally:
        line.close()


class Town:
    """A commons of a running service, with money in it."""

    def __init__(self, line: Line, *, admission: str = "open") -> None:
        now = line.time()
        policy = {**POLICY, "admission": admission}
        founding = write_found([STEWARD], ledger=line.ledger(), now_ms=now, policy=policy)
        self.name = name_of(founding)
        self.path = f"/v1/commons/{self.name.hex()}"
        self.begun = {fields_of(founding)["id"]}
        self.say(line, [founding])

    def write(self, kind: str, by: Signer, *, now_ms: int, **fields: Any) -> Envelope:
        return write_envelope(kind, by.public_key, [by], now_ms=now_ms, commons=self.name, **fields)

    def say(self, line: Line, envelopes: list[Envelope]) -> None:
        """Say what must be accepted."""
        for result in line.post(envelopes):
            assert result["status"] == "accepted", result
        self.begun |= {fields_of(envelope)["id"] for envelope in envelopes}

    def settle(self, line: Line, members: list[Signer]) -> None:
        """Let these join, each with money."""
        now = line.time()
        joins = [self.write("join", one, now_ms=now, handle=f"member-{n}") for n, one in enumerate(members)]
        self.say(line, joins)
        self.say(
            line,
            [self.write("issue", STEWARD, now_ms=now, to=one.public_key, amount=10**9) for one in members],
        )


# ── Reckoning ────────────────────────────────────────────────────────────────────────────────────────────────────


def read_entries(line: Line, town: Town) -> list[Any]:
    entries = line.items(f"{town.path}/entries?limit=1000")
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert len({entry["id"] for entry in entries}) == len(entries)
    return entries


def hold_receipts(line: Line, towns: list[Town], acknowledged: Mapping[bytes, Any], stored: dict[str, Any]) -> None:
    paths = {town.name: town.path for town in towns}
    for place, (name, receipt) in enumerate(acknowledged.items()):
        text = id_text(name)
        assert text in stored, f"{text} was acknowledged as entry {receipt['seq']} and is lost"
        said = in_json(receipt)
        found = stored[text]
        assert {key: found[key] for key in said} == said
        # Each is in the list of entries; some are also asked for by their ids.
        if place % 50 == 0:
            asked = line.get(f"{paths[receipt['commons']]}/statements/{text}")
            assert {key: asked[key] for key in said} == said
            assert asked["tick"] == receipt["tick"]


def in_json(receipt: Any) -> dict[str, Any]:
    """A MessagePack receipt's fields as an entry shows them in JSON."""
    postings = [
        [reason, holder if isinstance(holder, str) else did_of(holder), asset, str(amount)]
        for reason, holder, asset, amount in receipt["postings"]
    ]
    return {"seq": receipt["seq"], "at": receipt["at"], "leaf": receipt["leaf"].hex(), "postings": postings}

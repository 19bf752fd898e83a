"""The log as static resources: byte for byte as C2SP tlog-tiles says, kept by caches, and shown to whom it may be."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import leaf_hash, read_bundle, read_leaf
from gesell_protocol.names import id_text
from gesell_protocol.notes import Checkpoint, read_note, verify_checkpoint
from gesell_protocol.proofs import verify_receipt
from gesell_protocol.tree import (
    Frontier,
    Tile,
    check_consistency,
    consistency_spans,
    hash_of,
    place_path,
    tile_width,
    tiles_for,
)
from tests.running import Service
from tests.speaking import POLICY, Line, fields_of, name_of, signer_of, write_envelope, write_found, write_token
from tests.towns import MEMBERS, Town, line_to

PAYMENTS = 600


class Grown:
    """A town whose log has filled two tiles and begun a third, and its checkpoint."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.ledger = line.ledger()
        self.town = Town(line)
        self.town.settle(line, MEMBERS[:2])
        self.path = f"{self.town.path}/log"
        self.early = self.checkpoint()
        payer, payee = MEMBERS[:2]
        self.paid = [
            self.town.write("pay", payer, now_ms=line.time(), legs=[[payee.public_key, 1]]) for _ in range(PAYMENTS)
        ]
        self.town.say(line, self.paid)
        self.size = self.checkpoint().size

    def checkpoint(self) -> Checkpoint:
        note = read_note(self.line.text(f"{self.path}/checkpoint"))
        return verify_checkpoint(note, commons=self.town.name, ledger=self.ledger)

    def bundle(self, place: int) -> list[bytes]:
        width = tile_width(0, place, self.size)
        status, _, answer = self.line.read(f"{self.path}/tile/entries/{place_path(place, width)}")
        assert status == 200
        return read_bundle(answer)

    def tiles(self, wanted: set[Tile]) -> dict[Tile, bytes]:
        found = {tile: self.line.read(f"{self.path}/tile/{tile.path}") for tile in wanted}
        assert {status for status, _, _ in found.values()} == {200}
        return {tile: answer for tile, (_, _, answer) in found.items()}


@pytest.fixture(scope="module")
def grown(service: Service) -> Iterator[Grown]:
    with line_to(service) as line:
        yield Grown(line)


def test_the_bundles_hash_to_the_tiles_and_to_the_root(grown: Grown) -> None:
    entries = [data for place in range(3) for data in grown.bundle(place)]
    assert [read_leaf(data).seq for data in entries] == list(range(1, grown.size + 1))
    leaves = [leaf_hash(data) for data in entries]
    frontier, subtrees = Frontier().grown(leaves)
    assert frontier.root == grown.checkpoint().root
    tiles = grown.tiles({Tile(0, 0), Tile(0, 1), Tile(0, 2, grown.size - 512), Tile(1, 0, 2)})
    assert b"".join(tiles[tile] for tile in sorted(tiles) if tile.level == 0) == b"".join(leaves)
    assert tiles[Tile(1, 0, 2)] == b"".join(node.hash for node in subtrees)


def test_a_partial_tile_of_any_width_is_the_beginning_of_the_full_one(grown: Grown) -> None:
    (full,) = grown.tiles({Tile(0, 1)}).values()
    for width in (1, 2, 17, 255):
        (partial,) = grown.tiles({Tile(0, 1, width)}).values()
        assert partial == full[: 32 * width]
    _, _, first = grown.line.read(f"{grown.path}/tile/entries/001.p/3")
    assert read_bundle(first) == grown.bundle(1)[:3]


def test_an_earlier_checkpoint_leads_up_to_a_later_one(grown: Grown) -> None:
    spans = consistency_spans(grown.early.size, grown.size)
    tiles = grown.tiles(tiles_for(spans, grown.size))
    check_consistency(
        old=grown.early.size,
        old_root=grown.early.root,
        new=grown.size,
        new_root=grown.checkpoint().root,
        proof=[hash_of(start, end, grown.size, tiles) for start, end in spans],
    )


@pytest.mark.parametrize("place", [0, 299, PAYMENTS - 1])
def test_a_receipt_proves_its_entry_with_the_ledgers_key_alone(grown: Grown, place: int) -> None:
    name = fields_of(grown.paid[place])["id"]
    status, headers, answer = grown.line.read(f"{grown.town.path}/statements/{id_text(name)}/proof")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    proven = verify_receipt(answer, ledger=grown.ledger)
    assert (proven.statement.id, proven.leaf.body) == (name, grown.paid[place].body)
    assert proven.checkpoint.size == grown.size
    assert proven.commons == grown.town.name


def test_what_never_changes_is_kept_for_long_and_what_does_is_not(grown: Grown) -> None:
    _, checkpoint, _ = grown.line.read(f"{grown.path}/checkpoint")
    assert (checkpoint["content-type"], checkpoint["cache-control"]) == (
        "text/plain; charset=utf-8",
        "public, max-age=1",
    )
    for path in ("tile/0/000", "tile/1/000.p/1", "tile/entries/000"):
        _, headers, _ = grown.line.read(f"{grown.path}/{path}")
        assert headers["content-type"] == "application/octet-stream"
        assert headers["cache-control"] == "public, max-age=31536000, immutable"


def test_bundles_are_packed_for_who_takes_that(grown: Grown) -> None:
    path = f"{grown.path}/tile/entries/000"
    _, plain, whole = grown.line.read(path)
    _, packed, squeezed = grown.line.read(path, **{"Accept-Encoding": "gzip, identity"})
    assert "content-encoding" not in plain
    assert packed["content-encoding"] == "gzip"
    assert gzip.decompress(squeezed) == whole
    assert "Accept-Encoding" in packed["vary"]
    _, _, again = grown.line.read(path, **{"Accept-Encoding": "gzip"})
    assert again == squeezed, "what caches keep for ever is the same bytes each time"


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/003",
        "tile/0/002",
        "tile/0/002.p/255",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/0",
        "tile/0/x000/001",
        "tile/0/000/001",
        "tile/0/-01",
        "tile/0/000.p/",
        "tile/0/000.p/1/2",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 30 + "999",
        "tile/1/000.p/3",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/8/000.p/1",
        "tile/63/000.p/1",
        "tile/64/000.p/1",
        "tile/00/000",
        "tile/+0/000",
        "tile/٠/000",
        "tile/entries/003",
        "tile/entries/002.p/200",
        "tile/entries/000.p/0",
        "tile/entries/x",
    ],
)
def test_what_the_tree_does_not_reach_is_not_found(grown: Grown, path: str) -> None:
    status, answer = grown.line.ask(f"{grown.path}/{quote(path, safe='/+')}")
    assert (status, answer["code"]) == (404, "not-found")


@pytest.mark.parametrize("witnesses", ["0", "17", "-1", "two", "1.0"])
def test_a_number_of_witnesses_that_is_none_is_malformed(grown: Grown, witnesses: str) -> None:
    status, answer = grown.line.ask(f"{grown.path}/checkpoint?witnesses={witnesses}")
    assert (status, answer["code"]) == (400, "malformed")


def test_a_checkpoint_that_nobody_cosigned_is_not_found(grown: Grown) -> None:
    name = id_text(fields_of(grown.paid[0])["id"])
    for path in (f"{grown.path}/checkpoint", f"{grown.town.path}/statements/{name}/proof"):
        status, answer = grown.line.ask(f"{path}?witnesses=1")
        assert (status, answer["code"]) == (404, "not-found")


def test_a_log_that_was_never_begun_is_an_unknown_commons(grown: Grown) -> None:
    for path in ("checkpoint", "handovers", "tile/0/000.p/1", "tile/entries/000.p/1"):
        for commons in ("0" * 32, "nonsense"):
            status, answer = grown.line.ask(f"/v1/commons/{commons}/log/{path}")
            assert (status, answer["code"]) == (404, "unknown-commons")


# ── Who may see it ───────────────────────────────────────────────────────────────────────────────────────────────

ADA, BOB, STRANGER = signer_of("ada of the log"), signer_of("bob of the log"), signer_of("stranger to the log")


@pytest.mark.parametrize(
    ("visibility", "stranger", "member", "steward"),
    [("open", 200, 200, 200), ("members", 404, 200, 200), ("parties", 404, 403, 200)],
)
def test_bundles_follow_visibility_and_tiles_are_everybodys(
    service: Service, visibility: str, stranger: int, member: int, steward: int
) -> None:
    with line_to(service) as line:
        now, ledger = line.time(), line.ledger()
        policy = {**POLICY, "admission": "open", "visibility": visibility}
        chair = signer_of(f"steward of {visibility}")
        founding = write_found([chair], ledger=ledger, now_ms=now, policy=policy)
        commons = name_of(founding)
        paid = _paid(commons, now)
        said: list[Envelope] = [
            founding,
            *(
                write_envelope("join", one.public_key, [one], now_ms=now, commons=commons, handle=handle)
                for one, handle in ((ADA, "ada"), (BOB, "bob"))
            ),
            write_envelope(
                "issue", chair.public_key, [chair], now_ms=now, commons=commons, to=ADA.public_key, amount=9
            ),
            paid,
        ]
        assert {result["status"] for result in line.post(said)} == {"accepted"}
        log = f"/v1/commons/{commons.hex()}/log"
        receipt = f"/v1/commons/{commons.hex()}/statements/{id_text(fields_of(paid)['id'])}/proof"
        for who, status in ((None, stranger), (STRANGER, stranger), (ADA, member), (BOB, member), (chair, steward)):
            token = None if who is None else write_token(who, ledger=ledger, now_ms=now)
            reader = Line(service.url, token=token)
            for path in ("checkpoint", "handovers", "tile/0/000.p/5"):
                assert reader.read(f"{log}/{path}")[0] == 200
            found, headers, bundle = reader.read(f"{log}/tile/entries/000.p/5")
            assert found == status, (visibility, who)
            if found == 200:
                assert headers["cache-control"].startswith("public" if visibility == "open" else "private")
                assert len(read_bundle(bundle)) == 5
            # Whoever is a party to it has its receipt, also where nobody sees all.
            is_party = who in (ADA, BOB, chair) or visibility == "open"
            found, _, proof = reader.read(receipt)
            assert found == (200 if is_party else 404)
            if found == 200:
                verify_receipt(proof, ledger=ledger)
            reader.close()


def _paid(commons: bytes, now: int) -> Envelope:
    return write_envelope("pay", ADA.public_key, [ADA], now_ms=now, commons=commons, legs=[[BOB.public_key, 4]])

"""The log as static resources: checkpoints, tiles, entry bundles, hand-overs, and receipts that outlive the ledger
(SPEC §6; C2SP tlog-tiles, tlog-checkpoint, tlog-proof).

Owns their bytes on the wire and how long they may be kept by caches. Checkpoints, tiles and hand-overs are public: they
are read without a look at who asks. Which hashes make a proof is `gesell_protocol.tree`'s.
"""

from __future__ import annotations

import asyncio
import gzip
from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from gesell_ledger.api import parameters
from gesell_ledger.api.answers import Answered, Page, SignatureRow, json_response, signature_rows
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import Refused
from gesell_ledger.api.reads import sees, visit_whole
from gesell_ledger.api.rights import READER, Visit, nowhere, visit
from gesell_ledger.api.shapes import Base64url, Did, Seq
from gesell_ledger.core.books import Entry
from gesell_ledger.core.visibility import EVERYBODY
from gesell_ledger.storage.cosigned import Cosigned
from gesell_ledger.storage.trees import Handover, Tree, Trees
from gesell_protocol.ed25519 import Signer
from gesell_protocol.log import write_bundle
from gesell_protocol.names import base64url, did_of
from gesell_protocol.notes import WITNESSES_MAX, Note, read_checkpoint, read_note, sign_checkpoint
from gesell_protocol.proofs import write_receipt
from gesell_protocol.tree import TILE_WIDTH, Tile, inclusion_spans, tile_width

TREES: Final = web.AppKey("trees", Trees)
COSIGNED: Final = web.AppKey("cosigned", Cosigned)
#: The ledger's key, ready to sign checkpoints.
SIGNER: Final = web.AppKey("signer", Signer)

TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"
#: What never changes may be kept for a year, as long as caches understand.
FOR_EVER: Final = "public, max-age=31536000, immutable"
FOR_EVER_PRIVATE: Final = "private, max-age=31536000, immutable"
#: Below this, packing costs more than it spares.
GZIP_MIN_BYTES: Final = 512
GZIP_LEVEL: Final = 1
#: Bundles of 16 MB can be had, of payments to hundreds each: so many are made at a time, in pieces of so many entries.
BUNDLES_AT_ONCE: Final = 4
PIECE: Final = 32
BUNDLING: Final = web.AppKey("bundling", asyncio.Semaphore)
LEVELS: Final = 8

WITNESSES: Final[Parameter[int]] = Parameter(
    name="witnesses",
    type=Annotated[int, Meta(ge=1, le=WITNESSES_MAX)],
    about="The newest checkpoint that at least so many of the ledger's witnesses have cosigned.",
)


class HandoverRow(Answered, frozen=True, kw_only=True):
    """A statement by which the ledger's key changed hands, and the key that speaks from then on."""

    seq: Seq
    ledger: Did
    body: Base64url
    signatures: list[SignatureRow]


# ── Checkpoints and tiles ────────────────────────────────────────────────────────────────────────────────────────


async def get_checkpoint(request: web.Request) -> web.Response:
    """The log's checkpoint as it stands, or the newest that enough witnesses have cosigned."""
    tree = await _load_tree(request)
    note = await _checkpoint(request, tree, witnesses=WITNESSES.find(request))
    # It changes with the next entry; a moment's keeping spares the ledger a crowd.
    return _text(str(note), cache="public, max-age=1")


async def get_tile(request: web.Request) -> web.Response:
    """Neighbouring hashes of one level of the tree."""
    tree = await _load_tree(request)
    level = parameters.LEVEL.read(request)
    place, width = _reached(request, tree, level)
    tile = Tile(level, place, width)
    tiles = await request.app[TREES].load_tiles(tree.commons, [tile])
    return web.Response(body=tiles[tile], content_type=BYTES, headers={"Cache-Control": FOR_EVER})


async def get_bundle(request: web.Request) -> web.Response:
    """Neighbouring entries, as the log has hashed them."""
    here = await visit_whole(request)
    if not here.sight.every_entry:
        raise Refused("not-authorised", "only who sees every entry sees bundles of them")
    tree = await _load_tree(request)
    place, width = _reached(request, tree, 0)
    public = here.commons.policy_at(here.now_ms).visibility == "open"
    headers = {"Cache-Control": FOR_EVER if public else FOR_EVER_PRIVATE, "Vary": "Accept-Encoding, Authorization"}
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    async with request.app[BUNDLING]:
        body = await _bundle(request, tree, first=place * TILE_WIDTH + 1, count=width)
        if packed and len(body) > GZIP_MIN_BYTES:
            headers["Content-Encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL, mtime=0)
    return web.Response(body=body, content_type=BYTES, headers=headers)


async def _bundle(request: web.Request, tree: Tree, *, first: int, count: int) -> bytes:
    """The entries in pieces, so that 256 payments to hundreds each do not hold up the loop."""
    pieces, done = list[bytes](), 0
    while done < count:
        after = first - 1 + done
        listed = await request.app[READER].list_entries(tree.commons, after=after, limit=min(PIECE, count - done))
        assert listed, "the tree reaches no further than the entries"
        pieces.append(write_bundle(entry.leaf_data for entry, _ in listed))
        done += len(listed)
    return b"".join(pieces)


async def get_handovers(request: web.Request) -> web.Response:
    """How the ledger's key changed hands, in order: enough to follow it from a key that one trusts."""
    tree = await _load_tree(request)
    listed = await request.app[TREES].list_handovers(tree.commons)
    return json_response(Page[HandoverRow](items=[_handover_json(one) for one in listed]))


def _handover_json(handover: Handover) -> HandoverRow:
    return HandoverRow(
        seq=handover.seq,
        ledger=did_of(handover.ledger),
        body=base64url(handover.envelope.body),
        signatures=signature_rows(handover.envelope.signatures),
    )


# ── Receipts ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_proof(request: web.Request) -> web.Response:
    """An entry with the proof that it stands in the log: a receipt that holds without the ledger."""
    here = await visit(request)
    name = parameters.ID.read(request)
    entry = await request.app[READER].find_entry(here.commons.id, name)
    if entry is None or not await sees(request, here, entry):
        raise Refused("not-found", "no statement of this id was accepted, or it is not for you")
    tree = await _load_tree(request)
    note = await _checkpoint(request, tree, witnesses=WITNESSES.find(request))
    return _text(await _receipt(request, here, entry, note), cache="private, no-cache")


async def _receipt(request: web.Request, here: Visit, entry: Entry, note: Note) -> str:
    trees, size, index = request.app[TREES], read_checkpoint(note).size, entry.seq - 1
    if index >= size:
        raise Refused("not-found", "no checkpoint that enough witnesses have cosigned covers this entry yet")
    hashes = await trees.prove(entry.commons, inclusion_spans(index, size), size=size)
    handovers = [one.envelope for one in await trees.list_handovers(entry.commons) if one.seq <= size]
    founding = None
    if index > 0 and here.sight.entry(1, frozenset((EVERYBODY,))):
        ((founded, _),) = await request.app[READER].list_entries(entry.commons, after=0, limit=1)
        founding = founded.body
    return write_receipt(
        entry.leaf_data,
        index=index,
        hashes=hashes,
        note=note,
        handovers=handovers,
        founding=founding,
    )


# ── Within ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _load_tree(request: web.Request) -> Tree:
    """The tree of the commons that the path names, whoever asks; raises `unknown-commons`."""
    try:
        commons = parameters.COMMONS.parse(request.match_info["commons"])
    except ValueError:
        raise nowhere() from None
    tree = await request.app[TREES].load(commons)
    if tree is None:
        raise nowhere()
    return tree


async def _checkpoint(request: web.Request, tree: Tree, *, witnesses: int | None) -> Note:
    """The newest checkpoint that enough witnesses have cosigned; without a number the tree's, signed now."""
    cosigned, size = request.app[COSIGNED], tree.frontier.size
    if witnesses is not None:
        found = await cosigned.load(tree.commons, at_least=witnesses)
        if found is None:
            raise Refused("not-found", f"no checkpoint of this log has been cosigned by {witnesses} witnesses yet")
        return read_note(found)
    found = await cosigned.load_for(tree.commons, size)
    if found is not None:
        return read_note(found)
    signer = request.app[SIGNER]
    if signer.public_key != tree.ledger:
        raise Refused("unavailable", "the key of this log was handed over, and this service has not the new one")
    return sign_checkpoint(commons=tree.commons, size=size, root=tree.frontier.root, signer=signer)


def _reached(request: web.Request, tree: Tree, level: int) -> tuple[int, int]:
    """Place and width of a tile that the path names; raises `not-found` for what the tree does not reach."""
    place, width = parameters.TILE_PLACE.read(request)
    if level >= LEVELS or width > tile_width(level, place, tree.frontier.size):
        raise Refused("not-found", "the tree does not reach so far")
    return place, width


def _text(text: str, *, cache: str) -> web.Response:
    return web.Response(text=text, content_type=TEXT, charset="utf-8", headers={"Cache-Control": cache})

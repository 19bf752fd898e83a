"""Checking what a ledger tells: its log only ever grows, and holds every entry for which it gave a receipt (SPEC §6.6).

Owns what is remembered of one commons' log, the receipts that are not proven yet, and the verdict. What a checkpoint
or a tile looks like is the protocol's, how it is fetched `log_reader`'s, when a client checks `verifying`'s.

1. A checkpoint counts if it is signed by a key that is trusted, or that such a key handed over to, and cosigned by as
   many of the named witnesses as are demanded. A longer log is never taken from a key that was handed over before.
2. Of the checkpoint remembered and the one shown, the tiles of the longer tree must hash to its signed root, and the
   root that this tree had at the shorter's size must be the shorter's. A shorter one that fits is an old answer.
3. A receipt is proven when the tree, so proven, holds its leaf at its place.
4. Tiles that do not fit the root accuse nobody: they are asked for anew, with a new checkpoint, three times in all.
   Then it is `UnexpectedAnswer`, unless the ledger has gone back behind what it had signed: that is `Equivocation`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final, NamedTuple

from gesell.answers import moment
from gesell.check_errors import Equivocation, MemoryFileError, NotInLog, Unwitnessed, WrongKey
from gesell.errors import GesellError, NotFound, UnexpectedAnswer
from gesell.log_reader import LogReader
from gesell.memory import LifeMemory, Memory, Remembered, read_remembered
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import did_of
from gesell_protocol.notes import (
    WITNESSES_MAX,
    BadNote,
    Checkpoint,
    Note,
    NoteKey,
    count_cosigned,
    origin_of,
    verify_checkpoint,
)
from gesell_protocol.proofs import BadReceipt, follow, read_handover
from gesell_protocol.proven_tree import ProvenTree, tiles_of
from gesell_protocol.receipts import Receipt
from gesell_protocol.tree import TILE_WIDTH, BadProof

ATTEMPTS: Final = 3
PAUSE_FIRST_SECONDS: Final = 0.2
PAUSE_MAX_SECONDS: Final = 2.0
#: Level-0 tiles that receipts are held against at a time.
TILES_AT_ONCE: Final = 128

#: Tells the key that is trusted first, given the one remembered (None where nothing is).
Anchor = Callable[[bytes | None], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a client demands of checkpoints: that `ledger` or who it handed over to signed, and `quorum` witnesses."""

    ledger: bytes | None = None
    witnesses: tuple[NoteKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        distinct = min(len({key.name for key in self.witnesses}), len({key.key for key in self.witnesses}))
        if not 0 <= self.quorum <= min(distinct, WITNESSES_MAX):
            raise ValueError(
                f"of {distinct} witnesses, {self.quorum} can't be demanded (nor more than {WITNESSES_MAX})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check found: the log of a commons has `size` entries under `root`, and all that was told before is in it.

    `note` is the signed checkpoint as text, `ledger` the did of the key that signed it, `witnesses` the names of those
    that cosigned it and were named by the client. `since_size` and `since` say from how many entries, and when by this
    machine's clock, the log has been looked after; `proven` how many receipts this check has found in it.
    """

    commons: str
    size: int
    root: bytes
    note: str
    ledger: str
    witnesses: tuple[str, ...]
    since_size: int
    since_ms: int
    proven: int

    @property
    def since_text(self) -> str:
        """Since when, as an ISO time in UTC."""
        return moment(self.since_ms).isoformat(timespec="seconds")

    def __repr__(self) -> str:
        return f"<Checked {self.commons}: {self.size} entries, leads up from {self.since_size}, {self.proven} proven>"


class _Unproven(NamedTuple):
    receipt: Receipt
    envelope: Envelope
    given_at: float


class _Signed(NamedTuple):
    """A checkpoint with its note, and the keys and hand-overs by which it is the ledger's."""

    note: Note
    checkpoint: Checkpoint
    keys: tuple[bytes, ...]
    handovers: tuple[Envelope, ...]


class _NotShown(Exception):
    """The tiles of a signed tree are missing or do not fit it: to be asked for again."""


class Watch:
    """Looks after the log of one commons. Serves many tasks at once: one check goes on at a time."""

    def __init__(self, log: LogReader, *, commons: bytes, demands: Demands, memory: Memory) -> None:
        self._log = log
        self._commons = commons
        self._demands = demands
        self._memory = memory
        self._lock = asyncio.Lock()
        #: Held by the task that makes the first check of a client; others wait for its end.
        self.first = asyncio.Lock()
        self._unproven: dict[tuple[int, bytes], _Unproven] = {}
        self._held: Remembered | None = None
        #: Whether a failure was told to the caller, and no receipt was given since.
        self.is_told = False
        #: When the last check ended well, and when one was last tried, by the monotonic clock.
        self.checked_at = self.tried_at = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether a check is going on."""
        return self._lock.locked()

    @property
    def has_begun(self) -> bool:
        """Whether there was a check that ended well."""
        return self._held is not None

    @property
    def trusted(self) -> bytes:
        """The ledger's key that was trusted first, once a check has ended well."""
        if self._held is None:
            raise RuntimeError("no checkpoint of this log was checked yet")
        return self._held.keys[0]

    @property
    def unproven(self) -> tuple[Receipt, ...]:
        """The receipts that wait to be proven."""
        return tuple(item.receipt for item in self._unproven.values())

    def expect(self, given: Iterable[tuple[Receipt, Envelope]]) -> None:
        """Prove these receipts with the next check, and with what they were given for."""
        now = time.monotonic()
        self.is_told = False
        for receipt, envelope in given:
            self._unproven.setdefault((receipt.seq, receipt.leaf), _Unproven(receipt, envelope, now))

    async def check(
        self, anchor: Anchor, *, patience: float, overdue: float = 0.0, compare: Note | None = None
    ) -> Checked:
        """Look at the log; raises what of `check_errors` it finds, and what reads raise.

        Waits up to `patience` seconds for a checkpoint that is witnessed as demanded and covers what waits to be
        proven; of what is still not covered then, what was given more than `overdue` seconds ago is missing. `compare`
        is a checkpoint that somebody else was shown.
        """
        async with self._lock:
            self.tried_at = time.monotonic()
            deadline = time.monotonic() + patience
            expected = dict(self._unproven)
            missing = list(expected.values())
            held = self._held
            pause = PAUSE_FIRST_SECONDS
            while True:
                try:
                    held = await self._look_patiently(anchor, compare)
                    await self._prove(held, expected)
                    missing = [item for key, item in expected.items() if key in self._unproven]
                    if not missing:
                        break
                    failure: GesellError = self._missing(missing, held)
                except Unwitnessed as error:
                    failure = error
                if time.monotonic() + pause > deadline:
                    if held is None or not _may_still_come(missing, overdue):
                        raise failure
                    break
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX_SECONDS)
            self._held = held
            self.checked_at = time.monotonic()
            return self._told(held, len(expected) - len(missing))

    def _missing(self, missing: Sequence[_Unproven], shown: Remembered) -> GesellError:
        last = max(item.receipt.seq for item in missing)
        if self._demands.quorum:
            how_many = f"{self._demands.quorum} of {len(self._demands.witnesses)} witnesses"
            return Unwitnessed(f"no checkpoint that {how_many} cosigned covers entry {last} yet")
        item = next(item for item in missing if item.receipt.seq == last)
        what = f"the ledger gave a receipt for entry {last} and shows a log of {shown.checkpoint.size} entries"
        return _not_in_log(what, item, shown)

    def _told(self, remembered: Remembered, proven: int) -> Checked:
        checkpoint = remembered.checkpoint
        return Checked(
            commons=self._commons.hex(),
            size=checkpoint.size,
            root=checkpoint.root,
            note=str(remembered.note),
            ledger=did_of(remembered.keys[-1]),
            witnesses=tuple(key.name for key in self._demands.witnesses if _cosigned(remembered.note, key)),
            since_size=remembered.since_size,
            since_ms=remembered.since_ms,
            proven=proven,
        )

    # ── One look ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look_patiently(self, anchor: Anchor, compare: Note | None) -> Remembered:
        """Look, again with everything fetched anew if tiles do not fit (rule 4)."""
        pause = PAUSE_FIRST_SECONDS
        for last in [False] * (ATTEMPTS - 1) + [True]:
            try:
                return await self._look(anchor, compare, last=last)
            except _NotShown as error:
                failure = str(error)
            await asyncio.sleep(0 if last else pause)
            pause *= 2
        raise UnexpectedAnswer(f"{failure}, {ATTEMPTS} times in a row")

    async def _look(self, anchor: Anchor, compare: Note | None, *, last: bool) -> Remembered:
        """Fetch a checkpoint, hold it against what is remembered, and remember the longer.

        Returns what receipts are to be held against: the longer too, if it is witnessed as demanded.
        """
        while True:
            old = await asyncio.to_thread(self._memory.load, self._commons.hex())
            # What was remembered here stands, whatever became of the place where it is kept.
            remembered = self._held if old is None else self._read(old)
            note = await self._checkpoint()
            shown = await self._signed(note, remembered, anchor)
            if remembered is not None:
                await self._compare(_signed(remembered), shown, last=last)
            if compare is not None:
                theirs = await self._signed(compare, remembered, anchor)
                await self._compare(theirs, shown, last=last)
            kept = self._longer(remembered, shown)
            if (remembered is kept and old is not None) or await asyncio.to_thread(
                self._memory.replace, self._commons.hex(), old=old, new=kept.text()
            ):
                return kept if self._witnessed(kept.note) else _of(shown, kept)

    def _longer(self, remembered: Remembered | None, shown: _Signed) -> Remembered:
        if remembered is None:
            return _of(shown, None)
        if remembered.checkpoint.size < shown.checkpoint.size:
            return _of(shown, remembered)
        same = remembered.checkpoint.size == shown.checkpoint.size
        if same and self._witnessed(shown.note) and not self._witnessed(remembered.note):
            return replace(remembered, note=shown.note)
        return remembered

    def _witnessed(self, note: Note) -> bool:
        """Whether a note has the cosignatures that are demanded."""
        try:
            return count_cosigned(note, self._demands.witnesses) >= self._demands.quorum
        except BadNote:
            return False

    def _read(self, text: str | None) -> Remembered | None:
        try:
            return None if text is None else read_remembered(text, commons=self._commons)
        except ValueError as error:
            raise MemoryFileError(
                f"what is remembered of the log of {self._commons.hex()} can't be used: {error}"
            ) from None

    async def _checkpoint(self) -> Note:
        """The checkpoint that is shown; with a quorum, one that so many of the named witnesses cosigned (rule 1).

        The ledger counts all of its witnesses, so more are asked for where those it shows are not enough of ours.
        """
        if not self._demands.quorum:
            return await self._log.checkpoint()
        best = 0
        for asked in range(self._demands.quorum, WITNESSES_MAX + 1):
            try:
                note = await self._log.checkpoint(witnesses=asked)
            except NotFound:
                break
            cosigned = self._cosigned(note)
            if cosigned >= self._demands.quorum:
                return note
            best = max(best, cosigned)
        raise Unwitnessed(
            f"{best} of the {len(self._demands.witnesses)} named witnesses have cosigned a checkpoint together, "
            f"{self._demands.quorum} must have"
        )

    def _cosigned(self, note: Note) -> int:
        try:
            return count_cosigned(note, self._demands.witnesses)
        except BadNote as error:
            raise UnexpectedAnswer(f"the ledger shows a checkpoint that can't be: {error}") from None

    # ── Whose checkpoint ─────────────────────────────────────────────────────────────────────────────────────────

    async def _signed(self, note: Note, remembered: Remembered | None, anchor: Anchor) -> _Signed:
        """A note as a checkpoint by a key that is trusted, or that such a key handed over to (rule 1)."""
        trusted = await anchor(None if remembered is None else remembered.keys[0])
        keys = (trusted,) if remembered is None else remembered.keys
        handovers = () if remembered is None else remembered.handovers
        if trusted not in keys or self._signer(note, keys) is None:
            keys, handovers = await self._followed(trusted, keys, handovers, note)
        signer = self._signer(note, keys)
        if signer is None:
            raise WrongKey(
                f"the checkpoint is not signed by {did_of(keys[-1])}, nor by a key that it was handed over to",
                checkpoint=str(note),
            )
        try:
            checkpoint = verify_checkpoint(note, commons=self._commons, ledger=signer)
        except BadNote as error:
            raise UnexpectedAnswer(f"the ledger shows a checkpoint that can't be: {error}") from None
        place = keys.index(signer)
        outdated = remembered is not None and remembered.keys[-1] in keys[place + 1 :]
        if outdated and remembered is not None and checkpoint.size >= remembered.checkpoint.size:
            raise WrongKey(
                f"{did_of(signer)} signs, and had handed over to {did_of(remembered.keys[-1])} before",
                checkpoint=str(note),
            )
        return _Signed(note, checkpoint, keys[: place + 1], handovers[:place])

    def _signer(self, note: Note, keys: Sequence[bytes]) -> bytes | None:
        """The latest of these keys by which the note says that it is signed."""
        ids = {line.key_id for line in note.signatures if line.name == origin_of(self._commons)}
        return next((key for key in reversed(keys) if NoteKey(origin_of(self._commons), key).id in ids), None)

    async def _followed(
        self, trusted: bytes, keys: tuple[bytes, ...], handovers: tuple[Envelope, ...], note: Note
    ) -> tuple[tuple[bytes, ...], tuple[Envelope, ...]]:
        """Follow the ledger's hand-overs on from the keys that are known; the trusted one must be among them."""
        told = await self._log.handovers()
        try:
            more = follow(keys[-1], told, commons=self._commons)
            whole, led = (*keys, *more[1:]), (*handovers, *self._those_between(more, told))
            if trusted not in whole:
                whole = follow(trusted, told, commons=self._commons)
                led = self._those_between(whole, told)
        except BadReceipt as error:
            raise WrongKey(str(error), checkpoint=str(note)) from None
        if keys[-1] not in whole:
            raise WrongKey(
                f"the log was that of {did_of(keys[-1])}, and {did_of(trusted)} did not hand over to it",
                checkpoint=str(note),
            )
        return whole, led

    def _those_between(self, keys: Sequence[bytes], told: Sequence[Envelope]) -> tuple[Envelope, ...]:
        """Of hand-overs that were verified, the one from each key to the next."""
        pairs: dict[tuple[bytes, bytes], Envelope] = {}
        for envelope in told:
            statement = read_handover(envelope, commons=self._commons)
            pairs.setdefault((statement.by, statement.ledger), envelope)
        return tuple(pairs[pair] for pair in pairwise(keys))

    # ── Trees ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _compare(self, known: _Signed, shown: _Signed, *, last: bool) -> None:
        """Demand that one of two checkpoints leads up to the other (rule 2)."""
        longer, shorter = (known, shown) if known.checkpoint.size > shown.checkpoint.size else (shown, known)
        size = shorter.checkpoint.size
        if size == longer.checkpoint.size:
            if longer.checkpoint.root != shorter.checkpoint.root:
                raise self._equivocation(f"the ledger signed two logs of {size} entries", known, shown, proves=True)
            return
        try:
            tree = await self._tree(longer.checkpoint, earlier=size)
        except _NotShown:
            if longer is shown or not last:
                raise
            what = f"the ledger had signed a log of {longer.checkpoint.size} entries, and shows one of {size} instead"
            raise self._equivocation(what, known, shown, proves=False) from None
        if tree.root_at(size) != shorter.checkpoint.root:
            what = f"the ledger signed a log of {size} entries, and one of {longer.checkpoint.size} with another past"
            raise self._equivocation(what, known, shown, proves=True, hashes=tree.proof_since(size))

    def _equivocation(
        self, what: str, known: _Signed, shown: _Signed, *, proves: bool, hashes: Sequence[bytes] = ()
    ) -> Equivocation:
        whole = max(known, shown, key=lambda signed: len(signed.keys))
        return Equivocation(
            what,
            first=str(known.note),
            second=str(shown.note),
            proves=proves,
            hashes=hashes,
            keys=whole.keys,
            handovers=whole.handovers,
        )

    async def _prove(self, shown: Remembered, expected: Mapping[tuple[int, bytes], _Unproven]) -> None:
        """Find receipts in the log (rule 3), as far as it is shown."""
        size = shown.checkpoint.size
        covered = sorted(key for key in expected if key in self._unproven and key[0] <= size)
        by_tile: dict[int, list[tuple[int, bytes]]] = {}
        for key in covered:
            by_tile.setdefault((key[0] - 1) // TILE_WIDTH, []).append(key)
        places = list(by_tile)
        for first in range(0, len(places), TILES_AT_ONCE):
            keys = [key for place in places[first : first + TILES_AT_ONCE] for key in by_tile[place]]
            self._check_numbers(keys, shown)
            tree = await self._tree_patiently(shown.checkpoint, leaves=[seq - 1 for seq, _ in keys])
            for key in keys:
                self._check_leaf(tree, self._unproven[key], shown)
            for key in keys:
                del self._unproven[key]

    def _check_numbers(self, keys: Iterable[tuple[int, bytes]], shown: Remembered) -> None:
        for key in keys:
            if key[0] < 1:  # nothing that follows is made for it
                raise _not_in_log("there is no such entry as the ledger gave a receipt for", self._unproven[key], shown)

    def _check_leaf(self, tree: ProvenTree, item: _Unproven, shown: Remembered) -> None:
        if tree.leaf(item.receipt.seq - 1) != item.receipt.leaf:
            what = f"entry {item.receipt.seq} of the log is not the one for which the ledger gave a receipt"
            raise _not_in_log(what, item, shown)

    async def _tree_patiently(self, checkpoint: Checkpoint, *, leaves: Sequence[int]) -> ProvenTree:
        pause = PAUSE_FIRST_SECONDS
        for attempt in range(ATTEMPTS):
            try:
                return await self._tree(checkpoint, leaves=leaves)
            except _NotShown as error:
                failure = str(error)
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(pause)
                pause *= 2
        raise UnexpectedAnswer(f"{failure}, {ATTEMPTS} times in a row")

    async def _tree(
        self, checkpoint: Checkpoint, *, earlier: int | None = None, leaves: Sequence[int] = ()
    ) -> ProvenTree:
        """The tree of a checkpoint, its tiles proven; raises `_NotShown` where they are missing or do not fit."""
        wanted = tiles_of(checkpoint.size, earlier=() if earlier is None else (earlier,), leaves=leaves)
        about = f"of the log of {checkpoint.size} entries that the ledger signed"
        try:
            tiles = await self._log.tiles(wanted, size=checkpoint.size)
            return ProvenTree(size=checkpoint.size, root=checkpoint.root, tiles=tiles)
        except NotFound:
            raise _NotShown(f"it does not show all tiles {about}") from None
        except BadProof as error:
            self._log.forget(wanted)
            raise _NotShown(f"its tiles are not those {about}: {error}") from None


def _not_in_log(what: str, item: _Unproven, shown: Remembered) -> NotInLog:
    return NotInLog(what, receipt=item.receipt, envelope=item.envelope, checkpoint=str(shown.note))


def _may_still_come(missing: Sequence[_Unproven], overdue: float) -> bool:
    """Whether all that is missing was given less than `overdue` seconds ago."""
    oldest = min((item.given_at for item in missing), default=0.0)
    return overdue > 0 and time.monotonic() - oldest < overdue


def _of(signed: _Signed, before: Remembered | None) -> Remembered:
    return Remembered(
        note=signed.note,
        checkpoint=signed.checkpoint,
        keys=signed.keys,
        handovers=signed.handovers,
        since_ms=time.time_ns() // 1_000_000 if before is None else before.since_ms,
        since_size=signed.checkpoint.size if before is None else before.since_size,
    )


def _cosigned(note: Note, witness: NoteKey) -> bool:
    try:
        return note.cosigned(witness) is not None
    except BadNote:
        return False


def _signed(remembered: Remembered) -> _Signed:
    return _Signed(remembered.note, remembered.checkpoint, remembered.keys, remembered.handovers)


@dataclass(slots=True)
class Checks:
    """How one connection checks: what it demands, where it remembers, whether by itself; and its watch on each log."""

    demands: Demands = field(default_factory=Demands)
    memory: Memory = field(default_factory=LifeMemory)
    by_itself: bool = False
    watches: dict[bytes, Watch] = field(default_factory=dict)

    @property
    def has_unproven(self) -> bool:
        """Whether receipts of any log wait to be proven."""
        return any(watch.unproven for watch in self.watches.values())

    def of(self, commons: bytes, log: Callable[[bytes], LogReader]) -> Watch:
        """The watch on the log of a commons."""
        if commons not in self.watches:
            watch = Watch(log(commons), commons=commons, demands=self.demands, memory=self.memory)
            self.watches[commons] = watch
        return self.watches[commons]

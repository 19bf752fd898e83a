"""The calls by which a client checks a ledger, and when it checks by itself.

Owns `check`, `proof`, and the moments: before the first statement, whenever some time has passed, and at the end. What
a check is, is `checking`'s. A receipt that was given stays given: what is raised here carries it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from gesell.check_errors import CheckFailed, NotInLog, Unchecked, Unwitnessed
from gesell.checking import (
    PAUSE_FIRST_SECONDS,
    PAUSE_MAX_SECONDS,
    Anchor,
    Checked,
    Checks,
    Demands,
    Watch,
)
from gesell.community import Community
from gesell.errors import GesellError, NotFound, UnexpectedAnswer, UnknownCommons
from gesell.memory import FolderMemory, LifeMemory, Memory
from gesell.reads import StatementLike, statement_bytes
from gesell.results import Result
from gesell.transport import Form, passes
from gesell_protocol.envelopes import Envelope
from gesell_protocol.log import leaf_hash
from gesell_protocol.names import id_text, peer_of
from gesell_protocol.notes import WITNESS_KEY, WITNESSES_MAX, BadNote, Note, NoteKey, count_cosigned, read_note
from gesell_protocol.proofs import (
    FILE_MAX_BYTES,
    BadReceipt,
    ProofFile,
    Proven,
    read_extra,
    read_proof_file,
    verify_receipt,
)
from gesell_protocol.receipts import Receipt

#: So long after the last check a client checks again, with its next statement.
CHECK_EVERY_SECONDS: Final = 10.0
#: So many receipts are not left unproven for longer.
UNPROVEN_MAX: Final = 10_000
#: How long a statement's answer is held up by a check that gets none.
HELD_UP_SECONDS: Final = 5.0

WitnessLike = str | NoteKey
MemoryLike = str | os.PathLike[str] | Memory


def checks_of(
    *,
    ledger: str | None,
    witnesses: Sequence[WitnessLike],
    quorum: int | None,
    memory: MemoryLike | None,
    by_itself: bool,
) -> Checks:
    """How a client is to check, as its maker says; raises `ValueError` for what can't be."""
    keys = read_witnesses(witnesses)
    place = FolderMemory(memory) if isinstance(memory, (str, os.PathLike)) else memory or LifeMemory()
    demands = Demands(
        ledger=None if ledger is None else peer_of(ledger),
        witnesses=keys,
        quorum=len(keys) if quorum is None else quorum,
    )
    return Checks(demands=demands, memory=place, by_itself=by_itself)


def read_witnesses(witnesses: Sequence[WitnessLike]) -> tuple[NoteKey, ...]:
    """The keys of witnesses as their operators name them; raises `ValueError` for what is none, or a log's."""
    if isinstance(witnesses, (str, NoteKey)):
        raise TypeError("witnesses are a list of verifier keys: witnesses=[vkey]")
    keys = tuple(key if isinstance(key, NoteKey) else NoteKey.parse(key) for key in witnesses)
    for key in keys:
        if key.kind != WITNESS_KEY:
            raise ValueError(f"{key} is not the key of a witness (…+BA…)")
    return keys


class Verifying(Community):
    """The calls that check what a ledger tells. `Client` has them all."""

    async def check(self, *, seen: str | None = None) -> Checked:
        """Check the log of this client's commons: it leads up from all that was shown before, and holds all receipts.

        Waits up to `patience` for a checkpoint that covers the receipts and is witnessed as the client demands. `seen`
        is the checkpoint that somebody else was shown (`Checked.note`, as text): a ledger that shows people different
        logs is found out when they compare. Raises `Equivocation`, `NotInLog`, `WrongKey`, `Unwitnessed`; and
        `Unreachable`, `Refused`, `UnexpectedAnswer` as reads do.

            checked = await gesell.check()
            print(checked.size, checked.root.hex(), checked.witnesses)
        """
        try:
            compare = None if seen is None else read_note(seen)
        except BadNote as error:
            raise ValueError(f"that is no checkpoint: {error}") from None
        return await self._check(self._commons_bytes(), patience=self._link.patience, compare=compare)

    async def proof(self, statement: StatementLike) -> str:
        """The receipt of an entry that outlives the ledger, verified, as the text of a file (SPEC §6.2).

        It proves by itself, to who knows the ledger's did, that the ledger took this statement into its books, when,
        and with which postings. With witnesses, waits up to `patience` until as many as demanded have cosigned. Raises
        `NotFound` for a statement that was not accepted, and as `check` does.

            Path("rent.receipt").write_text(await gesell.proof(receipt))
        """
        commons, name = self._commons_bytes(), statement_bytes(statement)
        await self._check(commons, patience=self._link.patience)
        text = await self._proof_text(name)
        demands, ledger = self._link.checks.demands, self._watch(commons).trusted
        try:
            file = read_proof_file(text)
            proven = verify_receipt(text, ledger=ledger, witnesses=demands.witnesses, quorum=demands.quorum)
        except BadReceipt as error:
            raise UnexpectedAnswer(f"the ledger's proof of {id_text(name)} does not hold: {error}") from None
        if proven.commons != commons or proven.statement.id != name:
            raise UnexpectedAnswer(f"asked for the proof of {id_text(name)}, the ledger sent that of another statement")
        if isinstance(statement, Receipt):
            _hold_against(statement, proven, file)
        await self._check(commons, patience=0, overdue=self._link.patience, compare=file.note)
        return text

    # ── By itself ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin_checks(self, commons: Iterable[bytes]) -> None:
        """Before the first statement to a commons: remember a checkpoint, held against what was remembered before."""
        for name in commons if self._link.checks.by_itself else ():
            watch = self._watch(name)
            if not watch.has_begun:
                async with watch.first:
                    with suppress(UnknownCommons):  # the statement is told so itself
                        if not watch.has_begun:
                            await self._check(name, patience=self._link.patience)

    async def _check_given(self, results: Sequence[Result]) -> CheckFailed | None:
        """After statements were answered: prove their receipts, now or later; returns what is wrong, with the results.

        Where an outcome is not known, nothing must come between it and the caller: the check waits for the next call.
        """
        if not self._link.checks.by_itself:
            return None
        given = [(result.receipt, result.envelope) for result in results if result.error is None and result.receipt]
        for receipt, envelope in given:
            self._watch(receipt.commons).expect([(receipt, envelope)])
        if any(result.status in ("unknown", "unsent", "mismatched") for result in results):
            return None
        receipts = [receipt for receipt, _ in given]
        for commons in {receipt.commons for receipt in receipts}:
            watch = self._watch(commons)
            if _is_due(watch) and (failure := await self._check_on_the_way(commons, watch)) is not None:
                watch.is_told = True
                return failure.carrying(results=results, receipts=receipts)
        return None

    async def _check_on_the_way(self, commons: bytes, watch: Watch) -> CheckFailed | None:
        """Check without waiting; no answer is told of only when there was none for as long as patience lasts."""
        patience = self._link.patience
        try:
            async with asyncio.timeout(HELD_UP_SECONDS):
                await watch.check(self._anchor(commons), patience=0, overdue=patience)
        except CheckFailed as error:
            return error
        except (GesellError, TimeoutError) as error:
            passing = isinstance(error, TimeoutError) or passes(error)
            if passing and time.monotonic() - watch.checked_at < CHECK_EVERY_SECONDS + patience:
                return None
            return unchecked(error)
        return None

    async def _end_checks(self, error: BaseException | None) -> None:
        """At the end of a client; where it ends by an error, that is not replaced, but told what else is wrong."""
        if not self._link.checks.by_itself or (error is not None and not isinstance(error, Exception)):
            return
        try:
            await self._check_rest()
        except CheckFailed as failure:
            if error is None:
                raise
            error.add_note(f"{type(failure).__name__}: {failure}")

    async def _check_rest(self) -> None:
        """At the end: prove the receipts that are not proven yet; raises `CheckFailed` with them.

        What was told when the last of them was given, or since, is not told again.
        """
        for commons, watch in self._link.checks.watches.items():
            if not watch.unproven or watch.is_told:
                continue
            try:
                await watch.check(self._anchor(commons), patience=self._link.patience)
            except CheckFailed as error:
                raise error.carrying(receipts=watch.unproven) from None
            except GesellError as error:
                raise unchecked(error).carrying(receipts=watch.unproven) from error

    # ── Within ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self, commons: bytes) -> Watch:
        return self._link.checks.of(commons, self._log)

    async def _check(
        self, commons: bytes, *, patience: float, overdue: float = 0.0, compare: Note | None = None
    ) -> Checked:
        watch = self._watch(commons)
        try:
            return await watch.check(self._anchor(commons), patience=patience, overdue=overdue, compare=compare)
        except GesellError:
            watch.is_told = True
            raise

    def _anchor(self, commons: bytes) -> Anchor:
        return partial(self._trusted, commons)

    async def _trusted(self, commons: bytes, known: bytes | None) -> bytes:
        """The ledger's key that is trusted first: the one that was named to this client; else the one that the
        commons' name binds by its founding; else the first that was seen.
        """
        if self._link.checks.demands.ledger is not None:
            return self._link.checks.demands.ledger
        found = self._link.founded.get(commons)
        if found is None and known is None:
            found = await self._founded_if_shown(commons)
        if found is not None:
            return found.ledger
        return known or peer_of((await self.service()).ledger)

    async def _proof_text(self, name: bytes) -> str:
        """The file that proves a statement; as long as patience lasts, one that is witnessed as demanded."""
        demands = self._link.checks.demands
        deadline = time.monotonic() + self._link.patience
        pause = PAUSE_FIRST_SECONDS
        while True:
            for asked in range(demands.quorum, WITNESSES_MAX + 1) if demands.quorum else (0,):
                try:
                    text = await self._fetch_proof(name, witnesses=asked)
                except NotFound:
                    if not asked:
                        raise
                    break
                if not asked or _cosigned(text, demands) >= demands.quorum:
                    return text
            await self.receipt(name)  # says so if there is no such entry at all
            if time.monotonic() + pause > deadline:
                raise Unwitnessed(
                    f"no checkpoint that {demands.quorum} of {len(demands.witnesses)} witnesses cosigned covers "
                    f"{id_text(name)} yet"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX_SECONDS)

    async def _fetch_proof(self, name: bytes, *, witnesses: int) -> str:
        params = {"witnesses": str(witnesses)} if witnesses else None
        url = self._link.transport.url_of(self._path(f"/statements/{id_text(name)}/proof"), params)
        answer = await self._read_url(url, Form("*/*", FILE_MAX_BYTES))
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            raise UnexpectedAnswer(f"{url} is no proof: it is not UTF-8") from None


def _cosigned(text: str, demands: Demands) -> int:
    try:
        return count_cosigned(read_proof_file(text).note, demands.witnesses)
    except (BadReceipt, BadNote) as error:
        raise UnexpectedAnswer(f"the ledger's proof can't be: {error}") from None


def _hold_against(receipt: Receipt, proven: Proven, file: ProofFile) -> None:
    """Demand that what the ledger proves is what it had given a receipt for."""
    if leaf_hash(read_extra(file.extra).leaf) != receipt.leaf:
        raise NotInLog(
            f"what the ledger proves of {id_text(receipt.id)} is not what it gave a receipt for",
            receipt=receipt,
            envelope=Envelope(proven.leaf.body, proven.leaf.signatures),
            checkpoint=str(file.note),
        )


def _is_due(watch: Watch) -> bool:
    waited = time.monotonic() - max(watch.checked_at, watch.tried_at) >= CHECK_EVERY_SECONDS
    return not watch.is_busy and (waited or len(watch.unproven) >= UNPROVEN_MAX)


def unchecked(error: BaseException) -> Unchecked:
    """The failure of a check that got no usable answer."""
    failure = Unchecked(f"the ledger's log could not be checked: {str(error) or 'no answer in time'}")
    failure.__cause__ = error
    return failure

"""What stewards who are not in one place do: draft a statement into a file, cosign it in turns, send it.

Owns the options `--cosign`, `--draft` and `--lasts` of all commands that take stewards' signatures, and the commands
`gesell cosign` and `gesell send`. What is signed is told by `wording`, checked by the client.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from gesell import showing
from gesell.client import Client
from gesell.errors import GesellError, Refused
from gesell.joint import check, load_statement, save_statement
from gesell.key_notes import write_note
from gesell.options import (
    DEFAULTS,
    Mistake,
    Options,
    did_in,
    interruptions_kept,
    is_shown,
    load_keys,
    run,
    waiting_told,
)
from gesell.showing import is_agreed, say, say_lines, show_json, tell
from gesell_protocol.envelopes import Envelope
from gesell_protocol.fields import Currency
from gesell_protocol.names import did_of, peer_of
from gesell_protocol.receipts import Receipt
from gesell_protocol.statements import Found, Keys, Statement

_LASTS: Final = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """How several sign: here and now with their key files, or in turns through a file."""

    cosign: Annotated[list[Path] | None, Parameter(negative="")] = None
    "The key file of another who signs along; repeat for several."
    draft: Path | None = None
    "Send nothing: write the signed statement to this file, for others to cosign (gesell cosign, gesell send)."
    lasts: str = "7d"
    "How long a draft may wait for the others: like 90m, 12h or 7d, at most 7 days."


ALONE: Final = Together()


async def speak(
    client: Client, fields: Mapping[str, Any], *, together: Together, sentence: str, options: Options
) -> Receipt | None:
    """Sign a statement with all who are here and send it, or write it to a file; and say so. None for a draft.

    `{moved}` in the sentence stands for the sum that moved.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    signers = load_keys(together.cosign or [])
    if together.draft is not None:
        envelope = await client.sign(given, signers=signers, lasts=_duration(together.lasts))
        await _keep_draft(client, envelope, together.draft, as_json=options.json)
        return None
    with waiting_told():
        [result] = await client.submit([await client.sign(given, signers=signers)])
    receipt = result.receipt_or_raise()
    asset = await _asset(client.as_commons(receipt.commons), receipt)
    showing.show_receipt(receipt, sentence, currency=asset, as_json=options.json)
    return receipt


def _duration(text: str) -> timedelta:
    match = _LASTS.fullmatch(text)
    if match is None:
        raise Mistake(f"--lasts is a number of minutes, hours or days like 90m, 12h or 7d, not {text!r}.")
    lasts = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not timedelta() < lasts <= timedelta(days=7):
        raise Mistake("A statement may wait for at most 7 days.")
    return lasts


async def _keep_draft(client: Client, envelope: Envelope, path: Path, *, as_json: bool) -> None:
    save_statement(envelope, path)  # refused where a file is: it may be a key, or what others have signed
    if as_json:
        show_json({"file": str(path), "signed_by": [did_of(key) for key in envelope.signers]})
        return
    say_lines(await client.describe(envelope))
    say(f"Nothing was sent. It is in {path}; the others sign with: gesell cosign {path}")
    say(f"and when enough have, anyone sends it: gesell send {path}")


def cosign(file: Path, *, yes: Annotated[bool, Parameter(negative="")] = False, options: Options = DEFAULTS) -> None:
    """Read what a drafted statement says, and add your signature to the file.

    Parameters
    ----------
    file
        The file that --draft wrote.
    yes
        Sign without asking, for scripts.
    """
    run(_cosign(file, yes, options))


async def _cosign(file: Path, yes: bool, options: Options) -> None:
    envelope = load_statement(file)
    statement = check(envelope)
    async with replace(options, commons=statement.commons.hex()).signer() as client:
        if not yes:
            _ask(await client.describe(envelope))
        elif not options.json:
            say_lines(await client.describe(envelope))
        envelope = await client.cosign(envelope)
        needed = await _needed(client, statement)
    envelope = save_statement(envelope, file)  # with the signatures that others added meanwhile
    if isinstance(statement, Keys) and peer_of(did_in(options.key_path)) in statement.add:
        write_note(options.key_path, commons=statement.commons.hex(), by=did_of(statement.by))
    if options.json:
        show_json({"file": str(file), "signed_by": [did_of(key) for key in envelope.signers], "needed": needed})
        return
    enough = f"; {needed} stewards have to" if needed else ""
    say(f"Signed: {len(envelope.signers)} have now{enough}. To send it: gesell send {file}", strong=True)


def _ask(said: str) -> None:
    """Show what the statement says and ask for a yes, on stderr: what is signed is seen, whatever stdout is for."""
    tell(*said.split("\n"))
    if not sys.stdin.isatty():
        raise Mistake("No terminal to ask on: read what it says, and say --yes.")
    if not is_agreed("Sign this?"):
        raise Mistake("Not signed; the file is as it was.", status=1)


async def _needed(client: Client, statement: Statement) -> int | None:
    """How many stewards have to sign what stewards say; None where that is not known, or not theirs to say."""
    if isinstance(statement, Found):
        return statement.threshold
    with suppress(Refused):
        about = await client.commons()
        return about.threshold if did_of(statement.by) in about.stewards else None
    return None


def send(file: Path, *, options: Options = DEFAULTS) -> None:
    """Send a statement that enough have signed. The file stays; sent again, it takes effect no second time.

    Parameters
    ----------
    file
        The file that --draft wrote and others have cosigned.
    """
    run(_send(file, options))


async def _send(file: Path, options: Options) -> None:
    await send_envelope(load_statement(file), options)


async def send_envelope(envelope: Envelope, options: Options) -> None:
    """Send an envelope that was signed before, and say what became of it."""
    statement = check(envelope)
    async with _about(statement, options) as client:
        with interruptions_kept(client), waiting_told():
            [result] = await client.submit([envelope])
        receipt = result.receipt_or_raise()
        word = "It had been applied" if result.status == "replayed" else "It is applied now"
        if isinstance(statement, Found):
            word += f": the commons {receipt.commons.hex()} is founded"
        asset = await _asset(client, receipt) if await is_shown(client) else None
        showing.show_receipt(receipt, word, currency=asset, as_json=options.json)


async def _asset(client: Client, receipt: Receipt) -> Currency:
    """What a receipt's amounts are of, the currency or a kind of gift; in grains where that is not shown."""
    currency = await client.currency()
    moved = receipt.postings[-1].asset if receipt.postings else currency.code
    if moved == currency.code:
        return currency
    with suppress(GesellError):  # it is applied, whatever becomes of this look
        return Currency(moved, (await client.kind(moved)).scale)
    return Currency(moved, 0)


@asynccontextmanager
async def _about(statement: Statement, options: Options) -> AsyncIterator[Client]:
    """A client of the commons that a statement is for; one that can't be read (yet) is spoken to all the same."""
    commons = statement.commons.hex()
    if isinstance(statement, Found):
        async with options.client() as client:
            yield client.as_commons(commons)
        return
    async with replace(options, commons=commons).reader() as client:
        yield client

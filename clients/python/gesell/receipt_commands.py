"""The commands that keep and show proof: receipts that outlive the ledger, and the checkpoint of its log.

Owns their words. What is proven is the protocol's, how a log is checked `checking`'s. `verify` needs nothing but the
file and the ledger's did: no network, no key, no ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gesell import showing
from gesell.checking import Checked
from gesell.export_draft import draft_of
from gesell.options import DEFAULTS, Mistake, Options, failures_told, run
from gesell.showing import say, say_lines, show_json, tell
from gesell.verifying import checks_of
from gesell.wording import describe, moment_text
from gesell_protocol.amounts import format_amount
from gesell_protocol.envelopes import Envelope
from gesell_protocol.names import base64_text, did_of, holder_text, id_text
from gesell_protocol.notes import read_checkpoint, read_note
from gesell_protocol.proofs import FILE_MAX_BYTES, BadReceipt, Proven, verify_receipt
from gesell_protocol.statements import Found


def get(
    statement: str, *, to: Annotated[Path | None, Parameter(name="--to")] = None, options: Options = DEFAULTS
) -> None:
    """Get the receipt of a statement that holds without the ledger, checked, as a file.

    Parameters
    ----------
    statement
        The id that stands under a payment.
    to
        The file (default: print it).
    """
    run(_get(statement, to, options), reads=True)


async def _get(statement: str, to: Path | None, options: Options) -> None:
    _check_new(to)
    async with options.reader() as client:
        text = await client.proof(statement)
        ledger = (await client.check()).ledger
        if to is not None:
            _write(to, text)
        if options.json:
            fields = {"id": statement, "commons": client.commons_id, "ledger": ledger}
            show_json({**fields, "receipt": text} if to is None else {**fields, "file": str(to)})
        elif to is None:
            print(text, end="")
        else:
            say(f"Written to {to}. To check it anywhere: gesell receipt verify {to} --ledger {ledger}")


def verify(file: Path, *, options: Options = DEFAULTS) -> None:
    """Say what a receipt proves, from nothing but the file and the ledger's did; needs no network.

    Parameters
    ----------
    file
        The receipt.
    """
    with failures_told(reads=True):
        if options.ledger is None:
            raise Mistake("Whose receipt must it be? Name the ledger by its did: --ledger did:key:z6Mk…")
        proven = _proven(file, options)
        if options.json:
            show_json(_proven_json(proven, options))
        else:
            _show_proven(proven, options)


def _check_new(path: Path | None) -> None:
    if path is not None and path.exists():
        raise Mistake(f"{path} is there already, and what is kept as proof is not written over: say another file.")


def _write(path: Path, text: str) -> None:
    try:
        with draft_of(str(path)) as file:
            file.write(text.encode())
    except OSError as error:
        raise Mistake(f"{path} can't be written: {error.strerror}", status=1) from None


def _proven(file: Path, options: Options) -> Proven:
    demands = checks_of(
        ledger=options.ledger, witnesses=options.witness, quorum=options.quorum, memory=None, by_itself=False
    ).demands
    assert demands.ledger is not None
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_MAX_BYTES + 1)
        return verify_receipt(text, ledger=demands.ledger, witnesses=demands.witnesses, quorum=demands.quorum)
    except OSError as error:
        raise Mistake(f"{file} can't be read: {error.strerror}") from None
    except BadReceipt as error:
        advice = ""
        if "is not signed by" in str(error):
            advice = (
                f"{did_of(demands.ledger)} is whom you trust. If the ledger's key changed hands after this receipt, say"
                " its key of that day, or get the receipt anew: gesell receipt get."
            )
        raise Mistake(f"{file} proves nothing to you: {error}.", advice, status=1) from None


def _show_proven(proven: Proven, options: Options) -> None:
    leaf, statement, found = proven.leaf, proven.statement, proven.founding
    envelope = Envelope(leaf.body, leaf.signatures)
    whose = proven.commons.hex() if found is None else f"{found.name} ({proven.commons.hex()})"
    say(f"It holds: this is entry {leaf.seq} of the books of {whose}.", strong=True)
    say_lines(describe(envelope, statement, founding=found, handles={}, now_ms=leaf.at_ms, accepted=True))
    tick = "" if found is None else f", tick {found.policy.tick_of(leaf.at_ms)}"
    pairs = [("accepted", moment_text(leaf.at_ms) + tick)]
    pairs += [("moved" if number == 0 else "", line) for number, line in enumerate(_moved(proven, found))]
    pairs.append(("ledger", did_of(proven.ledger)))
    pairs.append(("checkpoint", f"{proven.checkpoint.size} entries, root {base64_text(proven.checkpoint.root)}"))
    if options.witness:
        pairs.append(("witnesses", f"{proven.cosigned} of the {len(options.witness)} named have cosigned it"))
    showing.facts(pairs)
    if found is None and leaf.postings:
        say("Amounts are in grains: who asked for this receipt may not see what the commons was founded with.")


def _moved(proven: Proven, found: Found | None) -> list[str]:
    return [
        f"{_amount(posting.asset, posting.amount, found)} {holder_text(posting.holder)} ({posting.reason})"
        for posting in proven.leaf.postings
    ]


def _amount(asset: str, grains: int, found: Found | None) -> str:
    if found is None or asset != found.currency.code:
        return f"{grains:+} grains of {asset}"
    sign = "+" if grains > 0 else ""
    return f"{sign}{format_amount(grains, scale=found.currency.scale)} {asset}"


def _proven_json(proven: Proven, options: Options) -> dict[str, Any]:
    leaf, found = proven.leaf, proven.founding
    return {
        "commons": proven.commons.hex(),
        "name": None if found is None else found.name,
        "currency": None if found is None else {"code": found.currency.code, "scale": found.currency.scale},
        "seq": leaf.seq,
        "at": leaf.at_ms,
        "tick": None if found is None else found.policy.tick_of(leaf.at_ms),
        "type": proven.statement.type,
        "id": id_text(proven.statement.id),
        "by": did_of(proven.statement.by),
        "signed_by": [did_of(key) for key, _ in leaf.signatures],
        "postings": [
            {
                "reason": posting.reason,
                "holder": holder_text(posting.holder),
                "asset": posting.asset,
                "grains": str(posting.amount),
            }
            for posting in leaf.postings
        ],
        "ledger": did_of(proven.ledger),
        "size": proven.checkpoint.size,
        "root": proven.checkpoint.root.hex(),
        "cosigned": proven.cosigned,
    }


def checkpoint(*, to: Path | None = None, seen: Path | None = None, options: Options = DEFAULTS) -> None:
    """Show the checkpoint of the log, once it is checked against all that this ledger has shown you before.

    Parameters
    ----------
    to
        Write it to a file, for others to compare with theirs.
    seen
        The file of somebody else's: a ledger that shows people different logs is found out here.
    """
    with failures_told(reads=True):
        try:
            theirs = None if seen is None else seen.read_text()
            if theirs is not None:
                read_checkpoint(read_note(theirs))
        except OSError as error:
            raise Mistake(f"{seen} can't be read: {error.strerror}") from None
        except ValueError as error:
            raise Mistake(f"{seen} is no checkpoint ({error}); gesell checkpoint --to FILE makes one.") from None
    run(_checkpoint(to, theirs, options), reads=True)


async def _checkpoint(to: Path | None, seen: str | None, options: Options) -> None:
    _check_new(to)
    async with options.reader() as client:
        checked = await client.check(seen=seen)
        name = checked.commons
    if to is not None:
        _write(to, checked.note)
    if options.json:
        show_json(_checked_json(checked))
        return
    if options.witness:
        say(f"Your witnesses have cosigned {checked.size} entries of the log of {name}, which only grew.", strong=True)
    else:
        say(f"The log of {name} has {checked.size} entries and only grew.", strong=True)
    showing.facts(
        [
            ("root", base64_text(checked.root)),
            ("signed by", checked.ledger),
            ("cosigned by", ", ".join(checked.witnesses)),
            ("looked after", f"since {showing.when(checked.since_ms)}, when it had {checked.since_size}"),
        ]
    )
    if seen is not None:
        say("The other checkpoint is of the same log.")
    if to is not None:
        tell(f"Written to {to}.")


def _checked_json(checked: Checked) -> dict[str, Any]:
    return {
        "commons": checked.commons,
        "size": checked.size,
        "root": checked.root.hex(),
        "ledger": checked.ledger,
        "witnesses": list(checked.witnesses),
        "since": checked.since_ms,
        "since_size": checked.since_size,
        "checkpoint": checked.note,
    }

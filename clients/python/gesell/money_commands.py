"""The commands that move money: pay, issue, grant, share, and resend for an outcome that stayed unknown.

Owns their words. The rules are the ledger's, the signing, sending and checking the client's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gesell import showing
from gesell.client import Client
from gesell.options import DEFAULTS, Cosign, MemoOption, Options, fail, load_keys, run
from gesell.peer import Peer
from gesell_protocol.receipts import Receipt


def pay(
    to: str,
    amount: str,
    *,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    memo: MemoOption = None,
    ref: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Pay a member, exactly or all there is.

    Parameters
    ----------
    to
        A handle or a did.
    amount
        Like 0.05, or `all` for all there is after melt.
    for_
        The type of interaction that you value, like answer or lift.
    memo
        A text for those who may read the entry.
    ref
        The id of the statement or request that this answers.
    """
    run(_pay(to, amount, for_, memo, ref, options))


async def _pay(to: str, amount: str, category: str | None, memo: str | None, ref: str | None, options: Options) -> None:
    async with options.signer() as client:
        if amount == "all":
            receipt = await client.pay_all(to, category=category, memo=memo, ref=ref)
        else:
            receipt = await client.pay(to, amount, category=category, memo=memo, ref=ref)
        showing.show_receipt(
            receipt, f"Paid {{moved}} to {showing.short(to)}", currency=await client.currency(), as_json=options.json
        )


def issue(to: str, amount: str, *, cosign: Cosign = None, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """As steward, make new money for a member.

    Parameters
    ----------
    to
        A handle or a did, never your own.
    amount
        Like 100 or 0.05.
    cosign
        The key file of another steward who signs along; repeat for several.
    memo
        A note for the members.
    """
    run(
        _as_steward(
            lambda client, signers: client.issue(to, amount, signers=signers, memo=memo),
            f"Issued {{moved}} to {showing.short(to)}",
            cosign,
            options,
        )
    )


def grant(to: str, amount: str, *, cosign: Cosign = None, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """As steward, pay a member out of the pool.

    Parameters
    ----------
    to
        A handle or a did, never your own.
    amount
        Like 100 or 0.05.
    cosign
        The key file of another steward who signs along; repeat for several.
    memo
        A note for the members.
    """
    run(
        _as_steward(
            lambda client, signers: client.grant(to, amount, signers=signers, memo=memo),
            f"Granted {{moved}} from the pool to {showing.short(to)}",
            cosign,
            options,
        )
    )


def share(amount: str, *, cosign: Cosign = None, memo: MemoOption = None, options: Options = DEFAULTS) -> None:
    """As steward, share money of the pool out to all active members alike.

    Parameters
    ----------
    amount
        Like 100 or 0.05, at most what the pool holds.
    cosign
        The key file of another steward who signs along; repeat for several.
    memo
        A note for the members.
    """
    run(
        _as_steward(
            lambda client, signers: client.share(amount, signers=signers, memo=memo),
            "Shared {moved} of the pool; the ledger pays it out now",
            cosign,
            options,
        )
    )


async def _as_steward(
    say: Callable[[Client, list[Peer]], Awaitable[Receipt]], sentence: str, cosign: list[Path] | None, options: Options
) -> None:
    """Say something that takes stewards' signatures, and show what it did."""
    signers = load_keys(cosign or [])
    async with options.signer() as client:
        receipt = await say(client, signers)
        showing.show_receipt(receipt, sentence, currency=await client.currency(), as_json=options.json)


def resend(file: Path, *, options: Options = DEFAULTS) -> None:
    """Settle a statement whose outcome stayed unknown: send the very same envelope again.

    Parameters
    ----------
    file
        The file that the failed command named.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        fail(f"{file} can't be read: {error.strerror}", status=2)
    run(_resend(data, options))
    file.unlink()


async def _resend(data: bytes, options: Options) -> None:
    async with Client(options.url) as client:
        [result] = await client.submit([data])
        receipt = result.receipt_or_raise()
        client = client.as_commons(receipt.commons)
        word = "It had been applied" if result.status == "replayed" else "It is applied now"
        showing.show_receipt(receipt, word, currency=await client.currency(), as_json=options.json)

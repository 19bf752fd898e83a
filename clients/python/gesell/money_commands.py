"""The commands that move one's own money: pay, and resend for an outcome that stayed unknown.

Owns their words, but for links, which are `request_commands`'. The rules are the ledger's, the signing, sending and
checking the client's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gesell import showing
from gesell.joint import not_sent
from gesell.joint_commands import send_envelope
from gesell.kept import kept
from gesell.options import DEFAULTS, MemoOption, Options, fail, run, waiting_told
from gesell.payees import find_payee
from gesell.payto import is_link
from gesell.request_commands import pay_link
from gesell_protocol.canonical import unpack
from gesell_protocol.envelopes import read_envelope
from gesell_protocol.refusals import Rejected


def pay(
    to: str,
    amount: str | None = None,
    *,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    memo: MemoOption = None,
    ref: str | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Pay a member, exactly or all there is; or what a payto link asks for, once you have seen it and said yes.

    Parameters
    ----------
    to
        A handle, a did, or a payto link in quotes.
    amount
        Like 0.05, or `all` for all there is after melt; for a link, only if it names none or you want another.
    for_
        The type of interaction that you value, like answer or lift.
    memo
        A text for those who may read the entry.
    ref
        The id of the statement or request that this answers.
    yes
        Pay a link without asking, for scripts; refused for a link without a ref, and if your newest 1,000 lines have a
        payment for it.
    """
    if is_link(to):
        if ref is not None or amount == "all":
            fail("A link names what it answers and how much; leave out --ref and `all`.", status=2)
        run(pay_link(to, amount, category=for_, memo=memo, yes=yes, options=options))
    elif amount is None:
        fail(f"How much? gesell pay {to} 0.05 (or --amount 0.05)", status=2)
    else:
        run(_pay(to, amount, for_, memo, ref, options))


async def _pay(to: str, amount: str, category: str | None, memo: str | None, ref: str | None, options: Options) -> None:
    async with options.signer() as client:
        own = options.own_did(client.commons_id)
        payee = await find_payee(client, to, own=own, not_oneself="You can't pay yourself.")
        with waiting_told():
            if amount == "all":
                receipt = await client.pay_all(payee, category=category, memo=memo, ref=ref)
            else:
                receipt = await client.pay(payee, amount, category=category, memo=memo, ref=ref)
        showing.show_receipt(
            receipt, f"Paid {{moved}} to {showing.short(to)}", currency=await client.currency(), as_json=options.json
        )


def resend(file: Path | None = None, *, options: Options = DEFAULTS) -> None:
    """Settle a statement whose outcome stayed unknown: send the very same envelope again.

    Parameters
    ----------
    file
        The file that the failed command named.
    """
    if file is None:
        there = "\n          ".join(map(str, kept()))
        waits = f"These wait:\n          {there}" if there else "None waits where such files are kept."
        fail("Which statement? Name the file that the failed command named: gesell resend FILE", waits, status=2)
    try:
        data = file.read_bytes()
    except OSError as error:
        fail(f"{file} can't be read: {error.strerror}", status=2)
    run(_resend(data, options))
    file.unlink()


async def _resend(data: bytes, options: Options) -> None:
    try:
        envelope = read_envelope(unpack(data))
    except Rejected as error:
        raise not_sent(error) from None
    await send_envelope(envelope, options)

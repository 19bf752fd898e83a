"""Asking for money and answering: `gesell request`, and `gesell pay` with a payto link.

Owns their words, what a payer is shown before a yes, and where the link, the code and the talk go: stdout has what a
program would read, stderr what is said to a person. How a link reads is `payto`'s, how a code looks `qr`'s.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gesell import qr as qr_codes
from gesell import showing
from gesell.amount import Amount, grains_of
from gesell.answers import HistoryLine
from gesell.client import Client
from gesell.errors import UnknownMember
from gesell.options import DEFAULTS, MemoOption, Mistake, Options, run, waiting_told
from gesell.payto import PaymentRequest
from gesell.showing import is_agreed, say, show_json, tell
from gesell_protocol.fields import Currency
from gesell_protocol.names import did_of


def request(
    amount: str | None = None,
    *,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    memo: MemoOption = None,
    handle: Annotated[bool, Parameter(negative="")] = False,
    qr: Path | None = None,
    terminal: bool | None = None,
    wait: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Ask to be paid: makes a link and its QR code, which anybody in the commons can pay. Sends nothing.

    Parameters
    ----------
    amount
        Like 0.05; leave it out to let the payer choose.
    for_
        The type of interaction that is valued, like answer or lift.
    memo
        One line that says what it is for; it becomes the payment's memo.
    handle
        Name yourself by handle rather than by did: a shorter link, for which the payer takes the ledger's word.
    qr
        A file for the QR code, .png or .svg.
    terminal
        Draw the QR code here (default: where this is a terminal).
    wait
        Wait until it is paid.
    """
    draw = sys.stdout.isatty() if terminal is None else terminal
    asking = _request(
        amount, category=for_, message=memo, by_handle=handle, file=qr, draw=draw, wait=wait, options=options
    )
    run(asking, reads=True)


async def _request(
    amount: str | None,
    *,
    category: str | None,
    message: str | None,
    by_handle: bool,
    file: Path | None,
    draw: bool,
    wait: bool,
    options: Options,
) -> None:
    async with options.reader() as client:
        me = await options.me(client)
        own = me.peer
        if me.status == "pending":
            raise Mistake("You can be paid once a steward has admitted you.", status=1)
        to = me.handle if by_handle else own
        made = await client.request(amount, category=category, message=message, to=to)
        if file is not None:
            _save(made, file)
        if options.json:
            show_json(_request_json(made))
        else:
            _show_request(made, draw=draw)
        if wait:
            tell("Waiting to be paid. Ctrl-C ends the waiting, not the request.")
            await _show_paid(client, await client.until_paid(made, of=own), as_json=options.json)


def _save(made: PaymentRequest, file: Path) -> None:
    try:
        qr_codes.save(made.link, file)
    except OSError as error:
        raise Mistake(f"{file} can't be written: {error.strerror}", status=1) from None
    tell(f"The QR code is in {file}.")


def _show_request(made: PaymentRequest, *, draw: bool) -> None:
    if draw:
        _draw(made.link)
    # As it is and alone, so that a shell can take it: LINK=$(gesell request 0.05)
    print(made.link, flush=True)


def _draw(link: str) -> None:
    try:
        needed, there = qr_codes.terminal_width(link), shutil.get_terminal_size().columns
    except qr_codes.TooLong as error:  # the link itself is as good as any
        tell(f"No QR code: {error}.")
        return
    if needed > there:
        tell(f"The QR code needs {needed} columns and there are {there}; widen the terminal, or use --qr FILE.png")
    else:
        print("\n".join(qr_codes.terminal_lines(link)))


def _request_json(made: PaymentRequest) -> dict[str, Any]:
    return {
        "link": made.link,
        "commons": made.commons,
        "to": made.to,
        "currency": made.currency,
        "amount": made.amount_text,
        "category": made.category,
        "message": made.message,
        "ref": made.ref,
    }


async def _show_paid(client: Client, lines: list[HistoryLine], *, as_json: bool) -> None:
    if as_json:
        show_json([{"seq": line.seq, "from": line.counterpart, "amount": line.amount.text} for line in lines])
        return
    for line in reversed(lines):
        payer = "somebody" if line.counterpart is None else await _name(client, line.counterpart)
        note = f": {line.memo}" if line.memo else ""
        say(f"Received {line.amount} from {payer}{note}")


async def _name(client: Client, did: str) -> str:
    try:
        return (await client.member(did)).handle
    except UnknownMember:  # has left since
        return showing.short(did)


async def pay_link(
    link: str, amount: str | None, *, category: str | None, memo: str | None, yes: bool, options: Options
) -> None:
    """Show what a link asks for, pay it after a yes, and show the receipt.

    `amount`, `category` and `memo` are the payer's own words, which go before the link's. `yes` asks nothing; so it
    pays no link without a `ref`, and none of which a payment is among the newest 1,000 lines of the payer's history
    (one that runs at the same time is not there yet). Raises `BadLink` or `Mistake` before anything is sent.
    """
    request = PaymentRequest.parse(link.strip())
    if not yes and not sys.stdin.isatty():
        raise Mistake("There is no terminal to ask for a yes; look at the link and say --yes.")
    if yes and request.ref is None:
        raise Mistake(
            "The link has no ref, so nobody could tell whether it was paid before; --yes pays none such.",
            "Leave out --yes to be asked, or pay its payee: gesell pay PAYEE AMOUNT",
        )
    async with _in_its_commons(options, request).signer() as client:
        currency = await client.currency()
        asked = request.amount_in(commons=request.commons, currency=currency)
        much = asked if amount is None else _amount(amount, currency)
        if much is None:
            raise Mistake("The link leaves the amount to you; say how much: gesell pay LINK 0.05")
        own = options.own_did(client.commons_id)
        # From here on the did: what is shown and what is paid must be one, whatever the ledger says of a handle next.
        to = did_of(await client.key_of(request.to))
        if to == own:
            raise Mistake("This is your own request; another member pays it.")
        handle = (await client.member(to)).handle
        before = _own_payments(await client.payments_for(request, of=own), to=to)
        meant = dataclasses.replace(
            request, to=to, category=category or request.category, message=memo or request.message
        )
        if yes and before:
            raise Mistake(f"Paid already: {_when_paid(before)}. To pay once more, leave out --yes.", status=1)
        if not yes:
            await _show_question(client, meant, handle, amount=much, asked=asked, before=before)
            if not is_agreed("Pay this?"):
                raise Mistake("Not paid. Nothing was sent.", status=1)
        with waiting_told():
            receipt = await client.pay_request(meant, amount=much)
        showing.show_receipt(receipt, f"Paid {{moved}} to {handle}", currency=currency, as_json=options.json)


def _amount(text: str, currency: Currency) -> Amount:
    return Amount(grains_of(text, code=currency.code, scale=currency.scale), currency.code, currency.scale)


def _in_its_commons(options: Options, request: PaymentRequest) -> Options:
    """The options with the link's commons; one that was chosen by flag or environment has to be the same."""
    if options.commons is not None and not request.commons.startswith(options.commons.lower()):
        raise Mistake(f"The link is for commons {request.commons}, and you chose {options.commons}.")
    return dataclasses.replace(options, commons=request.commons)


async def _show_question(
    client: Client,
    meant: PaymentRequest,
    handle: str,
    *,
    amount: Amount,
    asked: Amount | None,
    before: list[HistoryLine],
) -> None:
    """Say all that a yes would agree to; the did in full, since a handle alone is the ledger's word."""
    rows = [
        ("Pay", str(amount) if asked in (None, amount) else f"{amount}, where {asked} is asked for"),
        ("to", f"{handle}, {meant.to}"),
        ("for", meant.category),
        ("message", meant.message),
        ("in", (await client.founding()).name),
        ("you have", str((await client.balance()).available)),
        ("but", f"you paid this already: {_when_paid(before)}" if before else None),
        ("note", "without a ref it can't be told whether you paid this before" if meant.ref is None else None),
    ]
    for name, value in rows:
        if value is not None:
            tell(f"{name:>10}  {value}")


def _own_payments(lines: list[HistoryLine], *, to: str) -> list[HistoryLine]:
    """What the payer paid this payee; anybody else may name the same request in a payment of theirs.

    A payment to several tells no counterpart, and may have been to this payee among them.
    """
    return [line for line in lines if line.amount.grains < 0 and line.counterpart in (to, None)]


def _when_paid(before: list[HistoryLine]) -> str:
    last = before[0]
    return f"{str(last.amount).removeprefix('-')} on {showing.when(last.at_ms)}, entry {last.seq}"

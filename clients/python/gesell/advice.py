"""What went wrong and what to do next, in words for people.

Owns the sentences that a failed command ends with. Where the ledger's answer leaves open what it was about (who is no
member, whose key it is), it is asked once more. Knows no single command.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from gesell import errors
from gesell.amount import Amount
from gesell.check_errors import CheckFailed, Equivocation, MemoryFileError, NotInLog, Unchecked, Unwitnessed, WrongKey
from gesell.client import Client
from gesell.joint import NOT_SENT
from gesell.kept import keep, keep_evidence, logs_folder
from gesell_protocol.names import did_of
from gesell_protocol.refusals import Rejected
from gesell_protocol.statements import Statement, Vouch, others_in, read_statement

PASSPHRASE: Final = "GESELL_PASSPHRASE"
NOTHING_SENT: Final = "Nothing was sent."
_NOTHING_APPLIED: Final = "Nothing was applied."

TO_JOIN: Final = "To be one: gesell join HANDLE. If your key was added to another's, say whose: --by DID."
WHO_IS_THERE: Final = "See who is there: gesell members."
_WHOSE_KEY: Final = "If you rotated it, say --key NEW; if it was added to another's, --by DID."
_KEY_STEPS: Final = {
    errors.NoKeyFile: "Make one with `gesell key new`, or say where yours is: --key or GESELL_KEY.",
    errors.PassphraseNeeded: f"Run it on a terminal to be asked, or set {PASSPHRASE}.",
    errors.WrongPassphrase: f"Is it the passphrase of this file? Check {PASSPHRASE} if it is set.",
}
_STEPS: Final[dict[type[errors.GesellError], str]] = {
    errors.Unreachable: "Is the ledger running there? Say where it is with --url or GESELL_URL.",
    errors.UnexpectedAnswer: "Is this a ledger's address? Say where it is with --url or GESELL_URL.",
    errors.UnknownCommons: "See which there are: gesell commons. One that is not open is shown to its members only, by "
    "a key that signs for them: say which with --key, and --by DID if it was added to another's.",
    errors.UnknownMember: WHO_IS_THERE,
    errors.NotActive: "A steward has to admit you (gesell admit), or to admit you again. Who has not asked to join yet"
    " does: gesell join HANDLE.",
    errors.HandleTaken: "Choose another handle.",
    errors.Expired: "Try again; if it stays so, this machine or the line is too slow for the ledger's clock.",
    errors.TooEarly: "Try again in a moment.",
    errors.RateLimited: "Try again in a moment.",
    errors.Unavailable: "Try again in a moment.",
    errors.VouchInUse: "Whom you vouch for has to come up first: see who that is with gesell relationships.",
}
_CHECK_STEPS: Final[dict[type[errors.GesellError], str]] = {
    Equivocation: "The operator owes all of you an explanation; until then, trust nothing that this ledger says.",
    NotInLog: "The operator owes you an explanation.",
    WrongKey: "Check the did that you gave (--ledger) first. If it is right, somebody else answers here, or the"
    " ledger's key changed without a hand-over: ask the operator.",
    Unwitnessed: "A witness may be away: look again later with gesell checkpoint. There is nothing to repeat.",
    Unchecked: "Try again in a moment: gesell checkpoint.",
}
_STEWARDS_SIGN: Final = "Stewards have to sign; add the others' key files with --cosign."
#: What members say for themselves; all else takes stewards' signatures.
_OWN_TYPES: Final = frozenset(
    {"join", "leave", "keys", "erase", "pay", "retire", "gift", "thank", "decline", "withdraw", "vouch"}
)
#: How many vouches one member may give or have (SPEC §3.4).
_VOUCHES_MAX: Final = 256


def what_happened(error: errors.GesellError) -> str:
    """What went wrong, in the currency rather than in grains where the error knows it; a code stands there once."""
    if not isinstance(error, errors.Refused) or str(error) != f"{error.code}: {error.detail}":
        return str(error)
    detail = error.detail.removesuffix(NOT_SENT).removeprefix(f"{error.code}: ")
    return f"{detail} ({error.code})"


def next_step(error: errors.GesellError, *, reads: bool = False) -> str:
    """Whether anything was applied, and what to do next, in a sentence or two.

    `reads` for what only looked: nobody asks then whether anything was applied.
    """
    if isinstance(error, errors.OutcomeUnknown):
        return f"Don't repeat the command; send the same statement again: gesell resend {keep(error)}"
    if isinstance(error, errors.KeyFileError):
        return _KEY_STEPS.get(type(error), "")
    if isinstance(error, CheckFailed):
        return _of_a_check(error)
    if isinstance(error, MemoryFileError):
        return f"It is kept in {logs_folder()}. Without it, what was shown before is forgotten."
    if isinstance(error, errors.ReceiptMismatch):
        return "It was applied, but not as you signed it: the operator owes you an explanation."
    known = "" if reads else _known(error)
    return f"{known} {_step(error)}".strip()


def _of_a_check(error: CheckFailed) -> str:
    """What stays, where the evidence is, and what it is good for."""
    known = "What was given stays given." if error.applied else ""
    kept = f"Kept for you to show to others: {keep_evidence(error)}." if error.evidence else ""
    return " ".join(part for part in (known, kept, _CHECK_STEPS.get(type(error), "")) if part)


def _known(error: errors.GesellError) -> str:
    if isinstance(error, errors.Refused) and error.detail.endswith(NOT_SENT):
        return NOTHING_SENT
    return _NOTHING_APPLIED if error.applied is False else "It is not known whether it was applied."


def _step(error: errors.GesellError) -> str:
    if isinstance(error, errors.NotAuthorised):
        said = _statement(error)
        return "" if said is None or said.type in _OWN_TYPES else _STEWARDS_SIGN
    return _STEPS.get(type(error), "")


async def explained(client: Client, error: errors.Refused) -> tuple[str, str] | None:
    """What a refused statement failed by, and what to do, where the ledger has to be asked for it; else None."""
    statement = _statement(error)
    if statement is None:
        return None
    with suppress(errors.GesellError):
        if isinstance(error, errors.UnknownMember):
            return await _who_is_missing(client, statement)
        if isinstance(error, errors.NotAuthorised):
            return await _whose_key(client, statement, error)
        if isinstance(statement, Vouch):
            return await _which_vouch(client, statement, error)
    return None


async def _which_vouch(client: Client, vouch: Vouch, error: errors.Refused) -> tuple[str, str] | None:
    """Which limit a vouch passes, in money: the smallest vouch, how many there may be, or one's own credit room."""
    who = (await client.member(did_of(vouch.whom))).handle
    if isinstance(error, errors.VouchInUse):
        advice = f"{_NOTHING_APPLIED} Try to lower it by less, or wait until {who} has come up."
        return f"{who} needs what you vouch: without it, the balance would be below the credit limit.", advice
    if not isinstance(error, errors.LimitExceeded) or error.limit is None:
        return None
    if error.limit == _VOUCHES_MAX:
        return f"Nobody vouches for more than {_VOUCHES_MAX}, or has more vouches than that.", _NOTHING_APPLIED
    currency = await client.currency()
    limit = Amount(error.limit, currency.code, currency.scale)
    if vouch.limit < error.limit:
        return f"The smallest vouch here is {limit}.", _NOTHING_APPLIED
    advice = f"{_NOTHING_APPLIED} Who vouches lends credit room of their own: gesell balance tells yours."
    return f"You can vouch for {who} with at most {limit}.", advice


async def _who_is_missing(client: Client, statement: Statement) -> tuple[str, str] | None:
    by = did_of(statement.by)
    if statement.type in _OWN_TYPES and await _standing(client, by) is None:
        return no_member(by), f"{_NOTHING_APPLIED} {TO_JOIN}"
    for did in map(did_of, others_in(statement)):
        handle, status = await _standing(client, did) or ("", "")
        if status == "pending":
            return waits(handle), f"{_NOTHING_APPLIED} A steward admits who asked: gesell admit {handle}"
        if not handle:
            return f"There is no member {did} in this commons.", f"{_NOTHING_APPLIED} {WHO_IS_THERE}"
    return None


async def _whose_key(client: Client, statement: Statement, error: errors.Refused) -> tuple[str, str] | None:
    """Whether the keys that signed are the author's at all: a rotated key signs no more, an added one needs --by."""
    signers = {did_of(key) for key in error.envelope.signers} if error.envelope is not None else set()
    try:
        live = set((await client.member(did_of(statement.by))).keys)
    except errors.UnknownMember:  # stewards need not be members
        stewards = () if statement.type in _OWN_TYPES else (await client.commons()).stewards
        live = {did_of(statement.by)} & set(stewards)
    except errors.UnknownCommons:  # it is shown to its members only, and not to this key
        live = set()
    if signers & live:
        return None
    return "This key does not sign for you (any more).", f"{_NOTHING_APPLIED} {_WHOSE_KEY}"


async def _standing(client: Client, did: str) -> tuple[str, str] | None:
    """The handle and the status of a peer; None for who is no member, or no longer."""
    try:
        member = await client.member(did)
    except errors.UnknownMember:
        return None
    return None if member.status == "left" else (member.handle, member.status)


def no_member(did: str) -> str:
    """Says that oneself is no member."""
    return f"You are not a member of this commons ({did})."


def waits(handle: str) -> str:
    """Says that somebody is no member yet."""
    return f"{handle} has asked to join and is not admitted yet."


def _statement(error: errors.Refused) -> Statement | None:
    if error.envelope is None:
        return None
    with suppress(Rejected):
        return read_statement(error.envelope, min_tick_seconds=1)
    return None

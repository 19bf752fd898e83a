"""What a statement would do if it were sent now: decided as the sequencer decides, and nothing is stored.

Owns who is taken to have signed. The decision is `core.decide`'s, upon books of one moment that are read without the
lock of the commons, so a preview holds up no payment; what comes in between may change the outcome.

1. All have signed who must: `by` and the stewards with each of their live keys, new stewards, added keys.
2. Who may not see the members is told what it would be told if it sent the statement signed by itself alone.
3. A founding needs no books: none of its commons can exist unless it is known already.
"""

from __future__ import annotations

from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Outcome, Submission, decide
from gesell_ledger.core.needs import needs_of
from gesell_ledger.storage.reading import Reader
from gesell_protocol.envelopes import Envelope
from gesell_protocol.refusals import Refusal
from gesell_protocol.statements import ChangeStewards, Found, Keys, Statement


async def preview(
    reader: Reader, statement: Statement, body: bytes, *, now_ms: int, ledger: bytes, alone: bytes | None
) -> Outcome:
    """Decide `statement`, whose canonical bytes are `body`, at `now_ms` of the ledger's clock; changes nothing.

    `alone` is the one key that is taken to have signed (rule 2), None for rule 1. Takes one of the reader's
    connections for a moment.
    """
    if isinstance(statement, Found):
        return decide(Books(), _signed(statement, body, _named(statement)), now_ms=now_ms, ledger=ledger)
    async with reader.open_books(statement.commons) as batch:
        books = await batch.look()
        if books is None or books.commons is None:
            return Refusal(code="unknown-commons", detail="no commons of this name was founded here")
        signers = _named(statement) | set(books.commons.stewards) if alone is None else {alone}
        needs = needs_of([_signed(statement, body, signers)])
        if alone is None:
            needs.key_rings |= signers
        await batch.load(books, needs)
        if alone is None:
            signers |= {key.key for key in books.keys.values() if key.live and key.peer in signers}
    return decide(books, _signed(statement, body, signers), now_ms=now_ms, ledger=ledger)


def _named(statement: Statement) -> set[bytes]:
    """The keys that the statement itself names as signers."""
    match statement:
        case Found(by=by, stewards=stewards) | ChangeStewards(by=by, stewards=stewards):
            return {by, *stewards}
        case Keys(by=by, add=added):
            return {by, *added}
    return {statement.by}


def _signed(statement: Statement, body: bytes, signers: set[bytes]) -> Submission:
    # Nothing looks at the bytes of a signature once it was verified, and these are not to be.
    return Submission(Envelope(body, tuple((key, b"") for key in sorted(signers))), statement)

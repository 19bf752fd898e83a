"""What every wallet command is told: which ledger, which commons, whose key; and how a failure ends a command.

Owns the common options with their environment variables, the asking for passphrases, the choice of the commons,
and the sentences that errors end with. Knows no single command and no table.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

from cyclopts import Parameter

from gesell import errors
from gesell.client import Client
from gesell.key_notes import read_note
from gesell.peer import Peer
from gesell_protocol.names import did_of, peer_of

_T = TypeVar("_T")
PASSPHRASE: Final = "GESELL_PASSPHRASE"


class Mistake(Exception):
    """The command can't work as it was called; the message says what to do. `status` is 1 for a matter of state."""

    def __init__(self, message: str, *, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def default_key_path() -> Path:
    """Where the key is kept unless told: `id_ed25519` in `gesell` below the user's configuration folder."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "gesell" / "id_ed25519"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the ledger is, and how to answer."""

    url: Annotated[str, Parameter(env_var="GESELL_URL")] = "http://127.0.0.1:8420"
    "The ledger's address."
    commons: Annotated[str | None, Parameter(env_var="GESELL_COMMONS")] = None
    "The commons' hex digits, or as many of them as tell it apart; not needed where the ledger has only one."
    key: Annotated[Path | None, Parameter(env_var="GESELL_KEY")] = None
    "Your key file (default: ~/.config/gesell/id_ed25519)."
    by: Annotated[str | None, Parameter(env_var="GESELL_BY")] = None
    "The did that your key speaks for, if it was added to another's (default: as noted beside the key file)."
    json: Annotated[bool, Parameter(negative="")] = False
    "Answer in JSON for programs; amounts are decimal strings."

    @property
    def key_path(self) -> Path:
        """The key file."""
        return self.key or default_key_path()

    def own_did(self, commons: str | None) -> str:
        """For whom the key file speaks in a commons, without asking for its passphrase."""
        if self.by is not None:
            if not self.by.startswith("did:"):
                raise Mistake("--by and GESELL_BY name a peer by its did; a member's is in: gesell members")
            return did_of(peer_of(self.by))
        return read_note(self.key_path).get(commons or "") or Peer.did_in(self.key_path)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Client]:
        """A client of the chosen commons that only reads; it speaks for the key file's did if there is one.

        The key is opened only where the commons asks who reads.
        """
        async with Client(self.url) as service:
            commons = await self.choose_commons(service)
        there = self.key_path.exists()
        own = self.own_did(commons) if there else None
        async with Client(self.url, commons=commons, by=own) as client:
            if there and not await is_shown(client):
                client = client.as_peer(load_key(self.key_path), by=own)
            yield client

    @asynccontextmanager
    async def signer(self) -> AsyncIterator[Client]:
        """A client of the chosen commons that signs with the key file."""
        peer = load_key(self.key_path)
        async with Client(self.url) as service:
            commons = await self.choose_commons(service)
        async with Client(self.url, commons=commons, peer=peer, by=self.own_did(commons)) as client:
            with interruptions_kept(client):
                yield client

    async def choose_commons(self, client: Client) -> str:
        """The commons that is meant: the one given, the one that begins so, or the only one."""
        wanted = (self.commons or "").lower()
        if len(wanted) == 32:
            return wanted
        there = [item for item in await client.commons_list() if item.id.startswith(wanted)]
        if len(there) == 1:
            return there[0].id
        if not there and wanted:
            raise Mistake(f"No commons here begins with {wanted}. See which there are: gesell commons")
        if not there:
            raise Mistake("This ledger has no commons yet. Found one: gesell found --name … --currency …", status=1)
        names = ", ".join(f"{item.id[:8]} ({item.name})" for item in there[:8])
        raise Mistake(f"Which commons? {names}. Say --commons or set GESELL_COMMONS.")


async def is_shown(client: Client) -> bool:
    """Whether the commons shows itself to this client."""
    try:
        await client.currency()
    except (errors.UnknownCommons, errors.NotActive):
        return False
    return True


@contextmanager
def interruptions_kept(client: Client) -> Iterator[None]:
    """Remember what an interrupt leaves without an answer, so that it can be kept in a file."""
    try:
        yield
    except asyncio.CancelledError:
        _interrupted.extend(client.unsettled)
        raise


#: What an interrupted command left without an answer, for `failures_told` to keep.
_interrupted: Final[list[errors.OutcomeUnknown]] = []

DEFAULTS: Final = Options()
#: Options that several commands have.
MemoOption = Annotated[str | None, Parameter(name="--memo")]


def load_key(path: Path, *, ask: Callable[[str], str] = getpass.getpass) -> Peer:
    """Read a key file; its passphrase comes from GESELL_PASSPHRASE or is asked for on a terminal."""
    given = os.environ.get(PASSPHRASE)
    try:
        return Peer.load(path, passphrase=given)
    except errors.PassphraseNeeded:
        if not sys.stdin.isatty():
            raise
    for left in (2, 1, 0):
        try:
            return Peer.load(path, passphrase=ask(f"Passphrase of {path}: "))
        except (errors.WrongPassphrase, errors.PassphraseNeeded):
            if not left:
                raise
            print("That does not open it; try again.", file=sys.stderr)
    raise AssertionError("unreachable")


def load_keys(paths: Sequence[Path]) -> list[Peer]:
    """Read the key files of those who sign along."""
    return [load_key(path) for path in paths]


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's work; a failure ends the program with one or two lines that say what to do next."""
    with failures_told():
        return asyncio.run(work)


@contextmanager
def failures_told() -> Iterator[None]:
    """End the program with one or two lines on stderr for whatever a user can do something about."""
    try:
        yield
    except errors.GesellError as error:
        fail(what_happened(error), next_step(error))
    except Mistake as error:
        fail(str(error), status=error.status)
    except ValueError as error:  # an amount, a handle or a did that is none, found before anything was sent
        fail(str(error), "Nothing was sent.", status=2)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # what was interrupted may have left the cursor within a line
        if not _interrupted:
            fail("Interrupted; nothing was on its way.", status=130)
        fail("Interrupted while a statement had no answer yet.", next_step(_interrupted[0]), status=130)


def fail(what: str, advice: str = "", *, status: int = 1) -> NoReturn:
    """Say what happened and what to do on stderr, and end the program."""
    print(f"gesell: {what}" + (f"\n        {advice}" if advice else ""), file=sys.stderr)
    raise SystemExit(status)


def what_happened(error: errors.GesellError) -> str:
    """What went wrong, in the currency rather than in grains where the error knows it."""
    return str(error)


def next_step(error: errors.GesellError) -> str:
    """Whether anything was applied, and what to do next, in a sentence or two."""
    if isinstance(error, errors.OutcomeUnknown):
        path = keep(error)
        return f"Don't repeat the command; send the same statement again: gesell resend {path}"
    if isinstance(error, errors.KeyFileError):
        return _KEY_STEPS.get(type(error), "")
    if isinstance(error, errors.ReceiptMismatch):
        return "It was applied, but not as you signed it: the operator owes you an explanation."
    known = "Nothing was applied." if error.applied is False else "It is not known whether it was applied."
    return f"{known} {_STEPS.get(type(error), '')}".rstrip()


def keep(error: errors.OutcomeUnknown) -> Path:
    """Keep the envelope of an unknown outcome, so that `gesell resend` can settle it; returns the file."""
    home = os.environ.get("XDG_STATE_HOME")
    folder = (Path(home) if home else Path.home() / ".local" / "state") / "gesell"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{error.id}.envelope"
    path.write_bytes(error.envelope_bytes)
    return path


_KEY_STEPS: Final = {
    errors.NoKeyFile: "Make one with `gesell key new`, or say where yours is: --key or GESELL_KEY.",
    errors.PassphraseNeeded: f"Run it on a terminal to be asked, or set {PASSPHRASE}.",
    errors.WrongPassphrase: f"Is it the passphrase of this file? Check {PASSPHRASE} if it is set.",
}
_STEPS: Final[dict[type[errors.GesellError], str]] = {
    errors.Unreachable: "Is the ledger running there? Say where it is with --url or GESELL_URL.",
    errors.UnexpectedAnswer: "Is this a ledger's address? Say where it is with --url or GESELL_URL.",
    errors.UnknownCommons: "See which there are: gesell commons. One that is not open is shown to its members only.",
    errors.UnknownMember: "See who is there: gesell members. To be one of them: gesell join HANDLE. If your key was "
    "added to another's, say whose: --by DID",
    errors.NotActive: "Join first (gesell join HANDLE), and where stewards admit, wait for one to.",
    errors.NotAuthorised: "Stewards have to sign; add the others' key files with --cosign.",
    errors.HandleTaken: "Choose another handle.",
    errors.Expired: "Try again; if it stays so, this machine or the line is too slow for the ledger's clock.",
    errors.TooEarly: "Try again in a moment.",
    errors.RateLimited: "Try again in a moment.",
    errors.Unavailable: "Try again in a moment.",
}

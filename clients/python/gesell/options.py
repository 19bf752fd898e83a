"""What every wallet command is told: which ledger, which commons, whose key; and how a failure ends a command.

Owns the common options with their environment variables, the asking for passphrases, the choice of the commons,
and the end of a command that failed. Knows no single command and no table; the sentences are `advice`'s.
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
from gesell.advice import NOTHING_SENT, PASSPHRASE, TO_JOIN, explained, next_step, no_member, what_happened
from gesell.answers import Member
from gesell.check_errors import CheckFailed
from gesell.client import Client
from gesell.kept import logs_folder
from gesell.key_notes import read_note
from gesell.memory import FolderMemory
from gesell.peer import Peer
from gesell.showing import tell
from gesell.verifying import unchecked
from gesell_protocol.names import did_of, peer_of

_T = TypeVar("_T")
#: After so long without an answer, whoever waits is told that it is still tried.
SILENCE_SECONDS: Final = 5.0


class Mistake(Exception):
    """The command can't work as it was called; the message says what to do, or `advice` on a line of its own.

    `status` is 1 for a matter of state.
    """

    def __init__(self, message: str, advice: str = "", *, status: int = 2) -> None:
        super().__init__(message)
        self.advice = advice
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
    ledger: Annotated[str | None, Parameter(env_var="GESELL_LEDGER")] = None
    "The ledger's did, if you know it from elsewhere (default: as the commons' founding says)."
    witness: Annotated[tuple[str, ...], Parameter(env_var="GESELL_WITNESSES", negative="", show_default=False)] = ()
    "The verifier key of a witness that you trust; repeat for several."
    quorum: Annotated[int | None, Parameter(env_var="GESELL_QUORUM")] = None
    "How many of your witnesses must have cosigned what the ledger shows (default: all)."
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
        return read_note(self.key_path).get(commons or "") or did_in(self.key_path)

    async def me(self, client: Client) -> Member:
        """The member that the key file speaks for; ends the command for who is none."""
        own = self.own_did(client.commons_id)
        try:
            return await client.member(own)
        except errors.UnknownMember:
            raise Mistake(no_member(own), TO_JOIN, status=1) from None

    def client(self, *, commons: str | None = None, peer: Peer | None = None, by: str | None = None) -> Client:
        """A client that demands what these options say, and remembers from one command to the next."""
        return Client(
            self.url,
            commons=commons,
            peer=peer,
            by=by,
            ledger=self.ledger,
            witnesses=self.witness,
            quorum=self.quorum,
            memory=logs_folder(),
        )

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Client]:
        """A client of the chosen commons that only reads; it speaks for the key file's did if there is one.

        The key is opened only where the commons asks who reads. At the end the log is checked.
        """
        async with Client(self.url) as service:
            commons = await self.choose_commons(service)
        there = self.key_path.exists()
        own = self.own_did(commons) if there else None
        async with self.client(commons=commons, by=own) as client:
            if there and not await is_shown(client):
                client = client.as_peer(load_key(self.key_path), by=own)
            yield client
            await check_log(client)

    @asynccontextmanager
    async def signer(self) -> AsyncIterator[Client]:
        """A client of the chosen commons that signs with the key file; what it is refused is explained.

        At the end the log is checked.
        """
        peer = load_key(self.key_path)
        async with Client(self.url) as service:
            commons = await self.choose_commons(service)
        async with self.client(commons=commons, peer=peer, by=self.own_did(commons)) as client:
            try:
                with interruptions_kept(client):
                    yield client
                    await check_log(client)
            except errors.Refused as error:
                told = await explained(client, error)
                if told is None:
                    raise
                raise Mistake(*told, status=1) from None

    async def choose_commons(self, client: Client) -> str:
        """The commons that is meant: the one given, the one that begins so, or the only one."""
        wanted = (self.commons or "").lower()
        if len(wanted) == 32:
            return wanted
        with waiting_told():
            there = [item for item in await client.commons_list() if item.id.startswith(wanted)]
        if len(there) == 1:
            return there[0].id
        if not there and wanted:
            raise Mistake(f"No commons here begins with {wanted}. See which there are: gesell commons")
        if not there:
            raise Mistake("This ledger has no commons yet. Found one: gesell found --name … --currency …", status=1)
        names = ", ".join(f"{item.id[:8]} ({item.name})" for item in there[:8])
        raise Mistake(f"Which commons? {names}. Say --commons or set GESELL_COMMONS.")


async def check_log(client: Client) -> None:
    """Hold the ledger to what it has shown before; a failure ends the command, once it has shown what it has.

    A commons that is not founded yet has no log; but one whose log was seen can't be unknown any more.
    """
    try:
        with waiting_told():
            await client.check()
    except CheckFailed as error:
        _unheld.append(error)
    except errors.GesellError as error:
        known = client.commons_id is not None and FolderMemory(logs_folder()).load(client.commons_id) is not None
        if known or not isinstance(error, errors.UnknownCommons):
            _unheld.append(unchecked(error))


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


@contextmanager
def waiting_told() -> Iterator[None]:
    """Say on stderr that an answer is still waited for, if it takes long; never used around a question to a person."""
    timer = asyncio.get_running_loop().call_later(
        SILENCE_SECONDS, tell, "gesell: still waiting for the ledger or its witnesses; Ctrl-C ends the waiting only."
    )
    try:
        yield
    finally:
        timer.cancel()


#: What an interrupted command left without an answer, for `failures_told` to keep.
_interrupted: Final[list[errors.OutcomeUnknown]] = []

#: What checks found after a command had done its work, for `run` to end it with.
_unheld: Final[list[CheckFailed]] = []

DEFAULTS: Final = Options()
#: Options that several commands have.
MemoOption = Annotated[str | None, Parameter(name="--memo")]


def load_key(path: Path, *, ask: Callable[[str], str] = getpass.getpass) -> Peer:
    """Read a key file; its passphrase comes from GESELL_PASSPHRASE or is asked for on a terminal."""
    peer = _load_key(path, ask)
    _opened[_mark(path)] = peer.did
    return peer


def _load_key(path: Path, ask: Callable[[str], str]) -> Peer:
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


def did_in(path: Path) -> str:
    """Who a key file is; asks for its passphrase only where the file does not tell without."""
    try:
        return Peer.did_in(path)
    except errors.PassphraseNeeded:
        return _opened.get(_mark(path)) or load_key(path).did


#: Whose the key files are that this command has opened, so that none is asked for twice.
_opened: Final[dict[tuple[int, ...], str]] = {}


def _mark(path: Path) -> tuple[int, ...]:
    """What tells a file from another that takes its place."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def load_keys(paths: Sequence[Path]) -> list[Peer]:
    """Read the key files of those who sign along."""
    return [load_key(path) for path in paths]


def run(work: Coroutine[Any, Any, _T], *, reads: bool = False) -> _T:
    """Run a command's work; a failure ends the program with one or two lines that say what to do next.

    `reads` for a command that changes nothing.
    """
    with failures_told(reads=reads):
        outcome = asyncio.run(work)
        if _unheld:
            raise _unheld.pop()
        return outcome


@contextmanager
def failures_told(*, reads: bool = False) -> Iterator[None]:
    """End the program with one or two lines on stderr for whatever a user can do something about."""
    try:
        yield
    except errors.GesellError as error:
        fail(what_happened(error), next_step(error, reads=reads))
    except Mistake as error:
        fail(str(error), error.advice, status=error.status)
    except ValueError as error:  # an amount, a handle or a did that is none, found before anything was sent
        fail(str(error), "" if reads else NOTHING_SENT, status=2)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # what was interrupted may have left the cursor within a line
        if not _interrupted:
            fail("Interrupted; nothing was on its way.", status=130)
        fail("Interrupted while a statement had no answer yet.", next_step(_interrupted[0]), status=130)


def fail(what: str, advice: str = "", *, status: int = 1) -> NoReturn:
    """Say what happened and what to do on stderr, and end the program."""
    tell(f"gesell: {what}", *([f"        {advice}"] if advice else []))
    raise SystemExit(status)

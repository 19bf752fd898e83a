"""The commands `gesell key …`: making, showing and changing the keys that sign.

Owns how a new key is asked for, where key files lie after a change, and what is said of them. `new` and `show` need no
ledger; the others make a statement, by which the peer stays who it is and other keys sign for it.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gesell import errors
from gesell.client import Client
from gesell.joint_commands import ALONE, Together, speak
from gesell.key_notes import note_path, write_note
from gesell.options import DEFAULTS, Mistake, Options, default_key_path, failures_told, load_key, run
from gesell.peer import Peer
from gesell.showing import say, show_json
from gesell_protocol.names import did_of


def new(
    path: Path | None = None,
    *,
    no_passphrase: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make a new key file (OpenSSH format, so ssh-keygen can change its passphrase). Never overwrites.

    Parameters
    ----------
    path
        The file to make (default: GESELL_KEY, or ~/.config/gesell/id_ed25519).
    no_passphrase
        Leave it unprotected: for programs that nobody sits beside.
    json
        Answer in JSON.
    """
    path = path or Path(os.environ.get("GESELL_KEY") or default_key_path())
    with failures_told():
        _make_key(path, protected=not no_passphrase, as_json=json)


def _make_key(path: Path, *, protected: bool, as_json: bool) -> None:
    if path.exists():
        raise errors.KeyFileError(f"{path} exists; a key is never overwritten")
    passphrase = _new_passphrase() if protected else None
    peer = _save_new(path, passphrase)
    if as_json:
        show_json({"path": str(path), "peer": peer.did})
        return
    say(f"Your key is in {path}. Keep a copy: without it nobody can move what is yours.")
    say("You are " + peer.did)


def _save_new(path: Path, passphrase: str | None) -> Peer:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    peer = Peer.new()
    peer.save(path, passphrase=passphrase)
    return peer


def _new_passphrase() -> str:
    given = os.environ.get("GESELL_PASSPHRASE")
    if given:
        return given
    if not sys.stdin.isatty():
        raise Mistake("No terminal to ask for a passphrase: set GESELL_PASSPHRASE, or say --no-passphrase.")
    first = getpass.getpass("A passphrase for the new key: ")
    if not first:
        raise Mistake("An empty passphrase protects nothing; say --no-passphrase to do without.")
    if getpass.getpass("Once more: ") != first:
        raise Mistake("The two differ; nothing was written.")
    return first


def show(path: Path | None = None, *, options: Options = DEFAULTS) -> None:
    """Show who a key file is; needs no passphrase.

    Parameters
    ----------
    path
        The key file (default: --key).
    """
    path = path or options.key_path
    with failures_told():
        did = Peer.did_in(path)
    show_json({"path": str(path), "peer": did}) if options.json else say(did)


# ── Changing the keys that sign for a peer ───────────────────────────────────────────────────────────────────────


def rotate(
    path: Path | None = None,
    *,
    no_passphrase: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Sign with a new key from now on; the one in use signs no more in this commons. You stay who you are.

    The new key takes the place of the key file in use, which is kept beside it as `….revoked`. In other commons the old
    key still signs. After a failure, call it again: it goes on where it was.

    Parameters
    ----------
    path
        The new key's file, to leave the old one where it is; made unless it is there.
    no_passphrase
        Leave a new file unprotected.
    """
    run(_rotate(path, not no_passphrase, options))


async def _rotate(path: Path | None, protected: bool, options: Options) -> None:
    old = options.key_path
    new = path or old.with_name(old.name + ".new")
    async with options.signer() as client:
        commons, by = client.commons_id or "", did_of(await client.key_of(options.own_did(client.commons_id)))
        # It may have been made beforehand, or left by an earlier try.
        peer = load_key(new) if new.exists() else _save_new(new, _new_passphrase() if protected else None)
        # Noted before it is true: whatever becomes of the answer, the new file will know for whom it speaks.
        write_note(new, commons=commons, by=by)
        if not await _signs_for(client.as_peer(peer, by=by), peer, by=by):
            await client.rotate(peer)
    kept = new if path is not None else _take_place(old, new)
    if options.json:
        show_json({"path": str(kept), "key": peer.did, "peer": by})
        return
    say(f"From now on {peer.did} signs for you; the old key signs no more in this commons.")
    say(f"You are still {by}.")
    if path is None:
        say(f"The new key is in {old}, the old one beside it. Keep a copy of the new one.")
    else:
        say(f"Say --key {new} or set GESELL_KEY. Keep a copy of it, and of {note_path(new)}.")


async def _signs_for(view: Client, key: Peer, *, by: str) -> bool:
    """Whether a key is a live one of the peer already: an earlier try came through without an answer."""
    try:
        return key.did in (await view.member(by)).keys
    except errors.Refused:
        return False


def _take_place(old: Path, new: Path) -> Path:
    """Put the new key file and its note where the old ones were; nothing is overwritten."""
    aside = next(path for path in _names_beside(old, "revoked") if not path.exists())
    for place in (lambda path: path, note_path):
        if place(old).exists():
            place(old).rename(place(aside))
        if place(new).exists():
            place(new).rename(place(old))
    return old


def _names_beside(path: Path, word: str) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.{word}")
    yield from (path.with_name(f"{path.name}.{word}-{number}") for number in count(2))


def add(key: str, /, *, together: Together = ALONE, options: Options = DEFAULTS) -> None:
    """Let a further key sign for you, like that of a phone; it has to sign this too.

    Parameters
    ----------
    key
        Its key file; or its did together with --draft FILE, which it then signs with `gesell cosign FILE`.
    """
    run(_add(key, together, options))


async def _add(key: str, together: Together, options: Options) -> None:
    by_did = key.startswith("did:")
    if by_did and together.draft is None:
        raise Mistake("The new key has to sign too: name its file, or say --draft FILE and cosign it with the new key.")
    async with options.signer() as client:
        by = did_of(await client.key_of(options.own_did(client.commons_id)))
        together = together if by_did else replace(together, cosign=[*(together.cosign or []), Path(key)])
        did = key if by_did else Peer.did_in(Path(key))
        sentence = f"{did} may sign for you; there, say --by {by} where the note beside its file does not"
        fields = {"type": "keys", "add": [did]}
        await speak(client, fields, together=together, sentence=sentence, options=options)
        if not by_did:
            write_note(Path(key), commons=client.commons_id or "", by=by)


def revoke(key: str, /, *, options: Options = DEFAULTS) -> None:
    """Let a key sign for you no more: one that was lost, or is not needed any longer.

    A key may revoke itself and those that were added after it.

    Parameters
    ----------
    key
        Its did (see: gesell members --json), or its key file.
    """
    run(_revoke(key, options))


async def _revoke(key: str, options: Options) -> None:
    did = key if key.startswith("did:") else Peer.did_in(Path(key))
    async with options.signer() as client:
        fields = {"type": "keys", "revoke": [did]}
        sentence = f"{did} signs for you no more in this commons"
        await speak(client, fields, together=ALONE, sentence=sentence, options=options)

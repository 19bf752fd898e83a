"""The commands `gesell key …`: making, showing and changing the keys that sign.

Owns how a new key is asked for, where key files lie after a change, and what is said of them. `new` and `show` need no
ledger; the others make a statement, by which the peer stays who it is and other keys sign for it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from gesell import errors, key_swap
from gesell.client import Client
from gesell.joint_commands import ALONE, Together, speak
from gesell.key_notes import note_path, read_note, sync_folder, write_note
from gesell.options import DEFAULTS, Mistake, Options, default_key_path, did_in, failures_told, load_key, run
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
    sync_folder(path.parent)
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
    with failures_told(reads=True):
        did = did_in(path)
    show_json({"path": str(path), "peer": did}) if options.json else say(did)


# ── Changing the keys that sign for a peer ───────────────────────────────────────────────────────────────────────


def rotate(
    path: Path | None = None,
    *,
    no_passphrase: Annotated[bool, Parameter(negative="")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Sign with a new key from now on; the one in use signs no more in this commons. You stay who you are.

    The new key takes the place of the key file in use, which is kept beside it as `….old`: in every other commons
    the old key still signs, and moves what you have there. After a failure, call it again: it goes on where it was.

    Parameters
    ----------
    path
        The new key's file, to leave the old one where it is; made unless it is there.
    no_passphrase
        Leave a new file unprotected.
    """
    run(_rotate(path, not no_passphrase, options))


class Kept(NamedTuple):
    """After a rotation: the did of the new key, and where the new and the old key file are."""

    key: str
    path: Path
    old: Path


async def _rotate(path: Path | None, protected: bool, options: Options) -> None:
    old = options.key_path
    new = path or old.with_name(old.name + ".new")
    _refuse_same(old, new)
    async with options.signer() as client:
        commons, by = client.commons_id or "", did_of(await client.key_of(options.own_did(client.commons_id)))
        if path is None and key_swap.is_half_done(old, new):
            key_swap.finish(old, new)
            kept = Kept(key=did_in(old), path=old, old=key_swap.last_aside(old))
            _show_rotated(kept, by=by, commons=commons, as_json=options.json)
            if not options.json:
                say("This finished an earlier rotation that was interrupted. To rotate once more, call it again.")
            return
        # It may have been made beforehand, or left by an earlier try.
        peer = load_key(new) if new.exists() else _save_new(new, _new_passphrase() if protected else None)
        # Noted before it is true: whatever becomes of the answer, the new file will know for whom it speaks.
        write_note(new, commons=commons, by=by)
        with _to_be_called_again(client):
            await _hand_over(client, peer, by=by, old=did_in(old))
    if path is None:
        kept = Kept(key=peer.did, path=old, old=key_swap.take_place(old, new, commons=commons, by=by))
    else:
        kept = Kept(key=peer.did, path=new, old=old)
    _show_rotated(kept, by=by, commons=commons, as_json=options.json)
    if path is not None and not options.json:
        say(f"Here, say --key {new} or set GESELL_KEY.")


def _refuse_same(old: Path, new: Path) -> None:
    """A key can't take its own place: nothing would be sent, and the one in use would go on signing."""
    if new.exists() and (new.samefile(old) or did_in(new) == did_in(old)):
        raise Mistake(f"{new} holds the key that you sign with now; name a file for another one. Nothing was sent.")


async def _hand_over(client: Client, new: Peer, *, by: str, old: str) -> None:
    """Have the new key sign and the old one no more: what of it is not so already, after an earlier try or an `add`."""
    live = await _live_keys(client.as_peer(new, by=by), by)
    if new.did not in live:
        await client.rotate(new)
    elif old in live:
        await client.keys(revoke=[old])


async def _live_keys(view: Client, by: str) -> tuple[str, ...]:
    """The keys that sign for a peer; none where the commons shows nothing to this key (yet)."""
    try:
        return (await view.member(by)).keys
    except errors.Refused:
        return ()


@contextmanager
def _to_be_called_again(client: Client) -> Iterator[None]:
    """What has no answer is settled by the same command, which looks first; not by a file to resend."""
    advice = "Call the same command again: it looks first, and goes on where it was. Until then keep both key files."
    try:
        yield
    except errors.OutcomeUnknown:
        raise Mistake("It is not known whether the new key signs yet.", advice, status=1) from None
    except asyncio.CancelledError:
        if not client.unsettled:
            raise
        raise Mistake("Interrupted; it is not known whether the new key signs yet.", advice, status=130) from None


def _show_rotated(kept: Kept, *, by: str, commons: str, as_json: bool) -> None:
    """Say which key signs now, where it is, and what the old one is still needed for."""
    if as_json:
        show_json({"path": str(kept.path), "key": kept.key, "peer": by, "old": str(kept.old)})
        return
    say(f"From now on {kept.key} signs for you; the old key signs no more in this commons.")
    say(f"You are still {by}.")
    say(f"The new key is in {kept.path}. Keep a copy of it, and of {note_path(kept.path)}.")
    others = [name for name in read_note(kept.old) if name != commons]
    noted = f" (like {', '.join(others)})" if others else ""
    say(f"The old key is in {kept.old}: in any other commons{noted} it still signs and moves what you have there.")
    say(f"There, say --key {kept.old}")


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
        did = key if by_did else did_in(Path(key))
        note = "" if by_did else f"keep {note_path(Path(key)).name} beside the key, or "
        sentence = f"{did} may sign for you. On that device, {note}say --by {by}"
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
    did = key if key.startswith("did:") else did_in(Path(key))
    async with options.signer() as client:
        fields = {"type": "keys", "revoke": [did]}
        sentence = f"{did} signs for you no more in this commons"
        await speak(client, fields, together=ALONE, sentence=sentence, options=options)

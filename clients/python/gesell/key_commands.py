"""The commands `gesell key …`: making and showing the file that signs.

Owns how a new key is asked for and what is said of it. Needs no ledger.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gesell import errors
from gesell.options import DEFAULTS, Mistake, Options, default_key_path, failures_told
from gesell.peer import Peer
from gesell.showing import say, show_json


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
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    peer = Peer.new()
    peer.save(path, passphrase=passphrase)
    if as_json:
        show_json({"path": str(path), "peer": peer.did})
        return
    say(f"Your key is in {path}. Keep a copy: without it nobody can move what is yours.")
    say("You are " + peer.did)


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

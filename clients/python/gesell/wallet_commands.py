"""The wallet's command line: the list of its commands.

Owns the cyclopts app that `gesell.commands` runs and that other distributions' commands join. Knows no command
from within.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from gesell import account_commands, commons_commands, demo_command, key_commands, money_commands, replay_commands

app = App(name="gesell", help="Signed payments in a currency whose idle money melts.", version="0.1.0")
key = App(name="key", help="Make or show the key that you sign with.")
key.command(key_commands.new)
key.command(key_commands.show)
app.command(key)
for command in (
    commons_commands.found,
    commons_commands.join,
    commons_commands.admit,
    commons_commands.members,
    commons_commands.commons,
    money_commands.pay,
    money_commands.issue,
    money_commands.grant,
    money_commands.share,
    money_commands.resend,
    account_commands.balance,
    account_commands.history,
    replay_commands.replay,
    demo_command.demo,
):
    app.command(command)


def stand_in(app: App, name: str, *, extra: str, why: str) -> None:
    """Register a command that only says which extra would bring it, and `why` it is not here."""

    def missing(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
        print(f"`gesell {name}` is not installed ({why}): pip install 'gesell[{extra}]'", file=sys.stderr)
        return 1

    missing.__doc__ = f"Not installed: pip install 'gesell[{extra}]'"
    app.command(missing, name=name, help_flags=[], version_flags=[])

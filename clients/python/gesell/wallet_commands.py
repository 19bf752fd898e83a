"""The wallet's command line: the list of its commands.

Owns the cyclopts app that `gesell.commands` runs and that other distributions' commands join. Knows no command
from within.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from gesell import (
    account_commands,
    commons_commands,
    community_commands,
    demo_command,
    export_commands,
    gift_commands,
    joint_commands,
    key_commands,
    money_commands,
    receipt_commands,
    replay_commands,
    request_commands,
    steward_commands,
    trust_commands,
    webhook_commands,
)

app = App(name="gesell", help="Signed payments, gifts and trust where idle money melts.", version="0.1.0")
key = App(name="key", help="Make, show and change the keys that you sign with.")
key.command(key_commands.new)
key.command(key_commands.show)
key.command(key_commands.rotate)
key.command(key_commands.add)
key.command(key_commands.revoke)
app.command(key)
webhook = App(name="webhook", help="Have entries delivered to a program of yours.")
webhook.command(webhook_commands.add)
webhook.command(webhook_commands.list_, name="list")
webhook.command(webhook_commands.delete)
app.command(webhook)
kind = App(name="kind", help="The kinds of gifts that this commons counts.")
kind.command(steward_commands.add_kind, name="add")
kind.command(steward_commands.list_kinds, name="list")
app.command(kind)
receipt = App(name="receipt", help="Receipts that hold without the ledger.")
receipt.command(receipt_commands.get)
receipt.command(receipt_commands.verify)
app.command(receipt)
for command in (
    commons_commands.found,
    commons_commands.join,
    commons_commands.admit,
    commons_commands.members,
    commons_commands.commons,
    request_commands.request,
    money_commands.pay,
    gift_commands.give,
    gift_commands.thank,
    gift_commands.decline,
    gift_commands.withdraw,
    gift_commands.gifts,
    gift_commands.gift,
    trust_commands.vouch,
    trust_commands.trust,
    community_commands.relationships,
    community_commands.standing,
    community_commands.flow,
    steward_commands.issue,
    steward_commands.grant,
    steward_commands.share,
    steward_commands.writeoff,
    joint_commands.cosign,
    joint_commands.send,
    money_commands.resend,
    account_commands.balance,
    account_commands.history,
    receipt_commands.checkpoint,
    export_commands.export,
    replay_commands.replay,
    demo_command.demo,
):
    app.command(command)


def stand_in(app: App, name: str, *, why: str) -> None:
    """Register a command that only says `why` it is not here, and what would bring it."""

    def missing(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
        print(f"gesell {name}: {why}", file=sys.stderr)
        return 1

    missing.__doc__ = why[:1].upper() + why[1:]
    app.command(missing, name=name, help_flags=[], version_flags=[])

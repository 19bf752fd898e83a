"""The commands `gesell webhook …`: having entries delivered to a program, and seeing how that fares.

Owns their words. What is asked for is signed by the client; who may have it is the ledger's to say.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from gesell.options import DEFAULTS, Options, run
from gesell.showing import say, show_json
from gesell.webhooks import Webhook
from gesell_protocol.foreign import one_line


def add(
    url: str,
    /,
    *,
    type_: Annotated[list[str] | None, Parameter(name="--type", negative="")] = None,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    after: int | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Have entries delivered to a URL; prints its secret, which is shown this once.

    For a URL that has a webhook: makes it what is asked for, and enables it again.

    Parameters
    ----------
    url
        An https URL that the ledger can reach.
    type_
        A type of statement to deliver, like pay; repeat for several (default: all types).
    all_
        Deliver all entries that you may read, not only those that concern you.
    after
        Begin with the entry after this one (default: with the next that is made).
    """
    run(_add(url, type_ or [], all_, after, options))


async def _add(url: str, types: list[str], everything: bool, after: int | None, options: Options) -> None:
    async with options.signer() as client:
        hook = await client.add_webhook(url, types=types, scope="all" if everything else "own", after=after)
    if options.json:
        show_json(_fields(hook))
        return
    say(_line(hook))
    if hook.secret is None:
        say("You had it already: its secret stays as it is.")
        return
    print("Its secret, shown this once:", file=sys.stderr)
    print(one_line(hook.secret))


def list_(*, options: Options = DEFAULTS) -> None:
    """List your webhooks and how they fare."""
    run(_list(options), reads=True)


async def _list(options: Options) -> None:
    async with options.signer() as client:
        mine = await client.webhooks()
    if options.json:
        show_json([_fields(hook) for hook in mine])
        return
    for hook in mine:
        say(_line(hook))
    if not mine:
        say("You have no webhooks here. Add one: gesell webhook add URL")


def delete(id_: Annotated[str, Parameter(name="id")], *, options: Options = DEFAULTS) -> None:
    """End a webhook; what is on its way may still arrive.

    Parameters
    ----------
    id_
        Its id, as `gesell webhook list` shows it.
    """
    run(_delete(id_, options))


async def _delete(name: str, options: Options) -> None:
    async with options.signer() as client:
        await client.delete_webhook(name)
    if options.json:
        show_json({"deleted": name})
    else:
        say("Deleted.")


def _line(hook: Webhook) -> str:
    kinds = ", ".join(hook.types) or "all types"
    what = f"{kinds}, {'all entries' if hook.scope == 'all' else 'your own entries'}, delivered up to {hook.after}"
    fares = hook.state if hook.why is None else f"{hook.state}: {hook.why}"
    if hook.next_attempt_ms is not None:
        again = datetime.fromtimestamp(hook.next_attempt_ms / 1000, UTC)
        fares += f"; tried again at {again:%Y-%m-%d %H:%M:%S} UTC"
    return f"{hook.id}  {hook.url}  ({what})  {fares}"


def _fields(hook: Webhook) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(hook).items() if value is not None}

"""The command `gesell`: the wallet's commands, and those that other distributions add to it.

Owns the entry point and what is said when a part is not installed. Knows no command itself: the wallet's stand in
`wallet_commands`; others come through the entry-point group `gesell.commands`, each value a cyclopts `App`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cyclopts import App

#: Entry point (and extra) → the commands that it would bring, so that they can say what is missing.
EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "ledger": ("serve", "demo", "db", "witness", "audit", "import", "rekey")
}
#: Where the harness stands in a source tree; no package brings it. Looked for by its place, since a package `bench`
#: that an environment may hold besides is somebody else's.
HARNESS: Final = Path(__file__).parents[3] / "bench" / "commands.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 for a failure, 2 for a mistake in the call."""
    try:
        from gesell.wallet_commands import app
    except ModuleNotFoundError as error:
        if error.name not in ("cyclopts", "rich", "segno"):
            raise
        print(f"The command needs {error.name}: pip install 'gesell[cli]'", file=sys.stderr)
        return 1
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A payment should not wait for the imports of a ledger, nor fail with them.
    if not words or words[0].startswith("-") or words[0] not in app:
        join_others(app)
    try:
        status = app(words, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read it has enough (`| head`); what is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status if isinstance(status, int) else 0


def join_others(app: App) -> None:
    """Register the commands of all installed distributions; what can't be imported only says so when called."""
    from gesell.wallet_commands import stand_in

    for point in sorted(entry_points(group="gesell.commands"), key=lambda point: point.name):
        if point.name == "bench" and not HARNESS.is_file():
            stand_in(app, "bench", why="the harness is in the source tree, not in the package: `make bench` there")
            continue
        try:
            others = point.load()
        except ImportError as error:
            missing = (name for name in EXTRAS.get(point.name, ()) if name not in app)
            for name in missing:
                stand_in(app, name, why=f"not installed ({error}): pip install 'gesell[{point.name}]'")
        else:
            app.command(others, name="*")


if __name__ == "__main__":
    sys.exit(main())

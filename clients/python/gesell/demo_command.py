"""The command `gesell demo`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

from cyclopts import Parameter, validators

from gesell.demo import run_demo
from gesell.errors import GesellError


def demo(
    *,
    seconds: Annotated[int, Parameter(validator=validators.Number(gte=20, lte=3600))] = 60,
    seed: int = 1932,
) -> int:
    """Watch half a year of a small commons in a minute: payments flow, rest and melt; ends with the books proven.

    Exit status 0 only if the books hold. Needs `pip install 'gesell[ledger]'`, for the ledger that it starts.

    Parameters
    ----------
    seconds
        How long it takes.
    seed
        Another number makes another story.
    """
    try:
        return asyncio.run(run_demo(seconds=seconds, seed=seed))
    except GesellError as error:
        print(f"gesell: {error}", file=sys.stderr)
        return 1

"""The Gesell ledger service: core decides, storage keeps, the sequencer orders, the api speaks HTTP."""

from typing import Final

__version__: Final = "0.1.0"

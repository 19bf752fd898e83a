"""The command `gesell witness`: what its operator says, and wiring."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import uvloop
from cyclopts import Group, Parameter

from gesell_ledger.keyfile import PASSPHRASE, read_passphrase
from gesell_ledger.logs import LogFormat, configure_logs
from gesell_ledger.settings import default_data
from gesell_ledger.sources import Sources
from gesell_ledger.storage.faults import Fault
from gesell_ledger.witness.serving import WitnessSettings, run
from gesell_ledger.witness.trusted import Trusted
from gesell_ledger.worker import stop_on_signals
from gesell_protocol.notes import WITNESS_KEY, NoteKey

LISTEN: Final = "127.0.0.1:8421"
WITNESS: Final = Sources("witness")

_SERVING = Parameter(group=Group("Serving", sort_key=1))
_DATA = Parameter(group=Group("Data", sort_key=2))
_LOGS = Parameter(group=Group("Logs", sort_key=3), negative="", show_default=False)

app = cyclopts.App(name="witness", config=WITNESS.chain, error_formatter=WITNESS.show_refusal)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessOptions:
    """The options of `gesell witness`, as they were said."""

    config: Annotated[Path | None, Parameter(env_var="GESELL_CONFIG", show_env_var=False), _SERVING] = None
    "A TOML file whose table [witness] has any of these settings, by the same names; or name it in GESELL_CONFIG."
    name: Annotated[str | None, _SERVING] = None
    "What the witness is called under its cosignatures, like witness.example/w1; for good."
    listen: Annotated[str, _SERVING] = LISTEN
    "The address and the port to listen on; port 0 takes any that is free."
    log_format: Annotated[LogFormat, _SERVING] = "logfmt"
    "How the lines on stderr look: key=value, or JSON."
    data: Annotated[Path | None, _DATA] = None
    """The folder of what the witness remembers, and of its key. Default: /var/lib/gesell/witness for root, else
    ~/.local/share/gesell/witness."""
    key: Annotated[Path | None, _DATA] = None
    "The file of the witness's key; made at the first start. Default: witness.key in the data folder."
    key_passphrase_file: Annotated[Path | None, _DATA] = None
    "A file whose first line opens the key; or put the passphrase in GESELL_KEY_PASSPHRASE."
    ledger: Annotated[tuple[str, ...], _LOGS] = ()
    """A ledger whose commons are witnessed, by its did:key; after its key changed hands, both with a comma between
    them. Repeat it for more."""
    log: Annotated[tuple[str, ...], _LOGS] = ()
    "Any other log that is witnessed, by its verifier key, whose name is the log's origin. Repeat it for more."

    def settings(self) -> WitnessSettings:
        """The settings that these options say; takes the passphrase out of the environment. Raises a `Fault`."""
        folder = (self.data or default_data() / "witness").absolute()
        host, colon, port = self.listen.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
            raise Fault(f"--listen is an address and a port, like {LISTEN}")
        if self.name is None:
            raise Fault("say what the witness is called with --name, like witness.example/w1; it can't change later")
        try:
            NoteKey(self.name, bytes(32), WITNESS_KEY)
        except ValueError as error:
            raise Fault(f"--name: {error}") from None
        if not self.ledger and not self.log:
            raise Fault("say whose logs are witnessed: --ledger DID or --log VKEY")
        try:
            # In the environment, one variable has to say them all.
            trusted = Trusted.parse(ledgers=" ".join(self.ledger).split(), logs=" ".join(self.log).split())
        except ValueError as error:
            raise Fault(f"--ledger or --log: {error}") from None
        return WitnessSettings(
            name=self.name,
            folder=folder,
            key_file=self.key or folder / "witness.key",
            passphrase=read_passphrase(self.key_passphrase_file, environment=os.environ.pop(PASSPHRASE, "")),
            host=host.removeprefix("[").removesuffix("]"),
            port=int(port),
            trusted=trusted,
        )


@app.default
def witness(*, options: WitnessOptions | None = None) -> None:
    """Witness logs: cosign each one's checkpoints, as long as they lead up from each other (C2SP tlog-witness).

    Prints the verifier key by which ledgers and readers name this witness, then `listening on http://HOST:PORT`. Each
    setting is a flag like --name w1, a variable like GESELL_WITNESS_NAME=w1, or a line like name = "w1" in a file.
    """
    said = options or WitnessOptions()
    try:
        settings = said.settings()
        configure_logs(said.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except Fault as fault:
        print(f"gesell: {fault}", file=sys.stderr)
        sys.exit(1)


async def _run(settings: WitnessSettings) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping)
    await run(settings, stopping)

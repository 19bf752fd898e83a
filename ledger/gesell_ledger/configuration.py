"""What an operator says to `gesell serve`: the settings by name, with their help.

Owns the names and the help; `sources` owns where they are said, `settings` their ranges. What may hold a secret is
taken out of the environment, so that no child process inherits it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from gesell_ledger.keyfile import PASSPHRASE, read_passphrase
from gesell_ledger.logs import LogFormat
from gesell_ledger.settings import HALF_LIFE_DAYS, PORT, Settings, default_data, parse_moment, read_witnesses
from gesell_ledger.sources import Sources

SERVE: Final = Sources("serve")

_SERVING = Parameter(group=Group("Serving", sort_key=1))
_DATA = Parameter(group=Group("Data", sort_key=2))
_MONEY = Parameter(group=Group("Money", sort_key=3))
_LOG = Parameter(group=Group("Log", sort_key=4))
_CLOCK = Parameter(group=Group("Clock", sort_key=5))
_FLAG = _LIST = Parameter(negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `gesell serve`, as they were said."""

    config: Annotated[Path | None, Parameter(env_var="GESELL_CONFIG", show_env_var=False), _SERVING] = None
    "A TOML file whose table [serve] has any of these settings, by the same names; or name it in GESELL_CONFIG."
    host: Annotated[str, _SERVING] = "127.0.0.1"
    "The address to listen on."
    port: Annotated[int, _SERVING] = PORT
    "The port to listen on; 0 takes any that is free."
    workers: Annotated[int, _SERVING] = 1
    "How many processes serve on this port; one is enough for most."
    log_format: Annotated[LogFormat, _SERVING] = "logfmt"
    "How the lines on stderr look: key=value, or JSON."
    webhooks_to_private: Annotated[bool, _FLAG, _SERVING] = False
    "Deliver webhooks to private addresses too, and over http: for tests, and where members are trusted with them."
    data: Annotated[Path | None, _DATA] = None
    """The folder of the private PostgreSQL and the ledger's key. Default: /var/lib/gesell for root, else
    ~/.local/share/gesell."""
    database: Annotated[str | None, _DATA] = None
    """Use this PostgreSQL instead (postgresql://gesell_service@HOST/DB); `gesell db migrate` prepares it. One with a
    password belongs in the file or the environment: everybody on the machine can read a command line."""
    key: Annotated[Path | None, _DATA] = None
    "The file of the ledger's key; made at the first start. Default: ledger.key in the data folder."
    key_passphrase_file: Annotated[Path | None, _DATA] = None
    "A file whose first line opens the key; or put the passphrase in GESELL_KEY_PASSPHRASE."
    unsafe_durability: Annotated[bool, _FLAG, _DATA] = False
    "Serve a database that may lose acknowledged payments in a crash."
    min_tick_seconds: Annotated[int, _MONEY] = 3600
    "The shortest tick that a commons may be founded with; below 3600 for tests and demos only."
    sweep_ticks: Annotated[int, _MONEY] = 30
    "No account with melt due sleeps longer than this many ticks."
    half_life_days: Annotated[int, _MONEY] = HALF_LIFE_DAYS
    """In how many days without any contact a relationship loses half of its strength; all services of a database say
    the same."""
    witness: Annotated[tuple[str, ...], _LIST, _LOG] = ()
    """A witness of this ledger's logs, as "VKEY URL": its verifier key, and where it takes checkpoints; repeat it for
    more."""
    accept_clock: Annotated[bool, _FLAG, _CLOCK] = False
    "Confirm the clock after it jumped or the service was away for long: the melt of that time falls due."
    demo: Annotated[bool, _FLAG, _CLOCK] = False
    "Run on a demo clock, for demonstrations and tests."
    clock_start: Annotated[str | None, _CLOCK] = None
    "Where the demo clock starts (ISO 8601). Default: now."
    clock_speed: Annotated[int, _CLOCK] = 1
    "How many times faster than real time the demo clock runs."

    def settings(self) -> Settings:
        """The settings that these options say; takes secrets out of the environment. Raises a `Fault`."""
        folder = (self.data or default_data()).absolute()
        os.environ.pop(SERVE.variable_of("--database"), None)
        return Settings(
            host=self.host,
            port=self.port,
            workers=self.workers,
            webhooks_to_private=self.webhooks_to_private,
            log_format=self.log_format,
            data=folder,
            database=self.database,
            key_file=self.key or folder / "ledger.key",
            key_passphrase=read_passphrase(self.key_passphrase_file, environment=os.environ.pop(PASSPHRASE, "")),
            unsafe_durability=self.unsafe_durability,
            min_tick_seconds=self.min_tick_seconds,
            sweep_ticks=self.sweep_ticks,
            half_life_days=self.half_life_days,
            witnesses=read_witnesses(self.witness),
            accept_clock=self.accept_clock,
            demo=self.demo,
            clock_start_ms=parse_moment(self.clock_start) if self.clock_start is not None else None,
            clock_speed=self.clock_speed,
        )

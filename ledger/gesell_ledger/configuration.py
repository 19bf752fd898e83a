"""What an operator says to `gesell serve`, and where: flags, else the environment, else a file of settings.

Owns the names, the help and the order of precedence; `settings` owns ranges. A name that nobody knows is refused, in
the file and in the environment: a setting that was misspelt must not be missing silently.

1. `--min-tick-seconds 60`, `GESELL_SERVE_MIN_TICK_SECONDS=60` and `min-tick-seconds = 60` in the table `[serve]` of
   the file say the same, and the first of them counts.
2. The file is named by `--config` or GESELL_CONFIG and by nothing else.
3. What may hold a secret is taken out of the environment, so that no child process inherits it.
4. What is refused is named and its value is not shown: a DSN may stand where it does not belong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from cyclopts import App, CoercionError, CycloptsError, CycloptsPanel, Group, Parameter, UnusedCliTokensError
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Env, Toml

from gesell_ledger.keyfile import read_passphrase
from gesell_ledger.logs import LogFormat
from gesell_ledger.settings import HALF_LIFE_DAYS, PORT, Settings, default_data, parse_moment

PREFIX: Final = "GESELL_SERVE_"
PASSPHRASE: Final = "GESELL_KEY_PASSPHRASE"
#: The file's only table.
TABLE: Final = "serve"
FILE_MAX_BYTES: Final = 1024 * 1024

_SERVING = Parameter(group=Group("Serving", sort_key=1))
_DATA = Parameter(group=Group("Data", sort_key=2))
_MONEY = Parameter(group=Group("Money", sort_key=3))
_CLOCK = Parameter(group=Group("Clock", sort_key=4))
_FLAG = Parameter(negative="", show_default=False)


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
    accept_clock: Annotated[bool, _FLAG, _CLOCK] = False
    "Confirm the clock after it jumped or the service was away for long: the melt of that time falls due."
    demo: Annotated[bool, _FLAG, _CLOCK] = False
    "Run on a demo clock, for demonstrations and tests."
    clock_start: Annotated[str | None, _CLOCK] = None
    "Where the demo clock starts (ISO 8601). Default: now."
    clock_speed: Annotated[int, _CLOCK] = 1
    "How many times faster than real time the demo clock runs."

    def settings(self) -> Settings:
        """The settings that these options say; takes secrets out of the environment (rule 3). Raises a `Fault`."""
        folder = (self.data or default_data()).absolute()
        os.environ.pop(PREFIX + "DATABASE", None)
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
            accept_clock=self.accept_clock,
            demo=self.demo,
            clock_start_ms=parse_moment(self.clock_start) if self.clock_start is not None else None,
            clock_speed=self.clock_speed,
        )


def refuse_unknown_names(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse a variable of the environment that begins like a setting and is none. Never tells its value."""
    known = {variable_of(argument.name) for argument in arguments if argument.name != "--config"}
    for variable in sorted(os.environ):
        if variable == PREFIX + "CONFIG":
            raise CycloptsError(msg=f"{variable} is not a setting: name the file in GESELL_CONFIG")
        if variable.startswith(PREFIX) and variable not in known:
            raise CycloptsError(msg=f"{variable} is not a setting; `gesell serve --help` names them all")


def read_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take from the file, if one is named, what neither flags nor environment said."""
    said = next(argument for argument in arguments if argument.name == "--config").tokens
    if not said:
        return
    path = Path(said[0].value)
    _check_file(path)
    file = Toml(path, must_exist=True, root_keys=(TABLE,), use_commands_as_keys=False)
    try:
        tables: dict[str, Any] = file.config
    except OSError as error:
        raise CycloptsError(msg=f"the file of settings {path} can't be read: {error.strerror or error}") from None
    except CycloptsError as error:
        raise CycloptsError(msg=f"the file of settings {path} is no TOML: {error.msg}") from None
    strange = sorted(set(tables) - {TABLE})
    if strange:
        raise CycloptsError(msg=f"{path} says {strange[0]!r} outside of its only table, [{TABLE}]")
    if isinstance(tables.get(TABLE), dict) and "config" in tables[TABLE]:
        raise CycloptsError(msg=f"{path} names another file of settings; there is only one")
    file(app, commands, arguments)


def _check_file(path: Path) -> None:
    """Refuse what can't be a file of settings before it is read: a folder, a device without end, a pipe."""
    try:
        if path.exists() and not path.is_file():
            raise CycloptsError(msg=f"the file of settings {path} is no file")
        with path.open("rb") as file:
            if len(file.read(FILE_MAX_BYTES + 1)) > FILE_MAX_BYTES:
                raise CycloptsError(msg=f"the file of settings {path} has more than {FILE_MAX_BYTES} bytes")
    except OSError as error:
        raise CycloptsError(msg=f"the file of settings {path} can't be read: {error.strerror or error}") from None


def show_refusal(error: CycloptsError) -> Any:
    """What is written of a refusal; left to itself, the library would show the value (rule 4)."""
    if isinstance(error, CoercionError) and error.argument is not None:
        said = error.token or next(iter(error.argument.tokens), None)
        place = "" if said is None or said.source in ("", "cli", "env") else f" in {said.source}"
        name = error.argument.name if said is None or said.keyword is None else said.keyword
        return CycloptsPanel(f"{name}{place} is {_kind_of(error.argument.resolved_hint)}")
    if isinstance(error, UnusedCliTokensError):
        return CycloptsPanel("settings are said by their flags: `gesell serve --help` names them all")
    return CycloptsPanel(error)


def _kind_of(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    return {int: "a whole number", bool: "true or false"}.get(hint, "one text")


def variable_of(name: str) -> str:
    """The environment's name of a setting, from its flag's: --clock-speed → GESELL_SERVE_CLOCK_SPEED."""
    return PREFIX + name.removeprefix("--").upper().replace("-", "_")


#: In the order of precedence, after the flags.
SOURCES: Final = (refuse_unknown_names, Env(PREFIX, command=False, show=False), read_file)

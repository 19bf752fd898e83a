"""Where the settings of a command that serves are said: flags, else the environment, else a file of settings.

Owns the order of precedence and what is told of a setting that can't be taken. Knows no setting. A name that nobody
knows is refused, in the file and in the environment: a setting that was misspelt must not be missing silently.

1. `--min-tick-seconds 60`, `GESELL_SERVE_MIN_TICK_SECONDS=60` and `min-tick-seconds = 60` in the table `[serve]` of
   the file say the same, and the first of them counts; likewise for the settings of every other command.
2. The file is named by `--config` or GESELL_CONFIG and by nothing else.
3. What is refused is named and its value is not shown: a DSN may stand where it does not belong.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from cyclopts import App, CoercionError, CycloptsError, CycloptsPanel, UnusedCliTokensError
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Env, Toml

FILE_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of one command's settings; `command` is also the name of the file's only table."""

    command: str

    @property
    def prefix(self) -> str:
        """How the environment's names of its settings begin."""
        return f"GESELL_{self.command.upper()}_"

    @property
    def chain(self) -> tuple[Callable[[App, tuple[str, ...], ArgumentCollection], object], ...]:
        """What cyclopts asks after the flags, in the order of precedence."""
        return (self._refuse_unknown_names, Env(self.prefix, command=False, show=False), self._read_file)

    def variable_of(self, name: str) -> str:
        """The environment's name of a setting, from its flag's: --clock-speed → GESELL_SERVE_CLOCK_SPEED."""
        return self.prefix + name.removeprefix("--").upper().replace("-", "_")

    def show_refusal(self, error: CycloptsError) -> Any:
        """What is written of a refusal; left to itself, the library would show the value (rule 3)."""
        if isinstance(error, CoercionError) and error.argument is not None:
            said = error.token or next(iter(error.argument.tokens), None)
            place = "" if said is None or said.source in ("", "cli", "env") else f" in {said.source}"
            name = error.argument.name if said is None or said.keyword is None else said.keyword
            return CycloptsPanel(f"{name}{place} is {_kind_of(error.argument.resolved_hint)}")
        if isinstance(error, UnusedCliTokensError):
            return CycloptsPanel(f"settings are said by their flags: `gesell {self.command} --help` names them all")
        return CycloptsPanel(error)

    def _refuse_unknown_names(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Refuse a variable of the environment that begins like a setting and is none. Never tells its value."""
        known = {self.variable_of(argument.name) for argument in arguments if argument.name != "--config"}
        for variable in sorted(os.environ):
            if variable == self.prefix + "CONFIG":
                raise CycloptsError(msg=f"{variable} is not a setting: name the file in GESELL_CONFIG")
            if variable.startswith(self.prefix) and variable not in known:
                raise CycloptsError(msg=f"{variable} is not a setting; `gesell {self.command} --help` names them all")

    def _read_file(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Take from the file, if one is named, what neither flags nor environment said."""
        table = self.command
        said = next(argument for argument in arguments if argument.name == "--config").tokens
        if not said:
            return
        path = Path(said[0].value)
        _check_file(path)
        file = Toml(path, must_exist=True)
        try:
            tables: dict[str, Any] = file.config
        except OSError as error:
            raise CycloptsError(msg=f"the file of settings {path} can't be read: {error.strerror or error}") from None
        except CycloptsError as error:
            raise CycloptsError(msg=f"the file of settings {path} is no TOML: {error.msg}") from None
        strange = sorted(set(tables) - {table})
        if strange:
            raise CycloptsError(msg=f"{path} says {strange[0]!r} outside of its only table, [{table}]")
        if isinstance(tables.get(table), dict) and "config" in tables[table]:
            raise CycloptsError(msg=f"{path} names another file of settings; there is only one")
        # By the command's own name, not by root_keys: then the library would pass over every setting that is called
        # like a command, as `demo` and `witness` are.
        file(app, (table,), arguments)


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


def _kind_of(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    return {int: "a whole number", bool: "true or false"}.get(hint, "one text")

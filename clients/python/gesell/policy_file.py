"""A policy as people write it: a JSON file with the fields that differ from a default.

Owns the reading of that file. The ranges of the fields are the protocol's (`gesell_protocol.policy`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gesell.options import Mistake
from gesell_protocol.policy import Policy, read_policy


def policy_of(path: Path | None, *, default: Policy) -> Policy:
    """The default with what a file says instead; raises `Mistake` for what is no policy."""
    if path is None:
        return default
    fields = {**default.fields(), **_read_fields(path)}
    for name in ("credit_limit", "vouch_min"):
        fields[name] = _grains(fields[name])
    fields["brackets"] = _brackets(fields["brackets"])
    try:
        return read_policy(fields, min_tick_seconds=1)
    except ValueError as error:
        raise Mistake(f"{path}: {error}") from None


def _read_fields(path: Path) -> dict[str, object]:
    try:
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise Mistake(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise Mistake(f"{path} is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise Mistake(f"{path} is no JSON object with the fields of a policy")
    return said


def _brackets(value: Any) -> Any:
    """Brackets as a policy has them; what are none stay as they are, for the reader to refuse."""
    if not isinstance(value, list | tuple):
        return value
    return [[_grains(item[0]), *item[1:]] if isinstance(item, list | tuple) and item else item for item in value]


def _grains(value: Any) -> Any:
    """Grains stand in JSON as digits in a string (SPEC §7.1); a number is understood too."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value

"""The SQL files as named queries.

Owns how `sql/queries/*.sql` are read: blocks that begin with `-- name: …`, whose next line says what for. Knows no
connection; a query's name is the only way the rest of the storage speaks of it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_BLOCK = re.compile(r"^-- name: (?P<name>[a-z_]+)\n-- (?P<what>.+)\n(?P<sql>(?:(?!^-- name: ).*\n?)+)", re.MULTILINE)


@cache
def queries(topic: str) -> MappingProxyType[str, str]:
    """The queries of `sql/queries/<topic>.sql` by name."""
    text = (files(__package__) / "sql" / "queries" / f"{topic}.sql").read_text()
    found = {match["name"]: match["sql"].strip().rstrip(";") for match in _BLOCK.finditer(text)}
    assert len(found) == text.count("\n-- name: "), f"{topic}.sql has a block without a line that says what for"
    return MappingProxyType(found)


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration, in order."""
    folder = files(__package__) / "sql" / "migrations"
    found = []
    for file in folder.iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        found.append((int(number), name, file.read_text()))
    return sorted(found)


def schema() -> str:
    """The whole present schema, which the migrations together must make."""
    return (files(__package__) / "sql" / "schema.sql").read_text()

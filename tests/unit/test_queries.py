"""The SQL files as they stand: every block says what it is for, is spoken of, and keeps the rules of distribution.

What can be read off the files is checked here; what only a database can tell, in `tests/integration/test_schema.py`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import gesell_ledger
from gesell_ledger.storage import queries as module
from gesell_ledger.storage.queries import migrations, queries, schema

SQL = Path(module.__file__).parent / "sql"
SOURCES = Path(gesell_ledger.__file__).parent
TOPICS = sorted(file.stem for file in (SQL / "queries").glob("*.sql"))
BLOCKS = [(topic, name) for topic in TOPICS for name in queries(topic)]

#: One row about the service itself, the same on every node: it belongs to no commons.
REFERENCE_TABLES = {"gesell.ledger", "gesell.migration"}


@cache
def sources() -> list[str]:
    return [file.read_text() for file in sorted(SOURCES.rglob("*.py"))]


def statement(topic: str, name: str) -> str:
    return " ".join(code_of(queries(topic)[name]).split())


def code_of(sql: str) -> str:
    """SQL without its comments."""
    return re.sub(r"--.*", "", sql)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_block_has_a_name_of_its_own_and_a_sentence(topic: str) -> None:
    lines = (SQL / "queries" / f"{topic}.sql").read_text().splitlines()
    names = [line.removeprefix("-- name: ") for line in lines if line.startswith("-- name: ")]
    assert names
    assert len(set(names)) == len(names)
    assert list(queries(topic)) == names
    for at, line in enumerate(lines):
        if line.startswith("-- name: "):
            sentence = lines[at + 1]
            assert re.fullmatch(r"-- [A-Z].{10,}\.", sentence), f"{line}: {sentence!r} is no sentence"


def test_a_file_says_first_what_it_is_for() -> None:
    for topic in TOPICS:
        first = (SQL / "queries" / f"{topic}.sql").read_text().splitlines()[0]
        assert re.match(r"-- Quer(y|ies) of .+\.", first) or re.match(r"-- Queries about .+\.", first), topic


@pytest.mark.parametrize(("topic", "name"), BLOCKS)
def test_every_query_is_used_through_its_own_topic(topic: str, name: str) -> None:
    # `_READING = queries("reading")`, then `_READING["list_entries"]`, or a name that is chosen before it is used.
    loaded = f'_{topic.upper()} = queries("{topic}")'
    direct = f'_{topic.upper()}["{name}"]'
    chosen = re.compile(rf"_{topic.upper()}\[[a-z_]+\]")
    users = [text for text in sources() if loaded in text]
    assert users
    assert any(direct in text or (chosen.search(text) and f'"{name}"' in text) for text in users), (
        f"{topic}.sql: nothing asks for {name}"
    )


@pytest.mark.parametrize(("topic", "name"), BLOCKS)
def test_every_query_is_one_statement_with_all_its_parameters(topic: str, name: str) -> None:
    sql = code_of(queries(topic)[name])
    assert ";" not in sql
    numbers = {int(number) for number in re.findall(r"\$(\d+)", sql)}
    assert numbers == set(range(1, len(numbers) + 1))


def parts_of(sql: str) -> dict[str, str]:
    """The statements that one statement is made of, by their names: those of its WITH, and itself under no name."""
    parts, at = {}, 0
    while found := re.compile(r"(?:WITH|,) (\w+) AS \(").match(sql, at):
        end = found.end()
        depth = 1
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        parts[found[1]] = sql[found.end() : end - 1].strip()
        at = end
    return parts | {"": sql[at:].strip()}


def test_parts_of_a_statement_are_told_apart() -> None:
    sql = "WITH a AS ( SELECT f(1) FROM x ), b AS (UPDATE y SET z = (1)) SELECT 2 FROM a"
    assert parts_of(sql) == {"a": "SELECT f(1) FROM x", "b": "UPDATE y SET z = (1)", "": "SELECT 2 FROM a"}


@pytest.mark.parametrize(("topic", "name"), BLOCKS)
def test_every_query_names_its_tables_with_their_schema(topic: str, name: str) -> None:
    sql = statement(topic, name)
    parts = parts_of(sql)
    named = re.findall(r"\b(?:FROM|JOIN|INTO|UPDATE) (?!SET\b|LATERAL \()(?:LATERAL )?(\w+(?:\.\w+)?)", sql)
    plain = [one for one in named if not one.startswith(("gesell.", "pg_", "unnest")) and one not in parts]
    assert plain in ([], ["OF"], ["SKIP"]), f"{topic}.{name}: {plain}"


@pytest.mark.parametrize(("topic", "name"), BLOCKS)
def test_every_write_stays_within_one_commons_by_a_plain_parameter(topic: str, name: str) -> None:
    for part in parts_of(statement(topic, name)).values():
        check_write(topic, name, part)


def check_write(topic: str, name: str, sql: str) -> None:
    table = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO) (\S+)", sql)
    if table is None:
        assert sql.startswith("SELECT "), f"{topic}.{name} neither reads nor writes"
        assert not re.search(r"\b(INSERT|UPDATE|DELETE|MERGE)\b", re.sub(r"FOR UPDATE|'[^']*'", "", sql))
        return
    if table[1] in REFERENCE_TABLES:
        return
    if sql.startswith("INSERT"):
        assert re.match(r"INSERT INTO \S+ (AS \w )?\(commons_id, .*?\) (VALUES \(\$1,|SELECT \$1(::bigint)?,)", sql)
        conflict = re.search(r"ON CONFLICT \((\w+)", sql)
        assert conflict is None or conflict[1] == "commons_id"
    else:
        assert re.search(r"WHERE (?:\w+\.)?commons_id = \$\d", sql)
    assert not re.search(r"SET [^;]*\bcommons_id = ", sql.split("WHERE")[0]), "commons_id is never updated"


@pytest.mark.parametrize(("topic", "name"), BLOCKS)
def test_every_read_filters_or_joins_on_the_commons(topic: str, name: str) -> None:
    sql = statement(topic, name)
    if not sql.startswith("SELECT") or not re.search(r"(FROM|JOIN) gesell\.", sql):
        return
    if any(f"FROM {table}" in sql for table in REFERENCE_TABLES) or name in (
        "list_commons",
        "list_all_commons",
        "list_sharing",
        "list_marks",
        "list_behind",
        "list_founded",
        "find_foreign",
        "list_of_ledger",
        "list_uncosigned",
        "list_cosigned",
        "list_heads",
    ):
        return
    assert re.search(r"commons_id = (\$1|ANY\(\$1)", sql)
    for alias in re.findall(r"JOIN gesell\.\w+ (\w+)", sql):
        assert re.search(rf"JOIN gesell\.\w+ {alias} ON {alias}\.commons_id = \w+\.commons_id", sql)


#: Refused by Citus, per node only, or of one node's storage (rules 4, 6 and 8).
FORBIDDEN = (
    r"\bMERGE\b|\bctid\b|\bxmin\b|LOCK TABLE|SERIALIZABLE|advisory|LISTEN|NOTIFY|GROUPING SETS|WITH RECURSIVE|"
    r"\bTRIGGER\b|CREATE RULE|INHERITS|\bSERIAL\b|BIGSERIAL|IDENTITY|VIRTUAL|ON DELETE SET NULL|nextval|now\(\)"
)


@pytest.mark.parametrize("file", sorted(SQL.rglob("*.sql")), ids=lambda file: file.name)
def test_no_file_uses_what_is_refused_or_means_little_on_several_nodes(file: Path) -> None:
    assert not re.search(FORBIDDEN, code_of(file.read_text()), re.IGNORECASE)


def test_nothing_but_migrate_takes_an_advisory_lock_or_more_than_read_committed_to_write() -> None:
    for file in SOURCES.rglob("*.py"):
        text = file.read_text()
        if file.name != "migrate.py":
            assert "pg_advisory" not in text, file.name
        assert "serializable" not in text.lower().replace("deserializ", ""), file.name
        if "isolation=" in text:
            assert text.count("isolation=") == text.count('isolation="repeatable_read", readonly=True'), file.name


def test_migrations_are_numbered_one_after_the_other_and_named_by_verb_and_object() -> None:
    found = migrations()
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    for file in sorted((SQL / "migrations").iterdir()):
        assert re.fullmatch(r"\d{4}_[a-z]+(_[a-z0-9]+)+\.sql", file.name)
    assert [sql for _, _, sql in found] == [file.read_text() for file in sorted((SQL / "migrations").iterdir())]


def test_the_schema_is_the_file_for_reading() -> None:
    assert schema() == (SQL / "schema.sql").read_text()


def test_sql_stands_in_sql_files_alone() -> None:
    # A query within Python would escape every check above. `migrate` alone makes the role and its own row.
    written = re.compile(r'"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER) ')
    for file in SOURCES.rglob("*.py"):
        # Witness and auditor keep files of SQLite, which no rule above is about.
        if file.name not in ("migrate.py", "embedded.py", "records.py", "memory.py"):
            assert not written.search(file.read_text()), file.name


def test_a_block_without_its_sentence_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "sql" / "queries"
    folder.mkdir(parents=True)
    (folder / "broken.sql").write_text("-- Queries of nothing.\n\n-- name: lonely\nSELECT 1;\n")
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(AssertionError, match="without a line that says what for"):
        queries("broken")

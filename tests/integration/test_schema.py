"""What the database itself says: the same tables either way they are made, append-only history, rules kept.

The rules are those for one schema on several engines; what can be read off the SQL files is checked in
`tests/unit/test_queries.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import asyncpg
import pytest

from gesell_ledger.storage.faults import DatabaseUnfit
from gesell_ledger.storage.migrate import SERVICE_ROLE, migrate
from gesell_ledger.storage.queries import migrations, schema
from tests.own_postgres import OwnPostgres, own_postgres

HISTORY = ("entry", "posting", "policy")
#: About the service itself, the same on every node; all other tables belong to commons.
REFERENCE = {"ledger", "migration"}
REFUSED = "42501"


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with own_postgres() as started:
        asyncio.run(migrate(started.owner_dsn("postgres")))  # makes the role
        yield started


@pytest.fixture(scope="module")
def migrated(postgres: OwnPostgres) -> str:
    """A database that the migrations made. Tests leave it as it is."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    return name


# ── Two ways to make it ──────────────────────────────────────────────────────────────────────────────────────────

#: Everything that a statement could notice, each as rows of text in an order of their own.
DESCRIPTIONS = {
    "columns": """
        SELECT table_name, ordinal_position, column_name, data_type, udt_name, column_default, is_nullable,
               is_identity, is_generated, generation_expression, collation_name
        FROM information_schema.columns WHERE table_schema = 'gesell' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype::text, convalidated, condeferrable,
               pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'gesell'::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'gesell' ORDER BY 1, 2",
    "relations": """
        SELECT relname, relkind::text, relpersistence::text, reloptions, relrowsecurity, relispartition,
               relowner::regrole::text, relacl::text
        FROM pg_class WHERE relnamespace = 'gesell'::regnamespace ORDER BY 1""",
    "column grants": """
        SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'gesell'::regnamespace AND attacl IS NOT NULL ORDER BY 1, 2""",
    "schemas": """
        SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1""",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'gesell'::regnamespace ORDER BY 1",
    "triggers": "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    "default rights": "SELECT defaclobjtype::text, defaclacl::text FROM pg_default_acl ORDER BY 1",
}


@pytest.fixture(scope="module")
def from_schema(postgres: OwnPostgres, migrated: str) -> str:
    """A database that the file for reading made, with the role that `migrate` has made for all."""
    name = postgres.make_database()
    postgres.execute(name, schema())
    return name


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_the_schema_and_the_migrations_make_the_same(
    postgres: OwnPostgres, migrated: str, from_schema: str, what: str
) -> None:
    by_migrations = postgres.fetch(migrated, DESCRIPTIONS[what])
    by_schema = postgres.fetch(from_schema, DESCRIPTIONS[what])
    assert by_migrations == by_schema
    assert by_migrations or what in ("column grants", "functions", "triggers", "default rights")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE gesell.entry ADD COLUMN more text",
        "ALTER TABLE gesell.account ALTER COLUMN escrow SET DEFAULT 0",
        "ALTER TABLE gesell.posting DROP CONSTRAINT posting_amount_check",
        "DROP INDEX gesell.posting_of_entry",
        "GRANT DELETE ON gesell.entry TO gesell_service",
        "GRANT UPDATE (amount) ON gesell.posting TO gesell_service",
        "ALTER TABLE gesell.entry SET UNLOGGED",
    ],
)
def test_a_difference_between_two_databases_is_noticed(postgres: OwnPostgres, migrated: str, change: str) -> None:
    before = postgres.try_out(migrated, *DESCRIPTIONS.values())
    _, *after = postgres.try_out(migrated, change, *DESCRIPTIONS.values())
    assert after != before


# ── Migrating ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_migrating_again_applies_nothing_and_changes_nothing(postgres: OwnPostgres) -> None:
    name = postgres.make_database()
    dsn = postgres.owner_dsn(name)
    assert asyncio.run(migrate(dsn)) == [migration for _, migration, _ in migrations()]
    before = postgres.try_out(name, *DESCRIPTIONS.values())
    postgres.execute(name, "INSERT INTO gesell.ledger VALUES (true, decode(repeat('ab', 32), 'hex'), false, 7)")
    assert asyncio.run(migrate(dsn)) == []
    assert postgres.try_out(name, *DESCRIPTIONS.values()) == before
    assert postgres.fetch(name, "SELECT heartbeat_ms FROM gesell.ledger") == [(7,)]
    assert postgres.fetch(name, "SELECT number, name FROM gesell.migration ORDER BY number") == [
        (number, migration) for number, migration, _ in migrations()
    ]


def test_several_who_migrate_at_once_apply_each_migration_once(postgres: OwnPostgres) -> None:
    name = postgres.make_database()

    async def migrate_together() -> list[list[str]]:
        return await asyncio.gather(*(migrate(postgres.owner_dsn(name)) for _ in range(6)))

    applied = asyncio.run(migrate_together())
    assert sorted(applied) == [[]] * 5 + [[migration for _, migration, _ in migrations()]]


def test_two_databases_are_migrated_at_once_though_they_share_the_role(postgres: OwnPostgres) -> None:
    name = postgres.make_database()
    waiting = "SELECT true FROM pg_locks WHERE NOT granted"

    async def migrate_beside() -> list[str]:
        """Migrate while somebody else, in another database, is just about to have made the role."""
        other = await asyncpg.connect(postgres.owner_dsn("postgres"))
        try:
            async with other.transaction():
                await other.execute(f"CREATE ROLE {SERVICE_ROLE} LOGIN")
                task = asyncio.create_task(migrate(postgres.owner_dsn(name)))
                async with asyncio.timeout(10):
                    while not await other.fetchval(waiting):  # noqa: ASYNC110 (only the database can tell)
                        await asyncio.sleep(0.01)
            return await task
        finally:
            await other.close()

    # The role belongs to the server, so it goes out of the way for a while.
    postgres.execute("postgres", f"ALTER ROLE {SERVICE_ROLE} RENAME TO resting")
    try:
        applied = asyncio.run(migrate_beside())
    finally:
        back = f"ALTER ROLE resting RENAME TO {SERVICE_ROLE}"
        postgres.execute("postgres", f"DROP DATABASE {name}", f"DROP ROLE IF EXISTS {SERVICE_ROLE}", back)
    assert applied == [migration for _, migration, _ in migrations()]


def test_the_role_can_log_in_and_nothing_more(postgres: OwnPostgres, migrated: str) -> None:
    rights = "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
    assert postgres.fetch(migrated, f"{rights} WHERE rolname = $1", SERVICE_ROLE) == [
        (True, False, False, False, False, False)
    ]


def test_a_schema_newer_than_the_program_is_left_alone(postgres: OwnPostgres, migrated: str) -> None:
    name = postgres.make_database(template=migrated)
    postgres.execute(name, "INSERT INTO gesell.migration VALUES (9999, 'teach_it_to_sing')")
    with pytest.raises(DatabaseUnfit, match=r"version 9999.*newer one"):
        asyncio.run(migrate(postgres.owner_dsn(name)))


def test_a_migration_that_fails_leaves_nothing_of_itself(
    postgres: OwnPostgres, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.make_database(template=migrated)
    next_number = migrations()[-1][0] + 1
    broken = (next_number, "break_halfway", "CREATE TABLE gesell.half (one integer PRIMARY KEY); SELECT 1/0;")
    monkeypatch.setattr("gesell_ledger.storage.migrate.migrations", lambda: [*migrations(), broken])
    with pytest.raises(asyncpg.DivisionByZeroError):
        asyncio.run(migrate(postgres.owner_dsn(name)))
    assert postgres.fetch(name, "SELECT to_regclass('gesell.half')::text") == [(None,)]
    assert postgres.fetch(name, "SELECT max(number) FROM gesell.migration") == [(next_number - 1,)]


# ── The role that can't rewrite history ──────────────────────────────────────────────────────────────────────────

ROWS = {
    "entry": (1, 1, 1, "00000000-0000-7000-8000-000000000001", b"body", bytes(96), bytes(32)),
    "posting": (1, 0, 1, 5, 5, 0, "issue"),
    "policy": (1, 1, 0, b"policy"),
}
COMMONS = """
    INSERT INTO gesell.commons VALUES
        (1, 1, 1, 0, 0, 1, 1, 2, 'WRG', 'W', decode(repeat('01', 16), 'hex'), decode(repeat('02', 32), 'hex'),
         ARRAY[decode(repeat('03', 32), 'hex')], NULL, 0, decode(repeat('04', 32), 'hex'))"""


@pytest.fixture(scope="module")
def founded(postgres: OwnPostgres, migrated: str) -> str:
    """A database with the head of one commons. Tests leave it as it is."""
    name = postgres.make_database(template=migrated)
    postgres.execute(name, COMMONS)
    return name


@pytest.mark.parametrize("table", HISTORY)
def test_the_service_adds_to_history_and_reads_it(postgres: OwnPostgres, founded: str, table: str) -> None:
    row = ROWS[table]

    async def add() -> tuple[list[asyncpg.Record], str]:
        connection = await asyncpg.connect(postgres.service_dsn(founded))
        transaction = connection.transaction()
        await transaction.start()
        try:
            places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
            await connection.execute(f"INSERT INTO gesell.{table} VALUES ({places})", *row)
            copied = (1, *row[1:2], 2, *row[3:]) if table == "posting" else (1, 2, *row[2:])
            if table == "entry":
                copied = (*copied[:3], "00000000-0000-7000-8000-000000000002", *copied[4:])
            said = await connection.copy_records_to_table(table, schema_name="gesell", records=[copied])
            return await connection.fetch(f"SELECT * FROM gesell.{table} ORDER BY seq"), said
        finally:
            await transaction.rollback()
            await connection.close()

    rows, said = asyncio.run(add())
    assert said == "COPY 1"
    assert [record["seq"] for record in rows] == [1, 2]


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {0} SET seq = seq",
        "UPDATE {0} SET seq = 7 WHERE false",
        "DELETE FROM {0}",
        "TRUNCATE {0}",
        "SELECT 1 FROM {0} FOR UPDATE",
        "SELECT 1 FROM {0} FOR SHARE",
        "INSERT INTO {0} SELECT * FROM {0} ON CONFLICT (key) DO UPDATE SET seq = 1",
        "ALTER TABLE {0} ADD COLUMN more text",
        "ALTER TABLE {0} DROP COLUMN seq",
        "ALTER TABLE {0} DISABLE TRIGGER ALL",
        "ALTER TABLE {0} OWNER TO gesell_service",
        "ALTER TABLE {0} SET UNLOGGED",
        "DROP TABLE {0}",
        "CREATE INDEX ON {0} (seq)",
        "CREATE TRIGGER quietly BEFORE INSERT ON {0} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE quietly AS ON INSERT TO {0} DO INSTEAD NOTHING",
    ],
)
def test_the_service_can_not_change_history(postgres: OwnPostgres, migrated: str, table: str, statement: str) -> None:
    key = "(commons_id, account, seq, n)" if table == "posting" else "(commons_id, seq)"
    with pytest.raises(asyncpg.PostgresError) as refused:
        postgres.fetch(migrated, statement.format(f"gesell.{table}").replace("(key)", key), as_service=True)
    assert refused.value.sqlstate == REFUSED, refused.value


@pytest.mark.parametrize("table", HISTORY)
def test_the_service_can_not_grant_itself_more(postgres: OwnPostgres, migrated: str, table: str) -> None:
    # PostgreSQL only warns whoever grants what they do not have; what counts is that nothing came of it.
    before = postgres.fetch(migrated, DESCRIPTIONS["relations"])
    postgres.fetch(migrated, f"GRANT UPDATE, DELETE ON gesell.{table} TO gesell_service", as_service=True)
    assert postgres.fetch(migrated, DESCRIPTIONS["relations"]) == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE gesell.mine (one integer)",
        "CREATE TABLE public.mine (one integer)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE VIEW gesell.mine AS SELECT 1",
        "CREATE FUNCTION gesell.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "DROP SCHEMA gesell CASCADE",
        "INSERT INTO gesell.migration VALUES (9999, 'mine')",
        "DELETE FROM gesell.commons",
        "DELETE FROM gesell.account",
        "DELETE FROM gesell.member",
        "DELETE FROM gesell.peer_key",
        "DELETE FROM gesell.ledger",
        "UPDATE gesell.memo SET text = ''",
        "TRUNCATE gesell.account",
        "SET ROLE gesell_owner",
        "SET session_replication_role = replica",
        "ALTER SYSTEM SET fsync = off",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY gesell.entry TO PROGRAM 'true'",
    ],
)
def test_the_service_can_not_do_what_it_has_no_need_of(postgres: OwnPostgres, migrated: str, statement: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        postgres.fetch(migrated, statement, as_service=True)
    assert refused.value.sqlstate == REFUSED, refused.value


def test_nobody_else_may_look_into_the_tables(postgres: OwnPostgres, migrated: str) -> None:
    strangers = postgres.fetch(
        migrated,
        """SELECT table_name, grantee, privilege_type FROM information_schema.table_privileges
           WHERE table_schema = 'gesell' AND grantee NOT IN ('gesell_owner', 'gesell_service')""",
    )
    assert strangers == []


# ── The rules of distribution ────────────────────────────────────────────────────────────────────────────────────


def tables(postgres: OwnPostgres, name: str) -> set[str]:
    found = postgres.fetch(
        name, "SELECT relname FROM pg_class WHERE relnamespace = 'gesell'::regnamespace AND relkind IN ('r', 'p')"
    )
    return {row[0] for row in found}


def test_every_table_has_a_primary_key(postgres: OwnPostgres, migrated: str) -> None:
    keyed = postgres.fetch(migrated, "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'p'")
    assert {f"gesell.{table}" for table in tables(postgres, migrated)} <= {row[0] for row in keyed}
    assert len(tables(postgres, migrated)) >= 11


def test_the_commons_comes_first_in_every_key(postgres: OwnPostgres, migrated: str) -> None:
    """Primary keys, UNIQUE, EXCLUDE, both ends of foreign keys, and unique indexes: keys in all but name."""
    constraints = postgres.fetch(
        migrated,
        """SELECT relname, conname, near.attname, far.attname
           FROM pg_constraint
           JOIN pg_class ON pg_class.oid = conrelid
           JOIN pg_attribute near ON near.attrelid = conrelid AND near.attnum = conkey[1]
           LEFT JOIN pg_attribute far ON far.attrelid = confrelid AND far.attnum = confkey[1]
           WHERE connamespace = 'gesell'::regnamespace AND contype IN ('p', 'u', 'x', 'f')""",
    )
    indexes = postgres.fetch(
        migrated,
        """SELECT relname, indexrelid::regclass::text, attname, NULL
           FROM pg_index
           JOIN pg_class ON pg_class.oid = indrelid
           LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
           WHERE relnamespace = 'gesell'::regnamespace AND indisunique""",
    )
    of_commons = [row for row in [*constraints, *indexes] if row[0] not in REFERENCE]
    assert {row[0] for row in of_commons} == tables(postgres, migrated) - REFERENCE
    for table, name, first, far in of_commons:
        assert first == "commons_id", f"{name} of {table} begins with {first}"
        assert far in (None, "commons_id"), f"{name} of {table} points to {far}"


def test_the_commons_is_a_bigint_that_is_never_null(postgres: OwnPostgres, migrated: str) -> None:
    found = postgres.fetch(
        migrated,
        """SELECT table_name, data_type, is_nullable, column_default FROM information_schema.columns
           WHERE table_schema = 'gesell' AND column_name = 'commons_id'""",
    )
    assert {row[0] for row in found} == tables(postgres, migrated) - REFERENCE
    assert {row[1:] for row in found} == {("bigint", "NO", None)}


def test_no_foreign_key_leads_into_history_out_of_a_reference_table_or_sets_null(
    postgres: OwnPostgres, migrated: str
) -> None:
    keys = postgres.fetch(
        migrated,
        """SELECT near.relname, far.relname, confdeltype::text FROM pg_constraint
           JOIN pg_class near ON near.oid = conrelid JOIN pg_class far ON far.oid = confrelid
           WHERE contype = 'f' AND connamespace = 'gesell'::regnamespace""",
    )
    assert keys
    for near, far, on_delete in keys:
        assert near not in REFERENCE
        assert far not in REFERENCE  # those need an ALTER TABLE of their own, after distribution
        assert on_delete == "a"


@pytest.mark.parametrize(
    ("what", "sql"),
    [
        ("triggers", "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"),
        ("rules", "SELECT rulename FROM pg_rules WHERE schemaname = 'gesell'"),
        ("inheritance", "SELECT inhrelid::regclass::text FROM pg_inherits"),
        ("sequences", "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'gesell'::regnamespace"),
        (
            "identity or virtual columns",
            """SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
               WHERE relnamespace = 'gesell'::regnamespace AND (attidentity <> '' OR attgenerated = 'v')""",
        ),
        (
            "defaults",
            "SELECT column_name FROM information_schema.columns WHERE table_schema='gesell' AND column_default <> ''",
        ),
        (
            "unlogged tables",
            "SELECT relname FROM pg_class WHERE relnamespace = 'gesell'::regnamespace AND relpersistence <> 'p'",
        ),
        (
            "floats, but for what fades and is no money, and whole numbers that may pass bigint",
            """SELECT column_name FROM information_schema.columns WHERE table_schema = 'gesell'
               AND data_type IN ('real', 'double precision', 'numeric', 'money')
               AND NOT (data_type = 'numeric' AND numeric_scale = 0)
               AND column_name NOT IN ('strength', 'given_weight', 'received_weight')""",
        ),
    ],
)
def test_the_schema_has_none(postgres: OwnPostgres, migrated: str, what: str, sql: str) -> None:
    assert postgres.fetch(migrated, sql) == [], what


def test_the_names_of_constraints_bear_no_number_that_a_shard_would_add(postgres: OwnPostgres, migrated: str) -> None:
    names = postgres.fetch(migrated, "SELECT conname FROM pg_constraint WHERE connamespace = 'gesell'::regnamespace")
    assert [name for (name,) in names if re.search(r"_\d{3,}$", name)] == []


# ── What the database refuses whatever the program does ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO gesell.posting VALUES (1, 0, 1, 0, 0, 0, 'pay')", "posting_amount_check"),
        ("INSERT INTO gesell.posting VALUES (1, 0, 1, 1, 1000000000000000001, 0, 'pay')", "posting_balance_check"),
        (
            "INSERT INTO gesell.account VALUES (1, 0, -1000000000000000001, 0, 0, '', 'WRG', '')",
            "account_balance_check",
        ),
        ("INSERT INTO gesell.account VALUES (1, 0, 0, -1, 0, '', 'WRG', '')", "account_escrow_check"),
        ("UPDATE gesell.commons SET seq = 0, tree = ''", "commons_seq_check"),
        ("UPDATE gesell.commons SET tree = tree || tree", "commons_tree_fits"),
        ("UPDATE gesell.commons SET seq = 7", "commons_tree_fits"),
        ("INSERT INTO gesell.subtree VALUES (1, 0, 1, 'short')", "subtree_hash_check"),
        ("UPDATE gesell.commons SET active_members = -1", "commons_active_members_check"),
        (
            "INSERT INTO gesell.member VALUES (1, decode(repeat('aa', 32), 'hex'), 0, true, false,"
            " 'ghost', 'a', '{}', 0, 0, 0, 0, 0)",
            "member_status_check",
        ),
    ],
)
def test_a_check_repeats_what_must_never_break(
    postgres: OwnPostgres, founded: str, statement: str, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        postgres.fetch(founded, statement, as_service=True)
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO gesell.entry VALUES"
        " (1, {0}, 1, '{1}', 'body', decode(repeat('00', 96), 'hex'), decode(repeat('00', 32), 'hex'))",
        "INSERT INTO gesell.posting VALUES (1, 0, 1, 5, 5, 0, 'issue')",
        "INSERT INTO gesell.policy VALUES (1, 1, 0, 'policy')",
    ],
)
@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("2", "1")])
def test_nothing_is_written_twice_into_history(
    postgres: OwnPostgres, founded: str, statement: str, first: str, second: str
) -> None:
    """Once the same number with two ids, once the same id with two numbers; the other tables have a number only."""
    name = "00000000-0000-7000-8000-00000000000"
    once = statement.format(1, name + "1")
    again = statement.format(first, name + second)
    assert postgres.try_out(founded, once, as_service=True) == [[]]
    with pytest.raises(asyncpg.UniqueViolationError):
        postgres.try_out(founded, once, again, as_service=True)

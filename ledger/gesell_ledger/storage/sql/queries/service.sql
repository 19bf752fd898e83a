-- Queries about the service itself: whose database this is, its clock, its rights, its durability.

-- name: claim_ledger
-- The first service to run writes whose database this is; later ones find it.
INSERT INTO gesell.ledger (one, key, demo, heartbeat_ms) VALUES (true, $1, $2, $3)
ON CONFLICT (one) DO NOTHING;

-- name: load_ledger
-- Whose database this is, on which clock it runs, and when a service last ran on it.
SELECT key, demo, heartbeat_ms FROM gesell.ledger WHERE one;

-- name: store_heartbeat
-- The service runs; read at the next start, to notice a clock that is far off.
UPDATE gesell.ledger SET heartbeat_ms = $1 WHERE one;

-- name: load_version
-- The number of the newest migration.
SELECT coalesce(max(number), 0) FROM gesell.migration;

-- name: check_rights
-- Whether who opened this connection could rewrite history, as any of the roles it can become, or owns the tables.
SELECT session_user::text AS who, coalesce(bool_or(
           has_table_privilege(role.oid, history.oid, 'UPDATE, DELETE, TRUNCATE')
           OR has_any_column_privilege(role.oid, history.oid, 'UPDATE')
           OR role.oid IN (history.relowner, space.nspowner)
       ), false) AS rewrites
FROM pg_roles role, pg_class history JOIN pg_namespace space ON space.oid = history.relnamespace
WHERE pg_has_role(session_user, role.oid, 'MEMBER')
  AND space.nspname = 'gesell' AND history.relname IN ('entry', 'posting', 'mention', 'policy', 'subtree', 'handover');

-- name: check_durability
-- The settings without which an acknowledged statement could be lost, and tables that a crash would empty.
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')
UNION ALL
SELECT 'table ' || t.relname, 'unlogged'
FROM pg_class t
JOIN pg_namespace s ON s.oid = t.relnamespace
WHERE s.nspname = 'gesell' AND t.relkind = 'r' AND t.relpersistence <> 'p'
ORDER BY name;

-- name: store_ledger_key
-- The database is another key's from now on.
UPDATE gesell.ledger SET key = $2 WHERE key = $1;

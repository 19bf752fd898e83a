-- Queries of the Merkle trees: what tiles, proofs and checkpoints are made of. All of it is only ever added to.

-- name: load_tree
-- A tree by its peaks, and the key that signs for it.
SELECT hash, seq, tree, ledger FROM gesell.commons WHERE commons_id = $1;

-- name: list_leaves
-- The hashes of runs of entries, in order.
SELECT e.seq, e.leaf
FROM unnest($2::bigint[], $3::bigint[]) AS run (first, last)
-- Run by run, and OFFSET 0 keeps it so: of a join the planner made a walk through the whole log, seconds for a tile.
CROSS JOIN LATERAL (
    SELECT seq, leaf FROM gesell.entry WHERE commons_id = $1 AND seq BETWEEN run.first AND run.last OFFSET 0
) e
ORDER BY e.seq;

-- name: list_subtrees
-- Nodes of whole tiles in runs of places, by level and place.
SELECT s.level, s.place, s.hash
FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS run (level, first, last)
CROSS JOIN LATERAL (
    SELECT level, place, hash
    FROM gesell.subtree
    WHERE commons_id = $1 AND level = run.level AND place BETWEEN run.first AND run.last OFFSET 0
) s
ORDER BY s.level, s.place;

-- name: list_handovers
-- The statements by which the ledger's key changed hands.
SELECT h.seq, h.ledger, e.body, e.signatures
FROM gesell.handover h
JOIN gesell.entry e ON e.commons_id = h.commons_id AND e.seq = h.seq
WHERE h.commons_id = $1
ORDER BY h.seq;

-- name: find_foreign
-- A commons whose log another key speaks for, if there is one.
SELECT hash, ledger FROM gesell.commons WHERE ledger <> ALL($1::bytea[]) ORDER BY commons_id LIMIT 1;

-- name: list_of_ledger
-- Some commons whose logs a key speaks for.
SELECT hash FROM gesell.commons WHERE ledger = $1 ORDER BY commons_id LIMIT $2;

-- name: fill_leaves
-- The hashes of entries that were stored before there were trees.
UPDATE gesell.entry e
SET leaf = u.leaf
FROM unnest($2::bigint[], $3::bytea[]) AS u (seq, leaf)
WHERE e.commons_id = $1 AND e.seq = u.seq;

-- name: fill_tree
-- The tree over entries that were stored before there were trees.
UPDATE gesell.commons SET tree = $2 WHERE commons_id = $1;

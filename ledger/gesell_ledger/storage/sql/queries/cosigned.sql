-- Queries of the cosigned checkpoints: what witnesses answered, and of which commons they were not asked yet.

-- name: load_cosigned
-- The newest checkpoint that at least so many witnesses cosigned.
SELECT note FROM gesell.cosigned WHERE commons_id = $1 AND witnesses >= $2 ORDER BY size DESC LIMIT 1;

-- name: load_cosigned_for
-- The checkpoint of one size, if any witness cosigned it.
SELECT note FROM gesell.cosigned WHERE commons_id = $1 AND size = $2;

-- name: store_cosigned
-- A checkpoint with one more cosignature; no row if it is not as it was read, $5 (empty: it was not there).
INSERT INTO gesell.cosigned (commons_id, size, witnesses, note)
VALUES ($1, $2, $3, $4)
ON CONFLICT (commons_id, size) DO UPDATE
SET witnesses = excluded.witnesses, note = excluded.note
WHERE cosigned.note = $5
RETURNING true;

-- name: prune_cosigned
-- Forget what is older than another with as many cosignatures, but for the newest $3 while not all $2 have cosigned one.
DELETE FROM gesell.cosigned k
WHERE k.commons_id = $1 AND EXISTS (
    SELECT 1 FROM gesell.cosigned better
    WHERE better.commons_id = k.commons_id AND better.size > k.size AND better.witnesses >= k.witnesses AND (
        better.witnesses >= $2 OR k.size < (
            SELECT min(recent.size)
            FROM (SELECT size FROM gesell.cosigned WHERE commons_id = $1 ORDER BY size DESC LIMIT $3) recent
        )
    )
);

-- name: list_cosigned
-- Some cosigned checkpoints of all commons, in order.
SELECT commons_id, size, note FROM gesell.cosigned
WHERE (commons_id, size) > ($1, $2) ORDER BY commons_id, size LIMIT $3;

-- name: forget_cosigned
-- Forget one checkpoint, if it is still as it was read.
DELETE FROM gesell.cosigned WHERE commons_id = $1 AND size = $2 AND note = $3;

-- name: list_uncosigned
-- Some commons whose logs a key speaks for and whose last entry no cosigned checkpoint covers.
SELECT c.commons_id, c.hash
FROM gesell.commons c
WHERE c.ledger = $1 AND c.commons_id > $2 AND NOT EXISTS (
    SELECT 1 FROM gesell.cosigned k WHERE k.commons_id = c.commons_id AND k.size = c.seq
)
ORDER BY c.commons_id
LIMIT $3;

-- name: list_heads
-- Some commons whose logs a key speaks for, with their sizes.
SELECT commons_id, hash, seq FROM gesell.commons WHERE ledger = $1 AND commons_id > $2 ORDER BY commons_id LIMIT $3;

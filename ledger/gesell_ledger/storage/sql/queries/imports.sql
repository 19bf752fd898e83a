-- Queries of the import of a log: whose a commons is while it is there by half.

-- name: speak_for
-- Which key speaks for a commons' log.
UPDATE gesell.commons SET ledger = $2 WHERE commons_id = $1;

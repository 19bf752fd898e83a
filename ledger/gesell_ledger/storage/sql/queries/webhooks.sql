-- Queries of the webhooks: who asked for deliveries, how far each has come, and who delivers it just now.

-- name: load_now
-- Real time by the database's clock, in ms: services whose own clocks differ agree by it on who may deliver.
SELECT (date_part('epoch', statement_timestamp()) * 1000)::bigint;

-- name: list_webhooks
-- The webhooks of one peer, deleted ones too: they tell which requests are too old to be used again.
SELECT slot, id, key, secret, url, types, every_entry, state, why, asked_s, seen, failures, next_ms
FROM gesell.webhook
WHERE commons_id = $1 AND peer = $2
ORDER BY slot;

-- name: insert_webhook
-- A webhook in a slot that nobody took or whose webhook was deleted; no row if somebody was faster.
INSERT INTO gesell.webhook (commons_id, peer, slot, id, key, secret, url, types, every_entry, asked_s, seen, state, why,
    failures, next_ms, lease_ms, lease)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'live', '', 0, 0, 0, NULL)
ON CONFLICT (commons_id, peer, slot) DO UPDATE
SET id = excluded.id, key = excluded.key, secret = excluded.secret, url = excluded.url, types = excluded.types,
    every_entry = excluded.every_entry, asked_s = excluded.asked_s, seen = excluded.seen, state = 'live', why = '',
    failures = 0, next_ms = 0, lease_ms = 0, lease = NULL
WHERE webhook.state = 'deleted' AND webhook.asked_s <= excluded.asked_s
RETURNING true;

-- name: change_webhook
-- What a newer request asks of a webhook that is there: it goes on, whatever stopped it; who delivers it stops.
UPDATE gesell.webhook
SET key = $4, types = $5, every_entry = $6, asked_s = $7, seen = coalesce($8, seen), state = 'live', why = '',
    failures = 0, next_ms = 0, lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND peer = $2 AND id = $3 AND state <> 'deleted' AND asked_s < $7
RETURNING true;

-- name: delete_webhook
-- A webhook ends; of its row there stays what keeps its request from being used again.
UPDATE gesell.webhook
SET state = 'deleted', secret = '', url = '', types = '{}', why = '', asked_s = greatest(asked_s, $4) + 1,
    lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND peer = $2 AND id = $3 AND state <> 'deleted'
RETURNING true;

-- name: list_marks
-- Commons that have webhooks, with their last entries and a digest that is new after every request for one of them.
SELECT c.commons_id, c.seq, w.asked
FROM (
    SELECT commons_id, bit_xor(hashtextextended(id::text, asked_s)) AS asked
    FROM gesell.webhook
    WHERE state = 'live'
    GROUP BY commons_id
) w
JOIN gesell.commons c ON c.commons_id = w.commons_id;

-- name: list_pending
-- Webhooks with entries to deliver, due ones first, the commons in turn, so that none with many hides the others'.
SELECT commons_id, hash, peer, id, due_ms
FROM (
    SELECT w.commons_id, c.hash, w.peer, w.id, greatest(w.next_ms, w.lease_ms) AS due_ms,
        row_number() OVER (PARTITION BY w.commons_id ORDER BY greatest(w.next_ms, w.lease_ms)) AS place
    FROM gesell.webhook w
    JOIN gesell.commons c ON c.commons_id = w.commons_id
    WHERE w.commons_id = ANY($1::bigint[]) AND w.state = 'live' AND w.seen < c.seq
      AND (
        w.every_entry
        OR EXISTS (
            SELECT 1
            FROM gesell.account a
            JOIN gesell.posting p ON p.commons_id = a.commons_id AND p.account = a.number
            WHERE a.commons_id = w.commons_id AND a.holder = w.peer AND p.seq > w.seen
        )
        OR EXISTS (
            SELECT 1 FROM gesell.mention m
            WHERE m.commons_id = w.commons_id AND m.peer IN (w.peer, '') AND m.seq > w.seen
        )
      )
) pending
WHERE place <= $3
ORDER BY due_ms > $4, place, due_ms
LIMIT $2;

-- name: claim_webhook
-- Take a webhook to deliver, if nobody has it, for as long as the lease lasts.
UPDATE gesell.webhook
SET lease = $3, lease_ms = $5
WHERE commons_id = $1 AND id = $2 AND state = 'live' AND lease_ms <= $4 AND next_ms <= $4
RETURNING peer, key, secret, url, types, every_entry, seen, failures;

-- name: store_delivered
-- How far a webhook has come, and a longer lease for who delivers it; no row if it is in other hands by now.
UPDATE gesell.webhook
SET seen = $4, failures = 0, why = '', lease_ms = $5
WHERE commons_id = $1 AND id = $2 AND lease = $3
RETURNING true;

-- name: store_rest
-- A delivery failed, or others have their turn: how far the webhook has come, and when it is tried again.
UPDATE gesell.webhook
SET seen = $4, failures = $5, why = $6, next_ms = $7, lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND id = $2 AND lease = $3;

-- name: postpone_webhook
-- A delivery could not be tried: how far the webhook has come, and when it is; that is no failure.
UPDATE gesell.webhook
SET seen = $4, next_ms = $5, lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND id = $2 AND lease = $3;

-- name: release_webhook
-- Who delivers a webhook is called away; another may claim it at once.
UPDATE gesell.webhook
SET lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND id = $2 AND lease = $3;

-- name: store_disabled
-- A webhook is delivered no more, and why; a newer request of its peer enables it again.
UPDATE gesell.webhook
SET seen = $4, failures = $5, why = $6, state = 'disabled', lease_ms = 0, lease = NULL
WHERE commons_id = $1 AND id = $2 AND lease = $3;

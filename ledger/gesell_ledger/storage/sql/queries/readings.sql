-- Queries of the readings: what folds the log into them, and what shows them.

-- name: list_behind
-- Commons whose readings lack entries, or were made with another half-life, a page at a time.
SELECT c.hash
FROM gesell.commons c
LEFT JOIN gesell.reading r ON r.commons_id = c.commons_id
WHERE c.commons_id > $2 AND (r.commons_id IS NULL OR r.seq < c.seq OR r.half_life_ms <> $1)
ORDER BY c.commons_id
LIMIT $3;

-- name: list_founded
-- The names of all commons, a page at a time.
SELECT hash, commons_id
FROM gesell.commons
WHERE commons_id > $1
ORDER BY commons_id
LIMIT $2;

-- name: wait_for_no_disk
-- This transaction may be lost in a crash of the server, whole: what it folded is folded again.
SELECT set_config('synchronous_commit', 'off', true);

-- name: insert_reading
-- The cursor of a commons that has no readings yet.
INSERT INTO gesell.reading (commons_id, seq, half_life_ms, active, suspended, pool, escrow)
VALUES ($1, 0, $2, 0, 0, 0, 0)
ON CONFLICT (commons_id) DO NOTHING;

-- name: lock_reading
-- The cursor, for whoever takes the readings further; nothing while somebody else does.
SELECT seq, half_life_ms, active, suspended, pool, escrow
FROM gesell.reading
WHERE commons_id = $1
FOR UPDATE SKIP LOCKED;

-- name: update_reading
-- The cursor once entries up to seq are in the readings.
UPDATE gesell.reading
SET seq = $2, half_life_ms = $3, active = $4, suspended = $5, pool = $6, escrow = $7
WHERE commons_id = $1;

-- name: load_cursor
-- How far the readings are, and the time of that entry.
SELECT r.seq, r.half_life_ms, coalesce(e.at_ms, 0) AS at_ms
FROM gesell.reading r
LEFT JOIN gesell.entry e ON e.commons_id = r.commons_id AND e.seq = r.seq
WHERE r.commons_id = $1;

-- name: list_entries
-- The next entries to fold.
SELECT seq, at_ms, body
FROM gesell.entry
WHERE commons_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3;

-- name: list_postings
-- The postings of a run of entries, in their order.
SELECT seq, account, amount, reason
FROM gesell.posting
WHERE commons_id = $1 AND seq BETWEEN $2 AND $3
ORDER BY seq, n
LIMIT $4;

-- name: load_accounts
-- Whose accounts some numbers are.
SELECT number, holder, asset
FROM gesell.account
WHERE commons_id = $1 AND number = ANY($2::bigint[]);

-- name: load_numbers
-- The numbers of some holders' accounts in an asset.
SELECT holder, number
FROM gesell.account
WHERE commons_id = $1 AND holder = ANY($2::bytea[]) AND asset = $3;

-- name: load_bodies
-- The bodies of some statements by their ids.
SELECT id, body
FROM gesell.entry
WHERE commons_id = $1 AND id = ANY($2::uuid[]);

-- name: list_vouch_changes
-- How vouches changed in a run of entries.
SELECT seq, voucher, vouchee, amount
FROM gesell.vouch_change
WHERE commons_id = $1 AND seq BETWEEN $2 AND $3
ORDER BY seq;

-- name: load_memberships
-- The memberships of some peers as of the cursor.
SELECT peer, status, barred, was_active
FROM gesell.membership
WHERE commons_id = $1 AND peer = ANY($2::bytea[]);

-- name: load_gifts_between
-- How many gifts there were already between some pairs.
SELECT r.a, r.b, r.a_gifts, r.b_gifts
FROM unnest($2::bytea[], $3::bytea[]) AS pair (a, b)
CROSS JOIN LATERAL (
    SELECT a, b, a_gifts, b_gifts
    FROM gesell.relation
    WHERE commons_id = $1 AND a = pair.a AND b = pair.b
) r;

-- name: store_memberships
-- Memberships that changed.
INSERT INTO gesell.membership (commons_id, peer, status, barred, was_active)
SELECT $1::bigint, n.peer, n.status, n.barred, n.was_active
FROM unnest($2::bytea[], $3::text[], $4::boolean[], $5::boolean[]) AS n (peer, status, barred, was_active)
ON CONFLICT (commons_id, peer) DO UPDATE
SET status = excluded.status, barred = excluded.barred, was_active = excluded.was_active;

-- name: store_relations
-- What came to pass between pairs, whose keys stand in $2 and $3 one after the other.
-- The 1 of a tick that has counted already is taken off before the rest fades. A column that is shorter has noughts alone.
INSERT INTO gesell.relation AS r (commons_id, a, b, first_ms, last_ms, strength, a_payments, b_payments, a_paid, b_paid,
    a_gifts, b_gifts, a_vouches, b_vouches)
SELECT $1::bigint, substr($2::bytea, 32 * n.place::int - 31, 32), substr($3::bytea, 32 * n.place::int - 31, 32),
       n.first_ms, n.last_ms, n.strength, coalesce(n.a_payments, 0), coalesce(n.b_payments, 0), coalesce(n.a_paid, 0),
       coalesce(n.b_paid, 0), coalesce(n.a_gifts, 0), coalesce(n.b_gifts, 0), 0, 0
FROM unnest($4::text::bigint[], $5::text::bigint[], $6::text::float8[], $7::text::bigint[], $8::text::bigint[],
            $9::text::bigint[], $10::text::bigint[], $11::text::bigint[], $12::text::bigint[])
    WITH ORDINALITY
    AS n (first_ms, last_ms, strength, a_payments, b_payments, a_paid, b_paid, a_gifts, b_gifts, place)
ON CONFLICT (commons_id, a, b) DO UPDATE
SET last_ms = excluded.last_ms,
    strength = (r.strength - CASE WHEN r.last_ms / $13::bigint = excluded.first_ms / $13::bigint THEN 1 ELSE 0 END)
        * power(2::float8, greatest(-900, (r.last_ms / $13::bigint - excluded.last_ms / $13::bigint) * $14::float8))
        + excluded.strength,
    a_payments = r.a_payments + excluded.a_payments,
    b_payments = r.b_payments + excluded.b_payments,
    a_paid = r.a_paid + excluded.a_paid,
    b_paid = r.b_paid + excluded.b_paid,
    a_gifts = r.a_gifts + excluded.a_gifts,
    b_gifts = r.b_gifts + excluded.b_gifts;

-- name: store_vouches
-- What one of a pair vouches for the other now; null where it did not change.
UPDATE gesell.relation r
SET a_vouches = coalesce(n.a_vouches, r.a_vouches), b_vouches = coalesce(n.b_vouches, r.b_vouches)
FROM unnest($2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[]) AS n (a, b, a_vouches, b_vouches)
WHERE r.commons_id = $1 AND r.a = n.a AND r.b = n.b;

-- name: store_relation_sums
-- What one gave the other by category.
INSERT INTO gesell.relation_sum AS s (commons_id, giver, receiver, asset, category, count, amount)
SELECT $1::bigint, n.giver, n.receiver, n.asset, n.category, n.count, n.amount
FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
    AS n (giver, receiver, asset, category, count, amount)
ON CONFLICT (commons_id, giver, receiver, asset, category) DO UPDATE
SET count = s.count + excluded.count, amount = s.amount + excluded.amount;

-- name: store_standings
-- What members gave and were given; a weight fades only when something is added to it.
INSERT INTO gesell.standing AS s (commons_id, peer, given, received, thanked_by, thanked, given_ms, received_ms,
    given_weight, received_weight)
SELECT $1::bigint, n.peer, n.given, n.received, n.thanked_by, n.thanked, n.given_ms, n.received_ms, n.given_weight,
       n.received_weight
FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::float8[], $10::float8[])
    AS n (peer, given, received, thanked_by, thanked, given_ms, received_ms, given_weight, received_weight)
ON CONFLICT (commons_id, peer) DO UPDATE
SET given = s.given + excluded.given,
    received = s.received + excluded.received,
    thanked_by = s.thanked_by + excluded.thanked_by,
    thanked = s.thanked + excluded.thanked,
    given_weight = CASE WHEN excluded.given = 0 THEN s.given_weight ELSE excluded.given_weight + s.given_weight
        * power(2::float8, greatest(-900, (s.given_ms / $11::bigint - excluded.given_ms / $11::bigint) * $12::float8))
        END,
    received_weight = CASE WHEN excluded.received = 0 THEN s.received_weight ELSE excluded.received_weight
        + s.received_weight * power(2::float8, greatest(-900,
            (s.received_ms / $11::bigint - excluded.received_ms / $11::bigint) * $12::float8))
        END,
    given_ms = greatest(s.given_ms, excluded.given_ms),
    received_ms = greatest(s.received_ms, excluded.received_ms);

-- name: store_flow_ticks
-- What happened in ticks, and how it left things.
INSERT INTO gesell.flow_tick AS f (commons_id, tick, last_seq, payments, joined, active, suspended, pool, escrow,
    volume, melted, issued, retired, granted, shared)
SELECT $1::bigint, n.tick, n.last_seq, n.payments, n.joined, n.active, n.suspended, n.pool, n.escrow, n.volume,
       n.melted, n.issued, n.retired, n.granted, n.shared
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::numeric[], $11::numeric[], $12::numeric[], $13::numeric[], $14::numeric[],
            $15::numeric[])
    AS n (tick, last_seq, payments, joined, active, suspended, pool, escrow, volume, melted, issued, retired, granted,
          shared)
ON CONFLICT (commons_id, tick) DO UPDATE
SET last_seq = excluded.last_seq,
    payments = f.payments + excluded.payments,
    joined = f.joined + excluded.joined,
    active = excluded.active,
    suspended = excluded.suspended,
    pool = excluded.pool,
    escrow = excluded.escrow,
    volume = f.volume + excluded.volume,
    melted = f.melted + excluded.melted,
    issued = f.issued + excluded.issued,
    retired = f.retired + excluded.retired,
    granted = f.granted + excluded.granted,
    shared = f.shared + excluded.shared;

-- name: store_flow_sums
-- What moved in ticks by category.
INSERT INTO gesell.flow_sum AS s (commons_id, tick, asset, category, count, amount)
SELECT $1::bigint, n.tick, n.asset, n.category, n.count, n.amount
FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
    AS n (tick, asset, category, count, amount)
ON CONFLICT (commons_id, tick, asset, category) DO UPDATE
SET count = s.count + excluded.count, amount = s.amount + excluded.amount;

-- name: store_flow_pairs
-- Who paid and gave to whom.
INSERT INTO gesell.flow_pairs (commons_id, tick, seq, pairs)
SELECT $1::bigint, n.tick, n.seq, n.pairs
FROM unnest($2::bigint[], $3::bigint[], $4::bytea[]) AS n (tick, seq, pairs);

-- name: clear_relations
-- All relations of a commons go, to be made anew.
DELETE FROM gesell.relation WHERE commons_id = $1;

-- name: clear_relation_sums
-- All sums of relations go.
DELETE FROM gesell.relation_sum WHERE commons_id = $1;

-- name: clear_standings
-- All standings go.
DELETE FROM gesell.standing WHERE commons_id = $1;

-- name: clear_memberships
-- All memberships as of the cursor go.
DELETE FROM gesell.membership WHERE commons_id = $1;

-- name: clear_flow_ticks
-- All ticks' figures go.
DELETE FROM gesell.flow_tick WHERE commons_id = $1;

-- name: clear_flow_sums
-- All ticks' sums go.
DELETE FROM gesell.flow_sum WHERE commons_id = $1;

-- name: clear_flow_pairs
-- All ticks' pairs go.
DELETE FROM gesell.flow_pairs WHERE commons_id = $1;

-- name: list_relations
-- With whom a member had to do, strongest first, by the logarithm of what each strength would have been at tick 0.
SELECT peer, first_ms, last_ms, strength, payments_to, payments_from, paid, received, gifts_to, gifts_from, vouches,
       vouched, weight
FROM (
    SELECT b AS peer, first_ms, last_ms, strength, a_payments AS payments_to, b_payments AS payments_from,
           a_paid AS paid, b_paid AS received, a_gifts AS gifts_to, b_gifts AS gifts_from, a_vouches AS vouches,
           b_vouches AS vouched,
           ln(strength) / ln(2::float8) + (last_ms / $3::bigint) * $4::float8 AS weight
    FROM gesell.relation
    WHERE commons_id = $1 AND a = $2
    UNION ALL
    SELECT a, first_ms, last_ms, strength, b_payments, a_payments, b_paid, a_paid, b_gifts, a_gifts, b_vouches,
           a_vouches, ln(strength) / ln(2::float8) + (last_ms / $3::bigint) * $4::float8
    FROM gesell.relation
    WHERE commons_id = $1 AND b = $2
) own
WHERE $5::float8 IS NULL OR weight < $5 OR (weight = $5 AND peer > $6)
ORDER BY weight DESC, peer
LIMIT $7;

-- name: list_relation_sums
-- What a member and some others gave each other by category, no more than so many of each pair and way.
SELECT s.giver, s.receiver, s.asset, s.category, s.count, s.amount
FROM unnest($3::bytea[]) AS other (peer)
CROSS JOIN LATERAL (
    (
        SELECT giver, receiver, asset, category, count, amount
        FROM gesell.relation_sum
        WHERE commons_id = $1 AND giver = $2 AND receiver = other.peer
        ORDER BY asset, category
        LIMIT $4
    )
    UNION ALL
    (
        SELECT giver, receiver, asset, category, count, amount
        FROM gesell.relation_sum
        WHERE commons_id = $1 AND giver = other.peer AND receiver = $2
        ORDER BY asset, category
        LIMIT $4
    )
) s;

-- name: load_handles
-- The handles of some members.
SELECT peer, handle FROM gesell.member WHERE commons_id = $1 AND peer = ANY($2::bytea[]);

-- name: load_standing
-- What a member gave and was given.
SELECT given, received, thanked_by, thanked, given_ms, received_ms, given_weight, received_weight
FROM gesell.standing
WHERE commons_id = $1 AND peer = $2;

-- name: load_first_tick
-- The first tick that has an entry.
SELECT tick FROM gesell.flow_tick WHERE commons_id = $1 ORDER BY tick LIMIT 1;

-- name: list_flow_steps
-- What happened in steps of so many ticks.
SELECT (tick - $2) / $3::bigint AS place, sum(payments)::bigint AS payments, sum(joined)::bigint AS joined,
       sum(volume) AS volume, sum(melted) AS melted, sum(issued) AS issued, sum(retired) AS retired,
       sum(granted) AS granted, sum(shared) AS shared
FROM gesell.flow_tick
WHERE commons_id = $1 AND tick >= $2 AND tick < $4
GROUP BY 1;

-- name: list_flow_sums
-- What moved in steps by category, the most frequent ones of payments and of gifts.
SELECT place, asset, category, count, amount
FROM (
    SELECT (tick - $2) / $3::bigint AS place, asset, category, sum(count)::bigint AS count, sum(amount) AS amount,
           row_number() OVER (
               PARTITION BY (tick - $2) / $3::bigint, asset = $5
               ORDER BY sum(count) DESC, asset COLLATE "C", category COLLATE "C"
           ) AS rank
    FROM gesell.flow_sum
    WHERE commons_id = $1 AND tick >= $2 AND tick < $4
    GROUP BY 1, asset, category
) ranked
WHERE rank <= $6
ORDER BY place, rank;

-- name: list_flow_ends
-- How the last entry before the beginning of each of some ticks left things.
SELECT f.last_seq, f.active, f.suspended, f.pool, f.escrow
FROM unnest($2::bigint[]) WITH ORDINALITY AS moment (tick, n)
LEFT JOIN LATERAL (
    SELECT last_seq, active, suspended, pool, escrow
    FROM gesell.flow_tick
    WHERE commons_id = $1 AND tick < moment.tick
    ORDER BY tick DESC
    LIMIT 1
) f ON true
ORDER BY moment.n;

-- name: list_flow_pairs
-- Who paid and gave to whom in a run of ticks, a page at a time.
SELECT tick, seq, pairs
FROM gesell.flow_pairs
WHERE commons_id = $1 AND tick < $2 AND (tick, seq) > ($3, $4)
ORDER BY tick, seq
LIMIT $5;

-- name: load_givers
-- Whose gift accounts some numbers are, and the number of the holder's money account if there is one.
SELECT g.number, g.holder, m.number AS money
FROM unnest($2::bigint[]) AS asked (number)
CROSS JOIN LATERAL (
    SELECT number, holder FROM gesell.account WHERE commons_id = $1 AND number = asked.number LIMIT 1
) g
LEFT JOIN LATERAL (
    SELECT number FROM gesell.account WHERE commons_id = $1 AND holder = g.holder AND asset = $3 LIMIT 1
) m ON true;

-- name: list_balances_at
-- The last posting up to an entry of members' money accounts and their open holds then, null for other accounts.
SELECT a.number, last.seq, last.balance, last.at_ms, coalesce(aside.amount, 0)::bigint AS escrow
FROM (
    SELECT number, holder, asset
    FROM gesell.account
    WHERE commons_id = $1 AND number > $4
    ORDER BY number
    LIMIT $5
) a
LEFT JOIN LATERAL (
    SELECT p.seq, p.balance, e.at_ms
    FROM gesell.posting p
    JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
    WHERE p.commons_id = $1 AND p.account = a.number AND p.seq <= $2 AND e.commons_id = $1
      AND a.asset = $3 AND octet_length(a.holder) = 32
    ORDER BY p.seq DESC, p.n DESC
    LIMIT 1
) last ON true
LEFT JOIN LATERAL (
    SELECT sum(amount) AS amount
    FROM gesell.hold
    WHERE commons_id = $1 AND payer = a.holder AND seq <= $2 AND (ended IS NULL OR ended > $2)
      AND last.seq IS NOT NULL
) aside ON true
ORDER BY a.number;

-- name: list_inflows_at
-- What reached some accounts from a tick of each on, up to an entry of each, by tick; a bounded number of postings.
SELECT number, tick, least(sum(amount), $8::bigint)::bigint AS grains, count(*) AS postings
FROM (
    SELECT account.number, e.at_ms / $5::bigint AS tick, p.amount
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS account (number, first_tick, last_seq)
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT f.last_seq
            FROM gesell.flow_tick f
            WHERE f.commons_id = $1 AND f.tick < account.first_tick
            ORDER BY f.tick DESC
            LIMIT 1
        ), 0) AS seq
    ) before
    CROSS JOIN LATERAL (
        SELECT seq, amount
        FROM gesell.posting
        WHERE commons_id = $1 AND account = account.number AND seq > before.seq AND seq <= account.last_seq
          AND amount > 0 AND reason = ANY($6::text[])
    ) p
    CROSS JOIN LATERAL (SELECT at_ms FROM gesell.entry WHERE commons_id = $1 AND seq = p.seq) e
    LIMIT $7
) arrived
GROUP BY number, tick
ORDER BY number, tick;

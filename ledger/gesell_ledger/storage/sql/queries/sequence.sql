-- Queries of the sequencer's transaction. Each block: `-- name:`, then a line that says what for.

-- name: lock_commons
-- Lock the head of a commons; who holds it is the only one who adds to its sequence.
SELECT hash, seq, at_ms, accounts, active_members, policies, threshold, currency_scale, currency_code, name, ledger,
       stewards, share, kinds, tree
FROM gesell.commons
WHERE commons_id = $1
FOR UPDATE;

-- name: find_commons
-- Which of many commons exist, asked once for a request that speaks to several.
SELECT hash FROM gesell.commons WHERE commons_id = ANY($1::bigint[]);

-- name: load_policies
-- The policies announced after an entry, of those from the same tick on the last: nothing bounds how many it replaced.
-- `counted` is how many they were. Asked only when the head counts another number than is known.
SELECT p.seq, p.from_tick, p.policy, latest.counted
FROM (
    SELECT max(seq) AS seq, count(*) AS counted
    FROM gesell.policy
    WHERE commons_id = $1 AND seq > $2
    GROUP BY from_tick
) latest
CROSS JOIN LATERAL (SELECT * FROM gesell.policy WHERE commons_id = $1 AND seq = latest.seq OFFSET 0) p
ORDER BY p.from_tick;

-- name: load_kinds
-- The kinds of gifts made after an entry, `hour` is in none; asked only when the head counts another number of them.
SELECT code, name, unit, scale, seq, 1 AS counted FROM gesell.kind WHERE commons_id = $1 AND seq > $2 ORDER BY seq;

-- name: load_given
-- The gifts, holds and vouches that a batch speaks of, asked for before the members and accounts that they lead to.
SELECT
    -- One by one, as in load_batch.
    ARRAY(
        SELECT ROW(g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state)
        FROM unnest($2::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (SELECT * FROM gesell.gift WHERE commons_id = $1 AND id = asked.id OFFSET 0) g
    ) AS gifts,
    ARRAY(
        SELECT ROW(h.id, h.seq, h.payer, h.payee, h.amount, h.until_ms, h.ended IS NULL)
        FROM unnest($6::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (SELECT * FROM gesell.hold WHERE commons_id = $1 AND id = asked.id OFFSET 0) h
    ) AS holds,
    ARRAY(
        SELECT ROW(v.voucher, v.vouchee, v.amount)
        FROM unnest($3::bytea[], $4::bytea[]) AS asked (voucher, vouchee)
        CROSS JOIN LATERAL (
            SELECT * FROM gesell.vouch
            WHERE commons_id = $1 AND voucher = asked.voucher AND vouchee = asked.vouchee OFFSET 0
        ) v
    ) AS vouches,
    ARRAY(
        SELECT ROW(v.voucher, v.vouchee, v.amount)
        FROM unnest($5::bytea[]) AS asked (voucher)
        CROSS JOIN LATERAL (SELECT * FROM gesell.vouch WHERE commons_id = $1 AND voucher = asked.voucher OFFSET 0) v
    ) AS vouches_by,
    ARRAY(
        SELECT ROW(v.voucher, v.vouchee, v.amount)
        FROM unnest($5::bytea[]) AS asked (vouchee)
        CROSS JOIN LATERAL (SELECT * FROM gesell.vouch WHERE commons_id = $1 AND vouchee = asked.vouchee OFFSET 0) v
    ) AS vouches_for;

-- name: load_gift_accounts
-- Accounts in which gifts are counted, by holder and kind.
SELECT a.number, a.holder, a.asset, a.balance, a.escrow, a.tick, a.inflows
FROM unnest($2::bytea[], $3::text[]) AS asked (holder, asset)
CROSS JOIN LATERAL (
    SELECT * FROM gesell.account WHERE commons_id = $1 AND holder = asked.holder AND asset = asked.asset OFFSET 0
) a;

-- name: load_batch
-- All that a batch needs, in one round trip: members, accounts, who holds a handle, keys, used ids, shares.
SELECT
    -- All are looked up one by one, and OFFSET 0 keeps it so: where most commons are small, or the tables young, the
    -- planner takes any for a few rows, and a plan that walks through all of them is kept for the one that has many.
    ARRAY(
        SELECT ROW(m.peer, m.handle, m.status, m.joined_ms, m.handle_held, m.barred, m.spans, m.trusted, m.lent, m.vouchers,
                   m.vouchees, m.awaits)
        FROM unnest($2::bytea[]) AS asked (peer)
        CROSS JOIN LATERAL (SELECT * FROM gesell.member WHERE commons_id = $1 AND peer = asked.peer OFFSET 0) m
    ) AS members,
    ARRAY(
        SELECT ROW(a.number, a.holder, a.asset, a.balance, a.escrow, a.tick, a.inflows)
        FROM unnest($3::bytea[]) AS asked (holder)
        CROSS JOIN LATERAL (
            SELECT * FROM gesell.account WHERE commons_id = $1 AND holder = asked.holder AND asset = $4 OFFSET 0
        ) a
    ) AS accounts,
    ARRAY(
        SELECT ROW(m.handle, m.peer)
        FROM unnest($5::text[]) AS asked (handle)
        CROSS JOIN LATERAL (
            SELECT handle, peer FROM gesell.member WHERE commons_id = $1 AND handle_held AND handle = asked.handle OFFSET 0
        ) m
    ) AS holders,
    ARRAY(
        SELECT ROW(k.key, k.peer, k.rank, k.live)
        FROM unnest($6::bytea[]) AS asked (key)
        CROSS JOIN LATERAL (SELECT * FROM gesell.peer_key WHERE commons_id = $1 AND key = asked.key OFFSET 0) k
        UNION ALL
        SELECT ROW(k.key, k.peer, k.rank, k.live)
        FROM unnest($7::bytea[]) AS asked (peer)
        CROSS JOIN LATERAL (SELECT * FROM gesell.peer_key WHERE commons_id = $1 AND peer = asked.peer AND live OFFSET 0) k
    ) AS keys,
    ARRAY(
        SELECT ROW(e.seq, e.at_ms, e.id, e.body, e.signatures)
        FROM unnest($8::text::uuid[]) AS asked (id)
        CROSS JOIN LATERAL (SELECT * FROM gesell.entry WHERE commons_id = $1 AND id = asked.id OFFSET 0) e
    ) AS entries,
    ARRAY(
        SELECT ROW(id, seq, each, unpaid, paid_through)
        FROM gesell.share_out
        WHERE commons_id = $1 AND id = ANY($9::uuid[])
    ) AS shares;

-- name: load_holders
-- Who holds these handles: asked a second time only for the handles that loaded members ask for.
SELECT m.handle, m.peer
FROM unnest($2::text[]) AS asked (handle)
CROSS JOIN LATERAL (
    SELECT handle, peer FROM gesell.member WHERE commons_id = $1 AND handle_held AND handle = asked.handle OFFSET 0
) m;

-- name: load_postings
-- The postings of some entries, in their order.
SELECT p.seq, p.reason, a.holder, a.asset, p.amount
FROM gesell.posting p
JOIN gesell.account a ON a.commons_id = p.commons_id AND a.number = p.account
WHERE p.commons_id = $1 AND p.seq = ANY($2::bigint[])
ORDER BY p.seq, p.n;

-- name: insert_commons
-- The head of a new commons.
INSERT INTO gesell.commons
    (commons_id, seq, at_ms, accounts, active_members, policies, threshold, currency_scale, currency_code, name, hash,
     ledger, stewards, share, kinds, tree)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: update_commons
-- The head after a batch.
UPDATE gesell.commons
SET seq = $2, at_ms = $3, accounts = $4, active_members = $5, policies = $6, threshold = $7, stewards = $8, share = $9,
    kinds = $10, tree = $11, ledger = $12
WHERE commons_id = $1;

-- name: update_accounts
-- Each account that a batch touched and that was there before, once.
INSERT INTO gesell.account (commons_id, number, balance, escrow, tick, inflows, holder, asset)
-- As an INSERT, each is found by its key alone. Of an UPDATE's join the planner makes a walk through the whole commons
-- where it takes a commons for a few rows.
SELECT $1::bigint, u.number, u.balance, u.escrow, u.tick, u.inflows, u.holder, u.asset
FROM unnest(
    $2::text::bigint[], $3::text::bigint[], $4::text::bigint[], $5::text::bigint[], $6::text::bytea[],
    $7::text::bytea[], $8::text::text[]
) AS u (number, balance, escrow, tick, inflows, holder, asset)
ON CONFLICT (commons_id, number) DO UPDATE
SET balance = excluded.balance, escrow = excluded.escrow, tick = excluded.tick, inflows = excluded.inflows;

-- name: append
-- Payments and all that they change, if the head stands where the books do and none of the ids is known.
WITH head AS (
    UPDATE gesell.commons
    SET seq = $4, at_ms = $5, accounts = $6, tree = $7
    WHERE commons_id = $1 AND seq = $2 AND ledger = $3 AND tree = $36
      AND NOT EXISTS (
          SELECT
          FROM unnest($9::text::uuid[]) AS asked (id)
          CROSS JOIN LATERAL (SELECT FROM gesell.entry WHERE commons_id = $1 AND id = asked.id OFFSET 0) e
      )
    RETURNING commons_id
), entries AS (
    INSERT INTO gesell.entry (commons_id, seq, at_ms, id, body, signatures, leaf)
    SELECT $1, $2 + u.place, u.at_ms, u.id, u.body, u.signatures, u.leaf
    FROM unnest($8::text::bigint[], $9::text::uuid[], $10::text::bytea[], $11::text::bytea[], $12::text::bytea[])
        WITH ORDINALITY AS u (at_ms, id, body, signatures, leaf, place)
    WHERE EXISTS (SELECT FROM head)
), postings AS (
    INSERT INTO gesell.posting (commons_id, account, seq, amount, balance, n, reason)
    SELECT $1, u.account, u.seq, u.amount, u.balance, u.n, u.reason
    FROM unnest(
        $13::text::bigint[], $14::text::bigint[], $15::text::bigint[], $16::text::bigint[], $17::text::smallint[],
        $18::text::text[]
    ) AS u (account, seq, amount, balance, n, reason)
    WHERE EXISTS (SELECT FROM head)
), changed AS (
    INSERT INTO gesell.account (commons_id, number, balance, escrow, tick, inflows, holder, asset)
    SELECT $1, u.number, u.balance, u.escrow, u.tick, u.inflows, u.holder, u.asset
    FROM unnest(
        $19::text::bigint[], $20::text::bigint[], $21::text::bigint[], $22::text::bigint[], $23::text::bytea[],
        $24::text::bytea[], $25::text::text[]
    ) AS u (number, balance, escrow, tick, inflows, holder, asset)
    WHERE EXISTS (SELECT FROM head)
    ON CONFLICT (commons_id, number) DO UPDATE
    SET balance = excluded.balance, escrow = excluded.escrow, tick = excluded.tick, inflows = excluded.inflows
), created AS (
    INSERT INTO gesell.account (commons_id, number, balance, escrow, tick, inflows, holder, asset)
    SELECT $1, u.number, u.balance, u.escrow, u.tick, u.inflows, u.holder, u.asset
    FROM unnest(
        $26::text::bigint[], $27::text::bigint[], $28::text::bigint[], $29::text::bigint[], $30::text::bytea[],
        $31::text::bytea[], $32::text::text[]
    ) AS u (number, balance, escrow, tick, inflows, holder, asset)
    WHERE EXISTS (SELECT FROM head)
), nodes AS (
    INSERT INTO gesell.subtree (commons_id, level, place, hash)
    SELECT $1, u.level, u.place, u.hash
    FROM unnest($33::text::smallint[], $34::text::bigint[], $35::text::bytea[]) AS u (level, place, hash)
    WHERE EXISTS (SELECT FROM head)
)
SELECT count(*) FROM head;

-- name: store_member
-- A member's new standing.
INSERT INTO gesell.member
    (commons_id, peer, joined_ms, handle_held, barred, status, handle, spans, trusted, lent, vouchers, vouchees, awaits)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (commons_id, peer) DO UPDATE
SET joined_ms = excluded.joined_ms, handle_held = excluded.handle_held, barred = excluded.barred,
    status = excluded.status, handle = excluded.handle, spans = excluded.spans, trusted = excluded.trusted,
    lent = excluded.lent, vouchers = excluded.vouchers, vouchees = excluded.vouchees,
    awaits = excluded.awaits;

-- name: store_key
-- A key that comes into use, or is revoked.
INSERT INTO gesell.peer_key (commons_id, key, rank, live, peer)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (commons_id, key) DO UPDATE SET live = excluded.live;

-- name: store_policy
-- An announced policy.
INSERT INTO gesell.policy (commons_id, seq, from_tick, policy) VALUES ($1, $2, $3, $4);

-- name: store_share
-- A share of the pool, and how far it is paid.
INSERT INTO gesell.share_out (commons_id, id, seq, each, unpaid, paid_through)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (commons_id, id) DO UPDATE SET unpaid = excluded.unpaid, paid_through = excluded.paid_through;

-- name: store_memo
-- The text that came beside an accepted statement.
INSERT INTO gesell.memo (commons_id, id, salt, text) VALUES ($1, $2, $3, $4);

-- name: erase_memo
-- The text goes; the seal stays in the log.
DELETE FROM gesell.memo WHERE commons_id = $1 AND id = $2;

-- name: store_kind
-- A kind of gift.
INSERT INTO gesell.kind (commons_id, seq, scale, code, name, unit) VALUES ($1, $2, $3, $4, $5, $6);

-- name: store_gift
-- A gift that is offered, or what became of it.
INSERT INTO gesell.gift (commons_id, seq, settled, quantity, id, giver, receiver, kind, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (commons_id, id) DO UPDATE SET settled = excluded.settled, state = excluded.state;

-- name: store_vouch
-- A vouch as it stands now.
INSERT INTO gesell.vouch (commons_id, voucher, vouchee, amount)
VALUES ($1, $2, $3, $4)
ON CONFLICT (commons_id, voucher, vouchee) DO UPDATE SET amount = excluded.amount;

-- name: end_vouch
-- A vouch that has ended.
DELETE FROM gesell.vouch WHERE commons_id = $1 AND voucher = $2 AND vouchee = $3;

-- name: store_hold
-- Money that is set aside, or let go.
INSERT INTO gesell.hold (commons_id, seq, ended, amount, until_ms, id, payer, payee)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (commons_id, id) DO UPDATE SET ended = excluded.ended;

-- Queries of the reads. None of them shows a balance to anybody: what they load is brought up to date by the core.

-- name: list_commons
-- Commons in order of their commons_id, a page at a time.
SELECT commons_id, hash, seq, at_ms, accounts, active_members, policies, threshold, currency_scale, currency_code,
       name, ledger, stewards, share, kinds
FROM gesell.commons
WHERE commons_id > $1
ORDER BY commons_id
LIMIT $2;

-- name: list_sharing
-- Commons that share out their pool just now.
SELECT hash FROM gesell.commons WHERE share IS NOT NULL;

-- name: load_commons
-- The head of one commons, without its lock.
SELECT hash, seq, at_ms, accounts, active_members, policies, threshold, currency_scale, currency_code, name, ledger,
       stewards, share, kinds
FROM gesell.commons
WHERE commons_id = $1;

-- name: load_heads
-- How far some commons have got.
SELECT hash, seq FROM gesell.commons WHERE commons_id = ANY($1::bigint[]);

-- name: list_members
-- Members in order of their keys, a page at a time.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1 AND peer > $2 AND status <> 'left'
ORDER BY peer
LIMIT $3;

-- name: load_member
-- One member by key.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1 AND peer = $2;

-- name: load_member_by_handle
-- The member who holds a handle.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1 AND handle_held AND handle = $2;

-- name: load_key_rings
-- The live keys that some members' own names do not tell of, and their own where it was revoked, first added first.
SELECT key, peer, rank, live
FROM gesell.peer_key
WHERE commons_id = $1 AND peer = ANY($2::bytea[]) AND (live OR key = peer)
ORDER BY rank, key;

-- name: load_reserved
-- What issuer, pool and escrow hold, together with the head of their commons, so that all are of the same moment.
SELECT c.seq, c.at_ms, c.active_members, coalesce(i.balance, 0), coalesce(p.balance, 0), coalesce(e.balance, 0)
FROM gesell.commons c
LEFT JOIN gesell.account i ON i.commons_id = c.commons_id AND i.holder = 'issuer' AND i.asset = c.currency_code
LEFT JOIN gesell.account p ON p.commons_id = c.commons_id AND p.holder = 'pool' AND p.asset = c.currency_code
LEFT JOIN gesell.account e ON e.commons_id = c.commons_id AND e.holder = 'escrow' AND e.asset = c.currency_code
WHERE c.commons_id = $1;

-- name: load_account_now
-- One account together with the head of its commons, so that both are of the same moment.
SELECT c.seq, c.at_ms, a.number, a.holder, a.asset, a.balance, a.escrow, a.tick, a.inflows
FROM gesell.commons c
LEFT JOIN gesell.account a ON a.commons_id = c.commons_id AND a.holder = $2 AND a.asset = $3
WHERE c.commons_id = $1;

-- name: load_time_of
-- When an entry was accepted. Times never fall, so asking this for some seqs finds the last entry before a moment.
SELECT at_ms FROM gesell.entry WHERE commons_id = $1 AND seq = $2;

-- name: load_last_posting
-- An account's last posting up to an entry: its balance then, and when it was brought up to date.
SELECT p.seq, p.balance, e.at_ms
FROM gesell.posting p
JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
WHERE p.commons_id = $1 AND p.account = $2 AND p.seq <= $3 AND e.commons_id = $1 AND e.seq <= $3
ORDER BY p.seq DESC, p.n DESC
LIMIT 1;

-- name: load_inflows
-- What reached an account between two entries, for reasons that count as inflow, by tick.
SELECT e.at_ms / $6::bigint AS tick, least(sum(p.amount), $7::bigint)::bigint AS grains
FROM gesell.posting p
JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
WHERE p.commons_id = $1 AND p.account = $2 AND p.seq BETWEEN $4 AND $3 AND p.amount > 0 AND p.reason = ANY($5::text[])
  AND e.commons_id = $1 AND e.seq BETWEEN $4 AND $3
GROUP BY 1
ORDER BY 1;

-- name: list_postings
-- An account's history from an entry on, first to last.
SELECT p.seq, p.n, p.reason, p.amount, p.balance, e.at_ms, e.id, e.body, m.text
FROM gesell.posting p
JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
LEFT JOIN gesell.memo m ON m.commons_id = e.commons_id AND m.id = e.id
WHERE p.commons_id = $1 AND p.account = $2 AND (p.seq, p.n) > ($3, $4) AND e.commons_id = $1 AND e.seq >= $3
ORDER BY p.seq, p.n
LIMIT $5;

-- name: list_postings_back
-- An account's history before an entry, last to first.
SELECT p.seq, p.n, p.reason, p.amount, p.balance, e.at_ms, e.id, e.body, m.text
FROM gesell.posting p
JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
LEFT JOIN gesell.memo m ON m.commons_id = e.commons_id AND m.id = e.id
WHERE p.commons_id = $1 AND p.account = $2 AND (p.seq, p.n) < ($3, $4) AND e.commons_id = $1 AND e.seq <= $3
ORDER BY p.seq DESC, p.n DESC
LIMIT $5;

-- name: list_entries
-- Entries after one, in order, with the memos that are still there.
SELECT e.seq, e.at_ms, e.id, e.body, e.signatures, m.salt, m.text
FROM gesell.entry e
LEFT JOIN gesell.memo m ON m.commons_id = e.commons_id AND m.id = e.id
WHERE e.commons_id = $1 AND e.seq > $2
ORDER BY e.seq
LIMIT $3;

-- name: list_seqs_of_party
-- The entries after one that concern a peer: by its postings, by mention; those of all if it sees the commons; the founding.
SELECT seq FROM (
    (
        SELECT own.seq
        FROM gesell.account a
        CROSS JOIN LATERAL (
            SELECT p.seq
            FROM gesell.posting p
            WHERE p.commons_id = $1 AND p.account = a.number AND p.seq > $3
            GROUP BY p.seq
            ORDER BY p.seq
            LIMIT $6
        ) own
        WHERE a.commons_id = $1 AND a.holder = $2
    )
    UNION
    (
        SELECT seq FROM gesell.mention
        WHERE commons_id = $1 AND peer = $2 AND seq > $3
        ORDER BY seq
        LIMIT $6
    )
    UNION
    (
        SELECT seq FROM gesell.mention
        WHERE commons_id = $1 AND peer = '' AND seq > $3 AND ($4 OR ($5 AND seq = 1))
        ORDER BY seq
        LIMIT $6
    )
) parties
ORDER BY seq
LIMIT $6;

-- name: list_entries_of
-- Some entries by their numbers, with the memos that are still there.
SELECT e.seq, e.at_ms, e.id, e.body, e.signatures, m.salt, m.text
FROM gesell.entry e
LEFT JOIN gesell.memo m ON m.commons_id = e.commons_id AND m.id = e.id
WHERE e.commons_id = $1 AND e.seq = ANY($2::bigint[])
ORDER BY e.seq;

-- name: load_key
-- A key that its own name does not tell of.
SELECT key, peer, rank, live FROM gesell.peer_key WHERE commons_id = $1 AND key = $2;

-- name: find_entry
-- The entry of a statement.
SELECT seq FROM gesell.entry WHERE commons_id = $1 AND id = $2;

-- name: list_postings_of
-- The postings of a run of entries, in their order, no more than a page may carry.
SELECT p.seq, p.reason, a.holder, a.asset, p.amount
FROM gesell.posting p
JOIN gesell.account a ON a.commons_id = p.commons_id AND a.number = p.account
WHERE p.commons_id = $1 AND p.seq BETWEEN $2 AND $3
ORDER BY p.seq, p.n
LIMIT $4;

-- name: load_last_account
-- The highest number of an account; they are given without a gap, from 0.
SELECT max(number) FROM gesell.account WHERE commons_id = $1;

-- name: list_asleep
-- Of a range of accounts, so that all that sleep are read in bounded steps, those with something that can melt.
SELECT number, holder, asset, balance, escrow, tick, inflows
FROM gesell.account
WHERE commons_id = $1 AND tick < $2 AND number >= $3 AND number < $4 AND (balance > 0 OR escrow > 0) AND asset = $5
  AND octet_length(holder) = 32
ORDER BY number;

-- name: list_unpaid
-- Members after one, for a share-out to find who was active when it was made.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1 AND peer > $2
ORDER BY peer
LIMIT $3;

-- name: load_share
-- A share of the pool, and how far it is paid.
SELECT id, seq, each, unpaid, paid_through
FROM gesell.share_out
WHERE commons_id = $1 AND id = $2;

-- name: list_all_commons
-- All commons, for what goes through them one after the other.
SELECT commons_id, hash FROM gesell.commons ORDER BY commons_id;

-- name: load_vouched
-- What was vouched for a member less what it vouched, as of an entry.
SELECT vouched
FROM gesell.credit
WHERE commons_id = $1 AND peer = $2 AND seq <= $3
ORDER BY seq DESC
LIMIT 1;

-- name: list_gift_counts
-- What a member gave and received of each kind up to an entry; kinds are written small, the currency is not.
SELECT a.asset, sum(CASE WHEN p.amount < 0 THEN -p.amount ELSE 0 END) AS given,
       sum(CASE WHEN p.amount > 0 THEN p.amount ELSE 0 END) AS received
FROM gesell.account a
JOIN gesell.posting p ON p.commons_id = a.commons_id AND p.account = a.number
WHERE a.commons_id = $1 AND a.holder = $2 AND a.asset ~ '^[a-z]' AND p.commons_id = $1 AND p.seq <= $3
GROUP BY a.asset
ORDER BY a.asset;

-- name: load_gifts
-- Gifts by their ids.
SELECT id, seq, giver, receiver, kind, quantity, state
FROM gesell.gift
WHERE commons_id = $1 AND id = ANY($2::uuid[]);

-- name: load_gift
-- A gift with its offer and when it was settled.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift g
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE g.commons_id = $1 AND g.id = $2;

-- name: list_gifts_by_commons
-- All gifts before an entry, the newest first.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift g
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE g.commons_id = $1 AND g.seq < $2 AND ($4::bytea IS NULL OR g.giver = $4)
  AND ($5::bytea IS NULL OR g.receiver = $5) AND ($6::text IS NULL OR g.state = $6) AND $7::uuid IS NULL
ORDER BY g.seq DESC
LIMIT $3;

-- name: list_gifts_by_giver
-- The gifts of one giver before an entry, the newest first.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift g
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE g.commons_id = $1 AND g.seq < $2 AND g.giver = $4
  AND ($5::bytea IS NULL OR g.receiver = $5) AND ($6::text IS NULL OR g.state = $6) AND $7::uuid IS NULL
ORDER BY g.seq DESC
LIMIT $3;

-- name: list_gifts_by_receiver
-- The gifts for one receiver before an entry, the newest first.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift g
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE g.commons_id = $1 AND g.seq < $2 AND ($4::bytea IS NULL OR g.giver = $4)
  AND g.receiver = $5 AND ($6::text IS NULL OR g.state = $6) AND $7::uuid IS NULL
ORDER BY g.seq DESC
LIMIT $3;

-- name: list_gifts_by_state
-- The gifts in one state before an entry, the newest first.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift g
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE g.commons_id = $1 AND g.seq < $2 AND ($4::bytea IS NULL OR g.giver = $4)
  AND ($5::bytea IS NULL OR g.receiver = $5) AND g.state = $6 AND $7::uuid IS NULL
ORDER BY g.seq DESC
LIMIT $3;

-- name: list_gifts_by_moved_by
-- The gifts that one gift moved, before an entry, the newest first.
SELECT g.id, g.seq, g.giver, g.receiver, g.kind, g.quantity, g.state, e.at_ms, s.at_ms AS settled_ms, e.body, m.text,
       r.text AS reply
FROM gesell.gift_thread t
JOIN gesell.gift g ON g.commons_id = t.commons_id AND g.seq = t.seq
JOIN gesell.entry e ON e.commons_id = g.commons_id AND e.seq = g.seq
LEFT JOIN gesell.entry s ON s.commons_id = g.commons_id AND s.seq = g.settled
LEFT JOIN gesell.memo m ON m.commons_id = g.commons_id AND m.id = g.id
LEFT JOIN gesell.memo r ON r.commons_id = g.commons_id AND r.id = s.id
WHERE t.commons_id = $1 AND t.moved_by = $7 AND t.seq < $2 AND ($4::bytea IS NULL OR g.giver = $4)
  AND ($5::bytea IS NULL OR g.receiver = $5) AND ($6::text IS NULL OR g.state = $6)
ORDER BY t.seq DESC
LIMIT $3;

-- name: load_escrow_at
-- What a payer had in open holds after an entry.
SELECT coalesce(sum(amount), 0)::bigint
FROM gesell.hold
WHERE commons_id = $1 AND payer = $2 AND seq <= $3 AND (ended IS NULL OR ended > $3);

-- name: load_holds
-- Holds by their ids.
SELECT id, seq, payer, payee, amount, until_ms, ended IS NULL
FROM gesell.hold
WHERE commons_id = $1 AND id = ANY($2::uuid[]);

-- name: list_lapsing
-- Open holds whose time came before a moment, the longest over first.
SELECT id
FROM gesell.hold
WHERE commons_id = $1 AND until_ms <= $2 AND ended IS NULL
ORDER BY until_ms
LIMIT $3;

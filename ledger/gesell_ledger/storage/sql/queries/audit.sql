-- Queries of `gesell db check`: whole tables of one commons, in order.

-- name: list_postings
-- The postings of a run of entries with their running balances.
SELECT p.seq, p.reason, a.holder, a.asset, p.amount, p.balance
FROM gesell.posting p
JOIN gesell.account a ON a.commons_id = p.commons_id AND a.number = p.account
WHERE p.commons_id = $1 AND p.seq BETWEEN $2 AND $3
ORDER BY p.seq, p.n;

-- name: list_accounts
-- Every account as it is stored.
SELECT number, holder, asset, balance, escrow, tick, inflows
FROM gesell.account
WHERE commons_id = $1
ORDER BY number;

-- name: list_members
-- Every member, those who left included.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1;

-- name: list_keys
-- Every key that a member's own name does not tell of.
SELECT key, peer, rank, live
FROM gesell.peer_key
WHERE commons_id = $1;

-- name: list_policies
-- Every policy as it is stored.
SELECT seq, from_tick, policy
FROM gesell.policy
WHERE commons_id = $1;

-- name: list_shares
-- Every share of the pool as it is stored.
SELECT id, seq, each, unpaid, paid_through
FROM gesell.share_out
WHERE commons_id = $1;

-- name: list_mentions
-- Every mention of a party that no posting tells of.
SELECT seq, peer
FROM gesell.mention
WHERE commons_id = $1;

-- name: list_stray_postings
-- Postings that belong to no entry or to no account, as far as a report needs them.
SELECT p.seq, p.account
FROM gesell.posting p
LEFT JOIN gesell.entry e ON e.commons_id = p.commons_id AND e.seq = p.seq
LEFT JOIN gesell.account a ON a.commons_id = p.commons_id AND a.number = p.account
WHERE p.commons_id = $1 AND (e.seq IS NULL OR a.number IS NULL)
ORDER BY p.seq, p.account
LIMIT 20;

-- name: list_kinds
-- Every kind of gift beside `hour`, as it is stored.
SELECT code, name, unit, scale, seq
FROM gesell.kind
WHERE commons_id = $1;

-- name: list_gifts
-- Every gift as it is stored.
SELECT seq, settled, quantity, id, giver, receiver, kind, state
FROM gesell.gift
WHERE commons_id = $1;

-- name: list_threads
-- Which gift was moved by which, as it is stored.
SELECT seq, moved_by
FROM gesell.gift_thread
WHERE commons_id = $1;

-- name: list_vouches
-- Every vouch as it is stored.
SELECT voucher, vouchee, amount
FROM gesell.vouch
WHERE commons_id = $1;

-- name: list_vouch_changes
-- Every change of a vouch as it is stored.
SELECT seq, voucher, vouchee, amount
FROM gesell.vouch_change
WHERE commons_id = $1;

-- name: list_credits
-- What was vouched for and by members, after each entry that changed it.
SELECT seq, peer, vouched
FROM gesell.credit
WHERE commons_id = $1;

-- name: list_holds
-- Every hold as it is stored.
SELECT seq, ended, amount, until_ms, id, payer, payee
FROM gesell.hold
WHERE commons_id = $1;

-- name: list_leaves
-- The hashes stored beside a run of entries.
SELECT seq, leaf FROM gesell.entry WHERE commons_id = $1 AND seq BETWEEN $2 AND $3;

-- name: list_subtrees
-- Every node of whole tiles as it is stored.
SELECT level, place, hash FROM gesell.subtree WHERE commons_id = $1;

-- name: list_handovers
-- Every hand-over of the ledger's key as it is stored.
SELECT seq, ledger FROM gesell.handover WHERE commons_id = $1;

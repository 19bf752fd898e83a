-- Queries of trust: vouches as they stand and as they change, packed as a graph takes them, 72 bytes a vouch.

-- name: load_seq
-- How far a commons has got, within the moment whose vouches are asked for next.
SELECT seq FROM gesell.commons WHERE commons_id = $1;

-- name: pack_vouches
-- Vouches as they stand, in order, after one of them; at most so many.
SELECT count(*), string_agg(voucher || vouchee || int8send(amount), ''::bytea ORDER BY voucher, vouchee)
FROM (
    SELECT voucher, vouchee, amount
    FROM gesell.vouch
    WHERE commons_id = $1 AND (voucher, vouchee) > ($2, $3)
    ORDER BY voucher, vouchee
    LIMIT $4
) vouches;

-- name: pack_changes
-- How vouches changed in the entries after one, up to another, in the order of the entries; at most so many.
SELECT count(*), string_agg(voucher || vouchee || int8send(amount), ''::bytea ORDER BY seq)
FROM (
    SELECT seq, voucher, vouchee, amount
    FROM gesell.vouch_change
    WHERE commons_id = $1 AND seq > $2 AND seq <= $3
    ORDER BY seq
    LIMIT $4
) changes;

-- name: load_members
-- Members by their keys, those who have left included.
SELECT peer, handle, status, joined_ms, handle_held, barred, spans, trusted, lent, vouchers, vouchees, awaits
FROM gesell.member
WHERE commons_id = $1 AND peer = ANY($2::bytea[]);

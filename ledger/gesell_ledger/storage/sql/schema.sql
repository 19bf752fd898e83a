-- The whole present state of the database, for reading. What makes it is migrations/; a test builds a database both
-- ways and finds no difference.
--
-- A commons is a tenant: commons_id comes first in every key, is never updated, and a transaction stays within one
-- commons, so that the same schema can be distributed by commons_id. commons_id is the first 8 bytes of the commons'
-- 16-byte name: short, because it stands in every row and index, and known before anything is stored.
-- The service works as gesell_service, which can add to entry, posting, mention and policy but never change them.

CREATE SCHEMA gesell;

-- One row a commons: the head of its sequence. Its lock is what makes one commons one sequence. tree: the peaks of the
-- Merkle tree over its entries, 32 bytes for each bit that is set in seq, the largest first.
CREATE TABLE gesell.commons (
    commons_id     bigint   PRIMARY KEY,
    seq            bigint   NOT NULL CHECK (seq >= 1),
    at_ms          bigint   NOT NULL CHECK (at_ms >= 0),
    accounts       bigint   NOT NULL CHECK (accounts >= 0),
    active_members bigint   NOT NULL CHECK (active_members >= 0),
    policies       integer  NOT NULL CHECK (policies >= 1),
    threshold      smallint NOT NULL CHECK (threshold >= 1),
    currency_scale smallint NOT NULL CHECK (currency_scale BETWEEN 0 AND 9),
    currency_code  text     NOT NULL,
    name           text     NOT NULL,
    hash           bytea    NOT NULL CHECK (octet_length(hash) = 16),
    ledger         bytea    NOT NULL CHECK (octet_length(ledger) = 32),
    stewards       bytea[]  NOT NULL CHECK (cardinality(stewards) >= threshold),
    share          bytea    CHECK (octet_length(share) = 16),
    kinds          integer  NOT NULL CHECK (kinds >= 0),
    tree           bytea    NOT NULL
        CONSTRAINT commons_tree_fits CHECK (octet_length(tree) = 32 * length(replace(seq::bit(64)::text, '0', '')))
) WITH (fillfactor = 50);

-- Accepted statements, numbered without a gap. signatures: key and signature, 96 bytes each, ascending by key. leaf: the
-- hash that the Merkle tree has of the entry, its postings included.
CREATE TABLE gesell.entry (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq >= 1),
    at_ms      bigint NOT NULL CHECK (at_ms >= 0),
    id         uuid   NOT NULL,
    body       bytea  NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 16384),
    signatures bytea  NOT NULL CHECK (octet_length(signatures) BETWEEN 96 AND 1536 AND octet_length(signatures) % 96 = 0),
    leaf       bytea  NOT NULL CHECK (octet_length(leaf) = 32),
    PRIMARY KEY (commons_id, seq),
    CONSTRAINT entry_id_once UNIQUE (commons_id, id)
);

-- Nodes of the Merkle tree over 256^level entries, from entry place · 256^level + 1 on: what the full tiles of the level
-- below hash to. With the leaves they are all that any tile is made of.
CREATE TABLE gesell.subtree (
    commons_id bigint   NOT NULL,
    place      bigint   NOT NULL CHECK (place >= 0),
    level      smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    hash       bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (commons_id, level, place)
);

-- The keys that the ledger went over to in a commons, each from the entry after seq on.
CREATE TABLE gesell.handover (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 1),
    ledger     bytea  NOT NULL CHECK (octet_length(ledger) = 32),
    PRIMARY KEY (commons_id, seq)
);

-- Checkpoints that witnesses cosigned, as they are given out, with how many did. One that is older than another stays
-- only if more did, or while it is one of the newest; so there are few of a commons.
CREATE TABLE gesell.cosigned (
    commons_id bigint   NOT NULL,
    size       bigint   NOT NULL CHECK (size >= 1),
    witnesses  smallint NOT NULL CHECK (witnesses BETWEEN 1 AND 16),
    note       text     NOT NULL,
    PRIMARY KEY (commons_id, size)
) WITH (fillfactor = 50);

-- What entries move. account: account.number; n: the place in the entry; balance: the account's after this posting.
CREATE TABLE gesell.posting (
    commons_id bigint   NOT NULL,
    account    bigint   NOT NULL,
    seq        bigint   NOT NULL,
    amount     bigint   NOT NULL CHECK (amount <> 0),
    balance    bigint   NOT NULL CHECK (balance BETWEEN -1000000000000000000 AND 1000000000000000000),
    n          smallint NOT NULL CHECK (n >= 0),
    reason     text     NOT NULL,
    PRIMARY KEY (commons_id, account, seq, n)
);
CREATE INDEX posting_of_entry ON gesell.posting (commons_id, seq);

-- Parties of an entry whom no posting tells of; an empty peer stands for everybody who sees the commons.
CREATE TABLE gesell.mention (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq >= 1),
    peer       bytea  NOT NULL CHECK (octet_length(peer) IN (0, 32)),
    PRIMARY KEY (commons_id, peer, seq)
);

-- Accounts as they were last brought up to date: the ends of all ticks before tick are charged; inflows is the
-- window of fresh money, canonical [[tick, grains], …]. A reserved holder is written as the ASCII of its name.
CREATE TABLE gesell.account (
    commons_id bigint NOT NULL,
    number     bigint NOT NULL,
    balance    bigint NOT NULL CHECK (balance BETWEEN -1000000000000000000 AND 1000000000000000000),
    escrow     bigint NOT NULL CHECK (escrow >= 0),
    tick       bigint NOT NULL CHECK (tick >= 0),
    holder     bytea  NOT NULL,
    asset      text   NOT NULL,
    inflows    bytea  NOT NULL,
    PRIMARY KEY (commons_id, number),
    CONSTRAINT account_name_once UNIQUE (commons_id, holder, asset)
) WITH (fillfactor = 60);

-- spans: the times in which the member was active, canonical [from seq, to seq (-1: still), …].
-- trusted, lent: grains vouched for it and by it; vouchers, vouchees: by and for how many;
-- awaits: how many open holds it is the payee of.
CREATE TABLE gesell.member (
    commons_id  bigint   NOT NULL REFERENCES gesell.commons,
    peer        bytea    NOT NULL CHECK (octet_length(peer) = 32),
    joined_ms   bigint   NOT NULL,
    handle_held boolean  NOT NULL,
    barred      boolean  NOT NULL,
    status      text     NOT NULL CHECK (status IN ('active', 'pending', 'suspended', 'left')),
    handle      text     NOT NULL,
    spans       bytea    NOT NULL,
    trusted     bigint   NOT NULL CHECK (trusted >= 0),
    lent        bigint   NOT NULL CHECK (lent >= 0),
    vouchers    smallint NOT NULL CHECK (vouchers BETWEEN 0 AND 256),
    vouchees    smallint NOT NULL CHECK (vouchees BETWEEN 0 AND 256),
    awaits      bigint   NOT NULL CHECK (awaits >= 0),
    PRIMARY KEY (commons_id, peer)
);
CREATE UNIQUE INDEX member_handle_once ON gesell.member (commons_id, handle) WHERE handle_held;

-- Keys that a member's own name does not tell of: stewards', added and revoked ones. rank: what was added first.
CREATE TABLE gesell.peer_key (
    commons_id bigint  NOT NULL REFERENCES gesell.commons,
    key        bytea   NOT NULL CHECK (octet_length(key) = 32),
    rank       bigint  NOT NULL,
    live       boolean NOT NULL,
    peer       bytea   NOT NULL CHECK (octet_length(peer) = 32),
    PRIMARY KEY (commons_id, key)
);
CREATE INDEX peer_key_ring ON gesell.peer_key (commons_id, peer);

-- Every policy that was announced, by the entry that announced it.
CREATE TABLE gesell.policy (
    commons_id bigint NOT NULL REFERENCES gesell.commons,
    seq        bigint NOT NULL,
    from_tick  bigint NOT NULL CHECK (from_tick >= 0),
    policy     bytea  NOT NULL,
    PRIMARY KEY (commons_id, seq)
);

-- The texts that seals stand for; they can be erased while the log still verifies.
CREATE TABLE gesell.memo (
    commons_id bigint NOT NULL REFERENCES gesell.commons,
    id         uuid   NOT NULL,
    salt       bytea  NOT NULL CHECK (octet_length(salt) = 16),
    text       text   NOT NULL CHECK (char_length(text) <= 1000),
    PRIMARY KEY (commons_id, id)
);

-- Shares of the pool, and how far each is paid.
CREATE TABLE gesell.share_out (
    commons_id   bigint NOT NULL REFERENCES gesell.commons,
    id           uuid   NOT NULL,
    seq          bigint NOT NULL,
    each         bigint NOT NULL CHECK (each > 0),
    unpaid       bigint NOT NULL CHECK (unpaid >= 0),
    paid_through bytea  NOT NULL,
    PRIMARY KEY (commons_id, id)
);

-- Kinds of gifts beside `hour`, which every commons has; commons.kinds counts them.
CREATE TABLE gesell.kind (
    commons_id bigint   NOT NULL REFERENCES gesell.commons,
    seq        bigint   NOT NULL,
    scale      smallint NOT NULL CHECK (scale BETWEEN 0 AND 6),
    code       text     NOT NULL,
    name       text     NOT NULL,
    unit       text     NOT NULL,
    PRIMARY KEY (commons_id, code)
);

-- Gifts and how far each has come. seq: of the entry that offered it; settled: of the one that received, declined or
-- withdrew it. receiver: a peer's key, or the ASCII of `pool`.
CREATE TABLE gesell.gift (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL,
    settled    bigint CHECK (settled > seq),
    quantity   bigint NOT NULL CHECK (quantity > 0),
    id         uuid   NOT NULL,
    giver      bytea  NOT NULL CHECK (octet_length(giver) = 32),
    receiver   bytea  NOT NULL CHECK (octet_length(receiver) = 32 OR receiver = 'pool'),
    kind       text   NOT NULL,
    state      text   NOT NULL CHECK (state IN ('offered', 'received', 'declined', 'withdrawn')),
    PRIMARY KEY (commons_id, id),
    CONSTRAINT gift_settled CHECK ((state = 'offered') = (settled IS NULL))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX gift_in_order ON gesell.gift (commons_id, seq);
CREATE INDEX gift_by_state ON gesell.gift (commons_id, state, seq);
CREATE INDEX gift_by_giver ON gesell.gift (commons_id, giver, seq);
CREATE INDEX gift_by_receiver ON gesell.gift (commons_id, receiver, seq);

-- The thread of gifts: which gift, by the entry that offered it, was moved by which.
CREATE TABLE gesell.gift_thread (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL,
    moved_by   uuid   NOT NULL,
    PRIMARY KEY (commons_id, moved_by, seq)
);

-- Money set aside by payers for payees. seq: of the entry that set it aside; ended: of the one that captured, voided or
-- lapsed it.
CREATE TABLE gesell.hold (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL,
    ended      bigint CHECK (ended > seq),
    amount     bigint NOT NULL CHECK (amount > 0),
    until_ms   bigint NOT NULL,
    id         uuid   NOT NULL,
    payer      bytea  NOT NULL CHECK (octet_length(payer) = 32),
    payee      bytea  NOT NULL CHECK (octet_length(payee) = 32),
    PRIMARY KEY (commons_id, id)
) WITH (fillfactor = 80);
CREATE INDEX hold_by_payer ON gesell.hold (commons_id, payer, seq);
-- Finds what lapses, for the housekeeper.
CREATE INDEX hold_open ON gesell.hold (commons_id, until_ms) WHERE ended IS NULL;

-- Vouches as they stand; one that has ended is no row.
CREATE TABLE gesell.vouch (
    commons_id bigint NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    voucher    bytea  NOT NULL CHECK (octet_length(voucher) = 32),
    vouchee    bytea  NOT NULL CHECK (octet_length(vouchee) = 32),
    PRIMARY KEY (commons_id, voucher, vouchee)
);
CREATE INDEX vouch_for ON gesell.vouch (commons_id, vouchee);

-- Every change of a vouch, by the entry that made it; amount 0: it ended.
CREATE TABLE gesell.vouch_change (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL,
    amount     bigint NOT NULL CHECK (amount >= 0),
    voucher    bytea  NOT NULL CHECK (octet_length(voucher) = 32),
    vouchee    bytea  NOT NULL CHECK (octet_length(vouchee) = 32),
    PRIMARY KEY (commons_id, seq, voucher, vouchee)
);

-- What was vouched for a member less what it vouched, after an entry that changed it: for balances of the past.
CREATE TABLE gesell.credit (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL,
    vouched    bigint NOT NULL,
    peer       bytea  NOT NULL CHECK (octet_length(peer) = 32),
    PRIMARY KEY (commons_id, peer, seq)
);

-- Webhooks: who asked for deliveries and how far each has come. No queue: what is still to deliver is read off the
-- entries after `seen`, so nothing grows while an endpoint is away.
--
-- One webhook of a peer, in one of its eight slots. asked_s: the `iat` of the request that made it what it is; a
-- deleted one stays, emptied, so that its request can't be used again. secret: as HMAC needs it, so it is no hash.
-- every_entry: all entries of the commons, not only those that concern the peer; types: none for all. seen: entries up
-- to it are delivered, or not for it. next_ms and lease_ms are real time by the database's clock, whatever clock the
-- ledger runs on: not before the first it is tried again, and until the second it is whoever's who wrote `lease`.
CREATE TABLE gesell.webhook (
    commons_id  bigint   NOT NULL REFERENCES gesell.commons,
    asked_s     bigint   NOT NULL CHECK (asked_s >= 0),
    seen        bigint   NOT NULL CHECK (seen >= 0),
    next_ms     bigint   NOT NULL,
    lease_ms    bigint   NOT NULL,
    failures    integer  NOT NULL CHECK (failures >= 0),
    slot        smallint NOT NULL CHECK (slot BETWEEN 0 AND 7),
    every_entry boolean  NOT NULL,
    id          uuid     NOT NULL,
    lease       uuid,
    peer        bytea    NOT NULL CHECK (octet_length(peer) = 32),
    key         bytea    NOT NULL CHECK (octet_length(key) = 32),
    secret      bytea    NOT NULL CHECK (octet_length(secret) = 32 OR state = 'deleted'),
    state       text     NOT NULL CHECK (state IN ('live', 'disabled', 'deleted')),
    why         text     NOT NULL CHECK (char_length(why) <= 200),
    url         text     NOT NULL CHECK (octet_length(url) <= 1000),
    types       text[]   NOT NULL,
    PRIMARY KEY (commons_id, peer, slot),
    CONSTRAINT webhook_id_once UNIQUE (commons_id, id)
) WITH (fillfactor = 50);
-- Finds the commons that have webhooks, and whether one was asked for since.
CREATE INDEX webhook_live ON gesell.webhook (commons_id, asked_s) WHERE state = 'live';

-- Readings: what relationships, gifts and circulation come to, folded from the log and rebuilt from it at any time.
--
-- The cursor of a commons' readings: entries up to seq are in them. Beside it, what the next entry goes on from.
CREATE TABLE gesell.reading (
    commons_id   bigint PRIMARY KEY,
    seq          bigint NOT NULL CHECK (seq >= 0),
    half_life_ms bigint NOT NULL CHECK (half_life_ms > 0),
    active       bigint NOT NULL CHECK (active >= 0),
    suspended    bigint NOT NULL CHECK (suspended >= 0),
    pool         bigint NOT NULL,
    escrow       bigint NOT NULL
) WITH (fillfactor = 50);

-- Two members who had to do with each other, one row for both. a_payments: how many payments a made to b, a_paid their
-- grains, a_gifts: gifts of a's that b thanked for, a_vouches: what a vouches for b. strength is that at the tick of
-- last_ms. Sums may pass what bigint holds; they are whole numbers all the same.
CREATE TABLE gesell.relation (
    commons_id bigint           NOT NULL,
    first_ms   bigint           NOT NULL,
    last_ms    bigint           NOT NULL,
    a_payments bigint           NOT NULL CHECK (a_payments >= 0),
    b_payments bigint           NOT NULL CHECK (b_payments >= 0),
    a_gifts    bigint           NOT NULL CHECK (a_gifts >= 0),
    b_gifts    bigint           NOT NULL CHECK (b_gifts >= 0),
    a_vouches  bigint           NOT NULL CHECK (a_vouches >= 0),
    b_vouches  bigint           NOT NULL CHECK (b_vouches >= 0),
    strength   double precision NOT NULL CHECK (strength >= 1),
    a_paid     numeric(38, 0)   NOT NULL,
    b_paid     numeric(38, 0)   NOT NULL,
    a          bytea            NOT NULL,
    b          bytea            NOT NULL CHECK (a < b),
    PRIMARY KEY (commons_id, a, b)
) WITH (fillfactor = 80);
CREATE INDEX relation_of_b ON gesell.relation (commons_id, b);

-- What one gave the other by category: payments that have one (asset: the currency), gifts (asset: the kind, category
-- empty where there is none).
CREATE TABLE gesell.relation_sum (
    commons_id bigint         NOT NULL,
    count      bigint         NOT NULL CHECK (count > 0),
    amount     numeric(38, 0) NOT NULL CHECK (amount > 0),
    giver      bytea          NOT NULL,
    receiver   bytea          NOT NULL,
    asset      text           NOT NULL,
    category   text           NOT NULL,
    PRIMARY KEY (commons_id, giver, receiver, asset, category)
) WITH (fillfactor = 80);

-- What members gave and were given. thanked_by, thanked: different members; the weights are those at the ticks of
-- given_ms and received_ms.
CREATE TABLE gesell.standing (
    commons_id      bigint           NOT NULL,
    given           bigint           NOT NULL CHECK (given >= 0),
    received        bigint           NOT NULL CHECK (received >= 0),
    thanked_by      bigint           NOT NULL CHECK (thanked_by >= 0),
    thanked         bigint           NOT NULL CHECK (thanked >= 0),
    given_ms        bigint           NOT NULL,
    received_ms     bigint           NOT NULL,
    given_weight    double precision NOT NULL,
    received_weight double precision NOT NULL,
    peer            bytea            NOT NULL,
    PRIMARY KEY (commons_id, peer)
) WITH (fillfactor = 80);

-- Memberships as of the cursor, by the log alone. was_active: ever.
CREATE TABLE gesell.membership (
    commons_id bigint  NOT NULL,
    was_active boolean NOT NULL,
    barred     boolean NOT NULL,
    peer       bytea   NOT NULL,
    status     text    NOT NULL CHECK (status IN ('active', 'pending', 'suspended', 'left')),
    PRIMARY KEY (commons_id, peer)
);

-- What happened in each tick that has entries, the last of them last_seq; active, suspended, pool and escrow as it
-- left them.
CREATE TABLE gesell.flow_tick (
    commons_id bigint         NOT NULL,
    tick       bigint         NOT NULL,
    last_seq   bigint         NOT NULL,
    payments   bigint         NOT NULL CHECK (payments >= 0),
    joined     bigint         NOT NULL CHECK (joined >= 0),
    active     bigint         NOT NULL CHECK (active >= 0),
    suspended  bigint         NOT NULL CHECK (suspended >= 0),
    pool       bigint         NOT NULL,
    escrow     bigint         NOT NULL,
    volume     numeric(38, 0) NOT NULL,
    melted     numeric(38, 0) NOT NULL,
    issued     numeric(38, 0) NOT NULL,
    retired    numeric(38, 0) NOT NULL,
    granted    numeric(38, 0) NOT NULL,
    shared     numeric(38, 0) NOT NULL,
    PRIMARY KEY (commons_id, tick)
) WITH (fillfactor = 50);

-- What moved in each tick by category, as in relation_sum; gifts to the pool too.
CREATE TABLE gesell.flow_sum (
    commons_id bigint         NOT NULL,
    tick       bigint         NOT NULL,
    count      bigint         NOT NULL CHECK (count > 0),
    amount     numeric(38, 0) NOT NULL CHECK (amount > 0),
    asset      text           NOT NULL,
    category   text           NOT NULL,
    PRIMARY KEY (commons_id, tick, asset, category)
) WITH (fillfactor = 80);

-- Who paid and gave to whom in each tick, packed, since it is only ever read as a whole: MessagePack [[account,
-- account, grains, …], [account, account, …]] of payments and of gifts in the tick's entries up to seq.
CREATE TABLE gesell.flow_pairs (
    commons_id bigint NOT NULL,
    tick       bigint NOT NULL,
    seq        bigint NOT NULL,
    pairs      bytea  NOT NULL,
    PRIMARY KEY (commons_id, tick, seq)
);

-- One row: whose database this is, on which clock it runs, and when a service last ran on it.
CREATE TABLE gesell.ledger (
    one          boolean PRIMARY KEY CHECK (one),
    key          bytea   NOT NULL CHECK (octet_length(key) = 32),
    demo         boolean NOT NULL,
    heartbeat_ms bigint  NOT NULL
);

CREATE TABLE gesell.migration (
    number integer PRIMARY KEY,
    name   text NOT NULL
);

GRANT USAGE ON SCHEMA gesell TO gesell_service;
GRANT SELECT ON ALL TABLES IN SCHEMA gesell TO gesell_service;
GRANT INSERT ON gesell.entry, gesell.posting, gesell.mention, gesell.policy, gesell.subtree, gesell.handover
    TO gesell_service;
GRANT INSERT, UPDATE ON gesell.commons, gesell.account, gesell.member, gesell.peer_key, gesell.share_out,
    gesell.webhook, gesell.ledger TO gesell_service;
GRANT INSERT, DELETE ON gesell.memo TO gesell_service;
GRANT INSERT ON gesell.kind, gesell.gift_thread, gesell.vouch_change, gesell.credit TO gesell_service;
GRANT INSERT, UPDATE ON gesell.gift, gesell.hold TO gesell_service;
GRANT INSERT, UPDATE, DELETE ON gesell.vouch TO gesell_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON gesell.reading, gesell.relation, gesell.relation_sum, gesell.standing,
    gesell.membership, gesell.flow_tick, gesell.flow_sum, gesell.flow_pairs TO gesell_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON gesell.cosigned TO gesell_service;

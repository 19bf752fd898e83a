-- The whole present state of the database, for reading. What makes it is migrations/; a test builds a database both
-- ways and finds no difference.
--
-- A commons is a tenant: commons_id comes first in every key, is never updated, and a transaction stays within one
-- commons, so that the same schema can be distributed by commons_id. commons_id is the first 8 bytes of the commons'
-- 16-byte name: short, because it stands in every row and index, and known before anything is stored.
-- The service works as gesell_service, which can add to entry, posting, mention and policy but never change them.

CREATE SCHEMA gesell;

-- One row a commons: the head of its sequence. Its lock is what makes one commons one sequence.
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
    share          bytea    CHECK (octet_length(share) = 16)
) WITH (fillfactor = 50);

-- Accepted statements, numbered without a gap. signatures: key and signature, 96 bytes each, ascending by key.
CREATE TABLE gesell.entry (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq >= 1),
    at_ms      bigint NOT NULL CHECK (at_ms >= 0),
    id         uuid   NOT NULL,
    body       bytea  NOT NULL CHECK (octet_length(body) BETWEEN 1 AND 16384),
    signatures bytea  NOT NULL CHECK (octet_length(signatures) BETWEEN 96 AND 1536 AND octet_length(signatures) % 96 = 0),
    PRIMARY KEY (commons_id, seq),
    CONSTRAINT entry_id_once UNIQUE (commons_id, id)
);

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
-- Finds who has slept longest, for the sweeper.
CREATE INDEX account_asleep ON gesell.account (commons_id, tick);

-- spans: the times in which the member was active, canonical [from seq, to seq (-1: still), …].
CREATE TABLE gesell.member (
    commons_id  bigint   NOT NULL REFERENCES gesell.commons,
    peer        bytea    NOT NULL CHECK (octet_length(peer) = 32),
    joined_ms   bigint   NOT NULL,
    handle_held boolean  NOT NULL,
    barred      boolean  NOT NULL,
    status      text     NOT NULL CHECK (status IN ('active', 'pending', 'suspended', 'left')),
    handle      text     NOT NULL,
    spans       bytea    NOT NULL,
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
GRANT INSERT ON gesell.entry, gesell.posting, gesell.mention, gesell.policy TO gesell_service;
GRANT INSERT, UPDATE ON gesell.commons, gesell.account, gesell.member, gesell.peer_key, gesell.share_out,
    gesell.webhook, gesell.ledger TO gesell_service;
GRANT INSERT, DELETE ON gesell.memo TO gesell_service;

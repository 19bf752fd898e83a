-- Webhooks: who asked for deliveries and how far each has come. No queue: what is still to deliver is read off the
-- entries after `seen`, so nothing grows while an endpoint is away.

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

GRANT SELECT, INSERT, UPDATE ON gesell.webhook TO gesell_service;

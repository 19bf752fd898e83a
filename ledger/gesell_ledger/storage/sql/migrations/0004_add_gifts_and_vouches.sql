-- Gifts, their kinds and their thread; holds; vouches and what they make of credit limits.

ALTER TABLE gesell.commons ADD COLUMN kinds integer NOT NULL DEFAULT 0 CHECK (kinds >= 0);
ALTER TABLE gesell.commons ALTER COLUMN kinds DROP DEFAULT;

ALTER TABLE gesell.member
    ADD COLUMN trusted  bigint   NOT NULL DEFAULT 0 CHECK (trusted >= 0),
    ADD COLUMN lent     bigint   NOT NULL DEFAULT 0 CHECK (lent >= 0),
    ADD COLUMN vouchers smallint NOT NULL DEFAULT 0 CHECK (vouchers BETWEEN 0 AND 256),
    ADD COLUMN vouchees smallint NOT NULL DEFAULT 0 CHECK (vouchees BETWEEN 0 AND 256),
    ADD COLUMN awaits   bigint   NOT NULL DEFAULT 0 CHECK (awaits >= 0);
ALTER TABLE gesell.member
    ALTER COLUMN trusted DROP DEFAULT,
    ALTER COLUMN lent DROP DEFAULT,
    ALTER COLUMN vouchers DROP DEFAULT,
    ALTER COLUMN vouchees DROP DEFAULT,
    ALTER COLUMN awaits DROP DEFAULT;

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

GRANT SELECT, INSERT ON gesell.kind, gesell.gift_thread, gesell.vouch_change, gesell.credit TO gesell_service;
GRANT SELECT, INSERT, UPDATE ON gesell.gift, gesell.hold TO gesell_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON gesell.vouch TO gesell_service;

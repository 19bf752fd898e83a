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

GRANT SELECT, INSERT, UPDATE, DELETE ON gesell.reading, gesell.relation, gesell.relation_sum, gesell.standing,
    gesell.membership, gesell.flow_tick, gesell.flow_sum, gesell.flow_pairs TO gesell_service;

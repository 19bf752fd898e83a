-- The Merkle tree of every commons: the hash of each entry beside it, the roots of whole tiles, the peaks in the head.
-- What stands here already is hashed by the program within this migration; 0008 then asks for it everywhere.
ALTER TABLE gesell.entry ADD COLUMN leaf bytea CHECK (octet_length(leaf) = 32);

ALTER TABLE gesell.commons ADD COLUMN tree bytea
    CONSTRAINT commons_tree_fits CHECK (octet_length(tree) = 32 * length(replace(seq::bit(64)::text, '0', '')));

CREATE TABLE gesell.subtree (
    commons_id bigint   NOT NULL,
    place      bigint   NOT NULL CHECK (place >= 0),
    level      smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    hash       bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (commons_id, level, place)
);

CREATE TABLE gesell.handover (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 1),
    ledger     bytea  NOT NULL CHECK (octet_length(ledger) = 32),
    PRIMARY KEY (commons_id, seq)
);

GRANT SELECT, INSERT ON gesell.subtree, gesell.handover TO gesell_service;

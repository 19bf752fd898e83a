-- Whom an entry concerns beside those whose accounts it touches: a party of a commons that shows entries to their parties
-- finds its own by this. The entries that are there already are gone through by the program that migrates.

-- Parties of an entry whom no posting tells of; an empty peer stands for everybody who sees the commons.
CREATE TABLE gesell.mention (
    commons_id bigint NOT NULL,
    seq        bigint NOT NULL CHECK (seq >= 1),
    peer       bytea  NOT NULL CHECK (octet_length(peer) IN (0, 32)),
    PRIMARY KEY (commons_id, peer, seq)
);

GRANT SELECT, INSERT ON gesell.mention TO gesell_service;

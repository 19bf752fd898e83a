-- Checkpoints that witnesses cosigned, as they are given out, with how many did. One that is older than another stays
-- only if more did, or while it is one of the newest; so there are few of a commons.
CREATE TABLE gesell.cosigned (
    commons_id bigint   NOT NULL,
    size       bigint   NOT NULL CHECK (size >= 1),
    witnesses  smallint NOT NULL CHECK (witnesses BETWEEN 1 AND 16),
    note       text     NOT NULL,
    PRIMARY KEY (commons_id, size)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON gesell.cosigned TO gesell_service;

-- What a payer's answers to queries of one shape taught about estimates (pricing/sql/learning.py): logarithms of row
-- counts, never a query, a constant or a value. Bounded by a job: the newest per publisher, for a month.
CREATE TABLE catalog.experience (
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    shape           bytea NOT NULL CHECK (octet_length(shape) = 16),
    account_id      uuid NOT NULL,
    seen            int NOT NULL,
    bias            int NOT NULL,
    level           int NOT NULL,
    plan_error      int NOT NULL,
    bias_error      int NOT NULL,
    level_error     int NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (publisher_id, shape, account_id)
);
CREATE INDEX ON catalog.experience (updated_at);
CREATE INDEX ON catalog.experience (publisher_id, updated_at);

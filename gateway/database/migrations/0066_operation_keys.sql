-- Idempotency-Key of operations of the admin API that move money: who used a key for what, and the answer that it got.
CREATE TABLE ledger.operation_key (
    owner_id        uuid NOT NULL,              -- the account, the operator or the payment that authorizes the request
    operation       text NOT NULL,              -- the operation's id in the OpenAPI document
    key             text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash    bytea NOT NULL,             -- sha256 of path, query, payment and body
    -- The same for every run of one request: what a run makes is named by it, here and at Stripe, so that a run after a
    -- crash finds what the first one made.
    effect_id       uuid NOT NULL,
    run_id          uuid NOT NULL,              -- whose run it is: only that one stores its answer or gives the key back
    worker_id       integer,
    lease_until     timestamptz,                -- NULL: nobody runs it
    status          smallint,                   -- NULL: there is no answer yet
    headers         bytea,
    answer          bytea,                      -- sealed; NULL where no secret key is configured
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (owner_id, operation, key)
);
CREATE INDEX operation_key_expiring ON ledger.operation_key (expires_at);

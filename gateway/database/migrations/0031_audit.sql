-- The audit log: append-only, one hash chain per organization (gateway/audit/entries.py computes the digests).
CREATE SCHEMA audit;

-- Chains are named by their organization; the operator's own is 00000000-0000-0000-0000-000000000000.
CREATE TABLE audit.head (
    chain     uuid PRIMARY KEY,
    seq       bigint NOT NULL CHECK (seq > 0),
    digest    bytea NOT NULL,
    anchored  bigint NOT NULL DEFAULT 0  -- the seq of its last checkpoint
);
CREATE INDEX head_moved ON audit.head (chain) WHERE anchored < seq;

CREATE TABLE audit.entry (
    id               uuid PRIMARY KEY,
    chain            uuid NOT NULL,
    seq              bigint NOT NULL CHECK (seq > 0),
    created_at       timestamptz NOT NULL,
    actor_type       text NOT NULL,
    actor_id         uuid,
    credential_type  text,
    credential_id    uuid,
    action           text NOT NULL,
    category         text NOT NULL,
    resource_type    text NOT NULL,
    resource_id      uuid,
    status           text NOT NULL,
    error_message    text,
    ip_address       text,
    user_agent       text,
    request_id       text,
    metadata         jsonb NOT NULL,
    previous         bytea NOT NULL,
    digest           bytea NOT NULL,
    UNIQUE (chain, seq)
);
CREATE INDEX entry_actor ON audit.entry (chain, actor_id, seq) WHERE actor_id IS NOT NULL;
CREATE INDEX entry_resource ON audit.entry (chain, resource_id, seq) WHERE resource_id IS NOT NULL;
CREATE INDEX entry_action ON audit.entry (chain, action, seq);

-- What all chains came to at a moment, in one chain of its own: whoever keeps its last digest elsewhere can prove later
-- that nothing before it was changed or cut off.
CREATE TABLE audit.checkpoint (
    number      bigint PRIMARY KEY CHECK (number > 0),
    chain       uuid NOT NULL,
    seq         bigint NOT NULL,
    head        bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    digest      bytea NOT NULL,
    UNIQUE (chain, seq)
);

CREATE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit.% is append-only: % is refused', TG_TABLE_NAME, TG_OP;
END $$;
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entry
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER checkpoint_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER head_kept BEFORE DELETE OR TRUNCATE ON audit.head
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();

-- A head only moves on.
CREATE FUNCTION audit.move_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.chain <> OLD.chain OR NEW.seq < OLD.seq THEN
        RAISE EXCEPTION 'audit.head only moves on';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER head_moves_on BEFORE UPDATE ON audit.head FOR EACH ROW EXECUTE FUNCTION audit.move_on();

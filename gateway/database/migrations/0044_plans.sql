-- Which plan an organization has, and had: one row for each time that it had one, without gaps once it has chosen. Who has
-- no row has the default plan. What plans are stands in config/plans.toml; `terms` are what the file said of price, calls
-- and overage when the time began, and what the operator has agreed beside it.
CREATE TABLE identity.organization_plan (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    plan_id         uuid NOT NULL,
    terms           jsonb NOT NULL,
    started_at      timestamptz NOT NULL,
    ends_at         timestamptz,
    set_by          uuid REFERENCES identity.account,      -- NULL: the operator
    cancelled_at    timestamptz,                           -- when another plan was chosen for its end
    cancelled_by    uuid REFERENCES identity.account,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (ends_at > started_at),
    UNIQUE (organization_id, started_at)
);
CREATE UNIQUE INDEX organization_plan_open ON identity.organization_plan (organization_id) WHERE ends_at IS NULL;
CREATE INDEX organization_plan_time ON identity.organization_plan (started_at, ends_at);

-- A plan decides what keys may do, so workers hear of it as they hear of a revocation.
CREATE FUNCTION identity.tell_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_identity', 'organization:' || coalesce(NEW.organization_id, OLD.organization_id));
    RETURN NULL;
END $$;
CREATE TRIGGER organization_plan_changed AFTER INSERT OR UPDATE OR DELETE ON identity.organization_plan
    FOR EACH ROW EXECUTE FUNCTION identity.tell_plan();

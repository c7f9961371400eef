-- What an API key may spend at most: per call, per UTC day and per UTC month, in atomic units of one ledger asset; null
-- is no limit. What was spent is counted in the ledger under `budget_scope`, which outlives the key when a recovery
-- replaces it, and outlasts changes of the limits.
ALTER TABLE identity.api_key
    ADD COLUMN budget_scope     uuid,
    ADD COLUMN budget_asset     uuid REFERENCES catalog.asset,
    ADD COLUMN budget_per_call  numeric(39,0) CHECK (budget_per_call >= 0),
    ADD COLUMN budget_per_day   numeric(39,0) CHECK (budget_per_day >= 0),
    ADD COLUMN budget_per_month numeric(39,0) CHECK (budget_per_month >= 0),
    -- What readers take: nothing for a key without a limit.
    ADD COLUMN budget text[] GENERATED ALWAYS AS (
        CASE WHEN coalesce(budget_per_call, budget_per_day, budget_per_month) IS NOT NULL
             THEN ARRAY[budget_scope::text, budget_asset::text, budget_per_call::text, budget_per_day::text,
                        budget_per_month::text] END) STORED,
    ADD CONSTRAINT budget_is_whole CHECK (
        (budget_scope IS NULL) = (budget_asset IS NULL)
        AND (budget_scope IS NOT NULL OR coalesce(budget_per_call, budget_per_day, budget_per_month) IS NULL));

-- A budget narrows what a key may do, so workers hear of it as they hear of a revocation.
DROP TRIGGER api_key_changed ON identity.api_key;
CREATE TRIGGER api_key_changed
    AFTER UPDATE OF revoked_at, expires_at, secret_hash, budget_scope, budget_per_call, budget_per_day, budget_per_month
    ON identity.api_key FOR EACH ROW EXECUTE FUNCTION identity.tell_changed();

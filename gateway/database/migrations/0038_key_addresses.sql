-- Where an API key may be used from; null is anywhere.
ALTER TABLE identity.api_key
    ADD COLUMN addresses cidr[] CHECK (cardinality(addresses) BETWEEN 1 AND 64);

-- It narrows what a key may do, so workers hear of it as they hear of a revocation.
DROP TRIGGER api_key_changed ON identity.api_key;
CREATE TRIGGER api_key_changed
    AFTER UPDATE OF revoked_at, expires_at, secret_hash, budget_scope, budget_per_call, budget_per_day, budget_per_month,
                    scopes, addresses
    ON identity.api_key FOR EACH ROW EXECUTE FUNCTION identity.tell_changed();

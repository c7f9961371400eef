-- What operators decided about exchanges that had no end of their own: the audit line of each decision.
CREATE TABLE ledger.resolution (
    exchange_id uuid NOT NULL,
    decision    text NOT NULL CHECK (decision IN ('refund', 'keep')),
    verdict     text NOT NULL,                  -- what the ledger then did
    actor       text NOT NULL,
    note        text,
    decided_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX resolution_exchange ON ledger.resolution (exchange_id);
CREATE TRIGGER resolution_immutable BEFORE UPDATE OR DELETE ON ledger.resolution
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

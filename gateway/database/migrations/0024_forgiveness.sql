-- A third decision: what was delivered on trust and never paid stops counting against its wallet.
ALTER TABLE ledger.resolution DROP CONSTRAINT resolution_decision_check;
ALTER TABLE ledger.resolution ADD CONSTRAINT resolution_decision_check CHECK (decision IN ('refund', 'keep', 'forgive'));

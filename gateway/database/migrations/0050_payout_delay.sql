-- A payout to another address than its publisher's waits, so that somebody can notice and cancel it.
ALTER TABLE chain.payout ADD COLUMN free_at timestamptz NOT NULL DEFAULT now();

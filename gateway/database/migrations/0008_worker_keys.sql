-- Which secret keys each gateway process has, current first: a rotation must not use one that a running gateway lacks.
ALTER TABLE ledger.worker ADD COLUMN secret_keys text[] NOT NULL DEFAULT '{}';

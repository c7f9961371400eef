-- Payments that are settled for other sellers, and wallets that prove themselves by a signature.

-- Who asked for a settlement. `told_at`: that it succeeded is told once, so that nobody delivers twice for one payment.
CREATE TABLE chain.facilitated (
    payment_id      uuid PRIMARY KEY REFERENCES chain.payment ON DELETE CASCADE,
    organization_id uuid REFERENCES identity.organization,      -- NULL: asked without an API key
    idempotency_key text CHECK (length(idempotency_key) <= 255),
    told_at         timestamptz
);

-- Whoever holds a wallet's key is an account of its own: one per network and address (CAIP-10), because what is one
-- owner's contract wallet on one chain may be another's on the next.
ALTER TABLE identity.account DROP CONSTRAINT account_kind_check;
ALTER TABLE identity.account ADD CONSTRAINT account_kind_check CHECK (kind IN ('agent', 'human', 'service', 'wallet'));

-- Nonces of wallet proofs that were used, until they could not be used any more anyway.
CREATE TABLE identity.used_nonce (
    nonce           text PRIMARY KEY,
    expires_at      timestamptz NOT NULL
);
CREATE INDEX used_nonce_expiry ON identity.used_nonce (expires_at);

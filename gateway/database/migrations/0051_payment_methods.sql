-- Ways to pay that organizations have stored. Stripe has the numbers; here is what is shown of them.
CREATE TABLE card.payment_method (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    stripe_id       text NOT NULL UNIQUE,
    kind            text NOT NULL,
    brand           text,
    last4           text,
    exp_month       integer,
    exp_year        integer,
    fingerprint     text,                   -- the same card has the same, whoever stores it
    is_default      boolean NOT NULL,
    added_by        uuid NOT NULL REFERENCES identity.account,
    added_at        timestamptz NOT NULL DEFAULT now(),
    removed_at      timestamptz,
    detached_at     timestamptz,            -- Stripe has taken it from its customer
    CHECK (NOT is_default OR removed_at IS NULL)
);
CREATE INDEX payment_method_organization ON card.payment_method (organization_id, added_at) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX payment_method_default ON card.payment_method (organization_id) WHERE is_default;
CREATE INDEX payment_method_detaching ON card.payment_method (removed_at) WHERE removed_at IS NOT NULL AND detached_at IS NULL;

-- One card earns its bonus once, whoever stores it.
CREATE TABLE card.bonus (
    fingerprint     text PRIMARY KEY,
    account_id      uuid NOT NULL UNIQUE REFERENCES identity.account,
    claimed_at      timestamptz NOT NULL DEFAULT now()
);

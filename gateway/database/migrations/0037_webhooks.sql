-- Webhooks: endpoints of organizations, the outbox of events, and what became of each delivery.
CREATE SCHEMA webhook;

CREATE TABLE webhook.endpoint (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL REFERENCES identity.organization,
    name             text NOT NULL,
    url              text NOT NULL,
    events           text[] NOT NULL,
    enabled          boolean NOT NULL DEFAULT true,
    disabled_reason  text,
    failing_since    timestamptz,          -- null: the last try succeeded
    secret           bytea NOT NULL,       -- sealed, as is the one before it, which signs too until previous_until
    previous_secret  bytea,
    previous_until   timestamptz,
    created_by       uuid NOT NULL REFERENCES identity.account,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX endpoint_organization ON webhook.endpoint (organization_id, created_at DESC);

CREATE TABLE webhook.event (
    id               uuid PRIMARY KEY,
    organization_id  uuid NOT NULL,
    type             text NOT NULL,
    data             jsonb NOT NULL,
    created_at       timestamptz NOT NULL
);
CREATE INDEX event_created ON webhook.event (created_at);

-- One event for one endpoint. `place` is the order of first tries.
CREATE TABLE webhook.delivery (
    id            uuid PRIMARY KEY,
    endpoint_id   uuid NOT NULL REFERENCES webhook.endpoint ON DELETE CASCADE,
    event_id      uuid NOT NULL REFERENCES webhook.event ON DELETE CASCADE,
    place         bigint GENERATED ALWAYS AS IDENTITY,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts      integer NOT NULL DEFAULT 0,
    next_at       timestamptz NOT NULL DEFAULT now(),
    leased_until  timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX delivery_due ON webhook.delivery (next_at) WHERE state = 'pending';
CREATE INDEX delivery_first ON webhook.delivery (endpoint_id, place) WHERE state = 'pending' AND attempts = 0;
CREATE INDEX delivery_endpoint ON webhook.delivery (endpoint_id, place DESC);
CREATE INDEX delivery_event ON webhook.delivery (event_id);

-- The delivery log: one row a try.
CREATE TABLE webhook.attempt (
    id               uuid PRIMARY KEY,
    endpoint_id      uuid NOT NULL REFERENCES webhook.endpoint ON DELETE CASCADE,
    delivery_id      uuid NOT NULL REFERENCES webhook.delivery ON DELETE CASCADE,
    number           integer NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    response_status  integer,
    response_body    text,
    error            text,
    delivered_at     timestamptz,
    next_retry_at    timestamptz
);
CREATE INDEX attempt_endpoint ON webhook.attempt (endpoint_id, created_at DESC, id DESC);
CREATE INDEX attempt_delivery ON webhook.attempt (delivery_id);

-- What an alert was last said for, so that it is said once: (wallet.low_balance, wallet) or (api_key.budget_reached, …).
CREATE TABLE webhook.alert (
    kind     text NOT NULL,
    subject  text NOT NULL,
    said_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, subject)
);
-- Alerts look for deposits by their wallets.
CREATE INDEX payment_deposit ON chain.payment (wallet_id) WHERE booking = 'deposit';

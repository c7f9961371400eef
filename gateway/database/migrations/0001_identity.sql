-- Who is who: accounts, organizations, API keys.
CREATE SCHEMA identity;

CREATE TABLE identity.account (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('agent', 'human', 'service')),
    name            text NOT NULL,
    email           text,
    avatar_url      text,
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'disabled', 'deleted')),
    referral_code   text NOT NULL UNIQUE,
    referred_by     uuid REFERENCES identity.account,
    referred_at     timestamptz,
    -- sha256 of the normalised code: 24 random characters (over 110 bits) need no slow hash
    recovery_hash   bytea UNIQUE,
    recovery_email  text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (referred_by IS DISTINCT FROM id)
);
-- Agent names are unique, as the contract's generated ones promise; people may share a name.
CREATE UNIQUE INDEX account_agent_name ON identity.account (lower(name)) WHERE kind = 'agent';
CREATE UNIQUE INDEX account_email ON identity.account (lower(email)) WHERE kind = 'human';
CREATE INDEX account_referred_by ON identity.account (referred_by) WHERE referred_by IS NOT NULL;

CREATE TABLE identity.organization (
    id                  uuid PRIMARY KEY,
    name                text NOT NULL,
    slug                text NOT NULL UNIQUE,
    is_personal         boolean NOT NULL DEFAULT false,
    created_by          uuid NOT NULL REFERENCES identity.account,
    stripe_customer_id  text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz
);

CREATE TABLE identity.membership (
    organization_id uuid NOT NULL REFERENCES identity.organization,
    account_id      uuid NOT NULL REFERENCES identity.account,
    role            text NOT NULL CHECK (role IN ('owner', 'admin', 'editor', 'viewer')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, account_id)
);
CREATE INDEX membership_account ON identity.membership (account_id);

CREATE TABLE identity.api_key (
    id              uuid PRIMARY KEY,
    key_id          text NOT NULL UNIQUE,      -- the public middle part of seren_<key_id>_<secret>
    secret_hash     bytea NOT NULL,            -- sha256 of the secret: 256 random bits need no slow hash
    name            text NOT NULL,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    account_id      uuid NOT NULL REFERENCES identity.account,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz
);
CREATE INDEX api_key_organization ON identity.api_key (organization_id, created_at DESC);
CREATE INDEX api_key_account ON identity.api_key (account_id);

-- Workers cache principals; every change that could narrow one is told to all of them at commit.
CREATE FUNCTION identity.tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_identity', CASE TG_TABLE_NAME
        WHEN 'api_key' THEN 'key:' || NEW.key_id
        ELSE 'account:' || NEW.id END);
    RETURN NULL;
END $$;
CREATE TRIGGER api_key_changed AFTER UPDATE OF revoked_at, expires_at, secret_hash ON identity.api_key
    FOR EACH ROW EXECUTE FUNCTION identity.tell_changed();
CREATE TRIGGER account_changed AFTER UPDATE OF status ON identity.account
    FOR EACH ROW EXECUTE FUNCTION identity.tell_changed();

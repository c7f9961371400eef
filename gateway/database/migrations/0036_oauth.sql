-- OAuth: servers at which callers let the gateway act for them, who has done so, and who is just about to.
CREATE SCHEMA oauth;

CREATE TABLE oauth.provider (
    id                          uuid PRIMARY KEY,
    organization_id             uuid REFERENCES identity.organization,  -- null: the platform's own, for everybody
    slug                        text NOT NULL,
    name                        text NOT NULL,
    description                 text,
    logo_url                    text,
    authorization_url           text NOT NULL,
    token_url                   text NOT NULL,
    userinfo_url                text,
    revocation_url              text,
    issuer                      text,
    client_id                   text NOT NULL,
    client_secret               bytea NOT NULL,                         -- sealed
    scopes                      text[] NOT NULL,
    pkce_required               boolean NOT NULL,
    token_endpoint_auth_method  text NOT NULL,
    is_active                   boolean NOT NULL DEFAULT true,
    -- Where tokens may go. Of an organization's provider they may go to whatever it publishes; of the platform's only
    -- there, because anybody may publish.
    hosts                       text[],
    created_by                  uuid NOT NULL REFERENCES identity.account,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now(),
    CHECK (organization_id IS NOT NULL OR cardinality(hosts) > 0),
    UNIQUE NULLS NOT DISTINCT (organization_id, slug)
);

CREATE TABLE oauth.connection (
    id                uuid PRIMARY KEY,
    provider_id       uuid NOT NULL REFERENCES oauth.provider ON DELETE CASCADE,
    account_id        uuid NOT NULL REFERENCES identity.account,
    tokens            bytea,                                            -- sealed; null: has to be connected again
    refreshable       boolean NOT NULL,
    scopes            text[] NOT NULL,
    provider_user_id  text,
    provider_email    text,
    expires_at        timestamptz,                                      -- when the access token ends, if that is known
    renewed_at        timestamptz NOT NULL DEFAULT now(),
    version           bigint NOT NULL DEFAULT 1,
    refreshing_until  timestamptz,                                      -- some worker asks for new tokens until then
    created_at        timestamptz NOT NULL DEFAULT now(),
    last_used_at      timestamptz,
    UNIQUE (provider_id, account_id)
);
CREATE INDEX connection_account ON oauth.connection (account_id);

-- A consent under way: one row from the redirect to the provider until its answer is taken, once.
CREATE TABLE oauth.flow (
    key_hash      bytea PRIMARY KEY,    -- of the state, and once it is back of the ticket of the page that asks
    stage         text NOT NULL CHECK (stage IN ('begun', 'returned')),
    provider_id   uuid NOT NULL REFERENCES oauth.provider ON DELETE CASCADE,
    account_id    uuid NOT NULL REFERENCES identity.account,
    browser_hash  bytea NOT NULL,       -- of the cookie that the browser got which began it
    secrets       bytea NOT NULL,       -- sealed
    callback      text NOT NULL,
    target        text NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX flow_provider ON oauth.flow (provider_id);
CREATE INDEX flow_account ON oauth.flow (account_id, expires_at);
CREATE INDEX flow_expires ON oauth.flow (expires_at);

-- Workers keep callers' tokens; every change of a connection or a provider is told to all of them at commit.
CREATE FUNCTION oauth.tell_connection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_oauth', 'connection:' || OLD.account_id || ':' || OLD.provider_id);
    RETURN NULL;
END $$;
CREATE TRIGGER connection_changed AFTER UPDATE OF tokens OR DELETE ON oauth.connection
    FOR EACH ROW EXECUTE FUNCTION oauth.tell_connection();
CREATE FUNCTION oauth.tell_provider() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_oauth', 'provider:' || OLD.id);
    RETURN NULL;
END $$;
CREATE TRIGGER provider_changed AFTER UPDATE OR DELETE ON oauth.provider
    FOR EACH ROW EXECUTE FUNCTION oauth.tell_provider();

-- People: e-mail accounts with a password, their sessions, and letters on their way to them. Tokens are 256 random bits
-- each, of which only sha256 is stored.
ALTER TABLE identity.account
    ADD COLUMN password_hash text,               -- argon2id
    ADD CONSTRAINT account_email_is_plain CHECK (email = lower(email) OR kind <> 'human');

-- An account comes into being when its address is proven. Until then there may be several sign-ups for one address, each
-- with its own password: the one whose letter is answered becomes the account.
CREATE TABLE identity.signup (
    id              uuid PRIMARY KEY,
    email           text NOT NULL,
    name            text NOT NULL,
    password_hash   text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL
);
CREATE INDEX signup_email ON identity.signup (email, created_at DESC);
CREATE INDEX signup_expiry ON identity.signup (expires_at);

-- What a link in a letter carries: works once, within its time. Kept for a while afterwards, to tell used from unknown.
CREATE TABLE identity.mail_token (
    hash            bytea PRIMARY KEY,
    signup_id       uuid REFERENCES identity.signup ON DELETE CASCADE,
    account_id      uuid REFERENCES identity.account,
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    CHECK (num_nonnulls(signup_id, account_id) = 1)
);
CREATE INDEX mail_token_account ON identity.mail_token (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX mail_token_signup ON identity.mail_token (signup_id) WHERE signup_id IS NOT NULL;
CREATE INDEX mail_token_expiry ON identity.mail_token (expires_at);

CREATE TABLE identity.session (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES identity.account,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_active_at  timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    ended_by        text CHECK (ended_by IN ('logout', 'revoked', 'reuse', 'password')),
    ip_address      text,
    user_agent      text,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
CREATE INDEX session_account ON identity.session (account_id) WHERE ended_at IS NULL;
CREATE INDEX session_expiry ON identity.session (expires_at);

-- Access tokens live for minutes; refresh tokens work once. A used one is kept as long as its session: whoever shows it
-- again has a copy, or lost it to somebody who has.
CREATE TABLE identity.session_token (
    hash            bytea PRIMARY KEY,
    session_id      uuid NOT NULL REFERENCES identity.session ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('access', 'refresh')),
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz
);
CREATE INDEX session_token_session ON identity.session_token (session_id);
CREATE INDEX session_token_expiry ON identity.session_token (expires_at);

-- Letters that are to be sent, written in the transaction of what they tell. No token is in here: a link's is made when
-- the letter is sent. What was sent is deleted.
CREATE TABLE identity.letter (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL,
    recipient       text NOT NULL,
    about           uuid,
    created_at      timestamptz NOT NULL DEFAULT now(),
    tries           integer NOT NULL DEFAULT 0,
    next_try_at     timestamptz NOT NULL DEFAULT now(),
    failed_at       timestamptz,
    error           text
);
CREATE INDEX letter_due ON identity.letter (next_try_at) WHERE failed_at IS NULL;

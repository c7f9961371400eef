-- Shared organizations: custom roles, invitations, and API keys that may do less than their owner.

-- What a membership is called by outside, and a role that the organization made itself. Built-in roles are code.
CREATE TABLE identity.role (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    name            text NOT NULL,
    description     text,
    permissions     text[] NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, id)
);
CREATE UNIQUE INDEX role_name ON identity.role (organization_id, lower(name));

ALTER TABLE identity.membership
    ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    ADD COLUMN role_id uuid,
    DROP CONSTRAINT membership_role_check,
    ADD CONSTRAINT membership_role_is_known CHECK (role IN ('owner', 'admin', 'editor', 'viewer', 'custom')),
    ADD CONSTRAINT membership_custom_role_has_an_id CHECK ((role = 'custom') = (role_id IS NOT NULL)),
    -- Of the same organization; and a role that a member has stays.
    ADD CONSTRAINT membership_role_of_organization FOREIGN KEY (organization_id, role_id)
        REFERENCES identity.role (organization_id, id);
CREATE INDEX membership_role ON identity.membership (organization_id, role_id) WHERE role_id IS NOT NULL;

-- An invitation ends in one way; what has ended stays listed, also when its custom role is gone.
CREATE TABLE identity.invitation (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES identity.organization,
    email           text NOT NULL,
    role            text NOT NULL,
    role_id         uuid REFERENCES identity.role ON DELETE SET NULL,
    invited_by      uuid NOT NULL REFERENCES identity.account,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    accepted_at     timestamptz,
    accepted_by     uuid REFERENCES identity.account,
    declined_at     timestamptz,
    revoked_at      timestamptz,
    CHECK (num_nonnulls(accepted_at, declined_at, revoked_at) <= 1),
    CHECK ((accepted_at IS NULL) = (accepted_by IS NULL))
);
CREATE INDEX invitation_organization ON identity.invitation (organization_id, created_at DESC);
CREATE INDEX invitation_role ON identity.invitation (role_id) WHERE role_id IS NOT NULL;
-- One invitation may have several: the one that the inviter was shown, and one for each letter.
CREATE TABLE identity.invitation_token (
    hash            bytea PRIMARY KEY,
    invitation_id   uuid NOT NULL REFERENCES identity.invitation
);
CREATE INDEX invitation_token_invitation ON identity.invitation_token (invitation_id);

-- What a key may do; null is all that its owner may.
ALTER TABLE identity.api_key ADD COLUMN scopes text[];

-- Keys end with the membership that they act by; workers hear of it as they hear of a revocation.
CREATE FUNCTION identity.tell_member_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_identity', 'account:' || OLD.account_id);
    RETURN NULL;
END $$;
CREATE TRIGGER membership_gone AFTER DELETE ON identity.membership
    FOR EACH ROW EXECUTE FUNCTION identity.tell_member_gone();
CREATE FUNCTION identity.tell_organization_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tollway_identity', 'account:' || account_id)
       FROM identity.membership WHERE organization_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER organization_gone AFTER UPDATE OF deleted_at ON identity.organization
    FOR EACH ROW EXECUTE FUNCTION identity.tell_organization_gone();

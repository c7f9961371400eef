-- Suspensions: what an operator has stopped, and which only an operator starts again (gateway/suspensions.py).
--
-- The subject is a publisher's, account's or organization's id, a key's row, or a wallet: `agent:<account>` for prepaid
-- money, `0x…` in lower case for an address on any chain.
CREATE TABLE identity.suspension (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('publisher', 'key', 'account', 'organization', 'wallet')),
    subject      text NOT NULL,
    reason       text NOT NULL,              -- shown to the owner
    note         text,                       -- for operators only
    suspended_by text NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),
    lifted_by    text,
    lifted_at    timestamptz,
    lift_note    text,
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE UNIQUE INDEX suspension_live ON identity.suspension (kind, subject) WHERE lifted_at IS NULL;
CREATE INDEX suspension_subject ON identity.suspension (kind, subject, since);

-- Whether the publisher, or its organization, is suspended. Kept by the triggers below, so that what reads the catalog
-- needs no look at suspensions.
ALTER TABLE catalog.publisher ADD COLUMN suspended boolean NOT NULL DEFAULT false;

-- What an owner is told of the suspension of a (kind, subject); NULL without one.
CREATE FUNCTION identity.suspension_told(s identity.suspension) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN s.id IS NOT NULL THEN jsonb_build_object('kind', s.kind, 'reason', s.reason, 'since', s.since) END
$$;

-- The suspension by which a key, account or organization is stopped. An account's personal organization goes with it.
CREATE FUNCTION identity.suspension_of(p_key uuid, p_account uuid, p_organization uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT identity.suspension_told(s) FROM identity.suspension s
     WHERE s.lifted_at IS NULL
       AND (s.kind, s.subject) IN (
               ('key', p_key::text), ('account', p_account::text), ('organization', p_organization::text),
               ('account', (SELECT o.created_by::text FROM identity.organization o
                             WHERE o.id = p_organization AND o.is_personal)))
     ORDER BY array_position(ARRAY['key', 'account', 'organization'], s.kind) LIMIT 1
$$;

-- The suspension by which a publisher is stopped.
CREATE FUNCTION identity.suspension_of_publisher(p_publisher uuid, p_organization uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT identity.suspension_told(s) FROM identity.suspension s
          WHERE s.kind = 'publisher' AND s.subject = p_publisher::text AND s.lifted_at IS NULL),
        identity.suspension_of(NULL, NULL, p_organization))
$$;

-- The suspension of an account's prepaid money.
CREATE FUNCTION identity.suspension_of_wallet(p_account uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT identity.suspension_told(s) FROM identity.suspension s
     WHERE s.kind = 'wallet' AND s.subject = 'agent:' || p_account::text AND s.lifted_at IS NULL
$$;

-- A suspension began or was lifted: publishers follow, and every worker hears whom to look up again.
CREATE FUNCTION identity.suspension_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind IN ('publisher', 'organization', 'account') THEN
        UPDATE catalog.publisher p SET suspended = f.suspended
          FROM (SELECT q.id, identity.suspension_of_publisher(q.id, q.organization_id) IS NOT NULL AS suspended
                  FROM catalog.publisher q
                 WHERE CASE NEW.kind WHEN 'publisher' THEN q.id = NEW.subject::uuid
                                     WHEN 'organization' THEN q.organization_id = NEW.subject::uuid
                                     ELSE q.organization_id IN (
                                         SELECT o.id FROM identity.organization o
                                          WHERE o.is_personal AND o.created_by = NEW.subject::uuid) END) f
         WHERE p.id = f.id AND p.suspended <> f.suspended;
    END IF;
    IF NEW.kind = 'key' THEN
        PERFORM pg_notify('tollway_identity', 'key:' || k.key_id) FROM identity.api_key k WHERE k.id = NEW.subject::uuid;
    ELSIF NEW.kind = 'wallet' AND NEW.subject LIKE 'agent:%' THEN
        PERFORM pg_notify('tollway_identity', 'account:' || substr(NEW.subject, 7));
    ELSIF NEW.kind = 'account' THEN
        PERFORM pg_notify('tollway_identity', 'account:' || NEW.subject);
        PERFORM pg_notify('tollway_identity', 'organization:' || o.id) FROM identity.organization o
          WHERE o.is_personal AND o.created_by = NEW.subject::uuid;
    ELSE
        PERFORM pg_notify('tollway_identity', NEW.kind || ':' || NEW.subject);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER suspension_changed AFTER INSERT OR UPDATE ON identity.suspension
    FOR EACH ROW EXECUTE FUNCTION identity.suspension_changed();

-- A publisher that is made, or moved, in a suspended organization is suspended as well.
CREATE FUNCTION catalog.inherit_suspension() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.suspended := identity.suspension_of_publisher(NEW.id, NEW.organization_id) IS NOT NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER publisher_suspended BEFORE INSERT OR UPDATE OF organization_id ON catalog.publisher
    FOR EACH ROW EXECUTE FUNCTION catalog.inherit_suspension();

-- Whether money may leave for a publisher: neither it nor its organization nor the address is suspended. What is not
-- sent stays queued.
CREATE FUNCTION chain.may_pay_out(p_publisher uuid, p_destination bytea) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM catalog.publisher p WHERE p.id = p_publisher AND p.suspended)
       AND NOT EXISTS (SELECT FROM identity.suspension s
                        WHERE s.kind = 'wallet' AND s.subject = '0x' || encode(p_destination, 'hex')
                          AND s.lifted_at IS NULL)
$$;

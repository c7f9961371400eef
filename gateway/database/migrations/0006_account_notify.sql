-- The trigger of 0001 named a column that only one of its two tables has, so that no account's status could change.
CREATE OR REPLACE FUNCTION identity.tell_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'api_key' THEN
        PERFORM pg_notify('tollway_identity', 'key:' || NEW.key_id);
    ELSE
        PERFORM pg_notify('tollway_identity', 'account:' || NEW.id);
    END IF;
    RETURN NULL;
END $$;

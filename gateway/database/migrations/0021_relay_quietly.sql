-- Hand a reserved payment to the relayer; p_amount (at most what was authorized) is what it settles. Returns the state.
-- Nobody waits for a deferred one: the relayer finds it when it looks next, with others. Telling it would also make all
-- commits wait for each other (the queue of notifications is locked).
CREATE OR REPLACE FUNCTION chain.submit(p_id uuid, p_amount numeric, p_fee numeric) RETURNS chain.state
LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
BEGIN
    SELECT * INTO STRICT p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF p.state = 'reserved' THEN
        UPDATE chain.payment SET state = 'pending', submitted_at = now(), check_at = now(),
               amount = coalesce(p_amount, amount), fee = coalesce(p_fee, fee) WHERE id = p_id;
        IF NOT p.deferred THEN
            PERFORM pg_notify('tollway_relay', p.network);
        END IF;
        RETURN 'pending';
    END IF;
    RETURN p.state;
END $$;

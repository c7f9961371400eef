-- Calls whose price is known when their answer is: what is settled of an authorization for at most so much.
DROP FUNCTION chain.deliver(uuid, integer, uuid, text, smallint, bytea, bytea, bytea, text, smallint, bigint, bigint, text,
                            bytea, bytea);

-- A call has its answer: keep it for whoever presents the payment again, record the end, and have the payment settled
-- (p_amount of it with p_fee; NULL: all of it); all of this or nothing. Returns the payment's state; 'cancelled': nothing
-- was written, because the payment was given up, or its call taken over, while this worker counted as dead.
CREATE FUNCTION chain.deliver(
    p_id uuid, p_worker integer, p_owner uuid, p_key text, p_answered smallint, p_headers bytea, p_answer bytea,
    p_request bytea, p_reason text, p_status smallint, p_bytes_in bigint, p_bytes_out bigint, p_method text,
    p_target bytea, p_body bytea, p_amount numeric, p_fee numeric
) RETURNS chain.state LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM chain.payment p WHERE p.id = p_id AND p.state <> 'cancelled' FOR UPDATE;
    IF NOT FOUND OR ledger.is_fenced(p_worker) THEN
        RETURN 'cancelled';
    END IF;
    IF ledger.store_answer(p_owner, p_key, p_id, p_answered, p_headers, p_answer, p_request, true, p_reason, p_status,
                           p_bytes_in, p_bytes_out, p_method, p_target, p_body) <> 'stored' THEN
        RETURN 'cancelled';
    END IF;
    RETURN chain.submit(p_id, p_amount, p_fee);
END $$;

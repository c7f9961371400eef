-- Calls that are paid on a chain: keeping their answers, and giving their money back.

-- Payments whose call brought nothing, while their money was on its way: it goes back once the chain says where it is.
CREATE TABLE chain.undelivered (
    payment_id  uuid PRIMARY KEY REFERENCES chain.payment ON DELETE CASCADE,
    reason      text NOT NULL,
    status      smallint,                       -- what the upstream answered, if it did
    made_at     timestamptz NOT NULL DEFAULT now()
);

-- A call has its answer: keep it for whoever presents the payment again, record the end, and have the payment settled;
-- all of it or nothing. Returns the payment's state; 'cancelled': nothing was written, because the payment was given up,
-- or its call taken over, while this worker counted as dead.
CREATE FUNCTION chain.deliver(
    p_id uuid, p_worker integer, p_owner uuid, p_key text, p_answered smallint, p_headers bytea, p_answer bytea,
    p_request bytea, p_reason text, p_status smallint, p_bytes_in bigint, p_bytes_out bigint, p_method text,
    p_target bytea, p_body bytea
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
    RETURN chain.submit(p_id, NULL, NULL);
END $$;

-- End a call that brought nothing: 'cancelled' (the authorization was never sent), 'repaid' (what was settled is owed
-- to the payer again), 'kept' (it went to the publisher's own address: nobody here can return it), 'failed' (nothing
-- moved), 'ended' (the call has its end, nothing is changed), 'waiting' (on its way: ask again).
CREATE FUNCTION chain.give_back(p_id uuid, p_reason text, p_status smallint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    p chain.payment;
    verdict text;
BEGIN
    SELECT * INTO p FROM chain.payment WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'cancelled';     -- and presented again since, as another call's
    END IF;
    IF EXISTS (SELECT FROM ledger.settlement s WHERE s.exchange_id = p_id) THEN
        verdict := 'ended';
    ELSIF p.state IN ('reserved', 'pending', 'cancelled') AND chain.cancel(p_id, p_reason) = 'cancelled' THEN
        verdict := 'cancelled';
    ELSIF p.state = 'confirmed' THEN
        verdict := CASE WHEN p.booking = 'earnings' THEN 'repaid' ELSE 'kept' END;
        IF verdict = 'repaid' THEN
            PERFORM chain.repay(p_id, p_reason);
        END IF;
        INSERT INTO ledger.settlement (exchange_id, outcome, reason, status)
        VALUES (p_id, CASE verdict WHEN 'repaid' THEN 'refunded' ELSE 'settled' END::ledger.outcome, p_reason, p_status);
    ELSIF p.state = 'failed' AND p.final THEN
        verdict := 'failed';
    ELSE    -- what has failed for now may still be executed by somebody who has seen it
        INSERT INTO chain.undelivered (payment_id, reason, status) VALUES (p_id, p_reason, p_status)
        ON CONFLICT DO NOTHING;
        RETURN CASE WHEN p.state = 'failed' THEN 'failed' ELSE 'waiting' END;
    END IF;
    DELETE FROM chain.undelivered u WHERE u.payment_id = p_id;
    RETURN verdict;
END $$;

-- What publishers have received on their own addresses is summed up for their statements.
CREATE INDEX payment_direct ON chain.payment (account_id) INCLUDE (amount) WHERE booking = 'direct' AND state = 'confirmed';

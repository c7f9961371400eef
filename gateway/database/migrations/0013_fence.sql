-- A worker that was taken for dead may still run: it stood still, or was cut off. From the moment at which it is fenced
-- nothing is charged or held in its name, however late its requests arrive, so what the reconciler then gives back stays
-- given back and a key that another call has taken over is not paid for twice.
ALTER TABLE ledger.worker ADD COLUMN fenced_at timestamptz;
UPDATE ledger.worker SET fenced_at = reconciled_at;

-- Whether a worker may no longer move money. The lock keeps it unfenced until the caller's transaction ends; heartbeats
-- do not wait for it, and whoever fences passes over a worker that is just charging.
CREATE FUNCTION ledger.is_fenced(p_worker integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_worker IS NULL THEN
        RETURN false;
    END IF;
    PERFORM FROM ledger.worker WHERE id = p_worker AND fenced_at IS NULL FOR KEY SHARE;
    RETURN NOT FOUND;
END $$;

-- The unguarded functions keep their bodies under other names; these are the doors now, with one more verdict: 'fenced'.
ALTER FUNCTION ledger.post_charges(uuid[], bigint[], uuid[], bigint[], numeric[], numeric[], integer, uuid[], text[],
    smallint[], bigint[], bigint[], text[], bytea[], bytea[]) RENAME TO post_charges_unfenced;
ALTER FUNCTION ledger.place_hold(uuid, bigint, uuid, bigint, numeric, integer) RENAME TO place_hold_unfenced;

CREATE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[]
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text) LANGUAGE plpgsql AS $$
BEGIN
    IF ledger.is_fenced(p_worker) THEN
        IF cardinality(p_ended) > 0 THEN  -- what was delivered before stays delivered, unless it was given back already
            PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false);
        END IF;
        RETURN QUERY SELECT 'fenced', '0', '0', '0', '0' FROM generate_subscripts(p_exchange, 1);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM ledger.post_charges_unfenced(
        p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, p_ended, p_reason, p_status,
        p_bytes_in, p_bytes_out, p_method, p_target, p_body);
END $$;

CREATE FUNCTION ledger.place_hold(
    p_exchange uuid, p_wallet bigint, p_publisher uuid, p_account bigint, p_amount numeric, p_worker integer,
    OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
BEGIN
    IF ledger.is_fenced(p_worker) THEN
        verdict := 'fenced'; available := 0;
        RETURN;
    END IF;
    SELECT h.verdict, h.available INTO verdict, available
      FROM ledger.place_hold_unfenced(p_exchange, p_wallet, p_publisher, p_account, p_amount, p_worker) h;
END $$;

-- Keep the answer of a call that has a key and settle its exchange, both or neither. 'stored', now or by an earlier try
-- of the same; 'lost': the key is another call's by now, or the charge was given back, and nothing was written.
CREATE FUNCTION ledger.store_answer(
    p_owner uuid, p_key text, p_exchange uuid, p_answered smallint, p_headers bytea, p_answer bytea, p_request bytea,
    p_settle boolean, p_reason text, p_status smallint, p_bytes_in bigint, p_bytes_out bigint, p_method text,
    p_target bytea, p_body bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    kept smallint;
BEGIN
    SELECT a.status INTO kept FROM ledger.answer a
     WHERE a.owner_id = p_owner AND a.key = p_key AND a.exchange_id = p_exchange FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'lost';
    END IF;
    IF kept IS NOT NULL THEN
        RETURN 'stored';
    END IF;
    IF p_settle THEN
        PERFORM ledger.settle(ARRAY[p_exchange], ARRAY[p_reason], ARRAY[p_status], ARRAY[p_bytes_in],
                              ARRAY[p_bytes_out], ARRAY[p_method], ARRAY[p_target], ARRAY[p_body], false);
        PERFORM FROM ledger.settlement s WHERE s.exchange_id = p_exchange AND s.outcome = 'settled';
        IF NOT FOUND THEN
            RETURN 'lost';
        END IF;
    END IF;
    UPDATE ledger.answer a SET status = p_answered, headers = p_headers, body = p_answer, body_hash = p_request
     WHERE a.owner_id = p_owner AND a.key = p_key;
    RETURN 'stored';
END $$;

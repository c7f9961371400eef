-- Exactly once: a key names a call, and the call's answer is kept for whoever asks again with it.
CREATE TABLE ledger.answer (
    owner_id        uuid NOT NULL,              -- the account whose key it is
    key             text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash    bytea NOT NULL,             -- sha256 of method, slug, path, query and the fields that matter
    body_hash       bytea,                      -- sha256 of the request body, known when it has been forwarded
    exchange_id     uuid NOT NULL,
    worker_id       integer,
    -- NULL while the call runs. A refused call (402, 429 ...) leaves no row: nothing happened that could repeat.
    status          smallint,
    headers         bytea,
    body            bytea,                      -- NULL in a finished row: delivered, but too large to keep
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX answer_expiring ON ledger.answer (expires_at);

-- Claim a key for an exchange. 'claimed'; 'running' (another call with this key is under way, or its worker died and the
-- reconciler has not been there yet); 'finished' (the stored answer is in the row). A key whose worker is dead and
-- reconciled is claimed anew: its money went back, and its caller never had a whole answer.
CREATE FUNCTION ledger.claim_answer(
    p_owner uuid, p_key text, p_request_hash bytea, p_exchange uuid, p_worker integer, p_lifetime interval,
    OUT verdict text, OUT request_hash bytea, OUT body_hash bytea, OUT exchange_id uuid, OUT status smallint,
    OUT headers bytea, OUT body bytea
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found_row ledger.answer;
    dead boolean;
BEGIN
    LOOP
        INSERT INTO ledger.answer AS a (owner_id, key, request_hash, exchange_id, worker_id, expires_at)
        VALUES (p_owner, p_key, p_request_hash, p_exchange, p_worker, now() + p_lifetime)
        ON CONFLICT (owner_id, key) DO NOTHING;
        IF FOUND THEN
            verdict := 'claimed'; request_hash := p_request_hash; exchange_id := p_exchange;
            RETURN;
        END IF;
        SELECT * INTO found_row FROM ledger.answer a WHERE a.owner_id = p_owner AND a.key = p_key FOR UPDATE;
        EXIT WHEN FOUND;    -- else it was removed meanwhile: try again
    END LOOP;
    dead := found_row.status IS NULL AND EXISTS (
        SELECT FROM ledger.worker w WHERE w.id = found_row.worker_id AND w.reconciled_at IS NOT NULL);
    IF dead OR found_row.expires_at <= now() THEN
        UPDATE ledger.answer a
           SET request_hash = p_request_hash, body_hash = NULL, exchange_id = p_exchange, worker_id = p_worker,
               status = NULL, headers = NULL, body = NULL, created_at = now(), expires_at = now() + p_lifetime
         WHERE a.owner_id = p_owner AND a.key = p_key;
        verdict := 'claimed'; request_hash := p_request_hash; exchange_id := p_exchange;
        RETURN;
    END IF;
    verdict := CASE WHEN found_row.status IS NULL THEN 'running' ELSE 'finished' END;
    request_hash := found_row.request_hash; body_hash := found_row.body_hash; exchange_id := found_row.exchange_id;
    status := found_row.status; headers := found_row.headers; body := found_row.body;
END $$;

-- Who relays, and since when it has not been heard of: a relayer that hangs with its lock is deposed by another.
CREATE TABLE chain.relayer (
    network     text NOT NULL,
    sender      bytea NOT NULL CHECK (octet_length(sender) = 20),
    pid         integer NOT NULL,               -- the database session that holds the lock and does all the writing
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (network, sender)
);

-- End the session of a relayer that has been silent for too long. Whatever its process does later, it can no longer
-- sign: nothing is broadcast that was not written over that session. Returns whether there was one to end.
CREATE FUNCTION chain.depose(p_network text, p_sender bytea, p_lock bigint, p_patience interval) RETURNS boolean
LANGUAGE sql AS $$
    SELECT coalesce(bool_or(pg_terminate_backend(r.pid)), false)
      FROM chain.relayer r
      JOIN pg_locks l ON l.pid = r.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND ((l.classid::bigint << 32) | l.objid::bigint) = p_lock
     WHERE r.network = p_network AND r.sender = p_sender AND r.seen_at < now() - p_patience
$$;

-- A payer's claims are decided by open and recently confirmed payments, however long its history is.
DROP INDEX chain.payment_payer;
CREATE INDEX payment_payer_open ON chain.payment (network, asset, payer) WHERE state NOT IN ('confirmed', 'cancelled');
CREATE INDEX payment_payer_confirmed ON chain.payment (network, asset, payer, block_number) WHERE state = 'confirmed';

CREATE OR REPLACE FUNCTION chain.reserve(
    p_id uuid, p_network text, p_verifier bytea, p_asset bytea, p_payer bytea, p_nonce bytea, p_method text,
    p_payee bytea, p_authorized numeric, p_valid_after bigint, p_valid_before bigint, p_signature bytea,
    p_deploy_target bytea, p_deploy_data bytea, p_deferred boolean, p_booking chain.booking, p_account bigint,
    p_fee numeric, p_wallet bigint, p_publisher uuid, p_request_hash bytea, p_worker integer, p_funds numeric,
    p_funds_block bigint, p_exposure numeric, OUT verdict text, OUT payment_id uuid, OUT available numeric
) LANGUAGE plpgsql AS $$
DECLARE
    earlier chain.payment;
    taken numeric;
    exposed numeric;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_network || encode(p_payer, 'hex'), 8402));
    SELECT * INTO earlier FROM chain.payment p
     WHERE p.network = p_network AND p.verifier = p_verifier AND p.payer = p_payer AND p.nonce = p_nonce FOR UPDATE;
    IF FOUND AND earlier.state <> 'cancelled' THEN
        verdict := 'known'; payment_id := earlier.id; available := 0;
        RETURN;
    END IF;
    -- Money that is on its way counts as gone; so does what arrived after the balance was read.
    SELECT coalesce(sum(p.authorized) FILTER (WHERE p.state <> 'failed'), 0),
           coalesce(sum(p.authorized) FILTER (WHERE p.deferred), 0)
      INTO taken, exposed
      FROM chain.payment p
     WHERE p.network = p_network AND p.asset = p_asset AND p.payer = p_payer AND p.state NOT IN ('confirmed', 'cancelled');
    IF p_funds IS NOT NULL THEN
        taken := taken + (SELECT coalesce(sum(p.amount), 0) FROM chain.payment p
                           WHERE p.network = p_network AND p.asset = p_asset AND p.payer = p_payer
                             AND p.state = 'confirmed' AND p.block_number > p_funds_block);
        available := greatest(p_funds - taken, 0);
        IF available < p_authorized THEN
            verdict := 'short';
            RETURN;
        END IF;
    END IF;
    IF p_exposure IS NOT NULL AND p_deferred AND exposed + p_authorized > p_exposure THEN
        verdict := 'exposed'; available := greatest(p_exposure - exposed, 0);
        RETURN;
    END IF;
    -- A cancelled claim was never sent anywhere: the authorization is as good as new.
    DELETE FROM chain.payment p WHERE p.id = earlier.id;
    INSERT INTO chain.payment (id, network, verifier, asset, payer, nonce, method, payee, authorized, amount, valid_after,
                               valid_before, signature, deploy_target, deploy_data, deferred, booking, account_id, fee,
                               wallet_id, publisher_id, request_hash, worker_id, since_block)
    VALUES (p_id, p_network, p_verifier, p_asset, p_payer, p_nonce, p_method, p_payee, p_authorized, p_authorized,
            p_valid_after, p_valid_before, p_signature, p_deploy_target, p_deploy_data, p_deferred, p_booking, p_account,
            p_fee, p_wallet, p_publisher, p_request_hash, p_worker, p_funds_block);
    verdict := 'reserved'; payment_id := p_id;
END $$;

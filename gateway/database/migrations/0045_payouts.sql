-- Payouts: what publishers have earned, sent to their addresses by the key that settles payments.
--
--   queued -> processing -> completed      processing: a signed transaction is stored; it ends when its block is final
--      \-> cancelled | failed               back from processing to queued only when that block is final and paid nothing
ALTER TABLE chain.sending DROP CONSTRAINT sending_purpose_check,
    ADD CONSTRAINT sending_purpose_check CHECK (purpose IN ('settle', 'repay', 'payout'));

CREATE TABLE chain.payout (
    id              uuid PRIMARY KEY,                       -- the ledger's cause
    organization_id uuid NOT NULL REFERENCES identity.organization,
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    asset_id        uuid NOT NULL REFERENCES catalog.asset, -- what is sent; it is booked in its ledger asset
    network         text NOT NULL,
    token           bytea NOT NULL CHECK (octet_length(token) = 20),
    destination     bytea NOT NULL CHECK (octet_length(destination) = 20),
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),
    penalties       numeric(39,0) NOT NULL DEFAULT 0,       -- how much of it comes from slashes; the rest from earnings
    description     text NOT NULL DEFAULT '',
    idempotency_key uuid,
    state           text NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    reason          text,                                   -- why it waits, or has ended without money
    needs_approval  boolean NOT NULL,
    requested_by    uuid NOT NULL,
    requested_at    timestamptz NOT NULL DEFAULT now(),
    approved_by     uuid,
    approved_at     timestamptz,
    sending_id      bigint REFERENCES chain.sending,
    transaction     bytea CHECK (octet_length(transaction) = 32),   -- the one that paid it, in a final block
    tries           integer NOT NULL DEFAULT 0,
    check_at        timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    CHECK (penalties >= 0 AND penalties <= amount),
    CHECK (approved_by <> requested_by),
    CHECK ((state = 'processing' AND sending_id IS NOT NULL) OR state <> 'processing'),
    CHECK ((state = 'completed') = (transaction IS NOT NULL)),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (ended_at IS NOT NULL))
);
CREATE UNIQUE INDEX payout_key ON chain.payout (publisher_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX payout_publisher ON chain.payout (publisher_id, id DESC);
CREATE INDEX payout_open ON chain.payout (network, check_at) WHERE state IN ('queued', 'processing');
CREATE INDEX payout_sending ON chain.payout (sending_id) WHERE sending_id IS NOT NULL;

-- Since when a publisher's address is what it is; NULL: it was never another.
ALTER TABLE catalog.publisher ADD COLUMN wallet_changed_at timestamptz;

-- The account that money of a publisher waits on while it is being paid out.
CREATE FUNCTION chain.paying_account(p_publisher uuid, p_asset uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_id bigint;
BEGIN
    INSERT INTO ledger.account (purpose, asset_id, publisher_id) VALUES ('paying_out', p_asset, p_publisher)
    ON CONFLICT DO NOTHING;
    SELECT id INTO STRICT found_id FROM ledger.account
     WHERE publisher_id = p_publisher AND asset_id = p_asset AND purpose = 'paying_out';
    RETURN found_id;
END $$;

-- Move a payout's money between where it was earned and where it waits: there (p_back false), or back.
CREATE FUNCTION chain.move_payout(p chain.payout, p_back boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asset uuid := (SELECT a.ledger_asset_id FROM catalog.asset a WHERE a.id = p.asset_id);
    paying bigint := chain.paying_account(p.publisher_id, asset);
    kind ledger.kind := CASE WHEN p_back THEN 'payout_back' ELSE 'payout' END;
    part record;
BEGIN
    FOR part IN SELECT a.id, v.leg, v.amount
                  FROM (VALUES ('earnings', 0, p.amount - p.penalties), ('penalties', 1, p.penalties))
                       AS v (purpose, leg, amount)
                  JOIN ledger.account a ON a.publisher_id = p.publisher_id AND a.asset_id = asset
                                       AND a.purpose::text = v.purpose
                 WHERE v.amount > 0
    LOOP
        IF p_back THEN
            PERFORM ledger.move(p.id, kind, part.leg::smallint, paying, part.id, part.amount, 0);
        ELSE
            PERFORM ledger.move(p.id, kind, part.leg::smallint, part.id, paying, part.amount, 0);
        END IF;
    END LOOP;
END $$;

-- Take an earned amount out for a payout. Whoever asks holds the publisher's row, and has looked that it is there.
CREATE FUNCTION chain.request_payout(
    p_id uuid, p_organization uuid, p_publisher uuid, p_asset uuid, p_network text, p_token bytea, p_destination bytea,
    p_amount numeric, p_penalties numeric, p_description text, p_key uuid, p_needs_approval boolean, p_requester uuid
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p chain.payout;
BEGIN
    INSERT INTO chain.payout (id, organization_id, publisher_id, asset_id, network, token, destination, amount, penalties,
                              description, idempotency_key, needs_approval, requested_by)
    VALUES (p_id, p_organization, p_publisher, p_asset, p_network, p_token, p_destination, p_amount, p_penalties,
            p_description, p_key, p_needs_approval, p_requester)
    RETURNING * INTO p;
    PERFORM chain.move_payout(p, false);
    PERFORM pg_notify('tollway_relay', p_network);
END $$;

-- A transaction in a final block has paid it. Asked again it moves nothing.
CREATE FUNCTION chain.complete_payout(p_id uuid, p_transaction bytea) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    p chain.payout;
    asset uuid;
BEGIN
    UPDATE chain.payout SET state = 'completed', reason = NULL, transaction = p_transaction, ended_at = now()
     WHERE id = p_id AND state = 'processing' RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT a.ledger_asset_id INTO asset FROM catalog.asset a WHERE a.id = p.asset_id;
    PERFORM ledger.move(p.id, 'paid_out', 0::smallint, chain.paying_account(p.publisher_id, asset),
                        ledger.platform_account(asset, 'clearing', p.network), p.amount, 0);
    RETURN true;
END $$;

-- Give a payout's money back that no transaction carries: 'cancelled' by somebody, or 'failed' for good.
CREATE FUNCTION chain.return_payout(p_id uuid, p_state text, p_reason text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    p chain.payout;
BEGIN
    UPDATE chain.payout SET state = p_state, reason = p_reason, ended_at = now()
     WHERE id = p_id AND state = 'queued' AND p_state IN ('cancelled', 'failed') RETURNING * INTO p;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM chain.move_payout(p, true);
    RETURN true;
END $$;

-- The money of a payout moves twice: a month is not archived between the two.
ALTER FUNCTION ledger.unfinished(uuid) RENAME TO unfinished_before_payouts;
CREATE FUNCTION ledger.unfinished(p_upto uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        ledger.unfinished_before_payouts(p_upto),
        (SELECT format('the payout %s has no end', p.id) FROM chain.payout p
          WHERE p.state IN ('queued', 'processing') AND p.id < p_upto LIMIT 1))
$$;

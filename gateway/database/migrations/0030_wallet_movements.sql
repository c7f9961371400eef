-- What its operator has moved into the buying wallet and out of it: each by its transaction, which was found on the chain,
-- and once. What purchases took out of it is in chain.purchase.
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'withdrawal';            -- buying wallet -> clearing or capital

CREATE TABLE chain.wallet_movement (
    cause_id    uuid PRIMARY KEY,                                       -- of its transfers
    network     text NOT NULL,                                          -- CAIP-2
    rail        text NOT NULL,                                          -- names the wallet's ledger account
    transaction bytea CHECK (octet_length(transaction) = 32),           -- NULL: it was there when a local chain began
    incoming    boolean NOT NULL,
    treasury    numeric(39,0) NOT NULL CHECK (treasury >= 0),           -- from the treasury, or to it
    outside     numeric(39,0) NOT NULL CHECK (outside >= 0),            -- from anywhere else, or to there
    booked_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (rail, transaction, incoming),
    CHECK (treasury + outside > 0)
);

-- Book a movement, and return whether it was not booked before.
DROP FUNCTION chain.fund_wallet(uuid, uuid, text, text, numeric, boolean);
CREATE FUNCTION chain.move_wallet(
    p_cause uuid, p_asset_id uuid, p_network text, p_rail text, p_transaction bytea, p_incoming boolean,
    p_treasury numeric, p_outside numeric
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    way ledger.kind := CASE WHEN p_incoming THEN 'funding' ELSE 'withdrawal' END;
    wallet bigint := ledger.platform_account(p_asset_id, 'buying', p_rail);
    part record;
BEGIN
    INSERT INTO chain.wallet_movement (cause_id, network, rail, transaction, incoming, treasury, outside)
    VALUES (p_cause, p_network, p_rail, p_transaction, p_incoming, p_treasury, p_outside) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR part IN
        SELECT * FROM (VALUES (0, ledger.platform_account(p_asset_id, 'clearing', p_network), p_treasury),
                              (1, ledger.platform_account(p_asset_id, 'capital'), p_outside)) AS p (leg, other, amount)
         WHERE p.amount > 0
    LOOP
        PERFORM ledger.move(
            p_cause, way, part.leg::smallint, CASE WHEN p_incoming THEN wallet ELSE part.other END,
            CASE WHEN p_incoming THEN part.other ELSE wallet END, part.amount, 0);
    END LOOP;
    RETURN true;
END $$;

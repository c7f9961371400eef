-- What the gateway buys from upstreams that sell by x402 themselves, for callers with a balance. A row is written, and
-- on disk, before the signature leaves: whatever dies afterwards, the chain is asked until it is known what was paid.
--
--   signed -> paid | unpaid | unknown      what the upstream's answer said of the payment; a crash leaves it at signed
--          -> bought | lapsed              final: the authorization was used, or nobody can use it any more
CREATE TYPE chain.purchase_state AS ENUM ('signed', 'paid', 'unpaid', 'unknown', 'bought', 'lapsed');

CREATE TABLE chain.purchase (
    exchange_id     uuid PRIMARY KEY,                   -- the call it was signed for; its hold is the agent's side
    publisher_id    uuid NOT NULL,
    network         text NOT NULL,                      -- CAIP-2
    asset           bytea NOT NULL CHECK (octet_length(asset) = 20),
    payer           bytea NOT NULL CHECK (octet_length(payer) = 20),        -- the buying wallet
    payee           bytea NOT NULL CHECK (octet_length(payee) = 20),
    nonce           bytea NOT NULL CHECK (octet_length(nonce) = 32),
    amount          numeric(39,0) NOT NULL CHECK (amount > 0),              -- atomic units
    valid_before    bigint NOT NULL,
    wallet_account  bigint NOT NULL REFERENCES ledger.account,              -- buying
    expense_account bigint NOT NULL REFERENCES ledger.account,              -- purchases
    state           chain.purchase_state NOT NULL DEFAULT 'signed',
    transaction     text,                               -- what the upstream says has moved the money; nobody's proof
    delivered       boolean NOT NULL DEFAULT false,     -- known with the final state: the agent was charged for it
    forgiven        boolean NOT NULL DEFAULT false,     -- undelivered, and no longer held against its publisher
    signed_at       timestamptz NOT NULL DEFAULT now(),
    check_at        timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,
    UNIQUE (network, asset, payer, nonce),
    CHECK ((ended_at IS NOT NULL) = (state IN ('bought', 'lapsed')))
);
CREATE INDEX purchase_open ON chain.purchase (network, check_at) WHERE ended_at IS NULL;
CREATE INDEX purchase_at_risk ON chain.purchase (publisher_id)
    WHERE NOT delivered AND NOT forgiven AND state <> 'lapsed';

-- What a publisher may still cost the platform: signed for it, and not delivered (yet), unless it can no longer be used.
CREATE FUNCTION chain.at_risk(p_publisher uuid) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(p.amount), 0) FROM chain.purchase p
     WHERE p.publisher_id = p_publisher AND NOT p.delivered AND NOT p.forgiven AND p.state <> 'lapsed'
       AND NOT EXISTS (SELECT FROM ledger.hold h WHERE h.exchange_id = p.exchange_id AND h.captured > 0)
$$;

-- Note a purchase before it is signed for. 'signed'; 'unheld' (the call's money is not held (any more): its worker was
-- taken for dead); 'exposed' (p_exposure would be exceeded; `available` is what is left of it); 'short' (the wallet had
-- p_funds, and too much of that is promised; NULL: not known). One at a time, so that no two promise the same money.
CREATE FUNCTION chain.sign_purchase(
    p_exchange uuid, p_publisher uuid, p_asset_id uuid, p_network text, p_asset bytea, p_payer bytea, p_payee bytea,
    p_nonce bytea, p_amount numeric, p_valid_before bigint, p_rail text, p_exposure numeric, p_funds numeric,
    OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(encode(p_payer, 'hex'), 8403));
    available := 0;
    PERFORM FROM ledger.hold h WHERE h.exchange_id = p_exchange AND h.status = 'pending' FOR SHARE;
    IF NOT FOUND THEN
        verdict := 'unheld';
        RETURN;
    END IF;
    available := greatest(p_exposure - chain.at_risk(p_publisher), 0);
    IF available < p_amount THEN
        verdict := 'exposed';
        RETURN;
    END IF;
    IF p_funds IS NOT NULL THEN
        SELECT greatest(p_funds - coalesce(sum(p.amount), 0), 0) INTO available FROM chain.purchase p
         WHERE p.ended_at IS NULL AND p.network = p_network AND p.asset = p_asset AND p.payer = p_payer;
        IF available < p_amount THEN
            verdict := 'short';
            RETURN;
        END IF;
    END IF;
    INSERT INTO chain.purchase (exchange_id, publisher_id, network, asset, payer, payee, nonce, amount, valid_before,
                                wallet_account, expense_account)
    VALUES (p_exchange, p_publisher, p_network, p_asset, p_payer, p_payee, p_nonce, p_amount, p_valid_before,
            ledger.platform_account(p_asset_id, 'buying', p_rail), ledger.platform_account(p_asset_id, 'purchases'));
    verdict := 'signed';
END $$;

-- End a purchase as the chain says, for good: 'bought' (the cost is booked, whoever got what for it), 'lapsed' (nobody
-- can use the authorization any more; a caller who was charged for it has its money back), 'waits' (its call is still
-- running), or the state in which it had ended before.
CREATE FUNCTION chain.end_purchase(p_exchange uuid, p_used boolean, p_grace interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    p chain.purchase;
    h ledger.hold;
BEGIN
    SELECT * INTO STRICT p FROM chain.purchase WHERE exchange_id = p_exchange FOR UPDATE;
    IF p.ended_at IS NOT NULL THEN
        RETURN p.state::text;
    END IF;
    SELECT * INTO STRICT h FROM ledger.hold WHERE exchange_id = p_exchange;
    IF h.status = 'pending' THEN
        RETURN 'waits';
    END IF;
    IF p_used THEN
        PERFORM ledger.move(p_exchange, 'purchase', 0::smallint, p.expense_account, p.wallet_account, p.amount, 0);
    ELSIF h.status = 'captured' THEN
        PERFORM ledger.refund(p_exchange, 'not_taken', NULL, p_grace, false);
    END IF;
    UPDATE chain.purchase SET state = CASE WHEN p_used THEN 'bought' ELSE 'lapsed' END::chain.purchase_state,
           delivered = (h.status = 'captured'), ended_at = now() WHERE exchange_id = p_exchange;
    RETURN CASE WHEN p_used THEN 'bought' ELSE 'lapsed' END;
END $$;

-- Book what has come into the buying wallet, once per cause: from the treasury on the same network, or from outside.
CREATE FUNCTION chain.fund_wallet(
    p_cause uuid, p_asset_id uuid, p_network text, p_rail text, p_amount numeric, p_from_treasury boolean
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN ledger.move(
        p_cause, 'funding', 0::smallint, ledger.platform_account(p_asset_id, 'buying', p_rail),
        CASE WHEN p_from_treasury THEN ledger.platform_account(p_asset_id, 'clearing', p_network)
             ELSE ledger.platform_account(p_asset_id, 'capital') END, p_amount, 0);
END $$;

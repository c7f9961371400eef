-- What may be lost to a server that is bought from is counted for its owner: publishers are free, and one that is paused
-- would only be made again. And for all owners together, who are free as well where everybody may be bought from. What
-- everybody gets for nothing (bonuses, claims, rewards) is counted too, or an owner who also makes the agents would collect
-- it; what the operator has granted is not.
ALTER TABLE chain.purchase
    ADD COLUMN organization_id uuid,                                            -- of the publisher, when it was signed
    ADD COLUMN bonuses numeric(39,0) NOT NULL DEFAULT 0 CHECK (bonuses >= 0);   -- of `amount`, paid with bonuses
UPDATE chain.purchase p SET organization_id = c.organization_id FROM catalog.publisher c WHERE c.id = p.publisher_id;
ALTER TABLE chain.purchase ALTER COLUMN organization_id SET NOT NULL;
DROP INDEX chain.purchase_at_risk;
CREATE INDEX purchase_at_risk ON chain.purchase (organization_id)
    WHERE NOT delivered AND NOT forgiven AND state <> 'lapsed';
CREATE INDEX purchase_bonuses ON chain.purchase (organization_id, signed_at) WHERE bonuses > 0;

-- What an owner, or with NULL all of them, may still cost the platform: signed, and not delivered (yet), unless it can no
-- longer be used.
DROP FUNCTION chain.at_risk(uuid);
CREATE FUNCTION chain.at_risk(p_organization uuid) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(p.amount), 0) FROM chain.purchase p
     WHERE (p_organization IS NULL OR p.organization_id = p_organization)
       AND NOT p.delivered AND NOT p.forgiven AND p.state <> 'lapsed'
       AND NOT EXISTS (SELECT FROM ledger.hold h WHERE h.exchange_id = p.exchange_id AND h.captured > 0)
$$;

-- What of a held call is paid with bonuses: captures take those first.
CREATE FUNCTION chain.bonuses_of(p_exchange uuid, p_amount numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT least(coalesce(sum(t.amount), 0), p_amount) FROM ledger.transfer t
      JOIN ledger.account a ON a.id = t.debit_account AND a.purpose = 'promotional' AND a.source <> 'admin_grant'
     WHERE t.cause_id = p_exchange AND t.kind = 'hold'
$$;

-- Note a purchase before it is signed for. 'signed'; 'unheld' (the call's money is not held (any more): its worker was
-- taken for dead); 'exposed' (p_exposure would be exceeded for the owner, or p_exposure_total for all; `available` is what
-- is left); 'bonuses' (the owner has had p_bonuses within 30 days); 'short' (the wallet had p_funds, and too much of that
-- is promised; NULL: not known). One at a time, so that no two promise the same money.
DROP FUNCTION chain.sign_purchase(uuid, uuid, uuid, text, bytea, bytea, bytea, bytea, numeric, bigint, text, numeric,
                                  numeric);
CREATE FUNCTION chain.sign_purchase(
    p_exchange uuid, p_publisher uuid, p_asset_id uuid, p_network text, p_asset bytea, p_payer bytea, p_payee bytea,
    p_nonce bytea, p_amount numeric, p_valid_before bigint, p_rail text, p_exposure numeric, p_exposure_total numeric,
    p_bonuses numeric, p_funds numeric, OUT verdict text, OUT available numeric
) LANGUAGE plpgsql AS $$
DECLARE
    owner uuid;
    of_bonuses numeric;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(encode(p_payer, 'hex'), 8403));
    available := 0;
    PERFORM FROM ledger.hold h WHERE h.exchange_id = p_exchange AND h.status = 'pending' FOR SHARE;
    IF NOT FOUND THEN
        verdict := 'unheld';
        RETURN;
    END IF;
    SELECT c.organization_id INTO STRICT owner FROM catalog.publisher c WHERE c.id = p_publisher;
    available := greatest(least(p_exposure - chain.at_risk(owner), p_exposure_total - chain.at_risk(NULL)), 0);
    IF available < p_amount THEN
        verdict := 'exposed';
        RETURN;
    END IF;
    of_bonuses := chain.bonuses_of(p_exchange, p_amount);
    IF of_bonuses > 0 THEN
        SELECT greatest(p_bonuses - coalesce(sum(p.bonuses), 0), 0) INTO available FROM chain.purchase p
         WHERE p.organization_id = owner AND p.bonuses > 0 AND p.signed_at > now() - interval '30 days'
           AND (p.ended_at IS NULL OR p.delivered) AND p.state <> 'lapsed';
        IF available < of_bonuses THEN
            verdict := 'bonuses';
            RETURN;
        END IF;
    END IF;
    IF p_funds IS NOT NULL THEN
        SELECT greatest(p_funds - coalesce(sum(p.amount), 0), 0) INTO available FROM chain.purchase p
         WHERE p.ended_at IS NULL AND p.network = p_network AND p.asset = p_asset AND p.payer = p_payer;
        IF available < p_amount THEN
            verdict := 'short';
            RETURN;
        END IF;
    END IF;
    INSERT INTO chain.purchase (exchange_id, publisher_id, organization_id, network, asset, payer, payee, nonce, amount,
                                bonuses, valid_before, wallet_account, expense_account)
    VALUES (p_exchange, p_publisher, owner, p_network, p_asset, p_payer, p_payee, p_nonce, p_amount, of_bonuses,
            p_valid_before, ledger.platform_account(p_asset_id, 'buying', p_rail),
            ledger.platform_account(p_asset_id, 'purchases'));
    verdict := 'signed';
END $$;

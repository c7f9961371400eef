-- What a batch of charges costs PostgreSQL whatever it holds: less.

-- Every update of a balance reads and evaluates the checks of its table. Those that say which account has which columns
-- are one, with short comparisons; what they allow is the same. Lots are the purposes up to 'funded'.
ALTER TABLE ledger.account
    DROP CONSTRAINT account_of_wallet,
    DROP CONSTRAINT account_of_publisher,
    DROP CONSTRAINT account_check1,
    DROP CONSTRAINT account_check2,
    DROP CONSTRAINT account_check4,
    ADD CONSTRAINT account_shape CHECK (
        (wallet_id IS NOT NULL) = (balance IS NOT NULL)
        AND CASE WHEN granted IS NOT NULL
                 THEN purpose <= 'funded' AND wallet_id IS NOT NULL AND fee_account_id IS NULL
                      AND (publisher_id IS NOT NULL) = (purpose = 'deposit')
                 ELSE purpose > 'funded' AND (wallet_id IS NOT NULL) = (purpose = 'held' OR purpose = 'disputed')
                      AND (publisher_id IS NOT NULL) = (purpose IN ('earnings', 'paying_out', 'penalties'))
                      AND (fee_account_id IS NULL OR purpose = 'earnings')
            END);

-- Charge many exchanges, count them, and record the ends of others, in one transaction, as before. Plans are generic for
-- everything in it. The ends that ride along with several charges are inserted plainly, which costs less than looking out
-- for conflicts: where one was recorded already, the batch fails with a unique violation and is sent again charge by
-- charge, as where an exchange was charged already. Alone a charge takes ends along that others may have recorded.
CREATE OR REPLACE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[], p_free uuid[] DEFAULT '{}', p_of integer[] DEFAULT '{}',
    p_scope uuid[] DEFAULT '{}', p_subject uuid[] DEFAULT '{}', p_kind text[] DEFAULT '{}',
    p_period date[] DEFAULT '{}', p_adds numeric[] DEFAULT '{}', p_money boolean[] DEFAULT '{}',
    p_least numeric[] DEFAULT '{}', p_most numeric[] DEFAULT '{}',
    p_endpoint text[] DEFAULT '{}', p_rows bigint[] DEFAULT '{}'
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text, kind text, counted text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    IF ledger.is_fenced(p_worker) THEN
        RETURN QUERY SELECT 'fenced', '0', '0', '0', '0', NULL, '0'
                       FROM generate_series(1, cardinality(p_exchange) + cardinality(p_free));
    ELSIF cardinality(p_of) = 0 THEN
        RETURN QUERY SELECT u.*, NULL::text, '0' FROM ledger.post_charges_unfenced(
            p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}') u;
    ELSE
        RETURN QUERY SELECT * FROM ledger.post_counted_charges(
            p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, p_free, p_of, p_scope, p_subject,
            p_kind, p_period, p_adds, p_money, p_least, p_most);
    END IF;
    -- Ends of a fenced worker too: what was delivered before it was fenced stays delivered.
    IF cardinality(p_ended) > 0 AND cardinality(p_exchange) + cardinality(p_free) > 1 THEN
        INSERT INTO ledger.settlement
            (exchange_id, outcome, reason, status, bytes_in, bytes_out, method, target_hash, body_hash, endpoint, row_count)
        SELECT e, 'settled', r, s, i, o, m, t, b, n, c
          FROM unnest(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, p_endpoint, p_rows)
               AS u (e, r, s, i, o, m, t, b, n, c);
    ELSIF cardinality(p_ended) > 0 THEN
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false,
                              p_endpoint, p_rows);
    END IF;
END $$;

-- Both are called by it alone, and it sets the same.
ALTER FUNCTION ledger.post_charges_unfenced(uuid[], bigint[], uuid[], bigint[], numeric[], numeric[], integer, uuid[],
    text[], smallint[], bigint[], bigint[], text[], bytea[], bytea[]) RESET ALL;
ALTER FUNCTION ledger.post_charge(uuid, bigint, uuid, bigint, numeric, numeric, integer) RESET ALL;

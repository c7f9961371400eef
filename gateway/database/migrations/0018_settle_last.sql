-- Ends that ride along with a batch are written after its charges. A refund locks its wallet and then writes an end, so a
-- batch that wrote the same end first and then waited for that wallet was in a deadlock with it (found by simulation).
CREATE OR REPLACE FUNCTION ledger.post_charges(
    p_exchange uuid[], p_wallet bigint[], p_publisher uuid[], p_account bigint[], p_amount numeric[], p_fee numeric[],
    p_worker integer, p_ended uuid[], p_reason text[], p_status smallint[], p_bytes_in bigint[], p_bytes_out bigint[],
    p_method text[], p_target bytea[], p_body bytea[]
) RETURNS TABLE (verdict text, available text, deposit text, promotional text, funded text) LANGUAGE plpgsql AS $$
BEGIN
    IF ledger.is_fenced(p_worker) THEN
        RETURN QUERY SELECT 'fenced', '0', '0', '0', '0' FROM generate_subscripts(p_exchange, 1);
    ELSE
        RETURN QUERY SELECT * FROM ledger.post_charges_unfenced(
            p_exchange, p_wallet, p_publisher, p_account, p_amount, p_fee, p_worker, '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}');
    END IF;
    IF cardinality(p_ended) > 0 THEN  -- of a fenced worker too: what was delivered before it was fenced stays delivered
        PERFORM ledger.settle(p_ended, p_reason, p_status, p_bytes_in, p_bytes_out, p_method, p_target, p_body, false);
    END IF;
END $$;

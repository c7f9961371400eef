-- What an account owes, by the index of the platform's accounts: without its condition every lot and every sum was read.
CREATE OR REPLACE FUNCTION card.owed(p_wallet bigint) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(s.debits - s.credits), 0)
      FROM ledger.wallet w
      JOIN ledger.account a ON a.asset_id = w.asset_id AND a.purpose = 'receivable' AND a.rail = 'account:' || w.owner_id
                           AND a.wallet_id IS NULL AND a.publisher_id IS NULL
      JOIN ledger.shard s ON s.account_id = a.id
     WHERE w.id = p_wallet
$$;

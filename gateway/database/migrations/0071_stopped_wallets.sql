-- Whether an operator has stopped an account's prepaid money: the wallet, the account, or its personal organization.
CREATE FUNCTION ledger.is_stopped(p_account uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        identity.suspension_of_wallet(p_account),
        identity.suspension_of(NULL, p_account, (SELECT o.id FROM identity.organization o
                                                  WHERE o.is_personal AND o.created_by = p_account LIMIT 1))) IS NOT NULL
$$;

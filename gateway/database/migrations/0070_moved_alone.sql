-- What an operator has moved without another one's word: grants, refunds and corrections count together against the bound
-- above which another operator has to approve, so that no bound is passed in parts.
CREATE TABLE ledger.moved_alone (
    id        uuid PRIMARY KEY,
    operator  text NOT NULL,                -- in lower case, as names of operators are compared
    kind      text NOT NULL CHECK (kind IN ('correction', 'refund', 'grant')),
    subject   text NOT NULL,                -- the wallet, or the call
    amount    numeric(39,0) NOT NULL CHECK (amount > 0),
    moved_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX moved_alone_lately ON ledger.moved_alone (operator, moved_at) INCLUDE (amount);
CREATE TRIGGER moved_alone_immutable BEFORE UPDATE OR DELETE ON ledger.moved_alone
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER moved_alone_kept BEFORE TRUNCATE ON ledger.moved_alone
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

INSERT INTO ledger.moved_alone (id, operator, kind, subject, amount, moved_at)
SELECT c.cause_id, lower(c.corrected_by), 'correction', w.address, c.amount, c.created_at
  FROM ledger.correction c JOIN ledger.wallet w ON w.id = c.wallet_id WHERE c.approved_by IS NULL;
DROP INDEX ledger.correction_alone;

-- What was bought from prepaid wallets, by the month in which it was booked: the lines of invoices. An archive keeps it in
-- place of its rows, so an invoice says the same whenever it is made.
CREATE TABLE ledger.carried_bought (
    archive_id      bigint NOT NULL REFERENCES ledger.archive,
    wallet_id       bigint NOT NULL REFERENCES ledger.wallet,
    month           date NOT NULL,
    kind            text NOT NULL,
    publisher_id    uuid NOT NULL REFERENCES catalog.publisher,
    number          bigint NOT NULL,
    amount          numeric(39,0) NOT NULL,
    PRIMARY KEY (wallet_id, month, archive_id, kind, publisher_id)
);
CREATE INDEX carried_bought_archive ON ledger.carried_bought (archive_id);
CREATE INDEX carried_bought_month ON ledger.carried_bought (month);
CREATE TRIGGER carried_bought_immutable BEFORE UPDATE OR DELETE ON ledger.carried_bought
    FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER carried_bought_kept BEFORE TRUNCATE ON ledger.carried_bought
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- One row for each cause and month in which it moved something, and the sums of those that are archived: these have no
-- cause. What came back in the month in which it was paid is taken off, and counts if anything is left; what came back
-- for an earlier month is a refund.
CREATE VIEW ledger.bought AS
    SELECT m.cause_id, m.wallet_id, m.month, CASE WHEN m.fresh THEN m.kind ELSE 'refund' END AS kind, m.publisher_id,
           (m.amount <> 0 OR NOT m.fresh)::integer::bigint AS number, m.amount::numeric(39,0) AS amount
      FROM (SELECT t.cause_id, t.wallet_id, (ledger.month_of(t.created_at) AT TIME ZONE 'UTC')::date AS month,
                   CASE WHEN 'penalties' IN (d.purpose, c.purpose) THEN 'penalty'
                        WHEN f.id IS NULL THEN 'usage' ELSE 'charge' END AS kind,
                   CASE WHEN t.kind = 'refund' THEN d.publisher_id ELSE c.publisher_id END AS publisher_id,
                   bool_or(t.kind <> 'refund') AS fresh,
                   sum(CASE WHEN t.kind = 'refund' THEN -t.amount ELSE t.amount END) AS amount
              FROM ledger.transfer t
              JOIN ledger.account d ON d.id = t.debit_account
              JOIN ledger.account c ON c.id = t.credit_account
              LEFT JOIN ledger.direct_charge f ON f.id = t.cause_id
             WHERE t.wallet_id IS NOT NULL AND t.kind IN ('charge', 'capture', 'refund', 'penalty')
             GROUP BY 1, 2, 3, 4, 5) m
    UNION ALL
    SELECT NULL, b.wallet_id, b.month, b.kind, b.publisher_id, b.number, b.amount FROM ledger.carried_bought b;

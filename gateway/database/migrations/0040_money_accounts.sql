-- Which owner the accounts of 0039 have: disputed money is an agent's, penalties are a publisher's, the rest the platform's.
ALTER TABLE ledger.account
    DROP CONSTRAINT account_check,
    DROP CONSTRAINT account_check3,
    ADD CONSTRAINT account_of_wallet
        CHECK ((wallet_id IS NOT NULL) = (purpose IN ('deposit', 'promotional', 'funded', 'held', 'disputed'))),
    ADD CONSTRAINT account_of_publisher
        CHECK ((publisher_id IS NOT NULL) = (purpose IN ('deposit', 'earnings', 'paying_out', 'penalties')));
CREATE UNIQUE INDEX account_disputed ON ledger.account (wallet_id) WHERE purpose = 'disputed';
DROP INDEX ledger.account_publisher;
CREATE UNIQUE INDEX account_publisher ON ledger.account (publisher_id, asset_id, purpose)
    WHERE purpose IN ('earnings', 'paying_out', 'penalties');

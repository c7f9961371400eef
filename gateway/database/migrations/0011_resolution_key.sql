-- Every table has a primary key: replication and tools name rows by it. One exchange may have several decisions.
ALTER TABLE ledger.resolution ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;

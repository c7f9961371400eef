-- Operators' decisions about exchanges without an end count against the bound of four eyes as well.
ALTER TABLE ledger.approval DROP CONSTRAINT approval_kind_check;
ALTER TABLE ledger.approval ADD CONSTRAINT approval_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution'));
ALTER TABLE ledger.moved_alone DROP CONSTRAINT moved_alone_kind_check;
ALTER TABLE ledger.moved_alone ADD CONSTRAINT moved_alone_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution'));

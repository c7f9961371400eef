-- Every operator act that moves money counts against the bound of four eyes: decisions about exchanges without an end as
-- well, and deposits that go back to their card.
ALTER TABLE ledger.approval DROP CONSTRAINT approval_kind_check;
ALTER TABLE ledger.approval ADD CONSTRAINT approval_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution', 'deposit_refund'));
ALTER TABLE ledger.moved_alone DROP CONSTRAINT moved_alone_kind_check;
ALTER TABLE ledger.moved_alone ADD CONSTRAINT moved_alone_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution', 'deposit_refund'));

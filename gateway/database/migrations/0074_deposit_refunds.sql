-- Refunds of card deposits that operators order: stored before Stripe hears of them, so that a crash loses none and each
-- is sent once. They count against the bound of four eyes.
--
-- An order is open until Stripe's refund that names it is booked (`refund_id`), or Stripe has refused it (`refused`).
CREATE TABLE card.refund_order (
    id          uuid PRIMARY KEY,
    deposit_id  uuid NOT NULL REFERENCES card.deposit,
    cents       bigint NOT NULL CHECK (cents > 0),
    refund_id   text UNIQUE,
    refused     text,
    ordered_at  timestamptz NOT NULL DEFAULT now(),
    send_at     timestamptz NOT NULL,                       -- from when on a gateway sends it
    CHECK (refund_id IS NULL OR refused IS NULL)
);
CREATE UNIQUE INDEX refund_order_open ON card.refund_order (deposit_id) WHERE refund_id IS NULL AND refused IS NULL;
CREATE INDEX refund_order_deposit ON card.refund_order (deposit_id);

ALTER TABLE ledger.approval DROP CONSTRAINT approval_kind_check;
ALTER TABLE ledger.approval ADD CONSTRAINT approval_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution', 'deposit_refund'));
ALTER TABLE ledger.moved_alone DROP CONSTRAINT moved_alone_kind_check;
ALTER TABLE ledger.moved_alone ADD CONSTRAINT moved_alone_kind_check
    CHECK (kind IN ('correction', 'refund', 'grant', 'resolution', 'deposit_refund'));

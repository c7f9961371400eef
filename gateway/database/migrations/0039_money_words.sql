-- Words for money that comes by card, is charged by first-party services, is invoiced and is paid out. A file of its own,
-- because PostgreSQL uses a new enum value only after its transaction.
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'disputed';       -- an agent's money that a card dispute has frozen
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'penalties';      -- publisher: what slashes have taken from agents
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'card_fees';      -- platform: what card payments cost, an expense
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'receivable';     -- platform: what somebody (`rail`) owes it
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'subscriptions';  -- platform: income from plans and their overage
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'taxes';          -- platform: owed to a tax office
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'penalty';           -- lots -> penalties
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'card_fee';          -- card_fees -> clearing of stripe
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'card_refund';       -- lots -> clearing of stripe: a deposit went back
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'dispute';           -- lots -> disputed: frozen
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'dispute_won';       -- disputed -> lots
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'dispute_lost';      -- disputed -> clearing of stripe
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'shortfall';         -- receivable -> clearing of stripe: what was spent already
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'recovery';          -- lots or clearing -> receivable: a debt is paid
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'payout';            -- earnings or penalties -> paying_out
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'paid_out';          -- paying_out -> clearing of a network: confirmed on chain
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'payout_back';       -- paying_out -> where it came from: cancelled or failed
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'invoice';           -- receivable -> subscriptions and taxes
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'invoice_paid';      -- clearing -> receivable
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'invoice_void';      -- subscriptions and taxes -> receivable

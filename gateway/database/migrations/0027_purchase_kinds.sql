-- Accounts and movements of what the platform buys from upstreams that sell by x402 (0028). Words of their own file,
-- because a new word cannot be used in the transaction that makes it.
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'purchases';  -- platform: what was paid to upstreams, an expense
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'buying';     -- platform: what is in the buying wallet, per network and token
ALTER TYPE ledger.purpose ADD VALUE IF NOT EXISTS 'capital';    -- platform: what its operator has put in
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'funding';       -- capital or clearing -> buying wallet
ALTER TYPE ledger.kind ADD VALUE IF NOT EXISTS 'purchase';      -- buying wallet -> an upstream: its authorization was used

"""Payment rails. x402/ is the wire and its verification, evm/ the chain; money is booked in ledger/."""

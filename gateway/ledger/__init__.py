"""The double-entry ledger: wallets and lots, charges by group commit, holds, refunds, and the proof.

Money moves only through the functions of the `ledger` schema (database/migrations); this folder calls them and names
their verdicts. What does not live here: prices (pricing/), who may do what (identity/), when to charge (billing/).
"""

"""The chain: JSON-RPC, signing keys, the settlement outbox and the relayer that empties it.

Only this folder speaks to a node and only it holds signing keys. Start with settlements.py, the door for callers, then
relayer.py. What does not live here: what a payment header says and whether it may be accepted (payments/x402).
"""

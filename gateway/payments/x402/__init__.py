"""The x402 protocol, versions 1 and 2: what is offered, what a payment header says, and whether it pays. Pure.

No module here does I/O, reads a clock or a setting: facts come in as parameters, decisions go out as values. A reader
starts with offer.py (what we ask for), v2.py and v1.py (the wire), verify.py (the decision) and required.py (the 402).
Money is reserved, moved and reconciled by payments/evm; which call costs what is said in proxy and billing.
"""

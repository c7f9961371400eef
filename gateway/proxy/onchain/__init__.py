"""Calls that bring their payment along: x402 on a chain, from the offer in a 402 to the settled answer.

Start with rail.py, which has the steps in order. What does not live here: what a payment header says and whether it
pays (payments/x402), the chain (payments/evm), when which payment is settled (billing/x402_per_request.py).
"""

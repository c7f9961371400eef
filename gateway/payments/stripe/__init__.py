"""The card rail: Stripe, by its official library, and the events that it sends.

client.py is the door, intake.py takes events. What a payment buys lives above: billing/card_deposits.py for wallets.
"""

"""Webhooks: who wants to hear of what, and the outbox that is written with the change.

What does not live here: sending (gateway/jobs/webhooks.py), and what is only derived later (gateway/jobs/alerts.py).
"""

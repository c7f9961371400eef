"""Who is calling: accounts, organizations, API keys, permissions.

`principals.py` is the hot path's cache; the other files serve the admin API. What does not live here: money.
"""

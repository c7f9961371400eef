"""Rate limits: how often one principal may do one thing.

`limiter.RateLimiter` is the only door. Nothing outside this folder knows Redis or Valkey; nothing in here knows money,
HTTP requests or who a principal is.
"""

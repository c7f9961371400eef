"""Work beside the calls: the change listener, the heartbeat, expiry and the reconciler. Each is safe to run anywhere
and at any time; those that only one worker should do take an advisory lock in the database.
"""

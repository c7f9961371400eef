"""What the gateway's operators do with tenants: suspend and restore, search, look a call up, refund and correct.

The operators' API (admin_api/resources/operator_*.py) and the command line are two doors to the same functions here.
Every change is written down twice: in the owner's audit log, with what concerns the owner, and in the platform's.
"""

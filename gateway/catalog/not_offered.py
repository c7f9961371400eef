"""Fields of the contract that this gateway cannot honour: refused when they are set, with the reason and the way round.

Accepting one in silence would sell something else than was described: an hour that nobody counts, an ownership that
nobody checks. What is asked is the request and not the merged whole, so that clearing such a field is never refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.catalog.refusals import refused

COMPUTE = (
    "compute cannot be sold here: this gateway runs no code of publishers. Put an HTTP API or an MCP server before it, "
    "and publish that as an integration"
)
BRANCHES = (
    "names nothing: this gateway keeps no branches yet. Name a PostgreSQL by the connection_string of database_config"
)
OWNERSHIP = (
    "is not offered: this gateway does not know who owns what calls make. An endpoint with is_protected is closed to "
    "every caller"
)

# Fields that mean nothing here, whatever they say; null, false and empty ask for nothing.
FIELDS: Mapping[str, str] = {
    "compute_type": COMPUTE,
    "hourly_rate": (
        "is not offered: nothing is sold by the hour. Price calls, or let answers say what they cost (pay_per_use)"
    ),
    "grace_period_minutes": (
        "must be 0: nobody calls on credit, so a balance below minimum_balance ends calls at once. "
        "low_balance_threshold warns callers before"
    ),
    "branch_id": BRANCHES,
    "database_name": "is not read: the database is the one in the connection_string of database_config",
    "ownership_tracking_enabled": OWNERSHIP,
    "resource_id_response_path": OWNERSHIP,
    "resource_id_url_pattern": OWNERSHIP,
    "protected_operations": OWNERSHIP,
}  # fmt: skip
# Single words of fields that have others.
WORDS: Mapping[tuple[str, str], str] = {
    ("publisher_category", "compute"): COMPUTE,
    ("publisher_type", "verified_partner"): (
        "is nothing to say of oneself: an operator verifies publishers (tollway publisher verify); is_verified shows it"
    ),
    ("database_type", "mongodb"): "is not offered: queries are SQL, of a PostgreSQL",
}  # fmt: skip


def check_offered(changes: Mapping[str, Any]) -> None:
    """Raise InvalidRequest when a request asks for what is not offered."""
    for name, value in changes.items():
        words = FIELDS.get(name) if value else None
        if words is None and isinstance(value, str):
            words = WORDS.get((name, value))
        if words is not None:
            raise refused(name, words)

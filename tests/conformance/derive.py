"""Write tests/conformance/contract.json from a copy of the contract: python -m tests.conformance.derive OPENAPI_JSON

Run it again when more of the contract is served: the operations are those that SERVED names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.conformance.shapes import operations

FIXTURE = Path(__file__).with_name("contract.json")
WHOLE_CATEGORIES = (
    "agent",
    "agent-wallet",
    "Agent Analytics",
    "publishers",
    "OAuth",
    "oauth-providers",
    "Organizations",
    "RBAC",
    "Auth",
    "Sessions",
    "Plans",
    "webhooks",
    "Projects",
    "IP Allow Lists",
    "billing",
)
SERVED = frozenset(
    [
        "create_payment_intent",
        "get_payment_history",
        "get_current_user",
        "get_supported",
        "list_default_org_api_keys",
        "create_default_org_api_key",
        "revoke_default_org_api_key",
        "list_org_api_keys",
        "create_org_api_key",
        "revoke_org_api_key",
        "list_audit_logs",
        "get_audit_log",
        "list_webhooks",
        "create_webhook",
        "get_webhook",
        "update_webhook",
        "delete_webhook",
        "list_webhook_deliveries",
        "rotate_webhook_secret",
        "list_event_types",
        "list_payment_methods",
        "add_payment_method",
        "delete_payment_method",
        "create_charge",
        "get_charge_status",
        "refund_charge",
        "slash_charge",
        "get_agent_balance",
        "create_payout",
        "get_payout_status",
    ]
)


def derived(contract: dict[str, Any]) -> str:
    """Return the fixture's text: one operation a line."""
    chosen = {
        name: operation
        for name, operation in operations(contract).items()
        if operation["tag"] in WHOLE_CATEGORIES or operation["id"] in SERVED
    }
    lines = [f"{json.dumps(name)}:{json.dumps(operation, separators=(',', ':'))}" for name, operation in chosen.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FIXTURE.write_text(derived(json.loads(Path(sys.argv[1]).read_text())))

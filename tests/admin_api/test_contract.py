"""The served OpenAPI document against the contract, by the contract's own tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from admin_api.app import build, document

CONTRACT = Path(os.environ.get("TOLLWAY_CONTRACT") or Path(__file__).resolve().parents[3] / "shared" / "contract")
EXACT = {
    "agent": None,
    "agent-wallet": None,
    "publishers": None,
    "Organizations": {
        "list_organizations",
        "list_org_publishers",
        "create_publisher",
        "get_org_publisher",
        "update_publisher",
        "delete_publisher",
        "update_publisher_pricing",
        "get_org_publisher_earnings",
        "list_org_publisher_payouts",
        "create_org_publisher_payout",
        "upload_publisher_logo",
    },
    "Auth": {
        "get_current_user",
        "list_default_org_api_keys",
        "create_default_org_api_key",
        "revoke_default_org_api_key",
        "list_org_api_keys",
        "create_org_api_key",
        "revoke_org_api_key",
    },
}


@pytest.mark.skipif(not (CONTRACT / "coverage.py").is_file(), reason="the contract folder is not beside the checkout")
async def test_every_served_operation_is_exact_without_notes(tmp_path: Path) -> None:
    served = tmp_path / "openapi.json"
    served.write_text(json.dumps(document(build(None))))  # pyright: ignore[reportArgumentType] - no request is made
    tool = [sys.executable, str(CONTRACT / "coverage.py"), str(served), "--strict", "--json", "--category", *EXACT]
    report = json.loads(subprocess.run(tool, capture_output=True, text=True, check=False).stdout)
    wanted = [
        row for row in report["operations"] if (EXACT[row["category"]] or {row["operation_id"]}) & {row["operation_id"]}
    ]
    assert {row["operation_id"]: row["shortfalls"] for row in wanted if not row["exact"]} == {}
    assert len(wanted) == 1 + 12 + 8 + 11 + 7


async def test_extensions_are_marked() -> None:
    paths = document(build(None))["paths"]  # pyright: ignore[reportArgumentType]
    for path in ("/", "/health/live", "/health/ready", "/metrics", "/problems/{name}"):
        assert paths[path]["get"]["x-extension"] is True
    assert "HTTPValidationError" not in json.dumps(document(build(None)))  # pyright: ignore[reportArgumentType]

"""Texts of the command line and of files are as strictly judged as those of the API: they are stored and shown alike."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.dev import tollway

ESCAPE, CSI = "\x1b[2J", "\x9b31m"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("suspend", "publisher", "shop", "--reason", f"fraud{ESCAPE}"), "--reason has a control character"),
        (("suspend", "publisher", "shop", "--reason=" + CSI), "--reason has a control character"),
        (("suspend", "publisher", "shop", "--reason", "x", "--note", "a\x07"), "--note has a control character"),
        (("restore", "publisher", f"shop{ESCAPE}"), "an argument has a control character"),
        (("wallet", "grant", "agent", "1", "--reference", "a\nb"), "--reference has a line end"),
        (("wallet", "grant", "agent", "1", "--note", ESCAPE), "--note has a control character"),
        (
            ("wallet", "correct", "agent", "credit", "1", "--reference", "a\tb", "--reason", "x"),
            "--reference has a line",
        ),
        (("exchanges", "refund", str(uuid4()), "--reason", "\x00".replace("\x00", "\x01")), "--reason has a control"),
        (("invoices", "void", str(uuid4()), "--reason", ESCAPE), "--reason has a control character"),
        (("plan", "set", f"acme{CSI}"), "has a control character"),
        (("audit", "list", "--organization", "a\u2028b"), "--organization has a line end"),
        (("find", "accounts", "a\udcff"), "bytes that are not UTF-8"),
    ],
)
def test_control_characters_on_the_command_line_are_refused_by_name(arguments: tuple[str, ...], says: str) -> None:
    refused = tollway(*arguments)
    assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr
    assert "\x1b" not in refused.stderr
    assert "\x9b" not in refused.stderr


def test_a_reason_may_have_several_lines() -> None:
    taken = tollway("suspend", "publisher", "shop", "--reason", "first\nsecond")
    assert "line end" not in taken.stderr


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", f"Shop{ESCAPE}", "control character"),
        ("name", "Shop\nFORGED", "one line"),
        ("description", CSI, "control character"),
        ("categories", ["a", "b\x07"], "control character"),
    ],
)
def test_a_publishers_file_is_judged_as_a_body_of_the_api(tmp_path: Path, field: str, value: object, says: str) -> None:
    order: dict[str, object] = {
        "name": "Shop", "slug": "shop-of-a-file", "publisher_category": "integration", "integration_type": "api",
        "api_url": "https://api.example.com", "price_per_call": "0.01",
        "wallet_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "wallet_network_id": "eip155:84532",
        field: value,
    }  # fmt: skip
    file = tmp_path / "publisher.json"
    file.write_text(json.dumps(order))
    refused = tollway("publisher", "create", "--file", str(file), "--organization", str(uuid4()))
    assert (refused.returncode, says in refused.stderr) == (1, True), refused.stderr
    file.write_text('{"name": "a", "name": "b"}')
    twice = tollway("publisher", "create", "--file", str(file), "--organization", str(uuid4()))
    assert "same key twice" in twice.stderr

"""The table of actions in docs/audit.md is the one in the code."""

from __future__ import annotations

import re

from gateway.audit.actions import ACTIONS
from tests.docs.markdown import ROOT


def test_the_table_of_actions_is_true() -> None:
    told: dict[str, str] = {}
    for line in (ROOT / "docs" / "audit.md").read_text().splitlines():
        row = re.fullmatch(r"\| (access|catalog|money|settings) \| `(\w+)` \| (.+) \|", line)
        if row is not None:
            told |= {f"{row[2]}.{name}": row[1] for name in re.findall(r"`(\w+)`", row[3])}
    assert told == ACTIONS

"""What README.md says about these tests is there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = re.compile(r"`((?:onchain|evm|x402|facilitator)/\w+\.py)(?:::(\w+))?`")


def test_every_test_that_is_named_exists() -> None:
    named = set(NAMED.findall((HERE / "README.md").read_text()))
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not (HERE / file).is_file() or f"def {name}(" not in (HERE / file).read_text() + "def ("
    ]
    assert missing == []

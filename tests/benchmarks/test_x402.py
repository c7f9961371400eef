"""The comparison of paid calls runs, and chain and books agree afterwards; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_quick_run_settles_every_payment_and_proves_it(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("there is no wrk")
    command = [sys.executable, "-m", "benchmarks.x402", "--quick", "--connections", "10", "--against", "fastapi"]
    done = subprocess.run(
        [*command, "--name", "smoke", "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "smoke-x402.json").read_text())
    rows = [(row["seller"], row["way"]) for row in report["rows"]]
    assert rows == [
        ("tollway", "deferred"),
        ("tollway", "before_response"),
        ("tollway", "settle_first"),
        ("fastapi", "own facilitator"),
        ("fastapi", "our facilitator"),
    ]
    assert all(one["calls"] > 0 and one["settled"] >= one["calls"] for row in report["rows"] for one in row["rounds"])
    proof = report["proof"]
    assert proof["sound"]
    assert proof["treasury_gained"] == proof["ledger_received"] == 10_000 * proof["payments_booked"]
    assert str(ROOT) not in (tmp_path / "smoke-x402.md").read_text() + json.dumps(report)

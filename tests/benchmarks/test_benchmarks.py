"""The benchmark runs, measures what it says and keeps the books; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_quick_run_writes_a_valid_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--seconds", "0.3", "--generator", "builtin"]
    done = subprocess.run(
        [*command, "--name", "smoke", "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "smoke.json").read_text())
    kinds = [row["kind"] for row in report["rows"] if row["kind"] != "nginx"]
    assert kinds == ["bare", "unpriced", "prepaid", "prepaid"]
    assert report["valid"]
    assert all(row["valid"] and row["requests_per_second"]["min"] > 0 for row in report["rows"])
    assert report["proof"]["sound"]
    assert report["proof"]["charges"] > 0
    assert report["services"]["postgres"]["fsync"] == "on"
    assert report["services"]["postgres"]["synchronous_commit"] == "on"
    last = report["rows"][-1]
    assert set(last["cpu_us_per_request"]) == {"proxy", "postgres", "valkey"}
    assert {"bare", "unpriced"} <= set(last["ratio_to"])
    table = (tmp_path / "smoke.md").read_text()
    assert "prepaid, granian, one agent" in table
    assert str(tmp_path) not in table
    assert str(ROOT) not in table + json.dumps(report)

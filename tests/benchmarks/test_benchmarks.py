"""The benchmark runs, measures what it says and keeps the books; how fast anything is, no test asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--quick", "--connections", "3", "--servers", "tollway", "--seconds", "0.3", "--name", "smoke")
pytestmark = pytest.mark.usefixtures("load_generator")


def run(output: Path, *options: str) -> dict[str, Any]:
    """Run it and return its report."""
    command = [sys.executable, "-m", "benchmarks", *OPTIONS, *options, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((output / "smoke.json").read_text())
    assert report["valid"]
    return report


def test_paid_calls_are_measured_and_booked(tmp_path: Path) -> None:
    report = run(tmp_path, "--kinds", "prepaid", "--agents", "7", "--extras", "none")
    assert [row["kind"] for row in report["rows"]] == ["prepaid"]
    assert report["proof"]["sound"]
    assert report["proof"]["charges"] > 0


@pytest.mark.slow
def test_a_tiny_run_writes_a_valid_report(tmp_path: Path) -> None:
    extras = "writes,overload,idle,sustained,workers"
    report = run(tmp_path, "--kinds", "bare,sketch,unpriced,prepaid", "--agents", "7,1", "--extras", extras)
    assert [(row["kind"], row["agents"]) for row in report["rows"]] == [
        ("bare", 0), ("sketch", 0), ("unpriced", 7), ("prepaid", 7), ("prepaid", 1),
    ]  # fmt: skip
    assert all(row["valid"] and row["calls_per_second"]["min"] > 0 for row in report["rows"])
    proof = report["proof"]
    assert proof["sound"]
    assert proof["charges"] > 0
    assert proof["difference"] == proof["allowance"] == 0, "every call had its answer, so nothing may be off by one"
    assert report["services"]["postgres"]["fsync"] == report["services"]["postgres"]["synchronous_commit"] == "on"
    assert set(report["rows"][-1]["ratio_to"]) == {"bare", "sketch", "unpriced"}
    assert report["rows"][-1]["cpu_us_per_call"]["postgres"] >= 0
    _findings(report["findings"])
    assert report["machine"]["cpu"]
    assert report["machine"]["commit"]
    text = (tmp_path / "smoke.md").read_text()
    assert "prepaid, tollway, one agent" in text
    assert str(tmp_path) not in text
    assert str(ROOT) not in text + json.dumps(report)


def _findings(found: dict[str, Any]) -> None:
    calls = found["writes"]["per_call"]
    assert isinstance(calls, list)
    assert [one["connections"] for one in calls] == [1, 16]
    for one in calls:
        assert one["wal"] > 100
        assert 0 < one["fsyncs"] < 5
        assert one["database_trips"] > 0
        assert one["valkey_trips"] > 0
    overload = found["overload"]
    assert overload["charged"] == overload["owed"] != 0
    sustained = found["sustained"]
    assert sustained["charged"] == sustained["owed"] != 0
    assert sustained["proof"]["sound"]
    assert {*sustained["left_later"].values()} == {0}, "nothing is left to book"
    assert [(row["kind"], row["workers"]) for row in found["workers"]["rows"]] == [
        ("unpriced", 1), ("unpriced", 2), ("prepaid", 1), ("prepaid", 2),
    ]  # fmt: skip
    assert found["workers"]["layouts"]["1"].startswith("worker 1 on core ")
    stream = found["idle"]["stream"]
    assert isinstance(stream, dict)
    assert stream["bytes_each"] > 0
